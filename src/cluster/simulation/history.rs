//! One history: nodes, clients, back-ends and faults, in an order that chance gives; then everything heals.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::super::node::{Local, Node};
use super::super::registry::NodeInfo;
use super::super::transport::{Request, Response};
use super::super::{DeliveryError, GroupName};
use super::gateway::{Gateway, api};
use super::network::{Wire, address};
use super::process::{Condition, Process};
use super::promises;
use super::store::{Line, Way};
use super::world::{SEATS, World, short};
use crate::clock::EpochMillis;
use crate::ids::{ConnectionId, invocation};
use crate::message::Kind;

/// What goes wrong in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theme {
    Nothing,
    Processes,
    Registry,
    Links,
    Freezes,
    Everything,
    /// Two crashes, and nothing else for long.
    LonelyCrashes,
}

const THEMES: [Theme; 9] = [
    Theme::Nothing,
    Theme::Processes,
    Theme::Processes,
    Theme::Registry,
    Theme::Links,
    Theme::Freezes,
    Theme::Everything,
    Theme::Everything,
    Theme::LonelyCrashes,
];

#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash,
    Start,
    Leave,
    Freeze,
    CutLinks,
    CutOneWay,
    SlowLinks,
    CutOff,
    Way,
    Outage,
    Empty,
    Keep,
    RollBack,
}

impl Theme {
    const fn faults(self) -> &'static [Fault] {
        use Fault::{
            Crash, CutLinks, CutOff, CutOneWay, Empty, Freeze, Keep, Leave, Outage, RollBack, SlowLinks, Start, Way,
        };
        match self {
            Self::Nothing | Self::LonelyCrashes => &[],
            Self::Processes => &[Crash, Start, Start, Leave],
            Self::Registry => &[Way, Way, Outage, Empty, Keep, Keep, RollBack],
            Self::Links => &[CutLinks, CutOneWay, SlowLinks, CutOff, Crash, Start],
            Self::Freezes => &[Freeze, Freeze, CutOff, Start],
            Self::Everything => &[
                Crash, Start, Start, Leave, Freeze, CutLinks, CutOneWay, SlowLinks, CutOff, Way, Way, Outage, Empty,
                Keep, Keep, RollBack,
            ],
        }
    }
}

/// Back-ends that push; each sends its next message when it knows what became of the last.
const CALLERS: usize = 3;
const GROUPS: [&str; 3] = ["red", "green", "blue"];

pub(super) fn groups() -> Vec<GroupName> {
    GROUPS.iter().filter_map(|name| GroupName::new(&api(), name)).collect()
}

pub(super) struct History {
    world: Arc<World>,
    theme: Theme,
    seats: Vec<Mutex<Option<Arc<Process>>>>,
    callers: Vec<tokio::sync::Mutex<u64>>,
}

impl History {
    /// Runs one from its beginning to its end; what was broken is in the world's book.
    pub(super) async fn run(world: &Arc<World>) {
        let (theme, nodes, steps) = {
            let mut chance = world.chance.lock();
            (*chance.pick(&THEMES).unwrap(), 2 + chance.below(SEATS - 1), 20 + chance.below(50))
        };
        let history = Arc::new(Self {
            world: Arc::clone(world),
            theme,
            seats: (0..nodes).map(|_| Mutex::new(None)).collect(),
            callers: (0..CALLERS).map(|_| tokio::sync::Mutex::new(0)).collect(),
        });
        world.say(&format!("{nodes} nodes, {steps} steps, what goes wrong: {theme:?}"));
        for seat in 0..nodes {
            history.start(seat);
        }
        for step in 0..steps {
            history.step();
            if theme == Theme::LonelyCrashes && step % (steps / 2) == steps / 3 && history.running().len() > 1 {
                sleep(world.units(26.0)).await;
                history.wrong(Fault::Crash);
                sleep(world.units(16.0)).await;
            }
            let gap = {
                let mut chance = world.chance.lock();
                let units = match chance.below(16) {
                    0 => 25.0,
                    1..=3 => 4.0,
                    _ => 0.5,
                };
                world.units(chance.part() * units)
            };
            sleep(gap).await;
        }
        history.heal();
        promises::when_quiet(world).await;
        for gateway in world.network.listeners() {
            world.network.listen(gateway.process.seat, None);
            gateway.process.become_so(Condition::Dead);
        }
    }

