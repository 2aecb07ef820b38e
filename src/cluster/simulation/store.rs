//! The way from each node to the registry, with its troubles. [`Line`] is a node's end of it, the registry port.
//!
//! What fails here fails as it does in life: nothing was done, or all, or a part; at once, or only when the caller has
//! long given up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::super::GroupName;
use super::super::registry::{
    Answer, Burial, Claim, Fate, NodeInfo, Page, Peer, Registry, RegistryError, Renewal, Write,
};
use super::process::Process;
use super::world::{World, short, tag};
use crate::ids::{ConnectionId, Incarnation};

/// How a node's way to the registry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Way {
    #[default]
    Open,
    /// Refused at once.
    Cut,
    /// Nothing comes back; what was sent may be done later.
    Silent,
    /// Now and then a call fails, one way or the other.
    Flaky,
    /// Answers take up to the deadline, and longer.
    Slow,
}

/// What is wrong between the nodes and the registry now.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    ways: Mutex<BTreeMap<usize, Way>>,
    /// The registry is away for everybody.
    everywhere: Mutex<Way>,
    /// Their connection has broken: the next call says so.
    broken: Mutex<BTreeSet<usize>>,
}

impl Troubles {
    pub(super) fn set(&self, seat: usize, way: Way) {
        self.ways.lock().insert(seat, way);
    }

    pub(super) fn set_everywhere(&self, way: Way) {
        *self.everywhere.lock() = way;
    }

    pub(super) fn heal(&self) {
        self.ways.lock().clear();
        self.set_everywhere(Way::Open);
    }

    /// Every connection breaks, as at a restart.
    pub(super) fn break_connections(&self, seats: usize) {
        self.broken.lock().extend(0..seats);
    }

    fn of(&self, seat: usize) -> Way {
        match *self.everywhere.lock() {
            Way::Open => self.ways.lock().get(&seat).copied().unwrap_or_default(),
            way @ (Way::Cut | Way::Silent | Way::Flaky | Way::Slow) => way,
        }
    }
}

/// What will become of a call.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Now,
    After(Duration),
    Refused,
    /// Never done, and nobody says so.
    Lost,
    /// Done, but the answer is lost.
    Unsaid,
    /// Done so long after the caller has given up.
    Late(Duration),
}

impl Plan {
    const fn fails(self) -> bool {
        matches!(self, Self::Refused | Self::Lost | Self::Unsaid | Self::Late(_))
    }
}

/// A node's end of the way to the registry.
pub(super) struct Line {
    world: Arc<World>,
    process: Arc<Process>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Line").field(&self.process.seat).finish()
    }
}

type Done<T> = Pin<Box<dyn Future<Output = Result<T, RegistryError>> + Send>>;

impl Line {
    pub(super) const fn new(world: Arc<World>, process: Arc<Process>) -> Self {
        Self { world, process }
    }

    async fn plan(&self) -> Plan {
        self.process.gate().await;
        if self.world.troubles.broken.lock().remove(&self.process.seat) {
            return Plan::Refused;
        }
        let way = self.world.troubles.of(self.process.seat);
        let mut chance = self.world.chance.lock();
        let late = self.world.units(chance.part() * 6.0);
        let soon = self.world.units(chance.part() * 0.9);
        match (way, chance.below(8)) {
            (Way::Open, 0) => Plan::After(soon / 50),
            (Way::Open, _) | (Way::Flaky, 0..=2) => Plan::Now,
            (Way::Cut, _) | (Way::Flaky, 3..=4) => Plan::Refused,
            (Way::Silent, 0..=3) => Plan::Lost,
            (Way::Flaky, 5..=6) => Plan::Unsaid,
            (Way::Slow, 0..=5) => Plan::After(soon),
            (Way::Silent | Way::Flaky | Way::Slow, _) => Plan::Late(late),
        }
    }

