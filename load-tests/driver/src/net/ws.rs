//! WebSocket bytes: the handshake a browser sends, masked frames out, plain frames in.

use std::net::SocketAddr;

use anyhow::{Result, bail};

/// Sent by every session; the answer to it is known (RFC 6455 §1.3), so checking costs a search.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Masking is by a fixed key: a server has the same work with any key that is not zero.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Largest payload taken from a server.
pub const MAX_PAYLOAD: usize = 192 * 1024;

/// Frame opcodes the driver looks at.
pub mod opcode {
    /// A text message.
    pub const TEXT: u8 = 1;
    /// A close frame.
    pub const CLOSE: u8 = 8;
    /// A ping.
    pub const PING: u8 = 9;
    /// A pong.
    pub const PONG: u8 = 10;
}

/// How much a handshake says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headers {
    /// What the protocol asks for.
    Plain,
    /// What Chromium sends, `permessage-deflate` offered.
    Browser,
}

/// The opening request.
pub fn handshake(host: SocketAddr, path: &str, headers: Headers) -> Vec<u8> {
    let common = format!(
        "Host: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    let browser = format!(
        "Pragma: no-cache\r\nCache-Control: no-cache\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36\r\n\
         Origin: http://{host}\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n\
         Cookie: session=2f6c1f0f5d0a4f6c9e3b7a4d8c1e5f90; theme=dark\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    );
    let extra = match headers {
        Headers::Plain => "",
        Headers::Browser => &browser,
    };
    format!("GET {path} HTTP/1.1\r\n{common}{extra}\r\n").into_bytes()
}

/// Length of a complete answer to [`handshake`], or `None` while it is not all there.
pub fn accepted(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() > 16 * 1024 {
            bail!("the answer to the handshake has no end");
        }
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    if !head.starts_with("HTTP/1.1 101") {
        bail!("handshake refused: {}", head.lines().next().unwrap_or_default());
    }
    if !head.contains(ACCEPT) {
        bail!("handshake answered with a wrong Sec-WebSocket-Accept");
    }
    Ok(Some(end + 4))
}

/// A whole masked frame.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        middle @ 126..=65_535 => {
            out.push(0x80 | 0x7e);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 0x7f);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// A whole masked text frame.
pub fn text(payload: &str) -> Vec<u8> {
    frame(opcode::TEXT, payload.as_bytes())
}

/// A close frame with status 1000.
pub fn close() -> Vec<u8> {
    frame(opcode::CLOSE, &1000_u16.to_be_bytes())
}

/// A frame from a server, found at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Its kind; 0 continues the one before.
    pub opcode: u8,
    /// Whether the message ends here.
    pub last: bool,
    /// What it carries.
    pub payload: &'a [u8],
    /// Bytes it took, header included.
    pub taken: usize,
}

/// The first frame of `bytes`, or `None` while it is not all there.
pub fn incoming(bytes: &[u8]) -> Result<Option<Incoming<'_>>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & 0x80 != 0 {
        bail!("the server sent a masked frame");
    }
    let (length, header) = match (second, rest) {
        (126, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 4),
        (127, rest) => match rest.first_chunk::<8>() {
            Some(length) => (u64::from_be_bytes(*length) as usize, 10),
            None => return Ok(None),
        },
        (126, _) => return Ok(None),
        (short, _) => (usize::from(*short), 2),
    };
    if length > MAX_PAYLOAD {
        bail!("the server sent a frame of {length} bytes");
    }
    let taken = header + length;
    Ok(bytes.get(header..taken).map(|payload| Incoming {
        opcode: first & 0x0f,
        last: first & 0x80 != 0,
        payload,
        taken,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_only_when_it_is_all_there() {
        for length in [0_usize, 64, 125, 126, 65_535, 65_536] {
            let mut bytes = frame(opcode::TEXT, &vec![b'x'; length]);
            // A server's frame is the client's without mask bit and key.
            bytes[1] &= 0x7f;
            let header = bytes.len() - length - 4;
            bytes.drain(header..header + 4);
            for byte in &mut bytes[header..] {
                *byte = b'x';
            }
            assert_eq!(incoming(&bytes[..bytes.len() - 1]).unwrap(), None, "{length}");
            bytes.extend(b"next");
            let found = incoming(&bytes).unwrap().unwrap();
            assert_eq!((found.payload.len(), found.taken), (length, header + length));
        }
    }

    #[test]
    fn a_refusal_says_its_status() {
        let refused = accepted(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert!(refused.to_string().contains("503"), "{refused}");
        assert_eq!(accepted(b"HTTP/1.1 101 Switching").unwrap(), None);
    }

    #[test]
    fn masking_is_undone_by_the_same_key() {
        let bytes = text("hello");
        let plain: Vec<u8> =
            bytes[6..].iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(plain, b"hello");
    }
}