    fn step(self: &Arc<Self>) {
        let (kind, fault) = {
            let mut chance = self.world.chance.lock();
            (chance.below(20), chance.pick(self.theme.faults()).copied())
        };
        match (kind, fault) {
            (0..=3, Some(fault)) => self.wrong(fault),
            (0..=7, _) => self.connect(),
            (8..=10, _) => self.push(),
            (11, _) => self.describe(),
            (12..=13, _) => self.end(),
            (14..=16, _) => self.change_group(),
            (17..=18, _) => self.send(),
            _ => {
                for _ in 0..5 {
                    self.connect();
                    self.push();
                }
            }
        }
    }

    // --- What clients and back-ends do ---

    fn some_gateway(&self) -> Option<Arc<Gateway>> {
        let gateways = self.world.network.listeners();
        self.world.chance.lock().pick(&gateways).cloned()
    }

    /// A connection, mostly a live one.
    fn some_client(&self) -> Option<ConnectionId> {
        let book = self.world.book.lock();
        let mut chance = self.world.chance.lock();
        let any = chance.once_in(8);
        let clients = book.clients.iter().filter(|(_, client)| any || client.is_live());
        let ids: Vec<ConnectionId> = clients.map(|(id, _)| *id).collect();
        chance.pick(&ids).copied()
    }

    fn connect(&self) {
        if let Some(gateway) = self.some_gateway() {
            self.world.tasks.spawn("connect", async move {
                let _refused = gateway.connect().await;
            });
        }
    }

    fn end(self: &Arc<Self>) {
        let Some(id) = self.some_client() else { return };
        let by_api = self.world.chance.lock().once_in(3);
        let history = Arc::clone(self);
        self.world.tasks.spawn("end", async move {
            if by_api {
                if let Some(gateway) = history.some_gateway() {
                    let asked_at = Instant::now();
                    let answer = gateway.ask(&id, Request::Close { id, api: None }).await;
                    promises::check_gone(&history.world, &id, asked_at, answer.as_ref().err());
                }
            } else {
                for gateway in history.world.network.listeners() {
                    if gateway.sessions().contains(&id) {
                        gateway.process.gate().await;
                        gateway.close(&id);
                    }
                }
            }
        });
    }

    fn describe(self: &Arc<Self>) {
        let (Some(id), Some(gateway)) = (self.some_client(), self.some_gateway()) else { return };
        let world = Arc::clone(&self.world);
        self.world.tasks.spawn("describe", async move {
            let asked_at = Instant::now();
            let answer = gateway.ask(&id, Request::Describe { id, api: None }).await;
            promises::check_gone(&world, &id, asked_at, answer.as_ref().err());
        });
    }

    fn push(self: &Arc<Self>) {
        let Some(id) = self.some_client() else { return };
        let caller = self.world.chance.lock().below(CALLERS);
        let history = Arc::clone(self);
        self.world.tasks.spawn("push", async move { history.push_as(caller, id).await });
    }

    /// As an SDK does it: a call that got no answer or a 503 is made again, under the same id, wherever the load balancer
    /// sends it.
    async fn push_as(&self, caller: usize, id: ConnectionId) {
        let Some(caller_turn) = self.callers.get(caller) else { return };
        let mut count = caller_turn.lock().await;
        *count += 1;
        let payload = format!("{caller}:{count}");
        for attempt in 0..3 {
            let Some(gateway) = self.some_gateway() else { return };
            let request = Request::Push {
                id,
                api: None,
                kind: Kind::Text,
                payload: Bytes::copy_from_slice(payload.as_bytes()),
                invocation: Some(invocation(&payload, &id)),
            };
            let asked_at = Instant::now();
            let answer = timeout(self.world.units(5.0), gateway.ask(&id, request)).await;
            match answer {
                Ok(Ok(_)) => {
                    let mut book = self.world.book.lock();
                    book.count(if attempt == 0 { "pushes done" } else { "pushes done at another attempt" });
                    if let Some(client) = book.clients.get_mut(&id) {
                        client.promised.push(payload);
                    }
                    return;
                }
                Ok(Err(DeliveryError::Gone)) => {
                    promises::check_gone(&self.world, &id, asked_at, Some(&DeliveryError::Gone));
                    return;
                }
                Ok(Err(DeliveryError::Unavailable)) | Err(_) => {
                    self.world.book.lock().count("pushes without an answer");
                    sleep(self.world.units(0.3)).await;
                }
            }
        }
    }

    fn change_group(self: &Arc<Self>) {
        let (Some(id), Some(gateway)) = (self.some_client(), self.some_gateway()) else { return };
        let (group, leaves) = {
            let mut chance = self.world.chance.lock();
            (chance.pick(&groups()).cloned(), chance.once_in(4))
        };
        let Some(group) = group else { return };
        let world = Arc::clone(&self.world);
        self.world.tasks.spawn("group", async move {
            let request = if leaves { Request::Leave { id, group } } else { Request::Join { id, group } };
            let asked_at = Instant::now();
            let answer = gateway.ask(&id, request).await;
            promises::check_gone(&world, &id, asked_at, answer.as_ref().err());
        });
    }

