//! JSONPath: the only code that speaks jsonpath-rust, which parses paths.
//!
//! What users of API Gateway write follows Goessner's article and Jayway's library, looser than RFC 9535: `a.b`,
//! `.detail-type`, `$.1a`. Such steps are put in brackets before the strict parser sees them. The package only
//! parses; the walk is ours, because its own names each match by a path text, and with a long member name over a long
//! list those grow without bound.

mod filter;

use std::fmt::{self, Write as _};

use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::parser::parse_json_path;
use serde_json::Value;

pub use super::print::to_text;
use super::print::{Lists, write_list, write_value};

/// Longest path; one in a definition is a few names long.
pub const MAX_PATH_BYTES: usize = 1_024;
/// Steps from the root down.
const MAX_STEPS: usize = 64;
/// Brackets within brackets; the parser needs exponential time for nested calls.
const MAX_NESTING: usize = 6;
/// Values one query looks at. A 128 KiB message holds at most 65,536, so only several `..` in one path or
/// a wide filter over all of it can get there; then what was found so far is the answer.
const MAX_VISITS: usize = 1 << 20;

/// A compiled JSONPath.
#[derive(Debug, Clone)]
pub struct JsonPath {
    steps: Box<[Segment]>,
    members: Option<Box<[Box<str>]>>,
}

/// Why a path is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonPathError(pub String);

/// What a path leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Found<'a> {
    /// Nothing, at a path of names and indexes.
    Nothing,
    /// The value at a path of names and indexes.
    One(&'a Value),
    /// All values that a path with `*`, `..`, a slice, a filter or several names matches; maybe none.
    Many(Vec<&'a Value>),
}

impl Found<'_> {
    /// The text that parameter mapping uses: [`to_text`] of the value, `[a, b]` of many; `None` for nothing and null.
    pub fn to_text(&self) -> Option<String> {
        let mut text = String::new();
        match self {
            Self::Nothing | Self::One(Value::Null) => return None,
            Self::One(_) | Self::Many(_) => {
                let _infallible = self.write_text(&mut text, Lists::Bare);
            }
        }
        Some(text)
    }

    /// Writes the text; nothing is empty.
    pub(super) fn write_text(&self, out: &mut impl fmt::Write, lists: Lists) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::One(value) => write_value(out, value, lists),
            Self::Many(values) => write_list(out, values.iter().copied(), lists),
        }
    }

    /// Writes JSON; nothing is an empty string, in quotes.
    pub(super) fn write_json(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Nothing => out.write_str("\"\""),
            Self::One(value) => write!(out, "{value}"),
            Self::Many(values) => write_list(out, values.iter().copied(), Lists::Json),
        }
    }
}

impl JsonPath {
    /// Compiles `$.a.b`, `.a.b`, `a.b`, `['a']['b']`; the empty text and `$` mean the root.
    ///
    /// # Errors
    /// When the text is none, is longer than [`MAX_PATH_BYTES`], or uses what is not supported: functions at the end
    /// (`length()`), script expressions, and in filters functions other than `length`, `count` and `value`.
    pub fn compile(text: &str) -> Result<Self, JsonPathError> {
        if text.len() > MAX_PATH_BYTES {
            return Err(JsonPathError(format!(
                "a JSONPath may have {MAX_PATH_BYTES} bytes, this one has {}",
                text.len()
            )));
        }
        let strict = in_brackets(text).map_err(|problem| JsonPathError(format!("`{text}`: {problem}")))?;
        let JpQuery { segments } = parse_json_path(&strict).map_err(|_| {
            JsonPathError(format!(
                "`{text}`: in brackets a JSONPath has an index, a slice, `*`, quoted names, or a filter such as \
                 `[?(@.kind == 'x')]`"
            ))
        })?;
        if segments.len() > MAX_STEPS {
            return Err(JsonPathError(format!("`{text}`: a JSONPath may have {MAX_STEPS} steps")));
        }
        segments.iter().try_for_each(filter::check_step).map_err(|e| JsonPathError(format!("`{text}`: {e}")))?;
        let members = segments.iter().map(|step| Some(member(step)?.into())).collect();
        Ok(Self { steps: segments.into(), members })
    }

