//! Functions that fail, and an Invoke API that does: what the client sees, and that nobody else does (specification 1.8, 4.3).

use std::time::Duration;

use causeway::upstream::LambdaConfig;
use serde_json::{Value, json};

use crate::support::{Functions, Gate, Reply, TestGateway, accepted, error};

const API: &str = "
apiId: fn
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}, empty: {}}
routes:
  $connect: {integration: {integrationType: AWS_PROXY, integrationUri: door, timeoutInMillis: 300}}
  $disconnect: {integration: {integrationType: AWS_PROXY, integrationUri: end}}
  tell: {integration: {integrationType: AWS_PROXY, integrationUri: bad}}
  ask: {routeResponseSelectionExpression: $default, integration: {integrationType: AWS_PROXY, integrationUri: bad}}
  slow: {integration: {integrationType: AWS_PROXY, integrationUri: slow, timeoutInMillis: 100}}
  good: {routeResponseSelectionExpression: $default, integration: {integrationType: AWS_PROXY, integrationUri: good}}
";

async fn start(functions: &Functions) -> TestGateway {
    functions.returns("door", &accepted()).returns("end", &accepted());
    functions.returns("good", &json!({"statusCode": 200, "body": "good"}));
    TestGateway::builder().routes_yaml(API).settings(functions.settings()).start().await
}

