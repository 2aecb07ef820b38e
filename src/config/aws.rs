//! Where functions are called, and what the environment says of credentials for it: the variables that AWS SDKs read.

use std::path::PathBuf;

use http::Uri;

use super::settings::Check;
use crate::document::Environment;
use crate::secret::Secret;
use crate::sigv4::Credentials;
use crate::upstream::LambdaConfig;
use crate::upstream::credentials::{Container, Profile, Sources};

/// Where an instance's metadata service is.
const INSTANCE: &str = "http://169.254.169.254";
/// Where a container's endpoint is when only a path is given.
const CONTAINER: &str = "http://169.254.170.2";

impl Check {
    pub(super) fn lambda(&mut self, endpoint: Option<&str>, environment: Environment<'_>) -> LambdaConfig {
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let endpoint = endpoint.and_then(|text| {
            let parsed = text.parse::<Uri>().ok().filter(is_endpoint);
            if parsed.is_none() {
                let expected = "expected a scheme and a host such as `http://127.0.0.1:9001`, and nothing after them";
                self.complain("lambda-endpoint", &format!("is `{}`, {expected}", text.escape_debug()));
            }
            parsed
        });
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        if let Some(region) = region.as_deref().filter(|region| !is_region(region)) {
            // It becomes part of a host name that signed calls go to.
            self.complain(
                "AWS_REGION",
                &format!("is `{}`, expected a region such as `eu-west-1`", region.escape_debug()),
            );
        }
        LambdaConfig { endpoint, region, credentials: self.sources(&variable) }
    }

    fn sources(&mut self, variable: &dyn Fn(&str) -> Option<String>) -> Sources {
        let environment = match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
            (Some(access_key), Some(secret)) => Some(Credentials {
                access_key,
                secret: Secret::new(secret),
                session_token: variable("AWS_SESSION_TOKEN").map(Secret::new),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.complain("AWS_ACCESS_KEY_ID", "stands alone, expected `AWS_SECRET_ACCESS_KEY` beside it");
                None
            }
            (None, Some(_)) => {
                self.complain("AWS_SECRET_ACCESS_KEY", "stands alone, expected `AWS_ACCESS_KEY_ID` beside it");
                None
            }
        };
        let at_home = |file: &str| variable("HOME").map(|home| PathBuf::from(home).join(".aws").join(file));
        let file = |name: &str, default: &str| variable(name).map(PathBuf::from).or_else(|| at_home(default));
        let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").map(|path| format!("{CONTAINER}{path}"));
        let container = relative.or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"));
        let is_off = variable("AWS_EC2_METADATA_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
        let instance = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| INSTANCE.to_owned());
        Sources {
            environment,
            profile: Profile {
                name: variable("AWS_PROFILE"),
                credentials_file: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
                config_file: file("AWS_CONFIG_FILE", "config"),
            },
            container: container.map(|url| Container {
                url,
                token: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Secret::new),
                token_file: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from),
            }),
            instance: (!is_off).then(|| instance.trim_end_matches('/').to_owned()),
        }
    }
}

/// Scheme and host alone: the path of a call is the API's own.
fn is_endpoint(uri: &Uri) -> bool {
    let has_host = uri.authority().is_some_and(|authority| !authority.host().is_empty());
    let is_bare = uri.path() == "/" && uri.query().is_none() && !uri.to_string().contains('@');
    matches!(uri.scheme_str(), Some("http" | "https")) && has_host && is_bare
}

fn is_region(text: &str) -> bool {
    text.len() <= 32 && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
