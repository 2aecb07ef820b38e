//! Causeway: a self-hosted, WebSocket-first, stateful API gateway.
//!
//! Clients hold WebSocket sessions; each message is routed by its content to a stateless back-end; back-ends push to any
//! client by calling its `@connections` URL.
//!
//! # The floors
//!
//! A module imports only from floors below its own.
//!
//! ```text
//!  9  app
//!  8  config
//!  7  server
//!  6  gateway
//!  5  integration · auth
//!  4  cluster
//!  3  session · upstream · definition
//!  2  routing · context
//!  1  lang · sigv4 · telemetry · document
//!  0  ids · clock · message · fault · limits · units · secret · memory · tasks
//! ```
//!
//! # The journeys
//!
//! - A client connects: `server` parses the upgrade, [`gateway::Gateway::connect`] decides, [`session::Hub::open`] makes
//!   the session.
//! - A client's message: [`session`] reads a whole message, [`routing`] picks the route, [`integration`] calls what stands
//!   behind it, the answer leaves through the session.
//! - A back-end pushes: `server` parses the call, [`gateway::Gateway::push`] finds the session, [`session::Session::push`]
//!   writes.
//!
//! `docs/architecture.md` tells them with the reasons. To run it: `cargo run --release -- dev`.

pub mod app;
pub mod auth;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod context;
pub mod definition;
pub mod document;
pub mod fault;
pub mod gateway;
pub mod ids;
pub mod integration;
pub mod lang;
pub mod limits;
pub mod memory;
pub mod message;
pub mod routing;
pub mod secret;
pub mod server;
pub mod session;
pub mod sigv4;
pub mod tasks;
pub mod telemetry;
pub mod units;
pub mod upstream;

/// Parsers of foreign bytes that are private otherwise, for fuzz targets alone. Not part of the interface.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::cluster::link::fuzzing::{Taken, link_frames, link_hello};
    pub use crate::server::fuzzing::{Opening, client, opening, proxy_header};
    pub use crate::session::fuzzing::{Heard, listen};
}
