//! This node as one of many: its lease, what it knows of the others, what it still has to tell.
//!
//! ```text
//!                    ┌────────────── registry ──────────────┐
//!      renew, once a second │     writes, in batches │    graves │ claims
//!                    ▼      │                        │           ▼
//!   join ──► view of the others ──► suspects ──► undertaker   sweeper ──► $disconnect of the lost
//!              │       │ own tombstone                 │ probe
//!              ▼       └──► expelled: close all, join anew
//!        who owns an id ──► here · gone · another node ──► link
//! ```
//!
//! Tasks, all on the node's tracker: `heartbeat`, `registry-writes`, `registry-audit`, `sweeper`, and `burial` while
//! somebody is suspected.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::audit::Doubts;
use super::registry::{Fate, NodeInfo, Peer, Registry, RegistryError};
use super::transport::{Serve, Transport};
use super::view::View;
use super::writes::{Thing, Truth, Writes};
use super::{Counts, GroupName, audit, sweeper};
use crate::context::ConnectionContext;
use crate::ids::{ConnectionId, Incarnation};
use crate::tasks::Tasks;

/// How a node takes part in a cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a node may be silent before the others ask whether it lives. Default 10 s: the time until the clients of a
    /// crashed node get their `$disconnect`; above any pause a healthy process takes.
    pub lease: Duration,
    /// How long another node may take to answer. Default 2 s: less than the patience of SDKs.
    pub ask_deadline: Duration,
    /// `$disconnect` calls a second for the connections of dead nodes. Default 100: what a small back-end bears.
    pub recovery_rate: u32,
    /// How long a claim on a dead node's record lasts: above the longest call, 29 s. Default 60 s.
    pub claim_lapse: Duration,
    /// How long a handshake waits for its record to be written. Default 1 s; then it goes on and the record follows.
    pub announce_patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            ask_deadline: Duration::from_secs(2),
            recovery_rate: 100,
            claim_lapse: Duration::from_secs(60),
            announce_patience: Duration::from_secs(1),
        }
    }
}

impl Config {
    /// Between two renewals.
    pub(super) fn tick(&self) -> Duration {
        (self.lease / 10).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }

    /// How long a swept grave is kept open: a write of the dead that was under way may still land.
    pub(super) fn grave_age(&self) -> Duration {
        self.lease * 2 + self.claim_lapse
    }
}

/// What came of the `$disconnect` of a lost node's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It was attempted, well or not.
    Made,
    /// This node does not serve its stage.
    NoStage,
}

/// A `$disconnect` on its way.
pub type Attempting = Pin<Box<dyn Future<Output = Attempt> + Send>>;

/// What a node asks of the gateway it is part of.
pub trait Local: Serve + Truth {
    /// Every connection whose record should stand.
    fn connections(&self) -> Vec<ConnectionId>;

    /// Every group with members here.
    fn groups(&self) -> Vec<GroupName>;

    /// Runs the `$disconnect` of a connection whose node is dead.
    fn disconnect(&self, lost: ConnectionContext) -> Attempting;

    /// Ends every session of an incarnation at once with 1012; without `$disconnect`, which the others take care of, unless
    /// [`Node::owes_disconnect`] says so.
    fn expel(&self, incarnation: Incarnation);
}

/// How the registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It answers, and everybody had time to tell it what they have.
    Settled,
    /// It answers again; until then what it lists may be incomplete.
    Settling(Instant),
    /// It does not answer, and why.
    Away {
        /// Since when.
        since: Instant,
        /// The last error.
        error: RegistryError,
    },
}

/// What everybody who serves an exchange looks at; swapped as a whole.
#[derive(Debug)]
pub(super) struct Sight {
    /// This node; `None` while it has no incarnation: it was declared dead and has not joined anew.
    pub(super) me: Option<Incarnation>,
    pub(super) peers: BTreeMap<Incarnation, Arc<Peer>>,
    pub(super) health: Health,
}

pub(super) struct State {
    pub(super) view: View,
    pub(super) health: Health,
    pub(super) me: Option<Incarnation>,
    /// The incarnation that was declared dead, until this node has joined anew.
    pub(super) ended: Option<Incarnation>,
    /// Connections of that incarnation whose record may never have been written: nobody else can end them.
    pub(super) unrecorded: HashSet<ConnectionId>,
    /// Until when the lease is sure to hold.
    pub(super) confirmed_until: Instant,
}

