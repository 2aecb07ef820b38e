//! What an exchange leaves behind: counters and one access-log line.

use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use super::{Deployed, Gateway, LiveStage};
use crate::clock::EpochMillis;
use crate::context::{Event, RequestContext};
use crate::definition::Integration;
use crate::fault::{Fault, Row};
use crate::ids::{ConnectionId, RequestId};
use crate::integration::Outcome;
use crate::lang::{Variable, Variables as _};
use crate::telemetry::access_log::{ErrorFields, IntegrationFields};
use crate::telemetry::labels::{ConnectResult, IntegrationKind, PushResult, RouteKind, SentKind, Success};
use crate::telemetry::{Entry, StageMetrics};

/// What names an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids {
    pub(super) request: RequestId,
    pub(super) time: EpochMillis,
}

/// How an exchange ended.
#[derive(Debug, Default)]
pub(super) struct Finished {
    /// `$context.status`: the integration's, or the gateway's own.
    pub(super) status: u16,
    /// What the client is sent, when the route is two-way.
    pub(super) body: Option<Bytes>,
    /// What went wrong, as the client sees it.
    pub(super) fault: Option<Fault>,
    /// What went wrong, for the operator.
    pub(super) error: Option<String>,
    /// What the integration answered.
    pub(super) integration_status: Option<u16>,
    /// What the service in front of it answered; the same where there is none.
    pub(super) service_status: Option<u16>,
    /// The service's own request id.
    pub(super) integration_request: Option<String>,
    /// How long which kind of back-end took; nothing when none was called.
    pub(super) latency: Option<(IntegrationKind, Duration)>,
    /// Bytes of the client's message.
    pub(super) received: usize,
}

impl Finished {
    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn fault(fault: Fault) -> Self {
        Self { status: fault.row().status, fault: Some(fault), ..Self::default() }
    }

    /// An integration's outcome; its body is the route's to give.
    pub(super) fn outcome(integration: &Integration, outcome: &Outcome) -> Self {
        let latency = match integration {
            Integration::Http(http) if http.proxy => Some((IntegrationKind::HttpProxy, outcome.latency)),
            Integration::Http(_) => Some((IntegrationKind::Http, outcome.latency)),
            Integration::Lambda(lambda) if lambda.proxy => Some((IntegrationKind::LambdaProxy, outcome.latency)),
            Integration::Lambda(_) => Some((IntegrationKind::Lambda, outcome.latency)),
            Integration::Mock(_) | Integration::Group(_) => None,
        };
        Self {
            integration_status: Some(outcome.integration_status),
            service_status: Some(outcome.service_status),
            integration_request: outcome.request_id.clone(),
            latency,
            ..Self::status(outcome.status)
        }
    }

    /// The text message the client gets, if any: the error frame of a fault, or the answer; what is not UTF-8 in it
    /// becomes U+FFFD.
    pub(super) fn text(&self, connection: &ConnectionId, request: &RequestId) -> Option<Cow<'_, [u8]>> {
        if let Some(fault) = &self.fault {
            return Some(Cow::Owned(fault.object(connection, request).into_bytes()));
        }
        let body = self.body.as_ref()?;
        Some(match std::str::from_utf8(body) {
            Ok(_) => Cow::Borrowed(body),
            Err(_) => Cow::Owned(String::from_utf8_lossy(body).into_owned().into_bytes()),
        })
    }
}

/// A call of the callback API, for its record.
#[derive(Debug)]
pub(super) struct CallbackRecord {
    /// `$context.routeKey`, placeholders in it as the service writes them (specification 11.5.6).
    route_key: &'static str,
    /// The status when it went well.
    status: u16,
    request: RequestId,
    id: Option<ConnectionId>,
    bytes: usize,
}

impl CallbackRecord {
    pub(super) const fn new(route_key: &'static str, status: u16, request: RequestId) -> Self {
        Self { route_key, status, request, id: None, bytes: 0 }
    }

    /// About a connection, if it came as far as to name one.
    pub(super) const fn about(self, id: Option<ConnectionId>) -> Self {
        Self { id, ..self }
    }

