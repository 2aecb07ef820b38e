//! What a function of `AWS_PROXY` gives back (specification 4.4; the REST one 2.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::InvokeError;
use super::mapping::{header_name, header_value};

/// An answer, read.
#[derive(Debug)]
pub(super) struct ProxyAnswer {
    /// 100 to 599.
    pub(super) status: u16,
    /// End-to-end headers; where a name is in both maps, the values of `multiValueHeaders` come first.
    pub(super) headers: HeaderMap,
    /// The body, decoded; empty without one.
    pub(super) body: Bytes,
}

/// The five members there are. A sixth makes the answer malformed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Members {
    status_code: Value,
    headers: Option<Map<String, Value>>,
    multi_value_headers: Option<Map<String, Value>>,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
}

/// Reads an answer.
///
/// # Errors
/// [`InvokeError::MalformedAnswer`], which says what is wrong and never quotes what the function wrote.
pub(super) fn read(payload: &[u8]) -> Result<ProxyAnswer, InvokeError> {
    let malformed = |what: &str| InvokeError::MalformedAnswer(what.to_owned());
    // The parser's own message may quote a member.
    let members: Members = serde_json::from_slice(payload).map_err(|error| {
        let kind = if error.is_data() { "an object of another shape" } else { "no JSON" };
        malformed(&format!("{kind}, at line {} column {}", error.line(), error.column()))
    })?;
    let status = status(&members.status_code).ok_or_else(|| malformed("`statusCode` is not from 100 to 599"))?;
    let headers = headers(members.headers, members.multi_value_headers).map_err(malformed)?;
    let body = match (members.body, members.is_base64_encoded) {
        (Some(body), Some(true)) => STANDARD.decode(body).map_err(|_| malformed("`body` is not base64"))?.into(),
        (Some(body), Some(false) | None) => body.into(),
        (None, _) => Bytes::new(),
    };
    Ok(ProxyAnswer { status, headers, body })
}

/// A whole number, or a text of one.
fn status(value: &Value) -> Option<u16> {
    let number = match value {
        Value::Number(number) => number.as_f64().filter(|number| number.fract() == 0.0),
        Value::String(text) if text.len() == 3 => text.parse::<u16>().ok().map(f64::from),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.filter(|number| (100.0..600.0).contains(number)).map(|number| number as u16)
}

fn headers(single: Option<Map<String, Value>>, multi: Option<Map<String, Value>>) -> Result<HeaderMap, &'static str> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &Value| {
        let text = match value {
            Value::Null => return Ok(()),
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => return Err("a header's value is neither text nor number"),
        };
        // What cannot stand in a header is left out, as a mapped one would be.
        if let (Some(name), Some(value)) = (header_name(name), header_value(&text)) {
            headers.append(name, value);
        }
        Ok(())
    };
    for (name, values) in multi.into_iter().flatten() {
        match values {
            Value::Array(values) => values.iter().try_for_each(|value| add(&name, value))?,
            Value::Null => {}
            Value::String(_) | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                return Err("a value of `multiValueHeaders` is no list");
            }
        }
    }
    single.into_iter().flatten().try_for_each(|(name, value)| add(&name, &value))?;
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> ProxyAnswer {
        read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn an_answer_is_taken_in_every_form_there_is() {
        for (text, status, body) in [
            (r#"{"statusCode":200}"#, 200, ""),
            (r#"{"statusCode":"201","body":"x"}"#, 201, "x"),
            (r#"{"statusCode":204.0,"body":null,"headers":null,"multiValueHeaders":null}"#, 204, ""),
            (r#"{"statusCode":501,"body":"aMOk","isBase64Encoded":true}"#, 501, "hä"),
            (r#"{"statusCode":100,"body":"aMOk","isBase64Encoded":false}"#, 100, "aMOk"),
            (r#" {"isBase64Encoded":null,"statusCode":599} "#, 599, ""),
        ] {
            let answer = answer(text);
            assert_eq!((answer.status, &*String::from_utf8_lossy(&answer.body)), (status, body), "{text}");
        }
    }

    #[test]
    fn headers_of_both_maps_come_together_several_values_first() {
        let answer = answer(
            r#"{"statusCode":200,"headers":{"x-a":"3","B":true,"n":1,"gone":null,"Connection":"close","bad":"a\nb"},
                "multiValueHeaders":{"X-A":["1",2]}}"#,
        );
        let all = |name: &str| answer.headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-a"), ["1", "2", "3"]);
        assert_eq!((&answer.headers["b"], &answer.headers["n"]), (&"true".parse().unwrap(), &"1".parse().unwrap()));
        assert_eq!(answer.headers.len(), 5, "nothing of a connection, nothing that would break the head");
    }

    #[test]
    fn what_is_no_answer_says_so_without_quoting_it() {
        for text in [
            "",
            "null",
            "{}",
            "[]",
            "7",
            r#""secret""#,
            "{\"statusCode\":200",
            r#"{"body":"secret"}"#,
            r#"{"statusCode":null}"#,
            r#"{"statusCode":99}"#,
            r#"{"statusCode":600}"#,
            r#"{"statusCode":200.5}"#,
            r#"{"statusCode":"secret"}"#,
            r#"{"statusCode":"+20"}"#,
            r#"{"statusCode":[200]}"#,
            r#"{"statusCode":200,"Data":"secret"}"#,
            r#"{"statusCode":200,"cookies":[]}"#,
            r#"{"statusCode":200,"body":{"secret":1}}"#,
            r#"{"statusCode":200,"body":7}"#,
            r#"{"statusCode":200,"isBase64Encoded":"yes"}"#,
            r#"{"statusCode":200,"isBase64Encoded":true,"body":"secret!"}"#,
            r#"{"statusCode":200,"headers":{"a":{"secret":1}}}"#,
            r#"{"statusCode":200,"headers":["secret"]}"#,
            r#"{"statusCode":200,"multiValueHeaders":{"a":"secret"}}"#,
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(matches!(error, InvokeError::MalformedAnswer(_)), "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
