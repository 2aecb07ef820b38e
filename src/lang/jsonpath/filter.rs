//! Filters of a JSONPath: which are taken, and which children they let through (RFC 9535, 2.3.5).

use std::cmp::Ordering;

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, JpQuery, Literal, Segment, Selector, SingularQuery,
    SingularQuerySegment, Test, TestFunction,
};
use serde_json::{Number, Value};

use super::{Walk, element};

/// Whether the filters of a step are of the kind taken; the error says what is not.
pub(super) fn check_step(step: &Segment) -> Result<(), &'static str> {
    match step {
        Segment::Selector(selector) => check_selector(selector),
        Segment::Selectors(selectors) => selectors.iter().try_for_each(check_selector),
        Segment::Descendant(step) => check_step(step),
    }
}

fn check_selector(selector: &Selector) -> Result<(), &'static str> {
    match selector {
        Selector::Filter(filter) => check(filter),
        Selector::Name(_) | Selector::Wildcard | Selector::Index(_) | Selector::Slice(..) => Ok(()),
    }
}

fn check(filter: &Filter) -> Result<(), &'static str> {
    match filter {
        Filter::Or(filters) | Filter::And(filters) => filters.iter().try_for_each(check),
        Filter::Atom(FilterAtom::Filter { expr, .. }) => check(expr),
        Filter::Atom(FilterAtom::Test { expr, .. }) => match &**expr {
            Test::RelQuery(steps) | Test::AbsQuery(JpQuery { segments: steps }) => {
                steps.iter().try_for_each(check_step)
            }
            Test::Function(function) => check_function(function).and(Err("what a function gives has to be compared")),
        },
        Filter::Atom(FilterAtom::Comparison(comparison)) => {
            let (left, right) = comparison.vals();
            [left, right].into_iter().try_for_each(|side| match side {
                Comparable::Function(function) => check_function(function),
                Comparable::Literal(_) | Comparable::SingularQuery(_) => Ok(()),
            })
        }
    }
}

fn check_function(function: &TestFunction) -> Result<(), &'static str> {
    let argument = match function {
        TestFunction::Length(argument) => argument,
        TestFunction::Value(argument) | TestFunction::Count(argument) => argument,
        // A regular expression would be compiled for every child, and might come from the payload.
        TestFunction::Search(..) | TestFunction::Match(..) | TestFunction::Custom(..) => {
            return Err("filters know the functions length, count and value; others are not supported yet");
        }
    };
    match argument {
        FnArg::Literal(_) => Ok(()),
        FnArg::Test(test) => match &**test {
            Test::RelQuery(steps) | Test::AbsQuery(JpQuery { segments: steps }) => {
                steps.iter().try_for_each(check_step)
            }
            Test::Function(_) => Err("a function within a function is not supported yet"),
        },
        FnArg::Filter(_) => Err("a condition within a function is not supported yet"),
    }
}

/// Whether `filter` holds for the child `current`.
pub(super) fn holds<'a>(filter: &Filter, current: &'a Value, walk: &mut Walk<'a>) -> bool {
    match filter {
        Filter::Or(filters) => filters.iter().any(|filter| holds(filter, current, walk)),
        Filter::And(filters) => filters.iter().all(|filter| holds(filter, current, walk)),
        Filter::Atom(FilterAtom::Filter { expr, not }) => holds(expr, current, walk) != *not,
        Filter::Atom(FilterAtom::Test { expr, not }) => nodes(expr, current, walk).is_empty() == *not,
        Filter::Atom(FilterAtom::Comparison(comparison)) => {
            let (left, right) = comparison.vals();
            let (left, right) = (operand(left, current, walk), operand(right, current, walk));
            match &**comparison {
                Comparison::Eq(..) => left.equals(&right),
                Comparison::Ne(..) => !left.equals(&right),
                Comparison::Lt(..) => left.order(&right) == Some(Ordering::Less),
                Comparison::Gt(..) => left.order(&right) == Some(Ordering::Greater),
                Comparison::Lte(..) => left.order(&right) == Some(Ordering::Less) || left.equals(&right),
                Comparison::Gte(..) => left.order(&right) == Some(Ordering::Greater) || left.equals(&right),
            }
        }
    }
}

