//! A part of a crowd: a process of the driver that holds sessions of one node. A process may have only so many open files,
//! so a crowd of a hundred thousand is several.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::net::socket::Tune;
use crate::net::ws::Headers;
use crate::net::{Fleet, Handler, Link};
use crate::process::{self, Pins, Process, Side};
use crate::scenario::push;
use crate::service::{Guests, Kind, Service, invite};

/// The driver's end of such a process.
#[derive(Debug)]
pub struct Crowd(Process);

/// What a part of a crowd has heard of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Sessions that have heard something.
    pub sessions: usize,
    /// Messages, more than sessions if one was sent twice.
    pub messages: usize,
    /// Sessions that were ended.
    pub ended: usize,
}

impl Crowd {
    /// Starts one without sessions.
    pub fn start(pins: Pins) -> Result<Self> {
        let mut command = process::myself()?;
        command.arg("crowd");
        Ok(Self(Process::talk(pins, Side::Driver, &mut command)?))
    }

    fn ask(&mut self, order: &str) -> Result<String> {
        let answer = self.0.ask(order)?;
        match answer.strip_prefix("ok ") {
            Some(answer) => Ok(answer.to_owned()),
            None => bail!("a part of the crowd: {order}: {answer}"),
        }
    }

    /// Opens sessions; returns their connection ids.
    pub fn open(&mut self, node: &Service, count: usize) -> Result<Vec<String>> {
        let ids = self.ask(&format!("open {} {count}", node.plain))?;
        Ok(ids.split(',').map(str::to_owned).collect())
    }

    /// Waits until every session has heard something since they were opened, or patience is over.
    pub fn heard(&mut self, patience: Duration) -> Result<Heard> {
        let answer = self.ask(&format!("heard {}", patience.as_millis()))?;
        let mut numbers = answer.split(' ').map(str::parse);
        let mut next = || numbers.next().context("too short an answer")?.context("no number");
        Ok(Heard { sessions: next()?, messages: next()?, ended: next()? })
    }
}

/// Counts messages by session.
#[derive(Debug, Default)]
struct Ears {
    by_session: Vec<u32>,
    sessions: usize,
    messages: usize,
    ended: usize,
}

impl Handler for Ears {
    fn message(&mut self, _link: &mut Link, index: usize, _payload: &[u8]) {
        self.messages += 1;
        if let Some(count) = self.by_session.get_mut(index) {
            *count += 1;
            self.sessions += usize::from(*count == 1);
        }
    }

    fn closed(&mut self, _index: usize, _error: Option<anyhow::Error>) {
        self.ended += 1;
    }
}

/// Runs as a part of a crowd, until its standard input ends: an order a line, an answer a line.
pub fn run() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let (sender, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    obey(&orders)
}

fn obey(orders: &Receiver<String>) -> Result<()> {
    let mut fleet = Fleet::new()?;
    let mut ears = Ears::default();
    loop {
        match orders.try_recv() {
            Ok(order) => {
                let answer = match carry_out(&order, &mut fleet, &mut ears) {
                    Ok(answer) => format!("ok {answer}"),
                    Err(error) => format!("{error:#}").replace('\n', " "),
                };
                println!("{answer}");
                std::io::stdout().flush()?;
            }
            Err(TryRecvError::Empty) => fleet.turn(Some(Duration::from_millis(20)), &mut ears)?,
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

fn carry_out(order: &str, fleet: &mut Fleet, ears: &mut Ears) -> Result<String> {
    let words: Vec<&str> = order.split(' ').collect();
    match words.as_slice() {
        ["open", address, count] => {
            let (address, count): (SocketAddr, usize) = (address.parse()?, count.parse()?);
            let tune = Tune { narrow: false, subnet: 21 };
            let guests = Guests { tune, headers: Headers::Browser, ..Guests::default() };
            invite(Kind::Gateway, address, fleet, count, &guests)?;
            let names = push::names(fleet)?;
            *ears = Ears { by_session: vec![0; fleet.len()], ..Ears::default() };
            Ok(names.join(","))
        }
        ["heard", patience] => {
            let deadline = Instant::now() + Duration::from_millis(patience.parse()?);
            while ears.sessions < fleet.len() && Instant::now() < deadline {
                fleet.turn(Some(Duration::from_millis(20)), ears)?;
            }
            // Whatever comes twice shows by now.
            fleet.turn(Some(Duration::from_millis(20)), ears)?;
            Ok(format!("{} {} {}", ears.sessions, ears.messages, ears.ended))
        }
        _ => bail!("what does that mean?"),
    }
}
