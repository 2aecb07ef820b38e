//! The `causeway` command: arguments, runtime, exit code; nothing else.

use std::process::ExitCode;

use clap::Parser as _;

use causeway::app;
use causeway::config::{Cli, Command, Mode};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _stream_may_be_closed = error.print();
            // Help and version are asked for; anything else is bad usage.
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let outcome = match cli.command {
        Command::Dev(args) => app::serve(Mode::Dev, args),
        Command::Run(args) => app::serve(Mode::Run, args),
        Command::Check(args) => app::check(args),
        Command::Connections(args) => app::connections(&args),
        Command::Nodes(args) => app::nodes(&args),
    };
    outcome.into()
}
