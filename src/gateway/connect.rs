//! A client connects.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::record::{Finished, Ids};
use super::{Connection, Deployed, Gateway, LiveStage, disconnect, rescue};
use crate::context::{ConnectionContext, Event, Handshake, Profile, RequestContext};
use crate::definition::Integration;
use crate::fault::{CloseReason, Fault};
use crate::ids::{ConnectionId, RequestId};
use crate::integration::{Outcome, mock};
use crate::message::Message;
use crate::session::{PushError, Socket};
use crate::sigv4;
use crate::telemetry::labels::ConnectResult;

/// A handshake whose form has been checked.
#[derive(Debug)]
pub struct ConnectRequest<'a> {
    /// The stage its address leads to.
    pub stage: Arc<LiveStage>,
    /// The request as it came, which its signature is about.
    pub wire: sigv4::Request<'a>,
    /// The client's address.
    pub source_ip: IpAddr,
    /// Whether the client is over TLS.
    pub is_tls: bool,
    /// The host the client used, as events show it.
    pub domain_name: String,
    /// Its `User-Agent`.
    pub user_agent: Option<String>,
    /// The request as integrations see it.
    pub handshake: Handshake,
}

/// Why a handshake is refused, as far as the answer needs it.
#[derive(Debug)]
pub enum Refusal {
    /// The gateway refuses; after an id exists the answer names it (specification 1.8.1).
    Fault(Fault, Option<(ConnectionId, RequestId)>),
    /// The integration refuses: its status, headers and body are the answer (specification 1.8 row 16).
    Integration {
        /// The status.
        status: u16,
        /// End-to-end headers.
        headers: HeaderMap,
        /// The body.
        body: Bytes,
    },
}

/// A handshake that may be answered 101.
///
/// Dropped instead of opened (the client left, the process ends), it runs `$disconnect`: the integration said yes and
/// has noted the connection (specification 2.1.4).
#[derive(Debug)]
pub struct Accepted {
    connection: Option<Connection>,
    /// Headers of the integration's answer; those a 101 may carry are the listener's to pick (specification 1.5.3).
    pub headers: HeaderMap,
    /// Whether the API negotiates compression.
    pub compression: bool,
    /// Counts the handshake, so that a drain waits for it.
    _connecting: Arc<()>,
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // It is in the ledger from its announcement on, and its end takes it out.
            connection.gateway().metrics.connects.inc(ConnectResult::Abandoned);
            disconnect::finish(&connection, &CloseReason::ClientVanished);
        }
    }
}

impl Gateway {
    /// Decides about a handshake: capacity, signature and policies or an authorizer, then the `$connect` route's integration.
    ///
    /// # Errors
    /// [`Refusal`], which says what the client gets. The answer waits for the connection's record, where there is a registry.
    ///
    /// # Cancel safety
    /// Dropping the future gives the client's place back. Whether the integration heard of it is then unknown.
    pub async fn connect(self: &Arc<Self>, mut request: ConnectRequest<'_>) -> Result<Accepted, Refusal> {
        let connecting = Arc::clone(&self.connecting);
        // identify
        let deployed = Arc::clone(&request.stage.load());
        let connected_at = self.clock.now();
        // authorize: settled first, since events of the connection name who it is; heard only once there is a place
        let (caller, refused) = match self.authorize_connect(&request, &deployed, connected_at) {
            Ok(caller) => (caller, None),
            Err(fault) => (None, Some(fault)),
        };
        // Declared dead and not yet back: the ids of now would be nobody's.
        let id = self.cluster.mint(self.next_slot()).ok_or(Refusal::Fault(Fault::Unavailable, None))?;
        let mut context = ConnectionContext {
            id,
            connected_at,
            source_ip: request.source_ip,
            profile: self.profiles.intern(Profile {
                api: request.stage.api.clone(),
                stage: request.stage.name.clone(),
                domain_name: request.domain_name.as_str().into(),
                user_agent: request.user_agent.as_deref().map(Into::into),
                caller,
                authorized: None,
            }),
        };
        let ids = Ids { request: RequestId::random(), time: connected_at };
        let ctx = connect_context(&context, &request.handshake, &deployed, ids);
        // admit
        let place = self.take_place(request.source_ip).map_err(|fault| {
            self.record(&request.stage, &deployed, &ctx, &Finished::fault(fault.clone()));
            Refusal::Fault(fault, None)
        })?;
        if let Some(fault) = refused {
            self.record(&request.stage, &deployed, &ctx, &Finished::fault(fault.clone()));
            return Err(Refusal::Fault(fault, None));
        }
        match self.ask_authorizer(&request, &deployed, &ctx).await {
            Ok(None) => {}
            Ok(Some((authorized, latency))) => {
                let profile = Profile { authorized: Some(Box::new(authorized)), ..(*context.profile).clone() };
                context.profile = self.profiles.intern(profile);
                request.handshake.authorizer_latency = Some(latency);
            }
            Err((fault, error)) => {
                let finished = Finished { error, ..Finished::fault(fault.clone()) };
                self.record(&request.stage, &deployed, &ctx, &finished);
                return Err(Refusal::Fault(fault, Some((id, ids.request))));
            }
        }
        let ctx = connect_context(&context, &request.handshake, &deployed, ids);
        // invoke
        let integration = deployed.api.connect.as_ref().and_then(|route| route.integration.as_ref());
        let (finished, verdict) = match self.invoke_connect(integration, &ctx).await {
            Ok(outcome) => decide(integration, outcome),
            Err((fault, error)) => {
                let finished = Finished { error, ..Finished::fault(fault.clone()) };
                (finished, Err(Refusal::Fault(fault, Some((context.id, ids.request)))))
            }
        };
        self.record(&request.stage, &deployed, &ctx, &finished);
        let headers = verdict?;
        // register: the session takes its place over when it opens, and gives it back when it ends
        place.keep();
        let compression = deployed.api.compression;
        let connection = Connection::new(context, request.stage);
        let accepted = Accepted { connection: Some(connection), headers, compression, _connecting: connecting };
        if let Some(node) = self.cluster.node() {
            if let Some(connection) = &accepted.connection {
                self.ledger.enter(&connection.context);
            }
            // Dropped here, it runs the `$disconnect` that its back-end has coming.
            if !node.announce(&id).await {
                return Err(Refusal::Fault(Fault::Unavailable, Some((id, ids.request))));
            }
        }
        Ok(accepted)
    }

