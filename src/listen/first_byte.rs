//! Looks at the first bytes of a plain connection, without taking them, for what it speaks.

use rustix::net::{RecvFlags, recv};
use std::{io, os::fd::AsFd, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::{TcpStream, UnixStream},
    time::sleep,
};

/// What every HTTP/2 connection begins with.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose first bytes can be looked at without taking them.
pub(super) trait Peek: AsyncRead + AsyncWrite + Unpin + 'static {
    async fn peek(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Whether no byte will come behind those that are there.
    async fn is_finished(&self) -> io::Result<bool>;
}

impl Peek for TcpStream {
    async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.async_io(Interest::READABLE, || peek(self, buf)).await
    }

    async fn is_finished(&self) -> io::Result<bool> {
        Ok(self.ready(Interest::READABLE).await?.is_read_closed())
    }
}

impl Peek for UnixStream {
    async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.async_io(Interest::READABLE, || peek(self, buf)).await
    }

    async fn is_finished(&self) -> io::Result<bool> {
        Ok(self.ready(Interest::READABLE).await?.is_read_closed())
    }
}

fn peek(stream: &impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    Ok(recv(stream, buf, RecvFlags::PEEK)?.0)
}

/// Whether the caller speaks HTTP/2 without having been asked.
pub(super) async fn begins_http2(stream: &impl Peek) -> io::Result<bool> {
    let mut buf = [0; HTTP2_PREFACE.len()];
    loop {
        let seen = stream.peek(&mut buf).await?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !HTTP2_PREFACE.starts_with(&buf[..seen]) {
            return Ok(false);
        }
        if seen == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        if stream.is_finished().await? {
            return Ok(false);
        }
        // A preface in pieces: the bytes stay where they are, so there is nothing to wait on.
        sleep(Duration::from_millis(10)).await;
    }
}
