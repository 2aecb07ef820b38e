//! The contract: what every registry does, whatever stands behind it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::EpochMillis;
use crate::cluster::GroupName;
use crate::cluster::registry::{
    BUCKETS, Burial, Claim, Fate, Heartbeat, Listed, NodeInfo, Page, Peer, Registry, Renewal, Write,
};
use crate::context::{ConnectionContext, Profile};
use crate::ids::{ApiId, ConnectionId, Incarnation, StageName};

/// A registry that nobody else uses, and a way to lose what it holds.
pub(super) struct Stand {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) empty: Box<dyn Fn() + Send + Sync>,
}

/// A lease that runs out before a test does.
const SHORT: Duration = Duration::from_millis(40);
/// One that does not.
pub(super) const LONG: Duration = Duration::from_secs(3_600);
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn info(name: &str) -> NodeInfo {
    NodeInfo {
        address: Arc::from(format!("{name}.example:9443")),
        name: Arc::from(name),
        version: Arc::from("0.1.0"),
        started_at: EpochMillis(1_760_000_000_000),
    }
}

pub(super) fn connection(of: Incarnation, slot: u32) -> ConnectionContext {
    let profile = Profile {
        api: ApiId::parse("chat").unwrap(),
        stage: StageName::parse("prod").unwrap(),
        domain_name: "chat.example.com".into(),
        user_agent: Some(
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
                .into(),
        ),
    };
    let [_, _, _, a, b] = (u64::from(slot) * 7_919 + 13).to_be_bytes()[3..] else { unreachable!() };
    ConnectionContext {
        id: ConnectionId::from_parts(of, slot, [9, 8, 7, a, b]),
        connected_at: EpochMillis(1_760_000_000_000 + u64::from(slot)),
        source_ip: std::net::IpAddr::from([192, 0, 2, a]),
        profile: Arc::new(profile),
    }
}

fn group(name: &str) -> GroupName {
    GroupName::new(&ApiId::parse("chat").unwrap(), name).unwrap()
}

pub(super) async fn beat(registry: &dyn Registry, me: Incarnation, name: &str) -> Heartbeat {
    match registry.renew(me, &info(name), LONG).await.unwrap() {
        Renewal::Alive(heartbeat) => heartbeat,
        Renewal::Buried => panic!("{name} is buried"),
    }
}

fn listed(heartbeat: &Heartbeat, whom: Incarnation) -> &Listed {
    heartbeat.nodes.iter().find(|listed| listed.peer.incarnation == whom).expect("a node that is listed")
}

