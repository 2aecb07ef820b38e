//! Members picked out of a JSON text in one pass: the whole document is checked, no tree is built.
//!
//! This is what every message goes through, so it allocates only for what it picks, and not even then when the value is
//! a string without escapes.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize as _, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::loose;

/// Member names from the root down.
pub(super) type Path = Box<[Box<str>]>;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Picked<'t> {
    /// No such member.
    Missing,
    /// A string.
    Text(Cow<'t, str>),
    /// Anything else.
    Value(Value),
}

/// Paths that can be followed together: all different, none the beginning of another.
#[derive(Debug, Clone)]
pub(super) struct Members(Box<[Path]>);

impl Members {
    /// One bit each while descending.
    const MAX: usize = u32::BITS as usize;

    /// Takes the paths; `None` when one pass cannot serve them all.
    pub(super) fn new(paths: Vec<Path>) -> Option<Self> {
        let collide = paths
            .iter()
            .enumerate()
            .any(|(i, path)| paths.iter().enumerate().any(|(j, other)| i != j && other.starts_with(path)));
        let fits = paths.len() <= Self::MAX && paths.iter().all(|path| !path.is_empty());
        (fits && !collide).then(|| Self(paths.into()))
    }

    /// Fills `slots`, one for each path in order; of members with the same name the last counts.
    ///
    /// `None` when the text is not strict JSON, or when a picked value is one that only the loose reader can give; then
    /// `slots` holds nothing of use.
    pub(super) fn pick<'t>(&self, text: &'t str, slots: &mut [Picked<'t>]) -> Option<()> {
        // Skipped values cost no stack, whatever their depth, so only the rule itself has to be kept.
        if loose::nests_too_deep(text) {
            return None;
        }
        let all = u32::MAX.checked_shr(u32::BITS - self.0.len() as u32).unwrap_or(0);
        let mut json = serde_json::Deserializer::from_str(text);
        Descent { paths: &self.0, active: all, depth: 0, slots }.deserialize(&mut json).ok()?;
        json.end().ok()
    }
}

/// Follows the `active` paths below a value `depth` names down.
struct Descent<'p, 's, 't> {
    paths: &'p [Path],
    active: u32,
    depth: usize,
    slots: &'s mut [Picked<'t>],
}

impl<'t> DeserializeSeed<'t> for Descent<'_, '_, 't> {
    type Value = ();

    fn deserialize<D: Deserializer<'t>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Descent<'_, '_, 't> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { paths, active, depth, slots } = self;
        while let Some(Step { taken, ends }) = members.next_key_seed(Name { paths, active, depth })? {
            if taken == 0 {
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            if let Some(slot) = ends.and_then(|path| slots.get_mut(path)) {
                *slot = members.next_value_seed(Pick)?;
                continue;
            }
            // An earlier member of this name no longer counts, nor does what was found in it.
            for (path, slot) in slots.iter_mut().enumerate() {
                if taken & (1 << path) != 0 {
                    *slot = Picked::Missing;
                }
            }
            members.next_value_seed(Descent { paths, active: taken, depth: depth + 1, slots })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut values: A) -> Result<(), A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Where a member name leads.
struct Step {
    /// The paths that go on with this name.
    taken: u32,
    /// The path that ends with it; paths do not collide, so then it is the only one.
    ends: Option<usize>,
}

/// Compares a member name without keeping it.
struct Name<'p> {
    paths: &'p [Path],
    active: u32,
    depth: usize,
}

impl<'t> DeserializeSeed<'t> for Name<'_> {
    type Value = Step;

    fn deserialize<D: Deserializer<'t>>(self, json: D) -> Result<Step, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Step;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Step, E> {
        let mut step = Step { taken: 0, ends: None };
        for (index, path) in self.paths.iter().enumerate() {
            let bit = 1 << index;
            if self.active & bit != 0 && path.get(self.depth).is_some_and(|n| **n == *name) {
                step.taken |= bit;
                if path.len() == self.depth + 1 {
                    step.ends = Some(index);
                }
            }
        }
        Ok(step)
    }
}

/// Keeps a value.
struct Pick;

impl<'t> DeserializeSeed<'t> for Pick {
    type Value = Picked<'t>;

