//! Parameter mappings: where a header, query or path parameter goes, and where it comes from (specification 4.7, 5.6).

use super::super::integration::{Destination, ParameterMapping, ResponseSource, Source};
use super::complain;
use crate::document::{Node, Report};
use crate::lang::JsonPath;

/// Headers that frame the message or belong to the connection itself: a mapped one would break the request.
const CONNECTION_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Longest source of a mapping (specification 4.7.1).
const MAX_SOURCE_CHARS: usize = 512;

/// `requestParameters`, in order of destination.
pub(super) fn request(entries: &[(String, String)], node: &Node, report: &mut Report) -> Vec<ParameterMapping> {
    let mut sorted: Vec<&(String, String)> = entries.iter().collect();
    sorted.sort();
    let mut mappings = Vec::with_capacity(entries.len());
    for (to, from) in sorted {
        let destination = destination(to);
        if let Err(message) = &destination {
            report.at(node.key_place(to), message.as_str());
        }
        let source = source(from);
        if let Err(message) = &source {
            complain(report, node.at(to), message.as_str());
        }
        if let (Ok(destination), Ok(source)) = (destination, source) {
            mappings.push(ParameterMapping { destination, source });
        }
    }
    mappings
}

/// `responseParameters`, in file order.
pub(super) fn response(
    entries: &[(String, String)],
    node: &Node,
    report: &mut Report,
) -> Vec<(String, ResponseSource)> {
    let mut mappings = Vec::with_capacity(entries.len());
    for (to, from) in entries {
        let name = to
            .strip_prefix("route.response.header.")
            .or_else(|| to.strip_prefix("method.response.header."))
            .ok_or_else(|| format!("`{to}` is no destination, expected `route.response.header.{{name}}`"))
            .and_then(header_name);
        if let Err(message) = &name {
            report.at(node.key_place(to), message.as_str());
        }
        let source = response_source(from);
        if let Err(message) = &source {
            complain(report, node.at(to), message.as_str());
        }
        if let (Ok(name), Ok(source)) = (name, source) {
            mappings.push((name, source));
        }
    }
    mappings
}

fn destination(text: &str) -> Result<Destination, String> {
    let (kind, rest) = text.strip_prefix("integration.request.").and_then(|t| t.split_once('.')).unwrap_or_default();
    match kind {
        "header" => header_name(rest).map(Destination::Header),
        "querystring" => parameter_name(rest).map(Destination::Query),
        "path" => parameter_name(rest).map(Destination::Path),
        _ => Err(format!(
            "`{text}` is no destination, expected `integration.request.header.{{name}}`, `….querystring.{{name}}` or \
             `….path.{{name}}`"
        )),
    }
}

fn source(text: &str) -> Result<Source, String> {
    if text.is_empty() || text.chars().count() > MAX_SOURCE_CHARS {
        return Err(format!("a source of {} characters, expected 1 to {MAX_SOURCE_CHARS}", text.chars().count()));
    }
    if let Some(constant) = constant(text) {
        return Ok(Source::Constant(constant));
    }
    if let Some(name) = text.strip_prefix("stageVariables.") {
        return parameter_name(name).map(Source::StageVariable);
    }
    if let Some(path) = text.strip_prefix("context.") {
        return parameter_name(path).map(Source::Context);
    }
    // The service's own models speak of `method.request.*` (specification 4.7.4).
    let request = text.strip_prefix("route.request.").or_else(|| text.strip_prefix("method.request."));
    let Some(request) = request else { return Err(unknown_source(text)) };
    if let Some(path) = request.strip_prefix("body") {
        return if path.is_empty() { Ok(Source::Body) } else { json_path(path).map(Source::BodyPath) };
    }
    let (kind, name) = request.split_once('.').unwrap_or_default();
    match kind {
        "header" => parameter_name(name).map(Source::Header),
        "multivalueheader" => parameter_name(name).map(Source::Headers),
        "querystring" => parameter_name(name).map(Source::Query),
        "multivaluequerystring" => parameter_name(name).map(Source::Queries),
        _ => Err(unknown_source(text)),
    }
}

fn unknown_source(text: &str) -> String {
    format!(
        "`{text}` is no source, expected `route.request.header.{{name}}`, `….multivalueheader.{{name}}`, \
         `….querystring.{{name}}`, `….multivaluequerystring.{{name}}`, `….body.{{path}}`, `stageVariables.{{name}}`, \
         `context.{{name}}` or `'text'`"
    )
}

fn response_source(text: &str) -> Result<ResponseSource, String> {
    if let Some(constant) = constant(text) {
        return Ok(ResponseSource::Constant(constant));
    }
    if let Some(name) = text.strip_prefix("integration.response.header.") {
        return parameter_name(name).map(ResponseSource::Header);
    }
    match text.strip_prefix("integration.response.body") {
        Some(path) if path.starts_with(['.', '[']) => json_path(path).map(ResponseSource::BodyPath),
        Some(_) | None => Err(format!(
            "`{text}` is no source, expected `integration.response.header.{{name}}`, \
             `integration.response.body.{{path}}` or `'text'`"
        )),
    }
}

fn constant(text: &str) -> Option<String> {
    text.strip_prefix('\'')?.strip_suffix('\'').map(str::to_owned)
}

/// `.a.b` or `[0]` after `body`, as JSONPath from the root.
fn json_path(path: &str) -> Result<JsonPath, String> {
    if !path.starts_with(['.', '[']) {
        return Err(format!("`body{path}`, expected `body` or `body.` and a path"));
    }
    JsonPath::compile(&format!("${path}")).map_err(|error| format!("`body{path}`: {error}"))
}

fn parameter_name(name: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._$-".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(format!("`{name}` is no parameter name, expected letters, digits and `._$-`"));
    }
    Ok(name.to_owned())
}

fn header_name(name: &str) -> Result<String, String> {
    let name = parameter_name(name)?;
    if CONNECTION_HEADERS.iter().any(|header| name.eq_ignore_ascii_case(header)) {
        return Err(format!("header `{name}` belongs to the connection, expected another"));
    }
    Ok(name)
}
