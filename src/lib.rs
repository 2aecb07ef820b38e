//! Causeway: a self-hosted, WebSocket-first, stateful API gateway.

pub mod clock;
pub mod cluster;
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
pub mod tasks;
pub mod telemetry;
pub mod units;
pub mod upstream;
