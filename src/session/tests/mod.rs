//! The session engine over real loopback sockets: a hub with its threads, clients that speak the protocol by hand, and a
//! receiver that does what the test tells it.
//!
//! | file | about |
//! | --- | --- |
//! | `messages.rs` | from bytes to messages and back, pausing, fairness |
//! | `pushes.rs` | pushes, outboxes, the node's budget |
//! | `closing.rs` | every way a session ends, and a drain's promises |
//! | `limits.rs` | pings, idle, lifetime, stuck writes |
//! | `sealed.rs` | the same over TLS |
//! | `lives.rs` | random lives; nothing is left of them |

mod closing;
mod limits;
mod lives;
mod messages;
mod pushes;
mod sealed;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::tls::TlsSession;
use super::walker::tests::frame;
use super::*;
use crate::clock::EpochMillis;
use crate::ids::Incarnation;
use crate::message::Kind;
use crate::tasks::Tasks;

/// Longest wait for anything; only a failing test uses it up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_micros(500);
const KEY: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
/// Bytes of a message that a [`Log`] keeps.
const KEPT: usize = 4_096;

/// Waits until `fact` holds.
fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::park_timeout(POLL);
    }
}

/// What a receiver does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Answers with the same, in the turn.
    Echo,
    /// Nothing.
    Silent,
    /// Begins an exchange, which the test ends.
    Keep,
    /// Answers with this many bytes.
    Answer(usize),
    /// Answers, pushes to its own session, answers again.
    PushToSelf,
    /// Begins to drain the session, then answers like an echo.
    DrainSelf,
    Panic,
}

/// What a receiver was told, and what it should do.
struct Log {
    policy: Mutex<Policy>,
    manner: Mutex<Manner>,
    /// Length and beginning of each message.
    messages: Mutex<Vec<(Kind, usize, Vec<u8>)>>,
    ends: Mutex<Vec<CloseReason>>,
    exchanges: Mutex<Vec<ExchangePermit<Probe>>>,
    hub: Weak<Hub<Probe>>,
}

impl Log {
    fn count(&self) -> usize {
        self.messages.lock().len()
    }

    fn texts(&self) -> Vec<String> {
        self.messages.lock().iter().map(|(_, _, start)| String::from_utf8_lossy(start).into_owned()).collect()
    }

    fn end(&self) -> Option<CloseReason> {
        self.ends.lock().first().cloned()
    }

    /// Waits for the end, which is told a moment after the client may know of it.
    fn ended(&self) -> CloseReason {
        eventually("the end is told", || self.end().is_some());
        let ends = self.ends.lock();
        assert_eq!(ends.len(), 1, "{ends:?}");
        ends[0].clone()
    }
}

/// The receiver of one session.
struct Probe {
    id: ConnectionId,
    log: Arc<Log>,
}

impl Events for Probe {
    fn id(&self) -> &ConnectionId {
        &self.id
    }

    fn policy(&self) -> Policy {
        *self.log.policy.lock()
    }

    fn on_message(session: &Session<Self>, message: Message, turn: &mut Turn<'_>) {
        let payload = message.payload();
        let start = payload[..payload.len().min(KEPT)].to_vec();
        session.log.messages.lock().push((message.kind(), payload.len(), start));
        let manner = *session.log.manner.lock();
        match manner {
            Manner::Echo => turn.reply(payload),
            Manner::Silent => {}
            Manner::Keep => session.log.exchanges.lock().push(session.begin_exchange()),
            Manner::Answer(bytes) => turn.reply(&vec![b'a'; bytes]),
            Manner::PushToSelf => {
                turn.reply(b"before");
                turn.push(&text_message("push"));
                turn.reply(b"after");
            }
            Manner::DrainSelf => {
                if let (1, Some(hub)) = (session.log.count(), session.log.hub.upgrade()) {
                    hub.drain(std::slice::from_ref(session), PATIENCE, &CloseReason::Draining);
                }
                turn.reply(payload);
            }
            Manner::Panic => panic!("on purpose"),
        }
    }

