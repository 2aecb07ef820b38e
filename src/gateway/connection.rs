//! The gateway's record of one connection, kept in its session's slot; where the session's events arrive.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::message::Exchange;
use super::{Gateway, LiveStage, disconnect, message};
use crate::cluster::{GroupName, Groups, MAX_GROUPS_OF_A_CONNECTION};
use crate::context::ConnectionContext;
use crate::fault::CloseReason;
use crate::ids::ConnectionId;
use crate::message::Message;
use crate::session::{Events, Policy, Session, Turn};

/// Messages of one connection that wait for their turn on serial routes before reading pauses.
const SERIAL_MESSAGES: usize = 64;
/// Bytes of the same.
const SERIAL_BYTES: usize = 256 * 1024;

/// One connection, as long as it lives: about 80 bytes, and nothing else while it is idle.
pub struct Connection {
    pub(super) context: ConnectionContext,
    pub(super) live: Arc<LiveStage>,
    /// What only some connections have. The lock is held for moments; the groups' and the slot's own may be taken under
    /// it, never the other way round.
    extras: Mutex<Option<Box<Extras>>>,
}

#[derive(Default)]
struct Extras {
    groups: HashSet<GroupName>,
    /// Messages behind the one that runs on a serial route.
    waiting: VecDeque<Exchange>,
    waiting_bytes: usize,
    /// One runs.
    running: bool,
    /// The connection ended while one ran: its `$disconnect` comes after the last.
    ended: Option<CloseReason>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.context.id).finish()
    }
}

/// Whether a connection may join one more group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// The first of the group on this node.
    First,
    Now,
    Already,
    TooMany,
    /// The session has ended.
    Gone,
}

impl Connection {
    pub(super) const fn new(context: ConnectionContext, live: Arc<LiveStage>) -> Self {
        Self { context, live, extras: Mutex::new(None) }
    }

    /// Its id.
    pub const fn id(&self) -> &ConnectionId {
        &self.context.id
    }

    /// What was settled when it was made.
    pub const fn context(&self) -> &ConnectionContext {
        &self.context
    }

    /// The gateway it belongs to; reached through the stage, since eight bytes a connection are eight bytes.
    pub(super) fn gateway(&self) -> &Arc<Gateway> {
        self.live.gateway()
    }

    /// The stage it is connected to.
    pub const fn stage(&self) -> &Arc<LiveStage> {
        &self.live
    }

    /// Makes the session a member. What is noted here and what the groups know change under one lock: a membership that
    /// was not noted would outlive its connection.
    pub(super) fn join(session: &Session<Self>, groups: &Groups<Self>, group: &GroupName) -> Joined {
        let mut extras = session.extras.lock();
        // Its end takes the groups it finds under this lock, after it has left *open*.
        if !session.is_open() {
            return Joined::Gone;
        }
        let extras = extras.get_or_insert_default();
        if extras.groups.contains(group) {
            return Joined::Already;
        }
        if extras.groups.len() >= MAX_GROUPS_OF_A_CONNECTION {
            return Joined::TooMany;
        }
        extras.groups.insert(group.clone());
        if groups.join(group, session) { Joined::First } else { Joined::Now }
    }

    /// Ends a membership; whether there was one, and whether it was the last of the group on this node.
    pub(super) fn leave(&self, groups: &Groups<Self>, group: &GroupName) -> (bool, bool) {
        let mut extras = self.extras.lock();
        let Some(some) = extras.as_mut() else { return (false, false) };
        let was_member = some.groups.remove(group);
        let was_last = was_member && groups.leave(group, &self.context.id);
        if some.is_idle() {
            *extras = None;
        }
        (was_member, was_last)
    }

    pub(super) fn take_groups(&self) -> HashSet<GroupName> {
        self.extras.lock().as_mut().map(|extras| std::mem::take(&mut extras.groups)).unwrap_or_default()
    }

    /// Enters the serial queue: gives the exchange back when nothing runs and it may start now. A queue that is full
    /// holds its session, under the queue's lock, so that no release can slip in between. A session that ended meanwhile
    /// takes nothing more: its `$disconnect` is the last.
    pub(super) fn queue_serial(session: &Session<Self>, exchange: Exchange) -> Option<Exchange> {
        let mut extras = session.extras.lock();
        if !session.is_open() {
            return None;
        }
        let extras = extras.get_or_insert_default();
        if !extras.running {
            extras.running = true;
            return Some(exchange);
        }
        extras.waiting_bytes += exchange.len();
        extras.waiting.push_back(exchange);
        if extras.is_full() {
            session.hold();
        }
        None
    }

    /// The next of the serial queue once one is done; when there is none, why the connection ended, if it did.
    pub(super) fn next_serial(session: &Session<Self>) -> Result<Exchange, Option<CloseReason>> {
        let mut slot = session.extras.lock();
        let Some(extras) = slot.as_mut() else { return Err(None) };
        let next = extras.waiting.pop_front();
        if let Some(next) = &next {
            extras.waiting_bytes -= next.len();
        }
        if !extras.is_full() {
            session.release();
        }
        if let Some(next) = next {
            return Ok(next);
        }
        extras.running = false;
        let ended = extras.ended.take();
        if extras.is_idle() {
            *slot = None;
        }
        Err(ended)
    }

    /// Whether the `$disconnect` must wait for a serial exchange; then that one's end brings it.
    pub(super) fn defer_end(&self, reason: &CloseReason) -> bool {
        match self.extras.lock().as_mut() {
            Some(extras) if extras.running => {
                extras.ended = Some(reason.clone());
                true
            }
            Some(_) | None => false,
        }
    }
}

impl Extras {
    fn is_full(&self) -> bool {
        self.waiting.len() >= SERIAL_MESSAGES || self.waiting_bytes >= SERIAL_BYTES
    }

    fn is_idle(&self) -> bool {
        self.groups.is_empty() && self.waiting.is_empty() && !self.running && self.ended.is_none()
    }
}

impl Events for Connection {
    fn id(&self) -> &ConnectionId {
        &self.context.id
    }

    fn policy(&self) -> Policy {
        self.live.load().policy
    }

    fn on_message(session: &Session<Self>, message: Message, turn: &mut Turn<'_>) {
        message::arrived(session, message, turn);
    }

    fn on_end(session: &Session<Self>, reason: &CloseReason) {
        disconnect::ended(session, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle session is one allocation; this is what the figure in `load-tests/README.md` is made of.
    #[test]
    fn a_connection_fits_its_share_of_the_budget() {
        assert_eq!(size_of::<Connection>(), 72);
        // The socket's type carries eight more bytes in a debug build.
        let debug = if cfg!(debug_assertions) { 16 } else { 0 };
        assert!(
            crate::session::slot_bytes::<Connection>() <= 152 + debug,
            "{}",
            crate::session::slot_bytes::<Connection>()
        );
    }
}
