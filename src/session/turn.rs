//! One readiness turn: read once, walk the frames, hand on messages, flush once.

use std::mem;
use std::sync::Arc;

use super::deflate::{Deflator, FrameLimits, InflateEngine, InflateError, Inflator, WORTHWHILE_BYTES};
use super::handle::{PushError, Session};
use super::lot::Entry;
use super::outbox::{Budget, Outgoing};
use super::slot::{Arrived, Slot};
use super::transport::{self, Incoming, Pipe, Protocol};
use super::walker::Walker;
use super::{Events, Policy};
use crate::fault::CloseReason;
use crate::message::{Kind, Message};
use crate::tasks::guarded;

/// One read of a shard: large enough that a full message of the default limit takes three.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Messages of one session in one turn; then the others' turns come. At half a microsecond each this holds the shard
/// for less than the cost of twenty single-message turns.
const TURN_MESSAGES: usize = 64;
/// Bytes of one session in one turn: four full reads.
const TURN_BYTES: usize = 4 * SCRATCH_BYTES;
/// Replies are written when this much has gathered, so that a burst of large ones needs no large buffer.
const FLUSH_AT: usize = 64 * 1024;
/// What a protocol state off a boundary costs beside its bytes.
const BUSY_COST: usize = 1_024;

/// A shard's buffers, shared by all its sessions.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Bytes of one read.
    pub(super) bytes: Box<[u8]>,
    /// The same, decrypted.
    pub(super) plain: Vec<u8>,
    inflated: Vec<u8>,
    inflate: InflateEngine,
    deflate: Deflator,
    out: Vec<u8>,
}

/// What a shard keeps of a buffer that one session needed large.
const KEPT_BYTES: usize = 512 * 1024;

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            plain: Vec::new(),
            inflated: Vec::new(),
            inflate: InflateEngine::new(),
            deflate: Deflator::new(),
            out: Vec::with_capacity(FLUSH_AT),
        }
    }

    /// Gives back what a larger past left behind.
    pub(super) fn tidy(&mut self) {
        for buffer in [&mut self.plain, &mut self.inflated, &mut self.out] {
            buffer.shrink_to(KEPT_BYTES);
        }
    }
}

/// What a session holds while it is off a message boundary, paused, or has bytes nobody read yet.
#[derive(Debug, Default)]
pub(super) struct Busy {
    protocol: Option<Protocol>,
    walker: Walker,
    inflator: Inflator,
    /// The last turn ended before `protocol` was dry: it may have whole messages.
    stopped: bool,
    /// Bytes walked and not yet taken by `protocol`.
    unread: Vec<u8>,
    /// Bytes not yet walked: they came before the session was parked, or inflate to more than a turn's share.
    early: Vec<u8>,
    /// What was wrong behind the bytes that `protocol` has: they are served first.
    broken: Option<CloseReason>,
    /// Bytes that `protocol` may hold.
    held: usize,
    charged: usize,
}

impl Busy {
    pub(super) fn with_early_bytes(early: Vec<u8>) -> Self {
        Self { early, ..Self::default() }
    }

    /// What the node's budget is charged for this.
    pub(super) const fn charged(&self) -> usize {
        self.charged
    }

    /// Whether whole messages may be waiting in here.
    pub(super) const fn has_unread(&self) -> bool {
        self.stopped || !self.unread.is_empty() || !self.early.is_empty()
    }

    /// Whether nothing is in here that a fresh one would not have.
    const fn is_idle(&self) -> bool {
        self.protocol.is_none() && self.inflator.is_idle() && !self.has_unread() && self.walker.at_boundary()
    }

    /// Bytes this keeps allocated. A frame's room is made when its header comes, so what it announced counts.
    fn cost(&self, max_frame: usize) -> usize {
        let announced = usize::try_from(self.walker.expected()).unwrap_or(usize::MAX).min(max_frame);
        let buffers = self.unread.capacity() + self.early.capacity() + self.inflator.held_bytes();
        BUSY_COST + self.held + buffers + announced
    }
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing more to do until an event comes.
    Parked,
    /// Waiting for [`Slot::wake`] or for the client to read.
    Paused,
    /// There is more at hand that no event will announce.
    Again,
    /// Like parked, and the node's budget is over its limit.
    Pressed,
    /// The transport is gone.
    Lost,
    /// The session left *open*.
    Closing,
}

/// What a message's receiver may do within the turn: answer at once, in the turn's one write.
#[derive(Debug)]
pub struct Turn<'a> {
    out: &'a mut Vec<u8>,
    deflate: &'a mut Deflator,
    budget: &'a Arc<Budget>,
    max_frame: usize,
    window_bits: u8,
}

