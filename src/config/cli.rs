//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Options;
use crate::secret::Secret;

/// A self-hosted, WebSocket-first, stateful API gateway.
#[derive(Debug, Parser)]
#[command(name = "causeway", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the definitions on loopback and reload them when a file changes.
    Dev(ServeArgs),
    /// Serve the definitions in production: refuse unsafe states, drain on SIGTERM, reload on SIGHUP.
    Run(ServeArgs),
    /// Check the configuration and all definitions, and print every problem.
    Check(CheckArgs),
    /// Look at and act on the connections of a running gateway.
    Connections(ConnectionsArgs),
}

/// `causeway dev` and `causeway run`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The process configuration, a YAML file.
    #[arg(long, env = "CAUSEWAY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Every setting.
    #[command(flatten)]
    pub options: Box<Options>,
}

/// `causeway check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print the resulting route table.
    #[arg(long)]
    pub print: bool,
    /// Print the JSON Schema of a definition file and do nothing else.
    #[arg(long, conflicts_with = "print")]
    pub schema: bool,
    /// The process configuration, a YAML file.
    #[arg(long, env = "CAUSEWAY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Every setting.
    #[command(flatten)]
    pub options: Box<Options>,
}

/// `causeway connections`.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    /// The admin address of the gateway, as `127.0.0.1:8081` or a URL.
    #[arg(long, env = "CAUSEWAY_ADMIN", default_value = "127.0.0.1:8081", value_name = "ADDRESS", global = true)]
    pub admin: String,
    /// The token of the admin listener.
    #[arg(
        long,
        env = "CAUSEWAY_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        value_parser = clap::builder::ValueParser::new(secret),
        global = true
    )]
    pub admin_token: Option<Secret>,
    /// What to do with them.
    #[command(subcommand)]
    pub command: ConnectionsCommand,
}

impl ConnectionsArgs {
    /// The admin address as a URL without a slash at its end.
    pub fn admin_url(&self) -> String {
        let address = self.admin.trim_end_matches('/');
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
    }
}

/// What to do with connections.
#[derive(Debug, Subcommand)]
pub enum ConnectionsCommand {
    /// List the open connections.
    List {
        /// Only those of this API.
        #[arg(long)]
        api: Option<String>,
        /// Only those of this stage.
        #[arg(long)]
        stage: Option<String>,
    },
    /// Describe one connection.
    Get {
        /// Its id.
        id: String,
    },
    /// Send a text message to one connection.
    Send {
        /// Its id.
        id: String,
        /// The message; without it, standard input.
        message: Option<String>,
    },
    /// Close one connection.
    Close {
        /// Its id.
        id: String,
    },
}

/// Takes any text: what is wrong with a secret must not be printed, so it is said later and without the text.
#[expect(clippy::unnecessary_wraps, reason = "the form that the parser asks for")]
pub(super) fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}
