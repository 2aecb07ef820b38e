//! Who is calling, and may they.
//!
//! Nothing here speaks HTTP or waits for anybody: a request comes in as its signature sees it, an answer goes out as a
//! principal or as the reason why not. May import from `sigv4`, `lang` and the ground.

pub mod iam;

pub use iam::Iam;
