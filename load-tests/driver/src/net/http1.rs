//! The little HTTP/1.1 a publisher needs: a POST out, an answer's status and length in.

use std::net::SocketAddr;

use anyhow::{Result, bail};

/// A keep-alive POST of `body`, with header lines that authorize it.
pub fn post(host: SocketAddr, path: &str, body: &[u8], authorization: &str) -> Vec<u8> {
    let mut out = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{authorization}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}

/// An answer found at the front of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Bytes it took, body included.
    pub taken: usize,
}

/// The first answer of `bytes`, or `None` while it is not all there.
pub fn answer(bytes: &[u8]) -> Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(bytes)? else { return Ok(None) };
    let status = parsed.code.unwrap_or_default();
    let value = |name: &str| {
        parsed
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| String::from_utf8_lossy(header.value))
    };
    let body = &bytes[head..];
    if let Some(length) = value("content-length") {
        let length: usize = length.trim().parse()?;
        return Ok((body.len() >= length).then_some(Answer { status, taken: head + length }));
    }
    if value("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Ok(chunked(body)?.map(|length| Answer { status, taken: head + length }));
    }
    if matches!(status, 100..=199 | 204 | 304) {
        return Ok(Some(Answer { status, taken: head }));
    }
    bail!("an answer with status {status} has neither length nor chunks")
}

/// Bytes of a whole chunked body without trailers, or `None` while it is not all there.
fn chunked(body: &[u8]) -> Result<Option<usize>> {
    let mut at = 0;
    loop {
        match httparse::parse_chunk_size(&body[at..]) {
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete((line, length))) => {
                let next = at + line + length as usize + 2;
                if body.len() < next {
                    return Ok(None);
                }
                if length == 0 {
                    return Ok(Some(next));
                }
                at = next;
            }
            Err(_) => bail!("a chunk with a bad size"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_or_last_chunk_says() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP";
        assert_eq!(answer(whole).unwrap(), Some(Answer { status: 200, taken: 40 }));
        assert_eq!(answer(&whole[..39]).unwrap(), None);
        let chunks = b"HTTP/1.1 202 A\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let taken = chunks.len();
        assert_eq!(answer(chunks).unwrap(), Some(Answer { status: 202, taken }));
        assert_eq!(answer(&chunks[..taken - 1]).unwrap(), None);
        assert_eq!(answer(b"HTTP/1.1 204 N\r\n\r\n").unwrap().unwrap().status, 204);
    }
}
