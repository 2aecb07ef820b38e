//! Real Redis servers for tests: one, a group watched by Sentinel, a Cluster; started on free ports in folders that are
//! gone afterwards, and stopped, paused, killed, emptied and restarted at will.
//!
//! Each process is ended by its own number when its [`Server`] is dropped. Calls block: they talk to a server of this
//! machine, and wait for conditions with [`PATIENCE`].

#![allow(dead_code, reason = "every test program that has this file uses another part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How a server is to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Asked of the default user.
    pub(crate) password: Option<String>,
    /// Further users, as an ACL file has them: `ann on >secret ~causeway:* +@all`.
    pub(crate) users: Vec<String>,
    /// Every write goes to the disk, and comes back after a restart.
    pub(crate) is_durable: bool,
    /// Speaks TLS on [`Server::tls_port`], with a certificate for 127.0.0.1 and localhost.
    pub(crate) tls: Option<Arc<Authority>>,
    /// A server of a Cluster.
    pub(crate) is_clustered: bool,
    /// Follows the master at this port.
    pub(crate) replica_of: Option<u16>,
    /// Lines of `redis.conf`.
    pub(crate) lines: Vec<String>,
}

/// An authority, and a certificate of it for 127.0.0.1 and localhost, in files.
#[derive(Debug)]
pub(crate) struct Authority(TempDir);

impl Authority {
    /// A new one, that nobody trusts yet.
    pub(crate) fn new() -> Arc<Self> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of another name than what it signs: else OpenSSL takes that for self-signed.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let authority = Self(tempfile::tempdir().unwrap());
        fs::write(authority.ca_file(), issuer.pem()).unwrap();
        fs::write(authority.path("cert.pem"), certificate.pem()).unwrap();
        fs::write(authority.path("key.pem"), key.serialize_pem()).unwrap();
        Arc::new(authority)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What a client has to trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Lines of `redis.conf`: to clients, and among servers.
    fn lines(&self, port: u16) -> Vec<String> {
        let file = |setting: &str, name: &str| format!("{setting} {}", self.path(name).display());
        vec![
            format!("tls-port {port}"),
            file("tls-cert-file", "cert.pem"),
            file("tls-key-file", "key.pem"),
            file("tls-ca-cert-file", "ca.pem"),
            "tls-auth-clients no".to_owned(),
            "tls-replication yes".to_owned(),
        ]
    }
}

/// A `redis-server`.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) port: u16,
    /// 0 without TLS.
    pub(crate) tls_port: u16,
    folder: TempDir,
    options: Options,
    is_sentinel: bool,
    child: Option<Child>,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Number(i64),
    Text(String),
    List(Vec<Self>),
    Error(String),
}

impl Reply {
    /// The text, or the number as one.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Error(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Nil | Self::List(_) => String::new(),
        }
    }

    pub(crate) fn list(self) -> Vec<Self> {
        if let Self::List(list) = self { list } else { Vec::new() }
    }
}

