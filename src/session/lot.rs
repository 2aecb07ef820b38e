//! The parking lot: one task a shard, one readiness set, and every idle socket of the shard in it.
//!
//! The task owns everything about reading (protocol state, walkers, budgets), so none of it needs a lock. What other
//! threads want of a shard comes through its [`Mailbox`].

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::Events as Ready;
use slab::Slab;
use tokio::task::yield_now;
use tokio::time::{Instant as Moment, Sleep, sleep_until};

use super::handle::Session;
use super::mailbox::{Mail, Mailbox};
use super::outbox::Budget;
use super::readiness::ReadinessSet;
use super::slot::Arrived;
use super::turn::{Busy, Outcome, Scratch};
use super::{Events, turn};
use crate::fault::CloseReason;

/// How often limits are looked at. A session may outlive its limit by this much.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Entries of a shard's tables that are kept although nobody needs them.
pub(super) const KEPT_ENTRIES: usize = 1_024;
/// How long a peer may take to answer our close frame (specification 13.4.1).
const CLOSE_PATIENCE_MS: u64 = 5_000;
/// Letters answered before sockets are looked at again: many sessions that come or go at once must not hold up the rest.
const LETTERS_IN_A_ROW: usize = 256;
/// Sockets served before the runtime's other tasks get a chance: a third of a millisecond of small turns.
const TURNS_IN_A_ROW: usize = 64;
/// The same for sockets that used up their turn before and likely do again.
const FULL_TURNS_IN_A_ROW: usize = 8;

/// A session in its shard's table: 16 bytes while idle.
pub(super) struct Entry<E> {
    pub(super) session: Session<E>,
    pub(super) busy: Option<Box<Busy>>,
}

impl<E: Events> Entry<E> {
    /// What this makes the node hold, as it counts when some must go.
    pub(super) fn weight(&self) -> usize {
        self.session.0.outbox_weight() + self.busy.as_ref().map_or(0, |busy| busy.charged())
    }

    /// Whether everything that was read is answered and everything answered is written.
    pub(super) fn is_quiet(&self) -> bool {
        let slot = &self.session.0;
        slot.exchanges() == 0
            && !slot.is_held()
            && slot.outbox_bytes() == 0
            && !self.busy.as_ref().is_some_and(|busy| busy.has_unread())
    }
}

pub(super) struct Shard<E> {
    set: ReadinessSet,
    ready: Ready,
    pub(super) mailbox: Arc<Mailbox<E>>,
    pub(super) entries: Slab<Entry<E>>,
    generation: u32,
    pub(super) scratch: Scratch,
    /// What other threads asked for and has not been done.
    letters: VecDeque<Mail<E>>,
    /// Sessions with bytes at hand that no event will announce; each is in here once.
    pub(super) run: VecDeque<u64>,
    /// Sessions on their way out, with the uptime at which patience ends: the same patience for all, so in that order.
    pub(super) closing: VecDeque<(u64, u64)>,
    /// Sessions that end when they are quiet, with the uptime at which patience ends, and why.
    pub(super) draining: Vec<(u64, u64, CloseReason)>,
    /// Sessions that are given up, one after the other, for the node's budget; the last goes first.
    pub(super) givers: Vec<u64>,
    pub(super) sweep_cursor: Option<usize>,
    pub(super) next_sweep: Instant,
    pub(super) next_linger: Instant,
    pub(super) next_relief: Instant,
}

impl<E: Events> Shard<E> {
    pub(super) fn new(started: Instant, budget: Arc<Budget>) -> io::Result<(Self, Arc<Mailbox<E>>)> {
        let (set, ready) = ReadinessSet::new()?;
        let mailbox = Arc::new(Mailbox::new(started, budget));
        let now = Instant::now();
        let shard = Self {
            set,
            ready,
            mailbox: Arc::clone(&mailbox),
            entries: Slab::new(),
            generation: 0,
            scratch: Scratch::new(),
            letters: VecDeque::new(),
            run: VecDeque::new(),
            closing: VecDeque::new(),
            draining: Vec::new(),
            givers: Vec::new(),
            sweep_cursor: None,
            next_sweep: now + SWEEP_EVERY,
            next_linger: now,
            next_relief: now,
        };
        Ok((shard, mailbox))
    }

    /// Serves the shard until it is stopped; then closes what is left.
    pub(super) async fn serve(mut self) {
        let mut alarm = std::pin::pin!(sleep_until(self.next_look()));
        while !self.mailbox.is_stopped() {
            if let Err(error) = self.round(alarm.as_mut()).await {
                tracing::error!(%error, "a shard's readiness set failed; its sessions end");
                break;
            }
        }
        self.end();
    }

