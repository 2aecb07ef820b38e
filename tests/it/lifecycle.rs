//! `$connect` before the 101, `$disconnect` after the end, concurrency and order (specification 2).

use serde_json::json;

use crate::support::{Backend, CLOSE, Frame, Gate, Recorded, Reply, TestGateway};

const LIFE: &str = "
apiId: life
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev: {}
  idle: {limits: {idleTimeout: 300ms}}
  short: {limits: {maxDuration: 300ms}}
routes:
  $connect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/connect
      requestParameters: &id
        integration.request.header.connectionId: context.connectionId
  $disconnect:
    integration:
      integrationType: HTTP
      integrationUri: http://backend/disconnect
      requestParameters: *id
      requestTemplates:
        $default: '{\"code\": $context.disconnectStatusCode, \"reason\": \"$context.disconnectReason\"}'
  order:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/order
      requestParameters: *id
  serial:
    ordering: serial
    routeResponseSelectionExpression: $default
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/serial
      requestParameters: *id
";

async fn start(backend: &Backend) -> TestGateway {
    TestGateway::builder().routes_yaml(LIFE).backend(backend).start().await
}

// checklist: 58
#[tokio::test]
async fn the_connect_integration_answers_before_the_101() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    backend.on("/connect", Reply::status(200).behind(&gate));
    let gateway = start(&backend).await;
    let mut pending = gateway.client("/dev").begin().await;
    backend.request("/connect").await;
    pending.is_unanswered().await;
    gate.open();
    pending.accepted().await.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 59
#[tokio::test]
async fn a_connection_is_gone_for_callbacks_until_it_is_open() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    backend.on("/connect", Reply::status(200).behind(&gate));
    let gateway = start(&backend).await;
    let pending = gateway.client("/dev").begin().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    for answer in [gateway.post(&id, "too early").await, gateway.get(&id).await, gateway.delete(&id).await] {
        assert_eq!((answer.status, answer.header("x-amzn-ErrorType")), (410, Some("GoneException")));
    }
    gate.open();
    let mut client = pending.accepted().await;
    client.expect_silence().await;
    assert_eq!(gateway.post(&id, "now").await.status, 200);
    assert_eq!(client.next_text().await, "now");
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 60
#[tokio::test]
async fn a_post_issued_when_the_client_has_its_101_arrives() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for _ in 0..50 {
        let mut client = gateway.client("/dev").open().await;
        let id = backend.request("/connect").await.connection_id().to_owned();
        assert_eq!(gateway.post(&id, "welcome").await.status, 200);
        assert_eq!(client.next_text().await, "welcome");
    }
    gateway.finish().await;
}

// checklist: 62, 64
#[tokio::test]
async fn without_reserved_routes_everybody_comes_and_goes_freely() {
    let gateway = TestGateway::builder().routes_file("chat.yaml").start().await;
    let client = gateway.client("/dev").open().await;
    client.close(4000, "bye").await;
    drop(gateway.client("/dev").open().await);
    gateway.finish().await;
}

// checklist: 62
#[tokio::test]
async fn a_connect_route_without_integration_accepts() {
    let definition = "
apiId: bare
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes: {$connect: {}}
";
    let gateway = TestGateway::builder().routes_yaml(definition).start().await;
    gateway.client("/dev").open().await.close(1000, "").await;
    gateway.finish().await;
}

/// Code and reason of a `$disconnect`; always both, a number and a text.
fn cause(disconnect: &Recorded) -> (u64, String) {
    let body: serde_json::Value = serde_json::from_str(disconnect.text()).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 2);
    (body["code"].as_u64().unwrap(), body["reason"].as_str().unwrap().to_owned())
}

