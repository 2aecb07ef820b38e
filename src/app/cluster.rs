//! This node's way into its cluster, and out of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::serve::StartError;
use crate::clock::Clock;
use crate::cluster::link::{self, Bound, Certificates, Credentials, Links};
use crate::cluster::redis::{Config as RedisConfig, Redis, Shape};
use crate::cluster::registry::{NodeInfo, RegistryError};
use crate::cluster::{Local, Node};
use crate::config::ClusterSettings;
use crate::gateway::Gateway;
use crate::tasks::Tasks;

/// How long a node that starts waits for its registry: the two are often started together.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// How long a node that ends takes to have its last records removed.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// A node that has entered its cluster and serves nobody yet.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) node: Arc<Node>,
    bound: Bound,
}

/// Binds the node listener, reaches the registry, takes an incarnation.
pub(super) async fn enter(settings: &ClusterSettings, clock: &Clock, tasks: &Tasks) -> Result<Entered, StartError> {
    let registry = Arc::new(Redis::new(&settings.registry)?);
    let own = own_address(&settings.registry);
    let listen = settings.node_listen.unwrap_or_else(|| listen_address(settings.node_address.as_deref(), own));
    let credentials = Credentials {
        secret: settings.secret.clone(),
        certificates: settings.certificates.as_ref().map(|files| Certificates {
            cert: files.cert.clone(),
            key: files.key.clone(),
            ca: files.ca.clone(),
        }),
    };
    let bound = Links::bind(&link::Config::new(listen, credentials))?;
    let port = bound.local_addr().port();
    let address = settings.node_address.clone().unwrap_or_else(|| SocketAddr::new(own, port).to_string());
    let info = NodeInfo {
        address: address.as_str().into(),
        name: settings.node_name.clone().unwrap_or_else(host_name).into(),
        version: env!("CARGO_PKG_VERSION").into(),
        started_at: clock.now(),
    };
    let deadline = Instant::now() + START_PATIENCE;
    let mut said = false;
    let node = loop {
        match Node::join(settings.node.clone(), registry.clone(), info.clone(), tasks.clone()).await {
            Ok(node) => break node,
            Err(error) if error.is_passing() && Instant::now() < deadline => {
                if !said {
                    tracing::warn!(%error, "waiting for the registry");
                    said = true;
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    tracing::info!(node.name = %info.name, node.address = %info.address, node.listen = %bound.local_addr(), "joined the cluster");
    Ok(Entered { node, bound })
}

impl Entered {
    /// Begins to take part, now that there is a gateway to answer for.
    pub(super) fn start(self, gateway: &Arc<Gateway>, tasks: &Tasks) -> Result<Arc<Links>, StartError> {
        // The links must not keep alive what keeps them alive.
        let weak: Weak<Gateway> = Arc::downgrade(gateway);
        let links = self.bound.start(Arc::new(Weak::clone(&weak)), tasks.clone())?;
        let local: Weak<dyn Local> = weak;
        self.node.start(links.clone(), local);
        Ok(links)
    }
}

/// Leaves the cluster in order, after the last session.
pub(super) async fn leave(node: &Node) {
    node.leave(LEAVE_PATIENCE).await;
}

/// The address this machine has on its way to the registry; nothing is sent to find out.
fn own_address(registry: &RedisConfig) -> IpAddr {
    let local = || {
        let address = registry.check().ok()?;
        let target = match address.shape {
            Shape::Single(target) => target,
            Shape::Sentinel { sentinels: targets, .. } | Shape::Cluster(targets) => targets.into_iter().next()?,
        };
        let target = (target.host.as_str(), target.port).to_socket_addrs().ok()?.next()?;
        let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    local().unwrap_or(Ipv4Addr::LOCALHOST.into())
}

/// Where to listen when only the advertised address is known: there if it is this machine's, else everywhere.
fn listen_address(advertised: Option<&str>, own: IpAddr) -> SocketAddr {
    let Some(advertised) = advertised else { return SocketAddr::new(own, 0) };
    if let Ok(address) = advertised.parse::<SocketAddr>()
        && UdpSocket::bind((address.ip(), 0)).is_ok()
    {
        return address;
    }
    let port = advertised.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl From<RegistryError> for StartError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_listens_where_it_says_it_is_if_it_can() {
        let own = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(listen_address(None, own).to_string(), "127.0.0.1:0");
        assert_eq!(listen_address(Some("127.0.0.2:7400"), own).to_string(), "127.0.0.2:7400");
        // An address of a translation in front, and a name: not this machine's to bind.
        assert_eq!(listen_address(Some("192.0.2.77:7400"), own).to_string(), "0.0.0.0:7400");
        assert_eq!(listen_address(Some("node-1.internal:7400"), own).to_string(), "0.0.0.0:7400");
    }

    #[test]
    fn the_way_to_the_registry_tells_the_own_address() {
        let config = |url: &str| RedisConfig {
            url: url.into(),
            prefix: "p".to_owned(),
            ca_file: None,
            timeout: RedisConfig::TIMEOUT,
        };
        assert!(own_address(&config("redis://127.0.0.1:1")).is_loopback());
        assert!(own_address(&config("redis+cluster://127.0.0.1:1,127.0.0.1:2")).is_loopback());
    }
}