fn url(servers: &[Server], options: &Options, shape: &str) -> String {
    let scheme = if options.tls.is_some() { "rediss" } else { "redis" };
    // `@` is all that a test's password has of what needs encoding.
    let login = options.password.as_ref().map(|password| format!(":{}@", password.replace('@', "%40")));
    let hosts: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.main_port())).collect();
    format!("{scheme}{shape}://{}{}", login.unwrap_or_default(), hosts.join(","))
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts one and waits until it answers.
    pub(crate) fn start(options: &Options) -> Self {
        Self::launch(options, false, "")
    }

    /// One that asks for nothing and keeps nothing.
    pub(crate) fn plain() -> Self {
        Self::start(&Options::default())
    }

    fn launch(options: &Options, is_sentinel: bool, extra: &str) -> Self {
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let tls_port = if options.tls.is_some() { free_port() } else { 0 };
            let mut server =
                Self { port: free_port(), tls_port, folder, options: options.clone(), is_sentinel, child: None };
            fs::write(server.path("redis.conf"), server.lines() + extra).unwrap();
            server.spawn();
            // Somebody else may have taken a port in between: then it has ended, and others are tried.
            if server.is_up() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    fn lines(&self) -> String {
        let options = &self.options;
        let mut lines = vec![
            format!("port {}", self.port),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", self.folder.path().display()),
            "daemonize no".to_owned(),
            format!("logfile {}", self.path("log").display()),
        ];
        if !self.is_sentinel {
            lines.push("save \"\"".to_owned());
            lines.push("repl-diskless-sync-delay 0".to_owned());
            lines.push(format!("appendonly {}", if options.is_durable { "yes" } else { "no" }));
            lines.push("appendfsync always".to_owned());
        }
        if let Some(password) = &options.password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("masterauth {password}"));
        }
        lines.extend(options.users.iter().map(|user| format!("user {user}")));
        lines.extend(options.replica_of.map(|port| format!("replicaof 127.0.0.1 {port}")));
        if options.is_clustered {
            lines.push("cluster-enabled yes".to_owned());
            lines.push("cluster-node-timeout 1000".to_owned());
            lines.push("cluster-require-full-coverage no".to_owned());
            lines.push(format!("cluster-port {}", free_port()));
            lines.push(format!("tls-cluster {}", if options.tls.is_some() { "yes" } else { "no" }));
        }
        lines.extend(options.tls.iter().flat_map(|authority| authority.lines(self.tls_port)));
        lines.extend(options.lines.clone());
        lines.join("\n") + "\n"
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn spawn(&mut self) {
        let mut command = Command::new("redis-server");
        command.arg(self.path("redis.conf"));
        if self.is_sentinel {
            command.arg("--sentinel");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap_or_else(|error| {
            panic!(
                "redis-server cannot be started ({error}): install the package `redis-server`, or run tests/run once"
            )
        }));
    }

    /// Waits until it answers; `false` when it has ended.
    fn is_up(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            if matches!(self.try_call(&["PING"]), Some(Reply::Text(text)) if text == "PONG") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("redis-server does not answer:\n{}", self.log());
    }

    /// The port that others are told: the one with TLS if there is one.
    pub(crate) fn main_port(&self) -> u16 {
        if self.tls_port == 0 { self.port } else { self.tls_port }
    }

    /// `redis://` or `rediss://`, with its password.
    pub(crate) fn url(&self) -> String {
        url(std::slice::from_ref(self), &self.options, "")
    }

    /// Sends a command and waits for the answer, if it can be had.
    pub(crate) fn try_call(&self, command: &[&str]) -> Option<Reply> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let mut stream = BufReader::new(stream);
        if let (Some(password), false) = (&self.options.password, self.is_sentinel) {
            exchange(&mut stream, &["AUTH", password])?;
        }
        exchange(&mut stream, command)
    }

    /// Sends a command; an error is a failed test.
    pub(crate) fn call(&self, command: &[&str]) -> Reply {
        match self.try_call(command) {
            Some(Reply::Error(error)) => panic!("{command:?}: {error}"),
            Some(reply) => reply,
            None => panic!("{command:?}: no answer"),
        }
    }

    /// A value of `INFO`.
    pub(crate) fn info(&self, section: &str, name: &str) -> String {
        let text = self.call(&["INFO", section]).text();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_default().trim().to_owned()
    }

    /// How often each command was called, by name; `info` itself is left out.
    pub(crate) fn command_calls(&self) -> BTreeMap<String, u64> {
        let text = self.call(&["INFO", "commandstats"]).text();
        let calls = text.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        });
        calls.filter(|(name, _)| name != "info" && name != "auth").collect()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stops it without its noticing: connections stay, nothing answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _waited = child.wait();
        }
    }

    /// Ends it as an operator would, and waits for it.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
        if let Some(mut child) = self.child.take() {
            let _waited = child.wait();
        }
    }

    /// Starts it again on the same port after [`Self::kill`] or [`Self::terminate`]: with what is on its disk.
    pub(crate) fn restart(&mut self) {
        let started = Instant::now();
        loop {
            self.spawn();
            if self.is_up() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "redis-server does not come back:\n{}", self.log());
        }
    }

    /// Forgets everything.
    pub(crate) fn flush(&self) {
        self.call(&["FLUSHALL"]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn exchange(stream: &mut BufReader<TcpStream>, command: &[&str]) -> Option<Reply> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    stream.get_mut().write_all(&bytes).ok()?;
    read_reply(stream)
}

fn read_reply(stream: &mut BufReader<TcpStream>) -> Option<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1)?;
    Some(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Number(rest.parse().ok()?),
        "$" => match rest.parse::<usize>() {
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes).ok()?;
                bytes.truncate(length);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            Err(_) => Reply::Nil,
        },
        "*" => match rest.parse::<usize>() {
            Ok(length) => Reply::List((0..length).map(|_| read_reply(stream)).collect::<Option<_>>()?),
            Err(_) => Reply::Nil,
        },
        _ => return None,
    })
}