    /// The member names, when the path has nothing else; none for the root.
    pub(super) fn members(&self) -> Option<&[Box<str>]> {
        self.members.as_deref()
    }

    /// Whether the path is that of the root.
    pub fn is_root(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether the path names at most one place: names and indexes only.
    fn is_definite(&self) -> bool {
        self.steps.iter().all(|step| match step {
            Segment::Selector(Selector::Name(_) | Selector::Index(_)) => true,
            Segment::Selector(Selector::Wildcard | Selector::Slice(..) | Selector::Filter(_))
            | Segment::Selectors(_)
            | Segment::Descendant(_) => false,
        })
    }

    /// What the path leads to below `root`.
    pub fn find<'a>(&self, root: &'a Value) -> Found<'a> {
        if let Some(names) = &self.members {
            return member_of(root, names).map_or(Found::Nothing, Found::One);
        }
        let values = self.query(root);
        match values.first() {
            _ if !self.is_definite() => Found::Many(values),
            Some(value) => Found::One(value),
            None => Found::Nothing,
        }
    }

    /// All matches, in the order they have in the document.
    pub fn query<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        Walk { root, visits: 0 }.nodes(&self.steps, root)
    }

    /// The first match.
    pub fn first<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.query(root).first().copied()
    }
}

/// The value at the end of a chain of member names.
pub(super) fn member_of<'a>(root: &'a Value, names: &[Box<str>]) -> Option<&'a Value> {
    names.iter().try_fold(root, |value, name| value.as_object()?.get(&**name))
}

fn member(step: &Segment) -> Option<&str> {
    match step {
        Segment::Selector(Selector::Name(name)) => Some(name),
        Segment::Selector(Selector::Wildcard | Selector::Index(_) | Selector::Slice(..) | Selector::Filter(_))
        | Segment::Selectors(_)
        | Segment::Descendant(_) => None,
    }
}

/// One query; also those within filters, so that they share its limit.
struct Walk<'a> {
    root: &'a Value,
    visits: usize,
}