/// This node in its cluster.
pub struct Node {
    pub(super) config: Config,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) writes: Writes,
    /// What the registry has of this node may not be so.
    pub(super) doubts: Doubts,
    pub(super) tasks: Tasks,
    pub(super) counts: Counts,
    pub(super) info: NodeInfo,
    transport: OnceLock<Arc<dyn Transport>>,
    local: OnceLock<Weak<dyn Local>>,
    sight: ArcSwap<Sight>,
    pub(super) state: Mutex<State>,
    pub(super) fates: super::delivery::Fates,
    /// Told when a renewal went well.
    pub(super) renewed: Notify,
    /// Told when there is something to sweep.
    pub(super) grave_dug: Notify,
    pub(super) is_burying: AtomicBool,
    pub(super) is_leaving: AtomicBool,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("info", &self.info).field("sight", &self.sight.load()).finish_non_exhaustive()
    }
}

impl Node {
    /// Enters the cluster: from here on ids can be minted. Nobody is served before [`Node::start`].
    ///
    /// # Errors
    /// Those of the registry; trying again is the caller's to decide.
    pub async fn join(
        config: Config,
        registry: Arc<dyn Registry>,
        info: NodeInfo,
        tasks: Tasks,
    ) -> Result<Arc<Self>, RegistryError> {
        let me = registry.join(&info, config.lease).await?;
        let now = Instant::now();
        let health = Health::Settling(now + config.lease);
        let state = State {
            view: View::new(config.lease),
            health: health.clone(),
            me: Some(me),
            ended: None,
            unrecorded: HashSet::new(),
            confirmed_until: now + config.lease,
        };
        Ok(Arc::new(Self {
            registry,
            info,
            writes: Writes::default(),
            doubts: Doubts::default(),
            tasks,
            counts: Counts::default(),
            transport: OnceLock::new(),
            local: OnceLock::new(),
            sight: ArcSwap::from_pointee(Sight { me: Some(me), peers: BTreeMap::new(), health }),
            state: Mutex::new(state),
            fates: super::delivery::Fates::default(),
            renewed: Notify::new(),
            grave_dug: Notify::new(),
            is_burying: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            config,
        }))
    }

    /// Begins to take part: renews, writes, watches the others.
    pub fn start(self: &Arc<Self>, transport: Arc<dyn Transport>, local: Weak<dyn Local>) {
        let _once = (self.transport.set(transport), self.local.set(local));
        let node = Arc::clone(self);
        self.tasks.spawn("heartbeat", async move { node.heartbeat().await });
        let node = Arc::clone(self);
        self.tasks.spawn("registry-writes", async move { node.write().await });
        let node = Arc::clone(self);
        self.tasks.spawn("sweeper", async move { sweeper::run(&node).await });
        let node = Arc::clone(self);
        self.tasks.spawn("registry-audit", async move { audit::run(&node).await });
    }

    /// This node, while it has an incarnation.
    pub fn me(&self) -> Option<Incarnation> {
        self.sight.load().me
    }

    /// How the registry is.
    pub fn health(&self) -> Health {
        match &self.sight.load().health {
            Health::Settling(until) if Instant::now() >= *until => Health::Settled,
            known @ (Health::Settled | Health::Settling(_) | Health::Away { .. }) => known.clone(),
        }
    }

    /// What this node is to the others.
    pub const fn info(&self) -> &NodeInfo {
        &self.info
    }

    /// The other nodes, and whether each one's lease has run out.
    pub fn others(&self) -> Vec<(Peer, bool)> {
        let state = self.state.lock();
        let peers = state.view.peers();
        peers.into_iter().map(|peer| (peer.clone(), state.view.is_late(peer.incarnation))).collect()
    }

    /// Changes that the registry does not know yet.
    pub fn unwritten(&self) -> usize {
        self.writes.len()
    }