    /// Makes the session: from here on the client can be pushed to, and `head`, the 101, is on its way.
    ///
    /// # Errors
    /// [`PushError::Gone`] when the client left meanwhile; its `$disconnect` is under way then.
    pub fn open(&self, mut accepted: Accepted, socket: Socket, head: Vec<u8>) -> Result<(), PushError> {
        let Some(connection) = accepted.connection.take() else { return Err(PushError::Gone) };
        let id = connection.context.id;
        let opened = self.cluster.hub.open(connection, socket, head);
        // In the map now, or ended again; an end has put it in once more.
        self.ledger.strike(&id);
        let session = opened?;
        if let Some(node) = self.cluster.node() {
            // An expulsion that came meanwhile has listed the sessions before this one was among them.
            if node.me() != Some(session.id().incarnation()) {
                session.close(&CloseReason::Expelled);
            }
        }
        // The reload that took its stage away has closed the sessions before this one was among them.
        if session.stage().is_removed() {
            session.close(&CloseReason::StageRemoved);
        }
        // A drain that began meanwhile has listed the sessions before this one was among them.
        if self.is_draining() {
            self.cluster.hub.drain(&[session], drain_grace(), &self.farewell);
        }
        Ok(())
    }

    fn take_place(self: &Arc<Self>, address: IpAddr) -> Result<Place, Fault> {
        if self.is_draining() || !self.addresses.enter(address) {
            return Err(Fault::Unavailable);
        }
        Ok(Place { gateway: Some(Arc::clone(self)), address })
    }

    async fn invoke_connect(
        &self,
        integration: Option<&Integration>,
        ctx: &RequestContext<'_>,
    ) -> Result<Option<Outcome>, (Fault, Option<String>)> {
        let Some(integration) = integration else { return Ok(None) };
        let nothing = Message::from_string("");
        let outcome = match integration {
            Integration::Mock(mock) => mock::invoke(mock, ctx, &nothing),
            Integration::Http(http) => self.integrations.http(http, ctx, &nothing).await,
            Integration::Lambda(lambda) => self.integrations.lambda(lambda, ctx, &nothing).await,
            // A group takes its name from a message, and a handshake is none: the definition's check refuses this.
            Integration::Group(_) => return Err((Fault::ApiConfiguration, None)),
        };
        outcome.map(Some).map_err(|error| (rescue::integration(&error), Some(rescue::chain(&error))))
    }
}

/// The exchange of a handshake, with what is known of it by now.
fn connect_context<'a>(
    connection: &'a ConnectionContext,
    handshake: &'a Handshake,
    deployed: &'a Deployed,
    ids: Ids,
) -> RequestContext<'a> {
    RequestContext {
        connection,
        request_id: ids.request,
        event: Event::Connect(handshake),
        route_key: "$connect",
        time: ids.time,
        stage_variables: &deployed.stage.variables,
    }
}

/// How long a session that opens during a drain may take to become quiet.
const fn drain_grace() -> std::time::Duration {
    std::time::Duration::from_secs(1)
}

/// 200 to 299 accepts; anything else is the refusal's own status (specification 4.5.8, 5.4.5).
fn decide(integration: Option<&Integration>, outcome: Option<Outcome>) -> (Finished, Result<HeaderMap, Refusal>) {
    let (Some(integration), Some(outcome)) = (integration, outcome) else {
        return (Finished::status(200), Ok(HeaderMap::new()));
    };
    let finished = Finished::outcome(integration, &outcome);
    let verdict = if (200..300).contains(&outcome.status) {
        Ok(outcome.headers)
    } else {
        Err(Refusal::Integration { status: outcome.status, headers: outcome.headers, body: outcome.body })
    };
    (finished, verdict)
}

/// A client address's place among the sessions, given back unless kept.
struct Place {
    gateway: Option<Arc<Gateway>>,
    address: IpAddr,
}

impl Place {
    fn keep(mut self) {
        self.gateway = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gateway) = &self.gateway {
            gateway.addresses.leave(self.address);
        }
    }
}

/// The definition a connection's exchange runs on, and what is left of the stage's variables there.
pub(super) fn disconnect_context<'a>(
    connection: &'a ConnectionContext,
    deployed: &'a Deployed,
    ids: Ids,
    reason: &'a CloseReason,
) -> RequestContext<'a> {
    let (code, text) = reason.disconnect();
    RequestContext {
        connection,
        request_id: ids.request,
        event: Event::Disconnect(code, text),
        route_key: "$disconnect",
        time: ids.time,
        stage_variables: &deployed.stage.variables,
    }
}
