//! A back-end reaches a connection: push, describe, close; groups and everybody.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::message::join;
use super::record::CallbackRecord;
use super::{Connection, Gateway, LiveStage, rescue};
use crate::clock::EpochMillis;
use crate::cluster::{Delivered, GroupName, fan_out};
use crate::fault::{CloseReason, Fault};
use crate::ids::{ConnectionId, IdError, RequestId};
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

/// What `GET @connections` tells (specification 6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// When the connection was made.
    pub connected_at: EpochMillis,
    /// Last data message in either direction.
    pub last_active_at: EpochMillis,
    /// The client's address.
    pub source_ip: IpAddr,
    /// Its `User-Agent`.
    pub user_agent: Option<Box<str>>,
}

impl Gateway {
    /// Puts a message into a connection's outbox.
    ///
    /// `Ok` means it is in the outbox of a live session; nothing stronger. `id` is the path segment as sent.
    ///
    /// # Errors
    /// In this order: [`Fault::PayloadTooLarge`], [`Fault::InvalidConnectionId`], [`Fault::Gone`] when it is proven gone,
    /// [`Fault::LimitExceeded`] when the client does not read (specification 6.4.5).
    pub fn push(&self, stage: &LiveStage, id: &str, pushed: Pushed, request: RequestId) -> Result<(), Fault> {
        let bytes = pushed.body.len();
        let outcome = outgoing(stage, pushed).and_then(|outgoing| {
            let id = parse(id)?;
            Ok((id, self.find(stage, &id).and_then(|session| session.push(&outgoing).map_err(rescue::push))))
        });
        self.recorded(stage, CallbackRecord::new("POST /@connections/{connectionId}", 200, request).of(bytes), outcome)
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

    /// Tells about a connection.
    ///
    /// # Errors
    /// [`Fault::InvalidConnectionId`], [`Fault::Gone`].
    pub fn describe(&self, stage: &LiveStage, id: &str, request: RequestId) -> Result<Described, Fault> {
        let outcome = parse(id).map(|id| (id, self.find(stage, &id).map(|session| self.tell(&session))));
        self.recorded(stage, CallbackRecord::new("GET /@connections/{connectionId}", 200, request), outcome)
    }

    fn tell(&self, session: &Session<Connection>) -> Described {
        let context = session.context();
        let last = self.cluster.hub.wall_time(session.last_data());
        Described {
            connected_at: context.connected_at,
            last_active_at: last.max(context.connected_at),
            source_ip: context.source_ip,
            user_agent: context.profile.user_agent.clone(),
        }
    }

    /// Closes a connection with 1000 `Connection Closed Normally`; from the return on it is gone.
    ///
    /// # Errors
    /// [`Fault::InvalidConnectionId`], [`Fault::Gone`].
    pub fn close(&self, stage: &LiveStage, id: &str, request: RequestId) -> Result<(), Fault> {
        let close = |session: Session<Connection>| {
            if session.close(&CloseReason::ClosedByApi) { Ok(()) } else { Err(Fault::Gone) }
        };
        let outcome = parse(id).map(|id| (id, self.find(stage, &id).and_then(close)));
        self.recorded(stage, CallbackRecord::new("DELETE /@connections/{connectionId}", 204, request), outcome)
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
            Ok((outgoing, name)) => Ok(self.fan_out(&self.cluster.groups.members(&name), &outgoing.for_many()).await),
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
                let mut sessions = self.cluster.hub.all();
                sessions.retain(|session| session.stage().api == stage.api);
                Ok(self.fan_out(&sessions, &outgoing.for_many()).await)
            }
            Err(fault) => Err(fault),
        };
        let record = CallbackRecord::new("POST /@all", 200, request).of(bytes);
        self.record_callback(stage, &record, outcome.as_ref().err());
        outcome
    }

    async fn fan_out(&self, sessions: &[Session<Connection>], outgoing: &Outgoing) -> Delivered {
        let result = fan_out(sessions, outgoing).await;
        self.count_fan_out(result);
        result
    }

    /// Makes a connection a member of a group.
    ///
    /// # Errors
    /// [`Fault::InvalidGroup`], [`Fault::InvalidConnectionId`], [`Fault::Gone`], [`Fault::TooManyGroups`].
    pub fn add_to_group(&self, stage: &LiveStage, group: &str, id: &str) -> Result<(), Fault> {
        let name = group_name(stage, group)?;
        join(&self.find(stage, &parse(id)?)?, &name)
    }

    /// Ends a connection's membership; fine when there was none.
    ///
    /// # Errors
    /// [`Fault::InvalidGroup`], [`Fault::InvalidConnectionId`], [`Fault::Gone`].
    pub fn remove_from_group(&self, stage: &LiveStage, group: &str, id: &str) -> Result<(), Fault> {
        let name = group_name(stage, group)?;
        let session = self.find(stage, &parse(id)?)?;
        session.leave(&self.cluster.groups, &name);
        Ok(())
    }

    /// The members of a group.
    ///
    /// # Errors
    /// [`Fault::InvalidGroup`].
    pub fn group_members(&self, stage: &LiveStage, group: &str) -> Result<Vec<ConnectionId>, Fault> {
        let members = self.cluster.groups.members(&group_name(stage, group)?);
        Ok(members.iter().map(|session| *session.id()).collect())
    }

    /// The live session of a connection of this stage's API: reachable through every stage of it (specification 6.1.4).
    fn find(&self, stage: &LiveStage, id: &ConnectionId) -> Result<Session<Connection>, Fault> {
        self.cluster.find(id).filter(|session| session.stage().api == stage.api).ok_or(Fault::Gone)
    }

    /// For the operator: any connection of the node, by its id.
    ///
    /// # Errors
    /// [`Fault::InvalidConnectionId`], [`Fault::Gone`].
    pub fn stage_of(&self, id: &str) -> Result<Arc<LiveStage>, Fault> {
        self.cluster.find(&parse(id)?).map(|session| Arc::clone(session.stage())).ok_or(Fault::Gone)
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
