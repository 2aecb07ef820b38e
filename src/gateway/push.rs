//! A back-end reaches a connection, on whichever node it is: push, describe, close; groups and everybody.

use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::message::{join, leave};
use super::record::CallbackRecord;
use super::{Connection, Described, Gateway, LiveStage, rescue};
use crate::cluster::transport::{Invocation, Request, Response};
use crate::cluster::{Delivered, GroupName, Place, fan_out};
use crate::fault::{CloseReason, Fault};
use crate::ids::{self, ApiId, ConnectionId, IdError, RequestId};
use crate::message::Kind;
use crate::session::{Outgoing, Session};
use crate::telemetry::labels::{GroupResult, SentKind};

/// A message for a client, as a back-end posted it.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The body.
    pub body: Bytes,
    /// Whether the content type names bytes; heeded only where the API accepts binary frames.
    pub is_binary: bool,
}

impl Gateway {
    /// Puts a message into a connection's outbox, on whichever node it is.
    ///
    /// `Ok` means it is in the outbox of a live session; nothing stronger. `id` is the path segment as sent, `call` the
    /// SDK's name for the call through all its repetitions.
    ///
    /// # Errors
    /// In this order: [`Fault::PayloadTooLarge`], [`Fault::InvalidConnectionId`], [`Fault::Gone`] when it is proven gone,
    /// [`Fault::LimitExceeded`] when the client does not read (specification 6.4.5); [`Fault::Unavailable`] when its node
    /// cannot be asked.
    pub async fn push(
        &self,
        stage: &LiveStage,
        id: &str,
        pushed: Pushed,
        call: Option<&str>,
        request: RequestId,
    ) -> Result<(), Fault> {
        let record = CallbackRecord::new("POST /@connections/{connectionId}", 200, request).of(pushed.body.len());
        let ready = outgoing(stage, pushed).and_then(|outgoing| Ok((outgoing, parse(id)?)));
        let outcome = match ready {
            Ok((outgoing, id)) => Ok((id, self.push_to(Some(&stage.api), id, outgoing, call).await)),
            Err(fault) => Err(fault),
        };
        self.recorded(stage, record, outcome)
    }

    async fn push_to(
        &self,
        api: Option<&ApiId>,
        id: ConnectionId,
        outgoing: Outgoing,
        call: Option<&str>,
    ) -> Result<(), Fault> {
        let invocation = call.map(|call| ids::invocation(call, &id));
        match self.cluster.place(&id) {
            Place::Here(session) => self.push_here(api, &session, &outgoing, invocation),
            Place::Gone => Err(Fault::Gone),
            Place::Elsewhere => {
                let (kind, payload) = outgoing.into_parts();
                let request = Request::Push { id, api: api.cloned(), kind, payload, invocation };
                self.ask(&id, request).await.and_then(|answer| rescue::done(&answer))
            }
        }
    }

    /// The same on this node. A repeat of a call that was done is answered as the first was, and not done again.
    pub(super) fn push_here(
        &self,
        api: Option<&ApiId>,
        session: &Session<Connection>,
        outgoing: &Outgoing,
        invocation: Option<Invocation>,
    ) -> Result<(), Fault> {
        if api.is_some_and(|api| *api != session.stage().api) {
            return Err(Fault::Gone);
        }
        let Some(invocation) = invocation else { return session.push(outgoing).map_err(rescue::push) };
        if !self.invocations.begin(invocation) {
            self.metrics.pushes_repeated.inc();
            return Ok(());
        }
        session.push(outgoing).map_err(|error| {
            self.invocations.undo(invocation);
            rescue::push(error)
        })
    }

    /// Asks the node that owns a connection.
    async fn ask(&self, id: &ConnectionId, request: Request) -> Result<Response, Fault> {
        let Some(node) = self.cluster.node() else { return Err(Fault::Gone) };
        node.ask_owner(id, request).await.map_err(rescue::delivery)
    }

    /// Records a callback, whether it came as far as an id or not.
    fn recorded<T>(
        &self,
        stage: &LiveStage,
        record: CallbackRecord,
        outcome: Result<(ConnectionId, Result<T, Fault>), Fault>,
    ) -> Result<T, Fault> {
        let (id, outcome) = match outcome {
            Ok((id, outcome)) => (Some(id), outcome),
            Err(fault) => (None, Err(fault)),
        };
        self.record_callback(stage, &record.about(id), outcome.as_ref().err());
        outcome
    }

