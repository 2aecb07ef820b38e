//! Which links there are and which there should be: dialling, once for all who wait; crossed dials; the end of a link.
//!
//! Of two listed nodes the one with the smaller incarnation dials at once and keeps dialling; the other waits a while
//! first, and dials if nothing came. Whoever has something to ask and no link dials at once. Should both dials arrive,
//! the link that the smaller incarnation has dialled stays, and the other retires: both sides see both links, so both
//! decide alike. A link older than a dial can last was not crossed but lost on the other side, and makes way for any new one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use super::codec::Malformed;
use super::frame::Input;
use super::greeting::{self, GREETING_TIME, Greeted, GreetingError, Hello, Purpose, Stream};
use super::line::{Line, MAX_UNANSWERED};
use super::stats::add;
use super::wire::{self, End};
use super::{LinkStatus, Links, Said};
use crate::cluster::registry::Peer;
use crate::ids::Incarnation;

/// After a failed dial; doubles up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// After a link that lived no longer than this the first pause is longer: links that are made to be lost are few a second.
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// The larger incarnation waits so long for the smaller one's dial.
const COURTESY: Duration = Duration::from_secs(3);
/// A node that dialled and is not listed yet has so long to appear: it may have joined since the list was read.
const UNLISTED_STAY: Duration = Duration::from_secs(30);

/// All peers known, by incarnation.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) me: Option<Peer>,
    entries: HashMap<Incarnation, Entry>,
    /// Links that end when this node does; those in retirement among them.
    lines: Vec<Arc<Line>>,
}

#[derive(Debug)]
struct Entry {
    address: Arc<str>,
    is_listed: bool,
    since: Instant,
    line: Option<Arc<Line>>,
    dial: Option<Dial>,
    /// The last dial that failed.
    failure: Option<(Instant, String)>,
    /// Whether the advertised address was reached the last time it was tried.
    dialable: Option<bool>,
    /// When it was last dialled only to see that.
    dialled_back: Option<Instant>,
}

#[derive(Debug)]
struct Dial {
    waiting: Vec<oneshot::Sender<Result<Arc<Line>, String>>>,
    /// Ends the pause before the next attempt.
    hurry: Arc<Notify>,
}

impl Entry {
    fn new(address: Arc<str>) -> Self {
        Self {
            address,
            is_listed: false,
            since: Instant::now(),
            line: None,
            dial: None,
            failure: None,
            dialable: None,
            dialled_back: None,
        }
    }

    const fn is_idle(&self) -> bool {
        !self.is_listed && self.line.is_none() && self.dial.is_none()
    }
}

#[cfg(test)]
impl Table {
    /// Links of any phase.
    pub(super) fn count_lines(&self) -> usize {
        self.lines.len()
    }
}

#[cfg(test)]
impl Links {
    /// Dials although there is a link, as the other side does when both dial at once.
    pub(super) fn force_dial(&self, peer: &Peer) {
        let (links, to, address) = (self.own.upgrade().unwrap(), peer.incarnation, Arc::clone(&peer.info.address));
        self.tasks.spawn("link-dial", async move {
            let me = links.me().unwrap();
            dial(&links, &me, to, &address).await.unwrap();
        });
    }
}

/// How to come to a link.
pub(super) enum Way {
    There(Arc<Line>),
    Wait(oneshot::Receiver<Result<Arc<Line>, String>>),
    None(String),
}

impl Links {
    pub(super) fn me(&self) -> Option<Peer> {
        self.table.lock().me.clone()
    }

    /// The link to a peer, if there is one.
    pub(super) fn line(&self, to: Incarnation) -> Option<Arc<Line>> {
        self.table.lock().entries.get(&to)?.line.clone()
    }

    /// Whether this is the link in use.
    pub(super) fn has(&self, line: &Arc<Line>) -> bool {
        self.line(line.peer).is_some_and(|current| Arc::ptr_eq(&current, line))
    }

