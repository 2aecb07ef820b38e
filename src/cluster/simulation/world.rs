//! The world of one history: its clock, its chance, what stands behind the ports, and the book of what really happened.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::Config;
use super::super::memory::{Memory, Snapshot};
use super::super::registry::Registry;
use super::book::Book;
use super::chance::Chance;
use super::network::Network;
use super::store::Troubles;
use crate::ids::{ConnectionId, Incarnation};
use crate::tasks::Tasks;

/// Nodes at the most.
pub(super) const SEATS: usize = 5;

/// What stands behind the registry port.
#[derive(Clone)]
pub(super) struct Backing {
    pub(super) registry: Arc<dyn Registry>,
    /// Makes it lose everything.
    pub(super) empty: Arc<dyn Fn() + Send + Sync>,
    /// The same registry, where it can go back to an earlier moment.
    pub(super) memory: Option<Memory>,
    /// A tenth of a lease. Everything that takes time here is said in these.
    pub(super) unit: Duration,
}

impl Backing {
    pub(super) fn memory(seed: u64) -> Self {
        let memory = Memory::new(seed);
        let twin = memory.clone();
        Self {
            registry: Arc::new(memory.clone()),
            empty: Arc::new(move || twin.empty()),
            memory: Some(memory),
            unit: Duration::from_secs(1),
        }
    }
}

pub(super) struct World {
    pub(super) backing: Backing,
    pub(super) chance: Mutex<Chance>,
    pub(super) tasks: Tasks,
    pub(super) network: Network,
    pub(super) troubles: Troubles,
    pub(super) book: Mutex<Book>,
    pub(super) kept: Mutex<Option<(Snapshot, Book)>>,
    start: Instant,
}

impl World {
    pub(super) fn new(seed: u64, backing: Backing) -> Arc<Self> {
        Arc::new(Self {
            backing,
            chance: Mutex::new(Chance::new(seed)),
            tasks: Tasks::new(),
            network: Network::default(),
            troubles: Troubles::default(),
            book: Mutex::default(),
            kept: Mutex::default(),
            start: Instant::now(),
        })
    }

    pub(super) fn units(&self, count: f64) -> Duration {
        self.backing.unit.mul_f64(count)
    }

    /// A lease of ten units; a claim outlasts most calls and not all.
    pub(super) fn config(&self) -> Config {
        let per_second = 100.0 / self.backing.unit.as_secs_f64();
        Config {
            lease: self.units(10.0),
            ask_deadline: self.units(2.0),
            recovery_rate: per_second as u32,
            claim_lapse: self.units(10.0),
            announce_patience: self.units(1.0),
        }
    }

    /// Notes what happens, for whoever has to understand a failure.
    pub(super) fn say(&self, what: &str) {
        let mut line = String::new();
        let at = self.start.elapsed().as_secs_f64() / self.backing.unit.as_secs_f64();
        let _written = write!(line, "{at:9.3} {what}");
        self.book.lock().trace.push(line);
    }

    /// A promise is broken.
    pub(super) fn broken(&self, what: &str) {
        self.say(&format!("BROKEN {what}"));
        self.book.lock().broken.push(what.to_owned());
    }

    /// Something is, or was until now, not as it should be.
    pub(super) fn disturb(&self, what: &str) {
        self.say(what);
        self.book.lock().disturbed.push(Instant::now());
    }

    /// Whether nothing was disturbed since then.
    pub(super) fn is_calm_since(&self, since: Instant) -> bool {
        self.book.lock().disturbed.last().is_none_or(|at| *at < since)
    }

    /// The registry loses everything.
    pub(super) fn empty(&self) {
        self.disturb("registry: emptied");
        if self.chance.lock().once_in(2) {
            self.troubles.break_connections(SEATS);
        }
        (self.backing.empty)();
        self.book.lock().data_lost(None);
    }

    /// Keeps the registry as it is now.
    pub(super) fn keep(&self) {
        if let Some(memory) = &self.backing.memory {
            self.say("registry: a snapshot is kept");
            *self.kept.lock() = Some((memory.snapshot(), self.book.lock().stands_only()));
        }
    }

    /// The registry goes back to what was kept.
    pub(super) fn roll_back(&self) {
        let Some(memory) = &self.backing.memory else { return };
        let Some((snapshot, then)) = self.kept.lock().take() else { return };
        self.disturb("registry: rolled back");
        self.troubles.break_connections(SEATS);
        memory.roll_back(&snapshot);
        self.book.lock().data_lost(Some(&then));
    }
}

/// An incarnation in a few characters.
pub(super) fn tag(incarnation: Incarnation) -> String {
    format!("#{:x}", incarnation.get())
}

/// A connection in a few characters.
pub(super) fn short(id: &ConnectionId) -> String {
    format!("{}/{}", tag(id.incarnation()), id.slot())
}