impl<'a> Walk<'a> {
    fn nodes(&mut self, steps: &[Segment], from: &'a Value) -> Vec<&'a Value> {
        let mut found = Vec::new();
        self.follow(steps, from, &mut found);
        found
    }

    fn follow(&mut self, steps: &[Segment], value: &'a Value, found: &mut Vec<&'a Value>) {
        match steps.split_first() {
            None => found.push(value),
            Some((Segment::Descendant(step), rest)) => self.descend(step, rest, value, found),
            Some((step, rest)) => self.take(step, rest, value, found),
        }
    }

    fn descend(&mut self, step: &Segment, rest: &[Segment], value: &'a Value, found: &mut Vec<&'a Value>) {
        self.take(step, rest, value, found);
        for child in children(value) {
            if !self.may_visit() {
                return;
            }
            self.descend(step, rest, child, found);
        }
    }

    fn take(&mut self, step: &Segment, rest: &[Segment], value: &'a Value, found: &mut Vec<&'a Value>) {
        match step {
            Segment::Selector(selector) => self.select(selector, rest, value, found),
            Segment::Selectors(selectors) => {
                for selector in selectors {
                    self.select(selector, rest, value, found);
                }
            }
            // The parser builds none within another.
            Segment::Descendant(_) => {}
        }
    }

    fn select(&mut self, selector: &Selector, rest: &[Segment], value: &'a Value, found: &mut Vec<&'a Value>) {
        match selector {
            Selector::Name(name) => {
                self.follow_all(rest, value.as_object().and_then(|members| members.get(name)), found);
            }
            Selector::Index(index) => self.follow_all(rest, element(value, *index), found),
            Selector::Wildcard => self.follow_all(rest, children(value), found),
            Selector::Slice(start, end, step) => {
                self.follow_all(rest, slice(value, *start, *end, step.unwrap_or(1)), found);
            }
            Selector::Filter(condition) => {
                for child in children(value) {
                    if !self.may_visit() {
                        return;
                    }
                    if filter::holds(condition, child, self) {
                        self.follow(rest, child, found);
                    }
                }
            }
        }
    }

    fn follow_all(
        &mut self,
        rest: &[Segment],
        values: impl IntoIterator<Item = &'a Value>,
        found: &mut Vec<&'a Value>,
    ) {
        for value in values {
            if !self.may_visit() {
                return;
            }
            self.follow(rest, value, found);
        }
    }

    fn may_visit(&mut self) -> bool {
        self.visits += 1;
        self.visits <= MAX_VISITS
    }
}

fn children(value: &Value) -> impl Iterator<Item = &Value> {
    let members = value.as_object().into_iter().flat_map(serde_json::Map::values);
    value.as_array().into_iter().flatten().chain(members)
}

fn element(value: &Value, index: i64) -> Option<&Value> {
    let values = value.as_array()?;
    let from_end = || values.len().checked_sub(usize::try_from(index.unsigned_abs()).ok()?);
    values.get(usize::try_from(index).ok().or_else(from_end)?)
}

/// The elements of `[start:end:step]` (RFC 9535, 2.3.4.2.2).
fn slice(value: &Value, start: Option<i64>, end: Option<i64>, step: i64) -> Vec<&Value> {
    let values = value.as_array().map_or(&[][..], Vec::as_slice);
    let len = i64::try_from(values.len()).unwrap_or(i64::MAX);
    let place = |at: i64, low: i64, high: i64| (if at < 0 { len.saturating_add(at) } else { at }).clamp(low, high);
    let at = |index: i64| values.get(usize::try_from(index).ok()?);
    let stride = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
    match step {
        0 => Vec::new(),
        1.. => {
            let (low, high) = (place(start.unwrap_or(0), 0, len), place(end.unwrap_or(len), 0, len));
            (low..high).step_by(stride).filter_map(at).collect()
        }
        _ => {
            let high = place(start.unwrap_or(len), -1, len - 1);
            let low = end.map_or(-1, |end| place(end, -1, len - 1));
            (low + 1..=high).rev().step_by(stride).filter_map(at).collect()
        }
    }
}

/// Rewrites a path so that every plain name stands quoted in brackets; what is in brackets already passes as it is.
fn in_brackets(text: &str) -> Result<String, String> {
    let mut rest = text.strip_prefix('$').unwrap_or(text);
    let mut strict = String::from("$");
    let mut first = !text.starts_with('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            strict.push_str("..");
            rest = after;
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = after;
        } else if !first && !rest.starts_with('[') {
            return Err(format!("expected `.` or `[` before `{rest}`"));
        }
        first = false;
        let (step, after) = if rest.starts_with('[') { bracket(rest)? } else { name(rest)? };
        match step {
            "*" => strict.push_str("[*]"),
            _ if step.starts_with('[') => strict.push_str(step),
            _ => push_quoted(&mut strict, step),
        }
        rest = after;
    }
    Ok(strict)
}

fn name(rest: &str) -> Result<(&str, &str), String> {
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '\'' | '"' | '(' | ')' | ']' | '*' | '$');
    match name.chars().find(|c| odd(*c)) {
        _ if name.is_empty() => Err("expected a member name after `.`".to_owned()),
        _ if name == "*" => Ok((name, after)),
        Some('(' | ')') => Err(format!("`{name}`: functions in a path are not supported yet")),
        Some(c) => Err(format!("a member name with {c:?} in it has to stand in brackets and quotes: `['…']`")),
        None => Ok((name, after)),
    }
}

/// Splits after the `]` that belongs to the first `[`.
fn bracket(rest: &str) -> Result<(&str, &str), String> {
    let (mut nesting, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in rest.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '[' | '(') => nesting += 1,
            (None, ']' | ')') => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if nesting > MAX_NESTING {
            return Err(format!("more than {MAX_NESTING} brackets within each other"));
        }
        if nesting == 0 {
            return rest.split_at_checked(at + c.len_utf8()).ok_or_else(String::new);
        }
    }
    Err("a bracket or quote is not closed".to_owned())
}

fn push_quoted(strict: &mut String, name: &str) {
    strict.push_str("['");
    for c in name.chars() {
        if c == '\\' {
            strict.push('\\');
        }
        strict.push(c);
    }
    let _infallible = strict.write_str("']");
}

#[cfg(test)]
mod tests;