    /// The link to a peer, or the dial that will give it.
    pub(super) fn way(&self, peer: &Peer) -> Way {
        let mut table = self.table.lock();
        if self.tasks.token().is_cancelled() {
            return Way::None("this node is ending".to_owned());
        }
        if table.me.is_none() {
            return Way::None("this node has not joined the cluster".to_owned());
        }
        let entry = table.entries.entry(peer.incarnation).or_insert_with(|| Entry::new(Arc::clone(&peer.info.address)));
        if let Some(line) = &entry.line {
            return Way::There(Arc::clone(line));
        }
        // Nobody is dialled more often because many want to reach it.
        if let Some((at, reason)) = &entry.failure
            && at.elapsed() < FIRST_BACKOFF
        {
            return Way::None(reason.clone());
        }
        if entry.dial.is_none() {
            self.spawn_dial(peer.incarnation, entry, Duration::ZERO);
        }
        let Some(dial) = &mut entry.dial else { return Way::None("this node is ending".to_owned()) };
        dial.waiting.retain(|waiting| !waiting.is_closed());
        if dial.waiting.len() >= MAX_UNANSWERED {
            return Way::None("the queue is full".to_owned());
        }
        let (sender, receiver) = oneshot::channel();
        dial.waiting.push(sender);
        dial.hurry.notify_one();
        Way::Wait(receiver)
    }

    fn spawn_dial(&self, to: Incarnation, entry: &mut Entry, first_pause: Duration) {
        let Some(links) = self.own.upgrade() else { return };
        let hurry = Arc::new(Notify::new());
        entry.dial = Some(Dial { waiting: Vec::new(), hurry: Arc::clone(&hurry) });
        self.tasks.spawn("link-dial", dial_until_linked(links, to, first_pause, hurry));
    }

    /// Dials a listed peer ahead of need, when nobody does.
    fn keep(&self, me: Incarnation, to: Incarnation, entry: &mut Entry, pause: Duration) {
        if entry.is_listed && entry.line.is_none() && entry.dial.is_none() && !self.tasks.token().is_cancelled() {
            let courtesy = if me < to { Duration::ZERO } else { COURTESY };
            self.spawn_dial(to, entry, pause + courtesy);
        }
    }

    /// Takes over who is there now.
    pub(super) fn set_peers(&self, me: &Peer, others: &[Peer]) {
        let mut table = self.table.lock();
        let is_renewed = table.me.as_ref().is_some_and(|before| before.incarnation != me.incarnation);
        table.me = Some(me.clone());
        if is_renewed {
            for entry in table.entries.values_mut() {
                entry.line = None;
            }
            for line in table.lines.drain(..) {
                line.end("this node goes on under another incarnation");
            }
        }
        let listed: HashMap<Incarnation, &Peer> = others
            .iter()
            .filter(|peer| peer.incarnation != me.incarnation)
            .map(|peer| (peer.incarnation, peer))
            .collect();
        for (incarnation, peer) in &listed {
            let entry = table.entries.entry(*incarnation).or_insert_with(|| Entry::new(Arc::clone(&peer.info.address)));
            entry.address = Arc::clone(&peer.info.address);
            entry.is_listed = true;
            self.keep(me.incarnation, *incarnation, entry, Duration::ZERO);
        }
        for (incarnation, entry) in &mut table.entries {
            if listed.contains_key(incarnation) {
                continue;
            }
            if (entry.is_listed || entry.since.elapsed() >= UNLISTED_STAY)
                && let Some(line) = entry.line.take()
            {
                line.retire();
            }
            entry.is_listed = false;
            if let Some(dial) = &entry.dial {
                dial.hurry.notify_one();
            }
        }
        table.entries.retain(|_, entry| !entry.is_idle());
    }

