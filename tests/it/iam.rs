//! Signed handshakes and resource policies: who may connect (specification 8.3, REST specification 7.8).

use serde_json::json;

use crate::support::{Backend, Connect, HttpAnswer, Signer, TestGateway};

const API: &str = "
apiId: signed
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}, prod: {}}
routes:
  $connect:
    authorizationType: AWS_IAM
    integration: &call
      integrationType: HTTP_PROXY
      integrationUri: http://backend/event
      requestParameters:
        integration.request.header.eventType: context.eventType
        integration.request.header.accountId: context.identity.accountId
        integration.request.header.caller: context.identity.caller
        integration.request.header.user: context.identity.user
        integration.request.header.userArn: context.identity.userArn
        integration.request.header.accessKey: context.identity.accessKey
  $disconnect: {integration: *call}
  say: {integration: *call}
";

const IAM: &str = r#"
iam:
  account: "123456789012"
  users:
    ann:
      access-keys: [{id: AKIAANN, secret: secret-of-ann-0001}]
      policies:
        - Version: 2012-10-17
          Statement: {Effect: Allow, Action: 'execute-api:Invoke', Resource: 'arn:aws:execute-api:us-east-1:123456789012:signed/dev/$connect'}
    bob:
      access-keys: [{id: AKIABOB, secret: secret-of-bob-0001}]
  roles:
    guest:
      sessions: [{name: visit, id: ASIAVISIT, secret: secret-of-visit-01, session-token: token+of/visit=}]
      policies:
        - Version: 2012-10-17
          Statement: {Effect: Allow, Action: '*', Resource: '*'}
"#;

const ANN: Signer = Signer::new("AKIAANN", "secret-of-ann-0001");
const BOB: Signer = Signer::new("AKIABOB", "secret-of-bob-0001");
const VISIT: Signer = Signer { token: Some("token+of/visit="), ..Signer::new("ASIAVISIT", "secret-of-visit-01") };

async fn start(backend: &Backend) -> TestGateway {
    TestGateway::builder().routes_yaml(API).backend(backend).in_production("t").config_yaml(IAM).start().await
}

fn host(gateway: &TestGateway) -> String {
    gateway.app().public().to_string()
}

fn signed(gateway: &TestGateway, signer: Signer, path: &str) -> Connect {
    let headers = signer.headers("GET", &host(gateway), path, b"");
    headers.iter().fold(gateway.client(path), |connect, (name, value)| connect.header(name, value))
}

#[track_caller]
fn assert_refused(answer: &HttpAnswer, error_type: &str, start: &str) {
    assert_eq!((answer.status, answer.header("x-amzn-ErrorType")), (403, Some(error_type)), "{answer:?}");
    assert!(answer.text().starts_with(start), "{answer:?}");
}

// checklist: 250, 255
#[tokio::test]
async fn a_signed_handshake_names_its_caller_in_every_event() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    for (signer, arn, id, key) in [
        (ANN, "arn:aws:iam::123456789012:user/ann", "AIDA", "AKIAANN"),
        (VISIT, "arn:aws:sts::123456789012:assumed-role/guest/visit", "AROA", "ASIAVISIT"),
    ] {
        let client = signed(&gateway, signer, "/dev").open().await;
        let connect = backend.request("/event").await;
        let mut client = client;
        client.send_text(r#"{"action":"say"}"#).await;
        let message = backend.request("/event").await;
        client.close(1000, "").await;
        let disconnect = backend.request("/event").await;
        for (event, kind) in [(connect, "CONNECT"), (message, "MESSAGE"), (disconnect, "DISCONNECT")] {
            assert_eq!((event.header("eventType"), event.header("userArn")), (Some(kind), Some(arn)), "{event:?}");
            assert_eq!((event.header("accountId"), event.header("accessKey")), (Some("123456789012"), Some(key)));
            assert!(event.header("caller").unwrap().starts_with(id) && event.header("caller") == event.header("user"));
        }
    }
    gateway.finish().await;
}

