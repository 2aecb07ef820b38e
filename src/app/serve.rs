//! `causeway dev` and `causeway run`.
//!
//! Up: settings, definitions, certificates (all complaints before anything is bound), session engine, gateway,
//! listeners. Down, each step bounded: not ready, sessions in batches, their last exchanges, HTTP connections, threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, cluster, complain, print, reload};
use crate::clock::Clock;
use crate::cluster::link::LinkSetupError;
use crate::cluster::redis::ConfigError;
use crate::cluster::registry::RegistryError;
use crate::config::{self, LogFormat, Mode, ServeArgs, Settings};
use crate::definition::{self, Snapshot};
use crate::document::Problems;
use crate::fault::CloseReason;
use crate::gateway::{DrainPlan, Gateway, Parts};
use crate::integration::Integrations;
use crate::server::certificates::{CertificateError, Certificates};
use crate::server::{self, Admin, BindError, CallbackAccess, Listener};
use crate::session::{self, Hub};
use crate::tasks::Tasks;
use crate::telemetry::access_log::Target;
use crate::telemetry::{self, AccessLog, Format, Metrics};
use crate::upstream::{self, SetupError};

/// How long the last exchanges and connections may take when everything else is done.
const LAST_PATIENCE: Duration = Duration::from_secs(30);
/// How often the tables and the allocator are asked for memory they no longer need: a handful of loads when there is none.
const TIDY_EVERY: Duration = Duration::from_millis(500);
/// Ticks between two looks at the certificate's files.
const CERTIFICATE_TICKS: u32 = 20;
/// Sessions that must have come or gone before it is worth asking the allocator for what they left: a megabyte.
const WORTH_TRIMMING: u64 = 1_024;

/// Decides when the allocator is asked for its spare pages: when many sessions have come or gone and it has become
/// quiet again. In the middle of a storm the pages would be needed again at once.
#[derive(Debug, Default)]
struct Churn {
    seen: u64,
    trimmed: u64,
}

