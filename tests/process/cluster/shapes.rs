//! Redis as larger installations run it: watched by Sentinel, and as a Cluster.

use std::collections::BTreeSet;

use super::harness::{Cluster, ids, records};
use super::load::Load;
use super::redis::{Cluster as RedisCluster, Options, Watched};
use crate::support::until;

/// Nodes over the Redis at this URL.
async fn over(url: &str, nodes: usize) -> Cluster {
    let mut cluster = Cluster::prepare(nodes, &[]).await;
    for node in 0..nodes {
        cluster.set(node, &["--redis", url]);
        cluster.begin(node).await;
    }
    cluster.settled().await;
    cluster
}

/// Nobody was declared dead, and nobody's end was told.
async fn nobody_noticed(cluster: &Cluster, incarnations: &[String]) {
    cluster.nobody_died(incarnations).await;
    for node in 0..incarnations.len() {
        until("ready", async || cluster.ready(node).await == "ready\n").await;
    }
    assert!(cluster.ends().is_empty(), "{:?}", cluster.ends());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_by_sentinel_is_survived() {
    let mut redis = Watched::start(1, 3, &Options::default());
    let cluster = over(&redis.url(), 2).await;
    let mut ears = cluster.crowd(0, 5).await;
    ears.extend(cluster.crowd(1, 5).await);
    let incarnations = cluster.incarnations().await;
    until("all records", async || records(&redis.servers[0]).len() == 10).await;
    let load = Load::start(&cluster, &ears);
    load.goes_on(20).await;
    redis.servers[0].kill();
    until("degraded", async || cluster.ready(0).await.starts_with("degraded: ")).await;
    // Of one that comes while there is no master, the next one hears.
    ears.push(cluster.connect(0).await);
    until("another master", async || redis.master() == redis.servers[1].port).await;
    let all: BTreeSet<_> = ids(&ears).into_iter().collect();
    until("all records with the new master", async || records(&redis.servers[1]) == all).await;
    cluster.settled().await;
    nobody_noticed(&cluster, &incarnations).await;
    let told = load.finish().await;
    assert_eq!((told.gone.len(), told.refused, told.unavailable), (0, 0, 0), "{told:?}");
    drop(ears);
    until("all ends", async || cluster.ends().len() == 11).await;
    until("no record", async || records(&redis.servers[1]).is_empty()).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_cluster_serves_and_its_slots_may_move() {
    let redis = RedisCluster::start(3, &Options::default());
    let mut cluster = over(&redis.url(), 3).await;
    let (lost, stays) = (cluster.crowd(0, 10).await, cluster.crowd(1, 10).await);
    let incarnations = cluster.incarnations().await;
    let all_records = || redis.servers.iter().flat_map(records).collect::<BTreeSet<_>>();
    let all: BTreeSet<_> = ids(&lost).into_iter().chain(ids(&stays)).collect();
    until("all records", async || all_records() == all).await;
    for ear in &stays {
        assert_eq!(cluster.callback(2, "PUT", &format!("@groups/room/{}", ear.id), "").await.status, 204);
    }
    // Where the nodes and their leases are goes elsewhere, while all of them renew.
    let slot = redis.slot("{causeway:m}:nodes");
    let to = (redis.owner(slot) + 1) % 3;
    redis.move_slot(slot, to);
    cluster.settled().await;
    nobody_noticed(&cluster, &incarnations).await;
    let sent = cluster.callback(0, "POST", "@groups/room", "after the move").await.body;
    assert!(sent.starts_with(r#"{"delivered":10,"#), "{sent}");
    cluster.kill(0);
    cluster.all_ended(&ids(&lost)).await;
    until("the records of the others", async || all_records() == ids(&stays).into_iter().collect()).await;
    cluster.push_until(2, &lost[0].id, 410, 200).await;
    assert!(cluster.ends().values().all(|calls| calls.len() == 1));
    drop(stays);
    until("no record", async || all_records().is_empty()).await;
    cluster.finish().await;
}
