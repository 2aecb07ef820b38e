//! The labels of metrics: closed sets, so that no client can make series.

use crate::fault::{CloseReason, Fault};

/// One label whose values are all known.
pub trait Label: Copy + 'static {
    /// Its name in the metrics.
    const NAME: &'static str;
    /// All values, in the order of [`Label::index`].
    const ALL: &'static [Self];

    /// Place in [`Label::ALL`].
    fn index(self) -> usize;

    /// Its value in the metrics.
    fn text(self) -> &'static str;
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident $label:literal { $($(#[$variant_doc:meta])* $variant:ident $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    )+};
}

labels! {
    /// What became of a handshake.
    ConnectResult "result" {
        /// A session began.
        Accepted "accepted",
        /// The gateway or the integration answered with an error status.
        Refused "refused",
        /// The client went away before the answer.
        Abandoned "abandoned",
        /// The node had no room: sessions, descriptors, handshakes in progress.
        Busy "busy",
    }
    /// Which kind of route a client message took.
    RouteKind "route" {
        /// A route named in the definition.
        Custom "custom",
        /// `$default`.
        Default "default",
        /// None fitted.
        None "none",
    }
    /// Why a message was sent to a client.
    SentKind "source" {
        /// The answer of a two-way route.
        Response "response",
        /// An error frame.
        Error "error",
        /// `@connections`.
        Push "push",
        /// A group or everybody.
        Group "group",
    }
    /// What became of a push to one connection.
    PushResult "result" {
        /// In the outbox of a live session.
        Delivered "delivered",
        /// The connection is proven gone.
        Gone "gone",
        /// The session's outbox is full.
        Full "full",
        /// Refused before delivery: not allowed, malformed, too large.
        Refused "refused",
        /// Its node could not be asked.
        Unavailable "unavailable",
    }
    /// What became of a message for one member of a group.
    GroupResult "result" {
        /// In the outbox of a live session.
        Delivered "delivered",
        /// The session's outbox was full.
        Dropped "dropped",
        /// The session had ended.
        Gone "gone",
    }
    /// What stands behind a route.
    IntegrationKind "kind" {
        /// `HTTP_PROXY`
        HttpProxy "http_proxy",
        /// `HTTP`
        Http "http",
        /// `AWS_PROXY`
        LambdaProxy "aws_proxy",
        /// `AWS` with a function
        Lambda "aws",
    }
    /// What became of a request over a link between nodes.
    LinkOutcome "outcome" {
        /// Of this node, answered.
        Answered "answered",
        /// Of this node, not sent: nothing was done.
        NotSent "not_sent",
        /// Of this node, sent and not answered.
        Unanswered "unanswered",
        /// Of another node, served.
        Served "served",
        /// Of another node, too late or one too many.
        TurnedAway "turned_away",
    }
    /// Whether something succeeded.
    Success "result" {
        /// It did.
        Ok "ok",
        /// It did not.
        Failed "failed",
    }
    /// What became of a connection that should begin with a PROXY header.
    ProxyHeader "result" {
        /// The header was read.
        Ok "ok",
        /// It was malformed, too long, or did not come.
        Failed "failed",
        /// The connection came from outside the trusted networks.
        Refused "refused",
    }
    /// Why a session ended; the labels of [`CloseReason`].
    EndReason "reason" {
        /// By the client's close frame.
        ClientClosed "client_closed",
        /// Without one.
        ClientVanished "client_vanished",
        /// Nothing moved.
        Idle "idle",
        /// Lifetime limit.
        Lifetime "lifetime",
        /// Binary frame.
        BinaryRefused "binary_refused",
        /// Not UTF-8.
        InvalidUtf8 "invalid_utf8",
        /// Size limit.
        TooBig "too_big",
        /// RFC 6455 broken.
        ProtocolError "protocol_error",
        /// Not reading.
        SlowConsumer "slow_consumer",
        /// No pong.
        PongMissing "pong_missing",
        /// `DELETE @connections`.
        ClosedByApi "closed_by_api",
        /// The node is draining.
        Draining "draining",
        /// The same, closed with 1012.
        Restarting "restarting",
        /// Given to other nodes.
        Rebalanced "rebalanced",
        /// The node was declared dead.
        Expelled "expelled",
        /// Of a dead node.
        NodeLost "node_lost",
        /// Stage or API taken out.
        StageRemoved "stage_removed",
        /// Fault of the gateway.
        Internal "internal",
    }
    /// A failure that a client or back-end was shown; the response types of [`Fault`].
    FaultKind "kind" {
        /// [`Fault::Forbidden`]
        Forbidden "FORBIDDEN",
        /// [`Fault::UpgradeRequired`]
        UpgradeRequired "UPGRADE_REQUIRED",
        /// [`Fault::UnsupportedVersion`]
        UnsupportedVersion "UNSUPPORTED_VERSION",
        /// [`Fault::BadRequest`]
        BadRequest "BAD_REQUEST",
        /// [`Fault::UriTooLong`]
        UriTooLong "URI_TOO_LONG",
        /// [`Fault::HeadersTooLarge`]
        HeadersTooLarge "HEADERS_TOO_LARGE",
        /// [`Fault::RequestTimeout`]
        RequestTimeout "REQUEST_TIMEOUT",
        /// [`Fault::MissingAuthenticationToken`]
        MissingAuthenticationToken "MISSING_AUTHENTICATION_TOKEN",
        /// [`Fault::AccessDenied`], [`Fault::NotAuthorized`], [`Fault::ExplicitlyDenied`], [`Fault::NotAllowed`]
        AccessDenied "ACCESS_DENIED",
        /// [`Fault::InvalidSignature`], [`Fault::IncompleteSignature`], [`Fault::UnrecognizedClient`]
        InvalidSignature "INVALID_SIGNATURE",
        /// [`Fault::ExpiredToken`]
        ExpiredToken "EXPIRED_TOKEN",
        /// [`Fault::InvalidConnectionId`]
        InvalidConnectionId "INVALID_CONNECTION_ID",
        /// [`Fault::Gone`]
        Gone "GONE",
        /// [`Fault::PayloadTooLarge`]
        PayloadTooLarge "REQUEST_TOO_LARGE",
        /// [`Fault::LimitExceeded`]
        LimitExceeded "LIMIT_EXCEEDED",
        /// [`Fault::NoMethod`]
        NoMethod "RESOURCE_NOT_FOUND",
        /// [`Fault::InvalidGroup`]
        InvalidGroup "INVALID_GROUP",
        /// [`Fault::TooManyGroups`]
        TooManyGroups "TOO_MANY_GROUPS",
        /// [`Fault::Throttled`]
        Throttled "THROTTLED",
        /// [`Fault::UnsupportedMediaType`]
        UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE",
        /// [`Fault::Unauthorized`]
        Unauthorized "UNAUTHORIZED",
        /// [`Fault::AuthorizerFailure`]
        AuthorizerFailure "AUTHORIZER_FAILURE",
        /// [`Fault::AuthorizerConfiguration`]
        AuthorizerConfiguration "AUTHORIZER_CONFIGURATION_ERROR",
        /// [`Fault::IntegrationTimeout`]
        IntegrationTimeout "INTEGRATION_TIMEOUT",
        /// [`Fault::IntegrationFailure`]
        IntegrationFailure "INTEGRATION_FAILURE",
        /// [`Fault::ApiConfiguration`]
        ApiConfiguration "API_CONFIGURATION_ERROR",
        /// [`Fault::Internal`]
        Internal "DEFAULT_5XX",
        /// [`Fault::Unavailable`]
        Unavailable "UNAVAILABLE",
    }
}

impl From<&CloseReason> for EndReason {
    fn from(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::ClientClosedSilently | CloseReason::ClientClosed { .. } => Self::ClientClosed,
            CloseReason::ClientVanished => Self::ClientVanished,
            CloseReason::Idle => Self::Idle,
            CloseReason::LifetimeReached => Self::Lifetime,
            CloseReason::BinaryRefused => Self::BinaryRefused,
            CloseReason::InvalidUtf8 => Self::InvalidUtf8,
            CloseReason::TooBig => Self::TooBig,
            CloseReason::ProtocolError => Self::ProtocolError,
            CloseReason::SlowConsumer => Self::SlowConsumer,
            CloseReason::PongMissing => Self::PongMissing,
            CloseReason::ClosedByApi => Self::ClosedByApi,
            CloseReason::Draining => Self::Draining,
            CloseReason::Restarting => Self::Restarting,
            CloseReason::Rebalanced => Self::Rebalanced,
            CloseReason::Expelled => Self::Expelled,
            CloseReason::NodeLost => Self::NodeLost,
            CloseReason::StageRemoved => Self::StageRemoved,
            CloseReason::Internal => Self::Internal,
        }
    }
}

impl From<&Fault> for FaultKind {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Forbidden => Self::Forbidden,
            Fault::UpgradeRequired => Self::UpgradeRequired,
            Fault::UnsupportedVersion => Self::UnsupportedVersion,
            Fault::BadRequest => Self::BadRequest,
            Fault::UriTooLong => Self::UriTooLong,
            Fault::HeadersTooLarge => Self::HeadersTooLarge,
            Fault::RequestTimeout => Self::RequestTimeout,
            Fault::MissingAuthenticationToken => Self::MissingAuthenticationToken,
            Fault::AccessDenied | Fault::NotAuthorized(_) | Fault::ExplicitlyDenied | Fault::NotAllowed => {
                Self::AccessDenied
            }
            Fault::IncompleteSignature(_) | Fault::InvalidSignature(_) | Fault::UnrecognizedClient => {
                Self::InvalidSignature
            }
            Fault::ExpiredToken => Self::ExpiredToken,
            Fault::InvalidConnectionId(_) => Self::InvalidConnectionId,
            Fault::Gone => Self::Gone,
            Fault::PayloadTooLarge => Self::PayloadTooLarge,
            Fault::LimitExceeded => Self::LimitExceeded,
            Fault::NoMethod { .. } => Self::NoMethod,
            Fault::InvalidGroup => Self::InvalidGroup,
            Fault::TooManyGroups => Self::TooManyGroups,
            Fault::Throttled => Self::Throttled,
            Fault::UnsupportedMediaType => Self::UnsupportedMediaType,
            Fault::IntegrationTimeout => Self::IntegrationTimeout,
            Fault::Unauthorized => Self::Unauthorized,
            Fault::AuthorizerFailure => Self::AuthorizerFailure,
            Fault::AuthorizerConfiguration => Self::AuthorizerConfiguration,
            Fault::IntegrationFailure | Fault::FunctionFailed => Self::IntegrationFailure,
            Fault::ApiConfiguration => Self::ApiConfiguration,
            Fault::Internal => Self::Internal,
            Fault::Unavailable => Self::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_close_reasons_are_those_of_the_fault_table() {
        let reasons = [
            CloseReason::ClientClosedSilently,
            CloseReason::ClientClosed { code: 1000, reason: "".into() },
            CloseReason::ClientVanished,
            CloseReason::Idle,
            CloseReason::LifetimeReached,
            CloseReason::BinaryRefused,
            CloseReason::InvalidUtf8,
            CloseReason::TooBig,
            CloseReason::ProtocolError,
            CloseReason::SlowConsumer,
            CloseReason::PongMissing,
            CloseReason::ClosedByApi,
            CloseReason::Draining,
            CloseReason::Restarting,
            CloseReason::Rebalanced,
            CloseReason::Expelled,
            CloseReason::NodeLost,
            CloseReason::StageRemoved,
            CloseReason::Internal,
        ];
        for reason in &reasons {
            assert_eq!(EndReason::from(reason).text(), reason.label());
        }
        assert_eq!(reasons.len(), EndReason::ALL.len() + 1, "a reason without a sample here");
    }

    #[test]
    fn labels_of_faults_are_their_response_types() {
        let faults = [
            Fault::Forbidden,
            Fault::UpgradeRequired,
            Fault::UnsupportedVersion,
            Fault::BadRequest,
            Fault::UriTooLong,
            Fault::HeadersTooLarge,
            Fault::RequestTimeout,
            Fault::MissingAuthenticationToken,
            Fault::AccessDenied,
            Fault::IncompleteSignature(String::new()),
            Fault::InvalidSignature(String::new()),
            Fault::UnrecognizedClient,
            Fault::ExpiredToken,
            Fault::NotAuthorized(String::new()),
            Fault::InvalidConnectionId(String::new()),
            Fault::Gone,
            Fault::PayloadTooLarge,
            Fault::LimitExceeded,
            Fault::NoMethod { path: String::new(), method: String::new() },
            Fault::InvalidGroup,
            Fault::TooManyGroups,
            Fault::Throttled,
            Fault::UnsupportedMediaType,
            Fault::IntegrationTimeout,
            Fault::Unauthorized,
            Fault::ExplicitlyDenied,
            Fault::NotAllowed,
            Fault::AuthorizerFailure,
            Fault::AuthorizerConfiguration,
            Fault::IntegrationFailure,
            Fault::FunctionFailed,
            Fault::ApiConfiguration,
            Fault::Internal,
            Fault::Unavailable,
        ];
        for fault in &faults {
            assert_eq!(FaultKind::from(fault).text(), fault.row().response_type);
        }
        // Some share labels with others: three kinds of signatures one, four kinds of denial another, two of integrations a third.
        assert_eq!(faults.len(), FaultKind::ALL.len() + 6, "a fault without a sample here");
    }
}
