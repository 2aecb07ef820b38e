//! What goes on in a cluster while something happens to it: clients that talk and come back, back-ends that push, and an
//! account of every message, by which the promises are checked afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::harness::{BEARER, Cluster, ids};
use crate::support::{Backend, Client, Ear, Notes, Said, eventually, soon, try_call, try_push};

/// What came of the pushes of a load.
#[derive(Debug, Default, Clone)]
pub(super) struct Told {
    /// Answered 200.
    pub(super) taken: usize,
    /// Answered 503, or not at all.
    pub(super) unavailable: usize,
    /// Answered anything else but 410.
    pub(super) refused: usize,
    /// To whom, and what, with the answer 200.
    messages: Vec<(String, String)>,
    /// Who was said to be gone, and when.
    pub(super) gone: Vec<(String, Instant)>,
}

/// The nodes that take part and the connections that are pushed to; the test and the clients change both as they go on.
#[derive(Debug, Clone, Default)]
pub(super) struct Field {
    nodes: Arc<Mutex<Vec<SocketAddr>>>,
    connections: Arc<Mutex<Vec<String>>>,
}

impl Field {
    /// All nodes that run now take part.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let field = Self::default();
        field.is_now(cluster, &cluster.running());
        field
    }

    /// From now on these nodes take part.
    pub(super) fn is_now(&self, cluster: &Cluster, nodes: &[usize]) {
        *self.nodes.lock().unwrap() = nodes.iter().map(|&n| cluster.node(n).public).collect();
    }

    fn node(&self, n: usize) -> Option<SocketAddr> {
        let nodes = self.nodes.lock().unwrap();
        nodes.get(n % nodes.len().max(1)).copied()
    }

    fn connection(&self, n: usize) -> Option<String> {
        let connections = self.connections.lock().unwrap();
        connections.get(n % connections.len().max(1)).cloned()
    }
}

/// Pushes to connections through all nodes, one after the other, until told to stop.
pub(super) struct Load {
    told: Arc<Mutex<Told>>,
    stop: Arc<AtomicBool>,
    pusher: JoinHandle<()>,
}

impl Load {
    /// Through the nodes that run now, to these clients.
    pub(super) fn start(cluster: &Cluster, ears: &[Ear]) -> Self {
        let field = Field::of(cluster);
        *field.connections.lock().unwrap() = ids(ears);
        Self::on(field)
    }

    /// Through whatever nodes and to whatever connections there are.
    pub(super) fn on(field: Field) -> Self {
        let (told, stop) = (Arc::new(Mutex::new(Told::default())), Arc::new(AtomicBool::new(false)));
        let (notes, stopped) = (Arc::clone(&told), Arc::clone(&stop));
        let pusher = tokio::spawn(async move {
            for n in 0_usize.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // Another step than the connections', so that each pair comes.
                let (Some(node), Some(id)) = (field.node(n + n / 7), field.connection(n)) else {
                    sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let message = format!("push {n}");
                let status = try_push(node, &id, &message).await.map_or(0, |reply| reply.status);
                let mut told = notes.lock().unwrap();
                match status {
                    200 => {
                        told.taken += 1;
                        told.messages.push((id, message));
                    }
                    410 => told.gone.push((id, Instant::now())),
                    0 | 503 => told.unavailable += 1,
                    _ => told.refused += 1,
                }
            }
        });
        Self { told, stop, pusher }
    }

    /// Waits until so many more were answered 200.
    pub(super) async fn goes_on(&self, more: usize) {
        let before = self.told.lock().unwrap().taken;
        eventually("a load", || self.told.lock().unwrap().taken >= before + more).await;
    }

    /// Ends it; what came of it.
    pub(super) async fn finish(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        soon("the last push", self.pusher).await.unwrap();
        self.told.lock().unwrap().clone()
    }
}

/// Clients that talk to the back-end, are in a group, and come back to another node when their session ends.
pub(super) struct Customers {
    visits: Arc<Mutex<BTreeMap<String, Notes>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Customers {
    pub(super) fn start(field: &Field, count: usize) -> Self {
        let (visits, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let clients = (0..count)
            .map(|n| tokio::spawn(customer(n, field.clone(), Arc::clone(&visits), Arc::clone(&stop))))
            .collect();
        Self { visits, stop, clients }
    }

    /// Everybody hangs up, having heard the answers to all they said; what all sessions heard, by connection.
    pub(super) async fn finish(self) -> BTreeMap<String, Notes> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            soon("a customer", client).await.unwrap();
        }
        let visits = self.visits.lock().unwrap();
        visits.clone()
    }

