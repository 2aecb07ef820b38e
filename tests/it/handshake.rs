//! Addresses, the 101, what a `$connect` integration sees, subprotocols (specification 1).

use crate::support::{Backend, FIXED_KEY, Recorded, Reply, TestGateway};

/// A back-end behind `$connect`, with what only mappings show.
const ORDERS: &str = "
apiId: orders
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}, prod: {}}
domains:
  - {domainName: ws.example.com, apiMappingKey: chat, stage: prod}
  - {domainName: root.example.com, stage: prod}
routes:
  $connect:
    routeResponseSelectionExpression: $default
    requestParameters:
      route.request.querystring.a: {required: false}
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/connect
      requestParameters:
        integration.request.header.connectionId: context.connectionId
        integration.request.header.domain: context.domainName
        integration.request.header.stage: context.stage
        integration.request.header.last-a: route.request.querystring.a
        integration.request.header.all-a: route.request.multivaluequerystring.a
        integration.request.header.last-b: route.request.querystring.b
        integration.request.header.all-b: route.request.multivaluequerystring.b
        integration.request.header.last-team: route.request.header.X-TeamName
        integration.request.header.all-team: route.request.multivalueheader.X-TeamName
";

const OTHER: &str = "
apiId: other
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
disableExecuteApiEndpoint: true
stages: {dev: {}}
domains:
  - {domainName: other.example.com, stage: dev}
routes:
  $default: {integration: {integrationType: MOCK}}
";

async fn start(backend: &Backend) -> TestGateway {
    TestGateway::builder().routes_yaml(ORDERS).backend(backend).start().await
}

// checklist: 8, 9
#[tokio::test]
async fn a_stage_is_reached_with_and_without_its_last_slash() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for path in ["/dev", "/dev/", "/prod", "/prod/?a=1", "/dev?"] {
        let client = gateway.client(path).open().await;
        assert_eq!(client.answer.status, 101, "{path}");
        client.close(1000, "").await;
    }
    gateway.finish().await;
}

