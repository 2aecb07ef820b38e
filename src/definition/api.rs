//! An API, its stages, their variables and limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Route;
use crate::ids::{ApiId, StageName};
use crate::lang::policy::Policy;
use crate::limits::Limits;
use crate::routing::WebSocketRoutes;

/// What happens to a binary frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BinaryFrames {
    /// Close 1003, as the service does.
    #[default]
    Reject,
    /// Hand it on base64-encoded.
    Accept,
}

/// One WebSocket API, compiled.
#[derive(Debug)]
pub struct Api {
    /// Its id: also the first label of its default host.
    pub id: ApiId,
    /// What happens to binary frames.
    pub binary_frames: BinaryFrames,
    /// Whether `permessage-deflate` is negotiated when offered.
    pub compression: bool,
    /// `disableExecuteApiEndpoint`: the default host refuses handshakes and callbacks.
    pub default_endpoint_disabled: bool,
    /// Custom domain names.
    pub domains: Vec<Domain>,
    /// Origins that may call the callback paths from a web page; none by default.
    pub callback_origins: Vec<String>,
    /// Who may connect and call back, from where, as far as the API itself says.
    pub policy: Option<Arc<Policy>>,
    /// The `$connect` route.
    pub connect: Option<Arc<Route>>,
    /// The `$disconnect` route.
    pub disconnect: Option<Arc<Route>>,
    /// Custom routes and `$default`.
    pub routes: WebSocketRoutes<Arc<Route>>,
    /// Its stages.
    pub stages: BTreeMap<StageName, Arc<Stage>>,
}

/// A custom domain name's mapping to a stage of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Host, lower case; may start with `*.`.
    pub name: String,
    /// First path segment; empty for the root mapping.
    pub key: String,
    /// The stage it leads to.
    pub stage: StageName,
}

/// A stage of an API.
#[derive(Debug)]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// Its variables.
    pub variables: BTreeMap<String, String>,
    /// What a session may use.
    pub limits: Limits,
    /// Access-log format, one line with `$context` variables; `None` takes the process's.
    pub access_log_format: Option<String>,
}
