//! The HTTP client.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::uri::{Authority, Scheme};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, timeout_at};

use super::connect::{ConnectError, Connector, SetupError};
use super::gate::Gates;
use super::{Bound, UpstreamError};
use crate::tasks::Tasks;

/// Headers of one answer; hyper's own default, named because it is a bound.
const MAX_RESPONSE_HEADERS: usize = 100;

/// What outgoing calls may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Longest time for TCP and TLS together. Default 5 s: well above a lost packet's repetition, well below the
    /// 29 s of an integration.
    pub connect_timeout: Duration,
    /// Largest body of an answer. Default 10 MiB, as the service's HTTP integrations. More is
    /// [`UpstreamError::TooLarge`].
    pub max_response_bytes: usize,
    /// Largest head of an answer. Default 64 KiB, at least 8 KiB. More is [`UpstreamError::BadResponse`].
    pub max_response_head_bytes: usize,
    /// Bytes of answers of all calls together that are held while more of them is to come. Default 256 MiB. More is
    /// [`UpstreamError::Busy`].
    pub max_buffered_bytes: usize,
    /// Calls in flight to one authority (host and port). Default 1,024: each is a connection when the upstream speaks
    /// HTTP/1.1.
    pub max_in_flight: usize,
    /// Callers that wait for a place when that many are in flight. Default 1,024; the next is
    /// [`UpstreamError::Busy`] at once.
    pub max_waiting: usize,
    /// Longest wait for a place. Default 1 s: evens out a burst, and is no queue for an upstream that is too slow.
    pub max_wait: Duration,
    /// Authorities called at once. Default 1,024. More is [`UpstreamError::Busy`].
    pub max_upstreams: usize,
    /// Idle connections kept for one authority. Default 1,024, so that steady load never reconnects.
    pub max_idle: usize,
    /// How long an idle connection is kept. Default 4 s: just below the 5 s after which common servers close theirs, so
    /// that a call rarely meets a connection that is being closed.
    pub idle_timeout: Duration,
    /// PEM file of certificate authorities trusted besides the system's.
    pub extra_ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            max_response_bytes: 10 << 20,
            max_response_head_bytes: 64 << 10,
            max_buffered_bytes: 256 << 20,
            max_in_flight: 1_024,
            max_waiting: 1_024,
            max_wait: Duration::from_secs(1),
            max_upstreams: 1_024,
            max_idle: 1_024,
            idle_timeout: Duration::from_secs(4),
            extra_ca_file: None,
        }
    }
}

/// Calls back-ends over pooled connections, HTTP/1.1 or, where TLS negotiates it, HTTP/2.
#[derive(Debug)]
pub struct Http {
    /// Gone after [`Http::close`]; a call holds its own handle, so it is not cut.
    client: ArcSwapOption<Client<Connector, Full<Bytes>>>,
    gates: Gates,
    max_response_bytes: usize,
    max_buffered_bytes: usize,
    /// What all calls hold of unfinished bodies.
    pub(super) buffered: AtomicUsize,
}

