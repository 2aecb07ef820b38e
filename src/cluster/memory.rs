//! The registry within the process: what simulations and contract tests put in Redis's place.
//!
//! Many nodes share one [`Memory`] by cloning it. Time is tokio's, so that a paused clock drives leases and claims;
//! nothing depends on chance or on the order of a hash table, so that a run can be repeated. What Redis does to its users
//! can be done here too: be emptied ([`Memory::empty`]), lose the last writes ([`Memory::snapshot`], [`Memory::roll_back`]).
//!
//! Calls never fail and never wait; a simulation puts failures in front.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::GroupName;
use super::registry::{
    Answer, Burial, Claim, Fate, Grave, Heartbeat, Listed, NodeInfo, Page, Peer, Registry, RegistryError, Renewal,
    Write, bucket,
};
use crate::context::ConnectionContext;
use crate::ids::{ConnectionId, Incarnation};

/// Entries in one page of a listing; few, so that callers meet second pages.
const PAGE: usize = 16;

/// A registry shared by clones.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    data: Data,
    /// Where the numbers of datasets and incarnations come from; goes on through losses.
    seed: u64,
    /// Times it was restarted: its users lose their way to it each time.
    restarts: u64,
}

/// Everything the registry holds, at one moment.
#[derive(Clone, Default)]
pub struct Snapshot(Data);

#[derive(Clone, Default)]
struct Data {
    dataset: Option<u64>,
    beat: u64,
    nodes: BTreeMap<Incarnation, Entry>,
    tombs: BTreeSet<Incarnation>,
    graves: BTreeMap<Incarnation, Instant>,
    /// By incarnation and bucket, as Redis has them.
    records: BTreeMap<(Incarnation, u16), BTreeMap<ConnectionId, ConnectionContext>>,
    claims: BTreeMap<ConnectionId, (u64, Instant)>,
    /// By API and name; a list in order, since `GroupName` has none.
    groups: BTreeMap<GroupKey, BTreeSet<Incarnation>>,
    /// In order of a hash, which is what a cursor can carry.
    index: BTreeMap<Incarnation, BTreeSet<(u64, GroupKey)>>,
    counters: BTreeMap<String, (u64, Instant)>,
}

type GroupKey = (crate::ids::ApiId, Arc<str>);

#[derive(Clone)]
struct Entry {
    info: NodeInfo,
    lease: u64,
    expiry: Instant,
}

impl Memory {
    /// An empty registry. Two of one seed give the same numbers for the same calls.
    pub fn new(seed: u64) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { data: Data::default(), seed, restarts: 0 })) }
    }

    /// Forgets everything, as a Redis does that restarts without its data. The next call begins a new dataset.
    pub fn empty(&self) {
        self.shared.lock().data = Data::default();
    }

    /// Everything as it is now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.shared.lock().data.clone())
    }

    /// Goes back to an earlier moment, as a Redis does whose last writes had not reached the disk or the new master.
    /// What lapses by the clock goes on lapsing.
    pub fn roll_back(&self, to: &Snapshot) {
        let mut shared = self.shared.lock();
        shared.data = to.0.clone();
        shared.restarts += 1;
    }

    /// Connections that have a record, in order.
    pub fn connections(&self) -> Vec<ConnectionId> {
        let shared = self.shared.lock();
        let mut ids: Vec<_> = shared.data.records.values().flat_map(BTreeMap::keys).copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Groups that a node is present in, by API and name.
    pub fn presences(&self) -> Vec<(GroupName, Vec<Incarnation>)> {
        let shared = self.shared.lock();
        let list = |(key, nodes): (&GroupKey, &BTreeSet<Incarnation>)| (named(key), nodes.iter().copied().collect());
        shared.data.groups.iter().map(list).collect()
    }

    /// Ended incarnations that are not swept.
    pub fn graves(&self) -> Vec<Incarnation> {
        self.shared.lock().data.graves.keys().copied().collect()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shared, Instant) -> T) -> Answer<'static, T>
    where
        T: Send + 'static,
    {
        // Done when called, not when awaited: a call that is dropped unawaited has happened, as one sent to Redis may have.
        let result = act(&mut self.shared.lock(), Instant::now());
        Box::pin(std::future::ready(Ok::<T, RegistryError>(result)))
    }
}

