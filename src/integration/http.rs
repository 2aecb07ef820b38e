//! `HTTP_PROXY` and `HTTP`: the request that leaves, the answer that comes back (specification 4.5).

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Extensions, Method, Request, Uri};
use tokio::time::Instant;

use super::mapping::{self, Answer, Input, each_value, header_name, header_value, is_framing};
use super::uri::{self, Query};
use super::{Integrations, InvokeError, Outcome};
use crate::clock::EpochMillis;
use crate::context::{Event, Handshake, RequestContext};
use crate::definition::Http;
use crate::definition::integration::{Destination, ParameterMapping, Source};
use crate::ids::random_bytes;
use crate::lang::Variables as _;
use crate::message::Message;
use crate::upstream::spelling;

static API_ID: HeaderName = HeaderName::from_static("x-amzn-apigateway-api-id");
pub(super) static TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");
static JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The gateway's header names that are not written in title case.
pub(super) const SPELLED: [&str; 1] = ["x-amzn-apigateway-api-id"];

impl Integrations {
    /// Calls an `HTTP` or `HTTP_PROXY` back-end, within the integration's timeout.
    ///
    /// `payload` is the client's message; on `$connect` and `$disconnect` it is not looked at.
    ///
    /// # Errors
    /// Every [`InvokeError`] but [`InvokeError::MockStatus`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the call; whether the back-end acted on it is then unknown.
    pub async fn http(&self, http: &Http, ctx: &RequestContext<'_>, payload: &Message) -> Result<Outcome, InvokeError> {
        let started = Instant::now();
        let input = Input::of(ctx, payload);
        let input = input.message();
        let request = self.request(http, ctx, input)?;
        let (head, body) = self.upstream.call(request, started + http.timeout).await?.into_parts();
        let latency = started.elapsed();
        let status = head.status.as_u16();
        let (headers, body) = if http.proxy {
            match ctx.event {
                Event::Connect(_) => (end_to_end(head.headers), body),
                Event::Message(_) | Event::Disconnect(..) => (HeaderMap::new(), body),
            }
        } else {
            let message = Message::text_from(body.clone());
            let answer = Answer { status, headers: &head.headers, body: &message };
            let mapped = mapping::response(mapping::by_status(&http.responses, status), ctx, input, &answer, body)?;
            (mapped.headers, mapped.body)
        };
        Ok(Outcome {
            status,
            headers,
            body,
            integration_status: status,
            service_status: status,
            request_id: None,
            latency,
        })
    }

