//! `@connections`, `@groups`, `@all` (specification 6).

use regex::Regex;
use serde_json::json;

use crate::support::{ABSENCE, Backend, Client, HttpAnswer, TestGateway, read_answer};

const API: &str = "
apiId: push
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages: {dev: {}, prod: {}}
routes:
  $connect:
    integration:
      integrationType: HTTP_PROXY
      integrationUri: http://backend/connect
      requestParameters:
        integration.request.header.connectionId: context.connectionId
        integration.request.header.connectedAt: context.connectedAt
  note: {integration: {integrationType: MOCK}}
";

/// A gateway with one client of a known id.
struct Scene {
    gateway: TestGateway,
    backend: Backend,
    client: Client,
    id: String,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(settings: impl FnOnce(&mut causeway::config::Settings) + 'static) -> Self {
        let backend = Backend::start().await;
        let gateway = TestGateway::builder().routes_yaml(API).backend(&backend).settings(settings).start().await;
        let client = gateway.client("/dev").open().await;
        let id = backend.request("/connect").await.connection_id().to_owned();
        Self { gateway, backend, client, id }
    }

    async fn end(self) {
        self.client.close(1000, "").await;
        self.gateway.finish().await;
    }
}

/// What every answer of the callback paths has.
fn assert_marked(answer: &HttpAnswer) {
    let uuid = Regex::new("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$").unwrap();
    assert!(uuid.is_match(answer.header("x-amzn-RequestId").unwrap()), "{answer:?}");
    let id = Regex::new("^[A-Za-z0-9_-]{15}=$").unwrap();
    assert!(id.is_match(answer.header("x-amz-apigw-id").unwrap()), "{answer:?}");
    assert!(answer.header("Date").unwrap().ends_with(" GMT"));
}

