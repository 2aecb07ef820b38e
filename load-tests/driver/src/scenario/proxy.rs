//! Messages through an HTTP back-end, beside a bare hyper client that makes the same POSTs to the same server.

use anyhow::{Context, Result};

use super::echo::echo;
use crate::duel::{self, Taken};
use crate::gauge;
use crate::lab::Lab;
use crate::net::Fleet;
use crate::report::{Bar, Figure};
use crate::service::Guests;

/// Name of the scenario.
pub const NAME: &str = "http-proxy";

/// The one figure.
pub const FIGURES: [Figure; 1] = [Figure {
    name: "CPU per message through HTTP_PROXY, µs",
    peer: "bare hyper client",
    bar: Bar::RatioAtMost(2.0),
}];

/// Requests at once, on both sides: a session each, one message in flight.
const IN_FLIGHT: usize = 16;

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, 2 * (lab.options.rounds + 1));
    let origin = lab.origin()?;
    let gateway = lab.gateway_before(origin.plain)?;
    let mut poster = lab.poster(origin.plain, IN_FLIGHT)?;
    let mut fleet = Fleet::new()?;
    gateway.invite(&mut fleet, IN_FLIGHT, &Guests::default())?;
    let round = lab.round();
    let proxied: duel::Round<'_> = Box::new(|| echo(&gateway, &mut fleet, "proxy", 1, round));
    let bare: duel::Round<'_> = Box::new(|| {
        let (cpu, begun) = (gauge::cpu(poster.pid())?, std::time::Instant::now());
        let answered = poster.ask(&round.as_millis().to_string())?;
        let units = answered.parse().context("the bare HTTP client failed")?;
        let cpu = gauge::cpu(poster.pid())?.saturating_sub(cpu);
        Ok(Taken { cpu, wall: begun.elapsed(), driver: std::time::Duration::ZERO, units })
    });
    let scores = duel::run(lab.options.rounds, vec![proxied, bare], &|| lab.step())?;
    if let [gateway, peer] = scores.as_slice() {
        lab.compare(NAME, &FIGURES[0], gateway, peer);
    }
    Ok(())
}
