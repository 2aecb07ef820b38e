//! A server under measurement, whichever it is, and how sessions and publishers reach it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use rustls::ClientConfig;

use crate::gauge;
use crate::net::fleet::Opened;
use crate::net::socket::Tune;
use crate::net::ws::{self, Headers};
use crate::net::{Fleet, Opening, Speaks, http1, sign};
use crate::process::Process;

/// The stage of `routes/load.yaml`.
const STAGE: &str = "load";

/// What kind of server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Causeway.
    Gateway,
    /// The bare tungstenite echo server.
    Echo,
    /// nginx with nchan.
    Nchan,
}

/// A server under measurement.
#[derive(Debug)]
pub struct Service {
    /// What it is.
    pub kind: Kind,
    /// The process; it ends with this.
    pub process: Process,
    /// Every process whose time counts.
    pub pids: Vec<i32>,
    /// `ws` and `http`.
    pub plain: SocketAddr,
    /// `wss`.
    pub tls: Option<SocketAddr>,
    /// Needed on callbacks.
    pub token: Option<String>,
    /// For the operator.
    pub admin: Option<SocketAddr>,
}

/// How sessions are opened.
#[derive(Clone, Copy)]
pub struct Guests<'a> {
    /// Over TLS, trusting this.
    pub tls: Option<&'a Arc<ClientConfig>>,
    /// What the handshake says.
    pub headers: Headers,
    /// How many handshakes at once.
    pub window: usize,
    /// Socket settings.
    pub tune: Tune,
    /// Whether to try again when refused.
    pub retry: bool,
    /// nchan only: the channel of the n-th link.
    pub channel: &'a dyn Fn(usize) -> String,
}

impl std::fmt::Debug for Guests<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guests").field("window", &self.window).finish_non_exhaustive()
    }
}

impl Default for Guests<'_> {
    fn default() -> Self {
        Self {
            tls: None,
            headers: Headers::Plain,
            window: 64,
            tune: Tune { narrow: false, subnet: 1 },
            retry: false,
            channel: &|_| "all".into(),
        }
    }
}

impl Service {
    /// Processor time so far.
    pub fn cpu(&self) -> Result<Duration> {
        gauge::cpu_of(&self.pids)
    }

    /// Opens `count` more sessions.
    pub fn invite(&self, fleet: &mut Fleet, count: usize, guests: &Guests<'_>) -> Result<Opened> {
        let address = match guests.tls {
            Some(_) => self.tls.ok_or_else(|| anyhow::anyhow!("{:?} has no TLS", self.kind))?,
            None => self.plain,
        };
        invite(self.kind, address, fleet, count, guests)
    }

    /// Opens `count` keep-alive connections for posts.
    pub fn publishers(&self, fleet: &mut Fleet, count: usize) -> Result<Opened> {
        let opening = Opening {
            address: self.plain,
            tls: None,
            speaks: Speaks::Http,
            request: &|_| Vec::new(),
            window: count,
            tune: Tune { narrow: false, subnet: 1 },
            patience: Duration::from_secs(10),
            retry: false,
        };
        fleet.open(&opening, count)
    }

    /// A POST that reaches one session: by connection id, or by nchan's channel.
    pub fn post(&self, whom: &str, body: &str) -> Vec<u8> {
        let path = match self.kind {
            Kind::Gateway => format!("/{STAGE}/@connections/{}", whom.replace('=', "%3D")),
            Kind::Echo | Kind::Nchan => format!("/pub/{whom}"),
        };
        let bearer = self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        http1::post(self.plain, &path, body.as_bytes(), &bearer.unwrap_or_default())
    }

    /// The same to the gateway, signed now.
    pub fn signed_post(&self, id: &str, body: &str) -> Vec<u8> {
        let path = format!("/{STAGE}/@connections/{}", id.replace('=', "%3D"));
        let now = time::OffsetDateTime::now_utc();
        let signature = sign::headers(&self.plain.to_string(), &path, body.as_bytes(), now);
        http1::post(self.plain, &path, body.as_bytes(), &signature)
    }
}

/// Opens `count` more sessions with whatever is at an address.
pub fn invite(
    kind: Kind,
    address: SocketAddr,
    fleet: &mut Fleet,
    count: usize,
    guests: &Guests<'_>,
) -> Result<Opened> {
    let request = |index| {
        let path = match kind {
            Kind::Gateway => format!("/{STAGE}"),
            Kind::Echo => "/".into(),
            Kind::Nchan => format!("/sub/{}", (guests.channel)(index)),
        };
        ws::handshake(address, &path, guests.headers)
    };
    let opening = Opening {
        address,
        tls: guests.tls,
        speaks: Speaks::WebSocket,
        request: &request,
        window: guests.window,
        tune: guests.tune,
        patience: Duration::from_secs(120),
        retry: guests.retry,
    };
    fleet.open(&opening, count)
}
