//! Functions that decide who may connect (specification 8.1, 8.2).

use serde_json::{Value, json};

use crate::support::{Functions, Gate, HttpAnswer, Reply, TestGateway, accepted, error};

const API: &str = "
apiId: door
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {prod: {}, blue: {stageVariables: {fn: auth}}}
authorizers:
  guard:
    authorizerType: REQUEST
    authorizerUri: auth
    identitySource: [route.request.querystring.token]
    authorizerResultTtlInSeconds: 300
  open: {authorizerType: REQUEST, authorizerUri: 'arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/auth/invocations'}
  many:
    authorizerType: REQUEST
    authorizerUri: ${stageVariables.fn}
    identitySource: [method.request.header.X-Key, stageVariables.fn, context.connectionId]
  never: {authorizerType: REQUEST, authorizerUri: auth, identitySource: [context.eventType]}
routes:
  $connect: {authorizationType: CUSTOM, authorizerId: guard, integration: &fn {integrationType: AWS_PROXY, integrationUri: fn}}
  $disconnect: {integration: *fn}
  tell: {integration: *fn}
  who:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: MOCK
      requestTemplates: {$default: '{\"statusCode\": 200}'}
      integrationResponses:
        $default: {responseTemplates: {$default: '$context.authorizer.principalId of $context.authorizer.tenant'}}
";

