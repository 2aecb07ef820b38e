//! A gateway in small: what stands above a real [`Node`] here. It does in the order of the real one what the registry and
//! the other nodes can see of it, and nothing else: `src/gateway/connect.rs`, `src/gateway/disconnect.rs`,
//! `src/gateway/push.rs` and `src/gateway/peers.rs` are the models.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::super::node::{Attempt, Attempting, Local, Node};
use super::super::transport::{Described, Request, Response, Serve, Served};
use super::super::writes::Truth;
use super::super::{Delivered, DeliveryError, GroupName, Invocations};
use super::book::{Call, Client, End};
use super::process::Process;
use super::world::{World, short, tag};
use crate::clock::EpochMillis;
use crate::context::{ConnectionContext, Profile};
use crate::ids::{ApiId, ConnectionId, Incarnation, StageName};
use crate::message::Kind;
use crate::session::PushError;

struct Session {
    context: ConnectionContext,
    is_open: bool,
    groups: BTreeSet<GroupName>,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<ConnectionId, Session>,
    ledger: BTreeMap<ConnectionId, (u32, ConnectionContext)>,
    groups: BTreeMap<GroupName, BTreeSet<ConnectionId>>,
    next_slot: u32,
}

impl State {
    fn enter(&mut self, context: &ConnectionContext) {
        self.ledger.entry(context.id).or_insert_with(|| (0, context.clone())).0 += 1;
    }

    fn strike(&mut self, id: &ConnectionId) {
        let is_last = self.ledger.get_mut(id).is_some_and(|(count, _)| {
            *count -= 1;
            *count == 0
        });
        if is_last {
            self.ledger.remove(id);
        }
    }

    /// Ends a membership; whether it was the last here.
    fn leave(&mut self, group: &GroupName, id: &ConnectionId) -> bool {
        let Some(members) = self.groups.get_mut(group) else { return false };
        members.remove(id);
        let is_last = members.is_empty();
        if is_last {
            self.groups.remove(group);
        }
        is_last
    }
}

pub(super) struct Gateway {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
    node: OnceLock<Arc<Node>>,
    invocations: Invocations,
    state: Mutex<State>,
    handshakes: AtomicUsize,
    myself: Weak<Self>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gateway").field(&self.process.seat).finish()
    }
}

/// The one API there is.
pub(super) fn api() -> ApiId {
    ApiId::parse("a").unwrap()
}

