//! The task of one link: reads, serves, writes. One task does all three, so that a request costs the owner one wake-up:
//! what was read is served in place, and the answers leave in one write.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Links;
use super::codec::{Malformed, decode_request, decode_response, encode_response};
use super::frame::{Frame, Input, READ_BYTES, kinds, put_frame};
use super::greeting::Stream;
use super::line::{Found, Line, MAX_QUEUED_BYTES};
use super::stats::add;
use crate::cluster::transport::{Response, Served};

/// Most bytes of one write.
pub(super) const WRITE_BYTES: usize = 256 << 10;
/// Frames handled before others on the same thread may run: a push costs up to 15 µs.
const TURN_FRAMES: usize = 64;
/// How often a link is looked at; one that was silent in between, in either direction, gets a ping.
const TICK: Duration = Duration::from_secs(1);
/// A link on which nothing arrives for so long is dead.
pub(super) const SILENCE: Duration = Duration::from_secs(4);
/// Requests of one link that are being served and take longer.
pub(super) const MAX_LATER: usize = 256;
/// The last bytes of a link that ends in order may take so long.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longest reason in a notice.
const MAX_NOTICE_BYTES: usize = 1_024;

/// How a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// Both sides said goodbye, or this side has waited long enough.
    #[error("the link has ended in order")]
    InOrder,
    /// This node ends, or goes on under another incarnation.
    #[error("this node has ended the link")]
    Here,
    /// The other side has closed or reset the connection.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Nothing was heard.
    #[error("nothing was heard for {SILENCE:?}")]
    Silent,
    /// Not our frames.
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

/// Runs a link until it ends.
pub(super) async fn run(links: Arc<Links>, line: Arc<Line>, stream: Stream, input: Input) {
    // If serving panics, those who wait are told all the same.
    let guard = Guard { links: Arc::clone(&links), line: Arc::clone(&line), end: None };
    let token = links.tasks.token().clone();
    let desk =
        Desk { links, line, answers: Vec::new(), read_at: Instant::now(), later: Arc::default(), goodbye_heard: false };
    let mut wire = Wire {
        stream,
        input,
        output: Output { bytes: Vec::new(), written: 0, is_flushed: true, has_gathered: false },
        pulse: Pulse { heard: Instant::now(), was_heard: false, was_sent: false },
        desk,
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        // Reading comes before the tick: after a pause of the whole process, what has arrived counts as heard.
        tokio::select! {
            biased;
            () = token.cancelled() => break End::Here,
            end = std::future::poll_fn(|cx| wire.poll(cx)) => break end,
            now = ticks.tick() => if let Some(end) = wire.tick(now) { break end },
        }
    };
    if matches!(end, End::InOrder | End::Here) {
        // Best effort: the other side may not be there.
        let _closed = timeout(LAST_WORDS, wire.stream.shutdown()).await;
    }
    Guard::ended(guard, end);
}

/// Tells the links that one of them is no more.
struct Guard {
    links: Arc<Links>,
    line: Arc<Line>,
    end: Option<End>,
}

impl Guard {
    fn ended(mut self, end: End) {
        self.end = Some(end);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let end = self.end.take().unwrap_or_else(|| End::Lost("its task has failed".to_owned()));
        self.links.ended(&self.line, &end);
    }
}

struct Wire {
    stream: Stream,
    input: Input,
    output: Output,
    pulse: Pulse,
    desk: Desk,
}

/// What is being written.
struct Output {
    bytes: Vec<u8>,
    written: usize,
    is_flushed: bool,
    /// Whether what is queued has been left for a round of the runtime, to gather.
    has_gathered: bool,
}

/// Signs of life.
struct Pulse {
    /// When something was last read.
    heard: Instant,
    /// Whether anything was read, and written, since the last tick.
    was_heard: bool,
    was_sent: bool,
}

impl Wire {
    /// Does whatever can be done; ready when the link has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.turn(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let mut handled = 0;
        loop {
            let may_read = self.desk.answers.len() <= MAX_QUEUED_BYTES;
            let mut has_read = false;
            if may_read {
                handled += self.desk.handle(&mut self.input, TURN_FRAMES - handled)?;
                if handled < TURN_FRAMES {
                    has_read = self.poll_read(cx)?.is_ready();
                    if has_read {
                        handled += self.desk.handle(&mut self.input, TURN_FRAMES - handled)?;
                    }
                }
            }
            let has_written = self.write(cx)?;
            if handled >= TURN_FRAMES {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            if !has_read && !has_written {
                return Ok(());
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        let mut room = ReadBuf::new(self.input.room(READ_BYTES));
        match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Err(error)) => Err(End::Lost(error.to_string())),
            Poll::Ready(Ok(())) => {
                let n = room.filled().len();
                if n == 0 {
                    return Err(if self.desk.goodbye_heard {
                        End::InOrder
                    } else {
                        End::Lost("the other side has closed it".to_owned())
                    });
                }
                self.input.arrived(n);
                add(&self.desk.links.stats.bytes_in, n as u64);
                self.pulse.was_heard = true;
                self.pulse.heard = Instant::now();
                self.desk.read_at = self.pulse.heard;
                Ok(Poll::Ready(()))
            }
        }
    }

