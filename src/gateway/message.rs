//! A client's message: select, invoke, map back, deliver.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::connection::Joined;
use super::record::{Finished, Ids};
use super::{Connection, Deployed, disconnect, rescue};
use crate::cluster::{Delivered, FAN_OUT_BATCH, GroupName, Node};
use crate::context::{Event, RequestContext};
use crate::definition::{Group, GroupAction, Integration, Ordering, Route};
use crate::fault::Fault;
use crate::ids::{MessageId, RequestId};
use crate::integration::{InvokeError, Outcome, mock};
use crate::message::{Kind, Message};
use crate::session::{ExchangePermit, Outgoing, Session, Turn};
use crate::tasks::guarded_future;

/// One message on its way to its integration, when that outlives the turn.
pub(super) struct Exchange {
    permit: ExchangePermit<Connection>,
    deployed: Arc<Deployed>,
    route: Arc<Route>,
    message: Message,
    message_id: MessageId,
    ids: Ids,
}

impl Exchange {
    /// Bytes of payload.
    pub(super) const fn len(&self) -> usize {
        self.message.len()
    }
}

/// A message arrived, in the session's turn: what can be answered at once is, the rest becomes a task.
pub(super) fn arrived(session: &Session<Connection>, message: Message, turn: &mut Turn<'_>) {
    let gateway = session.gateway();
    let deployed = session.live.load();
    let ids = Ids { request: RequestId::random(), time: gateway.clock.now() };
    let message_id = MessageId::random_for(&session.context.id);
    let context = RequestContext {
        connection: &session.context,
        request_id: ids.request,
        event: Event::Message(message_id),
        route_key: "",
        time: ids.time,
        stage_variables: &deployed.stage.variables,
    };
    let received = message.len();
    // select
    let (message, selected) = match message.kind() {
        Kind::Text => {
            let route = deployed.api.routes.select(&message).map(|found| found.target);
            (message, route)
        }
        // Handed on as base64, to `$default`: no expression can be evaluated on bytes.
        Kind::Binary => (Message::base64(STANDARD.encode(message.payload())), deployed.default_route.as_ref()),
    };
    let refused = |fault: Fault, ctx: &RequestContext<'_>, turn: &mut Turn<'_>| {
        turn.reply(fault.object(&session.context.id, &ids.request).as_bytes());
        let finished = Finished { received, ..Finished::fault(fault) };
        gateway.record(&session.live, &deployed, ctx, &finished);
    };
    if session.live.is_removed() {
        return refused(Fault::Internal, &context, turn);
    }
    let Some(route) = selected else { return refused(Fault::Forbidden, &context, turn) };
    let ctx = RequestContext { route_key: route.key.as_str(), ..context };
    let Some(integration) = &route.integration else { return refused(Fault::ApiConfiguration, &ctx, turn) };
    // invoke: now, if it waits for nobody
    let later = |message| Exchange {
        permit: session.begin_exchange(),
        deployed: Arc::clone(&deployed),
        route: Arc::clone(route),
        message,
        message_id,
        ids,
    };
    if route.ordering == Ordering::Serial {
        if let Some(first) = Connection::queue_serial(session, later(message)) {
            gateway.tasks.spawn("serial", run_serial(first));
        }
        return;
    }
    let done = match integration {
        Integration::Mock(mock) => came_to(integration, mock::invoke(mock, &ctx, &message)),
        Integration::Group(group) => match group_now(session, group, &message, Some(turn)) {
            Some(done) => done,
            None => return gateway.tasks.spawn("message", run(later(message))),
        },
        Integration::Http(_) | Integration::Lambda(_) => {
            return gateway.tasks.spawn("message", run(later(message)));
        }
    };
    // map back, deliver
    let finished = settle(done, route, &message, deployed.policy.limits.max_message_bytes);
    if let Some(text) = finished.text(&session.context.id, &ids.request) {
        turn.reply(&text);
    }
    gateway.record(&session.live, &deployed, &ctx, &finished);
}

