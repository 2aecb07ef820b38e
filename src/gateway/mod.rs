//! The journeys: phases in running order, no protocol code.
//!
//! | journey | file | phases |
//! | --- | --- | --- |
//! | a client connects | `connect.rs` | identify, select, invoke, register |
//! | a client's message | `message.rs` | select, invoke, map back, deliver |
//! | a client is gone | `disconnect.rs` | forget, invoke |
//! | a back-end pushes | `push.rs` | identify, deliver |
//!
//! An *exchange* is one thing the gateway does for somebody: one connect, one message, one disconnect, one push. Each
//! has a request id and one access-log line. The definition is looked up once, at its start; a reload in the middle
//! changes nothing for it.

mod connect;
mod connection;
mod disconnect;
mod drain;
mod ledger;
mod live;
mod message;
mod peers;
mod push;
mod record;
mod rescue;
mod resolve;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

pub use connect::{Accepted, ConnectRequest, Refusal};
pub use connection::Connection;
pub use drain::DrainPlan;
pub use live::{Deployed, LiveStage};
pub use peers::{Filter, NodeView, Nodes};
pub use push::{Listing, Pushed};
pub use resolve::{Resolved, Resolver, is_address, is_loopback_name};

use crate::clock::Clock;
use crate::cluster::link::Links;
pub use crate::cluster::transport::{Described, Row};
use crate::cluster::{Cluster, Invocations, Node};
use crate::context::Profile;
use crate::definition::Snapshot;
use crate::fault::CloseReason;
use crate::integration::Integrations;
use crate::session::Hub;
use crate::tasks::Tasks;
use crate::telemetry::{AccessLog, Format, Metrics};
use ledger::Ledger;
use live::Deployment;

/// `$disconnect` calls that run at once. A node that loses ten thousand clients in a second must not become a flood
/// for the back-end; the rest wait their turn, and none is left out.
const DISCONNECTS_AT_ONCE: usize = 256;

/// Everything a gateway is made of, for [`Gateway::new`].
#[derive(Debug)]
pub struct Parts {
    /// The sessions of this node.
    pub hub: Arc<Hub<Connection>>,
    /// This node among others; `None` when it is alone.
    pub node: Option<Arc<Node>>,
    /// What a drain closes sessions with.
    pub farewell: CloseReason,
    /// Calls to back-ends.
    pub integrations: Integrations,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where access-log lines go.
    pub access_log: AccessLog,
    /// The format of lines for stages without one of their own.
    pub log_format: Arc<Format>,
    /// Where exchanges run.
    pub tasks: Tasks,
    /// Wall time.
    pub clock: Clock,
    /// Sessions this node takes.
    pub max_sessions: usize,
    /// Sessions one client address may have here.
    pub max_sessions_per_address: usize,
}

/// The parts, held once.
#[derive(Debug)]
pub struct Gateway {
    deployment: ArcSwap<Deployment>,
    cluster: Cluster<Connection>,
    ledger: Ledger,
    invocations: Invocations,
    farewell: CloseReason,
    links: OnceLock<Arc<Links>>,
    /// What other nodes ask may outlive the call that brought it.
    myself: Weak<Self>,
    integrations: Integrations,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    log_format: Arc<Format>,
    tasks: Tasks,
    clock: Clock,
    profiles: live::Interner<Profile>,
    addresses: live::Addresses,
    slots: AtomicU32,
    /// Whether a drain was announced: clients are still taken, and load balancers told to send no more.
    leaving: AtomicBool,
    draining: AtomicBool,
    shedding: AtomicBool,
    /// Handshakes between the gateway's first look at them and their session.
    connecting: Arc<()>,
    disconnects: Arc<Semaphore>,
    /// The second of the last logged integration failure, and how many were not logged since: 44 and 20 bits.
    complained: AtomicU64,
}

impl Gateway {
    /// A gateway that serves nothing until [`Gateway::deploy`].
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            deployment: ArcSwap::default(),
            cluster: match parts.node {
                Some(node) => Cluster::member(parts.hub, node),
                None => Cluster::alone(parts.hub),
            },
            ledger: Ledger::default(),
            invocations: Invocations::default(),
            farewell: parts.farewell,
            links: OnceLock::new(),
            myself: Weak::clone(myself),
            integrations: parts.integrations,
            metrics: parts.metrics,
            access_log: parts.access_log,
            log_format: parts.log_format,
            tasks: parts.tasks,
            clock: parts.clock,
            profiles: live::Interner::default(),
            addresses: live::Addresses::new(parts.max_sessions, parts.max_sessions_per_address),
            slots: AtomicU32::new(0),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            shedding: AtomicBool::new(false),
            connecting: Arc::new(()),
            disconnects: Arc::new(Semaphore::new(DISCONNECTS_AT_ONCE)),
            complained: AtomicU64::new(0),
        })
    }

    /// Publishes a definition: every exchange that starts from now on runs on it. Sessions stay, but for those whose
    /// stage is no more: they close 1001, and their `$disconnect` runs on the definition they were opened under.
    pub fn deploy(self: &Arc<Self>, snapshot: Snapshot) {
        let before = self.deployment.load();
        let (next, removed) = Deployment::build(Arc::new(snapshot), &before, self);
        self.deployment.store(Arc::new(next));
        if removed {
            self.close_removed();
        }
    }

    fn close_removed(&self) {
        for session in self.cluster.hub.all() {
            if session.stage().is_removed() {
                session.close(&CloseReason::StageRemoved);
            }
        }
    }

    /// The definition now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.deployment.load().snapshot())
    }

    /// The sessions of this node.
    pub const fn hub(&self) -> &Arc<Hub<Connection>> {
        &self.cluster.hub
    }

    /// This node among others; `None` when it is alone.
    pub const fn node(&self) -> Option<&Arc<Node>> {
        self.cluster.node()
    }

    /// What is counted.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Everything counted, as Prometheus text.
    pub fn render_metrics(&self) -> String {
        let stats = self.cluster.hub.stats();
        self.metrics.sessions_open.set(as_gauge(stats.open));
        self.metrics.outbox_bytes.set(as_gauge(stats.budget_used));
        self.metrics.handshakes_in_progress.set(as_gauge(self.handshakes()));
        self.metrics.exchanges_in_flight.set(as_gauge(self.tasks.running()));
        self.count_cluster();
        self.metrics.render()
    }

    /// Calls to back-ends.
    pub const fn integrations(&self) -> &Integrations {
        &self.integrations
    }

    /// Whether load balancers should send clients here.
    pub fn is_ready(&self) -> bool {
        !self.leaving.load(Ordering::Relaxed) && !self.is_draining()
    }

    /// Whether new clients are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Groups that have members.
    pub fn groups(&self) -> usize {
        self.cluster.groups.len()
    }

    /// Open sessions of one client address.
    pub fn sessions_of(&self, address: IpAddr) -> usize {
        self.addresses.count(address)
    }

    /// Handshakes that may still become sessions.
    fn handshakes(&self) -> usize {
        Arc::strong_count(&self.connecting) - 1
    }

    fn next_slot(&self) -> u32 {
        self.slots.fetch_add(1, Ordering::Relaxed) % crate::ids::MAX_SLOTS
    }
}

/// A count as a gauge takes it.
fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
