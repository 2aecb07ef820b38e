//! Who may sign: the section `iam` of the file. It is nested, so it stands in the file only; secrets in it are best
//! references, `${env:NAME}` or `${file:path}`.

use std::collections::{BTreeMap, HashSet};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::settings::Check;
use crate::auth::iam::{AccessKey, Config, Identity, Session};
use crate::clock::EpochMillis;
use crate::document::Node;
use crate::lang::policy::{Kind, Policy, PolicyError, Step};
use crate::secret::Secret;

/// Users, roles, their keys and policies, and what the account is called.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IamFile {
    /// The account that everything is in, 12 digits in quotes. Default `"000000000000"`.
    #[schemars(regex(pattern = "^[0-9]{12}$"), extend("errorMessage" = "12 digits, in quotes"))]
    account: Option<String>,
    /// The region that signatures are made for. Default `us-east-1`.
    #[schemars(regex(pattern = "^[a-z0-9-]{1,32}$"), extend("errorMessage" = "a region such as `us-east-1`"))]
    region: Option<String>,
    /// Host names that callers may have signed where a proxy in front changes `Host`. Default none.
    #[schemars(extend("maxItems" = 8))]
    hosts: Option<Vec<String>>,
    /// Users by name.
    #[schemars(extend("maxProperties" = 1_000, "propertyNames" = {
        "pattern": r"^[A-Za-z0-9_+=,.@-]{1,64}$",
        "errorMessage": "a name: 1 to 64 letters, digits and `_+=,.@-`",
    }))]
    users: Option<BTreeMap<String, UserFile>>,
    /// Roles by name.
    #[schemars(extend("maxProperties" = 1_000, "propertyNames" = {
        "pattern": r"^[A-Za-z0-9_+=,.@-]{1,64}$",
        "errorMessage": "a name: 1 to 64 letters, digits and `_+=,.@-`",
    }))]
    roles: Option<BTreeMap<String, RoleFile>>,
}

/// A user.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct UserFile {
    /// Its keys; two of them let one be replaced while the other is in use.
    #[schemars(extend("maxItems" = 10))]
    access_keys: Option<Vec<AccessKeyFile>>,
    /// What it may do: policy documents, as IAM has them.
    #[schemars(extend("maxItems" = 20))]
    policies: Option<Vec<Value>>,
    /// What conditions may ask for as `aws:PrincipalTag/…`.
    tags: Option<BTreeMap<String, String>>,
}

/// An access key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AccessKeyFile {
    /// What requests name it by, such as `AKIDEXAMPLE`.
    #[schemars(required, regex(pattern = "^[A-Za-z0-9_]{4,128}$"))]
    #[schemars(extend("errorMessage" = "4 to 128 letters, digits and `_`"))]
    id: Option<String>,
    /// What they are signed with.
    #[schemars(required, with = "Option<String>")]
    #[serde(deserialize_with = "super::options::secret_from_file", default)]
    secret: Option<Secret>,
}

/// A role.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RoleFile {
    /// Who is in it: keys that go along with a token, and may end.
    #[schemars(extend("maxItems" = 100))]
    sessions: Option<Vec<SessionFile>>,
    /// What it may do: policy documents, as IAM has them.
    #[schemars(extend("maxItems" = 20))]
    policies: Option<Vec<Value>>,
    /// What conditions may ask for as `aws:PrincipalTag/…`.
    tags: Option<BTreeMap<String, String>>,
}

/// A session of a role.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SessionFile {
    /// Its name, the last part of its ARN.
    #[schemars(required, regex(pattern = r"^[A-Za-z0-9_+=,.@-]{2,64}$"))]
    #[schemars(extend("errorMessage" = "2 to 64 letters, digits and `_+=,.@-`"))]
    name: Option<String>,
    /// What requests name its key by, such as `ASIAEXAMPLE`.
    #[schemars(required, regex(pattern = "^[A-Za-z0-9_]{4,128}$"))]
    #[schemars(extend("errorMessage" = "4 to 128 letters, digits and `_`"))]
    id: Option<String>,
    /// What they are signed with.
    #[schemars(required, with = "Option<String>")]
    #[serde(deserialize_with = "super::options::secret_from_file", default)]
    secret: Option<Secret>,
    /// The session token.
    #[schemars(required, with = "Option<String>")]
    #[serde(deserialize_with = "super::options::secret_from_file", default)]
    session_token: Option<Secret>,
    /// When it ends, as `2030-01-31T12:00:00Z`. Default never.
    expires: Option<String>,
}

/// Shortest secret of a key: what can be guessed proves nothing. The service's own have 40 characters.
const SECRET_BYTES: usize = 16;

