//! A back-end that records every request and answers as the test says, garbage included.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;

use super::{ABSENCE, within};

/// A request as it came: target and header names untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Recorded {
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// The only value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} more than once: {all:?}");
        all.first().copied()
    }

    /// How a header's name was spelled.
    pub(crate) fn spelling(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(n, _)| n.as_str())
    }

    /// The connection id that the definitions of these tests map.
    pub(crate) fn connection_id(&self) -> &str {
        self.header("connectionId").unwrap_or_else(|| panic!("no connection id mapped: {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }
}

/// Holds answers back until the test opens it.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets one answer through.
    pub(crate) fn let_one_through(&self) {
        self.0.add_permits(1);
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

/// What the back-end does with a request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    gate: Option<Gate>,
    manner: Manner,
}

#[derive(Debug, Clone)]
enum Manner {
    /// A proper answer.
    Whole,
    /// These bytes, then the end.
    Raw(Vec<u8>),
    /// The body's request arrives and nothing comes back, ever.
    Hang,
    /// An answer that promises more than it sends, then the end.
    Midway,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), gate: None, manner: Manner::Whole }
    }

    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200).body(body)
    }

    pub(crate) fn body(self, body: impl AsRef<[u8]>) -> Self {
        Self { body: body.as_ref().to_vec(), ..self }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits at `gate` before it answers.
    pub(crate) fn behind(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// Exactly these bytes instead of an answer, then the end of the connection.
    pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self { manner: Manner::Raw(bytes.as_ref().to_vec()), ..Self::status(200) }
    }

    /// Never.
    pub(crate) fn hang() -> Self {
        Self { manner: Manner::Hang, ..Self::status(200) }
    }

    /// The head, half of the body, then the end of the connection.
    pub(crate) fn midway(self) -> Self {
        Self { manner: Manner::Midway, ..self }
    }
}

type Decide = Arc<dyn Fn(&Recorded) -> Reply + Send + Sync>;

#[derive(Default)]
struct State {
    replies: Mutex<HashMap<String, Decide>>,
    recorded: Mutex<Vec<Recorded>>,
    /// How many requests of each path the test has looked at.
    seen: Mutex<HashMap<String, usize>>,
    arrived: Notify,
}

/// A back-end on loopback. Paths without a reply of their own answer 200 without a body.
pub(crate) struct Backend {
    state: Arc<State>,
    address: std::net::SocketAddr,
    accepting: JoinHandle<()>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&shared)));
            }
        });
        Self { state, address, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers every request for a path alike; the path `*` is every other one.
    pub(crate) fn on(&self, path: &str, reply: Reply) -> &Self {
        self.on_each(path, move |_| reply.clone())
    }

    /// Answers a request for a path as `decide` says.
    pub(crate) fn on_each(&self, path: &str, decide: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> &Self {
        self.state.replies.lock().unwrap().insert(path.to_owned(), Arc::new(decide));
        self
    }

    /// The next request for a path that the test has not looked at; waits for it.
    pub(crate) async fn request(&self, path: &str) -> Recorded {
        within(&format!("a request for {path}"), self.next(path)).await
    }

    async fn next(&self, path: &str) -> Recorded {
        loop {
            let arrival = self.state.arrived.notified();
            if let Some(found) = self.unseen(path) {
                return found;
            }
            arrival.await;
        }
    }

    fn unseen(&self, path: &str) -> Option<Recorded> {
        let mut seen = self.state.seen.lock().unwrap();
        let count = seen.entry(path.to_owned()).or_default();
        let found = self.of(path).into_iter().nth(*count)?;
        *count += 1;
        Some(found)
    }

    /// Every request for a path so far.
    pub(crate) fn of(&self, path: &str) -> Vec<Recorded> {
        self.state.recorded.lock().unwrap().iter().filter(|r| r.path() == path).cloned().collect()
    }

    /// Asserts that no request for a path comes that the test has not looked at.
    pub(crate) async fn no_more(&self, path: &str) {
        if let Ok(more) = tokio::time::timeout(ABSENCE, self.next(path)).await {
            panic!("one request too many: {more:?}");
        }
    }
}

async fn converse(mut stream: TcpStream, state: Arc<State>) {
    let mut buffer = BytesMut::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await {
        let decide = {
            let replies = state.replies.lock().unwrap();
            replies.get(request.path()).or_else(|| replies.get("*")).cloned()
        };
        let reply = decide.map_or_else(|| Reply::status(200), |decide| decide(&request));
        state.recorded.lock().unwrap().push(request);
        state.arrived.notify_waiters();
        if let Some(gate) = &reply.gate {
            gate.pass().await;
        }
        let goes_on = match &reply.manner {
            Manner::Whole => stream.write_all(&rendered(&reply, reply.body.len())).await.is_ok(),
            Manner::Raw(bytes) => {
                let _gateway_may_be_gone = stream.write_all(bytes).await;
                false
            }
            Manner::Midway => {
                let bytes = rendered(&reply, reply.body.len() * 2 + 1);
                let _gateway_may_be_gone = stream.write_all(&bytes).await;
                false
            }
            Manner::Hang => std::future::pending().await,
        };
        if !goes_on {
            return;
        }
    }
}

fn rendered(reply: &Reply, length: usize) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {} Status\r\n", reply.status).into_bytes();
    for (name, value) in &reply.headers {
        out.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if reply.status != 204 && reply.status != 304 {
        out.extend(format!("Content-Length: {length}\r\n").into_bytes());
    }
    out.extend(b"\r\n");
    out.extend(&reply.body);
    out
}

async fn read_request(stream: &mut TcpStream, buffer: &mut BytesMut) -> Option<Recorded> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut parsed = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(length) = parsed.parse(buffer).expect("the gateway speaks HTTP/1.1") {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let mut request = Recorded {
                method: parsed.method.unwrap().to_owned(),
                target: parsed.path.unwrap().to_owned(),
                headers: parsed.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
                body: Vec::new(),
            };
            assert!(request.header("transfer-encoding").is_none(), "the gateway knows its lengths: {request:?}");
            let whole = request.header("content-length").map_or(0, |length| length.parse().unwrap());
            let _head = buffer.split_to(length);
            while buffer.len() < whole {
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            request.body = buffer.split_to(whole).to_vec();
            return Some(request);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
