//! One attempt's view of the request body: first what was kept, then what still comes.

use super::{BodyError, Capture, Stage, kept::KeptBody};
use crate::deadline::Timer;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

/// How long a body is held back for Amazon's `100 Continue` before it is sent regardless.
/// Source: RFC 9110 section 10.1.1 leaves the time to the client; one second is usual.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Holds a body back until Amazon says `100 Continue`. Shared with hyper's callback, which must be
/// `Send` although it runs on the same thread.
///
/// Has what to wake when it opens; none once it is open.
#[derive(Debug)]
pub struct ContinueGate(Mutex<Option<Waker>>);

impl ContinueGate {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Waker::noop().clone()))))
    }

    pub fn open(&self) {
        let waker = self.0.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn is_open(&self, cx: &Context<'_>) -> bool {
        let mut closed = self.0.lock();
        closed.as_mut().map(|waker| waker.clone_from(cx.waker())).is_none()
    }
}

/// The body of one attempt; none for a request without one.
#[derive(Default)]
pub struct CapturedBody(Option<Reader>);

impl CapturedBody {
    /// What the current attempt of `capture` sends, held back until `gate` opens.
    pub(super) fn of(capture: &Rc<Capture>, gate: Option<Arc<ContinueGate>>) -> Self {
        let gate = gate.map(|gate| (gate, capture.context.deadlines.timer()));
        Self(Some(Reader { capture: capture.clone(), attempt: capture.attempt.get(), gate }))
    }
}

struct Reader {
    capture: Rc<Capture>,
    attempt: u32,
    gate: Option<(Arc<ContinueGate>, Timer)>,
}

impl Reader {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let capture = &*self.capture;
        if capture.attempt.get() != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some((gate, timer)) = &mut self.gate {
            if !gate.is_open(cx) {
                capture.state.borrow_mut().reader = Some(cx.waker().clone());
                match capture.stage.get() {
                    Stage::Sending => ready!(timer.poll_after(CONTINUE_WAIT, cx)),
                    // After a final response Amazon does not wait for the body any more.
                    Stage::Responded => return Poll::Pending,
                    Stage::Over => return Poll::Ready(Some(Err(BodyError::Superseded))),
                }
            }
            self.gate = None;
        }
        let data = match ready!(capture.poll_captured(cx)) {
            Some(captured) => return Poll::Ready(Some(captured)),
            None => ready!(capture.poll_source(cx)),
        };
        match &data {
            Some(Ok(data)) => capture.given.update(|given| given + data.len() as u64),
            Some(Err(_)) => {}
            None => capture.is_finished.set(true),
        }
        Poll::Ready(data)
    }
}

impl Capture {
    /// What an earlier attempt has taken from the caller already.
    fn poll_captured(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let given = self.given.get();
        if given >= state.kept_bytes {
            return Poll::Ready(None);
        }
        let captured = match &mut state.kept {
            KeptBody::Memory(frames) => frames.read(given).map(Ok),
            KeptBody::Disk(spill) => {
                let read = ready!(spill.poll_read(given, cx));
                Some(read.map_err(|_| self.fail(BodyError::Capture)))
            }
            KeptBody::Nothing => None,
        };
        if let Some(Ok(data)) = &captured {
            self.given.set(given + data.len() as u64);
            self.forget_what_is_read(state);
        }
        Poll::Ready(captured)
    }
}

impl Body for CapturedBody {
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
        self.0.as_ref().map_or(SizeHint::with_exact(0), |reader| reader.capture.size)
    }
}