impl Check {
    /// The identities of the file.
    pub(super) fn iam(&mut self, file: Option<IamFile>) -> Config {
        let default = Config::default();
        let Some(file) = file else { return default };
        let root = self.node("iam");
        let mut reader = Reader { check: self, ids: HashSet::new() };
        let mut identities = Vec::new();
        for (name, user) in file.users.unwrap_or_default() {
            let node = at(root.as_ref(), &["users", &name]);
            identities.push(reader.user(name, user, node.as_ref()));
        }
        for (name, role) in file.roles.unwrap_or_default() {
            let node = at(root.as_ref(), &["roles", &name]);
            identities.push(reader.role(name, role, node.as_ref()));
        }
        Config {
            account: file.account.unwrap_or(default.account),
            region: file.region.unwrap_or(default.region),
            hosts: file.hosts.unwrap_or_default(),
            identities,
        }
    }
}

fn at(node: Option<&Node>, keys: &[&str]) -> Option<Node> {
    node.map(|node| keys.iter().fold(node, |node, key| node.at(key)).clone())
}

fn item(node: Option<&Node>, key: &str, index: usize) -> Option<Node> {
    node.and_then(|node| node.at(key).items().nth(index).cloned())
}

struct Reader<'c> {
    check: &'c mut Check,
    ids: HashSet<String>,
}

impl Reader<'_> {
    fn user(&mut self, name: String, user: UserFile, node: Option<&Node>) -> Identity {
        let keys = user.access_keys.unwrap_or_default().into_iter().enumerate().filter_map(|(index, key)| {
            let node = item(node, "access-keys", index);
            self.key(key.id, key.secret, None, node.as_ref())
        });
        let keys = keys.collect();
        let policies = self.policies(user.policies, node);
        Identity { name, is_role: false, policies, tags: user.tags.unwrap_or_default(), keys }
    }

    fn role(&mut self, name: String, role: RoleFile, node: Option<&Node>) -> Identity {
        let keys = role.sessions.unwrap_or_default().into_iter().enumerate().filter_map(|(index, file)| {
            let node = item(node, "sessions", index);
            let expires = file.expires.as_deref().map(|text| {
                let basic: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
                EpochMillis::from_basic_iso(&basic).filter(|_| text.len() == "2030-01-31T12:00:00Z".len())
            });
            if expires == Some(None) {
                let place = at(node.as_ref(), &["expires"]);
                self.check
                    .complain_at(place.as_ref(), "`expires` is no time, expected one such as `2030-01-31T12:00:00Z`");
            }
            let token = file.session_token?;
            let session = Session { name: file.name?, token, expires: expires.flatten() };
            self.key(file.id, file.secret, Some(session), node.as_ref())
        });
        let keys = keys.collect();
        let policies = self.policies(role.policies, node);
        Identity { name, is_role: true, policies, tags: role.tags.unwrap_or_default(), keys }
    }

    /// A key; `None` when a part of it is missing, which the schema has said already.
    fn key(
        &mut self,
        id: Option<String>,
        secret: Option<Secret>,
        session: Option<Session>,
        node: Option<&Node>,
    ) -> Option<AccessKey> {
        let (id, secret) = (id?, secret?);
        if !self.ids.insert(id.clone()) {
            let message = format!("access key `{id}` is there already, expected another id");
            self.check.complain_at(at(node, &["id"]).as_ref(), &message);
        }
        if secret.reveal().len() < SECRET_BYTES {
            let message = format!("`secret` is too short, expected at least {SECRET_BYTES} characters");
            self.check.complain_at(at(node, &["secret"]).as_ref(), &message);
        }
        if session.as_ref().is_some_and(|session| session.token.reveal().is_empty()) {
            let message = "`session-token` is empty, expected the token that goes along with the key";
            self.check.complain_at(at(node, &["session-token"]).as_ref(), message);
        }
        Some(AccessKey { id, secret, session })
    }

    fn policies(&mut self, documents: Option<Vec<Value>>, node: Option<&Node>) -> Vec<Policy> {
        let mut policies = Vec::new();
        for (index, document) in documents.unwrap_or_default().into_iter().enumerate() {
            match Policy::parse(&document, Kind::Identity) {
                Ok(policy) => policies.push(policy),
                Err(error) => {
                    let document = item(node, "policies", index);
                    let place = document.map(|node| follow(&node, &error));
                    self.check.complain_at(place.as_ref(), &error.to_string());
                }
            }
        }
        policies
    }
}

/// The value that an error is about, or the nearest one around it.
fn follow(document: &Node, error: &PolicyError) -> Node {
    let found = error.path.iter().fold(document, |node, step| match step {
        Step::Key(key) => node.at(key),
        Step::Index(index) => node.items().nth(*index).unwrap_or(node),
    });
    found.clone()
}
