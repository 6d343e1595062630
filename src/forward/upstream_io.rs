//! A stream whose broken writing side does not hide what can still be read.
//!
//! Amazon may respond before it has read a request's body, and close. The next write then fails
//! while the response lies in our receive buffer; hyper would give up without looking at it.

use crate::small_write;
use hyper_util::rt::TokioIo;
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Once a write has failed, writes wait and the reading side shows how the connection ended: with
/// a response, or with the end of the stream.
pub(super) struct UpstreamIo<T> {
    io: T,
    is_broken: bool,
    /// Set once a byte has been read.
    heard: Rc<Cell<bool>>,
}

impl<T> UpstreamIo<T> {
    pub(super) fn new(io: T, heard: Rc<Cell<bool>>) -> Self {
        Self { io, is_broken: false, heard }
    }

    fn without_hangup<R>(&mut self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        match polled {
            Poll::Ready(Err(error)) if is_hangup(&error) => {
                self.is_broken = true;
                // Woken by the reading side, which the hangup has made readable.
                Poll::Pending
            }
            polled => polled,
        }
    }
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl<T: AsyncRead + Unpin> AsyncRead for UpstreamIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.heard.set(true);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for UpstreamIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.without_hangup(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Pending;
        }
        let polled = small_write::poll_write(&mut TokioIo::new(&mut self.io), cx, bufs);
        self.without_hangup(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.without_hangup(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
