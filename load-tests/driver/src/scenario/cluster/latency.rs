//! How long a post takes to its client, at the same pace over another node and to the owner.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;

use super::Pair;
use crate::gauge::median;
use crate::lab::Lab;
use crate::net::{Fleet, Handler, Link};
use crate::report::{Bar, Figure};
use crate::scenario::push::{SESSIONS, push};

/// Name of the scenario.
pub const NAME: &str = "cluster-latency";

/// At p99, which other work of the machine decides if there is any, and in the middle.
pub const FIGURES: [Figure; 2] = [
    Figure {
        name: "p99 of a push by another node at half load, µs",
        peer: "the owner",
        bar: Bar::RatioAtMost(5.0),
    },
    Figure {
        name: "p50 of a push by another node at half load, µs",
        peer: "the owner",
        bar: Bar::Recorded,
    },
];

/// Each round is so many short ones: a pause of the machine is in few of them, and the median has none.
const SLICES: usize = 20;

/// A round in which the driver's own p99 lateness is above this says nothing about a node.
const CALM: Duration = Duration::from_millis(1);
/// So many calm pairs of rounds are enough; with fewer all count.
const ENOUGH: usize = 10;

/// Posts that may wait for their delivery; more means that the pace is not kept.
const MOST_WAITING: usize = 50_000;

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    let slices = SLICES * lab.options.rounds;
    lab.begin(NAME, slices + 2);
    let Pair { cluster, mut fleet, posts } = Pair::open(lab.cluster(2)?)?;
    let (pids, round) = (cluster.pids(), lab.round());
    // The pace is half of what the owner does at most; the same over the other node.
    let mut most = 0.0_f64;
    for node in [1, 0, 0] {
        let taken = push(&pids, &mut fleet, Pair::publishers(node), &posts[node], round)?;
        if node == 0 {
            most = most.max(taken.units as f64 / taken.wall.as_secs_f64());
        }
    }
    lab.step();
    let rate = most / 2.0;
    let mut taken: Vec<[Paced; 2]> = Vec::new();
    let slice = round / SLICES as u32;
    for counts in std::iter::once(false).chain(std::iter::repeat_n(true, slices)) {
        let mut side =
            |node: usize| pace(&mut fleet, Pair::publishers(node), &posts[node], rate, slice);
        let (other, owner) = (side(1)?, side(0)?);
        if counts {
            taken.push([owner, other]);
        }
        lab.step();
    }
    let is_calm = |pair: &[Paced; 2]| {
        pair.iter().all(|one| one.lateness.value_at_quantile(0.99) < CALM.as_nanos() as u64)
    };
    let calm = taken.iter().filter(|pair| is_calm(pair)).count();
    if calm >= ENOUGH {
        taken.retain(is_calm);
    }
    for (figure, quantile) in FIGURES.iter().zip([0.99, 0.5]) {
        let of = |node: usize, what: &dyn Fn(&Paced) -> &Histogram<u64>| {
            let at = |pair: &[Paced; 2]| what(&pair[node]).value_at_quantile(quantile) as f64;
            taken.iter().map(|pair| at(pair) / 1_000.0).collect::<Vec<_>>()
        };
        let [owner, other] = [0, 1].map(|node| of(node, &|one| &one.latency));
        let [late, owner_late] = [1, 0].map(|node| median(&of(node, &|one| &one.lateness)));
        let ratios: Vec<f64> =
            other.iter().zip(&owner).map(|(other, owner)| other / owner).collect();
        let note = format!(
            "{rate:.0} posts a second, half of the owner's {most:.0}; {} pairs of rounds count, {calm} of {slices} were calm; {:.2}–{:.2}; the driver's own lateness {late:.0} µs (owner {owner_late:.0})",
            taken.len(),
            ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratios.iter().copied().fold(0.0, f64::max),
        );
        let (other, owner) = (Some(median(&other)), Some(median(&owner)));
        lab.report.take(NAME, figure, other, owner, Some(median(&ratios)), note);
    }
    Ok(())
}

/// How a round went, in nanoseconds.
struct Paced {
    /// From the write of a post to its message at the client.
    latency: Histogram<u64>,
    /// From when a post was due to its write: the driver's own delay.
    lateness: Histogram<u64>,
}

struct Arrivals {
    sent: Vec<VecDeque<Instant>>,
    latency: Histogram<u64>,
    waiting: usize,
    unanswered: usize,
    wrong: Option<String>,
}

impl Handler for Arrivals {
    fn message(&mut self, _link: &mut Link, index: usize, _payload: &[u8]) {
        if let Some(sent) = self.sent.get_mut(index).and_then(VecDeque::pop_front) {
            self.latency.saturating_record(sent.elapsed().as_nanos() as u64);
            self.waiting -= 1;
        }
    }

    fn answer(&mut self, _link: &mut Link, _index: usize, status: u16) {
        self.unanswered -= 1;
        if status != 200 {
            self.wrong = Some(format!("a post was answered {status}"));
        }
    }

    fn closed(&mut self, index: usize, error: Option<anyhow::Error>) {
        self.wrong = Some(format!("link {index} ended: {error:?}"));
    }
}

/// Posts at a pace, answered or not, to one session after the other. Polls without rest: a pause of the least length that
/// the kernel offers would be twenty posts long.
fn pace(
    fleet: &mut Fleet,
    publishers: Range<usize>,
    posts: &[Vec<u8>],
    rate: f64,
    duration: Duration,
) -> Result<Paced> {
    let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3);
    let mut lateness = histogram()?;
    let mut arrivals = Arrivals {
        sent: vec![VecDeque::new(); SESSIONS],
        latency: histogram()?,
        waiting: 0,
        unanswered: 0,
        wrong: None,
    };
    let begun = Instant::now();
    let mut number = 0_usize;
    loop {
        let due = Duration::from_secs_f64(number as f64 / rate);
        if due > duration {
            break;
        }
        let passed = begun.elapsed();
        if due > passed {
            fleet.turn(Some(Duration::ZERO), &mut arrivals)?;
        } else {
            lateness.saturating_record(passed.saturating_sub(due).as_nanos() as u64);
            let session = number % SESSIONS;
            arrivals.sent[session].push_back(Instant::now());
            arrivals.waiting += 1;
            arrivals.unanswered += 1;
            fleet.send(publishers.start + number % publishers.len(), &posts[session])?;
            number += 1;
            // A driver that is late still listens.
            if number.is_multiple_of(8) {
                fleet.turn(Some(Duration::ZERO), &mut arrivals)?;
            }
        }
        if let Some(wrong) = arrivals.wrong {
            bail!("{wrong}");
        }
        if arrivals.waiting > MOST_WAITING {
            bail!("{rate:.0} posts a second are more than it can do: {MOST_WAITING} wait");
        }
    }
    let done = |arrivals: &Arrivals| {
        arrivals.wrong.is_some() || (arrivals.waiting == 0 && arrivals.unanswered == 0)
    };
    fleet.until(Duration::from_secs(10), "the last posts", &mut arrivals, done)?;
    if let Some(wrong) = arrivals.wrong {
        bail!("{wrong}");
    }
    Ok(Paced { latency: arrivals.latency, lateness })
}
