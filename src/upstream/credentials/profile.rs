//! The shared files, `~/.aws/credentials` and `~/.aws/config`: one profile of them.

use std::collections::HashMap;
use std::path::Path;

use tokio::io::AsyncReadExt as _;

use super::{CredentialsError, Profile};
use crate::secret::Secret;
use crate::sigv4::Credentials;

/// Largest file taken: a few thousand profiles.
const MAX_BYTES: u64 = 1 << 20;

/// Keys by which a profile gets its credentials in a way that is not done here.
const OTHER_WAYS: [&str; 6] =
    ["role_arn", "source_profile", "credential_process", "sso_session", "sso_start_url", "web_identity_token_file"];

/// What the files say of one profile.
pub(super) struct Read {
    name: String,
    is_chosen: bool,
    settings: Option<HashMap<String, Secret>>,
    /// `region`.
    pub(super) region: Option<String>,
}

/// Reads the profile out of both files; what the credentials file says wins.
pub(super) async fn read(profile: &Profile) -> Result<Read, CredentialsError> {
    let name = profile.name.clone().unwrap_or_else(|| "default".to_owned());
    let credentials = text(profile.credentials_file.as_deref()).await?;
    let config = text(profile.config_file.as_deref()).await?;
    let in_config = if name == "default" { name.clone() } else { format!("profile {name}") };
    let mut settings = section(&config, &in_config);
    // The bare word is taken for the default profile alone, as `profile default` is.
    if settings.is_none() && name == "default" {
        settings = section(&config, "profile default");
    }
    if let Some(over) = section(&credentials, &name) {
        settings.get_or_insert_default().extend(over);
    }
    let region = settings.as_ref().and_then(|all| all.get("region")).map(|region| region.reveal().to_owned());
    Ok(Read { name, is_chosen: profile.name.is_some(), settings, region })
}

impl Read {
    /// Its credentials; `None` when it has none and was not asked for by name.
    pub(super) fn credentials(&self) -> Result<Option<Credentials>, CredentialsError> {
        let failed = |reason: String| Err(CredentialsError::Profile { name: self.name.clone(), reason });
        let Some(settings) = &self.settings else {
            return if self.is_chosen { failed("is in none of the shared files".to_owned()) } else { Ok(None) };
        };
        let get = |key: &str| settings.get(key).filter(|value| !value.reveal().is_empty());
        match (get("aws_access_key_id"), get("aws_secret_access_key")) {
            (Some(access_key), Some(secret)) => Ok(Some(Credentials {
                access_key: access_key.reveal().to_owned(),
                secret: secret.clone(),
                session_token: get("aws_session_token").cloned(),
            })),
            (Some(_), None) => failed("has `aws_access_key_id` without `aws_secret_access_key`".to_owned()),
            (None, Some(_)) => failed("has `aws_secret_access_key` without `aws_access_key_id`".to_owned()),
            (None, None) => match OTHER_WAYS.iter().find(|key| settings.contains_key(**key)) {
                Some(key) => failed(format!("uses `{key}`, which is not supported, expected an access key")),
                None if self.is_chosen => failed("has no access key".to_owned()),
                None => Ok(None),
            },
        }
    }
}

/// The text of a file; empty when there is none.
async fn text(path: Option<&Path>) -> Result<Secret, CredentialsError> {
    let Some(path) = path else { return Ok(Secret::new("")) };
    let failed = |source| CredentialsError::File { path: path.to_owned(), source };
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Secret::new("")),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    let length = file.take(MAX_BYTES + 1).read_to_string(&mut text).await.map_err(failed)?;
    if length as u64 > MAX_BYTES {
        return Err(failed(std::io::Error::other(format!("larger than {MAX_BYTES} bytes"))));
    }
    Ok(Secret::new(text))
}

/// The settings of a section, keys in lower case; `None` when it is not there. A line that is no setting is passed over,
/// as is what is nested below one (it begins with a space).
fn section(text: &Secret, wanted: &str) -> Option<HashMap<String, Secret>> {
    let mut found = None;
    let mut is_inside = false;
    for line in text.reveal().lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_inside = name.split_whitespace().eq(wanted.split_whitespace());
            if is_inside {
                found.get_or_insert_with(HashMap::new);
            }
        } else if let (true, false, Some((key, value))) = (is_inside, is_nested, line.split_once('=')) {
            // A comment may follow, after a space; a secret holds neither.
            let value = value.split(" #").next().and_then(|value| value.split(" ;").next()).unwrap_or_default();
            if let Some(settings) = &mut found {
                settings.insert(key.trim().to_ascii_lowercase(), Secret::new(value.trim()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_found_whatever_stands_around_it() {
        let text = Secret::new(
            "# mine\n[other]\naws_access_key_id = no\n\n[ profile  a b ]\nregion=eu-west-1 # near\ns3 =\n  region = nested\n\
             AWS_Access_Key_Id = AKIA\nrubbish\n[end]\nregion = no\n",
        );
        let found = section(&text, "profile a b").unwrap();
        let get = |key: &str| found.get(key).map(Secret::reveal);
        assert_eq!((get("region"), get("aws_access_key_id"), get("s3")), (Some("eu-west-1"), Some("AKIA"), Some("")));
        assert!(section(&text, "a b").is_none() && section(&Secret::new(""), "default").is_none());
    }
}
