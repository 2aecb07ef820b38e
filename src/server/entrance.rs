//! What happens between accepting a connection and its first request: the PROXY header, then TLS.

use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::certificates::Certificates;
use super::listener::Stream;
use super::proxy::{self, Told};
use super::{Origin, Shared};
use crate::session::tls::TlsStream;
use crate::telemetry::labels::{ProxyHeader, Success};

/// How often a refusal of strangers is worth a line.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Whether an address may connect at all: with the PROXY protocol on, only the proxies may.
pub(super) fn is_let_in(shared: &Shared, peer: SocketAddr) -> bool {
    let proxies = &shared.config.proxies;
    if !proxies.is_protocol_on || proxies.trusted.contains(peer.ip()) {
        return true;
    }
    shared.gateway.metrics().proxy_headers.inc(ProxyHeader::Refused);
    tracing::debug!(%peer, "a connection from outside `trusted-proxies` was refused");
    if let Some(connections) = shared.strangers.count(Instant::now()) {
        tracing::warn!(
            connections,
            "refused who is not in `trusted-proxies`: with `proxy-protocol` on, nobody else may connect"
        );
    }
    false
}

/// Counts what is refused, so that a flood of it is not one of lines.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<Refused>);

#[derive(Debug, Default)]
struct Refused {
    untold: u64,
    told_at: Option<Instant>,
}

impl Strangers {
    /// Counts one; how many there were since the last line, when another one is due.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut refused = self.0.lock();
        refused.untold += 1;
        if refused.told_at.is_some_and(|at| now.duration_since(at) < COMPLAIN_EVERY) {
            return None;
        }
        refused.told_at = Some(now);
        Some(std::mem::take(&mut refused.untold))
    }
}

/// Takes a connection to where its first request begins; `None` when it does not get there.
pub(super) async fn enter(
    shared: &Shared,
    mut stream: TcpStream,
    hop: SocketAddr,
    port: u16,
    certificates: Option<&Certificates>,
) -> Option<(Stream, Origin)> {
    let mut origin = Origin { hop: hop.ip(), peer: hop, is_anonymous: false, port, is_tls: certificates.is_some() };
    if shared.config.proxies.is_protocol_on {
        let told = match proxy::take(&mut stream, shared.config.handshake_timeout).await {
            Ok(told) => told,
            Err(error) => {
                shared.gateway.metrics().proxy_headers.inc(ProxyHeader::Failed);
                tracing::debug!(peer = %hop, %error, "a connection without a PROXY header was closed");
                return None;
            }
        };
        shared.gateway.metrics().proxy_headers.inc(ProxyHeader::Ok);
        origin.hear(told);
    }
    let stream = match certificates {
        None => Stream::Plain(stream),
        Some(certificates) => Stream::Tls(Box::new(secure(shared, stream, certificates, origin.peer).await?)),
    };
    Some((stream, origin))
}

impl Origin {
    fn hear(&mut self, told: Told) {
        match told {
            Told::Nobody => self.is_anonymous = true,
            Told::Client { client, to, is_tls } => {
                (self.peer, self.port) = (client, to.port());
                self.is_tls = is_tls.unwrap_or(self.is_tls);
            }
        }
    }
}

async fn secure(
    shared: &Shared,
    stream: TcpStream,
    certificates: &Certificates,
    peer: SocketAddr,
) -> Option<TlsStream> {
    let handshakes = &shared.gateway.metrics().tls_handshakes;
    match timeout(shared.config.handshake_timeout, TlsStream::accept(stream, certificates.config())).await {
        Ok(Ok(stream)) => {
            handshakes.inc(Success::Ok);
            return Some(stream);
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
    handshakes.inc(Success::Failed);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_is_told_in_few_lines() {
        let strangers = Strangers::default();
        let start = Instant::now();
        assert_eq!(strangers.count(start), Some(1));
        for n in 0..1_000 {
            assert_eq!(strangers.count(start + COMPLAIN_EVERY.mul_f64(f64::from(n) / 1_001.0)), None);
        }
        assert_eq!(strangers.count(start + COMPLAIN_EVERY), Some(1_001));
        assert_eq!(strangers.count(start + COMPLAIN_EVERY), None);
    }

    #[test]
    fn the_proxy_says_whether_the_client_came_over_tls() {
        let hop: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let origin = Origin { hop: hop.ip(), peer: hop, is_anonymous: false, port: 8_080, is_tls: false };
        let told = |is_tls| {
            let mut origin = origin;
            let (client, to) = ("192.0.2.1:5".parse().unwrap(), "198.51.100.2:443".parse().unwrap());
            origin.hear(Told::Client { client, to, is_tls });
            (origin.peer.to_string(), origin.hop.to_string(), origin.port, origin.is_tls)
        };
        assert_eq!(told(None), ("192.0.2.1:5".into(), "10.0.0.1".into(), 443, false));
        assert!(told(Some(true)).3 && !told(Some(false)).3);
        let mut nobody = origin;
        nobody.hear(Told::Nobody);
        assert!(nobody.is_anonymous && nobody.peer == hop && nobody.port == 8_080);
    }
}
