//! Conditions: an operator, a key, and values to compare with.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use super::Question;
use super::pattern::{Pattern, Reading};

/// One condition: all of a statement's must hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    operator: Operator,
    /// In lower case.
    key: Box<str>,
    values: Box<[Wanted]>,
}

/// An operator as it is written: `ForAnyValue:StringNotLikeIfExists`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operator {
    test: Test,
    is_negated: bool,
    if_exists: bool,
    set: Set,
}

/// Which of a key's values must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    /// Any; where there is no value, only a negated operator holds.
    Plain,
    /// At least one, and there is one.
    Any,
    /// Every one; it holds where there is none.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Text { is_caseless: bool, has_wildcards: bool },
    Arn,
    Number(Order),
    Date(Order),
    Bool,
    Binary,
    Ip,
    Null,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds(self, found: f64, wanted: f64) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let Some(order) = found.partial_cmp(&wanted) else { return false };
        match self {
            Self::Equal => order == Equal,
            Self::Less => order == Less,
            Self::LessOrEqual => order != Greater,
            Self::Greater => order == Greater,
            Self::GreaterOrEqual => order != Less,
        }
    }
}

/// A value of the document, ready to compare.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Text(Pattern),
    /// A number, or seconds since 1970.
    Number(f64),
    Bool(bool),
    Bytes(Box<[u8]>),
    Network(IpNet),
}

impl Operator {
    /// Reads an operator's name; `None` for one there is not.
    pub(super) fn read(name: &str) -> Option<Self> {
        let (set, name) = match name.split_once(':') {
            None => (Set::Plain, name),
            Some(("ForAnyValue", name)) => (Set::Any, name),
            Some(("ForAllValues", name)) => (Set::All, name),
            Some(_) => return None,
        };
        let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
        let plain = |is_caseless, has_wildcards| Test::Text { is_caseless, has_wildcards };
        let (test, is_negated) = match name {
            "StringEquals" => (plain(false, false), false),
            "StringNotEquals" => (plain(false, false), true),
            "StringEqualsIgnoreCase" => (plain(true, false), false),
            "StringNotEqualsIgnoreCase" => (plain(true, false), true),
            "StringLike" => (plain(false, true), false),
            "StringNotLike" => (plain(false, true), true),
            "ArnEquals" | "ArnLike" => (Test::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Test::Arn, true),
            "NumericNotEquals" => (Test::Number(Order::Equal), true),
            "DateNotEquals" => (Test::Date(Order::Equal), true),
            "Bool" => (Test::Bool, false),
            "BinaryEquals" => (Test::Binary, false),
            "IpAddress" => (Test::Ip, false),
            "NotIpAddress" => (Test::Ip, true),
            // It asks itself whether the key exists, and of one key, not of a set.
            "Null" if !if_exists && set == Set::Plain => (Test::Null, false),
            _ => match (name.strip_prefix("Numeric"), name.strip_prefix("Date")) {
                (Some(order), _) => (Test::Number(Order::read(order)?), false),
                (None, Some(order)) => (Test::Date(Order::read(order)?), false),
                (None, None) => return None,
            },
        };
        Some(Self { test, is_negated, if_exists, set })
    }

    /// Reads a value for this operator; the error says what was expected.
    fn wanted(self, text: &str, has_variables: bool) -> Result<Wanted, &'static str> {
        match self.test {
            Test::Text { is_caseless, has_wildcards } => {
                Pattern::read(text, Reading { has_wildcards, has_variables, is_caseless }).map(Wanted::Text)
            }
            Test::Arn => {
                if text != "*" && text.split(':').count() < 6 {
                    return Err("is no ARN, expected six parts with `:` between, wildcards allowed");
                }
                // One star stands for all parts.
                let text = if text == "*" { "*:*:*:*:*:*" } else { text };
                Pattern::read(text, Reading { has_wildcards: true, has_variables, is_caseless: false })
                    .map(Wanted::Text)
            }
            Test::Number(_) => number(text).map(Wanted::Number).ok_or("is no number"),
            Test::Date(_) => date(text)
                .map(Wanted::Number)
                .ok_or("is no time, expected one such as `2020-04-01T00:00:00Z` or a number of seconds since 1970"),
            Test::Bool | Test::Null => boolean(text).map(Wanted::Bool).ok_or("is neither `true` nor `false`"),
            Test::Binary => STANDARD.decode(text).map(|bytes| Wanted::Bytes(bytes.into())).map_err(|_| "is no base64"),
            Test::Ip => network(text).map(Wanted::Network).ok_or("is no network such as `192.0.2.0/24` and no address"),
        }
    }

    fn fits(self, question: &Question<'_>, found: &str, wanted: &Wanted) -> bool {
        match (self.test, wanted) {
            (Test::Text { .. }, Wanted::Text(pattern)) => pattern.matches(question, found),
            (Test::Arn, Wanted::Text(pattern)) => pattern.matches_arn(question, found),
            (Test::Number(order), Wanted::Number(wanted)) => {
                number(found).is_some_and(|found| order.holds(found, *wanted))
            }
            (Test::Date(order), Wanted::Number(wanted)) => date(found).is_some_and(|found| order.holds(found, *wanted)),
            (Test::Bool, Wanted::Bool(wanted)) => boolean(found) == Some(*wanted),
            (Test::Binary, Wanted::Bytes(wanted)) => STANDARD.decode(found).is_ok_and(|found| *found == **wanted),
            (Test::Ip, Wanted::Network(network)) => {
                found.parse::<IpAddr>().is_ok_and(|address| network.contains(&address.to_canonical()))
            }
            _ => false,
        }
    }
}

