//! Who comes in: strangers are bounded and turned away, nodes become links, and whether a node can be reached in turn is
//! found out.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::frame::{kinds, put_frame};
use super::greeting::{self, Greeted, GreetingError, Hello, Purpose};
use super::line::Line;
use super::stats::add;
use super::{Links, Said};

/// Connections at once that have proven nothing yet.
pub(super) const MAX_UNPROVEN: usize = 64;
/// The same, from one address.
pub(super) const MAX_UNPROVEN_OF_ONE: usize = 16;
/// After the system gave no socket: it has none left, and asking at once would only burn time.
const PAUSE: Duration = Duration::from_millis(100);
/// Dialling back, greeting included.
const DIAL_BACK: Duration = Duration::from_secs(3);
/// Between two attempts to dial back while they fail.
const DIAL_BACK_AGAIN: Duration = Duration::from_secs(60);

/// Counts connections that have proven nothing yet.
///
/// Its lock is held for a map operation.
#[derive(Debug, Default)]
pub(super) struct Porch {
    waiting: Mutex<HashMap<IpAddr, usize>>,
}

impl Porch {
    /// A place on the porch, given back when dropped; `None` when there is none.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let mut waiting = self.waiting.lock();
        let all: usize = waiting.values().sum();
        let own = waiting.get(&ip).copied().unwrap_or_default();
        if all >= MAX_UNPROVEN || own >= MAX_UNPROVEN_OF_ONE {
            return None;
        }
        waiting.insert(ip, own + 1);
        Some(Place { porch: Arc::clone(self), ip })
    }
}

/// A place on the porch.
#[derive(Debug)]
pub(super) struct Place {
    porch: Arc<Porch>,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.porch.waiting.lock();
        if let Some(own) = waiting.get_mut(&self.ip) {
            *own -= 1;
            if *own == 0 {
                waiting.remove(&self.ip);
            }
        }
    }
}

/// Takes connections until this node ends.
pub(super) async fn listen(links: Arc<Links>, listener: TcpListener) {
    let porch = Arc::new(Porch::default());
    let token = links.tasks.token().clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = token.cancelled() => break,
        };
        match accepted {
            Ok((tcp, from)) => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                let Some(place) = porch.enter(from.ip()) else {
                    links.stranger(from, "too many connections wait for their greeting");
                    continue;
                };
                let links = Arc::clone(&links);
                links.tasks.clone().spawn("link-greeting", welcome(links, tcp, from, place));
            }
            Err(error) => {
                if links.said.may_say(Said::NoSockets) {
                    tracing::warn!(%error, "the node link cannot accept connections");
                }
                tokio::select! {
                    () = sleep(PAUSE) => {}
                    () = token.cancelled() => break,
                }
            }
        }
    }
    links.shut();
}

async fn welcome(links: Arc<Links>, tcp: TcpStream, from: SocketAddr, place: Place) {
    let token = links.tasks.token().clone();
    let greeting = greeting::accept(&links.keys, tcp, || links.me(), links.protocols.clone());
    let greeted = tokio::select! {
        greeted = Box::pin(greeting) => greeted,
        () = token.cancelled() => return,
    };
    drop(place);
    let Greeted { stream, input, theirs, protocol } = match greeted {
        Ok(greeted) if greeted.theirs.purpose == Purpose::Probe => return,
        Ok(greeted) => greeted,
        // A node that looks for an earlier start of this one is told so; that happens after every restart.
        Err(GreetingError::MeantAnother | GreetingError::NotJoined) => return,
        Err(error @ GreetingError::Protocol { .. }) => {
            if links.said.may_say(Said::Protocol(from.ip())) {
                tracing::warn!(peer.ip = %from.ip(), %error, "a node that wants to link is of a version this one cannot speak with");
            }
            return;
        }
        Err(error) => {
            links.stranger(from, &error.to_string());
            return;
        }
    };
    let line = Line::new(theirs.incarnation, false);
    if links.install(&line, &theirs, protocol, stream, input) {
        dial_back(&links, &line, &theirs).await;
    }
}

/// Sees whether a node that has linked can be reached where it says it can, and tells both sides while it cannot.
async fn dial_back(links: &Arc<Links>, line: &Arc<Line>, theirs: &Hello) {
    let token = links.tasks.token().clone();
    loop {
        match links.may_dial_back(line, DIAL_BACK_AGAIN) {
            None => return,
            Some(Ok(())) => {}
            Some(Err(pause)) => {
                tokio::select! {
                    () = sleep(pause) => continue,
                    () = token.cancelled() => return,
                }
            }
        }
        let Some(me) = links.me() else { return };
        let hello = Hello::new(&me, line.peer, links.protocols.clone(), Purpose::Probe);
        let dialled = timeout(DIAL_BACK, Box::pin(greeting::dial(&links.keys, &theirs.address, &hello)));
        let dialled = tokio::select! {
            dialled = dialled => dialled.unwrap_or(Err(GreetingError::Late(DIAL_BACK))),
            () = token.cancelled() => return,
        };
        let Err(error) = dialled else {
            links.set_dialable(line.peer, true);
            return;
        };
        // Whoever ends cannot be reached either, and that is nothing to say.
        if !links.has(line) {
            return;
        }
        links.set_dialable(line.peer, false);
        add(&links.stats.peers_unreachable, 1);
        let reason = error.to_string();
        tracing::warn!(
            peer.incarnation = line.peer.get(),
            peer.address = &*theirs.address,
            reason,
            "a node advertises an address at which it cannot be reached from here: check its --node-address"
        );
        let notice = format!("{}: {reason}", theirs.address);
        line.post(|output| {
            put_frame(output, 0, |out| {
                out.extend_from_slice(notice.as_bytes());
                kinds::UNREACHABLE
            })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_porch_has_room_for_so_many_and_fewer_of_one_address() {
        let porch = Arc::new(Porch::default());
        let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut places: Vec<_> = (0..MAX_UNPROVEN_OF_ONE).map(|_| porch.enter(ip(1)).unwrap()).collect();
        assert!(porch.enter(ip(1)).is_none(), "one address has its share");
        places.extend((0..MAX_UNPROVEN - MAX_UNPROVEN_OF_ONE).map(|n| porch.enter(ip(2 + (n / 8) as u8)).unwrap()));
        assert!(porch.enter(ip(99)).is_none(), "and all together have theirs");
        drop(places);
        assert!(porch.waiting.lock().is_empty());
        assert!(porch.enter(ip(1)).is_some());
    }
}
