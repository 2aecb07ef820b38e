//! Leaving without dropping anybody silently.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Gateway;
use crate::fault::CloseReason;

/// How a node lets its sessions go.
#[derive(Debug, Clone, Copy)]
pub struct DrainPlan {
    /// Sessions told at once.
    pub batch: usize,
    /// Time between batches, so that the clients' reconnects are spread.
    pub interval: Duration,
    /// How long a session may take to get its exchanges answered and its outbox read.
    pub grace: Duration,
}

/// How long a session that is given up may take to become quiet.
const SHED_GRACE: Duration = Duration::from_secs(30);
/// How long a closing session's peer may take to answer, and a little more.
const CLOSE_PATIENCE: Duration = Duration::from_millis(5_500);

impl Gateway {
    /// Says *not ready* from now on, and goes on as before: who was sent here meanwhile is not to blame.
    pub fn announce_drain(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Refuses new clients from now on.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Gives up a share of the sessions, so many a second: each gets its exchanges answered and its outbox flushed, then 1012
    /// and its `$disconnect`; their clients come back wherever the load balancer sends them. How many; `None` when that is
    /// under way already, or all have to go anyway.
    pub fn shed(&self, share: f64, per_second: u32) -> Option<usize> {
        if self.is_draining() || self.shedding.swap(true, Ordering::AcqRel) {
            return None;
        }
        let mut sessions = self.cluster.hub.all();
        sessions.truncate((sessions.len() as f64 * share).ceil() as usize);
        let count = sessions.len();
        let Some(gateway) = self.myself.upgrade() else { return Some(0) };
        tracing::info!(sessions = count, per_second, "giving sessions up");
        self.tasks.spawn("shed", async move {
            // Ten times a second, or once for each where they are fewer.
            let batch = (per_second / 10).max(1);
            let pause = Duration::from_secs(1) * batch / per_second.max(1);
            for batch in sessions.chunks(batch as usize) {
                gateway.cluster.hub.drain(batch, SHED_GRACE, &CloseReason::Rebalanced);
                tokio::select! {
                    biased;
                    () = gateway.tasks.token().cancelled() => break,
                    () = sleep(pause) => {}
                }
                if gateway.is_draining() {
                    break;
                }
            }
            gateway.shedding.store(false, Ordering::Release);
        });
        Some(count)
    }

    /// Closes every session, those of handshakes in progress included: in batches, each stops being read, gets its exchanges answered and its outbox flushed, then
    /// its close frame and its `$disconnect`. Returns how many were still here when patience ended.
    pub async fn drain(&self, plan: DrainPlan) -> usize {
        self.begin_drain();
        let sessions = self.cluster.hub.all();
        let mut batches = sessions.chunks(plan.batch.max(1)).peekable();
        while let Some(batch) = batches.next() {
            self.cluster.hub.drain(batch, plan.grace, &self.farewell);
            if batches.peek().is_some() {
                sleep(plan.interval).await;
            }
        }
        let count = sessions.len();
        drop(sessions);
        let deadline = Instant::now() + plan.grace + CLOSE_PATIENCE;
        loop {
            // Handshakes first: one that ends between the two looks is a session by the second.
            let left = self.handshakes() + self.cluster.hub.stats().parked;
            if left == 0 || Instant::now() >= deadline {
                tracing::info!(sessions = count, left, "sessions drained");
                return left;
            }
            sleep_until(Instant::now() + Duration::from_millis(20)).await;
        }
    }
}
