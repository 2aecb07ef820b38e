//! The settings as the rest of the process takes them: every value there, typed, checked together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::{ClusterSettings, ForwardedHeader, LogFormat, LogLevel, Options, Switch};
use crate::auth::iam;
use crate::document::{self, Document, Environment, MAX_FILE_BYTES, Node, Place, Problem, Problems, Report};
use crate::secret::Secret;
use crate::server::{self, Networks, Proxies};
use crate::units::{ByteSize, Period};
use crate::upstream::LambdaConfig;

static SCHEMA: LazyLock<Value> = LazyLock::new(document::generate::<Options>);

/// The JSON Schema of `causeway.yaml`.
pub fn json_schema() -> Value {
    SCHEMA.clone()
}

/// How the gateway is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `causeway dev`.
    Dev,
    /// `causeway run`.
    Run,
}

/// Where access-log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// The end of a file.
    File(PathBuf),
}

/// Certificate and key of the public listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
}

/// The process configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder or file of the API definitions.
    pub routes: PathBuf,
    /// Public listener.
    pub listen: SocketAddr,
    /// Operator listener.
    pub admin: SocketAddr,
    /// TLS of the public listener; `None` is plain.
    pub tls: Option<Tls>,
    /// What the operator listener asks for.
    pub admin_token: Option<Secret>,
    /// What callback paths ask for.
    pub callback_token: Option<Secret>,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Least important lines of the log.
    pub log_level: LogLevel,
    /// Where access-log lines go.
    pub access_log: AccessLog,
    /// Threads that hold sessions.
    pub shards: usize,
    /// Threads that run exchanges.
    pub workers: usize,
    /// How long a drain waits for exchanges in flight.
    pub drain_grace: Duration,
    /// Sessions that a drain closes at once.
    pub drain_batch: usize,
    /// Time between *not ready* and the first batch.
    pub drain_delay: Duration,
    /// Pause between two batches.
    pub drain_interval: Duration,
    /// Most sessions.
    pub max_sessions: usize,
    /// Most sessions of one client address.
    pub max_sessions_per_address: usize,
    /// Most handshakes in progress.
    pub max_handshakes: usize,
    /// How long the head of a request may take to arrive.
    pub handshake_timeout: Duration,
    /// Who stands in front, and what is believed of it.
    pub proxies: Proxies,
    /// Largest head of a request.
    pub max_header_bytes: usize,
    /// Bytes in all outboxes and partial messages together.
    pub outbox_budget_bytes: usize,
    /// File descriptors kept back from sessions.
    pub reserved_files: usize,
    /// Most calls to one back-end at once.
    pub max_concurrency_per_upstream: usize,
    /// Certificates that back-ends are trusted by, PEM, besides the system's.
    pub upstream_ca: Option<PathBuf>,
    /// Where functions are called, and with which credentials.
    pub lambda: LambdaConfig,
    /// Whether a drain closes sessions with 1012 instead of 1001.
    pub drain_says_restart: bool,
    /// This node as one of many; `None` is alone.
    pub cluster: Option<ClusterSettings>,
    /// Who may sign callbacks and handshakes.
    pub iam: iam::Config,
}

/// Smallest and largest head of a request that may be set: room for a browser's handshake, and a bound on what a
/// stranger makes the node hold.
const HEADER_BYTES: std::ops::RangeInclusive<usize> = 1_024..=1 << 20;

impl Settings {
    /// Puts the settings together: `given` (flags and environment) over the file over the defaults.
    ///
    /// Relative paths in the file are relative to its folder, others to the working folder. `${env:NAME}` and
    /// `${file:path}` work in it as in a definition.
    ///
    /// # Errors
    /// Everything that is wrong with the file and with the settings together.
    pub fn resolve(given: Options, config: Option<&Path>, environment: Environment<'_>) -> Result<Self, Problems> {
        let (in_file, file) = match config {
            Some(path) => read(path, environment)?,
            None => (Options::default(), None),
        };
        let mut check = Check { file, problems: Problems::new() };
        let settings = check.settings(given.over(in_file), environment);
        check.problems.or_ok(settings)
    }

