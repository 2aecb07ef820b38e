//! What is measured, a file per kind.

pub mod cluster;
pub mod connect;
pub mod echo;
pub mod fanout;
pub mod fuzz;
pub mod idle;
pub mod paced;
pub mod proxy;
pub mod push;
pub mod slow;
pub mod storm;

use anyhow::Result;
use clap::ValueEnum;

use crate::lab::Lab;
use crate::report::Figure;

/// One scenario; `all` is every other one, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Every scenario.
    All,
    /// Memory of idle sessions, before and after each has spoken, and after all left.
    Idle,
    /// The same over TLS.
    IdleTls,
    /// Handshakes, plain and over TLS, beside nchan's.
    Connect,
    /// Messages through a route, beside a bare tungstenite echo server.
    Echo,
    /// Posts to one session each, beside nchan's.
    Push,
    /// Signed posts to one session each, beside unsigned ones.
    PushSigned,
    /// Posts to a thousand members, beside nchan's.
    Fanout,
    /// Sessions that never read while their group is sent to.
    SlowReaders,
    /// Random bytes, half-open peers, abandoned handshakes.
    Fuzz,
    /// Everybody drops and comes back at once.
    ReconnectStorm,
    /// Messages through an HTTP back-end, beside a bare hyper client.
    HttpProxy,
    /// Posts to sessions of another node, beside posts to the owner.
    ClusterPush,
    /// How long such posts take at half load, beside posts to the owner.
    ClusterLatency,
    /// Messages to ten thousand members on three nodes, beside one node.
    ClusterFanout,
    /// Handshakes with the Redis registry, beside the embedded one.
    ClusterConnect,
    /// What idle sessions ask of Redis.
    ClusterIdle,
    /// A hundred thousand sessions on seven nodes, all pushed to from one.
    ClusterScale,
}

impl Scenario {
    /// Every scenario but `all`.
    pub fn every() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|one| *one != Self::All)
    }

    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Idle => idle::PLAIN.name,
            Self::IdleTls => idle::TLS.name,
            Self::Connect => connect::NAME,
            Self::Echo => echo::NAME,
            Self::Push => push::NAME,
            Self::PushSigned => push::SIGNED,
            Self::Fanout => fanout::NAME,
            Self::SlowReaders => slow::NAME,
            Self::Fuzz => fuzz::NAME,
            Self::ReconnectStorm => storm::NAME,
            Self::HttpProxy => proxy::NAME,
            Self::ClusterPush => cluster::push::NAME,
            Self::ClusterLatency => cluster::latency::NAME,
            Self::ClusterFanout => cluster::fanout::NAME,
            Self::ClusterConnect => cluster::connect::NAME,
            Self::ClusterIdle => cluster::idle::NAME,
            Self::ClusterScale => cluster::scale::NAME,
        }
    }

    fn figures(self) -> &'static [Figure] {
        match self {
            Self::All => &[],
            Self::Idle => &idle::PLAIN.figures,
            Self::IdleTls => &idle::TLS.figures,
            Self::Connect => &connect::FIGURES,
            Self::Echo => &echo::FIGURES,
            Self::Push => &push::FIGURES,
            Self::PushSigned => &push::SIGNED_FIGURES,
            Self::Fanout => &fanout::FIGURES,
            Self::SlowReaders => &slow::FIGURES,
            Self::Fuzz => &fuzz::FIGURES,
            Self::ReconnectStorm => &storm::FIGURES,
            Self::HttpProxy => &proxy::FIGURES,
            Self::ClusterPush => &cluster::push::FIGURES,
            Self::ClusterLatency => &cluster::latency::FIGURES,
            Self::ClusterFanout => &cluster::fanout::FIGURES,
            Self::ClusterConnect => &cluster::connect::FIGURES,
            Self::ClusterIdle => &cluster::idle::FIGURES,
            Self::ClusterScale => &cluster::scale::FIGURES,
        }
    }

    fn measure(self, lab: &mut Lab) -> Result<()> {
        match self {
            Self::All => Ok(()),
            Self::Idle => idle::run(lab, &idle::PLAIN),
            Self::IdleTls => idle::run(lab, &idle::TLS),
            Self::Connect => connect::run(lab),
            Self::Echo => echo::run(lab),
            Self::Push => push::run(lab),
            Self::PushSigned => push::run_signed(lab),
            Self::Fanout => fanout::run(lab),
            Self::SlowReaders => slow::run(lab),
            Self::Fuzz => fuzz::run(lab),
            Self::ReconnectStorm => storm::run(lab),
            Self::HttpProxy => proxy::run(lab),
            Self::ClusterPush => cluster::push::run(lab),
            Self::ClusterLatency => cluster::latency::run(lab),
            Self::ClusterFanout => cluster::fanout::run(lab),
            Self::ClusterConnect => cluster::connect::run(lab),
            Self::ClusterIdle => cluster::idle::run(lab),
            Self::ClusterScale => cluster::scale::run(lab),
        }
    }

    /// Runs it. What it promised and could not measure is a missed bar, with the reason.
    pub fn run(self, lab: &mut Lab) {
        if self == Self::All {
            Self::every().for_each(|one| one.run(lab));
        } else if let Err(error) = self.measure(lab) {
            lab.report.fail(self.name(), self.figures(), &format!("{error:#}"));
        }
    }
}
