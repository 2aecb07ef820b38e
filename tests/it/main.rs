//! Integration tests: a real gateway, real sockets, real back-ends, all in this process.
//!
//! | file | a test goes here when it is about |
//! | --- | --- |
//! | `handshake.rs` | addresses, the 101, what a `$connect` integration sees, subprotocols |
//! | `refusals.rs` | handshakes that are answered anything but 101 |
//! | `lifecycle.rs` | `$connect` before the 101, `$disconnect` after the end, concurrency, order |
//! | `routing.rs` | which route a message takes |
//! | `http_integrations.rs` | `HTTP` and `HTTP_PROXY`: what the back-end sees, what the client gets |
//! | `authorizers.rs` | functions that decide who may connect |
//! | `lambda.rs` | functions: the events they get, what comes of their answers |
//! | `lambda_failures.rs` | functions that fail, and an Invoke API that does |
//! | `mock_and_group.rs` | `MOCK`, templates, groups |
//! | `connections.rs` | `@connections`, `@groups`, `@all` |
//! | `signatures.rs` | signed callbacks: whose signature counts, what policies allow |
//! | `iam.rs` | signed handshakes, resource policies |
//! | `limits.rs` | sizes, idle and age limits, slow readers, places for sessions |
//! | `frames.rs` | the WebSocket protocol: fragments, masks, control frames, closing |
//! | `compression.rs` | `permessage-deflate` |
//! | `errors.rs` | error frames and ids |
//! | `reload.rs` | new definitions under open sessions |
//! | `drain.rs` | leaving: SIGTERM while anything goes on |
//! | `bad_input.rs` | hostile or broken peers, and their neighbours, who must not notice |
//! | `start.rs` | definitions and addresses a gateway does not start with |
//! | `proxies.rs` | who the client is behind proxies: PROXY headers, `X-Forwarded-For`, `Forwarded` |
//! | `tls.rs` | `wss` |
//! | `observe.rs` | health, metrics, access log, the list of connections |
//!
//! A test that proves numbers of the specification's checklist says so in a comment directly above it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a test fails by panicking, spawns what it needs, and may take its time to make a text"
)]

mod support;

mod authorizers;
mod bad_input;
mod compression;
mod connections;
mod drain;
mod errors;
mod frames;
mod handshake;
mod http_integrations;
mod iam;
mod lambda;
mod lambda_failures;
mod lifecycle;
mod limits;
mod mock_and_group;
mod observe;
mod proxies;
mod refusals;
mod reload;
mod routing;
mod signatures;
mod start;
mod tls;
