//! A hundred thousand sessions on seven nodes, each pushed to once, all by one node.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::Cluster;
use crate::crowd::Crowd;
use crate::gauge::{self, settled};
use crate::lab::Lab;
use crate::load;
use crate::net::{Fleet, Handler, Link};
use crate::report::{Bar, Figure};
use crate::scenario::push::{PUBLISHERS, names};
use crate::service::Guests;

/// Name of the scenario.
pub const NAME: &str = "cluster-scale";

/// Reached; memory of node, Redis, kernel; cost.
pub const FIGURES: [Figure; 5] = [
    Figure { name: "sessions that one push each did not reach", peer: "", bar: Bar::AtMost(0.0) },
    Figure { name: "private memory of the node per session, B", peer: "", bar: Bar::Recorded },
    Figure { name: "memory of Redis per session, B", peer: "", bar: Bar::Recorded },
    Figure { name: "kernel memory per session, both ends of it, B", peer: "", bar: Bar::Recorded },
    Figure { name: "CPU per push, all nodes, µs", peer: "", bar: Bar::Recorded },
];

const NODES: usize = 7;
/// Sessions of each node that come and go before the first reading, so that what exists once per process is there.
const WARM_UP: usize = 200;

/// Memory in use, in bytes.
struct Memory {
    nodes: u64,
    redis: u64,
    machine: gauge::Machine,
}

impl Memory {
    fn of(cluster: &Cluster) -> Result<Self> {
        let patience = Duration::from_secs(5);
        // The first wait is for all.
        let nodes = cluster.pids().into_iter().enumerate().map(|(place, pid)| {
            if place == 0 { settled(pid, patience, |_| true) } else { gauge::private_dirty(pid) }
        });
        Ok(Self {
            nodes: nodes.sum::<Result<u64>>()?,
            redis: cluster.redis.memory()?,
            machine: gauge::machine()?,
        })
    }
}

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, NODES + 2);
    let cluster = lab.cluster(NODES)?;
    let mut crowds = (0..NODES).map(|_| Crowd::start(lab.pins)).collect::<Result<Vec<_>>>()?;
    for node in &cluster.nodes {
        let mut fleet = Fleet::new()?;
        node.invite(&mut fleet, WARM_UP, &Guests::default())?;
        names(&mut fleet)?;
        fleet.leave(Duration::from_secs(10))?;
    }
    let before = Memory::of(&cluster)?;
    let begun = Instant::now();
    let mut posts = Vec::with_capacity(lab.options.crowd);
    let first = cluster.nodes.first().context("no node")?;
    let body = load::message("push", "");
    for (place, (crowd, node)) in crowds.iter_mut().zip(&cluster.nodes).enumerate() {
        let count = (lab.options.crowd + place) / NODES;
        posts.extend(crowd.open(node, count)?.iter().map(|id| first.post(id, &body)));
        lab.step();
    }
    let opening = begun.elapsed();
    let after = Memory::of(&cluster)?;
    lab.step();

    let (pids, redis) = (cluster.pids(), cluster.redis.process.pid());
    let (cpu, redis_cpu, begun) = (gauge::cpu_of(&pids)?, gauge::cpu(redis)?, Instant::now());
    let mut fleet = Fleet::new()?;
    first.publishers(&mut fleet, PUBLISHERS)?;
    post_all(&mut fleet, &posts)?;
    let (mut reached, mut messages, mut ended) = (0, 0, 0);
    for crowd in &mut crowds {
        let heard = crowd.heard(Duration::from_secs(10))?;
        reached += heard.sessions;
        messages += heard.messages;
        ended += heard.ended;
    }
    let took = begun.elapsed();
    let cpu = gauge::cpu_of(&pids)?.saturating_sub(cpu);
    let redis_cpu = gauge::cpu(redis)?.saturating_sub(redis_cpu);
    // The clients first: nodes that end with sessions would take their time.
    drop(crowds);
    lab.step();

    let all = posts.len();
    if messages > reached {
        bail!("{} messages came twice", messages - reached);
    }
    let note = format!(
        "{all} sessions on {NODES} nodes, opened in {:.1} s; {} posts to the first node in {:.1} s, {messages} messages; {ended} sessions were ended",
        opening.as_secs_f64(),
        posts.len(),
        took.as_secs_f64()
    );
    let each = |before: u64, after: u64| (after as f64 - before as f64) / all as f64;
    lab.note(NAME, &FIGURES[0], (all - reached) as f64, note);
    lab.note(NAME, &FIGURES[1], each(before.nodes, after.nodes), String::new());
    lab.note(NAME, &FIGURES[2], each(before.redis, after.redis), String::new());
    let note = format!(
        "by Slab of /proc/meminfo; MemFree fell by {:.0} B a session, everything of both ends and of other work included",
        each(after.machine.free, before.machine.free)
    );
    lab.note(NAME, &FIGURES[3], each(before.machine.slab, after.machine.slab), note);
    let note = format!("one in {NODES} is local; Redis used {} ms", redis_cpu.as_millis());
    lab.note(NAME, &FIGURES[4], cpu.as_secs_f64() * 1e6 / all as f64, note);
    Ok(())
}

struct Posting<'a> {
    rest: std::slice::Iter<'a, Vec<u8>>,
    answered: usize,
    wrong: Option<String>,
}

impl Handler for Posting<'_> {
    fn answer(&mut self, link: &mut Link, _index: usize, status: u16) {
        self.answered += 1;
        if status != 200 {
            self.wrong = Some(format!("a post was answered {status}"));
        }
        if let Some(post) = self.rest.next() {
            link.send(post);
        }
    }

    fn closed(&mut self, index: usize, error: Option<anyhow::Error>) {
        self.wrong = Some(format!("link {index} ended: {error:?}"));
    }
}

/// Makes each post once, one in flight per publisher.
fn post_all(fleet: &mut Fleet, posts: &[Vec<u8>]) -> Result<()> {
    let mut posting = Posting { rest: posts.iter(), answered: 0, wrong: None };
    for publisher in 0..fleet.len() {
        if let Some(post) = posting.rest.next() {
            fleet.send(publisher, post)?;
        }
    }
    let all = posts.len();
    fleet.until(Duration::from_secs(120), "answers to posts", &mut posting, |posting| {
        posting.wrong.is_some() || posting.answered >= all
    })?;
    match posting.wrong {
        Some(wrong) => bail!("{wrong}, {} of {all} posts were answered", posting.answered),
        None => Ok(()),
    }
}