    /// Tells about a connection, on whichever node it is.
    ///
    /// # Errors
    /// [`Fault::InvalidConnectionId`], [`Fault::Gone`], [`Fault::Unavailable`].
    pub async fn describe(&self, stage: &LiveStage, id: &str, request: RequestId) -> Result<Described, Fault> {
        let outcome = match parse(id) {
            Ok(id) => Ok((id, self.describe_any(Some(&stage.api), id).await)),
            Err(fault) => Err(fault),
        };
        self.recorded(stage, CallbackRecord::new("GET /@connections/{connectionId}", 200, request), outcome)
    }

    async fn describe_any(&self, api: Option<&ApiId>, id: ConnectionId) -> Result<Described, Fault> {
        match self.cluster.place(&id) {
            Place::Here(session) => self.describe_here(api, &session),
            Place::Gone => Err(Fault::Gone),
            Place::Elsewhere => {
                let answer = self.ask(&id, Request::Describe { id, api: api.cloned() }).await?;
                if let Response::Described(described) = answer {
                    Ok(described)
                } else {
                    Err(rescue::unexpected(&answer))
                }
            }
        }
    }

    pub(super) fn describe_here(&self, api: Option<&ApiId>, session: &Session<Connection>) -> Result<Described, Fault> {
        if api.is_some_and(|api| *api != session.stage().api) {
            return Err(Fault::Gone);
        }
        let context = session.context();
        let last = self.cluster.hub.wall_time(session.last_data());
        Ok(Described {
            connected_at: context.connected_at,
            last_active_at: last.max(context.connected_at),
            source_ip: context.source_ip,
            user_agent: context.profile.user_agent.clone(),
        })
    }

    /// Closes a connection with 1000 `Connection Closed Normally`; from the return on it is gone.
    ///
    /// # Errors
    /// [`Fault::InvalidConnectionId`], [`Fault::Gone`], [`Fault::Unavailable`].
    pub async fn close(&self, stage: &LiveStage, id: &str, request: RequestId) -> Result<(), Fault> {
        let outcome = match parse(id) {
            Ok(id) => Ok((id, self.close_any(Some(&stage.api), id).await)),
            Err(fault) => Err(fault),
        };
        self.recorded(stage, CallbackRecord::new("DELETE /@connections/{connectionId}", 204, request), outcome)
    }

    async fn close_any(&self, api: Option<&ApiId>, id: ConnectionId) -> Result<(), Fault> {
        match self.cluster.place(&id) {
            Place::Here(session) => close_here(api, &session),
            Place::Gone => Err(Fault::Gone),
            Place::Elsewhere => {
                self.ask(&id, Request::Close { id, api: api.cloned() }).await.and_then(|answer| rescue::done(&answer))
            }
        }
    }

    /// Sends a message to a group's members.
    ///
    /// # Errors
    /// [`Fault::PayloadTooLarge`], [`Fault::InvalidGroup`].
    pub async fn send_to_group(
        &self,
        stage: &LiveStage,
        group: &str,
        pushed: Pushed,
        request: RequestId,
    ) -> Result<Delivered, Fault> {
        let bytes = pushed.body.len();
        let ready = outgoing(stage, pushed).and_then(|outgoing| Ok((outgoing, group_name(stage, group)?)));
        let outcome = match ready {
            Ok((outgoing, name)) => Ok(self.group_fan_out(name, outgoing, None).await),
            Err(fault) => Err(fault),
        };
        let record = CallbackRecord::new("POST /@groups/{group}", 200, request).of(bytes);
        self.record_callback(stage, &record, outcome.as_ref().err());
        outcome
    }

    /// Sends a message to every connection of the stage's API.
    ///
    /// # Errors
    /// [`Fault::PayloadTooLarge`].
    pub async fn send_to_all(&self, stage: &LiveStage, pushed: Pushed, request: RequestId) -> Result<Delivered, Fault> {
        let bytes = pushed.body.len();
        let outcome = match outgoing(stage, pushed) {
            Ok(outgoing) => {
                let (kind, payload) = outgoing.parts();
                let there = Request::SendToAll { api: stage.api.clone(), kind, payload };
                let sessions = self.sessions_of_api(&stage.api);
                Ok(self.fan_out(sessions.into(), outgoing, there).await)
            }
            Err(fault) => Err(fault),
        };
        let record = CallbackRecord::new("POST /@all", 200, request).of(bytes);
        self.record_callback(stage, &record, outcome.as_ref().err());
        outcome
    }