impl Churn {
    /// Whether to trim, `total` sessions having come or gone since the start.
    fn is_over(&mut self, total: u64) -> bool {
        let quiet = total - self.seen <= (total - self.trimmed) / 16;
        self.seen = total;
        let over = quiet && total - self.trimmed >= WORTH_TRIMMING;
        if over {
            self.trimmed = total;
        }
        over
    }
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is wrong with the definitions, all of it.
    #[error("{0}")]
    Definitions(Problems),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Outgoing calls cannot be set up.
    #[error(transparent)]
    Upstream(#[from] SetupError),
    /// The registry cannot be used as configured.
    #[error(transparent)]
    RegistryConfig(#[from] ConfigError),
    /// The registry is not there, or lets nobody in.
    #[error("cannot join the cluster: {0}")]
    Registry(RegistryError),
    /// The listener for other nodes cannot be set up.
    #[error(transparent)]
    Link(#[from] LinkSetupError),
    /// An address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system refuses threads, files or signals.
    #[error("the system refuses what a gateway needs")]
    System(#[from] std::io::Error),
    /// The access log cannot be opened.
    #[error("cannot open the access log {target}")]
    AccessLog {
        /// Where its lines should go.
        target: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    const fn exit(&self) -> Exit {
        match self {
            Self::Definitions(_)
            | Self::Certificate(_)
            | Self::Upstream(_)
            | Self::AccessLog { .. }
            | Self::RegistryConfig(_) => Exit::Bad,
            Self::Registry(error) => {
                if error.is_passing() {
                    Exit::Unreachable
                } else {
                    Exit::Bad
                }
            }
            Self::Link(LinkSetupError::Listen { .. }) | Self::Bind(_) | Self::System(_) => Exit::Unreachable,
            #[expect(clippy::match_same_arms, reason = "what is left of the link's after the one above")]
            Self::Link(_) => Exit::Bad,
        }
    }
}

/// Serves until a signal ends it.
pub fn serve(mode: Mode, args: ServeArgs) -> Exit {
    let settings = match Settings::resolve(*args.options, args.config.as_deref(), &config::environment) {
        Ok(settings) => settings,
        Err(problems) => {
            complain(&problems.to_string());
            return Exit::Bad;
        }
    };
    let refusals = settings.refusals(mode);
    if !refusals.is_empty() {
        for refusal in refusals {
            complain(&format!("refused to start: {refusal}"));
        }
        return Exit::Bad;
    }
    let form = match settings.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    if let Err(error) = telemetry::init(form, settings.log_level.as_str()) {
        complain(&error.to_string());
        return Exit::Bad;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(settings.workers.max(1)).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&chain(&StartError::System(error)));
            return Exit::Unreachable;
        }
    };
    runtime.block_on(async move {
        let app = match App::start(mode, settings).await {
            Ok(app) => app,
            Err(error) => {
                complain(&chain(&error));
                return error.exit();
            }
        };
        app.announce(mode);
        match app.run_until_signal(mode).await {
            Ok(()) => Exit::Clean,
            Err(error) => {
                complain(&chain(&StartError::System(error)));
                Exit::Unreachable
            }
        }
    })
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// A running gateway, in parts. Tests start it as the command does.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    tasks: Tasks,
    exchanges: Tasks,
    gateway: Arc<Gateway>,
    access_log: AccessLog,
    scribes: Tasks,
    certificates: Option<Arc<Certificates>>,
    public: SocketAddr,
    admin: SocketAddr,
}

impl App {
    /// Loads, builds, binds and begins to serve.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(mode: Mode, settings: Settings) -> Result<Self, StartError> {
        let snapshot = load(&settings.routes)?;
        let certificates = match &settings.tls {
            Some(tls) => Some(Arc::new(Certificates::load(&tls.cert, &tls.key)?)),
            None => None,
        };
        let listener = Listener::bind(settings.listen, certificates.clone())?;
        let admin = Admin::bind(settings.admin).await?;
        let max_files = raise_open_files();
        let tasks = Tasks::new();
        let exchanges = tasks.child();
        let clock = Clock::system();
        let upstream = upstream::Http::new(
            &upstream::Config {
                max_in_flight: settings.max_concurrency_per_upstream,
                extra_ca_file: settings.upstream_ca.clone(),
                ..upstream::Config::default()
            },
            tasks.clone(),
        )?;
        let hub_config = session::Config { shards: settings.shards.max(1), budget_bytes: settings.outbox_budget_bytes };
        let hub = Arc::new(Hub::start(hub_config, clock.now(), &tasks)?);
        let metrics = Arc::new(Metrics::new());
        let target = match &settings.access_log {
            config::AccessLog::Stdout => Target::Stdout,
            config::AccessLog::Off => Target::Off,
            config::AccessLog::File(path) => Target::File(path.clone()),
        };
        // The writer outlives everything that has lines to write, so it is waited for by itself and last.
        let scribes = Tasks::new();
        let access_log = AccessLog::open(&target, &scribes, metrics.access_log_dropped.clone())
            .map_err(|source| StartError::AccessLog { target: format!("{:?}", settings.access_log), source })?;
        let entered = match &settings.cluster {
            Some(cluster) => Some(cluster::enter(cluster, &clock, &tasks).await?),
            None => None,
        };
        let farewell = if settings.drain_says_restart { CloseReason::Restarting } else { CloseReason::Draining };
        let gateway = Gateway::new(Parts {
            hub,
            node: entered.as_ref().map(|entered| Arc::clone(&entered.node)),
            farewell,
            integrations: Integrations::new(upstream),
            metrics,
            access_log: access_log.clone(),
            log_format: Arc::new(Format::default()),
            tasks: exchanges.clone(),
            clock,
            max_sessions: settings.max_sessions,
            max_sessions_per_address: settings.max_sessions_per_address,
        });
        gateway.deploy(snapshot);
        if let Some(entered) = entered {
            gateway.linked(entered.start(&gateway, &tasks)?);
        }
        let (public, admin_address) = (listener.local_addr(), admin.local_addr());
        let config = edge(mode, &settings, max_files);
        tracing::info!(
            max_files,
            sessions = max_files.saturating_sub(settings.reserved_files),
            "open files allow this many sessions"
        );
        tasks.spawn("listener", listener.serve(Arc::clone(&gateway), config, tasks.clone()));
        let token = settings.admin_token.as_ref().map(|token| token.reveal().into());
        tasks.spawn("admin", admin.serve(Arc::clone(&gateway), token, tasks.clone()));
        let admin = admin_address;
        let app = Self { settings, tasks, exchanges, gateway, access_log, scribes, certificates, public, admin };
        app.housekeep();
        Ok(app)
    }

    /// Where clients connect.
    pub const fn public(&self) -> SocketAddr {
        self.public
    }

    /// Where operators look.
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The gateway itself.
    pub const fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    fn housekeep(&self) {
        let (gateway, certificates, tasks) = (Arc::clone(&self.gateway), self.certificates.clone(), self.tasks.clone());
        self.tasks.spawn("housekeeping", async move {
            let mut tick = tokio::time::interval(TIDY_EVERY);
            let (mut churn, mut ticks) = (Churn::default(), 0_u32);
            loop {
                tokio::select! {
                    _ = tick.tick() => {}
                    () = tasks.token().cancelled() => return,
                }
                gateway.hub().tidy();
                if churn.is_over(gateway.hub().churn()) {
                    crate::memory::trim();
                }
                ticks = ticks.wrapping_add(1);
                if let (Some(certificates), 0) = (&certificates, ticks % CERTIFICATE_TICKS) {
                    certificates.reload_if_changed();
                }
            }
        });
    }

    /// The first line of standard output, which scripts wait for; then, in `dev`, what is served.
    fn announce(&self, mode: Mode) {
        print(&format!("listening public={} admin={}", self.public, self.admin));
        if mode == Mode::Dev {
            print(&reload::overview(&self.gateway.snapshot(), self.public, self.certificates.is_some()));
        }
    }

    async fn run_until_signal(self, mode: Mode) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        if mode == Mode::Dev {
            self.tasks.spawn(
                "watcher",
                reload::watch(self.settings.routes.clone(), Arc::clone(&self.gateway), self.tasks.clone()),
            );
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => self.reload(),
            }
        }
        tracing::info!("draining; a second signal ends at once");
        let again = async {
            tokio::select! {
                () = received(&mut terminate) => {}
                () = received(&mut interrupt) => {}
            }
        };
        tokio::select! {
            _left = self.shut_down() => {}
            () = again => tracing::warn!("ended before the drain was over"),
        }
        Ok(())
    }

