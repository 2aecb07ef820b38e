//! The grammar of selection expressions (specification 3.2).

use super::{MAX_EXPRESSION_BYTES, MAX_VARIABLES, Part, SelectionError};
use crate::lang::jsonpath::JsonPath;

/// Splits an expression into its parts; neighbouring text is one part.
pub(super) fn parts(expression: &str) -> Result<Vec<Part>, SelectionError> {
    let error = |message: String, offset| SelectionError { message, offset };
    if expression.len() > MAX_EXPRESSION_BYTES {
        let message = format!("an expression may have {MAX_EXPRESSION_BYTES} bytes, this one has {}", expression.len());
        return Err(error(message, MAX_EXPRESSION_BYTES));
    }
    let unquoted = expression.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    let start = usize::from(unquoted.is_some());
    let mut rest = unquoted.unwrap_or(expression);
    if rest.is_empty() {
        return Err(error("expected an expression such as `$request.body.action`, found nothing".to_owned(), start));
    }
    let end = start + rest.len();
    let (mut parts, mut text, mut variables) = (Vec::new(), String::new(), 0);
    while let Some(at) = rest.find(['$', '\\']) {
        let (before, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
        text.push_str(before);
        if let Some(after) = after.strip_prefix("\\$") {
            text.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('\\') {
            text.push('\\');
            rest = after;
        } else {
            let offset = end - after.len();
            let (path, after) = variable(after).map_err(|message| error(message, offset))?;
            variables += 1;
            if variables > MAX_VARIABLES {
                return Err(error(format!("an expression may have {MAX_VARIABLES} variables"), offset));
            }
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text).into()));
            }
            parts.push(part(path).map_err(|message| error(message, offset))?);
            rest = after;
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
    Ok(parts)
}

/// Splits `$path…` or `${path}…` into its path and what follows.
fn variable(text: &str) -> Result<(&str, &str), String> {
    let named = |path: &str| !path.is_empty();
    if let Some(wrapped) = text.strip_prefix("${") {
        let end = path_end(wrapped, |c| c == '}')?.filter(|end| *end < wrapped.len());
        let (path, after) = end.and_then(|end| wrapped.split_at_checked(end)).ok_or("`${` has no closing `}`")?;
        let after = after.strip_prefix('}').unwrap_or(after);
        return named(path).then_some((path, after)).ok_or_else(|| "`${}` names no variable".to_owned());
    }
    let bare = text.strip_prefix('$').unwrap_or(text);
    let end = path_end(bare, |c| matches!(c, ' ' | '$' | '\\' | '{' | '}' | '/'))?;
    let (path, after) = end.and_then(|end| bare.split_at_checked(end)).unwrap_or((bare, ""));
    named(path)
        .then_some((path, after))
        .ok_or_else(|| "`$` starts a variable and none is named; write `\\$` for a dollar sign".to_owned())
}

/// Where a path ends: at the first character that `ends` it, those in brackets not counted.
fn path_end(text: &str, ends: impl Fn(char) -> bool) -> Result<Option<usize>, String> {
    let (mut nesting, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == c => quote = None,
            (None, '[') => nesting += 1,
            (None, ']') => nesting = nesting.saturating_sub(1),
            (None, '\'' | '"') if nesting > 0 => quote = Some(c),
            (None, _) if nesting == 0 && ends(c) => return Ok(Some(at)),
            _ => {}
        }
    }
    if nesting > 0 { Err("`[` has no closing `]`".to_owned()) } else { Ok(None) }
}

fn part(path: &str) -> Result<Part, String> {
    if let Some(rest) = member_path(path, "request.body") {
        return Ok(match compile(rest)? {
            None => Part::Body,
            Some(path) => match path.members() {
                Some(names) => Part::Member { names: names.into(), index: 0 },
                None => Part::Query(path),
            },
        });
    }
    if let Some(rest) = member_path(path, "integration.response.body") {
        return Ok(compile(rest)?.map_or(Part::ResponseBody, Part::ResponseQuery));
    }
    if path == "integration.response.statuscode" {
        return Ok(Part::Status);
    }
    let header = |prefix| path.strip_prefix(prefix).filter(|name: &&str| !name.is_empty());
    if let Some(name) = header("integration.response.header.") {
        return Ok(Part::Header(name.into()));
    }
    if let Some(name) = header("integration.response.multivalueheader.") {
        return Ok(Part::Headers(name.into()));
    }
    Ok(Part::Unknown)
}

/// What follows `root` in `path`, if it goes on as a JSONPath does.
fn member_path<'p>(path: &'p str, root: &str) -> Option<&'p str> {
    path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn compile(path: &str) -> Result<Option<JsonPath>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    JsonPath::compile(path).map(Some).map_err(|error| error.to_string())
}
