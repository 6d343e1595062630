//! Requests that no service sees: those that the listener or hyper's parser rejects.

use bytes::Bytes;
use http::Response;
use hyper::rt::Write;
use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenRejection {
    /// Its head is no HTTP.
    Malformed,
    /// Its head is too long, or has too many lines.
    HeadersTooLarge,
    /// There are as many connections as there may be.
    Connections,
}

/// Makes the response to a rejection.
pub type WriteRejection = Rc<dyn Fn(ListenRejection) -> Response<Bytes>>;

/// `response` as the last bytes of an HTTP/1.1 connection.
pub(super) fn render(response: &Response<Bytes>) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {}\r\nconnection: close\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    let body = response.body();
    text.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    text.extend_from_slice(body);
    text
}

/// A whole response that is written in the place of one of the parser's.
#[derive(Default)]
pub(super) struct Substitute(Option<Vec<u8>>);

impl Substitute {
    /// Writes `buf`, or, where that is one of the parser's responses, that of `reject`.
    pub(super) fn poll_write(
        &mut self,
        io: &mut (impl Write + Unpin),
        cx: &mut Context<'_>,
        buf: &[u8],
        reject: Option<impl FnOnce(ListenRejection) -> Response<Bytes>>,
    ) -> Poll<io::Result<usize>> {
        if self.0.is_none()
            && let Some(reject) = reject
            && let Some(rejection) = ListenRejection::by_parser(buf)
        {
            self.0 = Some(render(&reject(rejection)));
        }
        let Some(rest) = &mut self.0 else { return Pin::new(io).poll_write(cx, buf) };
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            rest.drain(..written);
        }
        self.0 = None;
        Poll::Ready(Ok(buf.len()))
    }
}

/// No response of the parser's own is as long, bytes.
const PARSERS_RESPONSE_MAX_BYTES: usize = 128;
const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";

impl ListenRejection {
    /// What hyper's parser says with `bytes`, if they are one of its bare responses.
    pub(super) fn by_parser(bytes: &[u8]) -> Option<Self> {
        let bare = bytes.len() < PARSERS_RESPONSE_MAX_BYTES
            && bytes.starts_with(b"HTTP/1.")
            && bytes.ends_with(b"\r\n\r\n")
            // A date may stand behind it.
            && bytes.windows(EMPTY.len()).any(|line| line == EMPTY);
        match bytes.get(9..12).filter(|_| bare)? {
            b"400" => Some(Self::Malformed),
            b"414" | b"431" => Some(Self::HeadersTooLarge),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_parsers_responses_and_no_others() {
        let bare = |status: &str| {
            let text =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            ListenRejection::by_parser(text.as_bytes())
        };
        assert_eq!(bare("400 Bad Request"), Some(ListenRejection::Malformed));
        assert_eq!(bare("414 URI Too Long"), Some(ListenRejection::HeadersTooLarge));
        let too_large = bare("431 Request Header Fields Too Large");
        assert_eq!(too_large, Some(ListenRejection::HeadersTooLarge));
        let dated = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                     content-length: 0\r\ndate: Sat, 28 Nov 2026 16:14:36 GMT\r\n\r\n";
        assert_eq!(ListenRejection::by_parser(dated.as_bytes()), too_large);
        assert_eq!(bare("200 OK"), None);
        for other in ["", "HTTP/1.1", "HTTP/1.1 100 Continue\r\n\r\n"] {
            assert_eq!(ListenRejection::by_parser(other.as_bytes()), None);
        }
    }
}
