//! The HTTP edge: listeners, handshakes, callbacks, the operator's pages. The only code that speaks axum.
//!
//! ```text
//! accept ─► PROXY header ─► TLS ─► first request ─┬─ upgrade ─────────► handshake ─► session (leaves this module for good)
//!                                                 ├─ plain callback ──► answered here, next request on the same connection
//!                                                 └─ anything else ───► hyper and axum, with the bytes already read
//! ```
//!
//! The first two are parsed by us: the handshake because the event shows header names as the client spelled them, which
//! an HTTP stack does not keep; the plain callback (`POST …/@connections/{id}` with a length) because it is the hottest
//! path of the product, and everything an HTTP stack adds is what it would cost more.

mod admin;
mod callback;
pub mod certificates;
mod entrance;
mod forwarded;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod listener;
mod networks;
mod proxy;
mod replay;
mod respond;
mod router;
#[cfg(test)]
mod tests;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use admin::Admin;
pub use callback::CallbackAccess;
pub use forwarded::{ForwardedHeader, Proxies};
pub use listener::{BindError, Listener};
pub use networks::{Networks, NetworksError};

use crate::gateway::Gateway;
use crate::tasks::Tasks;

/// What the listeners may use.
#[derive(Debug, Clone)]
pub struct Config {
    /// Longest time for TLS and the head of a first request, and for a body. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a kept-alive connection may be silent between requests. Default 60 s: above what SDKs keep theirs.
    pub keep_alive: Duration,
    /// Largest head of a request. Default 16 KiB.
    pub max_header_bytes: usize,
    /// Connections that are not sessions: handshakes in progress, callbacks, REST. Default 8,192.
    pub max_connections: usize,
    /// File descriptors kept back for upstreams, logs and the rest. Default 256.
    pub reserved_files: usize,
    /// File descriptors this process may open.
    pub max_files: usize,
    /// Who may call the callback paths.
    pub access: CallbackAccess,
    /// Whether only loopback host names and declared domains are answered.
    pub loopback_names_only: bool,
    /// Who stands in front, and what is believed of it.
    pub proxies: Proxies,
}

impl Config {
    /// File descriptors that sessions may use.
    const fn files_for_sessions(&self) -> usize {
        self.max_files.saturating_sub(self.reserved_files)
    }

    /// File descriptors that connections of the public listener may use, sessions or not: half of the reserve is theirs
    /// too, so that a node full of sessions can be pushed to and can say no to the next client.
    const fn files_for_connections(&self) -> usize {
        self.max_files.saturating_sub(self.reserved_files.div_ceil(2))
    }
}

/// What every connection of a listener shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) config: Config,
    pub(crate) tasks: Tasks,
    /// Connections that are not sessions, now.
    pub(crate) connections: AtomicUsize,
    /// Connections that did not come through the proxies.
    strangers: entrance::Strangers,
}

impl Shared {
    /// Whether another client fits: sessions and the connections that may become some leave the reserve alone.
    fn has_room_for_a_session(&self) -> bool {
        let sessions = self.gateway.hub().stats().parked;
        sessions + self.connections.load(Ordering::Relaxed) <= self.config.files_for_sessions()
    }
}

/// Where a connection came from and what it came in on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// Who opened the TCP connection: the client, or a proxy. Nothing that anybody says changes it.
    pub(crate) hop: IpAddr,
    /// The client, as far as the connection tells: whom the PROXY header names, else the same.
    pub(crate) peer: SocketAddr,
    /// Whether the PROXY header names nobody: the proxy's own connection, in which there is no client to speak of.
    pub(crate) is_anonymous: bool,
    /// The port that the client connected to: the proxy's, if the PROXY header names it, else the listener's.
    pub(crate) port: u16,
    /// Whether the client is over TLS.
    pub(crate) is_tls: bool,
}
