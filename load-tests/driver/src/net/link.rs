//! One client connection: a WebSocket session or a keep-alive HTTP publisher, plain or over TLS.

use std::io::{self, Read, Write};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::fleet::Handler;
use super::{http1, ws};

/// Received by one `read`. Every link of a fleet reads into the same buffer.
pub const SCRATCH_BYTES: usize = 256 * 1024;

/// What a link speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Handshake, then frames.
    WebSocket,
    /// Requests and answers.
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Handshaking,
    Open,
}

/// One client connection.
#[derive(Debug)]
pub struct Link {
    pub(super) stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    speaks: Speaks,
    phase: Phase,
    /// Sent once connected; empty afterwards.
    request: Vec<u8>,
    /// Bytes of a frame or answer that is not all there yet.
    inbox: Vec<u8>,
    /// Bytes the socket has not taken yet.
    outbox: Vec<u8>,
}

impl Link {
    pub(super) fn new(
        stream: TcpStream,
        tls: Option<&Arc<ClientConfig>>,
        speaks: Speaks,
        request: Vec<u8>,
    ) -> Result<Self> {
        let tls = tls
            .map(|config| {
                let name = ServerName::try_from("127.0.0.1").context("server name")?;
                anyhow::Ok(Box::new(ClientConnection::new(config.clone(), name)?))
            })
            .transpose()?;
        let (inbox, outbox) = (Vec::new(), Vec::new());
        Ok(Self { stream, tls, speaks, phase: Phase::Connecting, request, inbox, outbox })
    }

    /// Queues bytes; they leave together when the current event is done with, or at the next [`Link::flush`].
    pub fn send(&mut self, bytes: &[u8]) {
        self.outbox.extend_from_slice(bytes);
    }

    /// Writes what is queued, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            if !self.outbox.is_empty() {
                tls.writer().write_all(&self.outbox)?;
                self.outbox.clear();
            }
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
            return Ok(());
        }
        let mut sent = 0;
        while sent < self.outbox.len() {
            match self.stream.write(&self.outbox[sent..]) {
                Ok(0) => bail!("the socket takes nothing"),
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.drain(..sent);
        if self.outbox.is_empty() && self.outbox.capacity() > 4_096 {
            self.outbox = Vec::new();
        }
        Ok(())
    }

    /// Takes an event. `Ok(false)`: the peer has closed.
    pub(super) fn ready(
        &mut self,
        event: &mio::event::Event,
        scratch: &mut [u8],
        index: usize,
        handler: &mut impl Handler,
    ) -> Result<bool> {
        if self.phase == Phase::Connecting {
            if !event.is_writable() && !event.is_error() {
                return Ok(true);
            }
            if let Some(error) = self.stream.take_error()? {
                return Err(error).context("connect");
            }
            self.connected(index, handler);
        }
        let mut alive = true;
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            alive = self.read(event.is_read_closed(), scratch, index, handler)?;
        }
        match self.flush() {
            // A peer that has said its last word need not take ours.
            Err(_) if !alive => Ok(false),
            flushed => flushed.map(|()| alive),
        }
    }

    fn connected(&mut self, index: usize, handler: &mut impl Handler) {
        self.outbox = std::mem::take(&mut self.request);
        self.phase = match self.speaks {
            Speaks::WebSocket => Phase::Handshaking,
            Speaks::Http => Phase::Open,
        };
        if self.phase == Phase::Open {
            handler.opened(self, index);
        }
    }

    /// Reads until the socket is empty. A short read says that it is: the set is edge-triggered, and what comes later
    /// makes a new event.
    fn read(
        &mut self,
        to_the_end: bool,
        scratch: &mut [u8],
        index: usize,
        handler: &mut impl Handler,
    ) -> Result<bool> {
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let received = &scratch[..count];
            if self.tls.is_some() {
                self.decrypt(received)?;
                self.take_inbox(index, handler)?;
            } else if self.inbox.is_empty() {
                let taken = self.take(received, index, handler)?;
                self.inbox.extend_from_slice(&received[taken..]);
            } else {
                self.inbox.extend_from_slice(received);
                self.take_inbox(index, handler)?;
            }
            if count < scratch.len() && !to_the_end {
                return Ok(true);
            }
        }
    }

    fn decrypt(&mut self, mut received: &[u8]) -> Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while !received.is_empty() {
            tls.read_tls(&mut received)?;
            tls.process_new_packets()?;
            match tls.reader().read_to_end(&mut self.inbox) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn take_inbox(&mut self, index: usize, handler: &mut impl Handler) -> Result<()> {
        let mut inbox = std::mem::take(&mut self.inbox);
        let taken = self.take(&inbox, index, handler)?;
        if taken < inbox.len() {
            inbox.drain(..taken);
            self.inbox = inbox;
        }
        Ok(())
    }

    /// Hands on every whole frame or answer in `bytes`; returns how many bytes they took.
    fn take(&mut self, bytes: &[u8], index: usize, handler: &mut impl Handler) -> Result<usize> {
        let mut at = 0;
        if self.phase == Phase::Handshaking {
            let Some(taken) = ws::accepted(bytes)? else { return Ok(0) };
            at = taken;
            self.phase = Phase::Open;
            handler.opened(self, index);
        }
        match self.speaks {
            Speaks::WebSocket => {
                while let Some(frame) = ws::incoming(&bytes[at..])? {
                    at += frame.taken;
                    if frame.opcode == ws::opcode::PING {
                        self.send(&ws::frame(ws::opcode::PONG, frame.payload));
                    } else if frame.opcode < ws::opcode::CLOSE && frame.last {
                        handler.message(self, index, frame.payload);
                    }
                }
            }
            Speaks::Http => {
                while let Some(answer) = http1::answer(&bytes[at..])? {
                    at += answer.taken;
                    handler.answer(self, index, answer.status);
                }
            }
        }
        Ok(at)
    }
}
