//! Port: what the nodes of a cluster share. Redis stands behind it in production, [`super::memory`] in simulations.
//!
//! | kept | written | removed |
//! | --- | --- | --- |
//! | node: incarnation, address, lease | at join; the lease at every renewal | at its clean end, or when it is buried |
//! | tombstone of an incarnation | at its end, clean or not | never |
//! | grave of an incarnation | when its end may have left records | once it is swept |
//! | record of a connection | once, before its 101 | once, after its `$disconnect` was attempted |
//! | nodes that have members of a group | with a node's first member | with its last |
//!
//! Nothing is kept that an idle session would have to renew. Every operation is safe to repeat, and each ends within the
//! adapter's own deadline: an error says that it *may* have happened.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::GroupName;
use crate::clock::EpochMillis;
use crate::context::ConnectionContext;
use crate::ids::{ConnectionId, Incarnation};

/// Buckets that the records of one incarnation are spread over. A survivor reads all of them, so they are few; each
/// should stay small enough for Redis to keep it packed, so they are not too few. Simulations read them thousands of times.
pub const BUCKETS: u16 = if cfg!(test) { 64 } else { 1_024 };

/// What a registry call gives, once it has.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, RegistryError>> + Send + 'a>>;

/// Why the registry did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached, or lost the connection on the way.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),
    /// No answer within the deadline.
    #[error("the registry did not answer within {0:?}")]
    TimedOut(Duration),
    /// It refuses this node: password, user, permission, database.
    #[error("the registry refuses this node: {0}")]
    Refused(String),
    /// It takes no writes: a read-only replica, no memory left, a failed save.
    #[error("the registry takes no writes: {0}")]
    ReadOnly(String),
    /// Under one of our keys stands something that is not ours.
    #[error("{key} in the registry is not ours: {found}")]
    Foreign {
        /// The key.
        key: String,
        /// What stands there.
        found: String,
    },
    /// It is written by a version this one does not understand.
    #[error("the registry has schema {found}, this version speaks {ours}")]
    Schema {
        /// Theirs.
        found: String,
        /// Ours.
        ours: u32,
    },
}

impl RegistryError {
    /// Whether trying again later may help without anybody mending something.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) | Self::ReadOnly(_) => true,
            Self::Refused(_) | Self::Foreign { .. } | Self::Schema { .. } => false,
        }
    }
}

/// A node as the others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Where its node link listens: `host:port`.
    pub address: Arc<str>,
    /// What people call it: by default the host's name.
    pub name: Arc<str>,
    /// The product's version.
    pub version: Arc<str>,
    /// When it started, by its own clock. For people; nothing is decided by it.
    pub started_at: EpochMillis,
}

/// A node of the cluster, by the incarnation that its connection ids carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// This start of it.
    pub incarnation: Incarnation,
    /// Who it is.
    pub info: NodeInfo,
}

/// A node in the registry at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The node.
    pub peer: Peer,
    /// Changes with every renewal of its lease, and with nothing else.
    pub lease: u64,
    /// Whether the lease had run out by the registry's own clock.
    pub expired: bool,
}

/// An ended incarnation whose records may not all be swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grave {
    /// Whose.
    pub incarnation: Incarnation,
    /// How long it has been there, by the registry's clock.
    pub age: Duration,
}

/// The registry as a renewal found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Names the data: another number means that the registry was emptied.
    pub dataset: u64,
    /// Counts the renewals of all nodes. One that is not above the last one seen means that writes were lost.
    pub beat: u64,
    /// The node's own entry was not there and has been written anew.
    pub reentered: bool,
    /// Changes when the way to the registry was lost and made anew. A registry that was restarted or replaced may lack a
    /// last moment that held no renewal, which nothing else tells.
    pub way: u64,
    /// Every node, this one included.
    pub nodes: Vec<Listed>,
    /// What is left to sweep.
    pub graves: Vec<Grave>,
}

/// What came of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The lease is renewed.
    Alive(Heartbeat),
    /// The incarnation has a tombstone: the others take it for dead, and it must end.
    Buried,
}

/// What came of setting a tombstone by compare-and-set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Burial {
    /// The tombstone stands, and a grave is there to sweep.
    Buried,
    /// It was renewed meanwhile: the node lives.
    Renewed,
    /// The data is not what the caller thinks it is.
    Changed,
    /// No such node is listed: it has left, or somebody else was faster.
    Unlisted,
}

