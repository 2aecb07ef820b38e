//! What this node believes of the others. Pure: it is told what a renewal found and when, and draws the conclusions.
//!
//! A lease that expired is not a death. A node is suspected only when all of this holds:
//!
//! - its lease has run out by the registry's clock, and has not changed for a whole lease by ours;
//! - for that whole time the registry answered every renewal of ours, with its data unchanged.
//!
//! Whatever breaks the second (an error, a gap, an emptied registry, lost writes) starts everybody's patience anew. The
//! suspicion is then tried on the link, and the registry's compare-and-set has the last word (`undertaker.rs`).
//!
//! Only durations of this node's own monotonic clock are used: clocks of nodes may differ as they like.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::registry::{Grave, Heartbeat, NodeInfo, Peer};
use crate::ids::Incarnation;

/// Tombstones remembered, to answer *gone* without asking and to put them back when the registry loses its data. The
/// oldest numbers go first; the registry itself keeps all.
const REMEMBERED: usize = 65_536;

#[derive(Debug)]
struct Known {
    info: NodeInfo,
    lease: u64,
    expired: bool,
    /// When the lease was last seen to change, or everybody's patience began anew.
    renewed_at: Instant,
    /// The log has a line that it lives all the same.
    is_old_news: bool,
}

/// A node that may be dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suspect {
    pub(super) peer: Peer,
    /// The lease it was seen with.
    pub(super) lease: u64,
    pub(super) dataset: u64,
}

/// What a renewal changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Nodes came or went.
    pub(super) membership: bool,
    /// The registry was emptied or lost writes: what this node knows must be written again.
    pub(super) lost: bool,
    /// The way to it was made anew: it may have lost what no renewal was in.
    pub(super) remade: bool,
    /// Nodes that were listed and are no more, which alone proves nothing.
    pub(super) vanished: Vec<Peer>,
}

/// This node's picture of the cluster.
#[derive(Debug)]
pub(super) struct View {
    lease: Duration,
    dataset: Option<u64>,
    beat: u64,
    way: u64,
    /// Since when the registry has answered without a break and with the same data.
    unbroken_since: Option<Instant>,
    heard_at: Option<Instant>,
    nodes: BTreeMap<Incarnation, Known>,
    buried: BTreeSet<Incarnation>,
    graves: Vec<Grave>,
}

impl View {
    pub(super) const fn new(lease: Duration) -> Self {
        Self {
            lease,
            dataset: None,
            beat: 0,
            way: 0,
            unbroken_since: None,
            heard_at: None,
            nodes: BTreeMap::new(),
            buried: BTreeSet::new(),
            graves: Vec::new(),
        }
    }

    /// A renewal failed, or found this node declared dead: whatever happens now is not seen.
    pub(super) const fn failed(&mut self) {
        self.unbroken_since = None;
    }

    /// A renewal went well.
    pub(super) fn heard(&mut self, now: Instant, me: Incarnation, heartbeat: Heartbeat) -> Change {
        let first = self.dataset.is_none();
        let lost =
            !first && (self.dataset != Some(heartbeat.dataset) || heartbeat.beat <= self.beat || heartbeat.reentered);
        // Half a lease unseen is long enough for a registry to be restarted in.
        let gap = self.heard_at.is_none_or(|heard| now - heard > self.lease / 2);
        let remade = !first && self.way != heartbeat.way;
        if lost || remade || gap || self.unbroken_since.is_none() {
            self.unbroken_since = Some(now);
            for known in self.nodes.values_mut() {
                known.renewed_at = now;
            }
        }
        self.heard_at = Some(now);
        self.dataset = Some(heartbeat.dataset);
        self.beat = heartbeat.beat;
        self.way = heartbeat.way;
        self.graves = heartbeat.graves;

        let mut change = Change { lost, remade, membership: first, ..Change::default() };
        let mut listed = BTreeSet::new();
        for node in heartbeat.nodes {
            let incarnation = node.peer.incarnation;
            if incarnation == me {
                continue;
            }
            listed.insert(incarnation);
            change.membership |= self.nodes.get(&incarnation).is_none_or(|known| known.info != node.peer.info);
            let known = self.nodes.get(&incarnation).filter(|known| known.lease == node.lease);
            let is_old_news = known.is_some_and(|known| known.is_old_news);
            let renewed_at = known.map_or(now, |known| known.renewed_at);
            let known =
                Known { info: node.peer.info, lease: node.lease, expired: node.expired, renewed_at, is_old_news };
            self.nodes.insert(incarnation, known);
        }
        let missing = |(incarnation, known): (&Incarnation, &Known)| {
            let peer = Peer { incarnation: *incarnation, info: known.info.clone() };
            (!listed.contains(incarnation)).then_some(peer)
        };
        change.vanished = self.nodes.iter().filter_map(missing).collect();
        change
    }