// checklist: 70, 71, 72, 76, 79
#[tokio::test]
async fn a_disconnect_tells_how_the_client_closed() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for (frame, code, reason) in [
        (Frame::new(CLOSE, ""), 1005, "Client-side close frame status not set"),
        (Frame::close(4001, "bye"), 4001, "bye"),
        (Frame::close(1000, ""), 1000, ""),
        (Frame::close(1001, ""), 1001, ""),
    ] {
        let mut client = gateway.client("/dev").open().await;
        let id = backend.request("/connect").await.connection_id().to_owned();
        client.send(frame.clone()).await;
        assert_eq!(client.next_frame().await.expect("the echo").payload, frame.payload);
        client.expect_end().await;
        let disconnect = backend.request("/disconnect").await;
        assert_eq!(cause(&disconnect), (code, reason.to_owned()));
        assert_eq!(disconnect.connection_id(), id);
    }
    backend.no_more("/disconnect").await;
    gateway.finish().await;
}

// checklist: 73, 76, 79
#[tokio::test]
async fn a_disconnect_tells_of_a_delete() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let client = gateway.client("/dev").open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    assert_eq!(gateway.delete(&id).await.status, 204);
    assert_eq!(cause(&backend.request("/disconnect").await), (1000, "Connection Closed Normally".into()));
    assert_eq!(client.expect_close().await, (Some(1000), "Connection Closed Normally".into()));
    gateway.finish().await;
    backend.no_more("/disconnect").await;
}

// checklist: 74, 76, 79
#[tokio::test]
async fn a_disconnect_tells_of_limits_reached() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for stage in ["/idle", "/short"] {
        let client = gateway.client(stage).open().await;
        assert_eq!(client.expect_close().await, (Some(1001), "Going away".into()));
        assert_eq!(cause(&backend.request("/disconnect").await), (1001, "Going away".into()));
    }
    gateway.finish().await;
    backend.no_more("/disconnect").await;
}

// checklist: 75, 76, 79
#[tokio::test]
async fn a_disconnect_tells_of_a_lost_transport() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    drop(gateway.client("/dev").open().await);
    assert_eq!(cause(&backend.request("/disconnect").await).0, 1006);
    // In the middle of a frame, too.
    let mut client = gateway.client("/dev").open().await;
    client.send_raw(&Frame::text("hello").encode()[..7]).await;
    drop(client);
    assert_eq!(cause(&backend.request("/disconnect").await).0, 1006);
    gateway.finish().await;
    backend.no_more("/disconnect").await;
}

// checklist: 79
#[tokio::test]
async fn a_disconnect_tells_of_violations() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for (frame, code) in [
        (Frame::text("x").unmasked(), 1002),
        (Frame::new(2, "binary"), 1003),
        (Frame::text([0xff, 0xfe]), 1007),
        (Frame::text("x".repeat(32_769)), 1009),
    ] {
        let mut client = gateway.client("/dev").open().await;
        client.send(frame).await;
        assert_eq!(client.expect_close().await.0, Some(code));
        assert_eq!(cause(&backend.request("/disconnect").await).0, u64::from(code));
    }
    gateway.finish().await;
    backend.no_more("/disconnect").await;
}

// checklist: 77
#[tokio::test]
async fn a_failing_disconnect_is_called_once() {
    for reply in [Reply::status(500), Reply::raw(""), Reply::raw("garbage"), Reply::ok("half").midway()] {
        let backend = Backend::start().await;
        backend.on("/disconnect", reply);
        let gateway = start(&backend).await;
        gateway.client("/dev").open().await.close(1000, "").await;
        backend.request("/disconnect").await;
        gateway.finish().await;
        backend.no_more("/disconnect").await;
    }
}

// checklist: 78
#[tokio::test]
async fn in_its_disconnect_a_connection_is_gone() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    backend.on("/disconnect", Reply::status(200).behind(&gate));
    let gateway = start(&backend).await;
    let client = gateway.client("/dev").open().await;
    client.close(1000, "").await;
    let id = backend.request("/disconnect").await.connection_id().to_owned();
    for answer in [gateway.post(&id, "x").await, gateway.get(&id).await, gateway.delete(&id).await] {
        assert_eq!((answer.status, answer.header("x-amzn-ErrorType")), (410, Some("GoneException")));
    }
    gate.open();
    gateway.finish().await;
}

