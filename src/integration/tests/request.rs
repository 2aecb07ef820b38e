//! What goes over the wire: headers, address, parameters.

use super::*;

// checklist: 145, 147, 149, 150, 151
#[tokio::test]
async fn a_proxied_message_is_the_payload_and_the_gateways_headers_alone() {
    let world = World::new();
    let backend = world.backend(|_| answer("500 Oops", "X-A: b\r\n", "down")).await;
    let payload = r#"{ "action" : "x",  "é": 1 }"#;
    let outcome = world.send(&http(true, backend.url("/ws")), &world.message(), payload).await.unwrap();
    assert_eq!((outcome.status, outcome.integration_status, &outcome.body[..]), (500, 500, &b"down"[..]));
    assert!(outcome.headers.is_empty(), "nobody sees them");

    let sent = backend.request();
    let trace = header(&sent, "X-Amzn-Trace-Id").unwrap();
    let expected = format!(
        "POST /ws HTTP/1.1\r\nHost: {}\r\nUser-Agent: AmazonAPIGateway_a1b2c3d4e5\r\nx-amzn-apigateway-api-id: a1b2c3d4e5\r\n\
         X-Amzn-Trace-Id: {trace}\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{payload}",
        backend.authority(),
        payload.len()
    );
    assert_eq!(sent, expected);
    assert!(trace.starts_with("Root=1-625d9add-") && trace.len() == 40, "{trace}");
    assert!(trace[16..].bytes().all(|b| b.is_ascii_hexdigit()), "{trace}");
    assert!(!sent.contains(CONNECTION));
}

// checklist: 146
#[tokio::test]
async fn a_proxied_connect_has_no_body_the_handshakes_headers_and_its_query() {
    let world = World::new();
    let backend = world.backend(|_| answer("204 No Content", "", "")).await;
    let outcome = world.send(&http(true, backend.url("/ws?a=1")), &world.connect(), "ignored").await.unwrap();
    assert_eq!(outcome.status, 204);

    let sent = backend.request();
    assert!(sent.starts_with("POST /ws?a=1&authToken=t%20k&tag=a&tag=b HTTP/1.1\r\n"), "{sent}");
    assert_eq!(body(&sent), "");
    assert_eq!(header(&sent, "Content-Length"), Some("0"));
    assert_eq!(header(&sent, "Host"), Some(&*backend.authority()));
    assert_eq!(header(&sent, "Sec-WebSocket-Version"), Some("13"));
    assert_eq!(header(&sent, "Sec-WebSocket-Key"), Some("BvlrrFKoKAPDYOlwBcGKWw=="));
    assert_eq!(header(&sent, "User-Agent"), Some("Mozilla/5.0"));
    assert_eq!(headers(&sent, "x-teaM").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(header(&sent, "X-Amzn-Trace-Id"), Some("Root=1-625d9ad1-37a5d33a61dd9be33ae3a247"));
    assert_eq!(header(&sent, "x-amzn-apigateway-api-id"), Some("a1b2c3d4e5"));
    let lower = sent.to_ascii_lowercase();
    assert!(!lower.contains("transfer-encoding") && !lower.contains("keep-alive"), "{sent}");
}

// checklist: 148
#[tokio::test]
async fn a_connect_without_proxy_sends_no_client_header_and_no_query() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    world.send(&http(false, backend.url("/ws")), &world.connect(), "").await.unwrap();
    let sent = backend.request();
    assert!(sent.starts_with("POST /ws HTTP/1.1\r\n"), "{sent}");
    let lower = sent.to_ascii_lowercase();
    assert!(!lower.contains("sec-websocket") && !lower.contains("x-team") && !lower.contains("mozilla"), "{sent}");
    assert_eq!(header(&sent, "User-Agent"), Some("AmazonAPIGateway_a1b2c3d4e5"));
}

