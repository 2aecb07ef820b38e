//! What is promised, checked: while a history runs, where it can be seen at once, and when everything is quiet again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::super::node::{Health, Local as _};
use super::super::registry::{BUCKETS, Renewal};
use super::super::transport::Request;
use super::super::{DeliveryError, GroupName};
use super::book::{Book, Client, End, Owner};
use super::gateway::Gateway;
use super::history::{answer, groups};
use super::world::{World, short, tag};
use crate::ids::{ConnectionId, Incarnation, invocation};
use crate::message::Kind;

/// Units until everything has to be quiet: the graves' age, and what comes before and after it.
const PATIENCE: usize = 300;

/// *Gone* was answered: then it was gone, or its node was.
pub(super) fn check_gone(world: &World, id: &ConnectionId, asked_at: Instant, error: Option<&DeliveryError>) {
    if error != Some(&DeliveryError::Gone) {
        return;
    }
    let is_false = {
        let mut book = world.book.lock();
        book.count("answers of gone");
        let was_open = |client: &Client| client.is_live() && client.opened_at.is_some_and(|at| at < asked_at);
        book.clients.get(id).is_some_and(was_open) && !book.is_buried(id.incarnation())
    };
    if is_false {
        world.broken(&format!("{} lives on a node without tombstone, and is said to be gone", short(id)));
    }
}

/// Whom a message for a group has to get to: those whose join the others can know of. One whose group is not written yet has
/// no answer yet either.
fn members(world: &World, group: &GroupName) -> BTreeSet<ConnectionId> {
    let book = world.book.lock();
    let known = world.network.listeners().into_iter().filter(|gateway| !gateway.node().is_group_unwritten(group));
    let all = known.flat_map(|gateway| gateway.members(group));
    // Those of a node that was declared dead wait for nothing but their end.
    let is_there =
        |id: &ConnectionId| book.clients.get(id).is_some_and(Client::is_live) && !book.is_buried(id.incarnation());
    all.filter(is_there).collect()
}

/// Sends to a group, and looks who got it.
pub(super) async fn send(gateway: &Arc<Gateway>, group: &GroupName) {
    let world = &gateway.world;
    let payload = format!("to {} {}", group.name, world.chance.lock().number());
    let (asked_at, before) = (Instant::now(), members(world, group));
    let result = gateway.send(group, &payload).await;
    let after = members(world, group);
    let (got, calm) = {
        let mut book = world.book.lock();
        book.count("messages for a group");
        let got = |client: &&Client| client.received.contains(&payload);
        let count = book.clients.values().filter(got).count();
        let missed =
            |id: &&ConnectionId| book.clients.get(id).is_some_and(|client| !client.received.contains(&payload));
        let missed: Vec<String> = before.intersection(&after).filter(missed).map(short).collect();
        (count, missed)
    };
    if result.delivered > got || (result.unreachable == 0 && result.delivered != got) {
        world.broken(&format!("{payload:?} is said to have got to {result:?}, and got to {got}"));
    }
    // Two leases: what was away has come back, and everybody had a lease's time to say what it has.
    let since = asked_at.checked_sub(world.units(22.0)).unwrap_or(asked_at);
    if world.is_calm_since(since) {
        world.book.lock().count("messages for a group while all was calm");
        // A fault may last longer than that, but whom it keeps away is counted.
        let is_healed = world.book.lock().is_healed;
        if !calm.is_empty() && (is_healed || result.unreachable == 0) {
            world.broken(&format!("{payload:?} did not get to {calm:?} ({result:?})"));
        }
    }
}

/// Waits until nothing is left to do, and checks what then must be so.
pub(super) async fn when_quiet(world: &Arc<World>) {
    sleep(world.units(22.0)).await;
    let mut left = String::new();
    for _ in 0..PATIENCE {
        left = match unsettled(world).await {
            None => break,
            Some(left) => left,
        };
        sleep(world.units(1.0)).await;
    }
    if !left.is_empty() && unsettled(world).await.is_some() {
        world.broken(&format!("it does not become quiet: {left}"));
        return;
    }
    check_book(world);
    check_service(world).await;
}

