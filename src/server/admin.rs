//! The operator's listener: health, readiness, metrics, connections. Never public.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /health` | 200 while the process lives |
//! | `GET /ready` | 200 while it wants new clients, 503 from the start of a drain |
//! | `GET /metrics` | Prometheus text |
//! | `GET /connections?limit=N&after=ID` | connections of this node, by id |
//! | `GET`, `POST`, `DELETE /connections/{id}` | describe, send to, close one |
//!
//! With a token set, everything but the first two asks for it. Without one it is for this machine alone, and for no web
//! page open on it: a request must name an address or a loopback name, and come without an `Origin`.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

use super::BindError;
use super::respond::Answer;
use crate::fault::Fault;
use crate::gateway::{Gateway, Pushed, is_address, is_loopback_name};
use crate::ids::RequestId;
use crate::tasks::Tasks;
use crate::telemetry::metrics::CONTENT_TYPE;

/// Connections listed in one answer, unless fewer are asked for.
const PAGE: usize = 1_000;
/// Largest message that may be sent by hand.
const MAX_BODY: usize = 16 << 20;

/// A bound admin listener.
#[derive(Debug)]
pub struct Admin {
    socket: TcpListener,
    address: std::net::SocketAddr,
}

struct Operator {
    gateway: Arc<Gateway>,
    token: Option<Box<str>>,
}

type Desk = State<Arc<Operator>>;

impl Admin {
    /// Binds; port 0 takes a free one.
    ///
    /// # Errors
    /// [`BindError`], when the address is taken or not ours.
    pub async fn bind(address: std::net::SocketAddr) -> Result<Self, BindError> {
        let socket = TcpListener::bind(address).await.map_err(|source| BindError { address, source })?;
        let address = socket.local_addr().map_err(|source| BindError { address, source })?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Serves until `tasks` is told to finish.
    pub async fn serve(self, gateway: Arc<Gateway>, token: Option<Box<str>>, tasks: Tasks) {
        let desk = Arc::new(Operator { gateway, token });
        let guarded = Router::new()
            .route("/metrics", get(metrics))
            .route("/connections", get(list))
            .route("/connections/{id}", get(describe).post(send).delete(close))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .route_layer(middleware::from_fn_with_state(Arc::clone(&desk), authorize));
        let router =
            Router::new().route("/health", get(health)).route("/ready", get(ready)).merge(guarded).with_state(desk);
        let stop = tasks.token().clone().cancelled_owned();
        if let Err(error) = axum::serve(self.socket, router).with_graceful_shutdown(stop).await {
            tracing::error!(%error, "the admin listener ended");
        }
    }
}

async fn authorize(State(desk): Desk, request: Request, next: Next) -> Response {
    if let Some(token) = &desk.token {
        let sent = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let sent = sent.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
        if !bool::from(sent.as_bytes().ct_eq(token.as_bytes())) {
            let body = Json(json!({ "message": "this needs the admin token, as Authorization: Bearer …" }));
            return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response();
        }
    } else if may_be_a_web_page(request.headers()) {
        let body =
            Json(json!({ "message": "without an admin token this is not for web pages, nor for names but localhost" }));
        return (StatusCode::FORBIDDEN, body).into_response();
    }
    next.run(request).await
}

/// Whether a browser may have sent this for a page: those say where they come from, or were led here by a name of theirs.
fn may_be_a_web_page(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    headers.contains_key(header::ORIGIN) || !(is_loopback_name(host) || is_address(host))
}

async fn health() -> &'static str {
    "ok\n"
}

async fn ready(State(desk): Desk) -> Response {
    if !desk.gateway.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ready\n".into_response()
}

async fn metrics(State(desk): Desk) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], desk.gateway.render_metrics()).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<usize>,
    after: Option<String>,
}

async fn list(State(desk): Desk, Query(page): Query<Page>) -> Response {
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let mut sessions: Vec<_> = desk.gateway.hub().all();
    sessions.sort_unstable_by_key(|session| *session.id());
    let after = page.after.as_deref().and_then(|id| crate::ids::ConnectionId::parse(id).ok());
    let rest = sessions.iter().filter(|session| after.is_none_or(|after| *session.id() > after));
    let shown: Vec<_> = rest
        .take(limit)
        .map(|session| {
            let context = session.context();
            json!({
                "connectionId": session.id().to_string(),
                "apiId": context.profile.api.as_str(),
                "stage": context.profile.stage.as_str(),
                "sourceIp": context.source_ip,
                "userAgent": context.profile.user_agent,
                "connectedAt": context.connected_at.to_iso(),
                "lastActiveAt": desk.gateway.hub().wall_time(session.last_data()).to_iso(),
                "outboxBytes": session.outbox_bytes(),
            })
        })
        .collect();
    let next =
        if shown.len() == limit { shown.last().and_then(|last| last.get("connectionId").cloned()) } else { None };
    Json(json!({ "connections": shown, "next": next, "open": sessions.len() })).into_response()
}

fn answer(outcome: Result<Answer, Fault>) -> Response {
    outcome.unwrap_or_else(|fault| Answer::fault(&fault)).into_response(RequestId::random())
}

async fn describe(State(desk): Desk, Path(id): Path<String>) -> Response {
    let told = desk.gateway.stage_of(&id).and_then(|stage| desk.gateway.describe(&stage, &id, RequestId::random()));
    answer(told.map(|d| Answer::ok(super::callback::described(&d))))
}

async fn send(State(desk): Desk, Path(id): Path<String>, body: Bytes) -> Response {
    let pushed = Pushed { body, is_binary: false };
    let sent = desk.gateway.stage_of(&id).and_then(|stage| desk.gateway.push(&stage, &id, pushed, RequestId::random()));
    answer(sent.map(|()| Answer::ok(String::new())))
}

async fn close(State(desk): Desk, Path(id): Path<String>) -> Response {
    let closed = desk.gateway.stage_of(&id).and_then(|stage| desk.gateway.close(&stage, &id, RequestId::random()));
    answer(closed.map(|()| Answer::no_content()))
}
