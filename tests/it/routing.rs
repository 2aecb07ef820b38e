//! Which route a message takes (specification 3).

use crate::support::{Backend, Client, TestGateway};

/// An API whose routes answer their own key. `keys` are YAML scalars.
fn api(expression: &str, keys: &[&str]) -> String {
    let mut text = format!(
        "apiId: routing\nprotocolType: WEBSOCKET\nrouteSelectionExpression: {expression}\nstages: {{dev: {{}}}}\nroutes:\n"
    );
    for key in keys {
        text.push_str(&format!(
            "  {key}:\n    routeResponseSelectionExpression: $default\n    integration:\n      integrationType: MOCK\n      \
             integrationResponses: {{$default: {{responseTemplates: {{$default: '<$context.routeKey>'}}}}}}\n"
        ));
    }
    text
}

/// Sends each message and expects the route's key, in angle brackets by the template.
async fn assert_routes(expression: &str, keys: &[&str], cases: &[(&str, &str)]) {
    let gateway = TestGateway::builder().routes_yaml(&api(expression, keys)).start().await;
    let mut client = gateway.client("/dev").open().await;
    for (message, route) in cases {
        assert_eq!(client.ask(message).await, format!("<{route}>"), "{expression} on {message}");
    }
    client.close(1000, "").await;
    gateway.finish().await;
}

const ACTION: &str = "$request.body.action";

