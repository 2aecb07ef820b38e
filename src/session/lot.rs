//! The parking lot: one thread a shard, one readiness set, and every idle socket of the shard in it.
//!
//! The thread owns everything about reading (protocol state, walkers, budgets), so none of it needs a lock. What other
//! threads want of a shard comes through its [`Mailbox`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::{Poll, Token, Waker};
use parking_lot::Mutex;
use slab::Slab;

use super::outbox::Budget;
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
/// How often closing and draining sessions are looked at, while there are any.
const LINGER_EVERY: Duration = Duration::from_millis(20);
/// How long a peer may take to answer our close frame (specification 13.4.1).
const CLOSE_PATIENCE_MS: u64 = 5_000;
/// Events taken from the system in one call.
const EVENTS: usize = 1_024;
const WAKER: Token = Token(usize::MAX);

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
    waker: Waker,
    started: Instant,
    stop: AtomicBool,
    pub(super) sessions: AtomicUsize,
    pub(super) budget: Arc<Budget>,
}

impl<E> Mailbox<E> {
    pub(super) fn send(&self, letter: Mail<E>) {
        let mut mail = self.mail.lock();
        mail.push(letter);
        let first = mail.len() == 1;
        drop(mail);
        // Only the first letter wakes: the shard takes them all.
        if first {
            self.wake();
        }
    }

    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a shard could not be woken; its next event will do");
        }
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

pub(super) struct Shard<E> {
    poll: Poll,
    mailbox: Arc<Mailbox<E>>,
    entries: Slab<Entry<E>>,
    generation: u32,
    scratch: Scratch,
    /// Sessions with bytes at hand that no event will announce.
    run: VecDeque<u64>,
    /// Sessions on their way out, with the uptime at which patience ends.
    closing: Vec<(u64, u64)>,
    draining: Vec<(u64, u64)>,
    sweep_cursor: Option<usize>,
    next_sweep: Instant,
    next_linger: Instant,
}

impl<E: Events> Shard<E> {
    pub(super) fn new(started: Instant, budget: Arc<Budget>) -> io::Result<(Self, Arc<Mailbox<E>>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let mailbox = Arc::new(Mailbox {
            mail: Mutex::new(Vec::new()),
            waker,
            started,
            stop: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            budget,
        });
        let now = Instant::now();
        let shard = Self {
            poll,
            mailbox: Arc::clone(&mailbox),
            entries: Slab::new(),
            generation: 0,
            scratch: Scratch::new(),
            run: VecDeque::new(),
            closing: Vec::new(),
            draining: Vec::new(),
            sweep_cursor: None,
            next_sweep: now + SWEEP_EVERY,
            next_linger: now,
        };
        Ok((shard, mailbox))
    }

