//! The upgrade: check the request, ask the gateway, answer 101, hand the socket to the session engine.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use form_urlencoded::parse as parse_query;
use http::{HeaderMap, header};

use super::forwarded::{self, Client};
use super::listener::Stream;
use super::respond::{Answer, line, start};
use super::wire::Head;
use super::{Origin, Shared};
use crate::context::Handshake;
use crate::fault::Fault;
use crate::gateway::{Accepted, ConnectRequest, Refusal, Resolver};
use crate::ids::{RequestId, hex, random_bytes};
use crate::session::{accept_key, negotiate};
use crate::sigv4;

/// Whether a request asks for an upgrade to WebSocket, well formed or not.
pub(super) fn is_upgrade(head: &Head) -> bool {
    head.has_token("upgrade", "websocket") && head.has_token("connection", "upgrade")
}

/// The form of a handshake (specification 1.3), in the order of 1.4.
fn check(head: &Head) -> Result<&str, Fault> {
    if head.method != "GET" {
        return Err(Fault::Forbidden);
    }
    if !head.is_http_11 {
        return Err(Fault::BadRequest);
    }
    if head.one("sec-websocket-version").is_none_or(|version| version.trim() != "13") {
        return Err(Fault::UnsupportedVersion);
    }
    let key = head.one("sec-websocket-key").map(str::trim).ok_or(Fault::BadRequest)?;
    match STANDARD.decode(key) {
        Ok(bytes) if bytes.len() == 16 => Ok(key),
        Ok(_) | Err(_) => Err(Fault::BadRequest),
    }
}

/// Serves a handshake to its end: a session, or a refusal.
pub(super) async fn serve(shared: &Arc<Shared>, mut stream: Stream, head: Head, early: BytesMut, origin: Origin) {
    let (accepted, key) = match decide(shared, &head, origin).await {
        Ok(decided) => decided,
        Err(refusal) => {
            let answer = refuse(refusal);
            let _client_may_be_gone = stream.send(&answer, shared.config.handshake_timeout).await;
            return stream.finish().await;
        }
    };
    let agreement = if accepted.compression { negotiate(head.all("sec-websocket-extensions")) } else { None };
    let answer = accept(&accepted, &key, agreement.as_ref().map(|a| a.response.as_str()));
    let Ok(mut socket) = stream.into_socket() else { return };
    // What came over TLS is in the socket already; what was read behind the head goes first.
    let mut behind = early.to_vec();
    behind.append(&mut socket.early);
    socket.early = behind;
    socket.window_bits = agreement.map_or(0, |a| a.server_window_bits);
    let _client_may_be_gone = shared.gateway.open(accepted, socket, answer);
}

async fn decide(shared: &Arc<Shared>, head: &Head, origin: Origin) -> Result<(Accepted, String), Refusal> {
    let plain = |fault| Refusal::Fault(fault, None);
    let host = head.one("host").unwrap_or_default();
    let address = Resolver { host, path: head.path(), method: &head.method };
    let resolved = shared.gateway.resolve(address).map_err(|_| plain(Fault::Forbidden))?;
    if !resolved.rest.is_empty() {
        return Err(plain(Fault::Forbidden));
    }
    let key = check(head).map_err(plain)?.to_owned();
    let client = forwarded::resolve(|name| head.all(name), origin, &shared.config.proxies);
    let headers = head.pairs();
    let wire = sigv4::Request { method: &head.method, path: head.path(), query: head.query(), headers: &headers };
    let request = ConnectRequest {
        stage: resolved.stage,
        wire,
        source_ip: client.address,
        is_tls: client.is_tls,
        domain_name: host.to_owned(),
        user_agent: head.one("user-agent").map(str::to_owned),
        handshake: event_view(head, &client),
    };
    let accepted = shared.gateway.connect(request).await?;
    Ok((accepted, key))
}

