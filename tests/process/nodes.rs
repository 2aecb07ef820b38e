//! `causeway nodes`, and `causeway connections` where there are several of them.

use rustix::process::Signal;

use crate::support::redis::Server;
use crate::support::{Client, Ended, Process, Routes, Said, eventually, plain_api, push, run, soon};

const TOKEN: &str = "admin-secret";

/// A node of the cluster that keeps its registry in `redis`.
async fn node(routes: &Routes, redis: &Server, name: &str) -> Process {
    let url = redis.url();
    let settings =
        ["--redis", &url, "--cluster-secret", "sixteen characters", "--node-name", name, "--admin-token", TOKEN];
    Process::run(routes.path(), &settings).await
}

/// Runs an operator's command against a node.
async fn command(node: &Process, words: &[&str]) -> Ended {
    let admin = node.admin.to_string();
    let words: Vec<String> =
        [words, &["--admin", &admin, "--admin-token", TOKEN]].concat().iter().map(|&word| word.to_owned()).collect();
    tokio::task::spawn_blocking(|| run(words)).await.unwrap()
}

/// Repeats a command until what it prints is right.
async fn until(node: &Process, words: &[&str], mut holds: impl FnMut(&Ended) -> bool) -> Ended {
    soon(&words.join(" "), async {
        loop {
            let ended = command(node, words).await;
            if holds(&ended) {
                return ended;
            }
        }
    })
    .await
}

