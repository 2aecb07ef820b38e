//! Every module's error turned into a fault, exhaustively: a new variant cannot be forgotten.

use crate::fault::Fault;
use crate::integration::InvokeError;
use crate::session::PushError;
use crate::upstream::UpstreamError;

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
        InvokeError::Upstream(UpstreamError::InvalidUri)
        | InvokeError::Template(_)
        | InvokeError::MockStatus
        | InvokeError::PathParameter { .. } => Fault::ApiConfiguration,
        InvokeError::UnsupportedMediaType => Fault::UnsupportedMediaType,
    }
}

/// What a refused push is to the back-end (specification 6.4).
pub(super) const fn push(error: PushError) -> Fault {
    match error {
        PushError::Gone => Fault::Gone,
        PushError::Full => Fault::LimitExceeded,
    }
}

/// The whole chain of an error, for the log.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
