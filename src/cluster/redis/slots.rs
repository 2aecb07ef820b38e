//! A Redis Cluster: which server has which slot, and going on when slots move.
//!
//! The library's own Cluster client is not used: it holds every command back while it reconnects to one server, and cannot
//! split a batch. Here each server is a [`Link`] with its own connection and deadline, so a dead server costs only the
//! slots it has.
//!
//! While a slot moves, Redis runs no script whose keys do not all stand on one side: such a call is tried again for as long
//! as its deadline lets it, and is then an error that passes with the move.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::{Cmd, ServerError, Value};
use tokio::time::{Instant, timeout_at};

use super::address::Target;
use super::dial::Dialer;
use super::error;
use super::link::{Link, Place};
use super::{Command, piece};
use crate::cluster::registry::RegistryError;

/// Slots of a Cluster.
const SLOTS: u16 = 16_384;
/// Redirections one command follows.
const MOVES: usize = 5;
/// Pause before a command is tried again that met slots on the move or a Cluster in an election.
const PAUSE: Duration = Duration::from_millis(50);

/// The servers of a Cluster.
pub(super) struct Slots {
    seeds: Vec<Target>,
    dialer: Arc<Dialer>,
    deadline: Duration,
    /// Held for a look, never across an await.
    state: Mutex<State>,
    /// Held while the map is read anew, so that one command does it for all.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// By last slot: its range and who has it. Gaps belong to nobody.
    map: BTreeMap<u16, (u16, Target)>,
    /// Something did not fit: read it anew before the next use.
    is_stale: bool,
    /// When it was read last.
    read_at: Option<Instant>,
    links: BTreeMap<Target, Arc<Link>>,
}

impl Slots {
    pub(super) fn new(seeds: Vec<Target>, dialer: Arc<Dialer>, deadline: Duration) -> Self {
        Self { seeds, dialer, deadline, state: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Sends each command to the server that has its slot, those of one server in one piece; answers in order.
    pub(super) async fn ask(&self, commands: &[Command], until: Instant) -> Result<Vec<Value>, RegistryError> {
        timeout_at(until, self.spread(commands, until)).await.unwrap_or_else(|_| {
            self.doubt();
            Err(RegistryError::TimedOut(self.deadline))
        })
    }

    async fn spread(&self, commands: &[Command], until: Instant) -> Result<Vec<Value>, RegistryError> {
        self.refresh(until).await?;
        let mut shares: BTreeMap<Target, Vec<(usize, &Cmd)>> = BTreeMap::new();
        for (n, command) in commands.iter().enumerate() {
            shares.entry(self.owner(command.slot())?).or_default().push((n, &command.cmd));
        }
        let asked = shares.iter().map(|(target, share)| async {
            let commands = piece(share.iter().map(|(_, cmd)| (*cmd).clone()));
            self.link(target).ask(&commands, until).await
        });
        let mut answers = vec![Value::Nil; commands.len()];
        for (share, result) in shares.values().zip(join_all(asked).await) {
            // The server may be dead and its slots with another one already.
            let values = result.inspect_err(|_| self.doubt())?;
            for ((n, _), value) in share.iter().zip(values) {
                if let Some(answer) = answers.get_mut(*n) {
                    *answer = value;
                }
            }
        }
        // One after the other, so that writes to one record stay in order.
        for (command, answer) in commands.iter().zip(&mut answers) {
            if let Value::ServerError(said) = &*answer
                && is_elsewhere(said)
            {
                *answer = self.chase(command, said.clone(), until).await?;
            }
        }
        Ok(answers)
    }

    /// Follows redirections.
    async fn chase(&self, command: &Command, mut said: ServerError, until: Instant) -> Result<Value, RegistryError> {
        for _ in 0..MOVES {
            let (target, is_asking) = match (said.code(), destination(&said)) {
                ("ASK", Some(target)) => (target, true),
                ("MOVED", Some(target)) => {
                    self.moved(command.slot(), &target);
                    (target, false)
                }
                _ => {
                    tokio::time::sleep(PAUSE).await;
                    self.doubt();
                    self.refresh(until).await?;
                    (self.owner(command.slot())?, false)
                }
            };
            let link = self.link(&target);
            let mut values = if is_asking {
                link.ask(&piece([redis::cmd("ASKING"), command.cmd.clone()]), until).await?
            } else {
                link.ask(&piece([command.cmd.clone()]), until).await?
            };
            match values.pop() {
                Some(Value::ServerError(again)) if is_elsewhere(&again) => said = again,
                Some(Value::ServerError(again))
                    if is_asking && again.code() == "NOSCRIPT" && command.full.is_some() =>
                {
                    // The caller would send the whole script where it sent this; it belongs where the slot goes.
                    let full = command.full.clone().unwrap_or_default();
                    values = link.ask(&piece([redis::cmd("ASKING"), full]), until).await?;
                    match values.pop() {
                        Some(Value::ServerError(again)) if is_elsewhere(&again) => said = again,
                        value => return Ok(value.unwrap_or_default()),
                    }
                }
                value => return Ok(value.unwrap_or_default()),
            }
        }
        Ok(Value::ServerError(said))
    }

    fn owner(&self, slot: u16) -> Result<Target, RegistryError> {
        let state = self.state.lock();
        let range = state.map.range(slot..).next().map(|(_, range)| range).filter(|(first, _)| *first <= slot);
        range
            .map(|(_, target)| target.clone())
            .ok_or_else(|| RegistryError::Unreachable(format!("no server of the Cluster has slot {slot}")))
    }

    fn link(&self, target: &Target) -> Arc<Link> {
        let mut state = self.state.lock();
        let make = || Arc::new(Link::new(Place::At(target.clone()), Arc::clone(&self.dialer), self.deadline));
        Arc::clone(state.links.entry(target.clone()).or_insert_with(make))
    }

    /// The map does not fit: the next command reads it anew.
    fn doubt(&self) {
        self.state.lock().is_stale = true;
    }

    /// Notes that a slot has gone, and doubts the rest: slots move in crowds.
    fn moved(&self, slot: u16, to: &Target) {
        let mut state = self.state.lock();
        state.is_stale = true;
        let Some((last, (first, target))) = state.map.range(slot..).next().map(|(last, range)| (*last, range.clone()))
        else {
            return;
        };
        if first > slot || target == *to {
            return;
        }
        state.map.remove(&last);
        if first < slot {
            state.map.insert(slot - 1, (first, target.clone()));
        }
        if last > slot {
            state.map.insert(last, (slot + 1, target));
        }
        state.map.insert(slot, (slot, to.clone()));
    }

    /// Reads the map if there is none, or it is doubted. Without an answer a doubted one stays in use.
    async fn refresh(&self, until: Instant) -> Result<(), RegistryError> {
        let seen = {
            let state = self.state.lock();
            // Doubt is cheap to come by while a server is away: not every command reads the map then.
            let is_fresh = state.read_at.is_some_and(|at| at.elapsed() < PAUSE);
            if !state.map.is_empty() && (is_fresh || !state.is_stale) {
                return Ok(());
            }
            state.read_at
        };
        let _one = self.reading.lock().await;
        let known: Vec<Target> = {
            let state = self.state.lock();
            if state.read_at != seen {
                return Ok(());
            }
            state.links.keys().chain(&self.seeds).cloned().collect()
        };
        // All at once: a dead server delays nobody. A server cut off from the others says so, and is not listened to.
        let mut asked: FuturesUnordered<_> = known.iter().map(|target| self.read(target, until)).collect();
        let mut failure = RegistryError::Unreachable("no server of the Cluster is named".to_owned());
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(map) => {
                    drop(asked);
                    self.learn(map);
                    return Ok(());
                }
                Err(error) if failure.is_passing() => failure = error,
                Err(_) => {}
            }
        }
        if self.state.lock().map.is_empty() { Err(failure) } else { Ok(()) }
    }

