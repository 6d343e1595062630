//! The request body on its way out, captured for a replay within limits.
//!
//! Invariants: frames pass on as they came and are never copied in memory; a capture never makes a
//! request fail, it only stops being replayable; at most one reader is live, an older one ends with
//! an error; request trailers are dropped. Everything here belongs to one worker.

mod spill;

use crate::{
    config,
    deadline::{Deadlines, TICK, Timer},
    metrics::{Limit, WorkerMetrics},
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use spill::Spill;
use std::{
    cell::{Cell, RefCell},
    fmt, io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

/// How long a body is held back for Amazon's `100 Continue` before it is sent regardless.
/// Source: RFC 9110 section 10.1.1 leaves the time to the client; one second is usual.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Why a request body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The caller left, or sent less than announced, or malformed chunks.
    #[error("the caller's request body ended early")]
    Incomplete,
    /// It is larger than `limits.body_max_bytes`.
    #[error("the request body is larger than allowed")]
    TooLarge,
    /// It came slower than `limits.body_min_bytes_per_sec`.
    #[error("the request body came too slowly")]
    TooSlow,
    /// A replay took over.
    #[error("a replay has taken over")]
    Superseded,
    /// The captured part cannot be read back.
    #[error("the captured request body cannot be read back")]
    Capture,
}

/// The limits of captures, shared by all workers.
#[derive(Debug)]
pub struct CaptureLimits {
    replay: config::Replay,
    body_max_bytes: u64,
    body_timeout: Duration,
    body_min_bytes_per_sec: u64,
    /// Bytes captured now, by all requests of all workers.
    total: AtomicU64,
}

impl CaptureLimits {
    /// The limits as configured, nothing captured yet.
    #[must_use]
    pub fn new(replay: &config::Replay, limits: &config::Limits) -> Arc<Self> {
        Arc::new(Self {
            replay: replay.clone(),
            body_max_bytes: limits.body_max_bytes,
            body_timeout: limits.body_timeout,
            body_min_bytes_per_sec: limits.body_min_bytes_per_sec,
            total: AtomicU64::new(0),
        })
    }

    /// Whether a body of `len` bytes is over the cap.
    #[must_use]
    pub fn is_too_large(&self, len: u64) -> bool {
        self.body_max_bytes != 0 && len > self.body_max_bytes
    }
}

/// What a worker lends to its captures.
#[derive(Clone, Debug)]
pub struct CaptureContext {
    /// The limits.
    pub limits: Arc<CaptureLimits>,
    /// The worker's timers.
    pub deadlines: Rc<Deadlines>,
    /// The worker's counters.
    pub metrics: Arc<WorkerMetrics>,
}

/// One request's body: handed out once to send, and again to replay.
#[derive(Clone)]
pub struct Capture(Option<Rc<Shared>>);

struct Shared {
    context: CaptureContext,
    size: SizeHint,
    state: RefCell<State>,
    reader: Cell<u32>,
    received: Cell<u64>,
    finished: Cell<bool>,
    waiting_for_caller: Cell<bool>,
    error: Cell<Option<BodyError>>,
}

struct State {
    source: Incoming,
    source_ended: bool,
    kept: Kept,
    kept_bytes: u64,
    slow: Timer,
    waiting_since: u64,
    waited: u64,
}

enum Kept {
    Memory(Vec<Bytes>),
    Disk(Spill),
    Nothing,
}

impl Capture {
    /// Begins to capture `source`. A request without a body needs no capture at all.
    #[must_use]
    pub fn new(source: Incoming, context: &CaptureContext) -> Self {
        if source.is_end_stream() {
            return Self(None);
        }
        Self(Some(Rc::new(Shared {
            size: source.size_hint(),
            state: RefCell::new(State {
                source,
                source_ended: false,
                kept: Kept::Memory(Vec::new()),
                kept_bytes: 0,
                slow: context.deadlines.timer(),
                waiting_since: 0,
                waited: 0,
            }),
            reader: Cell::new(0),
            received: Cell::new(0),
            finished: Cell::new(false),
            waiting_for_caller: Cell::new(false),
            error: Cell::new(None),
            context: context.clone(),
        })))
    }

    /// The body for one attempt; every earlier one ends. `None` when it was not kept whole.
    #[must_use]
    pub fn attempt(&self, gate: Option<Arc<ContinueGate>>) -> Option<RequestBody> {
        let Some(shared) = &self.0 else { return Some(RequestBody(None)) };
        let id = shared.reader.get() + 1;
        if shared.received.get() > 0 && !self.is_replayable() {
            return None;
        }
        shared.reader.set(id);
        shared.finished.set(false);
        let gate = gate.map(|gate| (gate, shared.context.deadlines.timer()));
        Some(RequestBody(Some(Reader { shared: shared.clone(), id, frame: 0, offset: 0, gate })))
    }

    /// Whether everything that was received can be sent again.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| !matches!(shared.state.borrow().kept, Kept::Nothing))
    }

    /// Whether the body is out, as far as it ever will be.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| shared.finished.get())
    }

    /// Whether the next byte is the caller's to send.
    #[must_use]
    pub fn waits_for_caller(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.waiting_for_caller.get())
    }

    /// Bytes received from the caller.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.received.get())
    }

    /// Why the body failed, if it did.
    #[must_use]
    pub fn error(&self) -> Option<BodyError> {
        self.0.as_ref().and_then(|shared| shared.error.get())
    }

    /// Whether the size was not announced, so that HTTP/1.1 needs chunks.
    #[must_use]
    pub fn is_of_unknown_size(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.size.exact().is_none())
    }

    /// Forgets what was captured: Amazon has answered for good.
    pub fn release(&self) {
        if let Some(shared) = &self.0 {
            shared.forget();
        }
    }
}