// checklist: 69, 84, 92, 93, 94
#[tokio::test]
async fn a_member_of_the_message_names_the_route_exactly() {
    assert_routes(
        ACTION,
        &["join", "/books", "'join room'", "$default"],
        &[
            (r#"{"action":"join"}"#, "join"),
            (r#" { "x" : 1 , "action" : "join" } "#, "join"),
            (r#"{"action":"/books"}"#, "/books"),
            (r#"{"action":"join room"}"#, "join room"),
            (r#"{"Action":"join"}"#, "$default"),
            (r#"{"action":"JOIN"}"#, "$default"),
            (r#"{"action":"join "}"#, "$default"),
            (r#"{"action":" join"}"#, "$default"),
            (r#"{"x":{"action":"join"}}"#, "$default"),
        ],
    )
    .await;
}

// checklist: 95, 96, 97, 98, 99, 100, 109, 110
#[tokio::test]
async fn what_names_no_route_goes_to_the_default() {
    let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
    let deep_member = format!(r#"{{"action":"join","x":{deep}}}"#);
    assert_routes(
        ACTION,
        &["join", "$default"],
        &[
            ("{}", "$default"),
            (r#"{"action":null}"#, "$default"),
            ("hello", "$default"),
            ("", "$default"),
            ("[1,2]", "$default"),
            ("7", "$default"),
            (r#""join""#, "$default"),
            ("null", "$default"),
            (r#"{"action":"unknown"}"#, "$default"),
            (r#"{"action":"join""#, "$default"),
            ("\u{feff}{\"action\":\"join\"}", "$default"),
            (&deep, "$default"),
            (&deep_member, "$default"),
            (r#"{"action":"join"}"#, "join"),
        ],
    )
    .await;
}

// checklist: 67, 68
#[tokio::test]
async fn a_message_cannot_reach_a_reserved_route() {
    let backend = Backend::start().await;
    let reserved = "
  $connect: {integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/connect'}}
  $disconnect: {integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/disconnect'}}
";
    let with_default = format!("{}{reserved}", api(ACTION, &["$default"]));
    let without = format!("{}{reserved}", api(ACTION, &["join"]));
    for (definition, has_default) in [(with_default, true), (without, false)] {
        let gateway = TestGateway::builder().routes_yaml(&definition).backend(&backend).start().await;
        let mut client = gateway.client("/dev").open().await;
        backend.request("/connect").await;
        for action in ["$connect", "$disconnect", "$default"] {
            client.send_text(format!(r#"{{"action":"{action}"}}"#)).await;
            if has_default {
                assert_eq!(client.next_text().await, "<$default>", "{action}");
            } else {
                client.expect_error("Forbidden").await;
            }
        }
        backend.no_more("/connect").await;
        backend.no_more("/disconnect").await;
        client.close(1000, "").await;
        backend.request("/disconnect").await;
        gateway.finish().await;
    }
}

// checklist: 85, 86, 101
#[tokio::test]
async fn wrapped_variables_stand_among_text() {
    assert_routes("'${request.body.action}'", &["join", "$default"], &[(r#"{"action":"join"}"#, "join")]).await;
    assert_routes(
        "${request.body.service}/${request.body.action}",
        &["chat/join", "$default"],
        &[(r#"{"service":"chat","action":"join"}"#, "chat/join"), (r#"{"action":"chat/join"}"#, "$default")],
    )
    .await;
    assert_routes(
        "${request.body.action}-${request.body.nope}",
        &["join-", "$default"],
        &[(r#"{"action":"join"}"#, "join-"), ("{}", "$default")],
    )
    .await;
}

// checklist: 87, 88, 89, 90, 91, 106
#[tokio::test]
async fn paths_reach_into_the_message() {
    for (expression, message, route) in [
        ("$request.body.data.room", r#"{"data":{"room":"room1234"}}"#, "room1234"),
        ("$request.body.list[1]", r#"{"list":["a","b"]}"#, "b"),
        ("$request.body.list", r#"{"list":["a","b"]}"#, "'[a, b]'"),
        ("$request.body.n", r#"{"n":7}"#, "'7'"),
        ("$request.body.t", r#"{"t":true}"#, "'true'"),
        ("$request.body.detail-type", r#"{"detail-type":"x"}"#, "x"),
    ] {
        let key = route.trim_matches('\'');
        assert_routes(expression, &[route, "$default"], &[(message, key), ("{}", "$default")]).await;
    }
}

// checklist: 102
#[tokio::test]
async fn a_static_expression_names_one_route_for_all() {
    assert_routes("fixed", &["fixed", "$default"], &[("{}", "fixed"), (r#"{"action":"x"}"#, "fixed"), ("[]", "fixed")])
        .await;
}

// checklist: 103, 108
#[tokio::test]
async fn loose_json_and_repeated_members_are_read_as_the_service_does() {
    assert_routes(
        ACTION,
        &["send", "a", "b", "$default"],
        &[
            (r#"{"action":"send", body:"x"}"#, "send"),
            ("{'action':'send'}", "send"),
            (r#"{"action":"a","action":"b"}"#, "b"),
            (r#"{"action":"b","action":"a"}"#, "a"),
            (r#"{"action":"a",}"#, "$default"),
            (r#"{"action":"a"} // no"#, "$default"),
        ],
    )
    .await;
}

// checklist: 104
#[tokio::test]
async fn the_integration_gets_the_payload_as_it_came() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder()
        .routes_yaml(
            "
apiId: raw
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $default: {integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/any'}}
  send: {integration: {integrationType: HTTP_PROXY, integrationUri: 'http://backend/send'}}
",
        )
        .backend(&backend)
        .start()
        .await;
    let mut client = gateway.client("/dev").open().await;
    for (path, message) in [
        ("/send", "{ \"z\" : 1.0,\n\t\"action\":\"send\", \"a\":\"\\u00e9\", \"z\":2 }  "),
        ("/any", " { not json "),
        ("/any", ""),
        ("/send", "{action:'send', 'ü':\"ü\"}"),
    ] {
        client.send_text(message).await;
        assert_eq!(backend.request(path).await.text(), message);
    }
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 105, 107
#[tokio::test]
async fn a_value_is_not_an_expression() {
    assert_routes(
        ACTION,
        &["x", "'$default'"],
        &[(r#"{"action":"$request.body.x","x":"x"}"#, "$default"), (r#"{"action":"x"}"#, "x")],
    )
    .await;
    assert_routes(r"\$default", &["$default"], &[("{}", "$default"), ("x", "$default")]).await;
    assert_routes(r"\$request.body.action", &["join", "$default"], &[(r#"{"action":"join"}"#, "$default")]).await;
}

/// Whether the session still serves.
async fn still_serves(client: &mut Client) {
    client.send_text("{}").await;
    client.expect_error("Forbidden").await;
}

// checklist: 65, 66
#[tokio::test]
async fn without_a_route_or_its_integration_the_client_is_told_and_stays() {
    let gateway = TestGateway::builder()
        .routes_yaml(
            "
apiId: bare
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  empty: {}
",
        )
        .start()
        .await;
    let mut client = gateway.client("/dev").open().await;
    client.send_text(r#"{"action":"none"}"#).await;
    client.expect_error("Forbidden").await;
    client.send_text("not json").await;
    client.expect_error("Forbidden").await;
    client.send_text(r#"{"action":"empty"}"#).await;
    client.expect_error("Internal server error").await;
    still_serves(&mut client).await;
    client.close(1000, "").await;
    gateway.finish().await;
}
