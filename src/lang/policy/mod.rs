//! IAM policy documents: parse, match, evaluate (REST specification 7.8 and 7.9).
//!
//! ```json
//! {"Version": "2012-10-17", "Statement": [
//!   {"Effect": "Allow", "Action": "execute-api:ManageConnections",
//!    "Resource": "arn:aws:execute-api:*:*:chat/prod/POST/@connections/*"},
//!   {"Effect": "Deny", "Action": "*", "Resource": "*",
//!    "Condition": {"NotIpAddress": {"aws:SourceIp": ["192.0.2.0/24"]}}}]}
//! ```
//!
//! A document is compiled when it is read: patterns, numbers, times and networks are ready to compare. Evaluating one
//! cannot fail. A statement speaks when its action, its resource, its principal and all its conditions fit; a Deny that
//! speaks wins over every Allow, and silence is not an Allow.

mod condition;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use condition::Condition;
pub use parse::{Kind, PolicyError, Step};
use pattern::Pattern;

/// What is asked: may this principal do this to that?
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Such as `execute-api:Invoke`; its case does not matter.
    pub action: &'a str,
    /// The full name of what it is done to, `arn:…`.
    pub resource: &'a str,
    /// The name of the API that a resource policy belongs to, `arn:aws:execute-api:{region}:{account}:{apiId}`: what
    /// `execute-api:` at the start of a resource stands for.
    pub own: &'a str,
    /// Names that a resource policy may call the caller by: its ARN, that of its role, its account's. Empty for nobody in
    /// particular, whom only `*` means.
    pub principals: &'a [&'a str],
    /// What conditions and variables ask for.
    pub facts: &'a dyn Facts,
}

impl std::fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("action", &self.action)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

/// What is known about a request.
pub trait Facts {
    /// The values of a condition key, given in lower case as `aws:sourceip`; empty when there is none.
    fn values(&self, key: &str) -> Vec<Cow<'_, str>>;
}

/// No facts at all.
impl Facts for () {
    fn values(&self, _key: &str) -> Vec<Cow<'_, str>> {
        Vec::new()
    }
}

/// What a document, or several, say to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A statement allows it and none denies it.
    Allow,
    /// No statement speaks of it.
    Silent,
    /// A statement denies it.
    Deny,
}

impl Verdict {
    /// What two documents say together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deny, _) | (_, Self::Deny) => Self::Deny,
            (Self::Allow, _) | (_, Self::Allow) => Self::Allow,
            (Self::Silent, Self::Silent) => Self::Silent,
        }
    }
}

/// A policy document, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    statements: Box<[Statement]>,
}

impl Policy {
    /// What it says to a question.
    pub fn evaluate(&self, question: &Question<'_>) -> Verdict {
        let mut verdict = Verdict::Silent;
        for statement in &self.statements {
            // An Allow after an Allow changes nothing: it need not be looked at.
            if (statement.is_deny || verdict == Verdict::Silent) && statement.speaks_of(question) {
                if statement.is_deny {
                    return Verdict::Deny;
                }
                verdict = Verdict::Allow;
            }
        }
        verdict
    }

    /// Whether it says the same to the same action and resource every time: no condition, no variable.
    pub fn is_steady(&self) -> bool {
        let is_fixed = |listed: &Listed| listed.patterns.iter().all(Pattern::is_fixed);
        self.statements.iter().all(|statement| {
            statement.conditions.is_empty() && is_fixed(&statement.actions) && is_fixed(&statement.resources)
        })
    }

    /// What documents say together.
    pub fn evaluate_all<'p>(policies: impl IntoIterator<Item = &'p Self>, question: &Question<'_>) -> Verdict {
        policies.into_iter().fold(Verdict::Silent, |verdict, policy| verdict.and(policy.evaluate(question)))
    }
}

/// One statement.
#[derive(Debug, Clone, PartialEq)]
struct Statement {
    is_deny: bool,
    actions: Listed,
    resources: Listed,
    /// Whom it is about; `None` in a policy of an identity, which is about its owner.
    principals: Option<Listed>,
    conditions: Box<[Condition]>,
}

impl Statement {
    fn speaks_of(&self, question: &Question<'_>) -> bool {
        self.actions.has(question, question.action)
            && self.resources.has(question, question.resource)
            && self.principals.as_ref().is_none_or(|principals| principals.has_one(question))
            && self.conditions.iter().all(|condition| condition.holds(question))
    }
}

/// Patterns, or everything but them: `Action` and `NotAction`.
#[derive(Debug, Clone, PartialEq)]
struct Listed {
    is_not: bool,
    patterns: Box<[Pattern]>,
}

impl Listed {
    fn has(&self, question: &Question<'_>, text: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(question, text)) != self.is_not
    }

    /// Whether one of the caller's names is listed; nobody in particular is only everybody.
    fn has_one(&self, question: &Question<'_>) -> bool {
        let is_listed = self.patterns.iter().any(|pattern| {
            pattern.is_everything() || question.principals.iter().any(|name| pattern.matches(question, name))
        });
        is_listed != self.is_not
    }
}
