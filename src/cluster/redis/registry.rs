//! The port, as commands and scripts.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;

use super::keys::{Key, SCHEMA};
use super::{Command, Redis, error, form, scripts};
use crate::cluster::GroupName;
use crate::cluster::registry::{
    Answer, Burial, Claim, Fate, Grave, Heartbeat, Listed, NodeInfo, Page, Peer, Registry, RegistryError, Renewal,
    Write,
};
use crate::ids::{ApiId, ConnectionId, Incarnation, random_bytes};

/// How many entries of a listing Redis is asked for at once. One that Redis keeps packed comes whole.
const PAGE: u32 = 256;
/// Commands of a batch that are sent in one piece: what others may have to wait for.
const BATCH: usize = 512;

/// Bytes of a connection id as text.
const ID_BYTES: usize = 16;

type Result<T> = std::result::Result<T, RegistryError>;

impl Registry for Redis {
    fn join<'a>(&'a self, info: &'a NodeInfo, lease: Duration) -> Answer<'a, Incarnation> {
        Box::pin(async move {
            let keys = &self.keys;
            let of = vec![keys.schema(), keys.dataset(), keys.beat(), keys.nodes(), keys.leases(), keys.tombs()];
            // At random and not counted: a counter that was rolled back would give what a living node already has.
            let first = Incarnation::new(u32::from_be_bytes(random_bytes())).get();
            let call = scripts::JOIN.on(of).arg(SCHEMA).arg(random_number()).arg(first);
            let (command, until) = (call.arg(&*form::write_node(info)).arg(millis(lease)).command(), self.deadline());
            let answer = self.ask(vec![command], until).await?.pop().unwrap_or_default();
            let incarnation = incarnation(&answer).ok_or_else(|| unfit(&keys.nodes(), &answer))?;
            self.warn_of_eviction(until).await;
            Ok(incarnation)
        })
    }

    fn renew<'a>(&'a self, me: Incarnation, info: &'a NodeInfo, lease: Duration) -> Answer<'a, Renewal> {
        Box::pin(async move {
            let keys = &self.keys;
            let of = vec![
                keys.schema(),
                keys.dataset(),
                keys.beat(),
                keys.nodes(),
                keys.leases(),
                keys.tombs(),
                keys.graves(),
            ];
            let call = scripts::RENEW.on(of).arg(SCHEMA).arg(random_number()).arg(me.get());
            let answer = self.one(call.arg(&*form::write_node(info)).arg(millis(lease)).command()).await?;
            if answer == Value::Nil { Ok(Renewal::Buried) } else { self.heartbeat(&answer).map(Renewal::Alive) }
        })
    }