/// Waits, by renewing as `me`, until another's lease has run out.
async fn expired(registry: &dyn Registry, me: Incarnation, whom: Incarnation) -> Heartbeat {
    let started = tokio::time::Instant::now();
    loop {
        let heartbeat = beat(registry, me, "watcher").await;
        if listed(&heartbeat, whom).expired {
            return heartbeat;
        }
        assert!(started.elapsed() < PATIENCE, "the lease does not run out");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A watcher and a node whose lease has run out, with what the watcher saw last.
async fn lost_node(registry: &dyn Registry) -> (Incarnation, Incarnation, Heartbeat) {
    let watcher = registry.join(&info("watcher"), LONG).await.unwrap();
    let lost = registry.join(&info("lost"), SHORT).await.unwrap();
    let heartbeat = expired(registry, watcher, lost).await;
    (watcher, lost, heartbeat)
}

/// Every item of a listing, and how many pages it took.
async fn whole<T, F: Future<Output = Page<T>>>(mut page: impl FnMut(Option<u64>) -> F) -> (Vec<T>, usize) {
    let (mut items, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let part = page(cursor).await;
        items.extend(part.items);
        pages += 1;
        assert!(pages < 10_000, "a listing without an end");
        cursor = part.next;
        if cursor.is_none() {
            return (items, pages);
        }
    }
}

async fn ids(registry: &dyn Registry, of: Incarnation, bucket: u16) -> BTreeSet<ConnectionId> {
    let page = |cursor| async move { registry.records(of, bucket, cursor).await.unwrap() };
    whole(page).await.0.into_iter().collect()
}

pub(super) async fn a_node_that_joins_sees_itself(stand: &Stand) {
    let registry = &*stand.registry;
    let me = registry.join(&info("one"), LONG).await.unwrap();
    let first = beat(registry, me, "one").await;
    assert!(!first.reentered && first.graves.is_empty());
    let [entry] = first.nodes.as_slice() else { panic!("{first:?}") };
    assert_eq!(entry.peer, Peer { incarnation: me, info: info("one") });
    assert!(!entry.expired);
    assert_eq!(registry.fate(me).await, Ok(Fate::Member(info("one"))));
    let second = beat(registry, me, "one").await;
    assert_eq!(second.dataset, first.dataset);
    assert!(second.beat > first.beat);
}

pub(super) async fn nodes_see_each_other_and_each_other_s_renewals(stand: &Stand) {
    let registry = &*stand.registry;
    let (a, b) = (registry.join(&info("a"), LONG).await.unwrap(), registry.join(&info("b"), LONG).await.unwrap());
    assert_ne!(a, b);
    let first = beat(registry, a, "a").await;
    let second = beat(registry, a, "a").await;
    assert_eq!(first.nodes.iter().map(|listed| listed.peer.info.name.to_string()).collect::<BTreeSet<_>>().len(), 2);
    assert_eq!(listed(&first, b), listed(&second, b), "nothing changes without a renewal");
    assert_ne!(listed(&first, a).lease, listed(&second, a).lease);
    let _renewed = beat(registry, b, "b").await;
    assert_ne!(listed(&beat(registry, a, "a").await, b).lease, listed(&second, b).lease);
}

pub(super) async fn an_emptied_registry_is_a_new_dataset_that_nodes_enter_anew(stand: &Stand) {
    let registry = &*stand.registry;
    let me = registry.join(&info("one"), LONG).await.unwrap();
    let before = beat(registry, me, "one").await;
    (stand.empty)();
    assert_eq!(registry.fate(me).await, Ok(Fate::Unknown), "nothing known is no proof");
    let after = beat(registry, me, "one").await;
    assert_ne!(after.dataset, before.dataset);
    assert!(after.reentered);
    assert!(!beat(registry, me, "one").await.reentered);
    assert_eq!(registry.fate(me).await, Ok(Fate::Member(info("one"))));
}

pub(super) async fn an_incarnation_is_not_given_twice(stand: &Stand) {
    let registry = &*stand.registry;
    let mut given = BTreeSet::new();
    for n in 0..30 {
        let node = registry.join(&info("short-lived"), LONG).await.unwrap();
        assert!(given.insert(node), "{node:?} was there before");
        if n % 3 != 0 {
            registry.leave(node, false).await.unwrap();
        }
    }
}

pub(super) async fn only_an_expired_lease_that_was_seen_is_buried(stand: &Stand) {
    let registry = &*stand.registry;
    let (watcher, lost, seen) = lost_node(registry).await;
    let lease = listed(&seen, lost).lease;
    let live = listed(&seen, watcher).lease;
    assert_eq!(registry.bury(watcher, live, seen.dataset).await, Ok(Burial::Renewed), "its lease has not run out");
    assert_eq!(registry.bury(lost, lease + 1, seen.dataset).await, Ok(Burial::Renewed), "another lease than seen");
    assert_eq!(registry.bury(lost, lease, seen.dataset ^ 1).await, Ok(Burial::Changed), "other data than seen");
    let nobody = Incarnation::new(lost.get().wrapping_add(1_000));
    assert_eq!(registry.bury(nobody, lease, seen.dataset).await, Ok(Burial::Unlisted));
    assert_eq!(registry.fate(lost).await, Ok(Fate::Member(info("lost"))), "none of these did anything");
    // It comes back in the last moment, and its lease runs out once more.
    let _renewed = registry.renew(lost, &info("lost"), SHORT).await.unwrap();
    let again = expired(registry, watcher, lost).await;
    assert_eq!(registry.bury(lost, lease, seen.dataset).await, Ok(Burial::Renewed), "what was seen is not the last");
    assert_eq!(registry.bury(lost, listed(&again, lost).lease, seen.dataset).await, Ok(Burial::Buried));
    assert_eq!(registry.bury(lost, listed(&again, lost).lease, seen.dataset).await, Ok(Burial::Unlisted), "once");
}

pub(super) async fn a_buried_node_learns_it_and_leaves_a_grave(stand: &Stand) {
    let registry = &*stand.registry;
    let (watcher, lost, seen) = lost_node(registry).await;
    assert_eq!(registry.bury(lost, listed(&seen, lost).lease, seen.dataset).await, Ok(Burial::Buried));
    assert_eq!(registry.renew(lost, &info("lost"), LONG).await, Ok(Renewal::Buried));
    assert_eq!(registry.fate(lost).await, Ok(Fate::Buried));
    let after = beat(registry, watcher, "watcher").await;
    assert_eq!(after.nodes.len(), 1);
    let [grave] = after.graves.as_slice() else { panic!("{after:?}") };
    assert_eq!(grave.incarnation, lost);
    let started = tokio::time::Instant::now();
    while beat(registry, watcher, "watcher").await.graves[0].age <= grave.age {
        assert!(started.elapsed() < PATIENCE, "a grave does not age");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn a_node_that_left_is_proven_gone(stand: &Stand) {
    let registry = &*stand.registry;
    let [stays, clean, dirty] = ["stays", "clean", "dirty"].map(info);
    let stays = registry.join(&stays, LONG).await.unwrap();
    let clean = registry.join(&clean, LONG).await.unwrap();
    let dirty = registry.join(&dirty, LONG).await.unwrap();
    for _repeat in 0..2 {
        registry.leave(clean, false).await.unwrap();
        registry.leave(dirty, true).await.unwrap();
    }
    assert_eq!((registry.fate(clean).await, registry.fate(dirty).await), (Ok(Fate::Buried), Ok(Fate::Buried)));
    let after = beat(registry, stays, "stays").await;
    assert_eq!(after.nodes.iter().map(|listed| listed.peer.incarnation).collect::<Vec<_>>(), [stays]);
    assert_eq!(after.graves.iter().map(|grave| grave.incarnation).collect::<Vec<_>>(), [dirty]);
    assert_eq!(registry.renew(clean, &info("clean"), LONG).await, Ok(Renewal::Buried));
}

pub(super) async fn graves_are_closed_and_opened(stand: &Stand) {
    let registry = &*stand.registry;
    let (me, other) =
        (registry.join(&info("me"), LONG).await.unwrap(), registry.join(&info("other"), LONG).await.unwrap());
    registry.leave(other, true).await.unwrap();
    for _repeat in 0..2 {
        registry.close_grave(other).await.unwrap();
        assert_eq!(beat(registry, me, "me").await.graves, []);
    }
    for _repeat in 0..2 {
        registry.reopen(other).await.unwrap();
        assert_eq!(beat(registry, me, "me").await.graves.len(), 1);
    }
    assert_eq!(registry.fate(other).await, Ok(Fate::Buried), "the tombstone is for ever");
}

pub(super) async fn what_was_lost_is_put_back(stand: &Stand) {
    let registry = &*stand.registry;
    let me = registry.join(&info("me"), LONG).await.unwrap();
    let peer = Peer { incarnation: Incarnation::new(me.get().wrapping_add(50)), info: info("peer") };
    let dead = Incarnation::new(me.get().wrapping_add(60));
    let both = Peer { incarnation: Incarnation::new(me.get().wrapping_add(70)), info: info("both") };
    (stand.empty)();
    let own = beat(registry, me, "me").await;
    let nodes = [peer.clone(), both.clone(), Peer { incarnation: me, info: info("older self") }];
    registry.restore(&nodes, &[dead, both.incarnation]).await.unwrap();
    let after = beat(registry, me, "me").await;
    assert_eq!(after.nodes.len(), 2, "{after:?}");
    assert!(listed(&after, peer.incarnation).expired, "nobody has renewed it");
    assert_eq!(listed(&after, peer.incarnation).peer, peer);
    assert_eq!(listed(&after, me).peer.info, info("me"), "what is there is not changed");
    assert_eq!(
        (registry.fate(dead).await, registry.fate(both.incarnation).await),
        (Ok(Fate::Buried), Ok(Fate::Buried))
    );
    registry.restore(&nodes, &[dead, both.incarnation]).await.unwrap();
    let again = beat(registry, me, "me").await;
    assert_eq!(
        listed(&again, peer.incarnation).lease,
        listed(&after, peer.incarnation).lease,
        "a repeat changes nothing"
    );
    // A tombstone of an entry that came back with old data: its records may have come back too.
    registry.restore(&[], &[peer.incarnation]).await.unwrap();
    let last = beat(registry, me, "me").await;
    assert_eq!((last.nodes.len(), last.graves.len(), last.dataset), (1, 1, own.dataset));
}

pub(super) async fn records_are_listed_by_bucket_and_removed(stand: &Stand) {
    let registry = &*stand.registry;
    let (a, b) = (Incarnation::new(3), Incarnation::new(4));
    let buckets = u32::from(BUCKETS);
    let puts: Vec<_> = [(a, 5), (a, 5 + buckets), (a, 6), (b, 5)].map(|(of, slot)| connection(of, slot)).to_vec();
    let batch: Vec<_> = puts.iter().cloned().map(Write::Put).collect();
    for _repeat in 0..2 {
        registry.write(&batch).await.unwrap();
    }
    assert_eq!(ids(registry, a, 5).await, BTreeSet::from([puts[0].id, puts[1].id]));
    assert_eq!(ids(registry, a, 6).await, BTreeSet::from([puts[2].id]));
    assert_eq!(ids(registry, b, 5).await, BTreeSet::from([puts[3].id]));
    assert_eq!(ids(registry, b, 6).await, BTreeSet::new());
    for _repeat in 0..2 {
        registry.write(&[Write::Remove(puts[0].id), Write::Remove(puts[3].id)]).await.unwrap();
    }
    assert_eq!(ids(registry, a, 5).await, BTreeSet::from([puts[1].id]));
    assert_eq!(ids(registry, b, 5).await, BTreeSet::new());
    registry.write(&[]).await.unwrap();
}

pub(super) async fn a_large_bucket_comes_in_pages(stand: &Stand) {
    let registry = &*stand.registry;
    let of = Incarnation::new(9);
    let batch: Vec<_> = (0..2_000).map(|n| Write::Put(connection(of, n * u32::from(BUCKETS)))).collect();
    registry.write(&batch).await.unwrap();
    let page = |cursor| async move { registry.records(of, 0, cursor).await.unwrap() };
    let (items, pages) = whole(page).await;
    assert_eq!(items.iter().collect::<BTreeSet<_>>().len(), 2_000);
    assert!(pages > 1, "all in one piece");
    // What is removed while it is listed hides nothing of the rest.
    let first = registry.records(of, 0, None).await.unwrap();
    let gone: Vec<_> = first.items.iter().map(|id| Write::Remove(*id)).collect();
    registry.write(&gone).await.unwrap();
    let mut rest: BTreeSet<_> = first.items.into_iter().collect();
    let mut cursor = first.next;
    while let Some(next) = cursor {
        let page = registry.records(of, 0, Some(next)).await.unwrap();
        rest.extend(page.items);
        cursor = page.next;
    }
    assert_eq!(rest.len(), 2_000);
}

pub(super) async fn a_record_comes_back_as_it_was(stand: &Stand) {
    let registry = &*stand.registry;
    let mut odd = connection(Incarnation::new(0xff_ffff), 0xff_ffff);
    odd.source_ip = "2001:db8::7".parse().unwrap();
    odd.profile = Arc::new(Profile {
        user_agent: Some("quote \" backslash \\ tab \t umlaut ü zero \0".into()),
        domain_name: "chat.example.com:8443".into(),
        ..(*odd.profile).clone()
    });
    let mut bare = connection(Incarnation::new(0), 0);
    bare.profile = Arc::new(Profile { user_agent: None, ..(*bare.profile).clone() });
    for context in [odd, bare, connection(Incarnation::new(1), 2)] {
        registry.write(&[Write::Put(context.clone())]).await.unwrap();
        assert_eq!(registry.claim(context.id, 1, LONG).await, Ok(Claim::Yours(context)));
    }
}

pub(super) async fn a_claim_is_one_caller_s_until_it_lapses(stand: &Stand) {
    let registry = &*stand.registry;
    let context = connection(Incarnation::new(5), 1);
    assert_eq!(registry.claim(context.id, u64::MAX, LONG).await, Ok(Claim::Missing));
    registry.write(&[Write::Put(context.clone())]).await.unwrap();
    assert_eq!(registry.claim(context.id, u64::MAX, LONG).await, Ok(Claim::Yours(context.clone())));
    assert_eq!(registry.claim(context.id, 2, LONG).await, Ok(Claim::Taken));
    assert_eq!(registry.finish(context.id, 2).await, Ok(false), "somebody else's");
    // A repeat, because its answer was lost, is no other caller; this one shortens it.
    assert_eq!(registry.claim(context.id, u64::MAX, SHORT).await, Ok(Claim::Yours(context.clone())));
    let started = tokio::time::Instant::now();
    while registry.claim(context.id, 2, LONG).await == Ok(Claim::Taken) {
        assert!(started.elapsed() < PATIENCE, "a claim does not lapse");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(registry.claim(context.id, u64::MAX, LONG).await, Ok(Claim::Taken), "it is the other's now");
    assert_eq!(registry.finish(context.id, u64::MAX).await, Ok(false), "and lapsed for the first");
}

pub(super) async fn a_finished_record_is_gone(stand: &Stand) {
    let registry = &*stand.registry;
    let (context, other) =
        (connection(Incarnation::new(5), 1), connection(Incarnation::new(5), 1 + u32::from(BUCKETS)));
    registry.write(&[Write::Put(context.clone()), Write::Put(other.clone())]).await.unwrap();
    assert_eq!(registry.finish(context.id, 7).await, Ok(false), "without a claim");
    let _claimed = registry.claim(context.id, 7, LONG).await.unwrap();
    assert_eq!(registry.finish(context.id, 7).await, Ok(true));
    assert_eq!(registry.finish(context.id, 7).await, Ok(false), "once");
    assert_eq!(registry.claim(context.id, 8, LONG).await, Ok(Claim::Missing));
    assert_eq!(ids(registry, Incarnation::new(5), 1).await, BTreeSet::from([other.id]));
}

async fn groups_of(registry: &dyn Registry, of: Incarnation) -> (Vec<GroupName>, usize) {
    whole(|cursor| async move { registry.groups_of(of, cursor).await.unwrap() }).await
}

pub(super) async fn groups_know_the_nodes_and_nodes_their_groups(stand: &Stand) {
    let registry = &*stand.registry;
    let (a, b) = (Incarnation::new(1), Incarnation::new(2));
    let odd = group("room {1}: \"a\"\n\0ü");
    let twin = GroupName::new(&ApiId::parse("other").unwrap(), &odd.name).unwrap();
    let batch = [
        Write::Enter(odd.clone(), a),
        Write::Enter(odd.clone(), b),
        Write::Enter(twin.clone(), b),
        Write::Enter(group("lone"), a),
    ];
    for _repeat in 0..2 {
        registry.write(&batch).await.unwrap();
    }
    assert_eq!(registry.group_nodes(&odd).await, Ok(vec![a, b]));
    assert_eq!(registry.group_nodes(&twin).await, Ok(vec![b]));
    assert_eq!(registry.group_nodes(&group("empty")).await, Ok(vec![]));
    let of_b = groups_of(registry, b).await.0;
    assert!(of_b.len() == 2 && of_b.contains(&odd) && of_b.contains(&twin), "{of_b:?}");
    for _repeat in 0..2 {
        registry.write(&[Write::Leave(odd.clone(), a), Write::Leave(twin.clone(), b)]).await.unwrap();
    }
    assert_eq!(registry.group_nodes(&odd).await, Ok(vec![b]));
    assert_eq!(registry.group_nodes(&twin).await, Ok(vec![]));
    assert_eq!(groups_of(registry, a).await.0, [group("lone")]);
    assert_eq!(groups_of(registry, b).await.0, [odd]);
}

pub(super) async fn many_groups_come_in_pages(stand: &Stand) {
    let registry = &*stand.registry;
    let node = Incarnation::new(1);
    let batch: Vec<_> = (0..3_000).map(|n| Write::Enter(group(&format!("room-{n}")), node)).collect();
    registry.write(&batch).await.unwrap();
    let (groups, pages) = groups_of(registry, node).await;
    let names: BTreeSet<_> = groups.iter().map(|group| group.name.to_string()).collect();
    assert_eq!(names.len(), 3_000);
    assert!(pages > 1, "all in one piece");
}

pub(super) async fn of_an_entry_and_a_leave_the_last_counts(stand: &Stand) {
    let registry = &*stand.registry;
    let node = Incarnation::new(1);
    let (out, inside) = (group("out"), group("in"));
    registry.write(&[Write::Enter(inside.clone(), node)]).await.unwrap();
    let batch = [
        Write::Enter(out.clone(), node),
        Write::Leave(out.clone(), node),
        Write::Leave(inside.clone(), node),
        Write::Enter(inside.clone(), node),
    ];
    registry.write(&batch).await.unwrap();
    assert_eq!((registry.group_nodes(&out).await, registry.group_nodes(&inside).await), (Ok(vec![]), Ok(vec![node])));
    assert_eq!(groups_of(registry, node).await.0, [inside]);
}

pub(super) async fn a_counter_adds_and_ends(stand: &Stand) {
    let registry = &*stand.registry;
    assert_eq!(registry.count("quota/day", 3, LONG).await, Ok(3));
    assert_eq!(registry.count("quota/day", 4, LONG).await, Ok(7));
    assert_eq!(registry.count("quota/day", 0, LONG).await, Ok(7));
    assert_eq!(registry.count("quota/week", 1, LONG).await, Ok(1));
    assert_eq!(registry.count("short", 5, SHORT).await, Ok(5));
    let started = tokio::time::Instant::now();
    // Later uses do not prolong it.
    while registry.count("short", 1, LONG).await.unwrap() != 1 {
        assert!(started.elapsed() < PATIENCE, "a counter does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn a_counter_stops_at_its_end(stand: &Stand) {
    let registry = &*stand.registry;
    let top = i64::MAX as u64;
    assert_eq!(registry.count("much", u64::MAX, LONG).await, Ok(top));
    assert_eq!(registry.count("much", 5, LONG).await, Ok(top));
}

/// A node's own entry, for calls that outlive the place that makes them.
pub(super) static NODE: std::sync::LazyLock<NodeInfo> = std::sync::LazyLock::new(|| info("me"));
