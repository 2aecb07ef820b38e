//! Frame headers of a client's stream, read without its payloads: whether the stream stands between two messages.
//!
//! An idle session keeps no protocol state, so the engine must know when there is none: no header half read, no
//! payload half arrived, no fragmented message open. [`Walker`] knows it from the header bytes alone. It judges nothing:
//! what breaks RFC 6455 is reported by the protocol library, which sees the same bytes.

/// Bytes of the longest frame header: two, eight of length, four of mask.
pub(super) const MAX_HEADER_BYTES: usize = 14;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_AND_3: u8 = 0x30;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// Opcodes from here on are control frames.
const FIRST_CONTROL: u8 = 0x08;

/// A frame header that arrives in pieces (RFC 6455, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    bytes: [u8; MAX_HEADER_BYTES],
    len: u8,
}

impl Header {
    /// Takes what belongs to this header from the front of `input`; returns how many bytes that were.
    pub(super) fn fill(&mut self, input: &[u8]) -> usize {
        let mut taken = 0;
        // Twice at most: the first two bytes say how long the rest is.
        while !self.is_complete() {
            let from = usize::from(self.len);
            let part = input.get(taken..).unwrap_or_default();
            let part = part.get(..(self.needed() - from).min(part.len())).unwrap_or_default();
            let Some(room) = self.bytes.get_mut(from..from + part.len()) else { break };
            if part.is_empty() {
                break;
            }
            room.copy_from_slice(part);
            self.len += part.len() as u8;
            taken += part.len();
        }
        taken
    }

    /// Length of the header as far as known: 2 until the two bytes that tell are there.
    fn needed(&self) -> usize {
        let [_, second, ..] = self.bytes;
        if self.len < 2 {
            return 2;
        }
        let length = match second & LENGTH {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if second & MASKED == 0 { 0 } else { 4 }
    }

    /// Whether the whole header is there. The questions below are about a complete one.
    pub(super) fn is_complete(&self) -> bool {
        self.len >= 2 && usize::from(self.len) == self.needed()
    }

    /// Whether nothing of it has arrived.
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes that have arrived.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    const fn first(&self) -> u8 {
        let [first, ..] = self.bytes;
        first
    }

    /// Last frame of its message.
    pub(super) const fn is_final(&self) -> bool {
        self.first() & FIN != 0
    }

    /// The bit that marks a compressed message (RFC 7692, section 6).
    pub(super) const fn rsv1(&self) -> bool {
        self.first() & RSV1 != 0
    }

    /// Bits that no extension of ours gives a meaning.
    pub(super) const fn has_reserved_bits(&self) -> bool {
        self.first() & RSV2_AND_3 != 0
    }

    /// 0 to 15.
    pub(super) const fn opcode(&self) -> u8 {
        self.first() & OPCODE
    }

    /// Close, ping, pong and the reserved opcodes beside them.
    pub(super) const fn is_control(&self) -> bool {
        self.opcode() >= FIRST_CONTROL
    }

    /// The masking key; `None` for a frame that is not masked.
    pub(super) fn mask(&self) -> Option<[u8; 4]> {
        let [_, second, ..] = self.bytes;
        if second & MASKED == 0 {
            return None;
        }
        self.as_bytes().last_chunk().copied()
    }

    /// Bytes of payload that follow.
    pub(super) const fn payload_len(&self) -> u64 {
        let [_, second, length @ .., _, _, _, _] = self.bytes;
        match second & LENGTH {
            126 => u64::from_be_bytes(length) >> 48,
            127 => u64::from_be_bytes(length),
            short => short as u64,
        }
    }
}

/// Walks over the frames of one client's stream, fed in whatever pieces it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Walker {
    /// Payload bytes of the current frame still to come.
    left: u64,
    header: Header,
    /// A fragmented message has begun and not ended.
    open: bool,
}

impl Walker {
    /// Goes over the next bytes of the stream.
    pub(super) fn walk(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skip = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= skip as u64;
            bytes = bytes.get(skip..).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            let taken = self.header.fill(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.header.is_complete() {
                self.begin_frame();
            }
        }
    }

    fn begin_frame(&mut self) {
        if !self.header.is_control() {
            self.open = !self.header.is_final();
        }
        self.left = self.header.payload_len();
        self.header = Header::default();
    }

    /// Whether the stream stands between two messages: the protocol library, having read all of it, holds nothing.
    pub(super) const fn at_boundary(&self) -> bool {
        self.left == 0 && self.header.is_empty() && !self.open
    }

