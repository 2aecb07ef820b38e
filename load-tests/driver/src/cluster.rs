//! Several nodes and their registry, as one thing under measurement.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::redis::Redis;
use crate::service::Service;

/// How long nodes may take to find each other: the one that should be dialled waits three seconds first.
const PATIENCE: Duration = Duration::from_secs(20);

const LINKS: &str = "causeway_links_open";
const ANSWERED: &str = "causeway_link_requests_total{outcome=\"answered\"}";

/// Nodes that share a registry.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes; they leave before their registry ends.
    pub nodes: Vec<Service>,
    /// The registry.
    pub redis: Redis,
}

impl Cluster {
    /// The processes of all nodes; the registry's is counted apart.
    pub fn pids(&self) -> Vec<i32> {
        self.nodes.iter().flat_map(|node| node.pids.iter().copied()).collect()
    }

    /// Requests that went from node to node and were answered.
    pub fn crossings(&self) -> Result<u64> {
        self.nodes.iter().map(|node| metric(node, ANSWERED)).sum()
    }

    /// Waits until each node has a link to each other.
    pub fn wait_for_links(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for node in &self.nodes {
            while metric(node, LINKS)? < self.nodes.len() as u64 - 1 {
                if Instant::now() > deadline {
                    bail!(
                        "the nodes are not linked after {PATIENCE:?}: {}",
                        node.process.complaint()
                    );
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}

/// One of a node's own metrics.
fn metric(node: &Service, name: &str) -> Result<u64> {
    let admin = node.admin.context("a node without an operator's address")?;
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {name} among the metrics"))?.trim().parse()?)
}
