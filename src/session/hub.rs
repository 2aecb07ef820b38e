//! Every session of this node: a sharded map from connection id to slot. Nothing here ever waits.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dashmap::DashSet;

use super::handle::Session;
use super::lot::Shard;
use super::mailbox::{Mail, Mailbox};
use super::outbox::Budget;
use super::slot::{Slot, Socket};
use super::{Events, PushError};
use crate::clock::EpochMillis;
use crate::fault::CloseReason;
use crate::ids::ConnectionId;
use crate::tasks::Tasks;

/// How the session engine runs.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Parking lots, each served by a task. Default one a core.
    pub shards: usize,
    /// Bytes the node holds for clients that do not read and messages that are not whole; default 256 MiB.
    pub budget_bytes: usize,
}

/// What the hub holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Sessions that take pushes.
    pub open: usize,
    /// Sessions in the parking lots: the open ones, and those whose close frame travels.
    pub parked: usize,
    /// Bytes in outboxes and partial messages, as charged to the node's budget.
    pub budget_used: usize,
}

/// A slot as its id: the map holds the pointer alone, 8 bytes, and looks inside it for the key.
struct ById<E>(Session<E>);

impl<E: Events> Hash for ById<E> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl<E: Events> PartialEq for ById<E> {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl<E: Events> Eq for ById<E> {}

impl<E: Events> Borrow<ConnectionId> for ById<E> {
    fn borrow(&self) -> &ConnectionId {
        self.0.id()
    }
}

/// All sessions of this node, and the tasks that serve them.
pub struct Hub<E: Events> {
    sessions: DashSet<ById<E>, foldhash::fast::RandomState>,
    shards: Box<[Arc<Mailbox<E>>]>,
    budget: Arc<Budget>,
    started: Instant,
    started_at: EpochMillis,
}

impl<E: Events> std::fmt::Debug for Hub<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl<E: Events> Hub<E> {
    /// Starts the shards' tasks. They end when [`Hub::stop`] is called.
    ///
    /// # Errors
    /// When the system gives no readiness set.
    pub fn start(config: Config, started_at: EpochMillis, tasks: &Tasks) -> io::Result<Self> {
        let started = Instant::now();
        let budget = Arc::new(Budget::new(config.budget_bytes));
        let mut shards = Vec::new();
        for _ in 0..config.shards.max(1) {
            let (shard, mailbox) = Shard::new(started, Arc::clone(&budget))?;
            tasks.spawn("shard", shard.serve());
            shards.push(mailbox);
        }
        budget.wakes(shards.iter().map(|mailbox: &Arc<Mailbox<E>>| mailbox.waker()).collect());
        let sessions = DashSet::with_hasher(foldhash::fast::RandomState::default());
        Ok(Self { sessions, shards: shards.into_boxed_slice(), budget, started, started_at })
    }

    /// Makes a session of a socket whose handshake was accepted.
    ///
    /// Addressable before visible: the session is in the map before `head`, the 101, leaves, and what is pushed in
    /// between waits behind it.
    ///
    /// # Errors
    /// [`PushError::Gone`] when the client left meanwhile. [`Events::on_end`] has been called then.
    pub fn open(&self, events: E, mut socket: Socket, head: Vec<u8>) -> Result<Session<E>, PushError> {
        let n = events.id().slot() as usize % self.shards.len();
        let Some(mailbox) = self.shards.get(n) else { return Err(PushError::Gone) };
        let (unsent, early) = (std::mem::take(&mut socket.unsent), std::mem::take(&mut socket.early));
        let session = Session(Arc::new(Slot::new(events, Arc::clone(mailbox), socket)));
        let greeted = session.0.greet(unsent, head, || {
            self.sessions.insert(ById(session.clone()));
        });
        if let Err(error) = greeted {
            session.close(&CloseReason::ClientVanished);
            return Err(error);
        }
        // Counted here, not when the shard gets to it: a drain that looks in between must see it.
        mailbox.sessions.fetch_add(1, Ordering::Relaxed);
        if !mailbox.send(Mail::Adopt(session.clone(), early)) {
            mailbox.turn_away(&session);
            return Err(PushError::Gone);
        }
        Ok(session)
    }

    /// The session of a connection, if it lives here.
    pub fn get(&self, id: &ConnectionId) -> Option<Session<E>> {
        self.sessions.get(id).map(|found| found.0.clone())
    }

    /// Takes a session out of the map: the first thing its end does, so that pushes get *gone* from then on.
    pub fn forget(&self, id: &ConnectionId) {
        self.sessions.remove(id);
    }

    /// Every open session, as of some moment during the call.
    pub fn all(&self) -> Vec<Session<E>> {
        self.sessions.iter().map(|entry| entry.0.clone()).collect()
    }

    /// Open sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no session is open.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What the hub holds now.
    pub fn stats(&self) -> Stats {
        Stats {
            open: self.sessions.len(),
            parked: self.shards.iter().map(|s| s.sessions.load(Ordering::Relaxed)).sum(),
            budget_used: self.budget.used(),
        }
    }

    /// Sessions that have come or gone since the start.
    pub fn churn(&self) -> u64 {
        self.shards.iter().map(|shard| shard.churn.load(Ordering::Relaxed)).sum()
    }

    /// When something stamped with `uptime` happened, in wall time.
    pub const fn wall_time(&self, uptime: u64) -> EpochMillis {
        EpochMillis(self.started_at.0 + uptime.saturating_sub(1))
    }

    /// Stops reading from `sessions`; each closes for `reason` when its exchanges are answered and its outbox is empty, at
    /// the latest after `grace`.
    pub fn drain(&self, sessions: &[Session<E>], grace: Duration, reason: &CloseReason) {
        let deadline = (self.started.elapsed() + grace).as_millis() as u64 + 1;
        for session in sessions {
            session.drain(deadline, reason);
        }
    }

    /// Gives back what the map kept of a larger past. Cheap when there is nothing to give; meant for once in seconds.
    pub fn tidy(&self) {
        if self.sessions.capacity() > 4_096 && self.sessions.len() < self.sessions.capacity() / 4 {
            self.sessions.shrink_to_fit();
        }
    }

    /// Ends the shards; sessions still open lose their sockets.
    pub fn stop(&self) {
        for shard in &self.shards {
            shard.stop();
        }
    }
}
