//! The operator's listener: health, readiness, metrics, connections. Never public.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /health` | 200 while the process lives |
//! | `GET /ready` | 200 while it wants new clients (`degraded: …` while the registry is away), 503 from the start of a drain |
//! | `GET /metrics` | Prometheus text |
//! | `GET /connections?limit=N&after=ID&api=A&stage=S` | connections of all nodes, by id |
//! | `GET`, `POST`, `DELETE /connections/{id}` | describe, send to, close one, on whichever node it is |
//! | `GET /nodes` | the nodes of the cluster as this one sees them |
//! | `POST /nodes/shed?percent=P&rate=N` | this node gives up a share of its sessions, so many a second |
//! | `POST /nodes/bury?connection=ID` | declares dead the node that made this id, when the registry knows nothing of it |
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
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

use super::BindError;
use super::respond::Answer;
use crate::fault::Fault;
use crate::gateway::{Filter, Gateway, Row, is_address, is_loopback_name};
use crate::ids::{ApiId, ConnectionId, RequestId, StageName};
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
            .route("/nodes", get(nodes))
            .route("/nodes/shed", post(shed))
            .route("/nodes/bury", post(bury))
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
    match desk.gateway.degradation() {
        // Still 200: if every node stepped aside because the registry is away, nobody would be served at all.
        Some(why) => format!("degraded: {why}\n").into_response(),
        None => "ready\n".into_response(),
    }
}

async fn metrics(State(desk): Desk) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], desk.gateway.render_metrics()).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<usize>,
    after: Option<String>,
    api: Option<String>,
    stage: Option<String>,
}

async fn list(State(desk): Desk, Query(page): Query<Page>) -> Response {
    let filter = || {
        Some(Filter {
            api: page.api.as_deref().map(ApiId::parse).transpose().ok()?,
            stage: page.stage.as_deref().map(StageName::parse).transpose().ok()?,
            after: page.after.as_deref().map(ConnectionId::parse).transpose().ok()?,
            limit: page.limit.unwrap_or(PAGE).clamp(1, PAGE),
        })
    };
    let Some(filter) = filter() else { return answer(Err(Fault::BadRequest)) };
    let (listing, open) = desk.gateway.list(&filter).await;
    let shown: Vec<_> = listing.items.iter().map(shown).collect();
    let next = listing.items.last().filter(|_| listing.more).map(|row| row.id.to_string());
    let body = json!({ "connections": shown, "next": next, "open": open, "unreachable": listing.unreachable });
    Json(body).into_response()
}

fn shown(row: &Row) -> serde_json::Value {
    json!({
        "connectionId": row.id.to_string(),
        "apiId": row.api.as_str(),
        "stage": row.stage.as_str(),
        "sourceIp": row.described.source_ip,
        "userAgent": row.described.user_agent,
        "connectedAt": row.described.connected_at.to_iso(),
        "lastActiveAt": row.described.last_active_at.to_iso(),
        "outboxBytes": row.outbox_bytes,
    })
}

async fn nodes(State(desk): Desk) -> Response {
    let Some(view) = desk.gateway.nodes() else { return alone() };
    let nodes: Vec<_> = view
        .nodes
        .iter()
        .map(|node| {
            json!({
                "incarnation": node.incarnation.map(|incarnation| format!("{:06x}", incarnation.get())),
                "name": &*node.info.name,
                "address": &*node.info.address,
                "version": &*node.info.version,
                "startedAt": node.info.started_at.to_iso(),
                "isThisNode": node.is_this,
                "state": node.state,
            })
        })
        .collect();
    Json(json!({ "nodes": nodes, "registry": view.registry, "unwritten": view.unwritten })).into_response()
}

fn alone() -> Response {
    let body = Json(json!({ "message": "this node is alone: it runs without --redis" }));
    (StatusCode::CONFLICT, body).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shed {
    percent: f64,
    rate: u32,
}

async fn shed(State(desk): Desk, Query(shed): Query<Shed>) -> Response {
    if !(shed.percent > 0.0 && shed.percent <= 100.0) || shed.rate == 0 {
        let body = Json(json!({ "message": "expected a percent above 0 and up to 100, and a rate above 0 a second" }));
        return (StatusCode::BAD_REQUEST, body).into_response();
    }
    if let Some(sessions) = desk.gateway.shed(shed.percent / 100.0, shed.rate) {
        return Json(json!({ "sessions": sessions })).into_response();
    }
    let body = Json(json!({ "message": "this node is giving up sessions already, or draining" }));
    (StatusCode::CONFLICT, body).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bury {
    connection: String,
}

async fn bury(State(desk): Desk, Query(of): Query<Bury>) -> Response {
    let Ok(id) = ConnectionId::parse(&of.connection) else {
        return answer(Err(Fault::InvalidConnectionId(of.connection)));
    };
    let Some(node) = desk.gateway.node() else { return alone() };
    match node.declare_dead(id.incarnation()).await {
        Ok(true) => answer(Ok(Answer::no_content())),
        Ok(false) => {
            let message = "the node that made this id is listed: the cluster itself finds out whether it is dead";
            (StatusCode::CONFLICT, Json(json!({ "message": message }))).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "message": error.to_string() }))).into_response(),
    }
}

fn answer(outcome: Result<Answer, Fault>) -> Response {
    outcome.unwrap_or_else(|fault| Answer::fault(&fault)).into_response(RequestId::random())
}

async fn describe(State(desk): Desk, Path(id): Path<String>) -> Response {
    answer(desk.gateway.describe_one(&id).await.map(|d| Answer::ok(super::callback::described(&d))))
}

async fn send(State(desk): Desk, Path(id): Path<String>, body: Bytes) -> Response {
    answer(desk.gateway.push_any(&id, body).await.map(|()| Answer::ok(String::new())))
}

async fn close(State(desk): Desk, Path(id): Path<String>) -> Response {
    answer(desk.gateway.close_one(&id).await.map(|()| Answer::no_content()))
}
