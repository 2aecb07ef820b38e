//! HTTP/1.1 by hand: a byte stream, and one answer from it.

use std::pin::Pin;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::within;

trait Both: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Both for T {}

/// A byte stream, over TLS or not, with what was read and not yet used.
pub(crate) struct Wire {
    stream: Pin<Box<dyn Both>>,
    pub(crate) buffer: BytesMut,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Wire {
    pub(crate) fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        Self { stream: Box::pin(stream), buffer: BytesMut::new() }
    }

    /// Writes bytes; that the peer has closed meanwhile is seen when reading.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _peer_may_be_gone = within("bytes to be taken", self.stream.write_all(bytes)).await;
        let _peer_may_be_gone = within("bytes to leave", self.stream.flush()).await;
    }

    /// Writes bytes as long as they are taken; how many were when the peer stopped taking them for `window`.
    pub(crate) async fn send_until_stuck(&mut self, bytes: &[u8], window: std::time::Duration) -> usize {
        let mut sent = 0;
        while let Ok(Ok(n)) = tokio::time::timeout(window, self.stream.write(&bytes[sent % bytes.len()..])).await {
            sent += n;
        }
        sent
    }

    /// Reads more bytes; `false` at the end of the stream, however it ended.
    pub(crate) async fn read_more(&mut self) -> bool {
        matches!(within("bytes to arrive", self.stream.read_buf(&mut self.buffer)).await, Ok(n) if n > 0)
    }

    /// The same, without a limit in time.
    pub(crate) async fn read_more_at_leisure(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(n) if n > 0)
    }

    pub(crate) async fn shut_down_sending(&mut self) {
        let _peer_may_be_gone = self.stream.shutdown().await;
    }
}

/// An answer, with header names as they were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl HttpAnswer {
    /// All values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// The only value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} more than once: {all:?}");
        all.first().copied()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Reads one answer; `None` when the stream ends before it.
pub(crate) async fn read_answer(wire: &mut Wire) -> Option<HttpAnswer> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        let status = parsed.parse(&wire.buffer).unwrap_or_else(|e| panic!("no answer ({e}): {:?}", wire.buffer));
        let httparse::Status::Complete(length) = status else {
            if wire.read_more().await {
                continue;
            }
            assert!(wire.buffer.is_empty(), "half an answer: {:?}", wire.buffer);
            return None;
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = parsed.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect();
        let mut answer = HttpAnswer { status: parsed.code.unwrap(), headers, body: Vec::new() };
        let _head = wire.buffer.split_to(length);
        if answer.status == 101 || answer.status == 204 || answer.status == 304 {
            return Some(answer);
        }
        assert!(answer.header("transfer-encoding").is_none(), "not read by this harness: {answer:?}");
        let whole = answer.header("content-length").map(|length| length.parse::<usize>().unwrap());
        while whole.is_none_or(|whole| wire.buffer.len() < whole) {
            if !wire.read_more().await {
                assert_eq!(whole, None, "an answer that ends early: {answer:?} {:?}", wire.buffer);
                break;
            }
        }
        let whole = whole.unwrap_or(wire.buffer.len());
        answer.body = wire.buffer.split_to(whole).to_vec();
        return Some(answer);
    }
}
