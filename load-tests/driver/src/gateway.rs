//! Starts the gateway: finds or builds it, gives it the driver's routes, waits until it listens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::net::tls::Identity;
use crate::process::{Pins, Process, Side};
use crate::service::{Kind, Service};

/// Where the driver's own sources are; the repository is two levels up.
const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The file to start: the one asked for, else the repository's release build, built now if it is missing.
pub fn find(wanted: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = wanted {
        return path.canonicalize().with_context(|| format!("no gateway at {}", path.display()));
    }
    let root = Path::new(HERE).join("../..").canonicalize()?;
    let built = root.join("target/release/causeway");
    if !built.exists() {
        eprintln!("building the gateway: {} is missing", built.display());
        let status = Command::new("cargo")
            .args(["build", "--release", "--bin", "causeway"])
            .current_dir(&root)
            .env_remove("CARGO_TARGET_DIR")
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("the gateway does not build");
        }
    }
    Ok(built)
}

/// How the gateway is started.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The program.
    pub program: &'a Path,
    /// Where its output goes.
    pub folder: &'a Path,
    /// What its output is called.
    pub name: &'a str,
    /// How it is run.
    pub mode: Mode,
    /// Serve TLS with this instead of plain.
    pub tls: Option<&'a Identity>,
    /// Where the `proxy` route leads.
    pub origin: SocketAddr,
}

/// How a gateway is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `causeway dev`.
    Dev,
    /// `causeway run`, alone.
    Alone,
    /// `causeway run` as one of the nodes that share this registry.
    Member(SocketAddr),
}

/// What callbacks show a gateway that is run.
const CALLBACK_TOKEN: &str = "load-tests-callback";
/// What nodes prove to each other.
const CLUSTER_SECRET: &str = "load-tests-cluster-secret";

/// Starts it with an empty memory.
pub fn start(pins: Pins, how: &Start<'_>) -> Result<Service> {
    let mut command = Command::new(how.program);
    command
        .arg(if how.mode == Mode::Dev { "dev" } else { "run" })
        .arg(Path::new(HERE).join("routes"))
        .arg("--config")
        .arg(Path::new(HERE).join("causeway.yaml"))
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .env("CAUSEWAY_LOAD_ORIGIN", format!("http://{}", how.origin));
    if how.mode != Mode::Dev {
        command.env("CAUSEWAY_CALLBACK_TOKEN", CALLBACK_TOKEN);
    }
    if let Mode::Member(registry) = how.mode {
        command
            .args(["--redis", &format!("redis://{registry}"), "--node-name", how.name])
            .env("CAUSEWAY_CLUSTER_SECRET", CLUSTER_SECRET);
    }
    if let Some(identity) = how.tls {
        command.arg("--tls-cert").arg(&identity.certificate).arg("--tls-key").arg(&identity.key);
    }
    let mut process = Process::serve(pins, Side::Server, &mut command, how.folder, how.name)?;
    let line = process.first_line(Duration::from_secs(30)).context("the gateway")?;
    let public =
        listening(&line).with_context(|| format!("the gateway's first line is {line:?}"))?;
    let admin = address(&line, "admin=");
    Ok(Service {
        kind: Kind::Gateway,
        pids: vec![process.pid()],
        process,
        plain: public,
        tls: how.tls.map(|_| public),
        token: (how.mode != Mode::Dev).then(|| CALLBACK_TOKEN.to_owned()),
        admin,
    })
}

/// The public address in `listening public=127.0.0.1:43211 admin=127.0.0.1:43212`.
pub fn listening(line: &str) -> Option<SocketAddr> {
    address(line, "public=")
}

fn address(line: &str, name: &str) -> Option<SocketAddr> {
    let fields = line.strip_prefix("listening ")?;
    fields.split(' ').find_map(|field| field.strip_prefix(name))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_public_address() {
        let public = listening("listening public=127.0.0.1:43211 admin=127.0.0.1:43212");
        assert_eq!(public, Some(SocketAddr::from(([127, 0, 0, 1], 43_211))));
        let line = "listening public=127.0.0.1:43211 admin=127.0.0.1:43212";
        assert_eq!(address(line, "admin="), Some(SocketAddr::from(([127, 0, 0, 1], 43_212))));
        assert_eq!(listening("error"), None);
    }
}
