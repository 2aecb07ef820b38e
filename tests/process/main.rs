//! The process as its users see it: the real binary, started, signalled, starved and ended.
//!
//! A new test goes to the theme it is about: `start` (first line, exit codes, refusals), `check`, `operate` (the
//! `connections` command), `reload`, `drain`, `tls`, `files` (open files, memory of slow readers), `load_balancer` (a real
//! HAProxy in front), `nodes` (the `nodes` command over several processes and a Redis), `cluster` (several nodes over a real
//! Redis, and what may happen to them).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and runs its own clients and back-ends"
)]

mod check;
mod cluster;
mod drain;
mod files;
mod load_balancer;
mod nodes;
mod operate;
mod reload;
mod start;
mod support;
mod tls;