impl Gateway {
    pub(super) fn new(world: Arc<World>, process: Arc<Process>, node: Arc<Node>) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            world,
            process,
            node: OnceLock::from(node),
            invocations: Invocations::default(),
            state: Mutex::default(),
            handshakes: AtomicUsize::new(0),
            myself: Weak::clone(myself),
        })
    }

    /// Whether nobody is connecting or connected, and every `$disconnect` is made.
    pub(super) fn is_empty(&self) -> bool {
        self.handshakes.load(Ordering::Relaxed) == 0 && self.connections().is_empty()
    }

    pub(super) fn node(&self) -> &Arc<Node> {
        self.node.get().unwrap()
    }

    fn context(&self, me: Incarnation) -> ConnectionContext {
        let mut state = self.state.lock();
        state.next_slot += 1;
        let number = self.world.chance.lock().number();
        let [secret @ .., _, _, _] = number.to_be_bytes();
        ConnectionContext {
            id: ConnectionId::from_parts(me, state.next_slot, secret),
            connected_at: EpochMillis(1),
            source_ip: Ipv4Addr::LOCALHOST.into(),
            profile: Arc::new(Profile {
                api: api(),
                stage: StageName::parse("s").unwrap(),
                domain_name: "d".into(),
                user_agent: None,
                caller: None,
                authorized: None,
            }),
        }
    }

    /// A client connects.
    pub(super) async fn connect(self: Arc<Self>) -> Option<ConnectionId> {
        self.process.gate().await;
        let me = self.node().me().filter(|_| !self.process.is_draining())?;
        let context = self.context(me);
        let id = context.id;
        self.world.book.lock().clients.insert(id, Client::default());
        let called = {
            let mut chance = self.world.chance.lock();
            let units = if chance.once_in(16) { 15.0 } else { 0.1 };
            self.world.units(chance.part() * units)
        };
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        sleep(called).await;
        self.process.gate().await;
        self.state.lock().enter(&context);
        self.handshakes.fetch_sub(1, Ordering::Relaxed);
        let is_announced = self.node().announce(&id).await;
        self.process.gate().await;
        if !is_announced {
            self.world.say(&format!("node {} refuses {}", self.process.seat, short(&id)));
            self.note_end(&id, End::Closed);
            self.finish(id);
            return None;
        }
        {
            let mut state = self.state.lock();
            state.sessions.insert(id, Session { context, is_open: true, groups: BTreeSet::new() });
            state.strike(&id);
        }
        self.world.say(&format!("{} is open", short(&id)));
        {
            let mut book = self.world.book.lock();
            book.count("connections");
            if let Some(client) = book.clients.get_mut(&id) {
                client.opened_at = Some(Instant::now());
            }
        }
        if self.node().me() != Some(me) || self.process.is_draining() {
            self.close(&id);
        }
        Some(id)
    }

    /// Clients that were sent away come back at once, and want to be members of what they were members of.
    async fn come_back(self: Arc<Self>, groups: Vec<GroupName>) {
        while self.node().me().is_none() {
            sleep(self.world.units(0.1)).await;
            self.process.gate().await;
        }
        for group in groups {
            if let Some(id) = Arc::clone(&self).connect().await {
                let _refused = self.ask(&id, Request::Join { id, group }).await;
            }
        }
    }

    fn note_end(&self, id: &ConnectionId, end: End) {
        if let Some(client) = self.world.book.lock().clients.get_mut(id) {
            client.ended.get_or_insert((Instant::now(), end));
        }
    }

    /// Begins to close a session; whether it was open.
    pub(super) fn close(&self, id: &ConnectionId) -> bool {
        let is_closing = match self.state.lock().sessions.get_mut(id) {
            Some(session) => std::mem::take(&mut session.is_open),
            None => false,
        };
        if let (true, Some(gateway)) = (is_closing, self.myself.upgrade()) {
            let id = *id;
            if let Some(client) = self.world.book.lock().clients.get_mut(&id) {
                client.is_closing = true;
            }
            // A client that does not answer the close frame is waited for.
            let closing = {
                let mut chance = self.world.chance.lock();
                let units = if chance.once_in(4) { 5.0 } else { 0.2 };
                self.world.units(chance.part() * units)
            };
            self.world.tasks.spawn("end", async move {
                sleep(closing).await;
                gateway.process.gate().await;
                gateway.ended(&id);
            });
        }
        is_closing
    }

    /// The session's end, told once.
    fn ended(&self, id: &ConnectionId) {
        let is_theirs = self.node().me() != Some(id.incarnation());
        let mut ended_groups = Vec::new();
        {
            let mut state = self.state.lock();
            let Some(session) = state.sessions.remove(id) else { return };
            if !is_theirs {
                state.enter(&session.context);
            }
            ended_groups.extend(session.groups.into_iter().filter(|group| state.leave(group, id)));
        }
        for group in ended_groups {
            self.node().group_ended(group);
        }
        self.world.say(&format!("{} has ended{}", short(id), if is_theirs { ", expelled" } else { "" }));
        self.note_end(id, if is_theirs { End::Expelled } else { End::Closed });
        if !is_theirs {
            self.finish(*id);
        }
    }

    /// The connection's own `$disconnect`, then its record goes.
    fn finish(&self, id: ConnectionId) {
        let Some(gateway) = self.myself.upgrade() else { return };
        self.world.tasks.spawn("disconnect", async move {
            gateway.process.gate().await;
            gateway.note_call(&id, None);
            gateway.back_end().await;
            gateway.process.gate().await;
            gateway.state.lock().strike(&id);
            gateway.node().retire(&id);
        });
    }

    /// As long as a back-end takes: mostly short, seldom longer than a claim lasts.
    async fn back_end(&self) {
        let time = {
            let mut chance = self.world.chance.lock();
            let units = match chance.below(32) {
                0 => 12.0,
                1..=4 => 6.0,
                _ => 0.3,
            };
            self.world.units(chance.part() * units)
        };
        sleep(time).await;
    }

    fn note_call(&self, id: &ConnectionId, by: Option<Incarnation>) {
        let who = by.map_or_else(|| "its own node".to_owned(), tag);
        self.world.say(&format!("$disconnect of {} by {who}", short(id)));
        let now = Instant::now();
        let objection = {
            let mut book = self.world.book.lock();
            book.count(if by.is_some() { "calls by survivors" } else { "calls by the own node" });
            let mut objection = by.and_then(|_| book.objection(id, self.world.config().claim_lapse));
            let claimed_at = book.claims.get(id).copied().unwrap_or(now);
            if let Some(client) = book.clients.get_mut(id) {
                if by.is_none() && client.calls.iter().any(|call| call.by.is_none()) {
                    objection = Some("is made twice by its own node");
                }
                let process = Arc::clone(&self.process);
                client.calls.push(Call { at: now, by, process, claimed_at, is_unfinished: false });
            }
            objection
        };
        if let Some(objection) = objection {
            self.world.broken(&format!("the `$disconnect` of {} {objection} (by {who})", short(id)));
        }
    }

    /// Asks for something about a connection, on whichever node it is.
    pub(super) async fn ask(&self, id: &ConnectionId, request: Request) -> Result<Response, DeliveryError> {
        self.process.gate().await;
        let answer = match self.here(id) {
            Ok(()) => Ok(match self.serve_here(request) {
                Served::Now(response) => response,
                Served::Later(response) => response.await,
            }),
            Err(Response::Gone) => Ok(Response::Gone),
            Err(_) => self.node().ask_owner(id, request).await,
        };
        self.process.gate().await;
        match answer {
            Ok(Response::Gone) => Err(DeliveryError::Gone),
            Ok(Response::Busy) => Err(DeliveryError::Unavailable),
            answer => answer,
        }
    }

    fn here(&self, id: &ConnectionId) -> Result<(), Response> {
        if self.state.lock().sessions.get(id).is_some_and(|session| session.is_open) {
            return Ok(());
        }
        Err(if self.node().me() == Some(id.incarnation()) { Response::Gone } else { Response::Busy })
    }

    fn push_here(&self, id: &ConnectionId, payload: &Bytes) -> Result<(), PushError> {
        if self.here(id).is_err() {
            return Err(PushError::Gone);
        }
        let text = String::from_utf8_lossy(payload).into_owned();
        if let Some(client) = self.world.book.lock().clients.get_mut(id) {
            client.received.push(text);
        }
        Ok(())
    }

    fn serve_here(&self, request: Request) -> Served {
        Served::Now(match request {
            Request::Push { id, payload, invocation, .. } => {
                let invocation = invocation.unwrap_or_default();
                if self.invocations.begin(invocation) {
                    match self.push_here(&id, &payload) {
                        Ok(()) => Response::Done,
                        Err(PushError::Gone | PushError::Full) => {
                            self.invocations.undo(invocation);
                            Response::Gone
                        }
                    }
                } else {
                    Response::Done
                }
            }
            Request::Describe { .. } => Response::Described(Described {
                connected_at: EpochMillis(1),
                last_active_at: EpochMillis(1),
                source_ip: Ipv4Addr::LOCALHOST.into(),
                user_agent: None,
            }),
            Request::Close { id, .. } => {
                if self.close(&id) {
                    Response::Done
                } else {
                    Response::Gone
                }
            }
            Request::Leave { id, group } => {
                let was_last = {
                    let mut state = self.state.lock();
                    let was_member = state.sessions.get_mut(&id).is_some_and(|session| session.groups.remove(&group));
                    was_member && state.leave(&group, &id)
                };
                if was_last {
                    self.node().group_ended(group);
                }
                Response::Done
            }
            Request::Join { id, group } => return self.join(&id, group),
            Request::SendToGroup { group, payload, .. } => Response::Delivered(self.send_here(&group, &payload)),
            Request::SendToAll { .. } | Request::Members { .. } | Request::List { .. } => Response::Busy,
        })
    }

    fn join(&self, id: &ConnectionId, group: GroupName) -> Served {
        let is_first = {
            let mut state = self.state.lock();
            let Some(session) = state.sessions.get_mut(id).filter(|session| session.is_open) else {
                return Served::Now(Response::Gone);
            };
            session.groups.insert(group.clone());
            let members = state.groups.entry(group.clone()).or_default();
            members.insert(*id) && members.len() == 1
        };
        let node = Arc::clone(self.node());
        if is_first {
            node.group_changed(group.clone());
        }
        Served::Later(Box::pin(async move {
            if node.is_group_unwritten(&group) {
                node.group_appeared(group).await;
            }
            Response::Done
        }))
    }

    fn send_here(&self, group: &GroupName, payload: &Bytes) -> Delivered {
        let mut delivered = Delivered::default();
        for id in self.members(group) {
            delivered.count(self.push_here(&id, payload));
        }
        delivered
    }

    /// Sends to a group on all nodes.
    pub(super) async fn send(&self, group: &GroupName, payload: &str) -> Delivered {
        self.process.gate().await;
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let mut result = self.send_here(group, &payload);
        let request = Request::SendToGroup { group: group.clone(), kind: Kind::Text, payload, except: None };
        result.add(self.node().fan_out(&request).await);
        self.process.gate().await;
        result
    }

    pub(super) fn members(&self, group: &GroupName) -> Vec<ConnectionId> {
        self.state.lock().groups.get(group).into_iter().flatten().copied().collect()
    }

    pub(super) fn sessions(&self) -> Vec<ConnectionId> {
        self.state.lock().sessions.keys().copied().collect()
    }
}

