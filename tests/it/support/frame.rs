//! One WebSocket frame, written and read by hand, so that a test can send what no client library would.

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A frame of RFC 6455, section 5.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    /// RSV1, RSV2, RSV3 as the bits `4`, `2`, `1`.
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A whole, masked frame.
    pub(crate) fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self { fin: true, rsv: 0, opcode, masked: true, payload: payload.as_ref().to_vec() }
    }

    pub(crate) fn text(payload: impl AsRef<[u8]>) -> Self {
        Self::new(TEXT, payload)
    }

    pub(crate) fn close(code: u16, reason: &str) -> Self {
        Self::new(CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    /// More fragments follow.
    pub(crate) fn unfinished(self) -> Self {
        Self { fin: false, ..self }
    }

    pub(crate) fn unmasked(self) -> Self {
        Self { masked: false, ..self }
    }

    pub(crate) fn with_rsv(self, rsv: u8) -> Self {
        Self { rsv, ..self }
    }

    /// The frame's head for a payload of `length` bytes, whatever the payload is.
    pub(crate) fn head(&self, length: usize) -> Vec<u8> {
        let mut out = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        let mask = u8::from(self.masked) << 7;
        match length {
            0..=125 => out.push(mask + length as u8),
            126..=0xffff => {
                out.push(mask + 126);
                out.extend((length as u16).to_be_bytes());
            }
            _ => {
                out.push(mask + 127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        if self.masked {
            out.extend(MASK);
        }
        out
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.head(self.payload.len());
        if self.masked {
            out.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        } else {
            out.extend(&self.payload);
        }
        out
    }

    /// The frame at the start of `bytes` and its length there, when it is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        let (length, start) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
            short => (u64::from(short), 2),
        };
        let masked = second & 0x80 != 0;
        let end = start + length as usize;
        let payload = bytes.get(start..end)?.to_vec();
        let frame = Self { fin: first & 0x80 != 0, rsv: first >> 4 & 7, opcode: first & 15, masked, payload };
        Some((frame, end))
    }

    /// Code and reason of a close frame.
    pub(crate) fn close_reason(&self) -> (Option<u16>, String) {
        assert_eq!(self.opcode, CLOSE, "no close frame: {self:?}");
        let code = self.payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        (code, String::from_utf8(self.payload.get(2..).unwrap_or_default().to_vec()).expect("a reason in UTF-8"))
    }

    pub(crate) fn into_text(self) -> String {
        String::from_utf8(self.payload).expect("a text frame in UTF-8")
    }
}

/// Any key masks; a fixed one makes failures repeatable.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
