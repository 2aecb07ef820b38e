//! Handshakes of a node whose records go to Redis, beside a node that is alone.

use anyhow::{Context, Result};

use crate::duel;
use crate::gauge;
use crate::lab::Lab;
use crate::net::socket::Tune;
use crate::net::ws::Headers;
use crate::report::{Bar, Figure};
use crate::scenario::connect::open;
use crate::service::Guests;

/// Name of the scenario.
pub const NAME: &str = "cluster-connect";

/// Rate, then cost.
pub const FIGURES: [Figure; 2] = [
    Figure {
        name: "handshakes per second, recorded in Redis",
        peer: "alone",
        bar: Bar::RatioAtLeast(0.7),
    },
    Figure { name: "CPU per handshake of the node, µs", peer: "alone", bar: Bar::Recorded },
];

/// Handshakes of a round.
const PER_ROUND: usize = 3_000;

/// They are short, and a rate minds what else the machine does: there are more rounds than elsewhere.
const MORE_ROUNDS: usize = 4;

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    let rounds = MORE_ROUNDS * lab.options.rounds;
    lab.begin(NAME, 2 * (rounds + 1));
    let cluster = lab.cluster(1)?;
    let member = cluster.nodes.first().context("no node")?;
    let alone = lab.alone()?;
    let tune = Tune { narrow: false, subnet: 23 };
    let guests = Guests { tune, headers: Headers::Browser, ..Guests::default() };
    let redis = cluster.redis.process.pid();
    let before = gauge::cpu(redis)?;
    let sides = [member, &alone]
        .map(|service| Box::new(move || open(service, PER_ROUND, &guests)) as duel::Round<'_>);
    let scores = duel::run(rounds, sides.into(), &|| lab.step())?;
    let redis = gauge::cpu(redis)?.saturating_sub(before).as_secs_f64() * 1e6;
    if let [member, alone] = scores.as_slice() {
        let each = redis / (PER_ROUND * (rounds + 1)) as f64;
        let note = format!(
            "Redis, beside the driver, used {each:.1} µs for each that comes and goes; driver busy {:.0} % and {:.0} %",
            member.driver * 100.0,
            alone.driver * 100.0
        );
        let (rate, peer) = (Some(member.rate), Some(alone.rate));
        lab.report.take(NAME, &FIGURES[0], rate, peer, Some(alone.rates), note);
        lab.compare(NAME, &FIGURES[1], member, alone);
    }
    Ok(())
}