/// What an integration came to; its body is still the route's to give or to keep.
fn came_to(integration: &Integration, outcome: Result<Outcome, InvokeError>) -> Finished {
    match outcome {
        Ok(outcome) => Finished { body: Some(outcome.body.clone()), ..Finished::outcome(integration, &outcome) },
        Err(error) => Finished { error: Some(rescue::chain(&error)), ..Finished::fault(rescue::integration(&error)) },
    }
}

fn answered(answer: String) -> Finished {
    Finished { body: Some(Bytes::from(answer)), ..Finished::status(200) }
}

/// A two-way route sends the body, a one-way route nothing; a fault is sent on both (specification 4.3.1, 5.2). An answer
/// beyond the message limit becomes a fault (5.2.4).
fn settle(mut finished: Finished, route: &Route, message: &Message, max_message_bytes: usize) -> Finished {
    if !route.two_way || finished.fault.is_some() {
        finished.body = None;
    } else if let Some(body) = finished.body.as_ref().filter(|body| body.len() > max_message_bytes) {
        let error = format!("the answer has {} bytes, a message {max_message_bytes} at most", body.len());
        let latency = finished.latency;
        finished = Finished { error: Some(error), latency, ..Finished::fault(Fault::IntegrationFailure) };
    }
    Finished { received: message.len(), ..finished }
}

/// Runs an exchange. A panic in it is one client's error, not the end of those that wait behind it.
async fn run(exchange: Exchange) {
    if guarded_future("message", serve(&exchange)).await.is_none() {
        let session = exchange.permit.session();
        let text = Fault::Internal.object(&session.context.id, &exchange.ids.request);
        let max_frame = exchange.deployed.policy.limits.max_frame_bytes;
        let _gone = session.answer(&Outgoing::lossy_text(Bytes::from(text), max_frame));
    }
}

/// Runs a connection's messages on serial routes one after the other, then the `$disconnect` that waited for them.
async fn run_serial(first: Exchange) {
    let session = first.permit.session().clone();
    let mut exchange = first;
    loop {
        run(exchange).await;
        exchange = match Connection::next_serial(&session) {
            Ok(next) => next,
            Err(Some(reason)) => return disconnect::finish(&session, &reason),
            Err(None) => return,
        };
    }
}

async fn serve(exchange: &Exchange) {
    let session = exchange.permit.session();
    let gateway = session.gateway();
    let ctx = RequestContext {
        connection: &session.context,
        request_id: exchange.ids.request,
        event: Event::Message(exchange.message_id),
        route_key: exchange.route.key.as_str(),
        time: exchange.ids.time,
        stage_variables: &exchange.deployed.stage.variables,
    };
    let done = match &exchange.route.integration {
        Some(integration @ Integration::Http(http)) => {
            came_to(integration, gateway.integrations.http(http, &ctx, &exchange.message).await)
        }
        Some(integration @ Integration::Lambda(lambda)) => {
            came_to(integration, gateway.integrations.lambda(lambda, &ctx, &exchange.message).await)
        }
        Some(integration @ Integration::Mock(mock)) => {
            came_to(integration, mock::invoke(mock, &ctx, &exchange.message))
        }
        Some(Integration::Group(group)) => match group_now(session, group, &exchange.message, None) {
            Some(done) => done,
            None => group_later(session, group, &exchange.message).await,
        },
        None => Finished::fault(Fault::ApiConfiguration),
    };
    let limits = exchange.deployed.policy.limits;
    let finished = settle(done, &exchange.route, &exchange.message, limits.max_message_bytes);
    if let Some(text) = finished.text(&session.context.id, &exchange.ids.request) {
        let text = match text {
            Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        };
        // If the client is gone by now its answer is dropped (specification 5.2.5); a full outbox has ended it.
        let _gone = session.answer(&Outgoing::lossy_text(text, limits.max_frame_bytes));
    }
    gateway.record(&session.live, &exchange.deployed, &ctx, &finished);
}

fn group_name(session: &Session<Connection>, group: &Group, message: &Message) -> Option<GroupName> {
    let name = group.name.evaluate(message).ok()?;
    GroupName::new(&session.live.api, &name)
}

/// What a member that joined is told.
const JOINED: &str = r#"{"joined":true}"#;