// checklist: 151, 152
#[tokio::test]
async fn a_mapped_header_is_spelled_as_mapped_on_every_event() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    for proxy in [true, false] {
        let mut http = http(proxy, backend.url("/"));
        http.parameters = vec![to_header("connectionId", context("connectionId"))];
        for ctx in [world.connect(), world.message(), world.message(), world.disconnect()] {
            world.send(&http, &ctx, "{}").await.unwrap();
        }
    }
    let requests = backend.requests();
    assert_eq!(requests.len(), 8);
    for sent in requests {
        assert_eq!(header(&sent, "connectionId"), Some(CONNECTION), "{sent}");
        assert_eq!(header(&sent, "x-amzn-apigateway-api-id"), Some("a1b2c3d4e5"), "{sent}");
        assert_eq!(sent.matches(CONNECTION).count(), 1);
    }
}

// checklist: 153, 154
#[tokio::test]
async fn query_and_path_parameters_go_into_the_address_encoded() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(true, backend.url("/${stageVariables.env}/users/{id}/{name}?x=${stageVariables.none}"));
    http.parameters = vec![
        map(Destination::Query("src".into()), constant("gateway")),
        map(Destination::Query("a b".into()), constant("c&d=e#f")),
        map(Destination::Path("id".into()), context("connectionId")),
        map(Destination::Path("name".into()), body_path("$.name")),
    ];
    world.send(&http, &world.message(), r#"{"name": "../x?y"}"#).await.unwrap();
    let sent = backend.request();
    let line = "POST /production/users/L0SM9cOFvHcCIhw%3D/..%2Fx%3Fy?x=&src=gateway&a%20b=c%26d%3De%23f HTTP/1.1\r\n";
    assert!(sent.starts_with(line), "{sent}");
}

#[tokio::test]
async fn a_path_parameter_that_would_change_the_path_is_refused() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(true, backend.url("/users/{id}/admin"));
    http.parameters = vec![map(Destination::Path("id".into()), body_path("$.id"))];
    for payload in [r#"{"id": ".."}"#, r#"{"id": "."}"#, r#"{"id": ""}"#, r#"{"id": null}"#, "{}", "no json"] {
        let error = world.send(&http, &world.message(), payload).await.unwrap_err();
        assert!(matches!(&error, InvokeError::PathParameter { name } if name == "id"), "{error:?}");
    }
    assert!(backend.requests().is_empty());
}

