//! One server to talk to, whatever happens to connections: made when needed, shared, remade, and never waited for longer
//! than the deadline.
//!
//! ```text
//! ask ──► a living connection? ── yes ──► send, wait for the answers ──► answers
//!                 │ no                           │ deadline, and nothing answered since
//!                 ▼                              ▼
//!         one attempt, shared by all      connection dropped: the next `ask` makes another
//!         that wait; goes on after
//!         any of them has given up
//! ```
//!
//! No task waits in the background: whoever asks drives the attempt, and a node asks at least as often as it renews its
//! lease. So a server that is back is used by the next command, not after some pause; a failed attempt is remembered for
//! [`PAUSE`] so that a storm of commands is not one of connections.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use parking_lot::Mutex;
use redis::{Pipeline, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Target;
use super::dial::{Dialer, Login, Wire};
use super::error::{self, Refusal};
use super::sentinel::Sentinels;
use crate::cluster::registry::RegistryError;

/// How long a failed attempt stands for the next ones.
const PAUSE: Duration = Duration::from_millis(50);
/// An attempt to connect may take so many deadlines: one takes several round trips, and survives who waited for it.
const DEADLINES_TO_DIAL: u32 = 2;

type Dialing = Shared<Pin<Box<dyn Future<Output = Result<Arc<Wire>, RegistryError>> + Send>>>;

/// Which server.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// This one.
    At(Target),
    /// Whoever is the master just now.
    Master(Arc<Sentinels>),
}

/// One server to talk to.
pub(super) struct Link {
    place: Place,
    dialer: Arc<Dialer>,
    deadline: Duration,
    /// Held for a look, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wire: Option<Arc<Wire>>,
    dialing: Option<Dialing>,
    failed: Option<(Instant, RegistryError)>,
}

impl Link {
    pub(super) fn new(place: Place, dialer: Arc<Dialer>, deadline: Duration) -> Self {
        Self { place, dialer, deadline, state: Mutex::default() }
    }

    /// Sends commands in one piece and waits for their answers, not longer than `until`; refusals of the server are among them.
    pub(super) async fn ask(&self, commands: &Pipeline, until: Instant) -> Result<Vec<Value>, RegistryError> {
        let asked = Instant::now();
        if let Ok(answers) = timeout_at(until, self.attempt(commands)).await {
            return answers;
        }
        // Stuck, or cut off without a word: only another connection can tell. An answer to somebody else in the
        // meantime says that the server is merely slow; the rest of a deadline that others used up says nothing.
        if asked.elapsed() >= self.deadline / 2 {
            let mut state = self.state.lock();
            if state.wire.as_ref().is_some_and(|wire| wire.answered() <= asked) {
                state.wire = None;
            }
        }
        Err(RegistryError::TimedOut(self.deadline))
    }

    async fn attempt(&self, commands: &Pipeline) -> Result<Vec<Value>, RegistryError> {
        let wire = self.wire().await?;
        match wire.ask(commands).await {
            Ok(answers) => {
                // A replica, now. Sentinel or the name's address may know a master; a new connection finds out.
                let elsewhere = |value: &Value| matches!(value, Value::ServerError(said) if error::sort(said) == Refusal::Elsewhere);
                if answers.iter().any(elsewhere) {
                    self.drop_wire(&wire);
                }
                Ok(answers)
            }
            Err(error) => {
                self.drop_wire(&wire);
                Err(RegistryError::Unreachable(error.to_string()))
            }
        }
    }

    fn drop_wire(&self, wire: &Arc<Wire>) {
        let mut state = self.state.lock();
        if state.wire.as_ref().is_some_and(|current| Arc::ptr_eq(current, wire)) {
            state.wire = None;
        }
    }

    /// The connection there is, or a new one.
    async fn wire(&self) -> Result<Arc<Wire>, RegistryError> {
        let dialing = {
            let mut state = self.state.lock();
            if let Some(wire) = state.wire.as_ref().filter(|wire| wire.is_alive()) {
                return Ok(Arc::clone(wire));
            }
            match &state.failed {
                Some((at, error)) if at.elapsed() < PAUSE => return Err(error.clone()),
                Some(_) | None => {}
            }
            state.dialing.get_or_insert_with(|| self.dial()).clone()
        };
        let result = dialing.clone().await;
        let mut state = self.state.lock();
        if state.dialing.as_ref().is_some_and(|current| current.ptr_eq(&dialing)) {
            state.dialing = None;
            match &result {
                Ok(wire) => (state.wire, state.failed) = (Some(Arc::clone(wire)), None),
                Err(error) => state.failed = Some((Instant::now(), error.clone())),
            }
        }
        result
    }

    fn dial(&self) -> Dialing {
        let (place, dialer, patience) =
            (self.place.clone(), Arc::clone(&self.dialer), self.deadline * DEADLINES_TO_DIAL);
        async move {
            let dial = async {
                match &place {
                    Place::At(target) => dialer.dial(target, Login::Yes).await,
                    Place::Master(sentinels) => sentinels.master(&dialer).await,
                }
            };
            timeout(patience, dial).await.unwrap_or(Err(RegistryError::TimedOut(patience))).map(Arc::new)
        }
        .boxed()
        .shared()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("place", &self.place).finish_non_exhaustive()
    }
}
