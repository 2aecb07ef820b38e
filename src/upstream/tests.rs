//! The client against raw sockets: every way a call can fail, and what goes over the wire.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::backend::{Backend, Reply, answer, headers, ok};
use super::{Blame, Bound, Config, Http, Retry, UpstreamError, spelling};
use crate::tasks::Tasks;

const PATIENCE: Duration = Duration::from_secs(20);

fn client(config: &Config) -> (Http, Tasks) {
    let tasks = Tasks::new();
    (Http::new(config, tasks.clone()).unwrap(), tasks)
}

fn post(uri: &str, body: &'static str) -> Request<Bytes> {
    Request::post(uri).body(Bytes::from_static(body.as_bytes())).unwrap()
}

async fn call(client: &Http, request: Request<Bytes>) -> Result<Response<Bytes>, UpstreamError> {
    client.call(request, Instant::now() + PATIENCE).await
}

#[tokio::test]
async fn an_answer_comes_whole_and_the_connection_is_used_again() {
    let (client, tasks) = client(&Config::default());
    let backend = Backend::start(&tasks, |_| answer("201 Created", "X-A: b\r\n", "made")).await;
    for _ in 0..3 {
        let answer = call(&client, post(&backend.url("/x?y=1"), "hello")).await.unwrap();
        assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::CREATED, &b"made"[..]));
        assert_eq!(answer.headers()["x-a"], "b");
    }
    assert_eq!(backend.connections(), 1);
    assert!(backend.requests()[0].starts_with("POST /x?y=1 HTTP/1.1\r\n"), "{}", backend.requests()[0]);
    assert!(backend.requests()[0].ends_with("\r\n\r\nhello"));
}

#[tokio::test]
async fn a_closed_port_is_unreachable_and_may_be_tried_again() {
    let (client, _tasks) = client(&Config::default());
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = call(&client, post(&format!("http://{free}/"), "")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
    assert_eq!((error.blame(), error.retry()), (Blame::Upstream, Retry::Safe));
}

#[tokio::test]
async fn a_silent_upstream_is_a_timeout_and_its_connection_is_not_reused() {
    let (client, tasks) = client(&Config::default());
    let silent = |request: &str| if request.contains("/slow") { Reply::Silence } else { ok("fast") };
    let backend = Backend::start(&tasks, silent).await;
    let slow = client.call(post(&backend.url("/slow"), ""), Instant::now() + Duration::from_millis(50)).await;
    assert!(matches!(slow, Err(UpstreamError::Timeout)), "{slow:?}");
    assert_eq!(call(&client, post(&backend.url("/fast"), "")).await.unwrap().body(), "fast");
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn the_deadline_covers_the_body_too() {
    let (client, tasks) = client(&Config::default());
    let stalls = |_: &str| Reply::Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec());
    let backend = Backend::start(&tasks, stalls).await;
    let answer = client.call(post(&backend.url("/"), ""), Instant::now() + Duration::from_millis(100)).await;
    assert!(matches!(answer, Err(UpstreamError::Timeout)), "{answer:?}");
}

#[tokio::test]
async fn garbage_is_a_bad_response() {
    let (client, tasks) = client(&Config::default());
    for garbage in ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        let backend = Backend::start(&tasks, move |_| Reply::Close(garbage.as_bytes().to_vec())).await;
        let error = call(&client, post(&backend.url("/"), "")).await.unwrap_err();
        assert!(matches!(error, UpstreamError::BadResponse(_)), "{garbage:?}: {error:?}");
        assert_eq!(backend.requests().len(), 1, "a request that was sent is not sent again");
    }
}

