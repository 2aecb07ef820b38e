//! Request and response mapping: templates, parameters, content handling (specification 4.6 to 4.8, 5.4 to 5.6).

use std::borrow::Cow;
use std::cell::LazyCell;
use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::InvokeError;
use crate::context::{Event, RequestContext};
use crate::definition::integration::{
    ContentHandling, IntegrationResponse, Passthrough, RequestMapping, ResponseKey, ResponseSource, Source,
};
use crate::lang::jsonpath::to_text;
use crate::lang::selection::ResponseParts;
use crate::lang::{JsonPath, Selection, Template, Variable, Variables as _, loose};
use crate::message::{Kind, Message};

// --- The request ---

/// What a request mapping and its templates see as the payload.
pub(super) enum Input<'a> {
    /// The client's message.
    Message(&'a Message),
    /// Connects and disconnects have no payload: `$input.body` is empty and `$input.json('$')` is `{}` (specification 12.2).
    Empty(Message),
}

impl<'a> Input<'a> {
    pub(super) fn of(ctx: &RequestContext<'_>, payload: &'a Message) -> Self {
        match ctx.event {
            Event::Message(_) => Self::Message(payload),
            Event::Connect(_) | Event::Disconnect(..) => {
                let empty = Message::text_from(Bytes::new());
                // A message remembers what it parsed to; this one is told beforehand.
                let _object = empty.json_with(|_| Some(Value::Object(Map::new())));
                Self::Empty(empty)
            }
        }
    }

    pub(super) const fn message(&self) -> &Message {
        match self {
            Self::Message(message) => message,
            Self::Empty(message) => message,
        }
    }
}

/// What a request mapping came to.
pub(super) enum Request<'a> {
    /// A template's text.
    Rendered(String),
    /// The payload as it is.
    Passed(Cow<'a, Message>),
}

/// Renders the template for a payload, or passes it (specification 4.6), and converts bytes to text before.
pub(super) fn request<'a>(
    mapping: &RequestMapping,
    ctx: &RequestContext<'_>,
    input: &'a Message,
) -> Result<Request<'a>, InvokeError> {
    let key = mapping.selection.as_ref().map(|selection| selection.evaluate(input));
    let input = match (mapping.content_handling, input.kind()) {
        (ContentHandling::ToText, Kind::Binary) => Cow::Owned(Message::from_string(STANDARD.encode(input.payload()))),
        (ContentHandling::ToText, Kind::Text)
        | (ContentHandling::Unchanged | ContentHandling::ToBinary, Kind::Text | Kind::Binary) => Cow::Borrowed(input),
    };
    // A payload that is not JSON has no key of its own.
    if let Some(template) = choose(key.map(Result::unwrap_or_default).as_deref(), &mapping.templates) {
        return Ok(Request::Rendered(template.render(ctx, &input)?));
    }
    match mapping.passthrough {
        Passthrough::WhenNoMatch => Ok(Request::Passed(input)),
        Passthrough::WhenNoTemplates if mapping.templates.is_empty() => Ok(Request::Passed(input)),
        Passthrough::WhenNoTemplates | Passthrough::Never => Err(InvokeError::UnsupportedMediaType),
    }
}

/// The bytes to send for a request mapping; text becomes bytes here.
pub(super) fn request_body(
    mapping: &RequestMapping,
    ctx: &RequestContext<'_>,
    input: &Message,
) -> Result<Bytes, InvokeError> {
    let body = match request(mapping, ctx, input)? {
        Request::Rendered(text) => text.into(),
        Request::Passed(message) => message.payload().clone(),
    };
    match mapping.content_handling {
        ContentHandling::ToBinary => decode(&body),
        ContentHandling::Unchanged | ContentHandling::ToText => Ok(body),
    }
}

/// The template with the selected key, else `$default`; without a selection `$default`, then `application/json`
/// (specification 4.6.2, 5.5).
fn choose<'a>(key: Option<&str>, templates: &'a [(String, Template)]) -> Option<&'a Template> {
    let find = |wanted: &str| templates.iter().find(|(key, _)| key == wanted).map(|(_, template)| template);
    match key {
        Some(key) => find(key).or_else(|| find("$default")),
        None => find("$default").or_else(|| find("application/json")),
    }
}

fn decode(text: &[u8]) -> Result<Bytes, InvokeError> {
    let text = text.trim_ascii();
    STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).map(Bytes::from).map_err(|_| InvokeError::Base64)
}

// --- Parameters ---

/// Gives every value of a source to `take`, in order; none when it has none (specification 4.7).
pub(super) fn each_value(source: &Source, ctx: &RequestContext<'_>, input: &Message, mut take: impl FnMut(&str)) {
    match source {
        Source::Header(name) => ctx.headers(name).last().copied().into_iter().for_each(take),
        Source::Headers(name) => ctx.headers(name).into_iter().for_each(take),
        Source::Query(name) => ctx.query(name).last().copied().into_iter().for_each(take),
        Source::Queries(name) => ctx.query(name).into_iter().for_each(take),
        Source::Body => {
            if matches!(ctx.event, Event::Message(_)) {
                take(&input.as_text());
            }
        }
        Source::BodyPath(path) => {
            if let Some(text) = member(path, input) {
                take(&text);
            }
        }
        Source::StageVariable(name) => ctx.stage_variable(name).into_iter().for_each(take),
        Source::Context(path) => match ctx.context(path) {
            Some(Variable::Text(text)) => take(&text),
            Some(Variable::Number(number)) => take(&number.to_string()),
            None => {}
        },
        Source::Constant(text) => take(text),
    }
}

