//! The lines of the log: each authenticated with a key, and bound to the line before it.
//!
//! A line is one JSON object whose last member is `mac`: an HMAC-SHA256, by the log's key
//! that the line names, over the MAC of the line before and all that stands before
//! `,"mac"` in this one. The bytes themselves are authenticated: nothing depends on how a JSON
//! writer orders or escapes.

use super::{
    entry::{Action, Actor, Entry},
    keys::{AuditKeys, MAC_BYTES, Unverified},
};
use crate::id::AccountId;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, time::Duration};

/// The version of the entries' schema.
pub(super) const VERSION: u32 = 1;
/// No line is longer; so much of a file's end holds a whole one.
pub(super) const LINE_MAX_BYTES: usize = 4096;
/// What comes before the first line.
pub(super) const START: Mac = [0; MAC_BYTES];

/// What binds a line to all before it.
pub(super) type Mac = [u8; MAC_BYTES];

/// The members of a line, in their order, but for `mac`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Body<'a> {
    pub(super) v: u32,
    pub(super) seq: u64,
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) actor: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uid: Option<u32>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) action: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) outcome: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) about: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// Of `audit.begin` and `audit.expire`: the number of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) segment: Option<u64>,
    /// Of `audit.begin`: the MAC of the line before, which is in another file.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub(super) prev: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
}

impl<'a> Body<'a> {
    /// The body of `entry` as number `seq`.
    pub(super) fn new(entry: &'a Entry, seq: u64, wall: Duration, key: &'a str) -> Self {
        Self {
            v: VERSION,
            seq,
            time: rfc3339(wall).into(),
            actor: entry.actor.as_str().into(),
            uid: entry.actor.uid(),
            user: entry.actor.user().map(|user| user.as_str().into()),
            action: entry.action.as_str().into(),
            account: entry.account.as_ref().map(|account| AccountId::as_str(account).into()),
            outcome: entry.outcome.as_str().into(),
            reason: entry.outcome.reason().map(Cow::from),
            request_id: entry.request_id.as_ref().map(|id| id.as_str().into()),
            generation: entry.generation,
            about: entry.about.as_ref().map(|about| about.as_str().into()),
            count: entry.count,
            segment: None,
            prev: None,
            key: key.into(),
        }
    }

    /// Says whether it is one of the log's own `action`s.
    pub(super) fn is(&self, action: Action) -> bool {
        self.action == action.as_str() && self.actor == Actor::Audit.as_str()
    }
}

/// RFC 3339 in UTC with milliseconds.
pub(super) fn rfc3339(wall: Duration) -> String {
    let millis = i64::try_from(wall.as_millis()).ok();
    let time = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    format!("{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
}

/// A line that was read: not yet known to be right.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// What the MAC protects, with the MAC before it.
    text: &'a [u8],
    pub(super) body: Body<'a>,
    pub(super) mac: Mac,
}

impl<'a> Line<'a> {
    /// Takes a line, without its newline, apart; none if it is not one of ours.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let body: Body<'a> = serde_json::from_slice(line).ok()?;
        let (text, mac) = split_mac(line)?;
        Some(Self { text, body, mac })
    }

    /// Checks it with the key it names, as the line after the one with the MAC `prev`.
    pub(super) fn verify(&self, keys: &AuditKeys, prev: &Mac) -> Result<(), Unverified> {
        keys.verify(&self.body.key, &protected(Kind::Line, prev, self.text), &self.mac)
    }

    /// The MAC that the first line of a file says it follows.
    pub(super) fn prev(&self) -> Option<Mac> {
        decode_mac(self.body.prev.as_deref()?.as_bytes())
    }
}

/// Appends the line of `body` to `lines` and returns its MAC.
pub(super) fn write_line(
    body: &Body<'_>,
    prev: &Mac,
    keys: &AuditKeys,
    lines: &mut Vec<u8>,
) -> Mac {
    let text = serde_json::to_vec(body).expect("texts and numbers are JSON");
    let mac = finish(Kind::Line, prev, text, keys, lines);
    lines.push(b'\n');
    mac
}

/// What a MAC protects.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Line,
    Head,
}

