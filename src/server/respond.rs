//! Faults and answers as HTTP, in the spelling of the service's own recordings (specification 6.2).

use std::cell::RefCell;
use std::io::Write as _;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::clock::{Clock, EpochMillis};
use crate::fault::Fault;
use crate::ids::{RequestId, random_uuid};

/// An answer, before it is one of HTTP/1.1 by us or of axum's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) error_type: Option<&'static str>,
    pub(crate) body: String,
    /// More headers, names spelled as they should appear.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Whether it says what it carries; a 204 does not.
    pub(crate) has_body: bool,
}

impl Answer {
    /// 200 with a JSON body, maybe empty.
    pub(crate) fn ok(body: String) -> Self {
        Self { status: 200, error_type: None, body, headers: Vec::new(), has_body: true }
    }

    /// 204.
    pub(crate) fn no_content() -> Self {
        Self { status: 204, has_body: false, ..Self::ok(String::new()) }
    }

    /// What a fault is over HTTP.
    pub(crate) fn fault(fault: &Fault) -> Self {
        let row = fault.row();
        let extra = [
            (Fault::Unavailable, "Retry-After", "1"),
            (Fault::UpgradeRequired, "Upgrade", "websocket"),
            (Fault::UnsupportedVersion, "Sec-WebSocket-Version", "13"),
        ];
        let extra = extra.into_iter().filter(|(of, ..)| of == fault);
        let headers = extra.map(|(_, name, value)| (name, value.to_owned())).collect();
        Self { status: row.status, error_type: row.error_type, body: fault.body(), headers, has_body: true }
    }

    /// As HTTP/1.1, appended to `out`. `close` says so to the client.
    pub(crate) fn write(&self, out: &mut Vec<u8>, request: RequestId, close: bool) {
        start(out, self.status);
        if self.has_body {
            out.extend_from_slice(b"Content-Type: application/json\r\nContent-Length: ");
            // Writing to memory cannot fail, here and below.
            let _infallible = write!(out, "{}\r\n", self.body.len());
        }
        let uuid = random_uuid();
        for (name, value) in [("x-amzn-RequestId", uuid.as_str()), ("x-amz-apigw-id", &request.text())] {
            line(out, name, value);
        }
        if let Some(kind) = self.error_type {
            line(out, "x-amzn-ErrorType", kind);
        }
        for (name, value) in &self.headers {
            line(out, name, value);
        }
        match (self.status, close) {
            (426, _) => line(out, "Connection", "Upgrade, close"),
            (_, true) => line(out, "Connection", "close"),
            (_, false) => {}
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.body.as_bytes());
    }

    /// As axum's.
    pub(crate) fn into_response(self, request: RequestId) -> Response<axum::body::Body> {
        let mut response = Response::new(axum::body::Body::from(self.body));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if self.has_body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut add = |name: &'static str, value: &str| {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        };
        add("x-amzn-requestid", &random_uuid());
        add("x-amz-apigw-id", &request.text());
        if let Some(kind) = self.error_type {
            add("x-amzn-errortype", kind);
        }
        for (name, value) in &self.headers {
            add(name, value);
        }
        if self.status == 426 {
            add("connection", "Upgrade");
        }
        response
    }
}

/// The status line and the date.
pub(super) fn start(out: &mut Vec<u8>, status: u16) {
    let reason = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Unknown");
    let _infallible = write!(out, "HTTP/1.1 {status} {reason}\r\nDate: ");
    date(out);
    out.extend_from_slice(b"\r\n");
}

/// One header line; what could end it early is left out.
pub(super) fn line(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().filter(|b| !matches!(b, b'\r' | b'\n' | 0)));
    out.extend_from_slice(b"\r\n");
}

thread_local! {
    /// The second last written and its text: formatting a date costs more than a push's bookkeeping.
    static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// `Sun, 15 Nov 2020 12:23:14 GMT` (RFC 9110, 5.6.7).
fn date(out: &mut Vec<u8>) {
    let now = Clock::system().now();
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now.0 / 1_000 {
            *second = now.0 / 1_000;
            *text = imf_date(now);
        }
        out.extend_from_slice(text.as_bytes());
    });
}

fn imf_date(now: EpochMillis) -> String {
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    time::OffsetDateTime::from_unix_timestamp((now.0 / 1_000).cast_signed())
        .ok()
        .and_then(|t| t.format(format).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(imf_date(EpochMillis(1_605_442_994_123)), "Sun, 15 Nov 2020 12:23:14 GMT");
    }

    #[test]
    fn an_answer_is_one_whole_response() {
        let mut out = Vec::new();
        Answer::fault(&Fault::Gone).write(&mut out, RequestId::random(), false);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 410 Gone\r\nDate: "), "{text}");
        assert!(text.contains("\r\nContent-Length: 0\r\n") && text.contains("\r\nx-amzn-ErrorType: GoneException\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn a_value_cannot_start_a_line_of_its_own() {
        let mut out = Vec::new();
        line(&mut out, "A", "b\r\nInjected: c");
        assert_eq!(out, b"A: bInjected: c\r\n");
    }
}
