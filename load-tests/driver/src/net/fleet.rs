//! Many links on one readiness set, driven by one thread.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use rand::Rng;
use rustls::ClientConfig;

use super::link::{Link, SCRATCH_BYTES, Speaks};
use super::socket::{self, Tune};
use super::ws;

/// What a scenario does when something arrives. What it sends on the link leaves in one write after the event.
pub trait Handler {
    /// The session is established, or the publisher connected.
    fn opened(&mut self, _link: &mut Link, _index: usize) {}
    /// A whole data frame.
    fn message(&mut self, _link: &mut Link, _index: usize, _payload: &[u8]) {}
    /// A whole HTTP answer.
    fn answer(&mut self, _link: &mut Link, _index: usize, _status: u16) {}
    /// The link is gone; `None` means that the peer closed in order.
    fn closed(&mut self, _index: usize, _error: Option<anyhow::Error>) {}
}

/// Nothing to do.
impl Handler for () {}

/// How links are opened.
#[derive(Clone)]
pub struct Opening<'a> {
    /// Where to.
    pub address: SocketAddr,
    /// Over TLS, or plain.
    pub tls: Option<&'a Arc<ClientConfig>>,
    /// What is spoken.
    pub speaks: Speaks,
    /// The handshake of the n-th link; empty for HTTP.
    pub request: &'a dyn Fn(usize) -> Vec<u8>,
    /// How many at once.
    pub window: usize,
    /// Socket settings.
    pub tune: Tune,
    /// When to give up waiting for all of them.
    pub patience: Duration,
    /// Whether a refused link is tried again, a moment later.
    pub retry: bool,
}

impl std::fmt::Debug for Opening<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").field("address", &self.address).finish_non_exhaustive()
    }
}

/// How opening went.
#[derive(Debug)]
pub struct Opened {
    /// Attempts that were refused or reset and tried again.
    pub refused: u64,
    /// Microseconds from connecting to established, per link.
    pub latency: Histogram<u64>,
}

/// Many links, one readiness set.
#[derive(Debug)]
pub struct Fleet {
    poll: Poll,
    events: Events,
    links: Vec<Option<Link>>,
    scratch: Vec<u8>,
}

/// Watches a batch of links being opened.
#[derive(Debug, Default)]
struct Watch {
    open: Vec<usize>,
    gone: Vec<(usize, Option<anyhow::Error>)>,
}

impl Handler for Watch {
    fn opened(&mut self, _link: &mut Link, index: usize) {
        self.open.push(index);
    }

    fn closed(&mut self, index: usize, error: Option<anyhow::Error>) {
        self.gone.push((index, error));
    }
}

impl Fleet {
    /// Makes an empty one.
    pub fn new() -> Result<Self> {
        let poll = Poll::new().context("no readiness set")?;
        let events = Events::with_capacity(1_024);
        Ok(Self { poll, events, links: Vec::new(), scratch: vec![0; SCRATCH_BYTES] })
    }

    /// How many links are there, open or gone.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// How many links are still there.
    pub fn living(&self) -> usize {
        self.links.iter().flatten().count()
    }

    /// Opens `count` more links and returns once all are established.
    pub fn open(&mut self, how: &Opening<'_>, count: usize) -> Result<Opened> {
        let first = self.links.len();
        self.links.resize_with(first + count, || None);
        let begun = Instant::now();
        let mut started = vec![begun; count];
        let mut is_open = vec![false; count];
        let mut todo: VecDeque<usize> = (first..first + count).collect();
        let mut later: Vec<(Instant, usize)> = Vec::new();
        let mut watch = Watch::default();
        let (mut in_progress, mut done, mut refused) = (0_usize, 0, 0);
        let mut latency = Histogram::new_with_bounds(1, 300_000_000, 3)?;
        while done < count {
            if begun.elapsed() > how.patience {
                bail!("{done} of {count} links to {} opened in {:?}", how.address, how.patience);
            }
            let now = Instant::now();
            later.retain(|(at, index)| {
                let due = *at <= now;
                if due {
                    todo.push_back(*index);
                }
                !due
            });
            while in_progress < how.window
                && let Some(index) = todo.pop_front()
            {
                started[index - first] = Instant::now();
                self.start(how, index)?;
                in_progress += 1;
            }
            self.turn(Some(Duration::from_millis(20)), &mut watch)?;
            for index in watch.open.drain(..) {
                in_progress -= 1;
                done += 1;
                is_open[index - first] = true;
                latency.saturating_record(started[index - first].elapsed().as_micros() as u64);
            }
            for (index, error) in watch.gone.drain(..) {
                let error = error.unwrap_or_else(|| anyhow::anyhow!("closed by the server"));
                if !how.retry || index < first {
                    return Err(error.context(format!("link {index} to {}", how.address)));
                }
                refused += 1;
                if std::mem::take(&mut is_open[index - first]) {
                    done -= 1;
                } else {
                    in_progress -= 1;
                }
                let pause = rand::rng().random_range(20..400);
                later.push((Instant::now() + Duration::from_millis(pause), index));
            }
        }
        Ok(Opened { refused, latency })
    }

    fn start(&mut self, how: &Opening<'_>, index: usize) -> Result<()> {
        let mut stream = socket::connect(how.address, index, how.tune)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), interest)?;
        self.links[index] = Some(Link::new(stream, how.tls, how.speaks, (how.request)(index))?);
        Ok(())
    }

    /// Waits for events, at most `timeout`, and hands them to `handler`.
    pub fn turn(&mut self, timeout: Option<Duration>, handler: &mut impl Handler) -> Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            polled => polled.context("poll")?,
        }
        for event in &self.events {
            let index = event.token().0;
            let Some(slot) = self.links.get_mut(index) else { continue };
            let Some(link) = slot else { continue };
            match link.ready(event, &mut self.scratch, index, handler) {
                Ok(true) => {}
                Ok(false) => {
                    *slot = None;
                    handler.closed(index, None);
                }
                Err(error) => {
                    *slot = None;
                    handler.closed(index, Some(error));
                }
            }
        }
        Ok(())
    }

    /// Takes turns until `done` says so. An error after `patience`.
    pub fn until<H: Handler>(
        &mut self,
        patience: Duration,
        what: &str,
        handler: &mut H,
        done: impl Fn(&H) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !done(handler) {
            if Instant::now() > deadline {
                bail!("waited {patience:?} in vain for {what}");
            }
            self.turn(Some(Duration::from_millis(20)), handler)?;
        }
        Ok(())
    }

    /// Sends on one link at once.
    pub fn send(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let link = self.links.get_mut(index).and_then(Option::as_mut);
        let link = link.with_context(|| format!("link {index} is gone"))?;
        link.send(bytes);
        link.flush()
    }

    /// Every session says goodbye and waits for the server to close; returns how many were cut off instead.
    pub fn leave(&mut self, patience: Duration) -> Result<usize> {
        let goodbye = ws::close();
        for link in self.links.iter_mut().flatten() {
            link.send(&goodbye);
            // A link that cannot be written to is found closed below.
            link.flush().ok();
        }
        let deadline = Instant::now() + patience;
        while self.living() > 0 && Instant::now() < deadline {
            self.turn(Some(Duration::from_millis(50)), &mut ())?;
        }
        let cut = self.living();
        self.links.clear();
        Ok(cut)
    }
}
