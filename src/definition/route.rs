//! Route settings.

use std::sync::Arc;

use super::{Authorizer, Integration};
use crate::ids::RouteKey;

/// How messages of one connection on one route relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// Independently of each other, as the service does.
    #[default]
    Parallel,
    /// One after the other, in the order they came.
    Serial,
}

/// One route, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its key.
    pub key: RouteKey,
    /// What it calls. `None`: a route without target; a message on it gets `Internal server error` (specification 2.2.5).
    pub integration: Option<Integration>,
    /// Whether the integration's answer goes back to the client.
    pub two_way: bool,
    /// How messages of one connection relate.
    pub ordering: Ordering,
    /// How its clients are recognised; on `$connect` only.
    pub authorization: Authorization,
}

/// How clients are recognised.
#[derive(Debug, Clone, Default)]
pub enum Authorization {
    /// Not at all.
    #[default]
    None,
    /// By a signature, and by what the signer's policies say (specification 8.3).
    Iam,
    /// By a function (specification 8.2).
    Custom(Arc<Authorizer>),
}
