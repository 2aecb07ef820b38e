//! The access log: one line for each exchange, written without making the exchange wait.
//!
//! Lines are rendered into a buffer of the calling thread's shard; full buffers go to a writer thread, which also collects
//! what is not full at least once a second. A hand-over for each line would cost more than the exchange itself. When the
//! writer is stuck (a full pipe, a dead disk), buffers fill up and further lines are dropped and counted: the gateway
//! goes on. Lines of one thread keep their order; lines of different threads may be up to a second apart.

mod entry;
mod format;
mod writer;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use crate::tasks::Tasks;

pub use entry::{Entry, ErrorFields, IntegrationFields, Lookup};
pub use format::{DEFAULT, Format, FormatError};
use writer::{File, Output, Stdout};

/// A shard's buffer is handed over when it has this many bytes: over a hundred lines for one wake-up.
const BATCH_BYTES: usize = 16 * 1024;
/// What a shard's buffer may grow to while the writer is stuck.
const MAX_BATCH_BYTES: usize = 2 * BATCH_BYTES;
/// Buffers that may wait for the writer: 2 MiB at most.
const QUEUE: usize = 64;
/// More shards than threads only cost memory; these are for machines with many.
const MAX_SHARDS: usize = 32;

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file, made when it is not there.
    File(PathBuf),
}

impl std::str::FromStr for Target {
    type Err = std::convert::Infallible;

    /// `off`, `-` for standard output, anything else is a path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "off" | "" => Self::Off,
            "-" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

/// Takes access log lines. Clones are handles to the same log.
#[derive(Debug, Clone, Default)]
pub struct AccessLog(Option<Arc<Inner>>);

impl AccessLog {
    /// A log that takes nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Opens the target and starts its writer, a thread of `tasks`.
    ///
    /// The writer ends after [`AccessLog::close`], not when `tasks` is cancelled, since the exchanges of a drain still have
    /// lines to write: give it a `Tasks` of its own and drain that last. `dropped` counts lines that were lost.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or the system gives no thread.
    pub fn open(target: &Target, tasks: &Tasks, dropped: Counter) -> io::Result<Self> {
        match target {
            Target::Off => Ok(Self::off()),
            Target::Stdout => Self::start(Stdout, tasks, dropped),
            Target::File(path) => Self::start(File::open(path)?, tasks, dropped),
        }
    }

    fn start(output: impl Output, tasks: &Tasks, dropped: Counter) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let shards = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_SHARDS);
        let inner = Arc::new(Inner {
            shards: std::iter::repeat_with(Mutex::default).take(shards).collect(),
            sender,
            dropped,
            closed: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&inner);
        let dropped = inner.dropped.clone();
        tasks.thread("access-log", move || writer::run(output, &receiver, &weak, &dropped))?;
        Ok(Self(Some(inner)))
    }

    /// Whether lines go anywhere: what they need may be left undone otherwise.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Adds one line; `render` appends it to what is there, without a line end, and must not use this log itself.
    ///
    /// Never waits for the writer. After [`AccessLog::close`] lines are dropped.
    pub fn append(&self, render: impl FnOnce(&mut Vec<u8>)) {
        if let Some(inner) = &self.0 {
            inner.append(render);
        }
    }

    /// Opens the file again, as after it was moved away. What cannot be opened is logged, and the old file stays.
    pub fn reopen(&self) {
        if let Some(inner) = &self.0 {
            inner.reopen.store(true, Ordering::Release);
            inner.wake();
        }
    }

    /// Writes everything that was appended, then ends the writer. Does not wait for it; the drain of its `Tasks` does.
    pub fn close(&self) {
        if let Some(inner) = &self.0 {
            inner.closed.store(true, Ordering::Release);
            inner.wake();
        }
    }
}

/// Lines on their way to the writer.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u32,
}

struct Inner {
    /// Each guards one buffer, for the length of one line's rendering.
    shards: Box<[Mutex<Batch>]>,
    sender: SyncSender<Batch>,
    dropped: Counter,
    closed: AtomicBool,
    reopen: AtomicBool,
}

impl Inner {
    fn append(&self, render: impl FnOnce(&mut Vec<u8>)) {
        let Some(shard) = self.shards.get(own_number() % self.shards.len()) else { return };
        let mut batch = shard.lock();
        // Under the lock: the writer looks at every shard after it has seen the flag.
        if self.closed.load(Ordering::Acquire) {
            self.dropped.inc();
            return;
        }
        let start = batch.bytes.len();
        if batch.bytes.capacity() == 0 {
            batch.bytes.reserve(BATCH_BYTES + 1024);
        }
        render(&mut batch.bytes);
        batch.bytes.push(b'\n');
        batch.lines += 1;
        if batch.bytes.len() < BATCH_BYTES {
            return;
        }
        match self.sender.try_send(std::mem::take(&mut *batch)) {
            Ok(()) => {}
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                *batch = back;
                if batch.bytes.len() > MAX_BATCH_BYTES {
                    batch.bytes.truncate(start);
                    batch.lines -= 1;
                    self.dropped.inc();
                }
            }
        }
    }

    /// An empty batch; when the queue is full the writer is not asleep.
    fn wake(&self) {
        let _queue_full = self.sender.try_send(Batch::default());
    }
}

impl Drop for Inner {
    /// The last handle went without a close: the writer gets what is there and ends with the channel.
    fn drop(&mut self) {
        for shard in &self.shards {
            let batch = std::mem::take(&mut *shard.lock());
            if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) = self.sender.try_send(batch) {
                self.dropped.inc_by(lost.lines.into());
            }
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// Counts threads in the order in which they first write a line.
fn own_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        OWN.set(Some(number));
        number
    })
}

#[cfg(test)]
mod tests;