    /// Serves the shard until it is stopped; then closes what is left.
    pub(super) fn serve(mut self) {
        let mut events = mio::Events::with_capacity(EVENTS);
        while !self.mailbox.stop.load(Ordering::Acquire) {
            match self.poll.poll(&mut events, self.patience()) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "a shard's readiness set failed; its sessions end");
                    break;
                }
            }
            for event in &events {
                if event.token() != WAKER {
                    let ended = event.is_read_closed() || event.is_error();
                    self.ready(event.token().0 as u64, event.is_writable(), ended);
                }
            }
            // New sessions enter the table only here, after the batch: a key freed by one of these events is not
            // another's before the batch's stale events are behind us.
            self.take_mail();
            self.run_queue();
            self.housekeep();
        }
        for (_, entry) in &mut self.entries {
            entry.session.close(&CloseReason::Draining);
            entry.session.0.abandon_now();
        }
        self.mailbox.sessions.store(0, Ordering::Relaxed);
    }

    fn patience(&self) -> Option<Duration> {
        if !self.run.is_empty() || self.sweep_cursor.is_some() {
            return Some(Duration::ZERO);
        }
        if self.entries.is_empty() {
            return None;
        }
        let lingering = !self.closing.is_empty() || !self.draining.is_empty();
        let until = if lingering { self.next_linger.min(self.next_sweep) } else { self.next_sweep };
        Some(until.saturating_duration_since(Instant::now()))
    }

    fn key(&self, token: u64) -> Option<usize> {
        let key = (token & 0xffff_ffff) as usize;
        let entry = self.entries.get(key)?;
        (entry.session.0.token.load(Ordering::Relaxed) == token).then_some(key)
    }

    fn ready(&mut self, token: u64, writable: bool, read_closed: bool) {
        let Some(key) = self.key(token) else { return };
        let Some(entry) = self.entries.get_mut(key) else { return };
        if writable && !entry.session.0.flush() {
            return self.lost(key);
        }
        self.turn(key, read_closed);
    }

    fn turn(&mut self, key: usize, read_closed: bool) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match turn::take(entry, &mut self.scratch, read_closed) {
            Outcome::Parked | Outcome::Paused => {}
            Outcome::Again => self.run.push_back(entry.session.0.token.load(Ordering::Relaxed)),
            Outcome::Pressed => self.relieve(),
            Outcome::Lost => self.lost(key),
            Outcome::Closing => self.linger(key),
        }
    }

    fn lost(&mut self, key: usize) {
        let Some(entry) = self.entries.get(key) else { return };
        let session = entry.session.clone();
        if session.0.begin_close(&CloseReason::ClientVanished, &[]) {
            E::on_end(&session, &CloseReason::ClientVanished);
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
        let token = entry.session.0.token.load(Ordering::Relaxed);
        if !self.closing.iter().any(|(_, t)| *t == token) {
            self.closing.push((self.mailbox.uptime() + CLOSE_PATIENCE_MS, token));
        }
        self.discard(key);
    }

    /// Reads a closing session's input away: closing with unread input would reset the connection and eat the close
    /// frame. Bounded by the scratch buffer's rounds; the next event or linger goes on.
    fn discard(&mut self, key: usize) {
        for _ in 0..4 {
            let Some(entry) = self.entries.get(key) else { return };
            match entry.session.0.read(&mut self.scratch.bytes, &mut self.scratch.plain) {
                (Arrived::Bytes(_), _) => {}
                (Arrived::Nothing, _) => return,
                (Arrived::End | Arrived::Lost, _) => return self.remove(key),
            }
        }
    }

    fn remove(&mut self, key: usize) {
        let entry = self.entries.remove(key);
        if let Some(busy) = &entry.busy {
            self.mailbox.budget.give_back(busy.charged());
        }
        entry.session.0.token.store(u64::MAX, Ordering::Relaxed);
        entry.session.0.abandon_now();
        self.mailbox.sessions.fetch_sub(1, Ordering::Relaxed);
        // A slab that was large once gives its memory back when it is nearly empty.
        if self.entries.capacity() > 1_024 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to_fit();
        }
    }

    fn take_mail(&mut self) {
        let letters = std::mem::take(&mut *self.mailbox.mail.lock());
        for letter in letters {
            match letter {
                Mail::Adopt(session, early) => self.adopt(session, early),
                Mail::Run(session) => {
                    session.0.unschedule();
                    self.run.push_back(session.0.token.load(Ordering::Relaxed));
                }
                Mail::Closing(session) => {
                    if let Some(key) = self.key(session.0.token.load(Ordering::Relaxed)) {
                        self.linger(key);
                    }
                }
                Mail::Drain(session, deadline) => {
                    let token = session.0.token.load(Ordering::Relaxed);
                    self.draining.push((deadline, token));
                    self.run.push_back(token);
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
        entry.insert(Entry { session, busy });
        if let Err(error) = slot.register(self.poll.registry(), token) {
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

    fn run_queue(&mut self) {
        // Only what is queued now: a session that asks again waits for the events of the others.
        for _ in 0..self.run.len() {
            let Some(token) = self.run.pop_front() else { break };
            if let Some(key) = self.key(token) {
                // Events that came while the session was paused are spent, a hang-up's among them: read to the end.
                self.turn(key, true);
            }
        }
    }

    fn housekeep(&mut self) {
        if self.mailbox.budget.is_pressed() {
            self.relieve();
        }
        let now = Instant::now();
        if now >= self.next_linger && !(self.closing.is_empty() && self.draining.is_empty()) {
            self.next_linger = now + LINGER_EVERY;
            self.look_at_closing();
            self.look_at_draining();
        }
        if now >= self.next_sweep || self.sweep_cursor.is_some() {
            self.sweep(now);
        }
    }

    fn look_at_closing(&mut self) {
        let now = self.mailbox.uptime();
        let due: Vec<_> = self.closing.extract_if(.., |(deadline, _)| *deadline <= now).collect();
        for key in due.iter().filter_map(|(_, token)| self.key(*token)).collect::<Vec<_>>() {
            self.remove(key);
        }
        let mut closing = std::mem::take(&mut self.closing);
        closing.retain(|(_, token)| self.key(*token).is_some());
        self.closing = closing;
    }

    fn look_at_draining(&mut self) {
        let now = self.mailbox.uptime();
        let draining = std::mem::take(&mut self.draining);
        for (deadline, token) in draining {
            let Some(entry) = self.key(token).and_then(|key| self.entries.get(key)) else { continue };
            let session = entry.session.clone();
            let quiet = session.0.exchanges() == 0
                && !session.0.is_held()
                && session.0.outbox_bytes() == 0
                && !entry.busy.as_ref().is_some_and(|busy| busy.has_unread());
            if quiet || now >= deadline {
                session.close(&CloseReason::Draining);
            } else {
                self.draining.push((deadline, token));
            }
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
        } else {
            self.sweep_cursor = Some(end);
        }
    }

    /// The node's budget said no to somebody: the largest holders of this shard go first, until a quarter is free.
    fn relieve(&mut self) {
        let mut holders: Vec<(usize, Session<E>)> = self
            .entries
            .iter()
            .map(|(_, entry)| {
                let held = entry.busy.as_ref().map_or(0, |busy| busy.charged());
                (entry.session.outbox_bytes() + held, entry.session.clone())
            })
            .filter(|(held, _)| *held > 0)
            .collect();
        holders.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        for (_, session) in holders {
            if self.mailbox.budget.used() <= self.mailbox.budget.comfortable() {
                break;
            }
            session.close(&CloseReason::SlowConsumer);
            if let Some(key) = self.key(session.0.token.load(Ordering::Relaxed)) {
                self.linger(key);
            }
        }
        if self.mailbox.budget.used() <= self.mailbox.budget.comfortable() {
            self.mailbox.budget.relieved();
        }
    }
}