impl Shared {
    /// The next of a fixed row of numbers (`SplitMix64`).
    fn number(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.seed ^ (self.seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn dataset(&mut self) -> u64 {
        if let Some(dataset) = self.data.dataset {
            return dataset;
        }
        let dataset = self.number();
        self.data.dataset = Some(dataset);
        dataset
    }
}

impl Data {
    const fn count_beat(&mut self) -> u64 {
        self.beat += 1;
        self.beat
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Put(context) => {
                let home = (context.id.incarnation(), bucket(&context.id));
                self.records.entry(home).or_default().insert(context.id, context.clone());
            }
            Write::Remove(id) => self.remove(id),
            Write::Enter(group, node) => {
                self.index.entry(*node).or_default().insert(hashed(group));
                self.groups.entry(key(group)).or_default().insert(*node);
            }
            Write::Leave(group, node) => {
                take(&mut self.groups, &key(group), node);
                take(&mut self.index, node, &hashed(group));
            }
        }
    }

    fn remove(&mut self, id: &ConnectionId) {
        let home = (id.incarnation(), bucket(id));
        if let Some(records) = self.records.get_mut(&home) {
            records.remove(id);
            if records.is_empty() {
                self.records.remove(&home);
            }
        }
    }
}

impl Registry for Memory {
    fn join<'a>(&'a self, info: &'a NodeInfo, lease: Duration) -> Answer<'a, Incarnation> {
        self.with(|shared, now| {
            let _begun = shared.dataset();
            // At random and not counted: a counter that was rolled back would give what a living node already has.
            let mut incarnation = Incarnation::new(shared.number() as u32);
            let data = &mut shared.data;
            // Ends: nobody can start a process so often.
            while data.tombs.contains(&incarnation) || data.nodes.contains_key(&incarnation) {
                incarnation = Incarnation::new(incarnation.get().wrapping_add(1));
            }
            let lease = Entry { info: info.clone(), lease: data.count_beat(), expiry: now + lease };
            data.nodes.insert(incarnation, lease);
            incarnation
        })
    }

    fn renew<'a>(&'a self, me: Incarnation, info: &'a NodeInfo, lease: Duration) -> Answer<'a, Renewal> {
        self.with(|shared, now| {
            if shared.data.tombs.contains(&me) {
                return Renewal::Buried;
            }
            let dataset = shared.dataset();
            let way = shared.restarts;
            let data = &mut shared.data;
            let beat = data.count_beat();
            let reentered = !data.nodes.contains_key(&me);
            let entry = data.nodes.entry(me).or_insert_with(|| Entry { info: info.clone(), lease: 0, expiry: now });
            (entry.lease, entry.expiry) = (beat, now + lease);
            let listed = |(incarnation, entry): (&Incarnation, &Entry)| Listed {
                peer: Peer { incarnation: *incarnation, info: entry.info.clone() },
                lease: entry.lease,
                expired: entry.expiry <= now,
            };
            let grave = |(incarnation, since): (&Incarnation, &Instant)| Grave {
                incarnation: *incarnation,
                age: now.saturating_duration_since(*since),
            };
            Renewal::Alive(Heartbeat {
                dataset,
                beat,
                reentered,
                way,
                nodes: data.nodes.iter().map(listed).collect(),
                graves: data.graves.iter().map(grave).collect(),
            })
        })
    }

    fn bury(&self, whom: Incarnation, lease: u64, dataset: u64) -> Answer<'_, Burial> {
        self.with(|shared, now| {
            let data = &mut shared.data;
            if data.dataset != Some(dataset) {
                return Burial::Changed;
            }
            let Some(entry) = data.nodes.get(&whom) else { return Burial::Unlisted };
            if entry.lease != lease || entry.expiry > now {
                return Burial::Renewed;
            }
            data.tombs.insert(whom);
            data.graves.entry(whom).or_insert(now);
            data.nodes.remove(&whom);
            Burial::Buried
        })
    }

