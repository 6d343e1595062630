//! What goes back to the caller: Amazon's response as it came, or one of ours, marked as such.

use super::{
    error::{Error, METHODS},
    exchange::Exchange,
    mcp::events::EventFilter,
};
use crate::{
    deadline::{Deadlines, Timer},
    forward::connection::{self, PooledConnection},
    problem::{ERROR, PROXY_STATUS},
    provider::ads::Service,
};
use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    future::poll_fn,
    io, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

/// The code that marks a 401 of Amazon's which goes on as a 403.
const UNAUTHORIZED: &str = "upstream_unauthorized";

/// A 401 that is Amazon's final response. On `/mcp` it goes on as a marked 403 with its body, because
/// MCP clients begin a login at a 401 and never come back.
pub fn unauthorized(
    mut response: Response<ExchangeBody>,
    service: Service,
    exchange: &mut Exchange,
) -> Response<ExchangeBody> {
    if service == Service::Mcp {
        exchange.error = Some(UNAUTHORIZED);
        *response.status_mut() = StatusCode::FORBIDDEN;
        let headers = response.headers_mut();
        headers.remove(WWW_AUTHENTICATE);
        headers.insert(ERROR.clone(), HeaderValue::from_static(UNAUTHORIZED));
        let status = "adsproxy; error=http_request_denied; received-status=401";
        headers.insert(PROXY_STATUS.clone(), HeaderValue::from_static(status));
    }
    response
}

pub fn problem(error: &Error, request_id: &HeaderValue) -> Response<Bytes> {
    let mut response = error.problem().respond(request_id);
    match error {
        // Where the next request begins is uncertain.
        Error::AmbiguousFraming => {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Error::MethodRejected => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
        }
        Error::ToolsRejected(Some(message)) => {
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
            *response.body_mut() = message.to_string().into();
        }
        _ => {}
    }
    response
}

/// The most of an error response that is read before it is passed on, bytes.
pub const PEEK_MAX_BYTES: usize = 16 * 1024;
/// How long that may take.
const PEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// Amazon's body, or one of ours.
pub struct ExchangeBody {
    /// What was read of Amazon's, to be given out first, or all of ours.
    pub peeked: Bytes,
    /// Trailers behind what was peeked at, or how the body broke off there: the caller is to see
    /// that, too.
    behind: Option<Box<io::Result<Frame<Bytes>>>>,
    /// Whether its length is known from the start.
    has_length: bool,
    /// What is still to be read. The connection is given back when the body has ended.
    rest: Option<(PooledConnection, Incoming)>,
    /// Ends a body that stalls; none for event streams.
    idle: Option<(Timer, Duration)>,
    /// Changes an event stream on its way; what it still holds goes out at the end.
    filter: Option<Box<EventFilter>>,
    /// Ends with the body, and so comes last; none until the response is final.
    pub exchange: Option<Box<Exchange>>,
}

impl ExchangeBody {
    pub fn ours(peeked: Bytes) -> Self {
        Self {
            peeked,
            behind: None,
            has_length: true,
            rest: None,
            idle: None,
            filter: None,
            exchange: None,
        }
    }

    /// `response` with its connection; `idle` is the timeout between two parts of its body.
    pub fn of(
        response: connection::Response,
        connection: PooledConnection,
        idle: (Timer, Duration),
    ) -> Response<Self> {
        let (head, incoming) = response.into_parts();
        let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let is_event_stream = kind.starts_with(b"text/event-stream");
        let body = Self {
            peeked: Bytes::new(),
            behind: None,
            has_length: incoming.size_hint().exact().is_some(),
            rest: Some((connection, incoming)),
            idle: (!is_event_stream).then_some(idle),
            filter: None,
            exchange: None,
        };
        Response::from_parts(head, body)
    }

    /// Reads up to [`PEEK_MAX_BYTES`]. A body that does not come in time is passed on as it comes.
    ///
    /// # Cancel safety
    /// Not safe: what was read is lost.
    pub async fn peek(&mut self, deadlines: &Rc<Deadlines>) {
        self.read(PEEK_MAX_BYTES, PEEK_TIMEOUT, deadlines).await;
    }