/// Something that is not yet as it must be in the end.
async fn unsettled(world: &World) -> Option<String> {
    let gateways = world.network.listeners();
    let living: BTreeSet<Incarnation> = gateways.iter().filter_map(|gateway| gateway.node().me()).collect();
    if living.is_empty() || living.len() != gateways.len() {
        return Some("a node is not there yet".to_owned());
    }
    for gateway in &gateways {
        let node = gateway.node();
        let others: BTreeSet<Incarnation> = node.others().iter().map(|(peer, _)| peer.incarnation).collect();
        let expected: BTreeSet<Incarnation> =
            living.iter().copied().filter(|other| Some(*other) != node.me()).collect();
        if gateway.process.is_draining() || node.health() != Health::Settled || node.unwritten() > 0 {
            return Some(format!("node {} has something to do", gateway.process.seat));
        }
        if others != expected {
            return Some(format!("node {} takes {others:?} for the others, not {expected:?}", gateway.process.seat));
        }
        if gateway.connections().len() != gateway.sessions().len() {
            return Some(format!("node {} has a `$disconnect` to make", gateway.process.seat));
        }
    }
    let registry = &world.backing.registry;
    let first = gateways.first()?.node();
    let lease = world.config().lease;
    match registry.renew(first.me()?, first.info(), lease).await {
        Ok(Renewal::Alive(heartbeat)) => {
            let listed: BTreeSet<Incarnation> = heartbeat.nodes.iter().map(|node| node.peer.incarnation).collect();
            if listed != living || !heartbeat.graves.is_empty() {
                return Some(format!("listed are {listed:?}, graves are {:?}", heartbeat.graves));
            }
        }
        other => return Some(format!("the registry says {other:?}")),
    }
    let mut live: BTreeSet<ConnectionId> = gateways.iter().flat_map(|gateway| gateway.sessions()).collect();
    let owners: Vec<Incarnation> = {
        let book = world.book.lock();
        book.owners.iter().filter(|(_, owner)| !owner.is_forgotten()).map(|(incarnation, _)| *incarnation).collect()
    };
    for owner in owners {
        for bucket in 0..BUCKETS {
            let mut cursor = None;
            loop {
                let Ok(page) = registry.records(owner, bucket, cursor).await else {
                    return Some("no records".to_owned());
                };
                if let Some(id) = page.items.iter().find(|id| !live.remove(id)) {
                    return Some(format!("the record of {} is left", short(id)));
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
    }
    if let Some(id) = live.first() {
        return Some(format!("{} is live and has no record", short(id)));
    }
    for group in groups() {
        let Ok(mut listed) = registry.group_nodes(&group).await else { return Some("no groups".to_owned()) };
        listed.retain(|of| !world.book.lock().owners.get(of).is_some_and(Owner::is_forgotten));
        let has_members = |gateway: &&Arc<Gateway>| !gateway.members(&group).is_empty();
        let having: BTreeSet<_> =
            gateways.iter().filter(has_members).filter_map(|gateway| gateway.node().me()).collect();
        if listed.iter().copied().collect::<BTreeSet<_>>() != having {
            return Some(format!("{} is listed at {listed:?}, and has members at {having:?}", group.name));
        }
    }
    None
}

/// What the book must say in the end.
fn check_book(world: &World) {
    let book = world.book.lock().clone();
    for (id, client) in &book.clients {
        let mut say = |what: &str| world.broken(&format!("{}: {what}", short(id)));
        if let Some(owner) = book.owners.get(&id.incarnation()) {
            check_end(client, owner, &mut say);
        }
        check_messages(client, &mut say);
    }
    check_first_calls(world, &book);
}

/// Every end has its `$disconnect`, as often as promised.
fn check_end(client: &Client, owner: &Owner, say: &mut impl FnMut(&str)) {
    let Some((_, end)) = client.ended else {
        if !client.calls.is_empty() {
            say("is live and had its `$disconnect`");
        }
        return;
    };
    let lived = owner.died_at.is_none() && !owner.is_expelled || owner.left == Some(false);
    if lived && end == End::Closed {
        if client.calls.len() != 1 && !client.came_back {
            say(&format!("has ended on a node that lived, and had {} `$disconnect` calls", client.calls.len()));
        }
    } else if client.was_registered && !client.is_lost && !owner.is_forgotten() && client.calls.is_empty() {
        say("was registered and its node is dead, and it never had its `$disconnect`");
    }
}

/// What was answered 200 is there, once, in order.
fn check_messages(client: &Client, say: &mut impl FnMut(&str)) {
    let mut seen = BTreeMap::new();
    for (n, message) in client.received.iter().enumerate() {
        if seen.insert(message, n).is_some() {
            say(&format!("got {message:?} twice"));
        }
    }
    let mut last: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for message in &client.promised {
        let Some(at) = seen.get(message) else {
            say(&format!("did not get {message:?}, which was answered 200"));
            continue;
        };
        let caller = message.split(':').next().unwrap_or_default();
        if let Some((before, earlier)) = last.insert(caller, (*at, message)).filter(|(before, _)| before > at) {
            say(&format!("got {earlier:?} (at {before}) after {message:?} (at {at})"));
        }
    }
}

/// The first `$disconnect` of those whose node crashed comes within a lease and five units, if nothing else was wrong.
fn check_first_calls(world: &World, book: &Book) {
    let (before, limit) = (world.units(25.0), world.units(15.0));
    for crash in &book.crashes {
        let from = crash.at.checked_sub(before).unwrap_or(crash.at);
        let is_other = |at: &&Instant| **at != crash.at && **at >= from && **at <= crash.at + limit;
        let is_disturbed = book.disturbed.iter().any(|at| is_other(&at));
        let is_alone = !book.owners.values().any(|owner| {
            owner.joined_at < from && owner.died_at.is_none_or(|at| at > crash.at + limit) && !owner.is_expelled
        });
        let has_left = book.owners.get(&crash.incarnation).is_none_or(|owner| owner.left.is_some());
        if crash.left.is_empty() || is_disturbed || is_alone || has_left {
            continue;
        }
        world.book.lock().count("crashes with nothing else wrong");
        let calls = crash.left.iter().filter_map(|id| book.clients.get(id)).flat_map(|client| &client.calls);
        let first = calls.map(|call| call.at).min();
        if first.is_none_or(|first| first > crash.at + limit) {
            let after = first.map(|first| first - crash.at);
            world.broken(&format!("{} crashed; the first `$disconnect` came after {after:?}", tag(crash.incarnation)));
        }
    }
}

/// Everything works again, from every node.
async fn check_service(world: &Arc<World>) {
    let book = world.book.lock().clone();
    for gateway in world.network.listeners() {
        for (n, (id, client)) in book.clients.iter().enumerate() {
            let payload = format!("last {} {n}", gateway.process.seat);
            let request = Request::Push {
                id: *id,
                api: None,
                kind: Kind::Text,
                payload: Bytes::copy_from_slice(payload.as_bytes()),
                invocation: Some(invocation(&payload, id)),
            };
            let answered = gateway.ask(id, request).await;
            let got = world.book.lock().clients.get(id).is_some_and(|client| client.received.contains(&payload));
            let is_right = match &answered {
                Ok(_) => client.is_live() && got,
                Err(DeliveryError::Gone) => !client.is_live(),
                // Tombstones may have been lost with the registry's data, if nobody was left who remembered them.
                Err(DeliveryError::Unavailable) => !client.is_live() && book.data_lost_at.is_some(),
            };
            if !is_right {
                let seat = gateway.process.seat;
                world.broken(&format!("in the end a push from node {seat} finds {}", answer(id, &answered)));
            }
        }
        for group in groups() {
            send(&gateway, &group).await;
        }
    }
}
