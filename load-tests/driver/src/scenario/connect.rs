//! Handshakes per second and what each costs, plain and over TLS, beside nchan's.

use std::time::Duration;

use anyhow::Result;

use crate::duel;
use crate::lab::{Lab, Like, taking};
use crate::net::Fleet;
use crate::net::socket::Tune;
use crate::net::ws::Headers;
use crate::report::{Bar, Figure};
use crate::service::{Guests, Service};

/// Name of the scenario.
pub const NAME: &str = "connect";

const PEER: &str = "nchan";

/// Plain: cost, rate; over TLS: cost, rate.
pub const FIGURES: [Figure; 4] = [
    Figure { name: "CPU per handshake, µs", peer: PEER, bar: Bar::Recorded },
    Figure { name: "handshakes per second", peer: PEER, bar: Bar::Recorded },
    Figure { name: "CPU per TLS handshake, µs", peer: PEER, bar: Bar::Recorded },
    Figure { name: "TLS handshakes per second", peer: PEER, bar: Bar::Recorded },
];

/// Handshakes of a round, plain and over TLS.
const PER_ROUND: [usize; 2] = [3_000, 1_000];

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, 4 * (lab.options.rounds + 1));
    let nchan = lab.nchan()?;
    for (over_tls, figures) in [false, true].into_iter().zip(FIGURES.chunks(2)) {
        let gateway =
            if over_tls { lab.gateway_over_tls(Like::Nchan) } else { lab.gateway(Like::Nchan) }?;
        let sessions = PER_ROUND[usize::from(over_tls)];
        let tls = over_tls.then_some(&lab.identity.client);
        let tune = Tune { narrow: false, subnet: 3 };
        let guests = Guests { tls, tune, headers: Headers::Browser, ..Guests::default() };
        let sides: Vec<duel::Round<'_>> = [&gateway, &nchan]
            .into_iter()
            .map(|service| Box::new(move || open(service, sessions, &guests)) as duel::Round<'_>)
            .collect();
        let scores = duel::run(lab.options.rounds, sides, &|| lab.step())?;
        if let ([cost, rate], [gateway, peer]) = (figures, scores.as_slice()) {
            lab.compare(NAME, cost, gateway, peer);
            let note = "all on one processor; near 100 % driver it is the driver's rate".to_owned();
            lab.report.take(NAME, rate, Some(gateway.rate), Some(peer.rate), None, note);
        }
    }
    Ok(())
}

/// Opens sessions, 64 handshakes at a time; their end is not counted, but waited for.
pub fn open(service: &Service, sessions: usize, guests: &Guests<'_>) -> Result<duel::Taken> {
    let mut fleet = Fleet::new()?;
    let taken = taking(service, || {
        service.invite(&mut fleet, sessions, guests)?;
        Ok(sessions as u64)
    })?;
    fleet.leave(Duration::from_secs(10))?;
    std::thread::sleep(Duration::from_millis(200));
    Ok(taken)
}
