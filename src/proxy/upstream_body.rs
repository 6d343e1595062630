//! The body of an upstream response, and the pooled connection it comes on.

use crate::{
    deadline::{Deadlines, Timer},
    forward::pool::{PooledConnection, Response},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

/// The most of an error response that is read before it is passed on, bytes.
pub const PEEK_MAX_BYTES: usize = 16 * 1024;
/// How long that may take.
const PEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// Amazon's body. It may have been read in part, to be given out first.
#[derive(Debug)]
pub struct UpstreamBody {
    peeked: Bytes,
    trailers: Option<Box<HeaderMap>>,
    incoming: Incoming,
    /// How the body broke off while it was peeked at; the caller is to see that, too.
    cut: Option<hyper::Error>,
    /// Given back when the body has ended; dropped, and so closed, when it is left before.
    connection: Option<PooledConnection>,
    /// Ends a body that stalls; none for event streams.
    idle: Option<(Timer, Duration)>,
}

impl UpstreamBody {
    /// `response` with its connection; `idle` is the timeout between two parts of its body.
    pub fn of(
        response: Response,
        connection: PooledConnection,
        idle: (Timer, Duration),
    ) -> http::Response<Self> {
        let (head, incoming) = response.into_parts();
        let is_event_stream = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let body = Self {
            peeked: Bytes::new(),
            trailers: None,
            incoming,
            cut: None,
            connection: Some(connection),
            idle: (!is_event_stream).then_some(idle),
        };
        http::Response::from_parts(head, body)
    }

    /// Reads up to [`PEEK_MAX_BYTES`]. A body that does not come in time is passed on as it comes.
    ///
    /// # Cancel safety
    /// Not safe: what was read is lost.
    pub async fn peek(&mut self, deadlines: &Rc<Deadlines>) {
        let mut peeked = BytesMut::new();
        let read = async {
            while peeked.len() <= PEEK_MAX_BYTES && !self.has_ended() {
                match poll_fn(|cx| self.poll_incoming(cx)).await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => peeked.extend_from_slice(&data),
                        Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
                    },
                    Some(Err(error)) => self.cut = Some(error),
                    None => {}
                }
            }
        };
        let _ = deadlines.within(PEEK_TIMEOUT, read).await;
        self.peeked = peeked.freeze();
    }

    /// What [`UpstreamBody::peek`] has read.
    pub fn peeked(&self) -> &Bytes {
        &self.peeked
    }

    /// Whether that is all of it.
    pub fn is_peeked_whole(&self) -> bool {
        self.has_ended() && self.cut.is_none()
    }

    /// Gives out `bytes` in place of what was read.
    pub fn replace_peeked(&mut self, bytes: Bytes) {
        self.peeked = bytes;
    }

    fn has_ended(&self) -> bool {
        self.connection.is_none() || self.incoming.is_end_stream()
    }

    /// The next frame from the connection, which is given back behind the last one and closed
    /// behind an error.
    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(connection) = &self.connection else { return Poll::Ready(None) };
        let frame = ready!(connection.poll_frame(&mut self.incoming, cx));
        match &frame {
            // The connection is free as soon as the last byte is here, not when it is passed on.
            Some(Ok(_)) if !self.incoming.is_end_stream() => {}
            Some(Ok(_)) | None => self.release(),
            Some(Err(_)) => self.connection = None,
        }
        Poll::Ready(frame)
    }

    /// The next frame for the caller.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.peeked.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.peeked)))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        if let Some(error) = self.cut.take() {
            return Poll::Ready(Some(Err(io::Error::other(error))));
        }
        let Poll::Ready(frame) = self.poll_incoming(cx) else {
            if let Some((timer, limit)) = &mut self.idle {
                ready!(timer.poll_after(*limit, cx));
                self.connection = None;
                return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
            }
            return Poll::Pending;
        };
        if let Some((timer, _)) = &mut self.idle {
            timer.disarm();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)))
    }

    /// Whether nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.peeked.is_empty()
            && self.trailers.is_none()
            && self.cut.is_none()
            && self.incoming.is_end_stream()
    }

    /// How much there is to come.
    pub fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        let peeked = self.peeked.len() as u64;
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(rest + peeked),
            None => SizeHint::default(),
        }
    }

    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.release();
        }
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        // hyper drops a body without asking again once it knows that it has ended.
        if self.cut.is_none() && self.incoming.is_end_stream() {
            self.release();
        }
    }
}
