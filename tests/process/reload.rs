//! New definitions into a running process, without dropping a session.

use rustix::process::Signal;

use crate::support::{Client, Process, Routes, call, eventually, plain_api};

/// Asks until the answer is another one: a reload takes effect with the next message, once it has happened.
async fn ask_until(client: &mut Client, answer: &str) {
    let started = std::time::Instant::now();
    loop {
        let told = client.ask("anything").await;
        if told == answer {
            return;
        }
        assert!(started.elapsed() < crate::support::PATIENCE, "still {told}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

// checklist: 83
#[tokio::test(flavor = "multi_thread")]
async fn dev_takes_a_changed_file_by_itself_and_drops_nobody() {
    let routes = Routes::new(&plain_api("one"));
    let process = Process::dev(routes.path(), &[]).await;
    let mut client = Client::connect(process.public).await;
    let id = client.id().await;
    assert_eq!(client.ask("anything").await, "one");

    routes.write("test.yaml", &plain_api("two"));
    ask_until(&mut client, "two").await;
    assert_eq!(client.id().await, id);

    // A mistake changes nothing and is told with its place.
    routes.write("test.yaml", "apiId: test\nprotocolType: NONSENSE\n");
    eventually("the complaint", || process.log().contains("test.yaml:2:")).await;
    assert_eq!(client.ask("anything").await, "two");
    assert_eq!(Client::connect(process.public).await.ask("anything").await, "two");

    // Another API beside it.
    routes.write("test.yaml", &plain_api("three"));
    routes.write("other.yaml", &plain_api("four").replace("apiId: test", "apiId: other"));
    ask_until(&mut client, "three").await;
    assert_eq!(client.id().await, id);
    drop(client);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_takes_new_definitions_on_sighup_and_not_before() {
    let routes = Routes::new(&plain_api("one"));
    let process = Process::run(routes.path(), &[]).await;
    let mut client = Client::connect(process.public).await;
    let id = client.id().await;

    routes.write("test.yaml", "apiId: [");
    process.signal(Signal::HUP);
    eventually("the complaint", || process.log().contains("a definition is wrong")).await;
    assert_eq!(client.ask("anything").await, "one");

    routes.write("test.yaml", &plain_api("two"));
    assert_eq!(client.ask("anything").await, "one");
    process.signal(Signal::HUP);
    ask_until(&mut client, "two").await;
    assert_eq!(client.id().await, id);
    assert_eq!(call(process.admin, "GET", "/ready", &[], b"").await.status, 200);
    drop(client);
    process.stop().await;
}
