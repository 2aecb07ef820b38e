//! Compression as the protocol library and a client see it.

use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::session::walker::tests::{any_cuts, cut, frame, protocol};

const LIMITS: FrameLimits = FrameLimits { max_frame: 32_768, max_message: 131_072 };
const KEY: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

/// What the filter makes of a stream in these pieces.
fn filter(pieces: &[Vec<u8>]) -> (Vec<u8>, Result<Inflator, InflateError>) {
    let (mut engine, mut filter, mut output) = (InflateEngine::new(), Inflator::default(), Vec::new());
    for piece in pieces {
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            let mut portion = Vec::new();
            let end = filter.feed(&mut engine, rest, &mut portion, LIMITS);
            output.append(&mut portion);
            match end {
                Ok(left) => rest = left,
                Err(error) => return (output, Err(error)),
            }
        }
    }
    (output, Ok(filter))
}

/// The messages of a stream that must be valid.
fn messages(stream: &[u8]) -> Vec<Message> {
    let (output, end) = filter(&[stream.to_vec()]);
    assert!(end.unwrap().is_idle());
    let (messages, error) = protocol(&[output], false);
    assert_eq!(error, None);
    messages
}

fn fails(stream: &[u8]) -> InflateError {
    filter(&[stream.to_vec()]).1.unwrap_err()
}

/// One compressed text message in one frame.
fn compressed(payload: &[u8]) -> Vec<u8> {
    frame(0xc1, KEY, payload)
}

