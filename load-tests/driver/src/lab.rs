//! What every scenario works with: options, processors, certificate, servers on demand, progress, report.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::duel::{Score, Taken};
use crate::gateway::{self, Mode, Start};
use crate::gauge;
use crate::net::tls::{self, Identity};
use crate::peers::{self, nginx};
use crate::process::{Pins, Process, Side};
use crate::redis::Redis;
use crate::report::{Figure, Report};
use crate::service::{Kind, Service};

/// Numbers a user may change.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The gateway to measure; without it the repository's release build, built if it is missing.
    #[arg(long, global = true)]
    pub gateway: Option<PathBuf>,
    /// Where the JSON file and the plot go.
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../results"))]
    pub out: PathBuf,
    /// Sessions held where memory is measured.
    #[arg(long, global = true, default_value_t = 15_000)]
    pub sessions: usize,
    /// Seconds of one round of one side.
    #[arg(long, global = true, default_value_t = 2.0)]
    pub seconds: f64,
    /// Rounds that count, per side.
    #[arg(long, global = true, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds of bad neighbours, and of quiet before.
    #[arg(long, global = true, default_value_t = 20.0)]
    pub neighbour_seconds: f64,
    /// Sessions on seven nodes together.
    #[arg(long, global = true, default_value_t = 100_000)]
    pub crowd: usize,
    /// What the node may use for outboxes and partial messages, MiB.
    #[arg(long, global = true, default_value_t = 256)]
    pub budget_mib: u64,
    /// Puts the table into load-tests/README.md.
    #[arg(long, global = true)]
    pub write_readme: bool,
    /// Measures the peers in the gateway's place: tries the driver, says nothing about the gateway.
    #[arg(long, global = true, hide = true)]
    pub stand_in: bool,
}

/// Which peer stands in when the driver itself is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Like {
    /// One that answers messages.
    Echo,
    /// One that delivers posts.
    Nchan,
}

/// What every scenario works with.
#[derive(Debug)]
pub struct Lab {
    /// Numbers a user may change.
    pub options: Options,
    /// Which processor is whose.
    pub pins: Pins,
    /// Certificate of every server.
    pub identity: Identity,
    /// Open files a process may have.
    pub open_files: u64,
    /// What was found so far.
    pub report: Report,
    program: Option<PathBuf>,
    folder: TempDir,
    progress: ProgressBar,
}

impl Lab {
    /// Sets up, before anything is started.
    pub fn new(options: Options) -> Result<Self> {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        if (hard as usize) < options.sessions + 1_000 {
            bail!(
                "{} sessions need more than the {hard} open files a process may have",
                options.sessions
            );
        }
        let program =
            if options.stand_in { None } else { Some(gateway::find(options.gateway.as_deref())?) };
        let folder = TempDir::with_prefix("causeway-load-")?;
        let identity = tls::identity(folder.path())?;
        // Drawn only when standard error is a terminal.
        let progress = ProgressBar::no_length();
        progress
            .set_style(ProgressStyle::with_template("{spinner} {elapsed_precise} {bar:30} {msg}")?);
        progress.enable_steady_tick(Duration::from_millis(500));
        let pins = Pins::set();
        Ok(Self {
            options,
            pins,
            identity,
            open_files: hard,
            report: Report::default(),
            program,
            folder,
            progress,
        })
    }

    /// What is measured, for the report: the end of its path, since the report is read elsewhere.
    pub fn measured(&self) -> String {
        let Some(program) = &self.program else { return "STAND-INS, not the gateway".into() };
        let parts: Vec<_> = program.iter().map(|part| part.to_string_lossy()).collect();
        parts[parts.len().saturating_sub(3)..].join("/")
    }

    /// Says what goes on, with how many steps it has.
    pub fn begin(&self, what: &'static str, steps: usize) {
        self.progress.set_position(0);
        self.progress.set_length(steps as u64);
        self.progress.set_message(what);
        if self.progress.is_hidden() {
            eprintln!("{what}");
        }
    }

    /// One step is done.
    pub fn step(&self) {
        self.progress.inc(1);
    }

    /// Nothing goes on any more.
    pub fn finish(&self) {
        self.progress.finish_and_clear();
    }

    /// Length of a round.
    pub fn round(&self) -> Duration {
        Duration::from_secs_f64(self.options.seconds)
    }

    /// A gateway that has just started.
    pub fn gateway(&self, like: Like) -> Result<Service> {
        // Nobody listens there: only `proxy` messages would notice.
        self.start_gateway(like, false, ([127, 0, 0, 1], 9).into())
    }

    /// The same, over TLS.
    pub fn gateway_over_tls(&self, like: Like) -> Result<Service> {
        self.start_gateway(like, true, ([127, 0, 0, 1], 9).into())
    }

    /// The same, with a back-end.
    pub fn gateway_before(&self, origin: std::net::SocketAddr) -> Result<Service> {
        self.start_gateway(Like::Echo, false, origin)
    }

