//! Facts about the shared registry: the contract that both of its kinds keep, and what only a real Redis can do to us.

mod contract;
mod redis_cluster;
mod redis_faults;
mod redis_sentinel;
#[path = "../../../tests/support/redis.rs"]
mod servers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::contract::Stand;
use self::servers::{Cluster, Options, Server, Watched};
use super::memory::Memory;
use super::redis::{Config, Redis};
use super::registry::RegistryError;
use crate::secret::Secret;

/// A deadline that a loaded machine keeps, for tests that are not about deadlines.
const RELAXED: Duration = Duration::from_secs(5);

fn config(url: &str) -> Config {
    Config { url: Secret::from(url), prefix: Config::PREFIX.to_owned(), ca_file: None, timeout: RELAXED }
}

fn redis(url: &str) -> Arc<Redis> {
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
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let redis = Redis::new(&Config { prefix, ..config(url) }).unwrap();
    Stand { registry: Arc::new(redis), empty: Box::new(empty) }
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
    let url = group.url().replace("p@ss", "p%40ss");
    all_facts(|| {
        let twin = Arc::clone(&group);
        fresh(&url, move || twin.servers[0].flush())
    })
    .await;
}

/// What a user needs in Redis: commands, and only keys of the prefix. The manual for operators shows the same.
const ACL: &str = "~{test-* ~test-* resetchannels -@all +auth +select +ping +get +hget +hset +hdel +hscan \
                   +smembers +sadd +srem +sscan +getbit +type +evalsha +eval +time +set +setnx +incr +incrby +hexists \
                   +hsetnx +hgetall +setbit +del +pttl +pexpire";

#[tokio::test]
async fn the_contract_holds_over_tls_for_a_user_with_few_rights() {
    let users = vec![format!("gateway on >secret {ACL}")];
    let options = Options { has_tls: true, users, ..Options::default() };
    let server = Arc::new(Server::start(options));
    let number = AtomicU64::new(0);
    all_facts(|| {
        let twin = Arc::clone(&server);
        let prefix = format!("test-{}", number.fetch_add(1, Ordering::Relaxed));
        let url = format!("rediss://gateway:secret@127.0.0.1:{}", server.tls_port);
        let config = Config { prefix, ca_file: Some(server.ca_file()), ..config(&url) };
        Stand { registry: Arc::new(Redis::new(&config).unwrap()), empty: Box::new(move || twin.flush()) }
    })
    .await;
}