    async fn call<T: Send + 'static>(&self, call: Done<T>) -> Result<T, RegistryError> {
        let plan = self.plan().await;
        self.carry_out(plan, call).await
    }

    async fn carry_out<T: Send + 'static>(&self, plan: Plan, call: Done<T>) -> Result<T, RegistryError> {
        let deadline = self.world.units(1.0);
        let timed_out = Err(RegistryError::TimedOut(deadline));
        let refused = Err(RegistryError::Unreachable("cut".to_owned()));
        let result = match plan {
            Plan::Now => call.await,
            Plan::After(delay) => {
                let (answer, answered) = oneshot::channel();
                self.world.tasks.spawn("call", async move {
                    sleep(delay).await;
                    let _gone = answer.send(call.await);
                });
                answered.await.unwrap_or(timed_out)
            }
            Plan::Refused => refused,
            Plan::Lost => {
                sleep(deadline).await;
                timed_out
            }
            Plan::Unsaid => {
                let _unsaid = call.await;
                refused
            }
            Plan::Late(delay) => {
                self.world.tasks.spawn("late call", async move {
                    sleep(deadline + delay).await;
                    let _unsaid = call.await;
                });
                sleep(deadline).await;
                timed_out
            }
        };
        self.process.gate().await;
        result
    }

    fn registry(&self) -> Arc<dyn Registry> {
        Arc::clone(&self.world.backing.registry)
    }

    /// A burial has happened: was it one that may happen?
    fn check_burial(world: &World, process: &Arc<Process>, whom: Incarnation, asked_at: Instant, is_deaf: bool) {
        let mut book = world.book.lock();
        book.count("burials");
        book.buried(whom);
        let (mut reasons, burier) = (Vec::new(), process.seat);
        if let Some(owner) = book.owners.get(&whom) {
            // A probe takes a unit and a half, and its answer is acted on at once.
            let since = asked_at.checked_sub(world.units(1.6)).unwrap_or(asked_at);
            let ran = owner.process.is_running() && owner.frozen_at.is_none_or(|at| at < since);
            let node =
                world.network.listener(owner.process.seat).filter(|there| Arc::ptr_eq(&there.process, &owner.process));
            let is_it = node.is_some_and(|there| there.node().me() == Some(whom));
            if ran && is_it && world.network.were_linked(burier, owner.process.seat, since) {
                reasons.push("is buried though it lives and answers");
            }
        }
        if is_deaf {
            reasons.push("is buried by a node that did not hear from the registry for a whole lease");
        }
        drop(book);
        world.say(&format!("node {burier} buries {}", tag(whom)));
        for reason in reasons {
            world.broken(&format!("{} {reason}", tag(whom)));
        }
    }
}

impl Registry for Line {
    fn join<'a>(&'a self, info: &'a NodeInfo, lease: Duration) -> Answer<'a, Incarnation> {
        let (world, process, registry, info) =
            (Arc::clone(&self.world), Arc::clone(&self.process), self.registry(), info.clone());
        Box::pin(async move {
            let joined = self.call(Box::pin(async move {
                let incarnation = registry.join(&info, lease).await?;
                world.book.lock().joined(incarnation, &process);
                world.disturb(&format!("node {} joins as {}", process.seat, tag(incarnation)));
                Ok(incarnation)
            }));
            let joined = joined.await;
            if let Ok(incarnation) = &joined
                && let Some(owner) = self.world.book.lock().owners.get_mut(incarnation)
            {
                owner.is_known = true;
            }
            joined
        })
    }

    fn renew<'a>(&'a self, me: Incarnation, info: &'a NodeInfo, lease: Duration) -> Answer<'a, Renewal> {
        let (registry, info, world) = (self.registry(), info.clone(), Arc::clone(&self.world));
        Box::pin(async move {
            let renewal = Box::pin(async move {
                let renewal = registry.renew(me, &info, lease).await?;
                if let Some(owner) = world.book.lock().owners.get_mut(&me) {
                    owner.is_lost = false;
                }
                Ok(renewal)
            });
            let renewed = self.call(renewal).await;
            if let (Err(_), Some(owner)) = (&renewed, self.world.book.lock().owners.get_mut(&me)) {
                owner.renewal_failed_at = Some(Instant::now());
            }
            renewed
        })
    }

