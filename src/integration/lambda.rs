//! `AWS_PROXY` and `AWS` with a Lambda function: the call, and what its answer comes to (specification 4.2 to 4.4, 5.4).

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use tokio::time::Instant;

use super::http::{TRACE_ID, trace_id};
use super::mapping::{self, Answer, Input, each_value, header_name, header_value};
use super::{Integrations, InvokeError, Outcome, answer, event};
use crate::context::{Event, RequestContext};
use crate::definition::Lambda;
use crate::definition::integration::{Destination, ResponseKey};
use crate::lang::Variables as _;
use crate::message::Message;
use crate::upstream::{Invocation, Invoked};

/// What a function is sent that has nothing to get (specification of REST APIs 3.6).
const NOTHING: &[u8] = b"{}";
/// Longest `errorType` in the log.
const MAX_KIND: usize = 128;

/// How a function says that it failed.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Failure {
    error_type: Option<String>,
    pub(super) error_message: Option<String>,
}

impl Integrations {
    /// Calls a function behind `AWS_PROXY` or `AWS`, within the integration's timeout.
    ///
    /// `payload` is the client's message; on `$connect` and `$disconnect` it is not looked at.
    ///
    /// # Errors
    /// [`InvokeError::Lambda`], [`InvokeError::Function`] and [`InvokeError::FunctionFailed`];
    /// [`InvokeError::MalformedAnswer`] of `AWS_PROXY`; those of the mappings of `AWS`.
    ///
    /// # Cancel safety
    /// Dropping the future ends the call; the function goes on if it has begun (specification 4.3.3).
    pub async fn lambda(
        &self,
        lambda: &Lambda,
        ctx: &RequestContext<'_>,
        payload: &Message,
    ) -> Result<Outcome, InvokeError> {
        let deadline = Instant::now() + lambda.timeout;
        let function = lambda.function.resolve(|name| ctx.stage_variable(name))?;
        let input = Input::of(ctx, payload);
        let input = input.message();
        let mut headers = mapped(lambda, ctx, input);
        headers.insert(&TRACE_ID, trace_id(ctx));
        let call = Invocation {
            function: &function.name,
            qualifier: function.qualifier.as_deref(),
            region: function.region.as_deref(),
            headers,
            payload: if lambda.proxy { event::write(ctx, payload).into() } else { rendered(lambda, ctx, input)? },
        };
        let invoked = self.functions.invoke(call, deadline).await?;
        if lambda.proxy { proxied(ctx, invoked) } else { integrated(lambda, ctx, input, invoked) }
    }
}

/// The mapped headers, `X-Amz-Invocation-Type` perhaps among them.
fn mapped(lambda: &Lambda, ctx: &RequestContext<'_>, input: &Message) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(lambda.parameters.len() + 1);
    for mapping in &lambda.parameters {
        let Destination::Header(name) = &mapping.destination else { continue };
        let Some(name) = header_name(name) else { continue };
        // One value: with several, what is signed and what arrives may be joined differently.
        let mut text: Option<String> = None;
        each_value(&mapping.source, ctx, input, |value| match &mut text {
            Some(text) => {
                text.push(',');
                text.push_str(value);
            }
            None => text = Some(value.trim().to_owned()),
        });
        // A signature is made over text, and a value of another alphabet would not be part of it.
        if let Some(value) = text.filter(|text| text.is_ascii()).as_deref().and_then(header_value) {
            headers.insert(name, value);
        }
    }
    headers
}

fn rendered(lambda: &Lambda, ctx: &RequestContext<'_>, input: &Message) -> Result<Bytes, InvokeError> {
    let body = mapping::request_body(&lambda.request, ctx, input)?;
    Ok(if body.is_empty() { Bytes::from_static(NOTHING) } else { body })
}

/// What an answer of `AWS_PROXY` comes to.
fn proxied(ctx: &RequestContext<'_>, invoked: Invoked) -> Result<Outcome, InvokeError> {
    if invoked.is_function_error {
        return Err(failed(&invoked.payload));
    }
    let answer = answer::read(&invoked.payload)?;
    Ok(Outcome {
        status: answer.status,
        headers: match ctx.event {
            Event::Connect(_) => answer.headers,
            Event::Message(_) | Event::Disconnect(..) => HeaderMap::new(),
        },
        body: answer.body,
        integration_status: answer.status,
        service_status: invoked.status,
        request_id: invoked.request_id,
        latency: invoked.latency,
    })
}

/// What an answer of `AWS` comes to. A function that failed is taken for well when a pattern says so; `$default` gives its
/// failure a body and refuses a handshake (specification 5.4.3, 5.4.5).
fn integrated(
    lambda: &Lambda,
    ctx: &RequestContext<'_>,
    input: &Message,
    invoked: Invoked,
) -> Result<Outcome, InvokeError> {
    let message = if invoked.is_function_error { failure(&invoked.payload).error_message } else { None };
    let response = mapping::by_error(&lambda.responses, message.as_deref().unwrap_or_default());
    let status = match response.map(|response| &response.key) {
        _ if !invoked.is_function_error => invoked.status,
        None => return Err(failed(&invoked.payload)),
        Some(ResponseKey::Pattern(_)) => 200,
        Some(ResponseKey::Default) => 500,
    };
    let body = Message::text_from(invoked.payload.clone());
    let answer = Answer { status, headers: &HeaderMap::new(), body: &body };
    let mapped = mapping::response(response, ctx, input, &answer, invoked.payload)?;
    Ok(Outcome {
        status,
        headers: mapped.headers,
        body: mapped.body,
        integration_status: status,
        service_status: invoked.status,
        request_id: invoked.request_id,
        latency: invoked.latency,
    })
}

pub(super) fn failure(payload: &[u8]) -> Failure {
    serde_json::from_slice(payload).unwrap_or_default()
}

pub(super) fn failed(payload: &[u8]) -> InvokeError {
    let kind = failure(payload).error_type;
    let kind = kind.map_or_else(|| "no errorType".to_owned(), |kind| kind.chars().take(MAX_KIND).collect());
    InvokeError::FunctionFailed { kind }
}
