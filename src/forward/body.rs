//! The request body on its way out, captured for a replay within limits.
//!
//! Invariants: frames pass on as they came, and only tiny ones are copied to be kept; a capture never makes a
//! request fail, it only stops being replayable; at most one reader is live, an older one ends with
//! an error; request trailers are dropped. Everything here belongs to one worker.

mod abandon;
mod budget;
mod frames;
mod gate;
mod reader;
mod spill;

use crate::{
    caller_body::CallerBody,
    config,
    deadline::{Deadlines, TICK, Timer},
    metrics::{Limit, WorkerMetrics},
};
use budget::Budget;
use bytes::Bytes;
use frames::Frames;
pub use gate::ContinueGate;
use http_body::{Body, SizeHint};
pub use reader::CapturedBody;
use spill::Spill;
use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

/// A body up to this size is received whole before it is sent, bytes.
const GATHER_MAX_BYTES: u64 = 64 * 1024;

/// Why a request body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The caller left, or sent less than announced, or malformed chunks.
    #[error("the caller's request body ended early")]
    Incomplete,
    #[error("the request body is larger than allowed")]
    TooLarge,
    /// It came slower than `limits.body_min_bytes_per_sec`.
    #[error("the request body came too slowly")]
    TooSlow,
    /// A replay took over, or the response is out.
    #[error("the request body is not needed any more")]
    Superseded,
    /// The captured part cannot be read back.
    #[error("the captured request body cannot be read back")]
    Capture,
}

#[derive(Debug)]
pub struct CaptureLimits {
    replay: config::Replay,
    body_max_bytes: u64,
    body_timeout: Duration,
    body_min_bytes_per_sec: u64,
    /// Bytes captured now, by all requests of all workers.
    budget: Budget,
}

impl CaptureLimits {
    pub fn new(replay: &config::Replay, limits: &config::Limits) -> Arc<Self> {
        Arc::new(Self {
            replay: replay.clone(),
            body_max_bytes: limits.body_max_bytes,
            body_timeout: limits.body_timeout,
            body_min_bytes_per_sec: limits.body_min_bytes_per_sec,
            budget: Budget::new(replay.total_max_bytes),
        })
    }

    /// Whether a body of `len` bytes is over the cap.
    pub fn is_too_large(&self, len: u64) -> bool {
        self.body_max_bytes != 0 && len > self.body_max_bytes
    }
}

/// What a worker lends to its captures.
#[derive(Clone, Debug)]
pub struct CaptureContext {
    pub limits: Arc<CaptureLimits>,
    pub deadlines: Rc<Deadlines>,
    pub metrics: Arc<WorkerMetrics>,
}

/// One request's body: handed out once to send, and again to replay.
#[derive(Clone)]
pub struct Capture(Option<Rc<CaptureShared>>);

struct CaptureShared {
    context: Rc<CaptureContext>,
    /// Its account's place in the budget.
    share: usize,
    size: SizeHint,
    state: RefCell<CaptureState>,
    reader: Cell<u32>,
    /// Bytes the current attempt has been given.
    given: Cell<u64>,
    received: Cell<u64>,
    finished: Cell<bool>,
    waiting_for_caller: Cell<bool>,
    /// Whether Amazon's response is final, so that nothing needs to be kept any longer.
    responded: Cell<bool>,
    /// Whether the rest of the body was given up: its response is out.
    abandoned: Cell<bool>,
    /// Whether the whole response is out.
    is_over: Cell<bool>,
    gate: RefCell<Option<Arc<ContinueGate>>>,
    error: Cell<Option<BodyError>>,
}

struct CaptureState {
    /// None once it has ended, or is not wanted any more.
    source: Option<CallerBody>,
    /// Wakes the reader that waits for the caller.
    reader: Option<Waker>,
    kept: KeptBody,
    kept_bytes: u64,
    /// What of the common budget this capture holds: at least `kept_bytes`.
    charged: u64,
    slow: Timer,
    waiting_since: u64,
    /// Ticks spent waiting for the caller in the current window, and the bytes from before it.
    waited: u64,
    received_before: u64,
}

enum KeptBody {
    Memory(Frames),
    Disk(Spill),
    Nothing,
}

impl Capture {
    /// Begins to capture `source` for `account`. A request without a body needs no capture at all.
    pub fn new(source: Option<CallerBody>, account: &str, context: &Rc<CaptureContext>) -> Self {
        let Some(source) = source.filter(|source| !source.is_end_stream()) else {
            return Self(None);
        };
        Self(Some(Rc::new(CaptureShared {
            size: source.size_hint(),
            state: RefCell::new(CaptureState {
                source: Some(source),
                reader: None,
                kept: KeptBody::Memory(Frames::default()),
                kept_bytes: 0,
                charged: 0,
                slow: context.deadlines.timer(),
                waiting_since: 0,
                waited: 0,
                received_before: 0,
            }),
            reader: Cell::new(0),
            given: Cell::new(0),
            received: Cell::new(0),
            finished: Cell::new(false),
            waiting_for_caller: Cell::new(false),
            responded: Cell::new(false),
            abandoned: Cell::new(false),
            is_over: Cell::new(false),
            gate: RefCell::new(None),
            error: Cell::new(None),
            share: Budget::share_of(account),
            context: context.clone(),
        })))
    }