/// Appends the JSON object `text` to `out` with its MAC as the last member.
pub(super) fn finish(
    kind: Kind,
    prev: &Mac,
    mut text: Vec<u8>,
    keys: &AuditKeys,
    out: &mut Vec<u8>,
) -> Mac {
    text.pop();
    let mac = keys.sign(&protected(kind, prev, &text));
    out.extend_from_slice(&text);
    out.extend_from_slice(MAC_PREFIX);
    out.extend_from_slice(encode_mac(&mac).as_bytes());
    out.extend_from_slice(MAC_SUFFIX);
    mac
}

/// Cuts the MAC off a JSON object that [`finish`] made.
pub(super) fn split_mac(object: &[u8]) -> Option<(&[u8], Mac)> {
    let rest = object.strip_suffix(MAC_SUFFIX)?;
    let (rest, mac) = rest.split_at_checked(rest.len().checked_sub(MAC_TEXT_BYTES)?)?;
    Some((rest.strip_suffix(MAC_PREFIX)?, decode_mac(mac)?))
}

/// A line is never taken for a head, nor the MAC before it for a part of it: that has one length.
pub(super) fn protected(kind: Kind, prev: &Mac, text: &[u8]) -> Vec<u8> {
    let kind: &[u8] = match kind {
        Kind::Line => b"line",
        Kind::Head => b"head",
    };
    [kind, prev, text].concat()
}

pub(super) fn encode_mac(mac: &Mac) -> String {
    BASE64.encode(mac)
}

pub(super) fn decode_mac(text: &[u8]) -> Option<Mac> {
    BASE64.decode(text).ok()?.try_into().ok()
}

const MAC_PREFIX: &[u8] = b",\"mac\":\"";
const MAC_SUFFIX: &[u8] = b"\"}";
/// Base64 of 32 bytes without padding.
const MAC_TEXT_BYTES: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::keys;

    fn line(entry: &Entry, prev: &Mac) -> (Vec<u8>, Mac) {
        let body = Body::new(entry, 7, Duration::from_millis(1_795_132_800_123), "k1");
        let mut lines = Vec::new();
        let mac = write_line(&body, prev, &keys(&["k1"]), &mut lines);
        lines.pop();
        (lines, mac)
    }

    fn entry() -> Entry {
        let account = "acme".parse().expect("an alias");
        Entry::new(Actor::Server, Action::TokenRefresh)
            .account(&account)
            .generation(3)
            .failed("transient")
    }

    #[test]
    fn a_line_reads_like_the_documented_example() {
        let (line, mac) = line(&entry(), &START);
        let expected = format!(
            r#"{{"v":1,"seq":7,"time":"2026-11-20T00:00:00.123Z","actor":"server","action":"token.refresh","account":"acme","outcome":"failed","reason":"transient","generation":3,"key":"k1","mac":"{}"}}"#,
            encode_mac(&mac)
        );
        assert_eq!(String::from_utf8(line).expect("text"), expected);
    }

    #[test]
    fn a_line_verifies_after_its_predecessor_only_and_with_its_key_only() {
        let (bytes, _) = line(&entry(), &[1; 32]);
        let line = Line::parse(&bytes).expect("a line");
        assert_eq!(line.verify(&keys(&["k0", "k1"]), &[1; 32]), Ok(()));
        assert_eq!(line.verify(&keys(&["k1"]), &[2; 32]), Err(Unverified::Refused));
        assert_eq!(line.verify(&keys(&["k0"]), &[1; 32]), Err(Unverified::KeyMissing));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (bytes, _) = line(&entry(), &START);
        let keys = keys(&["k1"]);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verified = Line::parse(&changed).map(|line| line.verify(&keys, &START));
            assert_ne!(verified, Some(Ok(())), "bit {bit}");
        }
    }

    #[test]
    fn the_longest_entry_fits_a_line() {
        let long = "x".repeat(64);
        let entry = Entry::new(Actor::admin(Some(&long)), Action::GrantReauthorizationRequired)
            .account(&long.parse().expect("an alias"))
            .request_id(&long)
            .about(&long)
            .generation(u64::MAX)
            .count(u64::MAX)
            .failed("a_rather_long_reason_code_for_a_failure_of_some_kind");
        assert!(line(&entry, &START).0.len() < LINE_MAX_BYTES / 4);
    }
}