    /// With a body of so many bytes.
    pub(super) const fn of(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    fn is_push(&self) -> bool {
        self.route_key.starts_with("POST /@connections")
    }
}

impl Gateway {
    /// Counts a finished exchange and writes its line.
    pub(super) fn record(&self, live: &LiveStage, deployed: &Deployed, ctx: &RequestContext<'_>, finished: &Finished) {
        self.count(&live.metrics, ctx, finished);
        if let Some(error) = &finished.error {
            self.complain(ctx, error);
        }
        if !self.access_log.is_on() {
            return;
        }
        let profile = &ctx.connection.profile;
        let row = finished.fault.as_ref().map(Fault::row);
        let (kind, api, stage) = (ctx.event.kind(), profile.api.as_str(), profile.stage.as_str());
        let mut entry = Entry::new(kind, api, stage, ctx.request_id, ctx.time);
        entry.route_key = Some(ctx.route_key).filter(|key| !key.is_empty());
        entry.connection_id = Some(ctx.connection.id);
        entry.message_id = match ctx.event {
            Event::Message(id) => Some(id),
            Event::Connect(_) | Event::Disconnect(..) => None,
        };
        entry.connected_at = Some(ctx.connection.connected_at);
        entry.source_ip = Some(ctx.connection.source_ip);
        entry.user_agent = profile.user_agent.as_deref();
        entry.domain_name = Some(&profile.domain_name);
        entry.status = Some(finished.status);
        entry.error = row.as_ref().map(error_fields);
        entry.integration = IntegrationFields {
            latency: finished.latency.map(|(_, latency)| latency),
            status: finished.integration_status,
            service_status: finished.service_status,
            error: finished.error.as_deref(),
            request_id: finished.integration_request.as_deref(),
        };
        // Who was recognised, by whatever name.
        let more = |path: &str| match ctx.context(path)? {
            Variable::Text(text) => Some(text),
            Variable::Number(number) => Some(Cow::Owned(number.to_string())),
        };
        entry.more = Some(&more);
        self.access_log.append(|line| deployed.log_format.render(line, &entry));
    }

    fn count(&self, stage: &StageMetrics, ctx: &RequestContext<'_>, finished: &Finished) {
        let metrics = &self.metrics;
        match ctx.event {
            Event::Connect(_) => {
                let result = match &finished.fault {
                    Some(Fault::Unavailable) => ConnectResult::Busy,
                    None if (200..300).contains(&finished.status) => ConnectResult::Accepted,
                    Some(_) | None => ConnectResult::Refused,
                };
                metrics.connects.inc(result);
                if result != ConnectResult::Busy {
                    stage.connects.inc();
                    stage.messages.inc();
                }
            }
            Event::Message(_) => self.count_message(stage, ctx.route_key, finished),
            Event::Disconnect(..) => {
                stage.messages.inc();
                let success = if finished.fault.is_none() { Success::Ok } else { Success::Failed };
                metrics.disconnects.inc(success);
            }
        }
        if let Some((kind, latency)) = finished.latency {
            metrics.integration_latency.observe(kind, latency);
            stage.integration_latency.observe(latency.as_secs_f64());
        }
        if finished.integration_status.is_some_and(|status| status >= 400) {
            stage.integration_errors.inc();
        }
        if let Some(fault) = &finished.fault {
            metrics.fault(fault);
            if is_clients(fault) {
                stage.client_errors.inc();
            } else {
                stage.execution_errors.inc();
            }
        }
    }

    fn count_message(&self, stage: &StageMetrics, route_key: &str, finished: &Finished) {
        let metrics = &self.metrics;
        let route = match route_key {
            "" => RouteKind::None,
            "$default" => RouteKind::Default,
            _ => RouteKind::Custom,
        };
        metrics.messages_received.inc(route);
        metrics.received_bytes.inc_by(finished.received as u64);
        let sent = match (&finished.fault, &finished.body) {
            (Some(_), _) => Some(SentKind::Error),
            (None, Some(body)) => {
                metrics.sent_bytes.inc_by(body.len() as u64);
                Some(SentKind::Response)
            }
            (None, None) => None,
        };
        if let Some(sent) = sent {
            metrics.messages_sent.inc(sent);
        }
        // A message without a route counts nowhere but among the client errors (specification 11.8).
        if route != RouteKind::None {
            stage.messages.inc_by(1 + u64::from(sent.is_some()));
        }
    }