impl Turn<'_> {
    /// Answers with a text message. `payload` must be UTF-8.
    pub fn reply(&mut self, payload: &[u8]) {
        if self.window_bits != 0 && payload.len() >= WORTHWHILE_BYTES {
            let mut packed = Vec::new();
            if self.deflate.compress(payload, self.window_bits, &mut packed) {
                return transport::frame_message(self.out, Kind::Text, &packed, self.max_frame, true);
            }
        }
        transport::frame_message(self.out, Kind::Text, payload, self.max_frame, false);
    }

    /// Pushes to the session whose turn it is: behind what the turn has answered so far, in the same write. Pushed to
    /// the session itself it would overtake that.
    pub fn push(&mut self, outgoing: &Outgoing) {
        self.out.extend_from_slice(&outgoing.frames(self.window_bits, self.budget).bytes);
    }
}

enum Served {
    Dry,
    Paused,
    Spent,
    Ended(CloseReason),
}

/// Takes one turn. `to_the_end` reads until the socket is empty or at its end; without it a read that did not fill the
/// buffer is the last, which saves a system call whenever only one message is there.
pub(super) fn take<E: Events>(entry: &mut Entry<E>, scratch: &mut Scratch, to_the_end: bool) -> Outcome {
    let slot = &entry.session.0;
    if slot.is_closing() {
        return Outcome::Closing;
    }
    let policy = slot.events.policy();
    let was_paused = slot.unpause();
    if !slot.may_read(&policy.limits) {
        slot.pause();
        // What made it wait may have ended between the look and the flag; then nobody wakes it but us.
        if !slot.may_read(&policy.limits) {
            return Outcome::Paused;
        }
        slot.unpause();
    }
    if was_paused {
        // A pong may have waited here while nobody read.
        slot.stamps.heard(slot.mailbox.uptime());
    }
    let mut busy = entry.busy.take().map_or_else(Busy::default, |boxed| *boxed);
    let mut turn =
        Taking { session: &entry.session, policy, messages: TURN_MESSAGES, bytes: TURN_BYTES, handed: false };
    let outcome = turn.run(&mut busy, scratch, to_the_end || was_paused);
    if turn.handed {
        slot.touch_data();
    }
    settle(entry, busy, scratch, &policy, outcome)
}

/// Writes what the turn has to say, and parks the session or keeps what it is in the middle of.
fn settle<E: Events>(
    entry: &mut Entry<E>,
    mut busy: Busy,
    scratch: &mut Scratch,
    policy: &Policy,
    outcome: Result<Outcome, CloseReason>,
) -> Outcome {
    let session = &entry.session;
    let budget = &session.0.mailbox.budget;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(reason) => {
            budget.give_back(mem::take(&mut busy.charged));
            if session.0.begin_close(&reason, &scratch.out) {
                session.tell_end(&reason);
            }
            scratch.out.clear();
            return Outcome::Closing;
        }
    };
    let written = if scratch.out.is_empty() { Ok(()) } else { session.0.reply(&scratch.out, &policy.limits) };
    scratch.out.clear();
    match written {
        Ok(()) => {}
        Err(error) => {
            budget.give_back(mem::take(&mut busy.charged));
            if session.0.is_closing() {
                return Outcome::Closing;
            }
            if error == PushError::Full && session.0.begin_close(&CloseReason::SlowConsumer, &[]) {
                session.tell_end(&CloseReason::SlowConsumer);
                return Outcome::Closing;
            }
            return Outcome::Lost;
        }
    }
    if outcome == Outcome::Lost {
        budget.give_back(mem::take(&mut busy.charged));
        return outcome;
    }
    let sealed = session.0.sealed_bytes();
    if busy.is_idle() && sealed == 0 {
        budget.give_back(busy.charged);
        return outcome;
    }
    let holds = busy.cost(policy.limits.max_frame_bytes) + sealed;
    let fits = if holds > busy.charged {
        budget.force(holds - busy.charged)
    } else {
        budget.give_back(busy.charged - holds);
        true
    };
    busy.charged = holds;
    entry.busy = Some(Box::new(busy));
    if fits || outcome != Outcome::Parked { outcome } else { Outcome::Pressed }
}

struct Taking<'a, E> {
    session: &'a Session<E>,
    policy: Policy,
    /// Messages left of the turn's share.
    messages: usize,
    /// Bytes left of it, as sent or as inflated, whichever is more.
    bytes: usize,
    handed: bool,
}