/// A master with replicas, and sentinels that watch them under the name `main`.
#[derive(Debug)]
pub(crate) struct Watched {
    /// The first was the master at the start.
    pub(crate) servers: Vec<Server>,
    pub(crate) sentinels: Vec<Server>,
}

impl Watched {
    /// Starts all of it and waits until the sentinels know everybody.
    pub(crate) fn start(replicas: usize, sentinels: usize, options: &Options) -> Self {
        let master = Server::start(options);
        let port = master.main_port();
        let follower = Options { replica_of: Some(port), ..options.clone() };
        let mut servers = vec![master];
        servers.extend((0..replicas).map(|_| Server::start(&follower)));
        let mut lines = vec![
            format!("sentinel monitor main 127.0.0.1 {port} {}", sentinels / 2 + 1),
            "sentinel down-after-milliseconds main 500".to_owned(),
            "sentinel failover-timeout main 2000".to_owned(),
        ];
        lines.extend(options.password.as_ref().map(|password| format!("sentinel auth-pass main {password}")));
        let extra = lines.join("\n") + "\n";
        let watcher = Options { tls: options.tls.clone(), ..Options::default() };
        let sentinels = (0..sentinels).map(|_| Server::launch(&watcher, true, &extra)).collect();
        let group = Self { servers, sentinels };
        let synced = |server: &Server| server.info("replication", "master_link_status") == "up";
        until("replicas follow", || group.servers.iter().skip(1).all(synced));
        let others = group.sentinels.len() - 1;
        until("sentinels know everybody", || {
            group.sentinels.iter().all(|sentinel| {
                let facts = sentinel.call(&["SENTINEL", "MASTER", "main"]).list();
                let fact = |name: &str| {
                    let at = facts.iter().position(|fact| fact.text() == name);
                    at.and_then(|at| facts.get(at + 1)).map(Reply::text).unwrap_or_default()
                };
                fact("num-slaves") == replicas.to_string() && fact("num-other-sentinels") == others.to_string()
            })
        });
        group
    }

    /// The URL that finds the master.
    pub(crate) fn url(&self) -> String {
        url(&self.sentinels, &self.servers[0].options, "+sentinel") + "/main"
    }

    /// The port of the master, as the first sentinel that answers knows it.
    pub(crate) fn master(&self) -> u16 {
        let ask = |sentinel: &Server| sentinel.try_call(&["SENTINEL", "get-master-addr-by-name", "main"]);
        let answer = self.sentinels.iter().find_map(ask).map(Reply::list).unwrap_or_default();
        answer.get(1).and_then(|port| port.text().parse().ok()).unwrap_or_default()
    }
}

/// A Cluster of masters.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
}

const SLOTS: u32 = 16_384;

