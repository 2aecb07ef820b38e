//! The greeting: TLS, then one frame from each side, the dialer's first.
//!
//! ```text
//! dialer                                        acceptor
//!    │ ── TLS 1.3 handshake ──────────────────────► │
//!    │ ── HELLO: proof ‖ what it says ────────────► │   the proof is checked before anything is parsed
//!    │ ◄── HELLO: proof ‖ what it says ──────────── │   or REFUSED with a reason, and the end
//!    │ ── frames ─────────────────────────────────► │   only if both come to the same conclusion
//! ```
//!
//! Both then know the same and decide by the same rule ([`agree`]): the highest protocol number that both speak, each the
//! incarnation that the other one meant. What a hello says may grow at its end; an older node ignores what it does not know.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::codec::{Malformed, Reader, put_text};
use super::credentials::{Channel, Keys, PROOF_BYTES, Role, channel};
use super::frame::{HEADER_BYTES, Input, MAX_PAYLOAD_BYTES, kinds, put_frame};
use super::wire::WRITE_BYTES;
use crate::cluster::registry::Peer;
use crate::ids::Incarnation;

/// Everything up to the first frame, TLS included, takes at most so long.
pub(super) const GREETING_TIME: Duration = Duration::from_secs(5);
/// Nobody who has proven nothing sends more in a frame.
const MAX_GREETING_FRAME: usize = 1_024;
/// Longest address: the longest host name, a port, brackets.
const MAX_ADDRESS_BYTES: usize = 264;
const MAX_VERSION_BYTES: usize = 64;

/// Bytes taken from the socket at once. The TLS library asks for 4 KiB a time; a busy link would pay a system call for each.
const SOCKET_BYTES: usize = 32 << 10;

/// The socket of a link.
pub(super) type Stream = TlsStream<BufReader<TcpStream>>;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be the link.
    Link,
    /// To see who answers.
    Probe,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) purpose: Purpose,
    pub(super) protocols: RangeInclusive<u16>,
    /// Who speaks.
    pub(super) incarnation: Incarnation,
    /// Whom it means to speak to.
    pub(super) expected: Incarnation,
    /// The product's version, for people.
    pub(super) version: Box<str>,
    /// Where others reach the speaker.
    pub(super) address: Box<str>,
}

impl Hello {
    /// What `me` says to `expected`.
    pub(super) fn new(me: &Peer, expected: Incarnation, protocols: RangeInclusive<u16>, purpose: Purpose) -> Self {
        Self {
            purpose,
            protocols,
            incarnation: me.incarnation,
            expected,
            version: cut(&me.info.version, MAX_VERSION_BYTES),
            address: cut(&me.info.address, MAX_ADDRESS_BYTES),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.purpose {
            Purpose::Link => 0,
            Purpose::Probe => 1,
        });
        out.extend_from_slice(&self.protocols.start().to_be_bytes());
        out.extend_from_slice(&self.protocols.end().to_be_bytes());
        out.extend_from_slice(&self.incarnation.get().to_be_bytes());
        out.extend_from_slice(&self.expected.get().to_be_bytes());
        put_text(out, &self.version);
        put_text(out, &self.address);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        let purpose = match from.u8()? {
            0 => Purpose::Link,
            1 => Purpose::Probe,
            _ => return Err(Malformed("a hello of no known purpose")),
        };
        let hello = Self {
            purpose,
            protocols: from.u16()?..=from.u16()?,
            incarnation: from.incarnation()?,
            expected: from.incarnation()?,
            version: from.text(MAX_VERSION_BYTES)?.into(),
            address: from.text(MAX_ADDRESS_BYTES)?.into(),
        };
        // They go into logs; whoever could send them may still not forge a line there.
        if hello.version.chars().chain(hello.address.chars()).any(char::is_control) {
            return Err(Malformed("a hello with control characters"));
        }
        Ok(hello)
    }
}

/// A text without its end, should it be too long to be sent.
fn cut(text: &str, max: usize) -> Box<str> {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

/// Why there was no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetingError {
    /// TCP, or TLS below it.
    #[error("{0}")]
    Connection(String),
    /// TLS.
    #[error("no TLS: {0}")]
    Tls(String),
    /// Not a greeting.
    #[error("no greeting of ours: {0}")]
    Malformed(#[from] Malformed),
    /// The other side closed in the middle.
    #[error("it closed the connection during the greeting")]
    Closed,
    /// In good time.
    #[error("no greeting within {0:?}")]
    Late(Duration),
    /// The other side proved nothing.
    #[error("it cannot prove the cluster secret: is it of this cluster, and with the same --cluster-secret?")]
    Unproven,
    /// The other side has credentials of another kind.
    #[error("it proves a cluster secret and this node has none: give all nodes the same credentials")]
    UnaskedProof,
    /// The other side will not talk.
    #[error("{0}")]
    Refused(Refusal),
    /// The versions do not meet.
    #[error(
        "it is version {version} and speaks link protocol {}-{}, this node {}-{}",
        theirs.start(), theirs.end(), ours.start(), ours.end()
    )]
    Protocol { version: Box<str>, theirs: RangeInclusive<u16>, ours: RangeInclusive<u16> },
    /// Not who was meant.
    #[error("another start of the node answers there")]
    Another,
    /// The acceptor is not who the dialer meant.
    #[error("it looks for an earlier start of this node")]
    MeantAnother,
    /// This node is nobody yet.
    #[error("this node has not joined the cluster yet")]
    NotJoined,
}

