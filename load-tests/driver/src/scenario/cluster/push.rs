//! Posts to sessions of another node, beside posts to the node that has them.

use std::cell::{Cell, RefCell};

use anyhow::{Result, ensure};

use super::Pair;
use crate::duel;
use crate::gauge;
use crate::lab::Lab;
use crate::report::{Bar, Figure};
use crate::scenario::push::{PUBLISHERS, push};

/// Name of the scenario.
pub const NAME: &str = "cluster-push";

/// Sixteen at once; one at a time, when nothing shares a write or a wake-up with anything.
pub const FIGURES: [Figure; 2] = [
    Figure {
        name: "CPU per delivery by another node, both nodes, µs",
        peer: "the owner",
        bar: Bar::RatioAtMost(2.5),
    },
    Figure {
        name: "CPU per delivery by another node, one at a time, µs",
        peer: "the owner",
        bar: Bar::Recorded,
    },
];

const IN_FLIGHT: [usize; 2] = [PUBLISHERS, 1];

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, IN_FLIGHT.len() * 2 * (lab.options.rounds + 1));
    let Pair { cluster, fleet, posts } = Pair::open(lab.cluster(2)?)?;
    let (pids, redis, round) = (cluster.pids(), cluster.redis.process.pid(), lab.round());
    let fleet = RefCell::new(fleet);
    for (figure, in_flight) in FIGURES.iter().zip(IN_FLIGHT) {
        let (redis_before, crossings) = (gauge::cpu(redis)?, cluster.crossings()?);
        let crossed = Cell::new(0);
        // What goes over the link comes first: it is what is measured.
        let sides = [1, 0].map(|node| {
            let (pids, fleet, posts, crossed) = (&pids, &fleet, &posts[node], &crossed);
            let all = Pair::publishers(node);
            let some = all.start..all.start + in_flight;
            Box::new(move || {
                let taken = push(pids, &mut fleet.borrow_mut(), some.clone(), posts, round)?;
                crossed.set(crossed.get() + if node == 1 { taken.units } else { 0 });
                Ok(taken)
            }) as duel::Round<'_>
        });
        let scores = duel::run(lab.options.rounds, sides.into(), &|| lab.step())?;
        let redis = gauge::cpu(redis)?.saturating_sub(redis_before);
        let (crossed, crossings) = (crossed.get(), cluster.crossings()? - crossings);
        ensure!(crossed == crossings, "{crossed} posts to the other node, {crossings} on the link");
        if let [other, owner] = scores.as_slice() {
            lab.compare(NAME, figure, other, owner);
            let redis = redis.as_millis();
            lab.report.remark(&format!("; Redis used {redis} ms in all that time"));
        }
    }
    Ok(())
}
