//! The form of a definition file. The doc comments here are the descriptions of the JSON Schema that editors show.
//!
//! The schema requires and bounds; the structs take whatever it lets through, with every key optional, so that a file
//! with mistakes can still be read on and all of them be reported.

use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::units::{ByteSize, Limit};

/// What the format knows and the gateway does not do.
const LATER: &str = "is known but not supported yet";
const CALLED_AS: &str = "is known but not supported yet: functions are called with the gateway's own credentials";
const FIXED: &str = "is fixed by the type of the integration";
const ALWAYS: &str = "has no meaning here: what a file says is what is served";

/// An API of Causeway: one file, one WebSocket API. The words are those of the API Gateway v2 control plane.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "Causeway API definition")]
pub(super) struct ApiFile {
    /// Names the API, and is the first label of its default host: `chat` answers at `chat.localhost`.
    #[schemars(required, regex(pattern = "^[a-z0-9-]{1,63}$"))]
    #[schemars(extend("errorMessage" = "1 to 63 lower-case letters, digits and `-`"))]
    pub(super) api_id: Option<String>,
    /// A name for people.
    #[schemars(length(max = 128))]
    pub(super) name: Option<String>,
    /// What the API is for.
    #[schemars(length(max = 1024))]
    pub(super) description: Option<String>,
    /// A version for people.
    #[schemars(length(max = 64))]
    pub(super) version: Option<String>,
    /// Labels for people.
    pub(super) tags: Option<Entries<String>>,
    /// The kind of API.
    #[schemars(required)]
    pub(super) protocol_type: Option<ProtocolType>,
    /// Names the route of a message, for example `$request.body.action`.
    #[schemars(required, length(min = 1, max = 1024))]
    pub(super) route_selection_expression: Option<String>,
    /// Whether the default host, `{apiId}.…`, refuses handshakes and callbacks. Default `false`.
    pub(super) disable_execute_api_endpoint: Option<bool>,
    /// Whether `permessage-deflate` is agreed on when a client offers it. Default `true`.
    pub(super) compression: Option<bool>,
    /// What happens to binary frames. Default `reject`.
    pub(super) binary_frames: Option<BinaryFrames>,
    /// Host names of its own for this API.
    #[schemars(extend("maxItems" = 100))]
    pub(super) domains: Option<Vec<DomainFile>>,
    /// Origins whose web pages may call the callback paths, as `https://host`. Default none.
    #[schemars(extend("maxItems" = 100))]
    pub(super) callback_origins: Option<Vec<String>>,
    /// A resource policy, as IAM has them: who may connect and call the callback paths, from where. `execute-api:/*` in a
    /// `Resource` means this API. Default none: whoever is authorized may.
    pub(super) policy: Option<Value>,
    /// The stages by name; each is an address of its own.
    #[schemars(required)]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 10, "propertyNames" = {
        "pattern": "^[A-Za-z0-9_-]{1,128}$",
        "errorMessage": "a stage name: 1 to 128 letters, digits, `_` and `-`",
    }))]
    pub(super) stages: Option<Entries<StageFile>>,
    /// The routes by key: `$connect`, `$disconnect`, `$default`, and what the route selection expression may yield.
    #[schemars(required, extend("minProperties" = 1, "maxProperties" = 300))]
    pub(super) routes: Option<Entries<RouteFile>>,
    /// Where the API key is found.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) api_key_selection_expression: Option<Value>,
    /// Functions that decide who may connect, by name.
    #[schemars(extend("maxProperties" = 10))]
    pub(super) authorizers: Option<Entries<AuthorizerFile>>,
    /// Schemas of messages.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) models: Option<Value>,
    /// Whether models are checked.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) disable_schema_validation: Option<Value>,
}

/// The kind of API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
pub(super) enum ProtocolType {
    /// Clients hold sessions.
    #[serde(rename = "WEBSOCKET")]
    WebSocket,
    /// Plain HTTP.
    #[serde(rename = "HTTP")]
    #[schemars(extend("x-unsupported" = LATER))]
    Http,
}

/// What happens to binary frames.
#[derive(Debug, Clone, Copy, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum BinaryFrames {
    /// The session is closed with 1003.
    Reject,
    /// They are handed on, base64-encoded.
    Accept,
}

/// A host name of its own, or one first path segment of it.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DomainFile {
    /// The host, for example `ws.example.com` or `*.example.com`.
    #[schemars(required, length(min = 1, max = 253))]
    pub(super) domain_name: Option<String>,
    /// The first path segment that leads to the stage; without it the root does.
    #[schemars(regex(pattern = r"^[A-Za-z0-9$_.+!*'()-]{0,300}$"))]
    #[schemars(extend("errorMessage" = "at most 300 letters, digits and `$-_.+!*'()`, without `/`"))]
    pub(super) api_mapping_key: Option<String>,
    /// The stage it leads to.
    #[schemars(required)]
    pub(super) stage: Option<String>,
}

