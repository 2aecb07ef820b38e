//! Every setting as it may be given, by flag, by environment or by file: all optional, so that layers can be laid over
//! each other.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Deserialize;

use super::cli::secret;
use super::iam::IamFile;
use crate::secret::Secret;
use crate::units::{ByteSize, Period};

/// Declares [`Options`] and how two layers of it are laid over each other, so that no setting can be forgotten there.
macro_rules! options {
    ($($(#[$meta:meta])* $name:ident: $kind:ty,)*) => {
        /// Settings of the process. In a file the keys are the names of the flags.
        #[derive(Debug, Clone, Default, Args, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        #[schemars(title = "Causeway process configuration")]
        pub struct Options {
            $($(#[$meta])* pub $name: Option<$kind>,)*
        }

        impl Options {
            /// These settings, and those of `below` where these say nothing.
            #[must_use]
            pub fn over(self, below: Self) -> Self {
                Self { $($name: self.$name.or(below.$name),)* }
            }
        }
    };
}

options! {
    /// Folder or file of the API definitions. Default `routes`.
    #[arg(env = "CAUSEWAY_ROUTES", value_name = "PATH")]
    #[schemars(with = "Option<String>")]
    routes: PathBuf,
    /// Address of the public listener: clients and callbacks. Port 0 takes a free one. Default `127.0.0.1:8080`.
    #[arg(long, env = "CAUSEWAY_LISTEN", value_name = "ADDRESS")]
    #[schemars(length(min = 1))]
    listen: String,
    /// Address of the operator listener: health, metrics, connections. Never public. Default `127.0.0.1:8081`.
    #[arg(long, env = "CAUSEWAY_ADMIN", value_name = "ADDRESS")]
    #[schemars(length(min = 1))]
    admin: String,
    /// Certificate chain of the public listener, PEM; with `--tls-key` it speaks TLS. Read again when it changes.
    #[arg(long, env = "CAUSEWAY_TLS_CERT", value_name = "FILE")]
    #[schemars(with = "Option<String>")]
    tls_cert: PathBuf,
    /// Private key of the certificate, PEM. Other users of the machine must not be able to read it.
    #[arg(long, env = "CAUSEWAY_TLS_KEY", value_name = "FILE")]
    #[schemars(with = "Option<String>")]
    tls_key: PathBuf,
    /// Bearer token that the operator listener asks for, `/health` and `/ready` apart.
    #[arg(long, env = "CAUSEWAY_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    #[arg(value_parser = clap::builder::ValueParser::new(secret))]
    #[schemars(with = "Option<String>")]
    #[serde(deserialize_with = "secret_from_file", default)]
    admin_token: Secret,
    /// Bearer token that callback paths (`@connections`, `@groups`, `@all`) ask for.
    #[arg(long, env = "CAUSEWAY_CALLBACK_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    #[arg(value_parser = clap::builder::ValueParser::new(secret))]
    #[schemars(with = "Option<String>")]
    #[serde(deserialize_with = "secret_from_file", default)]
    callback_token: Secret,
    /// Form of the log. Default `text`.
    #[arg(long, env = "CAUSEWAY_LOG_FORMAT", value_enum, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Least important lines of the log that are written. Default `info`.
    #[arg(long, env = "CAUSEWAY_LOG_LEVEL", value_enum, value_name = "LEVEL")]
    log_level: LogLevel,
    /// Where access-log lines go: `-` for standard output, `off`, or a file, opened again on SIGHUP. Default `-`.
    #[arg(long, env = "CAUSEWAY_ACCESS_LOG", value_name = "WHERE")]
    #[schemars(length(min = 1))]
    access_log: String,
    /// Threads that hold sessions. Default: the number of cores.
    #[arg(long, env = "CAUSEWAY_SHARDS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    #[schemars(range(min = 1, max = 1_024))]
    shards: u32,
    /// Threads that run exchanges. Default: the number of cores.
    #[arg(long, env = "CAUSEWAY_WORKERS", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    #[schemars(range(min = 1, max = 1_024))]
    workers: u32,
    /// How long a drain waits for exchanges in flight before it goes on without them. Default `30s`.
    #[arg(long, env = "CAUSEWAY_DRAIN_GRACE", value_name = "DURATION")]
    drain_grace: Period,
    /// Sessions that a drain closes at once. Default 10000.
    #[arg(long, env = "CAUSEWAY_DRAIN_BATCH", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    #[schemars(range(min = 1, max = 10_000_000))]
    drain_batch: u32,
    /// Time between *not ready* and the first session told to go, for load balancers to notice. Default `0s`.
    #[arg(long, env = "CAUSEWAY_DRAIN_DELAY", value_name = "DURATION")]
    drain_delay: Period,
    /// Pause between two such batches, so that clients come back spread out. Default `1s`.
    #[arg(long, env = "CAUSEWAY_DRAIN_INTERVAL", value_name = "DURATION")]
    drain_interval: Period,
    /// Most sessions at once; beyond, a handshake is answered 503. Default 1000000.
    #[arg(long, env = "CAUSEWAY_MAX_SESSIONS", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    #[schemars(range(min = 1, max = 16_777_216))]
    max_sessions: u32,
    /// Most sessions of one client address. Default: as many as sessions, since a proxy is one address.
    #[arg(long, env = "CAUSEWAY_MAX_SESSIONS_PER_ADDRESS", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    #[schemars(range(min = 1, max = 16_777_216))]
    max_sessions_per_address: u32,
    /// Most connections that are no sessions: handshakes in progress, callbacks, kept-alive HTTP; beyond, a new one is
    /// answered 503. Default 4096.
    #[arg(long, env = "CAUSEWAY_MAX_HANDSHAKES", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[schemars(range(min = 1, max = 1_000_000))]
    max_handshakes: u32,
    /// How long the head of a request, and a TLS handshake, may take to arrive. Default `10s`.
    #[arg(long, env = "CAUSEWAY_HANDSHAKE_TIMEOUT", value_name = "DURATION")]
    handshake_timeout: Period,
    /// Networks of the proxies in front, as `10.0.0.0/24,192.0.2.7`: what they say of a client's address is believed.
    /// Default none.
    #[arg(long, env = "CAUSEWAY_TRUSTED_PROXIES", value_name = "CIDR,CIDR")]
    trusted_proxies: String,
    /// The header that the trusted proxies keep; the other one is the client's text. Default `x-forwarded-for`.
    #[arg(long, env = "CAUSEWAY_FORWARDED_HEADER", value_enum, value_name = "NAME")]
    forwarded_header: ForwardedHeader,
    /// Whether each connection begins with a PROXY header, version 1 or 2, and only trusted proxies may connect. Default
    /// `off`.
    #[arg(long, env = "CAUSEWAY_PROXY_PROTOCOL", value_enum, value_name = "SWITCH")]
    proxy_protocol: Switch,
    /// Largest head of a request in bytes. Default `16KiB`.
    #[arg(long, env = "CAUSEWAY_MAX_HEADER_BYTES", value_name = "SIZE")]
    max_header_bytes: ByteSize,
    /// Bytes in all outboxes and partial messages together; beyond, the largest goes first. Default `256MiB`.
    #[arg(long, env = "CAUSEWAY_OUTBOX_BUDGET_BYTES", value_name = "SIZE")]
    outbox_budget_bytes: ByteSize,
    /// File descriptors kept back from sessions, for back-ends and the gateway itself. Default 256.
    #[arg(long, env = "CAUSEWAY_RESERVED_FILES", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    #[schemars(range(min = 16, max = 1_000_000))]
    reserved_files: u32,
    /// Most calls to one back-end at once; beyond, a call waits up to a second for its turn, then fails. Default 512.
    #[arg(long, env = "CAUSEWAY_MAX_CONCURRENCY_PER_UPSTREAM", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[schemars(range(min = 1, max = 1_000_000))]
    max_concurrency_per_upstream: u32,
    /// Certificates that back-ends are trusted by, PEM, besides the system's.
    #[arg(long, env = "CAUSEWAY_UPSTREAM_CA", value_name = "FILE")]
    #[schemars(with = "Option<String>")]
    upstream_ca: PathBuf,
    /// Where the Invoke API of Lambda is, as `http://host:port`. Default: the service's own address in each function's region.
    #[arg(long, env = "CAUSEWAY_LAMBDA_ENDPOINT", value_name = "URL")]
    #[schemars(length(min = 1))]
    lambda_endpoint: String,
    /// Makes this node one of a cluster: the shared registry, `redis://[user:password@]host:port[/db]`. With TLS `rediss://`;
    /// Sentinel `redis+sentinel://host:port,host:port/master`; Cluster `redis+cluster://host:port,host:port`.
    #[arg(long, env = "CAUSEWAY_REDIS", hide_env_values = true, value_name = "URL")]
    #[arg(value_parser = clap::builder::ValueParser::new(secret))]
    #[schemars(with = "Option<String>")]
    #[serde(deserialize_with = "secret_from_file", default)]
    redis: Secret,
    /// What every key in the registry begins with: clusters with different ones do not meet. Default `causeway`.
    #[arg(long, env = "CAUSEWAY_REDIS_PREFIX", value_name = "NAME")]
    #[schemars(length(min = 1))]
    redis_prefix: String,
    /// Certificates that the registry is trusted by, PEM, in place of the system's.
    #[arg(long, env = "CAUSEWAY_REDIS_CA", value_name = "FILE")]
    #[schemars(with = "Option<String>")]
    redis_ca: PathBuf,
    /// How long one call to the registry may take. Default `500ms`.
    #[arg(long, env = "CAUSEWAY_REDIS_TIMEOUT", value_name = "DURATION")]
    redis_timeout: Period,
    /// What the nodes of a cluster prove to each other, at least 16 characters; the same on all of them.
    #[arg(long, env = "CAUSEWAY_CLUSTER_SECRET", hide_env_values = true, value_name = "SECRET")]
    #[arg(value_parser = clap::builder::ValueParser::new(secret))]
    #[schemars(with = "Option<String>")]
    #[serde(deserialize_with = "secret_from_file", default)]
    cluster_secret: Secret,
    /// Certificate of this node for links to others, PEM; with `--cluster-key` and `--cluster-ca` links are mutual TLS.
    #[arg(long, env = "CAUSEWAY_CLUSTER_CERT", value_name = "FILE")]
    #[schemars(with = "Option<String>")]
    cluster_cert: PathBuf,
    /// Private key of that certificate, PEM. Other users of the machine must not be able to read it.
    #[arg(long, env = "CAUSEWAY_CLUSTER_KEY", value_name = "FILE")]
    #[schemars(with = "Option<String>")]
    cluster_key: PathBuf,
    /// Certificates that other nodes are trusted by, PEM.
    #[arg(long, env = "CAUSEWAY_CLUSTER_CA", value_name = "FILE")]
    #[schemars(with = "Option<String>")]
    cluster_ca: PathBuf,
    /// Where the other nodes reach this one. Default: the address this machine reaches the registry from, and the port of
    /// the node listener.
    #[arg(long, env = "CAUSEWAY_NODE_ADDRESS", value_name = "HOST:PORT")]
    #[schemars(length(min = 1))]
    node_address: String,
    /// Address of the listener for other nodes. Default: the host part of `--node-address` if it is an address of this
    /// machine, else all; port 0 takes a free one.
    #[arg(long, env = "CAUSEWAY_NODE_LISTEN", value_name = "ADDRESS")]
    #[schemars(length(min = 1))]
    node_listen: String,
    /// What people call this node, in logs and listings. Default: the host's name.
    #[arg(long, env = "CAUSEWAY_NODE_NAME", value_name = "NAME")]
    #[schemars(length(min = 1))]
    node_name: String,
    /// How long a node may be silent before the others ask whether it lives; a crash is noticed after it. Default `10s`.
    #[arg(long, env = "CAUSEWAY_NODE_LEASE", value_name = "DURATION")]
    node_lease: Period,
    /// `$disconnect` calls a second that this node makes for the connections of dead ones. Default 100.
    #[arg(long, env = "CAUSEWAY_RECOVERY_RATE", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    #[schemars(range(min = 1, max = 100_000))]
    recovery_rate: u32,
    /// How long a node has for one such call before another may make it again: above the longest call, 29 s. Default `60s`.
    #[arg(long, env = "CAUSEWAY_RECOVERY_CLAIM", value_name = "DURATION")]
    recovery_claim: Period,
    /// Close code of a drain: `1001` (going away) or `1012` (service restart). Default `1001`.
    #[arg(long, env = "CAUSEWAY_DRAIN_CLOSE_CODE", value_name = "CODE")]
    #[arg(value_parser = clap::value_parser!(u32).range(1001..=1012))]
    #[schemars(range(min = 1_001, max = 1_012))]
    drain_close_code: u32,
    /// Who may sign callbacks and handshakes: users, roles, their keys and policies. In the file only.
    #[arg(skip)]
    iam: IamFile,
}

pub(super) fn secret_from_file<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Secret::new))
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// The header in which proxies tell the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto` and `X-Forwarded-Port`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// No.
    Off,
    /// Yes.
    On,
}

/// Least important lines of the log that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What someone must look at.
    Error,
    /// What is degraded.
    Warn,
    /// The life cycle.
    Info,
    /// Every exchange.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Its name, which is a filter directive too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
