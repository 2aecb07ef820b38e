//! Memory: sessions that do nothing, that have spoken once, and that have left.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::gauge::settled;
use crate::lab::{Lab, Like};
use crate::load;
use crate::net::ws::{self, Headers};
use crate::net::{Fleet, Handler, Link};
use crate::report::{Bar, Figure};
use crate::service::{Guests, Kind, Service};

/// Sessions that come and go before the first reading, so that what exists once per process is there.
const WARM_UP: usize = 200;

/// How many speak at a time: a burst of all would measure queues, not sessions.
const SPEAKERS: usize = 250;

/// Plain or over TLS.
#[derive(Debug)]
pub struct Variant {
    /// Name of the scenario.
    pub name: &'static str,
    /// Idle, spoken, growth by speaking, left.
    pub figures: [Figure; 4],
    tls: bool,
}

const fn memory(name: &'static str, most: f64) -> Figure {
    Figure { name, peer: "", bar: Bar::AtMost(most) }
}

// Readings are whole pages; a few pages more or less are no growth of sessions.
const GROWTH: Figure = memory("growth by speaking, B per session", 4.0);
const LEFT: Figure = memory("private memory after all left, share of the start", 1.10);

/// Over plain sockets.
pub const PLAIN: Variant = Variant {
    name: "idle",
    figures: [
        memory("private memory per idle session, B", 256.0),
        memory("the same after each spoke once, B", 256.0),
        GROWTH,
        LEFT,
    ],
    tls: false,
};

/// Over TLS.
pub const TLS: Variant = Variant {
    name: "idle-tls",
    figures: [
        memory("private memory per idle session, B", 6_144.0),
        memory("the same after each spoke once, B", 6_144.0),
        GROWTH,
        LEFT,
    ],
    tls: true,
};

/// Runs it.
pub fn run(lab: &mut Lab, variant: &Variant) -> Result<()> {
    let sessions = lab.options.sessions;
    lab.begin(variant.name, 5);
    let service =
        if variant.tls { lab.gateway_over_tls(Like::Echo) } else { lab.gateway(Like::Echo) }?;
    let tls = variant.tls.then_some(&lab.identity.client);
    let guests = Guests { tls, headers: Headers::Browser, ..Guests::default() };
    let pid = *service.pids.last().unwrap_or(&service.process.pid());
    let patience = Duration::from_secs(10);

    let mut fleet = Fleet::new()?;
    service.invite(&mut fleet, WARM_UP, &guests)?;
    speak(&service, &mut fleet)?;
    fleet.leave(patience)?;
    let start = settled(pid, patience, |_| true)?;
    lab.step();

    service.invite(&mut fleet, sessions, &guests)?;
    let idle = settled(pid, patience, |_| true)?;
    lab.step();
    speak(&service, &mut fleet)?;
    let spoken = settled(pid, patience, |_| true)?;
    lab.step();
    if fleet.living() != sessions {
        bail!("{} of {sessions} sessions are left", fleet.living());
    }
    let cut = fleet.leave(Duration::from_secs(60))?;
    lab.step();
    let most = start + start / 10;
    let left = settled(pid, Duration::from_secs(30), |now| now <= most)?;
    lab.step();

    let each = |now: u64| (now as f64 - start as f64) / sessions as f64;
    let [idle_figure, spoken_figure, growth, left_figure] = &variant.figures;
    let about = format!("{sessions} sessions, {} KiB private at the start", start / 1_024);
    lab.note(variant.name, idle_figure, each(idle), about);
    lab.note(variant.name, spoken_figure, each(spoken), String::new());
    lab.note(variant.name, growth, each(spoken) - each(idle), String::new());
    let about = format!(
        "{} KiB, then {} KiB; {cut} sessions had to be cut off",
        start / 1_024,
        left / 1_024
    );
    lab.note(variant.name, left_figure, left as f64 / start as f64, about);
    Ok(())
}

/// Counts answers.
#[derive(Debug, Default)]
struct Heard(usize);

impl Handler for Heard {
    fn message(&mut self, _link: &mut Link, _index: usize, _payload: &[u8]) {
        self.0 += 1;
    }
}

/// Every session sends one message and hears its answer.
fn speak(service: &Service, fleet: &mut Fleet) -> Result<()> {
    if service.kind == Kind::Nchan {
        // A subscriber has nothing to say.
        return Ok(());
    }
    let message = ws::text(&load::message("echo", ""));
    let mut heard = Heard::default();
    for first in (0..fleet.len()).step_by(SPEAKERS) {
        let last = (first + SPEAKERS).min(fleet.len());
        for index in first..last {
            fleet.send(index, &message)?;
        }
        fleet.until(Duration::from_secs(20), "answers", &mut heard, |heard| heard.0 >= last)?;
    }
    Ok(())
}