#[tokio::test]
async fn a_bad_chunk_and_a_head_without_end_are_bad_responses() {
    let (client, tasks) = client(&Config::default());
    let chunk = |_: &str| Reply::Close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec());
    let endless = |_: &str| Reply::Close(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20)).into_bytes());
    let many = |_: &str| Reply::Close(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(1_000)).into_bytes());
    for backend in
        [Backend::start(&tasks, chunk).await, Backend::start(&tasks, endless).await, Backend::start(&tasks, many).await]
    {
        let error = call(&client, post(&backend.url("/"), "")).await.unwrap_err();
        assert!(matches!(error, UpstreamError::BadResponse(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_closes_midway_interrupts() {
    let (client, tasks) = client(&Config::default());
    for part in ["", "HTTP/1.1 200 OK\r\nConte", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"] {
        let backend = Backend::start(&tasks, move |_| Reply::Close(part.as_bytes().to_vec())).await;
        let error = call(&client, post(&backend.url("/"), "")).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Interrupted(_)), "{part:?}: {error:?}");
        assert_eq!(error.retry(), Retry::Unsure);
        assert_eq!(backend.requests().len(), 1, "a request that was sent is not sent again");
    }
}

#[tokio::test]
async fn ten_megabytes_come_whole_and_one_byte_over_the_limit_is_too_large() {
    let (client, tasks) = client(&Config { max_response_bytes: 10 << 20, ..Config::default() });
    let sized = |request: &str| {
        let over = request.contains("/over");
        let body = vec![b'x'; (10 << 20) + usize::from(over)];
        if request.contains("/length") {
            return answer("200 OK", "", body);
        }
        let mut bytes =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        Reply::Keep(bytes)
    };
    let backend = Backend::start(&tasks, sized).await;
    for path in ["/length", "/chunked"] {
        assert_eq!(call(&client, post(&backend.url(path), "")).await.unwrap().body().len(), 10 << 20);
    }
    for path in ["/length/over", "/chunked/over"] {
        let error = call(&client, post(&backend.url(path), "")).await.unwrap_err();
        assert!(matches!(error, UpstreamError::TooLarge { limit: 10_485_760 }), "{error:?}");
    }
}

#[tokio::test]
async fn unfinished_answers_share_one_budget() {
    let (client, tasks) = client(&Config { max_buffered_bytes: 1 << 20, ..Config::default() });
    let backend = Backend::start(&tasks, |_| ok(vec![b'x'; 2 << 20])).await;
    let error = call(&client, post(&backend.url("/"), "")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Busy(Bound::Buffered)), "{error:?}");
    assert_eq!(client.buffered.load(std::sync::atomic::Ordering::Relaxed), 0, "and give it back");
}

// checklist: 162
#[tokio::test]
async fn a_redirect_is_an_answer() {
    let (client, tasks) = client(&Config::default());
    let backend = Backend::start(&tasks, |_| answer("302 Found", "Location: /elsewhere\r\n", "moved")).await;
    let answer = call(&client, post(&backend.url("/"), "")).await.unwrap();
    assert_eq!((answer.status(), &answer.body()[..]), (StatusCode::FOUND, &b"moved"[..]));
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn a_switch_of_protocols_is_a_bad_response() {
    let (client, tasks) = client(&Config::default());
    let switch = |_: &str| {
        Reply::Keep(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_vec())
    };
    let backend = Backend::start(&tasks, switch).await;
    assert!(matches!(call(&client, post(&backend.url("/"), "")).await, Err(UpstreamError::BadResponse(_))));
}

#[tokio::test]
async fn what_is_not_an_absolute_http_uri_is_not_called() {
    let (client, _tasks) = client(&Config::default());
    for uri in ["/path", "ftp://host/", "host:80", "http:///path"] {
        let Ok(uri) = uri.parse::<http::Uri>() else { continue };
        let error = call(&client, Request::post(uri).body(Bytes::new()).unwrap()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::InvalidUri), "{error:?}");
        assert_eq!(error.blame(), Blame::Definition);
    }
}

#[tokio::test]
async fn a_full_upstream_is_busy() {
    let config = Config { max_in_flight: 1, max_waiting: 0, ..Config::default() };
    let (client, tasks) = client(&config);
    let backend = Backend::start(&tasks, |_| Reply::Silence).await;
    let url = backend.url("/");
    let first = call(&client, post(&url, ""));
    tokio::pin!(first);
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let error = call(&client, post(&url, "")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Busy(Bound::InFlight)), "{error:?}");
    assert_eq!((error.blame(), error.retry()), (Blame::Node, Retry::Safe));
}

