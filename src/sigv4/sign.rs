//! Signing a call of ours.

use super::canonical::{self, Parts, PathForm};
use super::{ALGORITHM, Credentials, DerivedKeys, Request, Scope, TERMINATOR, sha256};
use crate::clock::EpochMillis;
use crate::secret::Secret;

/// Headers that what carries the request may change or add on its way.
const UNSIGNED: &[&str] =
    &["authorization", "connection", "content-length", "expect", "transfer-encoding", "user-agent", "x-amzn-trace-id"];

/// The headers that make `request` a signed one: `x-amz-date`, `x-amz-security-token` for keys that end, and
/// `authorization`. They must go along as they are, and the request as it was given.
///
/// Signs `host`, which must be among the headers, and every other header but those that change on the way. `keys` are
/// those of the credentials' secret. The path is encoded once more, as every service but S3 wants it, and its segments
/// stay as they are: there must be no empty ones and no dots.
pub fn sign(
    credentials: &Credentials,
    keys: &DerivedKeys,
    scope: Scope<'_>,
    request: &Request<'_>,
    body: &[u8],
    time: EpochMillis,
) -> Vec<(&'static str, String)> {
    let stamp = time.to_basic_iso();
    let token = credentials.session_token.as_ref().map(Secret::reveal);
    let mut headers: Vec<(&str, &str)> = request.headers.to_vec();
    headers.push(("x-amz-date", &stamp));
    headers.extend(token.map(|token| ("x-amz-security-token", token)));
    let mut names: Vec<String> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.retain(|name| !UNSIGNED.contains(&name.as_str()));
    names.sort_unstable();
    names.dedup();
    let signed_headers = names.join(";");
    let canonical = canonical::request(
        &Request { headers: &headers, ..*request },
        &Parts {
            path: &canonical::path(request.path, PathForm::Twice),
            query: &canonical::query(request.query, &[]),
            signed_headers: &signed_headers,
            host: None,
            payload: &sha256(body),
        },
    );
    let date = stamp.get(..8).unwrap_or_default();
    let scope_text = format!("{date}/{}/{}/{TERMINATOR}", scope.region, scope.service);
    let key = keys.get(&credentials.secret, date, scope);
    let signature = key.sign(&canonical::string_to_sign(&stamp, &scope_text, &canonical));
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope_text}, SignedHeaders={signed_headers}, Signature={signature}",
        credentials.access_key
    );
    let mut added = Vec::with_capacity(3);
    added.extend(token.map(|token| ("x-amz-security-token", token.to_owned())));
    added.push(("x-amz-date", stamp));
    added.push(("authorization", authorization));
    added
}