    /// Sessions that are open.
    pub(super) fn open(&self) -> usize {
        self.visits.lock().unwrap().values().filter(|notes| notes.end().is_none()).count()
    }
}

async fn customer(n: usize, field: Field, visits: Arc<Mutex<BTreeMap<String, Notes>>>, stop: Arc<AtomicBool>) {
    for visit in n.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let ear = match field.node(visit) {
            Some(node) => match Client::try_connect(node).await {
                Ok(client) => client.try_listen().await,
                Err(_) => None,
            },
            None => None,
        };
        let Some(mut ear) = ear else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        visits.lock().unwrap().insert(ear.id.clone(), ear.notes.clone());
        let _closing = ear.send(r#"{"action":"join","room":"room"}"#).await;
        field.connections.lock().unwrap().push(ear.id.clone());
        let id = ear.id.clone();
        let mut sent = 0;
        while ear.ended().is_none() && !stop.load(Ordering::Relaxed) {
            let message = format!(r#"{{"action":"echo","from":"{id}","n":{sent}}}"#);
            if !ear.send(&message).await {
                break;
            }
            sent += 1;
            eventually("an answer or an end", || ear.count(&message) > 0 || ear.ended().is_some()).await;
            sleep(Duration::from_millis(10)).await;
        }
        field.connections.lock().unwrap().retain(|known| *known != id);
        if !stop.load(Ordering::Relaxed) {
            ear.end().await;
        }
    }
}

/// Sends to the group through all nodes until told to stop; how many deliveries each message was answered with.
pub(super) struct Caller {
    stop: Arc<AtomicBool>,
    caller: JoinHandle<BTreeMap<String, u64>>,
}

impl Caller {
    pub(super) fn on(field: Field) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let caller = tokio::spawn(async move {
            let mut sent = BTreeMap::new();
            for n in 0_usize.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
                let Some(node) = field.node(n) else { continue };
                let message = format!("call {n}");
                let reply = try_call(node, "POST", "/dev/@groups/room", &[BEARER], message.as_bytes()).await;
                let Some(reply) = reply.filter(|reply| reply.status == 200) else { continue };
                let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
                sent.insert(message, body["delivered"].as_u64().unwrap());
            }
            sent
        });
        Self { stop, caller }
    }

    pub(super) async fn finish(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        soon("the last call", self.caller).await.unwrap()
    }
}

/// How long after a 410 a client may still not have heard its close frame.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// Holds what was promised against what was heard. `lost` says of a session's end that its node was killed or buried: then
/// what was on its way to the client may be gone, and its *gone* may come before the client hears of it.
pub(super) fn check(told: &Told, visits: &BTreeMap<String, Notes>, lost: impl Fn(&Said) -> bool) {
    let end = |id: &String| visits[id].end();
    let is_lost = |id: &String| end(id).is_some_and(|(_, said)| lost(&said));
    for (id, message) in told.messages.iter().filter(|(id, _)| !is_lost(id)) {
        assert_eq!(visits[id].count(message), 1, "{message} to {id} was answered 200; {:?}", end(id));
    }
    for (id, at) in told.gone.iter().filter(|(id, _)| !is_lost(id)) {
        let Some((ended, said)) = end(id) else { panic!("{id} was said to be gone and lived to the end") };
        assert!(ended < *at + ON_ITS_WAY, "{id} was said to be gone {:?} before its end: {said:?}", ended - *at);
    }
    assert_eq!(told.refused, 0, "{told:?}");
}

/// Every message that the back-end saw was answered to its client.
pub(super) fn all_answered(backend: &Backend, visits: &BTreeMap<String, Notes>, lost: impl Fn(&Said) -> bool) {
    for call in backend.calls("/echo") {
        let notes = &visits[&call.connection];
        if !notes.end().is_some_and(|(_, said)| lost(&said)) {
            assert_eq!(notes.count(&call.body), 1, "{} got no answer to {}", call.connection, call.body);
        }
    }
}

/// Everybody whom the back-end has let in has ended for it, under one request id; how many calls were repeats.
pub(super) async fn all_told(cluster: &Cluster) -> usize {
    let came: BTreeSet<_> = cluster.backend.calls("/connect").into_iter().map(|call| call.connection).collect();
    let ids: Vec<_> = came.iter().cloned().collect();
    cluster.all_ended(&ids).await;
    let ends = cluster.ends();
    assert_eq!(ends.keys().cloned().collect::<BTreeSet<_>>(), came);
    let mut repeats = 0;
    for (id, calls) in ends {
        let names: BTreeSet<_> = calls.iter().map(|call| call.header("requestId").to_owned()).collect();
        assert_eq!(names.len(), 1, "{id}: {names:?}");
        repeats += calls.len() - 1;
    }
    repeats
}