    fn bury(&self, whom: Incarnation, lease: u64, dataset: u64) -> Answer<'_, Burial> {
        Box::pin(async move {
            let keys = &self.keys;
            let of = vec![keys.dataset(), keys.nodes(), keys.leases(), keys.tombs(), keys.graves()];
            let call = scripts::BURY.on(of).arg(dataset).arg(whom.get()).arg(lease);
            let answer = self.one(call.command()).await?;
            match bytes(&answer) {
                Some(b"buried") => Ok(Burial::Buried),
                Some(b"renewed") => Ok(Burial::Renewed),
                Some(b"changed") => Ok(Burial::Changed),
                Some(b"unlisted") => Ok(Burial::Unlisted),
                Some(_) | None => Err(unfit(&keys.leases(), &answer)),
            }
        })
    }

    fn leave(&self, me: Incarnation, records_left: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            let keys = &self.keys;
            let of = vec![keys.nodes(), keys.leases(), keys.tombs(), keys.graves()];
            let call = scripts::LEAVE.on(of).arg(me.get()).arg(u8::from(records_left));
            self.one(call.command()).await.map(drop)
        })
    }

    fn fate(&self, of: Incarnation) -> Answer<'_, Fate> {
        Box::pin(async move {
            let (nodes, tombs) = (self.keys.nodes(), self.keys.tombs());
            // In this order: one that is buried in between has its tombstone in the second answer.
            let node = Command::new("HGET", nodes.clone()).arg(of.get());
            let answers = self.ask(vec![node, Command::new("GETBIT", tombs).arg(of.get())], self.deadline()).await?;
            match answers.as_slice() {
                [_, Value::Int(1)] => Ok(Fate::Buried),
                [Value::BulkString(json), _] => {
                    Ok(Fate::Member(form::read_node(json).ok_or_else(|| error::foreign(&nodes.name, json))?))
                }
                _ => Ok(Fate::Unknown),
            }
        })
    }

    fn restore<'a>(&'a self, nodes: &'a [Peer], buried: &'a [Incarnation]) -> Answer<'a, ()> {
        Box::pin(async move {
            let keys = &self.keys;
            let of = vec![keys.beat(), keys.nodes(), keys.leases(), keys.tombs(), keys.graves()];
            let mut call = scripts::RESTORE.on(of).arg(nodes.len());
            for peer in nodes {
                call = call.arg(peer.incarnation.get()).arg(&*form::write_node(&peer.info));
            }
            for incarnation in buried {
                call = call.arg(incarnation.get());
            }
            self.one(call.command()).await.map(drop)
        })
    }

    fn write<'a>(&'a self, batch: &'a [Write]) -> Answer<'a, ()> {
        Box::pin(async move {
            let (first, then) = self.writes(batch);
            let until = self.deadline();
            for mut commands in [first, then] {
                while !commands.is_empty() {
                    let rest = commands.split_off(commands.len().min(BATCH));
                    let _counts = self.ask(std::mem::replace(&mut commands, rest), until).await?;
                }
            }
            Ok(())
        })
    }

    fn records(&self, of: Incarnation, bucket: u16, cursor: Option<u64>) -> Answer<'_, Page<ConnectionId>> {
        Box::pin(async move {
            let key = self.keys.records(of, bucket);
            let (next, found) = self.scan("HSCAN", &key, cursor).await?;
            // Fields and values take turns.
            let fields = found.iter().step_by(2);
            let ids = fields
                .map(|field| text(field).and_then(|id| ConnectionId::parse(id).ok()).ok_or_else(|| unfit(&key, field)));
            Ok(Page { items: ids.collect::<Result<_>>()?, next })
        })
    }

    fn claim(&self, id: ConnectionId, claimant: u64, lapse: Duration) -> Answer<'_, Claim> {
        Box::pin(async move {
            let record = self.keys.record(&id);
            let call = scripts::CLAIM.on(vec![record.clone(), self.keys.claim(&id)]);
            let answer = self.one(call.arg(&*id.text()).arg(claimant).arg(millis(lapse)).command()).await?;
            let Value::Array(parts) = &answer else { return Err(unfit(&record, &answer)) };
            match (parts.first().and_then(bytes), parts.get(1).and_then(bytes)) {
                (Some(b"missing"), _) => Ok(Claim::Missing),
                (Some(b"taken"), _) => Ok(Claim::Taken),
                (Some(b"yours"), Some(json)) => {
                    Ok(Claim::Yours(form::read_record(id, json).ok_or_else(|| error::foreign(&record.name, json))?))
                }
                _ => Err(unfit(&record, &answer)),
            }
        })
    }

    fn finish(&self, id: ConnectionId, claimant: u64) -> Answer<'_, bool> {
        Box::pin(async move {
            let call = scripts::FINISH.on(vec![self.keys.record(&id), self.keys.claim(&id)]);
            let answer = self.one(call.arg(&*id.text()).arg(claimant).command()).await?;
            Ok(answer == Value::Int(1))
        })
    }

    fn reopen(&self, of: Incarnation) -> Answer<'_, ()> {
        Box::pin(async move {
            let call = scripts::REOPEN.on(vec![self.keys.graves()]).arg(of.get());
            self.one(call.command()).await.map(drop)
        })
    }

    fn close_grave(&self, of: Incarnation) -> Answer<'_, ()> {
        Box::pin(async move { self.one(Command::new("HDEL", self.keys.graves()).arg(of.get())).await.map(drop) })
    }

    fn group_nodes<'a>(&'a self, group: &'a GroupName) -> Answer<'a, Vec<Incarnation>> {
        Box::pin(async move {
            let key = self.keys.group(group);
            // At most one member a node, so the whole of it is small.
            let answer = self.one(Command::new("SMEMBERS", key.clone())).await?;
            let Value::Array(members) = &answer else { return Err(unfit(&key, &answer)) };
            let mut found = members
                .iter()
                .map(|member| incarnation(member).ok_or_else(|| unfit(&key, member)))
                .collect::<Result<Vec<_>>>()?;
            found.sort_unstable();
            Ok(found)
        })
    }

    fn groups_of(&self, of: Incarnation, cursor: Option<u64>) -> Answer<'_, Page<GroupName>> {
        Box::pin(async move {
            let key = self.keys.groups_of(of);
            let (next, found) = self.scan("SSCAN", &key, cursor).await?;
            let groups = found.iter().map(|member| group(member).ok_or_else(|| unfit(&key, member)));
            Ok(Page { items: groups.collect::<Result<_>>()?, next })
        })
    }

    fn count<'a>(&'a self, counter: &'a str, amount: u64, period: Duration) -> Answer<'a, u64> {
        Box::pin(async move {
            let key = self.keys.counter(counter);
            let amount = i64::try_from(amount).unwrap_or(i64::MAX);
            let answer =
                self.one(scripts::COUNT.on(vec![key.clone()]).arg(amount).arg(millis(period)).command()).await?;
            number(&answer).ok_or_else(|| unfit(&key, &answer))
        })
    }
}

