//! An API as a whole, and what must be unique across files.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::file::{ApiFile, BinaryFrames as FrameChoice, DomainFile, Entries};
use super::super::{Api, BinaryFrames, Domain, Stage};
use super::{authorizer, complain, no_reference, route, selection, stage};
use crate::document::{Document, Node, Place, Report};
use crate::ids::{ApiId, RouteKey, StageName};
use crate::lang::policy::{Kind, Policy, Step};
use crate::routing::WebSocketRoutes;

/// What files claim for themselves, and where.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    ids: HashMap<ApiId, (Arc<str>, Place)>,
    domains: HashMap<(String, String), (Arc<str>, Place)>,
}

/// The API of a document; `None` when it has mistakes, all of which are in the report then.
pub(crate) fn compile(document: &Document<ApiFile>, claims: &mut Claims, report: &mut Report) -> Option<Api> {
    let (file, root) = (&document.content, &document.root);
    let id = api_id(file, root, claims, report);
    let expression = file
        .route_selection_expression
        .as_deref()
        .and_then(|text| selection(text, root.at("routeSelectionExpression"), report));

    let stage_files = Entries::of(file.stages.as_ref());
    let stages: BTreeMap<StageName, Arc<Stage>> = stage_files
        .iter()
        .filter_map(|(name, file)| stage::compile(name, file, root.at("stages").at(name), report))
        .map(|stage| (stage.name.clone(), Arc::new(stage)))
        .collect();

    let authorizers = authorizer::compile(file.authorizers.as_ref(), root.at("authorizers"), &stages, report);
    let (mut connect, mut disconnect, mut others) = (None, None, Vec::new());
    for (key, file) in Entries::of(file.routes.as_ref()) {
        let Some(route) = route::compile(key, file, root.at("routes"), (&stages, &authorizers), report) else {
            continue;
        };
        match key.as_str() {
            "$connect" => connect = Some(Arc::new(route)),
            "$disconnect" => disconnect = Some(Arc::new(route)),
            _ => others.push((route.key.clone(), Arc::new(route))),
        }
    }

    let domains = domains(file, root.at("domains"), claims, report);
    let callback_origins = callback_origins(file, root.at("callbackOrigins"), report);
    let policy = file.policy.as_ref().and_then(|document| policy(document, root.at("policy"), report));
    let routes: Vec<(RouteKey, _)> = others;
    Some(Api {
        id: id?,
        binary_frames: match file.binary_frames {
            Some(FrameChoice::Accept) => BinaryFrames::Accept,
            Some(FrameChoice::Reject) | None => BinaryFrames::Reject,
        },
        compression: file.compression.unwrap_or(true),
        default_endpoint_disabled: file.disable_execute_api_endpoint.unwrap_or(false),
        domains,
        callback_origins,
        policy,
        connect,
        disconnect,
        routes: WebSocketRoutes::new(expression?, routes),
        stages,
    })
}

fn api_id(file: &ApiFile, root: &Node, claims: &mut Claims, report: &mut Report) -> Option<ApiId> {
    let node = root.at("apiId");
    no_reference(node, report);
    let id = ApiId::parse(file.api_id.as_deref()?).ok()?;
    if let Some((file, first)) = claims.ids.get(&id) {
        let message = format!("apiId `{id}` is taken by {file}:{}, expected another", first.line);
        complain(report, node, message);
    } else {
        claims.ids.insert(id.clone(), (Arc::clone(report.file()), node.place));
    }
    Some(id)
}

fn domains(file: &ApiFile, node: &Node, claims: &mut Claims, report: &mut Report) -> Vec<Domain> {
    let files = file.domains.as_deref().unwrap_or_default();
    let stages = Entries::of(file.stages.as_ref());
    let is_stage = |name: &str| stages.iter().any(|(stage, _)| stage == name);
    files.iter().zip(node.items()).filter_map(|(file, node)| domain(file, node, &is_stage, claims, report)).collect()
}

fn domain(
    file: &DomainFile,
    node: &Node,
    is_stage: &dyn Fn(&str) -> bool,
    claims: &mut Claims,
    report: &mut Report,
) -> Option<Domain> {
    for key in ["domainName", "apiMappingKey", "stage"] {
        no_reference(node.at(key), report);
    }
    let stage = file.stage.as_deref().and_then(|name| {
        if !is_stage(name) {
            complain(report, node.at("stage"), format!("no stage `{name}` in this API, expected one of its stages"));
        }
        StageName::parse(name).ok()
    });
    let name = file.domain_name.as_deref()?.to_ascii_lowercase();
    if !is_host(name.strip_prefix("*.").unwrap_or(&name)) {
        let message = format!("`{name}` is no host name, expected one such as `ws.example.com` or `*.example.com`");
        complain(report, node.at("domainName"), message);
        return None;
    }
    let key = file.api_mapping_key.clone().unwrap_or_default();
    let claim = (name.clone(), key.clone());
    if let Some((file, first)) = claims.domains.get(&claim) {
        let message = format!("`{name}/{key}` is mapped by {file}:{} already, expected another key", first.line);
        complain(report, node.at("domainName"), message);
    } else {
        claims.domains.insert(claim, (Arc::clone(report.file()), node.at("domainName").place));
    }
    Some(Domain { name, key, stage: stage? })
}

/// The API's own policy; what is wrong with it is reported at its place in the document.
fn policy(document: &serde_json::Value, node: &Node, report: &mut Report) -> Option<Arc<Policy>> {
    match Policy::parse(document, Kind::Resource) {
        Ok(policy) => Some(Arc::new(policy)),
        Err(error) => {
            let place = error.path.iter().fold(node, |node, step| match step {
                Step::Key(key) => node.at(key),
                Step::Index(index) => node.items().nth(*index).unwrap_or(node),
            });
            complain(report, place, error.to_string());
            None
        }
    }
}

/// Labels of letters, digits and `-`, joined by dots, 253 characters in all (RFC 1123); lower case.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn callback_origins(file: &ApiFile, node: &Node, report: &mut Report) -> Vec<String> {
    let origins = file.callback_origins.as_deref().unwrap_or_default();
    for (origin, node) in origins.iter().zip(node.items()) {
        let parsed = origin.parse::<http::Uri>().ok().filter(|uri| uri.path() == "/" && uri.query().is_none());
        let scheme_fits = parsed.as_ref().is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        if !scheme_fits || origin.ends_with('/') {
            let message = format!("{} is no origin, expected one such as `https://app.example.com`", node.shown());
            complain(report, node, message);
        }
    }
    origins.iter().map(|origin| origin.to_ascii_lowercase()).collect()
}