/// What is wrong with a call, one way after the other.
fn failures() -> Vec<(&'static str, Reply)> {
    let thrown = json!({"errorMessage": "hunter2", "errorType": "Error"}).to_string();
    vec![
        ("a function error", Reply::ok(thrown).header("X-Amz-Function-Error", "Unhandled")),
        ("a function error without JSON", Reply::ok("\0\u{1}").header("X-Amz-Function-Error", "Handled")),
        ("null", Reply::ok("null")),
        ("nothing", Reply::ok("")),
        ("a text", Reply::ok("\"ok\"")),
        ("a list", Reply::ok("[]")),
        ("no JSON", Reply::ok("<html>")),
        ("half of it", Reply::ok(r#"{"statusCode":200,"body":"x"}"#).midway()),
        ("no statusCode", Reply::ok("{}")),
        ("a sixth member", Reply::ok(r#"{"statusCode":200,"Data":1}"#)),
        ("an object as body", Reply::ok(r#"{"statusCode":200,"body":{"a":1}}"#)),
        ("a status that is none", Reply::ok(r#"{"statusCode":1000}"#)),
        ("a status that is a word", Reply::ok(r#"{"statusCode":"fine"}"#)),
        ("bad base64", Reply::ok(r#"{"statusCode":200,"body":"%","isBase64Encoded":true}"#)),
        ("7 MB", Reply::ok(json!({"statusCode": 200, "body": "x".repeat(7 << 20)}).to_string())),
        ("a throttle", error(429, "TooManyRequestsException")),
        ("a refusal", error(403, "AccessDeniedException")),
        ("a failure of the service", error(500, "ServiceException")),
        ("a bad gateway", error(502, "EC2UnexpectedException")),
        ("a redirect", Reply::status(307).header("Location", "http://elsewhere.example/")),
        ("a reset", Reply::raw("")),
        ("garbage", Reply::raw("SSH-2.0\r\n\r\n")),
    ]
}

// checklist: 132, 134, 135, 136, 137, 138, 182
#[tokio::test]
async fn whatever_goes_wrong_is_one_error_frame_and_the_session_stays() {
    let functions = Functions::start().await;
    let gateway = start(&functions).await;
    let mut client = gateway.client("/dev").open().await;
    for (what, reply) in failures() {
        functions.replies("bad", move |_| reply.clone());
        for action in ["tell", "ask"] {
            client.send_json(&json!({ "action": action })).await;
            client.expect_error("Internal server error").await;
        }
        assert_eq!(client.ask(r#"{"action":"good"}"#).await, "good", "after {what}");
    }
    client.close(1000, "").await;
    gateway.finish().await;
}

// checklist: 50, 51
#[tokio::test]
async fn a_function_that_fails_refuses_the_handshake_with_502() {
    let functions = Functions::start().await;
    let gateway = start(&functions).await;
    let broken = ["a function error", "a text", "null", "no statusCode", "a sixth member", "7 MB"];
    for (what, reply) in failures().into_iter().filter(|(what, _)| broken.contains(what)) {
        functions.replies("door", move |_| reply.clone());
        let answer = gateway.client("/dev").refused().await;
        assert_eq!((answer.status, &answer.json()["message"]), (502, &json!("Internal server error")), "{what}");
    }
    functions.no_more("end").await;
    gateway.finish().await;
}

// checklist: 53
#[tokio::test]
async fn a_function_that_may_not_be_called_refuses_the_handshake_with_500() {
    let functions = Functions::start().await;
    let gateway = start(&functions).await;
    for (what, reply) in [
        ("missing", error(404, "ResourceNotFoundException")),
        ("not allowed", error(403, "AccessDeniedException")),
        ("throttled", error(429, "TooManyRequestsException")),
    ] {
        functions.replies("door", move |_| reply.clone());
        let answer = gateway.client("/dev").refused().await;
        assert_eq!((answer.status, &answer.json()["message"]), (500, &json!("Internal server error")), "{what}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_function_nobody_knows_and_a_wrong_key_are_refused_by_the_endpoint() {
    let functions = Functions::start().await;
    let unknown = API.replace("integrationUri: door", "integrationUri: nobody");
    let gateway = TestGateway::builder().routes_yaml(&unknown).settings(functions.settings()).start().await;
    assert_eq!(gateway.client("/dev").refused().await.status, 500);
    gateway.finish().await;
    functions.returns("door", &accepted());
    let wrong = |config: &mut LambdaConfig| {
        if let Some(credentials) = &mut config.credentials.environment {
            credentials.secret = causeway::secret::Secret::new("another");
        }
    };
    let settings = functions.settings();
    let gateway = TestGateway::builder()
        .routes_yaml(API)
        .settings(move |all| {
            settings(all);
            wrong(&mut all.lambda);
        })
        .start()
        .await;
    assert_eq!(gateway.client("/dev").refused().await.status, 500, "the fake endpoint does check signatures");
    gateway.finish().await;
}

#[tokio::test]
async fn a_handshake_is_refused_with_504_when_its_function_takes_too_long() {
    let functions = Functions::start().await;
    let gateway = start(&functions).await;
    functions.replies("door", |_| Reply::hang());
    let answer = gateway.client("/dev").refused().await;
    assert_eq!((answer.status, &answer.json()["message"]), (504, &json!("Endpoint request timed out")));
    gateway.finish().await;
}

// checklist: 133, 134, 141, 142
#[tokio::test]
async fn a_late_answer_is_discarded_and_a_late_function_may_still_post() {
    let functions = Functions::start().await;
    let gate = Gate::closed();
    let late = Reply::ok(json!({"statusCode": 200, "body": "late"}).to_string()).behind(&gate);
    functions.replies("slow", move |_| late.clone());
    let gateway = start(&functions).await;
    let mut client = gateway.client("/dev").open().await;
    client.send_text(r#"{"action":"slow"}"#).await;
    client.expect_error("Endpoint request timed out").await;
    let event = functions.event("slow").await;
    let id = event["requestContext"]["connectionId"].as_str().unwrap().to_owned();
    assert_eq!(gateway.post(&id, "late, and welcome").await.status, 200);
    assert_eq!(client.next_text().await, "late, and welcome");
    gate.open();
    client.expect_silence().await;
    assert_eq!(client.ask(r#"{"action":"good"}"#).await, "good");
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_function_that_hangs_delays_nobody_else() {
    let functions = Functions::start().await;
    functions.replies("bad", |_| Reply::hang());
    let hasty = API.replace("integrationUri: bad}", "integrationUri: bad, timeoutInMillis: 2000}");
    functions.returns("door", &accepted()).returns("end", &accepted());
    functions.returns("good", &json!({"statusCode": 200, "body": "good"}));
    let gateway = TestGateway::builder().routes_yaml(&hasty).settings(functions.settings()).start().await;
    let mut stuck = gateway.client("/dev").open().await;
    let mut neighbour = gateway.client("/dev").open().await;
    for _ in 0..50 {
        stuck.send_text(r#"{"action":"tell"}"#).await;
    }
    functions.call("bad").await;
    let started = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(neighbour.ask(r#"{"action":"good"}"#).await, "good");
    }
    assert!(started.elapsed() < Duration::from_millis(1_500), "behind the hanging ones: {:?}", started.elapsed());
    for _ in 0..50 {
        stuck.expect_error("Endpoint request timed out").await;
    }
    stuck.close(1000, "").await;
    neighbour.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_disconnect_that_fails_is_attempted_once() {
    let functions = Functions::start().await;
    let gateway = start(&functions).await;
    functions.throws("end", "no");
    let client = gateway.client("/dev").open().await;
    client.close(1000, "").await;
    functions.event("end").await;
    functions.no_more("end").await;
    gateway.finish().await;
}

/// Points a gateway at nothing, with no credentials: nothing is asked of anybody.
#[tokio::test]
async fn without_credentials_a_call_fails_and_a_reload_still_works() {
    let functions = Functions::start().await;
    functions.returns("door", &accepted());
    let settings = functions.settings();
    let gateway = TestGateway::builder()
        .routes_yaml(API)
        .settings(move |all| {
            settings(all);
            all.lambda.credentials = causeway::upstream::credentials::Sources::default();
        })
        .start()
        .await;
    for _ in 0..2 {
        let answer = gateway.client("/dev").refused().await;
        let message: Value = answer.json()["message"].clone();
        assert_eq!((answer.status, message), (500, json!("Internal server error")));
    }
    assert_eq!(functions.calls("door"), 0);
    gateway.redeploy("apiId: fn\nprotocolType: WEBSOCKET\nrouteSelectionExpression: $request.body.action\nstages: {dev: {}}\nroutes: {a: {integration: {integrationType: MOCK}}}\n");
    gateway.client("/dev").open().await.close(1000, "").await;
    gateway.finish().await;
}
