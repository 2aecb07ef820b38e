//! A gateway as the command starts it, on free ports, with definitions in a folder of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use causeway::app::{App, StartError};
use causeway::config::{Mode, Options, Settings};
use causeway::session::Stats;
use tokio::net::TcpStream;

use super::client::Connect;
use super::http::{HttpAnswer, Wire, read_answer};
use super::{Backend, LOOK_AGAIN, PATIENCE, eventually, within};

/// What definitions write where the back-end's address belongs.
const BACKEND: &str = "http://backend";

/// Changes what a gateway is started with.
type Change = Box<dyn FnOnce(&mut Settings)>;

/// A gateway in the making.
#[must_use]
pub(crate) struct Builder {
    mode: Mode,
    files: Vec<(String, String)>,
    backend: Option<String>,
    tls: Option<(rcgen::CertifiedKey<rcgen::KeyPair>, Arc<rustls::ClientConfig>)>,
    options: Options,
    config: Option<String>,
    change: Vec<Change>,
}

/// A running gateway. A test ends with [`TestGateway::finish`], which asserts that nothing is left.
pub(crate) struct TestGateway {
    app: Option<App>,
    folder: tempfile::TempDir,
    tls: Option<Arc<rustls::ClientConfig>>,
    backend: Option<String>,
}

impl Builder {
    /// A definition file; `http://backend` in it becomes the back-end's address.
    pub(crate) fn routes_yaml(mut self, text: &str) -> Self {
        self.files.push((format!("{}.yaml", self.files.len()), text.to_owned()));
        self
    }

    /// A definition that ships with the product.
    pub(crate) fn routes_file(mut self, name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("routes").join(name);
        self.files.push((name.to_owned(), std::fs::read_to_string(path).unwrap()));
        self
    }

    pub(crate) fn backend(self, backend: &Backend) -> Self {
        self.backend_at(&backend.url())
    }

    pub(crate) fn backend_at(self, url: &str) -> Self {
        Self { backend: Some(url.to_owned()), ..self }
    }

    pub(crate) fn settings(mut self, change: impl FnOnce(&mut Settings) + 'static) -> Self {
        self.change.push(Box::new(change));
        self
    }

    /// With this as `causeway.yaml`.
    pub(crate) fn config_yaml(self, text: &str) -> Self {
        Self { config: Some(text.to_owned()), ..self }
    }

    /// As `causeway run` serves, with this token for callbacks.
    pub(crate) fn in_production(mut self, callback_token: &str) -> Self {
        self.options.callback_token = Some(causeway::secret::Secret::new(callback_token.to_owned()));
        Self { mode: Mode::Run, ..self }
    }

    /// Serves `wss`; clients of this gateway trust its certificate.
    pub(crate) fn tls(self) -> Self {
        let certified = self_signed();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { tls: Some((certified, Arc::new(config))), ..self }
    }

    pub(crate) async fn start(self) -> TestGateway {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) async fn try_start(mut self) -> Result<TestGateway, StartError> {
        let folder = tempfile::tempdir().unwrap();
        write_definitions(folder.path(), &self.files, self.backend.as_deref());
        self.options.routes = Some(folder.path().join("routes"));
        self.options.listen = Some("127.0.0.1:0".to_owned());
        self.options.admin = Some("127.0.0.1:0".to_owned());
        self.options.access_log = Some("off".to_owned());
        self.options.shards = Some(2);
        self.options.workers = Some(2);
        if let Some((certified, _)) = &self.tls {
            let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
            std::fs::write(&cert, certified.cert.pem()).unwrap();
            std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
            self.options.tls_cert = Some(cert);
            self.options.tls_key = Some(key);
        }
        let config = self.config.map(|text| {
            let path = folder.path().join("causeway.yaml");
            std::fs::write(&path, text).unwrap();
            path
        });
        let mut settings =
            Settings::resolve(self.options, config.as_deref(), &|_| None).unwrap_or_else(|e| panic!("{e}"));
        // A test waits for what it asserts, not for stragglers.
        settings.drain_interval = std::time::Duration::from_millis(10);
        for change in self.change {
            change(&mut settings);
        }
        let app = App::start(self.mode, settings).await?;
        let tls = self.tls.map(|(_, config)| config);
        Ok(TestGateway { app: Some(app), folder, tls, backend: self.backend })
    }
}

fn write_definitions(folder: &Path, files: &[(String, String)], backend: Option<&str>) {
    let routes = folder.join("routes");
    let _first_time = std::fs::create_dir(&routes);
    for (name, text) in files {
        let text = backend.map_or_else(|| text.clone(), |url| text.replace(BACKEND, url));
        std::fs::write(routes.join(name), text).unwrap();
    }
}

