//! Credentials over HTTP: from a container's endpoint, and from an instance's metadata service (version 2 of it).

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use serde::Deserialize;
use tokio::time::Instant;

use super::super::{Http, UpstreamError, chain};
use super::Container;
use crate::clock::EpochMillis;
use crate::secret::Secret;
use crate::sigv4::Credentials;

/// For a container's endpoint, which is there or the address would not be set.
const CONTAINER_PATIENCE: Duration = Duration::from_secs(5);
/// For each request to the metadata service, which answers within milliseconds where there is one.
const INSTANCE_PATIENCE: Duration = Duration::from_secs(1);
/// Largest answer taken.
const MAX_BYTES: usize = 64 << 10;
/// Hosts besides loopback that a token may be sent to without TLS: those of the container services.
const PLAIN_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

/// What an endpoint gave.
pub(super) struct Given {
    pub(super) credentials: Credentials,
    pub(super) expires: Option<EpochMillis>,
}

/// Why an instance's endpoint gives nothing.
pub(super) enum InstanceError {
    /// There is none: this is no instance.
    Absent(String),
    /// It is there.
    Refused(String),
}

/// What both write.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    code: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
}

fn read(body: &[u8]) -> Result<Given, String> {
    let document: Document = serde_json::from_slice(body).map_err(|_| "its answer is not understood".to_owned())?;
    if let Some(code) = document.code.as_deref().filter(|code| *code != "Success") {
        return Err(format!("it says `{}`", code.chars().take(64).collect::<String>().escape_debug()));
    }
    let expires = match document.expiration.as_deref().map(time) {
        Some(None) => return Err("its answer has a time that is none".to_owned()),
        Some(some) => some,
        None => None,
    };
    match (document.access_key_id, document.secret_access_key) {
        (Some(access_key), Some(secret)) => Ok(Given {
            credentials: Credentials {
                access_key,
                secret: Secret::new(secret),
                session_token: document.token.map(Secret::new),
            },
            expires,
        }),
        _ => Err("its answer has no key".to_owned()),
    }
}

/// `2026-01-02T03:04:05Z`, with a fraction or without.
fn time(text: &str) -> Option<EpochMillis> {
    let whole = text.strip_suffix('Z')?.split('.').next()?;
    EpochMillis::from_basic_iso(&format!("{}Z", whole.replace(['-', ':'], "")))
}

/// Asks a container's endpoint.
pub(super) async fn container(http: &Http, container: &Container) -> Result<Given, String> {
    let mut request = request(Method::GET, &container.url).map_err(|error| chain(&error))?;
    if !may_be_asked(request.uri()) {
        return Err(format!("{} is neither https, loopback nor a container service's", container.url));
    }
    let from_file = match &container.token_file {
        Some(path) => {
            let text = tokio::fs::read_to_string(path).await;
            let text = text.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
            Some(Secret::new(text.trim()))
        }
        None => None,
    };
    if let Some(token) = from_file.as_ref().or(container.token.as_ref()) {
        request.headers_mut().insert(header::AUTHORIZATION, sensitive(token.reveal())?);
    }
    let body = call(http, request, CONTAINER_PATIENCE).await.map_err(|error| error.told())?;
    read(&body)
}

/// Whether an address may see the token: over TLS, on this machine, or the service's own.
fn may_be_asked(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback =
        host.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    uri.scheme_str() == Some("https") || is_loopback || PLAIN_HOSTS.contains(&host)
}

/// Asks an instance's metadata service: a token, the name of the role, its credentials.
pub(super) async fn instance(http: &Http, base: &str) -> Result<Given, InstanceError> {
    let refused = |error: Failure| InstanceError::Refused(error.told());
    let bad = InstanceError::Refused;
    let mut ask = request(Method::PUT, &format!("{base}/latest/api/token")).map_err(|error| bad(chain(&error)))?;
    ask.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", HeaderValue::from_static("21600"));
    let token = match call(http, ask, INSTANCE_PATIENCE).await {
        Ok(token) => token,
        Err(Failure::Upstream(error)) => return Err(InstanceError::Absent(chain(&error))),
        Err(other) => return Err(refused(other)),
    };
    let token = sensitive(&String::from_utf8_lossy(&token)).map_err(bad)?;
    let get = |path: &str| {
        let mut request = request(Method::GET, &format!("{base}/latest/meta-data/iam/security-credentials/{path}"))?;
        request.headers_mut().insert("x-aws-ec2-metadata-token", token.clone());
        Ok(request)
    };
    let broken = |error: UpstreamError| bad(chain(&error));
    let role = call(http, get("").map_err(broken)?, INSTANCE_PATIENCE).await.map_err(refused)?;
    let role = String::from_utf8_lossy(&role);
    let role = role.lines().next().unwrap_or_default().trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    if role.is_empty() || !role.chars().all(fits) {
        return Err(bad("the instance has no role".to_owned()));
    }
    let body = call(http, get(role).map_err(broken)?, INSTANCE_PATIENCE).await.map_err(refused)?;
    read(&body).map_err(bad)
}

/// Why a request has no answer that helps.
enum Failure {
    Upstream(UpstreamError),
    Status(StatusCode),
}

impl Failure {
    fn told(&self) -> String {
        match self {
            Self::Upstream(error) => chain(error),
            Self::Status(status) => format!("it answers {status}"),
        }
    }
}

async fn call(http: &Http, request: Request<Bytes>, patience: Duration) -> Result<Bytes, Failure> {
    let answer = http.call_at_most(request, Instant::now() + patience, MAX_BYTES).await.map_err(Failure::Upstream)?;
    if answer.status() == StatusCode::OK { Ok(answer.into_body()) } else { Err(Failure::Status(answer.status())) }
}

fn request(method: Method, url: &str) -> Result<Request<Bytes>, UpstreamError> {
    let uri: Uri = url.parse().map_err(|_| UpstreamError::InvalidUri)?;
    let host = uri.authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
    let mut request = Request::new(Bytes::new());
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    if method == Method::PUT {
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    Ok(request)
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::try_from(text).map_err(|_| "the token does not fit a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_credentials_is_read_with_and_without_a_fraction() {
        for text in ["2022-04-18T17:07:29Z", "2022-04-18T17:07:29.973Z"] {
            assert_eq!(time(text), Some(EpochMillis(1_650_301_649_000)), "{text}");
        }
        assert!(time("2022-04-18 17:07:29Z").is_none() && time("soon").is_none() && time("").is_none());
    }

    #[test]
    fn a_token_goes_to_tls_loopback_and_the_services_alone() {
        for url in [
            "https://any.example/x",
            "http://127.0.0.1:5/x",
            "http://localhost/x",
            "http://[::1]:5/x",
            "http://169.254.170.2/v2/x",
            "http://169.254.170.23/v1",
            "http://[fd00:ec2::23]/v1",
        ] {
            assert!(may_be_asked(&url.parse().unwrap()), "{url}");
        }
        for url in ["http://any.example/x", "http://169.254.169.254/x", "http://127.0.0.1.evil.example/"] {
            assert!(!may_be_asked(&url.parse().unwrap()), "{url}");
        }
    }
}
