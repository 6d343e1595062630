//! Says from its text what kind of 401 Amazon sent.
//!
//! Amazon says 401 for three things: a token that is over, a gateway's hiccup, and a lack of
//! permission that no token can fix. Refreshing for the last would be a storm on LWA.
//! The wordings are in `provider::ads`.

use super::content::decoded;
use crate::{metrics::Upstream401, provider::ads};
use http::HeaderMap;

/// The kind of a 401 with these `headers`, of whose body `peeked` was read.
pub fn classify_401(headers: &HeaderMap, peeked: &[u8]) -> Upstream401 {
    let text = decoded(headers, peeked).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).to_lowercase();
    if ads::is_permission_error(&text) {
        Upstream401::Permission
    } else if ads::is_gateway_error(&text) {
        Upstream401::Spurious
    } else {
        Upstream401::Expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> Upstream401 {
        classify_401(&HeaderMap::new(), text.as_bytes())
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
    fn everything_else_may_be_fixed_by_a_token() {
        assert_eq!(class(r#"{"message":"Unauthorized"}"#), Upstream401::Spurious);
        assert_eq!(class(r#"{"message": "Unauthorized"}"#), Upstream401::Spurious);
        for text in ["", "{}", r#"{"code":"401","details":"Authentication failed"}"#, "\u{0}"] {
            assert_eq!(class(text), Upstream401::Expired, "{text}");
        }
    }
}
