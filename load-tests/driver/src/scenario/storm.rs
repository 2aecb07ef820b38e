//! Everybody drops and comes back at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::gauge::settled;
use crate::lab::{Lab, Like};
use crate::net::Fleet;
use crate::net::socket::Tune;
use crate::net::ws::Headers;
use crate::report::{Bar, Figure};
use crate::service::Guests;

/// Name of the scenario.
pub const NAME: &str = "reconnect-storm";

/// Missing at the end; time; cost; memory.
pub const FIGURES: [Figure; 4] = [
    Figure { name: "sessions that did not come back", peer: "", bar: Bar::AtMost(0.0) },
    Figure { name: "until all are back, s", peer: "", bar: Bar::Recorded },
    Figure { name: "CPU per session dropped and opened again, µs", peer: "", bar: Bar::Recorded },
    Figure { name: "private memory, share of that before the storm", peer: "", bar: Bar::Recorded },
];

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, 3);
    let sessions = lab.options.sessions;
    let mut service = lab.gateway(Like::Echo)?;
    let pid = service.process.pid();
    let tune = |subnet| Tune { narrow: false, subnet };
    let calm = Guests { headers: Headers::Browser, tune: tune(11), ..Guests::default() };
    let mut fleet = Fleet::new()?;
    service.invite(&mut fleet, sessions, &calm)?;
    let before = settled(pid, Duration::from_secs(10), |_| true)?;
    lab.step();

    let (begun, cpu) = (Instant::now(), service.cpu()?);
    // Dropped without a word, as when a proxy in front of them dies.
    drop(fleet);
    let mut fleet = Fleet::new()?;
    let storm = Guests { window: sessions, retry: true, tune: tune(13), ..calm };
    let opened = service.invite(&mut fleet, sessions, &storm)?;
    let took = begun.elapsed();
    let cost = (service.cpu()?.saturating_sub(cpu)).as_secs_f64() * 1e6 / sessions as f64;
    lab.step();
    service.process.alive().context("the server did not live through it")?;

    let after = settled(pid, Duration::from_secs(10), |_| true)?;
    // Whoever is closed again shows by now.
    fleet.turn(Some(Duration::ZERO), &mut ())?;
    let missing = sessions - fleet.living();
    let note = format!(
        "{sessions} sessions; {} refusals were tried again; from connecting to established p50 {} ms, p99 {} ms",
        opened.refused,
        opened.latency.value_at_quantile(0.5) / 1_000,
        opened.latency.value_at_quantile(0.99) / 1_000
    );
    lab.note(NAME, &FIGURES[0], missing as f64, note);
    lab.note(NAME, &FIGURES[1], took.as_secs_f64(), String::new());
    lab.note(NAME, &FIGURES[2], cost, String::new());
    lab.note(NAME, &FIGURES[3], after as f64 / before as f64, String::new());
    lab.step();
    Ok(())
}
