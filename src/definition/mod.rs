//! What an API is: immutable, checked when loaded.
//!
//! `file` is the form of `routes/*.yaml`, `load` reads it, `compile` turns it into the types of `api`, `route` and
//! `integration`, which are all the rest of the gateway ever sees. A snapshot has no mistakes: whatever could be told to
//! be wrong kept it from being made, with every problem reported at once.

pub mod api;
pub mod authorizer;
mod compile;
#[expect(dead_code, reason = "keys without an effect stand there for the schema alone")]
mod file;
pub mod function;
pub mod integration;
mod load;
mod print;
pub mod route;

use std::sync::Arc;

pub use api::{Api, BinaryFrames, Domain, Stage};
pub use authorizer::{Authorizer, IdentitySource};
pub use function::{Function, FunctionUri};
pub use integration::{Group, GroupAction, Http, Integration, Lambda, Mock};
pub use load::{fingerprint, json_schema, load, load_texts};
pub use print::print_routes;
pub use route::{Authorization, Ordering, Route};

pub use crate::document::{Environment, Place, Problem, Problems, empty_environment};
use crate::ids::ApiId;

/// Every API of the gateway at one moment. A reload builds a whole new one; nothing in a published one ever changes.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The APIs, sorted by id.
    pub apis: Vec<Arc<Api>>,
}

impl Snapshot {
    /// The API with an id.
    pub fn api(&self, id: &ApiId) -> Option<&Arc<Api>> {
        self.apis.binary_search_by(|api| api.id.cmp(id)).ok().and_then(|index| self.apis.get(index))
    }
}

#[cfg(test)]
mod tests;
