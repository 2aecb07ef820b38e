//! Users, roles and their keys; who signed a request, and what their policies say (specification 6.5 and 8.3, REST
//! specification 7.6 to 7.9).
//!
//! ```text
//! identify ──► Signer: the key is known, the form and the time are right
//! prove    ──► the signature is that of the key over this very request and body
//! authorize ─► the policies of the signer and of the API, together
//! ```
//!
//! Everything is settled when the process starts and shared from then on. Two small caches belong to each key: the
//! signing keys of the day, and what the policies said where they ask for nothing but names.

mod facts;
mod identity;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use facts::Known;
pub use facts::RequestFacts;
pub use identity::{AccessKey, Identity, Principal, Session};

use crate::clock::EpochMillis;
use crate::ids::ApiId;
use crate::lang::policy::{Policy, Question, Verdict};
use crate::sigv4::{Claim, DerivedKeys, Expected, Refused, Request, Scope};

/// The signing name of the service whose part the gateway takes.
const SERVICE: &str = "execute-api";
/// Answers of policies kept for a key. A principal that asks for ever new names starts over.
const DECISIONS: usize = 256;

/// What identities there are, and what they are called.
#[derive(Debug, Clone)]
pub struct Config {
    /// The account that everybody and everything is in: 12 digits.
    pub account: String,
    /// The region that signatures are made for.
    pub region: String,
    /// Host names that callers may have signed in place of the one that arrives.
    pub hosts: Vec<String>,
    /// Users and roles.
    pub identities: Vec<Identity>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            hosts: Vec::new(),
            identities: Vec::new(),
        }
    }
}

/// Every identity of the process.
#[derive(Debug)]
pub struct Iam {
    account: Box<str>,
    region: Box<str>,
    hosts: Box<[Box<str>]>,
    keys: HashMap<Box<str>, Key>,
}

/// A key, whose it is, and what was found out with it before.
#[derive(Debug)]
struct Key {
    access: AccessKey,
    principal: Arc<Principal>,
    derived: DerivedKeys,
    /// `action resource` to verdict, of policies that ask for nothing but these; held for one look-up.
    decided: Mutex<HashMap<Box<str>, Verdict>>,
}

/// Who signed a request, as far as the request says; see [`Signer::prove`].
#[derive(Debug)]
pub struct Signer<'a> {
    iam: &'a Iam,
    key: &'a Key,
    claim: Claim<'a>,
}

/// What is to be allowed.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Such as `execute-api:Invoke`.
    pub action: &'a str,
    /// The API it is done to.
    pub api: &'a ApiId,
    /// What of the API: `prod/$connect`, `prod/POST/@connections/{connectionId}`.
    pub path: &'a str,
    /// The API's own policy.
    pub policy: Option<&'a Policy>,
    /// What conditions may ask for.
    pub request: &'a RequestFacts<'a>,
}

/// Not allowed: the text names who, what and where, with all but the end of the account masked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Denied(pub String);

impl Iam {
    /// Takes the identities in.
    pub fn new(config: Config) -> Self {
        let mut keys = HashMap::new();
        for identity in config.identities {
            let policies: Arc<[Policy]> = identity.policies.clone().into();
            for access in &identity.keys {
                let principal = Arc::new(Principal::new(
                    &config.account,
                    &identity,
                    access.session.as_ref(),
                    Arc::clone(&policies),
                ));
                let key = Key {
                    access: access.clone(),
                    principal,
                    derived: DerivedKeys::default(),
                    decided: Mutex::default(),
                };
                keys.insert(access.id.as_str().into(), key);
            }
        }
        Self {
            account: config.account.into(),
            region: config.region.into(),
            hosts: config.hosts.into_iter().map(Into::into).collect(),
            keys,
        }
    }

    /// Whether anybody has a key.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Whether a text names a key that somebody has.
    pub fn is_key_named(&self, text: &str) -> bool {
        self.keys.keys().any(|id| text.contains(&**id))
    }