fn nodes<'a>(test: &Test, current: &'a Value, walk: &mut Walk<'a>) -> Vec<&'a Value> {
    match test {
        Test::RelQuery(steps) => walk.nodes(steps, current),
        Test::AbsQuery(JpQuery { segments }) => walk.nodes(segments, walk.root),
        // Refused when the path was compiled.
        Test::Function(_) => Vec::new(),
    }
}

/// One side of a comparison.
enum Operand<'v> {
    /// No such value; equals only another that is missing.
    Nothing,
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'v str),
    Tree(&'v Value),
}

impl<'v> Operand<'v> {
    fn of(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => Self::of_number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(_) | Value::Object(_) => Self::Tree(value),
        }
    }

    fn of_number(number: &Number) -> Self {
        number.as_i128().map_or_else(|| number.as_f64().map_or(Self::Nothing, Self::Float), Self::Integer)
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, Self::Nothing) | (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Tree(a), Self::Tree(b)) => a == b,
            _ => self.order(other) == Some(Ordering::Equal),
        }
    }

    /// Numbers and texts have an order.
    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Self::Float(b)) => (*a as f64).partial_cmp(b),
            (Self::Float(a), Self::Integer(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

fn operand<'v, 'a: 'v>(side: &'v Comparable, current: &'a Value, walk: &mut Walk<'a>) -> Operand<'v> {
    match side {
        Comparable::Literal(literal) => constant(literal),
        Comparable::SingularQuery(query) => {
            let (from, steps) = match query {
                SingularQuery::Current(steps) => (current, steps),
                SingularQuery::Root(steps) => (walk.root, steps),
            };
            let value = steps.iter().try_fold(from, |value, step| match step {
                SingularQuerySegment::Name(name) => value.as_object()?.get(name),
                SingularQuerySegment::Index(index) => element(value, *index),
            });
            value.map_or(Operand::Nothing, Operand::of)
        }
        Comparable::Function(function) => result(function, current, walk),
    }
}

fn constant(literal: &Literal) -> Operand<'_> {
    match literal {
        Literal::Int(number) => Operand::Integer((*number).into()),
        Literal::Float(number) => Operand::Float(*number),
        Literal::String(text) => Operand::Text(text),
        Literal::Bool(flag) => Operand::Bool(*flag),
        Literal::Null => Operand::Null,
    }
}

fn result<'v, 'a: 'v>(function: &'v TestFunction, current: &'a Value, walk: &mut Walk<'a>) -> Operand<'v> {
    let mut value = |argument: &'v FnArg| match argument {
        FnArg::Literal(literal) => constant(literal),
        FnArg::Test(test) => match nodes(test, current, walk).as_slice() {
            [value] => Operand::of(value),
            _ => Operand::Nothing,
        },
        FnArg::Filter(_) => Operand::Nothing,
    };
    match function {
        TestFunction::Value(argument) => value(argument),
        TestFunction::Length(argument) => match value(argument) {
            Operand::Text(text) => Operand::Integer(text.chars().count() as i128),
            Operand::Tree(tree) => {
                let len = tree.as_array().map(Vec::len).or_else(|| tree.as_object().map(serde_json::Map::len));
                len.map_or(Operand::Nothing, |len| Operand::Integer(len as i128))
            }
            Operand::Nothing | Operand::Null | Operand::Bool(_) | Operand::Integer(_) | Operand::Float(_) => {
                Operand::Nothing
            }
        },
        TestFunction::Count(FnArg::Test(test)) => Operand::Integer(nodes(test, current, walk).len() as i128),
        TestFunction::Count(FnArg::Literal(_) | FnArg::Filter(_))
        | TestFunction::Search(..)
        | TestFunction::Match(..)
        | TestFunction::Custom(..) => Operand::Nothing,
    }
}
