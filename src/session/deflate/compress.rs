//! Messages to the client, each compressed for itself.

use flate2::{Compress, Compression, FlushCompress};

/// Payloads below this go out as they are: compressing one costs about 2 µs whatever its size, saves half of 256 bytes of
/// JSON and next to nothing of 64.
pub(crate) const WORTHWHILE_BYTES: usize = 256;

/// What ends a flushed block on a byte boundary; a message is sent without it (RFC 7692, section 7.2.1).
const FLUSH_TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Windows the codec knows, as base-2 logarithms.
const WINDOWS: std::ops::RangeInclusive<u8> = 9..=15;

/// Level 1: 2.6 µs for 1 KiB of JSON. Level 6 takes three times as long and saves a quarter more.
const LEVEL: u32 = 1;

/// Compresses messages; one serves all sessions of a shard.
///
/// Keeps one codec for each window size that was ever asked for, made when it first is.
#[derive(Debug, Default)]
pub(crate) struct Deflator {
    codecs: [Option<Compress>; 7],
}

impl Deflator {
    /// A deflator that holds nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Appends `payload`, compressed, to `out`: the payload of a message whose first frame carries RSV1.
    ///
    /// `window_bits` is what was negotiated, 9 to 15. Returns false, with `out` unchanged, when the compressed form is not
    /// shorter; the message then goes out as it is.
    pub(crate) fn compress(&mut self, payload: &[u8], window_bits: u8, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        if self.append(payload, window_bits, out).is_some() && out.len() - start < payload.len() {
            return true;
        }
        out.truncate(start);
        false
    }

    fn append(&mut self, payload: &[u8], window_bits: u8, out: &mut Vec<u8>) -> Option<()> {
        let place = window_bits.checked_sub(*WINDOWS.start()).map(usize::from)?;
        let codec = self
            .codecs
            .get_mut(place)?
            .get_or_insert_with(|| Compress::new_with_window_bits(Compression::new(LEVEL), false, window_bits));
        codec.reset();
        // Room for the worst case, nine bits a byte and a header for each block, so that one call does it all: a flush
        // that ran out of room would be marked twice.
        out.reserve(payload.len() + payload.len() / 8 + payload.len() / 64 + 128);
        codec.compress_vec(payload, out, FlushCompress::Sync).ok()?;
        let whole = codec.total_in() == payload.len() as u64 && out.len() < out.capacity();
        let without_tail = out.strip_suffix(&FLUSH_TAIL)?.len();
        out.truncate(without_tail);
        whole.then_some(())
    }
}
