//! The only code that speaks tokio-tungstenite: bytes of a turn in, whole messages out; frames for what leaves.

use std::io::{self, Read, Write};

use bytes::Bytes;
use tokio_tungstenite::tungstenite;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use crate::fault::CloseReason;
use crate::limits::Limits;
use crate::message::{Kind, Message};

/// `Sec-WebSocket-Accept` for a client's key (RFC 6455, 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    tungstenite::handshake::derive_accept_key(key)
}

/// A turn's bytes as a stream: reading ends with *would block* when they are used up, writing never blocks.
#[derive(Debug)]
pub(super) struct Pipe<'a> {
    pub(super) input: &'a [u8],
    pub(super) output: &'a mut Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buf)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the client's bytes amount to.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A whole message.
    Message(Message),
    /// A ping; its pong is on its way out.
    Ping,
    /// A pong, asked for or not.
    Pong,
    /// A close frame; its echo is on its way out.
    Close(CloseReason),
    /// The bytes are used up.
    Dry,
    /// The client broke a rule; the close frame to send is the reason's.
    Broken(CloseReason),
}

/// The protocol state of one session, for a turn or for as long as it is off a message boundary.
#[derive(Debug)]
pub(super) struct Protocol(WebSocketContext);

impl Protocol {
    /// A server's side. `expected` is how many bytes one read should take; frames are bounded by `max_frame`.
    pub(super) fn new(limits: &Limits, max_frame: usize, expected: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(expected)
            // Pongs and close echoes go to the turn's output at once: nothing may hide in a buffer of tungstenite's,
            // or a push could split it.
            .write_buffer_size(0)
            .max_message_size(Some(limits.max_message_bytes))
            .max_frame_size(Some(max_frame));
        Self(WebSocketContext::new(Role::Server, Some(config)))
    }

    /// The next thing the client said.
    pub(super) fn next(&mut self, pipe: &mut Pipe<'_>) -> Incoming {
        loop {
            return match self.0.read(pipe) {
                Ok(tungstenite::Message::Text(text)) => Incoming::Message(Message::text_from(Bytes::from(text))),
                Ok(tungstenite::Message::Binary(bytes)) => Incoming::Message(Message::binary(bytes)),
                Ok(tungstenite::Message::Ping(_)) => {
                    // The pong is written by the next read or by this flush, whichever comes first.
                    let _to_memory = self.0.flush(pipe);
                    Incoming::Ping
                }
                Ok(tungstenite::Message::Pong(_)) => Incoming::Pong,
                Ok(tungstenite::Message::Close(frame)) => {
                    // Writes the echo; the error it returns says no more than that.
                    let _closed = self.0.flush(pipe);
                    Incoming::Close(match frame {
                        None => CloseReason::ClientClosedSilently,
                        Some(frame) => {
                            CloseReason::ClientClosed { code: frame.code.into(), reason: frame.reason.as_str().into() }
                        }
                    })
                }
                // Only made by a client that asks for raw frames.
                Ok(tungstenite::Message::Frame(_)) => continue,
                Err(tungstenite::Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => Incoming::Dry,
                Err(error) => Incoming::Broken(reason_for(&error)),
            };
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the foreign enum grows; whatever is new is a protocol error")]
fn reason_for(error: &tungstenite::Error) -> CloseReason {
    match error {
        tungstenite::Error::Capacity(_) => CloseReason::TooBig,
        tungstenite::Error::Utf8(_) => CloseReason::InvalidUtf8,
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => CloseReason::ClientVanished,
        _ => CloseReason::ProtocolError,
    }
}

/// Appends a message as frames of at most `max_frame` bytes of payload; `deflated` sets the bit that says so.
pub(super) fn frame_message(out: &mut Vec<u8>, kind: Kind, payload: &[u8], max_frame: usize, deflated: bool) {
    let first = match kind {
        Kind::Text => Data::Text,
        Kind::Binary => Data::Binary,
    };
    if payload.len() <= max_frame {
        return frame(out, OpCode::Data(first), payload, true, deflated);
    }
    let mut chunks = payload.chunks(max_frame.max(1)).peekable();
    let mut opcode = first;
    let mut marked = deflated;
    while let Some(chunk) = chunks.next() {
        frame(out, OpCode::Data(opcode), chunk, chunks.peek().is_none(), marked);
        (opcode, marked) = (Data::Continue, false);
    }
}

/// Appends a ping without payload.
pub(super) fn frame_ping(out: &mut Vec<u8>) {
    frame(out, OpCode::Control(Control::Ping), &[], true, false);
}

/// Appends a close frame.
pub(super) fn frame_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    frame(out, OpCode::Control(Control::Close), &payload, true, false);
}

fn frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8], is_final: bool, rsv1: bool) {
    let header = FrameHeader { is_final, rsv1, rsv2: false, rsv3: false, opcode, mask: None };
    // Writing to memory cannot fail.
    let _infallible = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_split_at_the_frame_limit() {
        let mut out = Vec::new();
        frame_message(&mut out, Kind::Text, &[b'x'; 70], 32, true);
        // text, not final, RSV1 | 32 … continuation | 32 … final continuation | 6
        assert_eq!((out[0], out[1]), (0x41, 32));
        assert_eq!((out[34], out[35]), (0x00, 32));
        assert_eq!((out[68], out[69], out.len()), (0x80, 6, 76));
    }

    #[test]
    fn an_empty_message_is_one_empty_frame() {
        let mut out = Vec::new();
        frame_message(&mut out, Kind::Text, b"", 32, false);
        assert_eq!(out, [0x81, 0]);
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        let mut out = Vec::new();
        frame_close(&mut out, 1001, "Going away");
        assert_eq!(&out[..4], [0x88, 12, 0x03, 0xe9]);
    }
}
