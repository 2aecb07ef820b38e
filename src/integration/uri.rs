//! The address of a call: places filled, query appended (specification 4.1.2, 4.5.4, 4.7).

use bytes::Bytes;
use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::InvokeError;
use crate::upstream::UpstreamError;

/// All but the unreserved characters of RFC 3986: a mapped value stays in the segment or parameter it is mapped into.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A query under construction, without `?`.
#[derive(Debug, Default)]
pub(super) struct Query(String);

impl Query {
    /// Appends a query string that is encoded already.
    pub(super) fn append_raw(&mut self, query: &str) {
        if !query.is_empty() {
            self.separate();
            self.0.push_str(query);
        }
    }

    /// Appends a parameter.
    pub(super) fn append(&mut self, name: &str, value: &str) {
        self.separate();
        self.0.extend(utf8_percent_encode(name, &RESERVED));
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, &RESERVED));
    }

    fn separate(&mut self) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
    }
}

/// Builds the address from `template`.
///
/// `${stageVariables.name}` is replaced by the variable as it is (host, path or query are the operator's own text), by
/// nothing when it is not set. `{name}` is replaced by what `parameter` gives, encoded.
///
/// # Errors
/// [`InvokeError::PathParameter`] for a `{name}` without value, or one that is empty, `.` or `..` (an upstream would read another path);
/// [`UpstreamError::InvalidUri`] when the result is not a URI.
pub(super) fn build<'v>(
    template: &str,
    stage_variable: impl Fn(&str) -> Option<&'v str>,
    parameter: impl Fn(&str) -> Option<String>,
    query: &Query,
) -> Result<Uri, InvokeError> {
    let mut text = String::with_capacity(template.len() + query.0.len() + 32);
    let mut rest = template;
    while let Some((before, place)) = rest.split_once('{') {
        let Some((name, after)) = place.split_once('}') else { break };
        if let Some((variable, before)) = name.strip_prefix("stageVariables.").zip(before.strip_suffix('$')) {
            text.push_str(before);
            text.push_str(stage_variable(variable).unwrap_or_default());
        } else {
            text.push_str(before);
            let value = parameter(name).filter(|value| !matches!(value.as_str(), "" | "." | ".."));
            let value = value.ok_or_else(|| InvokeError::PathParameter { name: name.to_owned() })?;
            text.extend(utf8_percent_encode(&value, &RESERVED));
        }
        rest = after;
    }
    text.push_str(rest);
    // A fragment is for readers of a page; nothing after it would be sent.
    text.truncate(text.find('#').unwrap_or(text.len()));
    if !query.0.is_empty() {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(&query.0);
    }
    Uri::from_maybe_shared(Bytes::from(text)).map_err(|_| UpstreamError::InvalidUri.into())
}
