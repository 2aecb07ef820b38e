//! The tree of a document, every node with its place.

use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::Place;

/// Longest piece of a value that a message repeats.
const SHOWN_CHARS: usize = 60;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it starts.
    pub place: Place,
    pub(super) data: Data,
    pub(super) body: Body,
    /// The text as written, when references in it were replaced: what messages may show.
    pub(super) source: Option<Arc<str>>,
    /// Already complained about, so whoever reads on leaves it out.
    pub(super) rejected: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

/// How a place inside a text maps to one in the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    /// Not at all: it is folded or has escapes.
    Opaque,
    /// It stands as it is on one line, from this column on.
    Line { column: usize },
    /// It is a literal block that starts on this line, indented by this many columns.
    Block { line: usize, indent: usize },
}

impl Node {
    pub(super) const fn new(place: Place, data: Data) -> Self {
        Self { place, data, body: Body::Opaque, source: None, rejected: false }
    }

    /// The value of a key, unless it was rejected.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value).filter(|value| !value.rejected)
    }

    /// The value of a key, else the node itself: the next best place for a message.
    pub fn at(&self, key: &str) -> &Self {
        self.entry(key).map_or(self, |entry| &entry.value)
    }

    /// Whether the file has the key, rejected or not.
    pub fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Where the key stands, else the node's own place.
    pub fn key_place(&self, key: &str) -> Place {
        self.entry(key).map_or(self.place, |entry| entry.place)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Data::Null | Data::Bool(_) | Data::Integer(_) | Data::Number(_) | Data::Text(_) | Data::List(_) => None,
        }
    }

    /// The items of a list that were not rejected: those of [`Node::to_json`], in the same order.
    pub fn items(&self) -> impl Iterator<Item = &Self> {
        let items: &[Self] = match &self.data {
            Data::List(items) => items,
            Data::Null | Data::Bool(_) | Data::Integer(_) | Data::Number(_) | Data::Text(_) | Data::Map(_) => &[],
        };
        items.iter().filter(|item| !item.rejected)
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            Data::Null | Data::Bool(_) | Data::Integer(_) | Data::Number(_) | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// Whether it holds text from outside the file, which must not be shown.
    pub const fn is_resolved(&self) -> bool {
        self.source.is_some()
    }

    /// The value for a message: cut short, and as written where references were replaced.
    pub fn shown(&self) -> String {
        match &self.data {
            Data::Null => "nothing".to_owned(),
            Data::Bool(value) => value.to_string(),
            Data::Integer(value) => value.to_string(),
            Data::Number(value) => value.to_string(),
            Data::Text(text) => format!("`{}`", cut(self.source.as_deref().unwrap_or(text))),
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "an object".to_owned(),
        }
    }

    /// The place of a line and column inside the text, both from 1; `None` when it cannot be told.
    pub fn place_inside(&self, line: usize, column: usize) -> Option<Place> {
        let (line, column) = (line.max(1), column.max(1));
        match self.body {
            Body::Line { column: start } if line == 1 => {
                Some(Place { line: self.place.line, column: start + column - 1 })
            }
            Body::Block { line: start, indent } => Some(Place { line: start + line - 1, column: indent + column }),
            Body::Line { .. } | Body::Opaque => None,
        }
    }

    /// The tree as JSON, without what was rejected.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Integer(value) => Value::from(*value),
            Data::Number(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Data::Text(text) => Value::from(text.as_str()),
            Data::List(_) => self.items().map(Self::to_json).collect(),
            Data::Map(entries) => {
                let kept = entries.iter().filter(|entry| !entry.value.rejected);
                kept.map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>().into()
            }
        }
    }
}

fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let shown: String = line.chars().take(SHOWN_CHARS).filter(|c| !c.is_control()).collect();
    if shown.len() < text.len() { format!("{shown}…") } else { shown }
}