// checklist: 79
#[tokio::test]
async fn a_hundred_ends_at_once_are_a_hundred_disconnects() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(gateway.client("/dev").open().await);
    }
    drop(clients);
    let mut ended: Vec<String> = Vec::new();
    for _ in 0..100 {
        ended.push(backend.request("/disconnect").await.connection_id().to_owned());
    }
    let mut begun: Vec<String> = backend.of("/connect").iter().map(|r| r.connection_id().to_owned()).collect();
    ended.sort();
    begun.sort();
    assert_eq!(begun, ended);
    gateway.finish().await;
    backend.no_more("/disconnect").await;
}

// checklist: 80
#[tokio::test]
async fn a_slow_message_does_not_delay_a_later_one() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    let held = gate.clone();
    backend.on_each("/order", move |request| {
        let reply = Reply::ok(&request.body);
        if request.text().contains("slow") { reply.behind(&held) } else { reply }
    });
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let (slow, fast) = (r#"{"action":"order","n":"slow"}"#, r#"{"action":"order","n":"fast"}"#);
    client.send_text(slow).await;
    backend.request("/order").await;
    assert_eq!(client.ask(fast).await, fast);
    gate.open();
    assert_eq!(client.next_text().await, slow);
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_serial_route_runs_one_message_at_a_time_and_disconnect_after_the_last() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    let held = gate.clone();
    backend.on_each("/serial", move |request| Reply::ok(&request.body).behind(&held));
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let messages: Vec<String> = (0..5).map(|n| json!({"action": "serial", "n": n}).to_string()).collect();
    for message in &messages {
        client.send_text(message).await;
    }
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(backend.request("/serial").await.text(), message);
        match n {
            0..3 => {
                backend.no_more("/serial").await;
                gate.let_one_through();
                assert_eq!(&client.next_text().await, message);
            }
            3 => {
                // The client leaves while two are to come.
                client.send(Frame::close(1000, "")).await;
                backend.no_more("/disconnect").await;
                gate.let_one_through();
            }
            _ => {
                backend.no_more("/disconnect").await;
                gate.open();
            }
        }
    }
    backend.request("/disconnect").await;
    drop(client);
    gateway.finish().await;
}

#[tokio::test]
async fn messages_in_flight_are_bounded_and_none_is_lost() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    let held = gate.clone();
    backend.on_each("/order", move |request| Reply::ok(&request.body).behind(&held));
    let gateway = TestGateway::builder()
        .routes_yaml(&LIFE.replace("dev: {}", "dev: {limits: {maxMessagesInFlight: 3}}"))
        .backend(&backend)
        .start()
        .await;
    let mut client = gateway.client("/dev").open().await;
    for n in 0..10 {
        client.send_json(&json!({"action": "order", "n": n})).await;
    }
    for _ in 0..3 {
        backend.request("/order").await;
    }
    backend.no_more("/order").await;
    gate.open();
    let mut answered: Vec<i64> = Vec::new();
    for _ in 0..10 {
        answered.push(client.next_json().await["n"].as_i64().unwrap());
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..10).collect::<Vec<_>>());
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 215
#[tokio::test]
async fn a_message_handler_reaches_its_own_connection_before_it_answers() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    backend.on("/order", Reply::ok("answer").behind(&gate));
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    client.send_text(r#"{"action":"order"}"#).await;
    let id = backend.request("/order").await.connection_id().to_owned();
    assert_eq!(gateway.post(&id, "progress").await.status, 200);
    assert_eq!(client.next_text().await, "progress");
    gate.open();
    assert_eq!(client.next_text().await, "answer");
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 81
#[tokio::test]
async fn posts_of_one_caller_arrive_in_call_order() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    for n in 0..10 {
        assert_eq!(gateway.post(&id, n.to_string()).await.status, 200);
    }
    for n in 0..10 {
        assert_eq!(client.next_text().await, n.to_string());
    }
    client.close(1000, "").await;
    gateway.finish().await;
}