impl<E: Events> Taking<'_, E> {
    /// Reads and serves until the socket is dry, the turn's share is used up, or the session ends (`Err`).
    fn run(&mut self, busy: &mut Busy, scratch: &mut Scratch, to_the_end: bool) -> Result<Outcome, CloseReason> {
        let slot: &Slot<E> = &self.session.0;
        if busy.protocol.is_some() {
            let unread = mem::take(&mut busy.unread);
            if let Some(outcome) = self.serve(busy, &unread, &mut scratch.out, &mut scratch.deflate)? {
                return Ok(outcome);
            }
        }
        if let Some(reason) = busy.broken.take() {
            return Err(reason);
        }
        let mut early = mem::take(&mut busy.early);
        loop {
            let (arrived, filled) = if !early.is_empty() {
                (Arrived::Bytes(early.len()), true)
            } else if slot.is_draining() {
                return Ok(Outcome::Parked);
            } else {
                slot.read(&mut scratch.bytes, &mut scratch.plain)
            };
            let n = match arrived {
                Arrived::Bytes(n) => n,
                Arrived::Nothing => return Ok(Outcome::Parked),
                Arrived::End | Arrived::Lost => return Ok(Outcome::Lost),
            };
            slot.stamps.heard(slot.mailbox.uptime());
            let Scratch { bytes, plain, inflated, inflate, deflate, out } = &mut *scratch;
            let raw = match (early.is_empty(), slot.is_tls) {
                (false, _) => &early,
                (true, true) => plain.as_slice(),
                (true, false) => bytes.get(..n).unwrap_or_default(),
            };
            let ended = if slot.window_bits == 0 {
                self.bytes = self.bytes.saturating_sub(raw.len());
                self.take_in(busy, raw, out, deflate)?
            } else {
                self.take_in_compressed(busy, raw, inflated, inflate, out, deflate)?
            };
            if let Some(outcome) = ended {
                return Ok(outcome);
            }
            early = Vec::new();
            match (filled || to_the_end, self.bytes) {
                (true, 0) => return Ok(Outcome::Again),
                (true, _) => {}
                (false, _) => return Ok(Outcome::Parked),
            }
        }
    }

    /// Inflates what was read, a portion at a time, and serves each. What a turn has no share for is kept as it came.
    fn take_in_compressed(
        &mut self,
        busy: &mut Busy,
        raw: &[u8],
        inflated: &mut Vec<u8>,
        engine: &mut InflateEngine,
        out: &mut Vec<u8>,
        deflate: &mut Deflator,
    ) -> Result<Option<Outcome>, CloseReason> {
        let limits = &self.policy.limits;
        let sizes = FrameLimits { max_frame: limits.max_frame_bytes, max_message: limits.max_message_bytes };
        let mut rest = raw;
        while !rest.is_empty() {
            inflated.clear();
            let fed = busy.inflator.feed(engine, rest, inflated, sizes);
            let left = fed.unwrap_or_default();
            self.bytes = self.bytes.saturating_sub(inflated.len().max(rest.len() - left.len()));
            rest = left;
            let ended = self.take_in(busy, inflated, out, deflate)?;
            if let Err(error) = fed {
                // What came before the breach goes first, in this turn or in one to come.
                busy.broken = Some(reason_for(error));
            }
            if let Some(outcome) = ended {
                busy.early = rest.to_vec();
                return Ok(Some(outcome));
            }
            if let Some(reason) = busy.broken.take() {
                return Err(reason);
            }
            if self.bytes == 0 && !rest.is_empty() {
                busy.early = rest.to_vec();
                return Ok(Some(Outcome::Again));
            }
        }
        Ok(None)
    }

    fn take_in(
        &mut self,
        busy: &mut Busy,
        input: &[u8],
        out: &mut Vec<u8>,
        deflate: &mut Deflator,
    ) -> Result<Option<Outcome>, CloseReason> {
        if input.is_empty() {
            return Ok(None);
        }
        busy.walker.walk(input);
        self.serve(busy, input, out, deflate)
    }

    /// Gives `input` to the protocol and what comes out to the gateway. `Some` ends the turn.
    fn serve(
        &mut self,
        busy: &mut Busy,
        input: &[u8],
        out: &mut Vec<u8>,
        deflate: &mut Deflator,
    ) -> Result<Option<Outcome>, CloseReason> {
        let limits = self.policy.limits;
        // On a boundary everything at hand goes in with one read. Off one, the state lives on and its reads keep this
        // size, so it is neither tiny nor large for what may be a client that trickles.
        let expected = if busy.walker.at_boundary() { input.len().max(16) } else { input.len().clamp(2_048, 16_384) };
        // A compressed message reaches the protocol inflated and in one frame; the filter has checked its frames.
        let compressed = self.session.0.window_bits != 0;
        let max_frame = if compressed { limits.max_message_bytes } else { limits.max_frame_bytes };
        let mut protocol = busy.protocol.take().unwrap_or_else(|| Protocol::new(&limits, max_frame, expected));
        let mut pipe = Pipe { input, output: out };
        let served = self.pump(&mut protocol, &mut pipe, deflate);
        let rest = pipe.input;
        match served {
            Served::Ended(reason) => Err(reason),
            Served::Dry => {
                busy.stopped = false;
                if busy.walker.at_boundary() {
                    busy.held = 0;
                } else {
                    let most = limits.max_message_bytes.saturating_add(limits.max_frame_bytes);
                    busy.held = (busy.held + input.len()).min(most);
                    busy.protocol = Some(protocol);
                }
                Ok(None)
            }
            Served::Paused | Served::Spent => {
                busy.stopped = true;
                busy.unread = rest.to_vec();
                // Whatever it was given before and not asked for since.
                busy.held = busy.held.max(input.len());
                busy.protocol = Some(protocol);
                Ok(Some(if matches!(served, Served::Paused) { Outcome::Paused } else { Outcome::Again }))
            }
        }
    }

    fn pump(&mut self, protocol: &mut Protocol, pipe: &mut Pipe<'_>, deflate: &mut Deflator) -> Served {
        let slot: &Slot<E> = &self.session.0;
        let limits = self.policy.limits;
        // After a write in the middle of a turn the client must have taken some of it before more is asked.
        let mut wrote = false;
        loop {
            let may_go_on = |wrote| if wrote { slot.may_read(&limits) } else { slot.may_take(&limits) };
            if !may_go_on(wrote) {
                slot.pause();
                // What is in the way may have gone between the look and the flag.
                if !may_go_on(wrote) {
                    return Served::Paused;
                }
                slot.unpause();
            }
            wrote = false;
            if self.messages == 0 {
                return Served::Spent;
            }
            match protocol.next(pipe) {
                Incoming::Message(message) => {
                    if message.kind() == Kind::Binary && !self.policy.accepts_binary {
                        return Served::Ended(CloseReason::BinaryRefused);
                    }
                    self.messages -= 1;
                    self.handed = true;
                    if let Some(reason) = self.hand_over(message, pipe.output, deflate) {
                        return Served::Ended(reason);
                    }
                    if pipe.output.len() >= FLUSH_AT {
                        let outcome = slot.reply(pipe.output, &limits);
                        pipe.output.clear();
                        match outcome {
                            Ok(()) => wrote = true,
                            Err(PushError::Full) => return Served::Ended(CloseReason::SlowConsumer),
                            Err(PushError::Gone) => return Served::Ended(CloseReason::ClientVanished),
                        }
                    }
                }
                // A client that the service would have kept must not be dropped: a ping counts (specification 13.5.4).
                Incoming::Ping => {
                    self.messages -= 1;
                    slot.stamps.pinged_by_client(slot.mailbox.uptime());
                }
                Incoming::Pong => self.messages -= 1,
                Incoming::Dry => return Served::Dry,
                Incoming::Close(reason) | Incoming::Broken(reason) => return Served::Ended(reason),
            }
        }
    }

    /// Hands a message on. A panic of its receiver ends this session alone, not the shard with all of them.
    fn hand_over(&self, message: Message, out: &mut Vec<u8>, deflate: &mut Deflator) -> Option<CloseReason> {
        let before = out.len();
        let (max_frame, window_bits) = (self.policy.limits.max_frame_bytes, self.session.0.window_bits);
        let budget = &self.session.0.mailbox.budget;
        let mut turn = Turn { out: &mut *out, deflate, budget, max_frame, window_bits };
        let handed = guarded("message", || E::on_message(self.session, message, &mut turn));
        if handed.is_some() {
            return None;
        }
        out.truncate(before);
        Some(CloseReason::Internal)
    }
}

pub(super) fn reason_for(error: InflateError) -> CloseReason {
    match error {
        InflateError::TooBig => CloseReason::TooBig,
        InflateError::ProtocolError => CloseReason::ProtocolError,
        InflateError::InvalidData => CloseReason::InvalidUtf8,
    }
}
