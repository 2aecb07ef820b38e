//! Here, on another node, or gone: the decision, and what each failure on the way means.
//!
//! | what is known | answer |
//! | --- | --- |
//! | the id is of this node, and its session is here | done here |
//! | the id is of this node, and its session is not here | gone |
//! | the id's incarnation has a tombstone | gone |
//! | its node is listed | asked; what it answers |
//! | it could not be asked, or did not answer | gone if it has its tombstone by now, else unavailable |
//! | nothing is known of the incarnation | the registry is asked; nothing known there either proves nothing: unavailable |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::node::{Health, Node};
use super::registry::{Fate, Peer};
use super::transport::{Request, Response};
use super::{Delivered, GroupName};
use crate::ids::{ConnectionId, Incarnation};

/// How long what the registry said of an incarnation is taken for granted: a dead node is asked for by everybody at once.
const FATE_HOLDS: Duration = Duration::from_millis(250);
/// Incarnations whose fate is remembered: ids can be made up.
const FATES: usize = 1_024;

/// Why a request did not get to a connection's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The connection is proven gone.
    #[error("the connection is gone")]
    Gone,
    /// Its owner could not be asked, did not answer, or is not known; nothing is proven.
    #[error("the connection's node cannot be asked")]
    Unavailable,
}

/// Who owns a connection.
#[derive(Debug, Clone)]
pub(super) enum Owner {
    Here,
    Gone,
    Elsewhere(Arc<Peer>),
    Unknown,
}

/// Answers of the registry about incarnations, held for a moment. One question at a time: the lock is held across it, and
/// whoever waits for it has a deadline.
#[derive(Debug, Default)]
pub(super) struct Fates(Mutex<BTreeMap<Incarnation, (Instant, Fate)>>);

impl Node {
    pub(super) fn owner(&self, incarnation: Incarnation) -> Owner {
        let sight = self.sight();
        if sight.me == Some(incarnation) {
            return Owner::Here;
        }
        if let Some(peer) = sight.peers.get(&incarnation) {
            return Owner::Elsewhere(Arc::clone(peer));
        }
        if self.state.lock().view.tombstones().contains(&incarnation) { Owner::Gone } else { Owner::Unknown }
    }

    /// Asks the owner of a connection, wherever it is but here.
    ///
    /// # Errors
    /// [`DeliveryError`]; never *gone* unless that is proven.
    pub async fn ask_owner(&self, id: &ConnectionId, request: Request) -> Result<Response, DeliveryError> {
        let deadline = Instant::now() + self.config.ask_deadline;
        let incarnation = id.incarnation();
        let peer = match self.owner(incarnation) {
            Owner::Elsewhere(peer) => peer,
            // Whoever asks here has looked; its session has ended since, or the incarnation has.
            Owner::Here | Owner::Gone => return Err(DeliveryError::Gone),
            Owner::Unknown => match self.fate(incarnation, deadline).await {
                Fate::Member(info) => {
                    let peer = Peer { incarnation, info };
                    self.meet(&peer);
                    Arc::new(peer)
                }
                Fate::Buried => return Err(DeliveryError::Gone),
                Fate::Unknown => return Err(DeliveryError::Unavailable),
            },
        };
        let Some(transport) = self.transport() else { return Err(DeliveryError::Unavailable) };
        let remaining = deadline.saturating_duration_since(Instant::now());
        match transport.ask(&peer, request, remaining).await {
            Ok(Response::Gone) => Err(DeliveryError::Gone),
            Ok(Response::Busy) => Err(DeliveryError::Unavailable),
            Ok(response) => Ok(response),
            Err(error) => {
                tracing::debug!(node = %peer.info.address, %error, "a node was not reached");
                let a_moment = deadline.max(Instant::now() + self.config.ask_deadline / 4);
                match self.fate(incarnation, a_moment).await {
                    Fate::Buried => Err(DeliveryError::Gone),
                    Fate::Member(_) | Fate::Unknown => Err(DeliveryError::Unavailable),
                }
            }
        }
    }

