//! What the gateway is measured beside: each as small and as fast as its kind allows.

pub mod echo;
pub mod nginx;
pub mod origin;
pub mod poster;

use std::process::Command;

use anyhow::Result;
use clap::Subcommand;

use crate::process;

/// Peers that are part of the driver; it starts itself again with one of these.
#[derive(Debug, Subcommand)]
pub enum Peer {
    /// A bare tungstenite echo server, a task per connection.
    Echo {
        /// Read buffer in bytes; without it the library's default.
        #[arg(long)]
        read_buffer: Option<usize>,
    },
    /// A bare HTTP server that answers every POST with the same 64 bytes.
    Origin,
    /// A bare hyper client that POSTs on demand.
    Poster {
        /// Where to.
        #[arg(long)]
        to: hyper::Uri,
        /// How many at once.
        #[arg(long)]
        in_flight: usize,
    },
}

impl Peer {
    /// Runs until ended.
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self {
            Self::Echo { read_buffer } => runtime.block_on(echo::run(read_buffer)),
            Self::Origin => runtime.block_on(origin::run()),
            Self::Poster { to, in_flight } => runtime.block_on(poster::run(to, in_flight)),
        }
    }
}

/// A command that starts the driver as one of its peers.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = process::myself()?;
    command.arg("peer").args(arguments);
    Ok(command)
}

/// Prints where a peer listens, in the gateway's own form.
fn announce(address: std::net::SocketAddr) {
    println!("listening public={address}");
}
