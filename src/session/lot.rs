//! The parking lot: one task a shard, one readiness set, and every idle socket of the shard in it.
//!
//! The task owns everything about reading (protocol state, walkers, budgets), so none of it needs a lock. What other
//! threads want of a shard comes through its [`Mailbox`].

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::Events as Ready;
use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant as Moment, Sleep, sleep_until};

use super::outbox::Budget;
use super::readiness::ReadinessSet;
use super::slot::{Arrived, Session};
use super::sweep::{self, Verdict};
use super::turn::{Busy, Outcome, Scratch};
use super::{Events, turn};
use crate::fault::CloseReason;

/// Sessions looked at in one go of a sweep; events are served in between, so that a sweep over a million sessions
/// never holds up a message for longer than this many.
const SWEEP_BATCH: usize = 2_048;
/// How often limits are looked at. A session may outlive its limit by this much.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often draining sessions are looked at, while there are any.
const LINGER_EVERY: Duration = Duration::from_millis(20);
/// Time between two looks for what can be given up when the node's budget is short: one costs a lock a session.
const RELIEF_EVERY: Duration = Duration::from_millis(10);
/// Entries of a shard's tables that are kept although nobody needs them.
const KEPT_ENTRIES: usize = 1_024;
/// How long a peer may take to answer our close frame (specification 13.4.1).
const CLOSE_PATIENCE_MS: u64 = 5_000;
/// Sockets served before the runtime's other tasks get a chance: a third of a millisecond of small turns.
const TURNS_IN_A_ROW: usize = 64;
/// The same for sockets that used up their turn before and likely do again.
const FULL_TURNS_IN_A_ROW: usize = 8;

/// What other threads ask of a shard.
pub(super) enum Mail<E> {
    /// A new session, with bytes its client already sent.
    Adopt(Session<E>, Vec<u8>),
    /// Reading may go on.
    Run(Session<E>),
    /// The session has left *open*; watch it to its end.
    Closing(Session<E>),
    /// The session ends once it is quiet, at the latest at this uptime.
    Drain(Session<E>, u64),
}

/// A shard's door for other threads. Bounded by the sessions: each has at most one letter of a kind in here.
pub(super) struct Mailbox<E> {
    mail: Mutex<Vec<Mail<E>>>,
    wake: Arc<Notify>,
    started: Instant,
    stop: AtomicBool,
    pub(super) sessions: AtomicUsize,
    /// Sessions that have come or gone.
    pub(super) churn: AtomicU64,
    pub(super) budget: Arc<Budget>,
}

impl<E> Mailbox<E> {
    /// Leaves a letter; `false` when nobody is there to read it.
    pub(super) fn send(&self, letter: Mail<E>) -> bool {
        let mut mail = self.mail.lock();
        // Asked under the lock: the shard sets the flag before it looks here for the last time.
        if self.stop.load(Ordering::Acquire) {
            drop(mail);
            return false;
        }
        mail.push(letter);
        let first = mail.len() == 1;
        drop(mail);
        // Only the first letter wakes: the shard takes them all.
        if first {
            self.wake();
        }
        true
    }

    /// Ends a session whose shard has ended.
    pub(super) fn turn_away(&self, session: &Session<E>)
    where
        E: Events,
    {
        session.close(&CloseReason::Draining);
        session.0.abandon_now();
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Milliseconds since the node started; what every stamp counts in. Starts at 1, so that 0 is never.
    pub(super) fn uptime(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }
}

/// A session in its shard's table: 16 bytes while idle.
pub(super) struct Entry<E> {
    pub(super) session: Session<E>,
    pub(super) busy: Option<Box<Busy>>,
}

impl<E: Events> Entry<E> {
    /// Whether everything that was read is answered and everything answered is written.
    fn is_quiet(&self) -> bool {
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
    mailbox: Arc<Mailbox<E>>,
    entries: Slab<Entry<E>>,
    generation: u32,
    scratch: Scratch,
    /// Sessions with bytes at hand that no event will announce; each is in here once.
    run: VecDeque<u64>,
    /// Sessions on their way out, with the uptime at which patience ends: the same patience for all, so in that order.
    closing: VecDeque<(u64, u64)>,
    draining: Vec<(u64, u64)>,
    sweep_cursor: Option<usize>,
    next_sweep: Instant,
    next_linger: Instant,
    next_relief: Instant,
}

impl<E: Events> Shard<E> {
    pub(super) fn new(started: Instant, budget: Arc<Budget>) -> io::Result<(Self, Arc<Mailbox<E>>)> {
        let (set, ready) = ReadinessSet::new()?;
        let mailbox = Arc::new(Mailbox {
            mail: Mutex::new(Vec::new()),
            wake: Arc::new(Notify::new()),
            started,
            stop: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            churn: AtomicU64::new(0),
            budget,
        });
        let now = Instant::now();
        let shard = Self {
            set,
            ready,
            mailbox: Arc::clone(&mailbox),
            entries: Slab::new(),
            generation: 0,
            scratch: Scratch::new(),
            run: VecDeque::new(),
            closing: VecDeque::new(),
            draining: Vec::new(),
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
        while !self.mailbox.stop.load(Ordering::Acquire) {
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
        self.mailbox.stop.store(true, Ordering::Release);
        for entry in self.entries.drain() {
            if let Some(busy) = &entry.busy {
                self.mailbox.budget.give_back(busy.charged());
            }
            self.mailbox.turn_away(&entry.session);
        }
        let letters = std::mem::take(&mut *self.mailbox.mail.lock());
        for letter in letters {
            if let Mail::Adopt(session, _) = letter {
                self.mailbox.turn_away(&session);
            }
        }
    }

    /// Waits for sockets, letters or the next look at the clock; with work at hand only looks.
    async fn wait(&mut self, mut alarm: Pin<&mut Sleep>) -> io::Result<()> {
        self.ready.clear();
        if !self.run.is_empty() || self.sweep_cursor.is_some() {
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
            () = mailbox.wake.notified() => Ok(()),
            () = alarm => Ok(()),
        }
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
            next = next.min(self.mailbox.started + Duration::from_millis(*deadline));
        }
        if self.mailbox.budget.is_pressed() {
            next = next.min(self.next_relief);
        }
        Moment::from_std(next)
    }

    fn key(&self, token: u64) -> Option<usize> {
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

    fn remove(&mut self, key: usize) {
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
        let letters = std::mem::take(&mut *self.mailbox.mail.lock());
        for letter in letters {
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
                Mail::Drain(session, deadline) => {
                    // One that is not adopted yet is noticed then.
                    let token = session.0.token.load(Ordering::Relaxed);
                    if let Some(key) = self.key(token) {
                        self.draining.push((deadline, token));
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
            self.draining.push((self.mailbox.uptime() + CLOSE_PATIENCE_MS, token));
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

    fn housekeep(&mut self) {
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
    fn relieve(&mut self) {
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
