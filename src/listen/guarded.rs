//! An answer's body that keeps its connection busy, and tells it whether the caller takes it.

use super::connection::InFlight;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// An answer's body; its request is in flight until it is dropped.
#[derive(Debug)]
pub struct Guarded<B> {
    body: B,
    in_flight: InFlight,
}

impl<B> Guarded<B> {
    /// `body`, which is the caller's to take from now on.
    pub(super) fn new(body: B, in_flight: InFlight) -> Self {
        in_flight.offered();
        Self { body, in_flight }
    }
}

impl<B: Body + Unpin> Body for Guarded<B> {
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
            Poll::Pending => self.in_flight.asked(),
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
