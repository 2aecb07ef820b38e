//! What is counted of a node among others. All zero on a node that is alone.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::{Labelled, Registrar};
use crate::telemetry::labels::LinkOutcome;

/// Metrics of the cluster as this node sees it.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// Nodes, this one included.
    pub nodes: Gauge,
    /// 1 while the registry answers.
    pub registry_up: Gauge,
    /// Changes the registry does not know yet.
    pub registry_unwritten: Gauge,
    /// Calls to it that failed.
    pub registry_failures: Counter,
    /// Records and group entries written or removed.
    pub registry_writes: Counter,
    /// Nodes this one declared dead.
    pub burials: Counter,
    /// Times this node was declared dead and was not.
    pub expulsions: Counter,
    /// `$disconnect` calls for connections of dead nodes.
    pub recovered: Counter,
    /// Messages for many that did not get to some node.
    pub fan_outs_short: Counter,
    /// Links that stand.
    pub links_open: Gauge,
    /// Nodes whose advertised address this one cannot reach.
    pub links_unreachable: Gauge,
    /// Requests over links, by outcome.
    pub link_requests: Labelled<LinkOutcome, Counter>,
    /// Bytes of frames read.
    pub link_received: Counter,
    /// Bytes of frames written.
    pub link_sent: Counter,
    /// Links made.
    pub links_made: Counter,
    /// Links that ended otherwise than in order.
    pub links_lost: Counter,
    /// Attempts to reach a node that failed.
    pub link_dials_failed: Counter,
    /// Strangers turned away.
    pub link_strangers: Counter,
    /// Times another node said that it cannot reach this one.
    pub told_unreachable: Counter,
}

impl ClusterMetrics {
    pub(super) fn new(r: &mut Registrar) -> Self {
        Self {
            nodes: r.gauge("cluster_nodes", "Nodes of the cluster as this one sees it, itself included"),
            registry_up: r.gauge("registry_up", "Whether the registry answers this node: 1 or 0"),
            registry_unwritten: r.gauge("registry_unwritten", "Changes of this node the registry does not know yet"),
            registry_failures: r.counter("registry_failures", "Calls of this node to the registry that failed"),
            registry_writes: r.counter("registry_writes", "Records and group entries written or removed"),
            burials: r.counter("node_burials", "Other nodes that this one declared dead"),
            expulsions: r.counter("node_expulsions", "Times this node was declared dead and was not"),
            recovered: r.counter("recovered_disconnects", "Calls of $disconnect for connections of dead nodes"),
            fan_outs_short: r.counter("fan_outs_short", "Messages for many that did not get to some node"),
            links_open: r.gauge("links_open", "Links to other nodes that stand now"),
            links_unreachable: r
                .gauge("links_unreachable", "Nodes whose advertised address cannot be reached from this one"),
            link_requests: r.counters("link_requests", "Requests over links between nodes, by outcome"),
            link_received: r.bytes_counter("link_received", "Read from other nodes, inside of TLS"),
            link_sent: r.bytes_counter("link_sent", "Written to other nodes, inside of TLS"),
            links_made: r.counter("links_made", "Links to other nodes made, in either direction"),
            links_lost: r.counter("links_lost", "Links to other nodes that ended otherwise than in order"),
            link_dials_failed: r.counter("link_dials_failed", "Attempts to reach another node that failed"),
            link_strangers: r
                .counter("link_strangers", "Connections to the node listener that proved nothing and were closed"),
            told_unreachable: r
                .counter("told_unreachable", "Times another node said that it cannot reach this one's address"),
        }
    }
}

/// Brings a counter up to what was counted elsewhere.
pub fn follow(metric: &Counter, count: &AtomicU64) {
    metric.inc_by(count.load(Ordering::Relaxed).saturating_sub(metric.get()));
}