/// Compressed as a client may: any level, no tail.
fn deflate(plain: &[u8], level: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() * 2 + 100);
    let mut codec = Compress::new(Compression::new(level), false);
    codec.compress_vec(plain, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

/// A compressed message in frames of `size` bytes.
fn fragments(payload: &[u8], size: usize) -> Vec<u8> {
    let chunks: Vec<&[u8]> = payload.chunks(size).collect();
    let last = chunks.len() - 1;
    let one = |(i, chunk): (usize, &&[u8])| {
        let opcode = if i == 0 { 0x41 } else { 0x00 };
        frame(opcode | if i == last { 0x80 } else { 0 }, KEY, chunk)
    };
    chunks.iter().enumerate().flat_map(one).collect()
}

/// Bytes that deflate cannot make shorter.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

// checklist: 316
#[test]
fn the_examples_of_rfc_7692_are_read() {
    let hello: [&[u8]; 4] = [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ];
    for payload in hello {
        assert_eq!(messages(&compressed(payload)), [Message::text("Hello")], "{payload:x?}");
        for size in 1..payload.len() {
            assert_eq!(messages(&fragments(payload, size)), [Message::text("Hello")], "{payload:x?} by {size}");
        }
    }
}

#[test]
fn a_message_that_refers_to_the_one_before_is_invalid() {
    let first = compressed(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    let second = compressed(&[0xf2, 0x00, 0x11, 0x00, 0x00]);
    let (output, end) = filter(&[[first, second].concat()]);
    assert_eq!(end.unwrap_err(), InflateError::InvalidData);
    assert_eq!(protocol(&[output], false).0, [Message::text("Hello")], "what came before is kept");
}

#[test]
fn the_empty_message_has_three_forms() {
    for payload in [&[][..], &[0x00], &[0x02, 0x00]] {
        assert_eq!(messages(&compressed(payload)), [Message::text("")], "{payload:x?}");
    }
}

#[test]
fn a_final_block_may_end_a_message_or_be_followed_by_more() {
    let fin = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(messages(&compressed(&fin)), [Message::text("Hello")]);
    assert_eq!(messages(&compressed(&[&fin[..], &fin[..]].concat())), [Message::text("HelloHello")]);
}

#[test]
fn data_that_is_not_deflate_is_refused() {
    let whole = deflate(br#"{"action":"say","text":"something long enough for a block of its own"}"#, 6);
    let cases: [&[u8]; 5] =
        [&[0xff, 0xff, 0xff], &[0x07], &[0x00, 0x05, 0x00, 0xff, 0xff], &whole[..whole.len() - 2], &whole[1..]];
    for payload in cases {
        assert_eq!(fails(&compressed(payload)), InflateError::InvalidData, "{payload:x?}");
    }
}

// checklist: 318
#[test]
fn a_message_inflates_to_its_limit_and_no_further() {
    let exact = deflate(&vec![b'a'; LIMITS.max_message], 9);
    assert_eq!(messages(&compressed(&exact)), [Message::text("a".repeat(LIMITS.max_message))]);
    let beyond = deflate(&vec![b'a'; LIMITS.max_message + 1], 9);
    assert_eq!(fails(&compressed(&beyond)), InflateError::TooBig);
}

// checklist: 318
#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let bomb = deflate(&vec![0; 30 << 20], 9);
    assert!(bomb.len() < LIMITS.max_frame, "small enough to be one frame: {}", bomb.len());
    let (mut engine, mut output) = (InflateEngine::new(), Vec::new());
    let stream = compressed(&bomb);
    let end = Inflator::default().feed(&mut engine, &stream, &mut output, LIMITS);
    assert_eq!(end, Err(InflateError::TooBig));
    assert_eq!(output.capacity(), 0);
    assert!(engine.room() <= LIMITS.max_message + 1, "{}", engine.room());
}

#[test]
fn many_bombs_in_one_read_are_inflated_one_after_the_other() {
    let bomb = compressed(&deflate(&vec![0; LIMITS.max_message], 9));
    let read = bomb.repeat(100);
    let (mut engine, mut filter, mut output) = (InflateEngine::new(), Inflator::default(), Vec::new());
    let rest = filter.feed(&mut engine, &read, &mut output, LIMITS).unwrap();
    assert_eq!(rest.len(), 99 * bomb.len());
    assert!(filter.is_idle() && output.len() <= LIMITS.max_message + 14, "{}", output.len());
}

#[test]
fn an_incompressible_message_of_full_size_fits_although_it_grows() {
    let plain = noise(LIMITS.max_message);
    let payload = deflate(&plain, 0);
    assert!(payload.len() > LIMITS.max_message);
    let stream: Vec<u8> = fragments(&payload, LIMITS.max_frame);
    let binary = [&[0x42], &stream[1..]].concat();
    assert_eq!(messages(&binary), [Message::binary(plain)]);
}

#[test]
fn collected_bytes_are_bounded_whatever_they_would_inflate_to() {
    // Empty stored blocks: five bytes each that inflate to nothing.
    let nothing = [0x00, 0x00, 0x00, 0xff, 0xff].repeat(LIMITS.max_message / 4);
    let (_, end) = filter(&[fragments(&nothing, LIMITS.max_frame)]);
    assert_eq!(end.unwrap_err(), InflateError::TooBig);
    let (_, end) = filter(&[frame(0x41, KEY, &nothing[..LIMITS.max_frame])]);
    let held = end.unwrap().held_bytes();
    assert!((LIMITS.max_frame..=2 * LIMITS.max_frame).contains(&held), "{held}");
}

#[test]
fn the_frame_limit_holds_for_compressed_and_plain_frames_before_their_payload() {
    for first in [0xc1, 0x81, 0x41, 0x01] {
        let fits = frame(first, KEY, &vec![0; LIMITS.max_frame]);
        assert!(filter(&[fits[..8].to_vec()]).1.is_ok(), "{first:x}");
        let header = &frame(first, KEY, &vec![0; LIMITS.max_frame + 1])[..8];
        assert_eq!(fails(header), InflateError::TooBig, "{first:x}");
    }
}

#[test]
fn a_ping_inside_a_compressed_message_passes_at_once() {
    let payload = deflate(b"Hello, hello, hello", 6);
    let (a, b) = payload.split_at(4);
    let ping = frame(0x89, KEY, b"p");
    let mut filter = Inflator::default();
    let (mut engine, mut output) = (InflateEngine::new(), Vec::new());
    filter.feed(&mut engine, &[frame(0x41, KEY, a), ping.clone()].concat(), &mut output, LIMITS).unwrap();
    assert_eq!(output, ping);
    assert!(!filter.is_idle() && filter.held_bytes() >= 4);
    filter.feed(&mut engine, &frame(0x80, KEY, b), &mut output, LIMITS).unwrap();
    assert!(filter.is_idle());
    assert_eq!(filter.held_bytes(), 0);
    let (messages, error) = protocol(&[output], false);
    assert_eq!(messages, [Message::Ping("p".into()), Message::text("Hello, hello, hello")]);
    assert_eq!(error, None);
}

#[test]
fn breaches_of_the_protocol_are_reported() {
    let start = frame(0x41, KEY, b"x");
    let plain = frame(0x01, KEY, b"x");
    let after = |before: &[u8], first: u8| [before, &frame(first, KEY, b"x")].concat();
    let cases = [
        frame(0xc1, None, b"x"),
        frame(0xc9, KEY, b"p"),
        frame(0xc8, KEY, b""),
        after(&start, 0xc0),
        after(&start, 0x81),
        after(&start, 0xc1),
        after(&plain, 0xc0),
        after(&plain, 0xc1),
        after(&[], 0x80),
        after(&[], 0xe1),
        after(&[], 0x91),
        after(&[], 0x83),
        after(&[], 0x8b),
        after(&[], 0x09),
        frame(0x89, KEY, &[0; 126]),
    ];
    for stream in cases {
        assert_eq!(fails(&stream), InflateError::ProtocolError, "{stream:x?}");
    }
}

#[test]
fn inflated_text_is_still_checked_for_utf_8() {
    let (output, _) = filter(&[compressed(&deflate(&[0xc3, 0x28], 6))]);
    let (messages, error) = protocol(&[output], false);
    assert!(messages.is_empty());
    assert!(error.unwrap().contains("UTF-8"));
}

// checklist: 317
#[test]
fn no_message_needs_a_larger_window_than_was_agreed() {
    let block = noise(700);
    // The same bytes again at every distance up to 32 KiB.
    let plain: Vec<u8> = (0..40_u8).flat_map(|i| [&block[..], &vec![i; usize::from(i) * 37]].concat()).collect();
    let mut deflator = Deflator::new();
    for bits in 9..=15 {
        let mut out = Vec::new();
        assert!(deflator.compress(&plain, bits, &mut out), "{bits}");
        let (read, farthest) = distance::read(&[&out[..], &[0x00, 0x00, 0xff, 0xff]].concat());
        assert_eq!(read, plain, "{bits}");
        assert!(farthest <= 1 << bits, "{farthest} with {bits} bits");
        assert!(bits < 10 || farthest > 512, "a larger window is used: {farthest} with {bits} bits");
    }
}

#[test]
fn what_does_not_get_shorter_is_left_to_be_sent_as_it_is() {
    let mut deflator = Deflator::new();
    let mut out = b"before".to_vec();
    for payload in [noise(5000), Vec::new(), b"x".to_vec()] {
        assert!(!deflator.compress(&payload, 15, &mut out));
        assert_eq!(out, b"before");
    }
    assert!(!deflator.compress(&[0; 500], 8, &mut out), "a window that cannot be agreed");
    assert!(!deflator.compress(&[0; 500], 16, &mut out), "a window that cannot be agreed");
    assert!(deflator.compress(&[0; WORTHWHILE_BYTES], 9, &mut out));
    assert!(out.starts_with(b"before"));
}

/// A stream of valid messages, compressed and plain, in fragments with pings between, and what they are.
fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<Message>)> {
    let text = prop_oneof!["[a-z ]{0,40}", "(hello |world ){0,400}", "\\PC{0,60}"];
    let message = (text, 0..10_u32, 1..500_usize, any::<bool>());
    prop::collection::vec(message, 1..6).prop_map(|all| {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for (text, level, size, ping) in all {
            if level == 0 {
                stream.extend(frame(0x81, KEY, text.as_bytes()));
            } else {
                let payload = deflate(text.as_bytes(), level);
                let frames: Vec<Vec<u8>> = cut_frames(&fragments(&payload, size));
                let last = frames.len() - 1;
                for (i, one) in frames.into_iter().enumerate() {
                    stream.extend(one);
                    if ping && i != last {
                        stream.extend(frame(0x89, KEY, b"p"));
                        expected.push(Message::Ping("p".into()));
                    }
                }
            }
            expected.push(Message::text(text));
        }
        (stream, expected)
    })
}

/// The frames of a stream, by its headers.
fn cut_frames(stream: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut frames) = (stream, Vec::new());
    while !rest.is_empty() {
        let mut header = crate::session::walker::Header::default();
        let size = header.fill(rest) + header.payload_len() as usize;
        frames.push(rest[..size].to_vec());
        rest = &rest[size..];
    }
    frames
}

