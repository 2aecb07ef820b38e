//! A TLS connection as an asynchronous stream, until it becomes a session or ends.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::{TlsError, TlsSession};

/// Read from the socket at once; on the stack, so that a waiting connection holds none of it.
const SCRATCH_BYTES: usize = 16 * 1024;
/// Encrypted at once; also what a stream holds at most for a client that does not read.
const WRITE_BYTES: usize = 64 * 1024;

/// A connection whose TLS handshake is complete.
#[derive(Debug)]
pub struct TlsStream {
    tcp: TcpStream,
    session: TlsSession,
    plaintext: Rest,
    ciphertext: Rest,
}

/// What a stream was made of, for who goes on without it.
#[derive(Debug)]
pub struct TlsParts {
    /// The socket.
    pub tcp: TcpStream,
    /// The keys.
    pub session: TlsSession,
    /// Decrypted and not yet read: comes before everything that is received later.
    pub plaintext: Vec<u8>,
    /// Encrypted and not yet sent: goes before everything that is encrypted later.
    pub ciphertext: Vec<u8>,
}

/// Bytes that are consumed from the front; holds no memory when there are none.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    at: usize,
}

impl Rest {
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        self.at += count;
        if self.at >= self.bytes.len() {
            *self = Self::default();
        }
    }

    fn into_vec(mut self) -> Vec<u8> {
        self.bytes.drain(..self.at.min(self.bytes.len()));
        self.bytes
    }
}

impl TlsStream {
    /// Shakes hands as the server. Has no time limit of its own; dropping the future gives up.
    ///
    /// # Errors
    /// `InvalidData` when the client does not speak TLS or nothing could be agreed on (it has been told by an alert, as
    /// far as it could be sent at once), `UnexpectedEof` when it went away, and whatever the socket reports.
    pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = TlsSession::new(config).map_err(invalid)?;
        let mut stream = Self { tcp, session, plaintext: Rest::default(), ciphertext: Rest::default() };
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Sends all ciphertext that is waiting.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ciphertext.as_slice().is_empty() {
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(cx, self.ciphertext.as_slice()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ciphertext.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once from the socket; an end of the stream is an error here, since the client did not announce it.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [MaybeUninit::uninit(); SCRATCH_BYTES];
        let mut read = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let (plaintext, ciphertext) = (&mut self.plaintext.bytes, &mut self.ciphertext.bytes);
        let end = self.session.receive(read.filled_mut(), plaintext, ciphertext);
        if let Err(error) = end {
            // The alert is a courtesy: a client that does not take it now goes without.
            let _courtesy = self.poll_send(cx);
            return Poll::Ready(Err(invalid(error)));
        }
        Poll::Ready(Ok(()))
    }

    /// What was agreed on to speak, `http/1.1` or `h2`; `None` when the client offered nothing.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// The socket, for its addresses and options.
    pub const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Takes the stream apart.
    pub fn into_parts(self) -> TlsParts {
        TlsParts {
            tcp: self.tcp,
            session: self.session,
            plaintext: self.plaintext.into_vec(),
            ciphertext: self.ciphertext.into_vec(),
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let ready = self.plaintext.as_slice();
            let count = ready.len().min(buf.remaining());
            if let Some(part) = ready.get(..count).filter(|part| !part.is_empty()) {
                buf.put_slice(part);
                self.plaintext.advance(count);
                return Poll::Ready(Ok(()));
            }
            if buf.remaining() == 0 || self.session.is_peer_closed() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(cx))?;
            // Answers of the protocol itself, such as a close; a client that does not take them may still be read.
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let part = buf.get(..WRITE_BYTES).unwrap_or(buf);
        let this = &mut *self;
        this.session.encrypt(part, &mut this.ciphertext.bytes).map_err(invalid)?;
        // What the socket does not take now is taken for: the next write or flush goes on with it.
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Where no farewell can be said any more, the socket is closed all the same.
        let _farewell = this.session.close_notify(&mut this.ciphertext.bytes);
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

fn invalid(error: TlsError) -> io::Error {
    let kind = match error {
        TlsError::Protocol(_) | TlsError::KeysUsedUp => io::ErrorKind::InvalidData,
        TlsError::NotOpen => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error)
}
