//! Every failure a client or back-end can see, one row each: status, error type, wording, effect on a WebSocket.
//!
//! HTTP statuses and close codes stand here and nowhere else; `server/respond.rs` and the session's transport only
//! translate. The wording is public: it never holds internals, the log has those. Source: specification 1.8, 2.3.5,
//! 6.4, 13.4.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::ids::{ConnectionId, RequestId};

/// A failure as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No API, stage or route here; an extra path; a disabled endpoint (1.8 row 1, 2.2.4, 6.4).
    Forbidden,
    /// Not an upgrade (1.8 row 2).
    UpgradeRequired,
    /// An upgrade of a version other than 13 (1.3.2).
    UnsupportedVersion,
    /// A handshake or request that breaks HTTP or RFC 6455 (1.3.3).
    BadRequest,
    /// A request line beyond 4,096 characters (1.1.5).
    UriTooLong,
    /// Request headers beyond the listener's limit.
    HeadersTooLarge,
    /// A request whose head or body did not arrive in time.
    RequestTimeout,
    /// The caller gave no or a wrong token.
    MissingAuthenticationToken,
    /// A caller that may not do this: a foreign `Origin` on a callback path.
    AccessDenied,
    /// A signature that lacks a part or cannot be read; the text says which (REST specification 7.7).
    IncompleteSignature(String),
    /// A signature that is not the one calculated, or not of now; the text says why.
    InvalidSignature(String),
    /// An access key that nobody has.
    UnrecognizedClient,
    /// A session token whose time is over.
    ExpiredToken,
    /// A caller whose policies do not allow this; the text names who, what and where (6.4, 1.8 row 11).
    NotAuthorized(String),
    /// A callback id that is not well formed; the text as the caller sent it (6.4).
    InvalidConnectionId(String),
    /// The connection is proven gone (6.4).
    Gone,
    /// A pushed or request body beyond the limit (6.4).
    PayloadTooLarge,
    /// The client does not read fast enough, or a throttle said no (6.4).
    LimitExceeded,
    /// Nothing with that path on a custom domain (1.2.5): route and method as the caller sent them.
    NoMethod {
        /// Path without its leading slash.
        path: String,
        /// HTTP method.
        method: String,
    },
    /// A message that names no group, or one with too long a name.
    InvalidGroup,
    /// A connection that is in as many groups as it may.
    TooManyGroups,
    /// Too many requests for a handshake or a message (1.8 row 14).
    Throttled,
    /// No template for the payload and passthrough refused (4.6.1).
    UnsupportedMediaType,
    /// Something that identifies the client is missing, or its authorizer says it is not known (1.8 rows 3 and 4).
    Unauthorized,
    /// The authorizer's policy denies (1.8 row 5).
    ExplicitlyDenied,
    /// The authorizer's policy does not allow (1.8 row 6).
    NotAllowed,
    /// The authorizer failed, took too long, or could not be called (1.8 row 7).
    AuthorizerFailure,
    /// The authorizer's answer is none (1.8 row 8); its message is the bare word `null`.
    AuthorizerConfiguration,
    /// The integration took longer than its timeout (1.8 row 19).
    IntegrationTimeout,
    /// The integration failed, answered garbage, or could not be reached (1.8 row 20).
    IntegrationFailure,
    /// The function failed, or gave an answer that is none (1.8 rows 17 and 18).
    FunctionFailed,
    /// The integration is set up wrong: nothing to call, a template that does not render (1.8 row 20).
    ApiConfiguration,
    /// A fault of the gateway's own.
    Internal,
    /// The node cannot take this now; try again, maybe elsewhere.
    Unavailable,
}

const EXPLICITLY_DENIED: &str =
    "User is not authorized to access this resource with an explicit deny in an identity-based policy";
