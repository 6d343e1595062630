//! One attempt's view of the request body: first what was kept, then what still comes.

use super::{BodyError, CaptureShared, ContinueGate, KeptBody, gate::Pass};
use crate::deadline::Timer;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    fmt, io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

/// How long a body is held back for Amazon's `100 Continue` before it is sent regardless.
/// Source: RFC 9110 section 10.1.1 leaves the time to the client; one second is usual.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

pub struct CapturedBody(Option<Reader>);

impl CapturedBody {
    /// The body of a request without one.
    pub(super) fn empty() -> Self {
        Self(None)
    }

    /// What attempt number `id` sends, held back until `gate` opens.
    pub(super) fn of(shared: &Rc<CaptureShared>, id: u32, gate: Option<Arc<ContinueGate>>) -> Self {
        let gate = gate.map(|gate| (gate, shared.context.deadlines.timer()));
        Self(Some(Reader { shared: shared.clone(), id, gate }))
    }
}

struct Reader {
    shared: Rc<CaptureShared>,
    id: u32,
    gate: Option<(Arc<ContinueGate>, Timer)>,
}

impl Reader {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.shared.reader.get() != self.id {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some((gate, timer)) = &mut self.gate {
            match gate.poll(cx) {
                Poll::Ready(Pass::Open) => {}
                Poll::Ready(Pass::Shut) => return Poll::Ready(Some(Err(BodyError::Superseded))),
                // After a final response Amazon does not wait for the body any more.
                Poll::Pending if self.shared.responded.get() => return Poll::Pending,
                Poll::Pending => ready!(timer.poll_after(CONTINUE_WAIT, cx)),
            }
            self.gate = None;
            self.shared.gate.take();
        }
        if let Some(captured) = ready!(self.poll_captured(cx)) {
            return Poll::Ready(Some(captured));
        }
        let data = ready!(self.shared.poll_source(cx));
        match &data {
            Some(Ok(data)) => self.gave(data),
            Some(Err(_)) => {}
            None => self.shared.finished.set(true),
        }
        Poll::Ready(data)
    }

    fn gave(&mut self, data: &Bytes) {
        self.shared.given.set(self.shared.given.get() + data.len() as u64);
    }

    /// What an earlier attempt has taken from the caller already.
    fn poll_captured(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let shared = self.shared.clone();
        let mut state = shared.state.borrow_mut();
        let state = &mut *state;
        let given = shared.given.get();
        if given >= state.kept_bytes {
            return Poll::Ready(None);
        }
        let captured = match &mut state.kept {
            KeptBody::Memory(frames) => frames.read(given).map(Ok),
            KeptBody::Disk(spill) => {
                let read: io::Result<Bytes> = ready!(spill.poll_read(given, cx));
                Some(read.map_err(|_| shared.fail(BodyError::Capture)))
            }
            KeptBody::Nothing => None,
        };
        if let Some(Ok(data)) = &captured {
            self.gave(data);
            shared.forget_what_is_read(state);
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
        self.0.as_ref().map_or(SizeHint::with_exact(0), |reader| reader.shared.size)
    }
}

impl fmt::Debug for CapturedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CapturedBody")
    }
}
