//! Users and roles, and who they are to others.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::digest;

use crate::clock::EpochMillis;
use crate::lang::policy::Policy;
use crate::secret::Secret;

/// A user or a role.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name, unique among its kind.
    pub name: String,
    /// Whether it is a role, whose keys belong to sessions, and not a user.
    pub is_role: bool,
    /// What it may do.
    pub policies: Vec<Policy>,
    /// What conditions may ask for as `aws:PrincipalTag/…`.
    pub tags: BTreeMap<String, String>,
    /// Its keys.
    pub keys: Vec<AccessKey>,
}

/// An access key.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// What requests name it by.
    pub id: String,
    /// What they are signed with.
    pub secret: Secret,
    /// The session it belongs to; keys of roles have one.
    pub session: Option<Session>,
}

/// Somebody in a role for a while.
#[derive(Debug, Clone)]
pub struct Session {
    /// What the session is called.
    pub name: String,
    /// Goes along with every request.
    pub token: Secret,
    /// When it ends, if it does.
    pub expires: Option<EpochMillis>,
}

/// Who signed a request, and what is said of them.
#[derive(Debug)]
pub struct Principal {
    /// The account it is in.
    pub account: Box<str>,
    /// `arn:aws:iam::…:user/…`, or `arn:aws:sts::…:assumed-role/…/…` for a session.
    pub arn: Box<str>,
    /// `AIDA…`, or `AROA…:session`: `caller` and `user` of events.
    pub id: Box<str>,
    /// Its name, for a user.
    pub(super) username: Option<Box<str>>,
    /// `arn:aws:iam::…:role/…`, for a session.
    pub(super) role_arn: Option<Box<str>>,
    account_arn: Box<str>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) policies: Arc<[Policy]>,
    /// Whether its policies say the same to the same action and resource every time.
    pub(super) is_steady: bool,
}

impl Principal {
    pub(super) fn new(account: &str, identity: &Identity, session: Option<&Session>, policies: Arc<[Policy]>) -> Self {
        let name = &identity.name;
        let kind = if identity.is_role { "role" } else { "user" };
        let own = format!("arn:aws:iam::{account}:{kind}/{name}");
        let unique = unique_id(if identity.is_role { "AROA" } else { "AIDA" }, &own);
        let (arn, id) = match session {
            Some(session) => (
                format!("arn:aws:sts::{account}:assumed-role/{name}/{}", session.name),
                format!("{unique}:{}", session.name),
            ),
            None => (own.clone(), unique),
        };
        Self {
            account: account.into(),
            arn: arn.into(),
            id: id.into(),
            username: (!identity.is_role).then(|| name.as_str().into()),
            role_arn: identity.is_role.then(|| own.into()),
            account_arn: format!("arn:aws:iam::{account}:root").into(),
            tags: identity.tags.clone(),
            is_steady: policies.iter().all(Policy::is_steady),
            policies,
        }
    }

    /// Names that a resource policy may mean it by: its own, its role's, its account's.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = vec![&*self.arn, &*self.account_arn];
        names.extend(self.role_arn.as_deref());
        names
    }
}

/// An id in the service's form that is the same on every node and after every start: 17 characters of a hash.
fn unique_id(prefix: &str, arn: &str) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = digest::digest(&digest::SHA256, arn.as_bytes());
    let digits = hash.as_ref().iter().take(17).filter_map(|byte| DIGITS.get(usize::from(byte & 31)));
    prefix.chars().chain(digits.map(|digit| char::from(*digit))).collect()
}