/// A certificate for `localhost` and its key.
pub(crate) fn self_signed() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// Why a gateway with these definitions does not start.
pub(crate) async fn refusal_of(builder: Builder) -> String {
    match builder.try_start().await {
        Ok(gateway) => {
            gateway.finish().await;
            panic!("it started");
        }
        Err(error) => error.to_string(),
    }
}

impl TestGateway {
    pub(crate) fn builder() -> Builder {
        Builder {
            mode: Mode::Dev,
            files: Vec::new(),
            backend: None,
            tls: None,
            options: Options::default(),
            config: None,
            change: Vec::new(),
        }
    }

    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().expect("it runs")
    }

    /// A handshake for a path.
    pub(crate) fn client(&self, target: &str) -> Connect {
        Connect::new(self.app().public(), self.tls.clone(), target)
    }

    /// A folder of this gateway's own.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.app().gateway().hub().stats()
    }

    /// Replaces all definitions, as a reload does.
    pub(crate) fn redeploy(&self, text: &str) {
        let files = [("0.yaml".to_owned(), text.to_owned())];
        write_definitions(self.folder.path(), &files, self.backend.as_deref());
        self.app().reload();
    }

    /// One request on a connection of its own, sent as it stands.
    pub(crate) async fn call(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
        let mut wire = self.client("/").dial().await;
        send_request(&mut wire, &self.app().public().to_string(), method, target, headers, body).await;
        read_answer(&mut wire).await.expect("an answer")
    }

    /// The same to the operator's listener.
    pub(crate) async fn admin(&self, method: &str, target: &str, body: &[u8]) -> HttpAnswer {
        self.admin_with(method, target, &[], body).await
    }

    pub(crate) async fn admin_with(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpAnswer {
        let mut wire = Wire::new(TcpStream::connect(self.app().admin()).await.unwrap());
        send_request(&mut wire, &self.app().admin().to_string(), method, target, headers, body).await;
        read_answer(&mut wire).await.expect("an answer")
    }

    /// `POST /dev/@connections/{id}`.
    pub(crate) async fn post(&self, id: &str, body: impl AsRef<[u8]>) -> HttpAnswer {
        self.call("POST", &format!("/dev/@connections/{id}"), &[], body.as_ref()).await
    }

    /// `GET /dev/@connections/{id}`.
    pub(crate) async fn get(&self, id: &str) -> HttpAnswer {
        self.call("GET", &format!("/dev/@connections/{id}"), &[], b"").await
    }

    /// `DELETE /dev/@connections/{id}`.
    pub(crate) async fn delete(&self, id: &str) -> HttpAnswer {
        self.call("DELETE", &format!("/dev/@connections/{id}"), &[], b"").await
    }

    /// A metric's value now; 0 when it has no series with these labels.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let page = self.admin("GET", "/metrics", b"").await;
        let line = page.text().lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    /// Waits until no session is left, as when all clients have gone.
    pub(crate) async fn is_empty(&self) {
        let gone = async {
            while !holds_nothing(self.stats()) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, gone).await;
        assert!(waited.is_ok(), "sessions are left: {:?}", self.stats());
    }

    /// Begins to shut down; sessions may still be there.
    pub(crate) async fn shut_down(mut self) {
        let app = self.app.take().expect("it runs");
        let gateway = Arc::clone(app.gateway());
        assert_eq!(within("the drain", app.shut_down()).await, 0, "tasks are left");
        assert!(holds_nothing(gateway.hub().stats()), "sessions are left: {:?}", gateway.hub().stats());
        assert_eq!(gateway.groups(), 0, "groups are left");
    }

    /// The end of a test: all clients have gone, and no session, exchange, group or task is left.
    pub(crate) async fn finish(self) {
        self.is_empty().await;
        let gateway = Arc::clone(self.app().gateway());
        assert_eq!(gateway.groups(), 0, "groups are left");
        eventually("all places to be free", || gateway.sessions_of([127, 0, 0, 1].into()) == 0).await;
        self.shut_down().await;
    }
}

const fn holds_nothing(stats: Stats) -> bool {
    stats.open == 0 && stats.parked == 0 && stats.budget_used == 0
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        let ended = self.app.is_none() || std::thread::panicking();
        assert!(ended, "a test ends with `finish`, which asserts that nothing is left");
    }
}

async fn send_request(wire: &mut Wire, host: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {host}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    wire.send(&[head.as_bytes(), body].concat()).await;
}
