//! The WebSocket protocol: fragments, masks, control frames, closing (specification 13).

use crate::support::{BINARY, Backend, CLOSE, CONTINUATION, Frame, PING, PONG, Reply, TEXT, TestGateway};

const API: &str = "
apiId: frames
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $default:
    routeResponseSelectionExpression: $default
    integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/default'}
  $connect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/connect
      requestParameters: {integration.request.header.connectionId: context.connectionId}
";

async fn start(backend: &Backend) -> TestGateway {
    backend.on_each("/default", |request| Reply::ok(&request.body));
    TestGateway::builder().routes_yaml(API).backend(backend).start().await
}

/// A session that says `bytes` is closed with `code`, and no route runs.
async fn assert_closes(cases: &[(&str, Vec<u8>, u16)]) {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for (what, bytes, code) in cases {
        let mut client = gateway.client("/dev").open().await;
        client.send_raw(bytes).await;
        assert_eq!(client.expect_close().await.0, Some(*code), "{what}");
    }
    backend.no_more("/default").await;
    gateway.finish().await;
}

// checklist: 304
#[tokio::test]
async fn fragments_with_a_ping_between_are_one_message() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    // The fragments part a character of several bytes.
    let message = "{\"text\":\"größe\"}".as_bytes();
    client.send(Frame::text(&message[..12]).unfinished()).await;
    client.send(Frame::new(CONTINUATION, &message[12..13]).unfinished()).await;
    client.send(Frame::new(PING, "between")).await;
    let pong = client.next_frame().await.expect("the pong at once");
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"between"[..]));
    client.send(Frame::new(CONTINUATION, &message[13..])).await;
    assert_eq!(backend.request("/default").await.body, message);
    assert_eq!(client.next_text().await.as_bytes(), message);
    backend.no_more("/default").await;
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_message_may_come_byte_by_byte_or_many_at_once() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    for byte in Frame::text("slowly").encode() {
        client.send_raw([byte]).await;
    }
    assert_eq!(client.next_text().await, "slowly");
    let burst: Vec<u8> = (0..300).flat_map(|n| Frame::text(n.to_string()).encode()).collect();
    client.send_raw(burst).await;
    let mut answers = Vec::new();
    for _ in 0..300 {
        answers.push(client.next_text().await.parse::<u32>().unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, (0..300).collect::<Vec<_>>());
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn messages_behind_the_handshake_in_one_piece_are_served() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let connect = gateway.client("/dev");
    let mut wire = connect.dial().await;
    wire.send(
        &[connect.request(), Frame::text("early").encode(), Frame::new(PING, "p").encode()[..3].to_vec()].concat(),
    )
    .await;
    let answer = crate::support::read_answer(&mut wire).await.expect("an answer");
    assert_eq!(answer.status, 101);
    let mut client = crate::support::Client { answer, wire };
    assert_eq!(client.next_text().await, "early");
    client.send_raw(&Frame::new(PING, "p").encode()[3..]).await;
    assert_eq!(client.next_frame().await.expect("a pong").opcode, PONG);
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 305
#[tokio::test]
async fn an_unmasked_frame_closes_with_1002() {
    assert_closes(&[
        ("text", Frame::text("hello").unmasked().encode(), 1002),
        ("empty text", Frame::text("").unmasked().encode(), 1002),
        ("ping", Frame::new(PING, "x").unmasked().encode(), 1002),
    ])
    .await;
}

// checklist: 306
#[tokio::test]
async fn text_that_is_not_utf_8_closes_with_1007() {
    let fragments = [Frame::text([0xc3]).unfinished().encode(), Frame::new(CONTINUATION, [0x28]).encode()].concat();
    assert_closes(&[
        ("a byte that never is", Frame::text([b'a', 0xff]).encode(), 1007),
        ("a character cut short", Frame::text([0xe2, 0x82]).encode(), 1007),
        ("a surrogate", Frame::text([0xed, 0xa0, 0x80]).encode(), 1007),
        ("an overlong slash", Frame::text([0xc0, 0xaf]).encode(), 1007),
        ("across fragments", fragments, 1007),
        ("a reason", Frame::new(CLOSE, [0x03, 0xe8, 0xff]).encode(), 1007),
    ])
    .await;
}

// checklist: 307, 319
#[tokio::test]
async fn what_rfc_6455_reserves_closes_with_1002() {
    let mut cases = Vec::new();
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(("a reserved opcode", Frame::new(opcode, "x").encode(), 1002));
    }
    for rsv in 1..8 {
        cases.push(("a reserved bit", Frame::text("{}").with_rsv(rsv).encode(), 1002));
    }
    cases.push(("RSV1 on a ping", Frame::new(PING, "").with_rsv(4).encode(), 1002));
    cases.push(("a fragmented ping", Frame::new(PING, "x").unfinished().encode(), 1002));
    cases.push(("a ping of 126 bytes", Frame::new(PING, "x".repeat(126)).encode(), 1002));
    cases.push(("a continuation of nothing", Frame::new(CONTINUATION, "x").encode(), 1002));
    let twice = [Frame::text("a").unfinished().encode(), Frame::text("b").encode()].concat();
    cases.push(("a message within a message", twice, 1002));
    assert_closes(&cases).await;
}

