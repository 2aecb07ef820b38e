//! What counts as JSON: RFC 8259, and the few liberties the service was seen to take (specification 3.4.5 to 3.4.8).
//!
//! Beyond the RFC: member names without quotes, names and strings in single quotes. Not taken: comments, trailing
//! commas, a byte order mark, nesting deeper than [`MAX_JSON_DEPTH`]. Where the grammar allows what no value can hold,
//! the document still counts: half a surrogate pair becomes U+FFFD, a number too large for a double the largest one.
//! Of members with the same name the last wins.

use serde_json::{Map, Number, Value};

use crate::message::MAX_JSON_DEPTH;

/// Parses a payload; `None` when it is not JSON.
///
/// A strict document takes the fast parser. That one stops at half surrogates, huge numbers and 128 levels, which are
/// JSON all the same, so everything it refuses is read again with the loose grammar.
pub fn parse(bytes: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str(text).ok().or_else(|| parse_loose(text))
}

/// Whether a strictly written document nests deeper than [`MAX_JSON_DEPTH`].
///
/// The answer is meaningless for a document that is not strict JSON. Most are settled by their length, for each level
/// takes two bytes, or by a count, which is far cheaper than telling what stands in strings.
pub(super) fn nests_too_deep(text: &str) -> bool {
    if text.len() / 2 <= MAX_JSON_DEPTH {
        return false;
    }
    let opening = |byte: &u8| matches!(byte, b'[' | b'{');
    if text.as_bytes().iter().filter(|byte| opening(byte)).count() <= MAX_JSON_DEPTH {
        return false;
    }
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                if depth > MAX_JSON_DEPTH {
                    return true;
                }
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn parse_loose(text: &str) -> Option<Value> {
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.skip_space();
    reader.rest.is_empty().then_some(value)
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    /// Takes what comes before the first character that `ends`.
    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'t str {
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    /// `depth` levels enclose this value.
    fn value(&mut self, depth: usize) -> Option<Value> {
        self.skip_space();
        match self.rest.as_bytes().first()? {
            b'[' | b'{' if depth == MAX_JSON_DEPTH => None,
            b'[' => self.array(depth + 1),
            b'{' => self.object(depth + 1),
            b'"' | b'\'' => self.string().map(Value::String),
            b't' => self.take("true").map(|()| Value::Bool(true)),
            b'f' => self.take("false").map(|()| Value::Bool(false)),
            b'n' => self.take("null").map(|()| Value::Null),
            _ => self.number().map(Value::Number),
        }
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        self.take("[")?;
        let mut values = Vec::new();
        self.skip_space();
        if self.take("]").is_some() {
            return Some(Value::Array(values));
        }
        loop {
            values.push(self.value(depth)?);
            self.skip_space();
            match self.next()? {
                ',' => {}
                ']' => return Some(Value::Array(values)),
                _ => return None,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.take("{")?;
        let mut members = Map::new();
        self.skip_space();
        if self.take("}").is_some() {
            return Some(Value::Object(members));
        }
        loop {
            self.skip_space();
            let name = self.name()?;
            self.skip_space();
            self.take(":")?;
            members.insert(name, self.value(depth)?);
            self.skip_space();
            match self.next()? {
                ',' => {}
                '}' => return Some(Value::Object(members)),
                _ => return None,
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        if self.rest.starts_with(['"', '\'']) {
            return self.string();
        }
        let name = self.until(|c| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '-')));
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.next()?;
        let mut text = String::new();
        loop {
            text.push_str(self.until(|c| c == quote || c == '\\' || c < ' '));
            match self.next()? {
                c if c == quote => return Some(text),
                '\\' => self.escape(quote, &mut text)?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self, quote: char, text: &mut String) -> Option<()> {
        let escaped = match self.next()? {
            c @ ('"' | '\\' | '/') => c,
            '\'' if quote == '\'' => '\'',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.four_hex_digits()?;
                self.code_point(first)?
            }
            _ => return None,
        };
        text.push(escaped);
        Some(())
    }

    /// The character that starts with code unit `first`, its second half read when there is one.
    fn code_point(&mut self, first: u32) -> Option<char> {
        if (0xd800..0xdc00).contains(&first)
            && let Some(rest) = self.rest.strip_prefix("\\u")
        {
            let mut ahead = Reader { rest };
            let second = ahead.four_hex_digits()?;
            if (0xdc00..0xe000).contains(&second) {
                self.rest = ahead.rest;
                return char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            }
        }
        Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn four_hex_digits(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |unit, _| Some(unit * 16 + self.next()?.to_digit(16)?))
    }

    fn number(&mut self) -> Option<Number> {
        let text = self.until(|c| !(c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E')));
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (digits, exponent) = digits.split_once(['e', 'E']).map_or((digits, None), |(d, e)| (d, Some(e)));
        let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let exponent = exponent.map(|e| e.strip_prefix(['-', '+']).unwrap_or(e));
        let valid = all_digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(all_digits)
            && exponent.is_none_or(all_digits);
        if !valid {
            return None;
        }
        // What the strict reader refuses here is only too large.
        text.parse().ok().or_else(|| Number::from_f64(if text.starts_with('-') { f64::MIN } else { f64::MAX }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_strings_may_be_loose() {
        for (text, value) in [
            (r#"{"action":"send", body:"x"}"#, json!({"action": "send", "body": "x"})),
            (r"{'action':'send'}", json!({"action": "send"})),
            ("{a-b:1, $c:2, _d:3, 1e:4, né:5}", json!({"a-b": 1, "$c": 2, "_d": 3, "1e": 4, "né": 5})),
            (r#"['it\'s', 'a "b"', "it's"]"#, json!(["it's", "a \"b\"", "it's"])),
            (r"{a:[{}, [], null, true, false, -1.5e+2, 0]}", json!({"a": [{}, [], null, true, false, -150.0, 0]})),
            (" \t\r\n{ a : 'b' } \n", json!({"a": "b"})),
            (r"['\u00e9\ud83d\ude00\n\/']", json!(["é😀\n/"])),
            (r#"{"a":1,a:2,'a':3}"#, json!({"a": 3})),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(value), "{text}");
        }
    }

    #[test]
    fn what_a_value_cannot_hold_still_counts_as_json() {
        for (text, value) in [
            (r#"["\ud800"]"#, json!(["\u{fffd}"])),
            (r#"["\ud800x"]"#, json!(["\u{fffd}x"])),
            (r#"["\udc00\ud800\ud800"]"#, json!(["\u{fffd}\u{fffd}\u{fffd}"])),
            (r#"["\ud800\u0041"]"#, json!(["\u{fffd}A"])),
            ("[1e999, -1e999]", json!([f64::MAX, f64::MIN])),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(value), "{text}");
        }
    }

    #[test]
    fn other_liberties_are_refused() {
        for text in [
            "",
            " ",
            "hello",
            "{a}",
            "{a:}",
            "{:1}",
            "{a b:1}",
            "{a:1,}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{a:1 b:2}",
            "[1]x",
            "{a:1}}",
            "// c\n1",
            "/* c */ 1",
            "[1, /* c */ 2]",
            "{a:b}",
            "[undefined]",
            "[NaN]",
            "[+1]",
            "[.5]",
            "[1.]",
            "[01]",
            "[-]",
            "[1e]",
            "[0x1]",
            "['a\"]",
            "['a",
            "[\"\\'\"]",
            "[\"\\x\"]",
            "[\"\\u12g4\"]",
            "[\"\\u+123\"]",
            "['a\nb']",
            "\u{feff}{\"a\":1}",
            "tru",
            "nulll",
            "{\"a\":1",
            "[",
            "{",
            "\"",
            "'",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"[\"\xff\"]"), None, "not UTF-8");
    }

    // checklist: 110
    #[test]
    fn nesting_ends_at_512_levels_and_never_at_the_stack() {
        let check = || {
            let nested = |open: &str, close: &str, depth| format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{a:", "}"), ("['[',", "]")] {
                for (depth, json) in [(500, true), (512, true), (513, false), (600, false), (20_000, false)] {
                    let text = nested(open, close, depth);
                    assert_eq!(parse(text.as_bytes()).is_some(), json, "{depth} of {open}");
                    assert!(open.contains('\'') || nests_too_deep(&text) != json, "{depth} of {open}");
                }
            }
            assert_eq!(parse("[".repeat(131_072).as_bytes()), None);
            assert_eq!(parse("{a:".repeat(40_000).as_bytes()), None);
        };
        std::thread::Builder::new().stack_size(2 << 20).spawn(check).unwrap().join().unwrap();
    }

    #[test]
    fn brackets_in_strings_are_no_levels() {
        let text = format!("[\"{}\\\"{}\"]", "[".repeat(600), "{".repeat(600));
        assert!(!nests_too_deep(&text) && parse(text.as_bytes()).is_some());
    }

    proptest! {
        #[test]
        fn strict_documents_read_alike(value in crate::lang::tests::any_json()) {
            let text = value.to_string();
            let strict: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(parse_loose(&text), Some(strict.clone()));
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(parse_loose(&pretty), Some(strict));
        }

        #[test]
        fn nothing_strict_is_refused_and_nothing_panics(text in r#"[\[\]{}:,"'\\a-c0-2.eEu\-+ ]{0,40}"#) {
            let strict: Option<Value> = serde_json::from_str(&text).ok();
            let loose = parse_loose(&text);
            if strict.is_some() {
                prop_assert_eq!(loose, strict);
            }
        }
    }
}
