//! What goes back to the caller: Amazon's response as it came, or one of ours, marked as such.

use super::{
    error::{Error, METHODS},
    exchange::Exchange,
    upstream_body::UpstreamBody,
};
use crate::{
    inbound::request_id::REQUEST_ID,
    problem::{ERROR, PROXY_STATUS},
    provider::ads::Service,
};
use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode, Version,
    header::{ALLOW, CONNECTION, WWW_AUTHENTICATE},
};
use http_body::{Body, Frame, SizeHint};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// The code that marks a 401 of Amazon's which goes on as a 403.
const UNAUTHORIZED: &str = "upstream_unauthorized";

pub enum ReplyBody {
    Ours(Bytes),
    Amazon(UpstreamBody),
}

/// A 401 that is Amazon's final response. On `/mcp` it goes on as a marked 403 with its body, because
/// MCP clients begin a login at a 401 and never come back.
pub fn unauthorized(
    response: Response<UpstreamBody>,
    service: Service,
    exchange: &mut Exchange,
) -> Response<ReplyBody> {
    let mut response = response.map(ReplyBody::Amazon);
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
        _ => {}
    }
    response
}

/// Binds `response` to its exchange, which ends when the body does.
pub fn finish(
    response: Response<ReplyBody>,
    mut exchange: Box<Exchange>,
) -> Response<ExchangeBody> {
    let (mut head, body) = response.into_parts();
    exchange.responded(&head);
    head.version = Version::HTTP_11;
    head.headers.insert(REQUEST_ID.clone(), exchange.request_id.clone());
    Response::from_parts(head, ExchangeBody { body, exchange })
}

/// The body of every response, as hyper sends it.
pub struct ExchangeBody {
    body: ReplyBody,
    exchange: Box<Exchange>,
}

impl Body for ExchangeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let frame = match &mut this.body {
            ReplyBody::Ours(bytes) if bytes.is_empty() => None,
            ReplyBody::Ours(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            ReplyBody::Amazon(body) => ready!(body.poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => {
                this.exchange.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Some(Err(error)) => this.exchange.broken(error.kind()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            ReplyBody::Ours(bytes) => bytes.is_empty(),
            ReplyBody::Amazon(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            ReplyBody::Ours(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyBody::Amazon(body) => body.size_hint(),
        }
    }
}