    fn bury(&self, whom: Incarnation, lease: u64, dataset: u64) -> Answer<'_, Burial> {
        let (world, process, registry) = (Arc::clone(&self.world), Arc::clone(&self.process), self.registry());
        let (asked_at, whole) = (Instant::now(), world.units(10.0));
        let is_deaf = {
            let book = world.book.lock();
            let by = book.owners.values().filter(|owner| Arc::ptr_eq(&owner.process, &process));
            by.filter_map(|owner| owner.renewal_failed_at).any(|at| at + whole > asked_at)
        };
        Box::pin(self.call(Box::pin(async move {
            let burial = registry.bury(whom, lease, dataset).await?;
            if burial == Burial::Buried {
                Self::check_burial(&world, &process, whom, asked_at, is_deaf);
            }
            Ok(burial)
        })))
    }

    fn leave(&self, me: Incarnation, records_left: bool) -> Answer<'_, ()> {
        let (world, registry) = (Arc::clone(&self.world), self.registry());
        Box::pin(self.call(Box::pin(async move {
            registry.leave(me, records_left).await?;
            world.disturb(&format!("{} has left, records left: {records_left}", tag(me)));
            let mut book = world.book.lock();
            book.buried(me);
            if let Some(owner) = book.owners.get_mut(&me) {
                owner.left = Some(records_left || owner.left == Some(true));
            }
            Ok(())
        })))
    }

    fn fate(&self, of: Incarnation) -> Answer<'_, Fate> {
        let registry = self.registry();
        Box::pin(self.call(Box::pin(async move { registry.fate(of).await })))
    }

    fn restore<'a>(&'a self, nodes: &'a [Peer], buried: &'a [Incarnation]) -> Answer<'a, ()> {
        let (world, process, registry) = (Arc::clone(&self.world), Arc::clone(&self.process), self.registry());
        let (nodes, buried) = (nodes.to_vec(), buried.to_vec());
        Box::pin(self.call(Box::pin(async move {
            registry.restore(&nodes, &buried).await?;
            world.say(&format!("node {} puts back {} nodes, {} tombstones", process.seat, nodes.len(), buried.len()));
            for incarnation in buried {
                if !world.book.lock().is_buried(incarnation) {
                    world.broken(&format!("{} gets a tombstone back that it never had", tag(incarnation)));
                }
            }
            Ok(())
        })))
    }

    fn write<'a>(&'a self, batch: &'a [Write]) -> Answer<'a, ()> {
        let (world, registry, mut batch) = (Arc::clone(&self.world), self.registry(), batch.to_vec());
        let me = world.network.listener(self.process.seat).and_then(|here| here.node().me());
        for write in &batch {
            if let (Write::Put(context), Some(me)) = (write, me)
                && context.id.incarnation() != me
            {
                world.broken(&format!("{} writes the record of {}", tag(me), short(&context.id)));
            }
        }
        Box::pin(async move {
            let plan = self.plan().await;
            if plan.fails() {
                let (from, to) = {
                    let mut chance = world.chance.lock();
                    (chance.below(batch.len() + 1), chance.below(batch.len() + 1))
                };
                batch = batch.get(from.min(to)..from.max(to)).unwrap_or_default().to_vec();
            }
            self.carry_out(
                plan,
                Box::pin(async move {
                    registry.write(&batch).await?;
                    for write in &batch {
                        match write {
                            Write::Put(context) => {
                                world.say(&format!("record of {} is written", short(&context.id)));
                                world.book.lock().put(context.id);
                            }
                            Write::Remove(id) => {
                                world.say(&format!("record of {} is removed", short(id)));
                                world.book.lock().removed(id);
                            }
                            Write::Enter(group, node) => world.say(&format!("{} enters {}", tag(*node), group.name)),
                            Write::Leave(group, node) => world.say(&format!("{} leaves {}", tag(*node), group.name)),
                        }
                    }
                    Ok(())
                }),
            )
            .await
        })
    }

    fn records(&self, of: Incarnation, bucket: u16, cursor: Option<u64>) -> Answer<'_, Page<ConnectionId>> {
        let registry = self.registry();
        Box::pin(async move {
            let mut page = self.call(Box::pin(async move { registry.records(of, bucket, cursor).await })).await?;
            // Listed at least once is what is promised.
            if !page.items.is_empty() && self.world.chance.lock().once_in(4) {
                page.items.extend_from_within(..1);
            }
            Ok(page)
        })
    }

    fn claim(&self, id: ConnectionId, claimant: u64, lapse: Duration) -> Answer<'_, Claim> {
        let (world, registry) = (Arc::clone(&self.world), self.registry());
        Box::pin(self.call(Box::pin(async move {
            let claim = registry.claim(id, claimant, lapse).await?;
            if matches!(claim, Claim::Yours(_)) {
                world.book.lock().claims.insert(id, Instant::now());
            }
            Ok(claim)
        })))
    }

    fn finish(&self, id: ConnectionId, claimant: u64) -> Answer<'_, bool> {
        let (world, registry) = (Arc::clone(&self.world), self.registry());
        Box::pin(async move {
            let twin = Arc::clone(&world);
            let finished = self
                .call(Box::pin(async move {
                    let is_done = registry.finish(id, claimant).await?;
                    if is_done {
                        twin.say(&format!("record of {} is finished", short(&id)));
                        twin.book.lock().removed(&id);
                    }
                    Ok(is_done)
                }))
                .await;
            if finished != Ok(true)
                && let Some(client) = world.book.lock().clients.get_mut(&id)
            {
                let by_it = |by: Incarnation| u64::from(by.get()) == claimant;
                for call in client.calls.iter_mut().filter(|call| call.by.is_some_and(by_it)) {
                    call.is_unfinished = true;
                }
            }
            finished
        })
    }

    fn reopen(&self, of: Incarnation) -> Answer<'_, ()> {
        let registry = self.registry();
        Box::pin(self.call(Box::pin(async move { registry.reopen(of).await })))
    }

    fn close_grave(&self, of: Incarnation) -> Answer<'_, ()> {
        let (world, registry) = (Arc::clone(&self.world), self.registry());
        Box::pin(self.call(Box::pin(async move {
            world.say(&format!("grave of {} is closed", tag(of)));
            registry.close_grave(of).await
        })))
    }

    fn group_nodes<'a>(&'a self, group: &'a GroupName) -> Answer<'a, Vec<Incarnation>> {
        let (registry, group) = (self.registry(), group.clone());
        Box::pin(self.call(Box::pin(async move { registry.group_nodes(&group).await })))
    }

    fn groups_of(&self, of: Incarnation, cursor: Option<u64>) -> Answer<'_, Page<GroupName>> {
        let registry = self.registry();
        Box::pin(self.call(Box::pin(async move { registry.groups_of(of, cursor).await })))
    }

    fn count<'a>(&'a self, counter: &'a str, amount: u64, period: Duration) -> Answer<'a, u64> {
        let (registry, counter) = (self.registry(), counter.to_owned());
        Box::pin(self.call(Box::pin(async move { registry.count(&counter, amount, period).await })))
    }
}
