//! A real WebSocket client, plain or over TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{eventually, soon};

pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

type Socket = WebSocketStream<Box<dyn Transport>>;

/// Why a handshake did not make a session.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The answer's status; 0 when there was none.
    pub(crate) status: u16,
    pub(crate) why: String,
}

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Text(String),
    /// A close frame: its code.
    Close(u16),
    /// The end of the stream without one.
    Gone,
}

/// How a client comes.
pub(crate) struct Arrival<'a> {
    /// The address it connects from.
    pub(crate) from: Option<Ipv4Addr>,
    /// By `wss`, trusting these.
    pub(crate) roots: Option<&'a [CertificateDer<'static>]>,
    /// What its handshake says besides.
    pub(crate) headers: &'a [(&'static str, &'a str)],
    /// Where to; `/dev`.
    pub(crate) path: &'a str,
}

impl Default for Arrival<'_> {
    fn default() -> Self {
        Self { from: None, roots: None, headers: &[], path: "/dev" }
    }
}

impl Arrival<'_> {
    async fn dial(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        socket.connect(to).await
    }
}

pub(crate) struct Client {
    /// Gone when the session is, as a program that heard a close frame hangs up.
    halves: Option<(SplitSink<Socket, Message>, SplitStream<Socket>)>,
    /// The server's certificate, over TLS.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

impl Client {
    /// Connects to `/dev`.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::try_connect(to).await.unwrap()
    }

    pub(crate) async fn try_connect(to: SocketAddr) -> Result<Self, Refused> {
        Self::arrive(to, &Arrival::default()).await
    }

