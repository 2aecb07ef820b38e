//! A Redis that keeps nothing on disk: the registry of the nodes under measurement.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::debian;
use crate::process::{Pins, Process, Side, free_port};

const PROGRAM: &str = "/usr/bin/redis-server";
const PATIENCE: Duration = Duration::from_secs(10);

/// A running Redis; it ends with this.
#[derive(Debug)]
pub struct Redis {
    /// The server.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Commands that were called, by name, and how often.
pub type Calls = BTreeMap<String, u64>;

impl Redis {
    /// Starts it on the driver's side, as a back-end is not what is measured; installs it if it is missing.
    pub fn start(pins: Pins, folder: &Path) -> Result<Self> {
        if !Path::new(PROGRAM).exists() {
            debian::install("Redis", &["redis-server"])?;
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let home: PathBuf = folder.join("redis");
        std::fs::create_dir_all(&home)?;
        let mut command = Command::new(PROGRAM);
        command
            .args(["--bind", "127.0.0.1", "--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(&home);
        let process = Process::serve(pins, Side::Driver, &mut command, folder, "redis")?;
        let mut redis = Self { process, address };
        let deadline = Instant::now() + PATIENCE;
        while redis.info("server").is_err() {
            redis.process.alive().context("Redis")?;
            if Instant::now() > deadline {
                bail!("Redis does not answer: {}", redis.process.complaint());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }

    /// A section of `INFO`.
    pub fn info(&self, section: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "INFO {section}\r\n")?;
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        reader.read_line(&mut head)?;
        let length = head.trim().strip_prefix('$').with_context(|| format!("INFO: {head}"))?;
        let length: usize = length.parse()?;
        ensure!(length < 1 << 20, "INFO of {length} bytes");
        let mut text = vec![0; length];
        reader.read_exact(&mut text)?;
        Ok(String::from_utf8(text)?)
    }

    /// Bytes it has allocated for data, clients and itself.
    pub fn memory(&self) -> Result<u64> {
        let text = self.info("memory")?;
        let value = text.lines().find_map(|line| line.strip_prefix("used_memory:"));
        Ok(value.context("no used_memory")?.trim().parse()?)
    }

    /// Every command called so far, those inside scripts among them, but for the question itself.
    pub fn calls(&self) -> Result<Calls> {
        let mut calls = calls(&self.info("commandstats")?);
        calls.remove("info");
        Ok(calls)
    }
}

/// `cmdstat_get:calls=21,usec=175,...` by name.
fn calls(text: &str) -> Calls {
    let call = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    text.lines().filter_map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name() {
        let text = "# Commandstats\r\ncmdstat_get:calls=21,usec=175,usec_per_call=8.33\r\ncmdstat_config|get:calls=1,usec=9\r\n";
        let expected = [("config|get".to_owned(), 1), ("get".to_owned(), 21)];
        assert_eq!(calls(text), BTreeMap::from(expected));
    }
}
