//! Facts about the shared registry: the contract that both of its kinds keep, and what only a real Redis can do to us.

mod contract;
mod redis_cluster;
mod redis_faults;
mod redis_sentinel;
#[path = "../../../tests/support/redis.rs"]
pub(super) mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::contract::Stand;
use self::servers::{Authority, Cluster, Options, Server, Watched};
use super::memory::Memory;
use super::redis::{Config, Redis};
use super::registry::{Registry as _, RegistryError, Write};
use crate::secret::Secret;

/// A deadline that a loaded machine keeps, for tests that are not about deadlines.
const RELAXED: Duration = Duration::from_secs(5);

fn config(url: &str) -> Config {
    Config { url: Secret::from(url), prefix: Config::PREFIX.to_owned(), ca_file: None, timeout: RELAXED }
}

pub(super) fn redis(url: &str) -> Arc<Redis> {
    Arc::new(Redis::new(&config(url)).unwrap())
}

/// Waits until something succeeds, and says what it was told last when it does not.
async fn recovers<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let started = tokio::time::Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(started.elapsed() < servers::PATIENCE, "{what}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A registry of its own in a Redis that others use too.
fn fresh(url: &str, empty: impl Fn() + Send + Sync + 'static) -> Stand {
    stand(config(url), empty)
}

/// The same over TLS.
fn trusting(authority: &Authority, url: &str, empty: impl Fn() + Send + Sync + 'static) -> Stand {
    stand(Config { ca_file: Some(authority.ca_file()), ..config(url) }, empty)
}

fn stand(config: Config, empty: impl Fn() + Send + Sync + 'static) -> Stand {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    Stand { registry: Arc::new(Redis::new(&Config { prefix, ..config }).unwrap()), empty: Box::new(empty) }
}

macro_rules! facts {
    ($($name:ident)*) => {
        mod in_memory {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                let memory = super::Memory::new(7);
                let twin = memory.clone();
                let stand = super::Stand { registry: std::sync::Arc::new(memory), empty: Box::new(move || twin.empty()) };
                super::contract::$name(&stand).await;
            })*
        }

        mod in_redis {
            $(#[tokio::test]
            async fn $name() {
                let server = std::sync::Arc::new(super::Server::plain());
                let twin = std::sync::Arc::clone(&server);
                super::contract::$name(&super::fresh(&server.url(), move || twin.flush())).await;
            })*
        }

        /// All facts, one after the other, each with a registry of its own.
        async fn all_facts(stand: impl Fn() -> Stand) {
            $(contract::$name(&stand()).await;)*
        }
    };
}

facts! {
    a_node_that_joins_sees_itself
    nodes_see_each_other_and_each_other_s_renewals
    an_emptied_registry_is_a_new_dataset_that_nodes_enter_anew
    an_incarnation_is_not_given_twice
    only_an_expired_lease_that_was_seen_is_buried
    a_buried_node_learns_it_and_leaves_a_grave
    a_node_that_left_is_proven_gone
    graves_are_closed_and_opened
    what_was_lost_is_put_back
    records_are_listed_by_bucket_and_removed
    a_large_bucket_comes_in_pages
    a_record_comes_back_as_it_was
    a_claim_is_one_caller_s_until_it_lapses
    a_finished_record_is_gone
    groups_know_the_nodes_and_nodes_their_groups
    many_groups_come_in_pages
    of_an_entry_and_a_leave_the_last_counts
    a_counter_adds_and_ends
    a_counter_stops_at_its_end
}

#[tokio::test]
async fn the_contract_holds_in_a_cluster() {
    let cluster = Arc::new(Cluster::start(3, &Options::default()));
    all_facts(|| {
        let twin = Arc::clone(&cluster);
        fresh(&cluster.url(), move || twin.flush())
    })
    .await;
}

#[tokio::test]
async fn the_contract_holds_behind_sentinel_with_a_password() {
    let options = Options { password: Some("p@ss".to_owned()), ..Options::default() };
    let group = Arc::new(Watched::start(1, 1, &options));
    all_facts(|| {
        let twin = Arc::clone(&group);
        fresh(&group.url(), move || twin.servers[0].flush())
    })
    .await;
}

/// All that a user of Redis needs: these commands, on keys of the prefix.
const ACL: &str = "~{test-* ~test-* resetchannels -@all +auth +select +get +hget +hset +hdel +hscan +smembers +sadd \
                   +srem +sscan +getbit +type +evalsha +eval +time +set +setnx +incr +incrby +hexists +hsetnx \
                   +hgetall +setbit +del +pttl +pexpire";

#[tokio::test]
async fn the_contract_holds_over_tls_for_a_user_with_few_rights() {
    let authority = Authority::new();
    let users = vec![format!("gateway on >secret {ACL}")];
    let server = Arc::new(Server::start(&Options { tls: Some(authority.clone()), users, ..Options::default() }));
    let url = format!("rediss://gateway:secret@127.0.0.1:{}", server.tls_port);
    all_facts(|| {
        let twin = Arc::clone(&server);
        trusting(&authority, &url, move || twin.flush())
    })
    .await;
}

#[tokio::test]
async fn the_contract_holds_over_tls_in_a_cluster_and_behind_sentinel() {
    let authority = Authority::new();
    let options = Options { tls: Some(authority.clone()), password: Some("p@ss".to_owned()), ..Options::default() };
    let cluster = Arc::new(Cluster::start(2, &options));
    all_facts(|| {
        let twin = Arc::clone(&cluster);
        trusting(&authority, &cluster.url(), move || twin.flush())
    })
    .await;
    let group = Arc::new(Watched::start(1, 1, &options));
    all_facts(|| {
        let twin = Arc::clone(&group);
        trusting(&authority, &group.url(), move || twin.servers[0].flush())
    })
    .await;
}

/// What a run of one seed does, written down.
async fn history(seed: u64) -> String {
    let memory = Memory::new(seed);
    let mut lines = Vec::new();
    for n in 0..5 {
        let node = memory.join(&contract::info("node"), contract::LONG).await.unwrap();
        lines.push(format!("{node:?} {:?}", memory.renew(node, &contract::info("node"), contract::LONG).await));
        if n % 2 == 0 {
            memory.leave(node, true).await.unwrap();
        }
    }
    lines.join("\n")
}

#[tokio::test(start_paused = true)]
async fn one_seed_makes_one_history() {
    assert_eq!(history(1).await, history(1).await);
    assert_ne!(history(1).await, history(2).await);
}

#[tokio::test(start_paused = true)]
async fn rolled_back_memory_has_lost_what_came_after() {
    let memory = Memory::new(3);
    let me = memory.join(&contract::info("me"), contract::LONG).await.unwrap();
    let before = contract::beat(&memory, me, "me").await;
    let kept = memory.snapshot();
    let record = contract::connection(me, 1);
    memory.write(&[Write::Put(record.clone())]).await.unwrap();
    let late = memory.join(&contract::info("late"), contract::LONG).await.unwrap();
    assert_eq!(memory.connections(), [record.id]);
    memory.roll_back(&kept);
    assert_eq!(memory.connections(), []);
    let after = contract::beat(&memory, me, "me").await;
    assert_eq!((after.dataset, after.nodes.len()), (before.dataset, 1));
    assert_eq!(after.beat, before.beat + 1, "what was counted in between is forgotten");
    // The number it had is not given once more, though nothing there knows it.
    assert_ne!(memory.join(&contract::info("next"), contract::LONG).await, Ok(late));
}
