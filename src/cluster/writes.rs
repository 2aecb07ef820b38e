//! What of this node the registry may not know yet: connections and groups that have changed, not how.
//!
//! What to write is asked of the node when a batch is made, so the order in which threads report changes does not matter:
//! whatever changes after the question has been reported after it, and comes again. While the registry is away changes
//! gather here, at most one for each thing that exists or may still stand in the registry; what came and went meanwhile
//! leaves nothing.
//!
//! ```text
//!   changed ──► queued ──► asked, batch under way ──► written, waiters told
//!                 ▲                  │ failed
//!                 └──────────────────┘
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::GroupName;
use super::registry::Write;
use crate::context::ConnectionContext;
use crate::ids::{ConnectionId, Incarnation};

/// Writes in one batch: some 100 KiB, a few milliseconds of the registry's time.
const BATCH: usize = 512;

/// A thing that a node writes about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Thing {
    Connection(ConnectionId),
    Group(GroupName),
}

/// What there is on the node now.
pub trait Truth {
    /// The connection, if its record should stand.
    fn connection(&self, id: &ConnectionId) -> Option<ConnectionContext>;

    /// Whether the node has members of the group.
    fn has_members(&self, group: &GroupName) -> bool;
}

#[derive(Debug, Default)]
struct Entry {
    /// It may stand in the registry.
    may_stand: bool,
    is_queued: bool,
    is_under_way: bool,
    /// Those who wait for the next batch with it.
    waiters: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Thing, Entry>,
    queue: VecDeque<Thing>,
}

/// The changes not written yet. One lock, held for a map operation or for taking a batch.
#[derive(Debug, Default)]
pub(super) struct Writes {
    state: Mutex<State>,
    wake: Notify,
    settled: Notify,
}

/// A batch under way. There is one at a time, so that writes about one thing cannot overtake each other.
#[derive(Debug)]
pub(super) struct Batch {
    things: Vec<Thing>,
    pub(super) writes: Vec<Write>,
    waiters: Vec<oneshot::Sender<()>>,
}

/// Resolves when a change is written.
#[derive(Debug)]
pub(super) struct Written(oneshot::Receiver<()>);

impl Written {
    /// Waits, at most `patience`; whether it was written.
    pub(super) async fn within(self, patience: Duration) -> bool {
        matches!(tokio::time::timeout(patience, self.0).await, Ok(Ok(())))
    }
}

impl Writes {
    /// Something is new here.
    pub(super) fn appeared(&self, thing: Thing) -> Written {
        let (told, waiter) = oneshot::channel();
        self.note(thing, false, Some(told));
        Written(waiter)
    }

    /// Something that may stand in the registry has ended, or may be missing there.
    pub(super) fn changed(&self, thing: Thing) {
        self.note(thing, true, None);
    }