impl Shared {
    /// Keeps `data` for a replay as long as the limits allow.
    fn keep(&self, state: &mut State, data: &Bytes) {
        if matches!(state.kept, Kept::Nothing) {
            return;
        }
        let limits = &self.context.limits;
        let len = data.len() as u64;
        let kept = state.kept_bytes + len;
        let hit = if kept > limits.replay.disk_max_bytes.max(limits.replay.memory_max_bytes) {
            Some(Limit::CaptureDisk)
        } else if limits.total.fetch_add(len, Ordering::Relaxed) + len
            > limits.replay.total_max_bytes
        {
            limits.total.fetch_sub(len, Ordering::Relaxed);
            Some(Limit::CaptureTotal)
        } else {
            None
        };
        if let Some(limit) = hit {
            self.context.metrics.limit(limit);
            self.drop_kept(state);
            return;
        }
        state.kept_bytes = kept;
        match &mut state.kept {
            Kept::Memory(frames) if kept <= limits.replay.memory_max_bytes => {
                frames.push(data.clone());
            }
            Kept::Memory(frames) => {
                self.context.metrics.limit(Limit::CaptureMemory);
                let mut spill = Spill::new(limits.replay.directory.clone());
                frames.drain(..).for_each(|frame| spill.append(frame));
                spill.append(data.clone());
                state.kept = Kept::Disk(spill);
            }
            Kept::Disk(spill) => spill.append(data.clone()),
            Kept::Nothing => {}
        }
    }

    fn drop_kept(&self, state: &mut State) {
        self.context.limits.total.fetch_sub(state.kept_bytes, Ordering::Relaxed);
        state.kept_bytes = 0;
        state.kept = Kept::Nothing;
    }

    fn forget(&self) {
        self.drop_kept(&mut self.state.borrow_mut());
    }

    fn fail(&self, error: BodyError) -> BodyError {
        self.error.set(Some(error));
        self.finished.set(true);
        error
    }

