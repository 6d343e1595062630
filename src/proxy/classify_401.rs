//! Says from its text what kind of 401 Amazon sent.
//!
//! Amazon says 401 for three things: a token that is over, a gateway's hiccup, and a lack of
//! permission that no token can fix. Refreshing for the last would be a storm on LWA.
//! Source: AMAZON facts 0.4 and 4; wordings seen in public issues, read 2026-11-20.

use super::content::decoded;
use crate::metrics::Upstream401;
use http::HeaderMap;

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

/// The kind of a 401 with these `headers`, of whose body `peeked` was read.
#[must_use]
pub fn classify_401(headers: &HeaderMap, peeked: &[u8]) -> Upstream401 {
    let text = decoded(headers, peeked).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).to_lowercase();
    if PERMISSION_TEXTS.iter().any(|permission| text.contains(permission)) {
        Upstream401::Permission
    } else if text.replace(' ', "") == r#"{"message":"unauthorized"}"# {
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
