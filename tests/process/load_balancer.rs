//! Behind a real HAProxy: whose address is seen, and how a node leaves without anybody noticing.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use rustls_pki_types::CertificateDer;

use crate::support::{
    Arrival, Backend, Client, HaProxy, Process, Refused, Routes, Said, backed_api, call, check_haproxy, eventually,
    push,
};

/// Not where HAProxy connects from.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
const BEHIND_HTTP: [&str; 2] = ["--trusted-proxies", "127.0.0.1"];
const BEHIND_TCP: [&str; 4] = ["--trusted-proxies", "127.0.0.1", "--proxy-protocol", "on"];

/// A certificate for `localhost`; the file has its key too, as HAProxy wants it.
fn certify(folder: &Routes) -> (CertificateDer<'static>, PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let both = folder.write("both.pem", &format!("{cert}{key}"));
    let key = folder.write("key.pem", &key);
    for file in [&both, &key] {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(file, permissions).unwrap();
    }
    (made.cert.der().clone(), both, key)
}

/// Connects from [`CLIENT`]; what the back-end of `$connect` saw: the chain of addresses, the scheme, the port.
async fn seen(proxy: &HaProxy, backend: &Backend, how: Arrival<'_>) -> [String; 3] {
    let before = backend.calls("/connect").len();
    let mut client = Client::arrive(proxy.address, &Arrival { from: Some(CLIENT), ..how }).await.unwrap();
    let id = client.id().await;
    let calls = backend.calls("/connect");
    assert_eq!(calls.len(), before + 1);
    assert_eq!(calls[before].connection, id);
    ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port"].map(|name| calls[before].header(name).to_owned())
}

