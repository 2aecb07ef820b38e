//! A hundred ordinary sessions at an ordinary pace: how long their answers take, whatever their neighbours do.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;

use crate::lab::Lab;
use crate::load;
use crate::net::socket::Tune;
use crate::net::ws;
use crate::net::{Fleet, Handler, Link};
use crate::report::Figure;
use crate::service::{Guests, Service};

const SESSIONS: usize = 100;
/// Messages per second and session.
const RATE: u32 = 10;

/// Talk that is not counted, before the quiet talk.
pub const WARM_UP: Duration = Duration::from_secs(1);

/// A hundred sessions that talk.
#[derive(Debug)]
pub struct Paced {
    fleet: Fleet,
    message: Vec<u8>,
}

/// How it went.
#[derive(Debug)]
pub struct Pace {
    /// Nanoseconds from the write of a message to its answer.
    pub latency: Histogram<u64>,
    /// Nanoseconds from when a message was due to its write: the driver's own delay.
    pub lateness: Histogram<u64>,
}

#[derive(Debug)]
struct Listening {
    sent: Vec<VecDeque<Instant>>,
    latency: Histogram<u64>,
    ended: usize,
}

impl Handler for Listening {
    fn message(&mut self, _link: &mut Link, index: usize, _payload: &[u8]) {
        if let Some(sent) = self.sent[index].pop_front() {
            self.latency.saturating_record(sent.elapsed().as_nanos() as u64);
        }
    }

    fn closed(&mut self, _index: usize, _error: Option<anyhow::Error>) {
        self.ended += 1;
    }
}

impl Paced {
    /// Opens the sessions.
    pub fn open(service: &Service) -> Result<Self> {
        let mut fleet = Fleet::new()?;
        let tune = Tune { narrow: false, subnet: 9 };
        service.invite(&mut fleet, SESSIONS, &Guests { tune, ..Guests::default() })?;
        Ok(Self { fleet, message: ws::text(&load::message("echo", "")) })
    }

    /// Lets them talk for a while. Messages leave when they are due, answered or not, so that a server which stalls
    /// cannot hide it; one that is never answered is an error.
    pub fn talk(&mut self, duration: Duration) -> Result<Pace> {
        let mut listening =
            Listening { sent: vec![VecDeque::new(); SESSIONS], latency: histogram()?, ended: 0 };
        let mut lateness = histogram()?;
        let gap = Duration::from_secs(1) / (SESSIONS as u32 * RATE);
        let (begun, mut number) = (Instant::now(), 0_usize);
        loop {
            let due = begun + gap * number as u32;
            let now = Instant::now();
            if due > begun + duration {
                break;
            }
            if due > now {
                self.fleet.turn(Some(due - now), &mut listening)?;
                continue;
            }
            lateness.saturating_record((now - due).as_nanos() as u64);
            let index = number % SESSIONS;
            listening.sent[index].push_back(Instant::now());
            self.fleet.send(index, &self.message)?;
            number += 1;
            // A driver that is late still listens.
            self.fleet.turn(Some(Duration::ZERO), &mut listening)?;
        }
        self.fleet.until(
            Duration::from_secs(20),
            "the last answers",
            &mut listening,
            |listening| listening.ended > 0 || listening.sent.iter().all(VecDeque::is_empty),
        )?;
        if listening.ended > 0 {
            bail!("{} of {SESSIONS} well-behaved sessions were ended", listening.ended);
        }
        Ok(Pace { latency: listening.latency, lateness })
    }
}

/// Up to a minute, to three digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// Takes down p99 among bad neighbours beside the quiet one, in microseconds.
pub fn compare(
    lab: &mut Lab,
    scenario: &'static str,
    figure: &Figure,
    quiet: &Pace,
    loud: &Pace,
    more: &str,
) {
    let at = |of: &Histogram<u64>, quantile| of.value_at_quantile(quantile) as f64 / 1_000.0;
    let note = format!(
        "p50 {:.0} µs (quiet {:.0}), largest {:.0} µs (quiet {:.0}); {} messages; the driver's own lateness p99 {:.0} µs (quiet {:.0}){more}",
        at(&loud.latency, 0.5),
        at(&quiet.latency, 0.5),
        at(&loud.latency, 1.0),
        at(&quiet.latency, 1.0),
        loud.latency.len(),
        at(&loud.lateness, 0.99),
        at(&quiet.lateness, 0.99),
    );
    let (loud, quiet) = (at(&loud.latency, 0.99), at(&quiet.latency, 0.99));
    lab.report.take(scenario, figure, Some(loud), Some(quiet), None, note);
}
