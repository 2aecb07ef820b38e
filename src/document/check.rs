//! A tree against a schema: every node that the schema does not allow is reported in words and marked.
//!
//! Only what [`super::generate`] produces is understood; a test beside each schema holds the two together.

use std::collections::HashMap;

use regex::Regex;
use serde_json::Value;

use super::schema::{
    Keywords, choices, constants, in_words, kinds, kinds_in_words, list, number, property, unknown_key, unsupported,
};
use super::tree::{Data, Entry, Node};
use super::{Place, Report, nearest};

/// Reports everything in `node` that `schema` does not allow and marks it as rejected.
pub(super) fn check(schema: &Value, node: &mut Node, report: &mut Report) {
    Checker { root: schema, patterns: HashMap::new(), report }.check(schema, node, "the document");
}

struct Checker<'s, 'r> {
    root: &'s Value,
    patterns: HashMap<&'s str, Option<Regex>>,
    report: &'r mut Report,
}

impl<'s> Checker<'s, '_> {
    fn check(&mut self, schema: &'s Value, node: &mut Node, name: &str) {
        let Some(schema) = self.target(schema) else { return };
        if node.rejected {
            return;
        }
        for part in list(schema, "allOf") {
            self.check(part, node, name);
        }
        if let Some(choices) = choices(schema) {
            self.check_choice(schema, choices, node, name);
        } else if !is_kind(schema, node) || !is_constant(schema, node) {
            self.reject(schema, node, name);
        }
        if node.rejected {
            return;
        }
        let fits = match &node.data {
            Data::Text(text) => self.text_fits(schema, text),
            Data::Integer(number) => in_range(schema, *number),
            Data::Null | Data::Bool(_) | Data::Number(_) | Data::List(_) | Data::Map(_) => true,
        };
        if !fits {
            self.reject(schema, node, name);
        }
        self.check_inside(schema, node, name);
    }

    fn check_inside(&mut self, schema: &'s Keywords, node: &mut Node, name: &str) {
        let place = node.place;
        let too_many = |count: usize| number(schema, "maxItems").is_some_and(|most| count as u64 > most);
        match &mut node.data {
            Data::List(items) => {
                if too_many(items.len()) {
                    let most = number(schema, "maxItems").unwrap_or_default();
                    self.report.at(place, format!("{name} has {} items, expected at most {most}", items.len()));
                }
                if let Some(schema) = schema.get("items") {
                    for item in items {
                        self.check(schema, item, &format!("an item of {name}"));
                    }
                }
            }
            Data::Map(entries) => {
                self.check_size(schema, entries.len(), place, name);
                self.check_entries(schema, entries, name);
                for key in list(schema, "required").iter().filter_map(Value::as_str) {
                    if !entries.iter().any(|entry| entry.key == key) {
                        let expected = property(schema, key).map_or_else(String::new, |s| self.expected(s));
                        self.report.at(place, format!("`{key}` is missing, expected {expected}"));
                    }
                }
            }
            Data::Null | Data::Bool(_) | Data::Integer(_) | Data::Number(_) | Data::Text(_) => {}
        }
    }

    fn check_size(&mut self, schema: &Keywords, count: usize, place: Place, name: &str) {
        let entries = |count: u64| if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") };
        let found = entries(count as u64);
        if let Some(most) = number(schema, "maxProperties").filter(|most| count as u64 > *most) {
            self.report.at(place, format!("{name} has {found}, expected at most {most}"));
        }
        if let Some(least) = number(schema, "minProperties").filter(|least| (count as u64) < *least) {
            self.report.at(place, format!("{name} has {found}, expected at least {least}"));
        }
    }

    fn check_entries(&mut self, schema: &'s Keywords, entries: &mut [Entry], name: &str) {
        for entry in entries {
            let known = property(schema, &entry.key);
            if let Some(names) = schema.get("propertyNames").and_then(Value::as_object)
                && known.is_none()
                && !self.text_fits(names, &entry.key)
            {
                let expected = self.expected_of(names);
                self.report.at(entry.place, format!("`{}` in {name}, expected {expected}", entry.key));
                entry.value.rejected = true;
            }
            match known.or_else(|| schema.get("additionalProperties")) {
                Some(Value::Bool(false)) => {
                    self.report.at(entry.place, unknown_key(schema, &entry.key));
                    entry.value.rejected = true;
                }
                Some(value) => {
                    if let Some(reason) = value.as_object().and_then(unsupported) {
                        let message = format!("`{}` {reason}, expected it to be left out", entry.key);
                        self.report.at(entry.place, message);
                        entry.value.rejected = true;
                    }
                    self.check(value, &mut entry.value, &format!("`{}`", entry.key));
                }
                None => {}
            }
        }
    }

    /// One of several shapes: constants are compared as a list, otherwise the first shape of the right kind counts.
    fn check_choice(&mut self, schema: &'s Keywords, choices: &'s [Value], node: &mut Node, name: &str) {
        let all: Vec<&Keywords> = choices.iter().filter_map(|choice| self.target(choice)).collect();
        let fits = |choice: &&&Keywords| is_kind(choice, node) && is_constant(choice, node);
        match all.iter().find(fits).and_then(|found| all.iter().position(|choice| choice == found)) {
            Some(index) => match all.get(index).and_then(|choice| unsupported(choice)) {
                Some(reason) => {
                    let expected = self.expected_of(schema);
                    self.report.at(node.place, format!("{name} {} {reason}, expected {expected}", node.shown()));
                    node.rejected = true;
                }
                None => choices.iter().skip(index).take(1).for_each(|choice| self.check(choice, node, name)),
            },
            None => self.reject(schema, node, name),
        }
    }

    fn reject(&mut self, schema: &Keywords, node: &mut Node, name: &str) {
        let constants = constants(schema);
        // With one constant the expectation says it all.
        let texts = constants.iter().filter(|_| constants.len() > 1).filter_map(Value::as_str);
        let meant = node.as_text().filter(|_| !node.is_resolved()).and_then(|text| nearest(text, texts));
        let hint = meant.map(|text| format!("; did you mean `{text}`?")).unwrap_or_default();
        let expected = self.expected_of(schema);
        self.report.at(node.place, format!("{name} is {}, expected {expected}{hint}", node.shown()));
        node.rejected = true;
    }

    fn text_fits(&mut self, schema: &'s Keywords, text: &str) -> bool {
        let chars = text.chars().count() as u64;
        if number(schema, "maxLength").is_some_and(|most| chars > most)
            || number(schema, "minLength").is_some_and(|least| chars < least)
        {
            return false;
        }
        let Some(pattern) = schema.get("pattern").and_then(Value::as_str) else { return true };
        let regex = self.patterns.entry(pattern).or_insert_with(|| Regex::new(pattern).ok());
        regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    /// The keywords of a schema, references followed.
    fn target(&self, schema: &'s Value) -> Option<&'s Keywords> {
        let keywords = schema.as_object()?;
        match keywords.get("$ref").and_then(Value::as_str) {
            Some(path) => self.root.pointer(path.strip_prefix('#')?)?.as_object(),
            None => Some(keywords),
        }
    }

    fn expected(&self, schema: &Value) -> String {
        match schema.as_object() {
            Some(keywords) => self.expected_of(keywords),
            None => "a value".to_owned(),
        }
    }

    /// What a schema allows, in words.
    fn expected_of(&self, schema: &Keywords) -> String {
        if let Some(text) = schema.get("errorMessage").and_then(Value::as_str) {
            return text.to_owned();
        }
        if let Some(path) = schema.get("$ref").and_then(Value::as_str) {
            let target = path.strip_prefix('#').and_then(|path| self.root.pointer(path));
            return target.map_or_else(String::new, |target| self.expected(target));
        }
        let constants = constants(schema);
        if let [only] = constants.as_slice() {
            return in_words(only);
        }
        if !constants.is_empty() {
            return format!("one of {}", constants.iter().map(in_words).collect::<Vec<_>>().join(", "));
        }
        if let Some(part) = list(schema, "allOf").first() {
            return self.expected(part);
        }
        if let Some(choices) = choices(schema) {
            return choices.iter().map(|choice| self.expected(choice)).collect::<Vec<_>>().join(", or ");
        }
        kinds_in_words(schema)
    }
}

fn is_kind(schema: &Keywords, node: &Node) -> bool {
    let kinds = kinds(schema);
    let is = |kind: &str| kinds.contains(&kind);
    kinds.is_empty()
        || match &node.data {
            Data::Null => is("null"),
            Data::Bool(_) => is("boolean"),
            Data::Integer(_) => is("integer") || is("number"),
            Data::Number(_) => is("number"),
            Data::Text(_) => is("string"),
            Data::List(_) => is("array"),
            Data::Map(_) => is("object"),
        }
}

fn is_constant(schema: &Keywords, node: &Node) -> bool {
    let own = list(schema, "enum");
    let constant = schema.get("const");
    (own.is_empty() && constant.is_none()) || {
        let value = node.to_json();
        own.contains(&value) || constant == Some(&value)
    }
}

fn in_range(schema: &Keywords, value: i64) -> bool {
    let limit = |keyword: &str| schema.get(keyword).and_then(Value::as_i64);
    limit("minimum").is_none_or(|least| value >= least) && limit("maximum").is_none_or(|most| value <= most)
}
