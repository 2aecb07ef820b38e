//! The reading side of a session over bytes alone: what a turn does, without a socket or a gateway.

use bytes::Bytes;

use super::deflate::{FrameLimits, InflateEngine, Inflator};
use super::transport::{Incoming, Pipe, Protocol};
use super::turn::reason_for;
use super::walker::Walker;
use crate::fault::CloseReason;
use crate::limits::Limits;
use crate::message::Kind;

/// What a client's stream amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// Whole messages, in order.
    pub messages: Vec<(Kind, Bytes)>,
    /// Pongs and the close echo, framed.
    pub answers: Vec<u8>,
    /// Why the session must end, if it must.
    pub end: Option<CloseReason>,
    /// Whether a parked session would hold nothing now.
    pub is_idle: bool,
}

/// Listens to a stream that arrives in `pieces`; the protocol state is forgotten at every message boundary.
pub fn listen<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, compressed: bool, limits: &Limits) -> Heard {
    let mut heard = Heard { is_idle: true, ..Heard::default() };
    let (mut walker, mut inflator, mut engine) = (Walker::default(), Inflator::default(), InflateEngine::default());
    let mut kept = None;
    let sizes = FrameLimits { max_frame: limits.max_frame_bytes, max_message: limits.max_message_bytes };
    for piece in pieces {
        let mut plain = Vec::new();
        let mut broken = Ok(());
        let input = if compressed {
            let mut rest = piece;
            while !rest.is_empty() && broken.is_ok() {
                let mut portion = Vec::new();
                let fed = inflator.feed(&mut engine, rest, &mut portion, sizes);
                plain.append(&mut portion);
                rest = fed.unwrap_or_default();
                broken = fed.map(drop);
            }
            plain.as_slice()
        } else {
            piece
        };
        walker.walk(input);
        let max_frame = if compressed { limits.max_message_bytes } else { limits.max_frame_bytes };
        let mut protocol = kept.take().unwrap_or_else(|| Protocol::new(limits, max_frame, input.len().max(16)));
        let mut pipe = Pipe { input, output: &mut heard.answers };
        heard.end = loop {
            match protocol.next(&mut pipe) {
                Incoming::Message(message) => heard.messages.push((message.kind(), message.payload().clone())),
                Incoming::Ping | Incoming::Pong => {}
                Incoming::Dry => break broken.err().map(reason_for),
                Incoming::Close(reason) | Incoming::Broken(reason) => break Some(reason),
            }
        };
        heard.is_idle = heard.end.is_none() && walker.at_boundary() && inflator.is_idle();
        if heard.end.is_some() {
            break;
        }
        if !walker.at_boundary() {
            kept = Some(protocol);
        }
    }
    heard
}
