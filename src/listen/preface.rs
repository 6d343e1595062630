//! Reads the first bytes of a plain connection for the protocol that the caller speaks.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What every HTTP/2 connection begins with.
const HTTP2: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that were read already, for the connection to read again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Preface {
    bytes: [u8; HTTP2.len()],
    len: u8,
}

impl Preface {
    /// Reads until the bytes are those of HTTP/2 or of something else.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut preface = Self::default();
        loop {
            let read = stream.read(&mut preface.bytes[usize::from(preface.len)..]).await?;
            preface.len += u8::try_from(read).unwrap_or_default();
            let seen = preface.bytes();
            if seen.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if read == 0 || preface.is_http2() || !HTTP2.starts_with(seen) {
                return Ok(preface);
            }
        }
    }

    /// Whether the caller speaks HTTP/2 without having been asked.
    pub(super) fn is_http2(&self) -> bool {
        self.bytes() == HTTP2
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn knows_http2_from_all_else_and_keeps_what_it_read() {
        for (text, is_http2) in [
            (&HTTP2[..], true),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n more", true),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", false),
            (b"P", false),
            (b"POST / HTTP/1.1\r\n\r\n", false),
            (b"GET", false),
        ] {
            let mut stream = text;
            let preface = Preface::read(&mut stream).await.expect("bytes");
            assert_eq!(preface.is_http2(), is_http2, "{text:?}");
            assert_eq!([preface.bytes(), stream].concat(), text);
        }
        assert!(Preface::read(&mut &b""[..]).await.is_err());
    }
}
