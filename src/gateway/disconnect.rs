//! A client is gone: the connection is forgotten at once, then `$disconnect` is attempted, once.

use std::sync::Arc;

use super::connect::disconnect_context;
use super::record::{Finished, Ids};
use super::{Connection, Deployed, rescue};
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
    gateway.cluster.hub.forget(&connection.context.id);
    for group in connection.take_groups() {
        gateway.cluster.groups.leave(&group, &connection.context.id);
    }
    gateway.metrics.session_ended(reason);
    if !connection.defer_end(reason) {
        finish(connection, reason);
    }
}

/// Gives the client's place back and runs the `$disconnect` exchange.
pub(super) fn finish(connection: &Connection, reason: &CloseReason) {
    let gateway = connection.gateway();
    gateway.addresses.leave(connection.context.source_ip);
    let ids = Ids { request: RequestId::random(), time: gateway.clock.now() };
    let deployed = Arc::clone(&connection.live.load());
    let integration = deployed.api.disconnect.as_ref().and_then(|route| route.integration.as_ref());
    match integration {
        Some(Integration::Http(_)) => {
            let owned = Owned {
                context: connection.context.clone(),
                live: Arc::clone(&connection.live),
                gateway: Arc::clone(gateway),
                deployed,
                ids,
                reason: reason.clone(),
            };
            gateway.tasks.spawn("disconnect", owned.run());
        }
        Some(Integration::Mock(mock)) => {
            let ctx = disconnect_context(&connection.context, &deployed, ids, reason);
            let finished = match mock::invoke(mock, &ctx, &Message::from_string("")) {
                Ok(outcome) => Finished::status(outcome.status),
                Err(error) => {
                    Finished { error: Some(rescue::chain(&error)), ..Finished::fault(rescue::integration(&error)) }
                }
            };
            gateway.record(&connection.live, &deployed, &ctx, &finished);
        }
        // Nothing to call; the line in the access log is still written (specification 2.2.3).
        Some(Integration::Group(_)) | None => {
            let ctx = disconnect_context(&connection.context, &deployed, ids, reason);
            gateway.record(&connection.live, &deployed, &ctx, &Finished::status(200));
        }
    }
}

/// A `$disconnect` exchange on its way, free of the session it is about.
struct Owned {
    context: ConnectionContext,
    live: Arc<super::LiveStage>,
    gateway: Arc<super::Gateway>,
    deployed: Arc<Deployed>,
    ids: Ids,
    reason: CloseReason,
}

impl Owned {
    async fn run(self) {
        let ctx = disconnect_context(&self.context, &self.deployed, self.ids, &self.reason);
        let route = self.deployed.api.disconnect.as_ref();
        let Some(integration @ Integration::Http(http)) = route.and_then(|route| route.integration.as_ref()) else {
            return;
        };
        // Never closed, so this waits at most until the ones before are answered or timed out.
        let _turn = self.gateway.disconnects.acquire().await;
        let nothing = Message::from_string("");
        let finished = match self.gateway.integrations.http(http, &ctx, &nothing).await {
            Ok(outcome) => Finished::outcome(integration, &outcome),
            Err(error) => {
                let chain = rescue::chain(&error);
                let fault: Fault = rescue::integration(&error);
                Finished { error: Some(chain), ..Finished::fault(fault) }
            }
        };
        self.gateway.record(&self.live, &self.deployed, &ctx, &finished);
    }
}
