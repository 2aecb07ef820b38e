//! The client's half of `permessage-deflate` (RFC 7692), without context take-over.

use flate2::{Compress, Compression, FlushCompress};

/// What every flush ends with, and what is not sent (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// A message's payload, compressed.
pub(crate) fn deflate(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    let mut compress = Compress::new(Compression::default(), false);
    loop {
        let used = compress.total_in() as usize;
        compress.compress_vec(&message[used..], &mut out, FlushCompress::Sync).unwrap();
        if compress.total_in() as usize == message.len() && out.len() < out.capacity() {
            break;
        }
        out.reserve(1_024);
    }
    assert!(out.ends_with(&TAIL));
    out.truncate(out.len() - TAIL.len());
    out
}

/// A payload turned back into its message by a client whose window has `window_bits`. Written out by the book (RFC
/// 1951), since the libraries remember more than they were asked to and so miss a reference beyond the window.
pub(crate) fn inflate(payload: &[u8], window_bits: u32) -> Result<Vec<u8>, String> {
    let input = [payload, &TAIL].concat();
    let mut bits = Bits { input: &input, position: 0 };
    let mut out = Vec::new();
    loop {
        let last = bits.take(1)?;
        match bits.take(2)? {
            0 => bits.stored(&mut out)?,
            1 => {
                let mut lengths = [[8; 144].as_slice(), &[9; 112], &[7; 24], &[8; 8]].concat();
                lengths.truncate(288);
                bits.block(&Code::new(&lengths), &Code::new(&[5; 30]), 1 << window_bits, &mut out)?;
            }
            2 => {
                let (literals, distances) = bits.codes()?;
                bits.block(&literals, &distances, 1 << window_bits, &mut out)?;
            }
            _ => return Err("a block of no kind".to_owned()),
        }
        if last == 1 || bits.position.div_ceil(8) == input.len() {
            return Ok(out);
        }
    }
}

/// A Huffman code: symbols by length, then by code.
struct Code {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Code {
    fn new(lengths: &[u8]) -> Self {
        let mut counts = [0; 16];
        for length in lengths {
            counts[*length as usize] += 1;
        }
        counts[0] = 0;
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| (lengths[*symbol], *symbol));
        Self { counts, symbols }
    }
}

struct Bits<'a> {
    input: &'a [u8],
    /// In bits.
    position: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Result<usize, String> {
        let mut value = 0;
        for n in 0..count {
            let byte = self.input.get(self.position / 8).ok_or("the payload ends within a block")?;
            value |= usize::from(byte >> (self.position % 8) & 1) << n;
            self.position += 1;
        }
        Ok(value)
    }

    fn stored(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        self.position = self.position.next_multiple_of(8);
        let (length, complement) = (self.take(16)?, self.take(16)?);
        if length != !complement & 0xffff {
            return Err("a stored block's length is not its length".to_owned());
        }
        for _ in 0..length {
            out.push(self.take(8)? as u8);
        }
        Ok(())
    }

    fn symbol(&mut self, code: &Code) -> Result<usize, String> {
        let (mut value, mut first, mut index) = (0, 0, 0);
        for count in &code.counts[1..] {
            value |= self.take(1)?;
            if value < first + count {
                return Ok(code.symbols[index + value - first]);
            }
            index += count;
            first = (first + count) << 1;
            value <<= 1;
        }
        Err("a code of no symbol".to_owned())
    }

    fn codes(&mut self) -> Result<(Code, Code), String> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let (literals, distances, count) = (self.take(5)? + 257, self.take(5)? + 1, self.take(4)? + 4);
        let mut of_lengths = [0; 19];
        for symbol in &ORDER[..count] {
            of_lengths[*symbol] = self.take(3)? as u8;
        }
        let code = Code::new(&of_lengths);
        let mut lengths: Vec<u8> = Vec::new();
        while lengths.len() < literals + distances {
            let (value, repeats) = match self.symbol(&code)? {
                16 => (*lengths.last().ok_or("nothing to repeat")?, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (length as u8, 1),
            };
            lengths.extend(std::iter::repeat_n(value, repeats));
        }
        Ok((Code::new(&lengths[..literals]), Code::new(&lengths[literals..literals + distances])))
    }

    fn block(&mut self, literals: &Code, distances: &Code, window: usize, out: &mut Vec<u8>) -> Result<(), String> {
        loop {
            let symbol = match self.symbol(literals)? {
                256 => return Ok(()),
                literal @ 0..256 => {
                    out.push(literal as u8);
                    continue;
                }
                symbol => symbol - 257,
            };
            let extra = if (8..28).contains(&symbol) { symbol / 4 - 1 } else { 0 };
            let length = match symbol {
                28 => 258,
                0..8 => symbol + 3,
                _ => ((4 + symbol % 4) << extra) + 3 + self.take(extra)?,
            };
            let symbol = self.symbol(distances)?;
            let extra = (symbol / 2).saturating_sub(1);
            let distance = if symbol < 4 { symbol + 1 } else { ((2 + symbol % 2) << extra) + 1 + self.take(extra)? };
            if distance > window || distance > out.len() {
                return Err(format!("a reference {distance} bytes back"));
            }
            for _ in 0..length {
                out.push(out[out.len() - distance]);
            }
        }
    }
}
