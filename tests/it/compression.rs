//! `permessage-deflate` (specification 13.6).

use crate::support::{Backend, CONTINUATION, Client, Frame, PING, Reply, TEXT, TestGateway, deflate, inflate};

const API: &str = "
apiId: packed
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

const RSV1: u8 = 4;
const OFFER: &str = "permessage-deflate; client_max_window_bits";

async fn start(backend: &Backend) -> TestGateway {
    backend.on_each("/default", |request| Reply::ok(&request.body));
    TestGateway::builder().routes_yaml(API).backend(backend).start().await
}

fn agreed(client: &Client) -> Vec<String> {
    let header = client.answer.header("sec-websocket-extensions").unwrap_or_default();
    let mut parts: Vec<String> = header.split(';').map(|part| part.trim().to_owned()).collect();
    parts[1..].sort();
    parts
}

/// The next message, compressed or not, and whether it was.
async fn next(client: &mut Client, window_bits: u32) -> (Vec<u8>, bool) {
    let (mut payload, mut packed) = (Vec::new(), None);
    loop {
        let frame = client.next_frame().await.expect("a message, not the end");
        let first = packed.is_none();
        assert_eq!(frame.opcode, if first { TEXT } else { CONTINUATION });
        assert!(first || frame.rsv == 0, "only the first frame says so: {frame:?}");
        packed.get_or_insert(frame.rsv == RSV1);
        assert!(frame.rsv & !RSV1 == 0 && frame.payload.len() <= 32_768);
        payload.extend(frame.payload);
        if frame.fin {
            break;
        }
    }
    let packed = packed == Some(true);
    (if packed { inflate(&payload, window_bits).unwrap() } else { payload }, packed)
}

/// Text that compresses, and whose repeats are farther apart than `distance` bytes.
fn repeating(distance: usize, length: usize) -> String {
    let mut state = 7_u32;
    let block: String = (0..distance)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + (state >> 24) as u8 % 16)
        })
        .collect();
    block.repeat(length / distance + 1)[..length].to_owned()
}

// checklist: 316
#[tokio::test]
async fn a_browsers_offer_is_taken_and_compressed_messages_are_understood() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").offer(OFFER).open().await;
    assert_eq!(agreed(&client), ["permessage-deflate", "client_no_context_takeover", "server_no_context_takeover"]);
    let id = backend.request("/connect").await.connection_id().to_owned();
    for text in ["short".to_owned(), String::new(), repeating(100, 30_000), repeating(1_000, 131_072)] {
        let packed = deflate(text.as_bytes());
        assert!(packed.len() <= 32_768);
        client.send(Frame::text(&packed).with_rsv(RSV1)).await;
        assert_eq!(backend.request("/default").await.text(), text);
        let (answer, was_packed) = next(&mut client, 15).await;
        assert!(answer == text.as_bytes(), "{} bytes", text.len());
        assert_eq!(was_packed, text.len() > 1_000, "large answers that shrink are compressed");
    }
    client.send_text("plain").await;
    assert_eq!(next(&mut client, 15).await.0, b"plain", "a message need not be compressed");
    let pushed = repeating(500, 50_000);
    assert_eq!(gateway.post(&id, &pushed).await.status, 200);
    assert!(next(&mut client, 15).await.0 == pushed.as_bytes());
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_compressed_message_may_come_in_fragments_and_pieces() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").offer(OFFER).open().await;
    let text = repeating(300, 5_000);
    let packed = deflate(text.as_bytes());
    let (a, b) = packed.split_at(packed.len() / 2);
    let ping = Frame::new(PING, "").encode();
    let bytes =
        [Frame::text(a).with_rsv(RSV1).unfinished().encode(), ping, Frame::new(CONTINUATION, b).encode()].concat();
    for piece in bytes.chunks(37) {
        client.send_raw(piece).await;
    }
    assert_eq!(backend.request("/default").await.text(), text);
    assert_eq!(client.next_frame().await.expect("a pong").opcode, crate::support::PONG);
    assert!(next(&mut client, 15).await.0 == text.as_bytes());
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 317
#[tokio::test]
async fn a_smaller_window_is_agreed_on_and_kept_to() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for bits in [9, 10, 12, 14] {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}; client_max_window_bits=12");
        let mut client = gateway.client("/dev").offer(&offer).open().await;
        let expected = [
            "permessage-deflate".to_owned(),
            "client_no_context_takeover".to_owned(),
            "server_no_context_takeover".to_owned(),
            format!("server_max_window_bits={bits}"),
        ];
        let mut expected = expected.to_vec();
        expected[1..].sort();
        assert_eq!(agreed(&client), expected);
        for distance in [100, 600, 3_000, 5_000, 20_000] {
            let text = repeating(distance, 60_000);
            backend.on("/default", Reply::ok(&text));
            client.send_text("{}").await;
            assert!(next(&mut client, bits).await.0 == text.as_bytes(), "{bits} bits, {distance} apart");
        }
        client.close(1000, "").await;
    }
    gateway.finish().await;
}