    /// Counts a callback and writes its line.
    pub(super) fn record_callback(&self, live: &LiveStage, record: &CallbackRecord, fault: Option<&Fault>) {
        let status = fault.map_or(record.status, |fault| fault.row().status);
        if let Some(fault) = fault {
            self.metrics.fault(fault);
        }
        if record.is_push() {
            self.count_push(live, record, fault);
        }
        // No line for a body beyond the limit (specification 11.5.5).
        if !self.access_log.is_on() || fault == Some(&Fault::PayloadTooLarge) {
            return;
        }
        let deployed = live.load();
        let (api, stage) = (live.api.as_str(), live.name.as_str());
        let mut entry = Entry::new("CONNECTION_API", api, stage, record.request, self.clock.now());
        entry.route_key = Some(record.route_key);
        entry.connection_id = record.id;
        entry.status = Some(status);
        let row = fault.map(Fault::row);
        entry.error = row.as_ref().map(error_fields);
        self.access_log.append(|line| deployed.log_format.render(line, &entry));
    }

    fn count_push(&self, live: &LiveStage, record: &CallbackRecord, fault: Option<&Fault>) {
        let result = match fault {
            None => PushResult::Delivered,
            Some(Fault::Gone) => PushResult::Gone,
            Some(Fault::LimitExceeded) => PushResult::Full,
            Some(Fault::Unavailable) => PushResult::Unavailable,
            Some(_) => PushResult::Refused,
        };
        self.metrics.pushes.inc(result);
        match result {
            PushResult::Delivered => {
                self.metrics.messages_sent.inc(SentKind::Push);
                self.metrics.sent_bytes.inc_by(record.bytes as u64);
                live.metrics.messages.inc();
            }
            PushResult::Full => {
                self.metrics.outbox_dropped.inc();
            }
            PushResult::Gone | PushResult::Refused | PushResult::Unavailable => {}
        }
    }

    /// Says in the log why a back-end failed: the client gets only its wording. A back-end that is down fails every
    /// call, so a second has one line, with the count of those it stands for.
    fn complain(&self, ctx: &RequestContext<'_>, error: &str) {
        let second = ctx.time.0 / 1_000;
        let unsaid = self.complained.fetch_update(Relaxed, Relaxed, |packed| {
            let (said, unsaid) = (packed >> 20, packed & 0xf_ffff);
            Some(if said == second { said << 20 | (unsaid + 1).min(0xf_ffff) } else { second << 20 })
        });
        let packed = unsaid.unwrap_or_default();
        if packed >> 20 != second {
            tracing::warn!(
                api = %ctx.connection.profile.api,
                stage = %ctx.connection.profile.stage,
                route.key = ctx.route_key,
                request.id = %ctx.request_id,
                connection.id = %ctx.connection.id,
                error,
                unsaid = packed & 0xf_ffff,
                "an integration failed"
            );
        }
    }
}

/// What a line says of a failure: of a text with more than one line, the first.
fn error_fields(row: &Row) -> ErrorFields<'_> {
    ErrorFields { message: row.message.lines().next().unwrap_or_default(), response_type: row.response_type }
}

/// Refused before an integration was called.
const fn is_clients(fault: &Fault) -> bool {
    match fault {
        Fault::IntegrationTimeout
        | Fault::IntegrationFailure
        | Fault::FunctionFailed
        | Fault::AuthorizerFailure
        | Fault::AuthorizerConfiguration
        | Fault::ApiConfiguration
        | Fault::Internal
        | Fault::Unavailable => false,
        Fault::Forbidden
        | Fault::UpgradeRequired
        | Fault::UnsupportedVersion
        | Fault::BadRequest
        | Fault::UriTooLong
        | Fault::HeadersTooLarge
        | Fault::RequestTimeout
        | Fault::MissingAuthenticationToken
        | Fault::AccessDenied
        | Fault::IncompleteSignature(_)
        | Fault::InvalidSignature(_)
        | Fault::UnrecognizedClient
        | Fault::ExpiredToken
        | Fault::NotAuthorized(_)
        | Fault::Unauthorized
        | Fault::ExplicitlyDenied
        | Fault::NotAllowed
        | Fault::InvalidConnectionId(_)
        | Fault::Gone
        | Fault::PayloadTooLarge
        | Fault::LimitExceeded
        | Fault::NoMethod { .. }
        | Fault::InvalidGroup
        | Fault::TooManyGroups
        | Fault::Throttled
        | Fault::UnsupportedMediaType => true,
    }
}
