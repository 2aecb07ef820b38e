//! A policy document from JSON: everything wrong is found now, with the way to it.

use std::fmt;

use serde_json::{Map, Value};

use super::condition::{Condition, Operator};
use super::pattern::{Pattern, Reading};
use super::{Listed, Policy, Statement};

/// Most statements of a document: evaluating one is linear in them.
const MAX_STATEMENTS: usize = 500;
/// Most texts in one list of a statement.
const MAX_TEXTS: usize = 500;
/// Longest of them, in bytes.
const MAX_TEXT_BYTES: usize = 2_048;

/// Whose a document is, which decides what may stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A user's, a role's, an authorizer's: about its owner, without `Principal`.
    Identity,
    /// A resource's: every statement says whom it is about.
    Resource,
}

/// One step on the way to a value of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into an object.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// What is wrong with a document: where, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The way to it from the document's root.
    pub path: Vec<Step>,
    /// What is wrong, as the end of a sentence that begins with the name of the value.
    pub message: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policy")?;
        for step in &self.path {
            match step {
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for PolicyError {}

fn wrong<T>(message: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError { path: Vec::new(), message: message.into() })
}

/// Puts a step in front of an error's way.
trait Within<T> {
    fn within(self, step: Step) -> Result<T, PolicyError>;

    fn at(self, key: &str) -> Result<T, PolicyError>
    where
        Self: Sized,
    {
        self.within(Step::Key(key.to_owned()))
    }
}

impl<T> Within<T> for Result<T, PolicyError> {
    fn within(self, step: Step) -> Self {
        self.map_err(|mut error| {
            error.path.insert(0, step);
            error
        })
    }
}

/// Whether a text is a condition key, `aws:SourceIp` or `aws:PrincipalTag/team`.
pub(super) fn is_key(text: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || "/_-.:+=@".contains(c);
    text.split_once(':').is_some_and(|(service, name)| !service.is_empty() && !name.is_empty())
        && text.len() <= 256
        && text.chars().all(is_plain)
}

impl Policy {
    /// Compiles a document.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(document: &Value, kind: Kind) -> Result<Self, PolicyError> {
        let Value::Object(document) = document else { return wrong("is no object") };
        known(document, &["Version", "Id", "Statement"])?;
        let has_variables = match document.get("Version").map(Value::as_str) {
            Some(Some("2012-10-17")) => true,
            None | Some(Some("2008-10-17")) => false,
            Some(_) => return wrong("is no version, expected `2012-10-17`").at("Version"),
        };
        let reader = Reader { kind, has_variables };
        let statements = match document.get("Statement") {
            None => return wrong("has no `Statement`"),
            Some(Value::Array(all)) if all.len() > MAX_STATEMENTS => {
                return wrong(format!("has more than {MAX_STATEMENTS} statements")).at("Statement");
            }
            Some(Value::Array(all)) => {
                let one = |(index, statement)| reader.statement(statement).within(Step::Index(index)).at("Statement");
                all.iter().enumerate().map(one).collect::<Result<_, _>>()?
            }
            Some(one) => Box::from([reader.statement(one).at("Statement")?]),
        };
        Ok(Self { statements })
    }
}

struct Reader {
    kind: Kind,
    has_variables: bool,
}

/// What a list of patterns is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Action,
    Resource,
}

impl Reader {
    fn statement(&self, statement: &Value) -> Result<Statement, PolicyError> {
        let Value::Object(statement) = statement else { return wrong("is no object") };
        known(
            statement,
            &[
                "Sid",
                "Effect",
                "Principal",
                "NotPrincipal",
                "Action",
                "NotAction",
                "Resource",
                "NotResource",
                "Condition",
            ],
        )?;
        let is_deny = match statement.get("Effect").map(Value::as_str) {
            Some(Some("Allow")) => false,
            Some(Some("Deny")) => true,
            Some(_) => return wrong("is neither `Allow` nor `Deny`").at("Effect"),
            None => return wrong("has no `Effect`, expected `Allow` or `Deny`"),
        };
        Ok(Statement {
            is_deny,
            actions: self.listed(statement, "Action", "NotAction", Part::Action)?,
            resources: self.listed(statement, "Resource", "NotResource", Part::Resource)?,
            principals: self.principals(statement)?,
            conditions: match statement.get("Condition") {
                None => Box::default(),
                Some(conditions) => self.conditions(conditions).at("Condition")?,
            },
        })
    }

    fn listed(&self, statement: &Map<String, Value>, key: &str, not: &str, part: Part) -> Result<Listed, PolicyError> {
        let (key, value, is_not) = one_of(statement, key, not)?;
        let patterns = texts(value).at(key)?;
        let patterns = patterns.iter().map(|text| self.pattern(text, part)).collect::<Result<_, _>>().at(key)?;
        Ok(Listed { is_not, patterns })
    }

