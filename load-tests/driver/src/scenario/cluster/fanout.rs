//! A message to ten thousand members on three nodes, beside the same number on one.

use std::cell::RefCell;

use anyhow::{Context, Result};

use crate::duel;
use crate::gauge;
use crate::lab::Lab;
use crate::load;
use crate::net::{Fleet, ws};
use crate::report::{Bar, Figure};
use crate::scenario::fanout::{fan, join_some};
use crate::service::Guests;

/// Name of the scenario.
pub const NAME: &str = "cluster-fanout";

/// The one figure.
pub const FIGURES: [Figure; 1] = [Figure {
    name: "deliveries per CPU second, 10,000 members on 3 nodes",
    peer: "on one node",
    bar: Bar::RatioAtLeast(0.8),
}];

const MEMBERS: usize = 10_000;
const NODES: usize = 3;
const ON_ONE: &str = "one";
const ON_ALL: &str = "all";

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, 2 * (lab.options.rounds + 1));
    let cluster = lab.cluster(NODES)?;
    let (pids, redis, round) = (cluster.pids(), cluster.redis.process.pid(), lab.round());
    let mut fleet = Fleet::new()?;
    // The first node has all members of the one group, and its third of the other's among them.
    let first = cluster.nodes.first().context("no node")?;
    first.invite(&mut fleet, MEMBERS, &Guests::default())?;
    join_some(&mut fleet, ON_ONE, &(0..MEMBERS).collect::<Vec<_>>())?;
    let share = MEMBERS / NODES;
    for node in cluster.nodes.iter().skip(1) {
        node.invite(&mut fleet, share, &Guests::default())?;
    }
    let of_first = MEMBERS - share * (NODES - 1);
    let spread: Vec<usize> = (0..of_first).chain(MEMBERS..fleet.len()).collect();
    join_some(&mut fleet, ON_ALL, &spread)?;
    let speaker = fleet.len();
    first.invite(&mut fleet, 1, &Guests::default())?;

    let redis_before = gauge::cpu(redis)?;
    let fleet = RefCell::new(fleet);
    let sides = [ON_ALL, ON_ONE].map(|group| {
        let (pids, fleet) = (&pids, &fleet);
        let say = ws::text(&load::message("say", group));
        Box::new(move || fan(pids, &mut fleet.borrow_mut(), speaker, &say, MEMBERS, round))
            as duel::Round<'_>
    });
    let scores = duel::run(lab.options.rounds, sides.into(), &|| lab.step())?;
    if let [all, one] = scores.as_slice() {
        // More processor time each is fewer each processor second.
        let ratio = 1.0 / one.ratio;
        let redis = gauge::cpu(redis)?.saturating_sub(redis_before);
        let note = format!(
            "{:.2} µs each beside {:.2}; rounds {:.2}–{:.2}; {:.0}/s beside {:.0}/s; driver busy {:.0} % and {:.0} %; Redis used {} ms in all that time",
            all.cost,
            one.cost,
            1.0 / one.spread.1,
            1.0 / one.spread.0,
            all.rate,
            one.rate,
            all.driver * 100.0,
            one.driver * 100.0,
            redis.as_millis()
        );
        let (all, one) = (Some(1e6 / all.cost), Some(1e6 / one.cost));
        lab.report.take(NAME, &FIGURES[0], all, one, Some(ratio), note);
    }
    Ok(())
}
