//! Functions behind `AWS_PROXY` and `AWS`: the events they get, what comes of their answers (specification 4.2 to 4.4, 5).

use serde_json::{Value, json};

use crate::support::{Functions, Reply, TestGateway, accepted};

/// Every route is the function `fn`; `ask` is two-way.
const CHAT: &str = "
apiId: fn
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev: {}
  prod: {stageVariables: {env: production, fn: 'fn:live'}}
routes:
  $connect: {integration: &fn {integrationType: AWS_PROXY, integrationUri: fn}}
  $disconnect: {integration: *fn}
  tell: {integration: *fn}
  ask: {routeResponseSelectionExpression: $default, integration: *fn}
  $default: {integration: *fn}
";

async fn start(functions: &Functions) -> TestGateway {
    TestGateway::builder().routes_yaml(CHAT).settings(functions.settings()).start().await
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

const CONTEXT: [&str; 12] = [
    "routeKey",
    "eventType",
    "extendedRequestId",
    "requestTime",
    "messageDirection",
    "stage",
    "connectedAt",
    "requestTimeEpoch",
    "identity",
    "requestId",
    "domainName",
    "connectionId",
];

// checklist: 111, 112, 113, 114, 115, 116, 117, 118, 119, 120, 121, 122, 123, 125, 126, 127, 128, 129
#[tokio::test]
async fn a_function_gets_the_three_events_of_a_connection() {
    let functions = Functions::start().await;
    functions.returns("fn", &accepted());
    let gateway = start(&functions).await;
    let mut client = gateway.client("/prod?a=1&a=2&b=x%20y").header("X-tEAm", "red").open().await;
    let message = r#"{"action": "tell", "text": "\u00e9 / \\"}"#;
    client.send_text(message).await;
    let events = [functions.event("fn").await, functions.event("fn").await];
    client.close(1000, "bye").await;
    let [connect, told] = events;
    let gone = functions.event("fn").await;

    let top = ["headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters"];
    assert_eq!(keys(&connect), [&top[..], &["stageVariables", "requestContext", "isBase64Encoded"]].concat());
    assert_eq!(keys(&told), ["stageVariables", "requestContext", "body", "isBase64Encoded"]);
    assert_eq!(keys(&gone), [&top[..2], &["stageVariables", "requestContext", "isBase64Encoded"]].concat());
    assert_eq!(connect["queryStringParameters"], json!({"a": "2", "b": "x y"}));
    assert_eq!(connect["multiValueQueryStringParameters"], json!({"a": ["1", "2"], "b": ["x y"]}));
    assert_eq!(
        (&connect["headers"]["X-tEAm"], &connect["multiValueHeaders"]["X-tEAm"]),
        (&json!("red"), &json!(["red"]))
    );
    assert_eq!(told["body"], message, "the text itself");
    let host = &connect["requestContext"]["domainName"];
    assert_eq!(gone["headers"], json!({"Host": host, "x-api-key": "", "X-Forwarded-For": "", "x-restapi": ""}));
    assert_eq!(gone["requestContext"]["disconnectStatusCode"], 1000);
    assert_eq!(gone["requestContext"]["disconnectReason"], "bye");

    let time = regex::Regex::new(r"^\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} \+0000$").unwrap();
    for (event, kind, route) in
        [(&connect, "CONNECT", "$connect"), (&told, "MESSAGE", "tell"), (&gone, "DISCONNECT", "$disconnect")]
    {
        let context = &event["requestContext"];
        assert_eq!((&context["eventType"], &context["routeKey"]), (&json!(kind), &json!(route)));
        assert!(CONTEXT.iter().all(|name| context.get(name).is_some()), "{context}");
        assert_eq!(context["messageDirection"], "IN");
        assert_eq!((&context["stage"], &context["apiId"]), (&json!("prod"), &json!("fn")));
        assert_eq!(context["identity"]["sourceIp"], "127.0.0.1");
        assert_eq!(context["requestId"], context["extendedRequestId"]);
        assert_eq!(context.get("messageId").is_some(), kind == "MESSAGE");
        assert!(time.is_match(context["requestTime"].as_str().unwrap()), "{context}");
        assert!(context["requestTimeEpoch"].as_u64() >= context["connectedAt"].as_u64(), "{context}");
        for same in ["connectedAt", "connectionId", "domainName"] {
            assert_eq!(context[same], connect["requestContext"][same], "{same}");
        }
        assert_eq!(event["stageVariables"]["env"], "production");
        assert_eq!(event["isBase64Encoded"], false);
        let text = event.to_string();
        for absent in ["null", "version", "resource", "\"path\"", "httpMethod", "pathParameters", "authorizer"] {
            assert!(!text.replace("Sec-WebSocket-Version", "").contains(absent), "{absent} in {text}");
        }
    }
    gateway.finish().await;
}

// checklist: 32, 39, 124, 127
#[tokio::test]
async fn what_a_client_did_not_send_is_in_no_event() {
    let functions = Functions::start().await;
    functions.returns("fn", &accepted());
    let gateway = start(&functions).await;
    let client = gateway.client("/dev").header("Cookie", "a=1; b=2").open().await;
    let event = functions.event("fn").await;
    assert_eq!(keys(&event), ["headers", "multiValueHeaders", "requestContext", "isBase64Encoded"]);
    assert_eq!(keys(&event["requestContext"]["identity"]), ["sourceIp"]);
    assert_eq!(event["headers"]["Cookie"], "a=1; b=2");
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 123
#[tokio::test]
async fn a_user_agent_is_in_every_event() {
    let functions = Functions::start().await;
    functions.returns("fn", &accepted());
    let gateway = start(&functions).await;
    let mut client = gateway.client("/dev").header("User-Agent", "Mine/1").open().await;
    client.send_text("no JSON, so by $default").await;
    for _ in 0..2 {
        let event = functions.event("fn").await;
        assert_eq!(event["requestContext"]["identity"], json!({"userAgent": "Mine/1", "sourceIp": "127.0.0.1"}));
    }
    client.close(1000, "").await;
    functions.event("fn").await;
    gateway.finish().await;
}

#[tokio::test]
async fn bytes_come_as_base64_that_says_so() {
    let functions = Functions::start().await;
    functions.returns("fn", &accepted());
    let binary = CHAT.replace("apiId: fn", "apiId: fn\nbinaryFrames: accept");
    let gateway = TestGateway::builder().routes_yaml(&binary).settings(functions.settings()).start().await;
    let mut client = gateway.client("/dev").open().await;
    functions.event("fn").await;
    client.send(crate::support::Frame::new(crate::support::BINARY, [0xff_u8, 0xfe])).await;
    let event = functions.event("fn").await;
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("//4="), &json!(true)));
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 130, 131
#[tokio::test]
async fn a_one_way_route_sends_nothing_whatever_the_status() {
    let functions = Functions::start().await;
    functions.returns("fn", &accepted());
    let gateway = start(&functions).await;
    let mut client = gateway.client("/dev").open().await;
    for status in [200, 201, 301, 401, 500, 501] {
        functions.returns("fn", &json!({"statusCode": status, "body": "x"}));
        client.send_text(r#"{"action":"tell"}"#).await;
    }
    client.expect_silence().await;
    assert_eq!(functions.calls("fn"), 7);
    functions.returns("fn", &accepted());
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 171, 173, 174, 183
#[tokio::test]
async fn a_two_way_route_sends_the_body_once_and_to_the_sender() {
    let functions = Functions::start().await;
    functions.returns("fn", &accepted());
    let gateway = start(&functions).await;
    let mut neighbour = gateway.client("/dev").open().await;
    let mut client = gateway.client("/dev").open().await;
    for (answer, text) in [
        (json!({"statusCode": 200, "body": "Hello, Ann"}), "Hello, Ann"),
        (json!({"statusCode": 500, "body": "x"}), "x"),
        (json!({"statusCode": 200}), ""),
        (json!({"statusCode": 200, "body": null}), ""),
        (json!({"statusCode": "200", "body": "aMOk", "isBase64Encoded": true, "headers": {"X-A": "1"}}), "hä"),
    ] {
        functions.returns("fn", &answer);
        assert_eq!(client.ask(r#"{"action":"ask"}"#).await, text, "{answer}");
    }
    client.expect_silence().await;
    neighbour.expect_silence().await;
    functions.returns("fn", &accepted());
    client.close(1000, "").await;
    neighbour.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_function_chooses_the_subprotocol_and_may_accept_with_201() {
    let functions = Functions::start().await;
    let headers = json!({"sec-websocket-protocol": "chat.v2", "X-Mine": "1"});
    functions.returns("fn", &json!({"statusCode": 201, "headers": headers}));
    let gateway = start(&functions).await;
    let client = gateway.client("/dev").header("Sec-WebSocket-Protocol", "chat.v1, chat.v2").open().await;
    assert_eq!(client.answer.header("Sec-WebSocket-Protocol"), Some("chat.v2"));
    assert_eq!(functions.event("fn").await["headers"]["Sec-WebSocket-Protocol"], "chat.v1, chat.v2");
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 49
#[tokio::test]
async fn a_function_refuses_a_handshake_in_its_own_words() {
    let functions = Functions::start().await;
    functions.returns(
        "fn",
        &json!({"statusCode": 401, "body": "aMOk", "isBase64Encoded": true,
            "headers": {"WWW-Authenticate": "Bearer", "Content-Type": "text/plain"}, "multiValueHeaders": {"X-B": ["1", "2"]}}),
    );
    let gateway = start(&functions).await;
    let answer = gateway.client("/dev").refused().await;
    assert_eq!((answer.status, answer.text()), (401, "hä"));
    assert_eq!(
        (answer.header("WWW-Authenticate"), answer.header("Content-Type")),
        (Some("Bearer"), Some("text/plain"))
    );
    assert_eq!(answer.all("X-B"), ["1", "2"]);
    functions.event("fn").await;
    functions.no_more("fn").await;
    gateway.finish().await;
}

const FORMS: &str = "
apiId: forms
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev: {stageVariables: {fn: one, alias: live}}
routes:
  arn: {integration: {integrationType: AWS_PROXY, integrationUri: 'arn:aws:lambda:us-east-1:123456789012:function:one:7'}}
  path:
    integration:
      integrationType: AWS_PROXY
      integrationMethod: POST
      contentHandlingStrategy: CONVERT_TO_TEXT
      passthroughBehavior: WHEN_NO_MATCH
      integrationUri: arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/arn:aws:lambda:us-east-1:123456789012:function:one/invocations
  variable: {integration: {integrationType: AWS_PROXY, integrationUri: '${stageVariables.fn}:${stageVariables.alias}'}}
";

// checklist: 143, 144
#[tokio::test]
async fn a_function_is_found_by_arn_by_invocation_arn_and_by_stage_variables() {
    let functions = Functions::start().await;
    let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Aone";
    functions.returns("one", &accepted()).returns(arn, &accepted());
    let gateway = TestGateway::builder().routes_yaml(FORMS).settings(functions.settings()).start().await;
    let mut client = gateway.client("/dev").open().await;
    for (action, name, qualifier) in [("arn", arn, Some("7")), ("path", arn, None), ("variable", "one", Some("live"))] {
        client.send_json(&json!({ "action": action })).await;
        let call = functions.call(name).await;
        let query = call.target.split_once('?').map(|(_, query)| query.to_owned());
        assert_eq!(query, qualifier.map(|qualifier| format!("Qualifier={qualifier}")), "{action}");
        assert!(call.header("X-Amzn-Trace-Id").unwrap().starts_with("Root=1-"));
    }
    client.expect_silence().await;
    client.close(1000, "").await;
    gateway.finish().await;
}

const TEMPLATED: &str = r#"
apiId: aws
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}}
routes:
  $connect:
    integration:
      integrationType: AWS
      integrationUri: door
      requestTemplates: {$default: '{"id": "$context.connectionId", "name": "$input.params(''name'')"}'}
      integrationResponses:
        $default: {responseParameters: {route.response.header.Sec-WebSocket-Protocol: integration.response.body.protocol}}
  ask:
    routeResponseSelectionExpression: $default
    integration: &ask
      integrationType: AWS
      integrationUri: plain
      requestTemplates: {$default: '{"said": $input.json(''$.text'')}'}
      integrationResponses:
        $default: {responseTemplates: {$default: 'you said $input.path(''$.said'')'}}
        /.*Denied.*/: {responseTemplates: {$default: 'no: $input.path(''$.errorMessage'')'}}
  bare:
    routeResponseSelectionExpression: $default
    integration: {integrationType: AWS, integrationUri: plain}
  later:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: AWS
      integrationUri: plain
      requestParameters: {integration.request.header.X-Amz-Invocation-Type: "'Event'"}
"#;

async fn templated(functions: &Functions) -> TestGateway {
    functions.runs("door", |event| json!({"protocol": event["name"]}));
    TestGateway::builder().routes_yaml(TEMPLATED).settings(functions.settings()).start().await
}

#[tokio::test]
async fn an_aws_function_gets_what_the_template_renders_and_so_does_the_client() {
    let functions = Functions::start().await;
    functions.runs("plain", |event| json!({"said": event["said"].as_str().unwrap_or("-").to_uppercase()}));
    let gateway = templated(&functions).await;
    let mut client = gateway.client("/dev?name=mine").open().await;
    assert_eq!(client.answer.header("Sec-WebSocket-Protocol"), Some("mine"));
    assert_eq!(keys(&functions.event("door").await), ["id", "name"]);
    assert_eq!(client.ask(r#"{"action":"ask","text":"hi"}"#).await, "you said HI");
    assert_eq!(functions.event("plain").await, json!({"said": "hi"}));
    assert_eq!(client.ask(r#"{"action":"bare"}"#).await, r#"{"said":"-"}"#);
    assert_eq!(functions.event("plain").await, json!({"action": "bare"}), "the payload as it is");
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 181, 182
#[tokio::test]
async fn the_error_of_an_aws_function_chooses_the_answer_or_is_one() {
    let functions = Functions::start().await;
    functions.throws("plain", "Access Denied today");
    let gateway = templated(&functions).await;
    let mut client = gateway.client("/dev").open().await;
    assert_eq!(client.ask(r#"{"action":"ask","text":"hi"}"#).await, "no: Access Denied today");
    client.send_text(r#"{"action":"bare"}"#).await;
    client.expect_error("Internal server error").await;
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_event_invocation_is_over_as_soon_as_it_is_taken() {
    let functions = Functions::start().await;
    functions.replies("plain", |_| Reply::hang());
    let gateway = templated(&functions).await;
    let mut client = gateway.client("/dev").open().await;
    assert_eq!(client.ask(r#"{"action":"later","n":1}"#).await, "");
    let call = functions.call("plain").await;
    assert_eq!((call.header("X-Amz-Invocation-Type"), call.text()), (Some("Event"), r#"{"action":"later","n":1}"#));
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn functions_show_in_the_metrics_by_kind() {
    let functions = Functions::start().await;
    functions.returns("fn", &accepted());
    let gateway = start(&functions).await;
    let client = gateway.client("/dev").open().await;
    client.close(1000, "").await;
    gateway.is_empty().await;
    functions.call("fn").await;
    functions.call("fn").await;
    let series = "causeway_integration_latency_seconds_count{kind=\"aws_proxy\"}";
    crate::support::within("both calls to be counted", async {
        while gateway.metric(series).await < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    gateway.finish().await;
}
