//! A WebSocket client that can say anything: sentences for the common things, raw bytes for the rest.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::frame::{CLOSE, CONTINUATION, Frame, PING, PONG, TEXT};
use super::http::{HttpAnswer, Wire, read_answer};
use super::{ABSENCE, never, within};

/// The key of RFC 6455, section 1.3; its accept value is `s3pPLMBiTxaQ9kYGzzhZRbK+xOo=`.
pub(crate) const FIXED_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A handshake in the making.
#[derive(Debug, Clone)]
#[must_use]
pub(crate) struct Connect {
    address: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    receive_buffer: Option<u32>,
    preamble: Vec<Vec<u8>>,
}

impl Connect {
    pub(super) fn new(address: SocketAddr, tls: Option<Arc<rustls::ClientConfig>>, target: &str) -> Self {
        let headers = [
            ("Host", address.to_string()),
            ("Upgrade", "websocket".to_owned()),
            ("Connection", "Upgrade".to_owned()),
            ("Sec-WebSocket-Version", "13".to_owned()),
            ("Sec-WebSocket-Key", FIXED_KEY.to_owned()),
        ];
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self {
            address,
            tls,
            method: "GET".to_owned(),
            target: target.to_owned(),
            headers,
            receive_buffer: None,
            preamble: Vec::new(),
        }
    }

    pub(crate) fn method(self, method: &str) -> Self {
        Self { method: method.to_owned(), ..self }
    }

