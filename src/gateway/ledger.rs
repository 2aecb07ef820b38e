//! Connections that have a record in the registry and no session in the hub: on their way in, or with their `$disconnect`
//! still to be attempted.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::context::ConnectionContext;
use crate::ids::ConnectionId;

/// Kept by a node among others alone. One lock, held for a map operation; the sessions' own bounds are its bound.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<HashMap<ConnectionId, (u32, ConnectionContext)>>);

impl Ledger {
    /// Puts a connection in. Counted, since one may end, and be put in for that, before its opening has taken it out.
    pub(super) fn enter(&self, context: &ConnectionContext) {
        let mut entries = self.0.lock();
        entries.entry(context.id).or_insert_with(|| (0, context.clone())).0 += 1;
    }

    /// Takes it out, once.
    pub(super) fn strike(&self, id: &ConnectionId) {
        let mut entries = self.0.lock();
        let is_last = entries.get_mut(id).is_some_and(|(count, _)| {
            *count -= 1;
            *count == 0
        });
        if is_last {
            entries.remove(id);
        }
        if entries.capacity() > 4_096 && entries.len() < entries.capacity() / 8 {
            entries.shrink_to_fit();
        }
    }

    pub(super) fn get(&self, id: &ConnectionId) -> Option<ConnectionContext> {
        self.0.lock().get(id).map(|(_, context)| context.clone())
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.0.lock().keys().copied().collect()
    }
}
