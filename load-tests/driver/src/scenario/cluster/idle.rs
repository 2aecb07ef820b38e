//! What idle sessions ask of Redis: nothing.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::cluster::Cluster;
use crate::lab::Lab;
use crate::net::Fleet;
use crate::redis::Calls;
use crate::report::{Bar, Figure};
use crate::service::Guests;

/// Name of the scenario.
pub const NAME: &str = "cluster-idle";

/// The one figure.
pub const FIGURES: [Figure; 1] = [Figure {
    name: "Redis commands in 10 s, but for heartbeats, with idle sessions",
    peer: "",
    bar: Bar::AtMost(0.0),
}];

const NODES: usize = 2;
const SESSIONS: usize = 10_000;
const WINDOW: Duration = Duration::from_secs(10);
/// What was begun before a window has an end.
const CALM: Duration = Duration::from_secs(3);
/// The command by which a node renews its lease; it runs all others of a heartbeat within.
const BEAT: &str = "evalsha";

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, 3);
    let cluster = lab.cluster(NODES)?;
    let without = window(&cluster)?;
    lab.step();
    let mut fleet = Fleet::new()?;
    for node in &cluster.nodes {
        node.invite(&mut fleet, SESSIONS / NODES, &Guests::default())?;
    }
    lab.step();
    let with = window(&cluster)?;
    fleet.turn(Some(Duration::ZERO), &mut ())?;
    if fleet.living() != SESSIONS {
        bail!("{} of {SESSIONS} sessions are left", fleet.living());
    }
    lab.step();
    let note = format!(
        "{SESSIONS} sessions on {NODES} nodes; {} commands, {} of them heartbeats, beside {} and {} without a session: {}",
        with.values().sum::<u64>(),
        with.get(BEAT).copied().unwrap_or_default(),
        without.values().sum::<u64>(),
        without.get(BEAT).copied().unwrap_or_default(),
        with.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", "),
    );
    lab.note(NAME, &FIGURES[0], surplus(&without, &with) as f64, note);
    Ok(())
}

/// What was called in a window.
fn window(cluster: &Cluster) -> Result<Calls> {
    std::thread::sleep(CALM);
    let before = cluster.redis.calls()?;
    std::thread::sleep(WINDOW);
    let mut calls = cluster.redis.calls()?;
    for (name, count) in &mut calls {
        *count -= before.get(name).copied().unwrap_or_default();
    }
    calls.retain(|_, count| *count > 0);
    Ok(calls)
}

/// Commands beyond what the same heartbeats take without sessions, and heartbeats beyond the one that each node may have
/// at the edge of a window.
fn surplus(without: &Calls, with: &Calls) -> u64 {
    let of = |calls: &Calls, name: &str| calls.get(name).copied().unwrap_or_default();
    let (beats, beats_without) = (of(with, BEAT), of(without, BEAT));
    let more_beats = beats.saturating_sub(beats_without + NODES as u64);
    let more = with.iter().filter(|(name, _)| *name != BEAT).map(|(name, count)| {
        // A heartbeat runs as a whole or not at all, so each takes the same.
        count.saturating_sub((of(without, name) * beats).div_ceil(beats_without.max(1)))
    });
    more_beats + more.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(pairs: &[(&str, u64)]) -> Calls {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_heartbeat_more_or_less_is_none_of_the_sessions() {
        let without = calls(&[(BEAT, 20), ("get", 60)]);
        assert_eq!(surplus(&without, &calls(&[(BEAT, 21), ("get", 63)])), 0);
        assert_eq!(surplus(&without, &calls(&[(BEAT, 19), ("get", 57)])), 0);
        assert_eq!(surplus(&without, &calls(&[(BEAT, 20), ("get", 61)])), 1);
        assert_eq!(surplus(&without, &calls(&[(BEAT, 20), ("get", 60), ("expire", 5)])), 5);
        assert_eq!(surplus(&without, &calls(&[(BEAT, 32), ("get", 96)])), 10);
    }
}