    /// A tombstone is proven: the node is no more.
    pub(super) fn buried(&mut self, incarnation: Incarnation) {
        self.nodes.remove(&incarnation);
        self.buried.insert(incarnation);
        while self.buried.len() > REMEMBERED {
            self.buried.pop_first();
        }
    }

    /// A node that a lookup found before a renewal did.
    pub(super) fn met(&mut self, now: Instant, peer: &Peer) {
        let known = Known { info: peer.info.clone(), lease: 0, expired: false, renewed_at: now, is_old_news: false };
        self.nodes.entry(peer.incarnation).or_insert(known);
    }

    /// What was heard last is not relied on: the next renewal counts as one after a loss.
    pub(super) const fn distrust(&mut self) {
        self.beat = u64::MAX;
    }

    /// Whether a node is taken to be there.
    pub(super) fn lists(&self, incarnation: Incarnation) -> bool {
        self.nodes.contains_key(&incarnation)
    }

    /// The others.
    pub(super) fn peers(&self) -> Vec<Peer> {
        self.nodes
            .iter()
            .map(|(incarnation, known)| Peer { incarnation: *incarnation, info: known.info.clone() })
            .collect()
    }

    /// Tombstones remembered.
    pub(super) const fn tombstones(&self) -> &BTreeSet<Incarnation> {
        &self.buried
    }

    /// What is left to sweep.
    pub(super) fn graves(&self) -> &[Grave] {
        &self.graves
    }

    /// A grave that the next renewal will list.
    pub(super) fn dug(&mut self, incarnation: Incarnation) {
        self.graves.push(Grave { incarnation, age: Duration::ZERO });
    }

    /// Whether it is worth a line that a node with this lease lives: once.
    pub(super) fn is_news(&mut self, incarnation: Incarnation) -> bool {
        self.nodes.get_mut(&incarnation).is_some_and(|known| !std::mem::replace(&mut known.is_old_news, true))
    }

    /// Whether a node's lease has run out, as far as is known.
    pub(super) fn is_late(&self, incarnation: Incarnation) -> bool {
        self.nodes.get(&incarnation).is_some_and(|known| known.expired)
    }

