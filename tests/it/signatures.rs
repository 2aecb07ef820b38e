//! Signed callbacks: whose signature counts, and what policies let them do (specification 6.4, 6.5).

use serde_json::json;

use crate::support::{Client, HttpAnswer, Signer, TestGateway};

const API: &str = "
apiId: push
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}, prod: {}}
routes:
  join: {integration: {integrationType: GROUP, groupAction: join, groupName: 'room-${request.body.room}'}}
  whoami:
    routeResponseSelectionExpression: $default
    integration:
      integrationType: MOCK
      requestTemplates: {$default: '{\"statusCode\": 200}'}
      integrationResponses: {$default: {responseTemplates: {$default: '{\"connectionId\": \"$context.connectionId\"}'}}}
";

const IAM: &str = r#"
iam:
  account: "123456789012"
  hosts: [public.example.com]
  users:
    all:
      access-keys: [{id: AKIAALL, secret: secret-of-all-0001}]
      policies:
        - Version: "2012-10-17"
          Statement: {Effect: Allow, Action: 'execute-api:*', Resource: '*'}
    post:
      access-keys: [{id: AKIAPOST, secret: secret-of-post-001}]
      policies:
        - Version: 2012-10-17
          Statement:
            Effect: Allow
            Action: execute-api:ManageConnections
            Resource: arn:aws:execute-api:us-east-1:123456789012:push/dev/POST/@connections/*
    room:
      access-keys: [{id: AKIAROOM, secret: secret-of-room-001}]
      policies:
        - Version: 2012-10-17
          Statement:
            - {Effect: Allow, Action: 'execute-api:ManageConnections', Resource: 'arn:aws:execute-api:*:*:push/*/@groups/room-*'}
            - {Effect: Deny, Action: '*', Resource: '*/GET/*'}
    invoke:
      access-keys: [{id: AKIAINVOKE, secret: secret-of-invoke-1}]
      policies:
        - Version: 2012-10-17
          Statement: {Effect: Allow, Action: 'execute-api:Invoke', Resource: '*'}
    away:
      access-keys: [{id: AKIAAWAY, secret: secret-of-away-001}]
      policies:
        - Version: 2012-10-17
          Statement:
            Effect: Allow
            Action: '*'
            Resource: '*'
            Condition: {NotIpAddress: {'aws:SourceIp': 127.0.0.0/8}}
  roles:
    worker:
      sessions:
        - {name: now, id: ASIANOW, secret: secret-of-role-001, session-token: token-of-now}
        - {name: past, id: ASIAPAST, secret: secret-of-role-002, session-token: token-of-past, expires: 2020-01-01T00:00:00Z}
      policies:
        - Version: 2012-10-17
          Statement: {Effect: Allow, Action: 'execute-api:ManageConnections', Resource: '*'}
"#;

const ALL: Signer = Signer::new("AKIAALL", "secret-of-all-0001");
const POST: Signer = Signer::new("AKIAPOST", "secret-of-post-001");
const ROOM: Signer = Signer::new("AKIAROOM", "secret-of-room-001");

struct Scene {
    gateway: TestGateway,
    client: Client,
    id: String,
}

impl Scene {
    async fn new() -> Self {
        Self::of(TestGateway::builder().routes_yaml(API).in_production("the-token").config_yaml(IAM)).await
    }

