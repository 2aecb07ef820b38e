//! This gateway as one node of many: what other nodes ask of it, and what its place in the cluster asks.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::disconnect::attempt_for_lost;
use super::push::{Listing, bounded, close_here, leave_here};
use super::{Connection, Gateway, as_gauge, rescue};
use crate::cluster::link::Links;
use crate::cluster::registry::NodeInfo;
use crate::cluster::transport::{Request, Response, Row, Serve, Served};
use crate::cluster::{Attempt, Attempting, Delivered, GroupName, Health, Local, Place, Truth};
use crate::context::ConnectionContext;
use crate::fault::{CloseReason, Fault};
use crate::ids::{ApiId, ConnectionId, Incarnation, StageName};
use crate::message::Kind;
use crate::session::{Outgoing, Session};
use crate::telemetry::labels::LinkOutcome;
use crate::telemetry::metrics::follow;

/// Which connections a listing is about.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of an API.
    pub api: Option<ApiId>,
    /// Only those of a stage of that name.
    pub stage: Option<StageName>,
    /// Only ids above this one.
    pub after: Option<ConnectionId>,
    /// At most so many.
    pub limit: usize,
}

/// The cluster as this node sees it.
#[derive(Debug)]
pub struct Nodes {
    /// This node first.
    pub nodes: Vec<NodeView>,
    /// How the registry is: `settled`, `settling`, or `away: …`.
    pub registry: String,
    /// Changes the registry does not know yet.
    pub unwritten: usize,
}

/// One node of it.
#[derive(Debug)]
pub struct NodeView {
    /// The start its connection ids name; `None` while this node has none.
    pub incarnation: Option<Incarnation>,
    /// Who it is.
    pub info: NodeInfo,
    /// Whether it is this one.
    pub is_this: bool,
    /// `up`, `late` (its lease has run out), `draining` or `rejoining`.
    pub state: &'static str,
}

impl Gateway {
    /// The cluster as this node sees it; `None` when it is alone.
    pub fn nodes(&self) -> Option<Nodes> {
        let node = self.cluster.node()?;
        let me = node.me();
        let state = match (me, self.is_draining()) {
            (None, _) => "rejoining",
            (Some(_), true) => "draining",
            (Some(_), false) => "up",
        };
        let mut nodes = vec![NodeView { incarnation: me, info: node.info().clone(), is_this: true, state }];
        nodes.extend(node.others().into_iter().map(|(peer, is_late)| NodeView {
            incarnation: Some(peer.incarnation),
            info: peer.info,
            is_this: false,
            state: if is_late { "late" } else { "up" },
        }));
        let registry = match node.health() {
            Health::Settled => "settled".to_owned(),
            Health::Settling(_) => "settling".to_owned(),
            Health::Away { error, .. } => format!("away: {error}"),
        };
        Some(Nodes { nodes, registry, unwritten: node.unwritten() })
    }

    /// The links to other nodes, for what they count.
    pub fn linked(&self, links: Arc<Links>) {
        let _once = self.links.set(links);
    }

    /// Brings the metrics of the cluster up to date.
    pub(super) fn count_cluster(&self) {
        let Some(node) = self.cluster.node() else { return };
        let metrics = &self.metrics.cluster;
        let up = !matches!(node.health(), Health::Away { .. });
        metrics.registry_up.set(i64::from(up));
        metrics.nodes.set(as_gauge(node.others().len() + 1));
        metrics.registry_unwritten.set(as_gauge(node.unwritten()));
        let counts = node.counts();
        let pairs = [
            (&metrics.registry_failures, &counts.registry_failures),
            (&metrics.registry_writes, &counts.registry_writes),
            (&metrics.burials, &counts.burials),
            (&metrics.expulsions, &counts.expulsions),
            (&metrics.recovered, &counts.recovered),
            (&metrics.fan_outs_short, &counts.fan_outs_short),
        ];
        for (metric, count) in pairs {
            follow(metric, count);
        }
        let Some(links) = self.links.get() else { return };
        let each = links.status();
        metrics.links_open.set(as_gauge(each.iter().filter(|link| link.connected).count()));
        let unreachable = each.iter().filter(|link| link.dialable == Some(false));
        metrics.links_unreachable.set(as_gauge(unreachable.count()));
        let stats = links.stats();
        for (label, count) in [
            (LinkOutcome::Answered, &stats.answered),
            (LinkOutcome::NotSent, &stats.not_sent),
            (LinkOutcome::Unanswered, &stats.unanswered),
            (LinkOutcome::Served, &stats.served),
            (LinkOutcome::TurnedAway, &stats.turned_away),
        ] {
            let more = count.load(Ordering::Relaxed).saturating_sub(metrics.link_requests.get(label));
            metrics.link_requests.add(label, more);
        }
        let pairs = [
            (&metrics.link_received, &stats.bytes_in),
            (&metrics.link_sent, &stats.bytes_out),
            (&metrics.links_made, &stats.links_made),
            (&metrics.links_lost, &stats.links_lost),
            (&metrics.link_dials_failed, &stats.dials_failed),
            (&metrics.link_strangers, &stats.strangers_refused),
            (&metrics.told_unreachable, &stats.told_unreachable),
        ];
        for (metric, count) in pairs {
            follow(metric, count);
        }
    }