// checklist: 10, 11, 12, 13
#[tokio::test]
async fn an_address_that_leads_nowhere_is_forbidden_and_calls_nothing() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for path in ["/DEV", "/Dev", "/", "/test", "/dev/extra", "/dev//", "//dev", "/dev/extra?a=1", "/%64ev", "/orders/x"]
    {
        let answer = gateway.client(path).refused().await;
        assert_eq!((answer.status, answer.text()), (403, r#"{"message":"Forbidden"}"#), "{path}");
        assert_eq!(answer.header("x-amzn-ErrorType"), Some("ForbiddenException"), "{path}");
    }
    backend.no_more("/connect").await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_api_is_found_by_host_by_path_or_by_being_alone() {
    let backend = Backend::start().await;
    let two = TestGateway::builder().routes_yaml(ORDERS).routes_file("chat.yaml").backend(&backend).start().await;
    for (host, path, api) in [
        ("orders.localhost", "/dev", true),
        ("chat.localhost:81", "/dev", false),
        ("127.0.0.1", "/orders/dev", true),
        ("localhost", "/chat/dev", false),
    ] {
        let client = two.client(path).host(host).open().await;
        assert_eq!(backend.of("/connect").len() % 2 == 1, api, "{host}{path}");
        client.close(1000, "").await;
        if api {
            two.client(path).host(host).open().await.close(1000, "").await;
        }
    }
    assert_eq!(two.client("/dev").refused().await.status, 403, "two APIs, and the address names none");
    two.finish().await;
}

// checklist: 15, 16
#[tokio::test]
async fn a_disabled_default_endpoint_leaves_the_domain() {
    let gateway = TestGateway::builder().routes_yaml(OTHER).start().await;
    assert_eq!(gateway.client("/dev").refused().await.status, 403);
    assert_eq!(gateway.client("/dev").host("other.localhost").refused().await.status, 403);
    let mut client = gateway.client("/").host("other.example.com").open().await;
    client.ping().await;
    let page = gateway.admin("GET", "/connections", b"").await.json();
    let id = page["connections"][0]["connectionId"].as_str().unwrap().to_owned();
    let by_default = gateway.post(&id, "x").await;
    assert_eq!((by_default.status, by_default.text()), (403, r#"{"message":"Forbidden"}"#));
    let by_domain = gateway.call("POST", &format!("/@connections/{id}"), &[("Host", "other.example.com")], b"x").await;
    assert_eq!(by_domain.status, 200);
    assert_eq!(client.next_text().await, "x");
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 17, 18, 19
#[tokio::test]
async fn a_domain_maps_its_keys_to_stages() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for (host, path) in [("ws.example.com", "/chat"), ("WS.example.com", "/chat/"), ("root.example.com", "/")] {
        let client = gateway.client(path).host(host).open().await;
        let request = backend.request("/connect").await;
        assert_eq!((request.header("domain"), request.header("stage")), (Some(host), Some("prod")));
        client.close(1000, "").await;
    }
    for (host, path) in [
        ("ws.example.com", "/prod"),
        ("ws.example.com", "/"),
        ("ws.example.com", "/Chat"),
        ("ws.example.com", "/chat/x"),
        ("root.example.com", "/prod"),
    ] {
        let answer = gateway.client(path).host(host).refused().await;
        assert_eq!((answer.status, answer.text()), (403, r#"{"message":"Forbidden"}"#), "{host}{path}");
    }
    backend.no_more("/connect").await;
    gateway.finish().await;
}

// checklist: 20, 21
#[tokio::test]
async fn callbacks_follow_the_domains_keys_too() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/chat").host("ws.example.com").open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    let post = async |host: &str, path: String| gateway.call("POST", &path, &[("Host", host)], b"hello").await;
    for (host, path) in [
        ("ws.example.com", format!("/chat/@connections/{id}")),
        ("root.example.com", format!("/@connections/{id}")),
        ("orders.localhost", format!("/prod/@connections/{id}")),
    ] {
        assert_eq!(post(host, path).await.status, 200, "{host}");
        assert_eq!(client.next_text().await, "hello");
    }
    let wrong = post("ws.example.com", format!("/prod/@connections/{id}")).await;
    assert_eq!((wrong.status, wrong.header("x-amzn-ErrorType")), (404, Some("NotFoundException")));
    let message = format!("No method found matching route prod/@connections/{id} for http method POST.");
    assert_eq!(wrong.json()["message"], message);
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 22
#[tokio::test]
async fn a_plain_get_needs_an_upgrade() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for path in ["/dev", "/dev/", "/dev/deeper"] {
        let answer = gateway.call("GET", path, &[], b"").await;
        assert_eq!((answer.status, answer.text()), (426, r#"{"message":"Upgrade Required"}"#), "{path}");
        assert_eq!(answer.header("Upgrade"), Some("websocket"), "{path}");
        assert!(answer.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{answer:?}");
    }
    assert_eq!(gateway.call("GET", "/nowhere", &[], b"").await.status, 403);
    backend.no_more("/connect").await;
    gateway.finish().await;
}

// checklist: 23, 27, 28
#[tokio::test]
async fn upgrade_words_are_read_in_any_case_and_company() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let connect = gateway.client("/dev").replace("Upgrade", "WebSocket").replace("Connection", "keep-alive, Upgrade");
    let client = connect.open().await;
    assert_eq!(client.answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.answer.header("upgrade"), Some("websocket"));
    assert!(client.answer.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert!(client.answer.header("date").is_some());
    assert_eq!(client.answer.header("sec-websocket-extensions"), None);
    assert!(client.answer.header("content-length").is_none() && client.answer.header("content-type").is_none());
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 24
#[tokio::test]
async fn another_version_is_told_the_right_one() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for connect in [
        gateway.client("/dev").replace("Sec-WebSocket-Version", "8"),
        gateway.client("/dev").without("Sec-WebSocket-Version"),
    ] {
        let answer = connect.refused().await;
        assert_eq!((answer.status, answer.header("Sec-WebSocket-Version")), (426, Some("13")));
    }
    backend.no_more("/connect").await;
    gateway.finish().await;
}

// checklist: 25
#[tokio::test]
async fn a_key_that_is_none_is_a_bad_request() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut connects = vec![gateway.client("/dev").without("Sec-WebSocket-Key")];
    for key in ["", "short", "c2hvcnQ=", "dGhlIHNhbXBsZSBub25jZQ", "!!!!!!!!!!!!!!!!!!!!!!!!"] {
        connects.push(gateway.client("/dev").replace("Sec-WebSocket-Key", key));
    }
    for connect in connects {
        let answer = connect.refused().await;
        assert_eq!((answer.status, answer.text()), (400, r#"{"message":"Bad Request"}"#), "{connect:?}");
    }
    backend.no_more("/connect").await;
    gateway.finish().await;
}

// checklist: 26
#[tokio::test]
async fn another_method_on_a_stage_is_forbidden() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = gateway.call(method, "/dev", &[], b"").await;
        assert_eq!((answer.status, answer.text()), (403, r#"{"message":"Forbidden"}"#), "{method}");
        let upgrade = gateway.client("/dev").method(method).refused().await;
        assert_eq!(upgrade.status, 403, "{method} with an upgrade");
    }
    gateway.finish().await;
}

// checklist: 29, 30
#[tokio::test]
async fn the_body_of_an_accepting_answer_stays_with_the_gateway() {
    let backend = Backend::start().await;
    backend.on("/connect", Reply::ok("welcome").header("Set-Cookie", "a=1").header("Content-Type", "text/plain"));
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    assert_eq!(client.answer.header("set-cookie"), Some("a=1"), "end-to-end headers go into the 101");
    assert_eq!(client.answer.header("content-type"), None);
    client.expect_silence().await;
    client.close(1000, "").await;
    gateway.finish().await;
}

/// The `$connect` request of a handshake.
async fn seen(connect: impl Fn(crate::support::Connect) -> crate::support::Connect, path: &str) -> Recorded {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    connect(gateway.client(path)).open().await.close(1000, "").await;
    let request = backend.request("/connect").await;
    gateway.finish().await;
    request
}

// checklist: 31
#[tokio::test]
async fn query_parameters_have_a_last_value_and_all_values_decoded() {
    let request = seen(|c| c, "/dev?a=1&a=2&b=x%20y").await;
    assert_eq!(request.target, "/connect?a=1&a=2&b=x%20y");
    assert_eq!((request.header("last-a"), request.all("all-a")), (Some("2"), vec!["1", "2"]));
    assert_eq!((request.header("last-b"), request.all("all-b")), (Some("x y"), vec!["x y"]));
    let plus = seen(|c| c, "/dev?a=x+y").await;
    assert_eq!(plus.header("last-a"), Some("x y"));
}

#[tokio::test]
async fn without_a_query_string_nothing_of_one_is_sent() {
    let request = seen(|c| c, "/dev").await;
    assert_eq!(request.target, "/connect");
    assert_eq!((request.header("last-a"), request.header("all-a")), (None, None));
}

// checklist: 33, 34
#[tokio::test]
async fn headers_keep_their_spelling_and_their_repeats() {
    let once = seen(|c| c.header("x-tEAMname", "a"), "/dev").await;
    assert_eq!((once.spelling("X-TeamName"), once.header("X-TeamName")), (Some("x-tEAMname"), Some("a")));
    assert_eq!((once.header("last-team"), once.all("all-team")), (Some("a"), vec!["a"]));
    let twice = seen(|c| c.header("X-TeamName", "a").header("X-TeamName", "b"), "/dev").await;
    assert_eq!(twice.all("X-TeamName"), ["a", "b"]);
    assert_eq!((twice.header("last-team"), twice.all("all-team")), (Some("b"), vec!["a", "b"]));
}

// checklist: 35, 36, 37
#[tokio::test]
async fn the_integration_sees_the_handshake_without_its_transport() {
    let request = seen(|c| c.header("Content-Length", "0").header("Origin", "https://app.example.com"), "/dev").await;
    for gone in ["Connection", "Upgrade"] {
        assert_eq!(request.header(gone), None, "{request:?}");
    }
    assert_eq!(request.header("Content-Length"), Some("0"), "its own, for the empty body");
    assert_eq!(request.header("Sec-WebSocket-Key"), Some(FIXED_KEY));
    assert_eq!(request.header("Sec-WebSocket-Version"), Some("13"));
    assert_eq!(request.header("Origin"), Some("https://app.example.com"));
    assert_eq!(request.header("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(request.header("X-Forwarded-Proto"), Some("http"));
    let port: u16 = request.header("X-Forwarded-Port").unwrap().parse().unwrap();
    assert!(request.header("domain").unwrap().ends_with(&format!(":{port}")));
    assert!(request.header("Host").is_some());
    let trace = request.header("X-Amzn-Trace-Id").unwrap();
    let pattern = regex::Regex::new("^Root=1-[0-9a-f]{8}-[0-9a-f]{24}").unwrap();
    assert!(pattern.is_match(trace), "{trace}");
}

#[tokio::test]
async fn a_trace_id_of_the_clients_own_is_kept() {
    let own = "Root=1-5e28883d-46b12f0b1b1a8c61df028ed9;Sampled=1";
    assert_eq!(seen(|c| c.header("X-Amzn-Trace-Id", own), "/dev").await.header("X-Amzn-Trace-Id"), Some(own));
    let forged = seen(|c| c.header("X-Amzn-Trace-Id", "mine"), "/dev").await;
    assert!(forged.header("X-Amzn-Trace-Id").unwrap().starts_with("Root=1-"));
}

// checklist: 38
#[tokio::test]
async fn the_peer_is_appended_to_who_it_was_forwarded_for() {
    let request = seen(|c| c.header("X-Forwarded-For", "9.9.9.9"), "/dev").await;
    assert_eq!(request.header("X-Forwarded-For"), Some("9.9.9.9, 127.0.0.1"));
    let forged = seen(|c| c.header("X-Forwarded-Proto", "https").header("X-Forwarded-Port", "1"), "/dev").await;
    assert_eq!(forged.header("X-Forwarded-Proto"), Some("http"));
    assert_ne!(forged.header("X-Forwarded-Port"), Some("1"));
}

#[tokio::test]
async fn a_cookie_arrives_as_a_header() {
    let request = seen(|c| c.header("Cookie", "a=1; b=2"), "/dev").await;
    assert_eq!(request.header("Cookie"), Some("a=1; b=2"));
}

// checklist: 40, 41
#[tokio::test]
async fn the_gateway_chooses_no_subprotocol_by_itself() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let client = gateway.client("/dev").header("Sec-WebSocket-Protocol", "p1,p2, p3").open().await;
    assert_eq!(client.answer.header("Sec-WebSocket-Protocol"), None);
    assert_eq!(backend.request("/connect").await.header("Sec-WebSocket-Protocol"), Some("p1,p2, p3"));
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 42, 43, 44
#[tokio::test]
async fn the_integrations_subprotocol_goes_into_the_101() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for (name, offered) in [
        ("Sec-WebSocket-Protocol", Some("p1, p2")),
        ("sec-websocket-protocol", Some("p1, p2")),
        ("SEC-WEBSOCKET-PROTOCOL", Some("other")),
        ("Sec-WebSocket-Protocol", None),
    ] {
        backend.on("/connect", Reply::status(200).header(name, "p2"));
        let connect = gateway.client("/dev");
        let connect = match offered {
            Some(offered) => connect.header("Sec-WebSocket-Protocol", offered),
            None => connect,
        };
        let client = connect.open().await;
        assert_eq!(client.answer.header("Sec-WebSocket-Protocol"), Some("p2"), "{name} {offered:?}");
        client.close(1000, "").await;
    }
    backend.on(
        "/connect",
        Reply::status(200).header("Sec-WebSocket-Protocol", "first").header("Sec-WebSocket-Protocol", "second"),
    );
    let client = gateway.client("/dev").open().await;
    assert_eq!(client.answer.header("Sec-WebSocket-Protocol"), Some("first"), "one at most");
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 227
#[tokio::test]
async fn a_url_beyond_4096_characters_is_too_long() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let fits = format!("/dev?a={}", "x".repeat(4_096 - 7));
    gateway.client(&fits).open().await.close(1000, "").await;
    let answer = gateway.client(&format!("{fits}y")).refused().await;
    assert_eq!((answer.status, answer.text()), (414, r#"{"message":"Request-URI Too Long"}"#));
    assert_eq!(gateway.call("GET", &format!("/{}", "x".repeat(4_096)), &[], b"").await.status, 414);
    let callback = format!("/dev/@connections/{}", "x".repeat(4_096));
    assert_eq!(gateway.call("POST", &callback, &[], b"x").await.status, 414);
    gateway.finish().await;
}
