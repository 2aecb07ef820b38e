//! A Cluster whose slots move and whose servers go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::contract::{self, LONG, connection, info};
use super::servers::{Cluster, Options, Server};
use super::{Config, Redis, RegistryError, config, recovers, redis};
use crate::cluster::redis::ConnectError;
use crate::cluster::registry::{Claim, Registry, Write};
use crate::ids::Incarnation;

const DEADLINE: Duration = Duration::from_millis(300);

/// A record for each server, by the server that has its slot.
fn one_each(cluster: &Cluster) -> Vec<crate::context::ConnectionContext> {
    let of = |server: usize| {
        let mut slots = (0..1_000).map(|n| connection(Incarnation::new(1), n));
        slots.find(|context| cluster.owner(cluster.slot(&format!("{{causeway:r:1:{}}}", context.id.slot()))) == server)
    };
    (0..cluster.servers.len()).map(|server| of(server).expect("a slot on each server")).collect()
}

#[tokio::test]
async fn moved_slots_are_followed_in_the_middle_of_everything() {
    let cluster = Cluster::start(3, &Options::default());
    let redis = redis(&cluster.url());
    let me = redis.join(&info("me"), LONG).await.unwrap();
    let dataset = contract::beat(&*redis, me, "me").await.dataset;
    let slot = cluster.slot("{causeway:m}:nodes");
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    cluster.move_slot(slot, to);
    for _more_than_once in 0..3 {
        let after = contract::beat(&*redis, me, "me").await;
        assert_eq!((after.dataset, after.reentered), (dataset, false));
    }
    // A batch that meets three servers, one of them for the first time after a move.
    let records = one_each(&cluster);
    let moved = cluster.slot(&format!("{{causeway:r:1:{}}}", records[0].id.slot()));
    cluster.move_slot(moved, 2);
    redis.write(&records.iter().cloned().map(Write::Put).collect::<Vec<_>>()).await.unwrap();
    for record in &records {
        assert_eq!(redis.claim(record.id, 1, LONG).await, Ok(Claim::Yours(record.clone())));
    }
}

#[tokio::test]
async fn a_slot_on_the_move_is_asked_for_on_both_sides() {
    let cluster = Cluster::start(3, &Options::default());
    let redis = redis(&cluster.url());
    redis.check().await.unwrap();
    let keys_in = |server: usize, slot: u16| {
        cluster.servers[server].call(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).text()
    };
    // New keys of the slot are made where it goes: by a plain command ...
    let record = connection(Incarnation::new(1), 1);
    let slot = cluster.slot("{causeway:r:1:1}");
    let to = (cluster.owner(slot) + 1) % 3;
    cluster.begin_move(slot, to);
    redis.write(&[Write::Put(record.clone())]).await.unwrap();
    assert_eq!(keys_in(to, slot), "1");
    // ... but a script with two keys, of which one does not stand there yet, has to wait for the end of the move.
    let said = redis.claim(record.id, 1, LONG).await.unwrap_err();
    assert_eq!(said, RegistryError::Unreachable("its slots are just being moved".to_owned()));
    cluster.end_move(slot, to);
    assert_eq!(redis.claim(record.id, 1, LONG).await, Ok(Claim::Yours(record.clone())));
    assert_eq!(redis.finish(record.id, 1).await, Ok(true));
    assert_eq!(redis.claim(record.id, 1, LONG).await, Ok(Claim::Missing));
    // ... and by a script that the server there has never seen.
    let slot = cluster.slot("causeway:c:calls");
    let to = (cluster.owner(slot) + 1) % 3;
    cluster.begin_move(slot, to);
    cluster.servers[to].call(&["SCRIPT", "FLUSH"]);
    assert_eq!(redis.count("calls", 1, LONG).await, Ok(1));
    assert_eq!(redis.count("calls", 1, LONG).await, Ok(2));
    assert_eq!(keys_in(to, slot), "1");
    cluster.end_move(slot, to);
    assert_eq!(redis.count("calls", 1, LONG).await, Ok(3));
}

