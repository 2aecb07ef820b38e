//! The registry in Redis: one server, a group watched by Sentinel, or a Cluster. The only code that speaks Redis.
//!
//! ```text
//! registry.rs   what the port asks, as commands and scripts       keys.rs     every key on one page
//!      │                                                          scripts.rs  the scripts, by hash
//! mod.rs        refusals into errors, scripts after a flush       form.rs     values as JSON
//!      │
//! link.rs ── slots.rs     one server, or the slots of many: connections, deadlines, redirections
//!      │ \── sentinel.rs  who is the master
//! dial.rs       TCP, TLS, login                                   address.rs  the URL
//! ```
//!
//! No call waits longer than [`Config::timeout`], whatever state the server or the way to it is in. A call that ran into
//! it may have been done or may be done later. Nothing has to be restarted after a loss: the next call connects anew.
//! Redis 6.2 or later; 7.0 is what it is tested with.

mod address;
mod dial;
mod error;
mod form;
mod keys;
mod link;
mod registry;
mod scripts;
mod sentinel;
mod slots;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use address::{Address, AddressError, Shape, Target};
pub use dial::TlsError;
use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use self::dial::Dialer;
use self::error::Refusal;

pub(in crate::cluster) use self::keys::slot;
use self::keys::{Key, Keys};
use self::link::{Link, Place};
use self::sentinel::Sentinels;
use self::slots::Slots;
use crate::cluster::registry::RegistryError;
use crate::secret::Secret;

/// How to reach Redis and what to call things there.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it is, as [`Address::parse`] reads it.
    pub url: Secret,
    /// Begins every key: 1 to 64 characters of `[A-Za-z0-9._-]`. Clusters that share a Redis differ in it.
    pub prefix: String,
    /// Authorities whose certificates are taken over TLS, PEM; those of the system when there is no file.
    pub ca_file: Option<PathBuf>,
    /// No call waits longer. Between 10 ms and 30 s.
    pub timeout: Duration,
}

impl Config {
    /// The prefix when nothing is said.
    pub const PREFIX: &str = "causeway";
    /// The timeout when nothing is said.
    pub const TIMEOUT: Duration = Duration::from_millis(500);

    /// Checks everything that can be checked without connecting.
    pub fn check(&self) -> Result<Address, ConfigError> {
        if !Keys::is_prefix(&self.prefix) {
            return Err(ConfigError::Prefix);
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(30)).contains(&self.timeout) {
            return Err(ConfigError::Timeout);
        }
        Ok(Address::parse(self.url.reveal())?)
    }
}

