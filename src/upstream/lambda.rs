//! The Invoke API of Lambda: how functions are called (specification of REST APIs 2.7).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;

use super::credentials::{Chain, CredentialsError, Sources};
use super::{Http, UpstreamError};
use crate::clock::Clock;
use crate::sigv4::{self, Scope};
use crate::tasks::Tasks;

/// What a function may be sent and may answer: 6 MB, and what the service allows beyond it.
const MAX_PAYLOAD: usize = 6 * 1024 * 1024;
const MAX_ANSWER: usize = MAX_PAYLOAD + 100;

/// All but the unreserved characters of RFC 3986: how SDKs write a function's ARN into the path.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

static INVOCATION_TYPE: HeaderName = HeaderName::from_static("x-amz-invocation-type");
static LOG_TYPE: HeaderName = HeaderName::from_static("x-amz-log-type");
static FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");
static ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
static JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where functions are called, and by whom.
#[derive(Debug, Clone, Default)]
pub struct LambdaConfig {
    /// Where the Invoke API is, without a path; `None` is the service's own address in the function's region.
    pub endpoint: Option<Uri>,
    /// The region of functions whose name has none. The one of the profile in the shared files comes after it.
    pub region: Option<String>,
    /// Where credentials come from.
    pub credentials: Sources,
}

/// One call of a function.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// Name, partial ARN or ARN, without qualifier.
    pub function: &'a str,
    /// Version, alias or `$LATEST`.
    pub qualifier: Option<&'a str>,
    /// The region of its ARN.
    pub region: Option<&'a str>,
    /// More headers: `X-Amz-Invocation-Type` unless it is `RequestResponse`, the trace id, mapped ones.
    pub headers: HeaderMap,
    /// The event.
    pub payload: Bytes,
}

/// What the Invoke API answered to a call it took.
#[derive(Debug)]
pub struct Invoked {
    /// 200; 202 for an `Event`, 204 for a `DryRun`.
    pub status: u16,
    /// `X-Amz-Function-Error`: the payload tells how the function failed.
    pub is_function_error: bool,
    /// What the function gave.
    pub payload: Bytes,
    /// `x-amzn-RequestId`.
    pub request_id: Option<String>,
    /// How long the Invoke API took, without what came before the call.
    pub latency: Duration,
}

