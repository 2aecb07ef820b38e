//! Every module's error turned into a fault, exhaustively: a new variant cannot be forgotten.

use crate::auth::iam::Denied;
use crate::cluster::DeliveryError;
use crate::cluster::transport::Response;
use crate::fault::Fault;
use crate::integration::{AuthorizeError, InvokeError};
use crate::session::PushError;
use crate::sigv4::Refused;
pub(super) use crate::upstream::chain;
use crate::upstream::{LambdaError, UpstreamError};

/// What a failed integration is to the client (specification 1.8, 4.3).
pub(super) fn integration(error: &InvokeError) -> Fault {
    match error {
        InvokeError::Upstream(UpstreamError::Timeout) => Fault::IntegrationTimeout,
        InvokeError::Upstream(
            UpstreamError::Unreachable(_)
            | UpstreamError::Tls(_)
            | UpstreamError::Busy(_)
            | UpstreamError::Interrupted(_)
            | UpstreamError::BadResponse(_)
            | UpstreamError::TooLarge { .. }
            | UpstreamError::Closed,
        )
        | InvokeError::Base64 => Fault::IntegrationFailure,
        InvokeError::Lambda(error) => lambda(error),
        InvokeError::FunctionFailed { .. } | InvokeError::MalformedAnswer(_) => Fault::FunctionFailed,
        InvokeError::Upstream(UpstreamError::InvalidUri)
        | InvokeError::Function(_)
        | InvokeError::Template(_)
        | InvokeError::MockStatus
        | InvokeError::PathParameter { .. } => Fault::ApiConfiguration,
        InvokeError::UnsupportedMediaType => Fault::UnsupportedMediaType,
    }
}

/// What an authorizer's no is to the client (specification 1.8 rows 3 to 8).
pub(super) const fn unauthorized(error: &AuthorizeError) -> Fault {
    match error {
        AuthorizeError::Unidentified(_) | AuthorizeError::Unauthorized => Fault::Unauthorized,
        AuthorizeError::Failed(_) => Fault::AuthorizerFailure,
        AuthorizeError::Unusable(_) => Fault::AuthorizerConfiguration,
        AuthorizeError::Denied => Fault::ExplicitlyDenied,
        AuthorizeError::NotAllowed => Fault::NotAllowed,
    }
}

/// What a function that was not called, or whose answer did not come, is to the client (specification 1.8, 4.3; the REST one
/// 2.5).
const fn lambda(error: &LambdaError) -> Fault {
    match error {
        LambdaError::Upstream(UpstreamError::Timeout) => Fault::IntegrationTimeout,
        LambdaError::Failed { .. } | LambdaError::AnswerTooLarge => Fault::FunctionFailed,
        LambdaError::Upstream(
            UpstreamError::Unreachable(_)
            | UpstreamError::Tls(_)
            | UpstreamError::Busy(_)
            | UpstreamError::Interrupted(_)
            | UpstreamError::BadResponse(_)
            | UpstreamError::TooLarge { .. }
            | UpstreamError::Closed,
        )
        | LambdaError::Throttled { .. }
        | LambdaError::EventTooLarge { .. } => Fault::IntegrationFailure,
        LambdaError::Upstream(UpstreamError::InvalidUri)
        | LambdaError::Credentials(_)
        | LambdaError::NoRegion { .. }
        | LambdaError::Refused { .. } => Fault::ApiConfiguration,
    }
}

/// What a signature that does not count is to the caller (REST specification 7.7).
pub(super) fn refused(refused: Refused) -> Fault {
    match refused {
        Refused::Unsigned => Fault::MissingAuthenticationToken,
        Refused::Incomplete(message) => Fault::IncompleteSignature(message),
        Refused::Invalid(message) => Fault::InvalidSignature(message),
        Refused::UnknownKey => Fault::UnrecognizedClient,
        Refused::ExpiredToken => Fault::ExpiredToken,
    }
}

/// What a lack of permission is to the caller (specification 6.4).
pub(super) fn denied(denied: Denied) -> Fault {
    Fault::NotAuthorized(denied.0)
}

/// What a refused push is to the back-end (specification 6.4).
pub(super) const fn push(error: PushError) -> Fault {
    match error {
        PushError::Gone => Fault::Gone,
        PushError::Full => Fault::LimitExceeded,
    }
}

/// What a request that did not get to a connection's owner is to the back-end (product promise: gone only when proven).
pub(super) const fn delivery(error: DeliveryError) -> Fault {
    match error {
        DeliveryError::Gone => Fault::Gone,
        DeliveryError::Unavailable => Fault::Unavailable,
    }
}

/// What another node answered to a request that is done or not.
pub(super) fn done(response: &Response) -> Result<(), Fault> {
    if *response == Response::Done { Ok(()) } else { Err(unexpected(response)) }
}

/// What an answer that is not the one hoped for means to the back-end.
pub(super) const fn unexpected(response: &Response) -> Fault {
    match response {
        Response::Gone => Fault::Gone,
        Response::Full => Fault::LimitExceeded,
        Response::TooManyGroups => Fault::TooManyGroups,
        Response::TooLarge => Fault::PayloadTooLarge,
        // Not an answer to what was asked: nothing is known, so nothing is claimed.
        Response::Busy
        | Response::Done
        | Response::Described(_)
        | Response::Delivered(_)
        | Response::Ids(_)
        | Response::Rows { .. } => Fault::Unavailable,
    }
}

/// What a fault of a request about one connection is to the node that asked.
pub(super) const fn for_peer(fault: &Fault) -> Response {
    match fault {
        Fault::Gone => Response::Gone,
        Fault::LimitExceeded => Response::Full,
        Fault::TooManyGroups => Response::TooManyGroups,
        Fault::PayloadTooLarge => Response::TooLarge,
        // None of these comes of such a request; whoever asked must not take it for a proof of anything.
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
        | Fault::AuthorizerFailure
        | Fault::AuthorizerConfiguration
        | Fault::InvalidConnectionId(_)
        | Fault::NoMethod { .. }
        | Fault::InvalidGroup
        | Fault::Throttled
        | Fault::UnsupportedMediaType
        | Fault::IntegrationTimeout
        | Fault::IntegrationFailure
        | Fault::FunctionFailed
        | Fault::ApiConfiguration
        | Fault::Internal
        | Fault::Unavailable => Response::Busy,
    }
}
