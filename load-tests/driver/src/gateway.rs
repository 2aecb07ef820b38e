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
    /// Serve TLS with this instead of plain.
    pub tls: Option<&'a Identity>,
    /// Where the `proxy` route leads.
    pub origin: SocketAddr,
}

/// Starts it with an empty memory.
pub fn start(pins: Pins, how: &Start<'_>) -> Result<Service> {
    let mut command = Command::new(how.program);
    command
        .arg("dev")
        .arg(Path::new(HERE).join("routes"))
        .arg("--config")
        .arg(Path::new(HERE).join("causeway.yaml"))
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .env("CAUSEWAY_LOAD_ORIGIN", format!("http://{}", how.origin));
    if let Some(identity) = how.tls {
        command.arg("--tls-cert").arg(&identity.certificate).arg("--tls-key").arg(&identity.key);
    }
    let mut process = Process::serve(pins, Side::Server, &mut command, how.folder, "gateway")?;
    let line = process.first_line(Duration::from_secs(30)).context("the gateway")?;
    let public =
        listening(&line).with_context(|| format!("the gateway's first line is {line:?}"))?;
    Ok(Service {
        kind: Kind::Gateway,
        pids: vec![process.pid()],
        process,
        plain: public,
        tls: how.tls.map(|_| public),
        token: None,
    })
}

/// The public address in `listening public=127.0.0.1:43211 admin=127.0.0.1:43212`.
pub fn listening(line: &str) -> Option<SocketAddr> {
    let fields = line.strip_prefix("listening ")?;
    fields.split(' ').find_map(|field| field.strip_prefix("public="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_public_address() {
        let public = listening("listening public=127.0.0.1:43211 admin=127.0.0.1:43212");
        assert_eq!(public, Some(SocketAddr::from(([127, 0, 0, 1], 43_211))));
        assert_eq!(listening("error"), None);
    }
}
