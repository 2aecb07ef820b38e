//! What one access log line can say, and which `$context` variable each part is.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use super::format::{write_ip, write_number, write_time, write_value};
use crate::clock::EpochMillis;
use crate::ids::{ConnectionId, MessageId, RequestId};

/// Finds the value of a variable by its path after `$context.`.
pub type Lookup<'a> = dyn Fn(&str) -> Option<Cow<'a, str>> + 'a;

/// One exchange, for its line. What is `None` prints `-`.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// `CONNECT`, `MESSAGE`, `DISCONNECT` or `CONNECTION_API`.
    pub event_type: &'a str,
    /// The API.
    pub api_id: &'a str,
    /// The stage.
    pub stage: &'a str,
    /// The selected route; `POST /@connections/{connectionId}` and the like for callbacks.
    pub route_key: Option<&'a str>,
    /// Names the exchange.
    pub request_id: RequestId,
    /// Whose exchange it is, once there is an id.
    pub connection_id: Option<ConnectionId>,
    /// Client messages only.
    pub message_id: Option<MessageId>,
    /// When it was received.
    pub time: EpochMillis,
    /// When the connection was made.
    pub connected_at: Option<EpochMillis>,
    /// The caller's address.
    pub source_ip: Option<IpAddr>,
    /// The caller's `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The host that was addressed.
    pub domain_name: Option<&'a str>,
    /// The integration's status, or the gateway's own.
    pub status: Option<u16>,
    /// What the caller was told went wrong.
    pub error: Option<ErrorFields<'a>>,
    /// What the integration did, when one was called.
    pub integration: IntegrationFields<'a>,
    /// Looks up every variable not named here, by its path after `$context.`: `authorizer.*`, `identity.*` and so on.
    pub more: Option<&'a Lookup<'a>>,
}

/// `$context.error.*`
#[derive(Debug, Clone, Copy)]
pub struct ErrorFields<'a> {
    /// The public text.
    pub message: &'a str,
    /// The response type of the fault.
    pub response_type: &'a str,
}

/// `$context.integration.*`
#[derive(Debug, Clone, Copy, Default)]
pub struct IntegrationFields<'a> {
    /// How long the call took.
    pub latency: Option<Duration>,
    /// What the integration answered.
    pub status: Option<u16>,
    /// What the service in front of it answered, 200 for a function that failed.
    pub service_status: Option<u16>,
    /// What went wrong.
    pub error: Option<&'a str>,
    /// The back-end's own request id.
    pub request_id: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// An entry with the parts that every exchange has.
    pub const fn new(event_type: &'a str, api_id: &'a str, stage: &'a str, id: RequestId, time: EpochMillis) -> Self {
        Self {
            event_type,
            api_id,
            stage,
            route_key: None,
            request_id: id,
            connection_id: None,
            message_id: None,
            time,
            connected_at: None,
            source_ip: None,
            user_agent: None,
            domain_name: None,
            status: None,
            error: None,
            integration: IntegrationFields {
                latency: None,
                status: None,
                service_status: None,
                error: None,
                request_id: None,
            },
            more: None,
        }
    }

    /// Appends the value of a field; nothing when it has none.
    pub(super) fn write(&self, field: Field, buf: &mut Vec<u8>) {
        let text = |value: Option<&str>, buf: &mut Vec<u8>| write_value(value.unwrap_or_default(), buf);
        let millis = |latency: Duration| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        match field {
            Field::EventType => write_value(self.event_type, buf),
            Field::ApiId => write_value(self.api_id, buf),
            Field::Stage => write_value(self.stage, buf),
            Field::RouteKey => text(self.route_key, buf),
            Field::UserAgent => text(self.user_agent, buf),
            Field::DomainName => text(self.domain_name, buf),
            Field::RequestId => buf.extend_from_slice(self.request_id.text().as_bytes()),
            Field::ConnectionId => {
                buf.extend_from_slice(self.connection_id.map(|id| id.text()).as_deref().unwrap_or_default().as_bytes());
            }
            Field::MessageId => {
                buf.extend_from_slice(self.message_id.map(|id| id.text()).as_deref().unwrap_or_default().as_bytes());
            }
            Field::RequestTime => write_time(self.time, buf),
            Field::RequestTimeEpoch => write_number(self.time.0, buf),
            Field::ConnectedAt => write_some(self.connected_at.map(|time| time.0), buf),
            Field::SourceIp => {
                self.source_ip.into_iter().for_each(|address| write_ip(address, buf));
            }
            Field::Status => write_some(self.status.map(u64::from), buf),
            Field::ErrorMessage => text(self.error.map(|error| error.message), buf),
            Field::ErrorMessageString => {
                if let Some(error) = self.error {
                    buf.push(b'"');
                    write_value(error.message, buf);
                    buf.push(b'"');
                }
            }
            Field::ErrorResponseType => text(self.error.map(|error| error.response_type), buf),
            Field::IntegrationLatency => write_some(self.integration.latency.map(millis), buf),
            Field::IntegrationStatus => write_some(self.integration.status.map(u64::from), buf),
            Field::IntegrationServiceStatus => {
                write_some(self.integration.service_status.map(u64::from), buf);
            }
            Field::IntegrationError => text(self.integration.error, buf),
            Field::IntegrationRequestId => text(self.integration.request_id, buf),
        }
    }
}

impl std::fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("event_type", &self.event_type)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

fn write_some(value: Option<u64>, buf: &mut Vec<u8>) {
    if let Some(value) = value {
        write_number(value, buf);
    }
}

/// A variable that an [`Entry`] holds by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    ApiId,
    ConnectedAt,
    ConnectionId,
    DomainName,
    ErrorMessage,
    ErrorMessageString,
    ErrorResponseType,
    EventType,
    IntegrationError,
    IntegrationLatency,
    IntegrationRequestId,
    IntegrationServiceStatus,
    IntegrationStatus,
    MessageId,
    RequestId,
    RequestTime,
    RequestTimeEpoch,
    RouteKey,
    SourceIp,
    Stage,
    Status,
    UserAgent,
}

impl Field {
    /// The field at a path after `$context.`.
    pub(super) fn parse(path: &str) -> Option<Self> {
        Some(match path {
            "apiId" => Self::ApiId,
            "connectedAt" => Self::ConnectedAt,
            "connectionId" => Self::ConnectionId,
            "domainName" => Self::DomainName,
            "error.message" => Self::ErrorMessage,
            "error.messageString" => Self::ErrorMessageString,
            "error.responseType" => Self::ErrorResponseType,
            "eventType" => Self::EventType,
            "identity.sourceIp" => Self::SourceIp,
            "identity.userAgent" => Self::UserAgent,
            "integration.error" => Self::IntegrationError,
            "integration.integrationStatus" => Self::IntegrationServiceStatus,
            "integration.latency" | "integrationLatency" => Self::IntegrationLatency,
            "integration.requestId" => Self::IntegrationRequestId,
            "integration.status" => Self::IntegrationStatus,
            "messageId" => Self::MessageId,
            "requestId" | "extendedRequestId" => Self::RequestId,
            "requestTime" => Self::RequestTime,
            "requestTimeEpoch" => Self::RequestTimeEpoch,
            "routeKey" => Self::RouteKey,
            "stage" => Self::Stage,
            "status" => Self::Status,
            _ => return None,
        })
    }
}