/// A stage.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct StageFile {
    /// What the stage is for.
    #[schemars(length(max = 1024))]
    pub(super) description: Option<String>,
    /// Variables that integrations and templates refer to as `stageVariables.name`.
    #[schemars(extend("maxProperties" = 100, "propertyNames" = {
        "pattern": "^[A-Za-z0-9_]{1,64}$",
        "errorMessage": "1 to 64 letters, digits and `_`",
    }))]
    pub(super) stage_variables: Option<Entries<String>>,
    /// What one session of this stage may use.
    pub(super) limits: Option<LimitsFile>,
    /// The form of this stage's access-log lines. Default: the process's.
    pub(super) access_log_settings: Option<AccessLogFile>,
    /// Labels for people.
    pub(super) tags: Option<Entries<String>>,
    /// Throttling and logging of all routes.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) default_route_settings: Option<Value>,
    /// Throttling and logging by route.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) route_settings: Option<Value>,
    /// A client certificate towards back-ends.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) client_certificate_id: Option<Value>,
    /// A deployment.
    #[schemars(extend("x-unsupported" = ALWAYS))]
    pub(super) deployment_id: Option<Value>,
    /// Whether changes are deployed at once.
    #[schemars(extend("x-unsupported" = ALWAYS))]
    pub(super) auto_deploy: Option<Value>,
}

/// The form of access-log lines.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct AccessLogFile {
    /// One line with `$context` variables; it must contain `$context.requestId` or `$context.extendedRequestId`.
    #[schemars(required, length(min = 1, max = 3072))]
    pub(super) format: Option<String>,
    /// Where the lines go: set for the whole process, by `access-log`.
    #[schemars(extend("x-unsupported" = "is set for the whole process by `access-log`"))]
    pub(super) destination_arn: Option<Value>,
}

/// What one session may use. Durations are such as `500ms`, `30s`, `10m` or `2h`, or `none`.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct LimitsFile {
    /// Closes with 1001 after this long without a message in either direction. Default `10m`.
    pub(super) idle_timeout: Option<Limit>,
    /// Closes with 1001 at this age. Default `2h`.
    pub(super) max_duration: Option<Limit>,
    /// Pings after this long without input; no answer within another one closes. Default `none`.
    pub(super) ping_interval: Option<Limit>,
    /// Largest message in bytes, both directions. Default 131072.
    pub(super) max_message_bytes: Option<ByteSize>,
    /// Largest frame from a client in bytes; outgoing messages are split at it. Default 32768.
    pub(super) max_frame_bytes: Option<ByteSize>,
    /// Messages of one connection being served at once; beyond, reading pauses. Default 128.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) max_messages_in_flight: Option<u16>,
    /// Bytes waiting for a client that does not read; beyond, pushes are answered 429. Default `1MiB`.
    pub(super) max_outbox_bytes: Option<ByteSize>,
    /// Messages waiting for a client that does not read. Default 4096.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_outbox_messages: Option<u32>,
    /// Closes when a write made no progress for this long. Default `60s`.
    pub(super) write_timeout: Option<Limit>,
}

/// A route.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RouteFile {
    /// A name for people.
    #[schemars(length(max = 64))]
    pub(super) operation_name: Option<String>,
    /// What the route calls. Without it a message gets `Internal server error`.
    pub(super) integration: Option<IntegrationFile>,
    /// `$default` makes the route two-way: the integration's answer goes to the client.
    pub(super) route_response_selection_expression: Option<OnlyDefault>,
    /// The route response of a two-way route, `$default`; it may be left out.
    #[schemars(extend("propertyNames" = {"const": "$default", "errorMessage": "`$default`"}))]
    pub(super) route_responses: Option<Entries<RouteResponseFile>>,
    /// How messages of one connection on this route relate. Default `parallel`.
    pub(super) ordering: Option<Ordering>,
    /// Declares handshake parameters, on `$connect` only, as `route.request.header.name: {required: false}`.
    #[schemars(extend("propertyNames" = {
        "pattern": r"^(route|method)\.request\.(header|querystring)\.[a-zA-Z0-9._$-]+$",
        "errorMessage": "`route.request.header.{name}` or `route.request.querystring.{name}`",
    }))]
    pub(super) request_parameters: Option<Entries<RequestParameterFile>>,
    /// Whether a key is asked for.
    pub(super) api_key_required: Option<bool>,
    /// How the client is recognised.
    pub(super) authorization_type: Option<AuthorizationType>,
    /// With `CUSTOM`: the name of one of the API's `authorizers`.
    #[schemars(length(min = 1, max = 128))]
    pub(super) authorizer_id: Option<String>,
    /// Scopes of a token.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) authorization_scopes: Option<Value>,
    /// Chooses the model of a message.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) model_selection_expression: Option<Value>,
    /// Models of messages.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) request_models: Option<Value>,
    /// An integration by id.
    #[schemars(extend("x-unsupported" = "names an integration by its id, and here `integration` holds its settings"))]
    pub(super) target: Option<Value>,
}

