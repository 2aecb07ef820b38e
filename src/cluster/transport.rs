//! Port: what one node asks of another, and who answers. TLS links stand behind it in production, a model of a network in
//! simulations.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::registry::Peer;
use super::{Delivered, GroupName};
use crate::clock::EpochMillis;
use crate::ids::{ApiId, ConnectionId, StageName};
use crate::message::Kind;

/// Names a back-end's call through all its repetitions: the SDK's `amz-sdk-invocation-id`, hashed with the connection.
pub type Invocation = u64;

/// What one node asks of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Put a message into a connection's outbox.
    Push {
        /// Whose.
        id: ConnectionId,
        /// The API it must belong to; any for the operator.
        api: Option<ApiId>,
        /// Text or binary.
        kind: Kind,
        /// The message; text is UTF-8.
        payload: Bytes,
        /// A repeat of the same is answered as the first was, and not done again.
        invocation: Option<Invocation>,
    },
    /// Tell about a connection.
    Describe {
        /// Which.
        id: ConnectionId,
        /// The API it must belong to; any for the operator.
        api: Option<ApiId>,
    },
    /// Close a connection with 1000.
    Close {
        /// Which.
        id: ConnectionId,
        /// The API it must belong to; any for the operator.
        api: Option<ApiId>,
    },
    /// Make a connection a member of a group.
    Join {
        /// Which.
        id: ConnectionId,
        /// Of what.
        group: GroupName,
    },
    /// End a membership.
    Leave {
        /// Whose.
        id: ConnectionId,
        /// In what.
        group: GroupName,
    },
    /// Send to the members that the node has of a group.
    SendToGroup {
        /// Which.
        group: GroupName,
        /// Text or binary.
        kind: Kind,
        /// The message; text is UTF-8.
        payload: Bytes,
        /// A member that is left out.
        except: Option<ConnectionId>,
    },
    /// Send to all connections that the node has of an API.
    SendToAll {
        /// Which.
        api: ApiId,
        /// Text or binary.
        kind: Kind,
        /// The message; text is UTF-8.
        payload: Bytes,
    },
    /// List members that the node has of a group, by id.
    Members {
        /// Which.
        group: GroupName,
        /// Only ids above this one.
        after: Option<ConnectionId>,
        /// At most so many.
        limit: u32,
    },
    /// List connections that the node has, by id.
    List {
        /// Only those of an API.
        api: Option<ApiId>,
        /// Only those of a stage of that name.
        stage: Option<StageName>,
        /// Only ids above this one.
        after: Option<ConnectionId>,
        /// At most so many.
        limit: u32,
    },
}

/// What `GET @connections` tells (specification 6.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// When the connection was made.
    pub connected_at: EpochMillis,
    /// Last data message in either direction.
    pub last_active_at: EpochMillis,
    /// The client's address.
    pub source_ip: IpAddr,
    /// Its `User-Agent`.
    pub user_agent: Option<Box<str>>,
}

/// One connection in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub id: ConnectionId,
    /// Its API.
    pub api: ApiId,
    /// Its stage.
    pub stage: StageName,
    /// What is known of it.
    pub described: Described,
    /// Bytes waiting for the client.
    pub outbox_bytes: u64,
}

/// What the asked node answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// Done.
    Done,
    /// The connection is gone: its owner says so.
    Gone,
    /// The client does not read fast enough.
    Full,
    /// The connection is in as many groups as it may.
    TooManyGroups,
    /// The message is larger than the owner's stage allows.
    TooLarge,
    /// The node cannot take this now: it is starting or ending, or has too much to do. Nothing was done.
    Busy,
    /// About a connection.
    Described(Described),
    /// What became of a message for many.
    Delivered(Delivered),
    /// Ids, in order.
    Ids(Vec<ConnectionId>),
    /// Connections in order of their ids, and how many the node has in all.
    Rows {
        /// Those asked for.
        rows: Vec<Row>,
        /// All.
        open: u64,
    },
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It was not sent: nothing was done. No connection could be had, the queue was full, or somebody else answers there.
    #[error("the node cannot be reached: {0}")]
    NotSent(String),
    /// It was sent; whether it was done is not known. The connection broke, or the deadline passed.
    #[error("the node did not answer: {0}")]
    Unanswered(String),
}

/// An answer on its way.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<Response, LinkError>> + Send + 'a>>;

/// How to reach other nodes.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Asks a node and waits for its answer, at most `deadline`. Requests of one caller, each awaited before the next, are
    /// served in order.
    fn ask<'a>(&'a self, peer: &'a Peer, request: Request, deadline: Duration) -> Asked<'a>;

    /// Whether the node answers under this incarnation, within a second and a half: on the connection there is, or a new one.
    fn probe<'a>(&'a self, peer: &'a Peer) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

    /// Who is there now; connections to others end, those to these may be made ahead of need. `me` is this node, whose
    /// incarnation changes when it has to join anew.
    fn peers(&self, me: &Peer, others: &[Peer]);
}

/// An answer of this node: at once, or after waiting.
pub enum Served {
    /// Here it is.
    Now(Response),
    /// It takes longer: a message for many.
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(response) => f.debug_tuple("Now").field(response).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}

/// Answers what other nodes ask. Called from a link's own task, in the order the requests came; must not block.
pub trait Serve: Send + Sync + 'static {
    /// Answers one request.
    fn serve(&self, request: Request) -> Served;
}

impl<T: Serve> Serve for Arc<T> {
    fn serve(&self, request: Request) -> Served {
        (**self).serve(request)
    }
}
