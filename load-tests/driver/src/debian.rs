//! Programs that Debian has and the machine may not.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Installs packages, if we may. `what` is what they are for.
pub fn install(what: &str, packages: &[&str]) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("{what} is missing: apt-get install {}", packages.join(" "));
    }
    let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
    for arguments in [vec!["update"], install] {
        let done = Command::new("apt-get")
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .with_context(|| format!("{what} is missing, and so is apt-get"))?;
        if !done.status.success() {
            let complaint = String::from_utf8_lossy(&done.stderr);
            bail!("apt-get {}: {}", arguments.join(" "), complaint.trim());
        }
    }
    Ok(())
}
