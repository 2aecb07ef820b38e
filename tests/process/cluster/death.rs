//! Who is dead, who only seems to be, and who tells the back-end.

use std::time::{Duration, Instant};

use super::harness::{Cluster, ids};
use crate::support::{Said, eventually, until};

/// Each connection's end was told, with its own cause, under one request id; how many calls there were beyond one each.
fn lost_with_their_node(cluster: &Cluster, lost: &[String]) -> usize {
    let ends = cluster.ends();
    let mut repeats = 0;
    for id in lost {
        let calls = ends.get(id).unwrap_or_else(|| panic!("no `$disconnect` for {id}"));
        for call in calls {
            let told = (call.close_code.as_str(), call.header("reason"), call.header("sourceIp"));
            assert_eq!(told, ("1006", "Gateway node lost", "127.0.0.1"), "{id}");
            assert!(call.header("connectedAt").parse::<u64>().is_ok(), "{id}");
            assert!(!call.header("requestId").is_empty(), "{id}");
            assert_eq!(call.header("requestId"), calls[0].header("requestId"), "{id}: a repeat is told by its id");
        }
        repeats += calls.len() - 1;
    }
    let mut requests: Vec<_> = lost.iter().map(|id| ends[id][0].header("requestId").to_owned()).collect();
    requests.sort();
    requests.dedup();
    assert_eq!(requests.len(), lost.len(), "each end has an id of its own");
    repeats
}

