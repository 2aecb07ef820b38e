//! What the links count.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of all links of a node, since its start; read them with any ordering.
#[derive(Debug, Default)]
pub struct LinkStats {
    /// Requests of this node that were answered.
    pub answered: AtomicU64,
    /// Requests of this node that were not sent.
    pub not_sent: AtomicU64,
    /// Requests of this node that were sent and not answered.
    pub unanswered: AtomicU64,
    /// Requests of other nodes that were served.
    pub served: AtomicU64,
    /// Requests of other nodes that were answered *busy* by the link itself: too old, or too many at once.
    pub turned_away: AtomicU64,
    /// Bytes of frames read.
    pub bytes_in: AtomicU64,
    /// Bytes of frames written.
    pub bytes_out: AtomicU64,
    /// Links made, in either direction.
    pub links_made: AtomicU64,
    /// Links that ended otherwise than in order.
    pub links_lost: AtomicU64,
    /// Attempts to reach a node that failed.
    pub dials_failed: AtomicU64,
    /// Connections to the node link that were closed before they had proven anything.
    pub strangers_refused: AtomicU64,
    /// Times a peer's advertised address was found out of reach.
    pub peers_unreachable: AtomicU64,
    /// Times a peer said that it cannot reach this node's advertised address.
    pub told_unreachable: AtomicU64,
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
