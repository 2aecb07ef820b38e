//! The settings of a node among others, checked together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Options;
use super::settings::Check;
use crate::cluster;
use crate::cluster::redis::ConfigError;
use crate::secret::Secret;

/// Certificates of links between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCertificates {
    /// This node's certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Whom it trusts, PEM.
    pub ca: PathBuf,
}

/// How this node takes part in a cluster.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// The shared registry.
    pub registry: cluster::redis::Config,
    /// What nodes prove to each other.
    pub secret: Option<Secret>,
    /// Certificates that nodes prove themselves with.
    pub certificates: Option<NodeCertificates>,
    /// Where others reach this node: `host:port`.
    pub node_address: Option<String>,
    /// Where it listens for them.
    pub node_listen: Option<SocketAddr>,
    /// What people call it.
    pub node_name: Option<String>,
    /// Lease, pace and deadlines.
    pub node: cluster::Config,
}

/// Shortest secret: what can be guessed is no proof.
const SECRET_BYTES: usize = 16;
/// Shortest and longest lease: below, a pause of the machine looks like a death; above, nobody would wait for it.
const LEASE: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(600);
/// Shortest and longest claim: below, calls would be repeated while they are under way; above, a `$disconnect` would be
/// forgotten rather than late.
const CLAIM: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

impl Check {
    pub(super) fn cluster(&mut self, options: &Options) -> Option<ClusterSettings> {
        let Some(redis) = options.redis.clone() else {
            self.stands_without_redis(options);
            return None;
        };
        let registry = cluster::redis::Config {
            url: redis,
            prefix: options.redis_prefix.clone().unwrap_or_else(|| cluster::redis::Config::PREFIX.to_owned()),
            ca_file: options.redis_ca.clone(),
            timeout: options.redis_timeout.map_or(cluster::redis::Config::TIMEOUT, |period| period.0),
        };
        self.registry(registry.clone());
        if options.cluster_secret.as_ref().is_some_and(|secret| secret.reveal().len() < SECRET_BYTES) {
            self.complain("cluster-secret", "is too short, expected at least 16 characters");
        }
        let lease = options.node_lease.map_or(cluster::Config::default().lease, |period| period.0);
        if !LEASE.contains(&lease) {
            self.complain("node-lease", "is out of range, expected `200ms` to `10m`");
        }
        let claim = options.recovery_claim.map_or(cluster::Config::default().claim_lapse, |period| period.0);
        if !CLAIM.contains(&claim) {
            self.complain("recovery-claim", "is out of range, expected `1s` to `1h`");
        }
        let rate = options.recovery_rate.unwrap_or(cluster::Config::default().recovery_rate);
        Some(ClusterSettings {
            registry,
            secret: options.cluster_secret.clone(),
            certificates: self.node_certificates(options),
            node_address: self.node_address(options.node_address.as_deref()),
            node_listen: options.node_listen.as_deref().map(|text| self.address("node-listen", Some(text), 0)),
            node_name: options.node_name.clone(),
            node: cluster::Config { lease, recovery_rate: rate, claim_lapse: claim, ..cluster::Config::default() },
        })
    }

    /// Tells everything that is wrong with it: what was complained about is replaced by what is right, and looked at again.
    fn registry(&mut self, mut registry: cluster::redis::Config) {
        while let Err(error) = registry.check() {
            match error {
                ConfigError::Prefix => {
                    let expected = "does not fit a key, expected 1 to 64 of letters, digits, `.`, `_` and `-`";
                    self.complain("redis-prefix", expected);
                    cluster::redis::Config::PREFIX.clone_into(&mut registry.prefix);
                }
                ConfigError::Timeout => {
                    self.complain("redis-timeout", "is out of range, expected `10ms` to `30s`");
                    registry.timeout = cluster::redis::Config::TIMEOUT;
                }
                ConfigError::Address(why) => {
                    return self.complain("redis", &format!("is no address of a registry: {why}"));
                }
                ConfigError::Tls(why) => return self.complain("redis-ca", &format!("cannot be used: {why}")),
            }
        }
    }

    /// A node that was meant to be one of many must not run alone because one setting is missing.
    fn stands_without_redis(&mut self, options: &Options) {
        let given = [
            ("cluster-secret", options.cluster_secret.is_some()),
            ("cluster-cert", options.cluster_cert.is_some()),
            ("node-address", options.node_address.is_some()),
            ("node-listen", options.node_listen.is_some()),
        ];
        for (setting, _) in given.iter().filter(|(_, is_given)| *is_given) {
            self.complain(setting, "is for nodes of a cluster, expected `redis` beside it");
        }
    }

    fn node_certificates(&mut self, options: &Options) -> Option<NodeCertificates> {
        match (&options.cluster_cert, &options.cluster_key, &options.cluster_ca) {
            (Some(cert), Some(key), Some(ca)) => {
                Some(NodeCertificates { cert: cert.clone(), key: key.clone(), ca: ca.clone() })
            }
            (None, None, None) => None,
            (cert, key, _) => {
                let setting = match (cert, key) {
                    (Some(_), _) => "cluster-cert",
                    (None, Some(_)) => "cluster-key",
                    (None, None) => "cluster-ca",
                };
                self.complain(
                    setting,
                    "stands alone, expected `cluster-cert`, `cluster-key` and `cluster-ca` together",
                );
                None
            }
        }
    }

    fn node_address(&mut self, text: Option<&str>) -> Option<String> {
        let text = text?;
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let is_host = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'@');
        if !is_host || !port.parse::<u16>().is_ok_and(|port| port != 0) {
            let expected = "expected a host and a port such as `10.0.0.5:7400` or `node-1.internal:7400`";
            self.complain("node-address", &format!("is `{}`, {expected}", text.escape_debug()));
        }
        Some(text.to_owned())
    }
}
