//! What a shard does besides turns: sessions on their way out, limits, and giving memory back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Events;
use super::lot::{Entry, KEPT_ENTRIES, SWEEP_EVERY, Shard};
use super::sweep::{self, Verdict};
use crate::fault::CloseReason;

/// Sessions looked at in one go of a sweep; events are served in between, so that a sweep over a million sessions
/// never holds up a message for longer than this many.
const SWEEP_BATCH: usize = 2_048;
/// How often draining sessions are looked at, while there are any.
const LINGER_EVERY: Duration = Duration::from_millis(20);
/// Time between two looks for what can be given up when the node's budget is short: one costs a lock a session.
const RELIEF_EVERY: Duration = Duration::from_millis(10);

impl<E: Events> Shard<E> {
    pub(super) fn housekeep(&mut self) {
        if self.mailbox.budget.is_pressed() {
            self.relieve();
        }
        if !self.closing.is_empty() {
            self.look_at_closing();
        }
        let now = Instant::now();
        if now >= self.next_linger && !self.draining.is_empty() {
            self.next_linger = now + LINGER_EVERY;
            self.look_at_draining();
        }
        if now >= self.next_sweep || self.sweep_cursor.is_some() {
            self.sweep(now);
        }
    }

    fn look_at_closing(&mut self) {
        let now = self.mailbox.uptime();
        while let Some((deadline, token)) = self.closing.front().copied() {
            match self.key(token) {
                Some(_) if deadline > now => break,
                Some(key) => self.remove(key),
                None => {}
            }
            self.closing.pop_front();
        }
    }

    fn look_at_draining(&mut self) {
        let now = self.mailbox.uptime();
        let mut n = 0;
        while let Some((deadline, token)) = self.draining.get(n).copied() {
            match self.key(token).and_then(|key| self.entries.get(key)) {
                Some(entry) if now < deadline && !entry.is_quiet() => {
                    n += 1;
                    continue;
                }
                Some(entry) => {
                    entry.session.close(&CloseReason::Draining);
                }
                None => {}
            }
            self.draining.swap_remove(n);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let start = self.sweep_cursor.unwrap_or(0);
        let uptime = self.mailbox.uptime();
        let end = start.saturating_add(SWEEP_BATCH);
        let mut verdicts = Vec::new();
        for key in start..end.min(self.entries.capacity()) {
            let Some(entry) = self.entries.get(key) else { continue };
            let slot = &entry.session.0;
            match sweep::decide(uptime, slot.seen(), &slot.events.policy().limits, key as u64 * 7_919) {
                Verdict::Leave => {}
                verdict @ (Verdict::Ping | Verdict::Close(_)) => verdicts.push((entry.session.clone(), verdict)),
            }
        }
        for (session, verdict) in verdicts {
            match verdict {
                Verdict::Leave => {}
                Verdict::Ping => session.0.ping(),
                Verdict::Close(reason) => {
                    session.close(&reason);
                }
            }
        }
        if end >= self.entries.capacity() {
            self.sweep_cursor = None;
            self.next_sweep = now + SWEEP_EVERY;
            self.tidy();
        } else {
            self.sweep_cursor = Some(end);
        }
    }

    /// Gives back what a larger past left behind. Once a sweep: shrinking the table costs a look at each of its entries.
    fn tidy(&mut self) {
        if self.entries.capacity() > KEPT_ENTRIES && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
        if self.run.is_empty() {
            self.run.shrink_to(KEPT_ENTRIES);
        }
        if self.closing.is_empty() {
            self.closing.shrink_to(KEPT_ENTRIES);
        }
        if self.draining.is_empty() {
            self.draining.shrink_to(KEPT_ENTRIES);
        }
        self.scratch.tidy();
    }

    /// The node's budget is used up: the largest holders of this shard go, until its share of what is too much is free.
    /// Every shard does the like, so none has to give up its small holders for another's large ones.
    pub(super) fn relieve(&mut self) {
        let budget = Arc::clone(&self.mailbox.budget);
        let now = Instant::now();
        if now < self.next_relief && !budget.is_over() {
            return;
        }
        self.next_relief = now + RELIEF_EVERY;
        let held =
            |entry: &Entry<E>| entry.session.0.outbox_cost() + entry.busy.as_ref().map_or(0, |busy| busy.charged());
        let mut holders: Vec<(usize, usize)> =
            self.entries.iter().map(|(key, entry)| (held(entry), key)).filter(|(held, _)| *held > 0).collect();
        holders.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        let share = budget.share(holders.iter().map(|(held, _)| held).sum());
        let mut freed = 0;
        for (held, key) in holders {
            if freed >= share {
                break;
            }
            freed += held;
            let Some(entry) = self.entries.get(key) else { continue };
            // One that is closing holds as much, and gives it up as well.
            entry.session.close(&CloseReason::SlowConsumer);
            self.remove(key);
        }
        budget.settle();
    }
}