    fn deserialize<D: Deserializer<'t>>(self, json: D) -> Result<Picked<'t>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'t> Visitor<'t> for Pick {
    type Value = Picked<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_borrowed_str<E>(self, text: &'t str) -> Result<Self::Value, E> {
        Ok(Picked::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Picked::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Picked::Value(flag.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Picked::Value(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Picked::Value(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Picked::Value(number.into()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Picked::Value(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'t>>(self, values: A) -> Result<Self::Value, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(values)).map(Picked::Value)
    }

    fn visit_map<A: MapAccess<'t>>(self, members: A) -> Result<Self::Value, A::Error> {
        Value::deserialize(MapAccessDeserializer::new(members)).map(Picked::Value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::lang::tests::{any_json, any_name};

    fn path(names: &str) -> Path {
        names.split('.').map(Box::from).collect()
    }

    fn pick<'t>(paths: &[&str], text: &'t str) -> Option<Vec<Picked<'t>>> {
        let members = Members::new(paths.iter().copied().map(path).collect())?;
        let mut slots = vec![Picked::Missing; paths.len()];
        members.pick(text, &mut slots)?;
        Some(slots)
    }

    fn text(text: &str) -> Picked<'_> {
        Picked::Text(text.into())
    }

    #[test]
    fn several_paths_share_one_pass() {
        let found = pick(&["a.b", "a.c.d", "e"], r#"{"e":[1],"x":{"a":1},"a":{"c":{"d":true},"b":"\u0041","z":[{}]}}"#);
        assert_eq!(found, Some(vec![text("A"), Picked::Value(json!(true)), Picked::Value(json!([1]))]));
    }

    #[test]
    fn the_last_member_of_a_name_counts_at_every_level() {
        assert_eq!(pick(&["a.b"], r#"{"a":{"b":"x"},"a":{"b":"y","b":"z"}}"#), Some(vec![text("z")]));
        assert_eq!(pick(&["a.b"], r#"{"a":{"b":"x"},"a":5}"#), Some(vec![Picked::Missing]));
        assert_eq!(pick(&["a.b", "a.c"], r#"{"a":{"b":"x"},"a":{"c":"y"}}"#), Some(vec![Picked::Missing, text("y")]));
    }

    #[test]
    fn a_plain_string_is_borrowed() {
        let found = pick(&["a"], r#"{"a":"plain"}"#).unwrap();
        assert!(matches!(found.as_slice(), [Picked::Text(Cow::Borrowed("plain"))]));
    }

    #[test]
    fn paths_that_collide_are_refused() {
        assert!(Members::new(vec![path("a"), path("a.b")]).is_none());
        assert!(Members::new(vec![path("a.b"), path("a.b")]).is_none());
        assert!(Members::new((0..33).map(|n| path(&n.to_string())).collect()).is_none());
        assert!(Members::new((0..32).map(|n| path(&n.to_string())).collect()).is_some());
        assert!(Members::new(vec![path("a.b"), path("a.bc")]).is_some());
    }

    #[test]
    fn the_whole_document_is_checked() {
        for broken in [r#"{"a":"x"} x"#, r#"{"a":"x","b":}"#, r#"{"a":"x","b":[1,]}"#, r#"{"a":"x","b":"\q"}"#, ""] {
            assert_eq!(pick(&["a"], broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_a_tree_holds(
            value in any_json(),
            names in prop::collection::vec(prop::collection::vec(any_name(), 1..4), 1..4),
        ) {
            let paths: Vec<Path> = names.into_iter().map(|p| p.into_iter().map(String::into_boxed_str).collect()).collect();
            let json = value.to_string();
            // The strict reader is the measure, last digits of numbers included.
            let tree: Value = serde_json::from_str(&json).unwrap();
            if let Some(members) = Members::new(paths.clone()) {
                let mut slots = vec![Picked::Missing; paths.len()];
                prop_assert!(members.pick(&json, &mut slots).is_some());
                for (path, slot) in paths.iter().zip(slots) {
                    let expected = path.iter().try_fold(&tree, |value, name| value.as_object()?.get(&**name));
                    let found = match slot {
                        Picked::Missing => None,
                        Picked::Text(text) => Some(Value::from(text)),
                        Picked::Value(value) => Some(value),
                    };
                    prop_assert_eq!(found.as_ref(), expected);
                }
            }
        }
    }
}