const NOT_ALLOWED: &str = "User is not authorized to access this resource because no identity-based policy allows the \
                           execute-api:Invoke action";

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// HTTP status, also `$context.status`.
    pub status: u16,
    /// `x-amzn-ErrorType`, where the service sends one.
    pub error_type: Option<&'static str>,
    /// `message` of the body or error frame.
    pub message: Cow<'static, str>,
    /// `$context.error.responseType`; the metric label too.
    pub response_type: &'static str,
}

impl Fault {
    /// The row for this failure.
    pub fn row(&self) -> Row {
        fn signature(
            error_type: &'static str,
            message: impl Into<Cow<'static, str>>,
        ) -> (u16, Option<&'static str>, Cow<'static, str>, &'static str) {
            (403, Some(error_type), message.into(), "INVALID_SIGNATURE")
        }
        let (status, error_type, message, response_type): (u16, Option<&'static str>, Cow<'static, str>, _) = match self
        {
            Self::Forbidden => (403, Some("ForbiddenException"), "Forbidden".into(), "FORBIDDEN"),
            Self::UpgradeRequired => (426, None, "Upgrade Required".into(), "UPGRADE_REQUIRED"),
            Self::UnsupportedVersion => (426, None, "Upgrade Required".into(), "UNSUPPORTED_VERSION"),
            Self::BadRequest => (400, Some("BadRequestException"), "Bad Request".into(), "BAD_REQUEST"),
            Self::UriTooLong => (414, None, "Request-URI Too Long".into(), "URI_TOO_LONG"),
            Self::HeadersTooLarge => (431, None, "Request Header Fields Too Large".into(), "HEADERS_TOO_LARGE"),
            Self::RequestTimeout => (408, None, "Request Timeout".into(), "REQUEST_TIMEOUT"),
            Self::MissingAuthenticationToken => (
                403,
                Some("MissingAuthenticationTokenException"),
                "Missing Authentication Token".into(),
                "MISSING_AUTHENTICATION_TOKEN",
            ),
            Self::AccessDenied => (403, Some("AccessDeniedException"), "Access Denied".into(), "ACCESS_DENIED"),
            Self::IncompleteSignature(message) => signature("IncompleteSignatureException", message.clone()),
            Self::InvalidSignature(message) => signature("InvalidSignatureException", message.clone()),
            Self::UnrecognizedClient => {
                signature("UnrecognizedClientException", "The security token included in the request is invalid.")
            }
            Self::ExpiredToken => {
                let message = "The security token included in the request is expired";
                (403, Some("ExpiredTokenException"), message.into(), "EXPIRED_TOKEN")
            }
            Self::NotAuthorized(message) => {
                (403, Some("AccessDeniedException"), message.clone().into(), "ACCESS_DENIED")
            }
            Self::InvalidConnectionId(id) => (
                400,
                Some("BadRequestException"),
                format!("Invalid connectionId: {id}").into(),
                "INVALID_CONNECTION_ID",
            ),
            Self::Gone => (410, Some("GoneException"), "".into(), "GONE"),
            Self::PayloadTooLarge => {
                (413, Some("PayloadTooLargeException"), "Message too long".into(), "REQUEST_TOO_LARGE")
            }
            Self::LimitExceeded => (429, Some("LimitExceededException"), "Too Many Requests".into(), "LIMIT_EXCEEDED"),
            Self::NoMethod { path, method } => (
                404,
                Some("NotFoundException"),
                format!("No method found matching route {path} for http method {method}.").into(),
                "RESOURCE_NOT_FOUND",
            ),
            Self::InvalidGroup => (400, Some("BadRequestException"), "Invalid group name".into(), "INVALID_GROUP"),
            Self::TooManyGroups => (429, Some("LimitExceededException"), "Too many groups".into(), "TOO_MANY_GROUPS"),
            Self::Throttled => (429, None, "Too Many Requests".into(), "THROTTLED"),
            Self::UnsupportedMediaType => (415, None, "Unsupported Media Type".into(), "UNSUPPORTED_MEDIA_TYPE"),
            Self::Unauthorized => (401, None, "Unauthorized".into(), "UNAUTHORIZED"),
            Self::ExplicitlyDenied => (403, None, EXPLICITLY_DENIED.into(), "ACCESS_DENIED"),
            Self::NotAllowed => (403, None, NOT_ALLOWED.into(), "ACCESS_DENIED"),
            Self::AuthorizerFailure => (500, None, "Internal server error".into(), "AUTHORIZER_FAILURE"),
            Self::AuthorizerConfiguration => (500, None, "".into(), "AUTHORIZER_CONFIGURATION_ERROR"),
            Self::IntegrationTimeout => (504, None, "Endpoint request timed out".into(), "INTEGRATION_TIMEOUT"),
            Self::IntegrationFailure => (500, None, "Internal server error".into(), "INTEGRATION_FAILURE"),
            Self::FunctionFailed => (502, None, "Internal server error".into(), "INTEGRATION_FAILURE"),
            Self::ApiConfiguration => (500, None, "Internal server error".into(), "API_CONFIGURATION_ERROR"),
            Self::Internal => {
                (500, Some("InternalServerErrorException"), "Internal server error".into(), "DEFAULT_5XX")
            }
            Self::Unavailable => {
                (503, Some("ServiceUnavailableException"), "Service Unavailable".into(), "UNAVAILABLE")
            }
        };
        Row { status, error_type, message, response_type }
    }