    fn on_end(session: &Session<Self>, reason: &CloseReason) {
        assert!(!session.is_open());
        if let Some(hub) = session.log.hub.upgrade() {
            hub.forget(&session.id);
        }
        session.log.ends.lock().push(reason.clone());
    }
}

/// How a session is set up.
#[derive(Clone)]
struct Setup {
    limits: Limits,
    accepts_binary: bool,
    manner: Manner,
    window_bits: u8,
    tls: Option<sealed::Configs>,
    early: Vec<u8>,
    /// Small socket buffers on both sides, so that a client that does not read is noticed soon.
    narrow: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            accepts_binary: false,
            manner: Manner::Echo,
            window_bits: 0,
            tls: None,
            early: Vec::new(),
            narrow: false,
        }
    }
}

/// A hub with its threads.
struct World {
    hub: Arc<Hub<Probe>>,
    runtime: Runtime,
    tasks: Tasks,
    slots: AtomicU32,
}

impl Drop for World {
    fn drop(&mut self) {
        self.hub.stop();
        let left = self.runtime.block_on(self.tasks.drain(PATIENCE));
        if !std::thread::panicking() {
            assert_eq!(left, 0, "a shard did not end");
        }
    }
}

/// A session and its client.
struct Live {
    client: Client,
    session: Session<Probe>,
    log: Arc<Log>,
}

impl World {
    fn new() -> Self {
        Self::with(2, 256 << 20)
    }

    fn with(shards: usize, budget_bytes: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tasks = runtime.block_on(async { Tasks::new() });
        let context = runtime.enter();
        let hub = Hub::start(Config { shards, budget_bytes }, EpochMillis(1_000_000), &tasks).unwrap();
        drop(context);
        Self { hub: Arc::new(hub), runtime, tasks, slots: AtomicU32::new(0) }
    }

    /// A receiver, not yet of a session.
    fn probe(&self, setup: &Setup) -> Probe {
        let log = Arc::new(Log {
            policy: Mutex::new(Policy { limits: setup.limits, accepts_binary: setup.accepts_binary }),
            manner: Mutex::new(setup.manner),
            messages: Mutex::default(),
            ends: Mutex::default(),
            exchanges: Mutex::default(),
            hub: Arc::downgrade(&self.hub),
        });
        let slot = self.slots.fetch_add(1, Ordering::Relaxed);
        let [_, _, _, secret @ ..] = u64::from(slot).to_be_bytes();
        Probe { id: ConnectionId::from_parts(Incarnation::new(1), slot, secret), log }
    }

    /// A session in any shard; they take turns.
    fn open(&self, setup: &Setup) -> Live {
        let (client, server) = loopback(setup.narrow);
        server.set_nodelay(true).unwrap();
        let probe = self.probe(setup);
        let log = Arc::clone(&probe.log);
        let (mut client, stream, tls, unsent) = match &setup.tls {
            None => (Client::plain(client), server, None, Vec::new()),
            Some(configs) => {
                let (client, parts) = configs.connect(&self.runtime, client, server);
                let stream = parts.tcp.into_std().unwrap();
                (client, stream, Some(Box::new(parts.session)), parts.ciphertext)
            }
        };
        stream.set_nonblocking(true).unwrap();
        let tls: Option<Box<TlsSession>> = tls;
        let socket = Socket { stream, tls, unsent, early: setup.early.clone(), window_bits: setup.window_bits };
        let session = self.hub.open(probe, socket, b"101\r\n\r\n".to_vec()).unwrap();
        let mut head = [0; 7];
        client.io.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"101\r\n\r\n");
        Live { client, session, log }
    }

    /// Sessions that take pushes, sessions on the way out as well, and what the budget is charged.
    fn left(&self) -> (usize, usize, usize) {
        let stats = self.hub.stats();
        (stats.open, stats.parked, stats.budget_used)
    }

    /// Waits until nothing is left of any session.
    fn is_left_empty(&self) {
        let start = Instant::now();
        while self.left() != (0, 0, 0) {
            assert!(start.elapsed() < PATIENCE, "left behind: {:?}", self.hub.stats());
            std::thread::park_timeout(POLL);
        }
    }
}

