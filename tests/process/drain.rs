//! SIGTERM: nobody is dropped silently.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use crate::support::{Backend, Client, Process, Routes, Said, backed_api, call, eventually, push, try_push};

const CLIENTS: usize = 16;

/// Pushes to one connection until it is gone or nobody answers any more; what was answered 200 is noted.
async fn push_until_gone(to: SocketAddr, id: String, taken: Arc<Mutex<HashMap<String, Vec<String>>>>) {
    for n in 0_u32.. {
        let message = format!("push {n}");
        match try_push(to, &id, &message).await {
            Some(reply) if reply.status == 200 => taken.lock().unwrap().entry(id.clone()).or_default().push(message),
            Some(_) | None => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_answers_all_it_read_and_delivers_all_it_took() {
    let backend = Backend::start().await;
    let routes = Routes::new(&backed_api(&backend));
    let mut process = Process::run(routes.path(), &["--access-log", "off"]).await;
    let taken = Arc::new(Mutex::new(HashMap::new()));
    let mut sessions = Vec::new();
    let mut pushers = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(process.public).await;
        let id = client.id().await;
        pushers.push(tokio::spawn(push_until_gone(process.public, id.clone(), Arc::clone(&taken))));
        let name = id.clone();
        let talk = client.chatter(move |n| format!(r#"{{"action":"echo","from":"{name}","n":{n}}}"#));
        sessions.push((id, tokio::spawn(talk)));
    }
    eventually("a good load", || {
        let count: usize = taken.lock().unwrap().values().map(Vec::len).sum();
        backend.calls("/echo").len() > CLIENTS * 20 && count > CLIENTS * 2
    })
    .await;
    process.signal(Signal::TERM);

    let mut heard = HashMap::new();
    for (id, talk) in sessions {
        heard.insert(id, talk.await.unwrap());
    }
    assert_eq!(process.exit().await, 0, "{}", process.log());
    for pusher in pushers {
        pusher.await.unwrap();
    }

    let asked = backend.calls("/echo");
    let taken = taken.lock().unwrap();
    for (id, heard) in &heard {
        assert_eq!(heard.last(), Some(&Said::Close(1001)), "{id}");
        for call in asked.iter().filter(|call| call.connection == *id) {
            assert!(heard.contains(&Said::Text(call.body.clone())), "{id} got no answer to {}", call.body);
        }
        let came: Vec<&String> = heard
            .iter()
            .filter_map(|said| match said {
                Said::Text(text) if text.starts_with("push") => Some(text),
                Said::Text(_) | Said::Close(_) | Said::Gone => None,
            })
            .collect();
        let taken: Vec<&String> = taken.get(id).into_iter().flatten().collect();
        assert!(came.len() >= taken.len(), "{id}: {} pushes answered 200, {} came", taken.len(), came.len());
        assert_eq!(came[..taken.len()], taken[..], "{id}: order or loss");
    }
    let ended = backend.count_by_connection("/disconnect");
    assert_eq!(ended.len(), CLIENTS, "{ended:?}");
    assert!(ended.iter().all(|(id, count)| heard.contains_key(id) && *count == 1), "{ended:?}");
    assert!(backend.calls("/disconnect").iter().all(|call| call.close_code == "1001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_an_answer_and_takes_pushes_but_no_new_clients() {
    let backend = Backend::start().await;
    let routes = Routes::new(&backed_api(&backend));
    let mut process = Process::run(routes.path(), &[]).await;
    let mut client = Client::connect(process.public).await;
    let mut idle = Client::connect(process.public).await;
    let id = client.id().await;
    backend.hold("/echo");
    client.send(r#"{"action":"echo"}"#).await;
    eventually("the call", || backend.calls("/echo").len() == 1).await;

    process.signal(Signal::TERM);
    assert_eq!(idle.next().await, Said::Close(1001));
    assert_eq!(call(process.admin, "GET", "/ready", &[], b"").await.status, 503);
    assert_eq!(call(process.admin, "GET", "/health", &[], b"").await.status, 200);
    let refused = Client::try_connect(process.public).await.err().expect("no new client during a drain");
    assert_eq!(refused.status, 503, "{}", refused.why);
    assert_eq!(push(process.public, &id, "late").await.status, 200);
    assert_eq!(client.next().await, Said::Text("late".into()));
    assert!(process.is_running());

    backend.hold("");
    assert_eq!(client.next().await, Said::Text(r#"{"action":"echo"}"#.into()));
    assert_eq!(client.next().await, Said::Close(1001));
    assert_eq!(process.exit().await, 0, "{}", process.log());
    assert_eq!(backend.calls("/disconnect").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_outlives_its_last_disconnect_call() {
    let backend = Backend::start().await;
    let routes = Routes::new(&backed_api(&backend));
    let mut process = Process::run(routes.path(), &[]).await;
    let mut client = Client::connect(process.public).await;
    backend.hold("/disconnect");
    process.signal(Signal::TERM);
    assert_eq!(client.next().await, Said::Close(1001));
    client.vanish();
    eventually("the call", || backend.calls("/disconnect").len() == 1).await;
    assert!(process.is_running());
    backend.hold("");
    assert_eq!(process.exit().await, 0, "{}", process.log());
    assert_eq!(backend.calls("/disconnect").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_a_drain_overtakes_still_ends_in_order() {
    let backend = Backend::start().await;
    let routes = Routes::new(&backed_api(&backend));
    let mut process = Process::run(routes.path(), &[]).await;
    backend.hold("/connect");
    let public = process.public;
    let knocking = tokio::spawn(async move { Client::try_connect(public).await });
    eventually("the call", || backend.calls("/connect").len() == 1).await;
    process.signal(Signal::TERM);
    eventually("the drain", || process.log().contains("draining")).await;
    backend.hold("");
    // Let in and told to go, or sent away: either way it gets an answer, and the back-end that said yes its `$disconnect`.
    match knocking.await.unwrap() {
        Ok(mut client) => assert_eq!(client.next().await, Said::Close(1001)),
        Err(refused) => assert_eq!(refused.status, 503, "{}", refused.why),
    }
    assert_eq!(process.exit().await, 0, "{}", process.log());
    assert_eq!(backend.calls("/disconnect").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let backend = Backend::start().await;
    let routes = Routes::new(&backed_api(&backend));
    let mut process = Process::run(routes.path(), &[]).await;
    let mut client = Client::connect(process.public).await;
    backend.hold("/echo");
    client.send(r#"{"action":"echo"}"#).await;
    eventually("the call", || backend.calls("/echo").len() == 1).await;
    process.signal(Signal::TERM);
    eventually("the drain", || process.log().contains("draining")).await;
    assert!(process.is_running());
    process.signal(Signal::TERM);
    let started = std::time::Instant::now();
    assert_eq!(process.exit().await, 0, "{}", process.log());
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
}

// checklist: 75, 79
#[tokio::test(flavor = "multi_thread")]
async fn every_way_a_session_ends_is_told_once() {
    let backend = Backend::start().await;
    let routes = Routes::new(&backed_api(&backend));
    let process = Process::run(routes.path(), &[]).await;
    let mut vanishing = Client::connect(process.public).await;
    let vanishing_id = vanishing.id().await;
    let mut closed = Client::connect(process.public).await;
    let closed_id = closed.id().await;
    let mut drained = Client::connect(process.public).await;
    let drained_id = drained.id().await;

    vanishing.vanish();
    let path = format!("/dev/@connections/{closed_id}");
    let deleted = call(process.public, "DELETE", &path, &["Authorization: Bearer token"], b"").await;
    assert_eq!(deleted.status, 204);
    assert_eq!(closed.next().await, Said::Close(1000));
    eventually("two ends", || backend.calls("/disconnect").len() == 2).await;
    let (talking, told) = (AtomicBool::new(false), Mutex::new(Said::Gone));
    tokio::join!(
        async {
            *told.lock().unwrap() = drained.next().await;
            talking.store(true, Ordering::Relaxed);
        },
        process.stop(),
    );
    assert!(talking.load(Ordering::Relaxed));
    assert_eq!(*told.lock().unwrap(), Said::Close(1001));
    let mut ends: Vec<_> =
        backend.calls("/disconnect").into_iter().map(|call| (call.connection, call.close_code)).collect();
    ends.sort();
    let mut expected =
        vec![(vanishing_id, "1006".to_owned()), (closed_id, "1000".to_owned()), (drained_id, "1001".to_owned())];
    expected.sort();
    assert_eq!(ends, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_do_nothing_do_not_hold_up_the_end() {
    let backend = Backend::start().await;
    let routes = Routes::new(&backed_api(&backend));
    let mut process =
        Process::run(routes.path(), &["--drain-grace", "1s", "--handshake-timeout", "2s", "--access-log", "off"]).await;
    // One never reads, and its outbox is full.
    let mut deaf = Client::connect(process.public).await;
    let id = deaf.id().await;
    let message = "m".repeat(100_000);
    while push(process.public, &id, &message).await.status == 200 {}
    // One has sent half a message, one half a handshake, one half a push.
    let mut halves = Vec::new();
    let upgrade = "GET /dev HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let post = format!(
        "POST /dev/@connections/{id} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer token\r\n\
         Content-Length: 10\r\n\r\nhalf"
    );
    let half_a_message = [upgrade.as_bytes(), b"\x81\xff"].concat();
    for bytes in [half_a_message.as_slice(), &upgrade.as_bytes()[..60], post.as_bytes()] {
        let mut stream = tokio::net::TcpStream::connect(process.public).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        halves.push(stream);
    }
    eventually("two sessions", || backend.calls("/connect").len() == 2).await;
    process.signal(Signal::TERM);
    let started = std::time::Instant::now();
    assert_eq!(process.exit().await, 0, "{}", process.log());
    // The grace, five seconds for close frames nobody answers, two for the half push.
    assert!(started.elapsed() < std::time::Duration::from_secs(12), "{:?}", started.elapsed());
    let ended = backend.count_by_connection("/disconnect");
    assert!(ended.len() == 2 && ended.values().all(|count| *count == 1), "{ended:?}");
}
