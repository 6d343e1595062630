//! A request body as it comes from the caller, and what its connection does with an unread rest.
//!
//! A response may be final before the whole body was received. Closing the connection with unread
//! bytes would reset it, and the response could be lost; serving the next request needs the rest
//! out of the way. So a body that is dropped early goes back to its connection, which reads and
//! discards it for a bounded time. HTTP/2 ends a stream by itself and needs none of this.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// A caller's request body.
#[derive(Debug)]
pub struct CallerBody {
    /// None only while dropped.
    incoming: Option<Incoming>,
    /// Where an unread rest goes; none once the body has ended.
    rest: Option<Rc<UnreadBody>>,
    /// The caller waits for `100 Continue` until the first read.
    is_held_back: bool,
}

/// What a connection knows of its current request body.
#[derive(Debug, Default)]
pub struct UnreadBody {
    /// Bytes still to come, [`u64::MAX`] where that is unknown; none once the body has ended.
    pub remaining: Cell<Option<u64>>,
    discarded: RefCell<Option<Incoming>>,
    /// The task of the connection.
    waker: RefCell<Option<Waker>>,
}

impl CallerBody {
    /// The body of a request; `rest` is that of its connection, if the connection needs it.
    /// `is_held_back`: the request has `Expect: 100-continue`.
    pub fn new(incoming: Incoming, rest: Option<&Rc<UnreadBody>>, is_held_back: bool) -> Self {
        let rest = rest.filter(|_| !incoming.is_end_stream()).cloned();
        if let Some(rest) = &rest {
            rest.remaining.set(Some(u64::MAX));
        }
        Self { incoming: Some(incoming), rest, is_held_back }
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        this.is_held_back = false;
        if let Poll::Ready(frame) = &polled
            && (incoming.is_end_stream() || !matches!(frame, Some(Ok(_))))
            && let Some(rest) = this.rest.take()
        {
            rest.remaining.set(None);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for CallerBody {
    fn drop(&mut self) {
        let (Some(rest), Some(incoming)) = (self.rest.take(), self.incoming.take()) else { return };
        // To read would ask for what the caller may never send now.
        if self.is_held_back {
            return;
        }
        rest.remaining.set(Some(incoming.size_hint().exact().unwrap_or(u64::MAX)));
        *rest.discarded.borrow_mut() = Some(incoming);
        rest.wake();
    }
}

impl UnreadBody {
    pub fn is_discarding(&self) -> bool {
        self.discarded.borrow().is_some()
    }

    /// Discards what has come of the rest; whether something had.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> bool {
        let mut discarded = self.discarded.borrow_mut();
        let mut has_come = false;
        while let Some(incoming) = discarded.as_mut() {
            match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(frame) => {
                    has_come = true;
                    if incoming.is_end_stream() || !matches!(frame, Some(Ok(_))) {
                        self.remaining.set(None);
                        *discarded = None;
                    }
                }
            }
        }
        has_come
    }

    /// Reads no more of the rest: the connection is to end.
    pub fn abandon(&self) {
        if self.discarded.take().is_some() {
            self.wake();
        }
    }

    /// Remembers how to wake the task of the connection.
    pub fn register(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}
