//! `MOCK`, templates, groups (specification 4.6.7, 12).

use serde_json::json;

use crate::support::{Client, TestGateway};

const MOCKS: &str = r#"
apiId: mock
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev: {stageVariables: {color: blue}}
  refusing: {stageVariables: {status: "403"}}
  accepting: {stageVariables: {status: "200"}}
routes:
  $connect:
    integration:
      integrationType: MOCK
      requestTemplates: {$default: '{"statusCode":$stageVariables.status}'}
      integrationResponses:
        $default:
          responseTemplates: {$default: '{"why":"$input.params(''why'')"}'}
          responseParameters: {route.response.header.X-Said: "'so'"}
"#;

// checklist: 168, 301
#[tokio::test]
async fn a_mocked_connect_accepts_and_refuses_by_its_status() {
    let gateway = TestGateway::builder().routes_yaml(MOCKS).start().await;
    let client = gateway.client("/accepting").open().await;
    assert_eq!(client.answer.header("X-Said"), Some("so"));
    client.close(1000, "").await;
    let refused = gateway.client("/refusing?why=full").header("why", "not this").refused().await;
    assert_eq!((refused.status, refused.text()), (403, r#"{"why":"full"}"#));
    let by_header = gateway.client("/refusing").header("why", "this").refused().await;
    assert_eq!(by_header.text(), r#"{"why":"this"}"#);
    let broken = gateway.client("/dev").refused().await;
    assert_eq!(
        (broken.status, &broken.json()["message"]),
        (500, &json!("Internal server error")),
        "no status rendered"
    );
    gateway.finish().await;
}

const ANSWERING: &str = r#"
apiId: mock
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev: {stageVariables: {color: blue}}
  prod: {stageVariables: {color: red}}
routes:
  context:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: MOCK
      integrationResponses:
        $default:
          responseTemplates:
            $default: '{"c":"$context.connectionId","r":"$context.routeKey","m":"$context.messageId","at":$context.requestTimeEpoch,"s":"$context.stage","a":"$context.apiId","e":"$context.eventType","color":"$stageVariables.color","none":"$context.nothing"}'
  input:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: MOCK
      integrationResponses:
        $default:
          responseTemplates: {$default: '{"json":$input.json(''$.a''),"path":"$input.path(''$.b'')","body":$input.body}'}
  silent: {integration: {integrationType: MOCK, integrationResponses: {$default: {responseTemplates: {$default: heard?}}}}}
  broken: {integration: {integrationType: MOCK, requestTemplates: {$default: '{"status":1}'}}}
"#;

// checklist: 177, 178, 287, 298
#[tokio::test]
async fn a_two_way_mock_sends_its_rendered_template() {
    let gateway = TestGateway::builder().routes_yaml(ANSWERING).start().await;
    for (stage, color) in [("dev", "blue"), ("prod", "red")] {
        let mut client = gateway.client(&format!("/{stage}")).open().await;
        let id = client.id().await;
        client.send_text(r#"{"action":"context"}"#).await;
        let answer = client.next_json().await;
        let (message, at) = (answer["m"].clone(), answer["at"].clone());
        assert!(message.as_str().unwrap().ends_with(&id[11..]) && at.is_u64(), "{answer}");
        let expected = json!({
            "c": id, "r": "context", "m": message, "at": at, "s": stage, "a": "mock", "e": "MESSAGE", "color": color,
            "none": "",
        });
        assert_eq!(answer, expected);
        client.expect_silence().await;
        client.close(1000, "").await;
    }
    gateway.finish().await;
}

// checklist: 300
#[tokio::test]
async fn input_gives_json_values_and_the_raw_text() {
    let gateway = TestGateway::builder().routes_yaml(ANSWERING).start().await;
    let mut client = gateway.client("/dev").open().await;
    let message = r#"{"action":"input","a":{"x":[1,"y"]},"b":"text"}"#;
    let answer = client.ask(message).await;
    assert_eq!(answer, format!(r#"{{"json":{{"x":[1,"y"]}},"path":"text","body":{message}}}"#));
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_one_way_mock_is_silent_unless_it_is_broken() {
    let gateway = TestGateway::builder().routes_yaml(ANSWERING).start().await;
    let mut client = gateway.client("/dev").open().await;
    client.send_text(r#"{"action":"silent"}"#).await;
    client.expect_silence().await;
    client.send_text(r#"{"action":"broken"}"#).await;
    client.expect_error("Internal server error").await;
    client.close(1000, "").await;
    gateway.finish().await;
}

/// Sends a message to a room; a member gets it back, which shows that it has been served.
async fn join(client: &mut Client, room: &str) {
    client.send_json(&json!({"action": "join", "room": room})).await;
    client.ask(r#"{"action":"whoami"}"#).await;
}

#[tokio::test]
async fn the_chat_of_the_readme_runs() {
    let gateway = TestGateway::builder().routes_file("chat.yaml").start().await;
    let mut ann = gateway.client("/dev").open().await;
    let mut bob = gateway.client("/dev").open().await;
    let mut eve = gateway.client("/dev").open().await;
    join(&mut ann, "lobby").await;
    join(&mut bob, "lobby").await;
    join(&mut eve, "cellar").await;
    let hello = r#"{"action": "say", "room": "lobby", "text": "hello"}"#;
    ann.send_text(hello).await;
    assert_eq!(ann.next_text().await, hello);
    assert_eq!(bob.next_text().await, hello);
    eve.expect_silence().await;
    bob.send_text(r#"{"action":"leave","room":"lobby"}"#).await;
    bob.ask(r#"{"action":"whoami"}"#).await;
    ann.send_text(hello).await;
    assert_eq!(ann.next_text().await, hello);
    bob.expect_silence().await;
    assert_eq!(gateway.app().gateway().groups(), 2);
    drop(ann);
    for client in [bob, eve] {
        client.close(1000, "").await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_group_can_spare_its_sender_and_change_the_message() {
    let definition = "
apiId: groups
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  join: {integration: {integrationType: GROUP, groupAction: join, groupName: all}}
  say:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: GROUP
      groupAction: send
      groupName: all
      message: 'they say ${request.body.text}'
      excludeSender: true
  bad:
    integration: {integrationType: GROUP, groupAction: send, groupName: $request.body.room}
";
    let gateway = TestGateway::builder().routes_yaml(definition).start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = gateway.client("/dev").open().await;
        client.send_text(r#"{"action":"join"}"#).await;
        client.ping().await;
        clients.push(client);
    }
    let answer = clients[0].ask(r#"{"action":"say","text":"hi"}"#).await;
    assert_eq!(answer, r#"{"delivered":2,"dropped":0,"gone":0}"#);
    assert_eq!(clients[1].next_text().await, "they say hi");
    assert_eq!(clients[2].next_text().await, "they say hi");
    for no_name in [r#"{"action":"bad"}"#.to_owned(), json!({"action": "bad", "room": "x".repeat(257)}).to_string()] {
        clients[0].send_text(no_name).await;
        clients[0].expect_error("Invalid group name").await;
    }
    for client in clients {
        client.close(1000, "").await;
    }
    gateway.finish().await;
}