    fn start_gateway(
        &self,
        like: Like,
        tls: bool,
        origin: std::net::SocketAddr,
    ) -> Result<Service> {
        let Some(program) = &self.program else {
            return match like {
                Like::Echo if !tls => self.echo_peer(None),
                Like::Echo | Like::Nchan => self.nchan(),
            };
        };
        let folder = self.folder.path();
        let tls = tls.then_some(&self.identity);
        let (name, mode) = ("gateway", Mode::Dev);
        gateway::start(self.pins, &Start { program, folder, name, mode, tls, origin })
            .context("the gateway did not start")
    }

    /// A gateway as it is run in production, alone.
    pub fn alone(&self) -> Result<Service> {
        self.node("alone", Mode::Alone)
    }

    /// So many nodes that share a registry, linked to each other.
    pub fn cluster(&self, nodes: usize) -> Result<Cluster> {
        let redis = Redis::start(self.pins, self.folder.path())?;
        let names = (1..=nodes).map(|number| format!("node{number}"));
        let started = names.map(|name| self.node(&name, Mode::Member(redis.address)));
        let cluster = Cluster { nodes: started.collect::<Result<_>>()?, redis };
        cluster.wait_for_links()?;
        Ok(cluster)
    }

    fn node(&self, name: &str, mode: Mode) -> Result<Service> {
        let program = self.program.as_ref().context("there is no stand-in for a cluster")?;
        let (folder, origin) = (self.folder.path(), ([127, 0, 0, 1], 9).into());
        gateway::start(self.pins, &Start { program, folder, name, mode, tls: None, origin })
            .with_context(|| format!("{name} did not start"))
    }

    /// The bare tungstenite echo server.
    pub fn echo_peer(&self, read_buffer: Option<usize>) -> Result<Service> {
        let mut arguments = vec!["echo".to_owned()];
        if let Some(bytes) = read_buffer {
            arguments.extend(["--read-buffer".into(), bytes.to_string()]);
        }
        self.own_peer(Side::Server, &arguments).context("the bare echo server did not start")
    }

    /// The bare HTTP server; on the driver's side, as a back-end is not what is measured.
    pub fn origin(&self) -> Result<Service> {
        self.own_peer(Side::Driver, &["origin".into()])
            .context("the bare HTTP server did not start")
    }

    fn own_peer(&self, side: Side, arguments: &[String]) -> Result<Service> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let name = arguments.concat();
        let mut command = peers::command(&arguments)?;
        let mut process = Process::serve(self.pins, side, &mut command, self.folder.path(), &name)?;
        let line = process.first_line(Duration::from_secs(10))?;
        let plain =
            gateway::listening(&line).with_context(|| format!("its first line is {line:?}"))?;
        let pids = vec![process.pid()];
        Ok(Service { kind: Kind::Echo, process, pids, plain, tls: None, token: None, admin: None })
    }

    /// The bare HTTP client.
    pub fn poster(&self, to: std::net::SocketAddr, in_flight: usize) -> Result<Process> {
        let (to, in_flight) = (format!("http://{to}/echo"), in_flight.to_string());
        let mut command = peers::command(&["poster", "--to", &to, "--in-flight", &in_flight])?;
        Process::talk(self.pins, Side::Server, &mut command)
            .context("the bare HTTP client did not start")
    }

    /// nginx with nchan.
    pub fn nchan(&self) -> Result<Service> {
        let nginx = nginx::start(self.pins, self.folder.path(), &self.identity, self.open_files)
            .context("nginx with nchan did not start")?;
        Ok(Service {
            kind: Kind::Nchan,
            pids: nginx.process.family()?,
            process: nginx.process,
            plain: nginx.plain,
            tls: Some(nginx.tls),
            token: None,
            admin: None,
        })
    }

    /// Takes down a comparison of costs.
    pub fn compare(
        &mut self,
        scenario: &'static str,
        figure: &Figure,
        gateway: &Score,
        peer: &Score,
    ) {
        let note = format!(
            "rounds {:.2}–{:.2}; {:.0}/s beside {:.0}/s; driver busy {:.0} % and {:.0} %",
            peer.spread.0,
            peer.spread.1,
            gateway.rate,
            peer.rate,
            gateway.driver * 100.0,
            peer.driver * 100.0
        );
        let ratio = Some(peer.ratio);
        self.report.take(scenario, figure, Some(gateway.cost), Some(peer.cost), ratio, note);
    }

    /// Takes down a figure that has no peer.
    pub fn note(&mut self, scenario: &'static str, figure: &Figure, value: f64, note: String) {
        self.report.take(scenario, figure, Some(value), None, None, note);
    }
}

/// Measures what `work` costs a server; `work` returns how many units it did.
pub fn taking(service: &Service, work: impl FnOnce() -> Result<u64>) -> Result<Taken> {
    taking_all(&service.pids, work)
}

/// The same, of several processes together.
pub fn taking_all(pids: &[i32], work: impl FnOnce() -> Result<u64>) -> Result<Taken> {
    let (cpu, driver, begun) = (gauge::cpu_of(pids)?, gauge::own_cpu()?, Instant::now());
    let units = work()?;
    Ok(Taken {
        wall: begun.elapsed(),
        cpu: gauge::cpu_of(pids)?.saturating_sub(cpu),
        driver: gauge::own_cpu()?.saturating_sub(driver),
        units,
    })
}