impl Serve for Gateway {
    fn serve(&self, request: Request) -> Served {
        let id = match &request {
            Request::Push { id, .. }
            | Request::Describe { id, .. }
            | Request::Close { id, .. }
            | Request::Join { id, .. }
            | Request::Leave { id, .. } => Some(*id),
            Request::SendToGroup { .. }
            | Request::SendToAll { .. }
            | Request::Members { .. }
            | Request::List { .. } => None,
        };
        match id.map_or(Ok(()), |id| self.here(&id)) {
            Ok(()) => self.serve_here(request),
            Err(response) => Served::Now(response),
        }
    }
}

impl Truth for Gateway {
    fn connection(&self, id: &ConnectionId) -> Option<ConnectionContext> {
        let state = self.state.lock();
        let open = state.sessions.get(id).map(|session| session.context.clone());
        open.or_else(|| state.ledger.get(id).map(|(_, context)| context.clone()))
    }

    fn has_members(&self, group: &GroupName) -> bool {
        self.state.lock().groups.contains_key(group)
    }
}

impl Local for Gateway {
    fn connections(&self) -> Vec<ConnectionId> {
        let state = self.state.lock();
        state.ledger.keys().chain(state.sessions.keys()).copied().collect()
    }

    fn groups(&self) -> Vec<GroupName> {
        self.state.lock().groups.keys().cloned().collect()
    }

    fn disconnect(&self, lost: ConnectionContext) -> Attempting {
        let Some(gateway) = self.myself.upgrade() else { return Box::pin(async { Attempt::NoStage }) };
        Box::pin(async move {
            gateway.process.gate().await;
            if gateway.world.chance.lock().once_in(50) {
                return Attempt::NoStage;
            }
            let by = gateway.world.book.lock().incarnation_of(&gateway.process);
            gateway.note_call(&lost.id, by);
            gateway.back_end().await;
            gateway.process.gate().await;
            Attempt::Made
        })
    }

    fn expel(&self, incarnation: Incarnation) {
        self.world.disturb(&format!("node {} finds itself dead as {}", self.process.seat, tag(incarnation)));
        if let Some(owner) = self.world.book.lock().owners.get_mut(&incarnation) {
            owner.is_expelled = true;
        }
        if let (Some(gateway), groups) = (self.myself.upgrade(), self.groups()) {
            self.world.tasks.spawn("come back", gateway.come_back(groups));
        }
        for id in self.sessions().iter().filter(|id| id.incarnation() == incarnation) {
            self.close(id);
        }
    }
}
