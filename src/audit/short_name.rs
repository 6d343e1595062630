//! Names in the audit log: short words, too short for a token.

use aws_lc_rs::digest;
use serde::Serialize;

/// A short word: 1 to 64 letters, digits, `.`, `_`, `-`, `:`, `@`, `/`, `+` or `=`. Amazon's tokens
/// have hundreds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShortName(String);

impl ShortName {
    /// `text` if it is such a word, else the beginning of its SHA-256 in its place.
    pub(super) fn new(text: &str) -> Self {
        if Self::is_word(text) {
            return Self(text.to_owned());
        }
        Self::hashed(text)
    }

    /// As [`ShortName::new`], for what was verified: `auth0|7` is `auth0%7C7`.
    pub(super) fn spelled(text: &str) -> Self {
        match text.len() <= 64 && text.split('|').all(Self::is_word) {
            true => Self(text.replace('|', "%7C")),
            false => Self::hashed(text),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn is_word(text: &str) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:@/+=".contains(&b);
        (1..=64).contains(&text.len()) && text.bytes().all(allowed)
    }

    fn hashed(text: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let hex = hash.as_ref()[..12].iter().map(|byte| format!("{byte:02x}"));
        Self(["sha256:".to_owned()].into_iter().chain(hex).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_and_anything_else_is_hashed() {
        for name in ["k1", "0b8e7c1a-5f0e-4a8e-9d2b-1c9d0f1e2a3b", "caller@host:8/a+b=", "x"] {
            assert_eq!(ShortName::new(name).0, name);
        }
        let long = "x".repeat(65);
        for text in ["", "Atza|CANARY-token", "a b", "a\nb", "\u{1b}[2J", "ä", "a\"b", &long] {
            let name = ShortName::new(text);
            assert!(name.0.starts_with("sha256:") && name.0.len() == 31, "{name:?}");
            assert!(text.is_empty() || !name.0.contains(text));
        }
    }

    #[test]
    fn what_was_verified_may_have_bars_between_words() {
        assert_eq!(ShortName::spelled("auth0|7").0, "auth0%7C7");
        for subject in ["a b", "|", "a|", "a\nb", "%7C", &"x|".repeat(40)] {
            assert!(ShortName::spelled(subject).0.starts_with("sha256:"), "{subject}");
        }
    }
}
