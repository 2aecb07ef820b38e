//! Leaving (what SIGTERM does) while anything goes on: nobody is dropped silently, and it ends.

use std::time::{Duration, Instant};

use crate::support::{Backend, Client, Frame, Gate, PATIENCE, Reply, TestGateway, read_answer, within};

const API: &str = "
apiId: leaving
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $connect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/connect
      requestParameters: {integration.request.header.connectionId: context.connectionId}
  $disconnect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/disconnect
      requestParameters:
        integration.request.header.connectionId: context.connectionId
        integration.request.header.code: context.disconnectStatusCode
  call:
    routeResponseSelectionExpression: $default
    integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/call', timeoutInMillis: 2000}
";

async fn start(backend: &Backend) -> TestGateway {
    TestGateway::builder()
        .routes_yaml(API)
        .backend(backend)
        .settings(|settings| {
            settings.drain_grace = Duration::from_secs(3);
            settings.handshake_timeout = Duration::from_millis(500);
        })
        .start()
        .await
}

const CALL: &str = r#"{"action":"call"}"#;

#[tokio::test]
async fn idle_sessions_are_told_and_disconnected() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(gateway.client("/dev").open().await);
    }
    let leaving = tokio::spawn(gateway.shut_down());
    for client in clients {
        assert_eq!(client.expect_close().await, (Some(1001), "Going away".into()));
    }
    for _ in 0..50 {
        assert_eq!(backend.request("/disconnect").await.header("code"), Some("1001"));
    }
    leaving.await.unwrap();
    backend.no_more("/disconnect").await;
}

#[tokio::test]
async fn every_message_read_gets_its_answer_before_the_close_frame() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    backend.on("/call", Reply::ok("answer").behind(&gate));
    let gateway = start(&backend).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.client("/dev").open().await;
        client.send_text(CALL).await;
        client.send_text(CALL).await;
        clients.push(client);
    }
    for _ in 0..40 {
        backend.request("/call").await;
    }
    let leaving = tokio::spawn(gateway.shut_down());
    clients[0].expect_silence().await;
    gate.open();
    for mut client in clients {
        assert_eq!((client.next_text().await, client.next_text().await), ("answer".into(), "answer".into()));
        assert_eq!(client.expect_close().await.0, Some(1001));
    }
    leaving.await.unwrap();
}

#[tokio::test]
async fn every_push_answered_200_comes_before_the_close_frame() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").small_receive_buffer().open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    let mut sent = 0;
    while gateway.stats().budget_used < 300_000 {
        assert_eq!(gateway.post(&id, format!("{sent} {}", "x".repeat(60_000))).await.status, 200);
        sent += 1;
    }
    let leaving = tokio::spawn(gateway.shut_down());
    for n in 0..sent {
        assert!(client.next_text().await.starts_with(&format!("{n} ")));
    }
    assert_eq!(client.expect_close().await.0, Some(1001));
    leaving.await.unwrap();
}

#[tokio::test]
async fn newcomers_are_sent_elsewhere() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    backend.on("/call", Reply::ok("answer").behind(&gate));
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    client.send_text(CALL).await;
    backend.request("/call").await;
    let newcomer = gateway.client("/dev");
    let admin = gateway.app().admin();
    assert_eq!(gateway.admin("GET", "/ready", b"").await.status, 200);
    let leaving = tokio::spawn(gateway.shut_down());
    let ready = async || {
        let mut wire = crate::support::Wire::new(tokio::net::TcpStream::connect(admin).await.unwrap());
        wire.send(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        read_answer(&mut wire).await.expect("an answer").status
    };
    within("readiness to say no", async { while ready().await != 503 {} }).await;
    let refused = newcomer.refused().await;
    assert_eq!((refused.status, refused.header("Retry-After").is_some()), (503, true));
    gate.open();
    assert_eq!(client.next_text().await, "answer");
    assert_eq!(client.expect_close().await.0, Some(1001));
    leaving.await.unwrap();
}