    async fn of(builder: crate::support::Builder) -> Self {
        let gateway = builder.start().await;
        let mut client = gateway.client("/dev").open().await;
        let answer = client.ask(r#"{"action":"whoami"}"#).await;
        let id =
            serde_json::from_str::<serde_json::Value>(&answer).unwrap()["connectionId"].as_str().unwrap().to_owned();
        Self { gateway, client, id }
    }

    fn path(&self) -> String {
        format!("/dev/@connections/{}", self.id.replace('=', "%3D"))
    }

    /// A signed call.
    async fn call(&self, signer: Signer, method: &str, path: &str, body: &[u8]) -> HttpAnswer {
        self.sent(signer.headers(method, &self.host(), path, body), method, path, body).await
    }

    async fn sent(&self, headers: Vec<(&'static str, String)>, method: &str, path: &str, body: &[u8]) -> HttpAnswer {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.gateway.call(method, path, &headers, body).await
    }

    fn host(&self) -> String {
        self.gateway.app().public().to_string()
    }

    async fn end(mut self) {
        self.client.expect_silence().await;
        self.client.close(1000, "").await;
        self.gateway.finish().await;
    }
}

#[track_caller]
fn assert_refused(answer: &HttpAnswer, error_type: &str, message: &str) {
    assert_eq!((answer.status, answer.header("x-amzn-ErrorType")), (403, Some(error_type)), "{answer:?}");
    let name =
        if error_type == "AccessDeniedException" && message.starts_with("User: ") { "Message" } else { "message" };
    let text = answer.json()[name].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
    assert!(text.starts_with(message), "{text}");
}

// checklist: 184, 214
#[tokio::test]
async fn a_signed_call_does_what_its_policies_allow() {
    let mut scene = Scene::new().await;
    let path = scene.path();
    for path in [path.clone(), path.replace('@', "%40"), path.replace("%3D", "=")] {
        let answer = scene.call(ALL, "POST", &path, b"hello").await;
        assert_eq!((answer.status, answer.text()), (200, ""), "{path}: {answer:?}");
        assert_eq!(scene.client.next_text().await, "hello");
    }
    let worker = Signer { token: Some("token-of-now"), ..Signer::new("ASIANOW", "secret-of-role-001") };
    assert_eq!(scene.call(worker, "GET", &path, b"").await.status, 200);
    assert_eq!(scene.call(ALL, "POST", "/dev/@all", b"all").await.json()["delivered"], 1);
    assert_eq!(scene.client.next_text().await, "all");
    scene.end().await;
}

// checklist: 203, 204, 205, 206
#[tokio::test]
async fn what_no_policy_allows_is_denied_by_name() {
    let mut scene = Scene::new().await;
    let path = scene.path();
    assert_eq!(scene.call(POST, "POST", &path, b"a").await.status, 200);
    assert_eq!(scene.client.next_text().await, "a");
    let denied = scene.call(POST, "DELETE", &path, b"").await;
    assert_refused(&denied, "AccessDeniedException", "User: arn:aws:iam::123456789012:user/post is not authorized");
    let invoke = scene.call(Signer::new("AKIAINVOKE", "secret-of-invoke-1"), "POST", &path, b"a").await;
    assert_eq!(
        invoke.json(),
        json!({"Message": "User: arn:aws:iam::123456789012:user/invoke is not authorized to perform: \
                          execute-api:ManageConnections on resource: \
                          arn:aws:execute-api:us-east-1:********9012:push/dev/POST/@connections/{connectionId}"})
    );
    for (signer, method, path) in [
        (POST, "POST", path.replace("/dev/", "/prod/")),
        (POST, "POST", "/dev/@all".to_owned()),
        (POST, "POST", "/dev/@groups/room-1".to_owned()),
        (ROOM, "POST", path.clone()),
        (ROOM, "POST", "/dev/@groups/staff".to_owned()),
        (ROOM, "GET", "/dev/@groups/room-1".to_owned()),
        (Signer::new("AKIAAWAY", "secret-of-away-001"), "POST", path.clone()),
    ] {
        let denied = scene.call(signer, method, &path, b"").await;
        assert_refused(&denied, "AccessDeniedException", "User: arn:aws:iam::123456789012:user/");
    }
    scene.client.send_text(r#"{"action":"join","room":"1"}"#).await;
    // The next answer comes after the join.
    scene.client.ask(r#"{"action":"whoami"}"#).await;
    assert_eq!(scene.call(ROOM, "POST", "/dev/@groups/room-1", b"hi").await.json()["delivered"], 1);
    assert_eq!(scene.client.next_text().await, "hi");
    scene.end().await;
}

// checklist: 200, 201, 202
#[tokio::test]
async fn a_signature_that_does_not_count_is_refused_in_the_service_s_words() {
    let scene = Scene::new().await;
    let path = scene.path();
    let unsigned = scene.gateway.call("POST", &path, &[], b"x").await;
    assert_refused(&unsigned, "MissingAuthenticationTokenException", "Missing Authentication Token");
    let wrong = scene.call(Signer { secret: "another-secret-001", ..ALL }, "POST", &path, b"x").await;
    assert_refused(&wrong, "InvalidSignatureException", "The request signature we calculated does not match");
    assert!(wrong.text().contains("The Canonical String for this request should have been"), "{wrong:?}");
    let nobody = scene.call(Signer::new("AKIANOBODY", "secret"), "POST", &path, b"x").await;
    assert_refused(&nobody, "UnrecognizedClientException", "The security token included in the request is invalid.");
    for (skew, message) in [(-360, "Signature expired: "), (360, "Signature not yet current: ")] {
        let skewed = scene.call(Signer { skew, ..ALL }, "POST", &path, b"x").await;
        assert_refused(&skewed, "InvalidSignatureException", message);
    }
    for skew in [-240, 240] {
        assert_eq!(scene.call(Signer { skew, ..ALL }, "GET", &path, b"").await.status, 200, "{skew}");
    }
    let past = Signer { token: Some("token-of-past"), ..Signer::new("ASIAPAST", "secret-of-role-002") };
    assert_refused(&scene.call(past, "GET", &path, b"").await, "ExpiredTokenException", "The security token");
    for token in [None, Some("token-of-past")] {
        let other = Signer { token, ..Signer::new("ASIANOW", "secret-of-role-001") };
        assert_refused(&scene.call(other, "GET", &path, b"").await, "UnrecognizedClientException", "The security");
    }
    let digest = scene.gateway.call("POST", &path, &[("Authorization", "Digest a=b")], b"x").await;
    assert_refused(&digest, "IncompleteSignatureException", "Invalid key=value pair");
    assert_eq!(scene.gateway.metric("causeway_faults_total{kind=\"INVALID_SIGNATURE\"}").await, 7);
    scene.end().await;
}

#[tokio::test]
async fn a_signature_over_anything_else_is_refused() {
    let scene = Scene::new().await;
    let (path, host) = (scene.path(), scene.host());
    let signed = || ALL.headers("POST", &host, &path, b"hello");
    for (method, path, body) in [
        ("POST", path.as_str(), &b"hellO"[..]),
        ("POST", &path, b""),
        ("DELETE", &path, b"hello"),
        ("POST", "/dev/@all", b"hello"),
        ("POST", &path.replace("/dev/", "/prod/"), b"hello"),
        ("POST", &format!("{path}?a=1"), b"hello"),
    ] {
        let answer = scene.sent(signed(), method, path, body).await;
        assert_refused(&answer, "InvalidSignatureException", "The request signature we calculated does not match");
    }
    let mut twice = signed();
    twice.extend(signed());
    let answer = scene.sent(twice, "POST", &path, b"hello").await;
    assert_refused(&answer, "InvalidSignatureException", "The request signature we calculated does not match");
    let both = format!("{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00");
    let answer = scene.sent(signed(), "POST", &both, b"hello").await;
    assert_refused(&answer, "InvalidSignatureException", "The request signature we calculated does not match");
    let mut cut = signed();
    let length = cut[1].1.len();
    cut[1].1.truncate(length - 80);
    let answer = scene.sent(cut, "POST", &path, b"hello").await;
    assert_refused(&answer, "IncompleteSignatureException", "Authorization header requires 'Signature' parameter. ");
    scene.end().await;
}

#[tokio::test]
async fn a_name_that_a_proxy_changed_counts_where_it_is_configured() {
    let mut scene = Scene::new().await;
    let path = scene.path();
    let headers = ALL.headers("POST", "public.example.com", &path, b"via");
    assert_eq!(scene.sent(headers, "POST", &path, b"via").await.status, 200);
    assert_eq!(scene.client.next_text().await, "via");
    let headers = ALL.headers("POST", "other.example.com", &path, b"via");
    let answer = scene.sent(headers, "POST", &path, b"via").await;
    assert_refused(&answer, "InvalidSignatureException", "The request signature");
    scene.end().await;
}

#[tokio::test]
async fn a_signed_address_and_a_body_in_chunks_count_too() {
    let mut scene = Scene::new().await;
    let (path, host) = (scene.path(), scene.host());
    let target = ALL.presigned(&host, &path, &[("X-Amz-Expires", "60")]);
    assert_eq!(scene.gateway.call("GET", &target, &[], b"").await.status, 200);
    for (body, status) in [("hello", 200), ("hellO", 403)] {
        let mut head =
            format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n");
        for (name, value) in ALL.headers("POST", &host, &path, b"hello") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut wire = scene.gateway.client("/").dial().await;
        wire.send(format!("{head}\r\n5\r\n{body}\r\n0\r\n\r\n").as_bytes()).await;
        let answer = crate::support::read_answer(&mut wire).await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(scene.client.next_text().await, "hello");
    scene.end().await;
}

#[tokio::test]
async fn the_token_goes_on_to_count_beside_signatures() {
    let mut scene = Scene::new().await;
    let path = scene.path();
    let answer = scene.gateway.call("POST", &path, &[("Authorization", "Bearer the-token")], b"t").await;
    assert_eq!(answer.status, 200);
    assert_eq!(scene.client.next_text().await, "t");
    let answer = scene.gateway.call("POST", &path, &[("Authorization", "Bearer another")], b"t").await;
    assert_refused(&answer, "AccessDeniedException", "Access Denied");
    // A web page may not push, whoever signed it.
    let mut headers = ALL.headers("POST", &scene.host(), &path, b"t");
    headers.push(("Origin", "https://evil.example".to_owned()));
    assert_refused(&scene.sent(headers, "POST", &path, b"t").await, "AccessDeniedException", "Access Denied");
    scene.end().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_told_before_its_signature_is_looked_at() {
    let scene = Scene::new().await;
    let path = scene.path();
    let answer = scene.call(ALL, "POST", &path, &vec![b'x'; 128 * 1024 + 1]).await;
    assert_eq!((answer.status, answer.header("x-amzn-ErrorType")), (413, Some("PayloadTooLargeException")));
    scene.end().await;
}

#[tokio::test]
async fn dev_asks_for_no_signature_and_checks_those_of_keys_it_knows() {
    let mut scene = Scene::of(TestGateway::builder().routes_yaml(API).config_yaml(IAM)).await;
    let path = scene.path();
    for (signer, text) in [(None, "1"), (Some(ALL), "2"), (Some(Signer::new("AKIAANY", "any")), "3")] {
        let answer = match signer {
            None => scene.gateway.call("POST", &path, &[], text.as_bytes()).await,
            Some(signer) => scene.call(signer, "POST", &path, text.as_bytes()).await,
        };
        assert_eq!(answer.status, 200, "{text}: {answer:?}");
        assert_eq!(scene.client.next_text().await, text);
    }
    let wrong = scene.call(Signer { secret: "another-secret-001", ..ALL }, "POST", &path, b"x").await;
    assert_refused(&wrong, "InvalidSignatureException", "The request signature");
    let denied = scene.call(POST, "DELETE", &path, b"").await;
    assert_refused(&denied, "AccessDeniedException", "User: arn:aws:iam::123456789012:user/post");
    scene.end().await;
}

#[tokio::test]
async fn operators_pages_show_no_secret() {
    let scene = Scene::new().await;
    let path = scene.path();
    let worker = Signer { token: Some("token-of-now"), ..Signer::new("ASIANOW", "secret-of-role-001") };
    scene.call(worker, "GET", &path, b"").await;
    let wrong = scene.call(Signer { secret: "another-secret-001", ..worker }, "GET", &path, b"").await;
    let mut pages = vec![wrong.text().to_owned()];
    for page in ["/metrics", "/connections", "/health", "/ready"] {
        pages.push(scene.gateway.admin("GET", page, b"").await.text().to_owned());
    }
    for page in pages {
        for secret in ["secret-of", "token-of-now", "the-token"] {
            assert!(!page.contains(secret), "{secret}: {page}");
        }
    }
    scene.end().await;
}
