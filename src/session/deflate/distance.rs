//! A plain reader of deflate (RFC 1951) for tests: it tells how far back a stream reaches, which the codec does not.

const BASE_LENGTH: [usize; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |value, i| {
            let bit = self.data[self.at / 8] >> (self.at % 8) & 1;
            self.at += 1;
            value | usize::from(bit) << i
        })
    }

    /// The next symbol of a canonical code given by its lengths.
    fn symbol(&mut self, lengths: &[usize]) -> usize {
        let (mut code, mut first) = (0, 0);
        for length in 1..16 {
            code = code << 1 | self.take(1);
            first <<= 1;
            let count = lengths.iter().filter(|one| **one == length).count();
            if code < first + count {
                let of_length = lengths.iter().enumerate().filter(|(_, one)| **one == length);
                return of_length.map(|(symbol, _)| symbol).nth(code - first).unwrap();
            }
            first += count;
        }
        panic!("no such code");
    }

    fn dynamic(&mut self) -> (Vec<usize>, Vec<usize>) {
        let (literals, distances, codes) = (self.take(5) + 257, self.take(5) + 1, self.take(4) + 4);
        let mut code_lengths = [0; 19];
        for place in &ORDER[..codes] {
            code_lengths[*place] = self.take(3);
        }
        let mut lengths: Vec<usize> = Vec::new();
        while lengths.len() < literals + distances {
            let (value, times) = match self.symbol(&code_lengths) {
                16 => (*lengths.last().unwrap(), 3 + self.take(2)),
                17 => (0, 3 + self.take(3)),
                18 => (0, 11 + self.take(7)),
                length => (length, 1),
            };
            lengths.extend(std::iter::repeat_n(value, times));
        }
        let distances = lengths.split_off(literals);
        (lengths, distances)
    }
}

/// What whole blocks hold, and the farthest distance any of them reaches back.
pub(super) fn read(data: &[u8]) -> (Vec<u8>, usize) {
    let mut bits = Bits { data, at: 0 };
    let (mut plain, mut farthest) = (Vec::new(), 0);
    while bits.at.div_ceil(8) < data.len() {
        let _last = bits.take(1);
        let (literals, distances) = match bits.take(2) {
            0 => {
                let start = bits.at.div_ceil(8) + 4;
                let len = usize::from(u16::from_le_bytes([data[start - 4], data[start - 3]]));
                plain.extend_from_slice(&data[start..start + len]);
                bits.at = (start + len) * 8;
                continue;
            }
            1 => ([vec![8; 144], vec![9; 112], vec![7; 24], vec![8; 8]].concat(), vec![5; 30]),
            _ => bits.dynamic(),
        };
        loop {
            let symbol = bits.symbol(&literals);
            match symbol {
                0..=255 => plain.push(symbol as u8),
                256 => break,
                _ => {
                    let code = symbol - 257;
                    let extra = if (8..28).contains(&code) { code / 4 - 1 } else { 0 };
                    let length = BASE_LENGTH[code] + bits.take(extra);
                    let code = bits.symbol(&distances);
                    let extra = (code / 2).saturating_sub(1);
                    let base = if code < 4 { code } else { (2 + code % 2) << extra };
                    let distance = 1 + base + bits.take(extra);
                    farthest = farthest.max(distance);
                    for _ in 0..length {
                        plain.push(plain[plain.len() - distance]);
                    }
                }
            }
        }
    }
    (plain, farthest)
}
