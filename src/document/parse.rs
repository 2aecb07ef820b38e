//! YAML text to a tree with places. The only code that speaks saphyr.
//!
//! The parser's events are taken one by one instead of its ready-made tree, so that duplicate keys are seen and aliases
//! are counted before they are copied.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::tree::{Body, Data, Entry, Node};
use super::{Place, Report};

/// Deepest nesting taken, aliases included; keeps every walk over the tree within a small stack.
const MAX_DEPTH: usize = 64;
/// Most a tree may weigh: 64 for a node and 1 for a byte of text, aliases counted as often as they are used.
const MAX_WEIGHT: usize = 64 << 20;
const NODE_WEIGHT: usize = 64;

/// The tree of a text, as far as it could be read; what is wrong goes to the report. `None`: nothing can be read at all.
pub(super) fn parse(text: &str, report: &mut Report) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::new(text, report);
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                builder.report.at(place(error.marker()), format!("not YAML: {}", error.info()));
                return None;
            }
        }
    }
    let start = Place { line: 1, column: 1 };
    Some(builder.root.unwrap_or(Node::new(start, Data::Null)))
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

struct Builder<'a> {
    lines: Vec<&'a str>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    weight: usize,
    root: Option<Node>,
    report: &'a mut Report,
}

/// A list or map whose end has not come yet.
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashSet<String>, key: Option<Key> },
}

/// A key that waits for its value.
enum Key {
    Good(String, Place),
    /// Complained about; its value is read and dropped.
    Bad,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, report: &'a mut Report) -> Self {
        Self {
            lines: text.lines().collect(),
            stack: Vec::new(),
            anchors: HashMap::new(),
            weight: 0,
            root: None,
            report,
        }
    }

    /// Takes one event; `None` ends the reading.
    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let at = place(&span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                if self.root.is_some() {
                    self.report.at(at, "a second document in one file, expected only one");
                    return None;
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(at, tag.as_deref());
                self.open(at, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(at, tag.as_deref());
                self.open(at, anchor, Content::Map { entries: Vec::new(), seen: HashSet::new(), key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.stack.pop()?;
                let data = match open.content {
                    Content::List(items) => Data::List(items),
                    Content::Map { entries, .. } => Data::Map(entries),
                };
                self.close(Node::new(open.place, data), open.anchor)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let text_tag = tag.as_deref().is_some_and(|t| t.is_yaml_core_schema() && t.suffix == "str");
                if !text_tag {
                    self.refuse_tag(at, tag.as_deref());
                }
                self.scalar(at, &text, style, text_tag, anchor)?;
            }
            Event::Alias(anchor) => self.alias(at, anchor)?,
        }
        Some(())
    }

    fn refuse_tag(&mut self, at: Place, tag: Option<&Tag>) {
        if let Some(tag) = tag {
            self.report.at(at, format!("tag `{tag}`, expected no tags"));
        }
    }

    fn open(&mut self, place: Place, anchor: usize, content: Content) -> Option<()> {
        if self.stack.len() >= MAX_DEPTH {
            self.report.at(place, format!("nested too deeply, expected at most {MAX_DEPTH} levels"));
            return None;
        }
        self.stack.push(Open { place, anchor, content });
        self.weigh(place, NODE_WEIGHT)
    }

    fn weigh(&mut self, at: Place, weight: usize) -> Option<()> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > MAX_WEIGHT {
            self.report.at(at, "the document is too large, aliases counted as often as they are used");
            return None;
        }
        Some(())
    }

    fn scalar(&mut self, at: Place, text: &str, style: ScalarStyle, is_text: bool, anchor: usize) -> Option<()> {
        self.weigh(at, NODE_WEIGHT + text.len())?;
        // Keys are texts as they are written: a route may be called `7` or `true`.
        if let Some(Open { content: Content::Map { seen, key: key @ None, .. }, .. }) = self.stack.last_mut() {
            if text == "<<" && style == ScalarStyle::Plain {
                self.report.at(at, "a merge key `<<`, expected the keys themselves or an alias for the whole object");
                *key = Some(Key::Bad);
            } else if seen.insert(text.to_owned()) {
                *key = Some(Key::Good(text.to_owned(), at));
            } else {
                self.report.at(at, format!("duplicate key `{text}`, expected each key once"));
                *key = Some(Key::Bad);
            }
            if anchor > 0 {
                self.anchors.insert(anchor, Node::new(at, Data::Text(text.to_owned())));
            }
            return Some(());
        }
        let plain = style == ScalarStyle::Plain && !is_text;
        let data = if plain { resolve_plain(text) } else { Data::Text(text.to_owned()) };
        let body = self.body(at, text, style);
        self.close(Node { body, ..Node::new(at, data) }, anchor)
    }

    fn alias(&mut self, at: Place, anchor: usize) -> Option<()> {
        let Some(node) = self.anchors.get(&anchor) else {
            self.report.at(at, "an alias inside what it stands for, expected it after");
            return None;
        };
        let (weight, height) = measure(node);
        if let Some(Open { content: Content::Map { key: key @ None, .. }, .. }) = self.stack.last_mut() {
            *key = Some(Key::Bad);
            self.report.at(at, "an alias as a key, expected a name");
            return Some(());
        }
        self.weigh(at, weight)?;
        if self.stack.len() + height > MAX_DEPTH {
            self.report.at(at, format!("nested too deeply, expected at most {MAX_DEPTH} levels"));
            return None;
        }
        // Places stay those of the anchor: that is where a mistake in it is mended.
        let node = self.anchors.get(&anchor)?.clone();
        self.close(node, 0)
    }

    fn close(&mut self, node: Node, anchor: usize) -> Option<()> {
        if anchor > 0 {
            self.weigh(node.place, measure(&node).0)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.stack.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, key, .. } => match key.take() {
                Some(Key::Good(key, place)) => entries.push(Entry { key, place, value: node }),
                Some(Key::Bad) => {}
                None => {
                    self.report.at(node.place, "a list or an object as a key, expected a name");
                    *key = Some(Key::Bad);
                }
            },
        }
        Some(())
    }

    fn body(&self, at: Place, text: &str, style: ScalarStyle) -> Body {
        match style {
            ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                let column = at.column + usize::from(style != ScalarStyle::Plain);
                let line = at.line.checked_sub(1).and_then(|index| self.lines.get(index)).copied();
                let rest: String = line.unwrap_or_default().chars().skip(column - 1).collect();
                // With an escape or a fold in it the text does not stand there as it is.
                if rest.starts_with(text) { Body::Line { column } } else { Body::Opaque }
            }
            // The parser points at the first line that is not blank.
            ScalarStyle::Literal => {
                let blank = text.lines().take_while(|line| line.is_empty()).count();
                Body::Block { line: at.line.saturating_sub(blank), indent: at.column - 1 }
            }
            ScalarStyle::Folded => Body::Opaque,
        }
    }
}