    fn send(self: &Arc<Self>) {
        let Some(gateway) = self.some_gateway() else { return };
        let group = self.world.chance.lock().pick(&groups()).cloned();
        let Some(group) = group else { return };
        self.world.tasks.spawn("send", async move { promises::send(&gateway, &group).await });
    }

    // --- What goes wrong ---

    fn running(&self) -> Vec<usize> {
        let is_running =
            |seat: &Mutex<Option<Arc<Process>>>| seat.lock().as_ref().is_some_and(|there| there.is_running());
        self.seats.iter().enumerate().filter(|(_, seat)| is_running(seat)).map(|(n, _)| n).collect()
    }

    fn empty_seats(&self) -> Vec<usize> {
        self.seats.iter().enumerate().filter(|(_, seat)| seat.lock().is_none()).map(|(n, _)| n).collect()
    }

    fn wrong(self: &Arc<Self>, fault: Fault) {
        let (seat, other, long) = {
            let running = self.running();
            let mut chance = self.world.chance.lock();
            let long = chance.part() * if chance.once_in(3) { 30.0 } else { 6.0 };
            (chance.pick(&running).copied(), chance.pick(&running).copied(), long)
        };
        let (Some(seat), Some(other)) = (seat, other) else {
            if let Some(empty) = self.empty_seats().first() {
                self.start(*empty);
            }
            return;
        };
        let all: Vec<usize> = (0..self.seats.len()).collect();
        match fault {
            Fault::Crash => self.crash(seat),
            Fault::Start => {
                if let Some(empty) = self.empty_seats().first() {
                    self.start(*empty);
                }
            }
            Fault::Leave => self.leave(seat),
            Fault::Freeze => self.freeze(seat, long),
            Fault::CutLinks => self.links(&[(seat, other), (other, seat)], true, long),
            Fault::CutOneWay => self.links(&[(seat, other)], true, long),
            Fault::SlowLinks => {
                let links: Vec<_> = all.iter().flat_map(|there| [(seat, *there), (*there, seat)]).collect();
                self.links(&links, false, long);
            }
            Fault::CutOff => {
                let links: Vec<_> = all.iter().flat_map(|there| [(seat, *there), (*there, seat)]).collect();
                self.links(&links, true, long);
                self.way(Some(seat), Way::Silent, long);
            }
            Fault::Way | Fault::Outage => {
                let way = self.world.chance.lock().pick(&[Way::Cut, Way::Silent, Way::Flaky, Way::Slow]).copied();
                let whose = matches!(fault, Fault::Way).then_some(seat);
                self.way(whose, way.unwrap_or_default(), long);
            }
            Fault::Empty => self.world.empty(),
            Fault::Keep => self.world.keep(),
            Fault::RollBack => self.world.roll_back(),
        }
    }

    fn start(&self, seat: usize) {
        let process = Arc::new(Process::new(seat));
        *self.seats[seat].lock() = Some(Arc::clone(&process));
        let world = Arc::clone(&self.world);
        self.world.tasks.spawn("start", async move {
            let info = NodeInfo {
                address: address(seat).into(),
                name: format!("node-{seat}").into(),
                version: "0".into(),
                started_at: EpochMillis(1),
            };
            let node = loop {
                let line = Arc::new(Line::new(Arc::clone(&world), Arc::clone(&process)));
                match Node::join(world.config(), line, info.clone(), process.tasks.clone()).await {
                    Ok(node) => break node,
                    Err(_) if process.is_dead() => return,
                    Err(_) => sleep(world.units(0.5)).await,
                }
            };
            let gateway = Gateway::new(Arc::clone(&world), Arc::clone(&process), Arc::clone(&node));
            let local: Arc<dyn Local> = Arc::clone(&gateway) as _;
            node.start(Arc::new(Wire::new(Arc::clone(&world), process)), Arc::downgrade(&local));
            world.network.listen(seat, Some(gateway));
        });
    }

    fn crash(&self, seat: usize) {
        let Some(process) = self.seats[seat].lock().take() else { return };
        self.world.disturb(&format!("node {seat} crashes"));
        process.become_so(Condition::Dead);
        self.world.network.listen(seat, None);
        let mut book = self.world.book.lock();
        book.count("crashes");
        book.died(&process);
    }

