//! `HTTP` and `HTTP_PROXY`: what the back-end sees, what the client gets (specification 4.5 to 4.8, 5).

use serde_json::json;

use crate::support::{Backend, Client, Recorded, Reply, TestGateway};

/// One API whose route `go` has this integration, and is two-way if `answers`.
fn api(answers: bool, integration: &str) -> String {
    let indented = integration.replace('\n', "\n      ");
    let two_way = if answers { "\n    routeResponseSelectionExpression: $default" } else { "" };
    format!(
        "apiId: http\nprotocolType: WEBSOCKET\nrouteSelectionExpression: $request.body.action\n\
         stages: {{dev: {{stageVariables: {{env: blue}}}}}}\nroutes:\n  go:{two_way}\n    integration:\n      {indented}\n"
    )
}

/// A gateway with one client, and what they talk about.
struct Scene {
    backend: Backend,
    gateway: TestGateway,
    client: Client,
}

impl Scene {
    async fn of(definition: &str) -> Self {
        let backend = Backend::start().await;
        let gateway = TestGateway::builder().routes_yaml(definition).backend(&backend).start().await;
        let client = gateway.client("/dev").open().await;
        Self { backend, gateway, client }
    }

    async fn end(self) {
        self.client.close(1000, "").await;
        self.gateway.finish().await;
    }
}

const PROXY: &str = "integrationType: HTTP_PROXY\nintegrationUri: http://backend/ws?own=1";

// checklist: 145, 147, 149, 150, 151
#[tokio::test]
async fn a_proxied_message_is_the_body_and_brings_only_the_gateways_headers() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder().routes_yaml(&api(false, PROXY)).backend(&backend).start().await;
    let connect = gateway.client("/dev?token=abc").header("User-Agent", "Mine/1").header("X-Team", "red");
    let mut client = connect.header("Cookie", "a=1").open().await;
    let id = client.id().await;
    let message = r#" {"action":"go", "n": 1.0} "#;
    client.send_text(message).await;
    let request = backend.request("/ws").await;
    assert_eq!((request.method.as_str(), request.target.as_str(), request.text()), ("POST", "/ws?own=1", message));
    let mut names: Vec<String> = request.headers.iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort();
    let expected = [
        "accept",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-amzn-apigateway-api-id",
        "x-amzn-trace-id",
    ];
    assert_eq!(names, expected);
    assert_eq!(request.header("Host"), Some(backend.url().trim_start_matches("http://")));
    assert_eq!(request.header("User-Agent"), Some("AmazonAPIGateway_http"));
    assert_eq!(request.header("x-amzn-apigateway-api-id"), Some("http"));
    assert_eq!(
        (request.header("Content-Type"), request.header("Accept")),
        (Some("application/json"), Some("application/json"))
    );
    assert!(!format!("{request:?}").contains(&id), "the connection id is not told unless mapped");
    client.expect_silence().await;
    client.close(1000, "").await;
    gateway.finish().await;
}

const ON_CONNECT: &str = "
apiId: http
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $connect:
    integration:
      integrationType: KIND
      integrationUri: http://backend/connect
      requestParameters:
        integration.request.header.authToken: route.request.querystring.authToken
        integration.request.header.nothing: route.request.querystring.nothing
        integration.request.header.Sec-WebSocket-Version: \"'0'\"
";

