//! The harness: [`TestGateway`], [`Client`], [`Backend`], and waiting for things to become true.

mod backend;
mod client;
mod deflate;
mod frame;
mod functions;
mod gateway;
mod http;
mod sign;

use std::future::Future;
use std::time::Duration;

pub(crate) use backend::{Backend, Gate, Recorded, Reply};
pub(crate) use client::{Client, Connect, FIXED_KEY};
pub(crate) use deflate::{deflate, inflate};
pub(crate) use frame::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, TEXT};
pub(crate) use functions::{Functions, accepted, error};
pub(crate) use gateway::{Builder, TestGateway, refusal_of, self_signed};
pub(crate) use http::{HttpAnswer, Wire, read_answer};
pub(crate) use sign::Signer;

/// How long anything may take that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long something that must not happen is waited for. Everything here is on loopback, where what happens at all
/// happens within a few milliseconds.
pub(crate) const ABSENCE: Duration = Duration::from_millis(150);
/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits for something that must happen; panics with `what` when patience ends.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}

/// Asserts that something does not happen for [`ABSENCE`].
pub(crate) async fn never<T: std::fmt::Debug>(what: &str, future: impl Future<Output = T>) {
    if let Ok(happened) = tokio::time::timeout(ABSENCE, future).await {
        panic!("{what}: {happened:?}");
    }
}