/// The only route response there is.
#[derive(Debug, Clone, Copy, serde::Deserialize, JsonSchema)]
pub(super) enum OnlyDefault {
    /// `$default`
    #[serde(rename = "$default")]
    Default,
}

/// A route response; its keys are stored by the service without any effect.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RouteResponseFile {
    /// Models of answers.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) response_models: Option<Value>,
    /// Chooses the model of an answer.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) model_selection_expression: Option<Value>,
    /// Parameters of answers.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) response_parameters: Option<Value>,
}

/// How messages of one connection relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ordering {
    /// Independently of each other.
    Parallel,
    /// One after the other, in the order they came.
    Serial,
}

/// How a client is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum AuthorizationType {
    /// Not at all.
    None,
    /// By a signature of a key that `iam` in the process configuration knows; on `$connect` only.
    AwsIam,
    /// By a function, which `authorizerId` names; on `$connect` only.
    Custom,
    /// By a token.
    #[schemars(extend("x-unsupported" = LATER))]
    Jwt,
}

/// A function that decides who may connect.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct AuthorizerFile {
    /// What kind of authorizer.
    #[schemars(required)]
    pub(super) authorizer_type: Option<AuthorizerType>,
    /// The function, by its name, its ARN or its invocation ARN; `${stageVariables.name}` is replaced.
    #[schemars(required, length(min = 1, max = 2048))]
    pub(super) authorizer_uri: Option<String>,
    /// What a handshake must have, else it is answered 401 and the function is not called: `route.request.header.{name}`,
    /// `route.request.querystring.{name}`, `stageVariables.{name}`, `context.{name}`. Default nothing.
    #[schemars(extend("maxItems" = 100))]
    pub(super) identity_source: Option<Vec<String>>,
    /// How long answers are kept; it has no effect on WebSocket APIs.
    #[schemars(range(min = 0, max = 3_600))]
    pub(super) authorizer_result_ttl_in_seconds: Option<u32>,
    /// It has no effect on WebSocket APIs.
    pub(super) identity_validation_expression: Option<String>,
    /// A role to assume.
    #[schemars(extend("x-unsupported" = CALLED_AS))]
    pub(super) authorizer_credentials_arn: Option<Value>,
    /// Issuer and audience of tokens.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) jwt_configuration: Option<Value>,
}

/// The kind of authorizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum AuthorizerType {
    /// A function that gets the handshake.
    Request,
    /// Tokens.
    #[schemars(extend("x-unsupported" = LATER))]
    Jwt,
}

/// A declared handshake parameter.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RequestParameterFile {
    /// Whether a handshake without it is refused.
    pub(super) required: Option<bool>,
}