#[tokio::test]
async fn closing_lets_calls_finish_and_leaves_no_task() {
    let backend_tasks = Tasks::new();
    let (client, tasks) = client(&Config { idle_timeout: Duration::from_secs(3_600), ..Config::default() });
    let backend = Backend::start(&backend_tasks, |_| ok("done")).await;
    call(&client, post(&backend.url("/"), "")).await.unwrap();
    let url = backend.url("/");
    let running = call(&client, post(&url, ""));
    tokio::pin!(running);
    assert!(futures_util::poll!(running.as_mut()).is_pending());
    client.close();
    assert!(matches!(call(&client, post(&backend.url("/"), "")).await, Err(UpstreamError::Closed)));
    assert_eq!(running.await.unwrap().body(), "done");
    assert_eq!(tasks.drain(PATIENCE).await, 0);
}

#[tokio::test]
async fn header_names_go_out_as_spelled_and_otherwise_in_title_case() {
    let (client, tasks) = client(&Config::default());
    let backend = Backend::start(&tasks, |_| ok("")).await;
    let mut request = post(&backend.url("/"), "");
    for name in ["x-amzn-apigateway-api-id", "connectionid", "x-twice", "x-twice", "user-agent"] {
        request.headers_mut().append(name, "v".parse().unwrap());
    }
    *request.extensions_mut() = spelling(["x-amzn-apigateway-api-id", "connectionId", "X-TWICE", "not a name"]);
    call(&client, request).await.unwrap();
    let sent = backend.request();
    for name in ["x-amzn-apigateway-api-id", "connectionId", "User-Agent"] {
        assert_eq!(headers(&sent, name).count(), 1, "{name} in {sent}");
    }
    assert_eq!((headers(&sent, "X-TWICE").count(), headers(&sent, "X-Twice").count()), (1, 1), "{sent}");
}

#[test]
fn a_spelling_of_anything_is_safe() {
    let long = "x".repeat(70_000);
    let many: Vec<String> = (0..200).map(|n| format!("X-{n}")).collect();
    assert!(spelling([long.as_str(), "a\r\nb: c", "", "Content-Length", "transfer-encoding"]).len() <= 1);
    assert_eq!(spelling(many.iter().map(String::as_str)).len(), 1);
}

// --- TLS ---

/// A server that speaks what TLS negotiates, and answers with the version it spoke.
async fn tls_server(tasks: &Tasks, protocols: &[&str]) -> (u16, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let inner = tasks.clone();
    tasks.spawn("test-tls", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            inner.spawn("test-tls-connection", async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let _client_may_go = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(version))
                    .await;
            });
        }
    });
    (port, file)
}

async fn version(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let version = request.version();
    let body = request.into_body().collect().await.map(|body| body.to_bytes().len()).unwrap_or_default();
    Ok(Response::new(Full::from(format!("{version:?} {body}"))))
}

#[tokio::test]
async fn tls_speaks_http_2_where_negotiated_and_trusts_the_extra_authorities() {
    for (protocols, spoken) in [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"], Version::HTTP_11)] {
        let tasks = Tasks::new();
        let (port, authorities) = tls_server(&tasks, protocols).await;
        let config = Config { extra_ca_file: Some(authorities.path().to_owned()), ..Config::default() };
        let client = Http::new(&config, tasks.clone()).unwrap();
        let request = post(&format!("https://localhost:{port}/"), "12345");
        assert_eq!(call(&client, request).await.unwrap().body(), &format!("{spoken:?} 5"));
    }
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_a_tls_failure() {
    let (client, tasks) = client(&Config::default());
    let (port, _authorities) = tls_server(&tasks, &["h2"]).await;
    let error = call(&client, post(&format!("https://localhost:{port}/"), "")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Tls(_)), "{error:?}");
    assert_eq!(error.retry(), Retry::Safe);
}

#[tokio::test]
async fn connecting_has_a_timeout_of_its_own_that_covers_tls() {
    let (client, _tasks) = client(&Config { connect_timeout: Duration::from_millis(50), ..Config::default() });
    // It accepts, by its backlog, and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", mute.local_addr().unwrap().port());
    let error = call(&client, post(&url, "")).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn authorities_that_cannot_be_read_are_refused_at_start() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for path in [empty.path().to_owned(), "/nonexistent/ca.pem".into()] {
        let config = Config { extra_ca_file: Some(path.clone()), ..Config::default() };
        let error = Http::new(&config, Tasks::new()).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}
