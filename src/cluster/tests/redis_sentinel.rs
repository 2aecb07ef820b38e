//! A master that Sentinel replaces.

use std::time::Duration;

use tokio::time::Instant;

use super::contract::{self, LONG, info};
use super::servers::{Options, Reply, Watched, until};
use super::{Config, Redis, RegistryError, config, recovers};
use crate::cluster::redis::ConnectError;
use crate::cluster::registry::Registry;

const DEADLINE: Duration = Duration::from_millis(300);

async fn follows_to_the_new_master(lose: impl FnOnce(&mut Watched)) {
    let mut group = Watched::start(1, 1, &Options::default());
    let redis = Redis::new(&Config { timeout: DEADLINE, ..config(&group.url()) }).unwrap();
    let me = recovers("the first master", || redis.join(&contract::NODE, LONG)).await;
    let before = contract::beat(&redis, me, "me").await;
    // What the replica has not got is lost in a failover, and that is another test's business.
    until("the replica has it", || {
        let offset = |n: usize, name| group.servers[n].info("replication", name);
        offset(0, "master_repl_offset") == offset(1, "slave_repl_offset")
    });
    let old = group.master();
    lose(&mut group);
    let mut longest = Duration::ZERO;
    let started = Instant::now();
    let after = loop {
        let began = Instant::now();
        let result = redis.renew(me, &contract::NODE, LONG).await;
        longest = longest.max(began.elapsed());
        match result {
            Ok(renewal) if group.master() != old => break renewal,
            // The old one, until Sentinel has noticed.
            Ok(_) => {}
            Err(error) => assert!(error.is_passing(), "{error}"),
        }
        assert!(started.elapsed() < super::servers::PATIENCE, "no other master");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(longest < DEADLINE + Duration::from_millis(300), "{longest:?}");
    let contract_holds =
        matches!(&after, crate::cluster::registry::Renewal::Alive(beat) if beat.dataset == before.dataset);
    assert!(contract_holds, "{after:?}");
    assert_eq!(group.servers[1].info("replication", "role"), "master");
    let entries = group.servers[1].call(&["HLEN", "{causeway:m}:nodes"]);
    assert_eq!(entries.text(), "1");
}

#[tokio::test]
async fn a_killed_master_is_followed_to_the_next() {
    follows_to_the_new_master(|group| group.servers[0].kill()).await;
}

#[tokio::test]
async fn a_stuck_master_is_followed_to_the_next() {
    follows_to_the_new_master(|group| group.servers[0].pause()).await;
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_left() {
    follows_to_the_new_master(|group| {
        // Until Sentinel has looked at the replica once more it finds none that is fit.
        let fails_over = |group: &Watched| group.sentinels[0].try_call(&["SENTINEL", "FAILOVER", "main"]);
        until("a failover begins", || fails_over(group) == Some(Reply::Text("OK".to_owned())));
    })
    .await;
}

#[tokio::test]
async fn a_dead_sentinel_among_others_does_not_matter() {
    let mut group = Watched::start(1, 3, &Options::default());
    group.sentinels[0].kill();
    group.sentinels[1].pause();
    Redis::connect(&config(&group.url())).await.unwrap();
}

#[tokio::test]
async fn an_unknown_master_s_name_is_said() {
    let group = Watched::start(0, 1, &Options::default());
    let said = match Redis::connect(&config(&group.url().replace("/main", "/other"))).await {
        Err(ConnectError::Registry(RegistryError::Refused(said))) => said,
        other => panic!("{other:?}"),
    };
    assert!(said.ends_with("knows no master `other`"), "{said}");
    let plain = config(&format!("redis+sentinel://127.0.0.1:{}/main", group.servers[0].port));
    let said = Redis::connect(&plain).await.unwrap_err().to_string();
    assert!(said.contains("SENTINEL"), "{said}");
    let _joined = Redis::connect(&config(&group.url())).await.unwrap().join(&info("me"), LONG).await.unwrap();
}