impl Cluster {
    /// Starts masters that share the slots, and waits until all of them say that the Cluster stands.
    pub(crate) fn start(masters: usize, options: &Options) -> Self {
        let options = Options { is_clustered: true, ..options.clone() };
        let servers: Vec<_> = (0..masters).map(|_| Server::start(&options)).collect();
        let first = &servers[0];
        for (n, server) in (0_u32..).zip(&servers) {
            let share = |n: u32| (SLOTS * n / u32::try_from(masters).unwrap()).to_string();
            let last = (share(n + 1).parse::<u32>().unwrap() - 1).to_string();
            server.call(&["CLUSTER", "ADDSLOTSRANGE", &share(n), &last]);
            server.call(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
        }
        for server in &servers[1..] {
            let bus = first.call(&["CONFIG", "GET", "cluster-port"]).list()[1].text();
            server.call(&["CLUSTER", "MEET", "127.0.0.1", &first.main_port().to_string(), &bus]);
        }
        let cluster = Self { servers };
        until("the Cluster stands", || cluster.servers.iter().all(|server| cluster.is_whole(server)));
        cluster
    }

    /// Whether a server has the Cluster as whole.
    pub(crate) fn is_whole(&self, server: &Server) -> bool {
        let info = server.try_call(&["CLUSTER", "INFO"]).map(|info| info.text()).unwrap_or_default();
        info.contains("cluster_state:ok")
            && info.contains("cluster_slots_ok:16384")
            && info.contains(&format!("cluster_known_nodes:{}\r", self.servers.len()))
    }

    /// The URL that names every server.
    pub(crate) fn url(&self) -> String {
        url(&self.servers, &self.servers[0].options, "+cluster")
    }

    /// The slot of a key, as a server says.
    pub(crate) fn slot(&self, key: &str) -> u16 {
        self.servers[0].call(&["CLUSTER", "KEYSLOT", key]).text().parse().unwrap()
    }

    /// Which server has a slot.
    pub(crate) fn owner(&self, slot: u16) -> usize {
        let ranges = self.servers[0].call(&["CLUSTER", "SLOTS"]).list();
        let port = ranges.into_iter().find_map(|range| {
            let range = range.list();
            let number = |n: usize| range[n].text().parse::<u16>().unwrap();
            (number(0) <= slot && slot <= number(1)).then(|| range[2].clone().list()[1].text())
        });
        let port = port.expect("a slot of somebody");
        self.servers
            .iter()
            .position(|server| [server.port, server.tls_port].iter().any(|p| p.to_string() == port))
            .unwrap()
    }

    /// Opens a slot's move: keys that are not there any more are asked for at the new owner.
    pub(crate) fn begin_move(&self, slot: u16, to: usize) {
        let (from, slot) = (self.owner(slot), slot.to_string());
        let id = |n: usize| self.servers[n].call(&["CLUSTER", "MYID"]).text();
        self.servers[to].call(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        self.servers[from].call(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    }

    /// Carries a slot's keys over, without ending the move.
    pub(crate) fn carry(&self, slot: u16, to: usize) {
        let from = self.owner(slot);
        loop {
            let keys = self.servers[from].call(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "100"]).list();
            if keys.is_empty() {
                return;
            }
            let port = self.servers[to].port.to_string();
            for key in keys {
                self.servers[from].call(&["MIGRATE", "127.0.0.1", &port, &key.text(), "0", "5000"]);
            }
        }
    }

    /// Moves a slot with its keys.
    pub(crate) fn move_slot(&self, slot: u16, to: usize) {
        self.begin_move(slot, to);
        self.carry(slot, to);
        self.end_move(slot, to);
    }

    /// Ends a slot's move: the new owner has it.
    pub(crate) fn end_move(&self, slot: u16, to: usize) {
        let (id, slot) = (self.servers[to].call(&["CLUSTER", "MYID"]).text(), slot.to_string());
        // The new owner first, so that somebody has it at every moment.
        self.servers[to].call(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        for server in &self.servers {
            server.call(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
    }

    /// Forgets everything.
    pub(crate) fn flush(&self) {
        self.servers.iter().for_each(Server::flush);
    }
}
