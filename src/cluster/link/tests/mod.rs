//! Two and three nodes in one process, over loopback, with a network in between that misbehaves when told.

mod asking;
mod greetings;
mod keeping;
mod strangers;

#[path = "../../../../tests/support/net.rs"]
mod net;

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::clock::EpochMillis;
use crate::cluster::registry::NodeInfo;
use crate::cluster::transport::Served;
use crate::ids::{ApiId, ConnectionId};
use crate::message::Kind;
use crate::secret::Secret;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// The deadline of a request whose answer is to come.
const LONG: Duration = Duration::from_secs(15);
/// Where nobody listens.
const NOBODY: &str = "127.0.0.1:1";
const SECRET: &str = "a secret for tests alone, 32 and more bytes";

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

type Answering = Box<dyn Fn(&Request) -> Served + Send + Sync>;

/// Notes what it is asked and answers as it was told.
struct Recorder {
    asked: Mutex<Vec<Request>>,
    answering: Answering,
}

impl Recorder {
    fn asked(&self) -> Vec<Request> {
        self.asked.lock().clone()
    }
}

impl Serve for Recorder {
    fn serve(&self, request: Request) -> Served {
        let served = (self.answering)(&request);
        self.asked.lock().push(request);
        served
    }
}

fn done(_: &Request) -> Served {
    Served::Now(Response::Done)
}

/// Never answers; the asker's deadline does.
fn silent(_: &Request) -> Served {
    Served::Later(Box::pin(std::future::pending()))
}

struct Node {
    links: Arc<Links>,
    tasks: Tasks,
    peer: Peer,
    recorder: Arc<Recorder>,
    listens: SocketAddr,
}

impl Node {
    async fn ask(&self, to: &Peer, request: Request) -> Result<Response, LinkError> {
        within("an answer", self.links.ask(to, request, LONG)).await
    }

    fn is_linked(&self, to: &Peer) -> bool {
        self.links.status().iter().any(|status| status.incarnation == to.incarnation && status.connected)
    }

    fn status_of(&self, of: &Peer) -> LinkStatus {
        self.links.status().into_iter().find(|status| status.incarnation == of.incarnation).unwrap()
    }

    /// Joins alone: knows itself, dials nobody ahead of need.
    fn join(&self) {
        self.links.peers(&self.peer, &[]);
    }

    async fn stop(self) {
        self.tasks.token().cancel();
        assert_eq!(self.tasks.drain(PATIENCE).await, 0, "tasks are left");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

fn secret() -> Credentials {
    Credentials { secret: Some(Secret::from(SECRET)), certificates: None }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn peer(incarnation: u32, address: &str) -> Peer {
    Peer {
        incarnation: Incarnation::new(incarnation),
        info: NodeInfo {
            address: address.into(),
            name: format!("node-{incarnation}").into(),
            version: "0.0.0-test".into(),
            started_at: EpochMillis(0),
        },
    }
}

fn node_with(
    incarnation: u32,
    config: &Config,
    answering: impl Fn(&Request) -> Served + Send + Sync + 'static,
) -> Node {
    let bound = Links::bind(config).unwrap();
    let listens = bound.local_addr();
    let recorder = Arc::new(Recorder { asked: Mutex::default(), answering: Box::new(answering) });
    let tasks = Tasks::new();
    let links = bound.start(Arc::<Recorder>::clone(&recorder), tasks.clone()).unwrap();
    Node { links, tasks, peer: peer(incarnation, &listens.to_string()), recorder, listens }
}

fn node(incarnation: u32, answering: impl Fn(&Request) -> Served + Send + Sync + 'static) -> Node {
    node_with(incarnation, &Config::new(loopback(), secret()), answering)
}

fn list_each_other(nodes: &[&Node]) {
    for node in nodes {
        let others: Vec<_> = nodes.iter().map(|other| other.peer.clone()).collect();
        node.links.peers(&node.peer, &others);
    }
}

fn connection(slot: u32) -> ConnectionId {
    ConnectionId::from_parts(Incarnation::new(9), slot, [1, 2, 3, 4, 5])
}

fn push(slot: u32, payload: impl Into<Bytes>) -> Request {
    Request::Push {
        id: connection(slot),
        api: Some(ApiId::parse("chat").unwrap()),
        kind: Kind::Text,
        payload: payload.into(),
        invocation: Some(u64::from(slot)),
    }
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What the thread of the test logs while this lives. For tests on one thread.
struct Log {
    text: Sink,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn start() -> Self {
        let text = Sink::default();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(text.clone()).finish();
        Self { text, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// Lines that hold all of these.
    fn lines(&self, parts: &[&str]) -> usize {
        let text = String::from_utf8(self.text.0.lock().clone()).unwrap();
        text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}
