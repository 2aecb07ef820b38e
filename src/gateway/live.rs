//! What is deployed now, in the form the journeys use; and small tables that live beside it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::Gateway;
use crate::definition::{Api, Route, Snapshot, Stage};
use crate::ids::{ApiId, StageName};
use crate::session::Policy;
use crate::telemetry::{Format, StageMetrics};

/// A stage as it is deployed at one moment.
#[derive(Debug)]
pub struct Deployed {
    /// Its API.
    pub api: Arc<Api>,
    /// The stage.
    pub stage: Arc<Stage>,
    /// The `$default` route, for what no expression can be evaluated on.
    pub default_route: Option<Arc<Route>>,
    /// How its access-log lines look.
    pub log_format: Arc<Format>,
    /// What its sessions may do.
    pub policy: Policy,
}

/// A stage through all its deployments: connections hold this, so that a reload reaches every one of them by one store.
#[derive(Debug)]
pub struct LiveStage {
    /// The API.
    pub api: ApiId,
    /// The stage.
    pub name: StageName,
    /// What is counted for it.
    pub metrics: StageMetrics,
    gateway: Arc<Gateway>,
    deployed: ArcSwap<Deployed>,
    removed: AtomicBool,
}

impl LiveStage {
    /// The stage as deployed now, or as it last was.
    pub fn load(&self) -> arc_swap::Guard<Arc<Deployed>> {
        self.deployed.load()
    }

    /// The gateway that deploys it. The two hold each other until an empty definition is deployed, as the end of the
    /// process does.
    pub(super) const fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Whether a reload took the stage away.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }
}

/// An API's stages, by name.
#[derive(Debug)]
pub(super) struct LiveApi {
    pub(super) api: Arc<Api>,
    pub(super) stages: HashMap<StageName, Arc<LiveStage>>,
}

/// Everything deployed now.
#[derive(Debug, Default)]
pub(super) struct Deployment {
    snapshot: Arc<Snapshot>,
    pub(super) apis: HashMap<ApiId, LiveApi>,
}

impl Deployment {
    pub(super) const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Builds the next deployment out of a definition; stages that stay keep their identity. The flag says whether
    /// stages were taken away.
    pub(super) fn build(snapshot: Arc<Snapshot>, before: &Self, gateway: &Arc<Gateway>) -> (Self, bool) {
        let mut apis = HashMap::new();
        for api in &snapshot.apis {
            let default_route =
                api.routes.iter().find(|(key, _)| key.as_str() == "$default").map(|(_, route)| Arc::clone(route));
            let mut stages = HashMap::new();
            for (name, stage) in &api.stages {
                let deployed = Arc::new(Deployed {
                    api: Arc::clone(api),
                    stage: Arc::clone(stage),
                    default_route: default_route.clone(),
                    log_format: log_format(stage, gateway),
                    policy: Policy {
                        limits: stage.limits,
                        accepts_binary: api.binary_frames == crate::definition::BinaryFrames::Accept,
                    },
                });
                let known = before.apis.get(&api.id).and_then(|old| old.stages.get(name));
                let live = match known {
                    Some(live) => {
                        live.deployed.store(deployed);
                        Arc::clone(live)
                    }
                    None => Arc::new(LiveStage {
                        api: api.id.clone(),
                        name: name.clone(),
                        metrics: gateway.metrics.stage(&api.id, name),
                        gateway: Arc::clone(gateway),
                        deployed: ArcSwap::new(deployed),
                        removed: AtomicBool::new(false),
                    }),
                };
                stages.insert(name.clone(), live);
            }
            apis.insert(api.id.clone(), LiveApi { api: Arc::clone(api), stages });
        }
        let next = Self { snapshot, apis };
        let mut removed = false;
        for live in before.apis.values().flat_map(|api| api.stages.values()) {
            let stays = next.apis.get(&live.api).is_some_and(|api| api.stages.contains_key(&live.name));
            if !stays {
                live.removed.store(true, Ordering::Release);
                removed = true;
            }
        }
        (next, removed)
    }
}

fn log_format(stage: &Stage, gateway: &Gateway) -> Arc<Format> {
    match &stage.access_log_format {
        // The definition's check has compiled it before; one that does not is written as the default.
        Some(text) => Format::compile(text).map_or_else(|_| Arc::clone(&gateway.log_format), Arc::new),
        None => Arc::clone(&gateway.log_format),
    }
}

/// Values that many connections share, each held once and only as long as somebody uses it.
#[derive(Debug)]
pub(super) struct Interner<T>(Mutex<Interned<T>>);

#[derive(Debug)]
struct Interned<T> {
    known: HashMap<u64, Vec<Weak<T>>>,
    hasher: RandomState,
    /// Entries at which the next clean-up happens: twice what the last one left.
    clean_at: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self(Mutex::new(Interned { known: HashMap::new(), hasher: RandomState::new(), clean_at: 1_024 }))
    }
}

