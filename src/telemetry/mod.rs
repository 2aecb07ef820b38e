//! What an operator sees: logs, metrics, access log.

pub mod access_log;
pub mod labels;
pub mod metrics;
pub mod trace;

pub use access_log::{AccessLog, Entry, Format};
pub use metrics::{Metrics, StageMetrics};
pub use trace::{LogFormat, init};
