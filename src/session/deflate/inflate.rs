//! Messages from the client: compressed ones are turned into plain frames before the protocol library sees them.

use flate2::{Decompress, FlushDecompress, Status};

use crate::session::walker::{Header, MAX_HEADER_BYTES};

/// Ends a stream whose last block was flushed: the tail left out by the sender, then an empty final block. That the codec
/// reports the end exactly here is the proof that nothing was missing.
const END: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];
/// Room to begin inflating with; most messages need no more.
const FIRST_ROOM: usize = 4 * 1024;
/// What an engine keeps of its output buffer; a larger message pays for its own room.
const KEPT_ROOM: usize = 256 * 1024;

/// Output after which a filter takes no more input.
const ENOUGH: usize = 64 * 1024;

/// Largest sizes a client may send, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameLimits {
    /// Payload of one data frame, as sent.
    pub max_frame: usize,
    /// Payload of one message, inflated.
    pub max_message: usize,
}

impl FrameLimits {
    /// Compressed bytes that may be collected for one message. Deflate can make incompressible data an eighth longer,
    /// and a message that is allowed must not fail for it.
    const fn max_collected(&self) -> u64 {
        (self.max_message as u64).saturating_add(self.max_message as u64 / 8 + 1024)
    }
}

/// Why a client's stream cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InflateError {
    /// A frame beyond its limit, or a message that is or inflates beyond its own: close 1009.
    #[error("a frame or message is too big")]
    TooBig,
    /// What should be deflate data is not: close 1007.
    #[error("compressed data is not valid")]
    InvalidData,
    /// A breach of RFC 6455 or of the extension's use of RSV1: close 1002.
    #[error("a frame breaks the protocol")]
    ProtocolError,
}

/// The codec and its output; one serves all sessions of a shard.
#[derive(Debug, Default)]
pub(crate) struct InflateEngine {
    codec: Option<Decompress>,
    plain: Vec<u8>,
}

impl InflateEngine {
    /// An engine that holds nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Bytes the output buffer has room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.plain.capacity()
    }

    /// Inflates one message of at most `max` bytes; the result stays until the next call.
    fn inflate(&mut self, compressed: &[u8], max: usize) -> Result<&[u8], InflateError> {
        self.plain.clear();
        self.plain.shrink_to(KEPT_ROOM);
        // Nothing at all is not even an empty block, yet some senders mean the empty message by it.
        if !compressed.is_empty() {
            let codec = self.codec.get_or_insert_with(|| Decompress::new(false));
            codec.reset(false);
            let ended = run(codec, compressed, &mut self.plain, max)?;
            // A message may end with a final block instead of a flushed one.
            if !ended && !run(codec, &END, &mut self.plain, max)? {
                return Err(InflateError::InvalidData);
            }
        }
        Ok(&self.plain)
    }
}

/// Feeds all of `input`; true when it ended exactly with a final block.
fn run(codec: &mut Decompress, mut input: &[u8], plain: &mut Vec<u8>, max: usize) -> Result<bool, InflateError> {
    let mut ended = false;
    while !input.is_empty() {
        if ended {
            // A final block in the middle of a message: what follows is a stream of its own.
            codec.reset(false);
        }
        make_room(plain, max);
        let (before_in, before_out) = (codec.total_in(), plain.len());
        let status =
            codec.decompress_vec(input, plain, FlushDecompress::None).map_err(|_| InflateError::InvalidData)?;
        if plain.len() > max {
            return Err(InflateError::TooBig);
        }
        let taken = (codec.total_in() - before_in) as usize;
        input = input.get(taken..).unwrap_or_default();
        ended = status == Status::StreamEnd;
        if taken == 0 && plain.len() == before_out && !ended {
            return Err(InflateError::InvalidData);
        }
    }
    Ok(ended)
}

/// Makes room for at least one byte, for at most one beyond `max`: enough to know that it is too much.
fn make_room(plain: &mut Vec<u8>, max: usize) {
    if plain.len() == plain.capacity() {
        let target = plain.len().saturating_mul(2).max(FIRST_ROOM).min(max.saturating_add(1));
        plain.reserve_exact(target.saturating_sub(plain.len()).max(1));
    }
}

/// A filter between one client's stream and the protocol library.
///
/// Uncompressed frames and control frames pass unchanged and at once. The frames of a compressed message are collected,
/// inflated at its end, and passed on as one plain frame, masked with a key of zeros. Beside that it enforces the frame
/// limit, since the library is told to take frames as long as messages, and reports breaches as soon as a header shows them.
#[derive(Debug, Default)]
pub(crate) struct Inflator {
    header: Header,
    /// Payload bytes of the current frame still to come.
    left: u64,
    /// The current frame belongs to a compressed message.
    collecting: bool,
    /// The current frame ends its message.
    last: bool,
    /// Masking key of the current frame, turned so that its first byte is due next.
    key: [u8; 4],
    message: Open,
}

/// The message that has begun and not ended.
#[derive(Debug, Default)]
enum Open {
    #[default]
    None,
    Plain,
    Compressed {
        opcode: u8,
        collected: Vec<u8>,
    },
}

