//! A Lambda function that decides who may connect (specification 8.2).

use std::time::Duration;

use super::function::FunctionUri;

/// `authorizerType: REQUEST`.
#[derive(Debug)]
pub struct Authorizer {
    /// Its name in the definition.
    pub name: String,
    /// `authorizerUri`.
    pub function: FunctionUri,
    /// What a handshake must have for the function to be asked at all.
    pub sources: Vec<IdentitySource>,
}

impl Authorizer {
    /// How long the function may take, as any integration by default.
    pub const TIMEOUT: Duration = Duration::from_secs(29);
}

/// One `identitySource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// `route.request.header.{name}`
    Header(String),
    /// `route.request.querystring.{name}`
    Query(String),
    /// `stageVariables.{name}`
    StageVariable(String),
    /// `context.{path}`
    Context(String),
}