    /// Connects by `wss`, trusting `roots` alone.
    pub(crate) async fn secure(to: SocketAddr, roots: &[CertificateDer<'static>]) -> Result<Self, Refused> {
        Self::arrive(to, &Arrival { roots: Some(roots), ..Arrival::default() }).await
    }

    /// Connects in a way of its own.
    pub(crate) async fn arrive(to: SocketAddr, how: &Arrival<'_>) -> Result<Self, Refused> {
        let refused = |e: std::io::Error| Refused { status: 0, why: e.to_string() };
        let stream = how.dial(to).await.map_err(refused)?;
        let Some(roots) = how.roots else { return Self::over(Box::new(stream), to, "ws", None, how).await };
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone()).unwrap();
        }
        let config = ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(refused)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
        let certificate = certificate.map(CertificateDer::into_owned);
        Self::over(Box::new(stream), to, "wss", certificate, how).await
    }

    async fn over(
        stream: Box<dyn Transport>,
        to: SocketAddr,
        scheme: &str,
        certificate: Option<CertificateDer<'static>>,
        how: &Arrival<'_>,
    ) -> Result<Self, Refused> {
        let mut request = format!("{scheme}://localhost:{}{}", to.port(), how.path).into_client_request().unwrap();
        for (name, value) in how.headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        match soon("a handshake", client_async(request, stream)).await {
            Ok((socket, _)) => Ok(Self { halves: Some(socket.split()), certificate }),
            Err(tungstenite::Error::Http(answer)) => {
                Err(Refused { status: answer.status().as_u16(), why: format!("{answer:?}") })
            }
            Err(error) => Err(Refused { status: 0, why: error.to_string() }),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        let (out, _) = self.halves.as_mut().expect("an open session");
        soon("sending", out.send(Message::text(text))).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Said {
        let Some((_, back)) = &mut self.halves else { return Said::Gone };
        let said = soon("the next message", hear(back)).await;
        if !matches!(said, Said::Text(_)) {
            self.halves = None;
        }
        said
    }

    /// Sends and waits for the next message.
    pub(crate) async fn ask(&mut self, text: &str) -> String {
        self.send(text).await;
        match self.next().await {
            Said::Text(text) => text,
            said @ (Said::Close(_) | Said::Gone) => panic!("instead of an answer to {text}: {said:?}"),
        }
    }

    /// The connection's id.
    pub(crate) async fn id(&mut self) -> String {
        self.ask(r#"{"action": "whoami"}"#).await
    }

    /// Sends `message(0)`, `message(1)`, … until the server closes; everything heard, the close last.
    pub(crate) async fn chatter(self, mut message: impl FnMut(usize) -> String) -> Vec<Said> {
        let (mut out, mut back) = self.halves.expect("an open session");
        let mut heard = Vec::new();
        let mut sent = 0;
        let mut answered = 0;
        loop {
            // Eight under way at most: load, not a flood.
            while sent < answered + 8 && out.send(Message::text(message(sent))).await.is_ok() {
                sent += 1;
            }
            let said = soon("what comes under load", hear(&mut back)).await;
            let over = !matches!(said, Said::Text(_));
            answered += usize::from(matches!(&said, Said::Text(text) if !text.starts_with("push")));
            heard.push(said);
            if over {
                return heard;
            }
        }
    }

    /// Asks; what is heard next, whatever it is.
    pub(crate) async fn try_ask(&mut self, text: &str) -> Said {
        let (out, back) = self.halves.as_mut().expect("an open session");
        let _closed_meanwhile = out.send(Message::text(text)).await;
        soon("what comes", hear(back)).await
    }

    /// From now on everything it hears is noted, until it hears the end or is dropped.
    pub(crate) async fn listen(self) -> Ear {
        self.try_listen().await.expect("an open session")
    }

    /// The same where the session may end before it has told its id.
    pub(crate) async fn try_listen(mut self) -> Option<Ear> {
        let (out, _) = self.halves.as_mut()?;
        out.send(Message::text(r#"{"action": "whoami"}"#)).await.ok()?;
        let Said::Text(id) = self.next().await else { return None };
        let (out, mut back) = self.halves?;
        let notes = Notes(Arc::default());
        let pad = notes.clone();
        let listening = tokio::spawn(async move {
            loop {
                let said = hear(&mut back).await;
                let over = !matches!(said, Said::Text(_));
                pad.0.lock().unwrap().push((Instant::now(), said));
                if over {
                    return;
                }
            }
        });
        Some(Ear { id, notes, out, listening })
    }

    /// Hangs up without a word.
    pub(crate) fn vanish(self) {
        drop(self);
    }
}

/// What a client has heard, and when; outlives the client.
#[derive(Debug, Clone)]
pub(crate) struct Notes(Arc<Mutex<Vec<(Instant, Said)>>>);

impl Notes {
    /// Everything heard so far, the end last.
    pub(crate) fn heard(&self) -> Vec<Said> {
        self.0.lock().unwrap().iter().map(|(_, said)| said.clone()).collect()
    }

    /// How often it was heard.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, said)| matches!(said, Said::Text(heard) if heard == text)).count()
    }

    /// When and how the session ended, if it has.
    pub(crate) fn end(&self) -> Option<(Instant, Said)> {
        self.0.lock().unwrap().last().filter(|(_, said)| !matches!(said, Said::Text(_))).cloned()
    }
}

/// A client that notes everything it hears.
pub(crate) struct Ear {
    pub(crate) id: String,
    pub(crate) notes: Notes,
    out: SplitSink<Socket, Message>,
    listening: JoinHandle<()>,
}

impl Ear {
    /// Sends; `false` when the session has ended.
    pub(crate) async fn send(&mut self, text: &str) -> bool {
        soon("sending", self.out.send(Message::text(text))).await.is_ok()
    }

    /// Everything heard so far, the end last.
    pub(crate) fn heard(&self) -> Vec<Said> {
        self.notes.heard()
    }

    /// How often it has heard this.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.notes.count(text)
    }

    /// How the session ended, if it has.
    pub(crate) fn ended(&self) -> Option<Said> {
        self.notes.end().map(|(_, said)| said)
    }

    /// Waits until it hears this.
    pub(crate) async fn hears(&self, text: &str) {
        eventually(&format!("{text} at {}", self.id), || self.count(text) > 0).await;
    }

    /// Waits for the session's end.
    pub(crate) async fn end(&self) -> Said {
        eventually(&format!("the end of {}", self.id), || self.ended().is_some()).await;
        self.ended().unwrap()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn hear(back: &mut SplitStream<Socket>) -> Said {
    loop {
        match back.next().await {
            Some(Ok(Message::Text(text))) => return Said::Text(text.as_str().to_owned()),
            Some(Ok(Message::Close(frame))) => {
                // Sends the echo and reads to the end, as a browser does: else the gateway waits for it in vain.
                let _end = back.next().await;
                return Said::Close(frame.map_or(1005, |frame| frame.code.into()));
            }
            Some(Ok(_)) => {}
            Some(Err(tungstenite::Error::Protocol(error)))
                if error != tungstenite::error::ProtocolError::ResetWithoutClosingHandshake =>
            {
                panic!("the gateway broke the protocol: {error}")
            }
            Some(Err(_)) | None => return Said::Gone,
        }
    }
}
