//! Authorizers: which function, and what a handshake must have.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::authorizer::{Authorizer, IdentitySource};
use super::super::file::{AuthorizerFile, AuthorizerType, Entries};
use super::integration::Stages;
use super::{complain, lambda};
use crate::document::{Node, Report};

/// Authorizers by name; `None` for one with mistakes, which are in the report.
pub(super) type Authorizers = BTreeMap<String, Option<Arc<Authorizer>>>;

/// Compiles all of an API.
pub(super) fn compile(
    files: Option<&Entries<AuthorizerFile>>,
    node: &Node,
    stages: &Stages,
    report: &mut Report,
) -> Authorizers {
    let mut one = |(name, file): &(String, AuthorizerFile)| {
        let node = node.at(name);
        // Which kind it is was checked by the schema, and there is one.
        let Some(AuthorizerType::Request) = file.authorizer_type else { return None };
        let sources = sources(file.identity_source.as_deref().unwrap_or_default(), node.at("identitySource"), report);
        let function = lambda::function(file.authorizer_uri.as_deref()?, node.at("authorizerUri"), stages, report)?;
        Some(Arc::new(Authorizer { name: name.clone(), function, sources }))
    };
    Entries::of(files).iter().map(|entry| (entry.0.clone(), one(entry))).collect()
}

fn sources(texts: &[String], node: &Node, report: &mut Report) -> Vec<IdentitySource> {
    let mut sources = Vec::with_capacity(texts.len());
    for (text, node) in texts.iter().zip(node.items()) {
        match source(text) {
            Some(source) => sources.push(source),
            None => complain(
                report,
                node,
                format!(
                    "{} is no identity source, expected `route.request.header.{{name}}`, \
                     `route.request.querystring.{{name}}`, `stageVariables.{{name}}` or `context.{{name}}`",
                    node.shown()
                ),
            ),
        }
    }
    sources
}

fn source(text: &str) -> Option<IdentitySource> {
    let named = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._$-".contains(c);
        (!name.is_empty() && name.chars().all(fits)).then(|| name.to_owned())
    };
    if let Some(name) = text.strip_prefix("stageVariables.") {
        return named(name).map(IdentitySource::StageVariable);
    }
    if let Some(path) = text.strip_prefix("context.") {
        return named(path).map(IdentitySource::Context);
    }
    let request = text.strip_prefix("route.request.").or_else(|| text.strip_prefix("method.request."))?;
    match request.split_once('.')? {
        ("header", name) => named(name).map(IdentitySource::Header),
        ("querystring", name) => named(name).map(IdentitySource::Query),
        _ => None,
    }
}