/// Two ends of a connection; the first is the client's.
fn loopback(narrow: bool) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if narrow {
        socket.set_recv_buffer_size(4_096).unwrap();
    }
    socket.connect(&address.into()).unwrap();
    let (server, _) = listener.accept().unwrap();
    if narrow {
        socket2::SockRef::from(&server).set_send_buffer_size(4_096).unwrap();
    }
    let client: TcpStream = socket.into();
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    (client, server)
}

/// A client's end of a connection, and what it can do over TLS only.
trait Io: Read + Write + Send {
    /// Changes the client's keys and asks for new ones of the gateway's.
    fn rekey(&mut self) {}
    /// Says something and that nothing follows, in one write, and leaves the connection open.
    fn farewell(&mut self, _words: &[u8]) {}
}

impl Io for TcpStream {}

/// A client that speaks the protocol by hand.
struct Client {
    io: Box<dyn Io>,
    tcp: TcpStream,
}

/// A frame of the gateway's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    first: u8,
    payload: Vec<u8>,
}

impl Client {
    fn plain(tcp: TcpStream) -> Self {
        Self { io: Box::new(tcp.try_clone().unwrap()), tcp }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).unwrap();
        self.io.flush().unwrap();
    }

    fn text(&mut self, text: &str) {
        self.raw(&frame(TEXT, KEY, text.as_bytes()));
    }

    /// The next frame; `None` at the end of the stream.
    fn frame(&mut self) -> Option<Frame> {
        let mut start = [0; 2];
        match self.io.read_exact(&mut start) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return None,
            Err(e) => panic!("no frame: {e}"),
        }
        let mut length = [0; 8];
        let long = match start[1] {
            126 => 2,
            127 => 8,
            short @ 0..126 => {
                length[7] = short;
                0
            }
            masked => panic!("a gateway does not mask: {masked:x}"),
        };
        self.io.read_exact(&mut length[8 - long..][..long]).unwrap();
        let mut payload = vec![0; u64::from_be_bytes(length) as usize];
        self.io.read_exact(&mut payload).unwrap();
        Some(Frame { first: start[0], payload })
    }

    /// The next whole data message, which must not be compressed.
    fn message(&mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        loop {
            let frame = self.frame().expect("the session goes on");
            assert!(matches!(frame.first & 0x0f, 0..=2) && frame.first & 0x70 == 0, "{frame:x?}");
            whole.extend_from_slice(&frame.payload);
            if frame.first & 0x80 != 0 {
                return whole;
            }
        }
    }

    fn heard(&mut self) -> String {
        String::from_utf8(self.message()).unwrap()
    }

    /// Reads until the close frame, which it returns, and the end behind it.
    fn closed(&mut self) -> (u16, String) {
        loop {
            let frame = self.frame().expect("a close frame comes before the end");
            if frame.first == CLOSE {
                assert_eq!(self.frame(), None, "nothing comes behind a close frame");
                let (code, text) = frame.payload.split_at_checked(2).unwrap_or((&[0, 0], &[]));
                return (u16::from_be_bytes([code[0], code[1]]), String::from_utf8_lossy(text).into_owned());
            }
        }
    }

    /// Leaves the way a machine without power does not: with a reset.
    fn reset(self) {
        socket2::SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)).unwrap();
    }

    fn end_sending(&self) {
        self.tcp.shutdown(Shutdown::Write).unwrap();
    }
}

fn text_message(text: &str) -> Outgoing {
    Outgoing::new(Kind::Text, Bytes::copy_from_slice(text.as_bytes()), 32_768)
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(CLOSE, KEY, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}