    pub(super) fn sessions_of_api(&self, api: &ApiId) -> Vec<Session<Connection>> {
        let mut sessions = self.cluster.hub.all();
        sessions.retain(|session| session.stage().api == *api);
        sessions
    }

    /// Sends to a group's members on every node.
    pub(super) async fn group_fan_out(
        &self,
        group: GroupName,
        outgoing: Outgoing,
        except: Option<ConnectionId>,
    ) -> Delivered {
        let members = self.members_but(&group, except.as_ref());
        let (kind, payload) = outgoing.parts();
        self.fan_out(members, outgoing, Request::SendToGroup { group, kind, payload, except }).await
    }

    /// A group's members on this node, one left out.
    pub(super) fn members_but(&self, group: &GroupName, except: Option<&ConnectionId>) -> Arc<[Session<Connection>]> {
        let members = self.cluster.groups.members(group);
        match except {
            Some(except) => members.iter().filter(|member| member.id() != except).cloned().collect(),
            None => members,
        }
    }

    /// Sends to the sessions here while the other nodes send to theirs; the result is the sum.
    async fn fan_out(&self, here: Arc<[Session<Connection>]>, outgoing: Outgoing, there: Request) -> Delivered {
        let outgoing = outgoing.for_many();
        let here = self.fan_out_here(&here, &outgoing);
        let Some(node) = self.cluster.node() else { return here.await };
        let (mut result, elsewhere) = tokio::join!(here, node.fan_out(&there));
        result.add(elsewhere);
        result
    }

    pub(super) async fn fan_out_here(&self, sessions: &[Session<Connection>], outgoing: &Outgoing) -> Delivered {
        let result = fan_out(sessions, outgoing).await;
        self.count_fan_out(result);
        result
    }

    /// Makes a connection a member of a group, on whichever node it is.
    ///
    /// # Errors
    /// [`Fault::InvalidGroup`], [`Fault::InvalidConnectionId`], [`Fault::Gone`], [`Fault::TooManyGroups`],
    /// [`Fault::Unavailable`].
    pub async fn add_to_group(&self, stage: &LiveStage, group: &str, id: &str) -> Result<(), Fault> {
        let name = group_name(stage, group)?;
        let id = parse(id)?;
        match self.cluster.place(&id) {
            Place::Here(session) => self.join_here(&session, &name).await,
            Place::Gone => Err(Fault::Gone),
            Place::Elsewhere => {
                self.ask(&id, Request::Join { id, group: name }).await.and_then(|answer| rescue::done(&answer))
            }
        }
    }

    /// Makes a session of this node a member; others know of it when this returns.
    pub(super) async fn join_here(&self, session: &Session<Connection>, name: &GroupName) -> Result<(), Fault> {
        if session.stage().api != name.api {
            return Err(Fault::Gone);
        }
        join(session, name)?;
        self.tell_of(name).await;
        Ok(())
    }

    /// Waits until the other nodes can know that a group has members here.
    pub(super) async fn tell_of(&self, name: &GroupName) {
        if let Some(node) = self.cluster.node().filter(|node| node.is_group_unwritten(name)) {
            node.group_appeared(name.clone()).await;
        }
    }

    /// Ends a connection's membership; fine when there was none.
    ///
    /// # Errors
    /// [`Fault::InvalidGroup`], [`Fault::InvalidConnectionId`], [`Fault::Gone`], [`Fault::Unavailable`].
    pub async fn remove_from_group(&self, stage: &LiveStage, group: &str, id: &str) -> Result<(), Fault> {
        let name = group_name(stage, group)?;
        let id = parse(id)?;
        match self.cluster.place(&id) {
            Place::Here(session) => leave_here(&session, &name),
            Place::Gone => Err(Fault::Gone),
            Place::Elsewhere => {
                self.ask(&id, Request::Leave { id, group: name }).await.and_then(|answer| rescue::done(&answer))
            }
        }
    }

    /// The members of a group on all nodes, by id, at most `limit` of those above `after`; and whether every node answered.
    ///
    /// # Errors
    /// [`Fault::InvalidGroup`].
    pub async fn group_members(
        &self,
        stage: &LiveStage,
        group: &str,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Result<Listing<ConnectionId>, Fault> {
        let group = group_name(stage, group)?;
        let mut items = self.members_here(&group, after, limit);
        let mut unreachable = Vec::new();
        if let Some(node) = self.cluster.node() {
            let request = Request::Members { group, after, limit: bounded(limit) };
            for (peer, response) in node.gather(&request).await {
                match response {
                    Some(Response::Ids(ids)) => items.extend(ids),
                    Some(_) | None => unreachable.push(peer.info.address.to_string()),
                }
            }
        }
        items.sort_unstable();
        items.dedup();
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Listing { items, more, unreachable })
    }

