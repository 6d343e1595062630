//! Request bodies of any size, and their hashes.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

/// Bytes that do not repeat, so that a part at the wrong place shows in the hash.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body that is made while it is sent.
pub struct Streamed {
    left: Vec<Bytes>,
    repeat: u64,
    is_sized: bool,
}

impl Streamed {
    /// `chunk`, `times` over, with `Content-Length`.
    pub fn repeated(chunk: Vec<u8>, times: u64) -> Self {
        Self { left: vec![chunk.into()], repeat: times, is_sized: true }
    }

    /// `body` in parts of `size`, without `Content-Length`.
    pub fn chunked(body: &[u8], size: usize) -> Self {
        let parts = body.chunks(size).rev().map(Bytes::copy_from_slice).collect();
        Self { left: parts, repeat: 1, is_sized: false }
    }
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = if self.repeat > 1 {
            self.repeat -= 1;
            self.left.last().cloned()
        } else {
            self.left.pop()
        };
        Poll::Ready(next.map(|part| Ok(Frame::data(part))))
    }

    fn size_hint(&self) -> SizeHint {
        let part = self.left.last().map_or(0, Bytes::len) as u64;
        if self.is_sized { SizeHint::with_exact(part * self.repeat) } else { SizeHint::default() }
    }
}

/// A body of these frames, of a length that is not announced.
pub struct Frames {
    left: VecDeque<Frame<Bytes>>,
    ends: bool,
}

impl Frames {
    /// These, and then the end.
    pub fn whole(left: VecDeque<Frame<Bytes>>) -> Self {
        Self { left, ends: true }
    }

    /// One, and no end.
    pub fn endless(data: &'static [u8]) -> Self {
        Self { left: [Frame::data(Bytes::from_static(data))].into(), ends: false }
    }
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.left.pop_front() {
            None if !self.ends => Poll::Pending,
            frame => Poll::Ready(frame.map(Ok)),
        }
    }
}

impl From<Streamed> for reqwest::Body {
    fn from(body: Streamed) -> Self {
        Self::wrap(body)
    }
}
