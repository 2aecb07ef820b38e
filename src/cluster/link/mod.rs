//! Links between nodes: the production side of [`Transport`] and the server that calls [`Serve`].
//!
//! One long-lived connection a pair of nodes, always TLS 1.3, each end proven to the other before anything else is read.
//! Requests and answers travel as small frames with ids, many in one write; each request has a deadline, each queue a
//! bound. A failure says what is known: *not sent* (nothing was done) or *unanswered* (it may have been done); nothing is
//! ever sent again silently.
//!
//! ```text
//!  ask ──► frame into the line's buffer ──► the link's task writes all that has gathered ──► TLS ──► the other node
//!   ▲                                                                                                │
//!   └── oneshot ◄── answer found by its id ◄── the link's task reads ◄── one write ◄── served in place, in order
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `credentials.rs` | files and secret to TLS and proofs |
//! | `greeting.rs` | from a socket to a proven peer, versions |
//! | `frame.rs`, `codec/` | bytes |
//! | `line.rs` | a link as askers see it: queue, pending answers |
//! | `wire.rs` | a link's task |
//! | `peers.rs` | which links there are: dialling, crossed dials, ends |
//! | `accept.rs` | strangers, welcome, dialling back |

mod accept;
mod codec;
mod credentials;
mod frame;
pub(crate) mod fuzzing;
mod greeting;
mod hush;
mod line;
mod peers;
mod stats;
mod wire;

use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

pub use credentials::{Certificates, Credentials, LinkSetupError, MIN_SECRET_BYTES};
pub use stats::LinkStats;

use self::credentials::Keys;
use self::greeting::{Hello, Purpose};
use self::hush::Hush;
use self::line::{Line, NotTaken};
use self::peers::{Table, Way};
use self::stats::add;
use super::registry::Peer;
use super::transport::{Asked, LinkError, Request, Response, Serve, Transport};
use crate::ids::Incarnation;
use crate::tasks::Tasks;

/// Protocol numbers this version speaks. Nodes speak the highest that both know; without one there is no link.
pub const PROTOCOLS: RangeInclusive<u16> = 1..=1;
/// Nobody waits longer; a deadline without an end would be none.
const LONGEST_DEADLINE: Duration = Duration::from_secs(3_600);
/// All of a probe.
const PROBE: Duration = Duration::from_millis(1_500);
/// The part of it that a ping on the link there is may take, before a new connection is tried.
const PROBE_PING: Duration = Duration::from_millis(750);

/// How this node's end of the links is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// How nodes know each other.
    pub credentials: Credentials,
    /// Protocol numbers to speak; [`PROTOCOLS`] but for tests of what happens between versions.
    pub protocols: RangeInclusive<u16>,
}

impl Config {
    /// A set-up that speaks what this version speaks.
    pub const fn new(listen: SocketAddr, credentials: Credentials) -> Self {
        Self { listen, credentials, protocols: PROTOCOLS }
    }
}

/// A socket that listens, before anybody serves: its address can be told to the cluster.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    local: SocketAddr,
    keys: Keys,
    protocols: RangeInclusive<u16>,
}

impl Bound {
    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Begins to accept links and to serve what they ask. Everything ends when the token of `tasks` is cancelled.
    ///
    /// # Errors
    /// When the runtime cannot take the socket.
    pub fn start(self, serve: Arc<dyn Serve>, tasks: Tasks) -> Result<Arc<Links>, LinkSetupError> {
        let Self { listener, local, keys, protocols } = self;
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|source| LinkSetupError::Listen { address: local, source })?;
        let links = Arc::new_cyclic(|own| Links {
            own: Weak::clone(own),
            keys,
            protocols,
            serve,
            tasks,
            table: Mutex::default(),
            said: Hush::new(),
            stats: LinkStats::default(),
        });
        links.tasks.spawn("link-listener", accept::listen(Arc::clone(&links), listener));
        Ok(links)
    }
}

/// What is said at most once a minute.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Said {
    Stranger(IpAddr),
    Protocol(IpAddr),
    NoDial(Incarnation),
    Lost(Incarnation),
    Malformed(Incarnation, &'static str),
    ToldUnreachable(Incarnation),
    NoSockets,
}

/// One peer as its link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// The peer.
    pub incarnation: Incarnation,
    /// The address it advertises.
    pub address: Arc<str>,
    /// Whether there is a link.
    pub connected: bool,
    /// Whether this node has reached that address when it last tried; `None` before it has.
    pub dialable: Option<bool>,
    /// Requests that wait for an answer.
    pub unanswered: usize,
    /// Bytes that wait to be written.
    pub queued_bytes: usize,
}

