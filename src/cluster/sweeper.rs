//! The `$disconnect` of those whose node died: every survivor works through the graves, record by record.
//!
//! A record is claimed before its call and removed after it. A claim lapses, so whoever stops midway is taken over from;
//! only then is a call made twice, and under the same id. Calls start at a stated rate, so that a back-end which has just
//! lost nothing itself is not knocked over by the loss of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::node::{Attempt, Local, Node};
use super::registry::{BUCKETS, Claim, Grave, RegistryError, Write};
use crate::ids::{ConnectionId, Incarnation};

/// `$disconnect` calls of the dead under way at once: a slow back-end must not make them pile up here.
const AT_ONCE: usize = 64;
/// After so long a record whose stage nobody serves any more goes without a call, and a line in the log says so.
const NOBODY_SERVES_IT: Duration = Duration::from_secs(600);

/// Sweeps whatever grave there is, until the process ends.
pub(super) async fn run(node: &Arc<Node>) {
    let mut pace = Pace::new(node.config.recovery_rate);
    loop {
        tokio::select! {
            biased;
            () = node.tasks.token().cancelled() => return,
            () = node.grave_dug.notified() => {}
        }
        tokio::select! {
            biased;
            () = node.tasks.token().cancelled() => return,
            () = sweep_all(node, &mut pace) => {}
        }
    }
}

async fn sweep_all(node: &Arc<Node>, pace: &mut Pace) {
    let (Some(me), Some(local)) = (node.me(), node.local()) else { return };
    let graves: Vec<Grave> = node.state.lock().view.graves().to_vec();
    let mut is_done = true;
    for grave in graves.into_iter().filter(|grave| grave.incarnation != me) {
        match sweep(node, &local, me, grave, pace).await {
            Ok(0) if grave.age >= node.config.grave_age() => {
                if let Err(error) = close(node, grave.incarnation).await {
                    tracing::debug!(%error, "a swept grave stays open for now");
                }
            }
            Ok(left) => is_done &= left == 0,
            Err(error) => tracing::debug!(%error, "a grave could not be swept to its end; the next round goes on"),
        }
    }
    // A record may be claimed by another survivor that has died since: the next round looks again. Where nothing is left
    // it only waits for the grave's age, and a round costs the registry a thousand reads.
    let pause = node.config.tick() * if is_done { 10 } else { 3 };
    sleep_until(Instant::now() + pause).await;
}

/// Goes through all records of a grave once; how many are left that are not this node's to finish.
async fn sweep(
    node: &Arc<Node>,
    local: &Arc<dyn Local>,
    me: Incarnation,
    grave: Grave,
    pace: &mut Pace,
) -> Result<usize, RegistryError> {
    let left = Arc::new(AtomicUsize::new(0));
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    // Survivors begin at different places, so that they seldom meet.
    let first = (me.get() % u32::from(BUCKETS)) as u16;
    for n in 0..BUCKETS {
        let bucket = (first + n) % BUCKETS;
        let mut cursor = None;
        loop {
            let part = node.registry.records(grave.incarnation, bucket, cursor).await?;
            for id in part.items {
                let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return Ok(1) };
                // A number for each call: one whose round broke off must not be taken for the next round's.
                pace.calls = pace.calls.wrapping_add(1);
                let claimant = u64::from(me.get()) << 32 | u64::from(pace.calls);
                match node.registry.claim(id, claimant, node.config.claim_lapse).await? {
                    Claim::Taken => {
                        left.fetch_add(1, Ordering::Relaxed);
                    }
                    Claim::Missing => {}
                    Claim::Yours(lost) => {
                        pace.wait().await;
                        let attempt = local.disconnect(lost);
                        let (node, left) = (Arc::clone(node), Arc::clone(&left));
                        let old = grave.age >= NOBODY_SERVES_IT;
                        node.tasks.clone().spawn("recovery", async move {
                            let _turn = turn;
                            finish(&node, (id, claimant), attempt.await, old, &left).await;
                        });
                    }
                }
            }
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    // Until the last call is over nobody knows what is left.
    let all = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
    let _over = timeout(node.config.claim_lapse, turns.acquire_many(all)).await;
    Ok(left.load(Ordering::Relaxed))
}

async fn finish(
    node: &Arc<Node>,
    (id, claimant): (ConnectionId, u64),
    attempt: Attempt,
    is_old: bool,
    left: &AtomicUsize,
) {
    match attempt {
        Attempt::Made => {
            node.counts.recovered.fetch_add(1, Ordering::Relaxed);
        }
        Attempt::NoStage if is_old => {
            tracing::warn!(connection.id = %id, "the stage of a dead node's connection is served nowhere: its record goes without `$disconnect`");
        }
        // Another node may serve it; the claim lapses.
        Attempt::NoStage => {
            left.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
    match node.registry.finish(id, claimant).await {
        Ok(true) => {}
        Ok(false) => tracing::debug!(connection.id = %id, "a claim had lapsed before its call was over"),
        Err(error) => {
            // The claim lapses and the call is made again, under the same id.
            left.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(connection.id = %id, %error, "a `$disconnect` was made, but its record stays for now");
        }
    }
}

/// Nothing is left of an incarnation but its tombstone.
async fn close(node: &Arc<Node>, incarnation: Incarnation) -> Result<(), RegistryError> {
    let mut cursor = None;
    loop {
        let page = node.registry.groups_of(incarnation, cursor).await?;
        let writes: Vec<Write> = page.items.into_iter().map(|group| Write::Leave(group, incarnation)).collect();
        node.registry.write(&writes).await?;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    node.registry.close_grave(incarnation).await
}

/// Starts so many a second, evenly; what was not used is not saved up.
#[derive(Debug)]
struct Pace {
    every: Duration,
    next: Instant,
    /// Calls begun, which numbers their claims.
    calls: u32,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), next: Instant::now(), calls: 0 }
    }

    async fn wait(&mut self) {
        sleep_until(self.next).await;
        self.next = Instant::now().max(self.next) + self.every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_start_at_the_stated_rate_from_the_first_on() {
        let mut pace = Pace::new(100);
        let start = Instant::now();
        pace.wait().await;
        assert_eq!(start.elapsed(), Duration::ZERO, "the first waits for nobody");
        for _ in 0..100 {
            pace.wait().await;
        }
        assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
        tokio::time::advance(Duration::from_secs(10)).await;
        let later = Instant::now();
        for _ in 0..11 {
            pace.wait().await;
        }
        assert!(later.elapsed() >= Duration::from_millis(100), "nothing is saved up");
    }
}
