//! One session: its socket, its stamps, and what it holds only while busy.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use mio::net::TcpStream;
use parking_lot::Mutex;

use super::Events;
use super::handle::{PushError, Session};
use super::mailbox::{Mail, Mailbox};
use super::outbox::{Flushed, Frames, Outbox, Outgoing};
use super::stamps::Stamps;
use super::sweep::Seen;
use super::tls::{TlsSession, TlsStatus};
use super::transport;
use crate::fault::CloseReason;
use crate::limits::Limits;

/// A socket whose handshake is done, as the listener hands it over.
#[derive(Debug)]
pub struct Socket {
    /// The connection, non-blocking.
    pub stream: std::net::TcpStream,
    /// Its TLS state, if it has any.
    pub tls: Option<Box<TlsSession>>,
    /// Ciphertext that goes before anything else: the handshake's last words.
    pub unsent: Vec<u8>,
    /// Bytes the client sent right behind its handshake, decrypted.
    pub early: Vec<u8>,
    /// Largest window for compressed messages to the client, 9 to 15 bits; 0 when compression was not negotiated.
    pub window_bits: u8,
}

/// The state behind a [`Session`]; about 170 bytes with the gateway's record, and all an idle session has.
pub(super) struct Slot<E> {
    pub(super) events: E,
    pub(super) mailbox: Arc<Mailbox<E>>,
    /// The lock of a slot. Guards the socket, too: whoever reads, writes or closes it holds this for that one call.
    write: Mutex<WriteHalf>,
    pub(super) stamps: Stamps,
    /// Key in the shard's table and a generation, so that a stale event finds a stranger and is ignored.
    pub(super) token: AtomicU64,
    in_flight: AtomicU32,
    flags: AtomicU8,
    pub(super) window_bits: u8,
    pub(super) is_tls: bool,
}

/// Reading waits: too much in flight, an outbox that does not empty, or a gateway that is not ready.
const PAUSED: u8 = 1;
/// A wake-up is on its way to the shard.
const SCHEDULED: u8 = 2;
/// No new messages are read; the session ends when its exchanges are answered.
const DRAINING: u8 = 4;
/// Whoever serves the session takes no more messages for now.
const HELD: u8 = 8;
/// In the shard's run queue.
const QUEUED: u8 = 16;
/// Among the sessions whose end the shard watches.
const LINGERING: u8 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing,
    Gone,
}

struct WriteHalf {
    stream: Option<TcpStream>,
    phase: Phase,
    /// The close frame is written once the outbox is empty; then the sending side is shut.
    shut: bool,
    outbox: Option<Box<Outbox>>,
    tls: Option<Box<TlsSession>>,
}

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    /// Bytes in the buffer.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The client shut its side.
    End,
    /// The transport failed.
    Lost,
}

impl<E: Events> Slot<E> {
    /// The slot for a socket.
    pub(super) fn new(events: E, mailbox: Arc<Mailbox<E>>, socket: Socket) -> Self {
        let now = mailbox.uptime();
        let stamps = Stamps::starting(now);
        let write = WriteHalf {
            stream: Some(TcpStream::from_std(socket.stream)),
            phase: Phase::Open,
            shut: false,
            outbox: None,
            tls: socket.tls,
        };
        let is_tls = write.tls.is_some();
        Self {
            events,
            mailbox,
            write: Mutex::new(write),
            stamps,
            token: AtomicU64::new(u64::MAX),
            in_flight: AtomicU32::new(0),
            flags: AtomicU8::new(0),
            window_bits: socket.window_bits,
            is_tls,
        }
    }

    // Flags and the count of exchanges are sequentially consistent: the shard sets PAUSED and then looks at the count, an
    // exchange lowers the count and then looks at PAUSED, and one of the two must see the other.

    fn set_flag(&self, flag: u8) -> bool {
        self.flags.fetch_or(flag, Ordering::SeqCst) & flag == 0
    }

    fn clear_flag(&self, flag: u8) -> bool {
        self.flags.fetch_and(!flag, Ordering::SeqCst) & flag != 0
    }

    fn has_flag(&self, flag: u8) -> bool {
        self.flags.load(Ordering::SeqCst) & flag != 0
    }

    pub(super) fn pause(&self) {
        self.set_flag(PAUSED);
    }

    pub(super) fn unpause(&self) -> bool {
        self.clear_flag(PAUSED)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.has_flag(DRAINING)
    }

    pub(super) fn is_held(&self) -> bool {
        self.has_flag(HELD)
    }

    pub(super) fn unschedule(&self) {
        self.clear_flag(SCHEDULED);
    }

