//! Sessions that never read while their group is sent to: the node keeps its budget, others do not notice.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::paced::{self, Paced};
use crate::gauge;
use crate::lab::{Lab, Like};
use crate::load;
use crate::net::Fleet;
use crate::net::socket::Tune;
use crate::net::ws;
use crate::report::{Bar, Figure};
use crate::service::{Guests, Service};

/// Name of the scenario.
pub const NAME: &str = "slow-readers";

const GROUP: &str = "slow";
const MESSAGE_BYTES: usize = 8 * 1_024;
/// Messages to the group per second: with 15,000 members, over a gigabyte a second that nobody takes.
const RATE: u32 = 10;

/// Latency of others; growth at its worst, as a share of the budget.
pub const FIGURES: [Figure; 2] = [
    Figure { name: "p99 of 100 echoing sessions, µs", peer: "quiet", bar: Bar::Undisturbed },
    Figure {
        name: "growth of memory at its worst, share of the node's budget",
        peer: "",
        bar: Bar::AtMost(1.0),
    },
];

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, 4);
    let service = lab.gateway(Like::Echo)?;
    let pid = service.process.pid();
    let duration = Duration::from_secs_f64(lab.options.neighbour_seconds);
    let mut paced = Paced::open(&service)?;

    let mut readers = Fleet::new()?;
    let guests = Guests { tune: Tune { narrow: true, subnet: 5 }, ..Guests::default() };
    service.invite(&mut readers, lab.options.sessions, &guests)?;
    super::fanout::join(&mut readers, GROUP)?;
    lab.step();
    paced.talk(paced::WARM_UP)?;
    let quiet = paced.talk(duration)?;
    lab.step();

    let before = gauge::anonymous(pid)?;
    let stop = AtomicBool::new(false);
    let worst = AtomicU64::new(before);
    let (loud, said) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(&service, &stop, &worst));
        let loud = paced.talk(duration);
        stop.store(true, Ordering::Relaxed);
        let said = publisher.join().map_err(|_| anyhow::anyhow!("the publisher failed"));
        anyhow::Ok((loud?, said??))
    })?;
    lab.step();
    let again = paced.talk(duration.min(Duration::from_secs(5)))?;
    let growth = worst.load(Ordering::Relaxed).saturating_sub(before);
    let more = format!(
        "; {said} messages of {MESSAGE_BYTES} bytes to {} members that never read; quiet again {:.0} µs",
        lab.options.sessions,
        again.latency.value_at_quantile(0.99) as f64 / 1_000.0
    );
    paced::compare(lab, NAME, &FIGURES[0], &quiet, &loud, &more);
    let budget = lab.options.budget_mib << 20;
    let note =
        format!("{} MiB at its worst, the budget is {} MiB", growth >> 20, lab.options.budget_mib);
    lab.note(NAME, &FIGURES[1], growth as f64 / budget as f64, note);
    drop(readers);
    lab.step();
    Ok(())
}

/// Sends to the group until told to stop, and watches the gateway's memory; returns how many messages.
fn publish(service: &Service, stop: &AtomicBool, worst: &AtomicU64) -> Result<u32> {
    // What measures comes before what disturbs: both share a processor.
    rustix::process::setpriority_process(None, 10).context("cannot lower the priority")?;
    let mut fleet = Fleet::new()?;
    service.invite(&mut fleet, 1, &Guests::default())?;
    let say = ws::text(&load::padded("say", GROUP, MESSAGE_BYTES));
    let begun = Instant::now();
    let mut said = 0;
    while !stop.load(Ordering::Relaxed) {
        fleet.send(0, &say)?;
        said += 1;
        let due = begun + Duration::from_secs(1) * said / RATE;
        while Instant::now() < due {
            worst.fetch_max(gauge::anonymous(service.process.pid())?, Ordering::Relaxed);
            fleet.turn(Some(Duration::from_millis(20)), &mut ())?;
        }
    }
    Ok(said)
}
