//! `permessage-deflate` (RFC 7692) in both directions, with no context taken over in either (specification 13.6).
//!
//! A compressed message stands for itself, so nothing of the codec outlives it: an [`InflateEngine`] and a [`Deflator`]
//! belong to a shard and serve all its sessions, and an idle session pays nothing for having negotiated compression.
//!
//! The protocol library knows no extensions. [`Inflator`] therefore stands in front of it: it takes what the client sent
//! and gives the library the same stream with every compressed message replaced by one uncompressed frame.
//!
//! ```
//! let agreement = causeway::session::negotiate(["permessage-deflate; client_max_window_bits"]).unwrap();
//! assert_eq!(
//!     agreement.response,
//!     "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
//! );
//! ```

mod compress;
mod inflate;
mod offer;

pub(super) use compress::{Deflator, WORTHWHILE_BYTES};
pub(super) use inflate::{FrameLimits, InflateEngine, InflateError, Inflator};
pub use offer::{Agreement, negotiate};

#[cfg(test)]
mod distance;
#[cfg(test)]
mod tests;