/// What a policy of one statement answers, about these resources.
fn policy(effect: &str, resource: &str) -> Value {
    json!({
        "principalId": "user-7",
        "policyDocument": {"Version": "2012-10-17",
            "Statement": [{"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}]},
        "context": {"tenant": "t1", "count": 5, "admin": true, "nothing": null, "principalId": "somebody else"},
        "usageIdentifierKey": "a-key"
    })
}

async fn with(functions: &Functions, authorizer: &str) -> TestGateway {
    functions.returns("fn", &accepted());
    let text = API.replace("authorizerId: guard", &format!("authorizerId: {authorizer}"));
    TestGateway::builder().routes_yaml(&text).settings(functions.settings()).start().await
}

/// What a refusal says, in the gateway's own words.
fn message(answer: &HttpAnswer) -> Value {
    let told = answer.json();
    assert!(told["connectionId"].is_string() && told["requestId"].is_string(), "{told}");
    told["message"].clone()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

// checklist: 228, 229, 230, 231, 232, 233
#[tokio::test]
async fn an_authorizer_gets_the_handshake_as_an_upgrade_with_every_map() {
    let functions = Functions::start().await;
    functions.returns("auth", &policy("Allow", "*"));
    let gateway = with(&functions, "open").await;
    let client = gateway.client("/prod").header("X-tEAm", "red").open().await;
    let asked = functions.event("auth").await;
    let expected = [
        "type",
        "methodArn",
        "headers",
        "multiValueHeaders",
        "queryStringParameters",
        "multiValueQueryStringParameters",
        "stageVariables",
        "requestContext",
    ];
    assert_eq!(keys(&asked), expected);
    assert_eq!(asked["type"], "REQUEST");
    let arn = asked["methodArn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:execute-api:") && arn.ends_with(":door/prod/$connect"), "{arn}");
    for empty in ["queryStringParameters", "multiValueQueryStringParameters", "stageVariables"] {
        assert_eq!(asked[empty], json!({}), "{empty}");
    }
    let headers = &asked["headers"];
    assert_eq!((&headers["Connection"], &headers["Upgrade"]), (&json!("upgrade"), &json!("websocket")));
    assert_eq!((&headers["content-length"], &headers["X-tEAm"]), (&json!("0"), &json!("red")));
    assert_eq!(keys(headers), keys(&asked["multiValueHeaders"]));
    let connect = functions.event("fn").await;
    for absent in ["Connection", "Upgrade", "content-length"] {
        assert!(connect["headers"].get(absent).is_none(), "{absent}");
    }
    for same in ["connectionId", "requestId", "connectedAt", "domainName"] {
        assert_eq!(asked["requestContext"][same], connect["requestContext"][same], "{same}");
    }
    assert!(asked["requestContext"].get("authorizer").is_none());
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 243, 244, 245, 248, 303
#[tokio::test]
async fn whom_it_recognised_is_in_every_event_and_in_templates() {
    let functions = Functions::start().await;
    functions.returns("auth", &policy("Allow", "arn:aws:execute-api:*:*:door/prod/$connect"));
    let gateway = with(&functions, "guard").await;
    let mut client = gateway.client("/prod?token=t").open().await;
    client.send_text(r#"{"action":"tell"}"#).await;
    assert_eq!(client.ask(r#"{"action":"who"}"#).await, "user-7 of t1");
    let (connect, told) = (functions.event("fn").await, functions.event("fn").await);
    client.close(1000, "").await;
    let gone = functions.event("fn").await;
    let known = json!({"principalId": "user-7", "tenant": "t1", "count": "5", "admin": "true"});
    assert_eq!((&told["requestContext"]["authorizer"], &gone["requestContext"]["authorizer"]), (&known, &known));
    let mut at_connect = connect["requestContext"]["authorizer"].clone();
    assert!(at_connect.as_object_mut().unwrap().remove("integrationLatency").unwrap().is_u64());
    assert_eq!(at_connect, known);
    assert_eq!(functions.calls("auth"), 1, "once a connection");
    gateway.finish().await;
}

// checklist: 246
#[tokio::test]
async fn it_is_asked_for_each_handshake_whatever_the_time_to_live() {
    let functions = Functions::start().await;
    functions.returns("auth", &policy("Allow", "*"));
    let gateway = with(&functions, "guard").await;
    for _ in 0..2 {
        gateway.client("/prod?token=same").open().await.close(1000, "").await;
    }
    assert_eq!(functions.calls("auth"), 2);
    gateway.finish().await;
}

// checklist: 234, 235, 247
#[tokio::test]
async fn its_policy_decides_and_says_how() {
    let functions = Functions::start().await;
    let gateway = with(&functions, "guard").await;
    let explicit = "User is not authorized to access this resource with an explicit deny in an identity-based policy";
    let implicit = "User is not authorized to access this resource because no identity-based policy allows the \
                    execute-api:Invoke action";
    for (answer, expected) in [
        (policy("Deny", "*"), explicit),
        (policy("Allow", "arn:aws:execute-api:us-east-1:*:other/prod/*"), implicit),
        (policy("Allow", "arn:aws:execute-api:*:*:door/prod/*/*"), implicit),
        (policy("Allow", "arn:aws:execute-api:*:*:door/blue/*"), implicit),
    ] {
        functions.returns("auth", &answer);
        let refused = gateway.client("/prod?token=t").refused().await;
        assert_eq!((refused.status, message(&refused)), (403, json!(expected)), "{answer}");
    }
    functions.no_more("fn").await;
    for resource in ["arn:aws:execute-api:*:*:door/prod/*", "arn:aws:execute-api:*:*:door/*", "*"] {
        functions.returns("auth", &policy("Allow", resource));
        gateway.client("/prod?token=t").open().await.close(1000, "").await;
    }
    let mut local = policy("Allow", "*");
    local["policyDocument"]["Statement"][0]["Condition"] = json!({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}});
    functions.returns("auth", &local);
    gateway.client("/prod?token=t").open().await.close(1000, "").await;
    local["policyDocument"]["Statement"][0]["Condition"] = json!({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}});
    functions.returns("auth", &local);
    assert_eq!(gateway.client("/prod?token=t").refused().await.status, 403);
    gateway.finish().await;
}

// checklist: 54, 240, 241
#[tokio::test]
async fn who_brings_nothing_is_refused_without_a_call() {
    let functions = Functions::start().await;
    functions.returns("auth", &policy("Allow", "*"));
    let gateway = with(&functions, "guard").await;
    for target in ["/prod", "/prod?token=", "/prod?Token=t", "/prod?token=t&token="] {
        let refused = gateway.client(target).refused().await;
        assert_eq!((refused.status, message(&refused)), (401, json!("Unauthorized")), "{target}");
    }
    gateway.finish().await;
    let gateway = with(&functions, "never").await;
    assert_eq!(gateway.client("/prod").refused().await.status, 401);
    gateway.finish().await;
    let gateway = with(&functions, "many").await;
    assert_eq!(gateway.client("/blue").refused().await.status, 401);
    assert_eq!(gateway.client("/prod").header("X-Key", "k").refused().await.status, 401, "no such variable there");
    assert_eq!((functions.calls("auth"), functions.calls("fn")), (0, 0));
    gateway.client("/blue").header("x-key", "k").open().await.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 242
#[tokio::test]
async fn without_identity_sources_everybody_is_asked_about() {
    let functions = Functions::start().await;
    functions.returns("auth", &policy("Allow", "*"));
    let gateway = with(&functions, "open").await;
    gateway.client("/prod").open().await.close(1000, "").await;
    assert_eq!(functions.calls("auth"), 1);
    gateway.finish().await;
}

// checklist: 236, 237
#[tokio::test]
async fn what_it_throws_decides_between_401_and_500() {
    let functions = Functions::start().await;
    let gateway = with(&functions, "guard").await;
    for (thrown, status, expected) in [
        ("Unauthorized", 401, "Unauthorized"),
        ("unauthorized", 500, "Internal server error"),
        ("Unauthorized: no", 500, "Internal server error"),
    ] {
        functions.throws("auth", thrown);
        let refused = gateway.client("/prod?token=t").refused().await;
        assert_eq!((refused.status, message(&refused)), (status, json!(expected)), "{thrown}");
    }
    functions.no_more("fn").await;
    gateway.finish().await;
}

#[tokio::test]
async fn one_that_cannot_be_called_is_500() {
    let functions = Functions::start().await;
    let gateway = with(&functions, "guard").await;
    for reply in [
        error(404, "ResourceNotFoundException"),
        error(429, "TooManyRequestsException"),
        error(500, "ServiceException"),
        Reply::raw(""),
    ] {
        functions.replies("auth", move |_| reply.clone());
        let refused = gateway.client("/prod?token=t").refused().await;
        assert_eq!((refused.status, message(&refused)), (500, json!("Internal server error")));
    }
    functions.no_more("fn").await;
    gateway.finish().await;
}

// checklist: 238, 239
#[tokio::test]
async fn an_answer_that_is_none_is_500_with_no_message() {
    let functions = Functions::start().await;
    let gateway = with(&functions, "guard").await;
    let good = policy("Allow", "*");
    let changed = |name: &str, value: Value| {
        let mut answer = good.clone();
        answer[name] = value;
        answer.to_string()
    };
    let without = |name: &str| {
        let mut answer = good.clone();
        answer.as_object_mut().unwrap().remove(name);
        answer.to_string()
    };
    for text in [
        without("policyDocument"),
        without("principalId"),
        changed("principalId", json!(7)),
        changed("policyDocument", json!({"Statement": "none"})),
        changed("policyDocument", json!("{}")),
        changed("context", json!({"a": {"b": 1}})),
        changed("context", json!({"a": [1]})),
        changed("context", json!("text")),
        changed("context", json!({"long": "x".repeat(8 * 1024)})),
        "null".to_owned(),
        "true".to_owned(),
        "no JSON".to_owned(),
        String::new(),
    ] {
        let reply = Reply::ok(&text);
        functions.replies("auth", move |_| reply.clone());
        let refused = gateway.client("/prod?token=t").refused().await;
        assert_eq!((refused.status, message(&refused)), (500, Value::Null), "{text}");
        assert!(refused.text().starts_with(r#"{"message": null, "connectionId":""#), "{}", refused.text());
    }
    functions.no_more("fn").await;
    gateway.finish().await;
}

// checklist: 249
#[tokio::test]
async fn two_authorization_headers_are_400() {
    let functions = Functions::start().await;
    functions.returns("auth", &policy("Allow", "*"));
    let gateway = with(&functions, "guard").await;
    let connect = gateway.client("/prod?token=t").header("Authorization", "a").header("authorization", "b");
    assert_eq!(connect.refused().await.status, 400);
    assert_eq!(functions.calls("auth"), 0);
    gateway.finish().await;
}

// checklist: 63
#[tokio::test]
async fn a_connect_route_with_an_authorizer_alone_asks_it_and_accepts() {
    let functions = Functions::start().await;
    functions.returns("auth", &policy("Allow", "*")).returns("fn", &accepted());
    let alone = API.replace(", integration: &fn {integrationType: AWS_PROXY, integrationUri: fn}}", "}");
    let alone = alone.replace("  $disconnect: {integration: *fn}\n", "").replace("  tell: {integration: *fn}\n", "");
    let gateway = TestGateway::builder().routes_yaml(&alone).settings(functions.settings()).start().await;
    let mut client = gateway.client("/prod?token=t").open().await;
    assert_eq!(client.ask(r#"{"action":"who"}"#).await, "user-7 of t1");
    client.close(1000, "").await;
    functions.returns("auth", &policy("Deny", "*"));
    assert_eq!(gateway.client("/prod?token=t").refused().await.status, 403);
    gateway.finish().await;
}

#[tokio::test]
async fn a_slow_authorizer_delays_no_other_session() {
    let functions = Functions::start().await;
    functions.returns("auth", &policy("Allow", "*"));
    let gateway = with(&functions, "guard").await;
    let mut client = gateway.client("/prod?token=t").open().await;
    let gate = Gate::closed();
    let slow = Reply::ok(policy("Allow", "*").to_string()).behind(&gate);
    functions.replies("auth", move |_| slow.clone());
    let mut waiting = Vec::new();
    for _ in 0..50 {
        waiting.push(gateway.client("/prod?token=t").begin().await);
    }
    for _ in 0..50 {
        functions.call("auth").await;
    }
    assert_eq!(client.ask(r#"{"action":"who"}"#).await, "user-7 of t1");
    if let Some(pending) = waiting.first_mut() {
        pending.is_unanswered().await;
    }
    gate.open();
    for pending in waiting {
        pending.accepted().await.close(1000, "").await;
    }
    client.close(1000, "").await;
    gateway.finish().await;
}
