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
    /// Look at and act on the connections of a running gateway; in a cluster, of all its nodes.
    Connections(ConnectionsArgs),
    /// Look at and act on the nodes of a cluster.
    Nodes(NodesArgs),
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

/// Which gateway an operator's command is for.
#[derive(Debug, Args)]
pub struct AdminArgs {
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
}

impl AdminArgs {
    /// The admin address as a URL without a slash at its end.
    pub fn url(&self) -> String {
        let address = self.admin.trim_end_matches('/');
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") }
    }
}

/// `causeway connections`.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    /// Which gateway to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// What to do with them.
    #[command(subcommand)]
    pub command: ConnectionsCommand,
}

/// `causeway nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// Which node to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// What to do with them.
    #[command(subcommand)]
    pub command: NodesCommand,
}

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// List the nodes of the cluster, as the node that is asked sees them.
    List,
    /// Have the node that is asked give up a share of its sessions.
    ///
    /// Each gets its exchanges answered and its outbox flushed, then close code 1012 and its `$disconnect`. Its client
    /// connects again wherever the load balancer sends it; the node goes on taking new ones.
    Shed {
        /// How many of its sessions, in percent: above 0, up to 100.
        #[arg(long, value_name = "PERCENT")]
        percent: f64,
        /// How many of them a second.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
        rate: u32,
    },
    /// Declare dead for good the start of a node that made a connection id, where nobody knows anything of it.
    ///
    /// Needed only after the registry was emptied and every node that remembered has restarted since. Ids of the starts
    /// before are then answered 503, since a missing record proves nothing; after this they are answered 410, for ever.
    /// One id of each such start is enough.
    ///
    /// Be sure that no process of that start runs any more: one that does ends its sessions with 1012 when it finds its
    /// tombstone. A start that is listed is refused: the cluster itself finds out whether it is dead.
    Bury {
        /// A connection id that is answered 503.
        #[arg(value_name = "CONNECTION_ID", allow_hyphen_values = true)]
        connection: String,
    },
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
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
    /// Send a text message to one connection.
    Send {
        /// Its id.
        #[arg(allow_hyphen_values = true)]
        id: String,
        /// The message; without it, standard input.
        message: Option<String>,
    },
    /// Close one connection.
    Close {
        /// Its id.
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

/// Takes any text: what is wrong with a secret must not be printed, so it is said later and without the text.
#[expect(clippy::unnecessary_wraps, reason = "the form that the parser asks for")]
pub(super) fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}