    /// Who may be dead; each has still to fail on its link.
    pub(super) fn suspects(&self, now: Instant) -> Vec<Suspect> {
        let (Some(dataset), Some(since)) = (self.dataset, self.unbroken_since) else { return Vec::new() };
        if now - since < self.lease {
            return Vec::new();
        }
        let suspected = |(incarnation, known): (&Incarnation, &Known)| {
            let peer = Peer { incarnation: *incarnation, info: known.info.clone() };
            let is_late = known.expired && now - known.renewed_at >= self.lease;
            is_late.then_some(Suspect { peer, lease: known.lease, dataset })
        };
        self.nodes.iter().filter_map(suspected).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::Listed;
    use super::*;
    use crate::clock::EpochMillis;

    const LEASE: Duration = Duration::from_secs(10);
    const ME: Incarnation = Incarnation::new(1);
    const OTHER: Incarnation = Incarnation::new(2);

    fn info() -> NodeInfo {
        NodeInfo { address: "h:1".into(), name: "h".into(), version: "0".into(), started_at: EpochMillis(0) }
    }

    fn heartbeat(beat: u64, lease: u64, expired: bool) -> Heartbeat {
        let listed = |incarnation, lease, expired| Listed { peer: Peer { incarnation, info: info() }, lease, expired };
        Heartbeat {
            dataset: 7,
            beat,
            reentered: false,
            way: 1,
            nodes: vec![listed(ME, beat, false), listed(OTHER, lease, expired)],
            graves: Vec::new(),
        }
    }

    /// A view that hears once a second; the other stopped renewing after its lease 1.
    fn watched(seconds: u64) -> (View, Instant) {
        let start = Instant::now();
        let mut view = View::new(LEASE);
        for n in 0..=seconds {
            view.heard(start + Duration::from_secs(n), ME, heartbeat(n + 1, 1, n > 10));
        }
        (view, start + Duration::from_secs(seconds))
    }

    #[test]
    fn a_lease_that_ran_out_while_all_was_quiet_is_suspect() {
        let (view, now) = watched(11);
        assert_eq!(view.suspects(now).len(), 1);
        assert_eq!(view.suspects(now)[0].peer.incarnation, OTHER);
        let (view, now) = watched(9);
        assert_eq!(view.suspects(now), []);
    }

    #[test]
    fn whatever_breaks_the_watch_starts_patience_anew() {
        let breaks: [fn(&mut View, Instant); 5] = [
            |view, now| drop(view.heard(now, ME, Heartbeat { way: 2, ..heartbeat(50, 1, true) })),
            |view, _| view.failed(),
            |view, now| drop(view.heard(now, ME, Heartbeat { dataset: 8, ..heartbeat(50, 1, true) })),
            |view, now| drop(view.heard(now, ME, heartbeat(3, 1, true))),
            |view, now| drop(view.heard(now + LEASE, ME, heartbeat(50, 1, true))),
        ];
        for (n, break_it) in breaks.iter().enumerate() {
            let (mut view, now) = watched(11);
            break_it(&mut view, now);
            let soon = now + Duration::from_secs(11);
            let dataset = view.dataset.unwrap();
            view.heard(soon, ME, Heartbeat { dataset, ..heartbeat(60, 1, true) });
            assert_eq!(view.suspects(soon), [], "break {n}");
            for second in 1..=10 {
                view.heard(
                    soon + Duration::from_secs(second),
                    ME,
                    Heartbeat { dataset, ..heartbeat(60 + second, 1, true) },
                );
            }
            assert_eq!(view.suspects(soon + Duration::from_secs(10)).len(), 1, "break {n}");
        }
    }

    #[test]
    fn a_node_that_renews_is_never_suspect_whatever_the_registrys_clock_says() {
        let start = Instant::now();
        let mut view = View::new(LEASE);
        for n in 0..100 {
            let now = start + Duration::from_secs(n);
            view.heard(now, ME, heartbeat(n + 1, n, true));
            assert_eq!(view.suspects(now), []);
        }
    }

    #[test]
    fn lost_writes_and_emptied_data_are_noticed() {
        let now = Instant::now();
        let mut view = View::new(LEASE);
        assert!(!view.heard(now, ME, heartbeat(5, 1, false)).lost, "the first look has nothing to compare with");
        assert!(!view.heard(now, ME, heartbeat(6, 1, false)).lost);
        let remade = view.heard(now, ME, Heartbeat { way: 2, ..heartbeat(7, 1, false) });
        assert!(remade.remade && !remade.lost);
        assert!(view.heard(now, ME, heartbeat(7, 1, false)).lost);
        assert!(view.heard(now, ME, Heartbeat { dataset: 9, ..heartbeat(7, 1, false) }).lost);
        assert!(view.heard(now, ME, Heartbeat { dataset: 9, reentered: true, ..heartbeat(8, 1, false) }).lost);
    }

    #[test]
    fn who_vanishes_from_the_list_is_kept_until_proven_dead() {
        let now = Instant::now();
        let mut view = View::new(LEASE);
        view.heard(now, ME, heartbeat(1, 1, false));
        let change = view.heard(now, ME, Heartbeat { nodes: Vec::new(), ..heartbeat(2, 1, false) });
        assert_eq!(change.vanished.len(), 1);
        assert_eq!(view.peers().len(), 1);
        view.buried(OTHER);
        assert!(view.peers().is_empty() && view.tombstones().contains(&OTHER));
    }
}
