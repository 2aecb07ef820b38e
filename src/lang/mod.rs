//! The small languages inside a definition: selection expressions, JSONPath, mapping templates, policies. Pure, no I/O.
//!
//! All are compiled when a definition is loaded; what is wrong with one is known then. Running one cannot fail but for
//! a payload that is not JSON or an output beyond its limit. Source: sections 3, 4.7 and 12 of the specification of
//! WebSocket APIs.

pub mod jsonpath;
pub mod loose;
pub mod policy;
mod print;
pub mod selection;
mod stream;
pub mod template;

use std::borrow::Cow;

pub use jsonpath::JsonPath;
pub use selection::Selection;
pub use template::Template;

/// The value of one `$context` variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Variable<'a> {
    /// Text; nearly all of them.
    Text(Cow<'a, str>),
    /// A number: `connectedAt`, `requestTimeEpoch`, `disconnectStatusCode`.
    Number(i64),
}

/// How an expression looks things up; implemented by `context`.
pub trait Variables {
    /// A `$context` variable by its dotted path without the prefix, for example `identity.sourceIp`; `None` without value.
    fn context(&self, path: &str) -> Option<Variable<'_>>;
    /// A stage variable.
    fn stage_variable(&self, name: &str) -> Option<&str>;
    /// All values of a handshake header, name compared without case; empty on message and disconnect events.
    fn headers(&self, name: &str) -> Vec<&str>;
    /// All values of a handshake query parameter, decoded; empty on message and disconnect events.
    fn query(&self, name: &str) -> Vec<&str>;
}

#[cfg(test)]
mod tests;
