//! What one Redis can do to us, and what it is called.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::contract::{self, LONG, connection, info};
use super::servers::{Authority, Options, Server};
use super::{Config, Redis, RegistryError, config, recovers, redis};
use crate::cluster::GroupName;
use crate::cluster::redis::ConnectError;
use crate::cluster::registry::{BUCKETS, Registry, Write};
use crate::ids::{ApiId, Incarnation};
use crate::tasks::Tasks;

/// The deadline that is measured.
const DEADLINE: Duration = Duration::from_millis(200);
/// What a loaded machine may add: scheduling, not waiting.
const SLACK: Duration = Duration::from_millis(300);

fn quick(url: &str) -> Redis {
    Redis::new(&Config { timeout: DEADLINE, ..config(url) }).unwrap()
}

/// Every kind of call; each has to end within the deadline.
async fn all_calls(redis: &Redis) -> BTreeMap<&'static str, Result<(), RegistryError>> {
    let (me, node) = (Incarnation::new(1), info("me"));
    let context = connection(me, 1);
    let group = GroupName::new(&ApiId::parse("chat").unwrap(), "room").unwrap();
    let batch = [Write::Put(context.clone()), Write::Enter(group.clone(), me)];
    let mut results = BTreeMap::new();
    macro_rules! call {
        ($name:literal, $call:expr) => {
            let began = Instant::now();
            results.insert($name, $call.await.map(drop));
            assert!(began.elapsed() < DEADLINE + SLACK, "{} took {:?}", $name, began.elapsed());
        };
    }
    call!("join", redis.join(&node, LONG));
    call!("renew", redis.renew(me, &node, LONG));
    call!("bury", redis.bury(me, 1, 1));
    call!("fate", redis.fate(me));
    call!("restore", redis.restore(&[], &[]));
    call!("write", redis.write(&batch));
    call!("records", redis.records(me, 1, None));
    call!("claim", redis.claim(context.id, 1, LONG));
    call!("finish", redis.finish(context.id, 2));
    call!("reopen", redis.reopen(me));
    call!("close_grave", redis.close_grave(me));
    call!("group_nodes", redis.group_nodes(&group));
    call!("groups_of", redis.groups_of(me, None));
    call!("count", redis.count("c", 1, LONG));
    call!("check", redis.check());
    call!("leave", redis.leave(Incarnation::new(2), true));
    results
}

