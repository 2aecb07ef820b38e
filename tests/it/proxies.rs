//! Who the client is behind proxies, and who is not believed.

use std::time::Duration;

use causeway::config::Settings;
use causeway::server::{ForwardedHeader, Networks};

use crate::support::{Backend, Connect, Recorded, TestGateway, Wire, eventually, read_answer, within};

const API: &str = "
apiId: fronted
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $connect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/connect
      requestParameters:
        integration.request.header.connectionId: context.connectionId
        integration.request.header.source: context.identity.sourceIp
";

fn trusting(networks: &'static str) -> impl FnOnce(&mut Settings) + 'static {
    move |settings| settings.proxies.trusted = Networks::parse(networks).unwrap()
}

fn with_protocol(networks: &'static str) -> impl FnOnce(&mut Settings) + 'static {
    move |settings| {
        trusting(networks)(settings);
        settings.proxies.is_protocol_on = true;
    }
}

async fn start(backend: &Backend, change: impl FnOnce(&mut Settings) + 'static) -> TestGateway {
    TestGateway::builder().routes_yaml(API).backend(backend).settings(change).start().await
}

/// The client that a `$connect` back-end sees: address, chain, scheme, port.
fn seen(request: &Recorded) -> [String; 4] {
    ["source", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port"]
        .map(|name| request.header(name).unwrap_or_default().to_owned())
}

/// Connects and hangs up; what the back-end saw.
async fn connects(gateway: &TestGateway, backend: &Backend, with: impl FnOnce(Connect) -> Connect) -> [String; 4] {
    let before = backend.of("/connect").len();
    let client = with(gateway.client("/dev")).open().await;
    let requests = backend.of("/connect");
    assert_eq!(requests.len(), before + 1);
    drop(client);
    gateway.is_empty().await;
    seen(&requests[before])
}

/// A header of version 2 over IPv4, for a client at 192.0.2.1 that connected to port 443; `more` behind the addresses.
fn v2(command: u8, more: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 0x13, 0x88, 0x01, 0xbb];
    let length = u16::try_from(addresses.len() + more.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, 0x11], &length, &addresses, more].concat()
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n";
const SSL: [u8; 8] = [0x20, 0, 5, 1, 0, 0, 0, 0];

#[tokio::test]
async fn a_proxy_header_of_any_form_names_the_client() {
    let backend = Backend::start().await;
    let gateway = start(&backend, with_protocol("127.0.0.0/8")).await;
    let expected = |scheme: &str| ["192.0.2.1", "192.0.2.1", scheme, "443"].map(str::to_owned);
    for header in [V1.to_vec(), v2(1, b"")] {
        assert_eq!(connects(&gateway, &backend, |c| c.after([&header])).await, expected("http"));
        // Byte by byte, and the request right behind it.
        assert_eq!(connects(&gateway, &backend, |c| c.after(header.chunks(1))).await, expected("http"));
    }
    assert_eq!(connects(&gateway, &backend, |c| c.after([v2(1, &SSL)])).await, expected("https"));
    let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 5000 8443\r\n";
    let seen = connects(&gateway, &backend, |c| c.after([six])).await;
    assert_eq!(seen, ["2001:db8::1", "2001:db8::1", "http", "8443"]);
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 5000 443\r\n";
    assert_eq!(connects(&gateway, &backend, |c| c.after([mapped])).await, expected("http"));
    assert_eq!(gateway.metric(r#"causeway_proxy_headers_total{result="ok"}"#).await, 7);
    gateway.finish().await;
}

#[tokio::test]
async fn a_proxy_header_comes_before_tls() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder()
        .routes_yaml(API)
        .backend(&backend)
        .settings(with_protocol("127.0.0.1"))
        .tls()
        .start()
        .await;
    for header in [V1.to_vec(), v2(1, b"")] {
        let seen = connects(&gateway, &backend, |c| c.after([&header])).await;
        assert_eq!(seen, ["192.0.2.1", "192.0.2.1", "https", "443"]);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn the_proxys_own_connections_are_its_own() {
    let backend = Backend::start().await;
    let gateway = start(&backend, with_protocol("127.0.0.1")).await;
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), v2(0, b"")] {
        let seen = connects(&gateway, &backend, |c| c.after([&header]).header("X-Forwarded-For", "192.0.2.9")).await;
        assert_eq!((seen[0].as_str(), seen[1].as_str()), ("127.0.0.1", "192.0.2.9, 127.0.0.1"));
        // A health check says nothing else and goes.
        drop(gateway.client("/dev").after([&header]).dial().await);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn places_are_counted_for_the_real_client() {
    let backend = Backend::start().await;
    let gateway = start(&backend, |settings| {
        with_protocol("127.0.0.1")(settings);
        settings.max_sessions_per_address = 1;
    })
    .await;
    let from = |address: &str| gateway.client("/dev").after([format!("PROXY TCP4 {address} 198.51.100.2 5 443\r\n")]);
    let first = from("192.0.2.1").open().await;
    assert_eq!(from("192.0.2.1").refused().await.status, 503);
    let second = from("192.0.2.2").open().await;
    drop((first, second));
    gateway.is_empty().await;
    eventually("the places to be free", || gateway.app().gateway().sessions_of([192, 0, 2, 1].into()) == 0).await;
    drop(from("192.0.2.1").open().await);
    gateway.finish().await;
}

/// Whether a connection ends without a byte of an answer.
async fn is_hung_up_on(mut wire: Wire) -> bool {
    !wire.read_more().await && wire.buffer.is_empty()
}

#[tokio::test]
async fn who_does_not_come_through_a_proxy_is_hung_up_on() {
    let backend = Backend::start().await;
    let gateway = start(&backend, with_protocol("10.0.0.0/8,2001:db8::/32")).await;
    for connect in [gateway.client("/dev"), gateway.client("/dev").after([V1])] {
        assert!(is_hung_up_on(connect.begin().await.wire).await);
    }
    assert_eq!(gateway.metric(r#"causeway_proxy_headers_total{result="refused"}"#).await, 2);
    assert!(backend.of("/connect").is_empty());
    gateway.finish().await;
}

#[tokio::test]
async fn a_connection_without_a_sound_header_is_hung_up_on() {
    let backend = Backend::start().await;
    let gateway = start(&backend, |settings| {
        with_protocol("127.0.0.1")(settings);
        settings.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    let too_long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 300], b"\r\n"].concat();
    let large = v2(1, &[4; 600]);
    let headers: [&[u8]; 5] = [b"", b"PROXY TCP4 nobody\r\n", &too_long, &large, &v2(3, b"")];
    for header in headers {
        assert!(is_hung_up_on(gateway.client("/dev").after([header]).begin().await.wire).await);
    }
    // Half of one, and silence: as long as a handshake may take.
    for half in [&V1[..20], b""] {
        assert!(is_hung_up_on(gateway.client("/dev").after([half]).dial().await).await);
    }
    assert_eq!(gateway.metric(r#"causeway_proxy_headers_total{result="failed"}"#).await, 7);
    assert!(backend.of("/connect").is_empty());
    gateway.finish().await;
}

#[tokio::test]
async fn forwarded_addresses_are_believed_from_trusted_networks_only() {
    let backend = Backend::start().await;
    let spoofed = |c: Connect| {
        c.header("X-Forwarded-For", "9.9.9.9, 192.0.2.1")
            .header("x-forwarded-for", "10.0.0.2")
            .header("X-Forwarded-Proto", "https")
            .header("Forwarded", "for=6.6.6.6")
    };
    let gateway = start(&backend, trusting("127.0.0.1,10.0.0.0/8")).await;
    let seen = connects(&gateway, &backend, spoofed).await;
    assert_eq!(seen, ["192.0.2.1", "9.9.9.9, 192.0.2.1", "https", "443"]);
    let seen = connects(&gateway, &backend, |c| c.header("X-Forwarded-For", "unknown")).await;
    assert_eq!((seen[0].as_str(), seen[1].as_str()), ("127.0.0.1", "unknown, 127.0.0.1"));
    let flood = "10.0.0.2,".repeat(1_500);
    let seen = connects(&gateway, &backend, |c| c.header("X-Forwarded-For", &format!("{flood}192.0.2.1"))).await;
    assert_eq!(seen[0], "192.0.2.1");
    gateway.finish().await;

    let gateway = start(&backend, trusting("10.0.0.0/8")).await;
    let seen = connects(&gateway, &backend, spoofed).await;
    assert_eq!((seen[0].as_str(), seen[2].as_str()), ("127.0.0.1", "http"));
    assert_eq!(seen[1], "9.9.9.9, 192.0.2.1, 10.0.0.2, 127.0.0.1");
    gateway.finish().await;
}

#[tokio::test]
async fn forwarded_is_believed_where_the_proxies_keep_it() {
    let backend = Backend::start().await;
    let gateway = start(&backend, |settings| {
        trusting("127.0.0.1")(settings);
        settings.proxies.header = ForwardedHeader::Forwarded;
    })
    .await;
    let element = "for=9.9.9.9, for=\"[2001:db8::1]:4711\";proto=https;host=\"chat.example:8443\"";
    let seen =
        connects(&gateway, &backend, |c| c.header("X-Forwarded-For", "6.6.6.6").header("Forwarded", element)).await;
    assert_eq!(seen, ["2001:db8::1", "6.6.6.6, 2001:db8::1", "https", "8443"]);
    gateway.finish().await;
}

#[tokio::test]
async fn a_header_counts_only_if_the_client_that_the_proxy_names_is_a_proxy_too() {
    let backend = Backend::start().await;
    let gateway = start(&backend, with_protocol("127.0.0.1,10.0.0.0/8")).await;
    let forwarded = |c: Connect| c.header("X-Forwarded-For", "9.9.9.9");
    let seen = connects(&gateway, &backend, |c| forwarded(c.after([V1]))).await;
    assert_eq!((seen[0].as_str(), seen[1].as_str()), ("192.0.2.1", "9.9.9.9, 192.0.2.1"));
    let inner = b"PROXY TCP4 10.0.0.7 198.51.100.2 5000 443\r\n";
    let seen = connects(&gateway, &backend, |c| forwarded(c.after([inner]))).await;
    assert_eq!((seen[0].as_str(), seen[1].as_str()), ("9.9.9.9", "9.9.9.9"));
    gateway.finish().await;
}

/// What `GET @connections` answers to a caller who claims this much, by our own parser and by the HTTP stack.
async fn describes(gateway: &TestGateway, preamble: &[u8], claims: &[(&str, &str)]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for framing in ["Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
        let mut wire = gateway.client("/").after([preamble]).dial().await;
        let claims: String = claims.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let start = "POST /dev/@connections/AAAAAAAAAAAAAAA= HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        wire.send(format!("{start}{claims}{framing}").as_bytes()).await;
        statuses.push(within("an answer", read_answer(&mut wire)).await.map_or(0, |answer| answer.status));
    }
    statuses
}

#[tokio::test]
async fn a_claim_never_makes_a_caller_local() {
    let backend = Backend::start().await;
    let by = |address: &'static str| [("X-Forwarded-For", address)];
    // Without proxies, and from a trusted one: local is who is local all the way.
    let gateway = start(&backend, |_| ()).await;
    assert_eq!(describes(&gateway, b"", &[]).await, [410, 410]);
    assert_eq!(describes(&gateway, b"", &by("192.0.2.1")).await, [410, 410], "nobody is believed");
    gateway.finish().await;
    let gateway = start(&backend, trusting("127.0.0.1")).await;
    assert_eq!(describes(&gateway, b"", &by("127.0.0.1")).await, [410, 410]);
    for elsewhere in ["192.0.2.1", "127.0.0.1, 192.0.2.1", "unknown", "::ffff:192.0.2.1"] {
        assert_eq!(describes(&gateway, b"", &by(elsewhere)).await, [403, 403], "{elsewhere}");
    }
    gateway.finish().await;
    let gateway = start(&backend, with_protocol("127.0.0.1")).await;
    assert_eq!(describes(&gateway, V1, &[]).await, [403, 403]);
    assert_eq!(describes(&gateway, V1, &by("127.0.0.1")).await, [403, 403]);
    assert_eq!(describes(&gateway, b"PROXY UNKNOWN\r\n", &by("127.0.0.1")).await, [403, 403]);
    assert_eq!(describes(&gateway, b"PROXY TCP4 127.0.0.1 127.0.0.1 5 6\r\n", &by("127.0.0.1")).await, [410, 410]);
    gateway.finish().await;
}
