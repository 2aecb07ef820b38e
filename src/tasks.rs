//! The only code that spawns: every task has a name, is awaited by a drain, and reports its panic.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Spawns tasks and threads of this process and waits for them when it ends.
///
/// Cloning gives another handle to the same tracker. The token means "please finish"; who holds it decides how.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    runtime: Handle,
}

impl Tasks {
    /// A tracker on the runtime of the caller.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new() -> Self {
        Self { tracker: TaskTracker::new(), token: CancellationToken::new(), runtime: Handle::current() }
    }

    /// A group of tasks that is waited for by itself; its token ends with this one's.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), token: self.token.child_token(), runtime: self.runtime.clone() }
    }

    /// Cancelled when the process should end.
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Spawns a tracked task; a panic in it is logged with its name and ends only the task.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // The wrappers below each move what they wrap; an exchange's future has kilobytes, a pointer has eight bytes.
        let future = Box::pin(future);
        let guarded = async move {
            let _reported = guarded_future(name, future).await;
        };
        let task = self.tracker.track_future(guarded.instrument(tracing::debug_span!("task", name)));
        drop(self.runtime.spawn(task));
    }

    /// Starts a named thread that a drain waits for, like a task; a panic in it is logged.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn thread(&self, name: &'static str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let token = self.tracker.token();
        let runtime = self.runtime.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _tracked = token;
            let _context = runtime.enter();
            let _reported = guarded(name, body);
        })?;
        Ok(())
    }

    /// Tasks and threads now running.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until every task has ended, at most `patience`; returns how many still ran then.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.tracker.close();
        let _timed_out = tokio::time::timeout(patience, self.tracker.wait()).await;
        self.tracker.len()
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

/// Runs `body`; a panic in it is logged under `name` and comes back as `None`. For a thread that serves many, none of
/// whom should pay for what one of them brought about.
pub fn guarded<T>(name: &str, body: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(AssertUnwindSafe(body)).map_err(|panic| report_panic(name, &*panic)).ok()
}

/// The same for a future.
pub async fn guarded_future<F: Future>(name: &str, future: F) -> Option<F::Output> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| report_panic(name, &*panic)).ok()
}

fn report_panic(name: &str, panic: &(dyn std::any::Any + Send)) {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned());
    tracing::error!(task = name, panic = text, "a task panicked; what it was doing is lost, the node goes on");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_waits_and_counts_what_is_left() {
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        tasks.spawn("quick", async {});
        tasks.spawn("until told", async move { token.cancelled().await });
        assert_eq!(tasks.drain(Duration::from_millis(20)).await, 1);
        tasks.token().cancel();
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_task() {
        let tasks = Tasks::new();
        tasks.spawn("bad", async { panic!("on purpose") });
        tasks.thread("bad-thread", || panic!("on purpose")).unwrap();
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
    }
}
