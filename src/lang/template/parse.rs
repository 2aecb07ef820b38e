//! From the text of a template to its pieces.

use super::{MAX_TEMPLATE_BYTES, Piece, TemplateError};
use crate::lang::jsonpath::JsonPath;

const SUPPORTED: &str = "templates take `$context.name`, `$stageVariables.name`, `$input.body`, `$input.json('$.a')`, \
                         `$input.path('$.a')` and `$input.params('name')`; `\\$` before a name keeps it as text";

const DIRECTIVES: [&str; 13] = [
    "set", "if", "elseif", "else", "end", "foreach", "include", "parse", "macro", "stop", "break", "evaluate", "define",
];

/// Splits a template into its pieces; neighbouring text is one piece.
pub(super) fn pieces(template: &str) -> Result<Vec<Piece>, TemplateError> {
    if template.len() > MAX_TEMPLATE_BYTES {
        let message = format!("a template may have {MAX_TEMPLATE_BYTES} bytes, this one has {}", template.len());
        return Err(TemplateError { message, line: 1, column: 1 });
    }
    let mut parser = Parser { rest: template, text: String::new(), pieces: Vec::new() };
    match parser.run() {
        Ok(()) => Ok(parser.pieces),
        Err(Problem { at, message }) => {
            let before = template.get(..template.len() - at).unwrap_or(template);
            let line_start = before.rfind('\n').map_or(0, |end| end + 1);
            let line = before.matches('\n').count() + 1;
            let column = before.get(line_start..).map_or(0, |line| line.chars().count()) + 1;
            Err(TemplateError { message, line, column })
        }
    }
}

/// What is wrong, and how many bytes before the template's end.
struct Problem {
    at: usize,
    message: String,
}

impl Problem {
    fn new<T>(rest: &str, message: impl Into<String>) -> Result<T, Self> {
        Err(Self { at: rest.len(), message: message.into() })
    }
}

struct Parser<'t> {
    rest: &'t str,
    text: String,
    pieces: Vec<Piece>,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), Problem> {
        while let Some(at) = self.rest.find(['$', '#', '\\']) {
            self.keep(at);
            match self.rest.as_bytes().first() {
                Some(b'\\') => self.backslashes(),
                Some(b'#') => self.hash()?,
                Some(_) | None => self.dollar()?,
            }
        }
        self.keep(self.rest.len());
        self.end_text();
        Ok(())
    }

    /// Takes the next `bytes` as text.
    fn keep(&mut self, bytes: usize) {
        let (text, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.text.push_str(text);
        self.rest = rest;
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.pieces.push(Piece::Text(std::mem::take(&mut self.text).into()));
        }
    }

    /// As in Velocity: before a reference or directive two backslashes are one, and an odd one makes it text.
    fn backslashes(&mut self) {
        let after = self.rest.trim_start_matches('\\');
        let count = self.rest.len() - after.len();
        if head(after).is_none() && directive(after).is_none() {
            self.keep(count);
            return;
        }
        self.text.extend(std::iter::repeat_n('\\', count / 2));
        self.rest = after;
        if count % 2 == 1 {
            self.keep(1);
        }
    }

    fn hash(&mut self) -> Result<(), Problem> {
        if let Some(comment) = self.rest.strip_prefix("##") {
            self.rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(comment) = self.rest.strip_prefix("#*") {
            let Some((_, after)) = comment.split_once("*#") else {
                return Problem::new(self.rest, "the comment `#*` has no closing `*#`");
            };
            self.rest = after;
        } else if self.rest.starts_with("#[[") {
            return Problem::new(self.rest, format!("`#[[` is not supported yet: {SUPPORTED}"));
        } else if let Some(word) = directive(self.rest) {
            return Problem::new(self.rest, format!("`#{word}` is not supported yet: {SUPPORTED}"));
        } else {
            self.keep(1);
        }
        Ok(())
    }

    fn dollar(&mut self) -> Result<(), Problem> {
        let start = self.rest;
        let Some(Head { formal, name, after }) = head(start) else {
            self.keep(1);
            return Ok(());
        };
        let (piece, after) = match name {
            "context" => context(start, after)?,
            "stageVariables" => stage_variable(start, after)?,
            "input" => input(start, after)?,
            _ => {
                return Problem::new(start, format!("`${name}` is not supported yet: {SUPPORTED}"));
            }
        };
        no_more(start, after)?;
        self.rest = match (formal, after.strip_prefix('}')) {
            (false, _) => after,
            (true, Some(after)) => after,
            (true, None) => {
                return Problem::new(start, format!("`${{{name}…` has no closing `}}`"));
            }
        };
        self.end_text();
        self.pieces.push(piece);
        Ok(())
    }
}

/// The beginning of a reference.
struct Head<'t> {
    /// Whether it is in braces.
    formal: bool,
    name: &'t str,
    after: &'t str,
}