/// What a route calls. Which keys apply depends on `integrationType`.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct IntegrationFile {
    /// What kind of back-end.
    #[schemars(required)]
    pub(super) integration_type: Option<IntegrationType>,
    /// What it is for.
    #[schemars(length(max = 1024))]
    pub(super) description: Option<String>,
    /// `HTTP` and `HTTP_PROXY`: an absolute URL; `${stageVariables.name}` and `{parameter}` are replaced at each call.
    /// `AWS_PROXY` and `AWS`: a Lambda function by its name, its ARN or its invocation ARN; `${stageVariables.name}` is
    /// replaced.
    #[schemars(length(min = 1, max = 2048))]
    pub(super) integration_uri: Option<String>,
    /// `HTTP` and `HTTP_PROXY`: the method; `ANY` is `POST`. Default `POST`, which is the only one for a function.
    pub(super) integration_method: Option<Method>,
    /// Milliseconds until the call is given up. Default 29000.
    #[schemars(range(min = 50, max = 29_000))]
    pub(super) timeout_in_millis: Option<u32>,
    /// `HTTP`, `HTTP_PROXY` and `AWS`: where headers, query and path parameters come from, as
    /// `integration.request.header.name: context.connectionId`. A function gets headers alone, and `AWS_PROXY` none.
    pub(super) request_parameters: Option<Entries<String>>,
    /// Templates of the request by key; without `templateSelectionExpression`, `$default` or `application/json` is taken.
    pub(super) request_templates: Option<Entries<String>>,
    /// Chooses the request template from the message.
    #[schemars(length(min = 1, max = 1024))]
    pub(super) template_selection_expression: Option<String>,
    /// What happens to a message that no template is chosen for. Default `WHEN_NO_MATCH`.
    pub(super) passthrough_behavior: Option<Passthrough>,
    /// What happens to the bytes of the request. Default: nothing.
    pub(super) content_handling_strategy: Option<ContentHandling>,
    /// Answers by key: `$default`, or a pattern between slashes for the whole status, as `/4\d\d/`; with `AWS` for the whole
    /// `errorMessage` of a function that failed, as `/.*denied.*/`.
    pub(super) integration_responses: Option<Entries<IntegrationResponseFile>>,
    /// `GROUP`: what happens to the group.
    pub(super) group_action: Option<GroupAction>,
    /// `GROUP`: names the group, from the message, for example `room-${request.body.room}`.
    #[schemars(length(min = 1, max = 1024))]
    pub(super) group_name: Option<String>,
    /// `GROUP` with `send`: what is sent, from the message. Default: the message itself.
    #[schemars(length(min = 1, max = 32_768))]
    pub(super) message: Option<String>,
    /// `GROUP` with `send`: whether the sender is left out. Default `false`.
    pub(super) exclude_sender: Option<bool>,
    /// How the back-end is reached.
    pub(super) connection_type: Option<ConnectionType>,
    /// The version of the event; it has no effect.
    #[schemars(regex(pattern = r"^1\.0$"), extend("errorMessage" = "`1.0`"))]
    pub(super) payload_format_version: Option<String>,
    /// A VPC link.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) connection_id: Option<Value>,
    /// A role to assume.
    #[schemars(extend("x-unsupported" = CALLED_AS))]
    pub(super) credentials_arn: Option<Value>,
    /// The server name to check.
    #[schemars(extend("x-unsupported" = LATER))]
    pub(super) tls_config: Option<Value>,
    /// Chooses the integration response.
    #[schemars(extend("x-unsupported" = FIXED))]
    pub(super) integration_response_selection_expression: Option<Value>,
}

/// The kind of back-end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
pub(super) enum IntegrationType {
    /// An HTTP back-end that gets a rendered request.
    #[serde(rename = "HTTP")]
    Http,
    /// An HTTP back-end that gets the message as it is.
    #[serde(rename = "HTTP_PROXY")]
    HttpProxy,
    /// None: the templates answer.
    #[serde(rename = "MOCK")]
    Mock,
    /// The built-in groups.
    #[serde(rename = "GROUP")]
    Group,
    /// A Lambda function that gets an event and gives an answer.
    #[serde(rename = "AWS_PROXY")]
    AwsProxy,
    /// A Lambda function that gets a rendered request.
    #[serde(rename = "AWS")]
    Aws,
}

/// How a back-end is reached.
#[derive(Debug, Clone, Copy, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ConnectionType {
    /// By its address.
    Internet,
    /// Through a link.
    #[schemars(extend("x-unsupported" = LATER))]
    VpcLink,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Any,
}

/// What happens to a message that no template is chosen for.
#[derive(Debug, Clone, Copy, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Passthrough {
    /// It is passed as it is.
    WhenNoMatch,
    /// It is passed only when there are no templates at all, else refused.
    WhenNoTemplates,
    /// It is refused.
    Never,
}

/// What happens to bytes.
#[derive(Debug, Clone, Copy, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ContentHandling {
    /// Base64 text becomes bytes.
    ConvertToBinary,
    /// Bytes become base64 text.
    ConvertToText,
}

/// An answer of the integration.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct IntegrationResponseFile {
    /// Templates of the answer by key.
    pub(super) response_templates: Option<Entries<String>>,
    /// Chooses the template.
    #[schemars(length(min = 1, max = 1024))]
    pub(super) template_selection_expression: Option<String>,
    /// Headers of a handshake's answer, as `route.response.header.name: integration.response.header.other`.
    pub(super) response_parameters: Option<Entries<String>>,
    /// What happens to the bytes of the answer. Default: nothing.
    pub(super) content_handling_strategy: Option<ContentHandling>,
}

/// What happens to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum GroupAction {
    /// The sender becomes a member.
    Join,
    /// The sender stops being one.
    Leave,
    /// Every member gets the message.
    Send,
}

/// An object with free keys, in the order of the file.
#[derive(Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(String, T)>);

impl<T> Entries<T> {
    /// The entries of an object that may be missing.
    pub(super) fn of(object: Option<&Self>) -> &[(String, T)] {
        object.map_or(&[], |entries| entries.0.as_slice())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        from.deserialize_map(EntriesVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("EntriesOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object", "additionalProperties": (generator.subschema_for::<T>())})
    }
}