/// All links of this node.
///
/// Locks: the table's, held for map operations and while links are ended, then a line's under it.
pub struct Links {
    own: Weak<Self>,
    keys: Keys,
    protocols: RangeInclusive<u16>,
    serve: Arc<dyn Serve>,
    tasks: Tasks,
    table: Mutex<Table>,
    said: Hush<Said>,
    stats: LinkStats,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("peers", &self.statuses()).finish_non_exhaustive()
    }
}

impl Links {
    /// Reads the credentials and listens.
    ///
    /// # Errors
    /// [`LinkSetupError`], with the file or the address and the reason.
    pub fn bind(config: &Config) -> Result<Bound, LinkSetupError> {
        let keys = Keys::new(&config.credentials)?;
        let cannot = |source| LinkSetupError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let local = listener.local_addr().map_err(cannot)?;
        Ok(Bound { listener, local, keys, protocols: config.protocols.clone() })
    }

    /// Every peer this node has to do with, by incarnation.
    pub fn status(&self) -> Vec<LinkStatus> {
        self.statuses()
    }

    /// The counters.
    pub const fn stats(&self) -> &LinkStats {
        &self.stats
    }

    fn stranger(&self, from: SocketAddr, reason: &str) {
        add(&self.stats.strangers_refused, 1);
        if self.said.may_say(Said::Stranger(from.ip())) {
            tracing::warn!(peer.ip = %from.ip(), reason, "a stranger at the node link was turned away");
        }
    }

    fn told_unreachable(&self, line: &Line, reason: &str) {
        add(&self.stats.told_unreachable, 1);
        if self.said.may_say(Said::ToldUnreachable(line.peer)) {
            tracing::warn!(
                peer.incarnation = line.peer.get(),
                reason = reason.escape_debug().to_string(),
                "another node cannot reach this one at the address it advertises: check --node-address"
            );
        }
    }

    async fn ask_within(&self, peer: &Peer, request: &Request, deadline: Duration) -> Result<Response, LinkError> {
        let until = Instant::now() + deadline.min(LONGEST_DEADLINE);
        let mut line = self.line(peer.incarnation);
        // A second attempt is made only after a link that took nothing, because it had just begun to retire.
        for _ in 0..2 {
            let current = match line.take() {
                Some(line) => line,
                None => self.reach(peer, until).await?,
            };
            match current.ask(request, until.saturating_duration_since(Instant::now())) {
                Ok(ticket) => return ticket.answer(until).await,
                Err(NotTaken::Closed) => {}
                Err(NotTaken::Full) => return Err(LinkError::NotSent("the link's queue is full".to_owned())),
                Err(NotTaken::TooLarge) => return Ok(Response::TooLarge),
            }
        }
        Err(LinkError::NotSent("the link is ending".to_owned()))
    }

    async fn reach(&self, peer: &Peer, until: Instant) -> Result<Arc<Line>, LinkError> {
        match self.way(peer) {
            Way::There(line) => Ok(line),
            Way::None(reason) => Err(LinkError::NotSent(reason)),
            Way::Wait(linked) => match timeout_at(until, linked).await {
                Ok(Ok(linked)) => linked.map_err(LinkError::NotSent),
                Ok(Err(_)) => Err(LinkError::NotSent("this node is ending".to_owned())),
                Err(_) => Err(LinkError::NotSent("no connection within the deadline".to_owned())),
            },
        }
    }

    async fn answers(&self, peer: &Peer) -> bool {
        if let Some(line) = self.line(peer.incarnation)
            && let Ok(ticket) = line.ping()
            && ticket.answer(Instant::now() + PROBE_PING).await.is_ok()
        {
            return true;
        }
        let Some(me) = self.me() else { return false };
        let hello = Hello::new(&me, peer.incarnation, self.protocols.clone(), Purpose::Probe);
        greeting::dial(&self.keys, &peer.info.address, &hello).await.is_ok()
    }
}

impl Transport for Links {
    fn ask<'a>(&'a self, peer: &'a Peer, request: Request, deadline: Duration) -> Asked<'a> {
        Box::pin(async move {
            let answer = self.ask_within(peer, &request, deadline).await;
            let counter = match &answer {
                Ok(_) => &self.stats.answered,
                Err(LinkError::NotSent(_)) => &self.stats.not_sent,
                Err(LinkError::Unanswered(_)) => &self.stats.unanswered,
            };
            add(counter, 1);
            answer
        })
    }

    fn probe<'a>(&'a self, peer: &'a Peer) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move { timeout(PROBE, self.answers(peer)).await.unwrap_or(false) })
    }

    fn peers(&self, me: &Peer, others: &[Peer]) {
        self.set_peers(me, others);
    }
}

#[cfg(test)]
mod tests;
