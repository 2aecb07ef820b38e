//! Mapping templates: text with references to the event (specification 12), the part of Velocity that needs no logic.
//!
//! Known are `$context.name`, `$stageVariables.name`, `$stageVariables['name']`, `$input.body`, `$input.json('$.a')`,
//! `$input.path('$.a')` and `$input.params('name')`, each also as `${…}`, `$!…` and `$!{…}`; `\$context.name` for the
//! text itself; the comments `##` and `#* *#`. A reference without value is empty. What Velocity knows beyond that is
//! an error when the template is compiled, never text that goes out by mistake.

mod parse;

use std::fmt::{self, Write as _};

use super::jsonpath::{Found, JsonPath};
use super::print::{Bounded, Lists};
use super::{Variable, Variables, loose};
use crate::message::Message;

/// Largest template (specification 4.6.4).
pub const MAX_TEMPLATE_BYTES: usize = 300 * 1024;
/// Largest output; a message has at most 128 KiB by default, a template may hold several.
pub const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// A compiled mapping template.
#[derive(Debug, Clone)]
pub struct Template {
    pieces: Box<[Piece]>,
}

/// Why a template does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong and what was expected.
    pub message: String,
    /// 1-based line in the template.
    pub line: usize,
    /// 1-based column, in characters.
    pub column: usize,
}

/// Why a template does not render.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The output grew beyond the limit.
    #[error("the template's output is larger than {limit} bytes")]
    TooLarge {
        /// [`MAX_OUTPUT_BYTES`].
        limit: usize,
    },
}

/// A piece of a template.
#[derive(Debug, Clone)]
enum Piece {
    /// Text as it stands.
    Text(Box<str>),
    /// `$context.{path}`
    Context(Box<str>),
    /// `$stageVariables.{name}`
    StageVariable(Box<str>),
    /// `$input.body`
    Body,
    /// `$input.json('path')`: JSON.
    Json(JsonPath),
    /// `$input.path('path')`: the value's text.
    Path(JsonPath),
    /// `$input.params('name')`
    Parameter(Box<str>),
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is larger than [`MAX_TEMPLATE_BYTES`], or uses a directive, reference or method that is not supported.
    pub fn compile(text: &str) -> Result<Self, TemplateError> {
        parse::pieces(text).map(|pieces| Self { pieces: pieces.into() })
    }

    /// Renders; `input` is what `$input` refers to: the message, or the back-end's body in a response template.
    ///
    /// # Errors
    /// [`RenderError::TooLarge`] when the output would have more than [`MAX_OUTPUT_BYTES`].
    pub fn render(&self, variables: &dyn Variables, input: &Message) -> Result<String, RenderError> {
        let mut out = Bounded::new(MAX_OUTPUT_BYTES);
        for piece in &self.pieces {
            write_piece(&mut out, piece, variables, input)
                .map_err(|fmt::Error| RenderError::TooLarge { limit: MAX_OUTPUT_BYTES })?;
        }
        Ok(out.into_string())
    }
}

fn write_piece(out: &mut Bounded, piece: &Piece, variables: &dyn Variables, input: &Message) -> fmt::Result {
    match piece {
        Piece::Text(text) => out.write_str(text),
        Piece::Context(path) => match variables.context(path) {
            Some(Variable::Text(text)) => out.write_str(&text),
            Some(Variable::Number(number)) => write!(out, "{number}"),
            None => Ok(()),
        },
        Piece::StageVariable(name) => out.write_str(variables.stage_variable(name).unwrap_or_default()),
        Piece::Body => out.write_str(&input.as_text()),
        // Connect and disconnect have no payload; templates that pass it on still give JSON.
        Piece::Json(path) if input.is_empty() && path.is_root() => out.write_str("{}"),
        Piece::Json(path) => find(path, input).write_json(out),
        Piece::Path(path) => find(path, input).write_text(out, Lists::Json),
        Piece::Parameter(name) => {
            let query = variables.query(name);
            let value = query.last().copied().or_else(|| variables.headers(name).last().copied());
            out.write_str(value.unwrap_or_default())
        }
    }
}

fn find<'a>(path: &JsonPath, input: &'a Message) -> Found<'a> {
    input.json_with(loose::parse).map_or(Found::Nothing, |root| path.find(root))
}

#[cfg(test)]
mod tests;
