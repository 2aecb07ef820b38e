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
use redis::{Cmd, Value};

use self::dial::Dialer;
use self::error::Refusal;
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
    keys: Keys,
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
        let cmd = redis::cmd(name).arg(&key.name).take();
        Self { keys: vec![key], cmd, full: None }
    }

    fn arg(mut self, arg: impl redis::ToRedisArgs) -> Self {
        self.cmd.arg(arg);
        self
    }

    fn slot(&self) -> u16 {
        self.keys.first().map_or(0, |key| keys::slot(&key.name))
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
            Shape::Cluster(seeds) => Servers::Many(Slots::new(seeds, dialer, config.timeout)),
        };
        Ok(Self { servers, keys: Keys::new(config.prefix.clone()) })
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
        match found {
            Value::Nil => Ok(()),
            Value::BulkString(found) if found == keys::SCHEMA.to_string().as_bytes() => Ok(()),
            Value::BulkString(found) => {
                match std::str::from_utf8(&found).ok().filter(|text| text.parse::<u32>().is_ok()) {
                    Some(text) => Err(RegistryError::Schema { found: text.to_owned(), ours: keys::SCHEMA }),
                    None => Err(error::foreign(&name, &found)),
                }
            }
            other => Err(error::foreign(&name, format!("{other:?}").as_bytes())),
        }
    }

    /// Sends one command; its answer.
    async fn one(&self, command: Command) -> Result<Value, RegistryError> {
        Ok(self.ask(vec![command]).await?.pop().unwrap_or_default())
    }

    /// Sends commands, those for one server in one piece; their answers in order. An error is the first refusal: the
    /// others may have been done.
    async fn ask(&self, commands: Vec<Command>) -> Result<Vec<Value>, RegistryError> {
        let mut answers = self.send(&commands).await?;
        for (command, answer) in commands.iter().zip(&mut answers) {
            if let (Value::ServerError(said), Some(full)) = (&*answer, &command.full)
                && error::sort(said) == Refusal::NoScript
            {
                let again = Command { keys: command.keys.clone(), cmd: full.clone(), full: None };
                *answer = self.send(&[again]).await?.pop().unwrap_or_default();
            }
        }
        for (command, answer) in commands.iter().zip(&answers) {
            if let Value::ServerError(said) = answer {
                if error::sort(said) == Refusal::WrongType {
                    return Err(self.wrong_type(command).await);
                }
                return Err(error::refused(said, |number| command.key(number)));
            }
        }
        Ok(answers)
    }

    async fn send(&self, commands: &[Command]) -> Result<Vec<Value>, RegistryError> {
        match &self.servers {
            Servers::One(link) => {
                let cmds: Vec<Cmd> = commands.iter().map(|command| command.cmd.clone()).collect();
                link.ask(&cmds).await
            }
            Servers::Many(slots) => slots.ask(commands).await,
        }
    }

    /// Names the key that holds another type than ours.
    async fn wrong_type(&self, command: &Command) -> RegistryError {
        let of = |key: &Key| Command::new("TYPE", key.clone());
        let types = match self.send(&command.keys.iter().map(of).collect::<Vec<_>>()).await {
            Ok(types) => types,
            Err(error) => return error,
        };
        for (key, found) in command.keys.iter().zip(types) {
            match found {
                Value::SimpleString(found) if found != key.kind.name() && found != "none" => {
                    let found = format!("a {found} instead of a {}", key.kind.name());
                    return RegistryError::Foreign { key: key.name.clone(), found };
                }
                _ => {}
            }
        }
        RegistryError::Foreign { key: command.key(1), found: "a value of another type".to_owned() }
    }
}
