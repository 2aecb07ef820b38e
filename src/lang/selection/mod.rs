//! Selection expressions: from a payload to the key of a route, model or template (specification 3).
//!
//! An expression is compiled once. Where all its variables are plain members (`$request.body.action`), a message is
//! read in one pass without building a tree; everything else goes over the message's tree, which is parsed at most once.

mod parse;

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

use super::jsonpath::{JsonPath, member_of};
use super::loose;
use super::print::{Bounded, Lists, to_text, write_value};
use super::stream::{Members, Path, Picked};
use crate::message::Message;

/// Longest expression.
pub const MAX_EXPRESSION_BYTES: usize = 4_096;
/// Variables in one expression.
pub const MAX_VARIABLES: usize = 32;
/// Bytes of a result. No key is as long, so what is beyond is cut.
pub const MAX_RESULT_BYTES: usize = 1 << 20;

/// A compiled selection expression.
///
/// ```
/// use causeway::lang::Selection;
/// use causeway::message::Message;
///
/// let selection = Selection::parse("${request.body.service}/$request.body.action")?;
/// let message = Message::from_string(r#"{"service": "chat", "action": "join"}"#);
/// assert_eq!(selection.evaluate(&message).unwrap(), "chat/join");
/// # Ok::<(), causeway::lang::selection::SelectionError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Selection {
    text: Box<str>,
    parts: Box<[Part]>,
    plan: Plan,
}

/// Why a text is not a selection expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectionError {
    /// What is wrong and what was expected.
    pub message: String,
    /// Byte offset in the expression.
    pub offset: usize,
}

/// The payload is needed and is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the payload is not JSON")]
pub struct NotJson;

/// A back-end's answer, as response template selection sees it.
pub trait ResponseParts {
    /// The HTTP status.
    fn status(&self) -> u16;
    /// All values of a header, its name compared without case.
    fn header(&self, name: &str) -> Vec<&str>;
    /// The body; for `$integration.response.body.errorMessage`.
    fn body(&self) -> &Message;
}

/// A piece of an expression.
#[derive(Debug, Clone)]
enum Part {
    /// Literal text.
    Text(Box<str>),
    /// `request.body`: the payload as it came.
    Body,
    /// `request.body.a.b`; the index of its path in [`Plan::Stream`].
    Member { names: Path, index: usize },
    /// `request.body` and any other JSONPath.
    Query(JsonPath),
    /// `integration.response.statuscode`
    Status,
    /// `integration.response.header.{name}`: the last value.
    Header(Box<str>),
    /// `integration.response.multivalueheader.{name}`: all values.
    Headers(Box<str>),
    /// `integration.response.body`
    ResponseBody,
    /// `integration.response.body.{path}`
    ResponseQuery(JsonPath),
    /// A variable that selection does not know: always empty (specification 3.1).
    Unknown,
}

/// How the payload is read.
#[derive(Debug, Clone)]
enum Plan {
    /// There is no variable; the text.
    Static(Box<str>),
    /// No variable needs the payload.
    Free,
    /// One variable and nothing else.
    One(Members),
    /// In one pass.
    Stream(Members),
    /// As a tree.
    Tree,
}

/// What the parts take their values from.
struct Sources<'a> {
    body: &'a Message,
    picked: &'a [Picked<'a>],
    tree: Option<&'a Value>,
    response: Option<&'a dyn ResponseParts>,
}

impl Selection {
    /// Compiles an expression: text and any number of `$variable` or `${variable}`, `\$` being a dollar sign. One pair
    /// of single quotes around the whole is taken off.
    ///
    /// A variable other than `request.body…` and `integration.response.…` is taken and always empty.
    ///
    /// # Errors
    /// When the text is empty or too long, a variable has no name or no end, or a path is not a JSONPath.
    pub fn parse(text: &str) -> Result<Self, SelectionError> {
        let mut parts = parse::parts(text)?;
        let plan = plan(&mut parts);
        Ok(Self { text: text.into(), parts: parts.into(), plan })
    }

    /// The text it was compiled from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `Some(text)` when it has no variable.
    pub fn as_static(&self) -> Option<&str> {
        match &self.plan {
            Plan::Static(text) => Some(text),
            Plan::Free | Plan::One(_) | Plan::Stream(_) | Plan::Tree => None,
        }
    }

    /// Whether a variable needs the payload.
    pub const fn needs_body(&self) -> bool {
        match self.plan {
            Plan::Static(_) | Plan::Free => false,
            Plan::One(_) | Plan::Stream(_) | Plan::Tree => true,
        }
    }

