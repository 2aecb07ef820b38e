//! Hostile and broken peers: a clear error for them, nothing lost, and neighbours who do not notice.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Backend, Client, Frame, PATIENCE, Reply, TestGateway, eventually, read_answer, within};

const API: &str = "
apiId: tough
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  echo:
    routeResponseSelectionExpression: $default
    integration: {integrationType: MOCK, integrationResponses: {$default: {responseTemplates: {$default: $input.body}}}}
  call:
    routeResponseSelectionExpression: $default
    integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/call', timeoutInMillis: 300}
  $disconnect:
    integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/disconnect'}
";

async fn start(backend: &Backend) -> TestGateway {
    TestGateway::builder()
        .routes_yaml(API)
        .backend(backend)
        .settings(|settings| settings.handshake_timeout = Duration::from_millis(300))
        .start()
        .await
}

/// A neighbour that is served while the others misbehave.
struct Neighbour(Client);

impl Neighbour {
    async fn of(gateway: &TestGateway) -> Self {
        Self(gateway.client("/dev").open().await)
    }

    /// Is served, and soon.
    async fn is_fine(&mut self) {
        let message = r#"{"action":"echo","n":1}"#;
        let started = Instant::now();
        assert_eq!(self.0.ask(message).await, message);
        assert!(started.elapsed() < PATIENCE / 4, "{:?}", started.elapsed());
    }

    async fn leave(mut self) {
        self.is_fine().await;
        self.0.close(1000, "").await;
    }
}

