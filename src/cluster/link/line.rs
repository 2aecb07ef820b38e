//! One link as those see it who ask over it: what waits to be written, and who waits for which answer.
//!
//! ```text
//!            retire()                     goodbyes said and heard
//!  Open ───────────────► Retiring ─────────────────────────────────► Ended
//!    └──────────────────────┴──── end(): cut, silent, broken ─────────►
//! ```
//!
//! Askers write their frame into a shared buffer and wake the link's task only if it sleeps; it takes everything that has
//! gathered at once. One lock guards it all, held for the encoding of one frame or the exchange of two buffers.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::codec::{encode_request, encode_response, request_bound};
use super::frame::{HEADER_BYTES, kinds, put_frame};
use crate::cluster::transport::{LinkError, Request, Response};
use crate::ids::Incarnation;

/// Requests of one link that wait for their answers.
pub(super) const MAX_UNANSWERED: usize = 16_384;
/// Bytes of one link that wait to be written; a single frame may always be queued when nothing else is.
pub(super) const MAX_QUEUED_BYTES: usize = 64 << 20;
/// A buffer that has grown beyond this is given back once it is empty.
const KEPT_BYTES: usize = 1 << 20;
/// A link in retirement waits at most so long for the last answers and the other side's goodbye.
pub(super) const RETIREMENT: Duration = Duration::from_secs(30);

/// One link; shared by its task and by all who ask.
#[derive(Debug)]
pub(super) struct Line {
    /// Who is at the other end.
    pub(super) peer: Incarnation,
    /// Whether this node has made the connection.
    pub(super) dialled_here: bool,
    /// Since when.
    pub(super) made_at: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Frames that the link's task has not taken.
    output: Vec<u8>,
    /// Bytes that it has taken and not written.
    taken: usize,
    /// All bytes that were ever put into `output`.
    queued_total: u64,
    /// How many of these were handed to TLS.
    handed_total: u64,
    waiting: Slab<Waiting>,
    next_generation: u32,
    /// Set while the link's task sleeps.
    task: Option<Waker>,
    goodbye_said: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Retiring(Instant),
    Ended,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    /// Where its frame begins among all bytes queued: what was never handed over was never sent.
    begins: u64,
    answer: oneshot::Sender<Result<Response, LinkError>>,
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The link ends: there may be another.
    Closed,
    /// Too much waits.
    Full,
    /// No frame is so large.
    TooLarge,
}

/// What the link's task found when it looked for more to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Frames, now in its buffer.
    Frames,
    /// More may gather: look again after the others have run.
    Gathering,
    /// Nothing; the task will be woken.
    Nothing,
    /// Nothing, and this side has said goodbye.
    Farewell,
    /// The link is to be cut.
    Ended,
}

impl Line {
    /// A link just greeted.
    pub(super) fn new(peer: Incarnation, dialled_here: bool) -> Arc<Self> {
        let state = State {
            phase: Phase::Open,
            output: Vec::new(),
            taken: 0,
            queued_total: 0,
            handed_total: 0,
            waiting: Slab::new(),
            // Generation 0 is never given out, so the id 0 names nobody.
            next_generation: 1,
            task: None,
            goodbye_said: false,
        };
        Arc::new(Self { peer, dialled_here, made_at: Instant::now(), state: Mutex::new(state) })
    }