    /// Evaluates against a payload.
    ///
    /// # Errors
    /// Only when a variable needs the payload and it is not JSON.
    pub fn evaluate(&self, body: &Message) -> Result<Cow<'_, str>, NotJson> {
        match self.as_static() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.evaluate_with(body, |text| Cow::Owned(text.to_owned())),
        }
    }

    /// Evaluates against a payload and hands the result to `then`, without an allocation where it is a string in the
    /// payload.
    ///
    /// # Errors
    /// As [`Selection::evaluate`].
    pub fn evaluate_with<R>(&self, body: &Message, then: impl FnOnce(&str) -> R) -> Result<R, NotJson> {
        self.run(body, None, then)
    }

    /// Evaluates against a payload and a back-end's answer.
    ///
    /// # Errors
    /// As [`Selection::evaluate`]; a back-end's body that is not JSON has no members.
    pub fn evaluate_response(&self, body: &Message, response: &dyn ResponseParts) -> Result<Cow<'_, str>, NotJson> {
        match self.as_static() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.run(body, Some(response), |text| Cow::Owned(text.to_owned())),
        }
    }

    fn run<R>(
        &self,
        body: &Message,
        response: Option<&dyn ResponseParts>,
        then: impl FnOnce(&str) -> R,
    ) -> Result<R, NotJson> {
        let sources = Sources { body, picked: &[], tree: None, response };
        match &self.plan {
            Plan::Static(text) => return Ok(then(text)),
            Plan::Free => return Ok(then(&self.join(&sources))),
            Plan::One(members) => {
                let mut slot = [Picked::Missing];
                if members.pick(text_of(body)?, &mut slot).is_some() {
                    let [slot] = slot;
                    return Ok(match slot {
                        Picked::Missing => then(""),
                        Picked::Text(text) => then(&text),
                        Picked::Value(value) => then(&to_text(&value)),
                    });
                }
            }
            Plan::Stream(members) => {
                let mut slots = vec![Picked::Missing; self.parts.len()];
                if members.pick(text_of(body)?, &mut slots).is_some() {
                    return Ok(then(&self.join(&Sources { picked: &slots, ..sources })));
                }
            }
            Plan::Tree => {}
        }
        let tree = body.json_with(loose::parse).ok_or(NotJson)?;
        Ok(then(&self.join(&Sources { tree: Some(tree), ..sources })))
    }

    fn join(&self, sources: &Sources<'_>) -> String {
        let mut out = Bounded::new(MAX_RESULT_BYTES);
        for part in &self.parts {
            if sources.write(part, &mut out).is_err() {
                break;
            }
        }
        out.into_string()
    }
}

impl Sources<'_> {
    fn write(&self, part: &Part, out: &mut Bounded) -> std::fmt::Result {
        match part {
            Part::Text(text) => out.write_str(text),
            Part::Body => out.write_str(&self.body.as_text()),
            Part::Member { names, index } => match (self.tree, self.picked.get(*index)) {
                (Some(tree), _) => member_of(tree, names).map_or(Ok(()), |value| write_value(out, value, Lists::Bare)),
                (None, Some(Picked::Text(text))) => out.write_str(text),
                (None, Some(Picked::Value(value))) => write_value(out, value, Lists::Bare),
                (None, Some(Picked::Missing) | None) => Ok(()),
            },
            Part::Query(path) => self.tree.map_or(Ok(()), |tree| path.find(tree).write_text(out, Lists::Bare)),
            Part::Status => self.response.map_or(Ok(()), |response| write!(out, "{}", response.status())),
            Part::Header(name) => {
                let values = self.response.map(|response| response.header(name)).unwrap_or_default();
                values.last().map_or(Ok(()), |value| out.write_str(value))
            }
            Part::Headers(name) => {
                let values = self.response.map(|response| response.header(name)).unwrap_or_default();
                if values.is_empty() { Ok(()) } else { write!(out, "[{}]", values.join(", ")) }
            }
            Part::ResponseBody => self.response.map_or(Ok(()), |response| out.write_str(&response.body().as_text())),
            Part::ResponseQuery(path) => self
                .response
                .and_then(|response| response.body().json_with(loose::parse))
                .map_or(Ok(()), |tree| path.find(tree).write_text(out, Lists::Bare)),
            Part::Unknown => Ok(()),
        }
    }
}

fn text_of(body: &Message) -> Result<&str, NotJson> {
    std::str::from_utf8(body.payload()).map_err(|_| NotJson)
}

/// Decides how the payload is read, and gives every member its place in that pass.
fn plan(parts: &mut [Part]) -> Plan {
    let mut paths: Vec<Path> = Vec::new();
    let (mut text, mut variables, mut body, mut tree) = (String::new(), false, false, false);
    for part in &mut *parts {
        variables |= !matches!(part, Part::Text(_));
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Body => body = true,
            Part::Query(_) => (body, tree) = (true, true),
            Part::Member { names, index } => {
                body = true;
                *index = paths.iter().position(|path| path == names).unwrap_or(paths.len());
                if *index == paths.len() {
                    paths.push(names.clone());
                }
            }
            Part::Status
            | Part::Header(_)
            | Part::Headers(_)
            | Part::ResponseBody
            | Part::ResponseQuery(_)
            | Part::Unknown => {}
        }
    }
    match (variables, body, tree) {
        (false, _, _) => Plan::Static(text.into()),
        (true, false, _) => Plan::Free,
        (true, true, true) => Plan::Tree,
        (true, true, false) => match Members::new(paths) {
            Some(members) if matches!(parts, [Part::Member { .. }]) => Plan::One(members),
            Some(members) => Plan::Stream(members),
            None => Plan::Tree,
        },
    }
}

#[cfg(test)]
mod tests;