    /// Writes what there is; whether anything was taken up that may lead to more.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.poll_write(cx)?.is_pending() {
            return Ok(false);
        }
        let Self { output, desk, .. } = self;
        match desk.line.collect(cx, &mut desk.answers, &mut output.bytes, &mut output.has_gathered) {
            Found::Frames => {
                output.written = 0;
                Ok(self.poll_write(cx)?.is_ready())
            }
            Found::Gathering => {
                cx.waker().wake_by_ref();
                Ok(false)
            }
            Found::Farewell if desk.goodbye_heard && desk.later.load(Ordering::Acquire) == 0 => Err(End::InOrder),
            Found::Nothing | Found::Farewell => Ok(false),
            Found::Ended => Err(End::Here),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, End> {
        let lost = |error: std::io::Error| End::Lost(error.to_string());
        while let Some(rest) = self.output.bytes.get(self.output.written..).filter(|rest| !rest.is_empty()) {
            let piece = rest.get(..WRITE_BYTES).unwrap_or(rest);
            let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, piece) else {
                return Ok(Poll::Pending);
            };
            let n = written.map_err(lost)?;
            if n == 0 {
                return Err(End::Lost("it takes no more".to_owned()));
            }
            self.output.written += n;
            self.output.is_flushed = false;
            self.pulse.was_sent = true;
            self.desk.line.handed(n);
            add(&self.desk.links.stats.bytes_out, n as u64);
        }
        if !self.output.is_flushed {
            let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx) else { return Ok(Poll::Pending) };
            flushed.map_err(lost)?;
            self.output.is_flushed = true;
        }
        Ok(Poll::Ready(()))
    }

    /// Looks at the link once a second.
    fn tick(&mut self, now: Instant) -> Option<End> {
        if now.duration_since(self.pulse.heard) >= SILENCE {
            return Some(End::Silent);
        }
        if self.desk.line.overstays(now) {
            return Some(End::InOrder);
        }
        if !self.pulse.was_heard || !self.pulse.was_sent {
            // Id 0 is nobody's; the answer only breaks the silence.
            put_frame(&mut self.desk.answers, 0, |_| kinds::PING);
        }
        self.pulse.was_heard = false;
        self.pulse.was_sent = false;
        None
    }
}

/// Deals with frames and gathers the answers.
struct Desk {
    links: Arc<Links>,
    line: Arc<Line>,
    answers: Vec<u8>,
    read_at: Instant,
    later: Arc<AtomicUsize>,
    goodbye_heard: bool,
}

impl Desk {
    /// Handles up to `most` frames; returns how many.
    fn handle(&mut self, input: &mut Input, most: usize) -> Result<usize, End> {
        for handled in 0..most {
            let Some(frame) = input.next()? else { return Ok(handled) };
            self.frame(frame)?;
        }
        Ok(most)
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<(), Malformed> {
        let Frame { id, kind, payload } = frame;
        match kind {
            kinds::PING => {
                put_frame(&mut self.answers, id, |_| kinds::PONG);
            }
            kinds::PONG => self.line.complete(id, Response::Done),
            kinds::GOODBYE => {
                self.goodbye_heard = true;
                self.links.peer_retires(&self.line);
            }
            kinds::UNREACHABLE => {
                let reason = payload.get(..MAX_NOTICE_BYTES).unwrap_or(payload);
                self.links.told_unreachable(&self.line, &String::from_utf8_lossy(reason));
            }
            kinds::FIRST_RESPONSE.. => self.line.complete(id, decode_response(kind, payload)?),
            _ => self.request(id, kind, payload)?,
        }
        Ok(())
    }

    fn request(&mut self, id: u64, kind: u8, payload: &[u8]) -> Result<(), Malformed> {
        let (deadline_ms, request) = decode_request(kind, payload)?;
        // Its sender has given up on it, so it is better not done than done late.
        if self.read_at.elapsed() > Duration::from_millis(u64::from(deadline_ms)) {
            add(&self.links.stats.turned_away, 1);
            put(&mut self.answers, id, &Response::Busy);
            return Ok(());
        }
        match self.links.serve.serve(request) {
            Served::Now(response) => {
                add(&self.links.stats.served, 1);
                put(&mut self.answers, id, &response);
            }
            Served::Later(_) if self.later.load(Ordering::Relaxed) >= MAX_LATER => {
                add(&self.links.stats.turned_away, 1);
                put(&mut self.answers, id, &Response::Busy);
            }
            Served::Later(response) => {
                add(&self.links.stats.served, 1);
                self.later.fetch_add(1, Ordering::Relaxed);
                let underway = Underway { later: Arc::clone(&self.later), line: Arc::clone(&self.line) };
                let token = self.links.tasks.token().clone();
                self.links.tasks.spawn("link-answer", async move {
                    tokio::select! {
                        response = response => underway.answer(id, &response),
                        () = token.cancelled() => {}
                    }
                });
            }
        }
        Ok(())
    }
}

/// An answer that takes longer; counted until it is given or given up.
struct Underway {
    later: Arc<AtomicUsize>,
    line: Arc<Line>,
}

impl Underway {
    fn answer(&self, id: u64, response: &Response) {
        if !self.line.answer(id, response) {
            too_large(response);
            self.line.answer(id, &Response::Busy);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.later.fetch_sub(1, Ordering::Release);
        // A link in retirement may have waited for nothing but this.
        self.line.post(|_| true);
    }
}

fn put(answers: &mut Vec<u8>, id: u64, response: &Response) {
    if !put_frame(answers, id, |out| encode_response(out, response)) {
        too_large(response);
        put_frame(answers, id, |out| encode_response(out, &Response::Busy));
    }
}

fn too_large(response: &Response) {
    let items = match response {
        Response::Ids(ids) => ids.len(),
        Response::Rows { rows, .. } => rows.len(),
        Response::Done
        | Response::Gone
        | Response::Full
        | Response::TooManyGroups
        | Response::TooLarge
        | Response::Busy
        | Response::Described(_)
        | Response::Delivered(_) => 1,
    };
    tracing::error!(items, "an answer to another node is larger than a frame may be; it gets `busy` instead");
}
