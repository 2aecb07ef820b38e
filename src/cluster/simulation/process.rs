//! A process of a node: it runs, stands still, or is no more.
//!
//! Its tasks are not stopped by force. Whatever they do to the world goes through a gate, which is shut while the process
//! stands still, and never opens again once it is dead: nobody outside can tell the difference.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::tasks::Tasks;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Running,
    Frozen,
    Dead,
}

/// One start of a node's process.
#[derive(Debug)]
pub(super) struct Process {
    /// The host it runs on, by number.
    pub(super) seat: usize,
    /// Its tasks.
    pub(super) tasks: Tasks,
    /// Takes no new clients.
    pub(super) is_draining: AtomicBool,
    condition: Mutex<Condition>,
    /// Not a watch: that wakes in random order.
    changed: Notify,
}

impl Process {
    pub(super) fn new(seat: usize) -> Self {
        Self {
            seat,
            tasks: Tasks::new(),
            is_draining: AtomicBool::new(false),
            condition: Mutex::new(Condition::Running),
            changed: Notify::new(),
        }
    }

    pub(super) fn condition(&self) -> Condition {
        *self.condition.lock()
    }

    pub(super) fn is_running(&self) -> bool {
        self.condition() == Condition::Running
    }

    pub(super) fn is_dead(&self) -> bool {
        self.condition() == Condition::Dead
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Stands still or goes on; the dead stay dead.
    pub(super) fn become_so(&self, condition: Condition) {
        if !self.is_dead() {
            *self.condition.lock() = condition;
            self.changed.notify_waiters();
        }
        if condition == Condition::Dead {
            self.tasks.token().cancel();
        }
    }

    /// Waits until the process runs; for a dead one forever.
    pub(super) async fn gate(&self) {
        if self.is_running() {
            return;
        }
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.condition() {
                Condition::Running => return,
                Condition::Frozen => changed.await,
                Condition::Dead => std::future::pending().await,
            }
        }
    }
}