    /// Makes a greeted connection the link to its peer, or one that retires at once; `false` when this node no longer is
    /// who it was greeted as.
    pub(super) fn install(
        &self,
        line: &Arc<Line>,
        theirs: &Hello,
        protocol: u16,
        stream: Stream,
        input: Input,
    ) -> bool {
        let Some(links) = self.own.upgrade() else { return false };
        let mut table = self.table.lock();
        let Some(me) = table.me.as_ref().map(|me| me.incarnation) else { return false };
        if theirs.expected != me || self.tasks.token().is_cancelled() {
            return false;
        }
        table.lines.push(Arc::clone(line));
        let entry = table.entries.entry(line.peer).or_insert_with(|| Entry::new(Arc::from(&*theirs.address)));
        if line.dialled_here {
            entry.dialable = Some(true);
            entry.failure = None;
        }
        let dialled_by_smaller = |line: &Line| line.dialled_here == (me < line.peer);
        let is_crossed = |current: &Line| current.made_at.elapsed() < GREETING_TIME;
        match &entry.line {
            Some(current) if is_crossed(current) && dialled_by_smaller(current) && !dialled_by_smaller(line) => {
                line.retire();
            }
            // Nobody dials who has a link: of two that the same side has dialled it has lost the older.
            Some(current) => {
                current.retire();
                entry.line = Some(Arc::clone(line));
            }
            None => entry.line = Some(Arc::clone(line)),
        }
        if let (Some(dial), Some(current)) = (&mut entry.dial, &entry.line) {
            for waiting in dial.waiting.drain(..) {
                // Its deadline may have passed.
                let _sent = waiting.send(Ok(Arc::clone(current)));
            }
            dial.hurry.notify_one();
        }
        drop(table);
        add(&self.stats.links_made, 1);
        tracing::info!(
            peer.incarnation = line.peer.get(),
            peer.address = &*theirs.address,
            peer.version = &*theirs.version,
            protocol,
            dialled = line.dialled_here,
            "linked to a node"
        );
        self.tasks.spawn("link", wire::run(links, Arc::clone(line), stream, input));
        true
    }

    /// The other side asks nothing more on this link.
    pub(super) fn peer_retires(&self, line: &Arc<Line>) {
        let mut table = self.table.lock();
        self.let_go(&mut table, line);
        drop(table);
        line.retire();
    }

    /// A link's task has ended.
    pub(super) fn ended(&self, line: &Arc<Line>, end: &End) {
        let why = end.to_string();
        let mut table = self.table.lock();
        table.lines.retain(|other| !Arc::ptr_eq(other, line));
        // Before those who wait are told: who asks again then finds another link, or dials.
        self.let_go(&mut table, line);
        drop(table);
        line.end(&why);
        let said = match end {
            End::InOrder | End::Here => {
                tracing::info!(peer.incarnation = line.peer.get(), reason = why, "a link to a node has ended");
                return;
            }
            End::Malformed(Malformed(what)) => Said::Malformed(line.peer, what),
            End::Lost(_) | End::Silent => Said::Lost(line.peer),
        };
        add(&self.stats.links_lost, 1);
        if self.said.may_say(said) {
            tracing::warn!(peer.incarnation = line.peer.get(), reason = why, "the link to a node is lost");
        }
    }

    fn let_go(&self, table: &mut Table, line: &Arc<Line>) {
        let me = table.me.as_ref().map(|me| me.incarnation);
        let Some(entry) = table.entries.get_mut(&line.peer) else { return };
        if entry.line.as_ref().is_some_and(|current| Arc::ptr_eq(current, line)) {
            entry.line = None;
            if let Some(me) = me {
                let was_short = line.made_at.elapsed() < SHORT_LIFE;
                let pause = if was_short { LONGEST_BACKOFF / 2 } else { FIRST_BACKOFF };
                self.keep(me, line.peer, entry, jitter(pause));
            }
            if entry.is_idle() {
                table.entries.remove(&line.peer);
            }
        }
    }

    /// Cuts everything: this node ends.
    pub(super) fn shut(&self) {
        let mut table = self.table.lock();
        for entry in table.entries.values_mut() {
            entry.line = None;
            entry.dial = None;
        }
        let lines = std::mem::take(&mut table.lines);
        drop(table);
        for line in lines {
            line.end("this node is ending");
        }
    }

    /// Whether to dial a peer back now, because its address was never reached; `Err` says when to ask again.
    pub(super) fn may_dial_back(&self, line: &Arc<Line>, pause: Duration) -> Option<Result<(), Duration>> {
        let mut table = self.table.lock();
        let entry = table.entries.get_mut(&line.peer)?;
        let is_current = entry.line.as_ref().is_some_and(|current| Arc::ptr_eq(current, line));
        if !is_current || entry.dialable == Some(true) {
            return None;
        }
        let passed = entry.dialled_back.map_or(pause, |at| at.elapsed());
        if passed < pause {
            return Some(Err(pause.saturating_sub(passed)));
        }
        entry.dialled_back = Some(Instant::now());
        Some(Ok(()))
    }