/// What the registry knows of an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is listed.
    Member(NodeInfo),
    /// It has a tombstone: everything it owned is gone, and that is proven.
    Buried,
    /// Nothing is known, which proves nothing.
    Unknown,
}

/// One write; a batch of them is pipelined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The record of a connection.
    Put(ConnectionContext),
    /// It is no more.
    Remove(ConnectionId),
    /// The node has members of the group.
    Enter(GroupName, Incarnation),
    /// The node has none any more.
    Leave(GroupName, Incarnation),
}

/// A part of a listing; the cursor leads to the next, `None` is the end. What is there throughout is listed at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The part.
    pub items: Vec<T>,
    /// Where to go on.
    pub next: Option<u64>,
}

/// What came of claiming the record of a lost node's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is the caller's until the claim lapses.
    Yours(ConnectionContext),
    /// Somebody else has it.
    Taken,
    /// It is no more: its `$disconnect` was attempted.
    Missing,
}

/// What nodes share. Every call may fail; none waits longer than the adapter's deadline.
pub trait Registry: Send + Sync + fmt::Debug {
    /// Enters the cluster under a fresh incarnation, never used by a listed or buried node.
    fn join<'a>(&'a self, info: &'a NodeInfo, lease: Duration) -> Answer<'a, Incarnation>;

    /// Renews a lease and reads who is there. Writes the node's entry anew when it is missing.
    fn renew<'a>(&'a self, me: Incarnation, info: &'a NodeInfo, lease: Duration) -> Answer<'a, Renewal>;

    /// Sets a tombstone, if the lease is still the one seen (`lease`), has expired, and the data is still `dataset`.
    fn bury(&self, whom: Incarnation, lease: u64, dataset: u64) -> Answer<'_, Burial>;

    /// Ends an incarnation in order: its own tombstone, and a grave if records may be left.
    fn leave(&self, me: Incarnation, records_left: bool) -> Answer<'_, ()>;

    /// What is known of an incarnation.
    fn fate(&self, of: Incarnation) -> Answer<'_, Fate>;

    /// After data was lost: puts back nodes (with a lease that has run out) and tombstones that this node remembers.
    /// Changes nothing that is there, but that a tombstone wins: an entry that came back with old data goes, and leaves a grave.
    fn restore<'a>(&'a self, nodes: &'a [Peer], buried: &'a [Incarnation]) -> Answer<'a, ()>;

    /// Writes a batch, in any order; nothing or all or a part of it is done when it fails.
    fn write<'a>(&'a self, batch: &'a [Write]) -> Answer<'a, ()>;

    /// Lists the ids of an incarnation's records in one bucket.
    fn records(&self, of: Incarnation, bucket: u16, cursor: Option<u64>) -> Answer<'_, Page<ConnectionId>>;

    /// Claims a record for so long.
    fn claim(&self, id: ConnectionId, claimant: u64, lapse: Duration) -> Answer<'_, Claim>;

    /// Removes a record, if the claim on it is still the caller's; `false` when it is not.
    fn finish(&self, id: ConnectionId, claimant: u64) -> Answer<'_, bool>;

    /// Puts a grave (back): records may have been left by an incarnation that has its tombstone.
    fn reopen(&self, of: Incarnation) -> Answer<'_, ()>;

    /// Takes a swept grave away.
    fn close_grave(&self, of: Incarnation) -> Answer<'_, ()>;

    /// The nodes that have members of a group; dead ones may still be among them.
    fn group_nodes<'a>(&'a self, group: &'a GroupName) -> Answer<'a, Vec<Incarnation>>;

    /// Lists the groups an incarnation is entered in.
    fn groups_of(&self, of: Incarnation, cursor: Option<u64>) -> Answer<'_, Page<GroupName>>;

    /// Adds to a counter shared by all nodes that begins at 0 and ends `period` after its first use; its value then.
    fn count<'a>(&'a self, counter: &'a str, amount: u64, period: Duration) -> Answer<'a, u64>;
}

/// The bucket a record stands in.
pub fn bucket(id: &ConnectionId) -> u16 {
    // Slots are handed out one after the other, so the low bits spread evenly.
    (id.slot() % u32::from(BUCKETS)) as u16
}
