//! What comes of an answer, of no answer, and of a mock.

use super::*;

// checklist: 179
#[tokio::test]
async fn the_response_for_the_status_renders_the_body() {
    let world = World::new();
    let by_path = |request: &str| match request.split(' ').nth(1) {
        Some("/404") => answer("404 Not Found", "", r#"{"Message": "no \"such\" thing"}"#),
        _ => ok(r#"{"Message": "fine"}"#),
    };
    let backend = world.backend(by_path).await;
    let responses = || {
        vec![
            response("$default", &[("$default", r"default $input.path('$.Message') of $context.routeKey")]),
            response(r"/4\d\d/", &[("$default", r#"{"error":$input.json('$.Message')}"#)]),
            response(r"/404/", &[("$default", "the first created wins")]),
        ]
    };
    for (path, status, text) in
        [("/404", 404, r#"{"error":"no \"such\" thing"}"#), ("/200", 200, "default fine of send")]
    {
        let http = Http { responses: responses(), ..http(false, backend.url(path)) };
        let outcome = world.send(&http, &world.message(), "{}").await.unwrap();
        assert_eq!((outcome.status, &*String::from_utf8_lossy(&outcome.body)), (status, text));
    }
}

// checklist: 180
#[tokio::test]
async fn a_pattern_matches_the_whole_status_or_not_at_all() {
    let world = World::new();
    let backend = world.backend(|_| answer("404 Not Found", "", "as it is")).await;
    let responses = vec![response("/40/", &[("$default", "never")]), response("/04/", &[("$default", "never")])];
    let http = Http { responses, ..http(false, backend.url("/")) };
    let outcome = world.send(&http, &world.message(), "{}").await.unwrap();
    assert_eq!((outcome.status, &outcome.body[..]), (404, &b"as it is"[..]));
}

#[tokio::test]
async fn the_response_template_is_selected_by_the_answer() {
    let world = World::new();
    let backend = world.backend(|_| answer("200 OK", "X-Kind: short\r\n", "{}")).await;
    let mut default = response("$default", &[("short", "the short one"), ("$default", "default")]);
    default.selection = Some(Selection::parse("$integration.response.header.x-kind").unwrap());
    let http = Http { responses: vec![default], ..http(false, backend.url("/")) };
    assert_eq!(world.send(&http, &world.message(), "{}").await.unwrap().body, "the short one");
}

// checklist: 170
#[tokio::test]
async fn convert_to_text_on_a_response_encodes_the_bytes_and_to_binary_decodes_them() {
    let world = World::new();
    let backend = world.backend(|r| if r.starts_with("POST /raw") { ok([0xff, 0xfe]) } else { ok("aGVsbG8=\n") }).await;
    for (path, handling, expected) in
        [("/raw", ContentHandling::ToText, "//4="), ("/text", ContentHandling::ToBinary, "hello")]
    {
        let mut default = response("$default", &[]);
        default.content_handling = handling;
        let http = Http { responses: vec![default], ..http(false, backend.url(path)) };
        assert_eq!(world.send(&http, &world.message(), "{}").await.unwrap().body, expected);
    }
}

#[tokio::test]
async fn a_proxied_connect_gets_the_back_ends_status_and_end_to_end_headers() {
    let world = World::new();
    let headers = "Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\n\
                   Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n";
    let backend = world
        .backend(move |r| {
            let refused = r.starts_with("POST /403");
            answer(if refused { "403 Forbidden" } else { "204 No Content" }, headers, if refused { "no" } else { "" })
        })
        .await;
    for (path, status, text) in [("/403", 403, "no"), ("/204", 204, "")] {
        let outcome = world.send(&http(true, backend.url(path)), &world.connect(), "").await.unwrap();
        assert_eq!((outcome.status, &*String::from_utf8_lossy(&outcome.body)), (status, text));
        assert_eq!(outcome.headers["sec-websocket-protocol"], "chat");
        assert_eq!(outcome.headers.get_all("set-cookie").iter().count(), 2);
        assert_eq!(outcome.headers["x-end"], "2");
        for gone in ["connection", "keep-alive", "x-hop", "content-length"] {
            assert!(!outcome.headers.contains_key(gone), "{gone}");
        }
    }
}

#[tokio::test]
async fn response_parameters_become_headers_on_connect_alone() {
    let world = World::new();
    let backend =
        world.backend(|_| answer("200 OK", "X-Proto: chat\r\nX-Other: 1\r\n", r#"{"a":"b","evil":"x\ny"}"#)).await;
    let mut default = response("$default", &[]);
    default.parameters = vec![
        ("Sec-WebSocket-Protocol".into(), ResponseSource::Header("x-proto".into())),
        ("X-Member".into(), ResponseSource::BodyPath(JsonPath::compile("$.a").unwrap())),
        ("X-Evil".into(), ResponseSource::BodyPath(JsonPath::compile("$.evil").unwrap())),
        ("X-Text".into(), ResponseSource::Constant("text".into())),
        ("Content-Length".into(), ResponseSource::Constant("9".into())),
    ];
    let http = Http { responses: vec![default], ..http(false, backend.url("/")) };
    let outcome = world.send(&http, &world.connect(), "").await.unwrap();
    let mut names: Vec<&str> = outcome.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["sec-websocket-protocol", "x-member", "x-text"]);
    assert_eq!(
        (&outcome.headers["sec-websocket-protocol"], &outcome.headers["x-member"]),
        (&"chat".parse().unwrap(), &"b".parse().unwrap())
    );
    assert!(world.send(&http, &world.message(), "{}").await.unwrap().headers.is_empty());
}

// --- What goes wrong ---

#[tokio::test]
async fn the_integrations_timeout_is_the_deadline() {
    let world = World::new();
    let backend = world.backend(|_| Reply::Silence).await;
    let http = Http { timeout: Duration::from_millis(50), ..http(true, backend.url("/")) };
    let error = world.send(&http, &world.message(), "{}").await.unwrap_err();
    assert!(matches!(error, InvokeError::Upstream(UpstreamError::Timeout)), "{error:?}");
}

#[tokio::test]
async fn an_address_that_is_none_is_not_called() {
    let world = World::new();
    for uri in ["${stageVariables.none}/orders", "https://${stageVariables.none}/", "http://a b/", "ftp://host/"] {
        let error = world.send(&http(true, uri.to_owned()), &world.message(), "{}").await.unwrap_err();
        assert!(matches!(error, InvokeError::Upstream(UpstreamError::InvalidUri)), "{uri}: {error:?}");
    }
}

// checklist: 162
#[tokio::test]
async fn a_redirect_is_the_outcome() {
    let world = World::new();
    let backend = world.backend(|_| answer("301 Moved", "Location: /x\r\n", "moved")).await;
    let outcome = world.send(&http(true, backend.url("/")), &world.connect(), "").await.unwrap();
    assert_eq!((outcome.status, &outcome.headers["location"]), (301, &"/x".parse().unwrap()));
    assert_eq!(backend.requests().len(), 1);
}

// --- MOCK ---

fn render(request: RequestMapping, responses: Vec<IntegrationResponse>, payload: &str) -> Result<Outcome, InvokeError> {
    let world = World::new();
    mock::invoke(&mock(request, responses), &world.message(), &Message::from_string(payload))
}

#[tokio::test]
async fn a_mocks_status_decides_a_connect() {
    let world = World::new();
    for (text, status) in [(r#"{"statusCode":200}"#, 200), (r#"{"statusCode":403}"#, 403), ("{statusCode: 404.0}", 404)]
    {
        let mock = mock(mapping(&[("$default", text)]), vec![]);
        let outcome = mock::invoke(&mock, &world.connect(), &Message::from_string("")).unwrap();
        assert_eq!((outcome.status, outcome.integration_status, outcome.latency), (status, status, Duration::ZERO));
    }
}

#[tokio::test]
async fn a_mock_renders_the_response_for_its_status_over_the_clients_payload() {
    let request = || mapping(&[("application/json", r#"{"statusCode": $input.json('$.status')}"#)]);
    let responses = || {
        vec![
            response("$default", &[("$default", "$input.body")]),
            response(r"/5\d\d/", &[("$default", r#"{"at":"$context.connectionId"}"#)]),
        ]
    };
    let echoed = render(request(), responses(), r#"{ "status": 200 }"#).unwrap();
    assert_eq!((echoed.status, &echoed.body[..]), (200, &br#"{ "status": 200 }"#[..]));
    let other = render(request(), responses(), r#"{"status": 503}"#).unwrap();
    assert_eq!((other.status, &other.body[..]), (503, &br#"{"at":"L0SM9cOFvHcCIhw="}"#[..]));
}

#[tokio::test]
async fn a_mock_without_templates_answers_200_and_nothing() {
    let outcome = render(mapping(&[]), vec![], "anything").unwrap();
    assert_eq!((outcome.status, outcome.body.len()), (200, 0));
    let never = RequestMapping { passthrough: Passthrough::Never, ..mapping(&[]) };
    assert!(matches!(render(never, vec![], "anything"), Err(InvokeError::UnsupportedMediaType)));
}

#[tokio::test]
async fn a_mock_without_a_usable_status_fails() {
    for text in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"statusCode":"200"}"#,
        r#"{"statusCode":101}"#,
        r#"{"statusCode":600}"#,
        r#"{"statusCode":200.5}"#,
        r#"{"statusCode":-1}"#,
        "not json",
    ] {
        let error = render(mapping(&[("$default", text)]), vec![], "{}").unwrap_err();
        assert!(matches!(error, InvokeError::MockStatus), "{text}: {error:?}");
    }
}

#[tokio::test]
async fn a_mocks_response_headers_go_to_a_connect() {
    let world = World::new();
    let mut default = response("$default", &[]);
    default.parameters = vec![("Sec-WebSocket-Protocol".into(), ResponseSource::Constant("chat".into()))];
    let mock = mock(mapping(&[]), vec![default]);
    let outcome = mock::invoke(&mock, &world.connect(), &Message::from_string("")).unwrap();
    assert_eq!(outcome.headers["sec-websocket-protocol"], "chat");
    assert!(outcome.body.is_empty());
}