impl Redis {
    /// What to send first, and what to send once that is done. A group's presence of a node never stands without the
    /// index that leads a survivor to it: the index is written first and removed last.
    fn writes(&self, batch: &[Write]) -> (Vec<Command>, Vec<Command>) {
        let (mut first, mut then) = (Vec::with_capacity(batch.len()), Vec::new());
        // Of an entry and a leave of one node in one batch the last counts: split in two steps they would cross.
        let mut groups = BTreeMap::new();
        for write in batch {
            match write {
                Write::Put(context) => {
                    let record = form::write_record(context);
                    let put = Command::sized("HSET", self.keys.record(&context.id), record.len() + ID_BYTES);
                    first.push(put.arg(&*context.id.text()).arg(record));
                }
                Write::Remove(id) => first.push(Command::new("HDEL", self.keys.record(id)).arg(&*id.text())),
                Write::Enter(group, node) => drop(groups.insert((member(group), *node), (group, true))),
                Write::Leave(group, node) => drop(groups.insert((member(group), *node), (group, false))),
            }
        }
        for ((member, node), (group, enters)) in groups {
            let (index, presence) = (self.keys.groups_of(node), self.keys.group(group));
            if enters {
                first.push(Command::new("SADD", index).arg(member));
                then.push(Command::new("SADD", presence).arg(node.get()));
            } else {
                first.push(Command::new("SREM", presence).arg(node.get()));
                then.push(Command::new("SREM", index).arg(member));
            }
        }
        (first, then)
    }

    async fn scan(&self, name: &str, key: &Key, cursor: Option<u64>) -> Result<(Option<u64>, Vec<Value>)> {
        let command = Command::new(name, key.clone()).arg(cursor.unwrap_or(0)).arg("COUNT").arg(PAGE);
        let answer = self.one(command).await?;
        let Value::Array(parts) = &answer else { return Err(unfit(key, &answer)) };
        let [cursor, Value::Array(found)] = parts.as_slice() else { return Err(unfit(key, &answer)) };
        let next = number(cursor).ok_or_else(|| unfit(key, cursor))?;
        Ok((Some(next).filter(|next| *next != 0), found.clone()))
    }

