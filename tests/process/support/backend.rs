//! An HTTP back-end that notes every call, and can keep some waiting.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// One call that came.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) connection: String,
    pub(crate) close_code: String,
    pub(crate) body: String,
    headers: hyper::HeaderMap,
}

impl Call {
    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

struct Inner {
    calls: Mutex<Vec<Call>>,
    held: watch::Sender<&'static str>,
}

/// Answers every call with the body it came with.
#[derive(Clone)]
pub(crate) struct Backend {
    inner: Arc<Inner>,
    address: SocketAddr,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner { calls: Mutex::default(), held: watch::Sender::new("") });
        let backend = Self { inner, address };
        let server = backend.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let backend = server.clone();
                let service = service_fn(move |request| backend.clone().serve(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        backend
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Keeps calls of this path waiting from now on; `""` lets all go.
    pub(crate) fn hold(&self, path: &'static str) {
        self.inner.held.send_replace(path);
    }

    /// The calls of a path so far.
    pub(crate) fn calls(&self, path: &str) -> Vec<Call> {
        self.inner.calls.lock().unwrap().iter().filter(|call| call.path == path).cloned().collect()
    }

    /// How often a path was called for each connection.
    pub(crate) fn count_by_connection(&self, path: &str) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for call in self.calls(path) {
            *counts.entry(call.connection).or_default() += 1;
        }
        counts
    }

    async fn serve(self, request: hyper::Request<Incoming>) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let header =
            |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let path = parts.uri.path().to_owned();
        self.inner.calls.lock().unwrap().push(Call {
            path: path.clone(),
            connection: header("connectionId"),
            close_code: header("closeCode"),
            body: String::from_utf8_lossy(&body).into_owned(),
            headers: parts.headers.clone(),
        });
        let mut held = self.inner.held.subscribe();
        let _released = held.wait_for(|held| *held != path).await;
        Ok(hyper::Response::new(Full::new(body)))
    }
}
