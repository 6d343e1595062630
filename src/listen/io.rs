//! The stream of a connection, which keeps the connection's state up to date.
//!
//! hyper responds by itself to a head that it cannot read, with nothing but a status. The service
//! never sees such a request, so the stream, which knows that no request is in flight, writes a
//! whole response in that place.

use super::{
    connection::Connection,
    listener::ByteStream,
    rejection::{Substitute, WriteRejection},
};
use crate::small_write;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

pub(super) struct ConnectionIo<T> {
    io: TokioIo<T>,
    connection: Rc<Connection>,
    write_rejection: WriteRejection,
    rejection: Substitute,
}

impl<T> ConnectionIo<T> {
    pub(super) fn new(stream: T, connection: &Rc<Connection>, reject: &WriteRejection) -> Self {
        let (connection, write_rejection) = (connection.clone(), reject.clone());
        let (io, rejection) = (TokioIo::new(stream), Substitute::default());
        Self { io, connection, write_rejection, rejection }
    }
}

impl<T: ByteStream> Read for ConnectionIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let has_preface = self.connection.take_preface(&mut buf);
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if has_preface && polled.is_pending() {
            return Poll::Ready(Ok(()));
        }
        if polled.is_ready() {
            self.connection.received();
        }
        polled
    }
}

impl<T: ByteStream> ConnectionIo<T> {
    fn note<R>(&self, polled: Poll<R>) -> Poll<R> {
        self.connection.wrote(polled.is_pending());
        polled
    }

    /// Reads on until the caller has closed, too.
    fn poll_lingering(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        while self.connection.is_lingering() {
            let mut buffer = ReadBuf::uninit(&mut buffer);
            // How the connection ends makes no difference now.
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, buffer.unfilled()));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.connection.lingered(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: ByteStream> Write for ConnectionIo<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Self { io, connection, write_rejection, rejection } = this;
        // What is written before the last response is flushed belongs to that response.
        let reject = connection.is_flushed.get().then_some(|how| {
            // What is behind a head that cannot be read is unknown.
            connection.lingering_bytes.set(u64::MAX);
            write_rejection(how)
        });
        let polled = rejection.poll_write(io, cx, buf, reject);
        this.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [buf] = bufs {
            return self.poll_write(cx, buf);
        }
        let polled = small_write::poll_write(&mut self.io, cx, bufs);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when its own buffer is empty, and drops a body before its end is written.
        self.connection.flushed();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Closes in stages where the caller may still send: its bytes would reset the connection, and
    /// the response could be lost. Source: RFC 9112 section 9.6.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        self.poll_lingering(cx)
    }
}
