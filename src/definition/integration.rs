//! Integration settings, one enum.

use std::sync::OnceLock;
use std::time::Duration;

use http::{Extensions, Method};

use super::function::FunctionUri;
use crate::lang::{JsonPath, Selection, Template};

/// What stands behind a route.
#[derive(Debug)]
pub enum Integration {
    /// Answers from its templates alone.
    Mock(Mock),
    /// `HTTP` and `HTTP_PROXY`.
    Http(Box<Http>),
    /// `AWS_PROXY` and `AWS` with a Lambda function.
    Lambda(Box<Lambda>),
    /// Built-in groups.
    Group(Group),
}

/// `MOCK`: nothing is called.
#[derive(Debug)]
pub struct Mock {
    /// Renders `{"statusCode": N}`.
    pub request: RequestMapping,
    /// What becomes of it.
    pub responses: Vec<IntegrationResponse>,
}

/// `HTTP_PROXY` (`proxy`) and `HTTP`.
#[derive(Debug)]
pub struct Http {
    /// Whether payload, headers and answer pass as they are.
    pub proxy: bool,
    /// `integrationMethod`; `ANY` is POST here. Default POST.
    pub method: Method,
    /// `integrationUri` with `${stageVariables.name}` and `{parameter}` places.
    pub uri: String,
    /// 50 to 29,000 ms. Default 29 s.
    pub timeout: Duration,
    /// `requestParameters`, in order of destination.
    pub parameters: Vec<ParameterMapping>,
    /// Templates, for `HTTP` only.
    pub request: RequestMapping,
    /// For `HTTP` only.
    pub responses: Vec<IntegrationResponse>,
    /// How the mapped header names are written on the wire; worked out by the first call, empty when loaded.
    pub spelling: OnceLock<Extensions>,
}

/// `AWS_PROXY` (`proxy`) and `AWS` with a Lambda function.
#[derive(Debug)]
pub struct Lambda {
    /// Whether the function gets the event and gives the answer of specification 4.2 and 4.4.
    pub proxy: bool,
    /// `integrationUri`.
    pub function: FunctionUri,
    /// 50 to 29,000 ms. Default 29 s.
    pub timeout: Duration,
    /// `requestParameters` of `AWS`, headers only, in order of destination. Empty for `AWS_PROXY`, where they have no effect
    /// (specification 4.7.5).
    pub parameters: Vec<ParameterMapping>,
    /// Templates, for `AWS` only.
    pub request: RequestMapping,
    /// For `AWS` only; their keys are compared with the `errorMessage` of a function that failed (specification 5.4).
    pub responses: Vec<IntegrationResponse>,
}

/// Templates of a non-proxy request (specification 4.6).
#[derive(Debug)]
pub struct RequestMapping {
    /// Chooses the template; without it `$default`, then `application/json`.
    pub selection: Option<Selection>,
    /// Templates by key, in file order.
    pub templates: Vec<(String, Template)>,
    /// What happens without one.
    pub passthrough: Passthrough,
    /// What happens to the bytes.
    pub content_handling: ContentHandling,
}

/// `passthroughBehavior`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passthrough {
    /// Pass the payload when no template matches.
    #[default]
    WhenNoMatch,
    /// Pass the payload only when there are no templates at all.
    WhenNoTemplates,
    /// Never.
    Never,
}

/// `contentHandlingStrategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentHandling {
    /// As is.
    #[default]
    Unchanged,
    /// Base64 text becomes bytes.
    ToBinary,
    /// Bytes become base64 text.
    ToText,
}

/// Where a mapped parameter goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// `integration.request.header.{name}`
    Header(String),
    /// `integration.request.querystring.{name}`
    Query(String),
    /// `integration.request.path.{name}`
    Path(String),
}

/// Where a mapped parameter comes from (specification 4.7).
#[derive(Debug, Clone)]
pub enum Source {
    /// `route.request.header.{name}`: the last value.
    Header(String),
    /// `route.request.multivalueheader.{name}`: all values.
    Headers(String),
    /// `route.request.querystring.{name}`: the last value.
    Query(String),
    /// `route.request.multivaluequerystring.{name}`: all values.
    Queries(String),
    /// `route.request.body`: the whole payload.
    Body,
    /// `route.request.body.{path}`.
    BodyPath(JsonPath),
    /// `stageVariables.{name}`
    StageVariable(String),
    /// `context.{path}`
    Context(String),
    /// `'text'`
    Constant(String),
}

/// One entry of `requestParameters`.
#[derive(Debug, Clone)]
pub struct ParameterMapping {
    /// Where it goes.
    pub destination: Destination,
    /// Where it comes from.
    pub source: Source,
}

/// One integration response (specification 5.4 to 5.6).
#[derive(Debug)]
pub struct IntegrationResponse {
    /// What it answers to.
    pub key: ResponseKey,
    /// Chooses the template; without it `$default`, then `application/json`.
    pub selection: Option<Selection>,
    /// Templates by key, in file order.
    pub templates: Vec<(String, Template)>,
    /// Headers of a handshake answer.
    pub parameters: Vec<(String, ResponseSource)>,
    /// What happens to the body's bytes.
    pub content_handling: ContentHandling,
}

/// `integrationResponseKey`.
#[derive(Debug, Clone)]
pub enum ResponseKey {
    /// `$default`
    Default,
    /// `/pattern/`; the whole value must match.
    Pattern(regex::Regex),
}

/// Where a mapped response header comes from (specification 5.6).
#[derive(Debug, Clone)]
pub enum ResponseSource {
    /// `integration.response.header.{name}`
    Header(String),
    /// `integration.response.body.{path}`
    BodyPath(JsonPath),
    /// `'text'`
    Constant(String),
}

/// What a group integration does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupAction {
    /// The sender becomes a member.
    Join,
    /// The sender stops being one.
    Leave,
    /// Every member gets the message.
    Send,
}

/// `GROUP`: built-in groups.
#[derive(Debug)]
pub struct Group {
    /// What it does.
    pub action: GroupAction,
    /// Names the group, from the payload.
    pub name: Selection,
    /// What is sent; `None` is the message itself.
    pub message: Option<Selection>,
    /// Whether the sender is left out.
    pub exclude_sender: bool,
}
