//! What leaves: a message framed once for any number of sessions, and what a socket could not take yet.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Buf as _, Bytes};
use tokio::sync::Notify;

use super::deflate::{Deflator, WORTHWHILE_BYTES};
use super::transport;
use crate::message::Kind;

thread_local! {
    /// A codec's state is a quarter of a megabyte: one a thread that pushes, not one a message.
    static DEFLATOR: RefCell<Deflator> = RefCell::new(Deflator::new());
}

/// A message on its way out. Framed, and compressed, at most once however many sessions get it.
#[derive(Debug)]
pub struct Outgoing {
    payload: Bytes,
    kind: Kind,
    max_frame: usize,
    /// Its frames are charged to the node's budget once, for all who wait for them together.
    is_shared: bool,
    plain: OnceLock<Bytes>,
    /// One for each window size, 9 to 15 bits; most stay empty.
    deflated: OnceLock<Box<[OnceLock<Bytes>; 7]>>,
}

impl Outgoing {
    /// A message for clients; `max_frame` is the largest frame payload it is split into. A text message's payload must
    /// be UTF-8: [`Outgoing::lossy_text`] makes it so.
    pub const fn new(kind: Kind, payload: Bytes, max_frame: usize) -> Self {
        Self { payload, kind, max_frame, is_shared: false, plain: OnceLock::new(), deflated: OnceLock::new() }
    }

    /// A text message; what is not UTF-8 becomes U+FFFD (specification 13.2.5).
    pub fn lossy_text(payload: Bytes, max_frame: usize) -> Self {
        let payload = match std::str::from_utf8(&payload) {
            Ok(_) => payload,
            Err(_) => Bytes::from(String::from_utf8_lossy(&payload).into_owned()),
        };
        Self::new(Kind::Text, payload, max_frame)
    }

    /// The same for many sessions: ten thousand that do not read hold one copy of it, and the budget knows.
    #[must_use]
    pub fn for_many(self) -> Self {
        Self { is_shared: true, ..self }
    }

    /// Kind and payload, to be framed elsewhere.
    pub fn parts(&self) -> (Kind, Bytes) {
        (self.kind, self.payload.clone())
    }

    /// The same, when it is not sent here.
    pub fn into_parts(self) -> (Kind, Bytes) {
        (self.kind, self.payload)
    }

    /// Bytes of payload.
    pub const fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether the payload is empty.
    pub const fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// The frames for a session: compressed when it negotiated `window_bits` (0 is none) and compression pays.
    pub(super) fn frames(&self, window_bits: u8, budget: &Arc<Budget>) -> Frames {
        let mut bytes = None;
        if window_bits >= 9 && self.payload.len() >= WORTHWHILE_BYTES {
            let all = self.deflated.get_or_init(Box::default);
            bytes = all.get(usize::from(window_bits - 9));
            bytes.map(|cell| cell.get_or_init(|| self.deflate(window_bits, budget)));
        }
        let bytes = bytes.and_then(OnceLock::get).unwrap_or_else(|| self.plain(budget)).clone();
        Frames { bytes, is_shared: self.is_shared }
    }

    fn plain(&self, budget: &Arc<Budget>) -> &Bytes {
        self.plain.get_or_init(|| {
            let mut out = Vec::with_capacity(self.payload.len() + 16);
            transport::frame_message(&mut out, self.kind, &self.payload, self.max_frame, false);
            self.held(out, budget)
        })
    }

    fn held(&self, frames: Vec<u8>, budget: &Arc<Budget>) -> Bytes {
        if !self.is_shared {
            return Bytes::from(frames);
        }
        // Here already; whether it may stay is relief's to say.
        budget.force(frames.len());
        Bytes::from_owner(Shared { frames, budget: Arc::clone(budget) })
    }

    fn deflate(&self, window_bits: u8, budget: &Arc<Budget>) -> Bytes {
        let mut packed = Vec::new();
        if !DEFLATOR.with_borrow_mut(|deflator| deflator.compress(&self.payload, window_bits, &mut packed)) {
            return self.plain(budget).clone();
        }
        let mut out = Vec::with_capacity(packed.len() + 16);
        transport::frame_message(&mut out, self.kind, &packed, self.max_frame, true);
        self.held(out, budget)
    }
}

/// Frames on their way to one session.
#[derive(Debug, Clone)]
pub(super) struct Frames {
    pub(super) bytes: Bytes,
    /// Somebody else's charge: see [`Outgoing::for_many`].
    is_shared: bool,
}

impl Frames {
    /// What the node's budget is charged when these wait in an outbox.
    pub(super) fn cost(&self) -> usize {
        ENTRY_COST + if self.is_shared { 0 } else { self.bytes.len() }
    }
}

impl From<Vec<u8>> for Frames {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: Bytes::from(bytes), is_shared: false }
    }
}

/// Frames that many outboxes hold, charged as long as one does.
struct Shared {
    frames: Vec<u8>,
    budget: Arc<Budget>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.frames
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.budget.give_back(self.frames.len());
    }
}