#[tokio::test]
async fn a_stuck_redis_costs_every_call_its_deadline_and_no_more() {
    let server = Server::plain();
    let redis = quick(&server.url());
    assert!(all_calls(&redis).await.values().all(Result::is_ok));
    server.pause();
    for (name, result) in all_calls(&redis).await {
        assert_eq!(result, Err(RegistryError::TimedOut(DEADLINE)), "{name}");
    }
    server.resume();
    let resumed = Instant::now();
    let _alive = recovers("a resumed Redis", || redis.renew(Incarnation::new(1), &contract::NODE, LONG)).await;
    assert!(resumed.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", resumed.elapsed());
    assert!(all_calls(&redis).await.values().all(Result::is_ok));
}

#[tokio::test]
async fn many_calls_to_a_stuck_redis_all_end_at_the_deadline() {
    let server = Server::plain();
    let redis = quick(&server.url());
    redis.check().await.unwrap();
    server.pause();
    let began = Instant::now();
    let calls = (0..2_000).map(|_| redis.fate(Incarnation::new(1)));
    let results = futures_util::future::join_all(calls).await;
    assert!(began.elapsed() < DEADLINE + SLACK, "{:?}", began.elapsed());
    assert!(results.iter().all(|result| *result == Err(RegistryError::TimedOut(DEADLINE))));
    server.resume();
    let _fate = recovers("a resumed Redis", || redis.fate(Incarnation::new(1))).await;
}

/// A way to a server whose connections so far can be made to carry nothing any more, without being closed: what a
/// firewall that forgot them does, or a host that lost its power. New ones get through.
struct Way {
    port: u16,
    forgotten: Arc<Mutex<CancellationToken>>,
    tasks: Tasks,
}

impl Way {
    async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, target, tasks) = (listener.local_addr().unwrap().port(), server.port, Tasks::new());
        let way = Self { port, forgotten: Arc::default(), tasks: tasks.clone() };
        let forgotten = Arc::clone(&way.forgotten);
        let each = tasks.clone();
        tasks.spawn("way", async move {
            while let Some(Ok((mut near, _))) = each.token().run_until_cancelled(listener.accept()).await {
                let (is_forgotten, end) = (forgotten.lock().clone(), each.token().clone());
                each.spawn("connection", async move {
                    let mut far = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                    let carry = tokio::io::copy_bidirectional(&mut near, &mut far);
                    if is_forgotten.run_until_cancelled(carry).await.is_none() {
                        end.cancelled().await;
                    }
                });
            }
        });
        way
    }

    fn forget(&self) {
        std::mem::take(&mut *self.forgotten.lock()).cancel();
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

#[tokio::test]
async fn a_connection_that_went_silent_is_replaced() {
    let server = Server::plain();
    let way = Way::to(&server).await;
    let redis = quick(&format!("redis://127.0.0.1:{}", way.port));
    redis.check().await.unwrap();
    for _again in 0..3 {
        way.forget();
        assert_eq!(redis.check().await, Err(RegistryError::TimedOut(DEADLINE)), "nothing says that it is dead");
        redis.check().await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_redis_is_unreachable_at_once_and_used_again_when_it_is_back() {
    let mut server = Server::start(&Options { is_durable: true, ..Options::default() });
    let redis = quick(&server.url());
    let me = redis.join(&info("me"), LONG).await.unwrap();
    let before = contract::beat(&redis, me, "me").await;
    server.kill();
    for (name, result) in all_calls(&redis).await {
        assert!(matches!(result, Err(RegistryError::Unreachable(_))), "{name}: {result:?}");
    }
    server.restart();
    let restarted = Instant::now();
    let _fate = recovers("a restarted Redis", || redis.fate(me)).await;
    assert!(restarted.elapsed() < Duration::from_secs(1), "{:?}", restarted.elapsed());
    // Scripts went with the process; data did not.
    let after = contract::beat(&redis, me, "me").await;
    assert_eq!((after.dataset, after.reentered), (before.dataset, false));
    assert!(after.beat > before.beat);
    server.terminate();
    server.restart();
    let _fate = recovers("an orderly restart", || redis.fate(me)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_idle_when_it_restarted_costs_no_call() {
    let mut server = Server::plain();
    let redis = redis(&server.url());
    redis.check().await.unwrap();
    server.terminate();
    server.restart();
    redis.check().await.unwrap();
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_another_dataset() {
    let mut server = Server::plain();
    let redis = redis(&server.url());
    let me = redis.join(&info("me"), LONG).await.unwrap();
    let before = contract::beat(&*redis, me, "me").await;
    server.kill();
    server.restart();
    let after = recovers("a restarted Redis", || redis.renew(me, &contract::NODE, LONG)).await;
    let crate::cluster::registry::Renewal::Alive(after) = after else { panic!("buried") };
    assert!(after.reentered && after.dataset != before.dataset);
}

#[tokio::test]
async fn flushed_scripts_are_sent_again() {
    let server = Server::plain();
    let redis = redis(&server.url());
    let me = redis.join(&info("me"), LONG).await.unwrap();
    server.call(&["SCRIPT", "FLUSH"]);
    let _beat = contract::beat(&*redis, me, "me").await;
    assert_eq!(redis.count("c", 2, LONG).await, Ok(2));
}

#[tokio::test]
async fn a_full_redis_takes_no_writes_and_says_so() {
    let server = Server::plain();
    let redis = redis(&server.url());
    let me = redis.join(&info("me"), LONG).await.unwrap();
    redis.write(&[Write::Put(connection(me, 1))]).await.unwrap();
    server.call(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = Err(RegistryError::ReadOnly("it has no memory left (maxmemory)".to_owned()));
    assert_eq!(redis.write(&[Write::Put(connection(me, 2))]).await, full);
    assert_eq!(redis.renew(me, &info("me"), LONG).await.map(drop), full);
    assert_eq!(redis.count("c", 1, LONG).await.map(drop), full);
    // What frees memory is still done.
    redis.write(&[Write::Remove(connection(me, 1).id)]).await.unwrap();
    server.call(&["CONFIG", "SET", "maxmemory", "0"]);
    redis.write(&[Write::Put(connection(me, 2))]).await.unwrap();
}

#[tokio::test]
async fn a_replica_takes_no_writes_and_says_so() {
    let master = Server::plain();
    let replica = Server::start(&Options { replica_of: Some(master.port), ..Options::default() });
    super::servers::until("the replica follows", || replica.info("replication", "master_link_status") == "up");
    let redis = redis(&replica.url());
    redis.check().await.unwrap();
    let said = RegistryError::ReadOnly("it is a replica that only reads; the master is elsewhere".to_owned());
    assert_eq!(redis.join(&info("me"), LONG).await, Err(said.clone()));
    assert_eq!(redis.write(&[Write::Put(connection(Incarnation::new(1), 2))]).await, Err(said));
    replica.call(&["REPLICAOF", "NO", "ONE"]);
    let _joined = redis.join(&info("me"), LONG).await.unwrap();
}

async fn refused(config: &Config) -> String {
    match Redis::connect(config).await {
        Err(ConnectError::Registry(RegistryError::Refused(why))) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refused_login_is_explained_without_the_password() {
    let users = vec!["few on >few ~{causeway* +get +auth".to_owned(), "other on >other ~other:* +@all".to_owned()];
    let server = Server::start(&Options { password: Some("secret".to_owned()), users, ..Options::default() });
    let at = |login: &str, path: &str| config(&format!("redis://{login}127.0.0.1:{}{path}", server.port));
    Redis::connect(&at(":secret@", "/3")).await.unwrap();
    let place = format!("127.0.0.1:{}", server.port);
    assert_eq!(refused(&at(":hunter2@", "")).await, format!("{place}: wrong user or password"));
    assert_eq!(refused(&at("nobody:secret@", "")).await, format!("{place}: wrong user or password"));
    assert_eq!(refused(&at("", "")).await, "it asks for a password, and none was given");
    assert_eq!(refused(&at(":secret@", "/99")).await, format!("{place}: it has no database of that number"));
    let redis = Redis::connect(&at("few:few@", "")).await.unwrap();
    let said = redis.join(&info("me"), LONG).await.unwrap_err().to_string();
    assert!(
        said.starts_with("the registry refuses this node: its user may not do this: ") && said.contains("eval"),
        "{said}"
    );
    let said = refused(&at("other:other@", "")).await;
    assert!(said.starts_with("its user may not do this: ") && said.contains("key"), "{said}");
    let open = Server::plain();
    let url = format!("redis://:hunter2@127.0.0.1:{}", open.port);
    let said = refused(&config(&url)).await;
    assert!(said.ends_with("a password was given, and it asks for none: take it out of the URL"), "{said}");
    assert!(!said.contains("hunter2"));
}

#[tokio::test]
async fn a_redis_with_as_many_clients_as_it_takes_is_tried_again() {
    let server = Server::plain();
    let first = redis(&server.url());
    first.check().await.unwrap();
    server.call(&["CONFIG", "SET", "maxclients", "1"]);
    let second = redis(&server.url());
    let said = recovers("the test's own connection to close", || async {
        second.check().await.map_or_else(Ok, |()| Err(RegistryError::Unreachable("there was room".to_owned())))
    });
    let said = said.await;
    assert!(matches!(said, RegistryError::Unreachable(_)), "{said}");
    drop(first);
    recovers("room", || second.check()).await;
}

#[tokio::test]
async fn tls_is_checked_against_the_given_authority() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = Server::start(&Options { tls: Some(authority.clone()), ..Options::default() });
    let url = format!("rediss://localhost:{}", server.tls_port);
    let trusting = |ca_file| Config { ca_file: Some(ca_file), ..config(&url) };
    Redis::connect(&trusting(authority.ca_file())).await.unwrap();
    let said = Redis::connect(&trusting(stranger.ca_file())).await.unwrap_err().to_string();
    assert!(said.contains("certificate"), "{said}");
    let said = Redis::new(&trusting("/nonexistent/ca.pem".into())).unwrap_err().to_string();
    assert!(said.starts_with("TLS to Redis: /nonexistent/ca.pem: "), "{said}");
    // Plain words to a port that speaks TLS, and the other way round.
    let plain = quick(&format!("redis://localhost:{}", server.tls_port));
    assert!(plain.check().await.is_err_and(|error| error.is_passing()));
    let sealed =
        Config { ca_file: Some(authority.ca_file()), ..config(&format!("rediss://localhost:{}", server.port)) };
    assert!(Redis::connect(&sealed).await.is_err());
}

/// What a key of ours holds that is not ours, and which calls meet it.
#[tokio::test]
async fn a_foreign_value_is_named_with_its_key() {
    let server = Server::plain();
    let redis = redis(&server.url());
    let me = redis.join(&info("me"), LONG).await.unwrap();
    let foreign = |key: &str, found: &str| RegistryError::Foreign { key: key.to_owned(), found: found.to_owned() };

    server.call(&["SADD", "causeway:c:calls", "x"]);
    let said = redis.count("calls", 1, LONG).await.unwrap_err();
    assert_eq!(said, foreign("causeway:c:calls", "a set instead of a string"));
    server.call(&["SET", "causeway:c:word", "many"]);
    assert_eq!(redis.count("word", 1, LONG).await, Err(foreign("causeway:c:word", "\"many\"")));

    let context = connection(me, 1);
    let record = format!("{{causeway:r:{}:1}}", me.get());
    server.call(&["HSET", &record, &context.id.to_string(), "{}"]);
    assert_eq!(redis.claim(context.id, 1, LONG).await.unwrap_err(), foreign(&record, "\"{}\""));
    server.call(&["HSET", &record, "somebody", "{}"]);
    assert_eq!(redis.records(me, 1, None).await.unwrap_err(), foreign(&record, "\"somebody\""));
    server.call(&["DEL", &record]);
    server.call(&["SET", &record, "text"]);
    let said = redis.write(&[Write::Put(context.clone())]).await.unwrap_err();
    assert_eq!(said, foreign(&record, "a string instead of a hash"));
    assert_eq!(redis.records(me, 1, None).await.unwrap_err(), said);

    for (key, broken) in [("beat", "soon"), ("dataset", "mine")] {
        let key = format!("{{causeway:m}}:{key}");
        let before = server.call(&["GET", &key]).text();
        server.call(&["SET", &key, broken]);
        let said = redis.renew(me, &info("me"), LONG).await.unwrap_err();
        assert_eq!(said, foreign(&key, &format!("{broken:?}")));
        server.call(&["SET", &key, &before]);
    }
    for (key, kind) in [("nodes", "node"), ("leases", "lease"), ("graves", "grave")] {
        let key = format!("{{causeway:m}}:{key}");
        server.call(&["HSET", &key, "77", kind]);
        if kind == "lease" {
            // Of a node that is not listed it does no harm, but it is not ours either.
            server.call(&["HDEL", "{causeway:m}:nodes", "77"]);
        }
        assert_eq!(redis.renew(me, &info("me"), LONG).await.unwrap_err(), foreign(&key, &format!("{kind:?}")));
        server.call(&["HDEL", &key, "77"]);
    }
    server.call(&["DEL", "{causeway:m}:graves"]);
    server.call(&["RPUSH", "{causeway:m}:graves", "x"]);
    let said = redis.renew(me, &info("me"), LONG).await.unwrap_err();
    assert_eq!(said, foreign("{causeway:m}:graves", "a list instead of a hash"));
}

#[tokio::test]
async fn another_schema_is_refused() {
    let server = Server::plain();
    let redis = redis(&server.url());
    redis.check().await.unwrap();
    let me = redis.join(&info("me"), LONG).await.unwrap();
    redis.check().await.unwrap();
    server.call(&["SET", "{causeway:m}:schema", "7"]);
    let said = RegistryError::Schema { found: "7".to_owned(), ours: 1 };
    assert_eq!(redis.check().await, Err(said.clone()));
    assert_eq!(redis.join(&info("me"), LONG).await, Err(said.clone()));
    assert_eq!(redis.renew(me, &info("me"), LONG).await, Err(said));
}

#[tokio::test]
async fn prefixes_keep_clusters_apart() {
    let server = Server::plain();
    let (blue, green) =
        (redis(&server.url()), Redis::new(&Config { prefix: "green".to_owned(), ..config(&server.url()) }));
    let green = green.unwrap();
    let _joined = blue.join(&info("blue"), LONG).await.unwrap();
    let me = green.join(&info("green"), LONG).await.unwrap();
    assert_eq!(contract::beat(&green, me, "green").await.nodes.len(), 1);
    let keys = server.call(&["KEYS", "*"]).list();
    assert!(
        keys.iter()
            .all(|key| ["{causeway:", "causeway:", "{green:", "green:"].iter().any(|p| key.text().starts_with(p)))
    );
}

#[tokio::test]
async fn what_nobody_asks_for_is_no_command() {
    let server = Server::plain();
    let redis = redis(&server.url());
    let me = redis.join(&info("me"), LONG).await.unwrap();
    let batch: Vec<_> = (0..100).map(|n| Write::Put(connection(me, n))).collect();
    redis.write(&batch).await.unwrap();
    let before = server.command_calls();
    assert_eq!(before.get("hset").copied(), Some(102), "100 records, a node and its lease");
    let _beat = contract::beat(&*redis, me, "me").await;
    let after = server.command_calls();
    let sent = |calls: &BTreeMap<String, u64>, name| calls.get(name).copied().unwrap_or_default();
    assert_eq!(sent(&after, "evalsha") - sent(&before, "evalsha"), 1, "a renewal is one call, however many records");
}

/// Bytes of Redis's memory a record of a browser's connection takes, with twenty of them in each bucket: what a node with
/// 20,000 connections has, whatever the number of buckets in a test.
async fn price(server: &Server) -> u64 {
    const RECORDS: u32 = 20 * BUCKETS as u32;
    let redis = redis(&server.url());
    let used = || server.info("memory", "used_memory").parse::<u64>().unwrap();
    let batch =
        |from: u32, to: u32| -> Vec<_> { (from..to).map(|n| Write::Put(connection(Incarnation::new(5), n))).collect() };
    redis.write(&batch(0, 1)).await.unwrap();
    let before = used();
    for from in (1..RECORDS).step_by(1_000) {
        redis.write(&batch(from, (from + 1_000).min(RECORDS))).await.unwrap();
    }
    (used() - before) / u64::from(RECORDS - 1)
}

#[tokio::test]
async fn a_record_in_redis_has_its_price() {
    let usual = price(&Server::plain()).await;
    let lines = vec!["hash-max-listpack-value 1024".to_owned(), "hash-max-listpack-entries 256".to_owned()];
    let packed = price(&Server::start(&Options { lines, ..Options::default() })).await;
    println!("{usual} bytes a record, {packed} when Redis is told to pack them");
    assert!((200..400).contains(&usual), "{usual} bytes a record");
    assert!((200..320).contains(&packed), "{packed} bytes a packed record");
}
