//! The one spelling of a request that both sides sign.

use percent_encoding::percent_decode_str;

use super::{ALGORITHM, Request, sha256};

/// How a path is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathForm {
    /// What is on the wire, encoded once more: `%3D` becomes `%253D`. What SDKs do for every service but one.
    Twice,
    /// What is on the wire, decoded and encoded.
    Once,
}

/// Appends bytes, percent-encoded except `A-Za-z0-9-._~` and what `is_kept` says.
fn encode(out: &mut String, bytes: &[u8], is_kept: impl Fn(u8) -> bool) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || is_kept(byte) {
            out.push(char::from(byte));
        } else {
            let digit = |n: u8| char::from(if n < 10 { b'0' + n } else { b'A' - 10 + n });
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// A path, spelled so. Its segments stay as they are, empty ones and dots too.
pub(super) fn path(path: &str, form: PathForm) -> String {
    let mut out = String::with_capacity(path.len() + 16);
    if path.is_empty() {
        out.push('/');
        return out;
    }
    match form {
        PathForm::Twice => encode(&mut out, path.as_bytes(), |byte| byte == b'/'),
        PathForm::Once => {
            for (n, segment) in path.split('/').enumerate() {
                if n > 0 {
                    out.push('/');
                }
                // Byte by byte, so that an encoded slash stays one.
                encode(&mut out, &percent_decode_str(segment).collect::<Vec<u8>>(), |_| false);
            }
        }
    }
    out
}

/// A path without its empty segments; a slash at the end stays.
pub(super) fn without_empty_segments(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    out
}

/// A query: decoded, encoded, sorted, without the parameters in `left_out`.
///
/// `+` is read as a space, as the gateway reads it elsewhere: two queries of different meaning are never spelled alike.
pub(super) fn query(query: &str, left_out: &[&str]) -> String {
    if query.is_empty() {
        return String::new();
    }
    let decoded = |text: &str| -> Vec<u8> {
        let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
        percent_encoding::percent_decode(&spaced).collect()
    };
    let encoded = |text: &str| {
        let mut out = String::with_capacity(text.len());
        encode(&mut out, &decoded(text), |_| false);
        out
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encoded(name), encoded(value)))
        .filter(|(name, _)| !left_out.contains(&name.as_str()))
        .collect();
    pairs.sort_unstable();
    let mut out = String::with_capacity(query.len() + 16);
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(&name);
        out.push('=');
        out.push_str(&value);
    }
    out
}

/// Appends a header's value: ends trimmed, runs of blanks made one.
fn value(out: &mut String, value: &str) {
    for (n, word) in value.split([' ', '\t']).filter(|word| !word.is_empty()).enumerate() {
        if n > 0 {
            out.push(' ');
        }
        out.push_str(word);
    }
}

/// The parts of a canonical request that were settled before: each in its final spelling.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    /// Lower-case names, `;` between.
    pub(super) signed_headers: &'a str,
    /// What stands for the `host` header; `None` is what the request says.
    pub(super) host: Option<&'a str>,
    pub(super) payload: &'a str,
}

/// The canonical request. A signed header that is not there is spelled as an empty one.
pub(super) fn request(request: &Request<'_>, parts: &Parts<'_>) -> String {
    let mut out = String::with_capacity(512);
    for line in [request.method, parts.path, parts.query] {
        out.push_str(line);
        out.push('\n');
    }
    for name in parts.signed_headers.split(';') {
        out.push_str(name);
        out.push(':');
        match parts.host.filter(|_| name == "host") {
            Some(host) => out.push_str(host),
            None => {
                for (n, (_, text)) in request.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    value(&mut out, text);
                }
            }
        }
        out.push('\n');
    }
    out.push('\n');
    out.push_str(parts.signed_headers);
    out.push('\n');
    out.push_str(parts.payload);
    out
}

/// What the key is applied to. `scope` is `date/region/service/aws4_request`.
pub(super) fn string_to_sign(stamp: &str, scope: &str, canonical: &str) -> String {
    format!("{ALGORITHM}\n{stamp}\n{scope}\n{}", sha256(canonical.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_encoded_once_or_twice() {
        let twice = |text| path(text, PathForm::Twice);
        let once = |text| path(text, PathForm::Once);
        assert_eq!(twice("/prod/@connections/abc%3D"), "/prod/%40connections/abc%253D");
        assert_eq!(once("/prod/@connections/abc%3D"), "/prod/%40connections/abc%3D");
        assert_eq!(once("/prod/%40connections/abc="), "/prod/%40connections/abc%3D");
        assert_eq!((twice(""), once(""), twice("/"), once("/")), ("/".into(), "/".into(), "/".into(), "/".into()));
        assert_eq!(once("/a%2Fb/c"), "/a%2Fb/c", "an encoded slash is no separator");
        assert_eq!(twice("/a b/ሴ"), "/a%20b/%E1%88%B4");
        assert_eq!(without_empty_segments("//a///b//"), "/a/b/");
        assert_eq!((without_empty_segments("/a/b").as_str(), without_empty_segments("").as_str()), ("/a/b", "/"));
    }

    #[test]
    fn a_query_is_sorted_in_its_encoded_form() {
        assert_eq!(query("q=x%20y&a=1", &[]), "a=1&q=x%20y");
        assert_eq!(query("b&a=&a=2&a=1&&", &[]), "a=&a=1&a=2&b=");
        assert_eq!(query("a=b+c&d=%2B&e=x%2fy", &[]), "a=b%20c&d=%2B&e=x%2Fy");
        assert_eq!(query("a=b=c", &[]), "a=b%3Dc");
        assert_eq!(query("X-Amz-Signature=0&z=1", &["X-Amz-Signature"]), "z=1");
        assert_eq!(query("%ff=%", &[]), "%FF=%25", "what is no text stays what it is");
    }

    #[test]
    fn blanks_in_a_header_are_one() {
        let spelled = |text| {
            let mut out = String::new();
            value(&mut out, text);
            out
        };
        assert_eq!(spelled("  a   b \t c "), "a b c");
        assert_eq!(spelled("\"a   b\""), "\"a b\"");
    }
}
