//! Whether a signature is the one that the request and the secret make.

use subtle::ConstantTimeEq as _;

use super::canonical::{self, Parts, PathForm};
use super::claim::{Claim, Form};
use super::refused::MISMATCH;
use super::{DerivedKeys, Refused, Request, Scope, SigningKey, UNSIGNED_PAYLOAD, sha256};
use crate::secret::Secret;

/// What a signature is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The caller's secret.
    pub secret: &'a Secret,
    /// Keys of that secret that were derived before.
    pub keys: &'a DerivedKeys,
    /// Where it must count.
    pub scope: Scope<'a>,
    /// Names that callers may have signed in place of the one that arrived: a proxy in front may have changed it.
    pub hosts: &'a [Box<str>],
}

/// Parameters of a query that its own signature cannot cover, and one that may have been added behind it
/// (specification 8.3.2).
const SIGNATURE: &str = "X-Amz-Signature";
const TOKEN: &str = "X-Amz-Security-Token";

impl Claim<'_> {
    /// Checks the signature over `request`, the one this was read from, with its whole body.
    ///
    /// The path counts in either encoding (specification 6.5.4), with and without its empty segments. Dots are compared
    /// as sent: a signature for one path is none for another. A path that has `%25` on the wire counts only encoded twice,
    /// since it would read like another one that was encoded twice already.
    ///
    /// # Errors
    /// [`Refused::Invalid`], row 12, with the texts that should have been signed; a session token in them is masked.
    pub fn verify(&self, request: &Request<'_>, body: &[u8], expected: &Expected<'_>) -> Result<(), Refused> {
        let is_query = matches!(self.form, Form::Query(_));
        let hash = sha256(body);
        let claimed = request.only("x-amz-content-sha256").map_err(|()| Refused::mismatch())?.map(str::trim);
        let payload = match claimed {
            Some(UNSIGNED_PAYLOAD) if is_query => UNSIGNED_PAYLOAD,
            // What was hashed is not what came.
            Some(claimed) if claimed != hash => return Err(Refused::mismatch()),
            Some(_) | None => &hash,
        };
        let key = expected.keys.get(expected.secret, self.date(), expected.scope);
        let left_out: &[&str] = if is_query { &[SIGNATURE] } else { &[] };
        // What SDKs sign comes first, and by itself: the other spellings cost more than they are needed.
        let usual = Parts {
            path: &canonical::path(request.path, PathForm::Twice),
            query: &canonical::query(request.query, left_out),
            signed_headers: &self.signed_headers,
            host: None,
            payload,
        };
        let Err((canonical, text)) = self.compare(request, &usual, &key) else { return Ok(()) };
        let paths = paths(request.path);
        let mut queries = vec![usual.query.to_owned()];
        if is_query && self.token().is_some() {
            queries.push(canonical::query(request.query, &[SIGNATURE, TOKEN]));
        }
        for host in hosts(request, expected.hosts) {
            for path in &paths {
                for query in &queries {
                    if self.compare(request, &Parts { path, query, host, ..usual }, &key).is_ok() {
                        return Ok(());
                    }
                }
            }
        }
        Err(Refused::Invalid(format!(
            "{MISMATCH}\n\nThe Canonical String for this request should have been\n'{}'\n\nThe String-to-Sign should have \
             been\n'{text}'\n",
            self.masked(&canonical)
        )))
    }

    /// Whether the signature is that of a spelling; else what should have been signed.
    fn compare(&self, request: &Request<'_>, parts: &Parts<'_>, key: &SigningKey) -> Result<(), (String, String)> {
        let canonical = canonical::request(request, parts);
        let text = canonical::string_to_sign(&self.stamp, &self.scope, &canonical);
        if key.sign(&text).as_bytes().ct_eq(self.signature.as_bytes()).into() { Ok(()) } else { Err((canonical, text)) }
    }

    /// A canonical request without the session token: its reader has it, and the logs on the way need not.
    fn masked(&self, canonical: &str) -> String {
        let Some(token) = self.token().filter(|token| !token.is_empty()) else { return canonical.to_owned() };
        let in_query = canonical::query(
            &format!("t={}", percent_encoding::utf8_percent_encode(token, percent_encoding::NON_ALPHANUMERIC)),
            &[],
        );
        let masked = canonical.replace(token, "***");
        in_query.strip_prefix("t=").map_or(masked.clone(), |token| masked.replace(token, "***"))
    }
}

/// The spellings of a path that count, the usual one first.
fn paths(path: &str) -> Vec<String> {
    let mut paths = vec![canonical::path(path, PathForm::Twice)];
    let mut add = |path: String| {
        if !paths.contains(&path) {
            paths.push(path);
        }
    };
    let is_plain = !path.contains("%25");
    if is_plain {
        add(canonical::path(path, PathForm::Once));
    }
    let has_dots = path.split('/').any(|segment| {
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
        matches!(decoded.as_slice(), b"." | b"..")
    });
    if path.contains("//") && !has_dots {
        let path = canonical::without_empty_segments(path);
        add(canonical::path(&path, PathForm::Twice));
        if is_plain {
            add(canonical::path(&path, PathForm::Once));
        }
    }
    paths
}

/// What may stand for the host: what arrived, the same without the port that its scheme implies, the configured names.
fn hosts<'h>(request: &Request<'h>, configured: &'h [Box<str>]) -> Vec<Option<&'h str>> {
    let mut hosts = vec![None];
    if let Ok(Some(host)) = request.only("host")
        && let Some(name) = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80"))
    {
        hosts.push(Some(name));
    }
    hosts.extend(configured.iter().map(|host| Some(&**host)));
    hosts
}
