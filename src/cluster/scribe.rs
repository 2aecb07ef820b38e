//! The node's scribe: has the registry know what is here, batch by batch, and never under a lease that is not sure.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::node::{Local, Node};
use super::writes::Thing;

impl Node {
    /// Everything this node has is written again.
    pub(super) fn rewrite(&self) {
        let (Some(local), Some(me)) = (self.local(), self.me()) else { return };
        // Those of an earlier incarnation are the others' to sweep: a record of one would never go.
        for id in local.connections().into_iter().filter(|id| id.incarnation() == me) {
            self.writes.changed(Thing::Connection(id));
        }
        self.rewrite_groups(&*local);
    }

    pub(super) fn rewrite_groups(&self, local: &dyn Local) {
        for group in local.groups() {
            self.writes.changed(Thing::Group(group));
        }
    }

    pub(super) async fn write(self: Arc<Self>) {
        let mut failures = 0_u32;
        loop {
            tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                () = self.writes.wait() => {}
            }
            tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                () = self.lease_is_sure() => {}
            }
            // What is written under a tombstone might never be swept.
            if self.is_leaving.load(Ordering::Acquire) {
                return;
            }
            let (Some(me), Some(local)) = (self.me(), self.local()) else { continue };
            let Some(batch) = self.writes.take(me, &*local) else { continue };
            match self.registry.write(&batch.writes).await {
                Ok(()) => {
                    self.counts.registry_writes.fetch_add(batch.writes.len() as u64, Ordering::Relaxed);
                    self.writes.done(batch);
                    failures = 0;
                }
                Err(error) => {
                    self.counts.registry_failures.fetch_add(1, Ordering::Relaxed);
                    self.doubts.note();
                    if failures == 0 {
                        tracing::warn!(%error, writes = batch.writes.len(), "records are not written; they wait");
                    }
                    failures += 1;
                    self.writes.failed(batch);
                    tokio::select! {
                        biased;
                        () = self.tasks.token().cancelled() => return,
                        () = tokio::time::sleep(self.config.tick()) => {}
                    }
                }
            }
        }
    }

    /// Waits until no other node can have buried this one: what is written under a buried incarnation might never be swept.
    async fn lease_is_sure(&self) {
        loop {
            let renewed = self.renewed.notified();
            tokio::pin!(renewed);
            renewed.as_mut().enable();
            {
                let state = self.state.lock();
                if state.me.is_some() && Instant::now() < state.confirmed_until {
                    return;
                }
            }
            renewed.await;
        }
    }
}
