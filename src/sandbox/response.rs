//! Builds responses: whole bodies, paced streams, and ends without a response.

use super::fault::Scripted;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use std::{io, time::Duration};
use tokio::time::sleep;

pub(super) type EmulatorBody = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type EmulatorResponse = Response<EmulatorBody>;
pub(super) type HandlerResult = Result<EmulatorResponse, Stop>;

/// Why a handler ends before its last line.
pub(super) enum Stop {
    /// With this response.
    Early(Box<EmulatorResponse>),
    /// Ends the connection (HTTP/2: the stream) without a response.
    HangUp,
}

impl From<EmulatorResponse> for Stop {
    fn from(reply: EmulatorResponse) -> Self {
        Self::Early(Box::new(reply))
    }
}

/// A response with a whole body, and `Content-Type` unless that is empty.
pub(super) fn whole(status: u16, content_type: &str, body: impl Into<Bytes>) -> EmulatorResponse {
    with_type(status, content_type, full(body.into()))
}

pub(super) fn full(body: Bytes) -> EmulatorBody {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn json(status: u16, value: serde_json::Value) -> EmulatorResponse {
    whole(status, "application/json", value.to_string())
}

/// A 200 whose body is made while it is read.
pub(super) fn stream<I>(content_type: &str, frames: I) -> EmulatorResponse
where
    I: IntoIterator<Item = PacedFrame>,
    I::IntoIter: Send + 'static,
{
    let frames = futures_util::stream::iter(frames).then(|(pause, frame)| async move {
        // A sleep of no time waits for the next tick.
        if !pause.is_zero() {
            sleep(pause).await;
        }
        frame
    });
    with_type(200, content_type, StreamBody::new(frames).boxed_unsync())
}

fn with_type(status: u16, content_type: &str, body: EmulatorBody) -> EmulatorResponse {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(status).expect("the emulator's statuses are valid");
    if content_type.is_empty() { reply } else { reply.with("content-type", content_type) }
}

pub(super) trait With {
    /// Sets one field; a value that is no field value is left out.
    fn with(self, name: &str, value: &str) -> Self;
}

impl With for EmulatorResponse {
    fn with(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            self.headers_mut().insert(name, value);
        }
        self
    }
}

pub(super) fn scripted(script: &Scripted) -> EmulatorResponse {
    let reply = whole(script.status.as_u16(), "", script.body.clone());
    script.headers.iter().fold(reply, |reply, (name, value)| reply.with(name, value))
}

pub(super) fn retry_after(reply: EmulatorResponse, secs: Option<u64>) -> EmulatorResponse {
    match secs {
        Some(secs) => reply.with("retry-after", &secs.to_string()),
        None => reply,
    }
}

/// The pause before a frame, and the frame.
pub(super) type PacedFrame = (Duration, io::Result<Frame<Bytes>>);

pub(super) fn after(pause: Duration, data: impl Into<Bytes>) -> PacedFrame {
    (pause, Ok(Frame::data(data.into())))
}

/// `size` bytes of `fill`, in chunks, without holding them all.
pub(super) fn repeated(fill: u8, size: usize) -> impl Iterator<Item = PacedFrame> {
    const CHUNK_BYTES: usize = 64 * 1024;
    let chunk = Bytes::from(vec![fill; CHUNK_BYTES]);
    (0..size)
        .step_by(CHUNK_BYTES)
        .map(move |sent| after(Duration::ZERO, chunk.slice(..CHUNK_BYTES.min(size - sent))))
}
