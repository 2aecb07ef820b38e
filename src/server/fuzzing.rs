//! Parsing the head of a request from bytes alone.

use super::wire::{self, NoHead};

/// What the start of a connection amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// A whole head: method, target, headers, and its length in bytes.
    Head(String, String, Vec<(String, String)>, usize),
    /// More is needed.
    Partial,
    /// Refused with this status.
    Refused(u16),
    /// Left to the HTTP stack.
    NotOurs,
}

/// Parses the head at the start of `buffer`.
pub fn opening(buffer: &[u8], max_bytes: usize) -> Opening {
    match wire::parse(buffer, max_bytes) {
        Ok(Some(head)) => {
            // What routing asks of every head.
            let _questions =
                (head.path(), head.query(), head.content_length(), head.has_token("connection", "upgrade"));
            Opening::Head(head.method, head.target, head.headers, head.length)
        }
        Ok(None) | Err(NoHead::Closed) => Opening::Partial,
        Err(NoHead::Refused(fault)) => Opening::Refused(fault.row().status),
        Err(NoHead::NotOurs) => Opening::NotOurs,
    }
}
