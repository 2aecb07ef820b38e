//! A back-end for tests: takes raw requests off a loopback socket, keeps them, answers what it is told.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::tasks::Tasks;

/// What the back-end does with one request.
pub(crate) enum Reply {
    /// These bytes; the connection stays.
    Keep(Vec<u8>),
    /// These bytes, then the end of the connection.
    Close(Vec<u8>),
    /// Nothing, until the client goes.
    Silence,
}

/// A whole answer with a body.
pub(crate) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Reply::Keep(bytes)
}

pub(crate) fn ok(body: impl AsRef<[u8]>) -> Reply {
    answer("200 OK", "", body)
}

#[derive(Default)]
struct Seen {
    requests: Vec<String>,
    connections: usize,
}

pub(crate) struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Backend {
    pub(crate) async fn start(tasks: &Tasks, reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (kept, reply, inner) = (Arc::clone(&seen), Arc::new(reply), tasks.clone());
        tasks.spawn("test-backend", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                kept.lock().connections += 1;
                let (kept, reply) = (Arc::clone(&kept), Arc::clone(&reply));
                inner.spawn("test-backend-connection", async move {
                    serve(stream, &kept, &*reply).await;
                });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Every request so far, head and body as they came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().requests.clone()
    }

    /// The only request so far.
    pub(crate) fn request(&self) -> String {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.into_iter().next().unwrap()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().connections
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Seen>,
    reply: &(dyn Fn(&str) -> Reply + Send + Sync),
) {
    let mut bytes = Vec::new();
    loop {
        let request = loop {
            if let Some(length) = whole_request(&bytes) {
                break String::from_utf8_lossy(&bytes.drain(..length).collect::<Vec<_>>()).into_owned();
            }
            if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                return;
            }
        };
        let reply = reply(&request);
        seen.lock().requests.push(request);
        match reply {
            Reply::Keep(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::Close(bytes) => {
                let _client_may_be_gone = stream.write_all(&bytes).await;
                return;
            }
            Reply::Silence => {
                let _until_the_client_goes = stream.read(&mut [0; 1]).await;
                return;
            }
        }
    }
}

/// Bytes of the first request in `bytes`, when all of it is there.
fn whole_request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let body = text.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    (bytes.len() >= head + body).then_some(head + body)
}

/// A header's value in a captured request, its name written exactly like this.
pub(crate) fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let mut values = headers(request, name);
    let value = values.next();
    assert!(values.next().is_none(), "{name} twice in {request}");
    value
}

/// All values of a header in a captured request, its name written exactly like this.
pub(crate) fn headers<'a>(request: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let head = request.split("\r\n\r\n").next().unwrap_or_default();
    head.split("\r\n").skip(1).filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The body of a captured request.
pub(crate) fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").unwrap().1
}
