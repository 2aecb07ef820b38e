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

/// The one figure.
pub const FIGURES: [Figure; 1] = [Figure {
    name: "p99 of a push by another node at half load, µs",
    peer: "the owner",
    bar: Bar::RatioAtMost(5.0),
}];

/// Each round is so many short ones: a pause of the machine is in few of them, and the median has none.
const SLICES: usize = 4;

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
    let mut taken: [Vec<Paced>; 2] = Default::default();
    for counts in std::iter::once(false).chain(std::iter::repeat_n(true, slices)) {
        for node in [1, 0] {
            let slice = round / SLICES as u32;
            let paced = pace(&mut fleet, Pair::publishers(node), &posts[node], rate, slice)?;
            if counts {
                taken[node].push(paced);
            }
        }
        lab.step();
    }
    let all = |node: usize, quantile: f64| {
        let each = |one: &Paced| one.latency.value_at_quantile(quantile) as f64 / 1_000.0;
        taken[node].iter().map(each).collect::<Vec<_>>()
    };
    let (other, owner) = (all(1, 0.99), all(0, 0.99));
    let ratios: Vec<f64> = other.iter().zip(&owner).map(|(other, owner)| other / owner).collect();
    let late = |node: usize| {
        let each = |one: &Paced| one.lateness.value_at_quantile(0.99) as f64 / 1_000.0;
        median(&taken[node].iter().map(each).collect::<Vec<_>>())
    };
    let note = format!(
        "{rate:.0} posts a second, half of the owner's {most:.0}; {slices} rounds {:.2}–{:.2}; p50 {:.0} µs (owner {:.0}); the driver's own lateness p99 {:.0} µs (owner {:.0})",
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
        median(&all(1, 0.5)),
        median(&all(0, 0.5)),
        late(1),
        late(0),
    );
    let (other, owner) = (Some(median(&other)), Some(median(&owner)));
    lab.report.take(NAME, &FIGURES[0], other, owner, Some(median(&ratios)), note);
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
