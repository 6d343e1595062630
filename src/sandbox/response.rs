//! Builds responses: whole bodies, streams fed by a future, and hanging up.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::Value;
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

type EmulatedBody = UnsyncBoxBody<Bytes, io::Error>;

pub(super) type Emulated = Response<EmulatedBody>;

/// Where the future behind [`feed`] puts its frames.
pub(super) type FrameSender = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

/// Why a request does not get the regular response.
#[derive(Debug)]
pub(super) enum Stop {
    /// It gets another one.
    Instead(Box<Emulated>),
    /// The connection (HTTP/2: the stream) ends without one.
    Hangup,
}

impl Stop {
    /// The response that is sent all the same, if any.
    pub(super) fn reply(self) -> Result<Emulated, Self> {
        match self {
            Self::Instead(reply) => Ok(*reply),
            Self::Hangup => Err(self),
        }
    }
}

impl From<Emulated> for Stop {
    fn from(reply: Emulated) -> Self {
        Self::Instead(Box::new(reply))
    }
}

/// A response with a whole body; no `Content-Type` if that is empty.
pub(super) fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> Emulated {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    reply(status, content_type, body)
}

pub(super) fn empty(status: u16) -> Emulated {
    whole(status, "", Bytes::new())
}

pub(super) fn json(status: u16, value: Value) -> Emulated {
    whole(status, "application/json", value.to_string())
}

/// A response whose body is written by `make`'s future while it is read.
pub(super) fn feed<F>(content_type: &str, make: impl FnOnce(FrameSender) -> F) -> Emulated
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, frames) = mpsc::channel(1);
    let body = Feed { frames, producer: Some(Box::pin(make(sender))) };
    reply(200, content_type, body.boxed_unsync())
}

fn reply(status: u16, content_type: &str, body: EmulatedBody) -> Emulated {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(status).expect("the emulator's own statuses");
    if content_type.is_empty() { reply } else { reply.with("content-type", content_type) }
}

pub(super) trait With {
    /// Sets one field; a value that is no field value is left out.
    fn with(self, name: &str, value: &str) -> Self;
}

impl With for Emulated {
    fn with(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            self.headers_mut().insert(name, value);
        }
        self
    }
}

/// Sends one piece; false once the reader has gone.
pub(super) async fn send(sender: &FrameSender, data: impl Into<Bytes>) -> bool {
    sender.send(Ok(Frame::data(data.into()))).await.is_ok()
}

/// `size` bytes of `fill`, in chunks, without holding them all.
pub(super) async fn send_bytes(sender: &FrameSender, fill: u8, size: u64) {
    const CHUNK: usize = 64 * 1024;
    let chunk = Bytes::from(vec![fill; CHUNK]);
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        if !send(sender, chunk.slice(..part)).await {
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
