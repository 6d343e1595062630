//! Builds responses: whole bodies, streams fed by a future, and hanging up.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// The body of every response.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a handler returns.
pub(super) type HandlerResult = Result<Response<Body>, Hangup>;

/// Where the future behind [`feed`] puts its frames.
pub(super) type Sender = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

/// Ends the connection (HTTP/2: the stream) without a response.
#[derive(Debug, thiserror::Error)]
#[error("the emulator hangs up")]
pub(super) struct Hangup;

/// A response with a whole body.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    with_type(status, content_type, body)
}

/// A JSON response.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    whole(status, "application/json", value.to_string())
}

/// A response whose body is written by `make`'s future while it is read.
pub(super) fn feed<F>(
    status: StatusCode,
    content_type: &'static str,
    make: impl FnOnce(Sender) -> F,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, frames) = mpsc::channel(1);
    let body = Feed { frames, producer: Some(Box::pin(make(sender))) };
    with_type(status, content_type, body.boxed_unsync())
}

/// Responds with with `body`, and `Content-Type` unless that is empty.
fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if !content_type.is_empty() {
        set(&mut response, header::CONTENT_TYPE, content_type);
    }
    response
}

/// Sets one field; a value that is no field value is left out.
pub(super) fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// `size` bytes of `fill`, in chunks, without holding them all.
pub(super) async fn send_bytes(sender: &Sender, fill: u8, size: u64) {
    const CHUNK: usize = 64 * 1024;
    let chunk = Bytes::from(vec![fill; CHUNK]);
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        if sender.send(Ok(Frame::data(chunk.slice(..part)))).await.is_err() {
            return;
        }
        left -= part as u64;
    }
}

/// A body that drives its own producer: no task is spawned, and dropping the body stops it.
struct Feed {
    frames: mpsc::Receiver<Result<Frame<Bytes>, io::Error>>,
    producer: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Feed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(producer) = self.producer.as_mut()
            && producer.as_mut().poll(cx).is_ready()
        {
            self.producer = None;
        }
        self.frames.poll_recv(cx)
    }
}