    /// What was counted.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn sight(&self) -> arc_swap::Guard<Arc<Sight>> {
        self.sight.load()
    }

    pub(super) fn local(&self) -> Option<Arc<dyn Local>> {
        self.local.get().and_then(Weak::upgrade)
    }

    pub(super) fn transport(&self) -> Option<&Arc<dyn Transport>> {
        self.transport.get()
    }

    /// Writes a connection's record before its 101, so that whoever saw it has a `$disconnect` coming. `false`: the id is of
    /// an incarnation that has ended meanwhile or is ending, and must not be used.
    ///
    /// While the registry is away the record waits for it, and the client does not.
    pub async fn announce(&self, id: &ConnectionId) -> bool {
        if self.me() != Some(id.incarnation()) {
            return false;
        }
        let written = self.writes.appeared(Thing::Connection(*id));
        if !matches!(self.sight.load().health, Health::Away { .. }) {
            written.within(self.config.announce_patience).await;
        }
        self.me() == Some(id.incarnation()) && !self.is_leaving.load(Ordering::Acquire)
    }

    /// Whether the `$disconnect` of a connection that ends here is this node's to run. Once the others have declared it dead
    /// it is theirs, from the record; but for one that may have none there is only this node.
    pub fn owes_disconnect(&self, id: &ConnectionId) -> bool {
        self.me() == Some(id.incarnation()) || self.state.lock().unrecorded.remove(id)
    }

    /// A connection has ended and its `$disconnect` was attempted: its record goes.
    pub fn retire(&self, id: &ConnectionId) {
        // Those of an earlier incarnation are the others' to sweep.
        if self.me() == Some(id.incarnation()) {
            self.writes.changed(Thing::Connection(*id));
        }
    }

    /// A group has got its first member here.
    pub fn group_changed(&self, group: GroupName) {
        drop(self.writes.appeared(Thing::Group(group)));
    }

    /// Waits until the others can know that a group has members here, half a lease at most. While the registry is away it
    /// does not wait: the others ask everybody then, and a node alone cut off from it as soon as its lease has run out.
    pub async fn group_appeared(&self, group: GroupName) {
        let deadline = Instant::now() + self.config.lease / 2;
        let is_away = || matches!(self.sight.load().health, Health::Away { .. });
        while self.is_group_unwritten(&group) && !is_away() {
            let written = self.writes.appeared(Thing::Group(group.clone()));
            let patience = deadline.saturating_duration_since(Instant::now());
            if written.within(patience).await || patience.is_zero() {
                return;
            }
            // A batch has failed and comes again; it may be the next renewal that says the registry is away.
            tokio::time::sleep(self.config.tick()).await;
        }
    }

    /// A group has lost its last member here.
    pub fn group_ended(&self, group: GroupName) {
        self.writes.changed(Thing::Group(group));
    }

    /// Leaves in order, after the last session: everything is written, the tombstone set. What cannot be written within
    /// `patience` is left to the others.
    pub async fn leave(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let settled = tokio::time::timeout_at(deadline, self.writes.settled()).await.is_ok();
        self.is_leaving.store(true, Ordering::Release);
        // After a failed write one that is done late may still bring something back; the others look for it.
        let records_left = !settled
            || self.unwritten() > 0
            || self.doubts.any()
            || self.local().is_some_and(|local| !local.connections().is_empty());
        let Some(me) = self.me() else { return };
        let left = tokio::time::timeout_at(deadline.max(Instant::now() + self.config.tick()), async {
            while let Err(error) = self.registry.leave(me, records_left).await {
                tracing::debug!(%error, "the registry does not hear that this node leaves");
                tokio::time::sleep(self.config.tick()).await;
            }
        });
        if left.await.is_err() {
            tracing::warn!("the registry was not told that this node left; the others will find out");
        }
    }

    pub(super) fn tell_transport(&self, me: Incarnation) {
        let peers: Vec<Peer> = self.sight.load().peers.values().map(|peer| (**peer).clone()).collect();
        if let Some(transport) = self.transport() {
            transport.peers(&Peer { incarnation: me, info: self.info.clone() }, &peers);
        }
    }

    /// Tells everybody who serves an exchange what is known now.
    pub(super) fn publish(&self, state: &State) {
        let peers = state.view.peers().into_iter().map(|peer| (peer.incarnation, Arc::new(peer))).collect();
        self.sight.store(Arc::new(Sight { me: state.me, peers, health: state.health.clone() }));
    }

    /// A node has its tombstone.
    pub(super) fn bury(&self, peer: &Peer) {
        {
            let mut state = self.state.lock();
            state.view.buried(peer.incarnation);
            state.view.dug(peer.incarnation);
            self.publish(&state);
        }
        if let Some(me) = self.me() {
            self.tell_transport(me);
        }
    }

    /// Whether the registry may not know yet that a group has members here.
    pub fn is_group_unwritten(&self, group: &GroupName) -> bool {
        self.writes.has(&Thing::Group(group.clone()))
    }

    /// For the operator: sets the tombstone of an incarnation that neither this node nor the registry knows of, so that its
    /// ids are *gone* instead of *unavailable*. `false` when it is known.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn declare_dead(&self, incarnation: Incarnation) -> Result<bool, RegistryError> {
        let is_known = self.me() == Some(incarnation) || self.state.lock().view.lists(incarnation);
        if is_known || matches!(self.registry.fate(incarnation).await?, Fate::Member(_)) {
            return Ok(false);
        }
        self.registry.restore(&[], &[incarnation]).await?;
        self.state.lock().view.buried(incarnation);
        Ok(true)
    }
}
