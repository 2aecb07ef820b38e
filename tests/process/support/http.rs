//! Plain HTTP calls, one connection each.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::soon;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Makes one call; `headers` are whole lines.
pub(crate) async fn call(to: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Reply {
    let Some(reply) = try_call(to, method, path, headers, body).await else { panic!("no answer to {method} {path}") };
    reply
}

/// The same where nobody may be there any more.
pub(crate) async fn try_call(to: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Option<Reply> {
    let headers: String = headers.iter().flat_map(|line| [line, "\r\n"]).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    soon(&format!("{method} {path}"), async {
        let mut stream = TcpStream::connect(to).await.ok()?;
        // Refused before it was read, a request may meet a closed socket; the answer is there all the same.
        let _refused_already = stream.write_all(&[head.as_bytes(), body].concat()).await;
        let mut bytes = Vec::new();
        let _reset_behind_the_answer = stream.read_to_end(&mut bytes).await;
        parse(&bytes)
    })
    .await
}

/// `POST @connections`, as `run` wants it.
pub(crate) async fn push(to: SocketAddr, id: &str, body: &str) -> Reply {
    let Some(reply) = try_push(to, id, body).await else { panic!("no answer to a push") };
    reply
}

/// The same where nobody may be there any more.
pub(crate) async fn try_push(to: SocketAddr, id: &str, body: &str) -> Option<Reply> {
    let path = format!("/dev/@connections/{id}");
    try_call(to, "POST", &path, &["Authorization: Bearer token"], body.as_bytes()).await
}

fn parse(bytes: &[u8]) -> Option<Reply> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Some(Reply { status, head: head.to_owned(), body: body.to_owned() })
}
