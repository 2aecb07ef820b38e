//! Request signatures, version 4: made for calls of ours, checked on those of others.
//!
//! A signature is an HMAC over a *canonical request*: method, path, query, some headers and the hash of the body, each
//! in one agreed spelling. Both sides spell it for themselves, so the request needs to carry no more than who signed,
//! when, and which headers count.
//!
//! Pure: no I/O and no clock; whoever calls brings the time, the secret and what is expected. Sources: specification
//! 6.5 and 8.3, and 7.6 and 7.7 of the REST one; the service's guide "Signature Version 4 signing process".

mod canonical;
mod claim;
mod key;
mod refused;
mod sign;
#[cfg(test)]
mod tests;
mod verify;

pub use claim::Claim;
pub use key::{DerivedKeys, SigningKey};
pub use refused::Refused;
pub use sign::sign;
pub use verify::Expected;

use crate::secret::Secret;

/// The only algorithm spoken here.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What ends every credential scope.
const TERMINATOR: &str = "aws4_request";
/// In place of a body's hash: the signature does not cover the body.
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// What a caller signs with.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Names the key: `AKIA…`, or `ASIA…` for one that ends.
    pub access_key: String,
    /// The key itself.
    pub secret: Secret,
    /// Goes along with keys that end.
    pub session_token: Option<Secret>,
}

/// Where a signature counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope<'a> {
    /// Such as `us-east-1`.
    pub region: &'a str,
    /// Signing name of the service, such as `lambda` or `execute-api`.
    pub service: &'a str,
}

/// A request as its signature sees it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// The path as it goes over the wire, percent-encoding untouched, without the query.
    pub path: &'a str,
    /// The query as it goes over the wire, without `?`.
    pub query: &'a str,
    /// Names and values, in order, `host` among them.
    pub headers: &'a [(&'a str, &'a str)],
}

impl<'a> Request<'a> {
    /// All values of a header, in order.
    fn all(&self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The value of a header that is there once; `Err` when it is there more often.
    fn only(&self, name: &'a str) -> Result<Option<&'a str>, ()> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() { Err(()) } else { Ok(first) }
    }
}

fn sha256(bytes: &[u8]) -> String {
    crate::ids::hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}