/// Bytes the whole node may hold for clients that do not read and for messages that are not whole yet.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    limit: usize,
    pressed: AtomicBool,
    /// Every shard's: what one holds may be what another is short of.
    shards: OnceLock<Vec<Arc<Notify>>>,
}

impl Budget {
    pub(super) const fn new(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit, pressed: AtomicBool::new(false), shards: OnceLock::new() }
    }

    /// Names those to wake when the budget is used up.
    pub(super) fn wakes(&self, shards: Vec<Arc<Notify>>) {
        let _only_once = self.shards.set(shards);
    }

    fn press(&self) {
        if !self.pressed.swap(true, Ordering::Relaxed) {
            for shard in self.shards.get().into_iter().flatten() {
                shard.notify_one();
            }
        }
    }

    /// Takes `bytes`, or says no: the limit holds whatever the sessions do.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.limit {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.press();
            return false;
        }
        true
    }

    /// Takes `bytes` that are there already; the limit may be passed by what one read brings, until relief.
    pub(super) fn force(&self, bytes: usize) -> bool {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used > self.limit {
            self.press();
        }
        used <= self.limit
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether somebody was refused, or more is held than should be, and no relief came since.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Whether more is held than should be.
    pub(super) fn is_over(&self) -> bool {
        self.used() > self.limit
    }

    /// What one who holds `own` must give up for a quarter of the budget to be free again, if all holders do the like.
    pub(super) fn share(&self, own: usize) -> usize {
        let used = self.used();
        let excess = used.saturating_sub(self.limit - self.limit / 4);
        (own as u128 * excess as u128).div_ceil(used.max(1) as u128) as usize
    }

    /// Looks whether a quarter is free again; then nobody is pressed any more.
    pub(super) fn settle(&self) {
        if self.used() <= self.limit - self.limit / 4 {
            self.pressed.store(false, Ordering::Relaxed);
        }
    }
}

/// Frames a socket could not take yet, in order. Made on demand; empty ones are dropped.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Frames>,
    bytes: usize,
    /// What the budget is charged for all of it.
    charged: usize,
    /// Uptime in ms at which the first byte last moved; the write limit counts from here.
    pub(super) stuck_since: u64,
}

/// What an entry costs beside its bytes: the queue's elements, half of them spare, and a share of the outbox.
const ENTRY_COST: usize = 128;

/// Whether a write left something behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    All,
    Blocked,
}

impl Outbox {
    /// An empty one, made because a write was refused at uptime `now`.
    pub(super) fn new(now: u64) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, charged: 0, stuck_since: now }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn messages(&self) -> usize {
        self.queue.len()
    }

    /// What the budget gets back when everything in here is dropped.
    pub(super) const fn charged(&self) -> usize {
        self.charged
    }

    /// What makes this large or small among others when some must go. Bytes that are shared count in full: they are
    /// free only when everybody who holds them has gone.
    pub(super) fn weight(&self) -> usize {
        self.bytes + self.queue.len() * ENTRY_COST
    }

    /// Takes frames, `cost` of which has been charged.
    pub(super) fn append(&mut self, frames: Frames, cost: usize) {
        self.bytes += frames.bytes.len();
        self.charged += cost;
        self.queue.push_back(frames);
    }

    /// Writes what the socket takes; gives the budget back what left.
    pub(super) fn flush(&mut self, socket: &mut impl Write, budget: &Budget, now: u64) -> io::Result<Flushed> {
        while let Some(first) = self.queue.front_mut() {
            match socket.write(&first.bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.stuck_since = now;
                    self.bytes -= n;
                    let before = first.cost();
                    first.bytes.advance(n);
                    let mut freed = before - first.cost();
                    if first.bytes.is_empty() {
                        self.queue.pop_front();
                        freed += ENTRY_COST;
                    }
                    self.charged -= freed;
                    budget.give_back(freed);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Flushed::All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_for_many_are_charged_once_and_as_long_as_one_holds_them() {
        let budget = Arc::new(Budget::new(1 << 20));
        let outgoing = Outgoing::lossy_text(Bytes::from(vec![b'x'; 1_000]), 32_768).for_many();
        let (first, second) = (outgoing.frames(0, &budget), outgoing.frames(0, &budget));
        assert_eq!(budget.used(), 1_004, "payload and header, once");
        assert_eq!((first.cost(), second.cost()), (ENTRY_COST, ENTRY_COST));
        drop((outgoing, first));
        assert_eq!(budget.used(), 1_004);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_flush_gives_back_what_was_charged() {
        let budget = Arc::new(Budget::new(1 << 20));
        let mut outbox = Outbox::new(1);
        let shared = Outgoing::lossy_text(Bytes::from_static(b"shared"), 32_768).for_many();
        for frames in [Frames::from(vec![b'a'; 100]), shared.frames(0, &budget)] {
            let cost = frames.cost();
            assert!(budget.take(cost));
            outbox.append(frames, cost);
        }
        drop(shared);
        let mut written = Vec::new();
        assert_eq!(outbox.flush(&mut written, &budget, 2).unwrap(), Flushed::All);
        assert_eq!((written.len(), outbox.charged(), budget.used()), (108, 0, 0));
    }
}