fn any_frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => prop::sample::select(&[0x81_u8, 0x01, 0x00, 0x80, 0x89, 0xc1, 0x41][..]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        Just(deflate(b"hello hello hello", 6)),
        Just(vec![0x00]),
    ];
    let one = (first, payload).prop_map(|(first, payload)| frame(first, KEY, &payload));
    (prop::collection::vec(one, 0..8), prop::collection::vec(any::<u8>(), 0..20))
        .prop_map(|(frames, junk)| [frames.concat(), junk].concat())
}

proptest! {
    #[test]
    fn any_cut_of_a_conversation_gives_its_messages((stream, expected) in conversation(), cuts in any_cuts()) {
        let (output, end) = filter(&cut(&stream, &cuts));
        prop_assert!(end.unwrap().is_idle());
        let (messages, error) = protocol(&[output], false);
        prop_assert_eq!(error, None);
        prop_assert_eq!(messages, expected);
    }

    #[test]
    fn any_cut_of_any_stream_gives_the_same_output(stream in any_frames(), cuts in any_cuts()) {
        let (whole, whole_end) = filter(std::slice::from_ref(&stream));
        let (pieces, pieces_end) = filter(&cut(&stream, &cuts));
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(whole_end.map(|f| format!("{f:?}")), pieces_end.map(|f| format!("{f:?}")));
    }

    #[test]
    fn a_stream_without_compression_passes_unchanged_or_fails_in_the_library_too(mut stream in any_frames()) {
        let mut at = 0;
        for one in cut_frames_lossy(&stream) {
            stream[at] &= !0x40;
            at += one;
        }
        let (output, end) = filter(std::slice::from_ref(&stream));
        let plain = protocol(std::slice::from_ref(&stream), false);
        match end {
            Ok(_) => prop_assert!(stream.starts_with(&output) && stream.len() - output.len() < 14),
            Err(_) => prop_assert!(plain.1.is_some() || stream.len() - output.len() < 126 || plain.0.last().is_some_and(Message::is_close)),
        }
        let seen = protocol(&[output], false).0;
        prop_assert_eq!(&plain.0[..seen.len()], &seen[..]);
    }

    #[test]
    fn what_is_compressed_is_read_back(text in "(hello |world |[a-z]){0,600}", bits in 9..=15_u8) {
        let mut out = Vec::new();
        if Deflator::new().compress(text.as_bytes(), bits, &mut out) {
            prop_assert!(out.len() < text.len());
            prop_assert_eq!(messages(&fragments(&out, 1000)), [Message::text(text)]);
        }
    }
}

/// Lengths of the frames that are whole, the last one maybe cut short.
fn cut_frames_lossy(stream: &[u8]) -> Vec<usize> {
    let (mut at, mut sizes) = (0, Vec::new());
    while at < stream.len() {
        let mut header = crate::session::walker::Header::default();
        let taken = header.fill(&stream[at..]);
        let payload = usize::try_from(header.payload_len()).unwrap_or(usize::MAX / 2);
        let size = (taken + payload).min(stream.len() - at);
        sizes.push(size);
        at += size;
    }
    sizes
}