    /// What a renewal answers: dataset, beat, whether the entry was new, now, nodes, leases, graves.
    fn heartbeat(&self, answer: &Value) -> Result<Heartbeat> {
        let keys = &self.keys;
        let Value::Array(parts) = answer else { return Err(unfit(&keys.nodes(), answer)) };
        let [dataset, beat, reentered, now, nodes, leases, graves] = parts.as_slice() else {
            return Err(unfit(&keys.nodes(), answer));
        };
        let read = |key: Key, value: &Value| number(value).ok_or_else(|| unfit(&key, value));
        let now = read(keys.beat(), now)?;
        let leases = fields(&keys.leases(), leases, |lease| {
            let (expiry, token) = std::str::from_utf8(lease).ok()?.split_once(':')?;
            Some((expiry.parse::<u64>().ok()?, token.parse::<u64>().ok()?))
        })?;
        let nodes = fields(&keys.nodes(), nodes, form::read_node)?;
        let listed = nodes.into_iter().map(|(incarnation, info)| {
            let (expiry, lease) = leases.get(&incarnation).copied().unwrap_or_default();
            Listed { peer: Peer { incarnation, info }, lease, expired: expiry <= now }
        });
        let graves = fields(&keys.graves(), graves, |time| std::str::from_utf8(time).ok()?.parse::<u64>().ok())?;
        let grave = |(incarnation, time)| Grave { incarnation, age: Duration::from_millis(now.saturating_sub(time)) };
        Ok(Heartbeat {
            dataset: read(keys.dataset(), dataset)?,
            beat: read(keys.beat(), beat)?,
            reentered: *reentered == Value::Int(1),
            way: self.dialer.made(),
            nodes: listed.collect(),
            graves: graves.into_iter().map(grave).collect(),
        })
    }
}

/// A hash whose fields are incarnations.
fn fields<T>(key: &Key, value: &Value, read: impl Fn(&[u8]) -> Option<T>) -> Result<BTreeMap<Incarnation, T>> {
    let Value::Array(flat) = value else { return Err(unfit(key, value)) };
    flat.chunks_exact(2)
        .map(|pair| match pair {
            [field, value] => incarnation(field)
                .and_then(|incarnation| Some((incarnation, read(bytes(value)?)?)))
                .ok_or_else(|| unfit(key, value)),
            _ => Err(unfit(key, value)),
        })
        .collect()
}

fn bytes(value: &Value) -> Option<&[u8]> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}

fn text(value: &Value) -> Option<&str> {
    std::str::from_utf8(bytes(value)?).ok()
}

fn number(value: &Value) -> Option<u64> {
    if let Value::Int(number) = value { u64::try_from(*number).ok() } else { text(value)?.parse().ok() }
}

fn incarnation(value: &Value) -> Option<Incarnation> {
    let number = u32::try_from(number(value)?).ok()?;
    Some(Incarnation::new(number)).filter(|incarnation| incarnation.get() == number)
}

/// A group as it stands in the index: no name of an API has a colon.
fn member(group: &GroupName) -> String {
    format!("{}:{}", group.api, group.name)
}

fn group(member: &Value) -> Option<GroupName> {
    let (api, name) = text(member)?.split_once(':')?;
    GroupName::new(&ApiId::parse(api).ok()?, name)
}

/// A value under a key of ours that is not in a form of ours.
fn unfit(key: &Key, value: &Value) -> RegistryError {
    match bytes(value) {
        Some(found) => error::foreign(&key.name, found),
        None => error::foreign(&key.name, format!("{value:?}").as_bytes()),
    }
}

fn random_number() -> u64 {
    u64::from_be_bytes(random_bytes())
}

fn millis(duration: Duration) -> u64 {
    // Redis takes no lifetime of nothing, and its own arithmetic ends at 2^63.
    duration.as_millis().clamp(1, 1 << 52) as u64
}
