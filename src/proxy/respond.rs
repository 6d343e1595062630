//! What goes back to the caller: Amazon's answer as it came, or one of ours, marked as such.

use super::{
    error::{Error, METHODS},
    exchange::Exchange,
    upstream_body::UpstreamBody,
};
use crate::inbound::request_id::REQUEST_ID;
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body::{Body, Frame, SizeHint};
use serde_json::json;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

static ERROR: HeaderName = HeaderName::from_static("x-ads-proxy-error");
static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The code that marks a 401 of Amazon's which goes on as a 403.
pub const UNAUTHORIZED: &str = "upstream_unauthorized";

/// An answer before it is bound to its exchange.
pub type Answer = Response<Source>;

/// Where an answer's body comes from.
#[derive(Debug)]
pub enum Source {
    /// From us.
    Ours(Bytes),
    /// From Amazon.
    Amazon(UpstreamBody),
}

/// Marks a 401 of Amazon's on `/mcp` that no new token can fix. It goes on as a 403 with its body,
/// because MCP clients begin a login at a 401 and never come back.
pub fn mark_unauthorized(response: &mut Answer) {
    *response.status_mut() = StatusCode::FORBIDDEN;
    let headers = response.headers_mut();
    headers.remove(WWW_AUTHENTICATE);
    headers.insert(ERROR.clone(), HeaderValue::from_static(UNAUTHORIZED));
    let status = "adsproxy; error=http_request_denied; received-status=401";
    headers.insert(PROXY_STATUS.clone(), HeaderValue::from_static(status));
}

/// The LWA shim's answer.
pub fn token_endpoint(status: StatusCode, body: Bytes) -> Answer {
    let mut response = Response::new(Source::Ours(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An answer of ours: a problem document in Amazon's shape too.
pub fn problem(error: &Error, request_id: &HeaderValue) -> Answer {
    let (status, code) = (error.status(), error.code());
    let text = error.public_text();
    let request_id = request_id.to_str().unwrap_or_default();
    let body = json!({
        "type": format!("urn:adsproxy:error:{code}"),
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": text,
        "code": code,
        "details": text,
        "message": text,
        "requestId": request_id,
        "request_id": request_id,
    });
    let mut response = Response::new(Source::Ours(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ERROR.clone(), HeaderValue::from_static(code));
    let status = format!("adsproxy; error={}", error.proxy_status());
    if let Ok(status) = HeaderValue::from_str(&status) {
        headers.insert(PROXY_STATUS.clone(), status);
    }
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.ends_connection() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if matches!(error, Error::MethodRefused) {
        headers.insert(http::header::ALLOW, HeaderValue::from_static(METHODS));
    }
    response
}

/// A problem as the last bytes of an HTTP/1.1 connection, for what never became a request.
pub fn refusal(error: &Error, request_id: HeaderValue) -> Vec<u8> {
    let mut answer = problem(error, &request_id);
    answer.headers_mut().insert(REQUEST_ID.clone(), request_id);
    let mut text = format!("HTTP/1.1 {}\r\nconnection: close\r\n", answer.status()).into_bytes();
    for (name, value) in answer.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    if let Source::Ours(body) = answer.body() {
        text.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        text.extend_from_slice(body);
    }
    text
}

/// Binds `answer` to its exchange, which ends when the body does.
pub fn finish(answer: Answer, mut exchange: Box<Exchange>) -> Response<AnswerBody> {
    let (mut head, source) = answer.into_parts();
    exchange.answered(&head);
    head.version = Version::HTTP_11;
    head.headers.insert(REQUEST_ID.clone(), exchange.request_id().clone());
    Response::from_parts(head, AnswerBody { source, exchange })
}

/// The body of every answer, as hyper sends it.
#[derive(Debug)]
pub struct AnswerBody {
    source: Source,
    exchange: Box<Exchange>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Ours(bytes) if bytes.is_empty() => None,
            Source::Ours(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::Amazon(body) => ready!(body.poll_frame(cx)),
        };
        match &frame {
            Some(Ok(frame)) => this.exchange.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(error)) => this.exchange.broken(error.kind()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Ours(bytes) => bytes.is_empty(),
            Source::Amazon(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ours(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Amazon(body) => body.size_hint(),
        }
    }
}
