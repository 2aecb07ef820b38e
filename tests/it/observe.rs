//! What an operator sees: health, metrics, the access log, the list of connections (specification 11.5, 11.8).

use causeway::config::AccessLog;
use regex::Regex;
use serde_json::json;

use crate::support::{Backend, Frame, PING, PONG, Reply, TestGateway, eventually};

const API: &str = "
apiId: seen
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev: {}
  custom: {accessLogSettings: {format: '$context.requestId $context.stage $context.status $context.error.responseType $context.nothing $context.integration.status'}}
routes:
  $connect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/connect
      requestParameters: {integration.request.header.connectionId: context.connectionId}
  one:
    integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/one', timeoutInMillis: 100}
  two:
    routeResponseSelectionExpression: $default
    integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/two'}
";

/// A gateway whose access log is a file.
struct Scene {
    backend: Backend,
    gateway: TestGateway,
    log: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let target = log.clone();
        let backend = Backend::start().await;
        let gateway = TestGateway::builder()
            .routes_yaml(API)
            .backend(&backend)
            .settings(move |settings| settings.access_log = AccessLog::File(target))
            .start()
            .await;
        Self { backend, gateway, log, _folder: folder }
    }

    async fn stage(&self, name: &str) -> u64 {
        self.gateway.metric(&format!(r#"causeway_stage_{name}_total{{api="seen",stage="dev"}}"#)).await
    }

    /// Shuts down, which writes what waits; then the lines.
    async fn lines(self) -> Vec<String> {
        self.gateway.finish().await;
        std::fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }
}

// checklist: 288, 290, 291, 293
#[tokio::test]
async fn every_exchange_leaves_one_line_in_the_default_form() {
    let scene = Scene::new().await;
    let mut client = scene.gateway.client("/dev").open().await;
    let id = scene.backend.request("/connect").await.connection_id().to_owned();
    client.send_text(r#"{"action":"two"}"#).await;
    client.next_text().await;
    client.send_text(r#"{"action":"none"}"#).await;
    client.next_text().await;
    assert_eq!(scene.gateway.post(&id, "x").await.status, 200);
    client.next_text().await;
    assert_eq!(scene.gateway.get(&id).await.status, 200);
    client.close(1000, "").await;
    let mut lines = scene.lines().await;
    let time = r"\[\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} \+0000\]";
    let mut expect = |source: &str, what: &str, status: u16| {
        let pattern = format!(r#"^{source} - - {time} "{}" {status} [A-Za-z0-9_-]{{15}}=$"#, regex::escape(what));
        let pattern = Regex::new(&pattern).unwrap();
        let found = lines.iter().position(|line| pattern.is_match(line));
        let found = found.unwrap_or_else(|| panic!("no line {pattern} in {lines:#?}"));
        lines.remove(found);
    };
    expect("127.0.0.1", &format!("CONNECT $connect {id}"), 200);
    expect("127.0.0.1", &format!("MESSAGE two {id}"), 200);
    expect("127.0.0.1", &format!("MESSAGE - {id}"), 403);
    expect(".*", &format!("CONNECTION_API POST /@connections/{{connectionId}} {id}"), 200);
    expect(".*", &format!("CONNECTION_API GET /@connections/{{connectionId}} {id}"), 200);
    expect("127.0.0.1", &format!("DISCONNECT $disconnect {id}"), 200);
    assert_eq!(lines, [""; 0], "and no other");
}

// checklist: 289
#[tokio::test]
async fn a_stage_may_have_its_own_form_and_what_has_no_value_is_a_dash() {
    let scene = Scene::new().await;
    scene.backend.on("/one", Reply::hang());
    let mut client = scene.gateway.client("/custom").open().await;
    client.send_text(r#"{"action":"one"}"#).await;
    let request = client.expect_error("Endpoint request timed out").await;
    client.close(1000, "").await;
    let lines = scene.lines().await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].ends_with(" custom 200 - - 200"), "{lines:?}");
    assert_eq!(lines[1], format!("{request} custom 504 INTEGRATION_TIMEOUT - -"));
    assert!(lines[2].ends_with(" custom 200 - - -"), "{lines:?}");
}

// checklist: 312
#[tokio::test]
async fn a_ping_leaves_no_trace() {
    let scene = Scene::new().await;
    let mut client = scene.gateway.client("/dev").open().await;
    let received = scene.gateway.metric(r#"causeway_messages_received_total{route="custom"}"#).await;
    let before = scene.stage("messages").await;
    for _ in 0..5 {
        client.ping().await;
        client.send(Frame::new(PONG, "unasked")).await;
        client.send(Frame::new(PING, "")).await;
        assert_eq!(client.next_frame().await.expect("a pong").opcode, PONG);
    }
    assert_eq!(scene.stage("messages").await, before);
    assert_eq!(scene.gateway.metric(r#"causeway_messages_received_total{route="custom"}"#).await, received);
    for path in ["/one", "/two"] {
        scene.backend.no_more(path).await;
    }
    client.close(1000, "").await;
    assert_eq!(scene.lines().await.len(), 2, "the connect and the disconnect");
}

// checklist: 294
#[tokio::test]
async fn connects_count_those_that_reach_the_route() {
    let scene = Scene::new().await;
    scene.gateway.client("/dev").open().await.close(1000, "").await;
    assert_eq!(scene.stage("connects").await, 1);
    scene.backend.on("/connect", Reply::status(403));
    scene.gateway.client("/dev").refused().await;
    assert_eq!(scene.stage("connects").await, 2, "refused by the route is reached");
    scene.gateway.client("/none").refused().await;
    scene.gateway.client("/dev").without("Sec-WebSocket-Key").refused().await;
    assert_eq!(scene.stage("connects").await, 2);
    scene.gateway.finish().await;
}

// checklist: 295
#[tokio::test]
async fn messages_count_by_one_by_two_and_by_one_for_a_post() {
    let scene = Scene::new().await;
    let mut client = scene.gateway.client("/dev").open().await;
    let id = scene.backend.request("/connect").await.connection_id().to_owned();
    assert_eq!(scene.stage("messages").await, 1, "the connect");
    client.send_text(r#"{"action":"one"}"#).await;
    scene.backend.request("/one").await;
    let counted = async |count: u64| {
        crate::support::within("the count", async { while scene.stage("messages").await < count {} }).await;
        assert_eq!(scene.stage("messages").await, count);
    };
    counted(2).await;
    client.send_text(r#"{"action":"two"}"#).await;
    client.next_text().await;
    counted(4).await;
    assert_eq!(scene.gateway.post(&id, "x").await.status, 200);
    client.next_text().await;
    counted(5).await;
    client.send_text(r#"{"action":"none"}"#).await;
    client.next_text().await;
    client.close(1000, "").await;
    counted(6).await;
    scene.gateway.finish().await;
}

// checklist: 296, 297
#[tokio::test]
async fn errors_are_counted_where_they_arose() {
    let scene = Scene::new().await;
    let mut client = scene.gateway.client("/dev").open().await;
    let counted = async |what: &str, counts: [u64; 3]| {
        let names = ["client_errors", "execution_errors", "integration_errors"];
        let now = async || [scene.stage(names[0]).await, scene.stage(names[1]).await, scene.stage(names[2]).await];
        crate::support::within("the counts", async { while now().await.iter().sum::<u64>() < counts.iter().sum() {} })
            .await;
        assert_eq!(now().await, counts, "{what}: {names:?}");
    };
    client.send_text(r#"{"action":"none"}"#).await;
    client.next_text().await;
    counted("no route", [1, 0, 0]).await;
    scene.backend.on("/one", Reply::hang());
    client.send_text(r#"{"action":"one"}"#).await;
    client.expect_error("Endpoint request timed out").await;
    counted("a timeout", [1, 1, 0]).await;
    scene.backend.on("/two", Reply::status(500));
    client.send_text(r#"{"action":"two"}"#).await;
    client.next_text().await;
    counted("a 500", [1, 1, 1]).await;
    let latency = r#"causeway_stage_integration_latency_seconds_count{api="seen",stage="dev"}"#;
    assert!(scene.gateway.metric(latency).await >= 2, "the connect and the 500 were measured");
    client.close(1000, "").await;
    scene.gateway.finish().await;
}

#[tokio::test]
async fn sessions_and_their_ends_are_counted() {
    let scene = Scene::new().await;
    let first = scene.gateway.client("/dev").open().await;
    let second = scene.gateway.client("/dev").open().await;
    assert_eq!(scene.gateway.metric("causeway_sessions_open").await, 2);
    first.close(1000, "").await;
    drop(second);
    eventually("the ends", || scene.gateway.stats().open == 0).await;
    let ends = async |reason: &str| {
        scene.gateway.metric(&format!(r#"causeway_session_ends_total{{reason="{reason}"}}"#)).await
    };
    assert_eq!((ends("client_closed").await, ends("client_vanished").await), (1, 1));
    assert_eq!(scene.gateway.metric("causeway_sessions_open").await, 0);
    scene.gateway.finish().await;
}

#[tokio::test]
async fn the_metrics_page_is_well_formed_and_names_no_one() {
    let scene = Scene::new().await;
    let client = scene.gateway.client("/dev").open().await;
    let id = scene.backend.request("/connect").await.connection_id().to_owned();
    let page = scene.gateway.admin("GET", "/metrics", b"").await;
    assert_eq!(page.status, 200);
    let text = page.text();
    assert!(text.ends_with("# EOF\n") && text.contains("# HELP causeway_sessions_open ") && !text.contains(&id));
    let sample = Regex::new(r"^causeway_[a-z_]+(\{[^}]*\})? [0-9.e+-]+$").unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(sample.is_match(line), "{line}");
    }
    client.close(1000, "").await;
    scene.gateway.finish().await;
}

#[tokio::test]
async fn the_operator_sees_and_reaches_connections() {
    let scene = Scene::new().await;
    assert_eq!(scene.gateway.admin("GET", "/health", b"").await.status, 200);
    assert_eq!(scene.gateway.admin("GET", "/ready", b"").await.status, 200);
    let mut client = scene.gateway.client("/dev").header("User-Agent", "Mine/1").open().await;
    let id = scene.backend.request("/connect").await.connection_id().to_owned();
    let list = scene.gateway.admin("GET", "/connections", b"").await.json();
    let row = &list["connections"][0];
    assert_eq!((&row["connectionId"], &row["apiId"], &row["stage"]), (&json!(id), &json!("seen"), &json!("dev")));
    assert_eq!(
        (&row["sourceIp"], &row["userAgent"], &list["next"]),
        (&json!("127.0.0.1"), &json!("Mine/1"), &json!(null))
    );
    let path = format!("/connections/{}", id.replace('=', "%3D"));
    assert_eq!(scene.gateway.admin("GET", &path, b"").await.status, 200);
    assert_eq!(scene.gateway.admin("POST", &path, b"from the desk").await.status, 200);
    assert_eq!(client.next_text().await, "from the desk");
    assert_eq!(scene.gateway.admin("DELETE", &path, b"").await.status, 204);
    assert_eq!(client.expect_close().await.0, Some(1000));
    assert_eq!(scene.gateway.admin("DELETE", &path, b"").await.status, 410);
    assert_eq!(scene.gateway.admin("GET", "/connections/x", b"").await.status, 400);
    assert_eq!(scene.gateway.admin("GET", "/connections?limit=x", b"").await.status, 400);
    assert_eq!(scene.gateway.admin("GET", "/none", b"").await.status, 404);
    scene.gateway.finish().await;
}

#[tokio::test]
async fn the_list_of_connections_comes_in_pages() {
    let scene = Scene::new().await;
    let mut clients = Vec::new();
    for _ in 0..7 {
        clients.push(scene.gateway.client("/dev").open().await);
    }
    let mut ids = Vec::new();
    let mut path = "/connections?limit=3".to_owned();
    loop {
        let page = scene.gateway.admin("GET", &path, b"").await.json();
        assert_eq!(page["open"], 7);
        ids.extend(page["connections"].as_array().unwrap().iter().map(|row| row["connectionId"].to_string()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/connections?limit=3&after={}", next.replace('=', "%3D"));
    }
    assert_eq!(ids.len(), 7);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 7, "each once");
    drop(clients);
    scene.gateway.finish().await;
}

#[tokio::test]
async fn the_operators_listener_asks_for_its_token() {
    let gateway = TestGateway::builder()
        .routes_file("chat.yaml")
        .settings(|settings| settings.admin_token = Some(causeway::secret::Secret::new("desk".to_owned())))
        .start()
        .await;
    for (path, needs_token) in [("/health", false), ("/ready", false), ("/metrics", true), ("/connections", true)] {
        let without = gateway.admin("GET", path, b"").await;
        assert_eq!(without.status, if needs_token { 401 } else { 200 }, "{path}");
        let wrong = gateway.admin_with("GET", path, &[("Authorization", "Bearer des")], b"").await;
        assert_eq!(wrong.status, if needs_token { 401 } else { 200 }, "{path}");
        let with = gateway.admin_with("GET", path, &[("Authorization", "Bearer desk")], b"").await;
        assert_eq!(with.status, 200, "{path}");
    }
    gateway.finish().await;
}