#[tokio::test]
async fn a_half_moved_slot_is_waited_for() {
    let cluster = Arc::new(Cluster::start(3, &Options::default()));
    let redis = redis(&cluster.url());
    let me = redis.join(&info("me"), LONG).await.unwrap();
    let slot = cluster.slot("{causeway:m}:nodes");
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    cluster.begin_move(slot, to);
    let port = cluster.servers[to].port.to_string();
    cluster.servers[from].call(&["MIGRATE", "127.0.0.1", &port, "{causeway:m}:nodes", "0", "5000"]);
    // Its keys stand on two servers now: neither can run the script.
    let said = redis.renew(me, &info("me"), LONG).await.unwrap_err();
    assert_eq!(said, RegistryError::Unreachable("its slots are just being moved".to_owned()));
    let (twin, is_moved) = (Arc::clone(&cluster), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&is_moved);
    let mover = std::thread::Builder::new().spawn(move || {
        twin.carry(slot, to);
        twin.end_move(slot, to);
        told.store(true, Ordering::Release);
    });
    let _renewed = recovers("a moved slot", || redis.renew(me, &contract::NODE, LONG)).await;
    mover.unwrap().join().unwrap();
    assert!(is_moved.load(Ordering::Acquire));
    assert!(!contract::beat(&*redis, me, "me").await.reentered);
}

#[tokio::test]
async fn a_stuck_server_costs_only_its_own_slots() {
    let cluster = Cluster::start(3, &Options::default());
    let redis = Redis::new(&Config { timeout: DEADLINE, ..config(&cluster.url()) }).unwrap();
    recovers("the Cluster", || redis.check()).await;
    let records = one_each(&cluster);
    let all: Vec<_> = records.iter().cloned().map(Write::Put).collect();
    redis.write(&all).await.unwrap();
    cluster.servers[0].pause();
    for _again in 0..3 {
        let began = Instant::now();
        assert_eq!(redis.write(&all[..1]).await, Err(RegistryError::TimedOut(DEADLINE)));
        assert!(began.elapsed() < DEADLINE + Duration::from_millis(300), "{:?}", began.elapsed());
        redis.write(&all[1..]).await.unwrap();
    }
    cluster.servers[0].resume();
    recovers("the resumed server", || redis.write(&all)).await;
}

#[tokio::test]
async fn a_killed_server_comes_back_with_nothing_restarted() {
    let mut cluster = Cluster::start(3, &Options { is_durable: true, ..Options::default() });
    let redis = Redis::new(&Config { timeout: DEADLINE, ..config(&cluster.url()) }).unwrap();
    let records = one_each(&cluster);
    let all: Vec<_> = records.iter().cloned().map(Write::Put).collect();
    recovers("the Cluster", || redis.write(&all)).await;
    cluster.servers[1].kill();
    let said = redis.write(&all).await.unwrap_err();
    assert!(said.is_passing(), "{said}");
    redis.write(&all[2..]).await.unwrap();
    cluster.servers[1].restart();
    recovers("the restarted server", || redis.write(&all)).await;
    let mut found = BTreeSet::new();
    for record in &records {
        let bucket = crate::cluster::registry::bucket(&record.id);
        found.extend(redis.records(record.id.incarnation(), bucket, None).await.unwrap().items);
    }
    assert_eq!(found.len(), 3);
}

#[tokio::test]
async fn one_server_that_is_up_is_enough_to_find_the_others() {
    let cluster = Cluster::start(3, &Options::default());
    let url = format!("redis+cluster://127.0.0.1:1,127.0.0.1:{}", cluster.servers[2].port);
    let redis = Redis::connect(&config(&url)).await.unwrap();
    let records = one_each(&cluster);
    redis.write(&records.into_iter().map(Write::Put).collect::<Vec<_>>()).await.unwrap();
}

#[tokio::test]
async fn a_cluster_and_a_single_server_are_told_apart() {
    let (cluster, single) = (Cluster::start(1, &Options::default()), Server::plain());
    let said = |result: Result<Redis, ConnectError>| result.unwrap_err().to_string();
    let as_cluster = format!("redis+cluster://127.0.0.1:{}", single.port);
    assert!(said(Redis::connect(&config(&as_cluster)).await).contains("it is no Cluster: use redis://"));
    let numbered = format!("redis://127.0.0.1:{}/2", cluster.servers[0].port);
    assert!(said(Redis::connect(&config(&numbered)).await).contains("it is a Cluster: use redis+cluster://"));
}

#[tokio::test]
async fn slots_are_computed_as_redis_does() {
    let cluster = Cluster::start(1, &Options::default());
    for key in ["", "a", "{a}b", "{}a", "a{", "a}{b}", "{{a}}", "causeway:g:chat:room {1}", "causeway:g:chat:{", "ü{ö}"]
    {
        assert_eq!(crate::cluster::redis::slot(key), cluster.slot(key), "{key}");
    }
}
