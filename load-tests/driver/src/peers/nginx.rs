//! nginx with the nchan module, one worker, set up to do the least: nothing stored, nothing logged.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::debian;
use crate::net::tls::Identity;
use crate::process::{Pins, Process, Side, free_port};

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
const PACKAGES: [&str; 2] = ["nginx-light", "libnginx-mod-nchan"];

/// Installs nginx and nchan from Debian if they are missing and we may.
pub fn install() -> Result<PathBuf> {
    if find().is_none() || !Path::new(MODULE).exists() {
        debian::install("nginx with nchan", &PACKAGES)?;
    }
    find().context("nginx is missing after its installation")
}

fn find() -> Option<PathBuf> {
    ["/usr/sbin/nginx", "/usr/bin/nginx"].map(PathBuf::from).into_iter().find(|path| path.exists())
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    /// Master and worker.
    pub process: Process,
    /// `http` and `ws`.
    pub plain: SocketAddr,
    /// `wss`.
    pub tls: SocketAddr,
}

/// Starts it in `folder`.
pub fn start(pins: Pins, folder: &Path, identity: &Identity, open_files: u64) -> Result<Nginx> {
    let program = install()?;
    let home = folder.join("nginx");
    std::fs::create_dir_all(&home)?;
    let (plain, tls) = (free_port()?, free_port()?);
    let configuration = home.join("nginx.conf");
    std::fs::write(&configuration, configure(plain, tls, identity, open_files)?)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&home).arg("-c").arg(&configuration).args(["-e", "stderr"]);
    let mut process = Process::serve(pins, Side::Server, &mut command, folder, "nginx")?;
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(at(plain)).is_err() || process.family()?.len() < 2 {
        process.alive().context("nginx")?;
        if Instant::now() > deadline {
            bail!("nginx does not listen: {}", process.complaint());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Nginx { process, plain: at(plain), tls: at(tls) })
}

fn configure(plain: u16, tls: u16, identity: &Identity, open_files: u64) -> Result<String> {
    let mut text = String::new();
    if nix::unistd::geteuid().is_root() {
        // The worker must be able to use the folder it was started in.
        writeln!(text, "user root;")?;
    }
    write!(
        text,
        "load_module {MODULE};
daemon off;
pid nginx.pid;
error_log stderr error;
worker_processes 1;
worker_rlimit_nofile {open_files};
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  tcp_nodelay on;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  nchan_shared_memory_size 256M;
  server {{
    listen 127.0.0.1:{plain} backlog=4096;
    listen 127.0.0.1:{tls} ssl backlog=4096;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache off;
    ssl_session_tickets off;
    location ~ ^/sub/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; nchan_store_messages off; }}
    location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_store_messages off; }}
  }}
}}
",
        connections = open_files.saturating_sub(200),
        certificate = identity.certificate.display(),
        key = identity.key.display(),
    )?;
    Ok(text)
}
