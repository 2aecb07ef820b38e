//! A Lambda function behind a route: which one, and what of the other keys has a meaning for it.

use super::super::file::{Entries, IntegrationFile, Method};
use super::super::function::{Function, FunctionUri};
use super::super::integration::{Destination, Lambda, ParameterMapping};
use super::integration::{Piece, Stages, request_mapping, responses, timeout, uri_pieces};
use super::{complain, parameters};
use crate::document::{Node, Report};

/// Headers of a call that are the gateway's own: they sign it, or say what it is.
const OWN_HEADERS: [&str; 6] =
    ["authorization", "content-type", "host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"];

pub(super) fn compile(
    proxy: bool,
    file: &IntegrationFile,
    node: &Node,
    stages: &Stages,
    report: &mut Report,
) -> Option<Lambda> {
    let parameters =
        parameters::request(Entries::of(file.request_parameters.as_ref()), node.at("requestParameters"), report);
    check_parameters(&parameters, node.at("requestParameters"), report);
    if !matches!(file.integration_method, None | Some(Method::Post | Method::Any)) {
        let message = "a function is called with `POST`, expected it, or `integrationMethod` to be left out";
        report.at(node.at("integrationMethod").place, message);
    }
    let request = request_mapping(file, node, report);
    let responses = responses(file, node.at("integrationResponses"), report);
    let Some(uri) = file.integration_uri.as_deref() else {
        if !node.has("integrationUri") {
            report.at(node.place, "`integrationUri` is missing, expected a function name or an ARN of a function");
        }
        return None;
    };
    Some(Lambda {
        proxy,
        function: function(uri, node.at("integrationUri"), stages, report)?,
        timeout: timeout(file),
        parameters: if proxy { Vec::new() } else { parameters },
        request,
        responses,
    })
}

fn check_parameters(parameters: &[ParameterMapping], node: &Node, report: &mut Report) {
    for mapping in parameters {
        let (kind, name) = match &mapping.destination {
            Destination::Header(name) if !OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) => continue,
            Destination::Header(name) => {
                let message = format!("header `{name}` of a call to a function is the gateway's own, expected another");
                report.at(node.place, message);
                continue;
            }
            Destination::Query(name) => ("querystring", name),
            Destination::Path(name) => ("path", name),
        };
        let key = format!("integration.request.{kind}.{name}");
        report.at(node.key_place(&key), format!("`{key}` has no meaning for a function, expected headers alone"));
    }
}

/// The function, its name checked with the variables of every stage that has all it needs.
pub(super) fn function(uri: &str, node: &Node, stages: &Stages, report: &mut Report) -> Option<FunctionUri> {
    let pieces = match uri_pieces(uri) {
        Ok(pieces) => pieces,
        Err(message) => {
            complain(report, node, message);
            return None;
        }
    };
    let mut variables = Vec::new();
    for piece in &pieces {
        match piece {
            Piece::Text(_) => {}
            Piece::StageVariable(name) => variables.push(*name),
            Piece::Parameter(name) => {
                complain(report, node, format!("`{{{name}}}` in a function, expected `${{stageVariables.name}}`"));
                return None;
            }
        }
    }
    if variables.is_empty() {
        return match Function::parse(uri) {
            Ok(function) => Some(FunctionUri::Fixed(function)),
            Err(error) => {
                complain(report, node, format!("{} {error}", node.shown()));
                None
            }
        };
    }
    let varying = FunctionUri::Varying(uri.to_owned());
    for stage in stages.values() {
        // A variable the stage lacks is not judged: its calls fail (specification 4.1.2), those of the others do not.
        if variables.iter().all(|name| stage.variables.contains_key(*name))
            && let Err(error) = varying.resolve(|name| stage.variables.get(name).map(String::as_str))
        {
            let message = format!("with the variables of stage `{}` {} {error}", stage.name, node.shown());
            report.at(node.place, message);
        }
    }
    Some(varying)
}
