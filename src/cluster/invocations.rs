//! Repeated pushes: an SDK that got a 503 sends the same call again under the same id, and the first may have been done.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::transport::Invocation;

/// How long a call is remembered at least, unless there are more than [`MOST`] of them. An SDK has given up by then.
const WINDOW: Duration = Duration::from_secs(60);
/// Calls remembered of one window, two of which are kept: nine megabytes at the most.
const MOST: usize = 262_144;

#[derive(Debug)]
struct State {
    now: HashSet<Invocation>,
    before: HashSet<Invocation>,
    began: Instant,
}

/// The calls that this node has done lately. One lock, held for a set operation; only pushes that carry an id come here.
#[derive(Debug)]
pub(crate) struct Invocations(Mutex<State>);

impl Default for Invocations {
    fn default() -> Self {
        Self(Mutex::new(State { now: HashSet::new(), before: HashSet::new(), began: Instant::now() }))
    }
}

impl Invocations {
    /// Notes a call before it is done; `false` when it has been done before.
    pub(crate) fn begin(&self, invocation: Invocation) -> bool {
        let mut state = self.0.lock();
        if state.began.elapsed() >= WINDOW || state.now.len() >= MOST {
            state.before = std::mem::take(&mut state.now);
            state.began = Instant::now();
        }
        !state.before.contains(&invocation) && state.now.insert(invocation)
    }

    /// It was not done after all: the next one is not a repeat.
    pub(crate) fn undo(&self, invocation: Invocation) {
        let mut state = self.0.lock();
        state.now.remove(&invocation);
        state.before.remove(&invocation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_is_done_once_within_its_window() {
        let seen = Invocations::default();
        assert!(seen.begin(1) && seen.begin(2) && !seen.begin(1));
        tokio::time::advance(WINDOW).await;
        assert!(!seen.begin(1), "the window before is remembered too");
        tokio::time::advance(WINDOW).await;
        assert!(seen.begin(3) && !seen.begin(3));
        tokio::time::advance(WINDOW).await;
        assert!(seen.begin(1));
    }

    #[test]
    fn a_call_that_failed_may_be_repeated() {
        let seen = Invocations::default();
        assert!(seen.begin(1));
        seen.undo(1);
        assert!(seen.begin(1));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let seen = Invocations::default();
        for n in 0..3 * MOST as u64 {
            seen.begin(n);
        }
        let state = seen.0.lock();
        assert!(state.now.len() <= MOST && state.before.len() <= MOST);
    }
}