// checklist: 155, 156, 158
#[tokio::test]
async fn parameters_come_from_every_source_and_are_left_out_without_value() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(false, backend.url("/"));
    http.parameters = vec![
        to_header("h", Source::Header("X-Team".into())),
        to_header("hh", Source::Headers("X-Team".into())),
        to_header("authToken", Source::Query("authToken".into())),
        to_header("q", Source::Query("tag".into())),
        to_header("qq", Source::Queries("tag".into())),
        to_header("payload", Source::Body),
        to_header("user", body_path("$.user.id")),
        to_header("list", body_path("$.list")),
        to_header("null", body_path("$.null")),
        to_header("stage-var", Source::StageVariable("env".into())),
        to_header("no-stage-var", Source::StageVariable("none".into())),
        to_header("when", context("requestTimeEpoch")),
        to_header("message", context("messageId")),
        to_header("nothing", context("nothing")),
        to_header("constant", constant("text")),
    ];
    world.send(&http, &world.connect(), "").await.unwrap();
    world.send(&http, &world.message(), r#"{"user":{"id":7},"list":["a",1],"null":null}"#).await.unwrap();
    let [connect, message] = backend.requests().try_into().unwrap();
    let all = |sent: &str, name: &str| headers(sent, name).map(str::to_owned).collect::<Vec<_>>();
    for (name, on_connect, on_message) in [
        ("h", &["b"][..], &[][..]),
        ("hh", &["a", "b"], &[]),
        ("authToken", &["t k"], &[]),
        ("q", &["b"], &[]),
        ("qq", &["a", "b"], &[]),
        ("payload", &[], &[r#"{"user":{"id":7},"list":["a",1],"null":null}"#]),
        ("user", &[], &["7"]),
        ("list", &[], &["[a, 1]"]),
        ("null", &[], &[]),
        ("stage-var", &["production"], &["production"]),
        ("no-stage-var", &[], &[]),
        ("when", &["1650301661112"], &["1650301661112"]),
        ("message", &[], &[MESSAGE]),
        ("nothing", &[], &[]),
        ("constant", &["text"], &["text"]),
    ] {
        assert_eq!(all(&connect, name), on_connect, "{name} on connect");
        assert_eq!(all(&message, name), on_message, "{name} on message");
    }
}

// checklist: 157
#[tokio::test]
async fn a_mapped_header_replaces_a_forwarded_and_a_gateways_one() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(true, backend.url("/"));
    http.parameters = vec![
        to_header("Sec-WebSocket-Version", constant("0")),
        to_header("X-TEAM", constant("c")),
        to_header("Content-Type", constant("text/plain")),
        to_header("Host", constant("other.example.com")),
        to_header("User-Agent", constant("mine")),
    ];
    world.send(&http, &world.connect(), "").await.unwrap();
    let sent = backend.request();
    let expected = [
        ("Sec-WebSocket-Version", "0"),
        ("X-TEAM", "c"),
        ("Content-Type", "text/plain"),
        ("Host", "other.example.com"),
        ("User-Agent", "mine"),
    ];
    for (name, value) in expected {
        assert_eq!(header(&sent, name), Some(value), "{sent}");
    }
    assert_eq!(sent.to_ascii_lowercase().matches("x-team:").count(), 1, "{sent}");
}

#[tokio::test]
async fn a_client_cannot_write_headers_or_framing_through_a_mapping() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(true, backend.url("/{p}"));
    http.parameters = vec![
        to_header("X-Mapped", body_path("$.evil")),
        to_header("Content-Length", constant("3")),
        to_header("Transfer-Encoding", constant("chunked")),
        to_header("Connection", constant("close")),
        to_header("Upgrade", constant("h2c")),
        map(Destination::Path("p".into()), body_path("$.evil")),
        map(Destination::Query("q".into()), body_path("$.evil")),
    ];
    let payload = r#"{"evil": "a\r\nX-Evil: 1\r\n\r\nGET / HTTP/1.1"}"#;
    world.send(&http, &world.message(), payload).await.unwrap();
    let sent = backend.request();
    let head = sent.split("\r\n\r\n").next().unwrap();
    assert_eq!(body(&sent), payload);
    assert!(!head.contains("X-Evil: ") && !head.contains("X-Mapped"), "{sent}");
    assert_eq!(header(&sent, "Content-Length"), Some(&*payload.len().to_string()));
    let lower = head.to_ascii_lowercase();
    assert!(!lower.contains("transfer-encoding") && !lower.contains("\r\nconnection") && !lower.contains("upgrade"));
}

#[tokio::test]
async fn get_sends_the_headers_and_no_payload() {
    let world = World::new();
    let backend = world.backend(|_| ok("got")).await;
    for proxy in [true, false] {
        let mut http = http(proxy, backend.url("/"));
        http.method = Method::GET;
        assert_eq!(world.send(&http, &world.message(), "{}").await.unwrap().body, "got");
    }
    for sent in backend.requests() {
        assert!(sent.starts_with("GET / HTTP/1.1\r\n") && sent.ends_with("\r\n\r\n"), "{sent}");
        assert!(!sent.to_ascii_lowercase().contains("content-length"), "{sent}");
    }
}

#[tokio::test]
async fn a_disconnect_has_no_body() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    world.send(&http(true, backend.url("/")), &world.disconnect(), "ignored").await.unwrap();
    assert_eq!(body(&backend.request()), "");
}
