//! What really happened, as nobody in the cluster can know it; promises are checked against it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::process::Process;
use crate::ids::{ConnectionId, Incarnation};

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its node lived and has to run its `$disconnect`.
    Closed,
    /// With its node's process.
    Crashed,
    /// Its node was declared dead.
    Expelled,
}

/// One `$disconnect` call, as the back-end sees it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) at: Instant,
    /// The survivor that made it; none when the connection's own node did.
    pub(super) by: Option<Incarnation>,
    pub(super) process: Arc<Process>,
    /// When the survivor had claimed the record.
    pub(super) claimed_at: Instant,
    /// The survivor could not take the record away afterwards.
    pub(super) is_unfinished: bool,
}

/// A connection that was given an id.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what happened to it, each for itself")]
pub(super) struct Client {
    /// When it was told 101.
    pub(super) opened_at: Option<Instant>,
    /// Its node has begun to close it.
    pub(super) is_closing: bool,
    pub(super) ended: Option<(Instant, End)>,
    /// What its node put into its outbox, in order.
    pub(super) received: Vec<String>,
    /// What back-ends were told is in it, in order.
    pub(super) promised: Vec<String>,
    /// Its record was in the registry once.
    pub(super) was_registered: bool,
    /// The registry has lost it since.
    pub(super) is_lost: bool,
    /// Its record came back after it had gone: the registry went back in time, or a write came late.
    pub(super) came_back: bool,
    pub(super) calls: Vec<Call>,
}

impl Client {
    pub(super) const fn is_live(&self) -> bool {
        self.opened_at.is_some() && !self.is_closing && self.ended.is_none()
    }
}

/// One incarnation and its process.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what happened to it, each for itself")]
pub(super) struct Owner {
    pub(super) process: Arc<Process>,
    /// Its process heard of it; if not, it is nobody.
    pub(super) is_known: bool,
    pub(super) joined_at: Instant,
    pub(super) renewal_failed_at: Option<Instant>,
    pub(super) frozen_at: Option<Instant>,
    pub(super) buried_at: Option<Instant>,
    pub(super) died_at: Option<Instant>,
    pub(super) is_expelled: bool,
    /// The registry has lost its entry, and it has not renewed it since.
    pub(super) is_lost: bool,
    /// It wrote a record meanwhile.
    pub(super) is_loose: bool,
    /// Whether it left in order, and then whether it said that records are left.
    pub(super) left: Option<bool>,
}

/// A process that ended without a word.
#[derive(Debug, Clone)]
pub(super) struct Crash {
    pub(super) at: Instant,
    pub(super) incarnation: Incarnation,
    /// Its connections that were in the registry, with their `$disconnect` still to come.
    pub(super) left: Vec<ConnectionId>,
}

