//! Sockets: accepting within limits, the first request of a connection and what becomes of it.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::callback::{self, CallbackRequest, Signed};
use super::certificates::Certificates;
use super::entrance::{self, Strangers};
use super::replay::Replay;
use super::respond::Answer;
use super::wire::{self, Head, NoHead};
use super::{Config, Origin, Shared, forwarded, handshake, router};
use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::ids::RequestId;
use crate::session::{Socket, tls::TlsStream};
use crate::tasks::Tasks;
use crate::telemetry::labels::ConnectResult;

/// Why a listener could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// What was asked for.
    pub address: SocketAddr,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

/// Connections waiting to be accepted; a reconnect storm should find room.
const BACKLOG: u32 = 4_096;
/// When a silent peer is probed, and how often before it counts as lost.
const KEEP_ALIVE_PROBES: socket2::TcpKeepalive =
    socket2::TcpKeepalive::new().with_time(Duration::from_secs(120)).with_interval(Duration::from_secs(15));
/// How long accepting rests when the system is out of file descriptors: no spinning on the error.
const ACCEPT_REST: Duration = Duration::from_millis(50);
/// Body bytes read away before a refusal, so that the client gets to read it.
const SKIP_AT_MOST: usize = 1 << 20;
/// How long a refused client may take to hang up.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);

/// A bound public listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    certificates: Option<Arc<Certificates>>,
}

