//! The client side: many non-blocking sockets, one readiness set, one thread.

pub mod fleet;
pub mod http1;
pub mod link;
pub mod sign;
pub mod socket;
pub mod tls;
pub mod ws;

pub use fleet::{Fleet, Handler, Opening};
pub use link::{Link, Speaks};
