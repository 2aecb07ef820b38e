//! A real HAProxy, with a configuration of its own in a folder of its own.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use super::{Process, eventually};

/// The program; where it is not installed, the test fails and says what to install.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian puts it, which is not on the path of every user.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder| folder.join("haproxy")).find(|file| file.is_file());
    found.expect("haproxy is missing: install Debian's package `haproxy`, or run `tests/need haproxy haproxy`")
}

/// `haproxy -c`: what it says about a configuration file.
pub(crate) fn check_haproxy(file: &Path) -> Output {
    Command::new(program()).arg("-c").arg("-f").arg(file).output().unwrap()
}

/// A running HAProxy; killed when dropped.
pub(crate) struct HaProxy {
    child: Child,
    folder: TempDir,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
}

impl HaProxy {
    /// In front of `nodes`, which become the servers `node0`, `node1`, …: checked by `GET /ready` on their admin
    /// listeners. `bind` and `each` are more words of the lines of the front and of each server, `more` are more lines of the front.
    pub(crate) async fn start(kind: &str, bind: &str, each: &str, more: &str, nodes: &[&Process]) -> Self {
        let lines: Vec<String> = nodes
            .iter()
            .enumerate()
            .map(|(n, node)| format!("    server node{n} {} check port {} {each}\n", node.public, node.admin.port()))
            .collect();
        // Another may take the port between our look and HAProxy's.
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let stats = folder.path().join("stats");
            let config = folder.path().join("haproxy.cfg");
            let text = format!(
                "global\n    stats socket {stats} mode 600\n    maxconn 1000\n\
                 defaults\n    mode {kind}\n    timeout connect 5s\n    timeout client 1m\n    timeout server 1m\n\
                 \x20   timeout tunnel 1h\n    timeout check 2s\n\
                 frontend clients\n    bind {address} {bind}\n{more}\n    default_backend nodes\n\
                 backend nodes\n    balance roundrobin\n    option redispatch 1\n    option httpchk GET /ready\n\
                 \x20   default-server inter 100ms fall 1 rise 1\n{lines}",
                stats = stats.display(),
                lines = lines.concat(),
            );
            std::fs::write(&config, text).unwrap();
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let child = Command::new(program())
                .args(["-db", "-f"])
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            let mut proxy = Self { child, folder, address };
            let mut ended = false;
            eventually("haproxy", || {
                ended = proxy.child.try_wait().unwrap().is_some();
                ended || TcpStream::connect(address).is_ok()
            })
            .await;
            if !ended {
                eventually("all nodes to be up", || (0..nodes.len()).all(|n| proxy.status(n).starts_with("UP"))).await;
                return proxy;
            }
            assert!(proxy.log().contains("cannot bind"), "{}", proxy.log());
        }
        panic!("no free port for haproxy");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What it thinks of a node: `UP`, `DOWN`, and words in between.
    pub(crate) fn status(&self, node: usize) -> String {
        let Ok(mut socket) = UnixStream::connect(self.folder.path().join("stats")) else { return String::new() };
        socket.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        socket.read_to_string(&mut table).unwrap();
        let mut rows = table.lines().map(|line| line.trim_start_matches("# ").split(',').collect::<Vec<_>>());
        let columns = rows.next().unwrap_or_default();
        let place = |name: &str| columns.iter().position(|column| *column == name).unwrap_or(usize::MAX);
        let (server, status) = (place("svname"), place("status"));
        let name = format!("node{node}");
        let row = rows.find(|row| row.get(server) == Some(&name.as_str()));
        row.and_then(|row| row.get(status).copied()).unwrap_or_default().to_owned()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- haproxy ---\n{}", self.log());
        }
    }
}