    /// Queues a request; the ticket waits for its answer.
    pub(super) fn ask(self: &Arc<Self>, request: &Request, deadline: Duration) -> Result<Ticket, NotTaken> {
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX).max(1);
        self.queue(request_bound(request), |out| encode_request(out, deadline_ms, request))
    }

    /// Queues a ping; the ticket gets `Done`.
    pub(super) fn ping(self: &Arc<Self>) -> Result<Ticket, NotTaken> {
        self.queue(0, |_| kinds::PING)
    }

    fn queue(self: &Arc<Self>, bound: usize, write: impl FnOnce(&mut Vec<u8>) -> u8) -> Result<Ticket, NotTaken> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(NotTaken::Closed);
        }
        let queued = state.output.len() + state.taken;
        let is_full = queued > 0 && queued + bound + HEADER_BYTES > MAX_QUEUED_BYTES;
        if is_full || state.waiting.len() >= MAX_UNANSWERED {
            return Err(NotTaken::Full);
        }
        let generation = state.next_generation;
        let begins = state.queued_total;
        let entry = state.waiting.vacant_entry();
        let key = entry.key();
        let id = (u64::from(generation) << 32) | key as u64;
        entry.insert(Waiting { id, begins, answer: sender });
        if !state.put(|output| put_frame(output, id, write)) {
            state.waiting.remove(key);
            return Err(NotTaken::TooLarge);
        }
        state.next_generation = generation.checked_add(1).unwrap_or(1);
        let task = state.task.take();
        drop(state);
        wake(task);
        Ok(Ticket { line: Arc::clone(self), id, receiver })
    }

    /// Queues an answer that took longer. `false` when it is larger than a frame may be.
    pub(super) fn answer(&self, id: u64, response: &Response) -> bool {
        self.post(|output| put_frame(output, id, |out| encode_response(out, response)))
    }

    /// Queues a frame that nobody answers, behind what is there.
    pub(super) fn post(&self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let mut state = self.state.lock();
        if state.phase == Phase::Ended {
            return true;
        }
        let fits = state.put(write);
        let task = state.task.take();
        drop(state);
        wake(task);
        fits
    }

    /// Hands an answer to who waits for it; nobody does when its deadline has passed.
    pub(super) fn complete(&self, id: u64, response: Response) {
        let waiting = self.state.lock().remove(id);
        if let Some(waiting) = waiting {
            // Whoever asked may have gone meanwhile.
            let _sent = waiting.answer.send(Ok(response));
        }
    }

    fn give_up(&self, id: u64) {
        let mut state = self.state.lock();
        let _removed = state.remove(id);
        let task = if state.phase == Phase::Open { None } else { state.task.take() };
        drop(state);
        wake(task);
    }

    /// Takes no more requests; the link ends once those asked are answered and the other side has said goodbye.
    pub(super) fn retire(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Retiring(Instant::now());
        }
        let task = state.task.take();
        drop(state);
        wake(task);
    }

    /// Ends the link now. Requests that were sent are unanswered, the others were not sent.
    pub(super) fn end(&self, why: &str) {
        let mut state = self.state.lock();
        state.phase = Phase::Ended;
        let handed = state.handed_total;
        let waiting = std::mem::take(&mut state.waiting);
        state.output = Vec::new();
        state.taken = 0;
        let task = state.task.take();
        drop(state);
        wake(task);
        for (_, Waiting { begins, answer, .. }) in waiting {
            let error = if begins < handed {
                LinkError::Unanswered(why.to_owned())
            } else {
                LinkError::NotSent(why.to_owned())
            };
            let _sent = answer.send(Err(error));
        }
    }

    /// For the link's task: puts `answers` behind what is queued and takes all of it into `writing`, which is empty.
    ///
    /// What others have queued is left for one more round of the runtime, when there is nothing else to write: tasks that
    /// are ready to run may add to it, and one write is cheaper than two.
    pub(super) fn collect(
        &self,
        cx: &Context<'_>,
        answers: &mut Vec<u8>,
        writing: &mut Vec<u8>,
        gathered: &mut bool,
    ) -> Found {
        let mut state = self.state.lock();
        state.handed_total += state.taken as u64;
        state.taken = 0;
        if state.phase == Phase::Ended {
            return Found::Ended;
        }
        let may_gather = answers.is_empty();
        if !may_gather {
            state.put(|output| {
                output.append(answers);
                true
            });
            if answers.capacity() > KEPT_BYTES {
                *answers = Vec::new();
            }
        }
        if matches!(state.phase, Phase::Retiring(_)) && state.waiting.is_empty() && !state.goodbye_said {
            state.goodbye_said = true;
            state.put(|output| put_frame(output, 0, |_| kinds::GOODBYE));
        }
        if state.output.is_empty() {
            *gathered = false;
            if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                state.task = Some(cx.waker().clone());
            }
            return if state.goodbye_said { Found::Farewell } else { Found::Nothing };
        }
        if may_gather && !*gathered {
            *gathered = true;
            return Found::Gathering;
        }
        *gathered = false;
        writing.clear();
        if writing.capacity() > KEPT_BYTES {
            *writing = Vec::new();
        }
        std::mem::swap(&mut state.output, writing);
        state.taken = writing.len();
        Found::Frames
    }

    /// For the link's task: `n` more bytes were handed to TLS.
    pub(super) fn handed(&self, n: usize) {
        let mut state = self.state.lock();
        let n = n.min(state.taken);
        state.taken -= n;
        state.handed_total += n as u64;
    }

    /// Whether the link has been in retirement for too long.
    pub(super) fn overstays(&self, now: Instant) -> bool {
        match self.state.lock().phase {
            Phase::Retiring(since) => now.duration_since(since) >= RETIREMENT,
            Phase::Open | Phase::Ended => false,
        }
    }

    /// Requests waiting for answers, bytes waiting to be written.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.waiting.len(), state.output.len() + state.taken)
    }
}

impl State {
    fn put(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let before = self.output.len();
        let fits = write(&mut self.output);
        self.queued_total += (self.output.len() - before) as u64;
        fits
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let key = (id & u64::from(u32::MAX)) as usize;
        // The place may have been given to another since.
        if self.waiting.get(key)?.id == id { self.waiting.try_remove(key) } else { None }
    }
}

fn wake(task: Option<Waker>) {
    if let Some(task) = task {
        task.wake();
    }
}

/// A request on its way. Dropping it gives up on the answer.
#[derive(Debug)]
pub(super) struct Ticket {
    line: Arc<Line>,
    id: u64,
    receiver: oneshot::Receiver<Result<Response, LinkError>>,
}

impl Ticket {
    /// Waits for the answer.
    pub(super) async fn answer(mut self, until: Instant) -> Result<Response, LinkError> {
        match timeout_at(until, &mut self.receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(LinkError::Unanswered("the link has ended".to_owned())),
            Err(_) => Err(LinkError::Unanswered("the deadline has passed".to_owned())),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Closing first makes an answer that arrives just now stay with its sender.
        self.receiver.close();
        if self.receiver.try_recv().is_err() {
            self.line.give_up(self.id);
        }
    }
}