    /// Why this node is less than whole, though it serves: for readiness.
    pub fn degradation(&self) -> Option<String> {
        let node = self.cluster.node()?;
        if node.me().is_none() {
            return Some("declared dead by the others, joining anew".to_owned());
        }
        match node.health() {
            Health::Away { since, error } => Some(format!("{error} (for {} s)", since.elapsed().as_secs())),
            Health::Settled | Health::Settling(_) => None,
        }
    }

    /// The connections of all nodes by id, and how many there are in all.
    pub async fn list(&self, filter: &Filter) -> (Listing<Row>, u64) {
        let (mut items, mut open) = self.rows_here(filter);
        let mut unreachable = Vec::new();
        if let Some(node) = self.cluster.node() {
            let request = Request::List {
                api: filter.api.clone(),
                stage: filter.stage.clone(),
                after: filter.after,
                limit: bounded(filter.limit),
            };
            for (peer, response) in node.gather(&request).await {
                if let Some(Response::Rows { rows, open: there }) = response {
                    items.extend(rows);
                    open += there;
                } else {
                    unreachable.push(peer.info.address.to_string());
                }
            }
        }
        items.sort_unstable_by_key(|row| row.id);
        let more = items.len() > filter.limit;
        items.truncate(filter.limit);
        (Listing { items, more, unreachable }, open)
    }

    /// This node's part: one row more than the limit says that there are more.
    fn rows_here(&self, filter: &Filter) -> (Vec<Row>, u64) {
        let mut sessions = self.cluster.hub.all();
        let open = sessions.len() as u64;
        sessions.retain(|session| {
            let stage = session.stage();
            filter.api.as_ref().is_none_or(|api| *api == stage.api)
                && filter.stage.as_ref().is_none_or(|name| *name == stage.name)
                && filter.after.is_none_or(|after| *session.id() > after)
        });
        sessions.sort_unstable_by_key(|session| *session.id());
        let rows = sessions.iter().take(filter.limit.saturating_add(1)).filter_map(|session| self.row(session));
        (rows.collect(), open)
    }

    fn row(&self, session: &Session<Connection>) -> Option<Row> {
        let stage = session.stage();
        Some(Row {
            id: *session.id(),
            api: stage.api.clone(),
            stage: stage.name.clone(),
            described: self.describe_here(None, session).ok()?,
            outbox_bytes: session.outbox_bytes() as u64,
        })
    }

    /// A session of this node's incarnation. Another node's answer to a stranger's id would prove nothing, so it gives none.
    fn here(&self, id: &ConnectionId) -> Result<Session<Connection>, Response> {
        match self.cluster.place(id) {
            Place::Here(session) => Ok(session),
            Place::Gone => Err(Response::Gone),
            Place::Elsewhere => Err(Response::Busy),
        }
    }