    pub(super) fn set_dialable(&self, peer: Incarnation, is: bool) {
        if let Some(entry) = self.table.lock().entries.get_mut(&peer) {
            entry.dialable = Some(is);
        }
    }

    pub(super) fn statuses(&self) -> Vec<LinkStatus> {
        let table = self.table.lock();
        let mut all: Vec<_> = table
            .entries
            .iter()
            .map(|(incarnation, entry)| {
                let (unanswered, queued_bytes) = entry.line.as_ref().map(|line| line.load()).unwrap_or_default();
                LinkStatus {
                    incarnation: *incarnation,
                    address: Arc::clone(&entry.address),
                    connected: entry.line.is_some(),
                    dialable: entry.dialable,
                    unanswered,
                    queued_bytes,
                }
            })
            .collect();
        all.sort_unstable_by_key(|status| status.incarnation);
        all
    }

    /// Whom to dial now; `None` ends the dialling, because there is a link or nobody wants one.
    fn next_dial(&self, to: Incarnation) -> Option<(Peer, Arc<str>)> {
        let mut table = self.table.lock();
        let me = table.me.clone();
        let entry = table.entries.get_mut(&to)?;
        let dial = entry.dial.as_mut()?;
        dial.waiting.retain(|waiting| !waiting.is_closed());
        let is_wanted = entry.is_listed || !dial.waiting.is_empty();
        if let (Some(me), true, None) = (me, is_wanted, &entry.line) {
            return Some((me, Arc::clone(&entry.address)));
        }
        entry.dial = None;
        if entry.is_idle() {
            table.entries.remove(&to);
        }
        None
    }

    /// A dial has failed; whether to go on.
    fn dial_failed(&self, to: Incarnation, error: &GreetingError) {
        add(&self.stats.dials_failed, 1);
        let reason = error.to_string();
        let mut table = self.table.lock();
        let Some(entry) = table.entries.get_mut(&to) else { return };
        entry.failure = Some((Instant::now(), reason.clone()));
        entry.dialable = Some(false);
        let address = Arc::clone(&entry.address);
        let waiting = entry.dial.as_mut().map(|dial| std::mem::take(&mut dial.waiting)).unwrap_or_default();
        drop(table);
        for waiting in waiting {
            let _sent = waiting.send(Err(reason.clone()));
        }
        if self.said.may_say(Said::NoDial(to)) {
            tracing::warn!(
                peer.incarnation = to.get(),
                peer.address = &*address,
                reason,
                "no link to a node of the cluster"
            );
        }
    }
}

/// Dials until there is a link, in either direction, or nobody wants one.
async fn dial_until_linked(links: Arc<Links>, to: Incarnation, first_pause: Duration, hurry: Arc<Notify>) {
    let token = links.tasks.token().clone();
    let mut pause = first_pause;
    let mut backoff = FIRST_BACKOFF;
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = hurry.notified() => {}
            () = token.cancelled() => return,
        }
        let Some((me, address)) = links.next_dial(to) else { return };
        let dialled = tokio::select! {
            dialled = Box::pin(dial(&links, &me, to, &address)) => dialled,
            () = token.cancelled() => return,
        };
        if let Err(error) = dialled {
            links.dial_failed(to, &error);
            pause = jitter(backoff);
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        } else {
            pause = Duration::ZERO;
        }
    }
}

async fn dial(links: &Links, me: &Peer, to: Incarnation, address: &str) -> Result<(), GreetingError> {
    let hello = Hello::new(me, to, links.protocols.clone(), Purpose::Link);
    let Greeted { stream, input, theirs, protocol } = greeting::dial(&links.keys, address, &hello).await?;
    let line = Line::new(to, true);
    if links.install(&line, &theirs, protocol, stream, input) { Ok(()) } else { Err(GreetingError::NotJoined) }
}

/// Between a half of it and the whole.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}