impl Order {
    fn read(name: &str) -> Option<Self> {
        Some(match name {
            "Equals" => Self::Equal,
            "LessThan" => Self::Less,
            "LessThanEquals" => Self::LessOrEqual,
            "GreaterThan" => Self::Greater,
            "GreaterThanEquals" => Self::GreaterOrEqual,
            _ => return None,
        })
    }
}

impl Condition {
    /// A condition of a document; the error says which value is wrong and how.
    pub(super) fn new(
        operator: Operator,
        key: &str,
        values: &[String],
        has_variables: bool,
    ) -> Result<Self, (usize, &'static str)> {
        let read = |(index, text): (usize, &String)| operator.wanted(text, has_variables).map_err(|why| (index, why));
        let values = values.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Self { operator, key: key.to_ascii_lowercase().into(), values })
    }

    /// Whether it holds. Several values are alternatives; what a negated operator is followed by must all be missing.
    pub(super) fn holds(&self, question: &Question<'_>) -> bool {
        let operator = self.operator;
        let found = question.facts.values(&self.key);
        if operator.test == Test::Null {
            return self.values.contains(&Wanted::Bool(found.is_empty()));
        }
        if found.is_empty() {
            return operator.if_exists
                || match operator.set {
                    Set::Plain => operator.is_negated,
                    Set::Any => false,
                    Set::All => true,
                };
        }
        let one = |found: &str| self.values.iter().any(|wanted| operator.fits(question, found, wanted));
        match operator.set {
            Set::Plain => found.iter().any(|found| one(found)) != operator.is_negated,
            Set::Any => found.iter().any(|found| one(found) != operator.is_negated),
            Set::All => found.iter().all(|found| one(found) != operator.is_negated),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address.to_canonical())),
        Err(_) => text.parse::<IpNet>().ok(),
    }
}

/// Seconds since 1970: as a number, a day, or a moment with `Z` or an offset (ISO 8601, as W3C restricts it).
fn date(text: &str) -> Option<f64> {
    if let Some(seconds) = number(text) {
        return Some(seconds);
    }
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let digits = |text: &str, count: usize| {
        (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u16>().ok())?
    };
    let mut parts = day.split('-');
    let (year, month, dom) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = time::Date::from_calendar_date(i32::from(year), month, u8::try_from(dom).ok()?).ok()?;
    if parts.next().is_some() {
        return None;
    }
    let (clock, offset) = if let Some(clock) = time.strip_suffix('Z') {
        (clock, 0)
    } else {
        let at = time.rfind(['+', '-'])?;
        let (hours, minutes) = time.get(at + 1..)?.split_once(':')?;
        let minutes = i32::from(digits(hours, 2)?) * 60 + i32::from(digits(minutes, 2)?);
        (time.get(..at)?, if time.get(at..)?.starts_with('-') { -minutes } else { minutes })
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let mut part = || u8::try_from(digits(parts.next()?, 2)?).ok();
    let (hour, minute, second) = (part()?, part()?, part().unwrap_or(0));
    let fraction = format!("0.{fraction}").parse::<f64>().ok()?;
    let moment = date.with_hms(hour, minute, second).ok()?.assume_utc();
    Some(moment.unix_timestamp() as f64 + fraction - f64::from(offset) * 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_several_forms() {
        for (text, seconds) in [
            ("0", 0.0),
            ("1585699200", 1_585_699_200.0),
            ("2020-04-01", 1_585_699_200.0),
            ("2020-04-01T00:00:00Z", 1_585_699_200.0),
            ("2020-04-01T00:00:00.5Z", 1_585_699_200.5),
            ("2020-04-01T02:00:00+02:00", 1_585_699_200.0),
            ("2020-03-31T22:30Z", 1_585_693_800.0),
            ("2020-03-31T19:00:00-05:00", 1_585_699_200.0),
        ] {
            assert_eq!(date(text), Some(seconds), "{text}");
        }
        for text in
            ["", "today", "2020-4-1", "2020-02-30", "2020-04-01T25:00:00Z", "2020-04-01T00:00:00", "NaN", "1e999"]
        {
            assert_eq!(date(text), None, "{text}");
        }
    }
}