/// What an unquoted scalar means: the core schema of YAML 1.2, so `yes` and `on` are texts.
fn resolve_plain(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        _ => {}
    }
    if let Ok(integer) = text.parse() {
        return Data::Integer(integer);
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.contains(|c: char| c.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if numeric && number.is_finite() => Data::Number(number),
        Ok(_) | Err(_) => Data::Text(text.to_owned()),
    }
}

/// Weight and height of a tree. The recursion is as deep as the tree, which [`MAX_DEPTH`] bounds.
fn measure(node: &Node) -> (usize, usize) {
    let sum = |parts: &mut dyn Iterator<Item = (usize, usize)>| {
        parts.fold((NODE_WEIGHT, 1), |(weight, height), (w, h)| (weight + w, height.max(h + 1)))
    };
    match &node.data {
        Data::List(items) => sum(&mut items.iter().map(measure)),
        Data::Map(entries) => sum(&mut entries.iter().map(|entry| {
            let (weight, height) = measure(&entry.value);
            (weight + NODE_WEIGHT + entry.key.len(), height)
        })),
        Data::Text(text) => (NODE_WEIGHT + text.len(), 0),
        Data::Null | Data::Bool(_) | Data::Integer(_) | Data::Number(_) => (NODE_WEIGHT, 0),
    }
}

/// The text of a file, which must be UTF-8.
pub(super) fn decode<'a>(bytes: &'a [u8], report: &mut Report) -> Option<Cow<'a, str>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(Cow::Borrowed(text)),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = good.split(|byte| *byte == b'\n').count();
            let start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            let before = String::from_utf8_lossy(good.get(start..).unwrap_or_default());
            let column = 1 + before.chars().count();
            report.at(Place { line, column }, "not UTF-8");
            None
        }
    }
}