#[tokio::test]
async fn messages_that_are_no_sound_json_are_refused_and_the_session_stays() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let deep = "[".repeat(600);
    let deep_objects = r#"{"a":"#.repeat(600);
    let huge_key = json!({"k".repeat(30_000): 1}).to_string();
    let many = format!("{{{}\"z\":1}}", r#""a":1,"#.repeat(4_000));
    for message in [
        "",
        " ",
        "hello",
        "{",
        "}",
        "[",
        "{\"action\"",
        r#"{"action":"#,
        r#"{"action":"\x"}"#,
        "{\"action\":\"\u{1}\"}",
        r#"{"action":"\ud800"}"#,
        r#"{"action":1e999999}"#,
        "NaN",
        "\u{feff}{}",
        "nul",
        &deep,
        &deep_objects,
        &huge_key,
        &many,
        r#"{"action":["echo"]}"#,
        r#"{"action":{"echo":1}}"#,
        r#"{"action":"echo"}{"action":"echo"}"#,
    ] {
        client.send_text(message).await;
        client.expect_error("Forbidden").await;
    }
    let message = r#"{"action":"echo"}"#;
    assert_eq!(client.ask(message).await, message);
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn whatever_bytes_a_session_says_it_ends_and_the_neighbour_does_not_notice() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut neighbour = Neighbour::of(&gateway).await;
    let mut state = 1_u32;
    for length in (1..60).map(|n| n * n) {
        let mut garbage = vec![0; length];
        for byte in &mut garbage {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        for offer in [None, Some("permessage-deflate")] {
            let connect = gateway.client("/dev");
            let connect = match offer {
                Some(offer) => connect.offer(offer),
                None => connect,
            };
            let mut client = connect.open().await;
            client.send_raw(&garbage).await;
        }
        neighbour.is_fine().await;
    }
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn half_open_sessions_are_let_go() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut neighbour = Neighbour::of(&gateway).await;
    // The client has shut its sending side and reads on.
    let mut half = gateway.client("/dev").open().await;
    half.wire.shut_down_sending().await;
    half.expect_end().await;
    backend.request("/disconnect").await;
    // In the middle of a message.
    let mut half = gateway.client("/dev").open().await;
    half.send_raw(&Frame::text("x".repeat(1_000)).encode()[..500]).await;
    half.wire.shut_down_sending().await;
    half.expect_end().await;
    backend.request("/disconnect").await;
    neighbour.is_fine().await;
    drop(half);
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut neighbour = Neighbour::of(&gateway).await;
    let request = gateway.client("/dev").request();
    for sent in [0, 1, 10, request.len() - 1] {
        let mut wire = gateway.client("/dev").dial().await;
        wire.send(&request[..sent]).await;
        neighbour.is_fine().await;
        let answer = read_answer(&mut wire).await;
        assert_eq!(answer.map(|answer| answer.status), (sent > 0).then_some(408), "after {sent} bytes");
    }
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_client_that_trickles_its_handshake_is_cut_off_in_time() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let neighbour = Neighbour::of(&gateway).await;
    let mut wire = gateway.client("/dev").dial().await;
    let started = Instant::now();
    let answer = within("the end of patience", async {
        let mut bytes = b"GET /dev HTTP/1.1\r\nX-Slow: ".to_vec();
        bytes.resize(10_000, b'a');
        for byte in bytes {
            wire.send(&[byte]).await;
            if tokio::time::timeout(Duration::from_millis(20), wire.read_more_at_leisure()).await.is_ok() {
                break;
            }
        }
        read_answer(&mut wire).await
    })
    .await;
    assert_eq!(answer.expect("an answer").status, 408, "each byte is not a new deadline");
    assert!(started.elapsed() >= Duration::from_millis(290));
    drop(wire);
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_session_that_trickles_is_served_when_its_message_is_whole() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut neighbour = Neighbour::of(&gateway).await;
    let mut client = gateway.client("/dev").open().await;
    let message = r#"{"action":"echo"}"#;
    for byte in Frame::text(message).encode() {
        client.send_raw([byte]).await;
        neighbour.is_fine().await;
    }
    assert_eq!(client.next_text().await, message);
    client.close(1000, "").await;
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn floods_of_headers_are_refused() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let neighbour = Neighbour::of(&gateway).await;
    let mut many = gateway.client("/dev");
    for n in 0..200 {
        many = many.header(&format!("X-{n}"), "v");
    }
    let large = gateway.client("/dev").header("X-Large", &"x".repeat(20_000));
    for connect in [many, large] {
        let answer = connect.refused().await;
        assert_eq!((answer.status, answer.json()["message"].clone()), (431, json!("Request Header Fields Too Large")));
    }
    // One that never ends.
    let mut wire = gateway.client("/dev").dial().await;
    wire.send(b"GET /dev HTTP/1.1\r\n").await;
    for _ in 0..2_000 {
        wire.send(b"X-Again: and again\r\n").await;
    }
    assert_eq!(read_answer(&mut wire).await.map(|answer| answer.status), Some(431));
    drop(wire);
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_no_request_is_a_bad_request() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut neighbour = Neighbour::of(&gateway).await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /dev HTTP/9.9\r\n\r\n",
        b"GET /dev HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /dev HTTP/1.1\r\nX: a\0b\r\n\r\n",
        b"\r\n\0\0\0\0\r\n\r\n",
        b"GET /de\xffv HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut wire = gateway.client("/dev").dial().await;
        wire.send(bytes).await;
        let answer = read_answer(&mut wire).await.expect("an answer");
        assert!((400..500).contains(&answer.status), "{bytes:?}: {answer:?}");
        neighbour.is_fine().await;
    }
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn thousands_of_abandoned_handshakes_leave_nothing_behind() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut neighbour = Neighbour::of(&gateway).await;
    let request = gateway.client("/dev").request();
    for n in 0..10_000 {
        let mut wire = gateway.client("/dev").dial().await;
        wire.send(&request[..n % request.len()]).await;
        drop(wire);
        if n % 1_000 == 0 {
            neighbour.is_fine().await;
        }
    }
    // Those among them that were whole were sessions for a moment.
    eventually("the last of them to be gone", || gateway.stats().open == 1).await;
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_broken_backend_is_an_error_frame_and_the_session_stays() {
    let backend = Backend::start().await;
    let patient = API.replace("timeoutInMillis: 300", "timeoutInMillis: 3000");
    let gateway = TestGateway::builder().routes_yaml(&patient).backend(&backend).start().await;
    let mut neighbour = Neighbour::of(&gateway).await;
    let mut client = gateway.client("/dev").open().await;
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 10 << 20, "x".repeat(10 << 20));
    let endless_head = format!("HTTP/1.1 200 OK\r\n{}", "X-Again: and again\r\n".repeat(50_000));
    let bad_length = "HTTP/1.1 200 OK\r\nContent-Length: minus one\r\n\r\n";
    let bad_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
    for (what, reply, message) in [
        ("closes at once", Reply::raw(""), "Internal server error"),
        ("garbage", Reply::raw([0xff; 100]), "Internal server error"),
        ("not HTTP", Reply::raw("220 smtp ready\r\n"), "Internal server error"),
        ("half a head", Reply::raw("HTTP/1.1 200 OK\r\nX-A: 1"), "Internal server error"),
        ("a head without end", Reply::raw(&endless_head), "Internal server error"),
        ("closes midway", Reply::ok("half of it").midway(), "Internal server error"),
        ("no length", Reply::raw(bad_length), "Internal server error"),
        ("no chunk", Reply::raw(bad_chunk), "Internal server error"),
        ("10 MB", Reply::raw(&large), "Internal server error"),
        ("hangs", Reply::hang(), "Endpoint request timed out"),
    ] {
        backend.on("/call", reply);
        client.send_text(r#"{"action":"call"}"#).await;
        let frame = client.next_json().await;
        assert_eq!(frame["message"], message, "{what}");
        neighbour.is_fine().await;
    }
    backend.on("/call", Reply::ok("well again"));
    assert_eq!(client.ask(r#"{"action":"call"}"#).await, "well again");
    client.close(1000, "").await;
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_slow_backend_holds_up_nobody_but_who_asked() {
    let backend = Backend::start().await;
    backend.on("/call", Reply::hang());
    let gateway = TestGateway::builder()
        .routes_yaml(&API.replace("timeoutInMillis: 300", "timeoutInMillis: 3000"))
        .backend(&backend)
        .settings(|settings| settings.max_concurrency_per_upstream = 2)
        .start()
        .await;
    let mut neighbour = Neighbour::of(&gateway).await;
    let mut client = gateway.client("/dev").open().await;
    for _ in 0..20 {
        client.send_text(r#"{"action":"call"}"#).await;
    }
    neighbour.is_fine().await;
    let mut messages = Vec::new();
    for _ in 0..20 {
        messages.push(client.next_json().await["message"].as_str().unwrap().to_owned());
    }
    let timed_out = messages.iter().filter(|message| *message == "Endpoint request timed out").count();
    let busy = messages.iter().filter(|message| *message == "Internal server error").count();
    assert_eq!((timed_out, busy), (2, 18), "two at once, and no queue without end: {messages:?}");
    client.close(1000, "").await;
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_is_paused_not_held() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut neighbour = Neighbour::of(&gateway).await;
    let mut greedy = gateway.client("/dev").small_receive_buffer().open().await;
    let question = Frame::text(json!({"action": "echo", "x": "y".repeat(30_000)}).to_string()).encode();
    let sent = greedy.wire.send_until_stuck(&question, Duration::from_millis(300)).await;
    assert!(gateway.stats().budget_used < 4 << 20, "after {sent} bytes: {:?}", gateway.stats());
    neighbour.is_fine().await;
    drop(greedy);
    eventually("what it held to be given back", || gateway.stats().budget_used == 0).await;
    neighbour.leave().await;
    gateway.finish().await;
}

#[tokio::test]
async fn partial_messages_are_charged_and_given_back() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut neighbour = Neighbour::of(&gateway).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.client("/dev").open().await;
        client.send(Frame::text("x".repeat(30_000)).unfinished()).await;
        clients.push(client);
    }
    eventually("the parts to be charged", || gateway.stats().budget_used >= 20 * 30_000).await;
    neighbour.is_fine().await;
    drop(clients);
    eventually("the parts to be given back", || gateway.stats().budget_used == 0).await;
    neighbour.leave().await;
    gateway.finish().await;
}
