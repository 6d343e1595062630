//! Reads an upstream 401 and says what kind it is.
//!
//! Amazon says 401 for three things: a token that is over, a gateway's hiccup, and a lack of
//! permission that no token can mend. Refreshing for the last would be a storm on LWA.
//! Source: AMAZON facts 0.4 and 4; wordings seen in public issues, read 2026-11-20.

use crate::{
    deadline::Deadlines,
    forward::upstream::{Lease, Response},
    metrics::Upstream401,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_ENCODING};
use hyper::body::{Body, Incoming};
use std::{future::poll_fn, io::Read, rc::Rc, time::Duration};

/// How much of a 401's body is looked at, bytes.
const PEEK_MAX_BYTES: usize = 16 * 1024;
/// How long its body may take.
const PEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// Parts of Amazon's wordings for a permission that is lacking, in lower case.
const PERMISSION_TEXTS: [&str; 8] = [
    "scope header is missing",
    "no matching advertiser",
    "not authorized to",
    "not authorised to",
    "does not have permission",
    "do not have permission",
    "insufficient permission",
    "access to scope",
];

/// A 401 whose body has been looked at, whole or in part.
#[derive(Debug)]
pub struct Unauthorized {
    /// What it means.
    pub class: Upstream401,
    /// The head.
    pub head: http::response::Parts,
    /// What was read of the body.
    pub peeked: Bytes,
    /// The rest of the body.
    pub rest: Incoming,
    /// Why there is no rest.
    pub cut: Option<hyper::Error>,
    /// The connection it came on.
    pub lease: Lease,
}

/// Looks at the body of a 401.
///
/// # Cancel safety
/// Safe: the connection is closed.
pub async fn read(response: Response, lease: Lease, deadlines: &Rc<Deadlines>) -> Unauthorized {
    let (head, mut rest) = response.into_parts();
    let mut peeked = BytesMut::new();
    let mut cut = None;
    let peek = async {
        while peeked.len() < PEEK_MAX_BYTES && !rest.is_end_stream() {
            match poll_fn(|cx| lease.poll_frame(&mut rest, cx)).await {
                Some(Ok(frame)) => {
                    // Trailers end the body; a 401 with trailers loses them, which harms nobody.
                    let Ok(data) = frame.into_data() else { break };
                    peeked.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    cut = Some(error);
                    break;
                }
                None => break,
            }
        }
    };
    // A body that does not come says nothing, and is handed on or replayed over like any other.
    let _ = deadlines.within(PEEK_TIMEOUT, peek).await;
    let class = classify(&head.headers, &peeked);
    Unauthorized { class, head, peeked: peeked.freeze(), rest, cut, lease }
}

fn classify(headers: &HeaderMap, body: &[u8]) -> Upstream401 {
    let gzip = headers
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let text = if gzip { inflate(body) } else { body.to_vec() };
    let text = String::from_utf8_lossy(&text).to_lowercase();
    if PERMISSION_TEXTS.iter().any(|permission| text.contains(permission)) {
        Upstream401::Permission
    } else if text.replace(' ', "") == r#"{"message":"unauthorized"}"# {
        Upstream401::Spurious
    } else {
        Upstream401::Expired
    }
}

/// As much of a gzip body as is worth reading, which also bounds a bomb.
fn inflate(body: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    // A cut or broken stream still gives what came before the cut.
    let _ = flate2::read::GzDecoder::new(body).take(PEEK_MAX_BYTES as u64).read_to_end(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn class(text: &str) -> Upstream401 {
        classify(&HeaderMap::new(), text.as_bytes())
    }

    #[test]
    fn permission_texts_are_known_in_any_shape_and_case() {
        for text in [
            r#"{"code":"401","details":"Scope header is missing"}"#,
            r#"{"code":"401","details":"No matching advertiser found for scope: 1"}"#,
            r#"{"code":"UNAUTHORIZED","details":"Not authorized to access scope 123"}"#,
            r#"{"message":"NOT AUTHORIZED TO manage this profile. Please check permissions"}"#,
        ] {
            assert_eq!(class(text), Upstream401::Permission, "{text}");
        }
    }

    #[test]
    fn everything_else_may_be_mended_by_a_token() {
        assert_eq!(class(r#"{"message":"Unauthorized"}"#), Upstream401::Spurious);
        assert_eq!(class(r#"{"message": "Unauthorized"}"#), Upstream401::Spurious);
        for text in ["", "{}", r#"{"code":"401","details":"Authentication failed"}"#, "\u{0}"] {
            assert_eq!(class(text), Upstream401::Expired, "{text}");
        }
    }

    #[test]
    fn reads_gzip_without_trusting_its_size() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, "gzip".parse().expect("a value"));
        let zip = |data: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(data).expect("memory");
            encoder.finish().expect("memory")
        };
        let permission = zip(br#"{"details":"Not authorized to access scope 1"}"#);
        assert_eq!(classify(&headers, &permission), Upstream401::Permission);
        assert_eq!(classify(&headers, &zip(&vec![0; 50 << 20])), Upstream401::Expired);
        assert_eq!(classify(&headers, b"no gzip"), Upstream401::Expired);
    }
}