    /// What the registry knows of an incarnation; nothing, when it cannot be asked in time.
    async fn fate(&self, incarnation: Incarnation, deadline: Instant) -> Fate {
        if matches!(self.sight().health, Health::Away { .. }) {
            return Fate::Unknown;
        }
        let asked = async {
            let mut fates = self.fates.0.lock().await;
            let now = Instant::now();
            if let Some((at, fate)) = fates.get(&incarnation)
                && now - *at < FATE_HOLDS
            {
                return fate.clone();
            }
            let Ok(fate) = self.registry.fate(incarnation).await else {
                self.doubts.note();
                return Fate::Unknown;
            };
            if fate == Fate::Buried {
                self.state.lock().view.buried(incarnation);
            }
            if fates.len() >= FATES {
                fates.retain(|_, (at, _)| now - *at < FATE_HOLDS);
                if fates.len() >= FATES {
                    fates.clear();
                }
            }
            fates.insert(incarnation, (now, fate.clone()));
            fate
        };
        timeout_at(deadline, asked).await.unwrap_or(Fate::Unknown)
    }

    /// A node that joined since the last renewal.
    fn meet(&self, peer: &Peer) {
        let mut state = self.state.lock();
        state.view.met(Instant::now(), peer);
        self.publish(&state);
    }

    /// Nodes whose lease has run out and that are not proven dead.
    fn late_peers(&self) -> Vec<Arc<Peer>> {
        let (sight, state) = (self.sight(), self.state.lock());
        sight.peers.values().filter(|peer| state.view.is_late(peer.incarnation)).cloned().collect()
    }

    /// The nodes that may have members of a group, this one apart.
    async fn nodes_of(&self, group: &GroupName) -> Vec<Arc<Peer>> {
        let everybody = || self.sight().peers.values().cloned().collect();
        if self.health() != Health::Settled {
            return everybody();
        }
        let Ok(listed) = self.registry.group_nodes(group).await else {
            self.doubts.note();
            return everybody();
        };
        let me = self.me();
        // One that does not renew may be cut off from the registry, and have members that it could not tell of.
        let mut peers = self.late_peers();
        for incarnation in listed {
            if Some(incarnation) == me || peers.iter().any(|peer| peer.incarnation == incarnation) {
                continue;
            }
            match self.owner(incarnation) {
                Owner::Elsewhere(peer) => peers.push(peer),
                Owner::Here | Owner::Gone => {}
                Owner::Unknown => {
                    let deadline = Instant::now() + self.config.ask_deadline / 4;
                    if let Fate::Member(info) = self.fate(incarnation, deadline).await {
                        let peer = Peer { incarnation, info };
                        self.meet(&peer);
                        peers.push(Arc::new(peer));
                    }
                }
            }
        }
        peers
    }

    /// The other nodes that a request is for: those with members of its group, else all.
    async fn concerned(&self, request: &Request) -> Vec<Arc<Peer>> {
        if let Request::SendToGroup { group, .. } | Request::Members { group, .. } = request {
            return self.nodes_of(group).await;
        }
        self.sight().peers.values().cloned().collect()
    }

    /// Asks several nodes the same at once; `None` for one that did not answer.
    async fn ask_each(&self, peers: Vec<Arc<Peer>>, request: &Request) -> Vec<(Arc<Peer>, Option<Response>)> {
        let Some(transport) = self.transport() else { return peers.into_iter().map(|peer| (peer, None)).collect() };
        let ask = |peer: Arc<Peer>| async move {
            match transport.ask(&peer, request.clone(), self.config.ask_deadline).await {
                Ok(Response::Busy) => (peer, None),
                Ok(response) => (peer, Some(response)),
                Err(error) => {
                    tracing::debug!(node = %peer.info.address, %error, "a node was not reached");
                    (peer, None)
                }
            }
        };
        join_all(peers.into_iter().map(ask)).await
    }

    /// Has the other nodes that have members of a group send it a message, or all of them one to everybody.
    pub async fn fan_out(&self, request: &Request) -> Delivered {
        let peers = self.concerned(request).await;
        let mut result = Delivered::default();
        for (peer, response) in self.ask_each(peers, request).await {
            if let Some(Response::Delivered(there)) = response {
                result.add(there);
            } else {
                self.counts.fan_outs_short.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(node = %peer.info.address, "a message for many did not get to a node's sessions");
                result.unreachable += 1;
            }
        }
        result
    }

    /// Asks every other node that a request concerns for a part of a listing; `None` for one that did not answer.
    pub async fn gather(&self, request: &Request) -> Vec<(Arc<Peer>, Option<Response>)> {
        self.ask_each(self.concerned(request).await, request).await
    }
}