impl Http {
    /// A client whose connections are tasks of `tasks`.
    ///
    /// Reads the system's certificate authorities, so it takes some milliseconds.
    ///
    /// # Errors
    /// [`SetupError`] when the extra certificate authorities cannot be used.
    pub fn new(config: &Config, tasks: Tasks) -> Result<Self, SetupError> {
        let head_bytes = config.max_response_head_bytes.max(8 << 10);
        let client = Client::builder(Spawner(tasks))
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.max_idle)
            .http1_title_case_headers(true)
            .http1_max_headers(MAX_RESPONSE_HEADERS)
            .http1_max_buf_size(head_bytes)
            .http2_max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
            .http2_keep_alive_interval(Duration::from_secs(20))
            // A request that was still in the queue of a connection when that one closed goes to another. hyper hands
            // such a request back only when not a byte of it was written, so nothing is ever sent twice.
            .retry_canceled_requests(true)
            .build(Connector::new(config)?);
        Ok(Self {
            client: ArcSwapOption::from_pointee(client),
            gates: Gates::new(config),
            max_response_bytes: config.max_response_bytes,
            max_buffered_bytes: config.max_buffered_bytes,
            buffered: AtomicUsize::new(0),
        })
    }

    /// Sends `request` and reads the whole answer; both must be done by `deadline`.
    ///
    /// Redirects are answers like any other. Header names go out in title case unless the request carries a
    /// [`spelling`](super::spelling()).
    ///
    /// # Errors
    /// Every [`UpstreamError`]; [`UpstreamError::retry`] tells whether the upstream may have seen the request.
    ///
    /// # Cancel safety
    /// Dropping the future ends the call: its place is free at once, a connection of HTTP/1.1 is closed, a stream of HTTP/2
    /// reset. Whether the upstream acted on the request is then unknown.
    pub async fn call(&self, request: Request<Bytes>, deadline: Instant) -> Result<Response<Bytes>, UpstreamError> {
        self.call_at_most(request, deadline, self.max_response_bytes).await
    }

    /// The same, for an answer of at most `max_bytes` or [`Config::max_response_bytes`], whichever is less.
    ///
    /// # Errors
    /// As [`Http::call`].
    ///
    /// # Cancel safety
    /// As [`Http::call`].
    pub async fn call_at_most(
        &self,
        request: Request<Bytes>,
        deadline: Instant,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, UpstreamError> {
        let authority = target(&request)?;
        let client = self.client.load_full().ok_or(UpstreamError::Closed)?;
        let _pass = self.gates.enter(&authority, deadline).await?;
        timeout_at(deadline, self.exchange(&client, request.map(Full::new), max_bytes))
            .await
            .map_err(|_| UpstreamError::Timeout)?
    }

    /// Ends the client: calls in flight go on, new ones are [`UpstreamError::Closed`], idle connections close at once and
    /// the others after their call. A drain calls it when the last exchange is over, so that no connection's task is left.
    pub fn close(&self) {
        self.client.store(None);
    }

    async fn exchange(
        &self,
        client: &Client<Connector, Full<Bytes>>,
        request: Request<Full<Bytes>>,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, UpstreamError> {
        let (head, body) = client.request(request).await.map_err(failed)?.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpstreamError::BadResponse("it switched protocols, which nobody asked for".into()));
        }
        let body = self.read(body, max_bytes).await?;
        Ok(Response::from_parts(head, body))
    }

    /// Reads a body. One that came in one piece, as nearly all do, is handed on without a copy.
    async fn read(&self, mut body: Incoming, max_bytes: usize) -> Result<Bytes, UpstreamError> {
        let limit = self.max_response_bytes.min(max_bytes);
        let too_large = UpstreamError::TooLarge { limit };
        let declared = body.size_hint().lower();
        if usize::try_from(declared).map_or(true, |declared| declared > limit) {
            return Err(too_large);
        }
        let first = next(&mut body).await?.unwrap_or_default();
        if first.len() > limit {
            return Err(too_large);
        }
        if body.is_end_stream() {
            return Ok(first);
        }
        let mut held = Held { all: &self.buffered, mine: 0, limit: self.max_buffered_bytes };
        held.take(first.len())?;
        let Some(mut piece) = next(&mut body).await? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        loop {
            if piece.len() > limit - whole.len() {
                return Err(too_large);
            }
            held.take(piece.len())?;
            whole.extend_from_slice(&piece);
            match next(&mut body).await? {
                Some(next) => piece = next,
                None => return Ok(whole.freeze()),
            }
        }
    }
}

/// The next bytes of a body; trailers are passed over.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>, UpstreamError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| broken(&error).wrap(error))?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// What one call holds of an unfinished body; given back when dropped.
struct Held<'a> {
    all: &'a AtomicUsize,
    mine: usize,
    limit: usize,
}

impl Held<'_> {
    fn take(&mut self, bytes: usize) -> Result<(), UpstreamError> {
        self.mine += bytes;
        if self.all.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            return Err(UpstreamError::Busy(Bound::Buffered));
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.mine, Ordering::Relaxed);
    }
}

/// Where a request goes; also proves that hyper will take its URI.
fn target(request: &Request<Bytes>) -> Result<Authority, UpstreamError> {
    let uri = request.uri();
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority))
            if (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS) && !authority.host().is_empty() =>
        {
            Ok(authority.clone())
        }
        _ => Err(UpstreamError::InvalidUri),
    }
}

/// What an error of the client means.
fn failed(error: legacy::Error) -> UpstreamError {
    match ConnectError::in_chain(&error) {
        Some(ConnectError::Tcp(_) | ConnectError::TimedOut(_)) => UpstreamError::Unreachable(error.into()),
        Some(ConnectError::Tls(_)) => UpstreamError::Tls(error.into()),
        None if error.is_connect() => UpstreamError::Unreachable(error.into()),
        None => {
            let cause = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
            cause.map_or(Broken::Midway, broken).wrap(error)
        }
    }
}

/// How an exchange on a good connection broke.
enum Broken {
    Midway,
    Garbage,
}

impl Broken {
    fn wrap(self, error: impl Into<super::Cause>) -> UpstreamError {
        match self {
            Self::Midway => UpstreamError::Interrupted(error.into()),
            Self::Garbage => UpstreamError::BadResponse(error.into()),
        }
    }
}

fn broken(error: &hyper::Error) -> Broken {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    // A bad chunk is an I/O error to hyper; nothing on the socket itself has these kinds.
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let bad_chunk = io.is_some_and(|io| matches!(io.kind(), InvalidData | InvalidInput));
    if error.is_parse() || bad_chunk { Broken::Garbage } else { Broken::Midway }
}

/// Lets hyper run its connections as tracked tasks.
#[derive(Debug, Clone)]
struct Spawner(Tasks);

impl<F> hyper::rt::Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("upstream-connection", future);
    }
}
