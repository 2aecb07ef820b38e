//! What a gateway does not start with: definitions full of mistakes, addresses that are taken.

use crate::support::{TestGateway, refusal_of};

/// Twenty mistakes, each on a line of its own, from this line of the file on.
const MISTAKES: &[(&str, &str)] = &[
    ("apiId: Not_An_Id", "apiId"),
    ("protocolType: SOCKET", "protocolType"),
    ("routeSelectionExpression: ''", "routeSelectionExpression"),
    ("colour: blue", "colour"),
    ("compression: perhaps", "compression"),
    ("binaryFrames: maybe", "binaryFrames"),
    ("stages:", ""),
    ("  bad stage: {}", "bad stage"),
    ("  dev: {limits: {idleTimeout: soon}}", "idleTimeout"),
    ("  b: {limits: {maxFrameBytes: 0}}", "maxFrameBytes"),
    ("  c: {limits: {maxMessagesInFlight: 0}}", "maxMessagesInFlight"),
    ("  d: {limits: {nonsense: 1}}", "nonsense"),
    ("  e: {stageVariables: {a b: x}}", "a b"),
    ("  f: {accessLogSettings: {format: nothing}}", "requestId"),
    ("  g: {routeSettings: {}}", "routeSettings"),
    ("routes:", ""),
    ("  $foo: {}", "$foo"),
    ("  a: {integration: {integrationType: HTTP}}", "integrationUri"),
    ("  b2: {integration: {integrationType: HTTP_PROXY, integrationUri: 'ftp://x'}}", "ftp://x"),
    ("  c2: {integration: {integrationType: MOCK, timeoutInMillis: 1}}", "timeoutInMillis"),
    ("  d2: {integration: {integrationType: GROUP}}", "groupAction"),
    (
        "  e2: {integration: {integrationType: MOCK, requestTemplates: {$default: '#foreach($x in $y)'}}}",
        "requestTemplates",
    ),
    ("  f2: {ordering: random}", "ordering"),
];

#[tokio::test]
async fn twenty_mistakes_are_all_told_with_their_place() {
    let text: Vec<&str> = MISTAKES.iter().map(|(line, _)| *line).collect();
    let why = refusal_of(TestGateway::builder().routes_yaml(&text.join("\n"))).await;
    for (n, (line, word)) in MISTAKES.iter().enumerate().filter(|(_, (_, word))| !word.is_empty()) {
        let place = format!("0.yaml:{}:", n + 1);
        let told = why.lines().any(|problem| problem.contains(&place));
        assert!(told, "nothing is told of line {} `{line}` ({word}):\n{why}", n + 1);
    }
    assert!(why.lines().count() >= 20, "{why}");
}

#[tokio::test]
async fn a_definition_that_is_no_yaml_is_told_where_it_breaks() {
    for (text, place) in [("apiId: [", "0.yaml:"), ("a: 1\n\tb: 2\n", "0.yaml:"), ("\u{0}", "0.yaml:")] {
        let why = refusal_of(TestGateway::builder().routes_yaml(text)).await;
        assert!(why.contains(place), "{text:?}: {why}");
    }
    let why = refusal_of(TestGateway::builder()).await;
    assert!(why.contains("routes"), "an empty folder: {why}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for admin in [false, true] {
        let change = move |settings: &mut causeway::config::Settings| {
            if admin { settings.admin = address } else { settings.listen = address }
        };
        let why = refusal_of(TestGateway::builder().routes_file("chat.yaml").settings(change)).await;
        assert!(why.contains(&address.to_string()), "{why}");
    }
    // What did not start has let go of everything it had: the same can start now.
    drop(taken);
    let again = TestGateway::builder().routes_file("chat.yaml").settings(move |settings| settings.listen = address);
    again.start().await.finish().await;
}
