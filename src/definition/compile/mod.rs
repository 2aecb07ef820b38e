//! From the form of a file to what the gateway serves. Every mistake that the schema cannot see is reported here.
//!
//! Each function takes the content and the tree of the same part side by side: the first for its types, the second for
//! its places. It goes on after a mistake, so that all of them are found; what it returns then is not used.

mod api;
mod authorizer;
mod integration;
mod lambda;
mod parameters;
mod route;
mod stage;
#[cfg(test)]
mod tests;

pub(super) use api::{Claims, compile};

use crate::document::{Node, Report};
use crate::lang::{Selection, Template};

/// Longest template (specification 7).
const MAX_TEMPLATE_BYTES: usize = 300 << 10;

/// Reports a mistake in a text; when the text holds something from outside the file, the details are kept back.
fn complain(report: &mut Report, node: &Node, detail: impl Into<String>) {
    if node.is_resolved() {
        report.at(node.place, format!("{} is not valid once its references are replaced", node.shown()));
    } else {
        report.at(node.place, detail);
    }
}

/// Refuses references where the text is an identifier: those are printed, and what references yield must not be.
fn no_reference(node: &Node, report: &mut Report) {
    if node.is_resolved() {
        report.at(node.place, format!("{} is shown to people, expected it without references", node.shown()));
    }
}

fn selection(text: &str, node: &Node, report: &mut Report) -> Option<Selection> {
    match Selection::parse(text) {
        Ok(selection) => Some(selection),
        Err(error) => {
            let column = 1 + text.get(..error.offset).unwrap_or(text).chars().count();
            complain_inside(report, node, 1, column, &error.message);
            None
        }
    }
}

/// Compiles the templates of an object, in file order.
fn templates(texts: &[(String, String)], node: &Node, report: &mut Report) -> Vec<(String, Template)> {
    let mut compiled = Vec::with_capacity(texts.len());
    for (key, text) in texts {
        let node = node.at(key);
        if text.len() > MAX_TEMPLATE_BYTES {
            complain(
                report,
                node,
                format!("a template of {} bytes, expected at most {MAX_TEMPLATE_BYTES}", text.len()),
            );
            continue;
        }
        match Template::compile(text) {
            Ok(template) => compiled.push((key.clone(), template)),
            Err(error) => complain_inside(report, node, error.line, error.column, &error.message),
        }
    }
    compiled
}

/// Reports a mistake at a line and column of a text: where that stands in the file, else in words.
fn complain_inside(report: &mut Report, node: &Node, line: usize, column: usize, message: &str) {
    match node.place_inside(line, column) {
        Some(place) if !node.is_resolved() => report.at(place, message),
        Some(_) | None => {
            complain(report, node, format!("{message} (line {line}, column {column} of the text)"));
        }
    }
}
