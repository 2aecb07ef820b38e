//! Every URL of the public listener that our own parser leaves to axum, on one page.
//!
//! | request | goes to |
//! | --- | --- |
//! | any method, a callback path | [`callback`], like the plain ones |
//! | a WebSocket upgrade over an HTTP stack's connection | refused: upgrades come first on a connection |
//! | `GET` under a stage | 426, as the service answers a plain request for a WebSocket API |
//! | anything else | 403 |

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header;
use http_body_util::{BodyExt as _, Limited};

use super::callback::{self, CallbackRequest, Signed};
use super::respond::Answer;
use super::{Origin, Shared, forwarded};
use crate::fault::Fault;
use crate::gateway::{Resolver, is_loopback_name};
use crate::ids::RequestId;
use crate::tasks::Tasks;

/// Runs hyper's tasks on ours, so that a drain knows of them.
#[derive(Debug, Clone)]
pub(super) struct Spawner(pub(super) Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn("http", future);
    }
}

#[derive(Clone)]
struct Edge {
    shared: Arc<Shared>,
    origin: Origin,
}

/// The public listener's router, for one connection.
pub(super) fn public(shared: Arc<Shared>, origin: Origin) -> Router {
    Router::new().fallback(any).with_state(Edge { shared, origin })
}

async fn any(State(edge): State<Edge>, request: Request) -> Response {
    let id = RequestId::random();
    let answer = serve(&edge, request, id).await.unwrap_or_else(|fault| {
        edge.shared.gateway.metrics().fault(&fault);
        Answer::fault(&fault)
    });
    answer.into_response(id)
}

async fn serve(edge: &Edge, request: Request, id: RequestId) -> Result<Answer, Fault> {
    let (parts, body) = request.into_parts();
    let text = |name: header::HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    // Over HTTP/2 the host is in the target.
    let host =
        parts.uri.authority().map(http::uri::Authority::as_str).or_else(|| text(header::HOST)).unwrap_or_default();
    let config = &edge.shared.config;
    let gateway = &edge.shared.gateway;
    if config.loopback_names_only && !is_loopback_name(host) && !gateway.is_declared_domain(host) {
        return Err(Fault::Forbidden);
    }
    let path = parts.uri.path();
    if parts.uri.path_and_query().is_some_and(|target| target.as_str().len() > super::wire::MAX_TARGET) {
        return Err(Fault::UriTooLong);
    }
    let method = parts.method.as_str();
    if !callback::is_callback(path) {
        gateway.resolve(Resolver { host, path, method })?;
        return Err(if method == "GET" { Fault::UpgradeRequired } else { Fault::Forbidden });
    }
    let query = parts.uri.query().unwrap_or_default();
    // One that cannot be read is one that names nobody.
    let values = |name: &'static str| parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    let request = CallbackRequest {
        method,
        host,
        path,
        query,
        // One that cannot be read is one that no API lists.
        origin: parts.headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("?")),
        authorization: text(header::AUTHORIZATION),
        content_type: text(header::CONTENT_TYPE),
        call: parts.headers.get("amz-sdk-invocation-id").and_then(|value| value.to_str().ok()),
        is_local: config.access.is_open_on_loopback && forwarded::is_local(values, edge.origin, &config.proxies),
        signed: callback::may_be_signed(text(header::AUTHORIZATION), query).then(|| {
            let client = forwarded::resolve(values, edge.origin, &config.proxies);
            Signed { headers: signed_headers(&parts.headers, host), source_ip: client.address, is_tls: client.is_tls }
        }),
        id,
    };
    let admitted = callback::admit(gateway, &config.access, &request)?;
    let body = read(body, admitted.max_body(), config.handshake_timeout).await?;
    Ok(admitted.serve(gateway, &request, body).await)
}

/// Headers as a signature sees them. Over HTTP/2 the host is in the target and counts as the header it stands for.
fn signed_headers<'a>(headers: &'a http::HeaderMap, host: &'a str) -> Vec<(&'a str, &'a str)> {
    // One that cannot be read is one that nobody signed.
    let pair =
        |(name, value): (&'a http::HeaderName, &'a http::HeaderValue)| (name.as_str(), value.to_str().unwrap_or("?"));
    let mut pairs: Vec<_> = headers.iter().map(pair).collect();
    if !headers.contains_key(header::HOST) {
        pairs.push(("host", host));
    }
    pairs
}

async fn read(body: Body, most: usize, limit: std::time::Duration) -> Result<bytes::Bytes, Fault> {
    match tokio::time::timeout(limit, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(Fault::PayloadTooLarge),
        Ok(Err(_)) => Err(Fault::BadRequest),
        Err(_) => Err(Fault::RequestTimeout),
    }
}
