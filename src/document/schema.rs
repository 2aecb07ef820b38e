//! A JSON Schema, generated from Rust types, and what it says in words.
//!
//! Two keywords are ours: `errorMessage` says what was expected in words (editors show it too), and `x-unsupported`
//! marks what the format knows but the gateway does not do, with the reason.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::nearest;

/// The schema of `T`, draft 7, which is what editors understand best.
///
/// An `Option` is a key that may be missing, never one that is there without a value.
pub fn generate<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>().to_value();
    adapt(&mut schema);
    schema
}

/// Takes out `null` as a choice, and makes every reader of the schema refuse what is not supported, not only ours.
fn adapt(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            if let Some(Value::Array(types)) = keys.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    keys.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(mut choices)) = keys.remove("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
                let keyword = if choices.len() == 1 { "allOf" } else { "anyOf" };
                keys.insert(keyword.to_owned(), Value::Array(choices));
            }
            if keys.contains_key("x-unsupported") {
                keys.insert("not".to_owned(), Value::Object(Map::new()));
            }
            keys.values_mut().for_each(adapt);
        }
        Value::Array(items) => items.iter_mut().for_each(adapt),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

pub(super) type Keywords = Map<String, Value>;

pub(super) fn kinds_in_words(schema: &Keywords) -> String {
    let words: Vec<String> = kinds(schema)
        .into_iter()
        .map(|kind| match kind {
            "string" => {
                let (least, most) = (number(schema, "minLength").unwrap_or(0), number(schema, "maxLength"));
                most.map_or_else(|| "a text".to_owned(), |most| format!("a text of {least} to {most} characters"))
            }
            "integer" | "number" => match (number(schema, "minimum"), number(schema, "maximum")) {
                (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
                (Some(_) | None, Some(_) | None) => "a whole number".to_owned(),
            },
            "boolean" => "`true` or `false`".to_owned(),
            "array" => "a list".to_owned(),
            _ => "an object".to_owned(),
        })
        .collect();
    words.join(" or ")
}

pub(super) fn unknown_key(schema: &Keywords, key: &str) -> String {
    let known: Vec<&str> = schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|all| all.iter().filter(|(_, s)| s.get("x-unsupported").is_none()).map(|(k, _)| k.as_str()).collect())
        .unwrap_or_default();
    if let Some(meant) = nearest(key, known.iter().copied()) {
        return format!("unknown key `{key}`, expected `{meant}`?");
    }
    let list: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    format!("unknown key `{key}`, expected one of {}", list.join(", "))
}

pub(super) fn list<'s>(schema: &'s Keywords, keyword: &str) -> &'s [Value] {
    schema.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn number(schema: &Keywords, keyword: &str) -> Option<u64> {
    schema.get(keyword).and_then(Value::as_u64)
}

pub(super) fn property<'s>(schema: &'s Keywords, key: &str) -> Option<&'s Value> {
    schema.get("properties")?.get(key)
}

pub(super) fn choices(schema: &Keywords) -> Option<&[Value]> {
    let found = schema.get("oneOf").or_else(|| schema.get("anyOf"))?;
    found.as_array().map(Vec::as_slice)
}

pub(super) fn unsupported(schema: &Keywords) -> Option<&str> {
    schema.get("x-unsupported").and_then(Value::as_str)
}

/// The constants a schema lists, its own or those of its choices; those it marks as unsupported are left out.
pub(super) fn constants(schema: &Keywords) -> Vec<Value> {
    let mut found = list(schema, "enum").to_vec();
    found.extend(schema.get("const").cloned());
    for choice in choices(schema).unwrap_or_default().iter().filter_map(Value::as_object) {
        if unsupported(choice).is_none() {
            found.extend(constants(choice));
        }
    }
    found
}

pub(super) fn in_words(constant: &Value) -> String {
    constant.as_str().map_or_else(|| constant.to_string(), |text| format!("`{text}`"))
}

pub(super) fn kinds(schema: &Keywords) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.as_str()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    }
}

/// Keywords of `schema` that the check does not know, and patterns that are none: both would be silently let through.
#[cfg(test)]
pub(crate) fn unchecked(schema: &Value) -> Vec<String> {
    const CHECKED: &[&str] = &[
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "const",
        "enum",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minLength",
        "minProperties",
        "minimum",
        "oneOf",
        "pattern",
        "properties",
        "propertyNames",
        "required",
        "type",
        "x-unsupported",
    ];
    // These say nothing about what is allowed; `format` of a number only names
    // its Rust type, and `not` comes with `x-unsupported`.
    const SILENT: &[&str] = &["$schema", "definitions", "description", "errorMessage", "format", "not", "title"];
    let mut found = Vec::new();
    let Some(keywords) = schema.as_object() else { return found };
    for (keyword, value) in keywords {
        match keyword.as_str() {
            "properties" | "definitions" => {
                found.extend(value.as_object().unwrap().values().flat_map(unchecked));
            }
            "items" | "additionalProperties" | "propertyNames" => found.extend(unchecked(value)),
            "allOf" | "anyOf" | "oneOf" => {
                found.extend(value.as_array().unwrap().iter().flat_map(unchecked));
            }
            "pattern" if regex::Regex::new(value.as_str().unwrap()).is_err() => {
                found.push(value.to_string());
            }
            known if CHECKED.contains(&known) || SILENT.contains(&known) => {}
            other => found.push(other.to_owned()),
        }
    }
    found
}