    /// Waits for events and serves them, then what asks for nothing but a turn.
    pub(super) async fn round(&mut self, alarm: Pin<&mut Sleep>) -> io::Result<()> {
        self.wait(alarm).await?;
        self.serve_ready().await;
        // New sessions enter the table only here, after the batch: a key freed by one of these events is not another's
        // before the batch's stale events are behind us.
        self.take_mail();
        self.run_queue().await;
        self.housekeep();
        Ok(())
    }

    /// Turns that are owed.
    #[cfg(test)]
    pub(super) fn owed(&self) -> usize {
        self.run.len()
    }

    /// Ends every session and answers for every letter: nothing may be left that waits for this shard.
    fn end(mut self) {
        self.mailbox.stop();
        for entry in self.entries.drain() {
            if let Some(busy) = &entry.busy {
                self.mailbox.budget.give_back(busy.charged());
            }
            self.mailbox.turn_away(&entry.session);
        }
        self.letters.extend(self.mailbox.take());
        for letter in self.letters.drain(..) {
            if let Mail::Adopt(session, _) = letter {
                self.mailbox.turn_away(&session);
            }
        }
    }

    /// Waits for sockets, letters or the next look at the clock; with work at hand only looks.
    async fn wait(&mut self, mut alarm: Pin<&mut Sleep>) -> io::Result<()> {
        self.ready.clear();
        if self.has_work() {
            yield_now().await;
            return self.set.look(&mut self.ready);
        }
        let next = self.next_look();
        if alarm.deadline() != next {
            alarm.as_mut().reset(next);
        }
        let mailbox = Arc::clone(&self.mailbox);
        tokio::select! {
            biased;
            outcome = self.set.wait(&mut self.ready) => outcome,
            () = mailbox.notified() => Ok(()),
            () = alarm => Ok(()),
        }
    }

    /// Whether something is left that nobody will announce.
    fn has_work(&self) -> bool {
        !self.run.is_empty() || !self.letters.is_empty() || !self.givers.is_empty() || self.sweep_cursor.is_some()
    }

    async fn serve_ready(&mut self) {
        // The batch is put aside, since a turn needs all of the shard.
        let batch = std::mem::replace(&mut self.ready, Ready::with_capacity(0));
        for (n, event) in batch.iter().enumerate() {
            if n > 0 && n % TURNS_IN_A_ROW == 0 {
                yield_now().await;
            }
            let ended = event.is_read_closed() || event.is_error();
            self.serve_socket(event.token().0 as u64, event.is_writable(), ended);
        }
        self.ready = batch;
    }

    /// When limits, or sessions on their way out, are looked at next.
    fn next_look(&self) -> Moment {
        let mut next = self.next_sweep;
        if !self.draining.is_empty() {
            next = next.min(self.next_linger);
        }
        if let Some((deadline, _)) = self.closing.front() {
            next = next.min(self.mailbox.moment(*deadline));
        }
        if self.mailbox.budget.is_pressed() {
            next = next.min(self.next_relief);
        }
        Moment::from_std(next)
    }

    pub(super) fn key(&self, token: u64) -> Option<usize> {
        let key = (token & 0xffff_ffff) as usize;
        let entry = self.entries.get(key)?;
        (entry.session.0.token.load(Ordering::Relaxed) == token).then_some(key)
    }

    fn serve_socket(&mut self, token: u64, writable: bool, read_closed: bool) {
        let Some(key) = self.key(token) else { return };
        let Some(entry) = self.entries.get_mut(key) else { return };
        if writable && !entry.session.0.flush() {
            return self.lost(key);
        }
        // One in the run queue gets its turn there: with two turns a round it would get ahead of the others, and each
        // that leaves something behind would queue it once more.
        if !entry.session.0.is_queued() {
            self.turn(key, read_closed);
        }
    }

    /// Gives a session another turn behind those of all that have something now.
    fn queue(&mut self, key: usize) {
        let Some(entry) = self.entries.get(key) else { return };
        if entry.session.0.enter_queue() {
            self.run.push_back(entry.session.0.token.load(Ordering::Relaxed));
        }
    }