#[tokio::test]
async fn newcomers_are_taken_until_the_load_balancers_had_their_time() {
    let backend = Backend::start().await;
    let delay = Duration::from_secs(2);
    let gateway = TestGateway::builder().routes_yaml(API).backend(&backend);
    let gateway = gateway.settings(move |settings| settings.drain_delay = delay).start().await;
    let (newcomer, node) = (gateway.client("/dev"), std::sync::Arc::clone(gateway.app().gateway()));
    let begun = Instant::now();
    let leaving = tokio::spawn(gateway.shut_down());
    within("readiness to say no", async {
        while node.is_ready() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let client = newcomer.open().await;
    assert!(begun.elapsed() < delay && !node.is_draining());
    assert_eq!(client.expect_close().await.0, Some(1001));
    assert!(begun.elapsed() >= delay, "told to go too early");
    leaving.await.unwrap();
    assert_eq!(backend.of("/disconnect").len(), 1);
}

#[tokio::test]
async fn a_handshake_under_way_is_answered() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    backend.on("/connect", Reply::status(200).behind(&gate));
    let gateway = start(&backend).await;
    let pending = gateway.client("/dev").begin().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    let leaving = tokio::spawn(gateway.shut_down());
    gate.open();
    let (answer, wire) = pending.answer().await;
    if answer.status == 101 {
        assert_eq!(Client { answer, wire }.expect_close().await.0, Some(1001));
    } else {
        assert_eq!(answer.status, 503);
        drop(wire);
    }
    assert_eq!(backend.request("/disconnect").await.connection_id(), id, "the integration said yes, so it is told");
    leaving.await.unwrap();
}

/// Shuts down while `peers` do what they do; that it ends in time is the assertion, and that it leaves nothing.
async fn ends_in_time<T>(gateway: TestGateway, peers: T) {
    let started = Instant::now();
    gateway.shut_down().await;
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    drop(peers);
}

#[tokio::test]
async fn it_ends_with_handshakes_that_do_not_come() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let request = gateway.client("/dev").request();
    let mut wires = Vec::new();
    for sent in [0, 1, 30, request.len() - 2] {
        let mut wire = gateway.client("/dev").dial().await;
        wire.send(&request[..sent]).await;
        wires.push(wire);
    }
    ends_in_time(gateway, wires).await;
}

#[tokio::test]
async fn it_ends_with_messages_that_do_not_come_whole() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut clients = Vec::new();
    for part in [
        Frame::text("x".repeat(1_000)).encode()[..500].to_vec(),
        Frame::text("x").unfinished().encode(),
        Frame::text("").head(10)[..1].to_vec(),
    ] {
        let mut client = gateway.client("/dev").open().await;
        client.ping().await;
        client.send_raw(part).await;
        clients.push(client);
    }
    ends_in_time(gateway, clients).await;
    for _ in 0..3 {
        backend.request("/disconnect").await;
    }
}

#[tokio::test]
async fn it_ends_with_clients_that_do_not_read() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = gateway.client("/dev").small_receive_buffer().open().await;
        let id = backend.request("/connect").await.connection_id().to_owned();
        while gateway.post(&id, "x".repeat(100_000)).await.status == 200 {}
        clients.push(client);
    }
    ends_in_time(gateway, clients).await;
    for _ in 0..3 {
        backend.request("/disconnect").await;
    }
    backend.no_more("/disconnect").await;
}

#[tokio::test]
async fn it_ends_with_clients_that_do_not_answer_the_close_frame() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(gateway.client("/dev").open().await);
    }
    ends_in_time(gateway, clients).await;
}

#[tokio::test]
async fn it_ends_with_back_ends_that_do_not_answer() {
    let backend = Backend::start().await;
    backend.on("/call", Reply::hang());
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    client.send_text(CALL).await;
    backend.request("/call").await;
    let leaving = tokio::spawn(gateway.shut_down());
    client.expect_error("Endpoint request timed out").await;
    assert_eq!(client.expect_close().await.0, Some(1001));
    leaving.await.unwrap();
}

#[tokio::test]
async fn it_ends_while_clients_flood_it() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut flooding = Vec::new();
    for garbage in [Frame::text("not json").encode(), Frame::new(9, "ping").encode(), vec![0xff; 100]] {
        let mut client = gateway.client("/dev").open().await;
        flooding.push(tokio::spawn(async move {
            client.wire.send_until_stuck(&garbage, PATIENCE).await;
        }));
    }
    ends_in_time(gateway, ()).await;
    for flood in flooding {
        within("a flood to end", flood).await.unwrap();
    }
}

#[tokio::test]
async fn it_ends_with_callbacks_under_way() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    // A body that does not come, a connection kept alive, one that is chunked and stops.
    let mut wires = Vec::new();
    for (head, rest) in [
        ("Content-Length: 10\r\n", "abc"),
        ("Content-Length: 2\r\n", "ok"),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabc"),
    ] {
        let mut wire = gateway.client("/dev").dial().await;
        wire.send(format!("POST /dev/@connections/{id} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n{rest}").as_bytes())
            .await;
        wires.push(wire);
    }
    assert_eq!(client.next_text().await, "ok");
    ends_in_time(gateway, (client, wires)).await;
}