    /// Receives what has arrived of a small body, before any of it is sent.
    ///
    /// A body that is here already goes out in one piece with its header, and one that was broken
    /// off leaves no half request with Amazon. What has not arrived streams later. For callers of
    /// `http1` only, whose bodies come through the task that runs this; over HTTP/2 it waits for the
    /// end of a body of length zero, behind which data would be lost.
    ///
    /// # Cancel safety
    /// Safe: what was received stays captured.
    pub async fn gather(&self, http1: bool) -> Result<(), BodyError> {
        let Some(shared) = &self.0 else { return Ok(()) };
        if !http1 {
            return match shared.size.exact() {
                Some(0) => Box::pin(shared.ended_empty()).await,
                _ => Ok(()),
            };
        }
        let most = GATHER_MAX_BYTES.min(shared.context.limits.replay.memory_max_bytes);
        let small = shared.size.exact().filter(|size| *size <= most);
        // Without a place under the budget nothing may be taken: it could not be kept.
        if !small.is_some_and(|size| shared.charge(&mut shared.state.borrow_mut(), size)) {
            return Ok(());
        }
        // The connection reads before it runs this, one frame ahead. Taking a frame makes it read
        // and run this again; what is not there then is not there at all.
        let mut asked = true;
        poll_fn(|cx| {
            loop {
                match shared.poll_source(cx) {
                    Poll::Ready(Some(Ok(_))) => asked = false,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending if asked => return Poll::Ready(Ok(())),
                    Poll::Pending => {
                        asked = true;
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }

    /// The body for one attempt; every earlier one ends. `None` when it was not kept whole.
    pub fn attempt(&self, gate: Option<Arc<ContinueGate>>) -> Option<CapturedBody> {
        let Some(shared) = &self.0 else { return Some(CapturedBody::empty()) };
        if shared.received.get() > 0 && !self.is_replayable() {
            return None;
        }
        let id = shared.supersede();
        shared.given.set(0);
        shared.finished.set(false);
        shared.gate.borrow_mut().clone_from(&gate);
        Some(CapturedBody::of(shared, id, gate))
    }

    /// Whether everything that was received can be sent again, once what is on its way to the disk
    /// has come there or not. Ends the attempt before.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn is_kept(&self) -> bool {
        if let Some(shared) = self.0.as_ref().filter(|_| self.is_replayable()) {
            // Two waiters for one write would take each other's wake-up.
            shared.supersede();
            poll_fn(|cx| shared.poll_written(&mut shared.state.borrow_mut(), cx)).await;
        }
        self.is_replayable()
    }

    pub fn is_replayable(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|shared| !matches!(shared.state.borrow().kept, KeptBody::Nothing))
    }

    /// Whether the body is out, as far as it ever will be.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| shared.finished.get())
    }

    pub fn is_absent(&self) -> bool {
        self.0.is_none()
    }

    /// Whether there is a body, and all of it is in memory.
    pub fn is_here(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| {
            let state = shared.state.borrow();
            shared.size.exact() == Some(state.kept_bytes)
                && matches!(state.kept, KeptBody::Memory(_))
        })
    }

    /// Whether the next byte is the caller's to send.
    pub fn waits_for_caller(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.waiting_for_caller.get())
    }

    pub fn received(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.received.get())
    }

    pub fn error(&self) -> Option<BodyError> {
        self.0.as_ref().and_then(|shared| shared.error.get())
    }

    /// Whether the size was not announced, so that HTTP/1.1 needs chunks.
    pub fn is_of_unknown_size(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.size.exact().is_none())
    }
}

impl CaptureShared {
    /// Keeps `data` for a replay as long as the limits allow.
    fn keep(&self, state: &mut CaptureState, data: &Bytes) {
        if matches!(state.kept, KeptBody::Nothing) {
            return;
        }
        let limits = &self.context.limits;
        let len = data.len() as u64;
        let kept = state.kept_bytes + len;
        if kept > limits.replay.disk_max_bytes.max(limits.replay.memory_max_bytes) {
            self.context.metrics.limit(Limit::CaptureDisk);
            return self.drop_kept(state);
        }
        if !self.charge(state, kept) {
            self.context.metrics.limit(Limit::CaptureTotal);
            return self.drop_kept(state);
        }
        state.kept_bytes = kept;
        match &mut state.kept {
            KeptBody::Memory(frames) if kept <= limits.replay.memory_max_bytes => {
                frames.push(data.clone());
            }
            KeptBody::Memory(frames) => {
                self.context.metrics.limit(Limit::CaptureMemory);
                let frames = std::mem::take(frames);
                let mut spill = Spill::new(limits.replay.directory.clone(), frames);
                spill.append(data.clone());
                state.kept = KeptBody::Disk(spill);
            }
            KeptBody::Disk(spill) => spill.append(data.clone()),
            KeptBody::Nothing => {}
        }
    }

