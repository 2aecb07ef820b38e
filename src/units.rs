//! Durations and sizes as people write them, `10m` and `128KiB`: one parser for definitions and process configuration.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

const PERIOD: &str = "a duration such as `500ms`, `30s`, `10m` or `2h`";
const LIMIT: &str = "a duration such as `500ms`, `30s`, `10m` or `2h`, or `none`";
const SIZE: &str = "a number of bytes, or a size such as `128KiB`, `1MiB` or `2GiB`";

/// Why a text is not a duration or a size; says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("expected {PERIOD}")]
    Period,
    /// Not a duration and not `none`.
    #[error("expected {LIMIT}")]
    Limit,
    /// Not a size.
    #[error("expected {SIZE}")]
    Size,
    /// More digits than its unit takes.
    #[error("too large, expected at most 9999h or 999GiB")]
    TooLarge,
}

/// A duration: a whole number above 0 and `ms`, `s`, `m` or `h`; at most 9999 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(pub Duration);

/// A duration or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

/// A number of bytes: plain, or a whole number and `B`, `KiB`, `MiB` or `GiB`; at most 999 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub usize);

/// A unit, how much it is worth, and how many digits it takes: the same bound as in the patterns of the schema, so that
/// nothing a number could overflow ever gets through.
type Unit = (&'static str, u64, usize);

const TIME_UNITS: [Unit; 4] = [("ms", 1, 10), ("s", 1_000, 7), ("m", 60_000, 5), ("h", 3_600_000, 4)];
const SIZE_UNITS: [Unit; 5] =
    [("", 1, 12), ("B", 1, 12), ("KiB", 1 << 10, 9), ("MiB", 1 << 20, 6), ("GiB", 1 << 30, 3)];

fn parse(text: &str, units: &[Unit], malformed: UnitError) -> Result<u64, UnitError> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.strip_suffix(unit).unwrap_or_default();
    let Some((_, worth, most)) = units.iter().find(|(name, ..)| *name == unit) else {
        return Err(malformed);
    };
    if digits.len() > *most {
        return Err(UnitError::TooLarge);
    }
    digits.parse::<u64>().map(|count| count * worth).map_err(|_| malformed)
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match parse(text, &TIME_UNITS, UnitError::Period)? {
            0 => Err(UnitError::Period),
            millis => Ok(Self(Duration::from_millis(millis))),
        }
    }
}

impl FromStr for Limit {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "none" {
            return Ok(Self(None));
        }
        match text.parse::<Period>() {
            Ok(period) => Ok(Self(Some(period.0))),
            Err(UnitError::Period) => Err(UnitError::Limit),
            Err(other) => Err(other),
        }
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bytes = parse(text, &SIZE_UNITS, UnitError::Size)?;
        usize::try_from(bytes).map(Self).map_err(|_| UnitError::TooLarge)
    }
}

struct TextVisitor<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err = UnitError>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    // Only a size may be a bare number; a duration without a unit says nothing.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

macro_rules! in_files {
    ($name:ident, $expected:expr, $schema:tt) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(TextVisitor(std::marker::PhantomData, $expected))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

in_files!(Period, PERIOD, {
    "type": "string",
    "pattern": "^([1-9][0-9]{0,9}ms|[1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,3}h)$",
    "errorMessage": (PERIOD),
});
in_files!(Limit, LIMIT, {
    "type": "string",
    "pattern": "^(none|[1-9][0-9]{0,9}ms|[1-9][0-9]{0,6}s|[1-9][0-9]{0,4}m|[1-9][0-9]{0,3}h)$",
    "errorMessage": (LIMIT),
});
in_files!(ByteSize, SIZE, {
    "type": ["integer", "string"],
    "minimum": 0,
    "maximum": 999_999_999_999_u64,
    "pattern": "^([0-9]{1,12}B?|[0-9]{1,9}KiB|[0-9]{1,6}MiB|[0-9]{1,3}GiB)$",
    "errorMessage": (SIZE),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let millis = |text: &str| text.parse::<Period>().map(|p| p.0.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("30s"), Ok(30_000));
        assert_eq!(millis("10m"), Ok(600_000));
        assert_eq!(millis("2h"), Ok(7_200_000));
        for text in ["", "10", "m", "10 m", "-1s", "1.5h", "10M", "none"] {
            assert_eq!(millis(text), Err(UnitError::Period), "{text}");
        }
        assert_eq!(millis("0s"), Err(UnitError::Period), "no time at all");
        assert_eq!(millis("9999h"), Ok(35_996_400_000));
        assert_eq!(millis("18446744073709551615h"), Err(UnitError::TooLarge));
    }

    #[test]
    fn a_limit_may_be_none() {
        assert_eq!("none".parse(), Ok(Limit(None)));
        assert_eq!("1s".parse(), Ok(Limit(Some(Duration::from_secs(1)))));
        assert_eq!("None".parse::<Limit>(), Err(UnitError::Limit));
    }

    #[test]
    fn sizes_are_bytes_or_powers_of_two() {
        let bytes = |text: &str| text.parse::<ByteSize>().map(|b| b.0);
        assert_eq!(bytes("131072"), Ok(131_072));
        assert_eq!(bytes("128KiB"), Ok(131_072));
        assert_eq!(bytes("1MiB"), Ok(1 << 20));
        assert_eq!(bytes("999GiB"), Ok(999 << 30));
        for text in ["", "KiB", "1kb", "1 KiB", "-1", "1.5MiB"] {
            assert_eq!(bytes(text), Err(UnitError::Size), "{text}");
        }
        assert_eq!(bytes("18446744073709551615GiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn files_take_what_the_schema_takes() {
        let read = |json: &str| serde_json::from_str::<ByteSize>(json).map(|b| b.0);
        assert_eq!(read("64").unwrap(), 64);
        assert_eq!(read("\"64KiB\"").unwrap(), 65_536);
        assert!(read("-1").is_err() && read("1.5").is_err());
        assert!(serde_json::from_str::<Limit>("30").is_err(), "a bare number has no unit");
    }
}