    fn turn(&mut self, key: usize, read_closed: bool) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match turn::take(entry, &mut self.scratch, read_closed) {
            Outcome::Parked | Outcome::Paused => {}
            Outcome::Again => self.queue(key),
            Outcome::Pressed => self.relieve(),
            Outcome::Lost => self.lost(key),
            Outcome::Closing => self.linger(key),
        }
    }

    fn lost(&mut self, key: usize) {
        let Some(entry) = self.entries.get(key) else { return };
        let session = entry.session.clone();
        if session.0.begin_close(&CloseReason::ClientVanished, &[]) {
            session.tell_end(&CloseReason::ClientVanished);
        }
        self.remove(key);
    }

    /// Watches a session that has left *open* until its peer is gone or patience ends.
    fn linger(&mut self, key: usize) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(busy) = entry.busy.take() {
            self.mailbox.budget.give_back(busy.charged());
        }
        if entry.session.0.is_gone() {
            return self.remove(key);
        }
        if entry.session.0.begin_linger() {
            let token = entry.session.0.token.load(Ordering::Relaxed);
            self.closing.push_back((self.mailbox.uptime() + CLOSE_PATIENCE_MS, token));
        }
        self.discard(key);
    }

    /// Reads a closing session's input away: closing with unread input would reset the connection and eat the close
    /// frame. Four reads at a time; the run queue goes on, since no event comes for what is there already.
    fn discard(&mut self, key: usize) {
        for _ in 0..4 {
            let Some(entry) = self.entries.get(key) else { return };
            match entry.session.0.read(&mut self.scratch.bytes, &mut self.scratch.plain) {
                (Arrived::Bytes(_), _) => {}
                (Arrived::Nothing, _) => return,
                (Arrived::End | Arrived::Lost, _) => return self.remove(key),
            }
        }
        self.queue(key);
    }

    pub(super) fn remove(&mut self, key: usize) {
        let entry = self.entries.remove(key);
        if let Some(busy) = &entry.busy {
            self.mailbox.budget.give_back(busy.charged());
        }
        entry.session.0.token.store(u64::MAX, Ordering::Relaxed);
        entry.session.0.abandon_now();
        self.mailbox.sessions.fetch_sub(1, Ordering::Relaxed);
        self.mailbox.churn.fetch_add(1, Ordering::Relaxed);
    }

    fn take_mail(&mut self) {
        if self.letters.is_empty() {
            self.letters = self.mailbox.take().into();
        } else {
            self.letters.extend(self.mailbox.take());
        }
        for _ in 0..LETTERS_IN_A_ROW {
            let Some(letter) = self.letters.pop_front() else { break };
            match letter {
                Mail::Adopt(session, early) => self.adopt(session, early),
                Mail::Run(session) => {
                    session.0.unschedule();
                    if let Some(key) = self.key(session.0.token.load(Ordering::Relaxed)) {
                        self.queue(key);
                    }
                }
                Mail::Closing(session) => {
                    if let Some(key) = self.key(session.0.token.load(Ordering::Relaxed)) {
                        self.linger(key);
                    }
                }
                Mail::Drain(session, deadline, reason) => {
                    // One that is not adopted yet is noticed then.
                    let token = session.0.token.load(Ordering::Relaxed);
                    if let Some(key) = self.key(token) {
                        self.draining.push((deadline, token, reason));
                        self.queue(key);
                    }
                }
            }
        }
    }

    fn adopt(&mut self, session: Session<E>, early: Vec<u8>) {
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let entry = self.entries.vacant_entry();
        let (key, token) = (entry.key(), u64::from(self.generation) << 32 | entry.key() as u64);
        let has_bytes = !early.is_empty();
        let busy = has_bytes.then(|| Box::new(Busy::with_early_bytes(early)));
        let slot = Arc::clone(&session.0);
        self.mailbox.churn.fetch_add(1, Ordering::Relaxed);
        entry.insert(Entry { session, busy });
        if let Err(error) = slot.register(self.set.registry(), token) {
            tracing::debug!(connection.id = %slot.events.id(), %error, "a session ended before it was parked");
            return self.lost(key);
        }
        if slot.is_closing() {
            return self.linger(key);
        }
        if slot.is_draining() {
            self.draining.push((self.mailbox.uptime() + CLOSE_PATIENCE_MS, token, CloseReason::Draining));
        }
        if has_bytes {
            self.turn(key, false);
        }
    }

    async fn run_queue(&mut self) {
        // Only what is queued now: a session that asks again waits for the events of the others.
        for n in 0..self.run.len() {
            if n > 0 && n % FULL_TURNS_IN_A_ROW == 0 {
                yield_now().await;
            }
            let Some(token) = self.run.pop_front() else { break };
            if let Some(key) = self.key(token) {
                if let Some(entry) = self.entries.get(key) {
                    entry.session.0.leave_queue();
                }
                // Events that came while the session was paused are spent, a hang-up's among them: read to the end.
                self.turn(key, true);
            }
        }
    }
}
