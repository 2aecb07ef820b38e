//! Group membership on this node. A group exists while it has members.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::ids::{ApiId, ConnectionId};
use crate::session::{Events, Session};

/// A group of an API: names of different APIs never meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName {
    /// The API.
    pub api: ApiId,
    /// The name, 1 to 256 bytes.
    pub name: Arc<str>,
}

/// Longest name of a group; longer ones are refused where they are made.
pub(super) const MAX_NAME_BYTES: usize = 256;
/// Groups one connection may be in: what a client can make the node hold is bounded.
pub const MAX_GROUPS_OF_A_CONNECTION: usize = 128;
const SHARDS: usize = 64;

impl GroupName {
    /// A name, unless it is empty or too long.
    pub fn new(api: &ApiId, name: &str) -> Option<Self> {
        (!name.is_empty() && name.len() <= MAX_NAME_BYTES).then(|| Self { api: api.clone(), name: Arc::from(name) })
    }
}

struct Group<E> {
    members: HashMap<ConnectionId, Session<E>>,
    /// The members as a list, kept until one joins or leaves: a busy group is sent to far more often than it changes.
    list: Option<Arc<[Session<E>]>>,
}

/// Who is in which group.
///
/// Locks: one a shard, held for a map operation or for listing a group's members; no session is touched under it.
pub struct Groups<E> {
    shards: [Mutex<HashMap<GroupName, Group<E>>>; SHARDS],
    hasher: RandomState,
}

impl<E> Default for Groups<E> {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl<E> std::fmt::Debug for Groups<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Groups")
    }
}

impl<E: Events> Groups<E> {
    fn shard(&self, group: &GroupName) -> &Mutex<HashMap<GroupName, Group<E>>> {
        let n = self.hasher.hash_one(group) as usize % SHARDS;
        self.shards.get(n).unwrap_or(&self.shards[0])
    }

    /// Makes a session a member; whether it is the first of the group here.
    pub fn join(&self, group: &GroupName, session: &Session<E>) -> bool {
        let mut shard = self.shard(group).lock();
        let entry = shard.entry(group.clone()).or_insert_with(|| Group { members: HashMap::new(), list: None });
        entry.list = None;
        entry.members.insert(*session.id(), session.clone());
        entry.members.len() == 1
    }

    /// Ends a membership; whether it was the last of the group here.
    pub fn leave(&self, group: &GroupName, id: &ConnectionId) -> bool {
        let mut shard = self.shard(group).lock();
        let Some(entry) = shard.get_mut(group) else { return false };
        entry.list = None;
        entry.members.remove(id);
        let is_last = entry.members.is_empty();
        if is_last {
            shard.remove(group);
        } else if entry.members.capacity() > 1_024 && entry.members.len() < entry.members.capacity() / 4 {
            entry.members.shrink_to_fit();
        }
        is_last
    }

    /// Whether a group has members here.
    pub fn has_members(&self, group: &GroupName) -> bool {
        self.shard(group).lock().contains_key(group)
    }

    /// Every group with members here.
    pub fn names(&self) -> Vec<GroupName> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().cloned().collect::<Vec<_>>()).collect()
    }

    /// The members of a group now.
    pub fn members(&self, group: &GroupName) -> Arc<[Session<E>]> {
        let mut shard = self.shard(group).lock();
        let Some(entry) = shard.get_mut(group) else { return Arc::from([]) };
        let members = &entry.members;
        Arc::clone(entry.list.get_or_insert_with(|| members.values().cloned().collect()))
    }

    /// Groups that have members.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether no group has members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