// checklist: 146, 149, 155, 157, 158
#[tokio::test]
async fn a_proxied_connect_brings_the_handshakes_headers_and_no_body() {
    let backend = Backend::start().await;
    let definition = ON_CONNECT.replace("KIND", "HTTP_PROXY");
    let gateway = TestGateway::builder().routes_yaml(&definition).backend(&backend).start().await;
    let connect = gateway.client("/dev?authToken=t%201").header("User-Agent", "Mine/1").header("X-Team", "red");
    let client = connect.open().await;
    let request = backend.request("/connect").await;
    assert_eq!((request.text(), request.header("User-Agent")), ("", Some("Mine/1")));
    assert_eq!((request.header("X-Team"), request.header("Sec-WebSocket-Version")), (Some("red"), Some("0")));
    assert_eq!((request.header("authToken"), request.header("nothing")), (Some("t 1"), None));
    assert_eq!(request.header("x-amzn-apigateway-api-id"), Some("http"));
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 148
#[tokio::test]
async fn a_mapped_connect_brings_no_header_of_the_client() {
    let backend = Backend::start().await;
    let definition = ON_CONNECT.replace("KIND", "HTTP");
    let gateway = TestGateway::builder().routes_yaml(&definition).backend(&backend).start().await;
    let connect = gateway.client("/dev?authToken=t").header("User-Agent", "Mine/1").header("X-Team", "red");
    let client = connect.open().await;
    let request = backend.request("/connect").await;
    assert_eq!(request.target, "/connect");
    assert_eq!(request.header("User-Agent"), Some("AmazonAPIGateway_http"));
    assert_eq!((request.header("X-Team"), request.header("Sec-WebSocket-Key")), (None, None));
    assert_eq!(request.header("authToken"), Some("t"), "but what is mapped comes");
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 152
#[tokio::test]
async fn the_connection_id_goes_where_it_is_mapped() {
    let backend = Backend::start().await;
    // The shipped example, with its back-end here.
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/routes/orders.yaml")).unwrap();
    let definition = text.replace("http://127.0.0.1:9000", "http://backend");
    let gateway = TestGateway::builder().routes_yaml(&definition).backend(&backend).start().await;
    backend.on("/orders", Reply::ok(r#"{"order":"7"}"#));
    let mut client = gateway.client("/dev").open().await;
    assert_eq!(client.ask(r#"{"action":"order"}"#).await, r#"{"order":"7"}"#);
    client.close(1000, "").await;
    let requests =
        [backend.request("/connect").await, backend.request("/orders").await, backend.request("/disconnect").await];
    let ids: std::collections::HashSet<&str> = requests.iter().map(Recorded::connection_id).collect();
    assert_eq!(ids.len(), 1);
    assert!(requests.iter().all(|request| request.spelling("connectionid") == Some("connectionId")));
    assert_eq!(requests[2].header("closeCode"), Some("1000"));
    gateway.finish().await;
}

// checklist: 153, 154, 156
#[tokio::test]
async fn query_path_and_headers_are_filled_from_context_constants_and_payload() {
    let mut scene = Scene::of(&api(
        false,
        "integrationType: HTTP_PROXY
integrationUri: http://backend/users/{id}/${stageVariables.env}
requestParameters:
  integration.request.path.id: context.connectionId
  integration.request.querystring.src: \"'gateway'\"
  integration.request.header.user: route.request.body.user.id",
    ))
    .await;
    let id = scene.client.id().await;
    scene.client.send_text(r#"{"action":"go","user":{"id":"u 7"}}"#).await;
    let path = format!("/users/{}/blue", id.replace('=', "%3D"));
    let request = scene.backend.request(&path).await;
    assert_eq!(request.target, format!("{path}?src=gateway"));
    assert_eq!(request.header("user"), Some("u 7"));
    scene.end().await;
}

// checklist: 161
#[tokio::test]
async fn an_unreachable_backend_is_an_error_frame() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway =
        TestGateway::builder().routes_yaml(&api(false, PROXY)).backend_at(&format!("http://{nobody}")).start().await;
    let mut client = gateway.client("/dev").open().await;
    for _ in 0..3 {
        client.send_text(r#"{"action":"go"}"#).await;
        client.expect_error("Internal server error").await;
    }
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 162
#[tokio::test]
async fn a_redirect_of_the_backends_is_an_answer_like_any() {
    let mut scene = Scene::of(&api(true, PROXY)).await;
    let elsewhere = format!("{}/elsewhere", scene.backend.url());
    scene.backend.on("/ws", Reply::status(302).header("Location", &elsewhere).body("moved"));
    assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await, "moved");
    scene.backend.no_more("/elsewhere").await;
    scene.end().await;
}

// checklist: 163, 298, 300
#[tokio::test]
async fn the_default_template_makes_the_request() {
    let mut scene = Scene::of(&api(
        false,
        r#"integrationType: HTTP
integrationUri: http://backend/t
requestTemplates:
  $default: '{"id":"$context.connectionId","route":"$context.routeKey","m":"$context.messageId","at":$context.requestTimeEpoch,"data":$input.json(''$.data''),"name":"$input.path(''$.data.name'')","raw":$input.body}'"#,
    ))
    .await;
    let id = scene.client.id().await;
    scene.client.send_text(r#"{"action":"go","data":{"name":"Ann"}}"#).await;
    let request = scene.backend.request("/t").await;
    assert_eq!(request.header("Content-Type"), Some("application/json"));
    let sent: serde_json::Value = serde_json::from_str(request.text()).unwrap();
    let (message, at) = (sent["m"].clone(), sent["at"].clone());
    assert!(message.as_str().unwrap().len() == 16 && at.as_u64().unwrap() > 1_600_000_000_000);
    let raw = json!({"action": "go", "data": {"name": "Ann"}});
    let expected =
        json!({"id": id, "route": "go", "m": message, "at": at, "data": {"name": "Ann"}, "name": "Ann", "raw": raw});
    assert_eq!(sent, expected);
    scene.end().await;
}

// checklist: 164
#[tokio::test]
async fn the_selected_template_wins_over_the_default() {
    let mut scene = Scene::of(&api(
        false,
        "integrationType: HTTP
integrationUri: http://backend/t
templateSelectionExpression: $request.body.kind
requestTemplates: {$default: default, a: the a}",
    ))
    .await;
    for (kind, body) in [("a", "the a"), ("b", "default")] {
        scene.client.send_json(&json!({"action": "go", "kind": kind})).await;
        assert_eq!(scene.backend.request("/t").await.text(), body);
    }
    scene.end().await;
}

// checklist: 165, 166, 167
#[tokio::test]
async fn a_message_without_template_passes_or_not_as_the_definition_says() {
    let some = "\nrequestTemplates: {other: never}\ntemplateSelectionExpression: $request.body.kind";
    for (behaviour, templates, passes) in [
        ("", some, true),
        ("", "", true),
        ("\npassthroughBehavior: WHEN_NO_MATCH", some, true),
        ("\npassthroughBehavior: WHEN_NO_TEMPLATES", some, false),
        ("\npassthroughBehavior: WHEN_NO_TEMPLATES", "", true),
        ("\npassthroughBehavior: NEVER", some, false),
        ("\npassthroughBehavior: NEVER", "", false),
    ] {
        let integration = format!("integrationType: HTTP\nintegrationUri: http://backend/t{behaviour}{templates}");
        let mut scene = Scene::of(&api(false, &integration)).await;
        let message = r#" {"action":"go","kind":"none"}"#;
        scene.client.send_text(message).await;
        if passes {
            assert_eq!(scene.backend.request("/t").await.text(), message, "{integration}");
        } else {
            scene.client.expect_error("Unsupported Media Type").await;
            scene.backend.no_more("/t").await;
        }
        scene.end().await;
    }
}

// checklist: 165
#[tokio::test]
async fn a_connect_without_template_is_refused_with_415() {
    let backend = Backend::start().await;
    let definition = "
apiId: http
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $connect: {integration: {integrationType: HTTP, integrationUri: 'http://backend/connect', passthroughBehavior: NEVER}}
";
    let gateway = TestGateway::builder().routes_yaml(definition).backend(&backend).start().await;
    let answer = gateway.client("/dev").refused().await;
    assert_eq!((answer.status, &answer.json()["message"]), (415, &json!("Unsupported Media Type")));
    backend.no_more("/connect").await;
    gateway.finish().await;
}

// checklist: 169
#[tokio::test]
async fn convert_to_binary_sends_what_the_base64_stands_for() {
    let mut scene = Scene::of(
        &api(
            false,
            "integrationType: HTTP\nintegrationUri: http://backend/t\ncontentHandlingStrategy: CONVERT_TO_BINARY",
        )
        .replace("go:", "$default:"),
    )
    .await;
    scene.client.send_text("//4A").await;
    assert_eq!(scene.backend.request("/t").await.body, [0xff, 0xfe, 0]);
    scene.client.send_text("not base64!").await;
    scene.client.expect_error("Internal server error").await;
    scene.end().await;
}

// checklist: 170
#[tokio::test]
async fn convert_to_text_sends_the_client_base64() {
    let mut scene = Scene::of(&api(
        true,
        "integrationType: HTTP
integrationUri: http://backend/t
integrationResponses: {$default: {contentHandlingStrategy: CONVERT_TO_TEXT}}",
    ))
    .await;
    scene.backend.on("/t", Reply::ok([0xff, 0xfe, 0]));
    assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await, "//4A");
    scene.end().await;
}

// checklist: 175, 178
#[tokio::test]
async fn a_two_way_proxy_sends_the_body_whatever_the_status() {
    let mut scene = Scene::of(&api(true, PROXY)).await;
    for (status, body) in [(200, "fine"), (404, "none"), (500, "broken"), (200, "")] {
        scene.backend.on("/ws", Reply::status(status).body(body).header("X-A", "1"));
        assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await, body);
        scene.client.expect_silence().await;
    }
    scene.backend.on("/ws", Reply::status(204));
    assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await, "");
    scene.backend.on("/ws", Reply::ok([b'a', 0xff, b'b']));
    assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await, "a\u{fffd}b");
    scene.end().await;
}

#[tokio::test]
async fn a_one_way_route_sends_nothing_whatever_the_status() {
    let mut scene = Scene::of(&api(false, PROXY)).await;
    for status in [200, 404, 500] {
        scene.backend.on("/ws", Reply::status(status).body("nobody hears this"));
        scene.client.send_text(r#"{"action":"go"}"#).await;
        scene.backend.request("/ws").await;
        scene.client.expect_silence().await;
    }
    scene.end().await;
}

// checklist: 176, 178, 179, 180
#[tokio::test]
async fn integration_responses_are_chosen_by_the_whole_status_and_rendered() {
    let mut scene = Scene::of(&api(
        true,
        r#"integrationType: HTTP
integrationUri: http://backend/t
integrationResponses:
  /40/: {responseTemplates: {$default: never}}
  /4\d\d/: {responseTemplates: {$default: '{"error":$input.json(''$.Message''),"to":"$context.connectionId"}'}}
  $default: {responseTemplates: {$default: '{"fine":$input.body}'}}"#,
    ))
    .await;
    let id = scene.client.id().await;
    scene.backend.on("/t", Reply::status(404).body(r#"{"Message":"no such thing"}"#));
    let answer = scene.client.ask(r#"{"action":"go"}"#).await;
    assert_eq!(answer, format!(r#"{{"error":"no such thing","to":"{id}"}}"#));
    scene.backend.on("/t", Reply::ok("[1]"));
    assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await, r#"{"fine":[1]}"#);
    scene.client.expect_silence().await;
    scene.end().await;
}

// checklist: 183
#[tokio::test]
async fn an_answer_goes_to_the_sender_alone() {
    let mut scene = Scene::of(&api(true, PROXY)).await;
    scene.backend.on("/ws", Reply::ok("answer"));
    let mut other = scene.gateway.client("/dev").open().await;
    assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await, "answer");
    other.expect_silence().await;
    other.close(1000, "").await;
    scene.end().await;
}

// checklist: 133, 134, 141
#[tokio::test]
async fn a_message_that_takes_too_long_is_a_timeout_and_a_late_answer_is_dropped() {
    let integration = format!("{PROXY}\ntimeoutInMillis: 100");
    let mut scene = Scene::of(&api(true, &integration)).await;
    let gate = crate::support::Gate::closed();
    scene.backend.on("/ws", Reply::ok("late").behind(&gate));
    scene.client.send_text(r#"{"action":"go"}"#).await;
    scene.client.expect_error("Endpoint request timed out").await;
    gate.open();
    scene.client.expect_silence().await;
    assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await, "late", "the session serves on");
    scene.end().await;
}

// checklist: 139
#[tokio::test]
async fn timeouts_are_between_50_and_29000_milliseconds() {
    for (timeout, fits) in [(49, false), (50, true), (29_000, true), (29_001, false)] {
        let backend = Backend::start().await;
        let definition = api(false, &format!("{PROXY}\ntimeoutInMillis: {timeout}"));
        let builder = TestGateway::builder().routes_yaml(&definition).backend(&backend);
        match builder.try_start().await {
            Ok(gateway) => {
                assert!(fits, "{timeout}");
                gateway.finish().await;
            }
            Err(error) => assert!(!fits && error.to_string().contains("timeoutInMillis"), "{timeout}: {error}"),
        }
    }
}

#[tokio::test]
async fn an_answer_beyond_the_message_limit_is_an_error_and_the_session_stays() {
    let mut scene = Scene::of(&api(true, PROXY)).await;
    scene.backend.on("/ws", Reply::ok("x".repeat(131_072)));
    assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await.len(), 131_072);
    scene.backend.on("/ws", Reply::ok("x".repeat(131_073)));
    scene.client.send_text(r#"{"action":"go"}"#).await;
    scene.client.expect_error("Internal server error").await;
    scene.backend.on("/ws", Reply::ok("fine"));
    assert_eq!(scene.client.ask(r#"{"action":"go"}"#).await, "fine");
    scene.end().await;
}
