//! TLS for sessions: buffers belong to the caller, so that an idle session keeps its keys and nothing else.
//!
//! The ordinary TLS stream keeps its input buffer for as long as the connection lives. [`TlsSession`] is fed with what
//! a turn has read and writes what should be sent into the turn's own buffer; between turns it holds at most the part
//! of a record that has arrived. [`TlsStream`] is the same core as an asynchronous stream, for the time before a
//! connection has become a session: the TLS handshake, the WebSocket handshake, plain HTTP.

mod stream;

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};

pub use stream::{TlsParts, TlsStream};

/// Bytes a record adds to its payload, generously: header, explicit nonce, content type, tag.
const RECORD_OVERHEAD: usize = 48;
/// Payload of the longest record (RFC 8446, section 5.1).
const MAX_RECORD: usize = 16 * 1024;

/// Where a TLS connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsStatus {
    /// The handshake waits for more from the client.
    Handshaking,
    /// Data may flow both ways.
    Open,
    /// The client has said that it sends no more; data may still be sent to it.
    PeerClosed,
}

/// Why a TLS connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer broke the protocol, or nothing could be agreed on.
    #[error("TLS failed")]
    Protocol(#[from] rustls::Error),
    /// The keys have encrypted as much as they safely can, and the protocol version knows no new ones.
    #[error("the TLS keys are used up")]
    KeysUsedUp,
    /// Data was given to encrypt before the handshake was complete or after the connection was closed.
    #[error("the TLS connection does not take data now")]
    NotOpen,
}

/// One TLS connection, server side, without a socket and without buffers.
pub struct TlsSession {
    // Boxed, so that what owns a session may be moved cheaply: the state is over a kilobyte.
    conn: Box<UnbufferedServerConnection>,
    /// A record, or a handshake message, that has arrived in part; empty and unallocated otherwise.
    partial: Vec<u8>,
    peer_closed: bool,
    close_sent: bool,
    /// After an error the library has lost its place in the input and must not be asked again.
    failed: bool,
}

