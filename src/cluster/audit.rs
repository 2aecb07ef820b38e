//! What the registry has of this node is compared with what there is, when anything has happened that may have made the two
//! differ: writes that failed may still be done long after, and a registry that went back in time has records again of
//! connections that are no more.
//!
//! It waits until nothing has been wrong for a whole lease, so that what was under way has arrived or never will. It reads
//! ids alone, and writes only where something differs.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::node::{Local, Node};
use super::registry::{BUCKETS, RegistryError};
use super::writes::Thing;
use crate::ids::Incarnation;

/// When something last went wrong that has not been looked into.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    last: Mutex<Option<Instant>>,
    noted: Notify,
}

impl Doubts {
    /// A call to the registry failed, whichever: its connection may have broken because it was restarted or failed over, and
    /// has lost its last writes.
    pub(super) fn note(&self) {
        *self.last.lock() = Some(Instant::now());
        self.noted.notify_one();
    }

    /// Whether the registry may have of this node what is not so.
    pub(super) fn any(&self) -> bool {
        self.last.lock().is_some()
    }

    /// All is as it should be, if nothing went wrong since then.
    fn settle(&self, then: Instant) {
        self.last.lock().take_if(|last| *last <= then);
    }

    /// Waits until something was wrong, and then nothing for so long; when it was last.
    async fn due(&self, quiet: std::time::Duration) -> Instant {
        loop {
            let last = *self.last.lock();
            match last {
                None => self.noted.notified().await,
                Some(at) if at + quiet <= Instant::now() => return at,
                Some(at) => sleep_until(at + quiet).await,
            }
        }
    }
}

/// Looks into every doubt, until the process ends.
pub(super) async fn run(node: &Arc<Node>) {
    loop {
        let at = tokio::select! {
            biased;
            () = node.tasks.token().cancelled() => return,
            at = node.doubts.due(node.config.lease) => at,
        };
        let looked = tokio::select! {
            biased;
            () = node.tasks.token().cancelled() => return,
            looked = look(node) => looked,
        };
        match looked {
            Ok(0) => node.doubts.settle(at),
            Ok(differing) => {
                tracing::info!(differing, "what the registry had of this node was not all so; it is written again");
                node.doubts.settle(at);
            }
            Err(error) => {
                tracing::debug!(%error, "what the registry has of this node could not be read; later again");
                node.doubts.note();
            }
        }
    }
}

/// How many things differed.
async fn look(node: &Arc<Node>) -> Result<usize, RegistryError> {
    let (Some(me), Some(local)) = (node.me(), node.local()) else { return Ok(0) };
    Ok(records(node, me, &*local).await? + groups(node, me, &*local).await?)
}

async fn records(node: &Node, me: Incarnation, local: &dyn Local) -> Result<usize, RegistryError> {
    let mut differing = 0;
    let mut missing: BTreeSet<_> = local.connections().into_iter().filter(|id| id.incarnation() == me).collect();
    for bucket in 0..BUCKETS {
        let mut cursor = None;
        loop {
            let page = node.registry.records(me, bucket, cursor).await?;
            for id in page.items {
                // What has come or gone meanwhile is being written anyway; once more does no harm.
                if !missing.remove(&id) && local.connection(&id).is_none() {
                    differing += 1;
                    node.writes.changed(Thing::Connection(id));
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    differing += missing.len();
    for id in missing {
        node.writes.changed(Thing::Connection(id));
    }
    Ok(differing)
}

async fn groups(node: &Node, me: Incarnation, local: &dyn Local) -> Result<usize, RegistryError> {
    let mut differing = 0;
    let mut missing: BTreeSet<_> = local.groups().into_iter().collect();
    let mut cursor = None;
    loop {
        let page = node.registry.groups_of(me, cursor).await?;
        for group in page.items {
            if !missing.remove(&group) && !local.has_members(&group) {
                differing += 1;
                node.writes.changed(Thing::Group(group));
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    differing += missing.len();
    for group in missing {
        node.writes.changed(Thing::Group(group));
    }
    Ok(differing)
}
