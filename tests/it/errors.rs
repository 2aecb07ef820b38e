//! Error frames and ids (specification 0.3, 0.4).

use std::collections::HashSet;

use crate::support::{Backend, Reply, TestGateway};

/// Every id of every event, mapped.
const IDS: &str = "
apiId: ids
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $connect:
    integration: &call
      integrationType: HTTP_PROXY
      integrationUri: http://backend/event
      requestParameters:
        integration.request.header.connectionId: context.connectionId
        integration.request.header.requestId: context.requestId
        integration.request.header.extendedRequestId: context.extendedRequestId
        integration.request.header.messageId: context.messageId
        integration.request.header.eventType: context.eventType
  $disconnect: {integration: *call}
  order: {integration: *call}
";

fn is_id(text: &str) -> bool {
    regex::Regex::new("^[A-Za-z0-9_-]{15}=$").unwrap().is_match(text)
}

// checklist: 1, 2, 3
#[tokio::test]
async fn every_event_has_ids_of_one_shape() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder().routes_yaml(IDS).backend(&backend).start().await;
    let mut client = gateway.client("/dev").open().await;
    client.send_text(r#"{"action":"order"}"#).await;
    let connect = backend.request("/event").await;
    let message = backend.request("/event").await;
    client.close(1000, "").await;
    let disconnect = backend.request("/event").await;
    let id = connect.connection_id();
    for (event, kind) in [(&connect, "CONNECT"), (&message, "MESSAGE"), (&disconnect, "DISCONNECT")] {
        assert_eq!(event.header("eventType"), Some(kind));
        assert_eq!(event.connection_id(), id, "one connection");
        assert!(is_id(id) && is_id(event.header("requestId").unwrap()), "{event:?}");
        assert_eq!(event.header("requestId"), event.header("extendedRequestId"));
    }
    let message_id = message.header("messageId").unwrap();
    assert!(is_id(message_id) && message_id.ends_with(&id[11..]), "{message_id} came in on {id}");
    assert_eq!((connect.header("messageId"), disconnect.header("messageId")), (None, None));
    let requests: HashSet<_> = [connect, message, disconnect].map(|e| e.header("requestId").unwrap().to_owned()).into();
    assert_eq!(requests.len(), 3, "each exchange has an id of its own");
    gateway.finish().await;
}

// checklist: 4
#[tokio::test]
async fn ten_thousand_connections_have_ten_thousand_ids() {
    let gateway = TestGateway::builder().routes_file("chat.yaml").start().await;
    let mut ids = HashSet::new();
    for _ in 0..10_000 {
        let mut client = gateway.client("/dev").open().await;
        ids.insert(client.id().await);
        drop(client);
    }
    assert_eq!(ids.len(), 10_000);
    gateway.finish().await;
}

// checklist: 5, 6, 7, 134
#[tokio::test]
async fn an_error_frame_names_its_connection_and_its_request() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder().routes_yaml(IDS).backend(&backend).start().await;
    let mut client = gateway.client("/dev").open().await;
    let id = backend.request("/event").await.connection_id().to_owned();
    let mut requests = HashSet::new();
    for _ in 0..3 {
        client.send_text("{}").await;
        let text = client.next_text().await;
        let request =
            serde_json::from_str::<serde_json::Value>(&text).unwrap()["requestId"].as_str().unwrap().to_owned();
        assert_eq!(text, format!(r#"{{"message": "Forbidden", "connectionId":"{id}", "requestId":"{request}"}}"#));
        assert!(is_id(&request));
        requests.insert(request);
    }
    assert_eq!(requests.len(), 3);
    backend.on("/event", Reply::raw(""));
    client.send_text(r#"{"action":"order"}"#).await;
    let failed = backend.request("/event").await;
    let request = client.expect_error("Internal server error").await;
    assert_eq!(failed.header("requestId"), Some(request.as_str()), "the frame and the event name one request");
    backend.on("/event", Reply::ok(""));
    client.send_text(r#"{"action":"order"}"#).await;
    backend.request("/event").await;
    client.close(1000, "").await;
    gateway.finish().await;
}
