//! The `$disconnect` of those whose node died: every survivor works through the graves, record by record.
//!
//! A record is claimed before its call and removed after it. A claim lapses, so whoever stops midway is taken over from;
//! only then is a call made twice, and under the same id. Calls start at a stated rate, so that a back-end which has just
//! lost nothing itself is not knocked over by the loss of a node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::node::{Attempt, Attempting, Local, Node};
use super::registry::{BUCKETS, Claim, Grave, RegistryError, Write};
use crate::ids::{ConnectionId, Incarnation};

/// `$disconnect` calls of the dead under way at once: a slow back-end must not make them pile up here.
const AT_ONCE: usize = 64;
/// After so long a record whose stage nobody serves any more goes without a call, and a line in the log says so.
const NOBODY_SERVES_IT: Duration = Duration::from_secs(600);

/// One survivor's work on the graves.
struct Sweeper {
    pace: Pace,
    turns: Arc<Semaphore>,
    under_way: UnderWay,
}

/// Records whose call is under way here. A claim of one's own does not keep oneself off, and a record may be listed twice.
#[derive(Debug, Clone, Default)]
struct UnderWay(Arc<Mutex<Calls>>);

#[derive(Debug, Default)]
struct Calls {
    under_way: BTreeSet<ConnectionId>,
    /// Made, but the registry did not hear so: the record only has to go.
    made: BTreeSet<ConnectionId>,
}

impl UnderWay {
    /// `None` when it is under way already.
    fn begin(&self, id: ConnectionId) -> Option<OneUnderWay> {
        self.0.lock().under_way.insert(id).then(|| OneUnderWay { all: self.clone(), id })
    }
}

impl OneUnderWay {
    /// Whether the call was made and only its record is left.
    fn is_made(&self) -> bool {
        self.all.0.lock().made.contains(&self.id)
    }

    /// The call was made; whether its record is gone.
    fn made(&self, is_gone: bool) {
        let mut calls = self.all.0.lock();
        if is_gone {
            calls.made.remove(&self.id);
        } else {
            calls.made.insert(self.id);
        }
    }
}

/// Until it is dropped, a record is not taken up again.
#[derive(Debug)]
struct OneUnderWay {
    all: UnderWay,
    id: ConnectionId,
}

impl Drop for OneUnderWay {
    fn drop(&mut self) {
        self.all.0.lock().under_way.remove(&self.id);
    }
}

/// Sweeps whatever grave there is, until the process ends.
pub(super) async fn run(node: &Arc<Node>) {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut sweeper = Sweeper { pace: Pace::new(node.config.recovery_rate), turns, under_way: UnderWay::default() };
    loop {
        tokio::select! {
            biased;
            () = node.tasks.token().cancelled() => return,
            () = node.grave_dug.notified() => {}
        }
        tokio::select! {
            biased;
            () = node.tasks.token().cancelled() => return,
            () = sweep_all(node, &mut sweeper) => {}
        }
    }
}

async fn sweep_all(node: &Arc<Node>, sweeper: &mut Sweeper) {
    let (Some(me), Some(local)) = (node.me(), node.local()) else { return };
    let graves: Vec<Grave> = node.state.lock().view.graves().to_vec();
    let mut is_done = true;
    for grave in graves.iter().filter(|grave| grave.incarnation != me) {
        match sweep(node, &local, me, *grave, sweeper).await {
            Ok(0) if grave.age >= node.config.grave_age() => {
                if let Err(error) = close(node, grave.incarnation).await {
                    node.doubts.note();
                    tracing::debug!(%error, "a swept grave stays open for now");
                }
            }
            Ok(left) => is_done &= left == 0,
            Err(error) => {
                node.doubts.note();
                tracing::debug!(%error, "a grave could not be swept to its end; the next round goes on");
            }
        }
    }
    // A record may be claimed by another survivor that has died since: the next round looks again. Where nothing is left
    // it only waits for the grave's age, and a round costs the registry a thousand reads. Another grave does not wait.
    let until = Instant::now() + node.config.tick() * if is_done { 10 } else { 3 };
    while timeout_at(until, node.grave_dug.notified()).await.is_ok() {
        let is_swept = |grave: &Grave| graves.iter().any(|swept| swept.incarnation == grave.incarnation);
        if !node.state.lock().view.graves().iter().all(is_swept) {
            return node.grave_dug.notify_one();
        }
    }
}

/// Goes through all records of a grave once; how many may be left.
async fn sweep(
    node: &Arc<Node>,
    local: &Arc<dyn Local>,
    me: Incarnation,
    grave: Grave,
    sweeper: &mut Sweeper,
) -> Result<usize, RegistryError> {
    let mut left = 0;
    // Survivors begin at different places, so that they seldom meet.
    let first = (me.get() % u32::from(BUCKETS)) as u16;
    for n in 0..BUCKETS {
        let bucket = (first + n) % BUCKETS;
        let mut cursor = None;
        loop {
            let part = node.registry.records(grave.incarnation, bucket, cursor).await?;
            for id in part.items {
                // Whatever is still listed is looked at again by the next round.
                left += 1;
                let Some(one) = sweeper.under_way.begin(id) else { continue };
                let Ok(turn) = Arc::clone(&sweeper.turns).acquire_owned().await else { continue };
                let claim = node.registry.claim(id, u64::from(me.get()), node.config.claim_lapse).await?;
                let Claim::Yours(lost) = claim else { continue };
                let attempt: Attempting = if one.is_made() {
                    Box::pin(async { Attempt::Made })
                } else {
                    sweeper.pace.wait().await;
                    local.disconnect(lost)
                };
                let node = Arc::clone(node);
                let is_old = grave.age >= NOBODY_SERVES_IT;
                node.tasks.clone().spawn("recovery", async move {
                    let _until_then = turn;
                    finish(&node, &one, me, attempt.await, is_old).await;
                });
            }
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(left)
}

async fn finish(node: &Arc<Node>, one: &OneUnderWay, me: Incarnation, attempt: Attempt, is_old: bool) {
    let id = one.id;
    match attempt {
        Attempt::Made if one.is_made() => {}
        Attempt::Made => {
            node.counts.recovered.fetch_add(1, Ordering::Relaxed);
        }
        Attempt::NoStage if is_old => {
            tracing::warn!(connection.id = %id, "the stage of a dead node's connection is served nowhere: its record goes without `$disconnect`");
        }
        // Another node may serve it; the claim lapses.
        Attempt::NoStage => return,
    }
    match node.registry.finish(id, u64::from(me.get())).await {
        Ok(true) => one.made(true),
        Ok(false) => {
            one.made(true);
            tracing::debug!(connection.id = %id, "a claim had lapsed before its call was over");
        }
        // The next round takes the record away; only another survivor could make the call again, under the same id.
        Err(error) => {
            one.made(false);
            node.doubts.note();
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
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), next: Instant::now() }
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
