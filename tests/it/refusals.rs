//! Handshakes that are answered anything but 101 (specification 1.8).

use crate::support::{Backend, Gate, HttpAnswer, Reply, TestGateway};

const REFUSING: &str = "
apiId: refusing
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $connect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/connect
      timeoutInMillis: 200
  $disconnect:
    integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/disconnect'}
";

async fn start(backend: &Backend) -> TestGateway {
    TestGateway::builder().routes_yaml(REFUSING).backend(backend).start().await
}

/// The refusal of a handshake whose `$connect` is answered like this; no `$disconnect` follows it.
async fn refusal(reply: Reply) -> HttpAnswer {
    let backend = Backend::start().await;
    backend.on("/connect", reply);
    let gateway = start(&backend).await;
    let answer = gateway.client("/dev").refused().await;
    backend.no_more("/disconnect").await;
    gateway.finish().await;
    answer
}

/// The gateway's own refusal: the error object, with ids, and headers that fit it.
fn assert_is_the_gateways(answer: &HttpAnswer, status: u16, message: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let json = answer.json();
    let (connection, request) = (json["connectionId"].as_str().unwrap(), json["requestId"].as_str().unwrap());
    let pattern = regex::Regex::new("^[A-Za-z0-9_-]{15}=$").unwrap();
    assert!(pattern.is_match(connection) && pattern.is_match(request), "{answer:?}");
    let expected = format!(r#"{{"message": "{message}", "connectionId":"{connection}", "requestId":"{request}"}}"#);
    assert_eq!(answer.text(), expected);
    assert!(answer.header("Content-Type").unwrap().starts_with("application/json"));
    assert_eq!(answer.header("Content-Length"), Some(expected.len().to_string().as_str()));
    assert_eq!(answer.header("x-amz-apigw-id"), Some(request));
}

// checklist: 45, 46, 48, 61, 159
#[tokio::test]
async fn a_refusing_integration_speaks_for_itself() {
    for status in [401, 403, 404, 500, 501, 599] {
        let reply = Reply::status(status).body("no").header("X-Why", "because").header("Content-Type", "text/plain");
        let answer = refusal(reply.header("X-Why", "twice").header("Keep-Alive", "timeout=5")).await;
        assert_eq!((answer.status, answer.text()), (status, "no"));
        assert_eq!(
            (answer.all("X-Why"), answer.header("Content-Type")),
            (vec!["because", "twice"], Some("text/plain"))
        );
        assert_eq!(answer.header("Keep-Alive"), None, "not end to end");
        assert_eq!(answer.header("Content-Length"), Some("2"));
    }
}

// checklist: 47, 162
#[tokio::test]
async fn a_redirect_is_the_clients_to_follow() {
    let backend = Backend::start().await;
    let elsewhere = format!("{}/elsewhere", backend.url());
    backend.on("/connect", Reply::status(301).header("Location", &elsewhere));
    let gateway = start(&backend).await;
    let answer = gateway.client("/dev").refused().await;
    assert_eq!((answer.status, answer.header("Location")), (301, Some(elsewhere.as_str())));
    backend.no_more("/elsewhere").await;
    gateway.finish().await;
}

// checklist: 52, 55, 56, 61
#[tokio::test]
async fn an_integration_that_takes_too_long_is_a_timeout() {
    let answer = refusal(Reply::hang()).await;
    assert_is_the_gateways(&answer, 504, "Endpoint request timed out");
}

// checklist: 55, 56, 61
#[tokio::test]
async fn an_integration_that_breaks_off_is_an_error() {
    for reply in
        [Reply::raw(""), Reply::raw("not HTTP at all\r\n\r\n"), Reply::ok("half").midway(), Reply::raw("HTTP/1.1 200")]
    {
        assert_is_the_gateways(&refusal(reply).await, 500, "Internal server error");
    }
}

// checklist: 55, 56
#[tokio::test]
async fn an_integration_that_is_not_there_is_an_error() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = TestGateway::builder().routes_yaml(REFUSING).backend_at(&format!("http://{nobody}")).start().await;
    let answer = gateway.client("/dev").refused().await;
    assert_is_the_gateways(&answer, 500, "Internal server error");
    gateway.finish().await;
}

// checklist: 56
#[tokio::test]
async fn refusals_before_an_id_exists_say_their_length_and_type() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for (connect, status) in [
        (gateway.client("/nowhere"), 403),
        (gateway.client("/dev").without("Sec-WebSocket-Key"), 400),
        (gateway.client("/dev").replace("Sec-WebSocket-Version", "7"), 426),
        (gateway.client("/dev").method("POST"), 403),
    ] {
        let answer = connect.refused().await;
        assert_eq!(answer.status, status);
        assert!(answer.header("Content-Type").unwrap().starts_with("application/json"));
        assert_eq!(answer.header("Content-Length"), Some(answer.body.len().to_string().as_str()));
        assert!(answer.json()["message"].is_string());
        assert!(answer.header("Date").is_some() && answer.header("x-amz-apigw-id").is_some());
    }
    gateway.finish().await;
}

// checklist: 57
#[tokio::test]
async fn no_refusal_of_the_gateways_is_410() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let mut client = gateway.client("/dev").open().await;
    let id = client.id().await;
    client.close(1000, "").await;
    gateway.is_empty().await;
    // Not even where a path names a connection that is gone.
    for path in ["/", "/dev/x", "/none", &format!("/dev/@connections/{id}"), &format!("/{id}")] {
        let answer = gateway.client(path).refused().await;
        assert_ne!(answer.status, 410, "{path}");
    }
    for reply in [Reply::hang(), Reply::raw(""), Reply::status(500)] {
        backend.on("/connect", reply);
        assert_ne!(gateway.client("/dev").refused().await.status, 410);
    }
    gateway.finish().await;
}

// checklist: 160
#[tokio::test]
async fn every_status_of_success_accepts() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for status in [200, 201, 204, 299] {
        backend.on("/connect", Reply::status(status));
        gateway.client("/dev").open().await.close(1000, "").await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_its_connect_runs_is_let_go() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    backend.on("/connect", Reply::status(200).behind(&gate));
    let gateway = TestGateway::builder()
        .routes_yaml(&REFUSING.replace("timeoutInMillis: 200", "timeoutInMillis: 29000"))
        .backend(&backend)
        .start()
        .await;
    let pending = gateway.client("/dev").begin().await;
    backend.request("/connect").await;
    drop(pending);
    gate.open();
    // The integration said yes and has stored the connection, so it is told.
    backend.request("/disconnect").await;
    gateway.finish().await;
    backend.no_more("/disconnect").await;
}