    fn serve_now(self: &Arc<Self>, request: Request) -> Result<Served, Response> {
        let now =
            |outcome: Result<(), Fault>| outcome.map_or_else(|fault| rescue::for_peer(&fault), |()| Response::Done);
        Ok(Served::Now(match request {
            Request::Push { id, api, kind, payload, invocation } => {
                let session = self.here(&id)?;
                let limits = session.stage().load().policy.limits;
                if payload.len() > limits.max_message_bytes {
                    return Err(Response::TooLarge);
                }
                let outgoing = outgoing(kind, payload, limits.max_frame_bytes);
                now(self.push_here(api.as_ref(), &session, &outgoing, invocation))
            }
            Request::Describe { id, api } => match self.describe_here(api.as_ref(), &self.here(&id)?) {
                Ok(described) => Response::Described(described),
                Err(fault) => rescue::for_peer(&fault),
            },
            Request::Close { id, api } => now(close_here(api.as_ref(), &self.here(&id)?)),
            Request::Leave { id, group } => now(leave_here(&self.here(&id)?, &group)),
            Request::Join { id, group } => {
                let (gateway, session) = (Arc::clone(self), self.here(&id)?);
                return Ok(Served::Later(Box::pin(async move { now(gateway.join_here(&session, &group).await) })));
            }
            Request::SendToGroup { group, kind, payload, except } => {
                let members = self.members_but(&group, except.as_ref());
                return Ok(self.fan_out_for_another(members, kind, payload));
            }
            Request::SendToAll { api, kind, payload } => {
                let sessions = self.sessions_of_api(&api).into();
                return Ok(self.fan_out_for_another(sessions, kind, payload));
            }
            Request::Members { group, after, limit } => Response::Ids(self.members_here(&group, after, limit as usize)),
            Request::List { api, stage, after, limit } => {
                let (rows, open) = self.rows_here(&Filter { api, stage, after, limit: limit as usize });
                Response::Rows { rows, open }
            }
        }))
    }

    fn fan_out_for_another(
        self: &Arc<Self>,
        sessions: Arc<[Session<Connection>]>,
        kind: Kind,
        payload: Bytes,
    ) -> Served {
        let Some(first) = sessions.first() else { return Served::Now(Response::Delivered(Delivered::default())) };
        let limits = first.stage().load().policy.limits;
        let outgoing = outgoing(kind, payload, limits.max_frame_bytes).for_many();
        let gateway = Arc::clone(self);
        Served::Later(Box::pin(async move { Response::Delivered(gateway.fan_out_here(&sessions, &outgoing).await) }))
    }
}

/// A message that another node took in; text was made UTF-8 there, and is looked at again here.
fn outgoing(kind: Kind, payload: Bytes, max_frame_bytes: usize) -> Outgoing {
    match kind {
        Kind::Text => Outgoing::lossy_text(payload, max_frame_bytes),
        Kind::Binary => Outgoing::new(kind, payload, max_frame_bytes),
    }
}

impl Serve for Gateway {
    fn serve(&self, request: Request) -> Served {
        // The gateway is always held by an `Arc`; what outlives this call needs one of its own.
        let Some(gateway) = self.myself.upgrade() else { return Served::Now(Response::Busy) };
        gateway.serve_now(request).unwrap_or_else(Served::Now)
    }
}

/// What links hold: they must not keep the gateway alive that keeps them.
impl Serve for Weak<Gateway> {
    fn serve(&self, request: Request) -> Served {
        self.upgrade().map_or(Served::Now(Response::Busy), |gateway| gateway.serve(request))
    }
}

impl Truth for Gateway {
    fn connection(&self, id: &ConnectionId) -> Option<ConnectionContext> {
        // The map first: a session that ends is put into the ledger before it leaves the map.
        // The ledger after it, and the map again: one that opens is taken out of the ledger when it is in the map.
        let open = || self.cluster.hub.get(id).map(|session| session.context().clone());
        open().or_else(|| self.ledger.get(id)).or_else(open)
    }

    fn has_members(&self, group: &GroupName) -> bool {
        self.cluster.groups.has_members(group)
    }
}

impl Local for Gateway {
    fn connections(&self) -> Vec<ConnectionId> {
        let mut ids = self.ledger.ids();
        ids.extend(self.cluster.hub.all().iter().map(|session| *session.id()));
        ids
    }

    fn groups(&self) -> Vec<GroupName> {
        self.cluster.groups.names()
    }

    fn disconnect(&self, lost: ConnectionContext) -> Attempting {
        let Some(gateway) = self.myself.upgrade() else { return Box::pin(async { Attempt::NoStage }) };
        Box::pin(async move { attempt_for_lost(&gateway, lost).await })
    }

    fn expel(&self, incarnation: Incarnation) {
        for session in self.cluster.hub.all() {
            if session.id().incarnation() == incarnation {
                session.close(&CloseReason::Expelled);
            }
        }
    }
}