/// Why a configuration cannot work. Never shows the password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL.
    #[error("the URL of Redis: {0}")]
    Address(#[from] AddressError),
    /// The certificates.
    #[error("TLS to Redis: {0}")]
    Tls(#[from] TlsError),
    /// The prefix.
    #[error("the prefix of keys in Redis is 1 to 64 characters of letters, digits, `.`, `_`, `-`")]
    Prefix,
    /// The timeout.
    #[error("the timeout of Redis is between 10 ms and 30 s")]
    Timeout,
}

/// Why there is no registry.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It cannot work as configured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It was not reached, or refused.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// The registry in Redis.
#[derive(Debug)]
pub struct Redis {
    servers: Servers,
    dialer: Arc<Dialer>,
    keys: Keys,
    timeout: Duration,
}

#[derive(Debug)]
enum Servers {
    /// One, or the master that Sentinel names.
    One(Link),
    /// Those of a Cluster.
    Many(Slots),
}

/// A command with the keys it touches, all of one slot.
#[derive(Debug, Clone)]
struct Command {
    keys: Vec<Key>,
    cmd: Cmd,
    /// A script in full, for when the server does not know it by its hash.
    full: Option<Cmd>,
}

impl Command {
    fn new(name: &str, key: Key) -> Self {
        Self::sized(name, key, 0)
    }

    /// The same, with room for so many bytes of arguments: what is written often should not grow step by step.
    fn sized(name: &str, key: Key, bytes: usize) -> Self {
        let mut cmd = Cmd::with_capacity(4, name.len() + key.name.len() + bytes);
        cmd.arg(name).arg(&key.name);
        Self { keys: vec![key], cmd, full: None }
    }

    fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    fn slot(&self) -> u16 {
        self.keys.first().map_or(0, |key| slot(&key.name))
    }

    fn key(&self, number: usize) -> String {
        self.keys.get(number.saturating_sub(1)).map(|key| key.name.clone()).unwrap_or_default()
    }
}

impl Redis {
    /// Sets everything up and does not wait for Redis: the first call connects. Within a tokio runtime.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let address = config.check()?;
        let dialer = Arc::new(Dialer::new(&address, config.ca_file.as_deref())?);
        let link = |place| Servers::One(Link::new(place, Arc::clone(&dialer), config.timeout));
        let servers = match address.shape {
            Shape::Single(target) => link(Place::At(target)),
            Shape::Sentinel { sentinels, master } => {
                link(Place::Master(Arc::new(Sentinels { targets: sentinels, master })))
            }
            Shape::Cluster(seeds) => Servers::Many(Slots::new(seeds, Arc::clone(&dialer), config.timeout)),
        };
        Ok(Self { servers, dialer, keys: Keys::new(config.prefix.clone()), timeout: config.timeout })
    }

    /// The same, and makes sure that Redis is there, lets this node in and is written by a version like this one.
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let redis = Self::new(config)?;
        redis.check().await?;
        Ok(redis)
    }

    /// Whether Redis answers, lets this node in, and is written by a version like this one.
    pub async fn check(&self) -> Result<(), RegistryError> {
        let key = self.keys.schema();
        let name = key.name.clone();
        let found = self.one(Command::new("GET", key)).await?;
        if found == Value::Nil {
            return Ok(());
        }
        let Value::BulkString(found) = found else {
            return Err(error::foreign(&name, format!("{found:?}").as_bytes()));
        };
        match std::str::from_utf8(&found).ok().and_then(|text| text.parse::<u32>().ok()) {
            Some(keys::SCHEMA) => Ok(()),
            Some(other) => Err(RegistryError::Schema { found: other.to_string(), ours: keys::SCHEMA }),
            None => Err(error::foreign(&name, &found)),
        }
    }

    /// Warns in the log when Redis would rather evict our keys than refuse a write. A user may lack the right to ask; then
    /// nothing is said. Of a Cluster the operator has to know it.
    async fn warn_of_eviction(&self, until: Instant) {
        let Servers::One(link) = &self.servers else { return };
        let Ok(info) = link.ask(&piece([redis::cmd("INFO").arg("memory").take()]), until).await else { return };
        if let Some(Value::BulkString(info)) = info.first()
            && let Some(policy) = evicting_policy(&String::from_utf8_lossy(info))
        {
            tracing::warn!(
                policy,
                "Redis evicts keys when its memory is full: nodes and records of connections would be lost unseen; \
                 set maxmemory-policy to noeviction"
            );
        }
    }

    /// Sends one command; its answer.
    async fn one(&self, command: Command) -> Result<Value, RegistryError> {
        Ok(self.ask(vec![command], self.deadline()).await?.pop().unwrap_or_default())
    }

    /// When a call that begins now has to be done.
    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Sends commands, those for one server in one piece; their answers in order. An error is the first refusal: the
    /// others may have been done.
    async fn ask(&self, mut commands: Vec<Command>, until: Instant) -> Result<Vec<Value>, RegistryError> {
        let mut answers = self.send(&mut commands, until).await?;
        for (command, answer) in commands.iter().zip(&mut answers) {
            if let (Value::ServerError(said), Some(full)) = (&*answer, &command.full)
                && error::sort(said) == Refusal::NoScript
            {
                let mut again = [Command { keys: command.keys.clone(), cmd: full.clone(), full: None }];
                *answer = self.send(&mut again, until).await?.pop().unwrap_or_default();
            }
        }
        for (command, answer) in commands.iter().zip(&answers) {
            if let Value::ServerError(said) = answer {
                if error::sort(said) == Refusal::WrongType {
                    return Err(self.wrong_type(command, until).await);
                }
                return Err(error::refused(said, |number| command.key(number)));
            }
        }
        Ok(answers)
    }

    /// Takes what is to be sent out of the commands.
    async fn send(&self, commands: &mut [Command], until: Instant) -> Result<Vec<Value>, RegistryError> {
        let answers = match &self.servers {
            Servers::One(link) => {
                let cmds = commands.iter_mut().map(|command| std::mem::take(&mut command.cmd));
                link.ask(&piece(cmds), until).await
            }
            Servers::Many(slots) => slots.ask(commands, until).await,
        };
        // Of all the ways to wait for a server only the whole of it means something to who asked.
        answers.map_err(|error| {
            let is_late = matches!(error, RegistryError::TimedOut(_));
            if is_late { RegistryError::TimedOut(self.timeout) } else { error }
        })
    }

    /// Names the key that holds another type than ours.
    async fn wrong_type(&self, command: &Command, until: Instant) -> RegistryError {
        let of = |key: &Key| Command::new("TYPE", key.clone());
        let types = match self.send(&mut command.keys.iter().map(of).collect::<Vec<_>>(), until).await {
            Ok(types) => types,
            Err(error) => return error,
        };
        for (key, found) in command.keys.iter().zip(types) {
            let Value::SimpleString(found) = found else { continue };
            if found != key.kind.name() && found != "none" {
                let found = format!("a {found} instead of a {}", key.kind.name());
                return RegistryError::Foreign { key: key.name.clone(), found };
            }
        }
        RegistryError::Foreign { key: command.key(1), found: "a value of another type".to_owned() }
    }
}

