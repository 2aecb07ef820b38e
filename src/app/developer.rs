//! The key that `dev` hands out, so that signed callbacks and handshakes can be tried without any setting.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::auth::iam::{AccessKey, Config, Identity};
use crate::ids::random_bytes;
use crate::lang::policy::{Kind, Policy};
use crate::secret::Secret;

/// What the user is called.
const NAME: &str = "developer";

/// The identities with one more: a user with a new key who may do everything. `None` when the settings have a user of
/// that name already, whose keys are known then.
pub(super) fn joins(mut config: Config) -> (Config, Option<AccessKey>) {
    if config.identities.iter().any(|identity| !identity.is_role && identity.name == NAME) {
        return (config, None);
    }
    let everything = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}});
    let digits: [u8; 16] = random_bytes();
    let secret: [u8; 30] = random_bytes();
    let key = AccessKey {
        id: digits.iter().fold("AKIA".to_owned(), |id, byte| id + &char::from(b'A' + byte % 26).to_string()),
        secret: Secret::new(STANDARD.encode(secret)),
        session: None,
    };
    config.identities.push(Identity {
        name: NAME.to_owned(),
        is_role: false,
        policies: Policy::parse(&everything, Kind::Identity).into_iter().collect(),
        tags: BTreeMap::new(),
        keys: vec![key.clone()],
    });
    (config, Some(key))
}

/// What is printed of it, for a shell to take.
pub(super) fn words(key: &AccessKey, config: &Config) -> String {
    format!(
        "\na key that may do everything, until this process ends\n  export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={} AWS_REGION={}\n",
        key.id,
        key.secret.reveal(),
        config.region
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_developer_joins_with_a_key_of_its_own() {
        let (config, key) = joins(Config::default());
        let key = key.unwrap();
        assert!(key.id.len() == 20 && key.secret.reveal().len() == 40);
        assert_eq!(config.identities.len(), 1);
        assert_eq!(config.identities[0].policies.len(), 1);
        assert!(words(&key, &config).contains(key.secret.reveal()));
        let (_, other) = joins(Config::default());
        assert_ne!(other.unwrap().id, key.id);
        assert!(joins(config).1.is_none(), "there is one already");
    }
}
