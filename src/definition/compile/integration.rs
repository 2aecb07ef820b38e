//! What a route calls: which keys apply to which type, and the URL, templates and answers of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regex::{Regex, RegexBuilder};

use super::super::Stage;
use super::super::file::{
    ContentHandling as ContentChoice, Entries, GroupAction as ActionChoice, IntegrationFile, IntegrationResponseFile,
    IntegrationType, Method, Passthrough as PassthroughChoice,
};
use super::super::integration::{
    ContentHandling, Destination, Group, GroupAction, Http, Integration, IntegrationResponse, Mock, ParameterMapping,
    Passthrough, RequestMapping, ResponseKey,
};
use super::{complain, lambda, parameters, selection, templates};
use crate::document::{Node, Report};
use crate::ids::StageName;

/// `timeoutInMillis` when the file has none (specification 4.1).
const DEFAULT_TIMEOUT_MILLIS: u32 = 29_000;
/// Most memory a compiled response key may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;

pub(super) type Stages = BTreeMap<StageName, Arc<Stage>>;

pub(super) fn compile(
    file: &IntegrationFile,
    node: &Node,
    stages: &Stages,
    report: &mut Report,
) -> Option<Integration> {
    let kind = file.integration_type?;
    refuse_foreign_keys(kind, file.group_action, node, report);
    match kind {
        IntegrationType::Mock => Some(Integration::Mock(Mock {
            request: request_mapping(file, node, report),
            responses: responses(file, node.at("integrationResponses"), report),
        })),
        IntegrationType::Http | IntegrationType::HttpProxy => {
            http(kind == IntegrationType::HttpProxy, file, node, stages, report)
                .map(|http| Integration::Http(Box::new(http)))
        }
        IntegrationType::Group => group(file, node, report).map(Integration::Group),
        IntegrationType::AwsProxy | IntegrationType::Aws => {
            lambda::compile(kind == IntegrationType::AwsProxy, file, node, stages, report)
                .map(|lambda| Integration::Lambda(Box::new(lambda)))
        }
    }
}

const REQUEST: [&str; 4] =
    ["requestTemplates", "templateSelectionExpression", "passthroughBehavior", "contentHandlingStrategy"];
const HTTP_ONLY: [&str; 4] = ["integrationUri", "integrationMethod", "requestParameters", "connectionType"];
const GROUP_ONLY: [&str; 4] = ["groupAction", "groupName", "message", "excludeSender"];

/// A key that has no effect is a misunderstanding, so it is refused.
fn refuse_foreign_keys(kind: IntegrationType, action: Option<ActionChoice>, node: &Node, report: &mut Report) {
    let responses: &[&str] = &["integrationResponses"];
    let (name, foreign): (&str, Vec<&[&str]>) = match kind {
        IntegrationType::Mock => ("MOCK", vec![&HTTP_ONLY, &GROUP_ONLY]),
        IntegrationType::Http => ("HTTP", vec![&GROUP_ONLY]),
        IntegrationType::HttpProxy => ("HTTP_PROXY", vec![&REQUEST, responses, &GROUP_ONLY]),
        IntegrationType::Group => ("GROUP", vec![&HTTP_ONLY, &REQUEST, responses, &["timeoutInMillis"]]),
        // The service's console and tools write the other two of the request for a proxy too, where they do nothing.
        IntegrationType::AwsProxy => {
            ("AWS_PROXY", vec![&["requestTemplates", "templateSelectionExpression"], responses, &GROUP_ONLY])
        }
        IntegrationType::Aws => ("AWS", vec![&GROUP_ONLY]),
    };
    for key in foreign.into_iter().flatten().filter(|key| node.has(key)) {
        report.at(node.key_place(key), format!("`{key}` has no meaning for {name}, expected it to be left out"));
    }
    if matches!(action, Some(ActionChoice::Join | ActionChoice::Leave)) {
        for key in ["message", "excludeSender"].into_iter().filter(|key| node.has(key)) {
            report.at(node.key_place(key), format!("`{key}` has no meaning here, expected `groupAction: send`"));
        }
    }
}

