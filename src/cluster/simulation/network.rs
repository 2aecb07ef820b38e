//! The network between the nodes: each direction of each pair may be cut or slow. [`Wire`] is a node's end of it, the
//! transport port.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::super::registry::Peer;
use super::super::transport::{Asked, LinkError, Request, Response, Serve as _, Served, Transport};
use super::gateway::Gateway;
use super::process::Process;
use super::world::World;

/// One direction of a pair.
#[derive(Debug, Clone, Copy, Default)]
struct Direction {
    is_cut: bool,
    is_slow: bool,
    /// When it was last anything but good.
    bad_at: Option<Instant>,
}

/// Every direction that was ever bad, by the seats of its ends, and who listens.
#[derive(Debug, Default)]
pub(super) struct Network {
    directions: Mutex<BTreeMap<(usize, usize), Direction>>,
    listeners: Mutex<BTreeMap<usize, Arc<Gateway>>>,
}

impl Network {
    /// Changes one direction.
    pub(super) fn set(&self, from: usize, to: usize, is_cut: bool, is_slow: bool) {
        let direction = Direction { is_cut, is_slow, bad_at: Some(Instant::now()) };
        self.directions.lock().insert((from, to), direction);
    }

    /// Makes everything good.
    pub(super) fn heal(&self) {
        let now = Instant::now();
        for direction in self.directions.lock().values_mut().filter(|direction| direction.is_cut || direction.is_slow) {
            *direction = Direction { bad_at: Some(now), ..Direction::default() };
        }
    }

    fn direction(&self, from: usize, to: usize) -> Direction {
        self.directions.lock().get(&(from, to)).copied().unwrap_or_default()
    }

    /// Whether two seats could talk with each other without a break since then.
    pub(super) fn were_linked(&self, one: usize, other: usize, since: Instant) -> bool {
        [self.direction(one, other), self.direction(other, one)].iter().all(|direction| {
            !direction.is_cut && !direction.is_slow && direction.bad_at.is_none_or(|bad_at| bad_at < since)
        })
    }

    pub(super) fn listen(&self, seat: usize, gateway: Option<Arc<Gateway>>) {
        let mut listeners = self.listeners.lock();
        match gateway {
            Some(gateway) => listeners.insert(seat, gateway),
            None => listeners.remove(&seat),
        };
    }

    pub(super) fn listener(&self, seat: usize) -> Option<Arc<Gateway>> {
        self.listeners.lock().get(&seat).cloned()
    }

    pub(super) fn listeners(&self) -> Vec<Arc<Gateway>> {
        self.listeners.lock().values().cloned().collect()
    }
}

/// The address of a seat, and back.
pub(super) fn address(seat: usize) -> String {
    format!("node-{seat}:1")
}

fn seat(address: &str) -> Option<usize> {
    address.strip_prefix("node-")?.strip_suffix(":1")?.parse().ok()
}

/// A node's end of the network.
pub(super) struct Wire {
    world: Arc<World>,
    process: Arc<Process>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wire").field(&self.process.seat).finish()
    }
}

impl Wire {
    pub(super) const fn new(world: Arc<World>, process: Arc<Process>) -> Self {
        Self { world, process }
    }

    /// How long a message takes in one direction; `None` when it does not arrive.
    fn way(&self, from: usize, to: usize) -> Option<Duration> {
        let direction = self.world.network.direction(from, to);
        let mut chance = self.world.chance.lock();
        match (direction.is_cut, direction.is_slow) {
            (true, _) => None,
            (_, true) => Some(self.world.units(chance.part() * 3.0)),
            (false, false) if chance.once_in(4) => Some(self.world.units(chance.part() * 0.02)),
            (false, false) => Some(Duration::ZERO),
        }
    }

    async fn deliver(&self, peer: &Peer, request: Request, deadline: Duration) -> Result<Response, LinkError> {
        self.process.gate().await;
        let here = self.process.seat;
        let not_sent = |why: &str| Err(LinkError::NotSent(why.to_owned()));
        let Some(there) = seat(&peer.info.address) else { return not_sent("no such address") };
        let Some(on_the_way) = self.way(here, there) else {
            // Either the connection breaks at once, or what is sent is never heard of again.
            let breaks = self.world.chance.lock().once_in(2);
            if breaks {
                return not_sent("the link is cut");
            }
            sleep(deadline).await;
            self.process.gate().await;
            return Err(LinkError::Unanswered("the link is cut".to_owned()));
        };
        let Some(target) = self.world.network.listener(there) else { return not_sent("nobody listens") };
        if target.node().me() != Some(peer.incarnation) {
            return not_sent("somebody else answers");
        }
        let whom = peer.incarnation;
        let (answer, answered) = oneshot::channel();
        let wire = Self { world: Arc::clone(&self.world), process: Arc::clone(&self.process) };
        self.world.tasks.spawn("on its way", async move {
            pause(on_the_way).await;
            target.process.gate().await;
            // The links of an earlier incarnation end with it.
            if target.node().me().is_some_and(|me| me != whom) {
                return;
            }
            let response = match target.serve(request) {
                Served::Now(response) => response,
                Served::Later(response) => response.await,
            };
            target.process.gate().await;
            // Nobody hears of an answer that does not arrive: the question runs into its deadline.
            if let Some(back) = wire.way(there, here) {
                pause(back).await;
                let _gone = answer.send(response);
            } else {
                sleep(deadline).await;
                drop(answer);
            }
        });
        let answered = timeout(deadline, answered).await;
        self.process.gate().await;
        match answered {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_)) => Err(LinkError::Unanswered("the connection broke".to_owned())),
            Err(_) => Err(LinkError::Unanswered(format!("nothing within {deadline:?}"))),
        }
    }

    async fn answers(&self, peer: &Peer) -> bool {
        self.process.gate().await;
        let here = self.process.seat;
        let patience = self.world.units(1.5);
        let answer = async {
            let there = seat(&peer.info.address)?;
            let (on_the_way, target) = (self.way(here, there)?, self.world.network.listener(there)?);
            pause(on_the_way).await;
            target.process.gate().await;
            let is_it = target.node().me() == Some(peer.incarnation);
            pause(self.way(there, here)?).await;
            is_it.then_some(())
        };
        let answered = timeout(patience, answer).await.ok().flatten().is_some();
        self.process.gate().await;
        answered
    }
}

/// Waits, unless there is nothing to wait for.
pub(super) async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl Transport for Wire {
    fn ask<'a>(&'a self, peer: &'a Peer, request: Request, deadline: Duration) -> Asked<'a> {
        Box::pin(self.deliver(peer, request, deadline))
    }

    fn probe<'a>(&'a self, peer: &'a Peer) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(self.answers(peer))
    }

    fn peers(&self, _: &Peer, _: &[Peer]) {}
}
