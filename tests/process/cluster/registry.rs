//! Redis away, in every way it can be: local work goes on, nobody is declared dead, everything is there again afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::harness::{Cluster, ids};
use super::load::Load;
use crate::support::{Ear, until};

/// Members of the group, in the order of their nodes.
async fn members(cluster: &Cluster) -> Vec<Ear> {
    let mut ears = Vec::new();
    for node in 0..3 {
        ears.extend(cluster.crowd(node, 3).await);
    }
    for ear in &ears {
        assert_eq!(cluster.callback(0, "PUT", &format!("@groups/room/{}", ear.id), "").await.status, 204);
    }
    ears
}

/// Whether a message to the group reaches everybody from everywhere.
async fn everybody_hears(cluster: &Cluster, ears: &[Ear], message: &str) {
    for node in 0..3 {
        let sent = cluster.callback(node, "POST", "@groups/room", message).await.body;
        let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
        assert_eq!(sent["delivered"], ears.len(), "{message} from {node}: {sent}");
    }
    until("everybody has heard", async || ears.iter().all(|ear| ear.count(message) == 3)).await;
}

/// What Redis can suffer; `back` mends it.
struct Outage {
    name: &'static str,
    begin: fn(&mut Cluster),
    back: fn(&mut Cluster),
    is_away: bool,
}