    /// A group's members on this node, by id; one more than `limit` says that there are more.
    pub(super) fn members_here(
        &self,
        group: &GroupName,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Vec<ConnectionId> {
        let members = self.cluster.groups.members(group);
        let mut ids: Vec<_> = members.iter().map(|session| *session.id()).collect();
        ids.retain(|id| after.is_none_or(|after| *id > after));
        ids.sort_unstable();
        ids.truncate(limit.saturating_add(1));
        ids
    }

    /// For the operator: puts a message into any connection's outbox.
    ///
    /// # Errors
    /// As [`Gateway::push`].
    pub async fn push_any(&self, id: &str, body: Bytes) -> Result<(), Fault> {
        let id = parse(id)?;
        let limits = match self.cluster.place(&id) {
            Place::Here(session) => session.stage().load().policy.limits,
            // Its owner frames it by its own stage.
            Place::Gone | Place::Elsewhere => crate::limits::Limits::default(),
        };
        self.push_to(None, id, Outgoing::lossy_text(body, limits.max_frame_bytes), None).await
    }

    /// For the operator: tells about any connection.
    ///
    /// # Errors
    /// As [`Gateway::describe`].
    pub async fn describe_one(&self, id: &str) -> Result<Described, Fault> {
        self.describe_any(None, parse(id)?).await
    }

    /// For the operator: closes any connection.
    ///
    /// # Errors
    /// As [`Gateway::close`].
    pub async fn close_one(&self, id: &str) -> Result<(), Fault> {
        self.close_any(None, parse(id)?).await
    }

    pub(super) fn count_fan_out(&self, result: Delivered) {
        let deliveries = &self.metrics.group_deliveries;
        deliveries.add(GroupResult::Delivered, result.delivered as u64);
        deliveries.add(GroupResult::Dropped, result.dropped as u64);
        deliveries.add(GroupResult::Gone, result.gone as u64);
        self.metrics.messages_sent.add(SentKind::Group, result.delivered as u64);
        self.metrics.outbox_dropped.inc_by(result.dropped as u64);
    }
}

/// A part of a listing over all nodes.
#[derive(Debug)]
pub struct Listing<T> {
    /// What was asked for, in order.
    pub items: Vec<T>,
    /// Whether there is more behind the last.
    pub more: bool,
    /// Nodes that did not answer, by address: theirs is missing.
    pub unreachable: Vec<String>,
}

/// A limit as it goes to other nodes: one more than asked, which tells that there is more.
pub(super) fn bounded(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

pub(super) fn close_here(api: Option<&ApiId>, session: &Session<Connection>) -> Result<(), Fault> {
    let is_its = api.is_none_or(|api| *api == session.stage().api);
    if is_its && session.close(&CloseReason::ClosedByApi) { Ok(()) } else { Err(Fault::Gone) }
}

pub(super) fn leave_here(session: &Session<Connection>, name: &GroupName) -> Result<(), Fault> {
    if session.stage().api != name.api {
        return Err(Fault::Gone);
    }
    leave(session, name);
    Ok(())
}

/// A connection id as a path carries it.
fn parse(segment: &str) -> Result<ConnectionId, Fault> {
    let text = percent_decode_str(segment).decode_utf8_lossy();
    ConnectionId::parse(&text).map_err(|error| match error {
        IdError::NeverIssued => Fault::Gone,
        IdError::Malformed => Fault::InvalidConnectionId(text.into_owned()),
    })
}

fn group_name(stage: &LiveStage, segment: &str) -> Result<GroupName, Fault> {
    let name = percent_decode_str(segment).decode_utf8().map_err(|_| Fault::InvalidGroup)?;
    GroupName::new(&stage.api, &name).ok_or(Fault::InvalidGroup)
}

fn outgoing(stage: &LiveStage, pushed: Pushed) -> Result<Outgoing, Fault> {
    let policy = stage.load().policy;
    if pushed.body.len() > policy.limits.max_message_bytes {
        return Err(Fault::PayloadTooLarge);
    }
    Ok(if pushed.is_binary && policy.accepts_binary {
        Outgoing::new(Kind::Binary, pushed.body, policy.limits.max_frame_bytes)
    } else {
        Outgoing::lossy_text(pushed.body, policy.limits.max_frame_bytes)
    })
}