/// The part of a group integration that waits for nobody; `None` when the rest has to wait: a send has too many members
/// for a turn or may have some on other nodes, a join is not known to them yet.
/// With a `turn`, the session's own copy of a message stays behind what the turn has answered before.
fn group_now(
    session: &Session<Connection>,
    group: &Group,
    message: &Message,
    mut turn: Option<&mut Turn<'_>>,
) -> Option<Finished> {
    let Some(name) = group_name(session, group, message) else { return Some(Finished::fault(Fault::InvalidGroup)) };
    let gateway = session.gateway();
    match group.action {
        GroupAction::Join => {
            let joined = join(session, &name);
            // The first here: others hear of it through the registry, which takes a moment.
            let is_told = |node: &Arc<Node>| !node.is_group_unwritten(&name);
            if joined.is_ok() && !gateway.cluster.node().is_none_or(is_told) {
                return None;
            }
            Some(joined.map_or_else(Finished::fault, |()| answered(JOINED.to_owned())))
        }
        GroupAction::Leave => {
            let left = leave(session, &name);
            Some(answered(format!(r#"{{"left":{left}}}"#)))
        }
        GroupAction::Send => {
            let members = gateway.cluster.groups.members(&name);
            if members.len() > FAN_OUT_BATCH || gateway.cluster.node().is_some() {
                return None;
            }
            let outgoing = group_message(session, group, message).for_many();
            let mut result = Delivered::default();
            for member in members.iter() {
                match &mut turn {
                    _ if member.id() != session.id() => result.count(member.push(&outgoing)),
                    _ if group.exclude_sender => {}
                    None => result.count(member.push(&outgoing)),
                    Some(turn) => {
                        turn.push(&outgoing);
                        result.count(Ok(()));
                    }
                }
            }
            gateway.count_fan_out(result);
            Some(sent(result))
        }
    }
}

/// The part that waits: for the registry, for other nodes, for a long list of members.
async fn group_later(session: &Session<Connection>, group: &Group, message: &Message) -> Finished {
    let Some(name) = group_name(session, group, message) else { return Finished::fault(Fault::InvalidGroup) };
    let gateway = session.gateway();
    match group.action {
        GroupAction::Join => {
            gateway.tell_of(&name).await;
            answered(JOINED.to_owned())
        }
        GroupAction::Send => {
            let outgoing = group_message(session, group, message);
            let except = group.exclude_sender.then(|| *session.id());
            sent(gateway.group_fan_out(name, outgoing, except).await)
        }
        // Never waits.
        GroupAction::Leave => answered(format!(r#"{{"left":{}}}"#, leave(session, &name))),
    }
}

fn sent(result: Delivered) -> Finished {
    answered(serde_json::to_string(&result).unwrap_or_default())
}

fn group_message(session: &Session<Connection>, group: &Group, message: &Message) -> Outgoing {
    let max_frame = session.live.load().policy.limits.max_frame_bytes;
    let payload = match &group.message {
        None => message.payload().clone(),
        Some(selection) => selection
            .evaluate(message)
            .map_or_else(|_| message.payload().clone(), |text| Bytes::from(text.into_owned())),
    };
    Outgoing::lossy_text(payload, max_frame)
}

/// Makes a session a member of a group for as long as it lives.
pub(super) fn join(session: &Session<Connection>, name: &GroupName) -> Result<(), Fault> {
    let cluster = &session.gateway().cluster;
    match Connection::join(session, &cluster.groups, name) {
        Joined::First => {
            if let Some(node) = cluster.node() {
                node.group_changed(name.clone());
            }
            Ok(())
        }
        Joined::Now | Joined::Already => Ok(()),
        Joined::TooMany => Err(Fault::TooManyGroups),
        Joined::Gone => Err(Fault::Gone),
    }
}

/// Ends a membership; `false` when there was none.
pub(super) fn leave(session: &Session<Connection>, name: &GroupName) -> bool {
    let cluster = &session.gateway().cluster;
    let (was_member, was_last) = session.leave(&cluster.groups, name);
    if let (Some(node), true) = (cluster.node(), was_last) {
        node.group_ended(name.clone());
    }
    was_member
}
