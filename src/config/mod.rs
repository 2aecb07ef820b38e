//! The process configuration: flags, environment and `causeway.yaml`, put together once and given out as plain values.
//!
//! The only reader of the environment. Every flag `--name` has a variable `CAUSEWAY_NAME` and a key `name` in the file (one
//! section, `iam`, has more levels than a flag could hold and stands in the file alone);
//! flags win over the environment, the environment over the file, the file over the default. What is served stands in
//! the definitions, not here.

mod cli;
mod cluster;
mod iam;
mod options;
mod settings;
#[cfg(test)]
mod tests;

pub use cli::{
    AdminArgs, CheckArgs, Cli, Command, ConnectionsArgs, ConnectionsCommand, NodesArgs, NodesCommand, ServeArgs,
};
pub use cluster::{ClusterSettings, NodeCertificates};
pub use iam::IamFile;
pub use options::{ForwardedHeader, LogFormat, LogLevel, Options, Switch};
pub use settings::{AccessLog, Mode, Settings, Tls, json_schema};

/// A variable of the process's environment: what answers `${env:NAME}`.
pub fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    std::env::var(name).ok()
}
