//! Messages through a two-way route without a back-end, beside a bare tungstenite echo server.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::duel::{self, Taken};
use crate::lab::{Lab, Like, taking};
use crate::load;
use crate::net::ws;
use crate::net::{Fleet, Handler, Link};
use crate::report::{Bar, Figure};
use crate::service::{Guests, Service};

/// Name of the scenario.
pub const NAME: &str = "echo";

const SESSIONS: usize = 100;
const DEPTHS: [usize; 2] = [1, 16];
const SMALL_BUFFER: usize = 1_024;
const BAR: Bar = Bar::RatioAtMost(1.5);

/// Per depth: beside the library's defaults, beside its smallest sensible buffers.
pub const FIGURES: [Figure; 4] = [
    Figure { name: "CPU per message, 1 in flight, µs", peer: "tungstenite, defaults", bar: BAR },
    Figure {
        name: "CPU per message, 1 in flight, µs, beside small buffers",
        peer: "tungstenite, 1 KiB",
        bar: BAR,
    },
    Figure { name: "CPU per message, 16 in flight, µs", peer: "tungstenite, defaults", bar: BAR },
    Figure {
        name: "CPU per message, 16 in flight, µs, beside small buffers",
        peer: "tungstenite, 1 KiB",
        bar: BAR,
    },
];

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, DEPTHS.len() * 3 * (lab.options.rounds + 1));
    let services =
        [lab.gateway(Like::Echo)?, lab.echo_peer(None)?, lab.echo_peer(Some(SMALL_BUFFER))?];
    for (depth, figures) in DEPTHS.into_iter().zip(FIGURES.chunks(2)) {
        let mut sides: Vec<duel::Round<'_>> = Vec::new();
        for service in &services {
            let mut fleet = Fleet::new()?;
            service.invite(&mut fleet, SESSIONS, &Guests::default())?;
            let round = lab.round();
            sides.push(Box::new(move || echo(service, &mut fleet, "echo", depth, round)));
        }
        let scores = duel::run(lab.options.rounds, sides, &|| lab.step())?;
        for (figure, peer) in figures.iter().zip(scores.iter().skip(1)) {
            lab.compare(NAME, figure, &scores[0], peer);
        }
    }
    Ok(())
}

#[derive(Debug)]
struct Echo {
    message: Vec<u8>,
    answered: u64,
    outstanding: usize,
    stopping: bool,
    wrong: Option<String>,
}

impl Handler for Echo {
    fn message(&mut self, link: &mut Link, _index: usize, payload: &[u8]) {
        if payload.len() != load::BYTES {
            self.wrong = Some(format!(
                "an answer of {} bytes: {}",
                payload.len(),
                String::from_utf8_lossy(payload)
            ));
        }
        self.answered += 1;
        if self.stopping {
            self.outstanding -= 1;
        } else {
            link.send(&self.message);
        }
    }

    fn closed(&mut self, index: usize, error: Option<anyhow::Error>) {
        self.wrong = Some(format!("session {index} ended: {error:?}"));
    }
}

/// Keeps `depth` messages of a route in flight on every session for a while; ends when all are answered.
pub fn echo(
    service: &Service,
    fleet: &mut Fleet,
    route: &str,
    depth: usize,
    round: Duration,
) -> Result<Taken> {
    let message = ws::text(&load::message(route, ""));
    let burst = message.repeat(depth);
    let outstanding = depth * fleet.len();
    let mut echo = Echo { message, answered: 0, outstanding, stopping: false, wrong: None };
    taking(service, || {
        for index in 0..fleet.len() {
            fleet.send(index, &burst)?;
        }
        let until = Instant::now() + round;
        while echo.outstanding > 0 {
            echo.stopping = Instant::now() >= until;
            fleet.turn(Some(Duration::from_millis(100)), &mut echo)?;
            if let Some(wrong) = &echo.wrong {
                bail!("{wrong}");
            }
            if Instant::now() > until + Duration::from_secs(20) {
                bail!("{} messages were never answered", echo.outstanding);
            }
        }
        Ok(echo.answered)
    })
}
