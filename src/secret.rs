//! A text that must never be shown: masked `Debug`, no `Display`, wiped on drop.

mod refresh_token;

pub use refresh_token::RefreshToken;

use serde::{Deserialize, Deserializer};
use std::fmt;
use zeroize::Zeroizing;

/// A secret text. Its bytes are wiped when the last clone of it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps `text`, which must have no other copy.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Takes what a variable, a file or standard input held: a byte order mark before it and line
    /// ends after it are no part of the secret.
    pub fn from_source(text: &str) -> Self {
        Self::from(text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']))
    }

    /// The text itself. Every use of this is a place to review.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Says whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A JSON text without escapes is handed over as it is, with no buffer of the parser's.
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Compares in time that depends on the lengths only.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes())
            .is_ok()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        let shown = format!("{:?} {:#?}", Secret::from("CANARY"), Some(Secret::from("CANARY")));
        assert!(shown.contains("[redacted]") && !shown.contains("CANARY"));
    }

    #[test]
    fn the_ends_of_a_source_are_no_part_of_its_secret() {
        for text in ["s", "s\n", "s\r\n", "s\n\n\r\n", "\u{feff}s", "\u{feff}s\n"] {
            assert_eq!(Secret::from_source(text).expose(), "s");
        }
        assert_eq!(Secret::from_source(" a\nb \n").expose(), " a\nb ");
        assert!(Secret::from_source("\n").is_empty());
    }

    #[test]
    fn equality_looks_at_the_text() {
        assert_eq!(Secret::from("a"), Secret::from("a"));
        assert_ne!(Secret::from("a"), Secret::from("b"));
        assert_ne!(Secret::from("a"), Secret::from("ab"));
    }
}
