//! Which API and stage an address means (specification 1.1, 1.2).

use std::net::IpAddr;
use std::sync::Arc;

use super::Gateway;
use super::live::{Deployment, LiveApi, LiveStage};
use crate::fault::Fault;
use crate::ids::{ApiId, StageName};

/// An address understood.
#[derive(Debug, Clone)]
pub struct Resolved<'a> {
    /// The stage it leads to.
    pub stage: Arc<LiveStage>,
    /// What follows the stage or the mapping key in the path, without its leading slash; percent-encoding as sent.
    pub rest: &'a str,
}

/// What of a request decides where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Resolver<'a> {
    /// The host as the client named it, port included or not.
    pub host: &'a str,
    /// The path as sent, without the query.
    pub path: &'a str,
    /// HTTP method, for the wording of one error.
    pub method: &'a str,
}

/// The name in a `Host` header, without its port.
pub(super) fn host_name(host: &str) -> &str {
    if let Some(end) = host.strip_prefix('[').and_then(|rest| rest.find(']')) {
        return host.get(..end + 2).unwrap_or(host);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Whether a host name can only mean this machine: what `dev` answers to, so that a rebound name reaches nothing.
pub fn is_loopback_name(host: &str) -> bool {
    let name = host_name(host).trim_end_matches('.');
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a `Host` header is an address, which nobody can make a browser take for a name of theirs.
pub fn is_address(host: &str) -> bool {
    let name = host_name(host);
    name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

fn split(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').unwrap_or((path, ""))
}

fn is_callback(rest: &str) -> bool {
    rest.starts_with('@') || rest.starts_with("%40")
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            name.len() > suffix.len()
                && name.get(name.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
        None => pattern.eq_ignore_ascii_case(name),
    }
}

impl Gateway {
    /// Finds the stage an address leads to: a declared domain's mapping, else the first label of the host, else the only
    /// API there is if the path starts with a stage of it, else the first segment of the path as API id.
    ///
    /// # Errors
    /// [`Fault::Forbidden`] when it leads nowhere; [`Fault::NoMethod`] for a callback under a custom domain's wrong key.
    pub fn resolve<'a>(&self, request: Resolver<'a>) -> Result<Resolved<'a>, Fault> {
        let deployment = self.deployment.load();
        let name = host_name(request.host);
        if let Some(found) = by_domain(&deployment, name, request) {
            return found;
        }
        let label = name.split('.').next().unwrap_or_default();
        let mut all = deployment.apis.values();
        let (api, path) = match (deployment.apis.get(label), all.next(), all.next()) {
            (Some(api), ..) => (api, request.path),
            (None, Some(api), None) if api.stages.contains_key(split(request.path).0) => (api, request.path),
            (None, ..) => {
                let (id, _) = split(request.path);
                let after = request.path.get(1 + id.len()..).unwrap_or_default();
                (deployment.apis.get(id).ok_or(Fault::Forbidden)?, after)
            }
        };
        if api.api.default_endpoint_disabled {
            return Err(Fault::Forbidden);
        }
        let (stage, rest) = split(path);
        let stage = api.stages.get(stage).ok_or(Fault::Forbidden)?;
        Ok(Resolved { stage: Arc::clone(stage), rest })
    }

    /// A stage by its names.
    pub(super) fn live_stage(&self, api: &ApiId, stage: &StageName) -> Option<Arc<LiveStage>> {
        self.deployment.load().apis.get(api)?.stages.get(stage).map(Arc::clone)
    }

    /// Whether `host` is a declared domain name.
    pub fn is_declared_domain(&self, host: &str) -> bool {
        let name = host_name(host);
        let deployment = self.deployment.load();
        deployment.apis.values().any(|api| api.api.domains.iter().any(|domain| matches(&domain.name, name)))
    }
}

fn by_domain<'a>(deployment: &Deployment, name: &str, request: Resolver<'a>) -> Option<Result<Resolved<'a>, Fault>> {
    // An exact name beats a wildcard (specification 1.2.7).
    let exact = |exact: bool| {
        deployment
            .apis
            .values()
            .flat_map(move |api| api.api.domains.iter().map(move |domain| (api, domain)))
            .filter(move |(_, domain)| matches(&domain.name, name) && domain.name.starts_with('*') != exact)
    };
    let mut mappings: Vec<_> = exact(true).collect();
    if mappings.is_empty() {
        mappings = exact(false).collect();
    }
    if mappings.is_empty() {
        return None;
    }
    let (first, after) = split(request.path);
    let lead = |api: &LiveApi, stage: &StageName, rest: &'a str| {
        let stage = api.stages.get(stage).ok_or(Fault::Forbidden)?;
        Ok(Resolved { stage: Arc::clone(stage), rest })
    };
    let whole = request.path.strip_prefix('/').unwrap_or(request.path);
    if let Some((api, domain)) = mappings.iter().find(|(_, domain)| !domain.key.is_empty() && domain.key == first) {
        return Some(lead(api, &domain.stage, after));
    }
    if let Some((api, domain)) = mappings.iter().find(|(_, domain)| domain.key.is_empty())
        && (whole.is_empty() || is_callback(whole))
    {
        return Some(lead(api, &domain.stage, whole));
    }
    Some(Err(if is_callback(after) {
        Fault::NoMethod { path: whole.to_owned(), method: request.method.to_owned() }
    } else {
        Fault::Forbidden
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_are_loopback() {
        for name in ["localhost", "LOCALHOST:8080", "chat.localhost:1", "127.0.0.1:9", "127.9.9.9", "[::1]:8080"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in ["localhost.evil.example", "evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }

    #[test]
    fn addresses_are_not_names() {
        assert!(is_address("192.0.2.1") && is_address("192.0.2.1:80") && is_address("[2001:db8::1]:80"));
        assert!(!is_address("localhost") && !is_address("192.0.2.1.evil.example") && !is_address(""));
    }

    #[test]
    fn hosts_lose_their_port() {
        assert_eq!(host_name("chat.localhost:8080"), "chat.localhost");
        assert_eq!(host_name("[::1]:8080"), "[::1]");
        assert_eq!(host_name("plain"), "plain");
    }

    #[test]
    fn wildcards_match_one_or_more_labels() {
        assert!(matches("*.example.com", "ws.example.com") && matches("ws.example.com", "WS.example.com"));
        assert!(!matches("*.example.com", "example.com") && !matches("*.example.com", ".example.com"));
    }
}
