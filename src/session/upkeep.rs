//! What a shard does besides turns: sessions on their way out, limits, and giving memory back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Events;
use super::lot::{Entry, KEPT_ENTRIES, SWEEP_EVERY, Shard};
use super::sweep::{self, Verdict};
use crate::fault::CloseReason;

/// Sessions looked at in one go of a sweep; events are served in between, so that a sweep over a million sessions
/// never holds up a message for longer than this many.
const SWEEP_BATCH: usize = 2_048;
/// Sessions ended in one go, each with its close frame, its socket and its `on_end`: about 20 µs. The rest come in the next
/// rounds, with events served in between.
const ENDS_IN_A_ROW: usize = 64;
/// How often draining sessions are looked at, while there are any.
const LINGER_EVERY: Duration = Duration::from_millis(20);
/// Time between two looks for what can be given up when the node's budget is short: one costs a lock a session.
const RELIEF_EVERY: Duration = Duration::from_millis(10);

impl<E: Events> Shard<E> {
    pub(super) fn housekeep(&mut self) {
        if self.mailbox.budget.is_pressed() || !self.givers.is_empty() {
            self.relieve();
        }
        if !self.closing.is_empty() {
            self.look_at_closing();
        }
        let now = Instant::now();
        if now >= self.next_linger && !self.draining.is_empty() {
            let all = self.look_at_draining();
            self.next_linger = if all { now + LINGER_EVERY } else { now };
        }
        if now >= self.next_sweep || self.sweep_cursor.is_some() {
            self.sweep(now);
        }
    }

    fn look_at_closing(&mut self) {
        let now = self.mailbox.uptime();
        for _ in 0..ENDS_IN_A_ROW {
            let Some((deadline, token)) = self.closing.front().copied() else { break };
            match self.key(token) {
                Some(_) if deadline > now => break,
                Some(key) => self.remove(key),
                None => {}
            }
            self.closing.pop_front();
        }
    }

    /// Ends the draining sessions that are quiet; `false` when there may be more of them.
    fn look_at_draining(&mut self) -> bool {
        let now = self.mailbox.uptime();
        let (mut n, mut ended) = (0, 0);
        while let Some((deadline, token, reason)) = self.draining.get(n) {
            let (deadline, token) = (*deadline, *token);
            match self.key(token).and_then(|key| self.entries.get(key)) {
                Some(entry) if now < deadline && !entry.is_quiet() => {
                    n += 1;
                    continue;
                }
                Some(_) if ended == ENDS_IN_A_ROW => return false,
                Some(entry) => {
                    entry.session.close(reason);
                    ended += 1;
                }
                None => {}
            }
            self.draining.swap_remove(n);
        }
        true
    }

    fn sweep(&mut self, now: Instant) {
        let start = self.sweep_cursor.unwrap_or(0);
        let uptime = self.mailbox.uptime();
        let mut end = start.saturating_add(SWEEP_BATCH);
        let mut verdicts = Vec::new();
        for key in start..end.min(self.entries.capacity()) {
            if verdicts.len() == ENDS_IN_A_ROW {
                end = key;
                break;
            }
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
        let now = Instant::now();
        if self.givers.is_empty() {
            if now < self.next_relief && !self.mailbox.budget.is_over() {
                return;
            }
            self.next_relief = now + RELIEF_EVERY;
            self.choose_givers();
        }
        for _ in 0..ENDS_IN_A_ROW {
            let Some(token) = self.givers.pop() else { break };
            let Some(key) = self.key(token) else { continue };
            let Some(entry) = self.entries.get(key).filter(|entry| entry.weight() > 0) else { continue };
            // One that is closing holds as much, and gives it up as well.
            entry.session.close(&CloseReason::SlowConsumer);
            self.remove(key);
        }
        if self.givers.is_empty() {
            self.givers = Vec::new();
            self.mailbox.budget.settle();
        }
    }

    fn choose_givers(&mut self) {
        let weigh = |(_, entry): (usize, &Entry<E>)| (entry.weight(), entry.session.0.token.load(Ordering::Relaxed));
        let mut holders: Vec<(usize, u64)> = self.entries.iter().map(weigh).filter(|(weight, _)| *weight > 0).collect();
        holders.sort_unstable_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let share = self.mailbox.budget.share(holders.iter().map(|(weight, _)| weight).sum());
        let mut freed = 0;
        for (weight, token) in holders {
            if freed >= share {
                break;
            }
            freed += weight;
            self.givers.push(token);
        }
        self.givers.reverse();
    }
}
