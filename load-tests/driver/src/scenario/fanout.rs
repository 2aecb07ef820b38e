//! A message to a thousand: a group's members, beside one nchan channel with as many subscribers.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::duel::{self, Taken};
use crate::lab::{Lab, Like, taking_all};
use crate::load;
use crate::net::ws;
use crate::net::{Fleet, Handler, Link};
use crate::report::{Bar, Figure};
use crate::service::{Guests, Kind};

/// Name of the scenario.
pub const NAME: &str = "fanout";

/// The one figure.
pub const FIGURES: [Figure; 1] = [Figure {
    name: "CPU per delivery to 1,000 members, µs",
    peer: "nchan",
    bar: Bar::RatioBelow(1.0),
}];

const MEMBERS: usize = 1_000;
const GROUP: &str = "fan";

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, 2 * (lab.options.rounds + 1));
    let services = [lab.gateway(Like::Nchan)?, lab.nchan()?];
    let mut sides: Vec<duel::Round<'_>> = Vec::new();
    for service in &services {
        let mut fleet = Fleet::new()?;
        let channel = |_| GROUP.to_owned();
        let guests = Guests { channel: &channel, ..Guests::default() };
        service.invite(&mut fleet, MEMBERS, &guests)?;
        let say = match service.kind {
            Kind::Gateway => {
                join(&mut fleet, GROUP)?;
                // Who speaks is not a member, as nchan's publisher is no subscriber.
                service.invite(&mut fleet, 1, &guests)?;
                ws::text(&load::message("say", GROUP))
            }
            Kind::Echo | Kind::Nchan => {
                service.publishers(&mut fleet, 1)?;
                service.post(GROUP, &load::message("say", GROUP))
            }
        };
        let round = lab.round();
        sides.push(Box::new(move || fan(&service.pids, &mut fleet, MEMBERS, &say, MEMBERS, round)));
    }
    let scores = duel::run(lab.options.rounds, sides, &|| lab.step())?;
    if let [gateway, peer] = scores.as_slice() {
        lab.compare(NAME, &FIGURES[0], gateway, peer);
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Count(u64);

impl Handler for Count {
    fn message(&mut self, _link: &mut Link, _index: usize, _payload: &[u8]) {
        self.0 += 1;
    }
}

/// Every session of a fleet joins a group. Joining has no answer, so each asks something that has one afterwards.
pub fn join(fleet: &mut Fleet, group: &str) -> Result<()> {
    let everybody = (0..fleet.len()).collect::<Vec<_>>();
    join_some(fleet, group, &everybody)
}

/// Some sessions of a fleet join a group.
pub fn join_some(fleet: &mut Fleet, group: &str, members: &[usize]) -> Result<()> {
    let mut both = ws::text(&load::message("join", group));
    both.extend(ws::text(&load::message("echo", "")));
    let mut count = Count::default();
    for (number, index) in members.iter().enumerate() {
        fleet.send(*index, &both)?;
        if number % 250 == 249 {
            fleet.turn(Some(Duration::ZERO), &mut count)?;
        }
    }
    let all = members.len() as u64;
    fleet.until(Duration::from_secs(30), "members to join", &mut count, |count| count.0 >= all)
}

/// The link `speaker` sends to all `members`, waits until all have it, sends again. Counts the processor time of `pids`.
pub fn fan(
    pids: &[i32],
    fleet: &mut Fleet,
    speaker: usize,
    say: &[u8],
    members: usize,
    round: Duration,
) -> Result<Taken> {
    let mut count = Count::default();
    taking_all(pids, || {
        let until = Instant::now() + round;
        while Instant::now() < until {
            let wanted = count.0 + members as u64;
            fleet.send(speaker, say)?;
            let patience = Duration::from_secs(10);
            fleet.until(patience, "a delivery to every member", &mut count, |count| {
                count.0 >= wanted
            })?;
        }
        Ok(count.0)
    })
}