/// What the acceptor says instead of a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it refused this node's proof: do both have the same --cluster-secret?")]
    NotProven,
    #[error("it has not joined the cluster yet")]
    NotJoined,
    #[error("it has no cluster secret and this node has one: give all nodes the same credentials")]
    NoSecret,
}

impl Refusal {
    const fn code(self) -> u8 {
        match self {
            Self::NotProven => 1,
            Self::NotJoined => 2,
            Self::NoSecret => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::NotProven),
            2 => Some(Self::NotJoined),
            3 => Some(Self::NoSecret),
            _ => None,
        }
    }
}

/// What came of a greeting in which both sides have proven themselves.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) stream: Stream,
    /// What arrived behind the greeting.
    pub(super) input: Input,
    pub(super) theirs: Hello,
    /// The number both speak from now on.
    pub(super) protocol: u16,
}

/// The rule: each is whom the other meant, and they speak the highest number that both know.
fn agree(ours: &Hello, theirs: &Hello, role: Role) -> Result<u16, GreetingError> {
    if theirs.expected != ours.incarnation {
        return Err(GreetingError::MeantAnother);
    }
    if ours.expected != theirs.incarnation && role == Role::Dialer {
        return Err(GreetingError::Another);
    }
    let lowest = *ours.protocols.start().max(theirs.protocols.start());
    let highest = *ours.protocols.end().min(theirs.protocols.end());
    if lowest > highest {
        return Err(GreetingError::Protocol {
            version: theirs.version.clone(),
            theirs: theirs.protocols.clone(),
            ours: ours.protocols.clone(),
        });
    }
    Ok(highest)
}

/// Dials `address` and greets whoever is there.
pub(super) async fn dial(keys: &Keys, address: &str, ours: &Hello) -> Result<Greeted, GreetingError> {
    tokio::time::timeout(GREETING_TIME, dial_unhurried(keys, address, ours))
        .await
        .unwrap_or(Err(GreetingError::Late(GREETING_TIME)))
}

async fn dial_unhurried(keys: &Keys, address: &str, ours: &Hello) -> Result<Greeted, GreetingError> {
    let failed = |error: std::io::Error| GreetingError::Connection(error.to_string());
    let (host, port) =
        split(address).ok_or_else(|| GreetingError::Connection(format!("{address:?} is not of the form host:port")))?;
    let name = keys.server_name(host).map_err(GreetingError::Connection)?;
    let tcp = TcpStream::connect((host, port)).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let connector = TlsConnector::from(keys.client.clone());
    let mut tls = connector
        .connect(name, BufReader::with_capacity(SOCKET_BYTES, tcp))
        .await
        .map_err(|error| GreetingError::Tls(error.to_string()))?;
    let channel = channel(tls.get_ref().1).map_err(|error| GreetingError::Tls(error.to_string()))?;
    tls.get_mut().1.set_buffer_limit(Some(WRITE_BYTES));
    let mut stream = TlsStream::Client(tls);
    say(&mut stream, keys, Role::Dialer, &channel, ours).await?;
    let mut input = Input::new(MAX_GREETING_FRAME);
    let theirs = hear(&mut stream, &mut input, keys, Role::Acceptor, &channel).await?;
    let protocol = match agree(ours, &theirs, Role::Dialer) {
        // The acceptor says whom it is; that it was meant to be somebody else shows on this side.
        Err(GreetingError::MeantAnother) => return Err(GreetingError::Another),
        other => other?,
    };
    Ok(Greeted { stream, input: input.allow(MAX_PAYLOAD_BYTES), theirs, protocol })
}

/// Greets who has connected. `me` is asked for only once the dialer has proven itself.
pub(super) async fn accept(
    keys: &Keys,
    tcp: TcpStream,
    me: impl Fn() -> Option<Peer>,
    protocols: RangeInclusive<u16>,
) -> Result<Greeted, GreetingError> {
    tokio::time::timeout(GREETING_TIME, accept_unhurried(keys, tcp, me, protocols))
        .await
        .unwrap_or(Err(GreetingError::Late(GREETING_TIME)))
}