    fn pattern(&self, text: &str, part: Part) -> Result<Pattern, PolicyError> {
        let reading = Reading {
            has_wildcards: true,
            has_variables: self.has_variables && part == Part::Resource,
            is_caseless: part == Part::Action,
        };
        let read = |text| Pattern::read(text, reading).or_else(wrong);
        match part {
            Part::Action => {
                let is_one =
                    |text: &str| text.split_once(':').is_some_and(|(s, name)| !s.is_empty() && !name.is_empty());
                if text != "*" && !is_one(text) {
                    return wrong(format!(
                        "has `{}`, expected actions such as `execute-api:Invoke`",
                        text.escape_debug()
                    ));
                }
                read(text)
            }
            Part::Resource => match text.strip_prefix("execute-api:/") {
                Some(rest) if self.kind == Kind::Resource => Ok(read(&format!("/{rest}"))?.behind_own()),
                Some(_) | None if text.starts_with('*') || text.starts_with("arn:") => read(text),
                Some(_) | None => {
                    wrong(format!("has `{}`, expected names such as `arn:aws:execute-api:…`", text.escape_debug()))
                }
            },
        }
    }

    fn principals(&self, statement: &Map<String, Value>) -> Result<Option<Listed>, PolicyError> {
        if self.kind == Kind::Identity {
            for key in ["Principal", "NotPrincipal"] {
                if statement.contains_key(key) {
                    return wrong("has no meaning here: the policy is about its owner").at(key);
                }
            }
            return Ok(None);
        }
        let (key, value, is_not) = one_of(statement, "Principal", "NotPrincipal")?;
        let reading = Reading { has_wildcards: true, ..Reading::default() };
        // `*` alone is everybody; within a name no wildcard is one.
        let one = |text: &String| -> Result<Vec<Pattern>, PolicyError> {
            let exact = |text: &str| Pattern::read(text, Reading::default()).or_else(wrong);
            match text.as_str() {
                "*" => Ok(vec![Pattern::read("*", reading).or_else(wrong)?]),
                account if account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()) => {
                    Ok(vec![exact(&format!("arn:aws:iam::{account}:root"))?])
                }
                arn if arn.starts_with("arn:") && !arn.contains(['*', '?']) => Ok(vec![exact(arn)?]),
                other => wrong(format!("has `{}`, expected `*`, an account or an ARN", other.escape_debug())),
            }
        };
        let named = match value {
            Value::String(text) if text == "*" => vec![text.clone()],
            Value::Object(kinds) => {
                known(kinds, &["AWS"]).at(key)?;
                match kinds.get("AWS") {
                    Some(value) => texts(value).at("AWS").at(key)?,
                    None => return wrong("names nobody, expected `AWS`").at(key),
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return wrong("is neither `*` nor an object with `AWS`").at(key);
            }
        };
        let patterns: Vec<Vec<Pattern>> = named.iter().map(one).collect::<Result<_, _>>().at(key)?;
        Ok(Some(Listed { is_not, patterns: patterns.into_iter().flatten().collect() }))
    }

    fn conditions(&self, conditions: &Value) -> Result<Box<[Condition]>, PolicyError> {
        let Value::Object(operators) = conditions else { return wrong("is no object") };
        let mut compiled = Vec::new();
        for (name, keys) in operators {
            let Some(operator) = Operator::read(name) else {
                return wrong("is no operator that is known here").at(name);
            };
            let Value::Object(keys) = keys else { return wrong("is no object").at(name) };
            for (key, values) in keys {
                if !is_key(key) {
                    return wrong("is no condition key such as `aws:SourceIp`").at(key).at(name);
                }
                let values = texts(values).at(key).at(name)?;
                match Condition::new(operator, key, &values, self.has_variables) {
                    Ok(condition) => compiled.push(condition),
                    Err((index, why)) => {
                        let value = values.get(index).map(|text| text.escape_debug().to_string()).unwrap_or_default();
                        return wrong(format!("has `{value}`, which {why}")).at(key).at(name);
                    }
                }
            }
        }
        if compiled.len() > MAX_TEXTS {
            return wrong(format!("has more than {MAX_TEXTS} keys"));
        }
        Ok(compiled.into())
    }
}

/// The one of two keys that is there.
fn one_of<'v>(
    statement: &'v Map<String, Value>,
    key: &'v str,
    not: &'v str,
) -> Result<(&'v str, &'v Value, bool), PolicyError> {
    match (statement.get(key), statement.get(not)) {
        (Some(value), None) => Ok((key, value, false)),
        (None, Some(value)) => Ok((not, value, true)),
        (None, None) => wrong(format!("has neither `{key}` nor `{not}`")),
        (Some(_), Some(_)) => wrong(format!("has both `{key}` and `{not}`, expected one")),
    }
}

fn known(object: &Map<String, Value>, keys: &[&str]) -> Result<(), PolicyError> {
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => wrong(format!("is unknown, expected one of `{}`", keys.join("`, `"))).at(key),
        None => Ok(()),
    }
}

/// A text or a list of texts; numbers and truth values are texts too.
fn texts(value: &Value) -> Result<Vec<String>, PolicyError> {
    let one = |value: &Value| match value {
        Value::String(text) if text.len() > MAX_TEXT_BYTES => wrong(format!("is longer than {MAX_TEXT_BYTES} bytes")),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => wrong("is neither a text nor a list of texts"),
    };
    match value {
        Value::Array(all) if all.is_empty() => wrong("is empty"),
        Value::Array(all) if all.len() > MAX_TEXTS => wrong(format!("has more than {MAX_TEXTS} items")),
        Value::Array(all) => all.iter().enumerate().map(|(n, value)| one(value).within(Step::Index(n))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Ok(vec![one(value)?]),
    }
}
