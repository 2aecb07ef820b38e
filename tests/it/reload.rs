//! New definitions under open sessions (specification 2.5).

use crate::support::{Backend, Gate, Reply, TestGateway};

fn api(stages: &str, answer: &str, more: &str) -> String {
    format!(
        "
apiId: changing
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {stages}
routes:
  ask:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: MOCK
      integrationResponses: {{$default: {{responseTemplates: {{$default: {answer}}}}}}}
{more}"
    )
}

const ASK: &str = r#"{"action":"ask"}"#;
const DISCONNECT: &str = "
  $disconnect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/disconnect
      requestParameters: {integration.request.header.code: context.disconnectStatusCode}
";

// checklist: 83, 283
#[tokio::test]
async fn an_open_connection_uses_the_definition_of_the_moment() {
    let gateway = TestGateway::builder().routes_yaml(&api("{dev: {}}", "old", "")).start().await;
    let mut client = gateway.client("/dev").open().await;
    assert_eq!(client.ask(ASK).await, "old");
    let added = "
  added:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: MOCK
      integrationResponses: {$default: {responseTemplates: {$default: added}}}
";
    let next = api("{dev: {}}", "new", added);
    std::fs::write(gateway.folder().join("routes/0.yaml"), &next).unwrap();
    client.send_text(r#"{"action":"added"}"#).await;
    client.expect_error("Forbidden").await;
    assert_eq!(client.ask(ASK).await, "old", "written is not yet deployed");
    gateway.redeploy(&next);
    assert_eq!(client.ask(ASK).await, "new");
    assert_eq!(client.ask(r#"{"action":"added"}"#).await, "added");
    gateway.redeploy(&api("{dev: {}}", "newer", ""));
    client.send_text(r#"{"action":"added"}"#).await;
    client.expect_error("Forbidden").await;
    assert_eq!(client.ask(ASK).await, "newer");
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_definition_with_a_mistake_changes_nothing() {
    let gateway = TestGateway::builder().routes_yaml(&api("{dev: {}}", "old", "")).start().await;
    let mut client = gateway.client("/dev").open().await;
    for mistake in ["not: a definition", "", "{", "\u{0}", &api("{dev: {}}", "new", "  bad: {unknown: 1}\n")] {
        gateway.redeploy(mistake);
        assert_eq!(client.ask(ASK).await, "old");
        gateway.client("/dev").open().await.close(1000, "").await;
    }
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_stage_taken_away_closes_its_connections_and_runs_their_disconnect() {
    let backend = Backend::start().await;
    let both = api("{dev: {}, prod: {}}", "old", DISCONNECT);
    let gateway = TestGateway::builder().routes_yaml(&both).backend(&backend).start().await;
    let leaving = gateway.client("/prod").open().await;
    let mut staying = gateway.client("/dev").open().await;
    gateway.redeploy(&api("{dev: {}}", "new", ""));
    assert_eq!(leaving.expect_close().await, (Some(1001), "Going away".into()));
    let disconnect = backend.request("/disconnect").await;
    assert_eq!(disconnect.header("code"), Some("1001"), "on the definition it was opened under");
    assert_eq!(staying.ask(ASK).await, "new");
    let refused = gateway.client("/prod").refused().await;
    assert_eq!((refused.status, refused.text()), (403, r#"{"message":"Forbidden"}"#));
    staying.close(1000, "").await;
    gateway.finish().await;
    backend.no_more("/disconnect").await;
}

#[tokio::test]
async fn an_exchange_that_began_ends_on_the_definition_it_began_on() {
    let backend = Backend::start().await;
    let gate = Gate::closed();
    backend.on("/slow", Reply::ok("late").behind(&gate));
    let slow = "
  slow:
    routeResponseSelectionExpression: $default
    integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/slow'}
";
    let gateway = TestGateway::builder().routes_yaml(&api("{dev: {}}", "old", slow)).backend(&backend).start().await;
    let mut client = gateway.client("/dev").open().await;
    client.send_text(r#"{"action":"slow"}"#).await;
    backend.request("/slow").await;
    gateway.redeploy(&api("{dev: {}}", "new", ""));
    assert_eq!(client.ask(ASK).await, "new");
    gate.open();
    assert_eq!(client.next_text().await, "late");
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_reload_changes_the_limits_of_open_connections() {
    let gateway = TestGateway::builder().routes_yaml(&api("{dev: {}}", "old", "")).start().await;
    let mut client = gateway.client("/dev").open().await;
    assert_eq!(client.ask(ASK).await, "old");
    gateway.redeploy(&api("{dev: {limits: {idleTimeout: 100ms}}}", "new", ""));
    assert_eq!(client.expect_close().await, (Some(1001), "Going away".into()));
    gateway.finish().await;
}

#[tokio::test]
async fn reloads_under_load_lose_no_message() {
    let gateway = TestGateway::builder().routes_yaml(&api("{dev: {}}", "old", "")).start().await;
    let mut client = gateway.client("/dev").open().await;
    for round in 0..30 {
        for _ in 0..10 {
            client.send_text(ASK).await;
        }
        let answer = if round % 2 == 0 { "even" } else { "odd" };
        gateway.redeploy(&api("{dev: {}}", answer, ""));
        for _ in 0..10 {
            let answer = client.next_text().await;
            assert!(["old", "even", "odd"].contains(&answer.as_str()), "{answer}");
        }
        assert_eq!(client.ask(ASK).await, answer);
    }
    client.close(1000, "").await;
    gateway.finish().await;
}