/// The request as integrations see it (specification 1.6).
fn event_view(head: &Head, client: &Client) -> Handshake {
    let dropped =
        ["connection", "upgrade", "content-length", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"];
    let mut headers = Vec::with_capacity(head.headers.len() + 4);
    let mut trace = None;
    for (name, value) in &head.headers {
        if dropped.iter().any(|d| name.eq_ignore_ascii_case(d)) {
            continue;
        }
        if name.eq_ignore_ascii_case("x-amzn-trace-id") {
            trace = Some(value.clone()).filter(|value| is_trace_id(value));
        } else {
            headers.push((name.clone(), value.clone()));
        }
    }
    headers.push(("X-Amzn-Trace-Id".to_owned(), trace.unwrap_or_else(trace_id)));
    headers.push(("X-Forwarded-For".to_owned(), client.chain.clone()));
    headers.push(("X-Forwarded-Port".to_owned(), client.port.to_string()));
    let scheme = if client.is_tls { "https" } else { "http" };
    headers.push(("X-Forwarded-Proto".to_owned(), scheme.to_owned()));
    let query = parse_query(head.query().as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    Handshake { headers, query, raw_query: head.query().to_owned(), authorizer_latency: None }
}

fn is_trace_id(value: &str) -> bool {
    let Some(rest) = value.strip_prefix("Root=1-") else { return false };
    let root = rest.split(';').next().unwrap_or_default();
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    root.split_once('-').is_some_and(|(time, id)| hex(time, 8) && hex(id, 24))
}

fn trace_id() -> String {
    let seconds = crate::clock::Clock::system().now().0 / 1_000;
    let random: [u8; 12] = random_bytes();
    format!("Root=1-{:08x}-{}", seconds as u32, hex(&random))
}

/// The 101 (specification 1.5).
fn accept(accepted: &Accepted, key: &str, extensions: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    start(&mut out, 101);
    line(&mut out, "Connection", "upgrade");
    line(&mut out, "upgrade", "websocket");
    line(&mut out, "sec-websocket-accept", &accept_key(key.as_bytes()));
    if let Some(extensions) = extensions {
        line(&mut out, "sec-websocket-extensions", extensions);
    }
    // One subprotocol at most, the integration's first (specification 1.7.4); names and values as the integration's.
    if let Some(value) = accepted.headers.get(header::SEC_WEBSOCKET_PROTOCOL) {
        line(&mut out, "Sec-WebSocket-Protocol", &String::from_utf8_lossy(value.as_bytes()));
    }
    carry(&mut out, &accepted.headers, |name| name.starts_with("sec-websocket-") || name == "content-type");
    out.extend_from_slice(b"\r\n");
    out
}

/// Copies an integration's headers, without those that speak of its own connection.
fn carry(out: &mut Vec<u8>, headers: &HeaderMap, left_out: impl Fn(&str) -> bool) {
    let own = ["connection", "upgrade", "content-length", "transfer-encoding", "date", "keep-alive", "trailer", "te"];
    for (name, value) in headers {
        if !own.contains(&name.as_str()) && !left_out(name.as_str()) {
            line(out, name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
        }
    }
}

fn refuse(refusal: Refusal) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    match refusal {
        Refusal::Fault(fault, ids) => {
            let mut answer = Answer::fault(&fault);
            let request = ids.map_or_else(RequestId::random, |(_, request)| request);
            if let Some((connection, request)) = ids {
                answer.body = fault.object(&connection, &request);
            }
            answer.write(&mut out, request, true);
        }
        Refusal::Integration { status, headers, body } => integration_refusal(&mut out, status, &headers, &body),
    }
    out
}

/// A refusal in the integration's own words (specification 1.8.3).
fn integration_refusal(out: &mut Vec<u8>, status: u16, headers: &HeaderMap, body: &Bytes) {
    // A handshake is never answered 1xx; whatever else the integration said stands.
    let status = if status < 200 { 500 } else { status };
    start(out, status);
    carry(out, headers, |_| false);
    let bare = status == 204 || status == 304;
    if !bare {
        line(out, "Content-Length", &body.len().to_string());
    }
    line(out, "x-amz-apigw-id", &RequestId::random().text());
    line(out, "Connection", "close");
    out.extend_from_slice(b"\r\n");
    if !bare {
        out.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire;
    use super::*;

    fn head(extra: &str) -> Head {
        let text = format!(
            "GET /dev?a=1&a=2&b=x%20y HTTP/1.1\r\nHost: h:1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n{extra}\r\n"
        );
        wire::parse(text.as_bytes(), 16_384).unwrap().unwrap()
    }

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    #[test]
    fn only_version_13_with_a_sound_key_passes() {
        assert!(is_upgrade(&head("")));
        assert_eq!(check(&head("")), Err(Fault::UnsupportedVersion));
        assert_eq!(check(&head("Sec-WebSocket-Version: 8\r\n")), Err(Fault::UnsupportedVersion));
        assert_eq!(check(&head("Sec-WebSocket-Version: 13\r\n")), Err(Fault::BadRequest));
        assert_eq!(
            check(&head("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=\r\n")),
            Err(Fault::BadRequest)
        );
        assert!(check(&head(&format!("Sec-WebSocket-Version: 13\r\n{KEY}"))).is_ok());
    }

    #[test]
    fn integrations_see_the_handshake_without_its_transport() {
        let peer: std::net::SocketAddr = "192.0.2.1:5".parse().unwrap();
        let origin = Origin { hop: peer.ip(), peer, is_anonymous: false, port: 443, is_tls: true };
        let head = head("X-Forwarded-For: 9.9.9.9\r\nX-A: 1\r\nX-Forwarded-Proto: gopher\r\n");
        let client = forwarded::resolve(|name| head.all(name), origin, &super::super::Proxies::default());
        let view = event_view(&head, &client);
        let get = |name: &str| view.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(get("X-Forwarded-For"), Some("9.9.9.9, 192.0.2.1"));
        assert_eq!(
            (get("X-Forwarded-Port"), get("X-Forwarded-Proto"), get("X-A")),
            (Some("443"), Some("https"), Some("1"))
        );
        assert!(is_trace_id(get("X-Amzn-Trace-Id").unwrap()));
        assert!(get("Upgrade").is_none() && get("Connection").is_none());
        assert_eq!(view.query, [("a".into(), "1".into()), ("a".into(), "2".into()), ("b".into(), "x y".into())]);
    }

    #[test]
    fn a_trace_id_is_kept_only_when_it_is_one() {
        assert!(is_trace_id("Root=1-625d9ad1-37a5d33a61dd9be33ae3a247"));
        assert!(is_trace_id("Root=1-625d9ad1-37a5d33a61dd9be33ae3a247;Sampled=1"));
        assert!(!is_trace_id("Root=1-625d9ad1") && !is_trace_id("x"));
    }
}
