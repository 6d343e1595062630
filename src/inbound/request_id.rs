//! The name of a request in responses, logs and the audit log.

use super::{fields::Fields, path_key::holds_key};
use http::{HeaderName, HeaderValue};
use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

/// The field of every response that has it.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-ads-proxy-request-id");

/// The caller's own id, if it is 1 to 128 visible ASCII characters, and no key of ours: logs show it.
pub fn of(fields: &Fields<'_>) -> Option<HeaderValue> {
    let value = fields.request_id.first()?;
    let fits =
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    let is_key = || value.to_str().is_ok_and(holds_key);
    (fits && !is_key()).then(|| value.clone())
}

/// An id of the server's own, which no caller can choose: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerRequestId([u8; 16]);

impl ServerRequestId {
    /// The id number `number`, counted from [`first`]. Two ids do not show how many are between
    /// them: one tenant's must not count the requests of the others.
    pub fn new(number: u64) -> Self {
        static KEYED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let number = KEYED.hash_one(number);
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 16];
        for (at, digit) in text.iter_mut().enumerate() {
            let nibble = number >> (60 - 4 * at) & 15;
            *digit = HEX[usize::try_from(nibble).unwrap_or_default()];
        }
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

/// As [`ServerRequestId::new`], for a response.
pub fn fresh(number: u64) -> HeaderValue {
    let ServerRequestId(text) = ServerRequestId::new(number);
    HeaderValue::from_bytes(&text).expect("hexadecimal digits are visible ASCII")
}

/// Where to begin to count. Ids need to differ, not to be secret: without randomness they still
/// count up.
pub fn first() -> u64 {
    let mut seed = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut seed);
    u64::from_ne_bytes(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn ids_differ_and_do_not_count() {
        let ids: std::collections::BTreeSet<_> =
            (0..1000).map(|number| fresh(number).to_str().expect("ASCII").to_owned()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 16));
        let numbers: Vec<_> =
            ids.iter().map(|id| u64::from_str_radix(id, 16).expect("a number")).collect();
        // A thousand of all numbers are far from each other.
        assert!(numbers.windows(2).filter(|pair| pair[1] - pair[0] < 1 << 32).count() < 5);
    }

    #[test]
    fn a_callers_request_id_is_kept_only_when_it_is_visible_and_short() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_str(text).expect("a value"));
            of(&Fields::of(&headers))
        };
        assert_eq!(id("abc-1").expect("kept"), "abc-1");
        assert!(id(&"x".repeat(128)).is_some());
        for text in ["", "a b", &"x".repeat(129), "a\tb"] {
            assert!(id(text).is_none(), "{text:?}");
        }
        assert!(of(&Fields::default()).is_none());
    }
}
