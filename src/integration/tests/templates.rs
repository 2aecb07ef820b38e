//! Request templates, passthrough, content handling.

use super::*;

// checklist: 163, 298, 300
#[tokio::test]
async fn the_default_template_is_rendered_and_sent_as_json() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(false, backend.url("/"));
    let text = r#"{"c":"$context.connectionId","r":"$context.routeKey","m":"$context.messageId","t":$context.requestTimeEpoch,"j":$input.json('$.a'),"p":"$input.path('$.a.b')","b":$input.body,"s":"$stageVariables.env"}"#;
    http.request = mapping(&[("$default", text)]);
    world.send(&http, &world.message(), r#"{"a": {"b": "x"}}"#).await.unwrap();
    let sent = backend.request();
    assert_eq!(header(&sent, "Content-Type"), Some("application/json"));
    assert_eq!(
        body(&sent),
        r#"{"c":"L0SM9cOFvHcCIhw=","r":"send","m":"L0SPDfT5PHcCIhw=","t":1650301661112,"j":{"b":"x"},"p":"x","b":{"a": {"b": "x"}},"s":"production"}"#
    );
}

#[tokio::test]
async fn on_connect_and_disconnect_the_input_is_empty_and_an_object() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(false, backend.url("/"));
    http.request = mapping(&[("$default", r"[$input.body]$input.json('$') $context.eventType")]);
    world.send(&http, &world.connect(), "ignored").await.unwrap();
    world.send(&http, &world.disconnect(), "ignored").await.unwrap();
    let [connect, disconnect] = backend.requests().try_into().unwrap();
    assert_eq!((body(&connect), body(&disconnect)), ("[]{} CONNECT", "[]{} DISCONNECT"));
}

// checklist: 164
#[tokio::test]
async fn the_selected_template_wins_over_the_default() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(false, backend.url("/"));
    http.request = mapping(&[("$default", "default"), ("a", "the a"), ("application/json", "json")]);
    http.request.selection = Some(Selection::parse("$request.body.kind").unwrap());
    for payload in [r#"{"kind":"a"}"#, r#"{"kind":"b"}"#, "not json"] {
        world.send(&http, &world.message(), payload).await.unwrap();
    }
    let bodies: Vec<String> = backend.requests().iter().map(|sent| body(sent).to_owned()).collect();
    assert_eq!(bodies, ["the a", "default", "default"]);
}

#[tokio::test]
async fn without_a_selection_the_json_template_follows_the_default() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(false, backend.url("/"));
    http.request = mapping(&[("application/json", "json")]);
    world.send(&http, &world.message(), "x").await.unwrap();
    assert_eq!(body(&backend.request()), "json");
}

// checklist: 166, 167
#[tokio::test]
async fn without_a_matching_template_the_passthrough_behaviour_decides() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let some = || mapping(&[("other", "never")]);
    let none = || mapping(&[]);
    for (behaviour, request, passes) in [
        (Passthrough::WhenNoMatch, some(), true),
        (Passthrough::WhenNoMatch, none(), true),
        (Passthrough::WhenNoTemplates, some(), false),
        (Passthrough::WhenNoTemplates, none(), true),
        (Passthrough::Never, some(), false),
        (Passthrough::Never, none(), false),
    ] {
        let before = backend.requests().len();
        let mut http = http(false, backend.url("/"));
        http.request = RequestMapping { passthrough: behaviour, ..request };
        match world.send(&http, &world.message(), "as it is").await {
            Ok(_) => {
                assert!(passes, "{behaviour:?}");
                assert_eq!(body(backend.requests().last().unwrap()), "as it is");
            }
            Err(error) => {
                assert!(!passes && matches!(error, InvokeError::UnsupportedMediaType), "{behaviour:?}: {error}");
                assert_eq!(backend.requests().len(), before, "nothing is called");
            }
        }
    }
}

// checklist: 169
#[tokio::test]
async fn convert_to_binary_sends_what_the_base64_stands_for() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(false, backend.url("/"));
    http.request.content_handling = ContentHandling::ToBinary;
    world.send(&http, &world.message(), "aGVsbG8=").await.unwrap();
    assert_eq!(body(&backend.request()), "hello");
    let error = world.send(&http, &world.message(), "not base64!").await.unwrap_err();
    assert!(matches!(error, InvokeError::Base64), "{error:?}");
}

#[tokio::test]
async fn convert_to_text_sends_a_binary_message_as_base64() {
    let world = World::new();
    let backend = world.backend(|_| ok("")).await;
    let mut http = http(false, backend.url("/"));
    http.request.content_handling = ContentHandling::ToText;
    let binary = Message::binary(Bytes::from_static(&[0xff, 0xfe]));
    world.integrations.http(&http, &world.message(), &binary).await.unwrap();
    assert_eq!(body(&backend.request()), "//4=");
}
