//! A suspect is tried on its link, then buried by compare-and-set. Each step can only stop the burial, never force it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::node::Node;
use super::registry::Burial;
use super::view::Suspect;

/// Looks for suspects and tries them, in a task of its own: a probe takes longer than a renewal may wait.
pub(super) fn look(node: &Arc<Node>) {
    let suspects = node.state.lock().view.suspects(tokio::time::Instant::now());
    if suspects.is_empty() || node.is_burying.swap(true, Ordering::AcqRel) {
        return;
    }
    let undertaker = Arc::clone(node);
    node.tasks.spawn("burial", async move {
        futures_util::future::join_all(suspects.iter().map(|suspect| try_one(&undertaker, suspect))).await;
        undertaker.is_burying.store(false, Ordering::Release);
    });
}

async fn try_one(node: &Arc<Node>, suspect: &Suspect) {
    let Some(transport) = node.transport() else { return };
    let info = &suspect.peer.info;
    if transport.probe(&suspect.peer).await {
        if node.state.lock().view.is_news(suspect.peer.incarnation) {
            tracing::warn!(
                node = %info.name,
                address = %info.address,
                "a node does not renew its lease, but it answers: it lives, cut off from the registry"
            );
        }
        return;
    }
    // While it was probed the registry may have gone away, or come back as another: what was seen must still hold.
    let holds = node.state.lock().view.suspects(tokio::time::Instant::now()).contains(suspect);
    if !holds {
        return;
    }
    match node.registry.bury(suspect.peer.incarnation, suspect.lease, suspect.dataset).await {
        Ok(Burial::Buried) => {
            tracing::warn!(
                node = %info.name,
                address = %info.address,
                "a node is dead: its lease ran out and it does not answer; its clients get their `$disconnect`"
            );
            node.counts.burials.fetch_add(1, Ordering::Relaxed);
            node.bury(&suspect.peer);
            node.grave_dug.notify_one();
        }
        Ok(Burial::Unlisted | Burial::Renewed | Burial::Changed) => {}
        Err(error) => {
            node.doubts.note();
            tracing::warn!(node = %info.address, %error, "a dead node could not be buried yet");
        }
    }
}