pub(super) fn request_mapping(file: &IntegrationFile, node: &Node, report: &mut Report) -> RequestMapping {
    let expression = file.template_selection_expression.as_deref();
    RequestMapping {
        selection: expression.and_then(|text| selection(text, node.at("templateSelectionExpression"), report)),
        templates: templates(Entries::of(file.request_templates.as_ref()), node.at("requestTemplates"), report),
        passthrough: match file.passthrough_behavior {
            Some(PassthroughChoice::WhenNoMatch) | None => Passthrough::WhenNoMatch,
            Some(PassthroughChoice::WhenNoTemplates) => Passthrough::WhenNoTemplates,
            Some(PassthroughChoice::Never) => Passthrough::Never,
        },
        content_handling: content_handling(file.content_handling_strategy),
    }
}

const fn content_handling(choice: Option<ContentChoice>) -> ContentHandling {
    match choice {
        None => ContentHandling::Unchanged,
        Some(ContentChoice::ConvertToBinary) => ContentHandling::ToBinary,
        Some(ContentChoice::ConvertToText) => ContentHandling::ToText,
    }
}

pub(super) fn responses(file: &IntegrationFile, node: &Node, report: &mut Report) -> Vec<IntegrationResponse> {
    Entries::of(file.integration_responses.as_ref())
        .iter()
        .filter_map(|(key, file)| response(key, file, node, report))
        .collect()
}

fn response(key: &str, file: &IntegrationResponseFile, all: &Node, report: &mut Report) -> Option<IntegrationResponse> {
    let node = all.at(key);
    let expression = file.template_selection_expression.as_deref();
    let response = IntegrationResponse {
        key: ResponseKey::Default,
        selection: expression.and_then(|text| selection(text, node.at("templateSelectionExpression"), report)),
        templates: templates(Entries::of(file.response_templates.as_ref()), node.at("responseTemplates"), report),
        parameters: parameters::response(
            Entries::of(file.response_parameters.as_ref()),
            node.at("responseParameters"),
            report,
        ),
        content_handling: content_handling(file.content_handling_strategy),
    };
    if key == "$default" {
        return Some(response);
    }
    match response_pattern(key) {
        Ok(pattern) => Some(IntegrationResponse { key: ResponseKey::Pattern(pattern), ..response }),
        Err(message) => {
            report.at(all.key_place(key), message);
            None
        }
    }
}

/// `/pattern/`; the whole value must match (specification 5.4.1).
fn response_pattern(key: &str) -> Result<Regex, String> {
    let inner = key.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|inner| !inner.is_empty());
    let Some(inner) = inner else {
        return Err(format!("integration response `{key}`, expected `$default` or a pattern such as `/4\\d\\d/`"));
    };
    // The pattern alone first: a stray `)` must not close the group that makes it match as a whole.
    let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build();
    compile(inner).and_then(|_| compile(&format!(r"\A(?:{inner})\z"))).map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("integration response `{key}` is no regular expression: {reason}")
    })
}

fn http(proxy: bool, file: &IntegrationFile, node: &Node, stages: &Stages, report: &mut Report) -> Option<Http> {
    let parameters =
        parameters::request(Entries::of(file.request_parameters.as_ref()), node.at("requestParameters"), report);
    let request = request_mapping(file, node, report);
    let responses = responses(file, node.at("integrationResponses"), report);
    let Some(uri) = file.integration_uri.clone() else {
        if !node.has("integrationUri") {
            report.at(node.place, "`integrationUri` is missing, expected an absolute http or https URL");
        }
        return None;
    };
    check_uri(&uri, &parameters, node.at("integrationUri"), stages, report);
    Some(Http {
        proxy,
        method: match file.integration_method {
            Some(Method::Get) => http::Method::GET,
            Some(Method::Head) => http::Method::HEAD,
            Some(Method::Put) => http::Method::PUT,
            Some(Method::Patch) => http::Method::PATCH,
            Some(Method::Delete) => http::Method::DELETE,
            Some(Method::Options) => http::Method::OPTIONS,
            Some(Method::Post | Method::Any) | None => http::Method::POST,
        },
        uri,
        timeout: timeout(file),
        parameters,
        request,
        responses,
        spelling: std::sync::OnceLock::new(),
    })
}

/// `timeoutInMillis`, or its default.
pub(super) fn timeout(file: &IntegrationFile) -> Duration {
    Duration::from_millis(u64::from(file.timeout_in_millis.unwrap_or(DEFAULT_TIMEOUT_MILLIS)))
}

