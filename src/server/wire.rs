//! Reading the head of a request, our own way: bounded, timed, header names as sent.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::fault::Fault;

/// Headers of one request; hyper's own bound.
const MAX_HEADERS: usize = 100;
/// Longest request target (specification 1.1.5).
pub(super) const MAX_TARGET: usize = 4_096;
/// First size of a connection's buffer: a browser's handshake fits.
const FIRST_READ: usize = 2_048;

/// A request's head. Owns its text: it outlives the buffer it was read into.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) is_http_11: bool,
    pub(super) headers: Vec<(String, String)>,
    /// Bytes of it in the buffer.
    pub(super) length: usize,
}

impl Head {
    /// All values of a header, in order.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All headers, in order, names as sent.
    pub(super) fn pairs(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// The only value of a header, or the first.
    pub(super) fn one<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    /// Whether a comma-separated header has a token.
    pub(super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    /// The target's path.
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The target's query, without `?`.
    pub(super) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether anything says that a body follows.
    pub(super) fn has_body(&self) -> bool {
        self.one("transfer-encoding").is_some() || self.one("content-length").is_some()
    }

    /// The body's length, when it is given as one; `None` for a chunked or contradictory one.
    pub(super) fn content_length(&self) -> Option<usize> {
        if self.one("transfer-encoding").is_some() {
            return None;
        }
        let mut lengths = self.all("content-length");
        let first = lengths.next()?;
        if lengths.next().is_some() || first.is_empty() || !first.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        first.parse().ok()
    }
}

/// Why there is no head.
#[derive(Debug)]
pub(super) enum NoHead {
    /// The client closed, or the transport failed, between requests or within one: nobody to answer.
    Closed,
    /// What to answer before closing.
    Refused(Fault),
    /// These bytes are no HTTP/1 request that we parse, but may be one hyper does: HTTP/2.
    NotOurs,
}

/// The preface of HTTP/2 (RFC 9113, 3.4).
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Parses the head at the start of `buffer`; `Ok(None)` when it is not whole.
pub(super) fn parse(buffer: &[u8], max_bytes: usize) -> Result<Option<Head>, NoHead> {
    if buffer.starts_with(HTTP_2.get(..buffer.len().min(HTTP_2.len())).unwrap_or_default()) && !buffer.is_empty() {
        return if buffer.len() < HTTP_2.len() { Ok(None) } else { Err(NoHead::NotOurs) };
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(buffer) {
        Ok(httparse::Status::Complete(length)) if length <= max_bytes => length,
        Ok(httparse::Status::Partial) if buffer.len() < max_bytes => {
            let target_too_long = request.path.is_some_and(|p| p.len() > MAX_TARGET);
            return if target_too_long { Err(NoHead::Refused(Fault::UriTooLong)) } else { Ok(None) };
        }
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => {
            let long_target = request.path.map_or_else(|| !buffer.contains(&b'\n'), |p| p.len() > MAX_TARGET);
            let fault = if long_target { Fault::UriTooLong } else { Fault::HeadersTooLarge };
            return Err(NoHead::Refused(fault));
        }
        Err(httparse::Error::TooManyHeaders) => return Err(NoHead::Refused(Fault::HeadersTooLarge)),
        Err(_) => return Err(NoHead::Refused(Fault::BadRequest)),
    };
    let target = request.path.unwrap_or_default();
    if target.len() > MAX_TARGET {
        return Err(NoHead::Refused(Fault::UriTooLong));
    }
    let mut owned = Vec::with_capacity(request.headers.len() + 4);
    for header in request.headers.iter() {
        owned.push((header.name.to_owned(), String::from_utf8_lossy(header.value).trim().to_owned()));
    }
    // Two hosts are two answers to where this goes, and who checks the one may not be who uses the other (RFC 9112, 3.2).
    if owned.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count() > 1 {
        return Err(NoHead::Refused(Fault::BadRequest));
    }
    Ok(Some(Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: target.to_owned(),
        is_http_11: request.version == Some(1),
        headers: owned,
        length,
    }))
}

/// Reads until `buffer` starts with a whole head. `idle` is the time to its first byte, `limit` from there to its last.
pub(super) async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    max_bytes: usize,
    idle: Duration,
    limit: Duration,
) -> Result<Head, NoHead> {
    if buffer.is_empty() {
        buffer.reserve(FIRST_READ);
        match timeout(idle, stream.read_buf(buffer)).await {
            Ok(Ok(n)) if n > 0 => {}
            Ok(_) | Err(_) => return Err(NoHead::Closed),
        }
    }
    // The common case, a head in one read, starts no second timer.
    if let Some(head) = parse(buffer, max_bytes)? {
        return Ok(head);
    }
    let whole = async {
        // A head that trickles in is not parsed for each of its bytes: only when it may be whole, or has doubled.
        let mut again_at = buffer.len() * 2;
        loop {
            let before = buffer.len();
            if buffer.capacity() == buffer.len() {
                buffer.reserve(FIRST_READ);
            }
            match stream.read_buf(buffer).await {
                Ok(n) if n > 0 => {}
                Ok(_) | Err(_) => return Err(NoHead::Closed),
            }
            if !may_end(buffer, before) && buffer.len() < again_at.min(max_bytes) {
                continue;
            }
            again_at = buffer.len() * 2;
            if let Some(head) = parse(buffer, max_bytes)? {
                return Ok(head);
            }
        }
    };
    timeout(limit, whole).await.unwrap_or(Err(NoHead::Refused(Fault::RequestTimeout)))
}

/// Whether an empty line ends in what came behind the first `before` bytes.
fn may_end(buffer: &[u8], before: usize) -> bool {
    let fresh = buffer.get(before.saturating_sub(3)..).unwrap_or_default();
    fresh.windows(2).any(|w| w == b"\n\n") || fresh.windows(3).any(|w| w == b"\n\r\n")
}

/// Reads a body of `length` bytes, some of which may be in `buffer`.
pub(super) async fn read_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    length: usize,
    limit: Duration,
) -> io::Result<BytesMut> {
    if buffer.len() < length {
        buffer.reserve(length - buffer.len());
        let fill = async {
            while buffer.len() < length {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
            Ok(())
        };
        timeout(limit, fill).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?;
    }
    Ok(buffer.split_to(length))
}

/// Reads and throws away what is left of a body of `length` bytes, at most `most`; whether all of it was.
pub(super) async fn skip_body<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    mut length: usize,
    most: usize,
    limit: Duration,
) -> bool {
    if length > most {
        return false;
    }
    let skip = async {
        loop {
            let here = buffer.len().min(length);
            buffer.advance(here);
            length -= here;
            if length == 0 {
                return true;
            }
            buffer.reserve(FIRST_READ);
            match stream.read_buf(buffer).await {
                Ok(n) if n > 0 => {}
                Ok(_) | Err(_) => return false,
            }
        }
    };
    timeout(limit, skip).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    #[test]
    fn header_names_keep_their_spelling() {
        let head = parse(b"GET /dev?a=1 HTTP/1.1\r\nhOsT: x\r\nX-CamelCase:  v \r\n\r\nrest", 1_000).unwrap().unwrap();
        assert_eq!(head.headers, [("hOsT".into(), "x".into()), ("X-CamelCase".into(), "v".into())]);
        assert_eq!((head.path(), head.query(), head.length), ("/dev", "a=1", 52));
    }

    #[test]
    fn floods_are_cut_off_at_the_limit() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(5_000));
        assert!(matches!(parse(long.as_bytes(), 16_384), Err(NoHead::Refused(Fault::UriTooLong))));
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(20_000));
        assert!(matches!(parse(endless.as_bytes(), 16_384), Err(NoHead::Refused(Fault::HeadersTooLarge))));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
        assert!(matches!(parse(many.as_bytes(), 16_384), Err(NoHead::Refused(Fault::HeadersTooLarge))));
        assert!(matches!(parse(b"\x16\x03\x01 garbage", 16_384), Err(NoHead::Refused(Fault::BadRequest))));
    }

    #[test]
    fn http_2_is_left_to_those_who_speak_it() {
        assert!(matches!(parse(b"PRI * HTT", 1_000), Ok(None)));
        assert!(matches!(parse(HTTP_2, 1_000), Err(NoHead::NotOurs)));
    }

    #[test]
    fn two_hosts_are_one_too_many() {
        let text = b"GET / HTTP/1.1\r\nHost: localhost\r\nHOST: evil.example\r\n\r\n";
        assert!(matches!(parse(text, 1_000), Err(NoHead::Refused(Fault::BadRequest))));
    }

    /// Gives `.1` bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl AsyncRead for Pieces<'_> {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let (piece, rest) = self.0.split_at(self.1.min(self.0.len()).min(buf.remaining()));
            buf.put_slice(piece);
            self.0 = rest;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_head_may_arrive_in_any_pieces() {
        for text in ["GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\nrest", "GET /a HTTP/1.1\nHost: x\n\nrest"] {
            let whole = parse(text.as_bytes(), 1_000).unwrap().unwrap();
            for size in 1..text.len() {
                let mut pieces = Pieces(text.as_bytes(), size);
                let mut buffer = BytesMut::new();
                let long = Duration::from_secs(20);
                let head = read_head(&mut pieces, &mut buffer, 1_000, long, long).await.unwrap();
                assert_eq!((head.length, head.headers), (whole.length, whole.headers.clone()), "by {size}");
            }
        }
    }

    #[test]
    fn contradictory_lengths_are_not_ours() {
        let head = |text: &str| parse(text.as_bytes(), 1_000).unwrap().unwrap().content_length();
        assert_eq!(head("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), Some(5));
        assert_eq!(head("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), None);
        assert_eq!(head("POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n"), None);
        assert_eq!(head("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), None);
    }
}
