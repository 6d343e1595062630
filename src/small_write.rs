//! Small vectored writes as plain ones: `writev` costs more than copying a kilobyte.

use hyper::rt::Write;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

/// Up to this many bytes are copied together, which is a usual response with its head.
const SMALL: usize = 2048;

/// Writes `bufs` to `io` by the cheaper call.
///
/// # Errors
/// As `io`.
pub fn poll_write<W: Write + Unpin>(
    io: &mut W,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let io = Pin::new(io);
    if let [only] = bufs {
        return io.poll_write(cx, only);
    }
    if bufs.iter().map(|buf| buf.len()).sum::<usize>() > SMALL {
        return io.poll_write_vectored(cx, bufs);
    }
    let (mut whole, mut len) = ([0; SMALL], 0);
    for buf in bufs {
        whole[len..len + buf.len()].copy_from_slice(buf);
        len += buf.len();
    }
    io.poll_write(cx, &whole[..len])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Records which call was made with how many bytes.
    #[derive(Default)]
    struct Calls(Vec<(&'static str, Vec<u8>)>);

    impl Write for Calls {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(("write", buf.to_vec()));
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let whole = bufs.iter().flat_map(|buf| buf.to_vec()).collect();
            self.0.push(("writev", whole));
            Poll::Ready(Ok(0))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn joins_what_is_small_and_nothing_else() {
        let large = vec![b'x'; SMALL];
        for (parts, call) in [
            (vec![&b"head"[..], b"body"], "write"),
            (vec![&large[..]], "write"),
            (vec![&large[1..], b"y"], "write"),
            (vec![&large[..], b"y"], "writev"),
            (vec![], "write"),
        ] {
            let mut calls = Calls::default();
            let bufs: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let _ = poll_write(&mut calls, &mut Context::from_waker(Waker::noop()), &bufs);
            assert_eq!(calls.0, [(call, parts.concat())]);
        }
    }
}
