//! Reach any connection, wherever it lives.
//!
//! Callers ask [`Cluster::place`] and get the session, the proof that it is gone, or *elsewhere*; then [`Node::ask_owner`]
//! carries the request to whoever owns it. On one node the answer is simple: an id of this start of the node names a
//! session in the hub or a connection that has ended; an id of any other start names a node that is no more, since nobody
//! else could have minted it.
//!
//! Among many, three things are kept apart:
//!
//! | | file | stands on |
//! | --- | --- | --- |
//! | who is there, and whose `$disconnect` is whose to run | `node.rs`, `heartbeat.rs`, `scribe.rs`, `view.rs`, `undertaker.rs`, `sweeper.rs`, `writes.rs`, `audit.rs` | the registry port |
//! | what one node asks of another | `delivery.rs` | the transport port |
//! | what stands behind the ports | `redis/`, `memory.rs`; `link/` | |
//!
//! Everything above the ports runs in a simulation as it runs in production.

mod audit;
mod delivery;
mod groups;
mod heartbeat;
mod invocations;
pub mod link;
pub mod memory;
mod node;
pub mod redis;
pub mod registry;
mod scribe;
#[cfg(test)]
mod simulation;
mod sweeper;
pub mod transport;
mod undertaker;
mod view;
mod writes;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;

pub use delivery::DeliveryError;
pub use groups::{GroupName, Groups, MAX_GROUPS_OF_A_CONNECTION};
pub(crate) use invocations::Invocations;
pub use node::{Attempt, Attempting, Config, Health, Local, Node};
pub use writes::Truth;

use crate::ids::{ConnectionId, IdMint, Incarnation};
use crate::session::{Events, Hub, Outgoing, PushError, Session};

/// What became of one message for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Delivered {
    /// Sessions whose outbox took the message.
    pub delivered: usize,
    /// Sessions whose outbox was full.
    pub dropped: usize,
    /// Sessions that had ended meanwhile.
    pub gone: usize,
    /// Nodes whose sessions may not have got it: they did not answer. Left out when it is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreachable: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Delivered {
    /// Counts one attempt.
    pub const fn count(&mut self, outcome: Result<(), PushError>) {
        match outcome {
            Ok(()) => self.delivered += 1,
            Err(PushError::Full) => self.dropped += 1,
            Err(PushError::Gone) => self.gone += 1,
        }
    }

    /// Adds what became of it elsewhere.
    pub const fn add(&mut self, there: Self) {
        self.delivered += there.delivered;
        self.dropped += there.dropped;
        self.gone += there.gone;
        self.unreachable += there.unreachable;
    }
}

/// What a node counts of its life among others; only ever grows.
#[derive(Debug, Default)]
pub struct Counts {
    /// Registry calls that failed.
    pub registry_failures: AtomicU64,
    /// Records and group entries written or removed.
    pub registry_writes: AtomicU64,
    /// Nodes that this one buried.
    pub burials: AtomicU64,
    /// Times that this node was declared dead and was not.
    pub expulsions: AtomicU64,
    /// `$disconnect` calls for connections of dead nodes.
    pub recovered: AtomicU64,
    /// Messages for many that did not get to some node.
    pub fan_outs_short: AtomicU64,
}

/// Where a connection is.
#[derive(Debug)]
pub enum Place<E: Events> {
    /// Here, and open.
    Here(Session<E>),
    /// Proven gone.
    Gone,
    /// Not here: its owner has to be asked.
    Elsewhere,
}

/// This node's view of every connection: its own sessions, its groups, the mint that names them, and the others.
#[derive(Debug)]
pub struct Cluster<E: Events> {
    /// The sessions of this node.
    pub hub: Arc<Hub<E>>,
    /// Who is in which group, on this node.
    pub groups: Groups<E>,
    mint: ArcSwap<IdMint>,
    node: Option<Arc<Node>>,
}

/// Sessions written to before a fan-out lets others run. A write costs 5 µs, one of 8 KiB to a client behind a slow link
/// 15: 64 in a row were a millisecond in everybody else's answers (p50 of 100 echoing sessions 1.9 ms, with 16 0.3 ms).
pub const FAN_OUT_BATCH: usize = 16;

impl<E: Events> Cluster<E> {
    /// The view of a node that has just started and is alone.
    pub fn alone(hub: Arc<Hub<E>>) -> Self {
        // Ids of an earlier start must not find a session of this one: the secret part alone makes that a chance of
        // one in 2^40 an attempt, the random incarnation one in 2^64.
        let incarnation = Incarnation::new(u32::from_be_bytes(crate::ids::random_bytes()));
        Self { hub, groups: Groups::default(), mint: ArcSwap::from_pointee(IdMint::new(incarnation)), node: None }
    }

    /// The view of a node among others.
    pub fn member(hub: Arc<Hub<E>>, node: Arc<Node>) -> Self {
        Self { node: Some(node), ..Self::alone(hub) }
    }

    /// This node among others; `None` when it is alone.
    pub const fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// A fresh id for a connection of this node; `None` while the others take it for dead.
    pub fn mint(&self, slot: u32) -> Option<ConnectionId> {
        let mint = self.mint.load();
        let Some(node) = &self.node else { return Some(mint.mint(slot)) };
        let me = node.me()?;
        if mint.incarnation() == me {
            return Some(mint.mint(slot));
        }
        let fresh = Arc::new(IdMint::new(me));
        let id = fresh.mint(slot);
        // Two at once each start a mint of their own; both have a key that nobody else has.
        self.mint.store(fresh);
        Some(id)
    }

    /// Where a connection is.
    pub fn place(&self, id: &ConnectionId) -> Place<E> {
        if let Some(session) = self.hub.get(id).filter(Session::is_open) {
            return Place::Here(session);
        }
        match &self.node {
            Some(node) if node.me() != Some(id.incarnation()) => Place::Elsewhere,
            Some(_) | None => Place::Gone,
        }
    }
}

/// Sends one message to many sessions, a batch at a time; others run in between.
pub async fn fan_out<E: Events>(sessions: &[Session<E>], outgoing: &Outgoing) -> Delivered {
    let mut result = Delivered::default();
    for batch in sessions.chunks(FAN_OUT_BATCH) {
        for session in batch {
            result.count(session.push(outgoing));
        }
        if sessions.len() > FAN_OUT_BATCH {
            tokio::task::yield_now().await;
        }
    }
    result
}
