//! The thread that writes access log lines: the only place where the log may wait.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use super::{Batch, Inner};

/// How long a line may stay in a buffer that does not fill up.
const COLLECT_EVERY: Duration = Duration::from_millis(500);

/// What lines are written to.
pub(super) trait Output: Write + Send + 'static {
    /// Starts over with whatever now has the same name.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output, its lock taken for each write.
pub(super) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        io::stdout().lock().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }
}

impl Output for Stdout {}

/// The end of a file.
pub(super) struct File {
    path: PathBuf,
    file: std::fs::File,
}

impl File {
    /// Opens or makes it. Lines hold addresses of people, so a new one is not for everybody to read.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Output for File {
    fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.path)?;
        Ok(())
    }
}

/// Writes what comes until the log is closed or its last handle is gone.
pub(super) fn run(mut output: impl Output, receiver: &Receiver<Batch>, log: &Weak<Inner>, dropped: &Counter) {
    let mut failing = false;
    let mut write = |batch: &Batch, reopen: bool| {
        if reopen && let Err(error) = output.reopen() {
            tracing::error!(%error, "the access log cannot be opened again, the old file stays in use");
        }
        match output.write_all(&batch.bytes).and_then(|()| output.flush()) {
            Ok(()) => failing = false,
            Err(error) => {
                dropped.inc_by(batch.lines.into());
                // Once for each time it starts to fail: the metric has the rest.
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "the access log cannot be written, lines are lost");
                }
            }
        }
    };
    let mut collected = Instant::now();
    loop {
        let wait = COLLECT_EVERY.saturating_sub(collected.elapsed());
        let batch = match receiver.recv_timeout(wait) {
            Ok(batch) => batch,
            Err(RecvTimeoutError::Timeout) => Batch::default(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(log) = log.upgrade() else {
            write(&batch, false);
            continue;
        };
        let closed = log.closed.load(Ordering::Acquire);
        write(&batch, log.reopen.swap(false, Ordering::AcqRel));
        if closed || collected.elapsed() >= COLLECT_EVERY {
            for batch in collect(&log, receiver) {
                write(&batch, false);
            }
            collected = Instant::now();
        }
        if closed {
            return;
        }
    }
}

/// Takes all there is. A shard stays locked while the queue is emptied, so that nothing of it is overtaken.
fn collect(log: &Inner, receiver: &Receiver<Batch>) -> Vec<Batch> {
    let mut batches = Vec::new();
    for shard in &log.shards {
        let mut current = shard.lock();
        batches.extend(receiver.try_iter().take(super::QUEUE));
        if current.lines > 0 {
            batches.push(std::mem::take(&mut *current));
        }
    }
    batches
}