/// The addresses in the access log.
async fn logged(process: &Process, lines: usize) -> Vec<String> {
    let connects = || -> Vec<String> {
        let output = process.output();
        let lines = output.lines().filter(|line| line.contains("\"CONNECT $connect "));
        lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    eventually("the access log", || connects().len() >= lines).await;
    connects()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_brings_the_clients_address() {
    let backend = Backend::start().await;
    let routes = Routes::new(&backed_api(&backend));
    for version in ["send-proxy", "send-proxy-v2"] {
        let process = Process::run(routes.path(), &BEHIND_TCP).await;
        let proxy = HaProxy::start("tcp", "", version, "", &[&process]).await;
        let port = proxy.address.port().to_string();
        // What a client claims by itself is its text, with its address behind it.
        let how =
            Arrival { headers: &[("X-Forwarded-For", "9.9.9.9"), ("Forwarded", "for=9.9.9.9")], ..Arrival::default() };
        let told = seen(&proxy, &backend, how).await;
        assert_eq!(told, ["9.9.9.9, 127.0.0.77", "http", &port], "{version}");
        assert_eq!(seen(&proxy, &backend, Arrival::default()).await, ["127.0.0.77", "http", &port], "{version}");
        assert_eq!(logged(&process, 2).await, ["127.0.0.77", "127.0.0.77"], "{version}");
        // Who goes around the proxy, from a trusted address, has no header; from another one, no business here.
        assert!(Client::try_connect(process.public).await.is_err());
        let around = Arrival { from: Some(CLIENT), ..Arrival::default() };
        assert!(Client::arrive(process.public, &around).await.is_err());
        eventually("the line", || process.log().contains("with `proxy-protocol` on, nobody else may connect")).await;
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_may_end_at_either_behind_the_proxy_protocol() {
    let backend = Backend::start().await;
    let (routes, keys) = (Routes::new(&backed_api(&backend)), Routes::new(""));
    let (root, both, key) = certify(&keys);
    let secure = || Arrival { roots: Some(std::slice::from_ref(&root)), ..Arrival::default() };
    // At the node: HAProxy moves bytes it cannot read.
    let tls = ["--tls-cert", both.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let process = Process::run(routes.path(), &[&BEHIND_TCP[..], &tls].concat()).await;
    let proxy = HaProxy::start("tcp", "", "send-proxy-v2", "", &[&process]).await;
    assert_eq!(seen(&proxy, &backend, secure()).await[..2], ["127.0.0.77", "https"]);
    process.stop().await;
    // At HAProxy, which says so.
    let process = Process::run(routes.path(), &BEHIND_TCP).await;
    let bind = format!("ssl crt {}", both.display());
    let proxy = HaProxy::start("tcp", &bind, "send-proxy-v2-ssl-cn", "", &[&process]).await;
    assert_eq!(seen(&proxy, &backend, secure()).await[..2], ["127.0.0.77", "https"]);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_mode_brings_address_scheme_and_port() {
    let backend = Backend::start().await;
    let (routes, keys) = (Routes::new(&backed_api(&backend)), Routes::new(""));
    let (root, both, _) = certify(&keys);
    let process = Process::run(routes.path(), &BEHIND_HTTP).await;
    let bind = format!("ssl crt {}", both.display());
    let more = "    option forwardfor\n    http-request set-header X-Forwarded-Proto https if { ssl_fc }\n    \
                http-request set-header X-Forwarded-Port %[dst_port]\n    \
                http-request deny if { path_sub /@ /%40 }";
    let proxy = HaProxy::start("http", &bind, "", more, &[&process]).await;
    let port = proxy.address.port().to_string();
    let roots = Some(std::slice::from_ref(&root));
    let told = seen(&proxy, &backend, Arrival { roots, ..Arrival::default() }).await;
    assert_eq!(told, ["127.0.0.77", "https", &port]);
    let headers = [("X-Forwarded-For", "9.9.9.9"), ("X-Forwarded-Proto", "http"), ("Forwarded", "for=6.6.6.6")];
    let told = seen(&proxy, &backend, Arrival { roots, headers: &headers, ..Arrival::default() }).await;
    assert_eq!(told, ["9.9.9.9, 127.0.0.77", "https", &port]);
    assert_eq!(logged(&process, 2).await, ["127.0.0.77", "127.0.0.77"]);
    // Back-ends call the node itself; from outside, nobody does.
    let gone = "AAAAAAAAAAAAAAA=";
    assert_eq!(push(process.public, gone, "").await.status, 410);
    for path in ["/dev/@connections", "/dev/%40connections"] {
        let mut client = Arrival { roots, ..Arrival::default() };
        client.path = path;
        assert_eq!(Client::arrive(proxy.address, &client).await.err().map(|refused| refused.status), Some(403));
    }
    // Around the proxy, from an address that is not believed, the same words are nothing.
    let around = Arrival { from: Some(CLIENT), headers: &headers, ..Arrival::default() };
    let mut client = Client::arrive(process.public, &around).await.unwrap();
    client.id().await;
    let call = backend.calls("/connect").pop().unwrap();
    assert_eq!((call.header("X-Forwarded-For"), call.header("X-Forwarded-Proto")), ("9.9.9.9, 127.0.0.77", "http"));
    assert_eq!(logged(&process, 3).await[2], "127.0.0.77");
    process.stop().await;
}

/// The connections of one node.
async fn ids(admin: SocketAddr) -> String {
    call(admin, "GET", "/connections", &[], b"").await.body
}

/// New clients, one after the other, until told to stop; what did not become a session.
async fn knock(to: SocketAddr, stop: Arc<AtomicBool>, came: Arc<AtomicUsize>, refused: Arc<Mutex<Vec<Refused>>>) {
    while !stop.load(Ordering::Relaxed) {
        match Client::try_connect(to).await {
            Ok(client) => {
                came.fetch_add(1, Ordering::Relaxed);
                client.vanish();
            }
            Err(error) => refused.lock().unwrap().push(error),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_leaves_and_no_client_is_refused() {
    let backend = Backend::start().await;
    let routes = Routes::new(&backed_api(&backend));
    let flags = [&BEHIND_TCP[..], &["--drain-delay", "3s", "--access-log", "off"]].concat();
    let mut leaving = Process::run(routes.path(), &flags).await;
    let staying = Process::run(routes.path(), &flags).await;
    let proxy = HaProxy::start("tcp", "", "send-proxy-v2", "", &[&leaving, &staying]).await;
    let mut sessions = Vec::new();
    for _ in 0..12 {
        let mut client = Client::connect(proxy.address).await;
        sessions.push((client.id().await, client));
    }
    let (on_leaving, on_staying) = (ids(leaving.admin).await, ids(staying.admin).await);
    let count = |there: &str| sessions.iter().filter(|(id, _)| there.contains(id.as_str())).count();
    let (to_leave, to_stay) = (count(&on_leaving), count(&on_staying));
    assert!(to_leave >= 4 && to_stay >= 4 && to_leave + to_stay == 12, "{to_leave}, {to_stay}");
    let (stop, came, refused) = (Arc::default(), Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
    let knocking: Vec<_> = (0..4)
        .map(|_| tokio::spawn(knock(proxy.address, Arc::clone(&stop), Arc::clone(&came), Arc::clone(&refused))))
        .collect();
    eventually("a stream of clients", || came.load(Ordering::Relaxed) > 50).await;

    leaving.signal(Signal::TERM);
    let begun = came.load(Ordering::Relaxed);
    eventually("HAProxy to notice", || proxy.status(0).starts_with("DOWN")).await;
    assert_eq!(call(leaving.admin, "GET", "/ready", &[], b"").await.status, 503);
    // It does not refuse anybody yet, and has told nobody to go.
    assert!(!leaving.log().contains("sessions drained"), "{}", leaving.log());
    for _ in 0..10 {
        let mut client = Client::connect(proxy.address).await;
        let id = client.id().await;
        assert!(ids(staying.admin).await.contains(&id), "a new client on the node that leaves");
    }
    let mut left = 0;
    for (id, client) in &mut sessions {
        if on_leaving.contains(id.as_str()) {
            assert_eq!(client.next().await, Said::Close(1001), "{id}");
            left += 1;
        }
    }
    assert_eq!(left, to_leave);
    assert_eq!(leaving.exit().await, 0, "{}", leaving.log());
    let ended = came.load(Ordering::Relaxed);
    eventually("more clients", || came.load(Ordering::Relaxed) > ended + 20).await;
    stop.store(true, Ordering::Relaxed);
    for knocking in knocking {
        knocking.await.unwrap();
    }
    let refused = std::mem::take(&mut *refused.lock().unwrap());
    assert!(refused.is_empty(), "{} of {} clients: {refused:?}", refused.len(), came.load(Ordering::Relaxed));
    assert!(ended > begun + 20, "a stream through the whole drain: {begun}, {ended}");
    for (id, client) in &mut sessions {
        if on_staying.contains(id.as_str()) {
            assert_eq!(client.id().await, *id, "who was elsewhere has noticed nothing");
        }
    }
    println!("{} new clients while a node left, {} refused; {left} sessions told 1001", ended - begun, refused.len());
    drop(sessions);
    staying.stop().await;
}

/// Asserts that HAProxy has nothing to say against a configuration.
fn is_valid(file: &Path) {
    let checked = check_haproxy(file);
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && !said.contains("WARNING"), "{said}");
}

#[test]
fn the_configurations_in_the_documentation_are_valid() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs");
    let example = std::fs::read_to_string(docs.join("deploy/haproxy.cfg")).unwrap();
    is_valid(&docs.join("deploy/haproxy.cfg"));
    // The HTTP front stands for the one of the example.
    let page = std::fs::read_to_string(docs.join("operations.md")).unwrap();
    let front = page.split("```text\n").find(|block| block.starts_with("frontend clients")).unwrap();
    let front = front.split("```").next().unwrap();
    let keys = Routes::new("");
    let (_, both, _) = certify(&keys);
    let front = front.replace("/etc/haproxy/site.pem", both.to_str().unwrap());
    let (before, rest) = example.split_once("frontend clients").unwrap();
    let (_, behind) = rest.split_once("\nbackend nodes").unwrap();
    let whole = format!("{before}{front}\nbackend nodes\n    mode http{behind}");
    is_valid(&keys.write("haproxy.cfg", &whole));
}