// checklist: 308
#[tokio::test]
async fn a_binary_frame_closes_with_1003_and_runs_nothing() {
    assert_closes(&[
        ("binary", Frame::new(BINARY, r#"{"action":"x"}"#).encode(), 1003),
        ("empty binary", Frame::new(BINARY, "").encode(), 1003),
    ])
    .await;
}

#[tokio::test]
async fn where_binary_is_accepted_it_is_base64_for_the_default_route() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder()
        .routes_yaml(&API.replace("stages:", "binaryFrames: accept\nstages:"))
        .backend(&backend)
        .start()
        .await;
    backend.on("/default", Reply::ok("got it"));
    let mut client = gateway.client("/dev").open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    client.send(Frame::new(BINARY, [0xff, 0xfe, 0])).await;
    assert_eq!(backend.request("/default").await.text(), "//4A");
    assert_eq!(client.next_text().await, "got it");
    let path = format!("/dev/@connections/{id}");
    for (kind, opcode) in [("application/octet-stream", BINARY), ("application/json", TEXT)] {
        assert_eq!(gateway.call("POST", &path, &[("Content-Type", kind)], b"x").await.status, 200);
        assert_eq!(client.next_frame().await.expect("a frame").opcode, opcode, "{kind}");
    }
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 309, 313
#[tokio::test]
async fn frames_from_the_gateway_are_text_unmasked_and_pongs_are_ignored() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    for payload in ["", "unasked", "x"] {
        client.send(Frame::new(PONG, payload)).await;
    }
    client.expect_silence().await;
    assert_eq!(gateway.post(&id, "pushed").await.status, 200);
    let pushed = client.next_frame().await.expect("a frame");
    let text = |payload: &str| Frame { masked: false, ..Frame::text(payload) };
    assert_eq!(pushed, text("pushed"));
    client.send_text("asked").await;
    assert_eq!(client.next_frame().await.expect("a frame"), text("asked"));
    backend.on("/default", Reply::raw(""));
    client.send_text("failing").await;
    let failed = client.next_frame().await.expect("a frame");
    assert_eq!((failed.opcode, failed.fin, failed.masked, failed.rsv), (TEXT, true, false, 0));
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 310
#[tokio::test]
async fn the_gateway_says_nothing_by_itself_for_a_minute() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let said = client.stay_silent_for(std::time::Duration::from_secs(60)).await;
    assert_eq!(said, None);
    client.ping().await;
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 311
#[tokio::test]
async fn a_ping_is_answered_with_its_payload() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    for payload in [Vec::new(), b"p".to_vec(), vec![0xff; 125]] {
        client.send(Frame::new(PING, &payload)).await;
        let pong = client.next_frame().await.expect("a pong");
        assert_eq!((pong.opcode, pong.payload), (PONG, payload));
    }
    backend.no_more("/default").await;
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 314
#[tokio::test]
async fn a_close_frame_is_echoed() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for (code, reason) in [(4000, "x"), (1000, ""), (1001, "gehe fort ü"), (3000, &*"y".repeat(123)), (4999, "z")] {
        gateway.client("/dev").open().await.close(code, reason).await;
    }
    let mut client = gateway.client("/dev").open().await;
    client.send(Frame::new(CLOSE, "")).await;
    assert_eq!(client.next_frame().await.expect("an echo").payload, b"", "a close without code is echoed without");
    client.expect_end().await;
    drop(client);
    gateway.finish().await;
}

// checklist: 315
#[tokio::test]
async fn a_close_code_that_must_not_be_sent_closes_with_1002() {
    let mut cases = vec![("half a code", Frame::new(CLOSE, [3]).encode(), 1002)];
    for code in [0, 999, 1004, 1005, 1006, 1015, 5000, 65535] {
        cases.push(("a code not for the wire", Frame::close(code, "").encode(), 1002));
    }
    assert_closes(&cases).await;
}

#[tokio::test]
async fn messages_before_a_close_frame_are_served_and_none_after_it() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let all = [Frame::text("before").encode(), Frame::close(1000, "").encode(), Frame::text("after").encode()].concat();
    client.send_raw(all).await;
    assert_eq!(backend.request("/default").await.text(), "before");
    let mut frame = client.next_frame().await.expect("the echo");
    if frame.opcode == TEXT {
        assert_eq!(frame.into_text(), "before", "an answer that was faster than the close frame");
        frame = client.next_frame().await.expect("the echo");
    }
    assert_eq!(frame.close_reason().0, Some(1000), "an answer that comes later is dropped");
    client.expect_end().await;
    drop(client);
    backend.no_more("/default").await;
    gateway.finish().await;
}
