//! `MOCK`: answers from its templates alone.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::mapping::{self, Answer, Input, Request};
use super::{InvokeError, Outcome};
use crate::context::RequestContext;
use crate::definition::Mock;
use crate::lang::loose;
use crate::message::Message;

/// Serves an exchange from a mock; never waits, so a turn can do it.
///
/// The rendered request gives the status, the status chooses the response, the response's template gives the body. Nothing
/// stands behind a mock, so `$input` in a response template is the client's payload, and without a response template the body
/// is empty. A mock without any request template answers 200: nothing was rendered that could be wrong.
///
/// # Errors
/// [`InvokeError::UnsupportedMediaType`], [`InvokeError::Template`], [`InvokeError::MockStatus`], [`InvokeError::Base64`].
pub fn invoke(mock: &Mock, ctx: &RequestContext<'_>, payload: &Message) -> Result<Outcome, InvokeError> {
    let input = Input::of(ctx, payload);
    let input = input.message();
    let status = match mapping::request(&mock.request, ctx, input)? {
        Request::Passed(_) if mock.request.templates.is_empty() => 200,
        Request::Rendered(text) => status_in(text.as_bytes())?,
        Request::Passed(message) => status_in(message.payload())?,
    };
    let answer = Answer { status, headers: &HeaderMap::new(), body: input };
    let mapped = mapping::response(mapping::by_status(&mock.responses, status), ctx, input, &answer, Bytes::new())?;
    Ok(Outcome {
        status,
        headers: mapped.headers,
        body: mapped.body,
        integration_status: status,
        service_status: status,
        request_id: None,
        latency: Duration::ZERO,
    })
}

/// `statusCode` of a rendered request.
fn status_in(text: &[u8]) -> Result<u16, InvokeError> {
    #[derive(Deserialize)]
    struct Rendered {
        #[serde(rename = "statusCode")]
        status: u16,
    }
    // Nearly every template is plain JSON with a plain number: no tree is built for it. The rest (`{statusCode: 200}`,
    // `200.0`, a repeated member) takes the way of any payload.
    let status = match serde_json::from_slice(text) {
        Ok(Rendered { status }) => Some(status),
        Err(_) => loose::parse(text).as_ref().and_then(|json| json.get("statusCode")).and_then(whole),
    };
    status.filter(|status| (200..600).contains(status)).ok_or(InvokeError::MockStatus)
}

fn whole(value: &Value) -> Option<u16> {
    let number = value.as_f64()?;
    (number.fract() == 0.0 && (0.0..1_000.0).contains(&number)).then_some(number as u16)
}
