//! `causeway connections` against a running gateway.

use crate::support::{Client, Process, Routes, Said, plain_api, run};

async fn command(process: &Process, args: &[&str]) -> crate::support::Ended {
    let mut all = vec!["connections".to_owned(), "--admin".into(), process.admin.to_string()];
    all.extend(args.iter().map(|&arg| arg.to_owned()));
    tokio::task::spawn_blocking(|| run(all)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_listed_described_sent_to_and_closed() {
    let routes = Routes::new(&plain_api("help"));
    let process = Process::run(routes.path(), &["--admin-token", "secret"]).await;
    let (mut ann, mut bob) = (Client::connect(process.public).await, Client::connect(process.public).await);
    let (ann_id, bob_id) = (ann.id().await, bob.id().await);
    let token = ["--admin-token", "secret"];
    let with = |args: &[&str]| [args, &token[..]].concat().iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
    let call = async |args: &[&str]| {
        let args = with(args);
        command(&process, &args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };

    let listed = call(&["list"]).await;
    assert_eq!(listed.code, 0, "{}", listed.err);
    for id in [&ann_id, &bob_id] {
        let row =
            listed.out.lines().find(|line| line.starts_with(id.as_str())).unwrap_or_else(|| panic!("{}", listed.out));
        assert!(row.contains("test/dev") && row.contains("127.0.0.1"), "{row}");
    }
    let elsewhere = call(&["list", "--api", "other"]).await;
    assert!(elsewhere.code == 0 && !elsewhere.out.contains(&ann_id), "{}", elsewhere.out);

    let told = call(&["get", &ann_id]).await;
    assert_eq!(told.code, 0, "{}", told.err);
    let told: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(told["identity"]["sourceIp"], "127.0.0.1");

    let sent = call(&["send", &ann_id, "hello, ann"]).await;
    assert_eq!((sent.code, sent.out.as_str()), (0, ""), "{}", sent.err);
    assert_eq!(ann.next().await, Said::Text("hello, ann".into()));

    let closed = call(&["close", &ann_id]).await;
    assert_eq!(closed.code, 0, "{}", closed.err);
    assert_eq!(ann.next().await, Said::Close(1000));
    let again = call(&["close", &ann_id]).await;
    assert_eq!(again.code, 1, "{}", again.out);
    assert!(again.err.contains("gone"), "{}", again.err);
    assert_eq!(bob.ask("still there?").await, "help");
    drop(bob);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_ask_is_told_so_and_nobody_there_is_3() {
    let routes = Routes::new(&plain_api("help"));
    let process = Process::run(routes.path(), &["--admin-token", "secret"]).await;
    let refused = command(&process, &["list"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("token"), "{}", refused.err);
    let nobody = tokio::task::spawn_blocking(|| run(["connections", "--admin", "127.0.0.1:1", "list"])).await.unwrap();
    assert_eq!(nobody.code, 3, "{nobody:?}");
    assert!(nobody.err.contains("127.0.0.1:1"), "{}", nobody.err);
    process.stop().await;
}
