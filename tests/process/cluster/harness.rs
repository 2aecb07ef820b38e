//! A cluster: nodes, their Redis, and the network between all of them, which can be cut anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::net::Net;
use super::redis::{Options, Server};
use crate::support::{Backend, Call, Client, Ear, Process, Reply, Routes, backed_api, call, try_call, until};

pub(super) const SECRET: &str = "what the nodes of a test know";
pub(super) const BEARER: &str = "Authorization: Bearer token";

/// The API of `backed_api`; what `$disconnect` is told besides, and routes that join and leave a group.
pub(super) fn api(backend: &Backend) -> String {
    let group = |action: &str| {
        format!(
            "  {action}: {{integration: {{integrationType: GROUP, groupAction: {action}, groupName: $request.body.room}}}}\n"
        )
    };
    backed_api(backend)
        + "        integration.request.header.reason: context.disconnectReason\n"
        + "        integration.request.header.requestId: context.requestId\n"
        + "        integration.request.header.sourceIp: context.identity.sourceIp\n"
        + "        integration.request.header.connectedAt: context.connectedAt\n"
        + &group("join")
        + &group("leave")
}

/// A port that nobody has, and nobody is given by the system: a node that comes back finds it free.
fn quiet_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 1_000) as u16 * 20;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A place for a node: what stays when the node is killed and started again.
struct Place {
    process: Option<Process>,
    /// Where others reach it.
    link: Net,
    /// Its way to Redis.
    registry: Net,
    listen: SocketAddr,
    /// Settings of this one alone.
    more: Vec<String>,
}

/// One node as another lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) incarnation: String,
    pub(super) name: String,
    pub(super) state: String,
}

pub(super) struct Cluster {
    pub(super) redis: Server,
    pub(super) backend: Backend,
    routes: Routes,
    places: Vec<Place>,
    args: Vec<String>,
}

impl Cluster {
    /// So many nodes over a Redis that keeps its data, and all of them know each other.
    pub(super) async fn start(nodes: usize) -> Self {
        Self::with(nodes, &[]).await
    }

    /// The same with more settings for all of them.
    pub(super) async fn with(nodes: usize, more: &[&str]) -> Self {
        let mut cluster = Self::prepare(nodes, more).await;
        for place in &mut cluster.places {
            place.launch(&cluster.routes, &cluster.args);
        }
        for place in &mut cluster.places {
            place.process.as_mut().unwrap().listens().await;
        }
        cluster.settled().await;
        cluster
    }

    /// Everything but the nodes, which the test starts.
    pub(super) async fn prepare(nodes: usize, more: &[&str]) -> Self {
        let redis = Server::start(&Options { is_durable: true, ..Options::default() });
        let backend = Backend::start().await;
        let routes = Routes::new(&api(&backend));
        let common = ["--cluster-secret", SECRET, "--node-lease", "1s", "--access-log", "off"];
        let stays = |pair: &&[&str]| !more.contains(&pair[0]);
        let common = common.chunks(2).filter(stays).flatten();
        let args = common.chain(more).map(|&arg| arg.to_owned()).collect();
        let target = SocketAddr::from(([127, 0, 0, 1], redis.port));
        let places = (0..nodes)
            .map(|_| {
                let listen = SocketAddr::from(([127, 0, 0, 1], quiet_port()));
                let (link, registry) = (Net::start(listen), Net::start(target));
                Place { process: None, link, registry, listen, more: Vec::new() }
            })
            .collect();
        let mut cluster = Self { redis, backend, routes, places, args };
        for (n, place) in cluster.places.iter_mut().enumerate() {
            place.more = vec!["--node-name".to_owned(), format!("node{n}")];
        }
        cluster
    }

    /// The nodes have no secret; what they have instead is for [`Self::set`].
    pub(super) fn forget_secret(&mut self) {
        let at = self.args.iter().position(|arg| arg == "--cluster-secret").expect("a secret");
        self.args.drain(at..at + 2);
    }

    /// Settings of one node alone, from its next start on.
    pub(super) fn set(&mut self, node: usize, more: &[&str]) {
        self.places[node].more.extend(more.iter().map(|&arg| arg.to_owned()));
    }

    /// Starts a node that is not running, and waits until it serves.
    pub(super) async fn begin(&mut self, node: usize) {
        self.launch(node);
        self.places[node].process.as_mut().unwrap().listens().await;
    }

    /// Starts a node that is not running, and does not wait.
    pub(super) fn launch(&mut self, node: usize) {
        let place = &mut self.places[node];
        assert!(place.process.is_none(), "node {node} is running");
        place.launch(&self.routes, &self.args);
    }