    fn note(&self, thing: Thing, may_stand: bool, waiter: Option<oneshot::Sender<()>>) {
        let mut state = self.state.lock();
        let State { entries, queue } = &mut *state;
        // An entry knows better than the caller: what is queued and was never sent cannot stand anywhere.
        let entry = entries.entry(thing.clone()).or_insert_with(|| Entry { may_stand, ..Entry::default() });
        entry.waiters.extend(waiter);
        if !entry.is_queued {
            entry.is_queued = true;
            queue.push_back(thing);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Waits until there is something to write.
    pub(super) async fn wait(&self) {
        while self.state.lock().queue.is_empty() {
            self.wake.notified().await;
        }
    }

    /// Takes the next batch, as things are `now`; `None` when nothing is to be written. What is about connections of an
    /// earlier incarnation falls away: a batch that was under way when it ended has come back, and others have swept.
    pub(super) fn take(&self, me: Incarnation, now: &dyn Truth) -> Option<Batch> {
        let mut batch = Batch { things: Vec::new(), writes: Vec::new(), waiters: Vec::new() };
        let mut told = Vec::new();
        while batch.things.len() < BATCH {
            let Some((thing, may_stand, mut waiters)) = self.pop() else { break };
            // Asked without the lock: the answer may take locks of its own.
            let write = match &thing {
                Thing::Connection(id) if id.incarnation() != me => None,
                Thing::Connection(id) => {
                    now.connection(id).map(Write::Put).or_else(|| may_stand.then_some(Write::Remove(*id)))
                }
                Thing::Group(group) if now.has_members(group) => Some(Write::Enter(group.clone(), me)),
                Thing::Group(group) => may_stand.then(|| Write::Leave(group.clone(), me)),
            };
            if let Some(write) = write {
                batch.waiters.append(&mut waiters);
                batch.writes.push(write);
                batch.things.push(thing);
            } else {
                // It came and went: there is nothing to undo.
                self.end(&thing);
                told.append(&mut waiters);
            }
        }
        tell(told);
        self.tell_settled();
        (!batch.things.is_empty()).then_some(batch)
    }

    fn pop(&self) -> Option<(Thing, bool, Vec<oneshot::Sender<()>>)> {
        let mut state = self.state.lock();
        let State { entries, queue } = &mut *state;
        let thing = queue.pop_front()?;
        let entry = entries.entry(thing.clone()).or_default();
        let may_stand = entry.may_stand;
        entry.is_queued = false;
        entry.is_under_way = true;
        entry.may_stand = true;
        let waiters = std::mem::take(&mut entry.waiters);
        if queue.is_empty() {
            queue.shrink_to(BATCH);
        }
        Some((thing, may_stand, waiters))
    }

    fn end(&self, thing: &Thing) {
        let mut state = self.state.lock();
        if let Some(entry) = state.entries.get_mut(thing) {
            entry.is_under_way = false;
            if !entry.is_queued {
                state.entries.remove(thing);
            }
        }
        if state.entries.is_empty() {
            state.entries.shrink_to(BATCH);
        }
    }

    fn tell_settled(&self) {
        if self.len() == 0 {
            self.settled.notify_waiters();
        }
    }

    /// A batch is written.
    pub(super) fn done(&self, batch: Batch) {
        for thing in &batch.things {
            self.end(thing);
        }
        tell(batch.waiters);
        self.tell_settled();
    }

    /// A batch may be written or not, or in part: what it was about comes again. Who waited goes on without.
    pub(super) fn failed(&self, batch: Batch) {
        let mut state = self.state.lock();
        let State { entries, queue } = &mut *state;
        for thing in batch.things.into_iter().rev() {
            let entry = entries.entry(thing.clone()).or_default();
            entry.is_under_way = false;
            entry.may_stand = true;
            if !entry.is_queued {
                entry.is_queued = true;
                queue.push_front(thing);
            }
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Forgets everything: it was about an incarnation that is no more. The connections whose record may be missing.
    pub(super) fn clear(&self) -> HashSet<ConnectionId> {
        let forgotten = std::mem::take(&mut *self.state.lock());
        self.settled.notify_waiters();
        let connection = |thing| match thing {
            Thing::Connection(id) => Some(id),
            Thing::Group(_) => None,
        };
        forgotten.entries.into_keys().filter_map(connection).collect()
    }

    /// Changes not written yet.
    pub(super) fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    /// Whether something is not written yet.
    pub(super) fn has(&self, thing: &Thing) -> bool {
        self.state.lock().entries.contains_key(thing)
    }

    /// Waits until all is written.
    pub(super) async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            settled.await;
        }
    }
}

fn tell(waiters: Vec<oneshot::Sender<()>>) {
    for waiter in waiters {
        let _gone = waiter.send(());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::clock::EpochMillis;
    use crate::context::Profile;
    use crate::ids::{ApiId, StageName};

    const ME: Incarnation = Incarnation::new(1);

    fn context(slot: u32) -> ConnectionContext {
        ConnectionContext {
            id: ConnectionId::from_parts(ME, slot, [0; 5]),
            connected_at: EpochMillis(1),
            source_ip: Ipv4Addr::LOCALHOST.into(),
            profile: Arc::new(Profile {
                api: ApiId::parse("a").unwrap(),
                stage: StageName::parse("s").unwrap(),
                domain_name: "d".into(),
                user_agent: None,
                caller: None,
                authorized: None,
            }),
        }
    }

    /// The connections there are.
    #[derive(Default)]
    struct Here(RefCell<Vec<u32>>);

    impl Truth for Here {
        fn connection(&self, id: &ConnectionId) -> Option<ConnectionContext> {
            self.0.borrow().contains(&id.slot()).then(|| context(id.slot()))
        }

        fn has_members(&self, _: &GroupName) -> bool {
            !self.0.borrow().is_empty()
        }
    }

    fn thing(slot: u32) -> Thing {
        Thing::Connection(context(slot).id)
    }

    fn group() -> GroupName {
        GroupName::new(&ApiId::parse("a").unwrap(), "g").unwrap()
    }

    #[test]
    fn what_came_and_went_before_it_was_sent_leaves_nothing() {
        let (writes, here) = (Writes::default(), Here::default());
        for slot in 0..10_000 {
            let _written = writes.appeared(thing(slot));
            writes.changed(thing(slot));
        }
        assert!(writes.take(ME, &here).is_none());
        assert_eq!(writes.len(), 0);
    }

    #[test]
    fn an_end_while_the_record_is_under_way_comes_after_it() {
        let (writes, here) = (Writes::default(), Here(RefCell::new(vec![1])));
        let _written = writes.appeared(thing(1));
        let put = writes.take(ME, &here).unwrap();
        assert_eq!(put.writes, [Write::Put(context(1))]);
        here.0.borrow_mut().clear();
        writes.changed(thing(1));
        writes.done(put);
        let removal = writes.take(ME, &here).unwrap();
        assert_eq!(removal.writes, [Write::Remove(context(1).id)]);
        writes.done(removal);
        assert_eq!(writes.len(), 0);
    }

    #[test]
    fn a_failed_batch_comes_again_as_things_are_then() {
        let (writes, here) = (Writes::default(), Here(RefCell::new(vec![1, 2])));
        let _written = (writes.appeared(thing(1)), writes.appeared(thing(2)));
        let batch = writes.take(ME, &here).unwrap();
        here.0.borrow_mut().retain(|slot| *slot == 2);
        writes.changed(thing(1));
        writes.failed(batch);
        let again = writes.take(ME, &here).unwrap();
        assert!(again.writes.contains(&Write::Remove(context(1).id)), "it may have been written");
        assert!(again.writes.contains(&Write::Put(context(2))) && again.writes.len() == 2);
        writes.done(again);
        assert_eq!(writes.len(), 0);
    }

    #[test]
    fn a_group_is_written_as_it_is_whatever_order_the_reports_come_in() {
        let (writes, here) = (Writes::default(), Here(RefCell::new(vec![1])));
        // The last left and another joined, reported the other way round.
        let _written = writes.appeared(Thing::Group(group()));
        writes.changed(Thing::Group(group()));
        let batch = writes.take(ME, &here).unwrap();
        assert_eq!(batch.writes, [Write::Enter(group(), ME)]);
        writes.done(batch);
        here.0.borrow_mut().clear();
        writes.changed(Thing::Group(group()));
        assert_eq!(writes.take(ME, &here).unwrap().writes, [Write::Leave(group(), ME)]);
    }

    #[test]
    fn what_is_about_an_earlier_incarnation_is_not_written() {
        let (writes, here) = (Writes::default(), Here(RefCell::new(vec![1])));
        let _written = writes.appeared(thing(1));
        let batch = writes.take(ME, &here).unwrap();
        // Declared dead while a batch was under way, which fails after everything was forgotten.
        writes.clear();
        writes.failed(batch);
        assert!(writes.take(Incarnation::new(2), &here).is_none());
        assert_eq!(writes.len(), 0);
    }

    #[test]
    fn who_may_have_no_record_is_known_when_all_is_forgotten() {
        let (writes, here) = (Writes::default(), Here(RefCell::new(vec![1, 2, 3])));
        let _written = writes.appeared(thing(1));
        let written = writes.take(ME, &here).unwrap();
        writes.done(written);
        let _under_way = (writes.appeared(thing(2)), writes.take(ME, &here));
        let _queued = (writes.appeared(thing(3)), writes.appeared(Thing::Group(group())));
        assert_eq!(writes.clear(), [context(2).id, context(3).id].into());
        assert_eq!((writes.len(), writes.clear()), (0, HashSet::new()));
    }

    #[tokio::test]
    async fn who_waits_is_told_when_it_is_written() {
        let (writes, here) = (Writes::default(), Here(RefCell::new(vec![1, 2])));
        let written = writes.appeared(thing(1));
        writes.wait().await;
        let batch = writes.take(ME, &here).unwrap();
        writes.done(batch);
        assert!(written.within(Duration::from_secs(1)).await);
        let unwritten = writes.appeared(thing(2));
        let batch = writes.take(ME, &here).unwrap();
        writes.failed(batch);
        assert!(!unwritten.within(Duration::from_secs(1)).await);
        assert_eq!(writes.len(), 1);
    }
}