const OUTAGES: [Outage; 6] = [
    Outage { name: "paused", begin: |c| c.redis.pause(), back: |c| c.redis.resume(), is_away: true },
    Outage {
        name: "killed, back with its data",
        begin: |c| c.redis.kill(),
        back: |c| c.redis.restart(),
        is_away: true,
    },
    Outage {
        name: "killed, back empty",
        begin: |c| {
            // Nobody may write between the two.
            c.cut_registries();
            c.redis.flush();
            c.redis.kill();
        },
        back: |c| {
            c.redis.restart();
            c.restore_registries();
        },
        is_away: true,
    },
    Outage {
        name: "without memory",
        begin: |c| drop(c.redis.call(&["CONFIG", "SET", "maxmemory", "1"])),
        back: |c| drop(c.redis.call(&["CONFIG", "SET", "maxmemory", "0"])),
        is_away: true,
    },
    Outage {
        name: "made a replica",
        begin: |c| drop(c.redis.call(&["REPLICAOF", "127.0.0.1", "1"])),
        back: |c| drop(c.redis.call(&["REPLICAOF", "NO", "ONE"])),
        is_away: true,
    },
    Outage { name: "emptied", begin: |c| c.redis.flush(), back: |_| (), is_away: false },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_redis_is_survived_whatever_its_kind() {
    let mut cluster = Cluster::start(3).await;
    let mut ears = members(&cluster).await;
    let incarnations = cluster.incarnations().await;
    for outage in &OUTAGES {
        cluster.recorded(&ids(&ears).into_iter().collect()).await;
        let load = Load::start(&cluster, &ears);
        load.goes_on(20).await;
        (outage.begin)(&mut cluster);
        if outage.is_away {
            for node in 0..3 {
                until("degraded", async || cluster.ready(node).await.starts_with("degraded: ")).await;
            }
        }
        // Longer than the others' patience would be; new clients come, and work goes on for them and for all.
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            let node = ears.len() % 3;
            let new = cluster.connect(node).await;
            assert_eq!(cluster.callback(node, "PUT", &format!("@groups/room/{}", new.id), "").await.status, 204);
            assert_eq!(cluster.push((node + 1) % 3, &new.id, "welcome").await, 200, "{}", outage.name);
            ears.push(new);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        everybody_hears(&cluster, &ears, &format!("during: {}", outage.name)).await;
        (outage.back)(&mut cluster);
        cluster.recorded(&ids(&ears).into_iter().collect()).await;
        for node in 0..3 {
            until("ready", async || cluster.ready(node).await == "ready\n").await;
        }
        everybody_hears(&cluster, &ears, &format!("right after: {}", outage.name)).await;
        cluster.settled().await;
        everybody_hears(&cluster, &ears, &format!("settled after: {}", outage.name)).await;
        let told = load.finish().await;
        assert!(told.taken > 50, "{}: {told:?}", outage.name);
        assert_eq!((told.gone.len(), told.refused), (0, 0), "{}: {told:?}", outage.name);
        cluster.nobody_died(&incarnations).await;
        assert!(cluster.ends().is_empty(), "{}", outage.name);
        assert!(ears.iter().all(|ear| ear.ended().is_none()), "{}", outage.name);
        let sets = cluster.keys("causeway:g:*");
        assert_eq!(sets.len(), 1, "{sets:?}");
        let holders = cluster.redis.call(&["SCARD", sets.first().unwrap()]).text();
        assert_eq!(holders, "3", "{}: every node is entered in the group", outage.name);
    }
    let all: BTreeSet<_> = ids(&ears).into_iter().collect();
    drop(ears);
    until("all ends", async || cluster.ends().len() == all.len()).await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_while_redis_is_away_leave_no_record() {
    let mut cluster = Cluster::start(2).await;
    let (ends, stays) = (cluster.crowd(0, 5).await, cluster.crowd(1, 2).await);
    let all: Vec<_> = ids(&ends).into_iter().chain(ids(&stays)).collect();
    cluster.recorded(&all.iter().cloned().collect()).await;
    cluster.redis.kill();
    until("degraded", async || cluster.ready(0).await.starts_with("degraded: ")).await;
    // One came and went in between: it leaves nothing at all.
    let short = cluster.connect(0).await;
    let mut ended = ids(&ends);
    ended.push(short.id.clone());
    drop((ends, short));
    cluster.all_ended(&ended).await;
    cluster.redis.restart();
    cluster.recorded(&ids(&stays).into_iter().collect()).await;
    for id in &ended {
        assert_eq!(cluster.ends()[id].len(), 1, "{id}");
        cluster.push_until(1, id, 410, 200).await;
    }
    cluster.settled().await;
    drop(stays);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_while_redis_is_away_is_buried_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    let (lost, stays) = (cluster.crowd(0, 10).await, cluster.crowd(1, 2).await);
    let all: Vec<_> = ids(&lost).into_iter().chain(ids(&stays)).collect();
    cluster.recorded(&all.iter().cloned().collect()).await;
    cluster.redis.kill();
    until("degraded", async || cluster.ready(1).await.starts_with("degraded: ")).await;
    cluster.kill(0);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        assert_eq!(cluster.push(1, &lost[0].id, "dead, and unproven").await, 503);
        assert_eq!(cluster.push(2, &stays[0].id, "alive").await, 200);
    }
    assert!(cluster.ends().is_empty());
    cluster.redis.restart();
    cluster.all_ended(&ids(&lost)).await;
    cluster.push_until(1, &lost[0].id, 410, 200).await;
    cluster.recorded(&ids(&stays).into_iter().collect()).await;
    assert!(cluster.ends().values().all(|calls| calls.len() == 1 && calls[0].close_code == "1006"));
    drop(stays);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_with_old_data_is_put_right() {
    let mut cluster = Cluster::start(2).await;
    let (ends, stays) = (cluster.crowd(0, 5).await, cluster.crowd(1, 2).await);
    let all: BTreeSet<_> = ids(&ends).into_iter().chain(ids(&stays)).collect();
    cluster.recorded(&all).await;
    // From here on nothing comes to its disk, as with a replica that has fallen behind.
    cluster.redis.call(&["CONFIG", "SET", "appendonly", "no"]);
    let ended = ids(&ends);
    drop(ends);
    cluster.all_ended(&ended).await;
    let new = cluster.crowd(0, 3).await;
    let now: BTreeSet<_> = ids(&new).into_iter().chain(ids(&stays)).collect();
    cluster.recorded(&now).await;
    // At once: no renewal may be lost with the rest, whose count would tell.
    cluster.redis.kill();
    cluster.redis.restart();
    assert!(cluster.records().iter().any(|id| ended.contains(id)), "the past is back");
    cluster.recorded(&now).await;
    assert!(cluster.ends().values().all(|calls| calls.len() == 1), "nobody's end is told again");
    cluster.settled().await;
    for node in [0, 1] {
        assert_eq!(cluster.metric(node, "causeway_node_burials_total").await, 0);
    }
    drop((new, stays));
    cluster.finish().await;
}
