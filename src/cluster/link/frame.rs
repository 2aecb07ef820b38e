//! Frames: `u32` length of what follows, `u64` request id, `u8` kind, payload. All numbers big-endian.

use super::codec::Malformed;

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 13;
/// The part of the header that the length counts.
const COUNTED_HEADER: usize = HEADER_BYTES - 4;
/// The largest message a stage may allow.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The largest payload of a frame: such a message, and what goes with it.
pub(super) const MAX_PAYLOAD_BYTES: usize = MAX_MESSAGE_BYTES + (64 << 10);
/// Room for each read: the longest TLS record.
pub(super) const READ_BYTES: usize = 16 << 10;

/// What a frame is. A number is never given a second meaning.
pub(super) mod kinds {
    /// Greeting: who speaks, and its proof.
    pub(in crate::cluster::link) const HELLO: u8 = 1;
    /// Greeting: why there will be none, one byte.
    pub(in crate::cluster::link) const REFUSED: u8 = 2;
    /// Are you there? Answered with the same id.
    pub(in crate::cluster::link) const PING: u8 = 3;
    /// Yes.
    pub(in crate::cluster::link) const PONG: u8 = 4;
    /// The sender asks nothing more on this link, and has every answer it waits for.
    pub(in crate::cluster::link) const GOODBYE: u8 = 5;
    /// The receiver's advertised address cannot be reached; the reason as text.
    pub(in crate::cluster::link) const UNREACHABLE: u8 = 6;

    pub(in crate::cluster::link) const PUSH: u8 = 32;
    pub(in crate::cluster::link) const DESCRIBE: u8 = 33;
    pub(in crate::cluster::link) const CLOSE: u8 = 34;
    pub(in crate::cluster::link) const JOIN: u8 = 35;
    pub(in crate::cluster::link) const LEAVE: u8 = 36;
    pub(in crate::cluster::link) const SEND_TO_GROUP: u8 = 37;
    pub(in crate::cluster::link) const SEND_TO_ALL: u8 = 38;
    pub(in crate::cluster::link) const MEMBERS: u8 = 39;
    pub(in crate::cluster::link) const LIST: u8 = 40;
    /// Kinds from here on are responses.
    pub(in crate::cluster::link) const FIRST_RESPONSE: u8 = 128;
    pub(in crate::cluster::link) const DONE: u8 = 128;
    pub(in crate::cluster::link) const GONE: u8 = 129;
    pub(in crate::cluster::link) const FULL: u8 = 130;
    pub(in crate::cluster::link) const TOO_MANY_GROUPS: u8 = 131;
    pub(in crate::cluster::link) const TOO_LARGE: u8 = 132;
    pub(in crate::cluster::link) const BUSY: u8 = 133;
    pub(in crate::cluster::link) const DESCRIBED: u8 = 134;
    pub(in crate::cluster::link) const DELIVERED: u8 = 135;
    pub(in crate::cluster::link) const IDS: u8 = 136;
    pub(in crate::cluster::link) const ROWS: u8 = 137;
}

/// One frame, still in the buffer it arrived in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) id: u64,
    pub(super) kind: u8,
    pub(super) payload: &'a [u8],
}

/// Appends a frame whose payload `write` appends; `write` returns the kind.
///
/// A payload above [`MAX_PAYLOAD_BYTES`] is taken back and gives `false`.
pub(super) fn put_frame(out: &mut Vec<u8>, id: u64, write: impl FnOnce(&mut Vec<u8>) -> u8) -> bool {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let kind = write(out);
    let payload = out.len() - start - HEADER_BYTES;
    if payload > MAX_PAYLOAD_BYTES {
        out.truncate(start);
        return false;
    }
    let header = out.get_mut(start..).and_then(|frame| frame.first_chunk_mut::<HEADER_BYTES>());
    if let Some([l0, l1, l2, l3, i @ .., k]) = header {
        [*l0, *l1, *l2, *l3] = ((payload + COUNTED_HEADER) as u32).to_be_bytes();
        *i = id.to_be_bytes();
        *k = kind;
    }
    true
}

/// Bytes that have arrived and are not dealt with.
///
/// Grows with what arrives, not with what a header claims, and shrinks again after a large frame.
#[derive(Debug)]
pub(super) struct Input {
    /// Always initialised to its whole length; what is behind `end` is room.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    max_payload: usize,
}

impl Input {
    /// An empty buffer for frames with payloads of at most `max_payload` bytes.
    pub(super) const fn new(max_payload: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, end: 0, max_payload }
    }

    /// The same bytes, under another bound.
    pub(super) const fn allow(mut self, max_payload: usize) -> Self {
        self.max_payload = max_payload;
        self
    }

    /// Room to read `at_least` so many bytes into. A buffer that holds nothing keeps four times that.
    pub(super) fn room(&mut self, at_least: usize) -> &mut [u8] {
        let kept = 4 * at_least;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > kept {
                self.bytes.truncate(kept);
                self.bytes.shrink_to_fit();
            }
        }
        if self.bytes.len() - self.end < at_least {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.bytes.len() - self.end < at_least {
                // By a half of what is there, so that a large frame is not moved for every read.
                self.bytes.resize((self.end + self.end / 2 + at_least).max(kept), 0);
            }
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// `n` bytes were read into the room.
    pub(super) fn arrived(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// Takes the next whole frame; `None` when more must arrive first.
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, Malformed> {
        let here = self.bytes.get(self.start..self.end).unwrap_or_default();
        let Some((length, rest)) = here.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length < COUNTED_HEADER {
            return Err(Malformed("a frame shorter than its header"));
        }
        if length - COUNTED_HEADER > self.max_payload {
            return Err(Malformed("a frame larger than may be"));
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        self.start += 4 + length;
        let Some(([i @ .., kind], payload)) = frame.split_first_chunk::<COUNTED_HEADER>() else { return Ok(None) };
        Ok(Some(Frame { id: u64::from_be_bytes(*i), kind: *kind, payload }))
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