    /// Why the gateway must not start like this, each naming the setting that mends it. Looks at the key file's
    /// permissions, and at nothing else outside.
    pub fn refusals(&self, mode: Mode) -> Vec<String> {
        let mut refusals = match mode {
            Mode::Dev => self.dev_refusals(),
            Mode::Run => self.run_refusals(),
        };
        refusals.extend(self.cluster_refusals());
        refusals
    }

    /// What would let a stranger in among the nodes.
    fn cluster_refusals(&self) -> Vec<String> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let mut refusals = Vec::new();
        if cluster.secret.is_none() && cluster.certificates.is_none() {
            refusals.push(
                "with --redis, links between nodes would be open to everyone who reaches them: set --cluster-secret \
                 (CAUSEWAY_CLUSTER_SECRET), or --cluster-cert, --cluster-key and --cluster-ca"
                    .to_owned(),
            );
        }
        if let Some(certificates) = &cluster.certificates
            && is_readable_by_everyone(&certificates.key)
        {
            let key = certificates.key.display();
            refusals.push(format!(
                "the private key {key} is readable by everyone: `chmod o-r {key}`, or set --cluster-key"
            ));
        }
        refusals
    }

    /// `dev` asks nobody who they are, so nobody else may reach it.
    fn dev_refusals(&self) -> Vec<String> {
        [("listen", self.listen), ("admin", self.admin)]
            .into_iter()
            .filter(|(_, address)| !address.ip().is_loopback())
            .map(|(flag, address)| {
                format!(
                    "`dev` serves on loopback only, and --{flag} is {address}: set it to 127.0.0.1:{}, or use `run`",
                    address.port()
                )
            })
            .collect()
    }

    fn run_refusals(&self) -> Vec<String> {
        let mut refusals = Vec::new();
        if self.callback_token.is_none() && !self.iam.identities.iter().any(|identity| !identity.keys.is_empty()) {
            refusals.push(
                "callback paths (`@connections`, `@groups`, `@all`) would be open to everyone who reaches the listener: \
                 set --callback-token (CAUSEWAY_CALLBACK_TOKEN), or a user with an access key under `iam` in the \
                 configuration file"
                    .to_owned(),
            );
        }
        if !self.admin.ip().is_loopback() && self.admin_token.is_none() {
            refusals.push(format!(
                "the admin listener on {} would be open to everyone who reaches it: set --admin-token \
                 (CAUSEWAY_ADMIN_TOKEN), or --admin to a loopback address",
                self.admin
            ));
        }
        if let Some(tls) = &self.tls
            && is_readable_by_everyone(&tls.key)
        {
            let key = tls.key.display();
            refusals
                .push(format!("the private key {key} is readable by everyone: `chmod o-r {key}`, or set --tls-key"));
        }
        refusals
    }
}

/// Whether the permissions let every user of the machine read the file. A file that is not there is somebody else's
/// complaint.
fn is_readable_by_everyone(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}

/// A configuration file that was read: its name and tree, for the places of what is found wrong later.
struct InFile {
    name: String,
    root: Node,
}

fn read(path: &Path, environment: Environment<'_>) -> Result<(Options, Option<InFile>), Problems> {
    use std::io::Read as _;
    let name = path.to_string_lossy().into_owned();
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match opened {
        Ok(length) if length as u64 > MAX_FILE_BYTES => {
            return Err(Problems::of_file(&name, format!("too large, expected at most {MAX_FILE_BYTES} bytes")));
        }
        Ok(_) => {}
        Err(error) => return Err(Problems::of_file(&name, format!("cannot be read: {error}"))),
    }
    let mut report = Report::new(&name);
    let document = Document::<Options>::read(&bytes, &SCHEMA, folder, environment, &mut report);
    let problems = report.into_problems();
    let Some(document) = document else { return Err(problems) };
    let mut options = problems.or_ok(document.content)?;
    let paths = [
        &mut options.routes,
        &mut options.tls_cert,
        &mut options.tls_key,
        &mut options.upstream_ca,
        &mut options.redis_ca,
        &mut options.cluster_cert,
        &mut options.cluster_key,
        &mut options.cluster_ca,
    ];
    for path in paths {
        *path = path.take().map(|path| folder.join(path));
    }
    if let Some(log) = &mut options.access_log
        && !matches!(log.as_str(), "-" | "off")
    {
        *log = folder.join(&*log).to_string_lossy().into_owned();
    }
    Ok((options, Some(InFile { name, root: document.root })))
}