    /// `{"message":"…"}`, the body of refusals that have no connection yet; empty for [`Fault::Gone`]. The name has a
    /// capital where the service writes one (specification 6.4).
    pub fn body(&self) -> String {
        let message = self.row().message;
        if message.is_empty() {
            return String::new();
        }
        let name = if matches!(self, Self::NotAuthorized(_)) { "Message" } else { "message" };
        format!("{{\"{name}\":{}}}", json_string(&message))
    }

    /// The gateway error object of specification 0.4, spaces as recorded: an error frame, or a refusal after an id exists.
    pub fn object(&self, connection: &ConnectionId, request: &RequestId) -> String {
        let mut text = String::with_capacity(128);
        let message = self.row().message;
        let _infallible = write!(
            text,
            "{{\"message\": {}, \"connectionId\":\"{connection}\", \"requestId\":\"{request}\"}}",
            if matches!(self, Self::AuthorizerConfiguration) { "null".to_owned() } else { json_string(&message) }
        );
        text
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Why a session ended. The code and reason go to `$disconnect`, the label to the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The client sent a close frame without a code.
    ClientClosedSilently,
    /// The client sent a close frame.
    ClientClosed {
        /// Its code.
        code: u16,
        /// Its reason, maybe empty.
        reason: Box<str>,
    },
    /// The transport ended without a close frame.
    ClientVanished,
    /// Nothing moved for the idle limit.
    Idle,
    /// The session reached its lifetime limit.
    LifetimeReached,
    /// A binary frame where none is accepted.
    BinaryRefused,
    /// A text message that is not UTF-8.
    InvalidUtf8,
    /// A frame or message beyond its limit, or one that inflates beyond it.
    TooBig,
    /// A breach of RFC 6455.
    ProtocolError,
    /// The client did not read: a write was stuck beyond the limit, or the node's budget needed its bytes.
    SlowConsumer,
    /// No pong came within the limit.
    PongMissing,
    /// `DELETE @connections`.
    ClosedByApi,
    /// The node is draining.
    Draining,
    /// The node is draining, and its operator has it say so with 1012.
    Restarting,
    /// The operator has this node give some of its sessions to others.
    Rebalanced,
    /// The other nodes took this one for dead and run its `$disconnect` calls.
    Expelled,
    /// The node that had the session died; no frame was ever sent for it.
    NodeLost,
    /// The stage or API was taken out of the definitions.
    StageRemoved,
    /// A fault of the gateway's own.
    Internal,
}

impl CloseReason {
    /// The close frame to send: `None` when the peer gets none (it vanished, does not read, or closed by itself).
    pub const fn frame(&self) -> Option<(u16, &'static str)> {
        match self {
            Self::ClientClosedSilently
            | Self::ClientClosed { .. }
            | Self::ClientVanished
            | Self::SlowConsumer
            | Self::PongMissing
            | Self::NodeLost => None,
            Self::Restarting | Self::Rebalanced | Self::Expelled => Some((1012, "Service restart")),
            Self::Idle | Self::LifetimeReached | Self::Draining | Self::StageRemoved => Some((1001, "Going away")),
            Self::BinaryRefused => Some((1003, "Binary is not supported")),
            Self::InvalidUtf8 => Some((1007, "Invalid UTF-8")),
            Self::TooBig => Some((1009, "Message too big")),
            Self::ProtocolError => Some((1002, "Protocol error")),
            Self::ClosedByApi => Some((1000, "Connection Closed Normally")),
            Self::Internal => Some((1011, "Internal server error")),
        }
    }