    /// The next frame from the caller.
    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if let Kept::Disk(spill) = &mut state.kept
            && ready!(spill.poll_written(cx)).is_err()
        {
            // A full disk costs the replay, not the request.
            self.drop_kept(state);
        }
        loop {
            if state.source_ended {
                return Poll::Ready(None);
            }
            let polled = Pin::new(&mut state.source).poll_frame(cx);
            let now = self.context.deadlines.now();
            let Poll::Ready(frame) = polled else {
                if !self.waiting_for_caller.replace(true) {
                    state.waiting_since = now;
                }
                ready!(state.slow.poll_after(self.context.limits.body_timeout, cx));
                self.context.metrics.limit(Limit::BodyTimeout);
                return Poll::Ready(Some(Err(self.fail(BodyError::TooSlow))));
            };
            if self.waiting_for_caller.replace(false) {
                state.slow.disarm();
                state.waited += now - state.waiting_since;
                if self.is_too_slow(state.waited) {
                    self.context.metrics.limit(Limit::BodyTimeout);
                    return Poll::Ready(Some(Err(self.fail(BodyError::TooSlow))));
                }
            }
            match frame {
                None => state.source_ended = true,
                Some(Err(_)) => {
                    return Poll::Ready(Some(Err(self.fail(BodyError::Incomplete))));
                }
                // Trailers are not forwarded: HAZARDS are in what they may smuggle.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(self.accept(state, data)));
                    }
                }
            }
        }
    }

    fn accept(&self, state: &mut State, data: Bytes) -> Result<Bytes, BodyError> {
        let received = self.received.get() + data.len() as u64;
        self.received.set(received);
        if self.context.limits.is_too_large(received) {
            self.context.metrics.limit(Limit::Body);
            return Err(self.fail(BodyError::TooLarge));
        }
        self.keep(state, &data);
        Ok(data)
    }

    /// A caller may stall, but after the grace it must have sent at the least rate overall.
    fn is_too_slow(&self, waited_ticks: u64) -> bool {
        let limits = &self.context.limits;
        let waited = TICK.saturating_mul(u32::try_from(waited_ticks).unwrap_or(u32::MAX));
        waited >= limits.body_timeout
            && self.received.get() < waited.as_secs().saturating_mul(limits.body_min_bytes_per_sec)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.context.limits.total.fetch_sub(self.state.get_mut().kept_bytes, Ordering::Relaxed);
    }
}

/// A request body as hyper sends it.
pub struct RequestBody(Option<Reader>);

struct Reader {
    shared: Rc<Shared>,
    id: u32,
    /// Captured frames already given out (memory).
    frame: usize,
    /// Captured bytes already given out (disk).
    offset: u64,
    gate: Option<(Arc<ContinueGate>, Timer)>,
}

impl Reader {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.shared.reader.get() != self.id {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some((gate, timer)) = &mut self.gate {
            if !gate.poll_open(cx) {
                ready!(timer.poll_after(CONTINUE_WAIT, cx));
            }
            self.gate = None;
        }
        if let Some(captured) = ready!(self.poll_captured(cx)) {
            return Poll::Ready(Some(captured));
        }
        let data = ready!(self.shared.poll_source(cx));
        match &data {
            Some(Ok(data)) => {
                self.frame += 1;
                self.offset += data.len() as u64;
            }
            Some(Err(_)) => {}
            None => self.shared.finished.set(true),
        }
        Poll::Ready(data)
    }

    /// What an earlier attempt has taken from the caller already.
    fn poll_captured(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut state = self.shared.state.borrow_mut();
        let state = &mut *state;
        let captured = match &mut state.kept {
            Kept::Memory(frames) => frames.get(self.frame).cloned().map(Ok),
            Kept::Disk(spill) if self.offset < state.kept_bytes => {
                let read: io::Result<Bytes> = ready!(spill.poll_read(self.offset, cx));
                Some(read.map_err(|_| self.shared.fail(BodyError::Capture)))
            }
            Kept::Disk(_) | Kept::Nothing => None,
        };
        if let Some(Ok(data)) = &captured {
            self.frame += 1;
            self.offset += data.len() as u64;
        }
        Poll::Ready(captured)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(reader) => reader.poll_data(cx).map(|data| data.map(|data| data.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |reader| reader.shared.size)
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestBody")
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Capture")
    }
}

/// Holds a body back until Amazon says `100 Continue`. Shared with hyper's callback, which must be
/// `Send` although it runs on the same thread.
#[derive(Debug, Default)]
pub struct ContinueGate {
    open: AtomicBool,
    waker: parking_lot::Mutex<Option<Waker>>,
}

impl ContinueGate {
    /// Lets the body pass.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    fn poll_open(&self, cx: &Context<'_>) -> bool {
        if !self.open.load(Ordering::Acquire) {
            *self.waker.lock() = Some(cx.waker().clone());
        }
        self.open.load(Ordering::Acquire)
    }
}
