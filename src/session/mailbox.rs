//! A shard's door for other threads: what they want of it, and what they may look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Events;
use super::handle::Session;
use super::outbox::Budget;
use crate::fault::CloseReason;

/// What other threads ask of a shard.
pub(super) enum Mail<E> {
    /// A new session, with bytes its client already sent.
    Adopt(Session<E>, Vec<u8>),
    /// Reading may go on.
    Run(Session<E>),
    /// The session has left *open*; watch it to its end.
    Closing(Session<E>),
    /// The session ends once it is quiet, at the latest at this uptime, and for this reason.
    Drain(Session<E>, u64, CloseReason),
}

/// A shard's door for other threads. Bounded by the sessions: each has at most one letter of a kind in here.
pub(super) struct Mailbox<E> {
    mail: Mutex<Vec<Mail<E>>>,
    wake: Arc<Notify>,
    started: Instant,
    stop: AtomicBool,
    pub(super) sessions: AtomicUsize,
    /// Sessions that have come or gone.
    pub(super) churn: AtomicU64,
    pub(super) budget: Arc<Budget>,
}

impl<E> Mailbox<E> {
    pub(super) fn new(started: Instant, budget: Arc<Budget>) -> Self {
        Self {
            mail: Mutex::new(Vec::new()),
            wake: Arc::new(Notify::new()),
            started,
            stop: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            churn: AtomicU64::new(0),
            budget,
        }
    }

    /// All letters, which also makes room for the next that wakes.
    pub(super) fn take(&self) -> Vec<Mail<E>> {
        std::mem::take(&mut *self.mail.lock())
    }

    /// Waits for letters, or for whoever else wakes the shard.
    pub(super) async fn notified(&self) {
        self.wake.notified().await;
    }

    /// Whether the shard should end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// When an uptime in milliseconds is.
    pub(super) fn moment(&self, uptime: u64) -> Instant {
        self.started + Duration::from_millis(uptime)
    }

    /// Leaves a letter; `false` when nobody is there to read it.
    pub(super) fn send(&self, letter: Mail<E>) -> bool {
        let mut mail = self.mail.lock();
        // Asked under the lock: the shard sets the flag before it looks here for the last time.
        if self.stop.load(Ordering::Acquire) {
            drop(mail);
            return false;
        }
        mail.push(letter);
        let first = mail.len() == 1;
        drop(mail);
        // Only the first letter wakes: the shard takes them all.
        if first {
            self.wake();
        }
        true
    }

    /// Ends a session whose shard has ended.
    pub(super) fn turn_away(&self, session: &Session<E>)
    where
        E: Events,
    {
        session.close(&CloseReason::Draining);
        session.0.abandon_now();
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Milliseconds since the node started; what every stamp counts in. Starts at 1, so that 0 is never.
    pub(super) fn uptime(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }
}
