//! A definition with one thing changed, and what is said about it.

use std::time::Duration;

use super::super::integration::{Destination, ResponseKey, ResponseSource, Source};
use super::super::{
    Api, Authorization, BinaryFrames, Function, FunctionUri, GroupAction, Http, IdentitySource, Integration, Lambda,
    Ordering, Problems, Route, Snapshot, empty_environment, load_texts,
};
use crate::limits::Limits;

const HEAD: &str = "apiId: t\nprotocolType: WEBSOCKET\nrouteSelectionExpression: $request.body.action\n";

fn load(text: &str) -> Result<Snapshot, Problems> {
    load_texts([("t.yaml", text)], &empty_environment)
}

/// Line 4 is `top`, line 6 the stage, line 8 the route `a`.
fn definition(top: &str, stage: &str, route: &str) -> String {
    format!("{HEAD}{top}\nstages:\n  dev: {stage}\nroutes:\n  a: {route}\n")
}

#[track_caller]
fn api(text: &str) -> Api {
    let mut snapshot = load(text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    std::sync::Arc::into_inner(snapshot.apis.remove(0)).unwrap()
}

#[track_caller]
fn only_route(integration: &str) -> std::sync::Arc<Route> {
    let api = api(&definition("", "{}", &format!("{{integration: {integration}}}")));
    let (_, route) = api.routes.iter().next().unwrap();
    std::sync::Arc::clone(route)
}

#[track_caller]
fn http(integration: &str) -> Http {
    match std::sync::Arc::into_inner(only_route(integration)).unwrap().integration {
        Some(Integration::Http(http)) => *http,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_problems(text: &str, expected: &[&str]) {
    let problems = match load(text) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    };
    assert_eq!(problems.lines().collect::<Vec<_>>(), expected, "{text}");
}

#[track_caller]
fn assert_integration_problem(integration: &str, expected: &str) {
    let text = definition("", "{}", &format!("\n    integration: {integration}"));
    let problems = load(&text).expect_err(&text).to_string();
    assert!(problems.lines().any(|line| line.contains(expected)), "{problems}\n{text}");
    assert!(problems.lines().all(|line| line.starts_with("t.yaml:9:")), "{problems}\n{text}");
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let api = api(&definition("", "{}", "{}"));
    assert_eq!(api.binary_frames, BinaryFrames::Reject);
    assert!(api.compression && !api.default_endpoint_disabled);
    assert!(api.domains.is_empty() && api.callback_origins.is_empty());
    assert!(api.connect.is_none() && api.disconnect.is_none());
    let stage = api.stages.values().next().unwrap();
    assert_eq!((stage.limits, &stage.access_log_format), (Limits::default(), &None));
    let (_, route) = api.routes.iter().next().unwrap();
    assert!(route.integration.is_none() && !route.two_way && route.ordering == Ordering::Parallel);
}

#[test]
fn what_is_given_is_taken() {
    let top = "compression: false\nbinaryFrames: accept\ndisableExecuteApiEndpoint: true\ncallbackOrigins: ['https://App.example.com']\n\
        domains: [{domainName: WS.example.com, apiMappingKey: chat, stage: dev}, {domainName: '*.example.com', stage: dev}]";
    let stage = "{stageVariables: {backend: 'http://127.0.0.1:9000'}, accessLogSettings: {format: $context.requestId}, limits: {\
        idleTimeout: none, maxDuration: 3h, pingInterval: 30s, maxMessageBytes: 256KiB, maxFrameBytes: 1000, \
        maxMessagesInFlight: 1, maxOutboxBytes: 2MiB, maxOutboxMessages: 7, writeTimeout: 500ms}}";
    let api = api(&definition(top, stage, "{routeResponseSelectionExpression: $default, ordering: serial}"));
    assert_eq!(api.binary_frames, BinaryFrames::Accept);
    assert!(!api.compression && api.default_endpoint_disabled);
    assert_eq!(api.callback_origins, ["https://app.example.com"]);
    let domains: Vec<_> = api.domains.iter().map(|d| (d.name.as_str(), d.key.as_str(), d.stage.as_str())).collect();
    assert_eq!(domains, [("ws.example.com", "chat", "dev"), ("*.example.com", "", "dev")]);
    let stage = api.stages.values().next().unwrap();
    assert_eq!(stage.access_log_format.as_deref(), Some("$context.requestId"));
    let expected = Limits {
        idle_timeout: None,
        max_duration: Some(Duration::from_secs(10_800)),
        ping_interval: Some(Duration::from_secs(30)),
        max_message_bytes: 262_144,
        max_frame_bytes: 1_000,
        max_messages_in_flight: 1,
        max_outbox_bytes: 2 << 20,
        max_outbox_messages: 7,
        write_timeout: Some(Duration::from_millis(500)),
    };
    assert_eq!(stage.limits, expected);
    let (_, route) = api.routes.iter().next().unwrap();
    assert!(route.two_way && route.ordering == Ordering::Serial);
}

#[test]
fn every_kind_of_mistake_is_told_at_once() {
    let text = r"apiId: Chat!
protocolType: WEBSOKET
routeSelectionExpresion: $request.body.action
binaryFrames: maybe
domains:
  - {domainName: not a host, stage: prod}
callbackOrigins: [example.com]
authorizers: {a: {authorizerType: JWT}}
stages:
  $default: {}
  dev:
    stageVariables: {backend: a b, 'x y': 1}
    limits: {idleTimeout: 10, maxMessageBytes: lots, maxOutboxMessages: 0}
    accessLogSettings: {format: $context.status}
routes:
  $foo: {}
  say:
    requestParameters: {route.request.header.a: {}}
    apiKeyRequired: true
    integration:
      integrationType: HTTP
      integrationUri: ftp://host
      timeoutInMillis: 30000
      requestTemplates: {$default: 7}
      integrationResponses: {4xx: {}}
  say: {}
  fn: {integration: {integrationType: AWS_PROXY}}
  join: {integration: {integrationType: GROUP, groupAction: jion}}
";
    let problems = load(text).unwrap_err();
    let expected = [
        "t.yaml:1:1: `routeSelectionExpression` is missing, expected a text of 1 to 1024 characters",
        "t.yaml:1:8: `apiId` is `Chat!`, expected 1 to 63 lower-case letters, digits and `-`",
        "t.yaml:2:15: `protocolType` is `WEBSOKET`, expected `WEBSOCKET`",
        "t.yaml:3:1: unknown key `routeSelectionExpresion`, expected `routeSelectionExpression`?",
        "t.yaml:4:15: `binaryFrames` is `maybe`, expected one of `reject`, `accept`",
        "t.yaml:6:18: `not a host` is no host name, expected one such as `ws.example.com` or `*.example.com`",
        "t.yaml:6:37: no stage `prod` in this API, expected one of its stages",
        "t.yaml:7:19: `example.com` is no origin, expected one such as `https://app.example.com`",
        "t.yaml:8:18: `authorizerUri` is missing, expected a text of 1 to 2048 characters",
        "t.yaml:8:35: `authorizerType` `JWT` is known but not supported yet, expected `REQUEST`",
        "t.yaml:10:3: `$default` in `stages`, expected a stage name: 1 to 128 letters, digits, `_` and `-`",
        "t.yaml:12:31: stage variable `backend` is `a b`, expected 1 to 512 letters, digits and `-._~:/?#&=,`",
        "t.yaml:12:36: `x y` in `stageVariables`, expected 1 to 64 letters, digits and `_`",
        "t.yaml:13:27: `idleTimeout` is 10, expected a duration such as `500ms`, `30s`, `10m` or `2h`, or `none`",
        "t.yaml:13:48: `maxMessageBytes` is `lots`, expected a number of bytes, or a size such as `128KiB`, `1MiB` or `2GiB`",
        "t.yaml:13:73: `maxOutboxMessages` is 0, expected a whole number from 1 to 1000000",
        "t.yaml:14:33: an access-log format without `$context.requestId`, expected it in there",
        "t.yaml:16:3: route key `$foo`, expected `$connect`, `$disconnect`, `$default` or a key without `$` at its start",
        "t.yaml:18:5: request parameters are only supported for the `$connect` route, expected them there",
        "t.yaml:19:5: `apiKeyRequired` is known but not supported yet, expected `false`",
        "t.yaml:22:23: `ftp://host` is not an absolute http or https URL, expected one such as `https://host/path`",
        "t.yaml:23:24: `timeoutInMillis` is 30000, expected a whole number from 50 to 29000",
        "t.yaml:24:36: `$default` is 7, expected a text",
        "t.yaml:25:30: integration response `4xx`, expected `$default` or a pattern such as `/4\\d\\d/`",
        "t.yaml:26:3: duplicate key `say`, expected each key once",
        "t.yaml:27:21: `integrationUri` is missing, expected a function name or an ARN of a function",
        "t.yaml:28:23: `groupName` is missing, expected with GROUP",
        "t.yaml:28:61: `groupAction` is `jion`, expected one of `join`, `leave`, `send`; did you mean `join`?",
    ];
    assert_eq!(problems.to_string().lines().collect::<Vec<_>>(), expected);
    assert!(problems.len() >= 20 && problems.iter().all(|problem| problem.place.is_some()));
}

// checklist: 139
#[test]
fn timeouts_are_50_to_29000_milliseconds() {
    let integration =
        |millis: u32| format!("{{integrationType: HTTP_PROXY, integrationUri: 'http://h', timeoutInMillis: {millis}}}");
    for millis in [50, 29_000] {
        assert_eq!(http(&integration(millis)).timeout, Duration::from_millis(u64::from(millis)));
    }
    for millis in [0, 49, 29_001] {
        let expected = format!("`timeoutInMillis` is {millis}, expected a whole number from 50 to 29000");
        assert_integration_problem(&integration(millis), &expected);
    }
}

// checklist: 140
#[test]
fn without_a_timeout_it_is_29_seconds() {
    assert_eq!(http("{integrationType: HTTP, integrationUri: 'http://h'}").timeout, Duration::from_secs(29));
}

#[track_caller]
fn lambda(integration: &str) -> Lambda {
    match std::sync::Arc::into_inner(only_route(integration)).unwrap().integration {
        Some(Integration::Lambda(lambda)) => *lambda,
        other => panic!("{other:?}"),
    }
}

// checklist: 139, 140
#[test]
fn a_function_is_known_when_loaded_and_has_the_timeouts_of_any_integration() {
    let arn = "arn:aws:lambda:us-east-1:123456789012:function:chat";
    let proxy = lambda(&format!("{{integrationType: AWS_PROXY, integrationUri: '{arn}:live', timeoutInMillis: 50}}"));
    let function = Function { name: arn.into(), qualifier: Some("live".into()), region: Some("us-east-1".to_owned()) };
    assert_eq!(proxy.function, FunctionUri::Fixed(function));
    assert_eq!((proxy.proxy, proxy.timeout), (true, Duration::from_millis(50)));
    let plain = lambda("{integrationType: AWS, integrationUri: '${stageVariables.fn}'}");
    assert_eq!(plain.function, FunctionUri::Varying("${stageVariables.fn}".to_owned()));
    assert_eq!((plain.proxy, plain.timeout), (false, Duration::from_secs(29)));
    for millis in [49, 29_001] {
        let text = format!("{{integrationType: AWS_PROXY, integrationUri: f, timeoutInMillis: {millis}}}");
        assert_integration_problem(&text, &format!("`timeoutInMillis` is {millis}, expected a whole number from 50"));
    }
}

#[test]
fn a_proxied_function_keeps_what_the_services_tools_write_and_gets_no_parameters() {
    let proxy = lambda(
        "{integrationType: AWS_PROXY, integrationUri: f, integrationMethod: POST, payloadFormatVersion: '1.0', \
         connectionType: INTERNET, contentHandlingStrategy: CONVERT_TO_TEXT, passthroughBehavior: WHEN_NO_MATCH, \
         requestParameters: {integration.request.header.x: \"'y'\"}}",
    );
    assert!(proxy.parameters.is_empty() && proxy.request.templates.is_empty());
    let plain = lambda(
        "{integrationType: AWS, integrationUri: f, \
         requestParameters: {integration.request.header.X-Amz-Invocation-Type: \"'Event'\"}}",
    );
    assert_eq!(plain.parameters.len(), 1);
}

#[test]
fn what_makes_no_call_of_a_function_is_said() {
    for (integration, expected) in [
        ("{integrationType: AWS_PROXY}", "`integrationUri` is missing, expected a function name or an ARN"),
        ("{integrationType: AWS_PROXY, integrationUri: 'http://host/'}", "`http://host/` names no Lambda function"),
        ("{integrationType: AWS, integrationUri: f, integrationMethod: GET}", "a function is called with `POST`"),
        ("{integrationType: AWS, integrationUri: 'f-{id}'}", "`{id}` in a function, expected `${stageVariables.name}`"),
        ("{integrationType: AWS_PROXY, integrationUri: f, requestTemplates: {a: b}}", "no meaning for AWS_PROXY"),
        ("{integrationType: AWS_PROXY, integrationUri: f, integrationResponses: {}}", "no meaning for AWS_PROXY"),
        ("{integrationType: AWS, integrationUri: f, groupName: a}", "`groupName` has no meaning for AWS"),
        (
            "{integrationType: AWS, integrationUri: 'arn:aws:apigateway:us-east-1:lambda:path/2021-11-15/functions/f/response-streaming-invocations'}",
            "is no path of the Invoke API",
        ),
        (
            "{integrationType: AWS, integrationUri: f, requestParameters: {integration.request.header.Authorization: \"'x'\"}}",
            "header `Authorization` of a call to a function is the gateway's own",
        ),
        (
            "{integrationType: AWS, integrationUri: f, requestParameters: {integration.request.querystring.Qualifier: \"'x'\"}}",
            "`integration.request.querystring.Qualifier` has no meaning for a function",
        ),
    ] {
        assert_integration_problem(integration, expected);
    }
    let variable = "{integration: {integrationType: AWS, integrationUri: '${stageVariables.fn}'}}";
    let with = |stage: &str| load(&definition("", stage, variable)).map_err(|problems| problems.to_string());
    assert!(with("{stageVariables: {fn: chat}}").is_ok() && with("{}").is_ok());
    let error = with("{stageVariables: {fn: 'a/b'}}").unwrap_err();
    assert!(
        error.contains("with the variables of stage `dev` `${stageVariables.fn}` names no Lambda function"),
        "{error}"
    );
}

#[test]
fn an_authorizer_guards_the_route_that_names_it() {
    let authorizers = "authorizers: {guard: {authorizerType: REQUEST, authorizerUri: auth, identitySource: \
        [route.request.header.X-Key, method.request.querystring.token, stageVariables.a, context.connectionId]}}";
    let text = definition(authorizers, "{}", "{}")
        .replace("  a: {}", "  $connect: {authorizationType: CUSTOM, authorizerId: guard}");
    let api = api(&text);
    let Authorization::Custom(authorizer) = &api.connect.as_ref().unwrap().authorization else { panic!("{api:?}") };
    let sources = ["X-Key", "token", "a", "connectionId"].map(str::to_owned);
    let [header, query, variable, context] = sources;
    let expected = [
        IdentitySource::Header(header),
        IdentitySource::Query(query),
        IdentitySource::StageVariable(variable),
        IdentitySource::Context(context),
    ];
    assert_eq!(authorizer.sources, expected);
    assert!(matches!(&authorizer.function, FunctionUri::Fixed(function) if function.name == "auth"));
}

#[test]
fn what_guards_nothing_is_said() {
    let guard = "authorizers: {guard: {authorizerType: REQUEST, authorizerUri: auth}}";
    for (top, route, expected) in [
        (guard, "  $connect: {authorizationType: CUSTOM}", "`CUSTOM` without `authorizerId`, expected the name"),
        (guard, "  $connect: {authorizationType: CUSTOM, authorizerId: gard}", "no authorizer `gard` in this API"),
        (guard, "  $connect: {authorizerId: guard}", "`authorizerId` has no meaning here"),
        (
            guard,
            "  b: {authorizationType: CUSTOM, authorizerId: guard}",
            "`authorizationType` is `CUSTOM`, expected it on",
        ),
        ("authorizers: {g: {authorizerType: REQUEST}}", "  b: {}", "`authorizerUri` is missing"),
        ("authorizers: {g: {authorizerUri: f}}", "  b: {}", "`authorizerType` is missing"),
        ("authorizers: {g: {authorizerType: JWT, authorizerUri: f}}", "  b: {}", "`authorizerType` `JWT` is known but"),
        (
            "authorizers: {g: {authorizerType: REQUEST, authorizerUri: 'http://h'}}",
            "  b: {}",
            "names no Lambda function",
        ),
        (
            "authorizers: {g: {authorizerType: REQUEST, authorizerUri: f, identitySource: [route.request.body.a]}}",
            "  b: {}",
            "`route.request.body.a` is no identity source",
        ),
        (
            "authorizers: {g: {authorizerType: REQUEST, authorizerUri: f, authorizerCredentialsArn: a}}",
            "  b: {}",
            "`authorizerCredentialsArn` is known but not supported yet",
        ),
    ] {
        let text = definition(top, "{}", "{}").replace("  a: {}", route);
        let problems = load(&text).expect_err(&text).to_string();
        assert!(problems.lines().count() == 1 && problems.contains(expected), "{problems}\n{text}");
    }
}

#[test]
fn what_is_not_done_yet_is_refused_by_name() {
    for (route, expected) in [
        (
            "{integration: {integrationType: AWS, integrationUri: 'arn:aws:apigateway:us-east-1:dynamodb:action/PutItem'}}",
            "8:59: `arn:aws:apigateway:us-east-1:dynamodb:action/PutItem` is an AWS service other than Lambda, which is known but not supported yet",
        ),
        (
            "{integration: {integrationType: MOCK, connectionType: VPC_LINK}}",
            "8:60: `connectionType` `VPC_LINK` is known",
        ),
        ("{authorizationType: JWT}", "`authorizationType` `JWT` is known but not supported yet"),
        ("{requestModels: {}}", "8:7: `requestModels` is known but not supported yet"),
        ("{target: integrations/a}", "8:7: `target` names an integration by its id"),
        ("{integration: {integrationType: MOCK, credentialsArn: x}}", "8:44: `credentialsArn` is known"),
    ] {
        let problems = load(&definition("", "{}", route)).expect_err(route).to_string();
        assert!(problems.contains(expected), "{problems}\n{route}");
    }
    let problems = load(&definition("models: {}", "{defaultRouteSettings: {}}", "{}")).unwrap_err().to_string();
    assert!(problems.contains("4:1: `models`") && problems.contains("6:9: `defaultRouteSettings`"), "{problems}");
    let http = load(&definition("", "{}", "{}").replace("WEBSOCKET", "HTTP")).unwrap_err().to_string();
    assert!(http.contains("2:15: `protocolType` `HTTP` is known but not supported yet"), "{http}");
    // What says "no" to something not done yet says nothing wrong.
    assert_problems(&definition("", "{}", "{authorizationType: NONE, apiKeyRequired: false}"), &[]);
}

#[test]
fn keys_that_have_no_effect_are_refused() {
    for (integration, key) in [
        ("{integrationType: MOCK, integrationUri: 'http://h'}", "`integrationUri` has no meaning for MOCK"),
        ("{integrationType: HTTP_PROXY, integrationUri: 'http://h', requestTemplates: {}}", "`requestTemplates`"),
        ("{integrationType: HTTP, integrationUri: 'http://h', groupName: x}", "`groupName` has no meaning for HTTP"),
        ("{integrationType: GROUP, groupAction: join, groupName: x, message: y}", "`message` has no meaning here"),
        ("{integrationType: GROUP, groupAction: join, groupName: x, timeoutInMillis: 50}", "`timeoutInMillis`"),
    ] {
        assert_integration_problem(integration, key);
    }
}

#[test]
fn route_keys_are_any_text_but_reserved_ones() {
    let text = format!(
        "{HEAD}stages: {{dev: {{}}}}\nroutes: {{$connect: {{}}, $disconnect: {{}}, $default: {{}}, 7: {{}}, true: {{}}, 'join room': {{}}}}\n"
    );
    let api = api(&text);
    assert!(api.connect.is_some() && api.disconnect.is_some());
    let mut keys: Vec<&str> = api.routes.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["$default", "7", "join room", "true"]);
    assert_problems(
        &text.replace("$default:", "$other:"),
        &[
            "t.yaml:5:41: route key `$other`, expected `$connect`, `$disconnect`, `$default` or a key without `$` at its start",
        ],
    );
    let long = format!("{HEAD}stages: {{dev: {{}}}}\nroutes: {{? {} : {{}}}}\n", "x".repeat(1_025));
    assert!(load(&long).unwrap_err().to_string().contains("a route key of no or too many characters"));
}

#[test]
fn an_api_needs_stages_and_routes_and_not_too_many() {
    assert_problems(
        &format!("{HEAD}stages: {{}}\nroutes: {{}}\n"),
        &[
            "t.yaml:4:9: `stages` has 0 entries, expected at least 1",
            "t.yaml:5:9: `routes` has 0 entries, expected at least 1",
        ],
    );
    let routes = |count: usize| (0..count).map(|n| format!("  r{n}: {{}}\n")).collect::<Vec<_>>().concat();
    let text = |count| format!("{HEAD}stages: {{dev: {{}}}}\nroutes:\n{}", routes(count));
    assert_problems(&text(300), &[]);
    assert_problems(&text(301), &["t.yaml:6:3: `routes` has 301 entries, expected at most 300"]);
}

#[test]
fn connect_and_disconnect_have_rules_of_their_own() {
    let text = |connect: &str| format!("{HEAD}stages: {{dev: {{}}}}\nroutes:\n  $connect: {connect}\n");
    let declared = text("{requestParameters: {route.request.querystring.token: {required: false}}}");
    assert_problems(&declared, &[]);
    assert_problems(
        &declared.replace("false", "true"),
        &["t.yaml:6:34: a required parameter is known but not supported yet, expected `required: false`"],
    );
    assert_problems(
        &text("{ordering: serial}"),
        &["t.yaml:6:14: `$connect` runs once, expected `ordering` on a message route"],
    );
    let answered = api(&text("{routeResponseSelectionExpression: $default}"));
    assert!(!answered.connect.unwrap().two_way, "a handshake is never answered by a frame");
    assert_problems(
        &definition("", "{}", "{routeResponses: {$default: {}}}"),
        &[
            "t.yaml:8:7: a route response makes no route two-way, expected `routeResponseSelectionExpression: $default` beside it",
        ],
    );
}

#[test]
fn apis_and_domains_are_unique_across_files() {
    let text = |id: &str| {
        definition("domains: [{domainName: ws.example.com, stage: dev}]", "{}", "{}")
            .replace("apiId: t", &format!("apiId: {id}"))
    };
    let (one, two) = (text("one"), text("two"));
    let problems = load_texts([("a.yaml", &*one), ("b.yaml", &*one), ("c.yaml", &*two)], &empty_environment);
    assert_eq!(
        problems.unwrap_err().to_string().lines().collect::<Vec<_>>(),
        [
            "b.yaml:1:8: apiId `one` is taken by a.yaml:1, expected another",
            "b.yaml:4:24: `ws.example.com/` is mapped by a.yaml:4 already, expected another key",
            "c.yaml:4:24: `ws.example.com/` is mapped by a.yaml:4 already, expected another key",
        ]
    );
    assert_problems(
        &definition("domains: [{domainName: a.example.com, apiMappingKey: a/b, stage: dev}]", "{}", "{}"),
        &["t.yaml:4:54: `apiMappingKey` is `a/b`, expected at most 300 letters, digits and `$-_.+!*'()`, without `/`"],
    );
}

#[test]
fn identifiers_take_no_references() {
    let text = definition("", "{}", "{}").replace("apiId: t", "apiId: '${env:ID}'");
    let problems = load_texts([("t.yaml", &*text)], &|_| Some("secret".to_owned())).unwrap_err();
    assert_eq!(problems.to_string(), "t.yaml:1:8: `${env:ID}` is shown to people, expected it without references");
}

#[test]
fn parameter_mappings_are_parsed() {
    let http = http(
        "{integrationType: HTTP, integrationMethod: ANY, integrationUri: 'http://h/{id}', requestParameters: {\
         integration.request.header.a: context.connectionId, integration.request.header.b: route.request.header.X-A, \
         integration.request.header.c: method.request.multivalueheader.x, integration.request.header.d: stageVariables.v, \
         integration.request.header.e: route.request.body, integration.request.path.id: route.request.body.user.id, \
         integration.request.querystring.src: \"'gateway'\"}}",
    );
    assert_eq!(http.method, http::Method::POST);
    let header = |name: &str| Destination::Header(name.to_owned());
    let source = |to: &Destination| &http.parameters.iter().find(|p| p.destination == *to).unwrap().source;
    assert!(matches!(source(&header("a")), Source::Context(path) if path == "connectionId"));
    assert!(matches!(source(&header("b")), Source::Header(name) if name == "X-A"));
    assert!(matches!(source(&header("c")), Source::Headers(name) if name == "x"));
    assert!(matches!(source(&header("d")), Source::StageVariable(name) if name == "v"));
    assert!(matches!(source(&header("e")), Source::Body));
    assert!(matches!(source(&Destination::Path("id".to_owned())), Source::BodyPath(_)));
    assert!(matches!(source(&Destination::Query("src".to_owned())), Source::Constant(text) if text == "gateway"));
}

#[test]
fn parameter_mappings_that_mean_nothing_are_refused() {
    for (mapping, expected) in [
        ("integration.request.cookie.a: context.stage", "`integration.request.cookie.a` is no destination"),
        ("integration.request.header.a b: context.stage", "`a b` is no parameter name"),
        ("integration.request.header.Content-Length: \"'7'\"", "header `Content-Length` belongs to the connection"),
        ("integration.request.header.a: request.header.b", "`request.header.b` is no source"),
        ("integration.request.header.a: route.request.cookie.b", "`route.request.cookie.b` is no source"),
        ("integration.request.header.a: route.request.bodyx", "`bodyx`, expected `body`"),
        ("integration.request.header.a: ''", "a source of 0 characters"),
        ("integration.request.path.id: context.stage", "`integration.request.path.id` has no place"),
    ] {
        let integration =
            format!("{{integrationType: HTTP, integrationUri: 'http://h', requestParameters: {{{mapping}}}}}");
        assert_integration_problem(&integration, expected);
    }
}

#[test]
fn urls_are_checked_with_the_variables_of_each_stage() {
    for (uri, expected) in [
        ("/orders", "`/orders` is not an absolute http or https URL"),
        ("http://", "is not an absolute"),
        ("http://user:pass@h/", "is not an absolute"),
        ("http://h/${stageVariable.x}", "`${stageVariable.x}` in the URL, expected `${stageVariables.name}`"),
        ("http://h/{id}", "nothing fills `{id}` of the URL"),
        ("http://h/}", "a brace without its partner"),
    ] {
        assert_integration_problem(&format!("{{integrationType: HTTP_PROXY, integrationUri: '{uri}'}}"), expected);
    }
    let route = "{integration: {integrationType: HTTP_PROXY, integrationUri: '${stageVariables.host}/x'}}";
    assert_problems(&definition("", "{stageVariables: {host: 'https://h'}}", route), &[]);
    assert_problems(
        &definition("", "{stageVariables: {host: h}}", route),
        &[
            "t.yaml:8:66: with the variables of stage `dev` `${stageVariables.host}/x` is not an absolute http or https URL, \
         expected one such as `https://host/path`",
        ],
    );
    // A stage that lacks the variable fails its calls, not the load (specification 4.1.2).
    assert_problems(&definition("", "{}", route), &[]);
}

#[test]
fn http_needs_a_url_and_group_a_name() {
    assert_integration_problem("{integrationType: HTTP}", "`integrationUri` is missing");
    assert_integration_problem("{integrationType: GROUP}", "`groupAction` is missing");
    assert_integration_problem(
        "{}",
        "`integrationType` is missing, expected one of `HTTP`, `HTTP_PROXY`, `MOCK`, `GROUP`",
    );
}

#[test]
fn groups_are_compiled() {
    let route = only_route(
        "{integrationType: GROUP, groupAction: send, groupName: 'room-${request.body.room}', message: hi, excludeSender: true}",
    );
    let Some(Integration::Group(group)) = &route.integration else { panic!("{route:?}") };
    assert_eq!((group.action, group.exclude_sender), (GroupAction::Send, true));
    assert_eq!(group.name.as_str(), "room-${request.body.room}");
    assert_eq!(group.message.as_ref().map(crate::lang::Selection::as_str), Some("hi"));
}

#[test]
fn response_keys_match_whole_values() {
    let http = http(
        r"{integrationType: HTTP, integrationUri: 'http://h', integrationResponses: {'/40|4/': {}, $default: {responseParameters: {
          route.response.header.a: integration.response.header.b, method.response.header.c: integration.response.body.d,
          route.response.header.e: ''x''}}}}"
            .replace("''x''", "\"'x'\"")
            .as_str(),
    );
    let [pattern, default] = http.responses.as_slice() else { panic!("{:?}", http.responses) };
    let ResponseKey::Pattern(pattern) = &pattern.key else { panic!("{pattern:?}") };
    assert!(pattern.is_match("40") && pattern.is_match("4") && !pattern.is_match("404"));
    assert!(matches!(default.key, ResponseKey::Default));
    let sources: Vec<_> = default.parameters.iter().map(|(name, source)| (name.as_str(), source)).collect();
    assert!(matches!(
        sources.as_slice(),
        [("a", ResponseSource::Header(b)), ("c", ResponseSource::BodyPath(_)), ("e", ResponseSource::Constant(x))]
            if b == "b" && x == "x"
    ));
    for key in ["4xx", "//", "/(/", "/a)(?:b/", "/(?=x)/"] {
        let integration = format!("{{integrationType: MOCK, integrationResponses: {{'{key}': {{}}}}}}");
        assert_integration_problem(&integration, &format!("integration response `{key}`"));
    }
}