impl Listener {
    /// Binds; port 0 takes a free one.
    ///
    /// # Errors
    /// [`BindError`], when the address is taken or not ours.
    pub fn bind(address: SocketAddr, certificates: Option<Arc<Certificates>>) -> Result<Self, BindError> {
        let bound = || {
            let socket =
                if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            // Accepted sockets inherit both, which saves two system calls for each. Probes find a peer that vanished
            // without a word, on a session that has no idle limit of its own.
            socket.set_nodelay(true)?;
            socket2::SockRef::from(&socket).set_tcp_keepalive(&KEEP_ALIVE_PROBES)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        let socket = bound().map_err(|source| BindError { address, source })?;
        let address = socket.local_addr().map_err(|source| BindError { address, source })?;
        Ok(Self { socket, address, certificates })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `tasks` is told to finish. Connections are tasks of their own and outlive this.
    pub async fn serve(self, gateway: Arc<Gateway>, config: Config, tasks: Tasks) {
        let shared = Arc::new(Shared {
            gateway,
            config,
            tasks: tasks.clone(),
            connections: 0.into(),
            strangers: Strangers::default(),
        });
        let mut starved = false;
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = tasks.token().cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    starved = false;
                    self.welcome(&shared, stream, peer);
                }
                Err(error) if is_out_of_files(&error) => {
                    if !starved {
                        tracing::warn!(%error, "out of file descriptors: accepting rests; raise the limit of open files");
                    }
                    starved = true;
                    sleep(ACCEPT_REST).await;
                }
                // The client left between its SYN and our accept.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    fn welcome(&self, shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
        if !entrance::is_let_in(shared, peer) {
            return;
        }
        let others = shared.connections.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(shared));
        let sessions = shared.gateway.hub().stats().parked;
        if others >= shared.config.max_connections || others + sessions >= shared.config.files_for_connections() {
            shared.gateway.metrics().connects.inc(ConnectResult::Busy);
            // One write into an empty socket buffer: it does not block, and a client over TLS hangs up on it. Past the
            // runtime, which has not learned yet that the socket can be written to.
            let mut out = Vec::new();
            Answer::fault(&Fault::Unavailable).write(&mut out, RequestId::random(), true);
            let _best_effort = stream.into_std().and_then(|mut stream| stream.write(&out));
            return;
        }
        let (certificates, port) = (self.certificates.clone(), self.address.port());
        shared.tasks.spawn("connection", async move {
            if let Some((stream, origin)) = entrance::enter(&place.0, stream, peer, port, certificates.as_deref()).await
            {
                serve(&place.0, stream, origin).await;
            }
        });
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

/// Counts a connection that is not a session, as long as it is none.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection: requests of ours one after the other, until it is a session, hyper's, or closed.
async fn serve(shared: &Arc<Shared>, mut stream: Stream, origin: Origin) {
    let config = &shared.config;
    let mut buffer = BytesMut::new();
    let mut out = Vec::new();
    let mut idle = config.handshake_timeout;
    loop {
        let head = wire::read_head(&mut stream, &mut buffer, config.max_header_bytes, idle, config.handshake_timeout);
        let head = tokio::select! {
            head = head => head,
            // Between requests, a node that ends hangs up; a request under way is served.
            () = shared.tasks.token().cancelled() => return,
        };
        let head = match head {
            Ok(head) => head,
            Err(NoHead::Closed) => return,
            Err(NoHead::NotOurs) => return hand_over(shared, stream, buffer, origin).await,
            Err(NoHead::Refused(fault)) => {
                Answer::fault(&fault).write(&mut out, RequestId::random(), true);
                let _client_may_be_gone = stream.send(&out, config.handshake_timeout).await;
                return stream.finish().await;
            }
        };
        if !is_name_answered(shared, head.one("host").unwrap_or_default()) {
            Answer::fault(&Fault::Forbidden).write(&mut out, RequestId::random(), true);
            let _client_may_be_gone = stream.send(&out, config.handshake_timeout).await;
            return stream.finish().await;
        }
        if handshake::is_upgrade(&head) {
            // Checked here, not at the door: who is no session may be a back-end that pushes to one.
            if !shared.has_room_for_a_session() {
                shared.gateway.metrics().connects.inc(ConnectResult::Busy);
                Answer::fault(&Fault::Unavailable).write(&mut out, RequestId::random(), true);
                let _client_may_be_gone = stream.send(&out, config.handshake_timeout).await;
                return stream.finish().await;
            }
            let early = buffer.split_off(head.length);
            return handshake::serve(shared, stream, head, early, origin).await;
        }
        if !is_plain_callback(&head) {
            return hand_over(shared, stream, buffer, origin).await;
        }
        out.clear();
        let goes_on = plain_callback(shared, &mut stream, &mut buffer, &head, origin, &mut out).await;
        if stream.send(&out, config.handshake_timeout).await.is_err() || !goes_on {
            return stream.finish().await;
        }
        idle = config.keep_alive;
        if buffer.is_empty() && buffer.capacity() > 64 * 1024 {
            buffer = BytesMut::new();
        }
    }
}

fn is_name_answered(shared: &Shared, host: &str) -> bool {
    !shared.config.loopback_names_only
        || crate::gateway::is_loopback_name(host)
        || shared.gateway.is_declared_domain(host)
}

/// A callback that needs nothing of an HTTP stack: a path for a target, a length instead of chunks, nothing to negotiate.
fn is_plain_callback(head: &Head) -> bool {
    head.is_http_11
        && head.target.starts_with('/')
        && callback::is_callback(head.path())
        && head.one("expect").is_none()
        && head.one("upgrade").is_none()
        && match head.method.as_str() {
            "POST" | "PUT" => head.content_length().is_some(),
            // A body whose length is in doubt would be taken for the next request.
            "GET" | "DELETE" => !head.has_body() || head.content_length().is_some(),
            _ => false,
        }
}

/// Serves one plain callback into `out`; whether the connection goes on.
async fn plain_callback(
    shared: &Shared,
    stream: &mut Stream,
    buffer: &mut BytesMut,
    head: &Head,
    origin: Origin,
    out: &mut Vec<u8>,
) -> bool {
    let config = &shared.config;
    let id = RequestId::random();
    let request = CallbackRequest {
        method: &head.method,
        host: head.one("host").unwrap_or_default(),
        path: head.path(),
        query: head.query(),
        origin: head.one("origin"),
        authorization: head.one("authorization"),
        content_type: head.one("content-type"),
        call: head.one("amz-sdk-invocation-id"),
        is_local: config.access.is_open_on_loopback
            && forwarded::is_local(|name| head.all(name), origin, &config.proxies),
        signed: callback::may_be_signed(head.one("authorization"), head.query()).then(|| {
            let client = forwarded::resolve(|name| head.all(name), origin, &config.proxies);
            Signed { headers: head.pairs(), source_ip: client.address, is_tls: client.is_tls }
        }),
        id,
    };
    let length = head.content_length().unwrap_or(0);
    let keep = !head.has_token("connection", "close");
    bytes::Buf::advance(buffer, head.length);
    let admitted = callback::admit(&shared.gateway, &config.access, &request)
        .and_then(|admitted| if length > admitted.max_body() { Err(Fault::PayloadTooLarge) } else { Ok(admitted) });
    match admitted {
        Err(fault) => {
            shared.gateway.metrics().fault(&fault);
            // The body was sent all the same; unread, it would be taken for the next request.
            let skipped = wire::skip_body(stream, buffer, length, SKIP_AT_MOST, config.handshake_timeout).await;
            Answer::fault(&fault).write(out, id, !(skipped && keep));
            skipped && keep
        }
        Ok(admitted) => match wire::read_body(stream, buffer, length, config.handshake_timeout).await {
            Ok(body) => {
                admitted.serve(&shared.gateway, &request, body.freeze()).await.write(out, id, !keep);
                keep
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Answer::fault(&Fault::RequestTimeout).write(out, id, true);
                false
            }
            Err(_) => false,
        },
    }
}

/// Gives the connection, with the bytes already read, to hyper and the router.
async fn hand_over(shared: &Arc<Shared>, stream: Stream, early: BytesMut, origin: Origin) {
    let mut builder = auto::Builder::new(router::Spawner(shared.tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.handshake_timeout)
        .max_buf_size(shared.config.max_header_bytes.max(8_192))
        .half_close(false)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .max_concurrent_streams(256)
        .max_header_list_size(u32::try_from(shared.config.max_header_bytes).unwrap_or(u32::MAX));
    let service = TowerToHyperService::new(router::public(Arc::clone(shared), origin));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(Replay::new(early, stream)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.tasks.token().cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %origin.peer, error = %error, "an HTTP connection ended early");
    }
}

/// A connection's bytes, over TLS or not.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Takes the socket out of the runtime, for the parking lot.
    pub(super) fn into_socket(self) -> io::Result<Socket> {
        match self {
            Self::Plain(stream) => {
                let stream = stream.into_std()?;
                Ok(Socket { stream, tls: None, unsent: Vec::new(), early: Vec::new(), window_bits: 0 })
            }
            Self::Tls(stream) => {
                let parts = stream.into_parts();
                let (tls, early) = (Some(Box::new(parts.session)), parts.plaintext);
                Ok(Socket { stream: parts.tcp.into_std()?, tls, unsent: parts.ciphertext, early, window_bits: 0 })
            }
        }
    }

    /// Writes all of `bytes`. A client that does not read gets `limit` for it, and no place here for longer.
    pub(super) async fn send(&mut self, bytes: &[u8], limit: Duration) -> io::Result<()> {
        timeout(limit, self.write_all(bytes)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Shuts the sending side and reads on until the client hangs up, for a while: closing with unread input would
    /// reset the connection and take the answer with it.
    pub(super) async fn finish(&mut self) {
        let drain = async {
            let _client_may_be_gone = self.shutdown().await;
            let mut sink = [0; 1_024];
            while matches!(self.read(&mut sink).await, Ok(n) if n > 0) {}
        };
        let _patience = timeout(FINISH_PATIENCE, drain).await;
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