    /// `disconnectStatusCode` and `disconnectReason` of the `$disconnect` event (specification 2.3.5).
    pub fn disconnect(&self) -> (u16, &str) {
        match self {
            Self::ClientClosedSilently => (1005, "Client-side close frame status not set"),
            Self::ClientClosed { code, reason } => (*code, reason),
            Self::ClientVanished | Self::SlowConsumer | Self::PongMissing => (1006, "Connection closed abnormally"),
            Self::NodeLost => (1006, "Gateway node lost"),
            Self::Idle
            | Self::LifetimeReached
            | Self::BinaryRefused
            | Self::InvalidUtf8
            | Self::TooBig
            | Self::ProtocolError
            | Self::ClosedByApi
            | Self::Draining
            | Self::Restarting
            | Self::Rebalanced
            | Self::Expelled
            | Self::StageRemoved
            | Self::Internal => self.frame().unwrap_or((1006, "")),
        }
    }

    /// The metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::ClientClosedSilently | Self::ClientClosed { .. } => "client_closed",
            Self::ClientVanished => "client_vanished",
            Self::Idle => "idle",
            Self::LifetimeReached => "lifetime",
            Self::BinaryRefused => "binary_refused",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::TooBig => "too_big",
            Self::ProtocolError => "protocol_error",
            Self::SlowConsumer => "slow_consumer",
            Self::PongMissing => "pong_missing",
            Self::ClosedByApi => "closed_by_api",
            Self::Draining => "draining",
            Self::Restarting => "restarting",
            Self::Rebalanced => "rebalanced",
            Self::Expelled => "expelled",
            Self::NodeLost => "node_lost",
            Self::StageRemoved => "stage_removed",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_object_has_the_recorded_spaces() {
        let connection = ConnectionId::parse("L0SM9cOFvHcCIhw=").unwrap();
        let request = RequestId::parse("L0SPDGiovHcFWMg=").unwrap();
        assert_eq!(
            Fault::Internal.object(&connection, &request),
            r#"{"message": "Internal server error", "connectionId":"L0SM9cOFvHcCIhw=", "requestId":"L0SPDGiovHcFWMg="}"#
        );
    }

    #[test]
    fn bodies_are_those_of_the_specification() {
        assert_eq!(Fault::Forbidden.body(), r#"{"message":"Forbidden"}"#);
        assert_eq!(Fault::Gone.body(), "");
        assert_eq!(
            Fault::InvalidConnectionId("WDGT8fY4joECJrQ=test".into()).body(),
            r#"{"message":"Invalid connectionId: WDGT8fY4joECJrQ=test"}"#
        );
        assert_eq!(Fault::InvalidConnectionId("\"\n".into()).body(), r#"{"message":"Invalid connectionId: \"\n"}"#);
    }

    #[test]
    fn reasons_fit_a_close_frame() {
        for reason in [CloseReason::Idle, CloseReason::BinaryRefused, CloseReason::ClosedByApi, CloseReason::Internal] {
            let (code, text) = reason.frame().unwrap();
            assert!((1000..1016).contains(&code) && text.len() <= 123);
            assert_eq!(reason.disconnect(), (code, text));
        }
    }
}
