//! The composition root: builds every part by name, owns the order of start-up and shutdown.

mod check;
mod cluster;
mod connections;
mod desk;
mod developer;
mod nodes;
mod reload;
mod serve;

use std::process::ExitCode;

pub use check::check;
pub use connections::connections;
pub use nodes::nodes;
pub use serve::{App, StartError, serve};

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Clean,
    /// A definition or the configuration is wrong, or something asked for was refused.
    Bad,
    /// An address could not be bound, or what was needed not reached.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Clean => Self::SUCCESS,
            Exit::Bad => Self::from(1),
            Exit::Unreachable => Self::from(3),
        }
    }
}

/// Says something to the person who started the process. Standard error may be closed; then nobody is there to tell.
fn complain(text: &str) {
    use std::io::Write as _;
    let _nobody_there = writeln!(std::io::stderr(), "{text}");
}

/// Prints a result.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _nobody_there = writeln!(out, "{text}").and_then(|()| out.flush());
}