// checklist: 251, 253
#[tokio::test]
async fn a_signed_address_opens_a_connection() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let host = host(&gateway);
    let plain = ANN.presigned(&host, "/dev", &[("room", "a b"), ("x", "1")]);
    let visit = [("X-Amz-Security-Token", "token+of/visit=")];
    let with_token = VISIT.presigned(&host, "/dev", &visit);
    let token_behind = format!("{}&X-Amz-Security-Token=token%2Bof%2Fvisit%3D", VISIT.presigned(&host, "/dev", &[]));
    let for_long = Signer { skew: -3_000, ..ANN }.presigned(&host, "/dev", &[("X-Amz-Expires", "3600")]);
    for target in [&plain, &with_token, &token_behind, &for_long] {
        gateway.client(target).open().await.close(1000, "").await;
    }
    for target in [
        plain.replace("room=a%20b", "room=a%20c"),
        plain.replace("x=1&", ""),
        format!("{plain}&more=1"),
        plain.replace("SignedHeaders=host", "SignedHeaders=host%3Bupgrade"),
        for_long.replace("Expires=3600", "Expires=604800"),
    ] {
        let answer = gateway.client(&target).refused().await;
        assert_refused(&answer, "InvalidSignatureException", r#"{"message":"The request signature we calculated"#);
    }
    let old = Signer { skew: -360, ..ANN }.presigned(&host, "/dev", &[]);
    let answer = gateway.client(&old).refused().await;
    assert_refused(&answer, "InvalidSignatureException", r#"{"message":"Signature expired: "#);
    let both = signed(&gateway, ANN, &ANN.presigned(&host, "/dev", &[])).refused().await;
    assert_refused(&both, "InvalidSignatureException", r#"{"message":"The request signature we calculated"#);
    gateway.finish().await;
}

// checklist: 252, 254
#[tokio::test]
async fn who_did_not_sign_or_may_not_is_refused_before_any_integration_runs() {
    let backend = Backend::start().await;
    let gateway = start(&backend).await;
    let unsigned = gateway.client("/dev").refused().await;
    assert_refused(&unsigned, "MissingAuthenticationTokenException", r#"{"message":"Missing Authentication Token"}"#);
    let bob = signed(&gateway, BOB, "/dev").refused().await;
    assert_refused(&bob, "AccessDeniedException", r#"{"Message":"User: "#);
    assert_eq!(
        bob.json(),
        json!({"Message": "User: arn:aws:iam::123456789012:user/bob is not authorized to perform: execute-api:Invoke on \
                          resource: arn:aws:execute-api:us-east-1:********9012:signed/dev/$connect"})
    );
    let elsewhere = signed(&gateway, ANN, "/prod").refused().await;
    assert_refused(&elsewhere, "AccessDeniedException", r#"{"Message":"User: arn:aws:iam::123456789012:user/ann"#);
    let wrong = signed(&gateway, Signer { secret: "not-the-secret-01", ..ANN }, "/dev").refused().await;
    assert_refused(&wrong, "InvalidSignatureException", r#"{"message":"The request signature"#);
    let nobody = signed(&gateway, Signer::new("AKIANOBODY", "x"), "/dev").refused().await;
    assert_refused(&nobody, "UnrecognizedClientException", r#"{"message":"The security token"#);
    backend.no_more("/event").await;
    gateway.finish().await;
}

/// The same API, open to everybody as far as its own policy goes.
fn with_policy(effect: &str) -> String {
    let open = API.replace("    authorizationType: AWS_IAM\n", "");
    format!(
        "{open}
policy:
  Version: 2012-10-17
  Statement:
    - {{Effect: Allow, Principal: '*', Action: 'execute-api:Invoke', Resource: 'execute-api:/dev/*'}}
    - Effect: {effect}
      Principal: '*'
      Action: 'execute-api:Invoke'
      Resource: 'execute-api:/*'
      Condition: {{IpAddress: {{'aws:SourceIp': 127.0.0.0/8}}}}
"
    )
}

// checklist: 256
#[tokio::test]
async fn an_api_s_own_policy_decides_about_new_connections_only() {
    let backend = Backend::start().await;
    let gateway =
        TestGateway::builder().routes_yaml(&with_policy("Allow")).backend(&backend).in_production("t").start().await;
    let mut client = gateway.client("/dev").open().await;
    assert_eq!(backend.request("/event").await.header("userArn"), None);
    gateway.redeploy(&with_policy("Deny"));
    let answer = gateway.client("/dev").refused().await;
    assert_refused(&answer, "AccessDeniedException", r#"{"Message":"User: anonymous is not authorized"#);
    assert!(answer.text().ends_with(r#":signed/dev/$connect with an explicit deny in a resource-based policy"}"#));
    client.send_text(r#"{"action":"say"}"#).await;
    assert_eq!(backend.request("/event").await.header("eventType"), Some("MESSAGE"), "it was let in before");
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_policy_without_a_matching_allow_lets_nobody_in() {
    let backend = Backend::start().await;
    let policy = with_policy("Allow").replace("execute-api:/*'", "execute-api:/elsewhere/*'");
    let gateway = TestGateway::builder().routes_yaml(&policy).backend(&backend).in_production("t").start().await;
    gateway.client("/dev").open().await.close(1000, "").await;
    let answer = gateway.client("/prod").refused().await;
    assert_refused(&answer, "AccessDeniedException", r#"{"Message":"User: anonymous"#);
    assert!(answer.text().contains("because no resource-based policy allows the execute-api:Invoke action"));
    gateway.finish().await;
}
