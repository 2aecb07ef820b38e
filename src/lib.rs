//! Causeway: a self-hosted, WebSocket-first, stateful API gateway.

pub mod clock;
pub mod fault;
pub mod ids;
pub mod message;
pub mod tasks;