impl Owner {
    /// It wrote a record in the moment between the registry's emptying and its own next renewal, and died: such a record may
    /// stand, or come back, without anything that leads to it. No promise.
    pub(super) const fn is_forgotten(&self) -> bool {
        self.is_loose && self.died_at.is_some()
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    pub(super) trace: Vec<String>,
    pub(super) broken: Vec<String>,
    pub(super) clients: BTreeMap<ConnectionId, Client>,
    pub(super) owners: BTreeMap<Incarnation, Owner>,
    /// Records that are in the registry.
    pub(super) stands: BTreeSet<ConnectionId>,
    pub(super) claims: BTreeMap<ConnectionId, Instant>,
    pub(super) disturbed: Vec<Instant>,
    pub(super) crashes: Vec<Crash>,
    pub(super) data_lost_at: Option<Instant>,
    pub(super) is_healed: bool,
    /// Counted, to see that histories are about something.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl Book {
    /// A copy of what is in the registry.
    pub(super) fn stands_only(&self) -> Self {
        Self { stands: self.stands.clone(), ..Self::default() }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn joined(&mut self, incarnation: Incarnation, process: &Arc<Process>) {
        let owner = Owner {
            process: Arc::clone(process),
            is_known: false,
            joined_at: Instant::now(),
            renewal_failed_at: None,
            frozen_at: None,
            buried_at: None,
            died_at: None,
            is_expelled: false,
            is_lost: false,
            is_loose: false,
            left: None,
        };
        if self.owners.insert(incarnation, owner).is_some() {
            self.broken.push(format!("{incarnation:?} was given twice"));
        }
    }

    /// The last incarnation that a process was given.
    pub(super) fn incarnation_of(&self, process: &Arc<Process>) -> Option<Incarnation> {
        let of_it = |owner: &Owner| owner.is_known && Arc::ptr_eq(&owner.process, process);
        let of_it = self.owners.iter().filter(|(_, owner)| of_it(owner));
        of_it.max_by_key(|(_, owner)| owner.joined_at).map(|(incarnation, _)| *incarnation)
    }

    pub(super) fn is_buried(&self, incarnation: Incarnation) -> bool {
        self.owners.get(&incarnation).is_some_and(|owner| owner.buried_at.is_some())
    }

    pub(super) fn buried(&mut self, incarnation: Incarnation) {
        if let Some(owner) = self.owners.get_mut(&incarnation) {
            owner.buried_at.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn put(&mut self, id: ConnectionId) {
        if let Some(owner) = self.owners.get_mut(&id.incarnation()) {
            owner.is_loose |= owner.is_lost;
        }
        let client = self.clients.entry(id).or_default();
        client.came_back |= !client.calls.is_empty() && client.was_registered && !self.stands.contains(&id);
        client.was_registered = true;
        client.is_lost = false;
        self.stands.insert(id);
    }

    pub(super) fn removed(&mut self, id: &ConnectionId) {
        self.stands.remove(id);
    }

    /// The registry was emptied, or is again as it was then.
    pub(super) fn data_lost(&mut self, then: Option<&Self>) {
        self.data_lost_at = Some(Instant::now());
        for owner in self.owners.values_mut().filter(|owner| owner.died_at.is_none()) {
            owner.is_lost = true;
        }
        let now = then.map(|then| then.stands.clone()).unwrap_or_default();
        for id in self.stands.difference(&now) {
            if let Some(client) = self.clients.get_mut(id) {
                client.is_lost = true;
            }
        }
        for id in now.difference(&self.stands) {
            if let Some(client) = self.clients.get_mut(id) {
                client.came_back = true;
            }
        }
        self.stands = now;
    }

    /// A process is no more, and with it its sessions.
    pub(super) fn died(&mut self, process: &Arc<Process>) {
        let now = Instant::now();
        if let Some(incarnation) = self.incarnation_of(process) {
            let is_left = |id: &&ConnectionId| {
                id.incarnation() == incarnation && self.clients.get(id).is_some_and(|client| client.calls.is_empty())
            };
            let left = self.stands.iter().filter(is_left).copied().collect();
            self.crashes.push(Crash { at: now, incarnation, left });
        }
        let of_it = |owner: &Owner| Arc::ptr_eq(&owner.process, process);
        for owner in self.owners.values_mut().filter(|owner| of_it(owner)) {
            owner.died_at.get_or_insert(now);
        }
        for (id, client) in &mut self.clients {
            if client.ended.is_none() && self.owners.get(&id.incarnation()).is_some_and(of_it) {
                client.ended = Some((now, End::Crashed));
            }
        }
    }

    /// Why a `$disconnect` by a survivor may not be made now; `None` when it may.
    pub(super) fn objection(&self, id: &ConnectionId, lapse: std::time::Duration) -> Option<&'static str> {
        let now = Instant::now();
        let (client, owner) = (self.clients.get(id)?, self.owners.get(&id.incarnation())?);
        if owner.buried_at.is_none() {
            return Some("is called for a connection whose node has no tombstone");
        }
        if client.came_back || client.calls.iter().any(|call| self.data_lost_at.is_some_and(|at| at >= call.at)) {
            return None;
        }
        let own = client.calls.iter().any(|call| call.by.is_none());
        if own && owner.left == Some(false) {
            return Some("is repeated though its node left in order, and said that nothing is left");
        }
        let last = client.calls.iter().rfind(|call| call.by.is_some())?;
        let survivor = last.by.and_then(|by| self.owners.get(&by));
        let stopped = last.process.is_dead()
            || survivor.is_some_and(|owner| owner.is_expelled || owner.frozen_at.is_some_and(|at| at >= last.at));
        // Claims are timed where they are kept, which may be another clock.
        let has_lapsed = now + lapse / 50 >= last.claimed_at + lapse;
        let is_promised = stopped || last.is_unfinished || has_lapsed;
        (!is_promised).then_some("is repeated though the survivor that made it goes on")
    }
}
