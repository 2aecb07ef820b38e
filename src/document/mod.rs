//! Files that people write, in YAML or JSON: read with the place of every value, checked against a schema, every problem at once.
//!
//! A [`Document`] is read in three steps. Text becomes a tree with places; references to the environment and to files are
//! replaced; the tree is checked against a JSON Schema, and what fails is reported and left out. Whoever reads on gets
//! plain JSON of the rest, and looks for more mistakes in it with the places at hand.
//!
//! Nothing here knows what a document means. Foreign facts: YAML 1.2 (core schema), JSON Schema draft 7.

mod check;
mod nearest;
mod parse;
mod problem;
mod references;
mod schema;
mod tree;

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use nearest::nearest;
pub use problem::{Place, Problem, Problems};
pub use references::{Environment, empty_environment};
pub use schema::generate;
#[cfg(test)]
pub(crate) use schema::unchecked;
pub use tree::Node;

/// Largest file taken: far beyond what a person writes, far below what memory holds.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// Longest message of a problem; the longest of ours, a list of known keys, has about 500.
const MAX_MESSAGE_CHARS: usize = 1_000;

/// Collects the problems of one file.
#[derive(Debug)]
pub struct Report {
    file: Arc<str>,
    problems: Problems,
}

impl Report {
    /// A report on a file, by the name it is known to the user.
    pub fn new(file: &str) -> Self {
        Self { file: Arc::from(file), problems: Problems::new() }
    }

    /// Adds a problem at a place.
    pub fn at(&mut self, place: Place, message: impl Into<String>) {
        let message = one_line(&message.into());
        let file = Arc::clone(&self.file);
        self.problems.push(Problem { file, place: Some(place), message });
    }

    /// The file's name.
    pub const fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// What was found.
    pub fn into_problems(self) -> Problems {
        self.problems
    }
}

/// A message as one line of bounded length: it may repeat a key of any length that holds anything.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len().min(MAX_MESSAGE_CHARS));
    for (index, c) in message.chars().enumerate() {
        if index == MAX_MESSAGE_CHARS {
            line.push('…');
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// A file's content as `T`, as far as it is well formed, and its tree.
#[derive(Debug)]
pub struct Document<T> {
    /// What remains when everything rejected is left out.
    pub content: T,
    /// The same with places.
    pub root: Node,
}

impl<T: DeserializeOwned> Document<T> {
    /// Reads a text; everything that is wrong goes to the report. `None` when too little is left to look any further.
    ///
    /// `T` must take whatever the schema lets through, with required keys missing: the schema alone requires.
    pub fn read(
        bytes: &[u8],
        schema: &Value,
        folder: &Path,
        environment: Environment<'_>,
        report: &mut Report,
    ) -> Option<Self> {
        let text = parse::decode(bytes, report)?;
        let mut root = parse::parse(&text, report)?;
        // A file of comments alone: what it lacks is said key by key.
        if matches!(root.data, tree::Data::Null) {
            root.data = tree::Data::Map(Vec::new());
        }
        references::resolve(&mut root, folder, environment, report);
        check::check(schema, &mut root, report);
        match serde_json::from_value(root.to_json()) {
            Ok(content) => Some(Self { content, root }),
            Err(error) => {
                // The schema is made from `T`, so the only way here is a document that is no object at all, and that is
                // reported already. Should the two ever differ, a refusal is better than a wrong guess; the text of the
                // error may hold a value, so it is not shown.
                if report.problems.is_empty() {
                    let place = Place { line: 1, column: 1 };
                    report.at(place, format!("does not have the expected form ({:?})", error.classify()));
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
