//! The journeys on a gateway without a listener: connections over loopback sockets, their handshakes made up.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use super::*;
use crate::auth::{Iam, iam};
use crate::clock::EpochMillis;
use crate::context::Handshake;
use crate::definition;
use crate::fault::Fault;
use crate::ids::ConnectionId;
use crate::session::{self, Socket};
use crate::upstream;

const PATIENCE: Duration = Duration::from_secs(20);

const API: &str = "
apiId: a
protocolType: WEBSOCKET
routeSelectionExpression: $request.body.action
stages:
  dev: {}
routes:
  join:
    integration: { integrationType: GROUP, groupAction: join, groupName: $request.body.group }
";

struct World {
    gateway: Arc<Gateway>,
    tasks: Tasks,
}

impl World {
    fn new(max_sessions: usize) -> Self {
        let tasks = Tasks::new();
        let sessions = session::Config { shards: 2, budget_bytes: 1 << 20 };
        let http = Arc::new(upstream::Http::new(&upstream::Config::default(), tasks.clone()).unwrap());
        let config = upstream::LambdaConfig::default();
        let functions = upstream::Lambda::new(&config, Arc::clone(&http), Clock::system(), tasks.clone());
        let gateway = Gateway::new(Parts {
            hub: Arc::new(Hub::start(sessions, EpochMillis(1), &tasks).unwrap()),
            node: None,
            farewell: CloseReason::Draining,
            integrations: Integrations::new(http, functions),
            iam: Iam::new(iam::Config::default()),
            metrics: Arc::new(Metrics::new()),
            access_log: AccessLog::off(),
            log_format: Arc::new(Format::default()),
            tasks: tasks.clone(),
            clock: Clock::system(),
            max_sessions,
            max_sessions_per_address: 1_000,
        });
        gateway.deploy(snapshot(API));
        Self { gateway, tasks }
    }

    fn stage(&self) -> Arc<LiveStage> {
        let address = Resolver { host: "a.localhost", path: "/dev", method: "GET" };
        self.gateway.resolve(address).unwrap().stage
    }

    async fn accept(&self) -> Result<Accepted, Refusal> {
        let request = ConnectRequest {
            wire: crate::sigv4::Request { method: "GET", path: "/dev", query: "", headers: &[] },
            is_tls: false,
            stage: self.stage(),
            source_ip: IpAddr::from([127, 0, 0, 1]),
            domain_name: "a.localhost".to_owned(),
            user_agent: None,
            handshake: Handshake {
                headers: Vec::new(),
                query: Vec::new(),
                raw_query: String::new(),
                authorizer_latency: None,
            },
        };
        self.gateway.connect(request).await
    }

    /// The only connection, and its client.
    async fn connect(&self) -> (ConnectionId, TcpStream) {
        let accepted = self.accept().await.unwrap();
        let client = self.open(accepted);
        let sessions = self.gateway.hub().all();
        assert_eq!(sessions.len(), 1);
        (*sessions[0].id(), client)
    }

    fn open(&self, accepted: Accepted) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let socket = Socket { stream, tls: None, unsent: Vec::new(), early: Vec::new(), window_bits: 0 };
        self.gateway.open(accepted, socket, b"101".to_vec()).unwrap();
        client
    }

    async fn is_left_empty(&self) {
        let start = Instant::now();
        let left = || {
            let stats = self.gateway.hub().stats();
            (stats.open, stats.parked, self.gateway.groups(), self.gateway.sessions_of(IpAddr::from([127, 0, 0, 1])))
        };
        while left() != (0, 0, 0, 0) {
            assert!(start.elapsed() < PATIENCE, "open, parked, groups, places: {:?}", left());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.gateway.hub().stop();
        self.gateway.deploy(Snapshot::default());
        assert_eq!(self.tasks.drain(PATIENCE).await, 0);
    }
}

fn snapshot(text: &str) -> Snapshot {
    definition::load_texts([("a.yaml", text)], &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_membership_outlives_its_connection() {
    let world = World::new(1_000);
    let stage = world.stage();
    for _ in 0..200 {
        let (id, client) = world.connect().await;
        let id = id.to_string();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while block_on(world.gateway.add_to_group(&stage, "room", &id)) != Err(Fault::Gone) {
                        let _may_be_gone = block_on(world.gateway.remove_from_group(&stage, "room", &id));
                    }
                });
            }
            for _ in 0..50 {
                let _joined = block_on(world.gateway.add_to_group(&stage, "room", &id));
            }
            assert!(world.gateway.hub().all().iter().all(|session| session.close(&CloseReason::ClosedByApi)));
        });
        assert_eq!(world.gateway.groups(), 0, "a member that is gone");
        drop(client);
    }
    world.is_left_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_in_progress_have_their_place() {
    let world = World::new(2);
    let (first, second) = (world.accept().await.unwrap(), world.accept().await.unwrap());
    let refused = world.accept().await;
    assert!(matches!(refused, Err(Refusal::Fault(Fault::Unavailable, None))), "{refused:?}");
    // One that comes to nothing gives its place back.
    drop(first);
    let third = world.accept().await.unwrap();
    let clients = [world.open(second), world.open(third)];
    assert!(world.accept().await.is_err());
    drop(clients);
    world.is_left_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_outlives_its_stage_ends_at_once() {
    let world = World::new(10);
    let accepted = world.accept().await.unwrap();
    world.gateway.deploy(Snapshot::default());
    let client = world.open(accepted);
    assert_eq!(world.gateway.hub().len(), 0);
    drop(client);
    world.is_left_empty().await;
}

/// What a node that is alone does waits for nobody.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it waits for nobody")
}