/// Commands to send in one piece.
fn piece(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let commands = commands.into_iter();
    let mut pipeline = Pipeline::with_capacity(commands.size_hint().0);
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

/// The policy by which Redis may evict keys of ours, from what `INFO memory` says. Those that only take keys with a
/// lifetime leave all but claims and counters.
fn evicting_policy(info: &str) -> Option<&str> {
    let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim);
    let policy = value("maxmemory_policy:");
    (value("maxmemory:") != "0" && policy.starts_with("allkeys-")).then_some(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_checked_without_redis_is() {
        let good = Config {
            url: Secret::from("redis://localhost"),
            prefix: Config::PREFIX.to_owned(),
            ca_file: None,
            timeout: Config::TIMEOUT,
        };
        assert!(good.check().is_ok());
        let said = |config: Config| config.check().unwrap_err().to_string();
        let prefix = said(Config { prefix: "a b".to_owned(), ..good.clone() });
        assert!(prefix.starts_with("the prefix of keys"), "{prefix}");
        let timeout = said(Config { timeout: Duration::ZERO, ..good.clone() });
        assert_eq!(timeout, "the timeout of Redis is between 10 ms and 30 s");
        let url = said(Config { url: Secret::from("http://:hunter2@localhost"), ..good.clone() });
        assert!(url.starts_with("the URL of Redis: begins with none of redis://") && !url.contains("hunter2"), "{url}");
    }

    #[test]
    fn a_policy_that_would_evict_our_keys_is_seen() {
        let info =
            |memory: &str, policy: &str| format!("# Memory\r\nmaxmemory:{memory}\r\nmaxmemory_policy:{policy}\r\n");
        assert_eq!(evicting_policy(&info("1000", "allkeys-lru")), Some("allkeys-lru"));
        for (memory, policy) in [("0", "allkeys-lru"), ("1000", "noeviction"), ("1000", "volatile-ttl")] {
            assert_eq!(evicting_policy(&info(memory, policy)), None, "{memory} {policy}");
        }
    }
}
