//! Finding the master that Sentinel watches.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::Value;

use super::address::Target;
use super::dial::{Dialer, Login, Wire};
use super::{error, piece};
use crate::cluster::registry::RegistryError;

/// Some sentinels and the name they know the master by.
#[derive(Debug)]
pub(super) struct Sentinels {
    pub(super) targets: Vec<Target>,
    pub(super) master: String,
}

impl Sentinels {
    /// Connects to the master. All sentinels are asked at once, and each answer is followed to the server it names: the
    /// first that is a master wins. A dead sentinel delays nobody, one that has missed a failover misleads nobody.
    pub(super) async fn master(&self, dialer: &Dialer) -> Result<Wire, RegistryError> {
        let mut attempts: FuturesUnordered<_> =
            self.targets.iter().map(|sentinel| self.follow(sentinel, dialer)).collect();
        let mut failure = RegistryError::Unreachable("no sentinel is named".to_owned());
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok(wire) => return Ok(wire),
                // A refusal says more than a closed port.
                Err(error) if failure.is_passing() => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    async fn follow(&self, sentinel: &Target, dialer: &Dialer) -> Result<Wire, RegistryError> {
        let target = self.ask(sentinel, dialer).await?;
        let wire = dialer.dial(&target, Login::Yes).await?;
        let unreachable = |why: String| RegistryError::Unreachable(format!("{target}: {why}"));
        let mut answers =
            wire.ask(&piece([redis::cmd("ROLE")])).await.map_err(|error| unreachable(error.to_string()))?;
        match answers.pop() {
            Some(Value::Array(role)) if text(role.first()) == Some("master") => Ok(wire),
            Some(Value::ServerError(said)) => Err(error::refused(&said, |_| String::new())),
            _ => Err(unreachable("sentinel names it, but it is not a master".to_owned())),
        }
    }

    /// Asks one sentinel. It gets the password only when it asks for one: many have none, and refuse it then.
    async fn ask(&self, sentinel: &Target, dialer: &Dialer) -> Result<Target, RegistryError> {
        let mut refusal = None;
        for login in [Login::No, Login::Sentinel] {
            let wire = dialer.dial(sentinel, login).await?;
            let question = redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(&self.master).take();
            let answers = wire.ask(&piece([question])).await;
            let mut answers = answers.map_err(|error| RegistryError::Unreachable(format!("{sentinel}: {error}")))?;
            match answers.pop() {
                Some(Value::ServerError(said)) if said.code() == "NOAUTH" => refusal = Some(said),
                Some(Value::ServerError(said)) => return Err(error::login(&said, sentinel)),
                Some(Value::Array(address)) => {
                    if let [Some(host), Some(port)] = [text(address.first()), text(address.get(1))]
                        && let Ok(port) = port.parse()
                    {
                        return Ok(Target { host: host.to_owned(), port });
                    }
                    return Err(RegistryError::Unreachable(format!("{sentinel}: no address in the answer")));
                }
                _ => return Err(RegistryError::Refused(format!("{sentinel}: knows no master `{}`", self.master))),
            }
        }
        let refused = |said: redis::ServerError| error::login(&said, sentinel);
        Err(refusal.map_or_else(|| RegistryError::Unreachable(sentinel.to_string()), refused))
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok(),
        Some(Value::SimpleString(text)) => Some(text),
        Some(_) | None => None,
    }
}