/// Reads `$name`, `$!name`, `${name`, `$!{name`; `None` when the dollar sign is only text, as in `$5`.
fn head(text: &str) -> Option<Head<'_>> {
    let text = text.strip_prefix('$')?;
    let text = text.strip_prefix('!').unwrap_or(text);
    let (formal, text) = text.strip_prefix('{').map_or((false, text), |text| (true, text));
    let (name, after) = identifier(text)?;
    Some(Head { formal, name, after })
}

/// A letter or `_`, then letters, digits, `_`, and hyphens between those.
fn identifier(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(text.len());
    let name = text.get(..end)?.trim_end_matches('-');
    text.split_at_checked(name.len())
}

/// The directive that a `#` begins, as `#end` or `#{end}`.
fn directive(text: &str) -> Option<&str> {
    let text = text.strip_prefix('#')?;
    let word = text.strip_prefix('{').unwrap_or(text);
    let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(word.len());
    word.get(..end).filter(|word| DIRECTIVES.contains(word))
}

fn property(text: &str) -> Option<(&str, &str)> {
    identifier(text.strip_prefix('.')?)
}

fn context<'t>(start: &str, mut after: &'t str) -> Result<(Piece, &'t str), Problem> {
    let path = after.strip_prefix('.').unwrap_or(after);
    while let Some((_, rest)) = property(after) {
        // `.name(` is a method.
        if rest.starts_with('(') {
            break;
        }
        after = rest;
    }
    match path.get(..path.len().saturating_sub(after.len())) {
        Some(path) if !path.is_empty() => Ok((Piece::Context(path.into()), after)),
        Some(_) | None => Problem::new(start, "expected a name after `$context`, such as `$context.connectionId`"),
    }
}

fn stage_variable<'t>(start: &str, after: &'t str) -> Result<(Piece, &'t str), Problem> {
    if let Some((name, after)) = property(after).filter(|(_, after)| !after.starts_with('(')) {
        return Ok((Piece::StageVariable(name.into()), after));
    }
    let quoted = after.strip_prefix('[').and_then(quoted);
    if let Some((name, after)) = quoted.and_then(|(name, after)| Some((name, after.strip_prefix(']')?))) {
        return Ok((Piece::StageVariable(name.into()), after));
    }
    Problem::new(start, "expected `$stageVariables.name` or `$stageVariables['name']`")
}

fn input<'t>(start: &str, after: &'t str) -> Result<(Piece, &'t str), Problem> {
    let unsupported = |found: &str| {
        Problem::new(
            start,
            format!(
                "`$input{found}` is not supported yet: `$input` has `body`, `json('$.a')`, `path('$.a')` and \
                 `params('name')`"
            ),
        )
    };
    let Some((name, after)) = property(after) else { return unsupported("") };
    if name == "body" {
        return Ok((Piece::Body, after));
    }
    if !matches!(name, "json" | "path" | "params") {
        return unsupported(&format!(".{name}"));
    }
    let argument = after.strip_prefix('(').and_then(quoted);
    let Some((argument, after)) = argument.and_then(|(text, after)| Some((text, after.strip_prefix(')')?))) else {
        return Problem::new(after, format!("expected `('…')` with one quoted text after `$input.{name}`"));
    };
    if name == "params" {
        return Ok((Piece::Parameter(argument.into()), after));
    }
    let path = match JsonPath::compile(argument) {
        Ok(path) => path,
        Err(error) => {
            return Problem::new(start, format!("`$input.{name}` needs a JSONPath: {error}"));
        }
    };
    Ok((if name == "json" { Piece::Json(path) } else { Piece::Path(path) }, after))
}

/// A text in quotes with blanks around, and what follows; `None` where a double-quoted one has references in it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t']);
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let (content, after) = text.strip_prefix(quote)?.split_once(quote)?;
    let references = || content.match_indices('$').any(|(at, _)| content.get(at..).and_then(head).is_some());
    let interpolated = quote == '"' && references();
    (!interpolated).then(|| (content, after.trim_start_matches([' ', '\t'])))
}

/// A reference that goes on would lose its end without a word.
fn no_more(start: &str, after: &str) -> Result<(), Problem> {
    let reference = start.get(..start.len() - after.len()).unwrap_or(start);
    if after.starts_with('[') {
        return Problem::new(after, format!("`[` after `{reference}`: an index is not supported yet"));
    }
    if after.starts_with('|') && reference.contains('{') {
        return Problem::new(after, format!("`|` after `{reference}`: alternate values are not supported yet"));
    }
    match property(after) {
        Some((name, after)) if after.starts_with('(') => {
            Problem::new(after, format!("`.{name}(` after `{reference}`: methods are not supported yet"))
        }
        Some((name, _)) => {
            Problem::new(after, format!("`.{name}` after `{reference}`: properties of it are not supported yet"))
        }
        None => Ok(()),
    }
}