    fn scope(&self) -> Scope<'_> {
        Scope { region: &self.region, service: SERVICE }
    }

    /// Who says that they signed `request`: everything that can be checked without its body.
    ///
    /// # Errors
    /// [`Refused`], in the order of REST specification 7.7.
    pub fn identify<'a>(&'a self, request: &Request<'a>, now: EpochMillis) -> Result<Signer<'a>, Refused> {
        let claim = Claim::read(request, self.scope())?;
        let key = self.keys.get(claim.access_key()).ok_or(Refused::UnknownKey)?;
        match (&key.access.session, claim.token()) {
            (None, None) => {}
            (Some(session), Some(token)) if session.token.matches(token.as_bytes()) => {
                if session.expires.is_some_and(|end| now >= end) {
                    return Err(Refused::ExpiredToken);
                }
            }
            (None | Some(_), None | Some(_)) => return Err(Refused::UnknownKey),
        }
        claim.check(request, now)?;
        Ok(Signer { iam: self, key, claim })
    }

    /// The full name of an API.
    pub fn own(&self, api: &ApiId) -> String {
        format!("arn:aws:execute-api:{}:{}:{api}", self.region, self.account)
    }

    /// Whether nobody in particular may do this: only the API's own policy speaks, and without one everybody may.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn authorize_anybody(&self, asked: &Asked<'_>) -> Result<(), Denied> {
        let Some(policy) = asked.policy else { return Ok(()) };
        let own = self.own(asked.api);
        let resource = format!("{own}/{}", asked.path);
        let facts = Known { request: asked.request, principal: None };
        let question =
            Question { action: asked.action, resource: &resource, own: &own, principals: &[], facts: &facts };
        let why = match policy.evaluate(&question) {
            Verdict::Allow => return Ok(()),
            Verdict::Silent => format!(" because no resource-based policy allows the {} action", asked.action),
            Verdict::Deny => " with an explicit deny in a resource-based policy".to_owned(),
        };
        Err(self.denied("anonymous", asked, &resource, &why))
    }

    fn denied(&self, who: &str, asked: &Asked<'_>, resource: &str, why: &str) -> Denied {
        let masked = self.account.get(self.account.len().saturating_sub(4)..).unwrap_or_default();
        let masked = format!("{}{masked}", "*".repeat(self.account.len().saturating_sub(4)));
        let resource = resource.replacen(&*self.account, &masked, 1);
        Denied(format!("User: {who} is not authorized to perform: {} on resource: {resource}{why}", asked.action))
    }
}

impl Signer<'_> {
    /// Whether the signature is that of the key over `request`, the one it was identified by, and its whole body.
    ///
    /// # Errors
    /// [`Refused::Invalid`].
    pub fn prove(&self, request: &Request<'_>, body: &[u8]) -> Result<(), Refused> {
        let expected = Expected {
            secret: &self.key.access.secret,
            keys: &self.key.derived,
            scope: self.iam.scope(),
            hosts: &self.iam.hosts,
        };
        self.claim.verify(request, body, &expected)
    }

    /// Who it is.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.key.principal
    }

    /// The key it was signed with.
    pub fn access_key(&self) -> &str {
        &self.key.access.id
    }

    /// Whether the signer may do this: its own policies and the API's together, where a Deny of either wins and an Allow
    /// of either is enough (REST specification 7.8, table A: everybody is in one account).
    ///
    /// # Errors
    /// [`Denied`].
    pub fn authorize(&self, asked: &Asked<'_>) -> Result<(), Denied> {
        let (iam, principal) = (self.iam, &*self.key.principal);
        let own = iam.own(asked.api);
        let name = format!("{} {own}/{}", asked.action, asked.path);
        let resource = name.get(asked.action.len() + 1..).unwrap_or_default();
        let facts = Known { request: asked.request, principal: Some(principal) };
        let question =
            Question { action: asked.action, resource, own: &own, principals: &principal.names(), facts: &facts };
        let verdict = self
            .key
            .decide(&name, &question)
            .and(asked.policy.map_or(Verdict::Silent, |policy| policy.evaluate(&question)));
        match verdict {
            Verdict::Allow => Ok(()),
            // The recorded form, without the reason (specification 6.4).
            Verdict::Silent | Verdict::Deny => Err(iam.denied(&principal.arn, asked, resource, "")),
        }
    }
}

impl Key {
    /// What the principal's own policies say, from memory where they cannot say anything else the next time.
    fn decide(&self, name: &str, question: &Question<'_>) -> Verdict {
        let policies = &self.principal.policies;
        if !self.principal.is_steady {
            return Policy::evaluate_all(&**policies, question);
        }
        let mut decided = self.decided.lock();
        if let Some(verdict) = decided.get(name) {
            return *verdict;
        }
        let verdict = Policy::evaluate_all(&**policies, question);
        if decided.len() >= DECISIONS {
            decided.clear();
        }
        decided.insert(name.into(), verdict);
        verdict
    }
}