#[test]
fn this_harness_sees_a_reference_beyond_the_window() {
    let text = repeating(5_000, 60_000);
    let far = deflate(text.as_bytes());
    assert!(inflate(&far, 15).unwrap() == text.as_bytes());
    assert!(inflate(&far, 12).is_err());
}

#[tokio::test]
async fn an_offer_that_cannot_be_met_is_declined() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for offer in [
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; unknown",
        "permessage-deflate; client_max_window_bits=99",
    ] {
        let mut client = gateway.client("/dev").offer(offer).open().await;
        assert_eq!(client.answer.header("sec-websocket-extensions"), None, "{offer}");
        assert_eq!(client.ask("{}").await, "{}");
        client.close(1000, "").await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn an_api_may_decline_compression() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder()
        .routes_yaml(&API.replace("stages:", "compression: false\nstages:"))
        .backend(&backend)
        .start()
        .await;
    let mut client = gateway.client("/dev").offer(OFFER).open().await;
    assert_eq!(client.answer.header("sec-websocket-extensions"), None);
    client.send(Frame::text(deflate(b"{}")).with_rsv(RSV1)).await;
    assert_eq!(client.expect_close().await.0, Some(1002));
    gateway.finish().await;
}

// checklist: 318
#[tokio::test]
async fn a_bomb_closes_with_1009() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for size in [131_073, 20_000_000] {
        let mut client = gateway.client("/dev").offer(OFFER).open().await;
        let packed = deflate(&vec![b'x'; size]);
        assert!(packed.len() <= 32_768, "one frame is enough: {}", packed.len());
        client.send(Frame::text(&packed).with_rsv(RSV1)).await;
        assert_eq!(client.expect_close().await.0, Some(1009));
    }
    backend.no_more("/default").await;
    gateway.finish().await;
}

// checklist: 319
#[tokio::test]
async fn bits_that_were_not_agreed_on_and_garbage_close() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let plain = gateway.client("/dev");
    let packed = gateway.client("/dev").offer(OFFER);
    let continued = [Frame::text("a").unfinished().encode(), Frame::new(CONTINUATION, "b").with_rsv(RSV1).encode()];
    for (connect, bytes, codes) in [
        (&plain, Frame::text(deflate(b"{}")).with_rsv(RSV1).encode(), [1002, 1002]),
        (&packed, Frame::text("{}").with_rsv(2).encode(), [1002, 1002]),
        (&packed, Frame::new(PING, "").with_rsv(RSV1).encode(), [1002, 1002]),
        (&packed, continued.concat(), [1002, 1002]),
        (&packed, Frame::text([0xff; 20]).with_rsv(RSV1).encode(), [1007, 1002]),
        (&packed, Frame::text(deflate(&[0xff, 0xfe])).with_rsv(RSV1).encode(), [1007, 1007]),
    ] {
        let mut client = connect.open().await;
        client.send_raw(bytes).await;
        let code = client.expect_close().await.0.expect("a code");
        assert!(codes.contains(&code), "{code} is not one of {codes:?}");
    }
    backend.no_more("/default").await;
    gateway.finish().await;
}