// checklist: 213
#[tokio::test]
async fn a_post_is_one_text_message_and_an_empty_200() {
    let mut scene = Scene::new().await;
    let answer = scene.gateway.post(&scene.id, r#"{"event":"x"}"#).await;
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!((answer.header("Content-Length"), answer.header("Content-Type")), (Some("0"), Some("application/json")));
    assert_marked(&answer);
    assert_eq!(scene.client.next_text().await, r#"{"event":"x"}"#);
    scene.end().await;
}

// checklist: 186, 187, 190, 213
#[tokio::test]
async fn a_get_describes_the_connection() {
    let mut scene = Scene::new().await;
    let answer = scene.gateway.get(&scene.id).await;
    assert_eq!(answer.status, 200);
    assert_marked(&answer);
    let told = answer.json();
    let (connected, active) = (told["connectedAt"].as_str().unwrap(), told["lastActiveAt"].as_str().unwrap());
    let pattern = Regex::new(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$").unwrap();
    assert!(pattern.is_match(connected) && pattern.is_match(active));
    let expected = format!(
        "{{\n  \"identity\" : {{\n    \"sourceIp\" : \"127.0.0.1\",\n    \"userAgent\" : null\n  }},\n  \"connectedAt\" : \"{connected}\",\n  \"lastActiveAt\" : \"{active}\"\n}}"
    );
    assert_eq!(answer.text(), expected);
    // The same moment as in the event, there as milliseconds.
    let mut named = scene.gateway.client("/dev").header("User-Agent", "Mine/1.0 (\"a\")").open().await;
    let event = scene.backend.request("/connect").await;
    let millis: i128 = event.header("connectedAt").unwrap().parse().unwrap();
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(millis * 1_000_000).unwrap();
    let form = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let told = scene.gateway.get(event.connection_id()).await.json();
    assert_eq!(told["connectedAt"], json!(at.format(form).unwrap()));
    assert_eq!(told["identity"], json!({"sourceIp": "127.0.0.1", "userAgent": "Mine/1.0 (\"a\")"}));
    named.ping().await;
    named.close(1000, "").await;
    scene.client.ping().await;
    scene.end().await;
}

async fn last_active(scene: &Scene) -> String {
    scene.gateway.get(&scene.id).await.json()["lastActiveAt"].as_str().unwrap().to_owned()
}

// checklist: 188, 189
#[tokio::test]
async fn last_active_moves_with_messages_both_ways_and_not_with_pings() {
    let mut scene = Scene::new().await;
    let mut before = last_active(&scene).await;
    scene.client.stay_silent_for(ABSENCE).await;
    scene.client.ping().await;
    assert_eq!(last_active(&scene).await, before, "neither time nor a ping moves it");
    scene.client.send_text(r#"{"action":"note"}"#).await;
    scene.client.ping().await;
    let after_message = last_active(&scene).await;
    assert!(after_message > before, "{after_message} after {before}");
    before = after_message;
    scene.client.stay_silent_for(ABSENCE).await;
    assert_eq!(scene.gateway.post(&scene.id, "x").await.status, 200);
    let after_post = last_active(&scene).await;
    assert!(after_post > before, "{after_post} after {before}");
    scene.client.next_text().await;
    scene.end().await;
}

// checklist: 192, 193, 213
#[tokio::test]
async fn a_delete_closes_and_everything_after_it_is_gone() {
    let scene = Scene::new().await;
    let answer = scene.gateway.delete(&scene.id).await;
    assert_eq!((answer.status, answer.text()), (204, ""));
    assert_eq!((answer.header("Content-Type"), answer.header("Content-Length")), (None, None));
    assert_marked(&answer);
    for answer in [
        scene.gateway.delete(&scene.id).await,
        scene.gateway.post(&scene.id, "x").await,
        scene.gateway.get(&scene.id).await,
    ] {
        assert_eq!((answer.status, answer.text()), (410, ""));
        assert_eq!(
            (answer.header("x-amzn-ErrorType"), answer.header("Content-Length")),
            (Some("GoneException"), Some("0"))
        );
        assert_marked(&answer);
    }
    assert_eq!(scene.client.expect_close().await, (Some(1000), "Connection Closed Normally".into()));
    scene.gateway.finish().await;
}

// checklist: 193
#[tokio::test]
async fn a_connection_that_closed_is_gone() {
    let scene = Scene::new().await;
    scene.client.close(1000, "").await;
    for answer in [
        scene.gateway.post(&scene.id, "x").await,
        scene.gateway.get(&scene.id).await,
        scene.gateway.delete(&scene.id).await,
    ] {
        assert_eq!((answer.status, answer.text(), answer.header("x-amzn-ErrorType")), (410, "", Some("GoneException")));
    }
    scene.gateway.finish().await;
}

// checklist: 194, 195
#[tokio::test]
async fn an_id_that_never_was_is_gone_and_one_that_cannot_be_is_a_bad_request() {
    let scene = Scene::new().await;
    // One bit beside a live one, too.
    let mut near = scene.id.clone().into_bytes();
    near[3] = if near[3] == b'A' { b'B' } else { b'A' };
    for id in ["L0SM9cOFvHcCIhw=", "AAAAAAAAAAAAAAA=", "_______________=", std::str::from_utf8(&near).unwrap()] {
        let answer = scene.gateway.post(id, "x").await;
        assert_eq!((answer.status, answer.header("x-amzn-ErrorType")), (410, Some("GoneException")), "{id}");
    }
    for id in ["WDGT8fY4joECJrQ=test", "cjy8i76bx002884le6n17d49b", "x", "L0SM9cOFvHcCIhw", "L0SM9cO%2BvHcCIhw="] {
        for answer in [scene.gateway.post(id, "x").await, scene.gateway.get(id).await, scene.gateway.delete(id).await] {
            assert_eq!((answer.status, answer.header("x-amzn-ErrorType")), (400, Some("BadRequestException")), "{id}");
            let message = format!(r#"{{"message":"Invalid connectionId: {}"}}"#, id.replace("%2B", "+"));
            assert_eq!(answer.text(), message);
            assert_marked(&answer);
        }
    }
    scene.end().await;
}

// checklist: 196
#[tokio::test]
async fn paths_may_be_percent_encoded() {
    let mut scene = Scene::new().await;
    let encoded = scene.id.replace('=', "%3D");
    assert!(encoded.ends_with("%3D"));
    for word in ["@connections", "%40connections"] {
        for id in [&scene.id, &encoded, &encoded.replace("%3D", "%3d")] {
            let answer = scene.gateway.call("POST", &format!("/dev/{word}/{id}"), &[], word.as_bytes()).await;
            assert_eq!(answer.status, 200, "{word} {id}");
            assert_eq!(scene.client.next_text().await, word);
        }
    }
    scene.end().await;
}

// checklist: 197, 199
#[tokio::test]
async fn every_stage_of_the_api_reaches_the_connection_and_no_other_does() {
    let mut scene = Scene::new().await;
    let through =
        async |stage: &str| scene.gateway.call("POST", &format!("{stage}/@connections/{}", scene.id), &[], b"x").await;
    assert_eq!(through("/prod").await.status, 200);
    for stage in ["/test", "", "/dev/x", "/DEV"] {
        let answer = through(stage).await;
        assert_eq!((answer.status, answer.text()), (403, r#"{"message":"Forbidden"}"#), "{stage}");
        assert_eq!(answer.header("x-amzn-ErrorType"), Some("ForbiddenException"), "{stage}");
        assert_marked(&answer);
    }
    assert_eq!(scene.client.next_text().await, "x");
    scene.end().await;
}

// checklist: 198
#[tokio::test]
async fn a_connection_of_another_api_is_gone() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder().routes_yaml(API).routes_file("chat.yaml").backend(&backend).start().await;
    let mut client = gateway.client("/dev").host("push.localhost").open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    let through = async |host: &str| {
        gateway.call("POST", &format!("/dev/@connections/{id}"), &[("Host", host)], b"x").await.status
    };
    assert_eq!((through("chat.localhost").await, through("push.localhost").await), (410, 200));
    assert_eq!(client.next_text().await, "x");
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn other_methods_and_deeper_paths_are_forbidden() {
    let scene = Scene::new().await;
    for (method, path) in [
        ("PUT", format!("/dev/@connections/{}", scene.id)),
        ("PATCH", format!("/dev/@connections/{}", scene.id)),
        ("POST", format!("/dev/@connections/{}/x", scene.id)),
        ("GET", "/dev/@connections".to_owned()),
        ("POST", "/dev/@other".to_owned()),
    ] {
        let answer = scene.gateway.call(method, &path, &[], b"").await;
        assert_eq!((answer.status, answer.text()), (403, r#"{"message":"Forbidden"}"#), "{method} {path}");
    }
    scene.end().await;
}

// checklist: 207
#[tokio::test]
async fn a_post_of_131072_bytes_fits_and_one_more_does_not() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.gateway.post(&scene.id, "x".repeat(131_072)).await.status, 200);
    assert_eq!(scene.client.next_text().await.len(), 131_072);
    let answer = scene.gateway.post(&scene.id, "x".repeat(131_073)).await;
    assert_eq!((answer.status, answer.text()), (413, r#"{"message":"Message too long"}"#));
    assert_eq!(answer.header("x-amzn-ErrorType"), Some("PayloadTooLargeException"));
    assert_marked(&answer);
    scene.client.expect_silence().await;
    scene.end().await;
}

// checklist: 208
#[tokio::test]
async fn the_content_type_does_not_matter() {
    let mut scene = Scene::new().await;
    let path = format!("/dev/@connections/{}", scene.id);
    for kind in ["application/json", "text/plain; charset=utf-8", "application/octet-stream", "image/png", "x"] {
        let answer = scene.gateway.call("POST", &path, &[("Content-Type", kind)], "ä{".as_bytes()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(scene.client.next_text().await, "ä{", "{kind}");
    }
    scene.end().await;
}

// checklist: 209, 210
#[tokio::test]
async fn bytes_that_are_no_text_and_no_bytes_at_all_arrive_as_text() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.gateway.post(&scene.id, [0xff, 0xfe]).await.status, 200);
    assert_eq!(scene.client.next_text().await, "\u{fffd}\u{fffd}");
    assert_eq!(scene.gateway.post(&scene.id, "").await.status, 200);
    assert_eq!(scene.client.next_text().await, "");
    scene.end().await;
}

/// Says these bytes as a request, and reads one answer.
async fn say(gateway: &TestGateway, bytes: &[u8]) -> HttpAnswer {
    let mut wire = gateway.client("/").dial().await;
    wire.send(bytes).await;
    read_answer(&mut wire).await.expect("an answer")
}

#[tokio::test]
async fn callbacks_come_chunked_expecting_and_one_after_the_other() {
    let mut scene = Scene::new().await;
    let head = format!("POST /dev/@connections/{} HTTP/1.1\r\nHost: localhost\r\n", scene.id);
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(say(&scene.gateway, chunked.as_bytes()).await.status, 200);
    assert_eq!(scene.client.next_text().await, "abcde");
    let mut wire = scene.gateway.client("/").dial().await;
    let pipelined: String = (0..20).map(|n| format!("{head}Content-Length: 2\r\n\r\n{n:02}")).collect();
    wire.send(pipelined.as_bytes()).await;
    for n in 0..20 {
        assert_eq!(read_answer(&mut wire).await.expect("an answer").status, 200);
        assert_eq!(scene.client.next_text().await, format!("{n:02}"));
    }
    // The same connection serves a plain request, a refusal and callbacks in turn.
    wire.send(format!("{head}Content-Length: 200000\r\n\r\n{}", "x".repeat(200_000)).as_bytes()).await;
    assert_eq!(read_answer(&mut wire).await.expect("an answer").status, 413);
    wire.send(format!("{head}Content-Length: 2\r\nConnection: close\r\n\r\nok").as_bytes()).await;
    assert_eq!(read_answer(&mut wire).await.expect("an answer").status, 200);
    assert_eq!(scene.client.next_text().await, "ok");
    assert!(!wire.read_more().await, "closed as asked");
    drop(wire);
    scene.end().await;
}

#[tokio::test]
async fn contradictory_lengths_smuggle_nothing() {
    let mut scene = Scene::with(|settings| settings.handshake_timeout = std::time::Duration::from_millis(200)).await;
    let target = format!("/dev/@connections/{}", scene.id);
    let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n");
    for lengths in [
        "Content-Length: 3\r\nContent-Length: 60\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
    ] {
        let answer = say(&scene.gateway, format!("{head}{lengths}\r\nabcdef").as_bytes()).await;
        assert!((400..500).contains(&answer.status), "{lengths}: {answer:?}");
    }
    scene.client.expect_silence().await;
    scene.end().await;
}

#[tokio::test]
async fn a_web_page_must_not_push() {
    let backend = Backend::start().await;
    let allowing = format!("{API}callbackOrigins: ['https://ours.example.com']\n");
    let gateway = TestGateway::builder().routes_yaml(&allowing).backend(&backend).start().await;
    let mut client = gateway.client("/dev").open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    let from = async |origin: &str| {
        gateway.call("POST", &format!("/dev/@connections/{id}"), &[("Origin", origin)], b"x").await.status
    };
    assert_eq!((from("https://evil.example.com").await, from("null").await), (403, 403));
    client.expect_silence().await;
    assert_eq!(from("https://ours.example.com").await, 200);
    assert_eq!(client.next_text().await, "x");
    // Nor may a page whose name was bound to this machine.
    let rebound = gateway.call("POST", &format!("/dev/@connections/{id}"), &[("Host", "evil.example.com")], b"x").await;
    assert_eq!(rebound.status, 403);
    client.expect_silence().await;
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn in_production_callbacks_need_the_token() {
    let backend = Backend::start().await;
    let gateway = TestGateway::builder().routes_yaml(API).backend(&backend).in_production("s3cret").start().await;
    let mut client = gateway.client("/dev").host("anything.example.com").open().await;
    let id = backend.request("/connect").await.connection_id().to_owned();
    let with = async |authorization: Option<&str>| {
        let headers: Vec<(&str, &str)> = authorization.map(|value| ("Authorization", value)).into_iter().collect();
        gateway.call("POST", &format!("/dev/@connections/{id}"), &headers, b"x").await
    };
    let unsigned = with(None).await;
    assert_eq!((unsigned.status, unsigned.text()), (403, r#"{"message":"Missing Authentication Token"}"#));
    assert_eq!(unsigned.header("x-amzn-ErrorType"), Some("MissingAuthenticationTokenException"));
    for wrong in ["Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret"] {
        assert_eq!(with(Some(wrong)).await.status, 403, "{wrong}");
    }
    client.expect_silence().await;
    assert_eq!((with(Some("Bearer s3cret")).await.status, with(Some("bearer s3cret")).await.status), (200, 200));
    assert_eq!((client.next_text().await, client.next_text().await), ("x".into(), "x".into()));
    client.close(1000, "").await;
    gateway.finish().await;
}

#[tokio::test]
async fn groups_are_kept_and_sent_to_by_back_ends() {
    let mut scene = Scene::new().await;
    let mut other = scene.gateway.client("/prod").open().await;
    let other_id = scene.backend.request("/connect").await.connection_id().to_owned();
    let call =
        async |method: &str, path: String, body: &str| scene.gateway.call(method, &path, &[], body.as_bytes()).await;
    for id in [&scene.id, &other_id] {
        assert_eq!(call("PUT", format!("/dev/@groups/red%20team/{id}"), "").await.status, 204);
        assert_eq!(call("PUT", format!("/dev/@groups/red%20team/{id}"), "").await.status, 204, "twice is once");
    }
    let members = call("GET", "/prod/@groups/red%20team".to_owned(), "").await.json();
    let mut ids: Vec<&str> =
        members["connectionIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let mut expected = [scene.id.as_str(), other_id.as_str()];
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    let sent = call("POST", "/dev/@groups/red%20team".to_owned(), "to the team").await;
    assert_eq!((sent.status, sent.json()), (200, json!({"delivered": 2, "dropped": 0, "gone": 0})));
    assert_eq!(scene.client.next_text().await, "to the team");
    assert_eq!(other.next_text().await, "to the team");
    assert_eq!(call("DELETE", format!("/dev/@groups/red%20team/{other_id}"), "").await.status, 204);
    let sent = call("POST", "/dev/@groups/red%20team".to_owned(), "again").await;
    assert_eq!(sent.json()["delivered"], 1);
    assert_eq!(scene.client.next_text().await, "again");
    let everybody = call("POST", "/dev/@all".to_owned(), "to all").await;
    assert_eq!(everybody.json(), json!({"delivered": 2, "dropped": 0, "gone": 0}));
    assert_eq!((scene.client.next_text().await, other.next_text().await), ("to all".into(), "to all".into()));
    let nobody = call("POST", "/dev/@groups/none".to_owned(), "x").await;
    assert_eq!(nobody.json(), json!({"delivered": 0, "dropped": 0, "gone": 0}));
    let long = call("POST", format!("/dev/@groups/{}", "x".repeat(257)), "x").await;
    assert_eq!(long.status, 400);
    let gone = call("PUT", "/dev/@groups/red/L0SM9cOFvHcCIhw=".to_owned(), "").await;
    assert_eq!(gone.status, 410);
    other.close(1000, "").await;
    scene.end().await;
}