    /// Adds a header, beside others of its name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the value of a header that a handshake has anyway.
    pub(crate) fn replace(self, name: &str, value: &str) -> Self {
        let mut without = self.without(name);
        without.headers.push((name.to_owned(), value.to_owned()));
        without
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    pub(crate) fn host(self, host: &str) -> Self {
        self.replace("Host", host)
    }

    /// Offers an extension.
    pub(crate) fn offer(self, extensions: &str) -> Self {
        self.header("Sec-WebSocket-Extensions", extensions)
    }

    /// Makes the client's socket take little, so that one that does not read is full soon.
    pub(crate) fn small_receive_buffer(self) -> Self {
        Self { receive_buffer: Some(4_096), ..self }
    }

    /// Sends these bytes before everything else, TLS included, a piece at a time.
    pub(crate) fn after<P: AsRef<[u8]>>(self, pieces: impl IntoIterator<Item = P>) -> Self {
        Self { preamble: pieces.into_iter().map(|piece| piece.as_ref().to_owned()).collect(), ..self }
    }

    /// The request as bytes.
    pub(crate) fn request(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        out.into_bytes()
    }

    /// A connection on which nothing was said yet.
    pub(crate) async fn dial(&self) -> Wire {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let mut stream = within("a connection", socket.connect(self.address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in &self.preamble {
            let _peer_may_be_gone = stream.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        match &self.tls {
            None => Wire::new(stream),
            Some(config) => Wire::new(over_tls(stream, config).await),
        }
    }

    /// Sends the handshake and nothing more.
    pub(crate) async fn begin(&self) -> Pending {
        let mut wire = self.dial().await;
        wire.send(&self.request()).await;
        Pending { wire }
    }

    /// A session.
    pub(crate) async fn open(&self) -> Client {
        self.begin().await.accepted().await
    }

    /// What a refused handshake is answered.
    pub(crate) async fn refused(&self) -> HttpAnswer {
        self.begin().await.refused().await
    }
}

async fn over_tls(stream: TcpStream, config: &Arc<rustls::ClientConfig>) -> tokio_rustls::client::TlsStream<TcpStream> {
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    within("a TLS handshake", connector.connect(name, stream)).await.unwrap()
}

/// A handshake that waits for its answer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) wire: Wire,
}

impl Pending {
    pub(crate) async fn answer(mut self) -> (HttpAnswer, Wire) {
        let answer = read_answer(&mut self.wire).await.expect("an answer to the handshake");
        (answer, self.wire)
    }

    pub(crate) async fn accepted(self) -> Client {
        let (answer, wire) = self.answer().await;
        assert_eq!(answer.status, 101, "{answer:?}");
        Client { answer, wire }
    }

    pub(crate) async fn refused(self) -> HttpAnswer {
        let (answer, mut wire) = self.answer().await;
        assert_ne!(answer.status, 101);
        assert!(!wire.read_more().await, "a refused connection ends: {wire:?}");
        answer
    }

    /// Asserts that not a byte of an answer has come yet.
    pub(crate) async fn is_unanswered(&mut self) {
        assert!(self.wire.buffer.is_empty());
        never("an answer too early", self.wire.read_more_at_leisure()).await;
    }
}

/// A session, seen from the client.
#[derive(Debug)]
pub(crate) struct Client {
    /// The 101.
    pub(crate) answer: HttpAnswer,
    pub(crate) wire: Wire,
}

impl Client {
    pub(crate) async fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes.as_ref()).await;
    }

    pub(crate) async fn send(&mut self, frame: Frame) {
        self.wire.send(&frame.encode()).await;
    }

    pub(crate) async fn send_text(&mut self, text: impl AsRef<[u8]>) {
        self.send(Frame::text(text)).await;
    }

    pub(crate) async fn send_json(&mut self, value: &Value) {
        self.send_text(value.to_string()).await;
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn next_frame(&mut self) -> Option<Frame> {
        within("a frame", self.frame_at_leisure()).await
    }

    async fn frame_at_leisure(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = Frame::decode(&self.wire.buffer) {
                let _used = self.wire.buffer.split_to(length);
                assert!(!frame.masked, "a masked frame from the gateway: {frame:?}");
                return Some(frame);
            }
            if !self.wire.read_more_at_leisure().await {
                assert!(self.wire.buffer.is_empty(), "half a frame: {:?}", self.wire.buffer);
                return None;
            }
        }
    }

    /// The next message and the sizes of its frames; its frames are text, unmasked and whole.
    pub(crate) async fn next_message(&mut self) -> (Vec<u8>, Vec<usize>) {
        let (mut message, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let frame = self.next_frame().await.expect("a message, not the end");
            let expected = if sizes.is_empty() { TEXT } else { CONTINUATION };
            assert_eq!((frame.opcode, frame.rsv), (expected, 0), "no text message: {frame:?}");
            sizes.push(frame.payload.len());
            message.extend(frame.payload);
            if frame.fin {
                return (message, sizes);
            }
        }
    }

    pub(crate) async fn next_text(&mut self) -> String {
        String::from_utf8(self.next_message().await.0).expect("a text message in UTF-8")
    }

    pub(crate) async fn next_json(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Sends a message and returns the one that answers it.
    pub(crate) async fn ask(&mut self, text: impl AsRef<[u8]>) -> String {
        self.send_text(text).await;
        self.next_text().await
    }

    /// The connection id, of which an error frame tells: with the definitions of most tests a message without a
    /// route gets one.
    pub(crate) async fn id(&mut self) -> String {
        let answer: Value = serde_json::from_str(&self.ask(r#"{"action":"whoami"}"#).await).unwrap();
        answer["connectionId"].as_str().expect("a connection id").to_owned()
    }

    /// The next message is an error frame, byte for byte; returns its request id.
    pub(crate) async fn expect_error(&mut self, message: &str) -> String {
        let text = self.next_text().await;
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let [connection, request] = ["connectionId", "requestId"].map(|name| value[name].as_str().unwrap_or_default());
        let expected = format!(r#"{{"message": "{message}", "connectionId":"{connection}", "requestId":"{request}"}}"#);
        assert_eq!(text, expected);
        request.to_owned()
    }

    /// The gateway closes: its close frame, which is answered, then the end of the stream; then this side hangs up too.
    /// Code and reason.
    pub(crate) async fn expect_close(mut self) -> (Option<u16>, String) {
        let frame = self.next_frame().await.expect("a close frame, not the end");
        let closed = frame.close_reason();
        self.send(Frame::new(CLOSE, &frame.payload)).await;
        self.expect_end().await;
        closed
    }

    /// The stream ends without another frame.
    pub(crate) async fn expect_end(&mut self) {
        let frame = self.next_frame().await;
        assert_eq!(frame, None, "the end was expected");
    }

    /// Nothing comes.
    pub(crate) async fn expect_silence(&mut self) {
        never("a frame where none should come", self.frame_at_leisure()).await;
    }

    /// A ping and its pong: what was sent before has been read by the gateway.
    pub(crate) async fn ping(&mut self) {
        self.send(Frame::new(PING, "are you there")).await;
        let pong = self.next_frame().await.expect("a pong, not the end");
        assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"are you there"[..]), "{pong:?}");
    }

    /// Closes with a code and reason, which the gateway echoes.
    pub(crate) async fn close(mut self, code: u16, reason: &str) {
        self.send(Frame::close(code, reason)).await;
        let echo = self.next_frame().await.expect("the close frame's echo");
        assert_eq!(echo.close_reason(), (Some(code), reason.to_owned()));
        self.expect_end().await;
    }

    /// Waits longer than [`ABSENCE`] would: used where a limit's time must pass.
    pub(crate) async fn stay_silent_for(&mut self, time: std::time::Duration) -> Option<Frame> {
        assert!(time >= ABSENCE);
        tokio::time::timeout(time, self.frame_at_leisure()).await.ok().flatten()
    }
}