async fn accept_unhurried(
    keys: &Keys,
    tcp: TcpStream,
    me: impl Fn() -> Option<Peer>,
    protocols: RangeInclusive<u16>,
) -> Result<Greeted, GreetingError> {
    tcp.set_nodelay(true).map_err(|error| GreetingError::Connection(error.to_string()))?;
    let acceptor = TlsAcceptor::from(keys.server.clone());
    let mut tls = acceptor
        .accept(BufReader::with_capacity(SOCKET_BYTES, tcp))
        .await
        .map_err(|error| GreetingError::Tls(error.to_string()))?;
    let channel = channel(tls.get_ref().1).map_err(|error| GreetingError::Tls(error.to_string()))?;
    tls.get_mut().1.set_buffer_limit(Some(WRITE_BYTES));
    let mut stream = TlsStream::Server(tls);
    let mut input = Input::new(MAX_GREETING_FRAME);
    let theirs = match hear(&mut stream, &mut input, keys, Role::Dialer, &channel).await {
        Err(error @ GreetingError::Unproven) => return Err(refuse(&mut stream, Refusal::NotProven, error).await),
        Err(error @ GreetingError::UnaskedProof) => return Err(refuse(&mut stream, Refusal::NoSecret, error).await),
        other => other?,
    };
    let Some(me) = me() else {
        return Err(refuse(&mut stream, Refusal::NotJoined, GreetingError::NotJoined).await);
    };
    let ours = Hello::new(&me, theirs.incarnation, protocols, theirs.purpose);
    say(&mut stream, keys, Role::Acceptor, &channel, &ours).await?;
    let agreed = agree(&ours, &theirs, Role::Acceptor);
    if agreed.is_err() || theirs.purpose == Purpose::Probe {
        // Best effort: it has all it needs.
        let _closed = stream.shutdown().await;
    }
    Ok(Greeted { protocol: agreed?, stream, input: input.allow(MAX_PAYLOAD_BYTES), theirs })
}

async fn refuse(stream: &mut Stream, refusal: Refusal, error: GreetingError) -> GreetingError {
    let mut frame = Vec::new();
    put_frame(&mut frame, 0, |out| {
        out.push(refusal.code());
        kinds::REFUSED
    });
    // Best effort: whoever is there may not even read.
    let _sent = stream.write_all(&frame).await;
    let _closed = stream.shutdown().await;
    error
}

async fn say(
    stream: &mut Stream,
    keys: &Keys,
    role: Role,
    channel: &Channel,
    hello: &Hello,
) -> Result<(), GreetingError> {
    let mut said = Vec::new();
    hello.encode(&mut said);
    let proof = keys.prove(role, channel, &said);
    let mut frame = Vec::with_capacity(HEADER_BYTES + 1 + PROOF_BYTES + said.len());
    put_frame(&mut frame, 0, |out| {
        out.push(u8::from(proof.is_some()));
        out.extend_from_slice(&proof.unwrap_or([0; PROOF_BYTES]));
        out.extend_from_slice(&said);
        kinds::HELLO
    });
    let failed = |error: std::io::Error| GreetingError::Connection(error.to_string());
    stream.write_all(&frame).await.map_err(failed)?;
    stream.flush().await.map_err(failed)
}

/// Reads a hello. Nothing of it is parsed before its proof is found right.
async fn hear(
    stream: &mut Stream,
    input: &mut Input,
    keys: &Keys,
    role: Role,
    channel: &Channel,
) -> Result<Hello, GreetingError> {
    loop {
        if let Some(frame) = input.next()? {
            return match (frame.kind, frame.payload) {
                (kinds::REFUSED, [code]) if role == Role::Acceptor => Err(Refusal::from_code(*code)
                    .map_or(GreetingError::Malformed(Malformed("an unknown refusal")), GreetingError::Refused)),
                (kinds::HELLO, [proven, rest @ ..]) => {
                    let (proof, said) = rest
                        .split_first_chunk::<PROOF_BYTES>()
                        .ok_or(GreetingError::Malformed(Malformed("a hello without room for a proof")))?;
                    match (keys.proves(), *proven == 1) {
                        (true, true) if keys.is_proven(role, channel, said, proof) => {}
                        (true, _) => return Err(GreetingError::Unproven),
                        (false, true) => return Err(GreetingError::UnaskedProof),
                        (false, false) => {}
                    }
                    Ok(Hello::decode(said)?)
                }
                _ => Err(GreetingError::Malformed(Malformed("a first frame that is no hello"))),
            };
        }
        let room = input.room(HEADER_BYTES + MAX_GREETING_FRAME);
        match stream.read(room).await {
            Ok(0) => return Err(GreetingError::Closed),
            Ok(n) => input.arrived(n),
            // A failed handshake of the other side shows here as an alert.
            Err(error) => return Err(GreetingError::Tls(error.to_string())),
        }
    }
}

/// `host:port`, the host of an IPv6 address in brackets.
fn split(address: &str) -> Option<(&str, u16)> {
    if let Ok(parsed) = address.parse::<SocketAddr>()
        && parsed.is_ipv6()
    {
        let host = address.strip_prefix('[')?.split(']').next()?;
        return Some((host, parsed.port()));
    }
    let (host, port) = address.rsplit_once(':')?;
    (!host.is_empty() && !host.contains(':')).then_some((host, port.parse().ok()?))
}