/// The text at a path; `null` is no value.
fn member(path: &JsonPath, message: &Message) -> Option<String> {
    let json = message.json_with(loose::parse)?;
    path.first(json).filter(|value| !value.is_null()).map(to_text)
}

/// Headers that steer the connection they come on (RFC 9110 7.6.1) or the framing of a message: never taken from a client, a
/// mapping or a back-end.
pub(super) fn is_framing(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]
    .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// A header as a mapping names it, when it may be set at all.
pub(super) fn header_name(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !is_framing(name))
}

/// A header's value, when it is one. A line break or another control character in it would let a client write headers of its
/// own; such a value counts as none, as if the client had left it out (specification 4.7.3).
pub(super) fn header_value(value: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(value.as_bytes()).ok()
}

// --- The response ---

/// A back-end's answer as responses and their templates see it.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Message,
}

impl ResponseParts for Answer<'_> {
    fn status(&self) -> u16 {
        self.status
    }

    fn header(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    fn body(&self) -> &Message {
        self.body
    }
}

/// What an answer becomes.
pub(super) struct Mapped {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Applies an integration response to an answer; `as_is` is the body when nothing changes it.
pub(super) fn response(
    response: Option<&IntegrationResponse>,
    ctx: &RequestContext<'_>,
    input: &Message,
    answer: &Answer<'_>,
    as_is: Bytes,
) -> Result<Mapped, InvokeError> {
    let Some(response) = response else {
        return Ok(Mapped { headers: HeaderMap::new(), body: as_is });
    };
    let encoded = match response.content_handling {
        ContentHandling::ToText => Some(Message::from_string(STANDARD.encode(answer.body.payload()))),
        ContentHandling::Unchanged | ContentHandling::ToBinary => None,
    };
    let evaluate = |selection: &'_ Selection| match selection.evaluate_response(input, answer) {
        Ok(key) => key.into_owned(),
        Err(_) => String::new(),
    };
    let key = response.selection.as_ref().map(evaluate);
    let body = match choose(key.as_deref(), &response.templates) {
        Some(template) => template.render(ctx, encoded.as_ref().unwrap_or(answer.body))?.into(),
        None => match encoded {
            // A mock has no body of its own to encode.
            Some(text) if !as_is.is_empty() => text.payload().clone(),
            Some(_) | None => as_is,
        },
    };
    let body = match response.content_handling {
        ContentHandling::ToBinary => decode(&body)?,
        ContentHandling::Unchanged | ContentHandling::ToText => body,
    };
    let headers = match ctx.event {
        Event::Connect(_) => response_headers(&response.parameters, answer),
        Event::Message(_) | Event::Disconnect(..) => HeaderMap::new(),
    };
    Ok(Mapped { headers, body })
}

/// The integration response for a status.
pub(super) fn by_status(responses: &[IntegrationResponse], status: u16) -> Option<&IntegrationResponse> {
    // Most integrations have `$default` alone and need no text.
    matching(responses, LazyCell::new(|| status.to_string()))
}

/// The integration response for what a function said when it failed; empty when it did not (specification 5.4).
pub(super) fn by_error<'a>(responses: &'a [IntegrationResponse], message: &str) -> Option<&'a IntegrationResponse> {
    matching(responses, message)
}

/// The first pattern that matches the whole value, else `$default` (specification 5.4.1, 5.4.2).
fn matching<T, V>(responses: &[IntegrationResponse], value: V) -> Option<&IntegrationResponse>
where
    V: Deref<Target = T>,
    T: AsRef<str> + ?Sized,
{
    let whole = |pattern: &regex::Regex| {
        let value: &str = (*value).as_ref();
        pattern.find(value).is_some_and(|found| found.len() == value.len())
    };
    let by_pattern = |response: &&IntegrationResponse| match &response.key {
        ResponseKey::Pattern(pattern) => whole(pattern),
        ResponseKey::Default => false,
    };
    let by_default = |response: &&IntegrationResponse| matches!(response.key, ResponseKey::Default);
    responses.iter().find(by_pattern).or_else(|| responses.iter().find(by_default))
}

/// The mapped headers of a handshake's answer (specification 5.6).
fn response_headers(parameters: &[(String, ResponseSource)], answer: &Answer<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, source) in parameters {
        let value = match source {
            ResponseSource::Header(name) => answer.headers.get(name).cloned(),
            ResponseSource::BodyPath(path) => member(path, answer.body).as_deref().and_then(header_value),
            ResponseSource::Constant(text) => header_value(text),
        };
        if let (Some(name), Some(value)) = (header_name(name), value) {
            headers.insert(name, value);
        }
    }
    headers
}
