//! Removes our access token from an error response that quotes it.
//!
//! Amazon's gateway repeats an `Authorization` that it does not understand in its error text. Such
//! a response would hand the token to the caller, which must never hold one.

use super::{
    content::decoded,
    respond::{ExchangeBody, PEEK_MAX_BYTES},
};
use http::{
    HeaderValue, Response,
    header::{CONTENT_ENCODING, CONTENT_LENGTH},
};
use std::borrow::Cow;

const MASK: &[u8] = b"[redacted]";
/// The least length of a part of a token that is taken for it, bytes.
const PART_MIN_BYTES: usize = 16;

/// Replaces what `response` quotes of `authorization`, in its fields and in a body that was peeked
/// whole. Returns whether there was any; a response without it stays as it came.
pub fn redact(response: &mut Response<ExchangeBody>, authorization: &HeaderValue) -> bool {
    let secret = authorization.as_bytes();
    let token = secret.strip_prefix(b"Bearer ").unwrap_or(secret);
    let mut found = false;
    for value in response.headers_mut().values_mut() {
        if let Some(clean) = mask(value.as_bytes(), token)
            && let Ok(clean) = HeaderValue::from_bytes(&clean)
        {
            *value = clean;
            found = true;
        }
    }
    redact_body(response, token).is_some() || found
}

fn redact_body(response: &mut Response<ExchangeBody>, token: &[u8]) -> Option<()> {
    let body = response.body();
    if body.peeked.len() > PEEK_MAX_BYTES {
        return None;
    }
    let clean = if body.is_peeked_whole() {
        let clean = mask(&decoded(response.headers(), &body.peeked)?, token)?;
        let headers = response.headers_mut();
        headers.remove(CONTENT_ENCODING);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(clean.len()));
        clean
    } else if response.headers().contains_key(CONTENT_ENCODING) {
        return None;
    } else {
        // Cut off, or slow: what came goes on, and its announced length with it.
        blanked(&body.peeked, token)?
    };
    response.body_mut().peeked = clean.into();
    Some(())
}

/// `text` with `token` masked; none if it is not in there.
///
/// An escape (`%7C`, `\u007c`, `&#124;`) changes only separators, so that the long parts between
/// them are looked for as well.
pub(super) fn mask(text: &[u8], token: &[u8]) -> Option<Vec<u8>> {
    let mut clean = Cow::Borrowed(text);
    for needle in needles(token) {
        let (mut masked, mut rest) = (Vec::new(), &*clean);
        while let Some(at) = find(rest, needle) {
            masked.extend_from_slice(&rest[..at]);
            masked.extend_from_slice(MASK);
            rest = &rest[at + needle.len()..];
        }
        if rest.len() < clean.len() {
            masked.extend_from_slice(rest);
            clean = Cow::Owned(masked);
        }
    }
    matches!(clean, Cow::Owned(_)).then(|| clean.into_owned())
}

/// As `mask`, without a change of the length. A token that the end cuts off is masked as well.
pub(super) fn blanked(text: &[u8], token: &[u8]) -> Option<Vec<u8>> {
    let mut clean = text.to_vec();
    for needle in needles(token) {
        while let Some(at) = find(&clean, needle) {
            clean[at..at + needle.len()].fill(b'*');
        }
        let cut = (PART_MIN_BYTES..needle.len()).rev();
        if let Some(len) = cut.into_iter().find(|&len| clean.ends_with(&needle[..len])) {
            let from = clean.len() - len;
            clean[from..].fill(b'*');
        }
    }
    (clean != text).then_some(clean)
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len()).position(|window| window == needle)
}

/// The token, and its long parts.
fn needles(token: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = token.split(|b| !(b.is_ascii_alphanumeric() || b"-_.~".contains(b)));
    let parts = parts.filter(|part| part.len() >= PART_MIN_BYTES);
    (!token.is_empty()).then_some(token).into_iter().chain(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "Atza|IwEBIAbcdefghijklmnop-_qrstuv/WXYZ0123456789wxyz+short";

    fn masked(text: &str) -> Option<String> {
        mask(text.as_bytes(), TOKEN.as_bytes()).map(|text| String::from_utf8(text).expect("text"))
    }

    #[test]
    fn a_text_that_is_cut_off_is_masked_and_keeps_its_length() {
        for text in [format!("no {TOKEN} here"), format!("cut {}", &TOKEN[..40])] {
            let clean = blanked(text.as_bytes(), TOKEN.as_bytes()).expect("a quotation");
            assert_eq!(clean.len(), text.len());
            let clean = String::from_utf8(clean).expect("text");
            assert!(!clean.contains("IwEBIA") && !clean.contains("WXYZ"), "{clean}");
        }
        assert_eq!(blanked(b"Atza| and nothing else", TOKEN.as_bytes()), None);
    }

    #[test]
    fn every_quotation_is_masked_however_its_separators_are_written() {
        let quoted = masked(&format!("'Bearer {TOKEN}' is not {TOKEN}."));
        assert_eq!(quoted.as_deref(), Some("'Bearer [redacted]' is not [redacted]."));
        for bar in ["%7C", "%7c", r"\u007c", "&#124;", " "] {
            let text = TOKEN.replace('|', bar).replace('/', "%2F");
            let clean = masked(&text).expect("a quotation");
            assert!(!clean.contains("IwEBIA") && !clean.contains("WXYZ"), "{clean}");
        }
    }

    #[test]
    fn other_text_is_not_touched() {
        for text in ["", "Atza|", "Atza|another", "IwEBIA", r#"{"message":"Unauthorized"}"#] {
            assert_eq!(masked(text), None, "{text}");
        }
        assert_eq!(mask(b"text", b""), None);
    }
}
