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
    soon(&format!("{method} {path}"), async {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
        for line in headers {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        // Refused before it was read, a request may meet a closed socket; the answer is there all the same.
        let _refused_already = stream.write_all(&[request.as_bytes(), body].concat()).await;
        let mut bytes = Vec::new();
        let _reset_behind_the_answer = stream.read_to_end(&mut bytes).await;
        parse(&bytes)
    })
    .await
}

/// `POST @connections`, as `run` wants it.
pub(crate) async fn push(to: SocketAddr, id: &str, body: &str) -> Reply {
    let path = format!("/dev/@connections/{id}");
    call(to, "POST", &path, &["Authorization: Bearer token"], body.as_bytes()).await
}

fn parse(bytes: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { panic!("no answer: {text:?}") };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}