fn row<'a>(ended: &'a Ended, begins: &str) -> &'a str {
    ended.out.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("no {begins}: {ended:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_lists_all_of_them_and_all_connections() {
    let redis = Server::plain();
    let routes = Routes::new(&plain_api("help"));
    let (one, two) = (node(&routes, &redis, "one").await, node(&routes, &redis, "two").await);
    for (here, there, asked) in [("one *", "two ", &one), ("two *", "one ", &two)] {
        let listed = until(asked, &["nodes", "list"], |ended| {
            ended.out.contains(there) && ended.out.contains("registry: settl")
        })
        .await;
        assert_eq!((listed.code, listed.err.as_str()), (0, ""));
        assert!(listed.out.starts_with("NODE "), "{}", listed.out);
        for name in [here, there] {
            let line = row(&listed, name);
            assert!(
                line.contains("127.0.0.1:") && line.contains(env!("CARGO_PKG_VERSION")) && line.ends_with(" up"),
                "{line}"
            );
        }
    }
    let (mut ann, mut bob) = (Client::connect(one.public).await, Client::connect(two.public).await);
    let ids = [ann.id().await, bob.id().await];
    let listed = until(&two, &["connections", "list"], |ended| ids.iter().all(|id| ended.out.contains(id))).await;
    assert_eq!((listed.code, listed.err.as_str()), (0, ""));
    for (filter, expected) in
        [(["--api", "test"], 2), (["--stage", "dev"], 2), (["--api", "other"], 0), (["--stage", "prod"], 0)]
    {
        let listed = command(&two, &[&["connections", "list"], &filter[..]].concat()).await;
        let found = ids.iter().filter(|id| listed.out.contains(id.as_str())).count();
        assert_eq!((listed.code, found), (0, expected), "{filter:?}: {listed:?}");
    }
    let odd = command(&two, &["connections", "list", "--stage", "a/b"]).await;
    assert!(odd.code == 1 && odd.err.contains("--stage") && odd.err.contains("a/b"), "{odd:?}");

    // Only the owner can close; the other one asks it.
    let closed = command(&two, &["connections", "close", &ids[0]]).await;
    assert_eq!(closed.code, 0, "{}", closed.err);
    assert_eq!(ann.next().await, Said::Close(1000));
    one.stop().await;
    let listed = until(&two, &["nodes", "list"], |ended| !ended.out.contains("one ")).await;
    assert_eq!(listed.code, 0, "{listed:?}");
    drop(bob);
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_is_missing_from_the_list_and_named() {
    let redis = Server::plain();
    let routes = Routes::new(&plain_api("help"));
    let (one, two) = (node(&routes, &redis, "one").await, node(&routes, &redis, "two").await);
    let (mut ann, mut bob) = (Client::connect(one.public).await, Client::connect(two.public).await);
    let (ann_id, bob_id) = (ann.id().await, bob.id().await);
    until(&one, &["connections", "list"], |ended| ended.out.contains(&bob_id)).await;
    let nodes = command(&one, &["nodes", "list"]).await;
    let address = row(&nodes, "two ").split_whitespace().nth(1).unwrap().to_owned();

    two.signal(Signal::STOP);
    let listed = until(&one, &["connections", "list"], |ended| !ended.err.is_empty()).await;
    two.signal(Signal::CONT);
    assert_eq!(listed.code, 0, "{listed:?}");
    assert!(listed.out.contains(&ann_id) && !listed.out.contains(&bob_id), "{}", listed.out);
    assert_eq!(
        listed.err.trim_end(),
        format!("the node at {address} did not answer: connections of its are missing here")
    );
    drop((ann, bob));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gives_up_the_share_it_is_told_to() {
    let routes = Routes::new(&plain_api("help"));
    // Alone: sessions can be given up without a cluster, too.
    let process = Process::run(routes.path(), &["--admin-token", TOKEN]).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(process.public).await;
        client.id().await;
        clients.push(client);
    }
    for (words, code, why) in [
        (["--percent", "0", "--rate", "5"], 1, "a percent above 0"),
        (["--percent", "101", "--rate", "5"], 1, "a percent above 0"),
        (["--percent", "50", "--rate", "0"], 2, "--rate"),
    ] {
        let refused = command(&process, &[&["nodes", "shed"], &words[..]].concat()).await;
        assert!(refused.code == code && refused.err.contains(why), "{words:?}: {refused:?}");
    }
    let shed = command(&process, &["nodes", "shed", "--percent", "50", "--rate", "100"]).await;
    assert_eq!((shed.code, shed.out.trim_end()), (0, "giving up 2 sessions, 100 a second"), "{}", shed.err);
    let listed = until(&process, &["connections", "list"], |ended| ended.out.lines().count() == 1 + 2).await;
    let (mut told, mut stayed) = (0, 0);
    for client in &mut clients {
        match client.try_ask("still there?").await {
            Said::Text(_) => stayed += 1,
            Said::Close(1012) => told += 1,
            other @ (Said::Close(_) | Said::Gone) => panic!("{other:?}"),
        }
    }
    assert_eq!((told, stayed), (2, 2), "{listed:?}");
    drop(clients);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_nobody_remembers_is_buried_by_hand() {
    let redis = Server::plain();
    let routes = Routes::new(&plain_api("help"));
    let mut first = node(&routes, &redis, "first").await;
    let mut ann = Client::connect(first.public).await;
    let lost = ann.id().await;
    first.signal(Signal::KILL);
    eventually("the end", || !first.is_running()).await;
    redis.flush();

    let second = node(&routes, &redis, "second").await;
    let mut bob = Client::connect(second.public).await;
    let alive = bob.id().await;
    // Nothing is known of the one that was here before, and that proves nothing.
    assert_eq!(push(second.public, &lost, "hello?").await.status, 503);
    let own = command(&second, &["nodes", "bury", &alive]).await;
    assert!(own.code == 1 && own.err.contains("is listed"), "{own:?}");
    let odd = command(&second, &["nodes", "bury", "node-1"]).await;
    assert!(odd.code == 1 && odd.err.contains("node-1"), "{odd:?}");
    assert_eq!(push(second.public, &lost, "hello?").await.status, 503);

    let buried = command(&second, &["nodes", "bury", &lost]).await;
    assert_eq!((buried.code, buried.err.as_str()), (0, ""));
    assert_eq!(push(second.public, &lost, "hello?").await.status, 410);
    assert_eq!(push(second.public, &alive, "hello").await.status, 200);
    assert_eq!(bob.next().await, Said::Text("hello".into()));
    drop(bob);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_alone_says_so_and_help_says_what_burying_is_for() {
    let routes = Routes::new(&plain_api("help"));
    let process = Process::run(routes.path(), &["--admin-token", TOKEN]).await;
    for words in [&["nodes", "list"][..], &["nodes", "bury", "AORPAAAEydGH9lw="]] {
        let alone = command(&process, words).await;
        assert!(
            alone.code == 1 && alone.err.contains("alone") && alone.err.contains("--redis"),
            "{words:?}: {alone:?}"
        );
    }
    let help = tokio::task::spawn_blocking(|| run(["nodes", "bury", "--help"])).await.unwrap();
    let text = help.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("registry was emptied") && text.contains("answered 503") && text.contains("410, for ever"),
        "{text}"
    );
    let stranger = tokio::task::spawn_blocking({
        let admin = process.admin.to_string();
        move || run(["nodes", "list", "--admin", &admin])
    });
    let refused = stranger.await.unwrap();
    assert!(refused.code == 1 && refused.err.contains("token"), "{refused:?}");
    process.stop().await;
}