    fn request(&self, http: &Http, ctx: &RequestContext<'_>, input: &Message) -> Result<Request<Bytes>, InvokeError> {
        let forwarded = match ctx.event {
            Event::Connect(handshake) if http.proxy => Some(handshake),
            Event::Connect(_) | Event::Message(_) | Event::Disconnect(..) => None,
        };
        let uri = address(http, ctx, input, forwarded)?;
        let body = if !http.proxy {
            // Rendered even where it is not sent: a payload that may not pass is refused whatever the method.
            let body = mapping::request_body(&http.request, ctx, input)?;
            if has_body(&http.method) { body } else { Bytes::new() }
        } else if has_body(&http.method) {
            input.payload().clone()
        } else {
            Bytes::new()
        };
        let mut request = Request::new(body);
        *request.headers_mut() = headers(http, ctx, input, &uri, forwarded);
        if request.body().is_empty() && has_body(&http.method) {
            // For a body that is not empty the client writes it.
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        *request.method_mut() = http.method.clone();
        *request.uri_mut() = uri;
        *request.extensions_mut() = self.spelling_for(http, forwarded);
        Ok(request)
    }

    /// Mapped names are spelled as in the definition, forwarded ones as the client spelled them.
    fn spelling_for(&self, http: &Http, forwarded: Option<&Handshake>) -> Extensions {
        let mapped = || http.parameters.iter().flat_map(spelled);
        if let Some(handshake) = forwarded {
            // A name a mapping replaces is written as the mapping spells it, so those come first.
            let client = handshake.headers.iter().map(|(name, _)| name.as_str());
            return spelling(SPELLED.into_iter().chain(mapped()).chain(client));
        }
        if mapped().next().is_none() {
            return self.spelling.clone();
        }
        http.spelling.get_or_init(|| spelling(SPELLED.into_iter().chain(mapped()))).clone()
    }
}

/// A mapped header's name, once for every value that is written in this spelling.
fn spelled(mapping: &ParameterMapping) -> impl Iterator<Item = &str> {
    let name = match &mapping.destination {
        Destination::Header(name) => Some(name.as_str()),
        Destination::Query(_) | Destination::Path(_) => None,
    };
    let values = match mapping.source {
        Source::Headers(_) | Source::Queries(_) => 8,
        Source::Header(_)
        | Source::Query(_)
        | Source::Body
        | Source::BodyPath(_)
        | Source::StageVariable(_)
        | Source::Context(_)
        | Source::Constant(_) => 1,
    };
    name.into_iter().flat_map(move |name| std::iter::repeat_n(name, values))
}

/// Whether the payload goes along: not with `GET` and `HEAD` (specification 4.5.6).
fn has_body(method: &Method) -> bool {
    *method != Method::GET && *method != Method::HEAD
}

fn address(
    http: &Http,
    ctx: &RequestContext<'_>,
    input: &Message,
    forwarded: Option<&Handshake>,
) -> Result<Uri, InvokeError> {
    let mut query = Query::default();
    if let Some(handshake) = forwarded {
        query.append_raw(&handshake.raw_query);
    }
    for mapping in &http.parameters {
        if let Destination::Query(name) = &mapping.destination {
            each_value(&mapping.source, ctx, input, |value| query.append(name, value));
        }
    }
    let parameter = |wanted: &str| {
        let named = |destination: &Destination| matches!(destination, Destination::Path(name) if name == wanted);
        let mapping = http.parameters.iter().find(|mapping| named(&mapping.destination))?;
        let mut text: Option<String> = None;
        each_value(&mapping.source, ctx, input, |value| match &mut text {
            Some(text) => {
                let _infallible = write!(text, ",{value}");
            }
            None => text = Some(value.to_owned()),
        });
        text
    };
    uri::build(&http.uri, |name| ctx.stage_variable(name), parameter, &query)
}

/// The headers, in the order they are written: the gateway's, with the client's between where they are forwarded, then the mapped
/// ones, which replace both (specification 4.5.3).
fn headers(
    http: &Http,
    ctx: &RequestContext<'_>,
    input: &Message,
    uri: &Uri,
    forwarded: Option<&Handshake>,
) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12 + forwarded.map_or(0, |handshake| handshake.headers.len()));
    if let Some(host) = host(uri) {
        headers.insert(header::HOST, host);
    }
    let client = forwarded.map_or([].as_slice(), |handshake| handshake.headers.as_slice());
    for (name, value) in client {
        if let (Some(name), Some(value)) = (header_name(name), header_value(value))
            && name != header::HOST
        {
            headers.append(name, value);
        }
    }
    let api = ctx.connection.profile.api.as_str();
    if !headers.contains_key(header::USER_AGENT)
        && let Some(agent) = header_value(&["AmazonAPIGateway_", api].concat())
    {
        headers.insert(header::USER_AGENT, agent);
    }
    if let Some(api) = header_value(api) {
        headers.insert(&API_ID, api);
    }
    headers.insert(&TRACE_ID, trace_id(ctx));
    headers.insert(header::ACCEPT, JSON.clone());
    headers.insert(header::CONTENT_TYPE, JSON.clone());
    for mapping in &http.parameters {
        let Destination::Header(name) = &mapping.destination else { continue };
        let Some(name) = header_name(name) else { continue };
        let mut first = true;
        each_value(&mapping.source, ctx, input, |value| {
            let Some(value) = header_value(value) else { return };
            if std::mem::take(&mut first) {
                headers.insert(name.clone(), value);
            } else {
                headers.append(name.clone(), value);
            }
        });
    }
    headers
}

/// `Host`: the authority without user information, and without the port that the scheme has anyway.
fn host(uri: &Uri) -> Option<HeaderValue> {
    let authority: &Authority = uri.authority()?;
    let standard = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    match authority.port_u16().filter(|port| *port != standard) {
        Some(port) => HeaderValue::try_from(format!("{}:{port}", authority.host())).ok(),
        None => header_value(authority.host()),
    }
}

/// `X-Amzn-Trace-Id`: the handshake's on a connect, else a new one.
pub(super) fn trace_id(ctx: &RequestContext<'_>) -> HeaderValue {
    if let Event::Connect(handshake) = ctx.event
        && let Some((_, trace)) =
            handshake.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(TRACE_ID.as_str()))
        && let Some(trace) = header_value(trace)
    {
        return trace;
    }
    new_trace_id(ctx.time)
}

/// `Root=1-{seconds, 8 hex}-{96 random bits, 24 hex}`.
fn new_trace_id(time: EpochMillis) -> HeaderValue {
    let [a, b, c]: [u32; 3] = random_words();
    let seconds = (time.0 / 1_000) as u32;
    let mut text = String::with_capacity(40);
    let _infallible = write!(text, "Root=1-{seconds:08x}-{a:08x}{b:08x}{c:08x}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Root=1-00000000-000000000000000000000000"))
}

fn random_words<const N: usize>() -> [u32; N] {
    std::array::from_fn(|_| u32::from_le_bytes(random_bytes()))
}

/// A back-end's headers without those that were for the connection to it, and without the length, which is the new
/// message's own affair.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    let doomed: Vec<HeaderName> =
        headers.keys().filter(|name| is_framing(name) || listed.contains(name)).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
    headers
}
