//! Reads and writes texts: forms, queries, escapes, random identifiers, points in time.

use crate::clock::Now;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use std::{str::FromStr, time::Duration};

/// Everything but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) struct FormPairs(Vec<(String, String)>);

impl FormPairs {
    /// Reads `a=1&b=%7C+x`; broken escapes stay as they are.
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(form_urlencoded::parse(text).into_owned().collect())
    }

    pub(super) fn of_query(uri: &http::Uri) -> Self {
        Self::parse(uri.query().unwrap_or_default().as_bytes())
    }

    /// Reads a flat JSON object of texts.
    pub(super) fn parse_json(body: &[u8]) -> Self {
        let object: Map<_, _> = serde_json::from_slice(body).unwrap_or_default();
        let texts = object.into_iter().filter_map(|(name, value)| match value {
            Value::String(text) => Some((name, text)),
            _ => None,
        });
        Self(texts.collect())
    }

    /// The first value of `name`, if it is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(have, _)| have == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn number<N: FromStr>(&self, name: &str) -> Option<N> {
        self.get(name)?.parse().ok()
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

/// Escapes `text` for HTML and XML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has a random number generator");
    bytes
}

/// `N` random bytes as unpadded base64url.
pub(super) fn random_text<const N: usize>() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random_bytes::<N>())
}

pub(super) fn random_uuid() -> String {
    let text = format!("{:032x}", u128::from_ne_bytes(random_bytes()));
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

/// `2026-11-20T09:30:00.000Z`
pub(super) const ISO: &str = "%Y-%m-%dT%H:%M:%S.000Z";
/// `2026-11-20`
pub(super) const DATE: &str = "%Y-%m-%d";
/// `20261120T093000Z`
pub(super) const COMPACT: &str = "%Y%m%dT%H%M%SZ";

/// `days` whole days before `now`.
pub(super) fn days_ago(now: Now, days: u64) -> Duration {
    now.wall.saturating_sub(Duration::from_secs(days * 86_400))
}

pub(super) fn spelled(since_epoch: Duration, format: &str) -> String {
    let seconds = i64::try_from(since_epoch.as_secs()).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.unwrap_or(jiff::Timestamp::MAX).strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_plus_signs_are_read() {
        let form = FormPairs::parse(b"refresh_token=Atzr%7Cx&a=b+c&broken=%zz%4&flag");
        assert_eq!(form.get("refresh_token"), Some("Atzr|x"));
        assert_eq!(form.get("a"), Some("b c"));
        assert_eq!(form.get("broken"), Some("%zz%4"));
        assert_eq!(form.get("flag"), None);
    }

    #[test]
    fn encoding_is_undone_by_reading() {
        let text = "a b|c/%é&=+";
        assert_eq!(FormPairs::parse(format!("a={}", encode(text)).as_bytes()).get("a"), Some(text));
    }

    #[test]
    fn a_moment_has_three_spellings() {
        let moment = Duration::from_secs(1_763_631_000);
        assert_eq!(spelled(moment, ISO), "2025-11-20T09:30:00.000Z");
        assert_eq!(spelled(moment, DATE), "2025-11-20");
        assert_eq!(spelled(moment, COMPACT), "20251120T093000Z");
    }
}