/// Why a function was not called, or its answer did not come.
#[derive(Debug, thiserror::Error)]
pub enum LambdaError {
    /// The Invoke API could not be called.
    #[error("the Invoke API could not be called")]
    Upstream(#[from] UpstreamError),
    /// There is nothing to sign with.
    #[error("there are no credentials to call a function with")]
    Credentials(#[source] Arc<CredentialsError>),
    /// Nobody says in which region the function is.
    #[error("nothing names the region of `{function}`, expected an ARN, AWS_REGION or a region in the shared files")]
    NoRegion {
        /// The function.
        function: String,
    },
    /// The event is larger than a function takes.
    #[error("the event has {bytes} bytes, a function takes {MAX_PAYLOAD}")]
    EventTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The answer is larger than a function may give.
    #[error("the function's answer is larger than {MAX_ANSWER} bytes")]
    AnswerTooLarge,
    /// Too many calls of the function, or of all of them (429).
    #[error("the Invoke API throttles: {kind}")]
    Throttled {
        /// `x-amzn-ErrorType`.
        kind: String,
    },
    /// The Invoke API refuses: no such function, not allowed, not signed as it should be (other 4xx, 3xx).
    #[error("the Invoke API refuses with {status}: {kind}")]
    Refused {
        /// Its status.
        status: u16,
        /// `x-amzn-ErrorType`.
        kind: String,
    },
    /// The Invoke API failed (5xx).
    #[error("the Invoke API failed with {status}: {kind}")]
    Failed {
        /// Its status.
        status: u16,
        /// `x-amzn-ErrorType`.
        kind: String,
    },
}

/// Calls functions.
#[derive(Debug)]
pub struct Lambda {
    http: Arc<Http>,
    endpoint: Option<Uri>,
    region: Option<String>,
    credentials: Arc<Chain>,
    clock: Clock,
}

impl Lambda {
    /// A caller whose credentials are looked for when the first function is called, in a task of `tasks`.
    pub fn new(config: &LambdaConfig, http: Arc<Http>, clock: Clock, tasks: Tasks) -> Self {
        let credentials = Chain::new(config.credentials.clone(), Arc::clone(&http), clock.clone(), tasks);
        Self { http, endpoint: config.endpoint.clone(), region: config.region.clone(), credentials, clock }
    }

    /// Calls a function and reads its whole answer; both must be done by `deadline`.
    ///
    /// # Errors
    /// Every [`LambdaError`]. A function that ran and failed is none: see [`Invoked::is_function_error`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the call; the function goes on if it has begun.
    pub async fn invoke(&self, call: Invocation<'_>, deadline: Instant) -> Result<Invoked, LambdaError> {
        if call.payload.len() > MAX_PAYLOAD {
            return Err(LambdaError::EventTooLarge { bytes: call.payload.len() });
        }
        let signer = self.credentials.get(deadline).await.map_err(|error| match error {
            Some(error) => LambdaError::Credentials(error),
            None => LambdaError::Upstream(UpstreamError::Timeout),
        })?;
        let region = call.region.or(self.region.as_deref()).or(signer.region.as_deref());
        let region = region.ok_or_else(|| LambdaError::NoRegion { function: call.function.to_owned() })?;
        let mut request = self.request(&call, region)?;
        *request.body_mut() = call.payload;
        signer.sign(&mut request, Scope { region, service: "lambda" }, self.clock.now())?;
        let started = Instant::now();
        let answered = self.http.call_at_most(request, deadline, MAX_ANSWER).await;
        let answer = answered.map_err(|error| {
            if matches!(error, UpstreamError::TooLarge { .. }) { LambdaError::AnswerTooLarge } else { error.into() }
        })?;
        read(answer, started.elapsed())
    }

    fn request(&self, call: &Invocation<'_>, region: &str) -> Result<Request<Bytes>, LambdaError> {
        let function = utf8_percent_encode(call.function, &RESERVED);
        let mut path = format!("/2015-03-31/functions/{function}/invocations");
        if let Some(qualifier) = call.qualifier {
            path.push_str("?Qualifier=");
            path.extend(utf8_percent_encode(qualifier, &RESERVED));
        }
        let base = match &self.endpoint {
            Some(endpoint) => endpoint.to_string().trim_end_matches('/').to_owned(),
            None => format!("https://{}", host(region)),
        };
        let uri = Uri::try_from(base + &path).map_err(|_| UpstreamError::InvalidUri)?;
        let authority = uri.authority().ok_or(UpstreamError::InvalidUri)?;
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| UpstreamError::InvalidUri)?;
        let mut headers = HeaderMap::with_capacity(10 + call.headers.len());
        headers.insert(header::HOST, host);
        headers.insert(&INVOCATION_TYPE, HeaderValue::from_static("RequestResponse"));
        headers.insert(&LOG_TYPE, HeaderValue::from_static("None"));
        headers.insert(header::CONTENT_TYPE, JSON.clone());
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// The service's own address in a region.
fn host(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("lambda.{region}.amazonaws.com{suffix}")
}

fn read(answer: Response<Bytes>, latency: Duration) -> Result<Invoked, LambdaError> {
    let (head, payload) = answer.into_parts();
    let status = head.status.as_u16();
    let text = |name: &HeaderName| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).map(|text| text.chars().take(128).collect())
    };
    // `ResourceNotFoundException:http://internal…/` in older answers.
    let kind = || {
        let kind: Option<String> = text(&ERROR_TYPE);
        let kind = kind.as_deref().and_then(|kind| kind.split(':').next()).filter(|kind| !kind.is_empty());
        kind.unwrap_or("no reason given").to_owned()
    };
    match status {
        200 | 202 | 204 => Ok(Invoked {
            status,
            is_function_error: head.headers.contains_key(&FUNCTION_ERROR),
            payload,
            request_id: text(&REQUEST_ID),
            latency,
        }),
        429 => Err(LambdaError::Throttled { kind: kind() }),
        500.. => Err(LambdaError::Failed { status, kind: kind() }),
        _ => Err(LambdaError::Refused { status, kind: kind() }),
    }
}

/// Signs `request` in place.
pub(super) fn sign(
    request: &mut Request<Bytes>,
    credentials: &sigv4::Credentials,
    keys: &sigv4::DerivedKeys,
    scope: Scope<'_>,
    time: crate::clock::EpochMillis,
) -> Result<(), UpstreamError> {
    let headers: Vec<(&str, &str)> =
        request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
    let seen = sigv4::Request {
        method: request.method().as_str(),
        path: request.uri().path(),
        query: request.uri().query().unwrap_or_default(),
        headers: &headers,
    };
    for (name, value) in sigv4::sign(credentials, keys, scope, &seen, request.body(), time) {
        let mut value = HeaderValue::try_from(value).map_err(|_| UpstreamError::InvalidUri)?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    Ok(())
}