    fn leave(&self, me: Incarnation, records_left: bool) -> Answer<'_, ()> {
        self.with(|shared, now| {
            let data = &mut shared.data;
            data.tombs.insert(me);
            if records_left {
                data.graves.entry(me).or_insert(now);
            }
            data.nodes.remove(&me);
        })
    }

    fn fate(&self, of: Incarnation) -> Answer<'_, Fate> {
        self.with(|shared, _| {
            if shared.data.tombs.contains(&of) {
                return Fate::Buried;
            }
            shared.data.nodes.get(&of).map_or(Fate::Unknown, |entry| Fate::Member(entry.info.clone()))
        })
    }

    fn restore<'a>(&'a self, nodes: &'a [Peer], buried: &'a [Incarnation]) -> Answer<'a, ()> {
        self.with(|shared, now| {
            let data = &mut shared.data;
            for incarnation in buried {
                data.tombs.insert(*incarnation);
                if data.nodes.remove(incarnation).is_some() {
                    // It came back with old data, and so may its records have.
                    data.graves.entry(*incarnation).or_insert(now);
                }
            }
            for peer in nodes {
                if !data.tombs.contains(&peer.incarnation) && !data.nodes.contains_key(&peer.incarnation) {
                    let entry = Entry { info: peer.info.clone(), lease: data.count_beat(), expiry: now };
                    data.nodes.insert(peer.incarnation, entry);
                }
            }
        })
    }

    fn write<'a>(&'a self, batch: &'a [Write]) -> Answer<'a, ()> {
        self.with(|shared, _| batch.iter().for_each(|write| shared.data.apply(write)))
    }

    fn records(&self, of: Incarnation, bucket: u16, cursor: Option<u64>) -> Answer<'_, Page<ConnectionId>> {
        self.with(|shared, _| {
            // The cursor is the slot of the last one given, so that removals move nothing that is still to come.
            let after = cursor.map_or(Bound::Unbounded, |slot| Bound::Excluded(above(of, slot)));
            let records = shared.data.records.get(&(of, bucket)).into_iter();
            let mut left =
                records.flat_map(|records| records.range((after, Bound::Unbounded))).map(|(id, _)| *id).peekable();
            let (mut items, mut last) = (Vec::new(), 0);
            // Those of one slot belong to one page, else the cursor would pass over some.
            while let Some(id) = left.next_if(|id| items.len() < PAGE || id.slot() == last) {
                items.push(id);
                last = id.slot();
            }
            Page { items, next: left.peek().map(|_| u64::from(last)) }
        })
    }

    fn claim(&self, id: ConnectionId, claimant: u64, lapse: Duration) -> Answer<'_, Claim> {
        self.with(|shared, now| {
            let data = &mut shared.data;
            let record = data.records.get(&(id.incarnation(), bucket(&id))).and_then(|records| records.get(&id));
            let Some(record) = record else { return Claim::Missing };
            match data.claims.get(&id) {
                Some((other, until)) if *other != claimant && *until > now => Claim::Taken,
                Some(_) | None => {
                    data.claims.insert(id, (claimant, now + lapse));
                    Claim::Yours(record.clone())
                }
            }
        })
    }

    fn finish(&self, id: ConnectionId, claimant: u64) -> Answer<'_, bool> {
        self.with(|shared, now| {
            let data = &mut shared.data;
            let is_theirs = data.claims.get(&id).is_some_and(|(who, until)| *who == claimant && *until > now);
            if is_theirs {
                data.claims.remove(&id);
                data.remove(&id);
            }
            is_theirs
        })
    }

    fn reopen(&self, of: Incarnation) -> Answer<'_, ()> {
        self.with(|shared, now| {
            shared.data.graves.entry(of).or_insert(now);
        })
    }

    fn close_grave(&self, of: Incarnation) -> Answer<'_, ()> {
        self.with(|shared, _| {
            shared.data.graves.remove(&of);
        })
    }

    fn group_nodes<'a>(&'a self, group: &'a GroupName) -> Answer<'a, Vec<Incarnation>> {
        self.with(|shared, _| shared.data.groups.get(&key(group)).into_iter().flatten().copied().collect())
    }

    fn groups_of(&self, of: Incarnation, cursor: Option<u64>) -> Answer<'_, Page<GroupName>> {
        self.with(|shared, _| {
            let groups = shared.data.index.get(&of).into_iter().flatten();
            let mut left = groups.filter(|(hash, _)| cursor.is_none_or(|last| *hash > last)).peekable();
            let (mut items, mut last) = (Vec::new(), 0);
            // Those of one hash belong to one page, else the cursor would pass over some.
            while let Some((hash, key)) = left.next_if(|(hash, _)| items.len() < PAGE || *hash == last) {
                items.push(named(key));
                last = *hash;
            }
            Page { items, next: left.peek().map(|_| last) }
        })
    }

    fn count<'a>(&'a self, counter: &'a str, amount: u64, period: Duration) -> Answer<'a, u64> {
        self.with(|shared, now| {
            let counters = &mut shared.data.counters;
            if counters.get(counter).is_none_or(|(_, end)| *end <= now) {
                counters.insert(counter.to_owned(), (0, now + period));
            }
            counters.get_mut(counter).map_or(0, |(value, _)| {
                *value = value.saturating_add(amount).min(i64::MAX as u64);
                *value
            })
        })
    }
}

/// The largest id of a slot.
fn above(of: Incarnation, slot: u64) -> ConnectionId {
    ConnectionId::from_parts(of, u32::try_from(slot).unwrap_or(u32::MAX), [0xff; 5])
}

fn key(group: &GroupName) -> GroupKey {
    (group.api.clone(), Arc::clone(&group.name))
}

/// With FNV-1a in front.
fn hashed(group: &GroupName) -> (u64, GroupKey) {
    let bytes = group.api.as_str().bytes().chain([b':']).chain(group.name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (hash, key(group))
}

fn named((api, name): &GroupKey) -> GroupName {
    GroupName { api: api.clone(), name: Arc::clone(name) }
}

/// Takes a member out of a set, and the set out of the map with its last.
fn take<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, of: &K, member: &V) {
    if let Some(set) = sets.get_mut(of) {
        set.remove(member);
        if set.is_empty() {
            sets.remove(of);
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}
