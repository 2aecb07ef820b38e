//! Posts to one session each: `@connections` by id, beside nchan's publisher on channels with one subscriber; and signed
//! ones beside unsigned ones.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::duel::{self, Taken};
use crate::lab::{Lab, Like, taking_all};
use crate::load;
use crate::net::ws;
use crate::net::{Fleet, Handler, Link};
use crate::report::{Bar, Figure};
use crate::service::{Guests, Kind};

/// Name of the scenario.
pub const NAME: &str = "push";

/// The one figure.
pub const FIGURES: [Figure; 1] =
    [Figure { name: "CPU per delivery by id, µs", peer: "nchan", bar: Bar::RatioBelow(1.0) }];

/// Name of the scenario with signatures.
pub const SIGNED: &str = "push-signed";

/// Its one figure: a signature over 1 KiB is verified for each post, and policies are asked.
pub const SIGNED_FIGURES: [Figure; 1] = [Figure {
    name: "CPU per signed post of 1 KiB, µs",
    peer: "unsigned",
    bar: Bar::RatioAtMost(1.3),
}];

/// Bytes of a post that may be signed.
const SIGNED_BYTES: usize = 1_024;

/// Sessions that are posted to.
pub const SESSIONS: usize = 256;
/// Keep-alive connections that post.
pub const PUBLISHERS: usize = 16;

/// Runs it.
pub fn run(lab: &mut Lab) -> Result<()> {
    lab.begin(NAME, 2 * (lab.options.rounds + 1));
    let services = [lab.gateway(Like::Nchan)?, lab.nchan()?];
    let mut sides: Vec<duel::Round<'_>> = Vec::new();
    for service in &services {
        let mut fleet = Fleet::new()?;
        let channel = |index| format!("one{index}");
        service.invite(&mut fleet, SESSIONS, &Guests { channel: &channel, ..Guests::default() })?;
        let names = match service.kind {
            Kind::Gateway => names(&mut fleet)?,
            Kind::Echo | Kind::Nchan => (0..SESSIONS).map(channel).collect(),
        };
        service.publishers(&mut fleet, PUBLISHERS)?;
        let body = load::message("push", "");
        let posts: Vec<Vec<u8>> = names.iter().map(|name| service.post(name, &body)).collect();
        let round = lab.round();
        let publishers = SESSIONS..SESSIONS + PUBLISHERS;
        sides.push(Box::new(move || {
            push(&service.pids, &mut fleet, publishers.clone(), &posts, round)
        }));
    }
    let scores = duel::run(lab.options.rounds, sides, &|| lab.step())?;
    if let [gateway, peer] = scores.as_slice() {
        lab.compare(NAME, &FIGURES[0], gateway, peer);
    }
    Ok(())
}

/// Signed posts to one gateway, unsigned ones to another. Posts are signed once: a signature counts for five minutes, and
/// each costs the gateway the same as a new one.
pub fn run_signed(lab: &mut Lab) -> Result<()> {
    lab.begin(SIGNED, 2 * (lab.options.rounds + 1));
    let services = [lab.gateway(Like::Nchan)?, lab.gateway(Like::Nchan)?];
    let mut sides: Vec<duel::Round<'_>> = Vec::new();
    for (service, is_signed) in services.iter().zip([true, false]) {
        if service.kind != Kind::Gateway {
            bail!("only the gateway checks signatures");
        }
        let mut fleet = Fleet::new()?;
        service.invite(&mut fleet, SESSIONS, &Guests::default())?;
        let ids = names(&mut fleet)?;
        service.publishers(&mut fleet, PUBLISHERS)?;
        let body = "x".repeat(SIGNED_BYTES);
        let post = |id: &String| {
            if is_signed { service.signed_post(id, &body) } else { service.post(id, &body) }
        };
        let posts: Vec<Vec<u8>> = ids.iter().map(post).collect();
        let round = lab.round();
        let publishers = SESSIONS..SESSIONS + PUBLISHERS;
        sides.push(Box::new(move || {
            push(&service.pids, &mut fleet, publishers.clone(), &posts, round)
        }));
    }
    let scores = duel::run(lab.options.rounds, sides, &|| lab.step())?;
    if let [signed, unsigned] = scores.as_slice() {
        lab.compare(SIGNED, &SIGNED_FIGURES[0], signed, unsigned);
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Names(Vec<Option<String>>, usize);

impl Handler for Names {
    fn message(&mut self, _link: &mut Link, index: usize, payload: &[u8]) {
        let answer: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
        if let Some(id) = answer.get("connectionId").and_then(|id| id.as_str()) {
            self.0[index] = Some(id.to_owned());
            self.1 += 1;
        }
    }
}

/// Asks every session for its connection id.
pub fn names(fleet: &mut Fleet) -> Result<Vec<String>> {
    let question = ws::text(&load::message("whoami", ""));
    let count = fleet.len();
    let mut names = Names(vec![None; count], 0);
    for index in 0..count {
        fleet.send(index, &question)?;
    }
    fleet.until(Duration::from_secs(10), "connection ids", &mut names, |names| names.1 >= count)?;
    names.0.into_iter().collect::<Option<_>>().context("a session has no id")
}

#[derive(Debug)]
struct Push<'a> {
    posts: &'a [Vec<u8>],
    next: usize,
    delivered: u64,
    answered: u64,
    outstanding: usize,
    stopping: bool,
    wrong: Option<String>,
}

impl Handler for Push<'_> {
    fn message(&mut self, _link: &mut Link, _index: usize, _payload: &[u8]) {
        self.delivered += 1;
    }

    fn answer(&mut self, link: &mut Link, _index: usize, status: u16) {
        if !(200..300).contains(&status) {
            self.wrong = Some(format!("a post was answered {status}"));
        }
        self.answered += 1;
        if self.stopping {
            self.outstanding -= 1;
        } else {
            self.next = (self.next + 1) % self.posts.len();
            link.send(&self.posts[self.next]);
        }
    }

    fn closed(&mut self, index: usize, error: Option<anyhow::Error>) {
        self.wrong = Some(format!("link {index} ended: {error:?}"));
    }
}

/// Posts to one session after the other for a while, one post in flight per publisher; ends when all were delivered.
/// Counts the processor time of `pids`. The publishers are the fleet's links of these numbers.
pub fn push(
    pids: &[i32],
    fleet: &mut Fleet,
    publishers: Range<usize>,
    posts: &[Vec<u8>],
    round: Duration,
) -> Result<Taken> {
    let outstanding = publishers.len();
    let mut push = Push {
        posts,
        next: 0,
        delivered: 0,
        answered: 0,
        outstanding,
        stopping: false,
        wrong: None,
    };
    taking_all(pids, || {
        for publisher in publishers {
            push.next += 1;
            fleet.send(publisher, &posts[push.next])?;
        }
        let until = Instant::now() + round;
        while push.outstanding > 0 || push.delivered < push.answered {
            push.stopping = Instant::now() >= until;
            fleet.turn(Some(Duration::from_millis(100)), &mut push)?;
            if let Some(wrong) = &push.wrong {
                bail!("{wrong}");
            }
            if Instant::now() > until + Duration::from_secs(10) {
                bail!("{} posts were answered, {} delivered", push.answered, push.delivered);
            }
        }
        Ok(push.delivered)
    })
}
