//! A response body that keeps its connection busy, and notes whether the caller reads it.

use super::in_flight::InFlight;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// A response body; its request is in flight until the body is dropped.
pub struct TrackedBody<B> {
    body: B,
    in_flight: InFlight,
}

impl<B> TrackedBody<B> {
    /// `body`, which the caller is to read from now on.
    pub(super) fn new(body: B, in_flight: InFlight) -> Self {
        in_flight.offered();
        Self { body, in_flight }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(_) => self.in_flight.offered(),
            // An event stream may be silent for as long as it likes.
            Poll::Pending => self.in_flight.pending(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