/// Nobody but these was told of.
fn only(cluster: &Cluster, expected: &[String]) {
    for (id, calls) in cluster.ends() {
        let told: Vec<_> = calls.iter().map(|call| (call.close_code.clone(), call.header("reason"))).collect();
        assert!(expected.contains(&id), "{id} lives: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nodes_sessions_get_their_disconnect_once_from_the_others() {
    let mut cluster = Cluster::start(3).await;
    let lost = cluster.crowd(0, 30).await;
    let mut alive = cluster.crowd(1, 3).await;
    alive.extend(cluster.crowd(2, 3).await);
    for ear in lost.iter().chain(&alive) {
        assert_eq!(cluster.push(1, &ear.id, "before").await, 200);
    }
    let lost_ids = ids(&lost);
    cluster.kill(0);
    let killed = Instant::now();
    // 503 until the tombstone, 410 from it on, and never anything else.
    let id = &lost_ids[0];
    let answer = cluster.push(1, id, "nobody hears this").await;
    assert!(answer == 503, "{answer} right after the kill: nothing can be proven yet");
    eventually("the first `$disconnect`", || !cluster.ends().is_empty()).await;
    let first = killed.elapsed();
    assert!(first < Duration::from_secs(1 + 5), "the first call came after {first:?}");
    assert!(first > Duration::from_millis(900), "a lease is waited for: {first:?}");
    for node in [1, 2] {
        cluster.push_until(node, id, 410, 200).await;
    }
    cluster.all_ended(&lost_ids).await;
    assert_eq!(lost_with_their_node(&cluster, &lost_ids), 0, "once each");
    only(&cluster, &lost_ids);
    cluster.recorded(&ids(&alive).into_iter().collect()).await;
    for ear in &alive {
        assert_eq!(cluster.push(1, &ear.id, "after").await, 200);
        ear.hears("after").await;
    }
    assert!(
        cluster.metric(1, "causeway_node_burials_total").await + cluster.metric(2, "causeway_node_burials_total").await
            >= 1
    );
    cluster.settled().await;
    drop(alive);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_for_the_dead_keep_to_their_rate() {
    let mut cluster = Cluster::with(2, &["--recovery-rate", "20"]).await;
    let ears = cluster.crowd(0, 60).await;
    let lost = ids(&ears);
    cluster.recorded(&lost.iter().cloned().collect()).await;
    cluster.kill(0);
    eventually("the first call", || !cluster.ends().is_empty()).await;
    let first = Instant::now();
    cluster.all_ended(&lost).await;
    let took = first.elapsed();
    assert!(took > Duration::from_millis(2_700), "60 calls at 20 a second took {took:?}");
    assert_eq!(lost_with_their_node(&cluster, &lost), 0);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_that_dies_midway_is_taken_over_from() {
    let mut cluster = Cluster::with(3, &["--recovery-claim", "2s"]).await;
    let (ears, more) = (cluster.crowd(0, 40).await, cluster.crowd(1, 5).await);
    let (lost, next) = (ids(&ears), ids(&more));
    cluster.recorded(&lost.iter().chain(&next).cloned().collect()).await;
    // Calls begin and do not end: both survivors hold claims.
    cluster.backend.hold("/disconnect");
    cluster.kill(0);
    until("both survivors work", async || {
        cluster.ends().len() == lost.len()
            && cluster.metric(1, "causeway_node_burials_total").await
                + cluster.metric(2, "causeway_node_burials_total").await
                >= 1
    })
    .await;
    cluster.kill(1);
    cluster.backend.hold("");
    let all: Vec<_> = lost.iter().chain(&next).cloned().collect();
    cluster.all_ended(&all).await;
    cluster.recorded(&[].into()).await;
    // Repeated are those that the second to die had begun, and no other more than that.
    let repeats = lost_with_their_node(&cluster, &all);
    assert!(repeats <= lost.len(), "{repeats} repeats");
    only(&cluster, &all);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_node_makes_the_calls_itself_when_it_is_back() {
    let mut cluster = Cluster::start(1).await;
    let ears = cluster.crowd(0, 10).await;
    let lost = ids(&ears);
    cluster.recorded(&lost.iter().cloned().collect()).await;
    cluster.kill(0);
    cluster.begin(0).await;
    let back = Instant::now();
    // Its own earlier start is not proven dead until its lease has run out under its eyes.
    let answer = cluster.push(0, &lost[0], "who?").await;
    assert!([410, 503].contains(&answer), "{answer}");
    cluster.all_ended(&lost).await;
    assert!(back.elapsed() < Duration::from_secs(6), "{:?}", back.elapsed());
    assert_eq!(lost_with_their_node(&cluster, &lost), 0);
    cluster.push_until(0, &lost[0], 410, 200).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_shorter_than_the_lease_is_noticed_by_nobody() {
    let cluster = Cluster::with(2, &["--node-lease", "5s"]).await;
    let (paused, other) = (cluster.crowd(0, 5).await, cluster.crowd(1, 5).await);
    let before = cluster.incarnation(0).await;
    cluster.freeze(0);
    // Longer than a renewal and an answer, shorter than the lease.
    assert_eq!(cluster.push(1, &paused[0].id, "it sleeps").await, 503);
    assert_eq!(cluster.push(1, &other[0].id, "it does not").await, 200);
    cluster.thaw(0);
    cluster.push_until(1, &paused[0].id, 200, 410).await;
    assert_eq!(cluster.incarnation(0).await, before);
    cluster.settled().await;
    assert!(cluster.ends().is_empty());
    assert!(paused.iter().chain(&other).all(|ear| ear.ended().is_none()));
    for node in [0, 1] {
        assert_eq!(cluster.metric(node, "causeway_node_burials_total").await, 0);
    }
    drop((paused, other));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_buried_alive_ends_its_sessions_and_joins_anew() {
    let cluster = Cluster::start(3).await;
    let asleep = cluster.crowd(0, 10).await;
    let lost = ids(&asleep);
    let awake = cluster.crowd(1, 3).await;
    let before = cluster.incarnation(0).await;
    cluster.recorded(&lost.iter().cloned().chain(ids(&awake)).collect()).await;
    cluster.freeze(0);
    let frozen = Instant::now();
    eventually("the first `$disconnect`", || !cluster.ends().is_empty()).await;
    assert!(frozen.elapsed() < Duration::from_secs(1 + 5), "{:?}", frozen.elapsed());
    cluster.push_until(2, &lost[0], 410, 200).await;
    cluster.all_ended(&lost).await;
    cluster.thaw(0);
    for ear in &asleep {
        assert_eq!(ear.end().await, Said::Close(1012));
    }
    until("it has joined anew", async || {
        let now = cluster.incarnation(0).await;
        !now.is_empty() && now != before
    })
    .await;
    cluster.settled().await;
    assert_eq!(cluster.metric(0, "causeway_node_expulsions_total").await, 1);
    let fresh = cluster.connect(0).await;
    for node in 0..3 {
        assert_eq!(cluster.push(node, &fresh.id, "welcome").await, 200);
        assert_eq!(cluster.push(node, &lost[0], "gone").await, 410);
    }
    assert_eq!(cluster.ready(0).await, "ready\n");
    lost_with_their_node(&cluster, &lost);
    only(&cluster, &lost);
    let told: usize = cluster.ends().values().map(Vec::len).sum();
    assert_eq!(told, lost.len(), "the others called once, the node itself not at all");
    drop((fresh, awake));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cut_off_from_all_the_others_ends_what_nobody_else_can() {
    let cluster = Cluster::start(2).await;
    let recorded = cluster.crowd(0, 5).await;
    let lost = ids(&recorded);
    cluster.recorded(&lost.iter().cloned().collect()).await;
    let before = cluster.incarnation(0).await;
    cluster.cut_registry(0);
    cluster.cut_links();
    until("it notices", async || cluster.ready(0).await.starts_with("degraded: ")).await;
    // Its clients still reach it, and new ones come: of these Redis knows nothing.
    let unrecorded = cluster.crowd(0, 5).await;
    assert_eq!(cluster.push(0, &unrecorded[0].id, "welcome").await, 200);
    cluster.all_ended(&lost).await;
    assert_eq!(lost_with_their_node(&cluster, &lost), 0);
    cluster.push_until(1, &lost[0], 410, 200).await;
    assert!(recorded.iter().chain(&unrecorded).all(|ear| ear.ended().is_none()), "it does not know yet");
    cluster.restore_links();
    cluster.restore_registry(0);
    for ear in recorded.iter().chain(&unrecorded) {
        assert_eq!(ear.end().await, Said::Close(1012));
    }
    until("it has joined anew", async || ![String::new(), before.clone()].contains(&cluster.incarnation(0).await))
        .await;
    let all: Vec<_> = lost.iter().cloned().chain(ids(&unrecorded)).collect();
    cluster.all_ended(&all).await;
    for (id, calls) in cluster.ends() {
        assert_eq!(calls.len(), 1, "{id}: by the one who has its record, else by the node itself");
    }
    cluster.settled().await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_left_makes_the_calls_for_all_who_died_at_once() {
    let mut cluster = Cluster::start(3).await;
    let (first, second, third) = (cluster.crowd(0, 8).await, cluster.crowd(1, 8).await, cluster.crowd(2, 8).await);
    let all: Vec<_> = [&first, &second, &third].into_iter().flat_map(|ears| ids(ears)).collect();
    cluster.recorded(&all.iter().cloned().collect()).await;
    cluster.kill(0);
    cluster.kill(1);
    cluster.all_ended(&all[..16]).await;
    cluster.recorded(&all[16..].iter().cloned().collect()).await;
    assert_eq!(lost_with_their_node(&cluster, &all[..16]), 0);
    only(&cluster, &all[..16]);
    // Then the last as well, and all of them come back.
    cluster.kill(2);
    for node in 0..3 {
        cluster.begin(node).await;
    }
    cluster.all_ended(&all).await;
    cluster.recorded(&[].into()).await;
    assert_eq!(lost_with_their_node(&cluster, &all), 0);
    for id in &all {
        cluster.push_until(0, id, 410, 200).await;
    }
    cluster.settled().await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_nobody_remembers_proves_nothing_until_the_operator_speaks() {
    let mut cluster = Cluster::start(2).await;
    let ears = cluster.crowd(0, 1).await;
    let id = ears[0].id.clone();
    assert_eq!(cluster.admin(1, "POST", &format!("/nodes/bury?connection={id}")).await.status, 409, "it lives");
    cluster.kill(0);
    cluster.kill(1);
    cluster.redis.flush();
    cluster.begin(1).await;
    cluster.begin(0).await;
    cluster.settled().await;
    let fresh = cluster.connect(0).await;
    for node in [0, 1] {
        assert_eq!(cluster.push(node, &id, "who?").await, 503, "nothing is known of it");
    }
    assert_eq!(cluster.admin(1, "POST", &format!("/nodes/bury?connection={id}")).await.status, 204);
    for node in [0, 1] {
        cluster.push_until(node, &id, 410, 200).await;
    }
    assert_eq!(cluster.push(1, &fresh.id, "alive").await, 200);
    drop(fresh);
    cluster.finish().await;
}
