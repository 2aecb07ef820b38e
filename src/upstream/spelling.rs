//! Header names on the wire as their writer spelled them.
//!
//! HTTP/1.1 names have no case, but people read them and some back-ends compare them as written. hyper writes a name in
//! another spelling than its own only when the message carries the spellings in an extension, and it makes that
//! extension only while parsing a message. So one is parsed: a canned answer with exactly the names asked for, in memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Extensions, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::rt::{Read, ReadBufCursor, Write};

/// More names than this keep hyper's own spelling; its parser takes at most a hundred headers.
const MAX_NAMES: usize = 90;
/// Bytes of names taken; hyper's parser starts with a buffer of 8 KiB.
const MAX_BYTES: usize = 7 * 1024;

/// Extensions that make a request's headers go out in the spelling of `names`; a name given twice is spelled by its first
/// use first.
///
/// Costs a few microseconds: keep the result where the names are known beforehand. Names that are not header names, and
/// what is beyond 90 names or 7 KiB, are left out.
pub fn spelling<'a>(names: impl IntoIterator<Item = &'a str>) -> Extensions {
    let mut head = String::from("HTTP/1.1 200 OK\r\n");
    for name in names.into_iter().take(MAX_NAMES) {
        let framing = ["content-length", "transfer-encoding", "connection"];
        let legal = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
        if legal && !framing.iter().any(|f| name.eq_ignore_ascii_case(f)) && head.len() + name.len() < MAX_BYTES {
            head.push_str(name);
            head.push_str(":\r\n");
        }
    }
    head.push_str("Content-Length: 0\r\n\r\n");
    parse(head.into()).unwrap_or_default()
}

/// Lets hyper parse `head` as the answer to a request that goes nowhere. Nothing here waits: memory is always ready.
fn parse(head: Bytes) -> Option<Extensions> {
    let canned = Canned { head, asked: false };
    let handshake = http1::Builder::new().preserve_header_case(true).handshake::<_, Empty<Bytes>>(canned);
    let (mut sender, mut connection) = handshake.now_or_never()?.ok()?;
    let mut answer = std::pin::pin!(sender.send_request(Request::new(Empty::new())));
    let mut cx = Context::from_waker(Waker::noop());
    // Each side needs the other to move; three rounds do, the rest is slack.
    for _ in 0..8 {
        let _running = connection.poll_unpin(&mut cx);
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut cx) {
            return Some(answer.ok()?.into_parts().0.extensions);
        }
    }
    None
}

/// A peer in memory: takes a request, then gives its answer.
struct Canned {
    head: Bytes,
    asked: bool,
}

impl Read for Canned {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.asked || self.head.is_empty() {
            return Poll::Pending;
        }
        let some = self.head.len().min(to.remaining());
        to.put_slice(&self.head.split_to(some));
        Poll::Ready(Ok(()))
    }
}

impl Write for Canned {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
