//! Reads `application/x-www-form-urlencoded` text and query strings.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::Duration;

/// Everything but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The pairs of a form or of a query, in order.
#[derive(Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `a=1&b=%7C+x`; broken escapes stay as they are.
    pub(super) fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// Reads a flat JSON object of texts.
    pub(super) fn parse_json(body: &[u8]) -> Self {
        let object: serde_json::Map<_, _> = serde_json::from_slice(body).unwrap_or_default();
        let texts = object.into_iter();
        Self(texts.filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect())
    }

    /// The first value of `name`, if it is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(have, _)| have == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    /// The number `name`, or `default` where it is absent or no number.
    pub(super) fn number(&self, name: &str, default: u64) -> u64 {
        self.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    pub(super) fn millis(&self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.number(name, default))
    }

    /// Adds a pair that was given elsewhere, unless it is here already.
    pub(super) fn add_missing(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.0.push((name.to_owned(), value.to_owned()));
        }
    }
}

pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn random_bytes(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has a random number generator");
    bytes
}

/// `size` random bytes as unpadded base64url.
pub(super) fn random_text(size: usize) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random_bytes(size))
}

/// A random identifier in the spelling of a UUID.
pub(super) fn random_uuid() -> String {
    let text = hex(&random_bytes(16));
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_plus_signs_are_read() {
        let form = Form::parse("refresh_token=Atzr%7Cx&a=b+c&broken=%zz%4&flag");
        assert_eq!(form.get("refresh_token"), Some("Atzr|x"));
        assert_eq!(form.get("a"), Some("b c"));
        assert_eq!(form.get("broken"), Some("%zz%4"));
        assert_eq!(form.get("flag"), None);
    }

    #[test]
    fn encoding_is_undone_by_reading() {
        let text = "a b|c/%é&=+";
        assert_eq!(Form::parse(&format!("a={}", encode(text))).get("a"), Some(text));
    }
}