#[test]
fn expressions_and_templates_are_checked_where_they_stand() {
    let bad_selection = definition("", "{}", "{}").replace("$request.body.action", "abc-${request.body.a");
    let problems = load(&bad_selection).unwrap_err().to_string();
    assert!(problems.starts_with("t.yaml:3:"), "{problems}");

    let text = definition(
        "",
        "{}",
        "\n    integration:\n      integrationType: MOCK\n      requestTemplates:\n        $default: |\n          {\n          #foreach($x in $y)\n          }\n",
    );
    let problems = load(&text).unwrap_err().to_string();
    assert!(problems.starts_with("t.yaml:14:11: "), "{problems}");
}

#[test]
fn a_group_takes_its_name_from_a_message() {
    let group = "{integration: {integrationType: GROUP, groupAction: leave, groupName: all}}";
    for key in ["$connect", "$disconnect"] {
        let text = format!("{HEAD}stages: {{dev: {{}}}}\nroutes: {{{key}: {group}}}\n");
        let problems = load(&text).unwrap_err().to_string();
        let expected = format!("`{key}` has no message that could name a group, expected `GROUP` on a message route");
        assert!(problems.ends_with(&expected) && problems.lines().count() == 1, "{problems}");
    }
    assert_problems(&format!("{HEAD}stages: {{dev: {{}}}}\nroutes: {{$default: {group}}}\n"), &[]);
}

#[test]
fn limits_must_fit_each_other() {
    assert_problems(
        &definition("", "{limits: {maxOutboxBytes: 64KiB}}", "{}"),
        &["t.yaml:6:34: `maxOutboxBytes` (65536) is below `maxMessageBytes` (131072), expected room for one message"],
    );
    assert_problems(
        &definition("", "{limits: {maxFrameBytes: 0}}", "{}"),
        &["t.yaml:6:33: `maxFrameBytes` is 0, expected 1 to 67108864 bytes"],
    );
}

#[test]
fn access_log_formats_are_one_line_with_a_request_id() {
    let format = |format: &str| definition("", &format!("{{accessLogSettings: {{format: \"{format}\"}}}}"), "{}");
    assert_problems(&format("$context.extendedRequestId\\n"), &[]);
    assert_problems(
        &format("$context.requestId\\n$context.status"),
        &["t.yaml:6:37: an access-log format of several lines, expected one"],
    );
    let long = format(&format!("$context.requestId {}", "x".repeat(3_072)));
    assert!(load(&long).unwrap_err().to_string().contains("expected a text of 1 to 3072 characters"));
}
