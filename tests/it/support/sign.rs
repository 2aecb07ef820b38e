//! Request signatures, version 4, made a second time: the product's own must not be what it is tested with.

use causeway::clock::{Clock, EpochMillis};
use ring::{digest, hmac};

/// What a caller signs with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signer {
    pub(crate) id: &'static str,
    pub(crate) secret: &'static str,
    pub(crate) token: Option<&'static str>,
    /// How far its clock is off, in seconds.
    pub(crate) skew: i64,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Percent-encodes everything but unreserved characters, and slashes if `keeps_slashes`.
pub(crate) fn encode(text: &str, keeps_slashes: bool) -> String {
    let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keeps_slashes && byte == b'/';
    text.bytes().map(|b| if is_kept(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl Signer {
    pub(crate) const fn new(id: &'static str, secret: &'static str) -> Self {
        Self { id, secret, token: None, skew: 0 }
    }

    fn stamp(&self) -> String {
        let now = Clock::system().now().0.cast_signed() + self.skew * 1_000;
        EpochMillis(now.cast_unsigned()).to_basic_iso()
    }

    fn scope(stamp: &str) -> String {
        format!("{}/us-east-1/execute-api/aws4_request", &stamp[..8])
    }

    fn signature(&self, stamp: &str, canonical: &str) -> String {
        let scope = Self::scope(stamp);
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let sign = |key: &[u8], text: &str| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
        };
        let first = format!("AWS4{}", self.secret).into_bytes();
        let key = scope.split('/').fold(first, |key, part| sign(&key, part));
        hex(&sign(&key, &text))
    }

    /// The headers that sign a request for `path`, which has no query.
    pub(crate) fn headers(&self, method: &str, host: &str, path: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        let stamp = self.stamp();
        let (token, names) = match self.token {
            Some(token) => (format!("x-amz-security-token:{token}\n"), "host;x-amz-date;x-amz-security-token"),
            None => (String::new(), "host;x-amz-date"),
        };
        let canonical = format!(
            "{method}\n{}\n\nhost:{host}\nx-amz-date:{stamp}\n{token}\n{names}\n{}",
            encode(path, true),
            sha256(body)
        );
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={}",
            self.id,
            Self::scope(&stamp),
            self.signature(&stamp, &canonical)
        );
        let mut headers = vec![("X-Amz-Date", stamp), ("Authorization", authorization)];
        headers.extend(self.token.map(|token| ("X-Amz-Security-Token", token.to_owned())));
        headers
    }

    /// A signed address: `path` with the signature in its query, besides `parameters`.
    pub(crate) fn presigned(&self, host: &str, path: &str, parameters: &[(&str, &str)]) -> String {
        let stamp = self.stamp();
        let credential = format!("{}/{}", self.id, Self::scope(&stamp));
        let mut all = vec![
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &stamp),
            ("X-Amz-SignedHeaders", "host"),
        ];
        all.extend_from_slice(parameters);
        all.sort_unstable();
        let query: Vec<_> = all.iter().map(|(name, value)| format!("{name}={}", encode(value, false))).collect();
        let query = query.join("&");
        let canonical = format!("GET\n{}\n{query}\nhost:{host}\n\nhost\n{}", encode(path, true), sha256(b""));
        format!("{path}?{query}&X-Amz-Signature={}", self.signature(&stamp, &canonical))
    }
}
