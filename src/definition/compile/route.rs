//! A route: its key, and what may be said where.

use std::sync::Arc;

use super::super::file::{AuthorizationType, Entries, IntegrationType, Ordering as OrderChoice, RouteFile};
use super::super::{Authorization, Authorizer, Ordering, Route};
use super::authorizer::Authorizers;
use super::integration::Stages;
use super::{complain, integration};
use crate::document::{Node, Report};
use crate::ids::RouteKey;

/// Compiles the route `key`; `routes` is the tree of all of them.
pub(super) fn compile(
    key: &str,
    file: &RouteFile,
    routes: &Node,
    (stages, authorizers): (&Stages, &Authorizers),
    report: &mut Report,
) -> Option<Route> {
    let node = routes.at(key);
    let parsed = RouteKey::parse(key);
    let is_reserved = parsed.as_ref().is_ok_and(RouteKey::is_reserved);
    if parsed.is_err() {
        report.at(routes.key_place(key), "a route key of no or too many characters, expected 1 to 1024");
    } else if key.starts_with('$') && !is_reserved {
        let expected = "expected `$connect`, `$disconnect`, `$default` or a key without `$` at its start";
        report.at(routes.key_place(key), format!("route key `{key}`, {expected}"));
    }
    let is_message_route = key != "$connect" && key != "$disconnect";
    if key != "$connect" {
        refuse_request_parameters(file, node, report);
    } else if let Some((name, _)) =
        Entries::of(file.request_parameters.as_ref()).iter().find(|(_, parameter)| parameter.required == Some(true))
    {
        let place = node.at("requestParameters").key_place(name);
        report.at(place, "a required parameter is known but not supported yet, expected `required: false`");
    }
    // Its outcome is that of the whole connection (specification 8.1.1).
    let kind = match file.authorization_type {
        Some(AuthorizationType::AwsIam) => Some("AWS_IAM"),
        Some(AuthorizationType::Custom) => Some("CUSTOM"),
        Some(AuthorizationType::None | AuthorizationType::Jwt) | None => None,
    };
    if let Some(kind) = kind.filter(|_| key != "$connect") {
        let message = format!(
            "`authorizationType` is `{kind}`, expected it on `$connect` only: it protects the whole connection"
        );
        report.at(node.key_place("authorizationType"), message);
    }
    let authorizer = authorizer(file, node, authorizers, report);
    if file.api_key_required == Some(true) {
        report
            .at(node.key_place("apiKeyRequired"), "`apiKeyRequired` is known but not supported yet, expected `false`");
    }
    if !Entries::of(file.route_responses.as_ref()).is_empty() && !node.has("routeResponseSelectionExpression") {
        let expected = "expected `routeResponseSelectionExpression: $default` beside it";
        report.at(node.key_place("routeResponses"), format!("a route response makes no route two-way, {expected}"));
    }
    if file.ordering == Some(OrderChoice::Serial) && !is_message_route {
        report.at(node.key_place("ordering"), format!("`{key}` runs once, expected `ordering` on a message route"));
    }
    // The name of a group comes out of a message, and these two have none.
    if !is_message_route
        && file.integration.as_ref().is_some_and(|file| file.integration_type == Some(IntegrationType::Group))
    {
        let message = format!("`{key}` has no message that could name a group, expected `GROUP` on a message route");
        report.at(node.at("integration").at("integrationType").place, message);
    }
    let integration =
        file.integration.as_ref().and_then(|file| integration::compile(file, node.at("integration"), stages, report));
    Some(Route {
        key: parsed.ok()?,
        integration,
        // The service stores a route response on the other two and never sends it (specification 5.1.3).
        two_way: is_message_route && file.route_response_selection_expression.is_some(),
        ordering: match file.ordering {
            Some(OrderChoice::Serial) => Ordering::Serial,
            Some(OrderChoice::Parallel) | None => Ordering::Parallel,
        },
        authorization: match file.authorization_type {
            Some(AuthorizationType::AwsIam) => Authorization::Iam,
            Some(AuthorizationType::Custom) => Authorization::Custom(authorizer?),
            Some(AuthorizationType::None | AuthorizationType::Jwt) | None => Authorization::None,
        },
    })
}

/// The authorizer that the route names, where it says `CUSTOM`.
fn authorizer(
    file: &RouteFile,
    node: &Node,
    authorizers: &Authorizers,
    report: &mut Report,
) -> Option<Arc<Authorizer>> {
    let is_custom = matches!(file.authorization_type, Some(AuthorizationType::Custom));
    let Some(name) = file.authorizer_id.as_deref() else {
        if is_custom && !node.has("authorizerId") {
            let message = "`CUSTOM` without `authorizerId`, expected the name of one of this API's authorizers";
            report.at(node.key_place("authorizationType"), message);
        }
        return None;
    };
    if !is_custom {
        report.at(
            node.key_place("authorizerId"),
            "`authorizerId` has no meaning here, expected `authorizationType: CUSTOM`",
        );
        return None;
    }
    let found = authorizers.get(name);
    if found.is_none() {
        let place = node.at("authorizerId");
        complain(
            report,
            place,
            format!("no authorizer {} in this API, expected one of its `authorizers`", place.shown()),
        );
    }
    found?.clone()
}

/// Specification 2.2.8: only a handshake has headers and a query.
fn refuse_request_parameters(file: &RouteFile, node: &Node, report: &mut Report) {
    if file.request_parameters.is_some() {
        let message = "request parameters are only supported for the `$connect` route, expected them there";
        report.at(node.key_place("requestParameters"), message);
    }
}
