//! Several nodes in one thread and in virtual time: the real code above the ports, a model of everything below and around
//! it, and random histories of what clients, back-ends and misfortune do.
//!
//! | file | holds |
//! | --- | --- |
//! | `chance.rs` | the only source of chance: one seed is one history |
//! | `history.rs` | what happens, in which order |
//! | `process.rs` | a process that runs, stands still, or is dead |
//! | `store.rs` | the way to the registry, and how it fails |
//! | `network.rs` | the links between nodes, and how they fail |
//! | `gateway.rs` | a gateway in small, above a real node |
//! | `book.rs` | what really happened |
//! | `promises.rs` | what is promised |
//!
//! `CAUSEWAY_SIMULATION_HISTORIES` says how many histories are run (`CAUSEWAY_SIMULATION_REDIS_HISTORIES` over a real Redis), `CAUSEWAY_SIMULATION_SEED` where they begin; a history
//! that breaks a promise names its seed and ends its report with what happened last.

mod book;
mod chance;
mod gateway;
mod history;
mod network;
mod process;
mod promises;
mod store;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use self::book::Book;
use self::history::History;
use self::world::{Backing, World};
use super::tests;
use super::tests::servers::{Options, Server};

/// Histories in the normal test command.
const HISTORIES: u64 = 2_000;
/// Histories over a real Redis.
const REDIS_HISTORIES: u64 = 6;
/// Lines of a history that a report shows.
const SHOWN: usize = 150;

/// What was wrong once, and seeds of histories that broke a promise by it.
const ONCE_BROKEN: &[(&str, &[u64])] = &[
    ("a record listed twice, or looked at again while its call was under way, had two calls", &[30_000, 30_006]),
    ("a burial waited for the pause between two rounds over an older grave", &[30_440]),
    ("a write that failed was done long after; the registry went back by less than a second", &[30_105, 30_176]),
    ("a broken connection that a sweep ran into was no doubt", &[107_644]),
    ("a node left in order while a failed write of it could still be done", &[30_030, 30_611]),
    ("what failed while a node was declared dead was written again under its earlier incarnation", &[30_626, 31_093]),
    ("a message overtook a join that had no answer yet, and that was taken for a loss", &[503_459]),
    ("a group with members of the earlier incarnation was not entered under the new one", &[30_132]),
];

/// One history in virtual time.
fn run(seed: u64) -> Book {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(seed, Backing::memory(seed));
        History::run(&world).await;
        world.book.lock().clone()
    })
}

/// Histories in real time and at once, each on a registry of its own; `make` gives it to a seed. What is promised by the
/// clock needs a machine that is not too busy: a unit of 100 ms is a lease of a second.
async fn histories_on(make: impl Fn(u64) -> Backing, seeds: Range<u64>) {
    let one = |seed: u64| {
        let world = World::new(seed, make(seed));
        async move {
            History::run(&world).await;
            let book = world.book.lock().clone();
            report(seed, &book)
        }
    };
    let reports: Vec<String> = join_all(seeds.map(one)).await.into_iter().flatten().collect();
    assert!(reports.is_empty(), "{} histories break a promise:\n{}", reports.len(), reports.join("\n"));
}

fn number(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "for whoever looks for more, not for the product")]
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// What a history has broken, and what happened; nothing when it has kept every promise.
fn report(seed: u64, book: &Book) -> Option<String> {
    if book.broken.is_empty() {
        return None;
    }
    let last = book.trace.iter().skip(book.trace.len().saturating_sub(SHOWN)).cloned().collect::<Vec<_>>().join("\n");
    Some(format!("seed {seed} breaks promises:\n  {}\n{last}\n", book.broken.join("\n  ")))
}

#[test]
fn every_promise_holds_in_random_histories() {
    let first = number("CAUSEWAY_SIMULATION_SEED").unwrap_or(1);
    let count = number("CAUSEWAY_SIMULATION_HISTORIES").unwrap_or(HISTORIES);
    let (mut broken, mut counts) = (Vec::new(), BTreeMap::<&str, u64>::new());
    for seed in first..first + count {
        let book = run(seed);
        for (what, count) in &book.counts {
            *counts.entry(what).or_default() += count;
        }
        broken.extend(report(seed, &book).map(|report| (seed, book.broken[0].clone(), report)));
    }
    println!("{count} histories: {counts:#?}");
    if let Some((_, _, report)) = broken.first() {
        for (seed, what, _) in &broken {
            println!("{seed}: {what}");
        }
        panic!("{} of {count} histories break a promise; the first:\n{report}", broken.len());
    }
}

/// The same histories over the real scripts, so that the twin in memory and they cannot drift apart. Time is real here, so
/// histories are few, each with a Redis of its own, and leases are of two seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_holds_over_a_real_redis() {
    let first = number("CAUSEWAY_SIMULATION_SEED").unwrap_or(1);
    let count = number("CAUSEWAY_SIMULATION_REDIS_HISTORIES").unwrap_or(REDIS_HISTORIES);
    let make = |_| {
        let server = Arc::new(Server::start(&Options::default()));
        let registry = tests::redis(&server.url());
        let empty = Arc::new(move || server.flush());
        Backing { registry, empty, memory: None, unit: Duration::from_millis(200) }
    };
    histories_on(make, first..first + count).await;
}

#[test]
fn what_was_once_broken_holds() {
    for (what, seeds) in ONCE_BROKEN {
        for seed in *seeds {
            if let Some(report) = report(*seed, &run(*seed)) {
                panic!("{what}, again:\n{report}");
            }
        }
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in 1..20 {
        let (one, other) = (run(seed), run(seed));
        let trace = &one.trace;
        for (n, (one, other)) in one.trace.iter().zip(&other.trace).enumerate() {
            let before = trace.iter().take(n).skip(n.saturating_sub(20)).cloned().collect::<Vec<_>>().join("\n");
            assert_eq!(one, other, "seed {seed}, line {n}, after\n{before}");
        }
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}");
    }
}
