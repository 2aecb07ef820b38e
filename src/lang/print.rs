//! Values as text: how selection expressions, mapped parameters and templates print JSON (specification 3.3).

use std::fmt::{self, Write};

use serde_json::{Number, Value};

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// `[a, b]`, strings bare: selection expressions and mapped parameters.
    Bare,
    /// `["a","b"]`: what a template prints for `$input.path`.
    Json,
}

/// The text of a value as selection and parameter mapping print it: strings bare, lists `[a, b]`, objects `{room=room1234}`,
/// null empty, whole numbers without a fraction, other numbers in their shortest decimal form.
pub fn to_text(value: &Value) -> String {
    let mut text = String::new();
    let _infallible = write_value(&mut text, value, Lists::Bare);
    text
}

/// Writes a value; null is empty.
pub(super) fn write_value(out: &mut impl Write, value: &Value, lists: Lists) -> fmt::Result {
    match value {
        Value::Null => Ok(()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            write_nested(out, value, lists)
        }
    }
}

/// Writes a list of values that is not a [`Value`] itself, such as the matches of a path.
pub(super) fn write_list<'a>(
    out: &mut impl Write,
    values: impl IntoIterator<Item = &'a Value>,
    lists: Lists,
) -> fmt::Result {
    out.write_char('[')?;
    for (position, value) in values.into_iter().enumerate() {
        match lists {
            Lists::Bare => {
                out.write_str(if position == 0 { "" } else { ", " })?;
                write_nested(out, value, lists)?;
            }
            Lists::Json => {
                out.write_str(if position == 0 { "" } else { "," })?;
                write!(out, "{value}")?;
            }
        }
    }
    out.write_char(']')
}

// Inside a list or an object a null has a name, as in Java's own printing.
fn write_nested(out: &mut impl Write, value: &Value, lists: Lists) -> fmt::Result {
    match value {
        Value::Null => out.write_str("null"),
        Value::Bool(flag) => write!(out, "{flag}"),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => out.write_str(text),
        Value::Array(values) => write_list(out, values, lists),
        Value::Object(members) => {
            out.write_char('{')?;
            for (position, (name, value)) in members.iter().enumerate() {
                out.write_str(if position == 0 { "" } else { ", " })?;
                write!(out, "{name}=")?;
                write_nested(out, value, lists)?;
            }
            out.write_char('}')
        }
    }
}

fn write_number(out: &mut impl Write, number: &Number) -> fmt::Result {
    match number.as_f64() {
        Some(float) if number.is_f64() => match float.abs() {
            0.0 => out.write_char('0'),
            // Within these bounds a decimal stays short; they are those of ECMAScript.
            size if (1e-6..1e21).contains(&size) => write!(out, "{float}"),
            _ => write!(out, "{float:e}"),
        },
        Some(_) | None => write!(out, "{number}"),
    }
}

/// Text that refuses to grow beyond a limit: a small expression can name a large value many times.
#[derive(Debug)]
pub(super) struct Bounded {
    text: String,
    limit: usize,
}

impl Bounded {
    /// Empty text that takes up to `limit` bytes.
    pub(super) const fn new(limit: usize) -> Self {
        Self { text: String::new(), limit }
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if more.len() > self.limit - self.text.len() {
            return Err(fmt::Error);
        }
        self.text.push_str(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // checklist: 89
    #[test]
    fn values_print_as_the_table_says() {
        for (value, text) in [
            (json!("join"), "join"),
            (json!(["a", "b"]), "[a, b]"),
            (json!([]), "[]"),
            (json!([1, null, [true]]), "[1, null, [true]]"),
            (json!(7), "7"),
            (json!(-7), "-7"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(7.0), "7"),
            (json!(-0.0), "0"),
            (json!(1.5), "1.5"),
            (json!(0.1), "0.1"),
            (json!(1e300), "1e300"),
            (json!(true), "true"),
            (json!(null), ""),
            (json!({"room": "room1234"}), "{room=room1234}"),
            (json!({"a": 1, "b": {"c": ["d"]}, "e": null}), "{a=1, b={c=[d]}, e=null}"),
        ] {
            assert_eq!(to_text(&value), text, "{value}");
        }
    }

    #[test]
    fn a_template_prints_lists_as_json() {
        let mut text = String::new();
        let value = json!({"a": 1, "foo": "bar", "list": [{"n": "x"}]});
        write_value(&mut text, &value, Lists::Json).unwrap();
        assert_eq!(text, r#"{a=1, foo=bar, list=[{"n":"x"}]}"#);
    }

    #[test]
    fn bounded_text_stops_at_its_limit() {
        let mut text = Bounded::new(4);
        assert!(text.write_str("abcd").is_ok() && text.write_str("e").is_err() && text.write_str("").is_ok());
        assert_eq!(text.into_string(), "abcd");
    }
}
