//! What the property tests of this floor draw from.

use proptest::prelude::*;
use serde_json::{Number, Value};

/// Member names, few enough that drawn paths meet drawn members.
pub(crate) fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[abc]", 1 => r#"[a"'\\\n é/}\[-]{0,3}"#]
}

/// JSON of some depth, numbers of every kind, text with escapes.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| Number::from_f64(float).map_or(Value::Null, Value::Number)),
        r#"[a-c"\\\n\u{1}é😀]{0,6}"#.prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 48, 5, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            3 => prop::collection::vec((any_name(), inner), 0..5).prop_map(|members| members.into_iter().collect()),
        ]
    })
}