    /// Loads the definitions, the certificate and the log file again; what is wrong changes nothing and is said.
    pub fn reload(&self) {
        reload::definitions(&self.settings.routes, &self.gateway);
        if let Some(certificates) = &self.certificates {
            certificates.reload_if_changed();
        }
        self.access_log.reopen();
    }

    /// Drains and ends: every session is told, every exchange gets its answer, every `$disconnect` its attempt.
    /// Returns how many exchanges and tasks still ran when patience with them ended.
    pub async fn shut_down(&self) -> usize {
        let plan = DrainPlan {
            batch: self.settings.drain_batch,
            interval: self.settings.drain_interval,
            grace: self.settings.drain_grace,
        };
        // Clients are taken until the load balancers have had their time to notice: none of them is refused.
        self.gateway.announce_drain();
        // Not even for the shortest sleep there is, where no time was asked for.
        if !self.settings.drain_delay.is_zero() {
            tokio::time::sleep(self.settings.drain_delay).await;
        }
        self.gateway.drain(plan).await;
        let exchanges = self.exchanges.drain(LAST_PATIENCE).await;
        if exchanges > 0 {
            tracing::warn!(exchanges, "exchanges were still running when patience ended");
        }
        if let Some(node) = self.gateway.node() {
            cluster::leave(node).await;
        }
        self.tasks.token().cancel();
        self.gateway.hub().stop();
        self.gateway.integrations().upstream().close();
        let tasks = self.tasks.drain(LAST_PATIENCE).await;
        if tasks > 0 {
            tracing::warn!(tasks, "tasks were still running when patience ended");
        }
        // Stages and gateway hold each other; without stages they let go.
        self.gateway.deploy(Snapshot::default());
        self.access_log.close();
        let scribes = self.scribes.drain(LAST_PATIENCE).await;
        exchanges + tasks + scribes
    }
}

async fn received(signal: &mut Signal) {
    let _end_of_signals = signal.recv().await;
}

/// What the public listener may use, and whom it answers.
fn edge(mode: Mode, settings: &Settings, max_files: usize) -> server::Config {
    let access = match (mode, &settings.callback_token) {
        (_, Some(token)) => CallbackAccess::Bearer(token.reveal().into()),
        (Mode::Dev, None) => CallbackAccess::Loopback,
        // `refusals` has said no to this before; closed is what is left.
        (Mode::Run, None) => CallbackAccess::Nobody,
    };
    server::Config {
        handshake_timeout: settings.handshake_timeout,
        keep_alive: Duration::from_secs(60),
        max_header_bytes: settings.max_header_bytes,
        max_connections: settings.max_handshakes,
        reserved_files: settings.reserved_files,
        max_files,
        access,
        loopback_names_only: mode == Mode::Dev,
        proxies: settings.proxies.clone(),
    }
}

fn load(routes: &std::path::Path) -> Result<Snapshot, StartError> {
    definition::load(routes, &config::environment).map_err(StartError::Definitions)
}

/// Lifts the soft limit of open files to the hard one and returns it.
fn raise_open_files() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    limit.current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_asked_back_once_a_storm_is_over() {
        let mut churn = Churn::default();
        assert!(!churn.is_over(1_000), "too few");
        assert!(!churn.is_over(15_000), "still storming");
        assert!(churn.is_over(15_100));
        assert!(!churn.is_over(15_100), "once");
    }
}
