//! What is wrong with a file, and where.

use std::fmt;
use std::sync::Arc;

/// Most problems kept; a file that is wrong in more ways than this is not read by a person any more.
const MAX_PROBLEMS: usize = 1_000;

/// A position in a file; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One thing that is wrong. Displays as `file:line:column: what is wrong, what was expected`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was named.
    pub file: Arc<str>,
    /// Where in it; `None` when the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place { line, column }) => {
                write!(f, "{}:{line}:{column}: {}", self.file, self.message)
            }
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// Everything that is wrong, sorted by file and place. Displays one problem a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    beyond: usize,
}

impl Problems {
    /// Nothing wrong yet.
    pub const fn new() -> Self {
        Self { list: Vec::new(), beyond: 0 }
    }

    /// One problem with a file as a whole.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        let mut problems = Self::new();
        problems.push(Problem { file: Arc::from(file), place: None, message: message.into() });
        problems
    }

    /// Adds a problem in its place; the same problem twice counts once.
    pub fn push(&mut self, problem: Problem) {
        let Err(at) = self.list.binary_search(&problem) else { return };
        if self.list.len() < MAX_PROBLEMS {
            self.list.insert(at, problem);
        } else {
            self.beyond += 1;
        }
    }

    /// Adds all of `other`.
    pub fn append(&mut self, other: Self) {
        self.beyond += other.beyond;
        for problem in other.list {
            self.push(problem);
        }
    }

    /// Whether nothing is wrong.
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many things are wrong, those no longer listed included.
    pub const fn len(&self) -> usize {
        self.list.len() + self.beyond
    }

    /// The problems, by file and place; at most 1,000.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.list.iter()
    }

    /// `Ok(value)` when nothing is wrong.
    ///
    /// # Errors
    /// The problems.
    pub fn or_ok<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        if self.beyond > 0 {
            write!(f, "\nand {} more", self.beyond)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: usize, message: &str) -> Problem {
        Problem { file: "a.yaml".into(), place: Some(Place { line, column: 3 }), message: message.into() }
    }

    #[test]
    fn problems_come_sorted_and_once() {
        let mut problems = Problems::of_file("a.yaml", "too large");
        for line in [10, 2, 10] {
            problems.push(problem(line, "bad"));
        }
        assert_eq!(problems.to_string(), "a.yaml: too large\na.yaml:2:3: bad\na.yaml:10:3: bad");
    }

    #[test]
    fn their_number_is_bounded() {
        let mut problems = Problems::new();
        for line in 1..=MAX_PROBLEMS + 5 {
            problems.push(problem(line, "bad"));
        }
        assert_eq!((problems.iter().len(), problems.len()), (MAX_PROBLEMS, MAX_PROBLEMS + 5));
        assert!(problems.to_string().ends_with("\nand 5 more"));
    }
}
