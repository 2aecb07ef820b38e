//! Reading frames and greetings from bytes alone.

use super::codec::{decode_request, decode_response, encode_request, encode_response};
use super::frame::{Input, MAX_PAYLOAD_BYTES, kinds};
use super::greeting::Hello;

/// One payload that was taken, and what it is when written again; the two are the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// As it arrived.
    pub payload: Vec<u8>,
    /// As this version writes it.
    pub again: Vec<u8>,
}

/// Reads a stream of frames, cut into `piece` bytes a read, until its end or the first that is refused.
pub fn link_frames(stream: &[u8], piece: usize) -> Vec<Taken> {
    let mut input = Input::new(MAX_PAYLOAD_BYTES);
    let mut taken = Vec::new();
    for read in stream.chunks(piece.max(1)) {
        if let Some(room) = input.room(read.len()).get_mut(..read.len()) {
            room.copy_from_slice(read);
        }
        input.arrived(read.len());
        loop {
            let frame = match input.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return taken,
            };
            let mut again = Vec::new();
            if frame.kind >= kinds::FIRST_RESPONSE {
                let Ok(response) = decode_response(frame.kind, frame.payload) else { return taken };
                encode_response(&mut again, &response);
            } else {
                let Ok((deadline_ms, request)) = decode_request(frame.kind, frame.payload) else { return taken };
                encode_request(&mut again, deadline_ms, &request);
            }
            taken.push(Taken { payload: frame.payload.to_vec(), again });
        }
    }
    taken
}

/// Reads what a node says of itself, and writes it again; what follows in the bytes is of a later version.
pub fn link_hello(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut again = Vec::new();
    Hello::decode(bytes).ok()?.encode(&mut again);
    Some(again)
}