    /// Payload bytes that the current frame's header has announced and that have not arrived.
    pub(super) const fn expected(&self) -> u64 {
        self.left
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{self, Read, Write};

    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
    use tokio_tungstenite::tungstenite::{Error, Message};

    use super::*;

    /// A frame as a client sends it.
    pub(in super::super) fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let bit = if mask.is_some() { MASKED } else { 0 };
        let mut out = match payload.len() {
            short @ 0..=125 => vec![first, bit | short as u8],
            medium @ 126..=0xffff => {
                let [a, b] = (medium as u16).to_be_bytes();
                vec![first, bit + 126, a, b]
            }
            long => [&[first, bit + 127][..], &(long as u64).to_be_bytes()].concat(),
        };
        let key = mask.unwrap_or_default();
        out.extend(mask.into_iter().flatten());
        out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    /// Frames of every kind, valid and not.
    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            4 => prop::sample::select(&[0x81_u8, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8a][..]),
            1 => any::<u8>(),
        ];
        let size = prop_oneof![0..9_usize, 120..131_usize, Just(70_000)];
        let mask = prop::option::weighted(0.95, any::<[u8; 4]>());
        (first, mask, size).prop_map(|(first, mask, size)| frame(first, mask, &vec![b'x'; size]))
    }

    fn any_stream() -> impl Strategy<Value = Vec<u8>> {
        let junk = prop::collection::vec(any::<u8>(), 0..20);
        (prop::collection::vec(any_frame(), 0..8), junk).prop_map(|(frames, junk)| [frames.concat(), junk].concat())
    }

    /// Whole messages, some in fragments with control frames between, with the offset after each message.
    fn valid_messages() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let message = (prop::collection::vec(0..200_usize, 1..4), any::<bool>(), any::<[u8; 4]>());
        prop::collection::vec(message, 1..5).prop_map(|messages| {
            messages
                .into_iter()
                .map(|(parts, ping, key)| {
                    let last = parts.len() - 1;
                    let mut frames = Vec::new();
                    for (i, size) in parts.into_iter().enumerate() {
                        let first = u8::from(i == 0) | if i == last { FIN } else { 0 };
                        frames.push(frame(first, Some(key), &vec![b'm'; size]));
                        if ping && i != last {
                            frames.push(frame(0x89, Some(key), b"p"));
                        }
                    }
                    frames
                })
                .collect()
        })
    }

    pub(in super::super) fn cut(stream: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        at.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect()
    }

    pub(in super::super) fn any_cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
        prop::collection::vec(any::<prop::sample::Index>(), 0..12)
    }

    /// Gives what it has, then "would block"; swallows what is written.
    struct Piece<'a>(&'a [u8]);

    impl Read for Piece<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf) {
                Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                other => other,
            }
        }
    }

    impl Write for Piece<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the protocol library makes of a stream in these pieces; `forget` drops its state at the walker's boundaries.
    pub(in super::super) fn protocol(pieces: &[Vec<u8>], forget: bool) -> (Vec<Message>, Option<String>) {
        let fresh = || WebSocketContext::new(Role::Server, Some(WebSocketConfig::default().read_buffer_size(0)));
        let (mut context, mut walker, mut messages) = (fresh(), Walker::default(), Vec::new());
        for piece in pieces {
            let mut stream = Piece(piece);
            loop {
                match context.read(&mut stream) {
                    Ok(close @ Message::Close(_)) => {
                        messages.push(close);
                        return (messages, None);
                    }
                    Ok(message) => messages.push(message),
                    Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return (messages, Some(error.to_string())),
                }
            }
            walker.walk(piece);
            if forget && walker.at_boundary() {
                context = fresh();
            }
        }
        (messages, None)
    }

    #[test]
    fn a_walker_is_small() {
        assert!(size_of::<Walker>() <= 40);
    }

    #[test]
    fn a_fragmented_message_with_a_ping_between_ends_at_its_last_frame() {
        let mut walker = Walker::default();
        let key = Some([1, 2, 3, 4]);
        let frames = [(0x01, "a", false), (0x89, "p", false), (0x00, "b", false), (0x80, "c", true)];
        for (first, payload, boundary) in frames {
            walker.walk(&frame(first, key, payload.as_bytes()));
            assert_eq!(walker.at_boundary(), boundary, "{first:x}");
        }
        walker.walk(&frame(0xc1, key, b"z"));
        assert!(walker.at_boundary());
    }

    #[test]
    fn a_frame_without_payload_ends_with_its_header() {
        let mut walker = Walker::default();
        walker.walk(&[0x89, 0x80, 1, 2, 3]);
        assert!(!walker.at_boundary());
        walker.walk(&[4]);
        assert!(walker.at_boundary());
    }

    #[test]
    fn the_longest_length_does_not_overflow() {
        let mut walker = Walker::default();
        walker.walk(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 7, 7]);
        assert!(!walker.at_boundary());
        assert_eq!(walker.left, u64::MAX - 2);
    }

    proptest! {
        #[test]
        fn any_cut_of_any_stream_leads_to_the_same_state(stream in any_stream(), cuts in any_cuts()) {
            let mut whole = Walker::default();
            whole.walk(&stream);
            let mut pieces = Walker::default();
            for piece in cut(&stream, &cuts) {
                pieces.walk(&piece);
            }
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn boundaries_of_a_valid_stream_are_the_ends_of_its_messages(messages in valid_messages()) {
            let ends: Vec<usize> = messages
                .iter()
                .scan(0, |end, frames| { *end += frames.concat().len(); Some(*end) })
                .collect();
            let stream = messages.concat().concat();
            let mut walker = Walker::default();
            for (at, byte) in stream.iter().enumerate() {
                walker.walk(std::slice::from_ref(byte));
                prop_assert_eq!(walker.at_boundary(), ends.contains(&(at + 1)), "after byte {}", at);
            }
        }

        #[test]
        fn forgetting_the_protocol_state_at_a_boundary_changes_nothing(stream in any_stream(), cuts in any_cuts()) {
            let whole = protocol(std::slice::from_ref(&stream), false);
            prop_assert_eq!(protocol(&cut(&stream, &cuts), true), whole);
        }
    }
}