/// Turns options into settings and collects what does not fit together.
pub(super) struct Check {
    file: Option<InFile>,
    problems: Problems,
}

impl Check {
    /// Reports what is wrong with a setting: at its place in the file if it stands there, else by the flag's name.
    pub(super) fn complain(&mut self, setting: &str, message: &str) {
        let in_file = self.file.as_ref().filter(|file| file.root.has(setting));
        let (file, place): (&str, Option<Place>) = match in_file {
            Some(file) => (&file.name, Some(file.root.key_place(setting))),
            None => ("configuration", None),
        };
        self.problems.push(Problem { file: file.into(), place, message: format!("`{setting}` {message}") });
    }

    /// Reports what is wrong with a part of a section, at its place.
    pub(super) fn complain_at(&mut self, node: Option<&Node>, message: &str) {
        let file = self.file.as_ref().map_or("configuration", |file| &file.name);
        self.problems.push(Problem {
            file: file.into(),
            place: node.map(|node| node.place),
            message: message.to_owned(),
        });
    }

    /// A section of the file.
    pub(super) fn node(&self, key: &str) -> Option<Node> {
        self.file.as_ref().map(|file| file.root.at(key).clone())
    }

    fn settings(&mut self, options: Options, environment: Environment<'_>) -> Settings {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let count = |value: Option<u32>, default: usize| {
            value.map_or(default, |count| usize::try_from(count).unwrap_or(usize::MAX))
        };
        let seconds = |value: Option<Period>, default| value.map_or(Duration::from_secs(default), |period| period.0);
        let bytes = |value: Option<ByteSize>, default| value.map_or(default, |size| size.0);
        let max_sessions = count(options.max_sessions, 1_000_000);
        let cluster = self.cluster(&options);
        let lambda = self.lambda(options.lambda_endpoint.as_deref(), environment);
        let iam = self.iam(options.iam);
        let drain_says_restart = match options.drain_close_code {
            None | Some(1001) => false,
            Some(1012) => true,
            Some(_) => {
                self.complain("drain-close-code", "is out of range, expected `1001` or `1012`");
                false
            }
        };
        let settings = Settings {
            routes: options.routes.unwrap_or_else(|| PathBuf::from("routes")),
            listen: self.address("listen", options.listen.as_deref(), 8080),
            admin: self.address("admin", options.admin.as_deref(), 8081),
            tls: self.tls(options.tls_cert, options.tls_key),
            admin_token: self.token("admin-token", options.admin_token),
            callback_token: self.token("callback-token", options.callback_token),
            log_format: options.log_format.unwrap_or(LogFormat::Text),
            log_level: options.log_level.unwrap_or(LogLevel::Info),
            access_log: access_log(options.access_log.as_deref()),
            shards: count(options.shards, cores),
            workers: count(options.workers, cores),
            drain_grace: seconds(options.drain_grace, 30),
            drain_batch: count(options.drain_batch, 10_000),
            drain_delay: seconds(options.drain_delay, 0),
            drain_interval: seconds(options.drain_interval, 1),
            max_sessions,
            max_sessions_per_address: count(options.max_sessions_per_address, max_sessions),
            max_handshakes: count(options.max_handshakes, 4_096),
            handshake_timeout: seconds(options.handshake_timeout, 10),
            proxies: self.proxies(options.trusted_proxies.as_deref(), options.forwarded_header, options.proxy_protocol),
            max_header_bytes: bytes(options.max_header_bytes, 16 << 10),
            outbox_budget_bytes: bytes(options.outbox_budget_bytes, 256 << 20),
            reserved_files: count(options.reserved_files, 256),
            max_concurrency_per_upstream: count(options.max_concurrency_per_upstream, 512),
            upstream_ca: options.upstream_ca,
            lambda,
            drain_says_restart,
            cluster,
            iam,
        };
        self.together(&settings);
        settings
    }

    pub(super) fn address(&mut self, setting: &str, text: Option<&str>, default_port: u16) -> SocketAddr {
        let parsed = text.and_then(|text| text.parse().ok());
        if let (Some(text), None) = (text, parsed) {
            let expected = "expected an address and a port such as `127.0.0.1:8080` or `[::]:443`";
            self.complain(setting, &format!("is `{}`, {expected}", text.escape_debug()));
        }
        parsed.unwrap_or_else(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), default_port))
    }

    fn together(&mut self, settings: &Settings) {
        if !HEADER_BYTES.contains(&settings.max_header_bytes) {
            self.complain("max-header-bytes", "is out of range, expected `1KiB` to `1MiB`");
        }
        if settings.outbox_budget_bytes < 1 << 20 {
            self.complain("outbox-budget-bytes", "is too small to serve anybody, expected at least `1MiB`");
        }
        // Port 0 is another one each time.
        if settings.listen == settings.admin && settings.listen.port() != 0 {
            self.complain("admin", "is the address of `listen` too, expected another");
        }
    }

    fn proxies(&mut self, trusted: Option<&str>, header: Option<ForwardedHeader>, protocol: Option<Switch>) -> Proxies {
        let trusted = Networks::parse(trusted.unwrap_or_default());
        if let Err(error) = &trusted {
            self.complain("trusted-proxies", &error.to_string());
        }
        let is_nobody_trusted = trusted.as_ref().is_ok_and(Networks::is_empty);
        if is_nobody_trusted && protocol == Some(Switch::On) {
            self.complain(
                "proxy-protocol",
                "is `on` and nobody may connect, expected the proxies in `trusted-proxies`",
            );
        }
        if is_nobody_trusted && header.is_some() {
            self.complain("forwarded-header", "is believed of nobody, expected the proxies in `trusted-proxies`");
        }
        Proxies {
            trusted: trusted.unwrap_or_default(),
            header: match header {
                None | Some(ForwardedHeader::XForwardedFor) => server::ForwardedHeader::XForwardedFor,
                Some(ForwardedHeader::Forwarded) => server::ForwardedHeader::Forwarded,
            },
            is_protocol_on: protocol == Some(Switch::On),
        }
    }

    fn tls(&mut self, cert: Option<PathBuf>, key: Option<PathBuf>) -> Option<Tls> {
        match (cert, key) {
            (Some(cert), Some(key)) => Some(Tls { cert, key }),
            (Some(_), None) => {
                self.complain("tls-cert", "stands alone, expected `tls-key` beside it");
                None
            }
            (None, Some(_)) => {
                self.complain("tls-key", "stands alone, expected `tls-cert` beside it");
                None
            }
            (None, None) => None,
        }
    }

    /// A token must fit a header, and an empty one would let everybody in.
    fn token(&mut self, setting: &str, token: Option<Secret>) -> Option<Secret> {
        let token = token?;
        if token.reveal().is_empty() || !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
            self.complain(setting, "does not fit a header, expected visible ASCII characters without spaces");
        }
        Some(token)
    }
}

fn access_log(setting: Option<&str>) -> AccessLog {
    match setting {
        None | Some("-") => AccessLog::Stdout,
        Some("off") => AccessLog::Off,
        Some(path) => AccessLog::File(PathBuf::from(path)),
    }
}
