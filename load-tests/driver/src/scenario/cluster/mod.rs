//! Several nodes and a Redis. All nodes share the servers' processor, so rates are less than machines of their own would
//! give; costs are sums of processor time and do not mind. Redis is on the driver's side, as back-ends are.

pub mod connect;
pub mod fanout;
pub mod idle;
pub mod latency;
pub mod push;
pub mod scale;

use anyhow::Result;

use super::push::{PUBLISHERS, SESSIONS, names};
use crate::cluster::Cluster;
use crate::load;
use crate::net::Fleet;
use crate::service::Guests;

/// Two nodes; the sessions are the first one's. Links of the fleet: sessions, publishers to the owner, publishers to the
/// other node.
struct Pair {
    cluster: Cluster,
    fleet: Fleet,
    /// A post to each session, in the form that each node is sent.
    posts: [Vec<Vec<u8>>; 2],
}

impl Pair {
    fn open(cluster: Cluster) -> Result<Self> {
        let mut fleet = Fleet::new()?;
        let [owner, other] = cluster.nodes.as_slice() else { anyhow::bail!("not two nodes") };
        owner.invite(&mut fleet, SESSIONS, &Guests::default())?;
        let ids = names(&mut fleet)?;
        owner.publishers(&mut fleet, PUBLISHERS)?;
        other.publishers(&mut fleet, PUBLISHERS)?;
        let body = load::message("push", "");
        let posts = [owner, other].map(|node| ids.iter().map(|id| node.post(id, &body)).collect());
        Ok(Self { cluster, fleet, posts })
    }

    /// Which links of the fleet post to a node: 0 is the owner.
    fn publishers(node: usize) -> std::ops::Range<usize> {
        let first = SESSIONS + node * PUBLISHERS;
        first..first + PUBLISHERS
    }
}