    /// In order: no new clients, every session ends with its `$disconnect`, the registry is told.
    fn leave(self: &Arc<Self>, seat: usize) {
        let Some(gateway) = self.world.network.listener(seat) else { return };
        if gateway.process.is_draining() {
            return;
        }
        gateway.process.is_draining.store(true, std::sync::atomic::Ordering::Relaxed);
        self.world.disturb(&format!("node {seat} begins to leave"));
        let history = Arc::clone(self);
        self.world.tasks.spawn("leave", async move {
            let process = &gateway.process;
            for id in gateway.sessions() {
                process.gate().await;
                gateway.close(&id);
            }
            let patience = Instant::now() + history.world.units(10.0);
            while !gateway.is_empty() && Instant::now() < patience {
                sleep(history.world.units(0.1)).await;
                process.gate().await;
            }
            gateway.node().leave(history.world.units(3.0)).await;
            process.gate().await;
            let mut seated = history.seats[seat].lock();
            if seated.as_ref().is_some_and(|there| Arc::ptr_eq(there, process)) {
                *seated = None;
                process.become_so(Condition::Dead);
                history.world.disturb(&format!("node {seat} ends"));
                history.world.network.listen(seat, None);
                history.world.book.lock().died(process);
            }
        });
    }

    fn freeze(&self, seat: usize, long: f64) {
        let Some(process) = self.seats[seat].lock().clone() else { return };
        let world = Arc::clone(&self.world);
        let frozen = move |process: &Arc<Process>, condition: Condition, world: &World| {
            process.become_so(condition);
            world.disturb(&format!("node {seat} is now {condition:?}"));
            let mut book = world.book.lock();
            for owner in book.owners.values_mut().filter(|owner| Arc::ptr_eq(&owner.process, process)) {
                owner.frozen_at = Some(Instant::now());
            }
        };
        frozen(&process, Condition::Frozen, &world);
        self.world.tasks.spawn("thaw", async move {
            sleep(world.units(long)).await;
            if !process.is_dead() && !process.is_running() {
                frozen(&process, Condition::Running, &world);
            }
        });
    }

    fn links(&self, links: &[(usize, usize)], is_cut: bool, long: f64) {
        let (world, links) = (Arc::clone(&self.world), links.to_vec());
        for (from, to) in links.iter().filter(|(from, to)| from != to) {
            world.disturb(&format!("link {from} to {to}: {}", if is_cut { "cut" } else { "slow" }));
            world.network.set(*from, *to, is_cut, !is_cut);
        }
        self.world.tasks.spawn("mend", async move {
            sleep(world.units(long)).await;
            for (from, to) in links.iter().filter(|(from, to)| from != to) {
                world.network.set(*from, *to, false, false);
            }
            world.disturb("links are mended");
        });
    }

    /// A trouble of one node's way to the registry, or of everybody's.
    fn way(&self, seat: Option<usize>, way: Way, long: f64) {
        let world = Arc::clone(&self.world);
        let make = move |way: Way, world: &World| {
            let whose = seat.map_or_else(|| "everybody".to_owned(), |seat| format!("node {seat}"));
            world.disturb(&format!("the registry for {whose}: {way:?}"));
            match seat {
                Some(seat) => world.troubles.set(seat, way),
                None => world.troubles.set_everywhere(way),
            }
        };
        make(way, &world);
        self.world.tasks.spawn("mend", async move {
            sleep(world.units(long)).await;
            make(Way::Open, &world);
        });
    }

    /// Everything is as it should be from now on.
    fn heal(&self) {
        self.world.disturb("everything heals");
        self.world.book.lock().is_healed = true;
        self.world.network.heal();
        self.world.troubles.heal();
        for seat in &self.seats {
            let Some(process) = seat.lock().clone() else { continue };
            if !process.is_running() {
                process.become_so(Condition::Running);
                let mut book = self.world.book.lock();
                for owner in book.owners.values_mut().filter(|owner| Arc::ptr_eq(&owner.process, &process)) {
                    owner.frozen_at = Some(Instant::now());
                }
            }
        }
        // One at least is there to the end.
        let stays = |seat: &Mutex<Option<Arc<Process>>>| seat.lock().as_ref().is_some_and(|there| !there.is_draining());
        if !self.seats.iter().any(stays) {
            let empty = self.empty_seats().first().copied();
            if empty.is_none() {
                self.crash(0);
            }
            self.start(empty.unwrap_or(0));
        }
    }
}

/// What a push found, in words.
pub(super) fn answer(id: &ConnectionId, answer: &Result<Response, DeliveryError>) -> String {
    format!("{}: {answer:?}", short(id))
}