impl TlsSession {
    /// A connection before its handshake.
    ///
    /// # Errors
    /// When the configuration cannot serve any connection.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let conn = Box::new(UnbufferedServerConnection::new(config)?);
        Ok(Self { conn, partial: Vec::new(), peer_closed: false, close_sent: false, failed: false })
    }

    /// Takes the next bytes from the client, cut anywhere; `input` is decrypted in place and of no use afterwards.
    ///
    /// Appends what the client said to `plaintext`, and what must be sent to it (handshake messages, tickets, alerts)
    /// to `ciphertext`. An end of the stream while the status is not [`TlsStatus::PeerClosed`] is a cut connection.
    ///
    /// # Errors
    /// The connection is over. `ciphertext` then ends with an alert that tells the client why; `plaintext` holds what
    /// came before.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        plaintext: &mut Vec<u8>,
        ciphertext: &mut Vec<u8>,
    ) -> Result<TlsStatus, TlsError> {
        if self.failed {
            return Err(TlsError::NotOpen);
        }
        if self.partial.is_empty() {
            let (taken, end) = self.drive(input, plaintext, ciphertext);
            // What is left may have been decrypted in place, so this copy, not the original, is what must go on.
            if end.is_ok() {
                self.partial.extend_from_slice(input.get(taken..).unwrap_or_default());
            }
            return end;
        }
        let mut held = std::mem::take(&mut self.partial);
        held.extend_from_slice(input);
        let (taken, end) = self.drive(&mut held, plaintext, ciphertext);
        if end.is_ok() && taken < held.len() {
            held.drain(..taken);
            // A whole read went through this buffer; what stays is part of one record.
            if held.capacity() > MAX_RECORD + RECORD_OVERHEAD {
                held.shrink_to_fit();
            }
            self.partial = held;
        }
        end
    }

    /// Processes records until more input is needed; returns how many bytes of `buffer` are done with.
    fn drive(
        &mut self,
        buffer: &mut [u8],
        plaintext: &mut Vec<u8>,
        ciphertext: &mut Vec<u8>,
    ) -> (usize, Result<TlsStatus, TlsError>) {
        let mut taken = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.conn.process_tls_records(buffer.get_mut(taken..).unwrap_or_default());
            let mut end = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    while let Some(record) = records.next_record() {
                        match record {
                            Ok(record) => {
                                plaintext.extend_from_slice(record.payload);
                                discard += record.discard;
                            }
                            Err(error) => end = Some(Err(error.into())),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(message)) => encode(message, ciphertext),
                // What was encoded is in the caller's hands, who sends it.
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::Closed) => end = Some(Ok(TlsStatus::PeerClosed)),
                Ok(ConnectionState::BlockedHandshake) => end = Some(Ok(TlsStatus::Handshaking)),
                Ok(ConnectionState::WriteTraffic(_)) => {
                    end = Some(Ok(if self.peer_closed { TlsStatus::PeerClosed } else { TlsStatus::Open }));
                }
                // Early data is never offered to clients, and there are no other states.
                Ok(_) => end = Some(Err(TlsError::NotOpen)),
                Err(error) => end = Some(Err(error.into())),
            }
            taken = (taken + discard).min(buffer.len());
            if let Some(end) = end {
                if end.is_err() {
                    self.failed = true;
                    self.take_alert(buffer.get_mut(taken..).unwrap_or_default(), ciphertext);
                }
                return (taken, end);
            }
        }
    }

    /// After an error the library has an alert to send; it must still see the rest of its input, or it loses its place.
    fn take_alert(&mut self, rest: &mut [u8], ciphertext: &mut Vec<u8>) {
        if let Ok(ConnectionState::EncodeTlsData(message)) = self.conn.process_tls_records(rest).state {
            encode(message, ciphertext);
        }
    }

    /// Encrypts `plaintext` and appends it to `ciphertext`, which must be sent whole and in the order of the calls.
    ///
    /// # Errors
    /// Nothing was appended, and nothing more can be sent.
    pub fn encrypt(&mut self, plaintext: &[u8], ciphertext: &mut Vec<u8>) -> Result<(), TlsError> {
        if plaintext.is_empty() {
            return Ok(());
        }
        let records = plaintext.len().div_ceil(MAX_RECORD) + 1;
        self.write(plaintext.len() + records * RECORD_OVERHEAD, ciphertext, |traffic, room| {
            traffic.encrypt(plaintext, room)
        })
    }

    /// Appends the message that nothing more will be sent; does nothing the second time.
    ///
    /// # Errors
    /// When the handshake is not complete or the connection has failed: close the socket.
    pub fn close_notify(&mut self, ciphertext: &mut Vec<u8>) -> Result<(), TlsError> {
        if !self.close_sent {
            #[expect(clippy::redundant_closure_for_method_calls, reason = "the method itself is not general enough")]
            self.write(RECORD_OVERHEAD, ciphertext, |traffic, room| traffic.queue_close_notify(room))?;
            self.close_sent = true;
        }
        Ok(())
    }

    fn write(
        &mut self,
        estimate: usize,
        ciphertext: &mut Vec<u8>,
        mut write: impl FnMut(&mut WriteTraffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), TlsError> {
        if self.close_sent || self.failed {
            return Err(TlsError::NotOpen);
        }
        let start = ciphertext.len();
        // Whatever arrived in part is shown again, so that the library keeps its place; there is no whole record in it.
        let status = self.conn.process_tls_records(&mut self.partial);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
            // A turn leaves nothing undone, so only a handshake can be in the way.
            return Err(TlsError::NotOpen);
        };
        let mut room = estimate;
        loop {
            ciphertext.resize(start + room, 0);
            match write(&mut traffic, ciphertext.get_mut(start..).unwrap_or_default()) {
                Ok(written) => {
                    ciphertext.truncate(start + written);
                    return Ok(());
                }
                // A key update or an alert goes before the data.
                Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                    room = size.required_size;
                }
                Err(EncryptError::InsufficientSize(_) | EncryptError::EncryptExhausted) => {
                    ciphertext.truncate(start);
                    return Err(TlsError::KeysUsedUp);
                }
            }
        }
    }

    /// Whether the handshake is still going on.
    pub fn is_handshaking(&self) -> bool {
        self.conn.is_handshaking()
    }

    /// Whether the client has said that it sends no more.
    pub const fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// What was agreed on to speak, `http/1.1` or `h2`; `None` when the client offered nothing.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.conn.alpn_protocol()
    }

    /// Bytes allocated for what has arrived in part; counts against the node's budget.
    pub const fn held_bytes(&self) -> usize {
        self.partial.capacity()
    }
}

type WriteTraffic<'a> = rustls::unbuffered::WriteTraffic<'a, ServerConnectionData>;

fn encode(mut message: EncodeTlsData<'_, ServerConnectionData>, ciphertext: &mut Vec<u8>) {
    let start = ciphertext.len();
    // Asked without room it tells how much it needs.
    let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) else { return };
    ciphertext.resize(start + size.required_size, 0);
    let written = message.encode(ciphertext.get_mut(start..).unwrap_or_default()).unwrap_or(0);
    ciphertext.truncate(start + written);
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession")
            .field("handshaking", &self.is_handshaking())
            .field("peer_closed", &self.peer_closed)
            .field("held_bytes", &self.held_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