    /// Whether the session was not in the run queue; it is now.
    pub(super) fn enter_queue(&self) -> bool {
        self.set_flag(QUEUED)
    }

    pub(super) fn leave_queue(&self) {
        self.clear_flag(QUEUED);
    }

    pub(super) fn is_queued(&self) -> bool {
        self.has_flag(QUEUED)
    }

    /// Whether the session's end was not watched yet; it is now.
    pub(super) fn begin_linger(&self) -> bool {
        self.set_flag(LINGERING)
    }

    pub(super) fn exchanges(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Whether another message may be handed over now.
    pub(super) fn may_take(&self, limits: &Limits) -> bool {
        self.exchanges() < u32::from(limits.max_messages_in_flight) && !self.is_held()
    }

    /// Whether the socket may be read now: a client that does not read its answers is not asked for more questions.
    pub(super) fn may_read(&self, limits: &Limits) -> bool {
        self.may_take(limits) && self.outbox_bytes() <= limits.max_outbox_bytes / 2
    }

    pub(super) fn outbox_bytes(&self) -> usize {
        self.write.lock().outbox.as_ref().map_or(0, |o| o.bytes())
    }

    /// What waits to be written, as it counts when some must go.
    pub(super) fn outbox_weight(&self) -> usize {
        self.write.lock().outbox.as_ref().map_or(0, |o| o.weight())
    }

    /// Bytes of a TLS record that has arrived in part.
    pub(super) fn sealed_bytes(&self) -> usize {
        if self.is_tls { self.write.lock().tls.as_ref().map_or(0, |tls| tls.held_bytes()) } else { 0 }
    }

    pub(super) fn seen(&self) -> Seen {
        let stuck = self.write.lock().outbox.as_ref().map(|o| o.stuck_since);
        Seen { stuck, paused: self.has_flag(PAUSED), ..self.stamps.seen() }
    }

    /// Registers the socket with the shard's readiness set: once, for everything, edge-triggered.
    pub(super) fn register(&self, registry: &mio::Registry, token: u64) -> io::Result<()> {
        self.token.store(token, Ordering::Release);
        match &mut self.write.lock().stream {
            Some(stream) => {
                let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
                registry.register(stream, mio::Token(token as usize), interest)
            }
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// One read. Over TLS the bytes are decrypted into `plain` and answers of the record layer are sent on.
    pub(super) fn read(&self, scratch: &mut [u8], plain: &mut Vec<u8>) -> (Arrived, bool) {
        let mut half = self.write.lock();
        let half = &mut *half;
        let Some(stream) = &mut half.stream else { return (Arrived::Lost, false) };
        let arrived = loop {
            break match stream.read(scratch) {
                Ok(0) => Arrived::End,
                Ok(n) => Arrived::Bytes(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Arrived::Nothing,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => Arrived::Lost,
            };
        };
        let full = arrived == Arrived::Bytes(scratch.len());
        let Some(tls) = &half.tls else { return (arrived, full) };
        match arrived {
            Arrived::Bytes(n) => {
                let arrived = self.decrypt(half, scratch.get_mut(..n).unwrap_or_default(), plain);
                // A farewell behind the data is found by the next read: no event announces it.
                (arrived, full || half.tls.as_ref().is_some_and(|tls| tls.is_peer_closed()))
            }
            Arrived::Nothing if tls.is_peer_closed() => (Arrived::End, false),
            Arrived::Nothing | Arrived::End | Arrived::Lost => (arrived, false),
        }
    }

    fn decrypt(&self, half: &mut WriteHalf, ciphertext: &mut [u8], plain: &mut Vec<u8>) -> Arrived {
        let Some(tls) = &mut half.tls else { return Arrived::Lost };
        plain.clear();
        let mut answer = Vec::new();
        let outcome = tls.receive(ciphertext, plain, &mut answer);
        if !answer.is_empty() && self.enqueue(half, Frames::from(answer), None).is_err() {
            return Arrived::Lost;
        }
        match outcome {
            Ok(_) if !plain.is_empty() => Arrived::Bytes(plain.len()),
            Ok(TlsStatus::PeerClosed) => Arrived::End,
            // A record that is not whole yet, or one that carried no data.
            Ok(TlsStatus::Open | TlsStatus::Handshaking) => Arrived::Bytes(0),
            Err(_) => Arrived::Lost,
        }
    }

    /// Sends frames: straight to the socket when nothing waits, else behind what does. `limits` bounds what may wait;
    /// without them only the node's budget does.
    fn enqueue(&self, half: &mut WriteHalf, frames: Frames, limits: Option<&Limits>) -> Result<(), PushError> {
        let budget = &self.mailbox.budget;
        let whole = frames.bytes.len();
        let mut rest = frames;
        if half.outbox.is_none() {
            let Some(stream) = &mut half.stream else { return Err(PushError::Gone) };
            loop {
                match stream.write(&rest.bytes) {
                    Ok(n) if n == rest.bytes.len() => return Ok(()),
                    Ok(n) => bytes::Buf::advance(&mut rest.bytes, n),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Err(Self::fail(stream)),
                }
            }
        }
        let outbox = half.outbox.get_or_insert_with(|| Box::new(Outbox::new(self.mailbox.uptime())));
        let fits = limits.is_none_or(|limits| {
            outbox.bytes() + rest.bytes.len() <= limits.max_outbox_bytes
                && outbox.messages() < limits.max_outbox_messages
        });
        // A frame that is partly out must follow whole, whatever the limits say: they are checked before the first byte.
        if !fits && outbox.messages() > 0 {
            return Err(PushError::Full);
        }
        // Nor does the node's budget cut it short: what began must end, or all that comes behind it would be garbage. Over
        // TLS a record that is left out is a number that is missing. Relief follows at once.
        let cost = rest.cost();
        if rest.bytes.len() < whole || self.is_tls {
            let _relief_follows = budget.force(cost);
        } else if !budget.take(cost) {
            if outbox.messages() == 0 {
                half.outbox = None;
            }
            return Err(PushError::Full);
        }
        outbox.append(rest, cost);
        Ok(())
    }

    fn send(&self, half: &mut WriteHalf, frames: Frames, limits: Option<&Limits>) -> Result<(), PushError> {
        let Some(tls) = &mut half.tls else { return self.enqueue(half, frames, limits) };
        // Ciphertext once made is never dropped (the next record's number counts on it), so room is made sure of first.
        if let (Some(limits), Some(outbox)) = (limits, &half.outbox) {
            let cost = frames.cost();
            let full = outbox.bytes() + frames.bytes.len() > limits.max_outbox_bytes
                || outbox.messages() >= limits.max_outbox_messages
                || !self.mailbox.budget.take(cost);
            if full {
                return Err(PushError::Full);
            }
            // Only asked: what the records come to is taken below.
            self.mailbox.budget.give_back(cost);
        }
        let mut records = Vec::with_capacity(frames.bytes.len() + 64);
        if tls.encrypt(&frames.bytes, &mut records).is_err() {
            return Err(half.stream.as_ref().map_or(PushError::Gone, Self::fail));
        }
        self.enqueue(half, records.into(), None)
    }

    /// Writes what waits. `false` when the transport is lost.
    pub(super) fn flush(&self) -> bool {
        let mut half = self.write.lock();
        let half = &mut *half;
        let (Some(stream), Some(outbox)) = (&mut half.stream, &mut half.outbox) else { return true };
        match outbox.flush(stream, &self.mailbox.budget, self.mailbox.uptime()) {
            Ok(Flushed::All) => {
                half.outbox = None;
                if half.phase == Phase::Closing {
                    Self::shut(half);
                }
                true
            }
            Ok(Flushed::Blocked) => true,
            Err(_) => false,
        }
    }

    /// A transport that refused once is of no more use: what was sent may end in the middle of a frame. Shut, so that
    /// the reading side learns of it and ends the session.
    fn fail(stream: &TcpStream) -> PushError {
        let _may_be_gone = stream.shutdown(std::net::Shutdown::Both);
        PushError::Gone
    }

    fn shut(half: &mut WriteHalf) {
        if let (Some(stream), false) = (&half.stream, half.shut) {
            // An error says the peer is gone, which the reading side finds out by itself.
            let _best_effort = stream.shutdown(std::net::Shutdown::Write);
            half.shut = true;
        }
    }

    /// Writes the 101 before anything else. `publish` makes the session visible, under the lock that whoever finds it
    /// then has to wait for. Not bounded by the session's limits: it is the first thing written.
    pub(super) fn greet(&self, unsent: Vec<u8>, head: Vec<u8>, publish: impl FnOnce()) -> Result<(), PushError> {
        let mut half = self.write.lock();
        publish();
        if !unsent.is_empty() {
            self.enqueue(&mut half, Frames::from(unsent), None)?;
        }
        self.send(&mut half, Frames::from(head), None)
    }

    pub(super) fn push(&self, outgoing: &Outgoing, limits: &Limits) -> Result<(), PushError> {
        let mut half = self.write.lock();
        if half.phase != Phase::Open {
            return Err(PushError::Gone);
        }
        let frames = outgoing.frames(self.window_bits, &self.mailbox.budget);
        self.send(&mut half, frames, Some(limits))?;
        drop(half);
        self.touch_data();
        Ok(())
    }

    /// A turn's own bytes: replies, pongs, close echoes. They may not be lost, so the session ends when they do not fit.
    pub(super) fn reply(&self, frames: &[u8], limits: &Limits) -> Result<(), PushError> {
        let mut half = self.write.lock();
        if half.phase != Phase::Open {
            return Err(PushError::Gone);
        }
        if half.outbox.is_none() && half.tls.is_none() {
            // The common case copies nothing: written from the shard's own buffer.
            let Some(stream) = &mut half.stream else { return Err(PushError::Gone) };
            let mut rest = frames;
            loop {
                match stream.write(rest) {
                    Ok(n) if n == rest.len() => return Ok(()),
                    Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return Err(Self::fail(stream)),
                }
            }
            return self.enqueue(&mut half, rest.to_vec().into(), Some(limits));
        }
        self.send(&mut half, frames.to_vec().into(), Some(limits))
    }

    pub(super) fn ping(&self) {
        let mut out = Vec::with_capacity(2);
        transport::frame_ping(&mut out);
        let mut half = self.write.lock();
        if half.phase == Phase::Open && half.outbox.is_none() && self.send(&mut half, Frames::from(out), None).is_ok() {
            self.stamps.pinged(self.mailbox.uptime());
        }
    }

    pub(super) fn touch_data(&self) {
        self.stamps.data(self.mailbox.uptime());
    }

    /// Moves the session out of *open*, sends the reason's close frame (or `echo`, already framed), and says whether it
    /// was this call that did: then the caller owes [`Events::on_end`].
    pub(super) fn begin_close(&self, reason: &CloseReason, echo: &[u8]) -> bool {
        let mut half = self.write.lock();
        if half.phase != Phase::Open {
            return false;
        }
        half.phase = Phase::Closing;
        let mut last = echo.to_vec();
        if let Some((code, text)) = reason.frame() {
            transport::frame_close(&mut last, code, text);
        }
        if matches!(reason, CloseReason::SlowConsumer | CloseReason::PongMissing | CloseReason::ClientVanished) {
            // Nobody reads; what waits is given up now, since its bytes may be what the node is short of.
            self.abandon(&mut half);
            return true;
        }
        let sent = last.is_empty() || self.send(&mut half, Frames::from(last), None).is_ok();
        if let Some(tls) = &mut half.tls {
            let mut farewell = Vec::new();
            let _best_effort = tls.close_notify(&mut farewell);
            let _best_effort = self.enqueue(&mut half, Frames::from(farewell), None);
        }
        if !sent {
            self.abandon(&mut half);
        } else if half.outbox.is_none() {
            Self::shut(&mut half);
        }
        true
    }

    /// Whether the session left *open*.
    pub(super) fn is_closing(&self) -> bool {
        self.write.lock().phase != Phase::Open
    }

    /// Closes the socket for good and gives back what the session held.
    pub(super) fn abandon_now(&self) {
        self.abandon(&mut self.write.lock());
    }

    fn abandon(&self, half: &mut WriteHalf) {
        half.phase = Phase::Gone;
        half.stream = None;
        half.tls = None;
        if let Some(outbox) = half.outbox.take() {
            self.mailbox.budget.give_back(outbox.charged());
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.write.lock().phase == Phase::Gone
    }

    pub(super) fn hold(&self) {
        self.set_flag(HELD);
    }

    /// Whether it was held.
    pub(super) fn unhold(&self) -> bool {
        self.clear_flag(HELD)
    }

    /// Whether it was not draining; it is now.
    pub(super) fn begin_drain(&self) -> bool {
        self.set_flag(DRAINING)
    }

    pub(super) fn exchange_begins(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn exchange_ends(self: &Arc<Self>) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.wake();
    }

    /// Looks again whether reading may go on.
    pub(super) fn wake(self: &Arc<Self>) {
        if self.has_flag(PAUSED) {
            self.schedule();
        }
    }

    fn schedule(self: &Arc<Self>) {
        if self.set_flag(SCHEDULED) {
            self.mailbox.send(Mail::Run(Session(Arc::clone(self))));
        }
    }
}

impl<E> Drop for Slot<E> {
    fn drop(&mut self) {
        // A slot dropped before its shard took it over (a drain that ran over) still owes the budget.
        if let Some(outbox) = self.write.get_mut().outbox.take() {
            self.mailbox.budget.give_back(outbox.charged());
        }
    }
}
