//! Calling what stands behind a route.
//!
//! What lives here: `HTTP` and `HTTP_PROXY` ([`Integrations::http`]), `AWS` and `AWS_PROXY` with Lambda
//! ([`Integrations::lambda`]), `MOCK` ([`mock::invoke`]), and the mappings they use. What it promises: one call, one deadline, one outcome; nothing a client sends can add a header, change the framing
//! of a request or leave the path it was mapped into.
//!
//! May import: `upstream`, `definition`, `context`, `lang` and the ground floor. Source: specification 4, 5.

mod answer;
mod authorizer;
mod event;
mod http;
mod lambda;
mod mapping;
pub mod mock;
mod uri;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ::http::{Extensions, HeaderMap};
use bytes::Bytes;

use crate::definition::function::FunctionError;
use crate::lang::template::RenderError;
use crate::upstream::{self, LambdaError, UpstreamError};

pub use authorizer::{Asked, AuthorizeError};

/// What a route's integration came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Decides a handshake: 200 to 299 accepts (specification 5.4.5). The back-end's, or the one a `MOCK` rendered.
    pub status: u16,
    /// Headers for the answer to a handshake: the back-end's without hop-by-hop ones and `Content-Length`, or the mapped
    /// ones. Empty for messages and disconnects, where nobody sees them (specification 5.2.2).
    pub headers: HeaderMap,
    /// What a two-way route sends, whatever the status (specification 5.2); the body of a refused handshake. Any bytes up to
    /// [`upstream::Config::max_response_bytes`]: the caller holds it against the message limit.
    pub body: Bytes,
    /// `$context.integration.status`: what the back-end said.
    pub integration_status: u16,
    /// `$context.integration.integrationStatus`: what the service in front of it said; 200 for a function that failed.
    pub service_status: u16,
    /// `$context.integration.requestId`: the service's own name for the call.
    pub request_id: Option<String>,
    /// `$context.integrationLatency`: how long the back-end took; zero for a `MOCK`.
    pub latency: Duration,
}

/// Why an integration has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// The back-end could not be called, or gave no usable answer; [`UpstreamError::Timeout`] is the integration's timeout.
    #[error("the back-end could not be called")]
    Upstream(#[from] UpstreamError),
    /// The function could not be called, or its answer did not come.
    #[error("the function could not be called")]
    Lambda(#[from] LambdaError),
    /// What the definition names with the stage's variables is no function.
    #[error("the integrationUri {0}")]
    Function(#[from] FunctionError),
    /// The function ran and failed.
    #[error("the function failed: {kind}")]
    FunctionFailed {
        /// `errorType`, shortened. Its `errorMessage` may quote a client and stays out of the log; the function's own has it.
        kind: String,
    },
    /// What the function gave is no answer of `AWS_PROXY` (specification 4.4.5).
    #[error("malformed answer of the function: {0}")]
    MalformedAnswer(String),
    /// No template for the payload, and it may not pass as it is (specification 4.6.1).
    #[error("no request template for the payload, and passthrough is refused")]
    UnsupportedMediaType,
    /// A request or response template did not render.
    #[error("a mapping template did not render")]
    Template(#[from] RenderError),
    /// A `MOCK` request did not come to `{"statusCode": N}`, N from 200 to 599 (specification 4.6.7).
    #[error("the mock request has no statusCode from 200 to 599")]
    MockStatus,
    /// `CONVERT_TO_BINARY` met something else than base64 (specification 4.8.2).
    #[error("the content to convert is not base64")]
    Base64,
    /// A place `{name}` of the address has no value, or one that would leave its path segment.
    #[error("the path parameter `{name}` has no usable value")]
    PathParameter {
        /// The name between the braces.
        name: String,
    },
}

/// Everything integrations share; one for the process.
#[derive(Debug)]
pub struct Integrations {
    upstream: Arc<upstream::Http>,
    functions: upstream::Lambda,
    /// The spelling of the gateway's own header names, for calls without names of their own.
    spelling: Extensions,
}

impl Integrations {
    /// Integrations that call back-ends through `upstream`, and functions with `functions`.
    pub fn new(upstream: Arc<upstream::Http>, functions: upstream::Lambda) -> Self {
        Self { upstream, functions, spelling: upstream::spelling(http::SPELLED) }
    }

    /// The client, to close it when the node ends.
    pub fn upstream(&self) -> &upstream::Http {
        &self.upstream
    }
}
