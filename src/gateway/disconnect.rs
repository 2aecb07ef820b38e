//! A client is gone: the connection is forgotten at once, then `$disconnect` is attempted, once; its record in the registry
//! goes after that. The connections of a dead node get theirs here too.

use std::sync::Arc;

use super::connect::disconnect_context;
use super::record::{Finished, Ids};
use super::{Connection, Deployed, Gateway, LiveStage, rescue};
use crate::cluster::Attempt;
use crate::context::ConnectionContext;
use crate::definition::Integration;
use crate::fault::{CloseReason, Fault};
use crate::ids::RequestId;
use crate::integration::mock;
use crate::message::Message;
use crate::session::Session;

/// The session's end, told by the engine exactly once: pushes get *gone* from here on, memberships end, and the
/// `$disconnect` exchange starts, behind the last message of a serial route if one runs.
pub(super) fn ended(session: &Session<Connection>, reason: &CloseReason) {
    let connection: &Connection = session;
    let gateway = connection.gateway();
    let node = gateway.cluster.node();
    // The others took this node for dead: the `$disconnect` is theirs to run, if there is a record to run it from.
    let is_theirs = node.is_some_and(|node| !node.owes_disconnect(&connection.context.id));
    if node.is_some_and(|node| node.me() == Some(connection.context.id.incarnation())) {
        gateway.ledger.enter(&connection.context);
    }
    gateway.cluster.hub.forget(&connection.context.id);
    for group in connection.take_groups() {
        let was_last = gateway.cluster.groups.leave(&group, &connection.context.id);
        if let (Some(node), true) = (node, was_last) {
            node.group_ended(group);
        }
    }
    gateway.metrics.session_ended(reason);
    if is_theirs {
        return gateway.addresses.leave(connection.context.source_ip);
    }
    if !connection.defer_end(reason) {
        finish(connection, reason);
    }
}

/// Gives the client's place back and runs the `$disconnect` exchange.
pub(super) fn finish(connection: &Connection, reason: &CloseReason) {
    let gateway = connection.gateway();
    gateway.addresses.leave(connection.context.source_ip);
    let end = End {
        context: connection.context.clone(),
        live: Arc::clone(&connection.live),
        gateway: Arc::clone(gateway),
        deployed: Arc::clone(&connection.live.load()),
        ids: Ids { request: RequestId::of_end(&connection.context.id), time: gateway.clock.now() },
        reason: reason.clone(),
    };
    if end.waits() {
        gateway.tasks.spawn("disconnect", async move {
            // Never closed, so this waits at most until the ones before are answered or timed out.
            let turns = Arc::clone(&end.gateway.disconnects);
            let _turn = turns.acquire().await;
            end.call().await;
            end.settled();
        });
    } else {
        end.now();
        end.settled();
    }
}

/// The `$disconnect` of a connection whose node died, with what its record says of it. The pace is the caller's.
pub(super) async fn attempt_for_lost(gateway: &Arc<Gateway>, lost: ConnectionContext) -> Attempt {
    let Some(live) = gateway.live_stage(&lost.profile.api, &lost.profile.stage) else { return Attempt::NoStage };
    let end = End {
        ids: Ids { request: RequestId::of_end(&lost.id), time: gateway.clock.now() },
        context: lost,
        deployed: Arc::clone(&live.load()),
        live,
        gateway: Arc::clone(gateway),
        reason: CloseReason::NodeLost,
    };
    gateway.metrics.session_ended(&CloseReason::NodeLost);
    if end.waits() {
        end.call().await;
    } else {
        end.now();
    }
    Attempt::Made
}

/// A `$disconnect` exchange on its way, free of the session it is about.
struct End {
    context: ConnectionContext,
    live: Arc<LiveStage>,
    gateway: Arc<Gateway>,
    deployed: Arc<Deployed>,
    ids: Ids,
    reason: CloseReason,
}

impl End {
    fn integration(&self) -> Option<&Integration> {
        self.deployed.api.disconnect.as_ref().and_then(|route| route.integration.as_ref())
    }

    fn waits(&self) -> bool {
        matches!(self.integration(), Some(Integration::Http(_) | Integration::Lambda(_)))
    }

    /// What waits for nobody.
    fn now(&self) {
        let ctx = disconnect_context(&self.context, &self.deployed, self.ids, &self.reason);
        let finished = match self.integration() {
            Some(Integration::Mock(mock)) => match mock::invoke(mock, &ctx, &Message::from_string("")) {
                Ok(outcome) => Finished::status(outcome.status),
                Err(error) => {
                    Finished { error: Some(rescue::chain(&error)), ..Finished::fault(rescue::integration(&error)) }
                }
            },
            // Nothing to call; the line in the access log is still written (specification 2.2.3).
            Some(Integration::Group(_) | Integration::Http(_) | Integration::Lambda(_)) | None => Finished::status(200),
        };
        self.gateway.record(&self.live, &self.deployed, &ctx, &finished);
    }

    async fn call(&self) {
        let Some(integration) = self.integration() else { return };
        let ctx = disconnect_context(&self.context, &self.deployed, self.ids, &self.reason);
        let nothing = Message::from_string("");
        let outcome = match integration {
            Integration::Http(http) => self.gateway.integrations.http(http, &ctx, &nothing).await,
            Integration::Lambda(lambda) => self.gateway.integrations.lambda(lambda, &ctx, &nothing).await,
            // Of these nothing is waited for.
            Integration::Mock(_) | Integration::Group(_) => return,
        };
        let finished = match outcome {
            Ok(outcome) => Finished::outcome(integration, &outcome),
            Err(error) => {
                let chain = rescue::chain(&error);
                let fault: Fault = rescue::integration(&error);
                Finished { error: Some(chain), ..Finished::fault(fault) }
            }
        };
        self.gateway.record(&self.live, &self.deployed, &ctx, &finished);
    }

    /// It was attempted: only now may the record go.
    fn settled(&self) {
        if let Some(node) = self.gateway.cluster.node() {
            self.gateway.ledger.strike(&self.context.id);
            node.retire(&self.context.id);
        }
    }
}
