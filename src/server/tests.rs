//! Requests that try to be two things at once, against real listeners.

use std::io::Write as _;
use std::path::PathBuf;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::certificates::Certificates;
use super::*;
use crate::auth::{Iam, iam};
use crate::clock::{Clock, EpochMillis};
use crate::definition;
use crate::fault::CloseReason;
use crate::gateway::Parts;
use crate::integration::Integrations;
use crate::session::{self, Hub};
use crate::telemetry::{AccessLog, Format, Metrics};
use crate::upstream;

const PATIENCE: Duration = Duration::from_secs(20);
const API: &str = "
apiId: a
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev: {}
routes:
  join:
    integration: { integrationType: GROUP, groupAction: join, groupName: $request.body.group }
";

fn config() -> Config {
    Config {
        handshake_timeout: Duration::from_secs(10),
        keep_alive: Duration::from_secs(60),
        max_header_bytes: 16_384,
        max_connections: 100,
        reserved_files: 16,
        max_files: 1_024,
        access: CallbackAccess { is_open_on_loopback: true, token: None },
        loopback_names_only: true,
        proxies: Proxies::default(),
    }
}

fn gateway(tasks: &Tasks) -> Arc<Gateway> {
    let hub = Hub::start(session::Config { shards: 1, budget_bytes: 1 << 20 }, EpochMillis(1), tasks).unwrap();
    let http = Arc::new(upstream::Http::new(&upstream::Config::default(), tasks.clone()).unwrap());
    let config = upstream::LambdaConfig::default();
    let functions = upstream::Lambda::new(&config, Arc::clone(&http), Clock::system(), tasks.clone());
    let gateway = Gateway::new(Parts {
        hub: Arc::new(hub),
        node: None,
        farewell: CloseReason::Draining,
        integrations: Integrations::new(http, functions),
        iam: Iam::new(iam::Config::default()),
        metrics: Arc::new(Metrics::new()),
        access_log: AccessLog::off(),
        log_format: Arc::new(Format::default()),
        tasks: tasks.clone(),
        clock: Clock::system(),
        max_sessions: 100,
        max_sessions_per_address: 100,
    });
    gateway.deploy(definition::load_texts([("a.yaml", API)], &|_| None).unwrap_or_else(|e| panic!("{e}")));
    gateway
}

fn listen(config: Config, certificates: Option<Arc<Certificates>>) -> SocketAddr {
    let tasks = Tasks::new();
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), certificates).unwrap();
    let address = listener.local_addr();
    tasks.spawn("listener", listener.serve(gateway(&tasks), config, tasks.clone()));
    address
}

/// What comes back until the end of the connection.
async fn say(to: SocketAddr, request: &[u8]) -> String {
    let talk = async {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let _reset_behind_the_answer = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap()
}

fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.1 ").skip(1).filter_map(|part| part.get(..3)).collect()
}

const GONE: &str = "/a/dev/@connections/AAAAAAAAAAAAAAA=";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_doubtful_length_is_never_a_request() {
    let address = listen(config(), None);
    let hidden = format!("DELETE {GONE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let length = hidden.len();
    for method in ["GET", "DELETE", "POST", "PUT"] {
        for lengths in [
            format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
            format!("Content-Length: +{length}\r\n"),
            format!("Content-Length: 0, {length}\r\n"),
            "Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n".to_owned(),
        ] {
            let request = format!("{method} {GONE} HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n{hidden}");
            let answer = say(address, request.as_bytes()).await;
            assert_eq!(statuses(&answer), ["400"], "{method} {lengths}{answer}");
        }
    }
    // Two sound ones are two.
    let first = format!("GET {GONE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nxx");
    let answer = say(address, format!("{first}{hidden}").as_bytes()).await;
    assert_eq!(statuses(&answer), ["410", "410"], "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_one_host() {
    let address = listen(config(), None);
    let request = format!("GET {GONE} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n");
    assert_eq!(statuses(&say(address, request.as_bytes()).await), ["400"]);
    let request = format!("GET {GONE} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(statuses(&say(address, request.as_bytes()).await), ["403"]);
    // The host of a whole URL counts, wherever the request goes.
    let close = "Connection: close\r\n\r\n";
    let request = format!("GET http://localhost{GONE} HTTP/1.1\r\nHost: localhost\r\n{close}");
    assert_eq!(statuses(&say(address, request.as_bytes()).await), ["410"]);
    let request = format!("GET http://evil.example{GONE} HTTP/1.1\r\nHost: localhost\r\n{close}");
    assert_eq!(statuses(&say(address, request.as_bytes()).await), ["403"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_is_refused_on_every_path() {
    let address = listen(config(), None);
    for origin in [&b"https://evil.example"[..], b"null", b"\xff\xfe"] {
        for framing in ["Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
            let start = format!("POST {GONE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: ");
            let request = [start.as_bytes(), origin, b"\r\n", framing.as_bytes()].concat();
            let answer = say(address, &request).await;
            assert_eq!(statuses(&answer), ["403"], "{framing}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_says_so() {
    let address = listen(Config { max_connections: 0, ..config() }, None);
    let answer = say(address, b"").await;
    assert_eq!(statuses(&answer), ["503"], "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_agreed_on_http_2_and_says_nothing_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = |name: &str, text: String| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path
    };
    let (cert, key) = (file("cert.pem", made.cert.pem()), file("key.pem", made.signing_key.serialize_pem()));
    let certificates = Arc::new(Certificates::load(&cert, &key).unwrap());
    // Long enough for the TLS handshake of a busy machine.
    let address = listen(Config { handshake_timeout: Duration::from_secs(3), ..config() }, Some(certificates));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(end.is_ok(), "it is still connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_the_operators_pages_are_not_for_web_pages() {
    let tasks = Tasks::new();
    let gateway = gateway(&tasks);
    for token in [None, Some("secret")] {
        let admin = Admin::bind(SocketAddr::from((IpAddr::from([127, 0, 0, 1]), 0))).await.unwrap();
        let address = admin.local_addr();
        tasks.spawn("admin", admin.serve(Arc::clone(&gateway), token.map(Into::into), tasks.clone()));
        let ask = async |headers: &str| {
            let request = format!("GET /connections HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
            let answer = say(address, request.as_bytes()).await;
            statuses(&answer).concat()
        };
        let with_token = "Authorization: Bearer secret\r\nHost: ops.example\r\n";
        let expected =
            if token.is_some() { ["401", "401", "401", "401", "200"] } else { ["200", "200", "403", "403", "403"] };
        let asked = [
            ask("Host: localhost:8081\r\n").await,
            ask(&format!("Host: {address}\r\n")).await,
            ask("Host: rebound.example\r\n").await,
            ask("Host: localhost\r\nOrigin: https://evil.example\r\n").await,
            ask(with_token).await,
        ];
        assert_eq!(asked, expected);
    }
}
