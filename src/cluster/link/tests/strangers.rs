//! Whoever comes to the node link and is no node.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::frame::{kinds, put_frame};
use super::*;

async fn tls_to(node: &Node) -> TlsStream<TcpStream> {
    let keys = Keys::new(&secret()).unwrap();
    let tcp = TcpStream::connect(node.listens).await.unwrap();
    TlsConnector::from(keys.client.clone()).connect(keys.server_name("x").unwrap(), tcp).await.unwrap()
}

/// A frame whose header says what it likes.
fn frame(length: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[..], &[0; 8], &[kind], payload].concat()
}

async fn turned_away(node: &Node, log: &Log, n: u64, reason: &str) {
    eventually(reason, || count(&node.links.stats().strangers_refused) == n).await;
    // One line a minute from one address, whoever is turned away there.
    assert_eq!(log.lines(&["WARN", "a stranger at the node link was turned away", "peer.ip=127.0.0.1"]), 1);
}

#[tokio::test]
async fn strangers_are_turned_away_and_links_go_on() {
    let log = Log::start();
    let (a, b) = (node(1, done), node(2, done));
    list_each_other(&[&a, &b]);
    assert_eq!(a.ask(&b.peer, push(1, "hi")).await, Ok(Response::Done));

    let mut http = TcpStream::connect(b.listens).await.unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    turned_away(&b, &log, 1, "plain HTTP").await;
    let mut end = Vec::new();
    let _reset = within("the end", http.read_to_end(&mut end)).await;
    assert!(!end.starts_with(b"HTTP"), "{end:?}");

    let mut random = TcpStream::connect(b.listens).await.unwrap();
    random.write_all(&crate::ids::random_bytes::<500>()).await.unwrap();
    random.shutdown().await.unwrap();
    turned_away(&b, &log, 2, "random bytes").await;

    drop(TcpStream::connect(b.listens).await.unwrap());
    turned_away(&b, &log, 3, "a connection closed at once").await;

    let unproven = frame(9 + 33 + 20, kinds::HELLO, &[0; 53]);
    let wrong = frame(9 + 33 + 20, kinds::HELLO, &[&[1][..], &[7; 52]].concat());
    let mut request = Vec::new();
    put_frame(&mut request, 1, |out| codec::encode_request(out, 1_000, &push(9, "let me in")));
    let greetings = [
        ("a hello without a proof", unproven),
        ("a hello with a wrong proof", wrong),
        ("a request before a hello", request),
        ("a first frame that is too large", frame(9 + 1_025, kinds::HELLO, &[])),
        ("the largest frame there can be", frame(u32::MAX, kinds::HELLO, &[])),
        ("a frame shorter than its header", frame(3, kinds::HELLO, &[])),
        ("an empty hello", frame(9, kinds::HELLO, &[])),
    ];
    for (n, (what, greeting)) in (4..).zip(greetings) {
        let mut tls = tls_to(&b).await;
        tls.write_all(&greeting).await.unwrap();
        turned_away(&b, &log, n, what).await;
        let mut rest = Vec::new();
        let _cut = within("the end", tls.read_to_end(&mut rest)).await;
        assert!(rest.len() <= 14, "no more than a refusal: {rest:?}");
    }
    assert_eq!(b.recorder.asked(), [push(1, "hi")]);
    assert_eq!(a.ask(&b.peer, push(2, "hi")).await, Ok(Response::Done));
    assert_eq!(count(&a.links.stats().links_lost) + count(&b.links.stats().links_lost), 0);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn those_who_say_nothing_have_few_places_and_five_seconds() {
    let (a, b) = (node(1, done), node(2, done));
    a.join();
    b.join();
    let mut waiting = Vec::new();
    for _ in 0..accept::MAX_UNPROVEN_OF_ONE {
        waiting.push(TcpStream::connect(b.listens).await.unwrap());
    }
    let begun = Instant::now();
    let mut one_more = TcpStream::connect(b.listens).await.unwrap();
    let closed = within("the end of one too many", one_more.read(&mut [0; 8])).await;
    assert!(matches!(closed, Ok(0) | Err(_)) && begun.elapsed() < greeting::GREETING_TIME, "{closed:?}");
    // A byte now and then is no greeting either.
    for tcp in &mut waiting {
        tcp.write_all(&[22]).await.unwrap();
    }
    for mut tcp in waiting {
        let closed = within("the end of one who says nothing", tcp.read(&mut [0; 8])).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    assert!(begun.elapsed() >= greeting::GREETING_TIME / 2);
    assert_eq!(a.ask(&b.peer, push(1, "hi")).await, Ok(Response::Done));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_sends_malformed_frames_loses_its_link_and_nobody_else_does() {
    let log = Log::start();
    let (a, b, c) = (node(1, done), node(2, done), node(3, done));
    list_each_other(&[&a, &b, &c]);
    eventually("links", || b.is_linked(&a.peer) && b.is_linked(&c.peer) && a.is_linked(&b.peer)).await;
    let other = b.links.line(c.peer.incarnation).unwrap();
    let bad = [
        frame(9 + 3, kinds::PUSH, &[1, 2, 3]),
        frame(9, 99, &[]),
        frame(u32::MAX, kinds::PUSH, &[]),
        frame(9, 250, &[]),
        frame(0, kinds::PING, &[]),
    ];
    for (n, bad) in (1..).zip(bad) {
        eventually("a link", || a.is_linked(&b.peer) && b.is_linked(&a.peer)).await;
        a.links.line(b.peer.incarnation).unwrap().post(|out| {
            out.extend(&bad);
            true
        });
        eventually("its end", || count(&b.links.stats().links_lost) == n).await;
    }
    assert!(log.lines(&["WARN", "the link to a node is lost", "peer.incarnation=1", "larger than may be"]) >= 1);
    assert!(b.links.has(&other), "the other link is untouched");
    eventually("a link again", || a.is_linked(&b.peer)).await;
    assert_eq!(a.ask(&b.peer, push(1, "hi")).await, Ok(Response::Done));
    a.stop().await;
    b.stop().await;
    c.stop().await;
}
