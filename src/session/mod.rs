//! One live WebSocket, and the map of all on this node.
//!
//! An idle session is an open socket, one slot and one map entry: no task, no timer, no buffer. All
//! idle sockets of a shard wait in that shard's parking lot (a readiness set of its own, served by one task). When
//! some become readable the shard takes a *turn* for each: one read, the frames in it, one write.
//!
//! ```text
//!              open()                    push(), from any thread
//!   handshake ───────► Slot in the hub ◄──────────────── back-ends
//!                        │      ▲
//!              adopt     ▼      │ turn: read, messages up, replies down
//!                     parked in the lot ──► Events::on_message, Events::on_end ──► gateway
//! ```
//!
//! A slot is **open** until somebody ends it, **closing** while its close frame travels, then gone. Whoever moves it
//! out of *open* calls [`Events::on_end`]; the slot's lock decides who that is, so it happens once.
//!
//! Locks: the slot's own (write state and the socket; held for one system call), a shard's mailbox, and the map's. A
//! new session is put into the map under its own slot's lock, so that nothing is pushed before its 101; nothing else
//! is taken under a slot's lock, and no slot's lock is ever taken under one of the others.

mod deflate;
#[doc(hidden)]
pub mod fuzzing;
mod handle;
pub mod hub;
mod lot;
mod mailbox;
mod outbox;
mod readiness;
mod slot;
mod stamps;
mod sweep;
pub mod tls;
mod transport;
mod turn;
mod upkeep;
mod walker;

#[cfg(test)]
mod tests;

pub use deflate::{Agreement, negotiate};
pub use handle::{ExchangePermit, PushError, Session};
pub use hub::{Config, Hub, Stats};
pub use outbox::Outgoing;
pub use slot::Socket;
pub use transport::accept_key;
pub use turn::Turn;

use crate::fault::CloseReason;
use crate::ids::ConnectionId;
use crate::limits::Limits;
use crate::message::Message;

/// What the session engine asks of whoever serves its sessions; one value lives in each slot.
///
/// The calls come from the shard's task and must not block: what waits becomes a task of its own.
pub trait Events: Sized + Send + Sync + 'static {
    /// The connection this session is the live end of.
    fn id(&self) -> &ConnectionId;

    /// What the session may use now. Asked once a turn and once a sweep, so that a reload takes effect.
    fn policy(&self) -> Policy;

    /// A whole message from the client. What can be answered at once goes through `turn` and leaves in its one write.
    fn on_message(session: &Session<Self>, message: Message, turn: &mut Turn<'_>);

    /// The session ended, for whatever reason; called exactly once, and pushes get [`PushError::Gone`] before it.
    fn on_end(session: &Session<Self>, reason: &CloseReason);
}

/// Bytes of one slot, without the allocator's own.
#[cfg(test)]
pub(crate) const fn slot_bytes<E>() -> usize {
    size_of::<slot::Slot<E>>()
}

/// What a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Sizes and times.
    pub limits: Limits,
    /// Whether binary messages are handed on; else they close 1003.
    pub accepts_binary: bool,
}