    pub(super) fn node(&self, node: usize) -> &Process {
        self.places[node].process.as_ref().expect("a running node")
    }

    pub(super) fn node_mut(&mut self, node: usize) -> &mut Process {
        self.places[node].process.as_mut().expect("a running node")
    }

    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|&n| self.places[n].process.is_some()).collect()
    }

    /// kill -9.
    pub(super) fn kill(&mut self, node: usize) {
        drop(self.places[node].process.take().expect("a running node"));
    }

    /// SIGSTOP.
    pub(super) fn freeze(&self, node: usize) {
        self.node(node).signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(super) fn thaw(&self, node: usize) {
        self.node(node).signal(Signal::CONT);
    }

    /// SIGTERM, and to the end.
    pub(super) async fn stop(&mut self, node: usize) {
        self.places[node].process.take().expect("a running node").stop().await;
    }

    /// Ends all nodes in order; nothing of them is left in Redis.
    pub(super) async fn finish(mut self) {
        for node in self.running() {
            self.stop(node).await;
        }
        assert_eq!(self.records(), BTreeSet::new(), "records are left");
    }

    pub(super) fn cut_links(&self) {
        self.places.iter().for_each(|place| place.link.cut());
    }

    pub(super) fn freeze_links(&self) {
        self.places.iter().for_each(|place| place.link.freeze());
    }

    pub(super) fn delay_links(&self, by: Duration) {
        self.places.iter().for_each(|place| place.link.delay(by));
    }

    pub(super) fn restore_links(&self) {
        self.places.iter().for_each(|place| place.link.restore());
    }

    /// Cuts one node off from Redis.
    pub(super) fn cut_registry(&self, node: usize) {
        self.places[node].registry.cut();
    }

    /// Cuts everybody off from Redis.
    pub(super) fn cut_registries(&self) {
        self.places.iter().for_each(|place| place.registry.cut());
    }

    pub(super) fn restore_registries(&self) {
        self.places.iter().for_each(|place| place.registry.restore());
    }

    pub(super) fn restore_registry(&self, node: usize) {
        self.places[node].registry.restore();
    }

    /// Where others reach a node: the proxy in front of its listener.
    pub(super) fn link_address(&self, node: usize) -> SocketAddr {
        self.places[node].link.address()
    }

    /// Waits until every running node lists exactly the running ones, all up, and the registry is settled.
    pub(super) async fn settled(&self) {
        let running = self.running();
        let expected: BTreeSet<_> = running.iter().map(|n| format!("node{n}")).collect();
        until("the nodes know each other", async || {
            for &n in &running {
                let (nodes, registry) = self.nodes(n).await;
                let names: BTreeSet<_> = nodes.iter().map(|node| node.name.clone()).collect();
                let are_up = nodes.iter().all(|node| node.state == "up");
                if names != expected || nodes.len() != running.len() || !are_up || registry != "settled" {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// `GET /nodes` of a node: the nodes, and how it finds the registry.
    pub(super) async fn nodes(&self, node: usize) -> (Vec<Listed>, String) {
        let body = self.admin(node, "GET", "/nodes").await.body;
        let body: Value = serde_json::from_str(&body).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let nodes = body["nodes"].as_array().unwrap().iter().map(|node| Listed {
            incarnation: text(&node["incarnation"]),
            name: text(&node["name"]),
            state: text(&node["state"]),
        });
        (nodes.collect(), text(&body["registry"]))
    }

    /// The incarnation a node has, as itself says.
    pub(super) async fn incarnation(&self, node: usize) -> String {
        self.nodes(node).await.0[0].incarnation.clone()
    }

    /// The incarnations of all places, all of which run.
    pub(super) async fn incarnations(&self) -> Vec<String> {
        futures_util::future::join_all((0..self.places.len()).map(|node| self.incarnation(node))).await
    }

    /// Nobody has declared anybody dead, and all are still who they were.
    pub(super) async fn nobody_died(&self, incarnations: &[String]) {
        for (node, incarnation) in incarnations.iter().enumerate() {
            assert_eq!(self.metric(node, "causeway_node_burials_total").await, 0, "{node}");
            assert_eq!(self.incarnation(node).await, *incarnation, "{node}");
        }
    }

    pub(super) async fn admin(&self, node: usize, method: &str, path: &str) -> Reply {
        call(self.node(node).admin, method, path, &[], b"").await
    }

    pub(super) async fn ready(&self, node: usize) -> String {
        self.admin(node, "GET", "/ready").await.body
    }

    /// One value of a node's metrics, all its labels added up.
    pub(super) async fn metric(&self, node: usize, name: &str) -> u64 {
        let text = self.admin(node, "GET", "/metrics").await.body;
        let values: Vec<u64> = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        assert!(!values.is_empty(), "no metric {name}");
        values.iter().sum()
    }

    pub(super) async fn connect(&self, node: usize) -> Ear {
        Client::connect(self.node(node).public).await.listen().await
    }

    /// Many clients of one node.
    pub(super) async fn crowd(&self, node: usize, count: usize) -> Vec<Ear> {
        let to = self.node(node).public;
        let coming = (0..count).map(|_| async move { Client::connect(to).await.listen().await });
        futures_util::future::join_all(coming).await
    }

    /// A callback to a node: `path` is what follows the stage.
    pub(super) async fn callback(&self, node: usize, method: &str, path: &str, body: &str) -> Reply {
        call(self.node(node).public, method, &format!("/dev/{path}"), &[BEARER], body.as_bytes()).await
    }

    /// A push through a node: its status.
    pub(super) async fn push(&self, node: usize, id: &str, body: &str) -> u16 {
        self.callback(node, "POST", &format!("@connections/{id}"), body).await.status
    }

    /// The same as an SDK sends it, which repeats a call under one name.
    pub(super) async fn invoke(&self, node: usize, id: &str, body: &str, call: &str) -> u16 {
        let path = format!("/dev/@connections/{id}");
        let name = format!("amz-sdk-invocation-id: {call}");
        let to = self.node(node).public;
        let reply = try_call(to, "POST", &path, &[BEARER, &name], body.as_bytes()).await;
        reply.map_or(0, |reply| reply.status)
    }

    /// Pushes until the answer is this, and not one of `never`; how often it took.
    pub(super) async fn push_until(&self, node: usize, id: &str, status: u16, never: u16) {
        until(&format!("a push to {id} answered {status}"), async || {
            let answer = self.push(node, id, "again").await;
            assert_ne!(answer, never, "a push to {id}");
            answer == status
        })
        .await;
    }

    /// The `$disconnect` calls so far, by connection.
    pub(super) fn ends(&self) -> BTreeMap<String, Vec<Call>> {
        let mut ends: BTreeMap<String, Vec<Call>> = BTreeMap::new();
        for call in self.backend.calls("/disconnect") {
            ends.entry(call.connection.clone()).or_default().push(call);
        }
        ends
    }

    /// Waits until the back-end has heard of the end of all of these.
    pub(super) async fn all_ended(&self, ids: &[String]) {
        until("every `$disconnect`", async || {
            let ends = self.ends();
            ids.iter().all(|id| ends.contains_key(id))
        })
        .await;
    }

    /// The ids of all records in Redis.
    pub(super) fn records(&self) -> BTreeSet<String> {
        records(&self.redis)
    }

    /// Keys of a form in Redis.
    pub(super) fn keys(&self, form: &str) -> BTreeSet<String> {
        keys(&self.redis, form)
    }

    /// Waits until Redis has the records of exactly these.
    pub(super) async fn recorded(&self, ids: &BTreeSet<String>) {
        until("the records of all who are there, and of nobody else", async || self.records() == *ids).await;
    }
}

impl Place {
    fn launch(&mut self, routes: &Routes, common: &[String]) {
        let redis = format!("redis://{}", self.registry.address());
        let (address, listen) = (self.link.address().to_string(), self.listen.to_string());
        let own = ["--redis", &redis, "--node-address", &address, "--node-listen", &listen];
        // What comes later of one setting must come once: the place's own word replaces the common one.
        let is_own = |name: &str| self.more.iter().any(|more| more == name);
        let mut args: Vec<&str> = Vec::new();
        let common: Vec<&str> = common.iter().map(String::as_str).collect();
        for pair in own.chunks(2).chain(common.chunks(2)).filter(|pair| !is_own(pair[0])) {
            args.extend(pair);
        }
        args.extend(self.more.iter().map(String::as_str));
        self.process = Some(Process::launch(routes.path(), &args));
    }
}

/// The ids of clients.
pub(super) fn ids(ears: &[Ear]) -> Vec<String> {
    ears.iter().map(|ear| ear.id.clone()).collect()
}

/// The ids of all records in a server.
pub(super) fn records(server: &Server) -> BTreeSet<String> {
    let hashes = keys(server, "{causeway:r:*}").into_iter();
    hashes.flat_map(|key| server.call(&["HKEYS", &key]).list()).map(|id| id.text()).collect()
}

/// Keys of a form in a server.
pub(super) fn keys(server: &Server, form: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let answer = server.call(&["SCAN", &cursor, "MATCH", form, "COUNT", "1000"]).list();
        cursor = answer[0].text();
        keys.extend(answer[1].clone().list().iter().map(super::redis::Reply::text));
        if cursor == "0" {
            return keys;
        }
    }
}
