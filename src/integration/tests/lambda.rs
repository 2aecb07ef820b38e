//! Functions: the whole text of every event, what is sent, what an answer comes to.

use serde_json::json;

use super::*;
use crate::context::{Authorized, Caller};
use crate::definition::{Function, FunctionUri, Lambda};
use crate::secret::Secret;
use crate::sigv4::Credentials;
use crate::upstream::LambdaError;

impl World {
    /// A world whose functions are all behind `backend`.
    async fn with_functions(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> (Self, Backend) {
        let mut world = Self::new();
        let backend = world.backend(reply).await;
        let credentials =
            Credentials { access_key: "AKIDEXAMPLE".into(), secret: Secret::new("key"), session_token: None };
        let config = upstream::LambdaConfig {
            endpoint: Some(backend.url("").parse().unwrap()),
            region: Some("us-east-1".to_owned()),
            credentials: upstream::credentials::Sources { environment: Some(credentials), ..Default::default() },
        };
        world.integrations = integrations(&upstream::Config::default(), &config, &world.tasks);
        (world, backend)
    }

    async fn invoke(&self, lambda: &Lambda, ctx: &RequestContext<'_>, payload: &str) -> Result<Outcome, InvokeError> {
        self.integrations.lambda(lambda, ctx, &Message::from_string(payload)).await
    }
}

fn lambda(proxy: bool) -> Lambda {
    Lambda {
        proxy,
        function: FunctionUri::Fixed(Function { name: "chat".to_owned(), qualifier: None, region: None }),
        timeout: Duration::from_secs(20),
        parameters: Vec::new(),
        request: mapping(&[]),
        responses: Vec::new(),
    }
}

/// The event of an exchange, as the function gets it.
fn event(ctx: &RequestContext<'_>, message: &Message) -> String {
    super::super::event::write(ctx, message)
}

// checklist: 111, 112
#[tokio::test]
async fn the_connect_event_is_this_text() {
    let mut world = World::new();
    world.handshake.headers.retain(|(name, _)| !matches!(name.as_str(), "Transfer-Encoding" | "Keep-Alive"));
    let expected = concat!(
        r#"{"headers":{"Host":"ws.example.com","Sec-WebSocket-Version":"13","#,
        r#""Sec-WebSocket-Key":"BvlrrFKoKAPDYOlwBcGKWw==","User-Agent":"Mozilla/5.0","x-teaM":"b","#,
        r#""X-Amzn-Trace-Id":"Root=1-625d9ad1-37a5d33a61dd9be33ae3a247"},"#,
        r#""multiValueHeaders":{"Host":["ws.example.com"],"Sec-WebSocket-Version":["13"],"#,
        r#""Sec-WebSocket-Key":["BvlrrFKoKAPDYOlwBcGKWw=="],"User-Agent":["Mozilla/5.0"],"x-teaM":["a","b"],"#,
        r#""X-Amzn-Trace-Id":["Root=1-625d9ad1-37a5d33a61dd9be33ae3a247"]},"#,
        r#""queryStringParameters":{"authToken":"t k","tag":"b"},"#,
        r#""multiValueQueryStringParameters":{"authToken":["t k"],"tag":["a","b"]},"#,
        r#""stageVariables":{"env":"production"},"#,
        r#""requestContext":{"routeKey":"$connect","eventType":"CONNECT","extendedRequestId":"L0SPDGiovHcFWMg=","#,
        r#""requestTime":"18/Apr/2022:17:07:41 +0000","messageDirection":"IN","stage":"prod","#,
        r#""connectedAt":1650301649973,"requestTimeEpoch":1650301661112,"#,
        r#""identity":{"userAgent":"Mozilla/5.0","sourceIp":"192.0.2.1"},"requestId":"L0SPDGiovHcFWMg=","#,
        r#""domainName":"ws.example.com","connectionId":"L0SM9cOFvHcCIhw=","apiId":"a1b2c3d4e5"},"#,
        r#""isBase64Encoded":false}"#,
    );
    assert_eq!(event(&world.connect(), &Message::from_string("not looked at")), expected);
}

// checklist: 113, 114
#[tokio::test]
async fn the_message_event_is_this_text() {
    let world = World::new();
    let expected = concat!(
        r#"{"stageVariables":{"env":"production"},"#,
        r#""requestContext":{"routeKey":"send","messageId":"L0SPDfT5PHcCIhw=","eventType":"MESSAGE","#,
        r#""extendedRequestId":"L0SPDGiovHcFWMg=","requestTime":"18/Apr/2022:17:07:41 +0000","#,
        r#""messageDirection":"IN","stage":"prod","connectedAt":1650301649973,"requestTimeEpoch":1650301661112,"#,
        r#""identity":{"userAgent":"Mozilla/5.0","sourceIp":"192.0.2.1"},"requestId":"L0SPDGiovHcFWMg=","#,
        r#""domainName":"ws.example.com","connectionId":"L0SM9cOFvHcCIhw=","apiId":"a1b2c3d4e5"},"#,
        r#""body":"{\"action\": \"send\",\t\u0001é/\\}","isBase64Encoded":false}"#,
    );
    let message = Message::from_string("{\"action\": \"send\",\t\u{1}é/\\}");
    assert_eq!(event(&world.message(), &message), expected);
    let empty = event(&world.message(), &Message::from_string(""));
    assert!(empty.ends_with(r#","body":"","isBase64Encoded":false}"#), "{empty}");
    let bytes = event(&world.message(), &Message::base64("//4=".to_owned()));
    assert!(bytes.ends_with(r#","body":"//4=","isBase64Encoded":true}"#), "{bytes}");
}

// checklist: 116
#[tokio::test]
async fn the_disconnect_event_is_this_text() {
    let mut world = World::new();
    world.stage_variables.clear();
    let expected = concat!(
        r#"{"headers":{"Host":"ws.example.com","x-api-key":"","X-Forwarded-For":"","x-restapi":""},"#,
        r#""multiValueHeaders":{"Host":["ws.example.com"],"x-api-key":[""],"X-Forwarded-For":[""],"x-restapi":[""]},"#,
        r#""requestContext":{"routeKey":"$disconnect","disconnectStatusCode":1001,"eventType":"DISCONNECT","#,
        r#""extendedRequestId":"L0SPDGiovHcFWMg=","requestTime":"18/Apr/2022:17:07:41 +0000","#,
        r#""messageDirection":"IN","disconnectReason":"Going away","stage":"prod","connectedAt":1650301649973,"#,
        r#""requestTimeEpoch":1650301661112,"identity":{"userAgent":"Mozilla/5.0","sourceIp":"192.0.2.1"},"#,
        r#""requestId":"L0SPDGiovHcFWMg=","domainName":"ws.example.com","connectionId":"L0SM9cOFvHcCIhw=","#,
        r#""apiId":"a1b2c3d4e5"},"isBase64Encoded":false}"#,
    );
    assert_eq!(event(&world.disconnect(), &Message::from_string("")), expected);
}

// checklist: 124, 127
#[tokio::test]
async fn what_there_is_not_is_left_out() {
    let mut world = World::new();
    world.stage_variables.clear();
    world.handshake.query.clear();
    world.connection.profile = Arc::new(Profile { user_agent: None, ..(*world.connection.profile).clone() });
    for ctx in [world.connect(), world.message(), world.disconnect()] {
        let text = event(&ctx, &Message::from_string("x"));
        let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(tree["requestContext"]["identity"], json!({"sourceIp": "192.0.2.1"}));
        for absent in ["queryStringParameters", "multiValueQueryStringParameters", "stageVariables"] {
            assert!(tree.get(absent).is_none(), "{text}");
        }
        assert!(!text.contains("null"), "{text}");
    }
}

#[tokio::test]
async fn who_signed_the_handshake_is_in_every_event() {
    let mut world = World::new();
    let caller = Caller {
        account: "123456789012".into(),
        id: "AIDAX".into(),
        arn: "arn:aws:iam::123456789012:user/ann".into(),
        access_key: "AKIAX".into(),
    };
    let profile = Profile { caller: Some(Box::new(caller)), ..(*world.connection.profile).clone() };
    world.connection.profile = Arc::new(profile);
    let expected = concat!(
        r#""identity":{"userArn":"arn:aws:iam::123456789012:user/ann","userAgent":"Mozilla/5.0","#,
        r#""accountId":"123456789012","caller":"AIDAX","sourceIp":"192.0.2.1","accessKey":"AKIAX","user":"AIDAX"},"#
    );
    for ctx in [world.connect(), world.message(), world.disconnect()] {
        let text = event(&ctx, &Message::from_string(""));
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn the_authorizers_event_and_what_it_adds_to_the_others_are_these_texts() {
    let mut world = World::new();
    world.handshake.headers.truncate(1);
    world.handshake.query.clear();
    world.stage_variables.clear();
    let arn = "arn:aws:execute-api:us-east-1:123456789012:a1b2c3d4e5/prod/$connect";
    let expected = concat!(
        r#"{"type":"REQUEST","methodArn":"arn:aws:execute-api:us-east-1:123456789012:a1b2c3d4e5/prod/$connect","#,
        r#""headers":{"Connection":"upgrade","content-length":"0","Host":"ws.example.com","Upgrade":"websocket"},"#,
        r#""multiValueHeaders":{"Connection":["upgrade"],"content-length":["0"],"Host":["ws.example.com"],"#,
        r#""Upgrade":["websocket"]},"queryStringParameters":{},"multiValueQueryStringParameters":{},"#,
        r#""stageVariables":{},"requestContext":{"routeKey":"$connect","eventType":"CONNECT","#,
        r#""extendedRequestId":"L0SPDGiovHcFWMg=","requestTime":"18/Apr/2022:17:07:41 +0000","#,
        r#""messageDirection":"IN","stage":"prod","connectedAt":1650301649973,"requestTimeEpoch":1650301661112,"#,
        r#""identity":{"userAgent":"Mozilla/5.0","sourceIp":"192.0.2.1"},"requestId":"L0SPDGiovHcFWMg=","#,
        r#""domainName":"ws.example.com","connectionId":"L0SM9cOFvHcCIhw=","apiId":"a1b2c3d4e5"}}"#,
    );
    assert_eq!(super::super::event::authorizer_request(&world.connect(), &world.handshake, arn), expected);

    let context = vec![("tenant".into(), "t1".into()), ("integrationLatency".into(), "its own".into())];
    let authorized = Authorized { principal: "user-7".into(), context };
    let profile = Profile { authorized: Some(Box::new(authorized)), ..(*world.connection.profile).clone() };
    world.connection.profile = Arc::new(profile);
    world.handshake.authorizer_latency = Some(Duration::from_millis(251));
    let of = |ctx: &RequestContext<'_>| event(ctx, &Message::from_string(""));
    let connect =
        r#""routeKey":"$connect","authorizer":{"principalId":"user-7","tenant":"t1","integrationLatency":251},"#;
    assert!(of(&world.connect()).contains(connect), "{}", of(&world.connect()));
    let later = r#""authorizer":{"principalId":"user-7","tenant":"t1","integrationLatency":"its own"},"#;
    let message = format!(r#""routeKey":"send",{later}"messageId":"#);
    assert!(of(&world.message()).contains(&message), "{}", of(&world.message()));
    let gone = format!(r#""disconnectStatusCode":1001,{later}"eventType":"#);
    assert!(of(&world.disconnect()).contains(&gone), "{}", of(&world.disconnect()));
}

#[tokio::test]
async fn a_clock_set_back_does_not_put_a_request_before_its_connection() {
    let world = World::new();
    let ctx = RequestContext { time: EpochMillis(5), ..world.message() };
    let tree: serde_json::Value = serde_json::from_str(&event(&ctx, &Message::from_string(""))).unwrap();
    assert_eq!(tree["requestContext"]["requestTimeEpoch"], 1_650_301_649_973_u64);
}

#[tokio::test]
async fn any_text_comes_through_an_event_unharmed() {
    let world = World::new();
    proptest::proptest!(|(text in "\\PC*|(?s).*|[\\x00-\\x7f]*")| {
        let message = Message::from_string(text.clone());
        let tree: serde_json::Value = serde_json::from_str(&event(&world.message(), &message)).unwrap();
        proptest::prop_assert_eq!(&tree["body"], &serde_json::Value::String(text));
    });
}

#[tokio::test]
async fn a_call_is_what_the_invoke_api_expects() {
    let (world, backend) = World::with_functions(|_| ok(r#"{"statusCode":200,"body":"hi"}"#)).await;
    let arn = "arn:aws:lambda:eu-west-1:123456789012:function:chat";
    let function =
        Function { name: arn.into(), qualifier: Some("$LATEST".into()), region: Some("eu-west-1".to_owned()) };
    let lambda = Lambda { function: FunctionUri::Fixed(function), ..lambda(true) };
    let outcome = world.invoke(&lambda, &world.message(), "m").await.unwrap();
    assert_eq!((outcome.status, &outcome.body[..]), (200, &b"hi"[..]));
    let request = backend.request();
    let path = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Achat/invocations";
    assert!(request.starts_with(&format!("POST {path}?Qualifier=%24LATEST HTTP/1.1\r\n")), "{request}");
    assert_eq!(header(&request, "X-Amz-Invocation-Type"), Some("RequestResponse"));
    assert_eq!(header(&request, "X-Amz-Log-Type"), Some("None"));
    assert_eq!(header(&request, "Content-Type"), Some("application/json"));
    let authorization = header(&request, "Authorization").unwrap();
    assert!(authorization.contains("/eu-west-1/lambda/aws4_request"), "the ARN's region: {authorization}");
    let signed = "SignedHeaders=content-type;host;x-amz-date;x-amz-invocation-type;x-amz-log-type,";
    assert!(authorization.contains(signed), "{authorization}");
    assert!(body(&request).starts_with(r#"{"stageVariables":"#), "{request}");
}

#[tokio::test]
async fn an_answers_headers_matter_on_connect_alone() {
    let answer = r#"{"statusCode":201,"headers":{"Sec-WebSocket-Protocol":"b"}}"#;
    let (world, _backend) = World::with_functions(move |_| ok(answer)).await;
    let connect = world.invoke(&lambda(true), &world.connect(), "").await.unwrap();
    assert_eq!((connect.status, &connect.headers["sec-websocket-protocol"]), (201, &"b".parse().unwrap()));
    assert!(world.invoke(&lambda(true), &world.message(), "").await.unwrap().headers.is_empty());
}

// checklist: 144
#[tokio::test]
async fn a_stage_variable_names_the_function() {
    let (world, backend) = World::with_functions(|_| ok(r#"{"statusCode":200}"#)).await;
    let function = |text: &str| Lambda { function: FunctionUri::Varying(text.to_owned()), ..lambda(true) };
    world.invoke(&function("chat-${stageVariables.env}:live"), &world.message(), "").await.unwrap();
    let path = "POST /2015-03-31/functions/chat-production/invocations?Qualifier=live ";
    assert!(backend.request().starts_with(path), "{}", backend.request());
    let unset = world.invoke(&function("${stageVariables.unset}"), &world.message(), "").await;
    assert!(matches!(unset, Err(InvokeError::Function(_))), "{unset:?}");
}

const FAILURE: &str = r#"{"errorMessage":"Access Denied for you","errorType":"Refusal"}"#;

fn function_error(_: &str) -> Reply {
    answer("200 OK", "X-Amz-Function-Error: Unhandled\r\n", FAILURE)
}

#[tokio::test]
async fn a_function_that_failed_is_named_by_its_error_type_and_not_quoted() {
    let (world, _backend) = World::with_functions(function_error).await;
    let error = world.invoke(&lambda(true), &world.message(), "").await.unwrap_err();
    assert_eq!(error.to_string(), "the function failed: Refusal");
    let (world, _backend) =
        World::with_functions(|_| answer("200 OK", "X-Amz-Function-Error: Unhandled\r\n", "\0garbage")).await;
    let error = world.invoke(&lambda(true), &world.message(), "").await.unwrap_err();
    assert_eq!(error.to_string(), "the function failed: no errorType");
}

#[tokio::test]
async fn each_refusal_of_the_invoke_api_is_told_apart() {
    let refused = |status: &'static str| {
        move |_: &str| answer(status, "x-amzn-ErrorType: SomeException:http://internal/\r\n", r#"{"Message":"no"}"#)
    };
    let error = async |status| {
        let (world, _backend) = World::with_functions(refused(status)).await;
        world.invoke(&lambda(true), &world.message(), "").await.unwrap_err()
    };
    let throttled = error("429 Too Many Requests").await;
    assert!(matches!(&throttled, InvokeError::Lambda(LambdaError::Throttled { kind }) if kind == "SomeException"));
    for status in ["403 Forbidden", "404 Not Found", "413 Too Large", "301 Moved"] {
        let error = error(status).await;
        assert!(matches!(error, InvokeError::Lambda(LambdaError::Refused { .. })), "{status}: {error:?}");
    }
    for status in ["500 Internal", "502 Bad Gateway", "503 Unavailable"] {
        let error = error(status).await;
        assert!(matches!(error, InvokeError::Lambda(LambdaError::Failed { .. })), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn what_is_too_large_goes_neither_way() {
    let (world, backend) = World::with_functions(|_| ok(vec![b' '; 7 << 20])).await;
    let answer = world.invoke(&lambda(true), &world.message(), "").await;
    assert!(matches!(answer, Err(InvokeError::Lambda(LambdaError::AnswerTooLarge))), "{answer:?}");
    let event = world.invoke(&lambda(true), &world.message(), &"x".repeat(6 << 20)).await;
    assert!(matches!(event, Err(InvokeError::Lambda(LambdaError::EventTooLarge { .. }))), "{event:?}");
    assert_eq!(backend.requests().len(), 1, "the second was not sent");
}

#[tokio::test]
async fn a_function_without_a_region_or_credentials_is_not_called() {
    let (mut world, backend) = World::with_functions(|_| ok("{}")).await;
    let mut config = upstream::LambdaConfig { endpoint: Some(backend.url("").parse().unwrap()), ..Default::default() };
    world.integrations = integrations(&upstream::Config::default(), &config, &world.tasks);
    let error = world.invoke(&lambda(true), &world.message(), "").await;
    assert!(matches!(error, Err(InvokeError::Lambda(LambdaError::Credentials(_)))), "{error:?}");
    config.credentials.environment =
        Some(Credentials { access_key: "A".into(), secret: Secret::new("b"), session_token: None });
    world.integrations = integrations(&upstream::Config::default(), &config, &world.tasks);
    let error = world.invoke(&lambda(true), &world.message(), "").await;
    assert!(matches!(error, Err(InvokeError::Lambda(LambdaError::NoRegion { .. }))), "{error:?}");
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn an_aws_function_gets_the_rendered_request_and_its_answer_is_rendered() {
    let (world, backend) = World::with_functions(|_| ok(r#"{"name":"Ann"}"#)).await;
    let lambda = Lambda {
        request: mapping(&[("$default", r#"{"said":$input.json('$.text'),"by":"$context.connectionId"}"#)]),
        responses: vec![response("$default", &[("$default", "Hello, $input.path('$.name')")])],
        ..lambda(false)
    };
    let outcome = world.invoke(&lambda, &world.message(), r#"{"text":"hi"}"#).await.unwrap();
    assert_eq!((outcome.status, &*String::from_utf8_lossy(&outcome.body)), (200, "Hello, Ann"));
    assert_eq!(body(&backend.request()), format!(r#"{{"said":"hi","by":"{CONNECTION}"}}"#));
}

#[tokio::test]
async fn an_aws_function_without_a_template_gets_the_payload_or_an_empty_object() {
    let (world, backend) = World::with_functions(|_| ok("[1]")).await;
    let outcome = world.invoke(&lambda(false), &world.message(), r#"{"a":1}"#).await.unwrap();
    assert_eq!(&outcome.body[..], b"[1]", "without a response the answer is as it is");
    world.invoke(&lambda(false), &world.connect(), "").await.unwrap();
    let bodies: Vec<String> = backend.requests().iter().map(|request| body(request).to_owned()).collect();
    assert_eq!(bodies, [r#"{"a":1}"#, "{}"]);
}

// checklist: 181
#[tokio::test]
async fn the_response_of_an_aws_function_is_chosen_by_its_error_message() {
    let (world, _backend) = World::with_functions(function_error).await;
    let denied = || response("/.*Denied.*/", &[("$default", r#"{"no":$input.json('$.errorMessage')}"#)]);
    let other = || response("$default", &[("$default", "other: $input.path('$.errorType')")]);
    for (responses, status, text) in [
        (vec![other(), denied()], 200, r#"{"no":"Access Denied for you"}"#),
        (vec![response("/Denied/", &[]), other()], 500, "other: Refusal"),
    ] {
        let lambda = Lambda { responses, ..lambda(false) };
        let outcome = world.invoke(&lambda, &world.message(), "{}").await.unwrap();
        assert_eq!((outcome.status, &*String::from_utf8_lossy(&outcome.body)), (status, text));
        assert_eq!(outcome.service_status, 200);
    }
    let unmatched = Lambda { responses: vec![response("/Denied/", &[])], ..lambda(false) };
    let error = world.invoke(&unmatched, &world.message(), "{}").await.unwrap_err();
    assert!(matches!(error, InvokeError::FunctionFailed { .. }), "{error:?}");
}

#[tokio::test]
async fn an_event_invocation_is_over_when_it_is_taken() {
    let (world, backend) = World::with_functions(|_| answer("202 Accepted", "x-amzn-RequestId: r-1\r\n", "")).await;
    let lambda = Lambda {
        parameters: vec![
            to_header("X-Amz-Invocation-Type", constant("Event")),
            to_header("X-Amz-Client-Context", body_path("$.context")),
        ],
        ..lambda(false)
    };
    let outcome = world.invoke(&lambda, &world.message(), r#"{"context":"e30=\n"}"#).await.unwrap();
    assert_eq!((outcome.status, outcome.body.len(), outcome.request_id.as_deref()), (202, 0, Some("r-1")));
    let request = backend.request();
    assert_eq!(header(&request, "X-Amz-Invocation-Type"), Some("Event"));
    assert_eq!(header(&request, "X-Amz-Client-Context"), Some("e30="));
    assert!(header(&request, "Authorization").unwrap().contains("x-amz-client-context;"), "{request}");
}
