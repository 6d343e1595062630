//! The request body on its way out, captured for a replay within limits.
//!
//! Invariants: frames pass on as they came, and only tiny ones are copied to be kept; a capture never makes a
//! request fail, it only stops being replayable; at most one reader is live, an older one ends with
//! an error; request trailers are dropped. Everything here belongs to one worker.

mod budget;
mod frames;
mod kept;
mod reader;
mod spill;

use crate::{
    caller_body::CallerBody,
    config,
    deadline::{Deadlines, TICK, Timer},
    metrics::{LimitHit, WorkerMetrics},
};
use budget::Budget;
use bytes::Bytes;
use frames::Frames;
use http_body::{Body, SizeHint};
use kept::KeptBody;
pub use reader::{CapturedBody, ContinueGate};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
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
    limits: config::Limits,
    /// Bytes captured now, by all requests of all workers.
    budget: Arc<Budget>,
}

impl CaptureLimits {
    pub fn new(replay: &config::Replay, limits: &config::Limits) -> Arc<Self> {
        let budget = Arc::new(Budget::new(replay.total_max_bytes));
        Arc::new(Self { replay: replay.clone(), limits: limits.clone(), budget })
    }

    /// Other limits, for what is captured together with these.
    pub fn next(&self, replay: &config::Replay, limits: &config::Limits) -> Arc<Self> {
        let budget = self.budget.clone();
        Arc::new(Self { replay: replay.clone(), limits: limits.clone(), budget })
    }

