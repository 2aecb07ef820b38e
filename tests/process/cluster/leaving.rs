//! Nodes that leave in order, and sessions that are asked to go elsewhere.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::harness::{Cluster, ids};
use super::load::{Caller, Customers, Field, Load, all_answered, all_told, check};
use crate::support::{Notes, Said, eventually, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing() {
    let mut cluster = Cluster::with(3, &["--drain-close-code", "1012"]).await;
    let field = Field::of(&cluster);
    let (load, caller) = (Load::on(field.clone()), Caller::on(field.clone()));
    let customers = Customers::start(&field, 12);
    load.goes_on(100).await;
    for node in 0..3 {
        // What a load balancer does: first no more new clients, then the end, then again.
        let others: Vec<_> = (0..3).filter(|&other| other != node).collect();
        field.is_now(&cluster, &others);
        cluster.stop(node).await;
        load.goes_on(50).await;
        cluster.begin(node).await;
        field.is_now(&cluster, &[0, 1, 2]);
        load.goes_on(50).await;
    }
    eventually("everybody to be back", || customers.open() >= 12).await;
    let (told, calls) = (load.finish().await, caller.finish().await);
    let visits = customers.finish().await;
    assert!(visits.len() >= 24, "everybody had to move at least once: {}", visits.len());
    check(&told, &visits, |_| false);
    all_answered(&cluster.backend, &visits, |_| false);
    for (message, delivered) in &calls {
        let heard: usize = visits.values().map(|notes| notes.count(message)).sum();
        assert!(heard as u64 >= *delivered, "{message}: {delivered} deliveries, {heard} heard it");
    }
    let ends: BTreeSet<_> = visits.values().filter_map(Notes::end).map(|(_, said)| format!("{said:?}")).collect();
    assert_eq!(ends, [format!("{:?}", Said::Close(1012))].into(), "no other end than the drain's");
    assert_eq!(all_told(&cluster).await, 0, "no `$disconnect` twice");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sheds_half_of_its_sessions_at_a_pace() {
    let cluster = Cluster::start(2).await;
    let (mut full, other) = (cluster.crowd(0, 40).await, cluster.crowd(1, 2).await);
    let started = Instant::now();
    let answer = cluster.admin(0, "POST", "/nodes/shed?percent=50&rate=20").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"sessions":20}"#));
    let again = cluster.admin(0, "POST", "/nodes/shed?percent=50&rate=20").await;
    assert_eq!(again.status, 409, "one after the other: {}", again.body);
    eventually("half to be sent away", || full.iter().filter(|ear| ear.ended().is_some()).count() == 20).await;
    assert!(started.elapsed() > Duration::from_millis(850), "20 at 20 a second took {:?}", started.elapsed());
    let (gone, stays): (Vec<_>, Vec<_>) = full.drain(..).partition(|ear| ear.ended().is_some());
    assert!(gone.iter().all(|ear| ear.ended() == Some(Said::Close(1012))));
    cluster.all_ended(&ids(&gone)).await;
    assert!(cluster.ends().iter().all(|(id, calls)| ids(&gone).contains(id) && calls.len() == 1));
    // They come back elsewhere, and are reached there; the others never noticed.
    let back = cluster.crowd(1, 20).await;
    for ear in back.iter().chain(&stays).chain(&other) {
        assert_eq!(cluster.push(0, &ear.id, "still reached").await, 200);
        ear.hears("still reached").await;
    }
    assert_eq!(cluster.push(1, &gone[0].id, "gone").await, 410);
    let all = ids(&back).into_iter().chain(ids(&stays)).chain(ids(&other)).collect();
    cluster.recorded(&all).await;
    assert_eq!(cluster.admin(0, "POST", "/nodes/shed?percent=0&rate=20").await.status, 400);
    drop((back, stays, other));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_while_redis_is_away_is_cleared_up_behind() {
    let mut cluster = Cluster::start(2).await;
    let (leaves, stays) = (cluster.crowd(0, 5).await, cluster.crowd(1, 2).await);
    let all: BTreeSet<_> = ids(&leaves).into_iter().chain(ids(&stays)).collect();
    cluster.recorded(&all).await;
    cluster.redis.kill();
    until("degraded", async || cluster.ready(0).await.starts_with("degraded: ")).await;
    cluster.stop(0).await;
    assert!(leaves.iter().all(|ear| ear.ended() == Some(Said::Close(1001))));
    let told = cluster.ends();
    assert!(ids(&leaves).iter().all(|id| told[id].len() == 1), "{told:?}");
    cluster.redis.restart();
    // Its records are still there; whoever has them cannot know that their ends were told.
    cluster.recorded(&ids(&stays).into_iter().collect()).await;
    for id in ids(&leaves) {
        let calls = &cluster.ends()[&id];
        let names: BTreeSet<_> = calls.iter().map(|call| call.header("requestId").to_owned()).collect();
        assert!(names.len() == 1 && calls.len() <= 2, "{id}: {calls:?}");
        cluster.push_until(1, &id, 410, 200).await;
    }
    cluster.settled().await;
    drop(stays);
    cluster.finish().await;
}
