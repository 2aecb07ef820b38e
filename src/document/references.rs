//! `${env:NAME}` and `${file:path}` in texts: replaced once, when a document is read, and never shown.

use std::path::Path;
use std::sync::Arc;

use super::Report;
use super::tree::{Data, Node};

/// Largest file a reference may name.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Looks up environment variables; given by whoever may read the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// An environment without variables.
pub const fn empty_environment(_name: &str) -> Option<String> {
    None
}

/// Replaces the references in every text of `node`; paths are relative to `folder`.
pub(super) fn resolve(node: &mut Node, folder: &Path, environment: Environment<'_>, report: &mut Report) {
    match &mut node.data {
        Data::Null | Data::Bool(_) | Data::Integer(_) | Data::Number(_) => {}
        Data::List(items) => {
            for item in items {
                resolve(item, folder, environment, report);
            }
        }
        Data::Map(entries) => {
            for entry in entries {
                resolve(&mut entry.value, folder, environment, report);
            }
        }
        Data::Text(text) => match replace(text, folder, environment) {
            Ok(None) => {}
            Ok(Some(resolved)) => {
                node.source = Some(Arc::from(std::mem::replace(text, resolved).as_str()));
                node.body = super::tree::Body::Opaque;
            }
            Err(message) => {
                report.at(node.place, message);
                node.rejected = true;
            }
        },
    }
}

/// The text with its references replaced, `None` when it has none. What a reference yields is not looked at again.
fn replace(text: &str, folder: &Path, environment: Environment<'_>) -> Result<Option<String>, String> {
    let mut resolved = String::new();
    let mut rest = text;
    while let Some((start, kind)) = next_reference(rest) {
        let (before, from) = rest.split_at(start);
        let body = from.strip_prefix(kind).unwrap_or_default();
        let Some((name, after)) = body.split_once('}') else {
            return Err(format!("`{kind}` without its end, expected a `}}`"));
        };
        resolved.push_str(before);
        resolved.push_str(&if kind == ENV { variable(name, environment)? } else { file(name, folder)? });
        rest = after;
    }
    if rest.len() == text.len() {
        return Ok(None);
    }
    resolved.push_str(rest);
    Ok(Some(resolved))
}

const ENV: &str = "${env:";
const FILE: &str = "${file:";

fn next_reference(text: &str) -> Option<(usize, &'static str)> {
    let find = |kind: &'static str| text.find(kind).map(|at| (at, kind));
    [find(ENV), find(FILE)].into_iter().flatten().min()
}

fn variable(name: &str, environment: Environment<'_>) -> Result<String, String> {
    let well_formed = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !well_formed {
        return Err(format!("`{ENV}{name}}}` names no variable, expected letters, digits and `_`"));
    }
    environment(name).ok_or_else(|| format!("environment variable `{name}` is not set, expected by `{ENV}{name}}}`"))
}

fn file(name: &str, folder: &Path) -> Result<String, String> {
    let path = folder.join(name);
    let size = std::fs::metadata(&path).map(|meta| meta.len());
    if name.is_empty() || matches!(size, Ok(bytes) if bytes > MAX_FILE_BYTES) {
        return Err(format!("`{FILE}{name}}}`: expected a file of at most {MAX_FILE_BYTES} bytes"));
    }
    match std::fs::read_to_string(&path) {
        // Editors and `echo` end a file with a line break that is no part of the secret.
        Ok(text) => Ok(text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t)).to_owned()),
        Err(error) => Err(format!("`{FILE}{name}}}` cannot be read: {error}")),
    }
}