    fn learn(&self, map: BTreeMap<u16, (u16, Target)>) {
        let mut state = self.state.lock();
        let State { map: current, links, is_stale, read_at } = &mut *state;
        links.retain(|target, _| self.seeds.contains(target) || map.values().any(|(_, owner)| owner == target));
        *current = map;
        *is_stale = false;
        *read_at = Some(Instant::now());
    }

    async fn read(&self, target: &Target, until: Instant) -> Result<BTreeMap<u16, (u16, Target)>, RegistryError> {
        let question = [redis::cmd("CLUSTER").arg("INFO").take(), redis::cmd("CLUSTER").arg("SLOTS").take()];
        let answers = self.link(target).ask(&piece(question), until).await?;
        let unfit = |why: &str| RegistryError::Unreachable(format!("{target}: {why}"));
        let mut answers = answers.into_iter();
        match answers.next() {
            Some(Value::ServerError(said)) if said.code() == "ERR" => {
                return Err(RegistryError::Refused(format!("{target}: it is no Cluster: use redis://")));
            }
            Some(Value::ServerError(said)) => return Err(error::refused(&said, |_| String::new())),
            Some(Value::BulkString(info)) if String::from_utf8_lossy(&info).contains("cluster_state:ok") => {}
            _ => return Err(unfit("the Cluster is down, it says")),
        }
        let map = match answers.next() {
            Some(Value::Array(ranges)) => ranges.iter().filter_map(|range| parse_range(range, target)).collect(),
            Some(Value::ServerError(said)) => return Err(error::refused(&said, |_| String::new())),
            _ => BTreeMap::new(),
        };
        if map.is_empty() { Err(unfit("it knows of no slots")) } else { Ok(map) }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

/// Whether another server has to be asked, or the same one later.
fn is_elsewhere(said: &ServerError) -> bool {
    matches!(said.code(), "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "READONLY" | "LOADING" | "MASTERDOWN")
}

/// Where `MOVED 3999 127.0.0.1:6381` leads to.
fn destination(said: &ServerError) -> Option<Target> {
    let address = said.details()?.split(' ').nth(1)?;
    let (host, port) = address.rsplit_once(':')?;
    Some(Target { host: host.to_owned(), port: port.parse().ok()? }).filter(|target| !target.host.is_empty())
}

/// One range of `CLUSTER SLOTS`: first, last, master, replicas. An unknown host is the one that was asked.
fn parse_range(range: &Value, asked: &Target) -> Option<(u16, (u16, Target))> {
    let number = |value: Option<&Value>| match value {
        Some(Value::Int(n)) => u16::try_from(*n).ok(),
        Some(_) | None => None,
    };
    let Value::Array(range) = range else { return None };
    let (first, last) = (number(range.first())?, number(range.get(1))?);
    let Some(Value::Array(master)) = range.get(2) else { return None };
    let host = match master.first() {
        Some(Value::BulkString(host)) if !host.is_empty() && host != b"?" => std::str::from_utf8(host).ok()?.to_owned(),
        Some(_) | None => asked.host.clone(),
    };
    (first <= last && last < SLOTS).then_some((last, (first, Target { host, port: number(master.get(1))? })))
}
