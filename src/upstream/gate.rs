//! How many calls run to one upstream at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::Authority;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::{Bound, Config, UpstreamError};

/// One gate per authority.
///
/// A full gate is not a queue without end: at most [`Config::max_waiting`] callers wait, each at most
/// [`Config::max_wait`], which evens out a burst; beyond that the answer is [`UpstreamError::Busy`] at once.
#[derive(Debug)]
pub(super) struct Gates {
    width: usize,
    max_waiting: usize,
    max_wait: Duration,
    max_upstreams: usize,
    /// Held for one look-up, never across an await.
    by_authority: Mutex<HashMap<Authority, Arc<Gate>, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Gate {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A place at a gate; free again when dropped.
pub(super) type Pass = OwnedSemaphorePermit;

impl Gates {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            width: config.max_in_flight.min(Semaphore::MAX_PERMITS),
            max_waiting: config.max_waiting,
            max_wait: config.max_wait,
            max_upstreams: config.max_upstreams,
            by_authority: Mutex::default(),
        }
    }

    /// Takes a place at the gate of `authority`.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and nothing else.
    pub(super) async fn enter(&self, authority: &Authority, deadline: Instant) -> Result<Pass, UpstreamError> {
        let gate = self.gate(authority)?;
        if let Ok(place) = Arc::clone(&gate.places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiter = Waiter::join(&gate, self.max_waiting)?;
        let patience = deadline.min(Instant::now() + self.max_wait);
        match timeout_at(patience, Arc::clone(&gate.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // The semaphore is never closed, so the middle case is only the compiler's.
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy(Bound::InFlight)),
        }
    }

    fn gate(&self, authority: &Authority) -> Result<Arc<Gate>, UpstreamError> {
        let mut gates = self.by_authority.lock();
        if let Some(gate) = gates.get(authority) {
            return Ok(Arc::clone(gate));
        }
        if gates.len() >= self.max_upstreams {
            // A gate all of whose places are free and that nobody waits at is as good as a new one.
            gates.retain(|_, gate| Arc::strong_count(gate) > 1 || gate.places.available_permits() < self.width);
            if gates.len() >= self.max_upstreams {
                return Err(UpstreamError::Busy(Bound::Upstreams));
            }
        }
        let places = Arc::new(Semaphore::new(self.width));
        let gate = Arc::new(Gate { places, waiting: AtomicUsize::new(0) });
        gates.insert(authority.clone(), Arc::clone(&gate));
        Ok(gate)
    }
}

/// Counts one caller that waits.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn join(gate: &'a Gate, max_waiting: usize) -> Result<Self, UpstreamError> {
        let waiter = Self(&gate.waiting);
        if gate.waiting.fetch_add(1, Ordering::Relaxed) >= max_waiting {
            return Err(UpstreamError::Busy(Bound::InFlight));
        }
        Ok(waiter)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(width: usize, max_waiting: usize, max_upstreams: usize, max_wait: Duration) -> Gates {
        let config = Config { max_in_flight: width, max_waiting, max_upstreams, max_wait, ..Config::default() };
        Gates::new(&config)
    }

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_full_gate_is_busy_after_the_bounded_wait() {
        let gates = gates(1, 1, 8, SHORT);
        let (one, two) = (Authority::from_static("one"), Authority::from_static("two"));
        let pass = gates.enter(&one, soon()).await.unwrap();
        let before = Instant::now();
        assert!(matches!(gates.enter(&one, soon()).await, Err(UpstreamError::Busy(Bound::InFlight))));
        assert!(before.elapsed() >= SHORT);
        assert!(gates.enter(&two, soon()).await.is_ok(), "another upstream has its own gate");
        drop(pass);
        assert!(gates.enter(&one, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn beyond_the_waiting_bound_it_is_busy_at_once() {
        let gates = gates(1, 1, 8, LONG);
        let one = Authority::from_static("one");
        let pass = gates.enter(&one, soon()).await.unwrap();
        let waiting = gates.enter(&one, soon());
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        let before = Instant::now();
        assert!(gates.enter(&one, soon()).await.is_err());
        assert!(before.elapsed() < LONG / 2);
        drop(pass);
        assert!(waiting.await.is_ok(), "who waits gets the place");
    }

    #[tokio::test]
    async fn idle_gates_make_room_for_new_upstreams_and_used_ones_do_not() {
        let gates = gates(1, 1, 1, SHORT);
        let (one, two) = (Authority::from_static("one"), Authority::from_static("two"));
        let pass = gates.enter(&one, soon()).await.unwrap();
        assert!(matches!(gates.enter(&two, soon()).await, Err(UpstreamError::Busy(Bound::Upstreams))));
        drop(pass);
        assert!(gates.enter(&two, soon()).await.is_ok());
        assert_eq!(gates.by_authority.lock().len(), 1);
    }
}