    /// Whether a body of `len` bytes is over the cap.
    pub fn is_too_large(&self, len: u64) -> bool {
        self.limits.body_max_bytes != 0 && len > self.limits.body_max_bytes
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
pub struct Capture {
    context: Rc<CaptureContext>,
    /// Its account's share of the budget.
    share: usize,
    pub(super) size: SizeHint,
    state: RefCell<CaptureState>,
    /// The number of the attempt that may read.
    attempt: Cell<u32>,
    /// Bytes the current attempt has been given.
    given: Cell<u64>,
    pub received: Cell<u64>,
    /// Whether the body is out, as far as it ever will be.
    pub is_finished: Cell<bool>,
    /// Whether the next byte is the caller's to send.
    pub waits_for_caller: Cell<bool>,
    stage: Cell<Stage>,
    pub error: Cell<Option<BodyError>>,
}

/// How far the response is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sending,
    /// It is final, so that nothing needs to be kept any longer.
    Responded,
    /// All of it is out.
    Over,
}

enum BodySource {
    Caller(CallerBody),
    Ended,
    /// The rest went back to the caller's connection.
    Abandoned,
}

struct CaptureState {
    source: BodySource,
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

impl Capture {
    /// Begins to capture `source` for `account`. A request without a body needs no capture at all.
    pub fn new(
        source: Option<CallerBody>,
        account: &str,
        context: &Rc<CaptureContext>,
    ) -> Option<Rc<Self>> {
        let source = source.filter(|source| !source.is_end_stream())?;
        Some(Rc::new(Self {
            size: source.size_hint(),
            state: RefCell::new(CaptureState {
                source: BodySource::Caller(source),
                reader: None,
                kept: KeptBody::Memory(Frames::default()),
                kept_bytes: 0,
                charged: 0,
                slow: context.deadlines.timer(),
                waiting_since: 0,
                waited: 0,
                received_before: 0,
            }),
            attempt: Cell::new(0),
            given: Cell::new(0),
            received: Cell::new(0),
            is_finished: Cell::new(false),
            waits_for_caller: Cell::new(false),
            stage: Cell::new(Stage::Sending),
            error: Cell::new(None),
            share: Budget::share_of(account),
            context: context.clone(),
        }))
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
        if !http1 {
            return match self.size.exact() {
                Some(0) => Box::pin(self.ended_empty()).await,
                _ => Ok(()),
            };
        }
        let most = GATHER_MAX_BYTES.min(self.context.limits.replay.memory_max_bytes);
        let small = self.size.exact().filter(|size| *size <= most);
        // Without room in the budget nothing may be taken: it could not be kept.
        if !small.is_some_and(|size| self.charge(&mut self.state.borrow_mut(), size)) {
            return Ok(());
        }
        // The connection reads before it runs this, one frame ahead. Taking a frame makes it read
        // and run this again; what is not there then is not there at all.
        let mut asked = true;
        poll_fn(|cx| {
            loop {
                match self.poll_source(cx) {
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

    /// Waits for the end of a body that was announced as empty.
    async fn ended_empty(&self) -> Result<(), BodyError> {
        while let Some(data) = poll_fn(|cx| self.poll_source(cx)).await {
            if !data?.is_empty() {
                return Err(self.fail(BodyError::Incomplete));
            }
        }
        Ok(())
    }

    /// The body for one attempt; every earlier one ends. `None` when it was not kept whole.
    pub fn attempt(self: &Rc<Self>, gate: Option<Arc<ContinueGate>>) -> Option<CapturedBody> {
        if self.received.get() > 0 && !self.is_replayable() {
            return None;
        }
        self.supersede();
        self.given.set(0);
        self.is_finished.set(false);
        Some(CapturedBody::of(self, gate))
    }

    /// Whether everything that was received can be sent again, once what is on its way to the disk
    /// has come there or not. Ends the attempt before.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn is_kept(&self) -> bool {
        if self.is_replayable() {
            // Two waiters for one write would take each other's wake-up.
            self.supersede();
            poll_fn(|cx| {
                self.poll_spill(&mut self.state.borrow_mut(), |spill| spill.poll_written(cx))
            })
            .await;
        }
        self.is_replayable()
    }

    /// Ends the current attempt.
    fn supersede(&self) {
        // No reader is left that waits: the caller's time does not run while the proxy itself
        // waits, and a new reader begins with what is kept.
        if self.waits_for_caller.replace(false) {
            self.state.borrow_mut().slow.disarm();
        }
        self.attempt.set(self.attempt.get() + 1);
    }

    /// Drops what was captured: the response is final. A replay that still reads it reads on to
    /// its end. After an `error` the upload goes no further.
    pub fn responded(&self, error: bool) {
        self.stage.set(Stage::Responded);
        self.forget_what_is_read(&mut self.state.borrow_mut());
        if error {
            self.abandon();
        }
    }

    /// Ends the upload: the whole response is out.
    pub fn over(&self) {
        self.stage.set(Stage::Over);
        self.abandon();
        let reader = self.state.borrow_mut().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Gives what the caller still sends back to its connection.
    fn abandon(&self) {
        let source = &mut self.state.borrow_mut().source;
        if matches!(source, BodySource::Caller(body) if !body.is_end_stream()) {
            *source = BodySource::Abandoned;
        }
    }

    fn fail(&self, error: BodyError) -> BodyError {
        self.error.set(Some(error));
        self.is_finished.set(true);
        error
    }

    /// The next frame from the caller.
    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        ready!(self.poll_spill(state, |spill| spill.poll_room(cx)));
        loop {
            let source = match &mut state.source {
                BodySource::Caller(source) => source,
                BodySource::Ended => return Poll::Ready(None),
                // An error ends the connection to Amazon, and with it the rest of the response.
                BodySource::Abandoned if self.stage.get() == Stage::Over => {
                    return Poll::Ready(Some(Err(BodyError::Superseded)));
                }
                BodySource::Abandoned => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            };
            let polled = Pin::new(source).poll_frame(cx);
            let now = self.context.deadlines.now();
            let Poll::Ready(frame) = polled else {
                if !self.waits_for_caller.replace(true) {
                    state.waiting_since = now;
                }
                if !state.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                    state.reader = Some(cx.waker().clone());
                }
                ready!(state.slow.poll_after(self.context.limits.limits.body_timeout, cx));
                return Poll::Ready(Some(Err(self.too_slow())));
            };
            if self.waits_for_caller.replace(false) {
                state.slow.disarm();
                state.waited += now - state.waiting_since;
                if self.is_too_slow(state) {
                    return Poll::Ready(Some(Err(self.too_slow())));
                }
            }
            match frame {
                None => state.source = BodySource::Ended,
                Some(Err(_)) => {
                    return Poll::Ready(Some(Err(self.fail(BodyError::Incomplete))));
                }
                // Trailers are not forwarded: they could smuggle fields past the header rules.
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
            self.context.metrics.limit(LimitHit::Body);
            return Err(self.fail(BodyError::TooLarge));
        }
        self.keep(state, &data);
        Ok(data)
    }

    fn too_slow(&self) -> BodyError {
        self.context.metrics.limit(LimitHit::BodyTimeout);
        self.fail(BodyError::TooSlow)
    }

    /// Whether the caller sent too little in the time that was spent waiting for it since the last
    /// look. A burst at the start earns no rest for later.
    fn is_too_slow(&self, state: &mut CaptureState) -> bool {
        let limits = &self.context.limits.limits;
        let waited = TICK.saturating_mul(u32::try_from(state.waited).unwrap_or(u32::MAX));
        if waited < limits.body_timeout {
            return false;
        }
        let received = self.received.get();
        let came = received - mem::replace(&mut state.received_before, received);
        state.waited = 0;
        came < waited.as_secs().saturating_mul(limits.body_min_bytes_per_sec)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.context.limits.budget.give_back(self.share, self.state.get_mut().charged);
    }
}
