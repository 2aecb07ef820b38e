//! Where credentials come from, one source at a time, and what many callers at once cost.

use std::io::Write as _;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::upstream::Config;
use crate::upstream::backend::{Backend, Reply, answer, header, ok};

const PATIENCE: Duration = Duration::from_secs(20);

fn chain_of(sources: Sources) -> (Arc<Chain>, Clock, Tasks) {
    let tasks = Tasks::new();
    // 2022-04-18T17:07:29.973Z
    let clock = Clock::fixed(EpochMillis(1_650_301_649_973));
    let http = Arc::new(Http::new(&Config::default(), tasks.clone()).unwrap());
    (Chain::new(sources, http, clock.clone(), tasks.clone()), clock, tasks)
}

async fn found(chain: &Arc<Chain>) -> Arc<Signer> {
    let found = chain.get(Instant::now() + PATIENCE).await;
    found.unwrap_or_else(|error| panic!("{}", error.map_or("too late".to_owned(), |error| error.to_string())))
}

async fn refused(chain: &Arc<Chain>) -> String {
    let refused = chain.get(Instant::now() + PATIENCE).await.expect_err("no credentials");
    super::super::chain(&**refused.as_ref().expect("an answer"))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn profile(name: Option<&str>, credentials: &tempfile::NamedTempFile, config: &tempfile::NamedTempFile) -> Sources {
    let path = |file: &tempfile::NamedTempFile| Some(file.path().to_owned());
    let profile =
        Profile { name: name.map(str::to_owned), credentials_file: path(credentials), config_file: path(config) };
    Sources { profile, ..Sources::default() }
}

fn key(name: &str) -> Credentials {
    Credentials { access_key: name.to_owned(), secret: Secret::new("s"), session_token: None }
}

const DOCUMENT: &str = r#"{"Code":"Success","AccessKeyId":"ASIA","SecretAccessKey":"s3cr3t","Token":"t0ken","Expiration":"2022-04-18T18:07:29Z"}"#;

#[tokio::test]
async fn the_environment_comes_first_and_the_region_from_the_profile_still() {
    let (credentials, config) =
        (file("[default]\naws_access_key_id=A\naws_secret_access_key=B\n"), file("[default]\nregion=eu-west-1\n"));
    let sources = Sources { environment: Some(key("ENV")), ..profile(None, &credentials, &config) };
    let (chain, ..) = chain_of(sources);
    let signer = found(&chain).await;
    assert_eq!((signer.credentials.access_key.as_str(), signer.region.as_deref()), ("ENV", Some("eu-west-1")));
}

#[tokio::test]
async fn a_profile_is_read_from_both_files_the_credentials_file_wins() {
    let credentials =
        file("[default]\naws_access_key_id=no\n[work]\naws_access_key_id = AKIA\naws_session_token = t\n");
    let config = file(
        "[profile work]\nregion = eu-west-1\naws_access_key_id = old\naws_secret_access_key = s\n[work]\nregion = no\n",
    );
    let (chain, ..) = chain_of(profile(Some("work"), &credentials, &config));
    let signer = found(&chain).await;
    assert_eq!((signer.credentials.access_key.as_str(), signer.region.as_deref()), ("AKIA", Some("eu-west-1")));
    assert_eq!(signer.credentials.session_token.as_ref().map(Secret::reveal), Some("t"));
}

#[tokio::test]
async fn a_file_is_read_again_after_a_minute_and_nobody_waits_for_it() {
    let credentials = file("[default]\naws_access_key_id=ONE\naws_secret_access_key=B\n");
    let config = file("");
    let (chain, clock, _tasks) = chain_of(profile(None, &credentials, &config));
    assert_eq!(found(&chain).await.credentials.access_key, "ONE");
    std::fs::write(credentials.path(), "[default]\naws_access_key_id=TWO\naws_secret_access_key=B\n").unwrap();
    assert_eq!(found(&chain).await.credentials.access_key, "ONE", "too soon");
    clock.advance(61_000);
    let mut changes = chain.latest.subscribe();
    assert_eq!(found(&chain).await.credentials.access_key, "ONE", "the old one, at once");
    tokio::time::timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    assert_eq!(found(&chain).await.credentials.access_key, "TWO");
}

#[tokio::test]
async fn what_is_wrong_with_a_profile_is_said() {
    for (name, credentials, config, expected) in [
        (Some("work"), "", "", "profile `work` is in none of the shared files"),
        (Some("work"), "", "[profile work]\nregion=x\n", "profile `work` has no access key"),
        (None, "[default]\naws_access_key_id=A\n", "", "profile `default` has `aws_access_key_id` without"),
        (
            None,
            "[default]\naws_secret_access_key=hunter2\n",
            "",
            "profile `default` has `aws_secret_access_key` without",
        ),
        (None, "", "[default]\ncredential_process = /bin/x\n", "profile `default` uses `credential_process`"),
        (Some("a"), "", "[profile a]\nrole_arn = arn\nsource_profile = b\n", "profile `a` uses `role_arn`"),
    ] {
        let (credentials, config) = (file(credentials), file(config));
        let (chain, ..) = chain_of(profile(name, &credentials, &config));
        let error = refused(&chain).await;
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
    let unreadable = Profile { credentials_file: Some("/dev".into()), ..Profile::default() };
    let (chain, ..) = chain_of(Sources { profile: unreadable, ..Sources::default() });
    assert!(refused(&chain).await.contains("/dev cannot be read"));
}

#[tokio::test]
async fn without_any_source_every_one_of_them_is_named() {
    let (chain, ..) = chain_of(Sources::default());
    let error = refused(&chain).await;
    for source in ["environment", "shared files", "container", "instance", "switched off"] {
        assert!(error.contains(source), "{error}");
    }
}

#[tokio::test]
async fn a_containers_endpoint_is_asked_with_its_token() {
    let tasks = Tasks::new();
    let backend = Backend::start(&tasks, |_| ok(DOCUMENT)).await;
    let token = file("from the file\n");
    let container = Container {
        url: backend.url("/v2/credentials/x?y=1"),
        token: Some(Secret::new("plain")),
        token_file: Some(token.path().to_owned()),
    };
    let (chain, ..) = chain_of(Sources { container: Some(container), ..Sources::default() });
    let signer = found(&chain).await;
    assert_eq!(signer.credentials.access_key, "ASIA");
    assert_eq!(signer.credentials.session_token.as_ref().map(Secret::reveal), Some("t0ken"));
    let request = backend.request();
    assert!(request.starts_with("GET /v2/credentials/x?y=1 HTTP/1.1\r\n"), "{request}");
    assert_eq!(header(&request, "Authorization"), Some("from the file"));
}

#[tokio::test]
async fn a_container_endpoint_that_gives_nothing_says_what_it_gave() {
    let tasks = Tasks::new();
    for (reply, expected) in [
        (r"{}", "has no key"),
        ("garbage", "not understood"),
        (r#"{"Code":"AccessDenied","AccessKeyId":"a","SecretAccessKey":"b"}"#, "it says `AccessDenied`"),
        (r#"{"AccessKeyId":"a","SecretAccessKey":"b","Expiration":"soon"}"#, "a time that is none"),
    ] {
        let backend = Backend::start(&tasks, move |_| ok(reply)).await;
        let container = Container { url: backend.url("/"), token: None, token_file: None };
        let (chain, ..) = chain_of(Sources { container: Some(container), ..Sources::default() });
        let error = refused(&chain).await;
        assert!(error.contains(expected), "{error}");
    }
    let container = Container { url: "http://elsewhere.example/".into(), token: None, token_file: None };
    let (chain, ..) = chain_of(Sources { container: Some(container), ..Sources::default() });
    assert!(refused(&chain).await.contains("neither https, loopback"));
}

/// A metadata service of version 2: nothing without the token it gave.
fn metadata(request: &str) -> Reply {
    if request.starts_with("PUT /latest/api/token ") {
        assert_eq!(header(request, "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"), Some("21600"));
        return ok("the-token");
    }
    if header(request, "X-Aws-Ec2-Metadata-Token") != Some("the-token") {
        return answer("401 Unauthorized", "", "");
    }
    match request.split(' ').nth(1) {
        Some("/latest/meta-data/iam/security-credentials/") => ok("my-role\n"),
        Some("/latest/meta-data/iam/security-credentials/my-role") => ok(DOCUMENT),
        _ => answer("404 Not Found", "", ""),
    }
}

#[tokio::test]
async fn an_instances_endpoint_is_asked_for_token_role_and_credentials() {
    let tasks = Tasks::new();
    let backend = Backend::start(&tasks, metadata).await;
    let (chain, ..) = chain_of(Sources { instance: Some(backend.url("")), ..Sources::default() });
    let signer = found(&chain).await;
    assert_eq!(signer.credentials.access_key, "ASIA");
    assert_eq!(signer.expires.map(EpochMillis::to_iso).as_deref(), Some("2022-04-18T18:07:29.000Z"));
    assert_eq!(backend.requests().len(), 3);
}

#[tokio::test]
async fn an_instance_without_a_role_and_one_that_is_none_say_so() {
    let tasks = Tasks::new();
    let without = |request: &str| {
        if request.starts_with("PUT") { ok("t") } else { answer("404 Not Found", "", "") }
    };
    let backend = Backend::start(&tasks, without).await;
    let (chain, ..) = chain_of(Sources { instance: Some(backend.url("")), ..Sources::default() });
    assert!(refused(&chain).await.contains("the instance's endpoint gives none: it answers 404"));
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (chain, ..) = chain_of(Sources { instance: Some(format!("http://{free}")), ..Sources::default() });
    let error = refused(&chain).await;
    assert!(error.contains("none found") && error.contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_storm_of_callers_is_one_search() {
    let tasks = Tasks::new();
    let backend = Backend::start(&tasks, |_| ok(DOCUMENT)).await;
    let container = Container { url: backend.url("/"), token: None, token_file: None };
    let (chain, clock, _tasks) = chain_of(Sources { container: Some(container), ..Sources::default() });
    let storm = || futures_util::future::join_all((0..100).map(|_| found(&chain)));
    assert_eq!((storm().await.len(), backend.requests().len()), (100, 1));
    // Four minutes before their end new ones are looked for, and the old ones still count.
    clock.advance(56 * 60_000);
    let mut changes = chain.latest.subscribe();
    storm().await;
    tokio::time::timeout(PATIENCE, changes.changed()).await.unwrap().unwrap();
    assert_eq!(backend.requests().len(), 2);
}

#[tokio::test]
async fn credentials_that_have_ended_are_never_used() {
    let tasks = Tasks::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let reply = move |_: &str| match count.fetch_add(1, Ordering::Relaxed) {
        0 => ok(DOCUMENT),
        _ => answer("500 Internal", "", ""),
    };
    let backend = Backend::start(&tasks, reply).await;
    let container = Container { url: backend.url("/"), token: None, token_file: None };
    let (chain, clock, _tasks) = chain_of(Sources { container: Some(container), ..Sources::default() });
    found(&chain).await;
    clock.advance(60 * 60_000 - 10_000);
    assert!(refused(&chain).await.contains("it answers 500"));
    let before = asked.load(Ordering::Relaxed);
    assert!(refused(&chain).await.contains("it answers 500"), "known for a moment");
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn one_with_little_patience_does_not_stop_the_search() {
    let tasks = Tasks::new();
    let slow = Backend::start(&tasks, |_| Reply::Silence).await;
    let container = Container { url: slow.url("/"), token: None, token_file: None };
    let (chain, ..) = chain_of(Sources { container: Some(container), ..Sources::default() });
    for _ in 0..2 {
        assert!(matches!(chain.get(Instant::now() + Duration::from_millis(20)).await, Err(None)));
        assert!(chain.searching.load(Ordering::Relaxed), "the search goes on");
    }
    assert!(slow.requests().len() <= 1, "and is the same one");
}

#[test]
fn nothing_secret_is_printed() {
    let credentials = Credentials {
        access_key: "AKIA".into(),
        secret: Secret::new("hunter2"),
        session_token: Some(Secret::new("hunter3")),
    };
    let container = Container { url: "u".into(), token: Some(Secret::new("hunter4")), token_file: None };
    let sources = Sources { environment: Some(credentials.clone()), container: Some(container), ..Sources::default() };
    let printed = format!("{sources:?} {:?}", Signer::new(credentials));
    assert!(!printed.contains("hunter"), "{printed}");
}