/// A piece of an `integrationUri`.
pub(super) enum Piece<'a> {
    Text(&'a str),
    StageVariable(&'a str),
    Parameter(&'a str),
}

pub(super) fn uri_pieces(mut uri: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    while let Some(at) = uri.find(['{', '}']) {
        let (before, from) = uri.split_at(at);
        let Some((name, after)) = from.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            return Err("a brace without its partner in the URL, expected `{name}`".to_owned());
        };
        let text = before.strip_suffix('$');
        pieces.push(Piece::Text(text.unwrap_or(before)));
        pieces.push(match (text, name.strip_prefix("stageVariables.")) {
            (Some(_), Some(variable)) => Piece::StageVariable(variable),
            (Some(_), None) => {
                return Err(format!("`${{{name}}}` in the URL, expected `${{stageVariables.name}}`"));
            }
            (None, _) => Piece::Parameter(name),
        });
        uri = after;
    }
    pieces.push(Piece::Text(uri));
    Ok(pieces)
}

fn check_uri(uri: &str, parameters: &[ParameterMapping], node: &Node, stages: &Stages, report: &mut Report) {
    let pieces = match uri_pieces(uri) {
        Ok(pieces) => pieces,
        Err(message) => return complain(report, node, message),
    };
    let parameter = |piece: &Piece<'_>| match piece {
        Piece::Parameter(name) => Some((*name).to_owned()),
        Piece::Text(_) | Piece::StageVariable(_) => None,
    };
    let used: Vec<String> = pieces.iter().filter_map(parameter).collect();
    let mapped: Vec<&str> = parameters.iter().filter_map(|p| path_parameter(&p.destination)).collect();
    for name in used.iter().filter(|name| !mapped.contains(&name.as_str())) {
        let expected = format!("expected `integration.request.path.{name}` in requestParameters");
        complain(report, node, format!("nothing fills `{{{name}}}` of the URL, {expected}"));
    }
    for name in mapped.iter().filter(|name| !used.iter().any(|used| used == *name)) {
        complain(
            report,
            node,
            format!("`integration.request.path.{name}` has no place, expected `{{{name}}}` in the URL"),
        );
    }
    let needs_stage = pieces.iter().any(|piece| matches!(piece, Piece::StageVariable(_)));
    let not_absolute = "is not an absolute http or https URL, expected one such as `https://host/path`";
    if !needs_stage {
        if !is_absolute(&pieces, None) {
            complain(report, node, format!("{} {not_absolute}", node.shown()));
        }
        return;
    }
    for stage in stages.values() {
        if !is_absolute(&pieces, Some(stage)) {
            let message = format!("with the variables of stage `{}` {} {not_absolute}", stage.name, node.shown());
            report.at(node.place, message);
        }
    }
}

const fn path_parameter(destination: &Destination) -> Option<&str> {
    match destination {
        Destination::Path(name) => Some(name.as_str()),
        Destination::Header(_) | Destination::Query(_) => None,
    }
}

/// Whether the URL is one with the variables of `stage`. A variable the stage lacks is not judged: it is empty then, and
/// the call fails (specification 4.1.2), which must not keep the other stages from being served.
fn is_absolute(pieces: &[Piece<'_>], stage: Option<&Arc<Stage>>) -> bool {
    let mut uri = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => uri.push_str(text),
            Piece::Parameter(_) => uri.push('x'),
            Piece::StageVariable(name) => match stage.and_then(|stage| stage.variables.get(*name)) {
                Some(value) => uri.push_str(value),
                None => return true,
            },
        }
    }
    uri.parse::<http::Uri>().is_ok_and(|uri| {
        let host_fits =
            uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
        matches!(uri.scheme_str(), Some("http" | "https")) && host_fits
    })
}

fn group(file: &IntegrationFile, node: &Node, report: &mut Report) -> Option<Group> {
    for key in ["groupAction", "groupName"].into_iter().filter(|key| !node.has(key)) {
        report.at(node.place, format!("`{key}` is missing, expected with GROUP"));
    }
    let name = file.group_name.as_deref().and_then(|text| selection(text, node.at("groupName"), report));
    let message = file.message.as_deref().map(|text| selection(text, node.at("message"), report));
    Some(Group {
        action: match file.group_action? {
            ActionChoice::Join => GroupAction::Join,
            ActionChoice::Leave => GroupAction::Leave,
            ActionChoice::Send => GroupAction::Send,
        },
        name: name?,
        message: match message {
            None => None,
            Some(compiled) => Some(compiled?),
        },
        exclude_sender: file.exclude_sender.unwrap_or(false),
    })
}
