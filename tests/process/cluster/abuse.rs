//! Wrong settings, strangers, and a Redis that is not what it should be: a clear line each, and nothing lost.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{Cluster, SECRET};
use super::redis::{Options, Server, free_port};
use crate::support::{Ended, Process, Routes, call, eventually, plain_api, run, soon, until};

/// `causeway run` with this registry, to its end.
async fn ends(more: &[&str]) -> Ended {
    let routes = Routes::new(&plain_api("hello"));
    let mut args = vec!["run".to_owned(), routes.path().display().to_string()];
    args.extend(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--callback-token", "token"].map(str::to_owned));
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    tokio::task::spawn_blocking(move || run(args)).await.unwrap()
}

/// The same, and the line that says why.
async fn refused(code: i32, words: &[&str], more: &[&str]) {
    let ended = ends(more).await;
    assert_eq!(ended.code, code, "{more:?}: {ended:?}");
    for word in words {
        assert!(ended.err.contains(word), "{word} is not in: {}", ended.err);
    }
    assert!(!ended.out.contains("listening"), "{}", ended.out);
    assert!(!ended.err.contains("hush") && !ended.err.contains(SECRET), "a secret is shown: {}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_fit_are_refused_by_name() {
    let redis = ["--redis", "redis://127.0.0.1:1"];
    let with = |more: &[&'static str]| [&redis, more].concat();
    refused(1, &["--cluster-secret", "CAUSEWAY_CLUSTER_SECRET"], &redis).await;
    refused(1, &["cluster-secret", "redis"], &["--cluster-secret", SECRET]).await;
    refused(1, &["cluster-secret", "16"], &with(&["--cluster-secret", "hush"])).await;
    for (setting, value) in [
        ("node-lease", "1ms"),
        ("recovery-claim", "10ms"),
        ("node-address", "nowhere"),
        ("redis-prefix", "a b"),
        ("redis-timeout", "1m"),
        ("drain-close-code", "1003"),
    ] {
        let flag = format!("--{setting}");
        refused(
            1,
            &[setting],
            &with(&["--cluster-secret", SECRET]).into_iter().chain([&*flag, value]).collect::<Vec<_>>(),
        )
        .await;
    }
    refused(1, &["redis"], &["--redis", "http://:hush@127.0.0.1", "--cluster-secret", SECRET]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_ends_the_start_with_its_reason() {
    let locked = Server::start(&Options { password: Some("hush-hush".to_owned()), ..Options::default() });
    let at = |login: &str, path: &str| format!("redis://{login}127.0.0.1:{}{path}", locked.port);
    let start = async |code: i32, words: &[&str], url: &str| {
        refused(code, words, &["--redis", url, "--cluster-secret", SECRET]).await;
    };
    start(1, &["wrong user or password"], &at(":hush-wrong@", "")).await;
    start(1, &["asks for a password"], &at("", "")).await;
    start(1, &["no database of that number"], &at(":hush-hush@", "/99")).await;
    locked.call(&["SET", "{causeway:m}:schema", "99"]);
    start(1, &["schema 99", "speaks 1"], &at(":hush-hush@", "")).await;
    locked.flush();
    locked.call(&["SET", "{causeway:m}:nodes", "somebody else's"]);
    start(1, &["{causeway:m}:nodes", "not ours"], &at(":hush-hush@", "")).await;
    // With another prefix, or in another database, it is nobody's.
    let routes = Routes::new(&plain_api("hello"));
    for (url, prefix) in [(at(":hush-hush@", ""), "mine"), (at(":hush-hush@", "/3"), "causeway")] {
        let args = ["--redis", &url, "--redis-prefix", prefix, "--cluster-secret", SECRET];
        Process::run(routes.path(), &args).await.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_its_redis_and_then_serves() {
    let mut cluster = Cluster::prepare(1, &[]).await;
    cluster.redis.kill();
    cluster.launch(0);
    eventually("it says so", || cluster.node(0).log().contains("waiting for the registry")).await;
    assert!(!cluster.node(0).output().contains("listening"), "nobody is served by a node without an incarnation");
    cluster.redis.restart();
    cluster.node_mut(0).listens().await;
    cluster.settled().await;
    let ear = cluster.connect(0).await;
    assert_eq!(cluster.push(0, &ear.id, "served").await, 200);
    drop(ear);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gives_up_when_its_redis_does_not_come() {
    let started = Instant::now();
    let url = format!("redis://:hush@127.0.0.1:{}", free_port());
    refused(3, &["cannot be reached"], &["--redis", &url, "--cluster-secret", SECRET]).await;
    assert!(started.elapsed() > Duration::from_secs(20), "{:?}: the two are often started together", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_foreign_while_nodes_run_is_named_and_survived() {
    let cluster = Cluster::start(2).await;
    let ear = cluster.connect(0).await;
    cluster.recorded(&[ear.id.clone()].into()).await;
    cluster.redis.call(&["SET", "{causeway:m}:leases", "somebody else's"]);
    for node in [0, 1] {
        until("named", async || cluster.ready(node).await.contains("{causeway:m}:leases")).await;
        assert!(cluster.node(node).log().contains("{causeway:m}:leases"));
        assert_eq!(cluster.push(node, &ear.id, "goes on").await, 200);
    }
    cluster.redis.call(&["DEL", "{causeway:m}:leases"]);
    cluster.settled().await;
    for node in [0, 1] {
        assert_eq!(cluster.ready(node).await, "ready\n");
        assert_eq!(cluster.push(node, &ear.id, "goes on").await, 200);
        assert_eq!(cluster.metric(node, "causeway_node_burials_total").await, 0);
    }
    drop(ear);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_different_secrets_say_so_on_both_sides_and_bury_nobody() {
    let mut cluster = Cluster::prepare(2, &[]).await;
    cluster.set(1, &["--cluster-secret", "quite another secret of a test"]);
    cluster.begin(0).await;
    cluster.begin(1).await;
    cluster.settled().await;
    let (here, there) = (cluster.connect(0).await, cluster.connect(1).await);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3) {
        assert_eq!(cluster.push(0, &there.id, "no way").await, 503);
        assert_eq!(cluster.push(1, &here.id, "no way").await, 503);
    }
    assert_eq!(cluster.push(0, &here.id, "at home").await, 200);
    for node in [0, 1] {
        eventually("a line that names the setting", || cluster.node(node).log().contains("--cluster-secret")).await;
        let log = cluster.node(node).log();
        assert!(!log.contains(SECRET) && !log.contains("quite another"), "{log}");
        let lines = log.lines().filter(|line| line.contains("--cluster-secret")).count();
        assert!(lines <= 4, "said {lines} times:\n{log}");
        assert_eq!(cluster.metric(node, "causeway_node_burials_total").await, 0);
    }
    drop((here, there));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_node_link_are_turned_away_and_disturb_nobody() {
    let cluster = Cluster::start(2).await;
    let ear = cluster.connect(0).await;
    let garbage: Vec<u8> = (0..100_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    let hello = [&[0x16, 3, 1, 0xff, 0xff, 1][..], &[0; 2_000]].concat();
    for bytes in [b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".as_slice(), &garbage, &hello, b"\x16\x03", b""] {
        for _ in 0..3 {
            let mut stream = TcpStream::connect(cluster.link_address(0)).await.unwrap();
            let _refused_already = stream.write_all(bytes).await;
            let _half_closed = stream.shutdown().await;
            let mut answer = Vec::new();
            let _reset = soon("its end", stream.read_to_end(&mut answer)).await;
            assert!(answer.len() < 1_000, "a stranger is told {} bytes", answer.len());
        }
    }
    eventually("a line", || cluster.node(0).log().contains("a stranger at the node link was turned away")).await;
    let said = cluster.node(0).log().matches("a stranger at the node link").count();
    assert_eq!(said, 1, "once a minute:\n{}", cluster.node(0).log());
    assert_eq!(cluster.push(1, &ear.id, "undisturbed").await, 200);
    cluster.settled().await;
    drop(ear);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_nobody_can_reach_is_said_on_both_sides() {
    let mut cluster = Cluster::prepare(2, &[]).await;
    let nowhere = format!("127.0.0.1:{}", free_port());
    cluster.set(0, &["--node-address", &nowhere]);
    cluster.begin(0).await;
    cluster.begin(1).await;
    cluster.settled().await;
    eventually("the other says so", || {
        let log = cluster.node(1).log();
        log.contains("cannot be reached from here: check its --node-address") && log.contains(&nowhere)
    })
    .await;
    eventually("it is told", || {
        let log = cluster.node(0).log();
        log.contains("another node cannot reach this one at the address it advertises") && log.contains(&nowhere)
    })
    .await;
    // The link that it made itself serves both.
    let (here, there) = (cluster.connect(0).await, cluster.connect(1).await);
    cluster.push_until(1, &here.id, 200, 410).await;
    cluster.push_until(0, &there.id, 200, 410).await;
    drop((here, there));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_shown_nowhere() {
    let locked = Server::start(&Options { password: Some("hush-hush".to_owned()), ..Options::default() });
    let routes = Routes::new(&plain_api("hello"));
    let url = format!("redis://:hush-hush@127.0.0.1:{}", locked.port);
    let args = ["--redis", &url, "--cluster-secret", SECRET, "--node-lease", "1s", "--log-level", "debug"];
    let mut process = Process::run(routes.path(), &args).await;
    let mut shown = String::new();
    for is_away in [true, false] {
        if is_away {
            locked.pause();
        } else {
            locked.resume();
        }
        until("readiness", async || {
            let ready = call(process.admin, "GET", "/ready", &[], b"").await.body;
            shown += &ready;
            ready.starts_with("degraded") == is_away
        })
        .await;
    }
    for path in ["/metrics", "/nodes", "/connections", "/ready"] {
        shown += &call(process.admin, "GET", path, &[], b"").await.body;
    }
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.exit().await, 0);
    shown += &process.log();
    shown += &process.output();
    assert!(shown.contains("DEBUG"), "the log says all it can");
    for secret in ["hush-hush", SECRET] {
        assert_eq!(shown.lines().find(|line| line.contains(secret)), None);
    }
}
