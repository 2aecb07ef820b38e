//! Parsing the start of a connection, and what is said of its client, from bytes alone.

use std::net::{IpAddr, SocketAddr};

use super::wire::{self, NoHead};
use super::{ForwardedHeader, Networks, forwarded, proxy};

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

/// Reads a PROXY header at the start of `buffer`: its length in bytes and the client it names, if it is whole; an error's
/// text when it will never be one.
///
/// # Errors
/// The bytes are no header, whatever follows them.
pub fn proxy_header(buffer: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, String> {
    proxy::look(buffer).map_err(|error| error.to_string())
}

/// The client's address after the lines of one of the two headers, as a peer sends them.
pub fn client(header: ForwardedHeader, lines: &[&str], peer: IpAddr, trusted: &Networks) -> IpAddr {
    forwarded::look(header, lines, peer, trusted)
}