    /// Takes of the common budget what is lacking to hold `bytes`, unless that is too much.
    fn charge(&self, state: &mut CaptureState, bytes: u64) -> bool {
        let more = bytes.saturating_sub(state.charged);
        let now = self.context.deadlines.now();
        if more > 0 && !self.context.limits.budget.take(self.share, more, bytes, now) {
            return false;
        }
        state.charged += more;
        true
    }

    fn drop_kept(&self, state: &mut CaptureState) {
        self.context.limits.budget.give_back(self.share, state.charged);
        state.charged = 0;
        state.kept_bytes = 0;
        state.kept = KeptBody::Nothing;
    }

    fn forget_what_is_read(&self, state: &mut CaptureState) {
        if self.responded.get() && self.given.get() >= state.kept_bytes {
            self.drop_kept(state);
        }
    }

    /// Waits until everything kept is in memory or on the disk.
    fn poll_written(&self, state: &mut CaptureState, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_spill(state, |spill| spill.poll_written(cx))
    }

    /// Waits until there is room for more on its way to the disk.
    fn poll_room(&self, state: &mut CaptureState, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_spill(state, |spill| spill.poll_room(cx))
    }

    fn poll_spill(
        &self,
        state: &mut CaptureState,
        poll: impl FnOnce(&mut Spill) -> Poll<io::Result<()>>,
    ) -> Poll<()> {
        if let KeptBody::Disk(spill) = &mut state.kept
            && ready!(poll(spill)).is_err()
        {
            // A full disk costs the replay, not the request.
            self.drop_kept(state);
        }
        Poll::Ready(())
    }

    /// Waits for the end of a body that was announced as empty.
    async fn ended_empty(&self) -> Result<(), BodyError> {
        while let Some(data) = poll_fn(|cx| self.poll_source(cx)).await {
            if !data?.is_empty() {
                return Err(self.fail(BodyError::Incomplete));
            }
        }
        Ok(())
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
        ready!(self.poll_room(state, cx));
        loop {
            if self.abandoned.get() {
                // An error ends the connection to Amazon, and with it the rest of the response.
                if !self.is_over.get() {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                return Poll::Ready(Some(Err(BodyError::Superseded)));
            }
            let Some(source) = &mut state.source else { return Poll::Ready(None) };
            let polled = Pin::new(source).poll_frame(cx);
            let now = self.context.deadlines.now();
            let Poll::Ready(frame) = polled else {
                if !self.waiting_for_caller.replace(true) {
                    state.waiting_since = now;
                }
                if !state.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                    state.reader = Some(cx.waker().clone());
                }
                ready!(state.slow.poll_after(self.context.limits.body_timeout, cx));
                self.context.metrics.limit(Limit::BodyTimeout);
                return Poll::Ready(Some(Err(self.fail(BodyError::TooSlow))));
            };
            if self.waiting_for_caller.replace(false) {
                state.slow.disarm();
                state.waited += now - state.waiting_since;
                if self.is_too_slow(state) {
                    self.context.metrics.limit(Limit::BodyTimeout);
                    return Poll::Ready(Some(Err(self.fail(BodyError::TooSlow))));
                }
            }
            match frame {
                None => state.source = None,
                Some(Err(_)) => {
                    return Poll::Ready(Some(Err(self.fail(BodyError::Incomplete))));
                }
                // Trailers are not forwarded: who knows what they smuggle.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(self.accept(state, data)));
                    }
                }
            }
        }
    }

    fn accept(&self, state: &mut CaptureState, data: Bytes) -> Result<Bytes, BodyError> {
        let received = self.received.get() + data.len() as u64;
        self.received.set(received);
        if self.context.limits.is_too_large(received) {
            self.context.metrics.limit(Limit::Body);
            return Err(self.fail(BodyError::TooLarge));
        }
        self.keep(state, &data);
        Ok(data)
    }

    /// Whether the caller sent too little in the time that was spent waiting for it since the last
    /// look. A burst at the start earns no rest for later.
    fn is_too_slow(&self, state: &mut CaptureState) -> bool {
        let limits = &self.context.limits;
        let waited = TICK.saturating_mul(u32::try_from(state.waited).unwrap_or(u32::MAX));
        if waited < limits.body_timeout {
            return false;
        }
        let received = self.received.get();
        let came = received - std::mem::replace(&mut state.received_before, received);
        state.waited = 0;
        came < waited.as_secs().saturating_mul(limits.body_min_bytes_per_sec)
    }
}

impl Drop for CaptureShared {
    fn drop(&mut self) {
        self.context.limits.budget.give_back(self.share, self.state.get_mut().charged);
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Capture")
    }
}
