//! A shard's readiness set: all its sockets behind one descriptor, and that one registered with the runtime.

use std::io;
use std::time::Duration;

use mio::{Events, Poll, Registry};
use tokio::io::unix::AsyncFd;

/// Events taken from the system in one call.
const CAPACITY: usize = 1_024;

/// The set. Sockets are registered with it once, edge-triggered.
#[derive(Debug)]
pub(super) struct ReadinessSet(AsyncFd<Poll>);

impl ReadinessSet {
    /// An empty set, and room for what it reports.
    ///
    /// # Errors
    /// When the system gives no descriptor.
    pub(super) fn new() -> io::Result<(Self, Events)> {
        let poll = Poll::new()?;
        #[expect(unsafe_code, reason = "the runtime cannot see that the set keeps its descriptor")]
        // SAFETY: `Poll` owns its descriptor, always returns the same one and closes it when dropped; it is moved into
        // the `AsyncFd` here and never taken out of it.
        let registered = unsafe { AsyncFd::register(poll) };
        let set = registered.map_err(|error| io::Error::other(error.to_string()))?;
        Ok((Self(set), Events::with_capacity(CAPACITY)))
    }

    /// Where sockets are registered.
    pub(super) fn registry(&self) -> &Registry {
        self.0.get_ref().registry()
    }

    /// Waits until something is ready and takes it.
    ///
    /// # Cancel safety
    /// Nothing is lost: events are taken in the same step in which this returns.
    pub(super) async fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            take(ready.get_inner_mut(), events)?;
            // Fewer than fit: the set is empty now, and an event that has come since has made it ready anew. Cleared
            // before that, a set that still holds something would never be announced again.
            if events.iter().count() < CAPACITY {
                ready.clear_ready();
            }
            if !events.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes what is ready now, if anything.
    pub(super) fn look(&mut self, events: &mut Events) -> io::Result<()> {
        take(self.0.get_mut(), events)
    }
}

fn take(poll: &mut Poll, events: &mut Events) -> io::Result<()> {
    match poll.poll(events, Some(Duration::ZERO)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            events.clear();
            Ok(())
        }
        outcome => outcome,
    }
}
