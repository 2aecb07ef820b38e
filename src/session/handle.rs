//! The handle to a live session: what everybody outside the engine holds.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::Events;
use super::mailbox::Mail;
use super::outbox::Outgoing;
use super::slot::Slot;
use crate::fault::CloseReason;

/// Why a push was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The session is closing or closed.
    #[error("the session is gone")]
    Gone,
    /// The client does not read fast enough, or the node's budget is used up.
    #[error("the session's outbox is full")]
    Full,
}

/// A live session. Cheap to clone, and keeps nothing of the operating system's once the session ended.
pub struct Session<E>(pub(super) Arc<Slot<E>>);

impl<E> Clone for Session<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> Deref for Session<E> {
    type Target = E;
    fn deref(&self) -> &E {
        &self.0.events
    }
}

impl<E: Events> fmt::Debug for Session<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.0.events.id()).finish()
    }
}

impl<E: Events> Session<E> {
    /// Puts a message into the session's outbox, or straight onto its socket when nothing waits there.
    ///
    /// `Ok` means the message will be written before anything pushed later, as long as the session lives; not that
    /// the client has it. Callable from any thread; the order of concurrent calls is the order they get the lock in.
    ///
    /// # Errors
    /// [`PushError::Gone`] when the session is closing or closed; [`PushError::Full`] when the client does not read.
    pub fn push(&self, outgoing: &Outgoing) -> Result<(), PushError> {
        self.0.push(outgoing, &self.0.events.policy().limits)
    }

    /// Like [`Session::push`], for an answer the client waits for: one that does not fit ends the session as a slow
    /// consumer, since nobody else could be told.
    ///
    /// # Errors
    /// As [`Session::push`].
    pub fn answer(&self, outgoing: &Outgoing) -> Result<(), PushError> {
        let outcome = self.push(outgoing);
        if outcome == Err(PushError::Full) {
            self.close(&CloseReason::SlowConsumer);
        }
        outcome
    }

    /// Ends the session; returns whether it was still open. Its close frame goes behind whatever waits.
    pub fn close(&self, reason: &CloseReason) -> bool {
        let ended = self.0.begin_close(reason, &[]);
        if ended {
            self.0.mailbox.send(Mail::Closing(self.clone()));
            self.tell_end(reason);
        }
        ended
    }

    /// Tells whoever serves the session of its end. A panic there must not take a shard and all its sessions along.
    pub(super) fn tell_end(&self, reason: &CloseReason) {
        let _reported = crate::tasks::guarded("session end", || E::on_end(self, reason));
    }

    /// Whether pushes are taken.
    pub fn is_open(&self) -> bool {
        !self.0.is_closing()
    }

    /// Hands over no more messages, and reads none once those at hand are used up, until [`Session::release`].
    pub fn hold(&self) {
        self.0.hold();
    }

    /// Ends a [`Session::hold`].
    pub fn release(&self) {
        if self.0.unhold() {
            self.0.wake();
        }
    }

    /// Counts an exchange that outlives the turn, until the permit is dropped.
    pub fn begin_exchange(&self) -> ExchangePermit<E> {
        self.0.exchange_begins();
        ExchangePermit(self.clone())
    }

    /// Stops reading; the session ends with `reason` once its exchanges are answered and its outbox is empty, or at
    /// uptime `deadline` in milliseconds.
    pub(super) fn drain(&self, deadline: u64, reason: &CloseReason) {
        if self.0.begin_drain() {
            self.0.mailbox.send(Mail::Drain(self.clone(), deadline, reason.clone()));
        }
    }

    /// Uptime in milliseconds of the last data message in either direction.
    pub fn last_data(&self) -> u64 {
        self.0.stamps.last_data()
    }

    /// Bytes waiting for the client.
    pub fn outbox_bytes(&self) -> usize {
        self.0.outbox_bytes()
    }
}

/// Counts one exchange of a session while it lives.
#[derive(Debug)]
pub struct ExchangePermit<E: Events>(Session<E>);

impl<E: Events> ExchangePermit<E> {
    /// Whose exchange it is.
    pub const fn session(&self) -> &Session<E> {
        &self.0
    }
}

impl<E: Events> Drop for ExchangePermit<E> {
    fn drop(&mut self) {
        self.0.0.exchange_ends();
    }
}
