//! `wss`: the same gateway behind TLS.

use std::time::Duration;

use crate::support::{Backend, Frame, Reply, TestGateway, refusal_of, self_signed};

const API: &str = "
apiId: safe
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $connect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/connect
      requestParameters: {integration.request.header.connectionId: context.connectionId}
  $default:
    routeResponseSelectionExpression: $default
    integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/default'}
";

async fn start(backend: &Backend) -> TestGateway {
    backend.on_each("/default", |request| Reply::ok(&request.body));
    TestGateway::builder().routes_yaml(API).backend(backend).tls().start().await
}

#[tokio::test]
async fn sessions_pushes_and_ends_work_over_tls() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let connect = backend.request("/connect").await;
    assert_eq!(connect.header("X-Forwarded-Proto"), Some("https"));
    let id = connect.connection_id();
    for size in [0, 1, 1_000, 16_384, 16_385, 32_768] {
        let message = "x".repeat(size);
        assert_eq!(client.ask(&message).await, message);
    }
    client.ping().await;
    let large = "y".repeat(131_072);
    assert_eq!(gateway.post(id, &large).await.status, 200, "callbacks come over TLS too");
    assert_eq!(client.next_text().await, large);
    assert_eq!(gateway.delete(id).await.status, 204);
    assert_eq!(client.expect_close().await, (Some(1000), "Connection Closed Normally".into()));
    gateway.client("/dev").open().await.close(4000, "x").await;
    drop(gateway.client("/dev").open().await);
    gateway.finish().await;
}

#[tokio::test]
async fn a_message_in_many_records_and_many_messages_in_one_are_served() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").offer("permessage-deflate").open().await;
    for byte in Frame::text("slowly").encode() {
        client.send_raw([byte]).await;
    }
    assert_eq!(client.next_text().await, "slowly");
    client.send_raw((0..50).flat_map(|n| Frame::text(n.to_string()).encode()).collect::<Vec<u8>>()).await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(client.next_text().await.parse::<u32>().unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, (0..50).collect::<Vec<_>>());
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_slow_reader_over_tls_gets_every_message_whole_and_in_order() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").small_receive_buffer().open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    let mut sent = 0;
    while gateway.post(&id, format!("{sent} {}", "x".repeat(60_000))).await.status == 200 {
        sent += 1;
        assert!(sent < 1_000);
    }
    for n in 0..sent {
        let message = client.next_text().await;
        assert!(message.starts_with(&format!("{n} ")) && message.len() > 60_000);
    }
    assert_eq!(client.ask("fine").await, "fine");
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_and_plain_text_are_let_go() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder()
        .routes_yaml(API)
        .backend(&backend)
        .tls()
        .settings(|settings| settings.handshake_timeout = Duration::from_millis(300))
        .start()
        .await;
    for bytes in [&b""[..], b"\x16", b"\x16\x03\x01\x02", b"GET /dev HTTP/1.1\r\nHost: localhost\r\n\r\n", &[0xff; 50]]
    {
        let stream = tokio::net::TcpStream::connect(gateway.app().public()).await.unwrap();
        let mut wire = crate::support::Wire::new(stream);
        wire.send(bytes).await;
        while wire.read_more().await {}
    }
    gateway.client("/dev").open().await.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_drain_tells_tls_clients_too() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    assert_eq!(client.ask("x").await, "x");
    let leaving = tokio::spawn(gateway.shut_down());
    assert_eq!(client.expect_close().await.0, Some(1001));
    leaving.await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_its_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, self_signed().signing_key.serialize_pem()).unwrap();
    let nothing = folder.path().join("nothing.pem");
    for key in [other, nothing] {
        let wrong = key.clone();
        let change = move |settings: &mut causeway::config::Settings| settings.tls.as_mut().unwrap().key = wrong;
        let why = refusal_of(TestGateway::builder().routes_file("chat.yaml").tls().settings(change)).await;
        assert!(why.contains(&key.display().to_string()) || why.contains("key"), "{why}");
    }
}
