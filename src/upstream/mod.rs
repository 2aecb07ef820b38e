//! Outgoing calls: pooled, timed, counted.
//!
//! What lives here: the HTTP client that integrations call back-ends with; the Invoke API of Lambda over it, and the
//! credentials that sign its calls. What it promises: one deadline covers a whole call, every buffer and queue has a bound,
//! no redirect is followed, and nothing is sent twice unless it provably was not sent at all. It knows nothing of routes or
//! messages.
//!
//! May import: `sigv4` and the ground floor. This folder is the door of hyper's client side, hyper-rustls and rustls' client side.

mod connect;
pub mod credentials;
mod gate;
pub mod http;
pub mod lambda;
mod spelling;

#[cfg(test)]
pub(crate) mod backend;
#[cfg(test)]
mod tests;

pub use self::http::{Config, Http};
pub use connect::SetupError;
pub use lambda::{Invocation, Invoked, Lambda, LambdaConfig, LambdaError};
pub use spelling::spelling;

use std::error::Error as StdError;

/// A cause from below: sockets, TLS, HTTP.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// The whole chain of an error, for the log.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The address is not an absolute `http` or `https` URI.
    #[error("not an absolute http or https URI")]
    InvalidUri,
    /// No connection: the name does not resolve, the port refuses, connecting took too long. Nothing was sent.
    #[error("the upstream cannot be reached")]
    Unreachable(#[source] Cause),
    /// The TLS handshake failed: a certificate nobody vouches for, no common version. Nothing was sent.
    #[error("the TLS handshake with the upstream failed")]
    Tls(#[source] Cause),
    /// The deadline passed before the last byte of the answer.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// A bound of this node is reached: calls in flight to this upstream, upstreams known, bytes of answers held.
    /// Except for the last, nothing was sent.
    #[error("too many calls: {0}")]
    Busy(Bound),
    /// The connection ended before the answer did.
    #[error("the upstream closed the connection midway")]
    Interrupted(#[source] Cause),
    /// What came is not HTTP, or its head is beyond its bound.
    #[error("the upstream's answer is not valid HTTP")]
    BadResponse(#[source] Cause),
    /// The body is larger than the client takes.
    #[error("the upstream's answer is larger than {limit} bytes")]
    TooLarge {
        /// [`Config::max_response_bytes`].
        limit: usize,
    },
    /// [`Http::close`] was called: the node is ending.
    #[error("the client is closed")]
    Closed,
}

/// Which bound made a call [`UpstreamError::Busy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bound {
    /// [`Config::max_in_flight`], and no place came free in [`Config::max_wait`], or [`Config::max_waiting`] waited already.
    #[error("in flight to this upstream")]
    InFlight,
    /// [`Config::max_upstreams`].
    #[error("upstreams at once")]
    Upstreams,
    /// [`Config::max_buffered_bytes`].
    #[error("bytes of answers held")]
    Buffered,
}

/// Whose fault it is that a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The definition's: the call cannot succeed as it is written.
    Definition,
    /// The upstream's, or the network's between.
    Upstream,
    /// This node's.
    Node,
}

/// Whether a failed call may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The upstream saw nothing of it.
    Safe,
    /// The upstream may have acted on it: only for calls whose repetition does no harm.
    Unsure,
    /// It would fail again.
    Useless,
}

impl UpstreamError {
    /// Whose fault it is.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::InvalidUri => Blame::Definition,
            Self::Unreachable(_)
            | Self::Tls(_)
            | Self::Timeout
            | Self::Interrupted(_)
            | Self::BadResponse(_)
            | Self::TooLarge { .. } => Blame::Upstream,
            Self::Busy(_) | Self::Closed => Blame::Node,
        }
    }

    /// Whether the call may be made again.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unreachable(_) | Self::Tls(_) | Self::Busy(Bound::InFlight | Bound::Upstreams) => Retry::Safe,
            Self::Timeout | Self::Interrupted(_) | Self::BadResponse(_) | Self::Busy(Bound::Buffered) => Retry::Unsure,
            Self::InvalidUri | Self::TooLarge { .. } | Self::Closed => Retry::Useless,
        }
    }
}