impl Inflator {
    /// Takes the next bytes from the client and appends what the protocol library should see to `output`. Returns those
    /// not taken: a few bytes may inflate to thousands of times their size, so it stops behind the message that fills
    /// `output` to 64 KiB.
    ///
    /// # Errors
    /// The session must end with the close code the error stands for. `output` then still holds everything that came
    /// before what is wrong; hand it on first. The filter must not be fed again.
    pub(crate) fn feed<'a>(
        &mut self,
        engine: &mut InflateEngine,
        mut input: &'a [u8],
        output: &mut Vec<u8>,
        limits: FrameLimits,
    ) -> Result<&'a [u8], InflateError> {
        while !input.is_empty() {
            if self.left == 0 {
                let taken = self.header.fill(input);
                input = input.get(taken..).unwrap_or_default();
                if !self.header.is_complete() {
                    continue;
                }
                let header = std::mem::take(&mut self.header);
                self.begin_frame(&header, output, limits)?;
            }
            let here = input.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (payload, rest) = input.split_at_checked(here).unwrap_or_default();
            input = rest;
            self.left -= payload.len() as u64;
            self.take_payload(payload, output);
            if self.left == 0 && self.collecting && self.last {
                self.finish_message(engine, output, limits)?;
                if output.len() >= ENOUGH {
                    break;
                }
            }
        }
        Ok(input)
    }

    fn begin_frame(&mut self, header: &Header, output: &mut Vec<u8>, limits: FrameLimits) -> Result<(), InflateError> {
        let key = header.mask().ok_or(InflateError::ProtocolError)?;
        let length = header.payload_len();
        self.collecting = self.check(header)?;
        if !header.is_control() {
            let collected = if self.collecting { self.collected() as u64 } else { 0 };
            if length > limits.max_frame as u64 || collected.saturating_add(length) > limits.max_collected() {
                return Err(InflateError::TooBig);
            }
            self.note_message(header);
        }
        if !self.collecting {
            output.extend_from_slice(header.as_bytes());
        }
        self.left = length;
        self.last = header.is_final();
        self.key = key;
        Ok(())
    }

    /// Whether the frame belongs to a compressed message; an error when it may not stand here.
    fn check(&self, header: &Header) -> Result<bool, InflateError> {
        let allowed = match (header.opcode(), &self.message) {
            (0, Open::Plain | Open::Compressed { .. }) => !header.rsv1(),
            (1 | 2, Open::None) => true,
            (8..=10, _) => !header.rsv1() && header.is_final() && header.payload_len() <= 125,
            (_, _) => false,
        };
        if !allowed || header.has_reserved_bits() {
            return Err(InflateError::ProtocolError);
        }
        let continues = header.opcode() == 0 && matches!(self.message, Open::Compressed { .. });
        Ok(header.rsv1() || continues)
    }

    /// Opens or closes the message that a data frame begins or ends; one being collected is closed by its inflation.
    fn note_message(&mut self, header: &Header) {
        match &self.message {
            Open::None if self.collecting => {
                self.message = Open::Compressed { opcode: header.opcode(), collected: Vec::new() };
            }
            Open::None if !header.is_final() => self.message = Open::Plain,
            Open::Plain if header.is_final() => self.message = Open::None,
            Open::None | Open::Plain | Open::Compressed { .. } => {}
        }
    }

    fn take_payload(&mut self, payload: &[u8], output: &mut Vec<u8>) {
        match &mut self.message {
            Open::Compressed { collected, .. } if self.collecting => {
                let start = collected.len();
                collected.extend_from_slice(payload);
                unmask(collected.get_mut(start..).unwrap_or_default(), &mut self.key);
            }
            Open::None | Open::Plain | Open::Compressed { .. } => output.extend_from_slice(payload),
        }
    }

    fn finish_message(
        &mut self,
        engine: &mut InflateEngine,
        output: &mut Vec<u8>,
        limits: FrameLimits,
    ) -> Result<(), InflateError> {
        self.collecting = false;
        let Open::Compressed { opcode, collected } = std::mem::take(&mut self.message) else {
            return Ok(());
        };
        let plain = engine.inflate(&collected, limits.max_message)?;
        output.reserve(plain.len() + MAX_HEADER_BYTES);
        output.push(0x80 | opcode);
        match plain.len() {
            short @ 0..=125 => output.push(0x80 + short as u8),
            medium @ 126..=0xffff => {
                output.push(0x80 + 126);
                output.extend_from_slice(&(medium as u16).to_be_bytes());
            }
            long => {
                output.push(0x80 + 127);
                output.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        output.extend_from_slice(&[0; 4]);
        output.extend_from_slice(plain);
        Ok(())
    }

    fn collected(&self) -> usize {
        match &self.message {
            Open::Compressed { collected, .. } => collected.len(),
            Open::None | Open::Plain => 0,
        }
    }

    /// Whether the stream stands between two messages: nothing is held, and a new filter would go on just as well.
    pub(crate) const fn is_idle(&self) -> bool {
        self.left == 0 && self.header.is_empty() && matches!(self.message, Open::None)
    }

    /// Bytes allocated for a message that has not ended; counts against the node's budget.
    pub(crate) const fn held_bytes(&self) -> usize {
        match &self.message {
            Open::Compressed { collected, .. } => collected.capacity(),
            Open::None | Open::Plain => 0,
        }
    }
}

/// Takes the mask off `payload` and turns `key` on by its length.
fn unmask(payload: &mut [u8], key: &mut [u8; 4]) {
    let word = u32::from_ne_bytes(*key);
    let (words, rest) = payload.as_chunks_mut::<4>();
    for four in words {
        *four = (u32::from_ne_bytes(*four) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter()) {
        *byte ^= key;
    }
    key.rotate_left(payload.len() % 4);
}