    /// Reads on behind what was peeked at, up to `most` bytes, for at most `timeout`.
    ///
    /// # Cancel safety
    /// Not safe: what was read is lost.
    pub async fn read(&mut self, most: usize, timeout: Duration, deadlines: &Rc<Deadlines>) {
        let mut peeked = BytesMut::from(mem::take(&mut self.peeked));
        let read = async {
            while peeked.len() <= most && self.behind.is_none() && !self.has_ended() {
                match poll_fn(|cx| self.poll_rest(cx)).await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => peeked.extend_from_slice(&data),
                        Err(trailers) => self.behind = Some(Box::new(Ok(trailers))),
                    },
                    Some(Err(error)) => self.behind = Some(Box::new(Err(error))),
                    None => {}
                }
            }
        };
        let _ = deadlines.within(timeout, read).await;
        self.peeked = peeked.freeze();
    }

    /// Gives `whole` out in place of what was read, which was all of it.
    pub fn replace(&mut self, whole: Bytes) {
        (self.peeked, self.has_length) = (whole, true);
    }

    /// Lets the events of the stream go through `filter`.
    pub fn filter(&mut self, filter: EventFilter) {
        (self.filter, self.has_length) = (Some(Box::new(filter)), false);
    }

    /// Whether all of it was peeked at.
    pub fn is_peeked_whole(&self) -> bool {
        self.has_ended() && !self.is_cut()
    }

    fn is_cut(&self) -> bool {
        matches!(self.behind.as_deref(), Some(Err(_)))
    }

    fn has_ended(&self) -> bool {
        self.rest.as_ref().is_none_or(|(_, incoming)| incoming.is_end_stream())
    }

    /// The next frame from the connection, which is given back behind the last one and closed
    /// behind an error.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some((connection, incoming)) = &mut self.rest else { return Poll::Ready(None) };
        let frame = ready!(connection.poll_frame(incoming, cx));
        let frame = frame.map(|frame| frame.map_err(io::Error::other));
        match &frame {
            // The connection is free as soon as the last byte is here, not when it is passed on.
            Some(Ok(_)) if !incoming.is_end_stream() => {}
            Some(Ok(_)) | None => {
                if let Some((connection, _)) = self.rest.take() {
                    connection.release();
                }
            }
            Some(Err(_)) => self.rest = None,
        }
        Poll::Ready(frame)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.peeked.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(&mut self.peeked)))));
        }
        if let Some(behind) = self.behind.take() {
            return Poll::Ready(Some(*behind));
        }
        let Poll::Ready(frame) = self.poll_rest(cx) else {
            if let Some((timer, limit)) = &mut self.idle {
                ready!(timer.poll_after(*limit, cx));
                self.rest = None;
                return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
            }
            return Poll::Pending;
        };
        if let Some((timer, _)) = &mut self.idle {
            timer.disarm();
        }
        Poll::Ready(frame)
    }
}

impl ExchangeBody {
    /// The next frame, behind the filter if there is one.
    fn poll_filtered(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let frame = ready!(self.poll_next(cx));
            let Some(filter) = &mut self.filter else { return Poll::Ready(frame) };
            let data = match &frame {
                Some(Err(_)) => return Poll::Ready(frame),
                Some(Ok(part)) => part.data_ref(),
                None => None,
            };
            let out = match data {
                Some(data) => filter.push(data),
                None => {
                    let out = filter.finish();
                    (self.filter, self.behind) = (None, frame.map(Box::new));
                    out
                }
            };
            match out {
                Ok(out) if out.is_empty() => {}
                Ok(out) => return Poll::Ready(Some(Ok(Frame::data(out.into())))),
                Err(error) => {
                    (self.filter, self.rest) = (None, None);
                    let error = io::Error::new(io::ErrorKind::InvalidData, error);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Body for ExchangeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        // Of ours, a response may say that the credential has ended.
        let exchange = self.exchange.as_ref().filter(|_| self.rest.is_some());
        let has_ended = exchange.is_some_and(|exchange| exchange.poll_ended(cx).is_ready());
        let frame = if has_ended {
            // What came before has gone out; a body that breaks off is not taken for a whole one.
            (self.filter, self.rest) = (None, None);
            Some(Err(io::ErrorKind::PermissionDenied.into()))
        } else {
            ready!(self.poll_filtered(cx))
        };
        if let Some(exchange) = &mut self.exchange {
            match &frame {
                Some(Ok(frame)) => {
                    exchange.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                Some(Err(error)) => exchange.broken(error.kind()),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.peeked.is_empty() && self.behind.is_none() && self.filter.is_none() && self.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.has_length || self.is_cut() {
            return SizeHint::default();
        }
        let rest = self.rest.as_ref().map_or(0, |(_, incoming)| incoming.size_hint().lower());
        SizeHint::with_exact(rest + self.peeked.len() as u64)
    }
}

impl Drop for ExchangeBody {
    fn drop(&mut self) {
        // hyper drops a body without asking again once it knows that it has ended.
        if let Some((connection, incoming)) = self.rest.take() {
            connection.leave(incoming);
        }
    }
}