impl<T: Hash + Eq> Interner<T> {
    /// The shared form of `value`.
    pub(super) fn intern(&self, value: T) -> Arc<T> {
        let mut table = self.0.lock();
        if table.known.len() >= table.clean_at {
            table.known.retain(|_, same| {
                same.retain(|weak| weak.strong_count() > 0);
                !same.is_empty()
            });
            table.known.shrink_to_fit();
            table.clean_at = (table.known.len() * 2).max(1_024);
        }
        let hash = table.hasher.hash_one(&value);
        let same = table.known.entry(hash).or_default();
        if let Some(found) = same.iter().filter_map(Weak::upgrade).find(|found| **found == value) {
            return found;
        }
        let fresh = Arc::new(value);
        same.retain(|weak| weak.strong_count() > 0);
        same.push(Arc::downgrade(&fresh));
        fresh
    }
}

/// The places sessions take, handshakes that may become some included: on the node, and of each client address.
#[derive(Debug)]
pub(super) struct Addresses {
    limit: usize,
    limit_each: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<IpAddr, u32>,
}

impl Addresses {
    /// Room for `limit` sessions, `limit_each` of them from one address.
    pub(super) fn new(limit: usize, limit_each: usize) -> Self {
        Self { limit, limit_each, taken: Mutex::default() }
    }

    /// Takes one more place, unless the node is full or the address has its share.
    pub(super) fn enter(&self, address: IpAddr) -> bool {
        let address = client(address);
        let mut taken = self.taken.lock();
        let count = taken.of.get(&address).copied().unwrap_or_default();
        if taken.all >= self.limit || count as usize >= self.limit_each {
            return false;
        }
        taken.all += 1;
        taken.of.insert(address, count + 1);
        true
    }

    pub(super) fn leave(&self, address: IpAddr) {
        let address = client(address);
        let mut taken = self.taken.lock();
        if let Some(count) = taken.of.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                taken.of.remove(&address);
            }
            taken.all -= 1;
        }
        if taken.of.capacity() > 1_024 && taken.of.len() < taken.of.capacity() / 8 {
            taken.of.shrink_to_fit();
        }
    }

    pub(super) fn count(&self, address: IpAddr) -> usize {
        self.taken.lock().of.get(&client(address)).map_or(0, |n| *n as usize)
    }
}

/// Who an address stands for. One client of IPv6 usually has 2^64 of them, so they share by network (RFC 6177).
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_held_once_and_only_while_used() {
        let interner = Interner::default();
        let (a, b) = (interner.intern("x".to_owned()), interner.intern("x".to_owned()));
        assert!(Arc::ptr_eq(&a, &b));
        drop((a, b));
        for n in 0..2_000 {
            drop(interner.intern(n.to_string()));
        }
        assert!(interner.0.lock().known.len() <= 1_024, "what nobody uses goes");
    }

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let addresses = Addresses::new(9, 2);
        let (me, you) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        assert!(addresses.enter(me) && addresses.enter(me) && !addresses.enter(me) && addresses.enter(you));
        addresses.leave(me);
        assert!(addresses.enter(me));
        assert_eq!(addresses.count(me), 2);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_share() {
        let addresses = Addresses::new(9, 2);
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(addresses.enter(of("2001:db8:1:2::1")) && addresses.enter(of("2001:db8:1:2:ffff::9")));
        assert!(!addresses.enter(of("2001:db8:1:2::3")), "the third of one network");
        assert!(addresses.enter(of("2001:db8:1:3::1")), "another network");
        assert!(addresses.enter(of("::ffff:192.0.2.1")));
        assert_eq!(addresses.count(of("192.0.2.1")), 1);
        for text in ["2001:db8:1:2::7", "2001:db8:1:2::8", "2001:db8:1:3::1", "192.0.2.1"] {
            addresses.leave(of(text));
        }
        assert!(addresses.taken.lock().of.is_empty());
    }

    #[test]
    fn the_node_takes_so_many_and_no_more() {
        let addresses = Addresses::new(2, 9);
        let of = |n: u8| IpAddr::from([192, 0, 2, n]);
        assert!(addresses.enter(of(1)) && addresses.enter(of(2)) && !addresses.enter(of(3)));
        addresses.leave(of(3));
        assert!(!addresses.enter(of(3)), "who was not let in gives nothing back");
        addresses.leave(of(1));
        assert!(addresses.enter(of(3)));
    }

    #[test]
    fn a_share_of_nothing_leaves_nothing_behind() {
        let addresses = Addresses::new(9, 0);
        assert!(!addresses.enter(IpAddr::from([127, 0, 0, 1])));
        assert!(addresses.taken.lock().of.is_empty());
    }
}
