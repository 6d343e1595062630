//! The lines of the log and the checkpoint beside it: each authenticated with a key, each line bound
//! to the line before it.
//!
//! A line is one JSON object whose last member is `mac`: an HMAC-SHA256, by the log's key
//! that the line names, over the MAC of the line before and all that precedes
//! `,"mac"` in this one. The bytes themselves are authenticated: nothing depends on how a JSON
//! writer orders or escapes.
//!
//! The checkpoint says how far the log had come, so that a cut-off end is found. It is one block of
//! 512 bytes that is overwritten in place after each entry is durable: disks write a sector whole
//! or not, and a place that was once allocated needs no space again. It is not synced: after a loss
//! of power it may be behind the log, never ahead of it.

use super::entry::{Action, Entry};
use crate::store::AuditSecrets;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use serde::{Deserialize, Serialize};
use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc, time::Duration};

const VERSION: u32 = 1;
/// No line is longer; so much of a file's end holds a whole one.
pub(super) const LINE_MAX_BYTES: usize = 4096;
/// Before the first line.
pub(super) const START: Tip = Tip { seq: 0, mac: [0; 32] };

/// What binds a line to all before it.
pub(super) type Mac = [u8; 32];

/// A line's number and MAC: a place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tip {
    pub(super) seq: u64,
    pub(super) mac: Mac,
}

/// The keys of a log: the first signs, all verify. They are the log's own: a rotation of the
/// store's keys does not touch the log.
#[derive(Debug, Clone)]
pub struct AuditKeys(Arc<[(String, hmac::Key)]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unverified {
    KeyMissing,
    Invalid,
}

impl AuditKeys {
    pub fn new(secrets: &AuditSecrets) -> Self {
        let key = |bytes: &[u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Self(secrets.iter().map(|(id, bytes)| (id.clone(), key(bytes))).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id of the key that signs.
    pub(super) fn signing_id(&self) -> &str {
        &self.first().0
    }

    /// The key that signs, with its id.
    fn first(&self) -> &(String, hmac::Key) {
        self.0.first().expect("a log that is written has a key")
    }

    /// Checks what the key `id` signed.
    pub(super) fn verify(&self, id: &str, text: &[u8], mac: &Mac) -> Result<(), Unverified> {
        let found = self.0.iter().find(|(known, _)| known == id);
        let (_, key) = found.ok_or(Unverified::KeyMissing)?;
        hmac::verify(key, text, mac).map_err(|_| Unverified::Invalid)
    }
}

#[derive(Serialize)]
struct WrittenLine<'a> {
    v: u32,
    seq: u64,
    time: String,
    #[serde(flatten)]
    entry: &'a Entry,
    key: &'a str,
}

/// A line that was read, with what a check or a search needs: not yet known to be right.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    pub(super) seq: u64,
    pub(super) time: String,
    actor: String,
    pub(super) action: String,
    pub(super) account: Option<String>,
    pub(super) about: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) segment: Option<u64>,
    prev: Option<String>,
    pub(super) key: String,
    /// What the MAC protects, with the MAC before it.
    #[serde(skip)]
    text: &'a [u8],
    #[serde(skip)]
    mac: Mac,
}

impl<'a> Line<'a> {
    /// Takes a line, without its newline, apart; none if it is not one of ours.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let (text, mac) = split_mac(line)?;
        Some(Self { text, mac, ..serde_json::from_slice(line).ok()? })
    }

    pub(super) fn tip(&self) -> Tip {
        Tip { seq: self.seq, mac: self.mac }
    }

    /// Checks it with the key it names, as the line after `before`.
    pub(super) fn verify(&self, keys: &AuditKeys, before: Tip) -> Result<(), Unverified> {
        if self.seq != before.seq.wrapping_add(1) {
            return Err(Unverified::Invalid);
        }
        keys.verify(&self.key, &[LINE, &before.mac, self.text].concat(), &self.mac)
    }

    /// The place that the first line of a file says it follows.
    pub(super) fn follows(&self) -> Option<Tip> {
        let mac = decode_mac(self.prev.as_deref()?.as_bytes())?;
        Some(Tip { seq: self.seq.saturating_sub(1), mac })
    }

    /// Says whether it is one of the log's own `action`s.
    pub(super) fn is(&self, action: Action) -> bool {
        self.action == action.as_str() && self.actor == "audit"
    }
}

/// The length of `bytes` up to their last newline.
pub(super) fn complete_bytes(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
}

/// The lines that end in a newline, without it.
pub(super) fn complete_lines(bytes: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let complete = complete_bytes(bytes).checked_sub(1).map(|end| &bytes[..end]);
    complete.into_iter().flat_map(|bytes| bytes.split(|&byte| byte == b'\n'))
}

/// Appends the line of `entry` to `lines`.
pub(super) fn write_line(
    entry: &Entry,
    wall: Duration,
    before: Tip,
    keys: &AuditKeys,
    lines: &mut Vec<u8>,
) -> Tip {
    let seq = before.seq + 1;
    let key = keys.signing_id();
    let written = WrittenLine { v: VERSION, seq, time: rfc3339(wall), entry, key };
    let mac = finish(LINE, &before.mac, &written, keys, lines);
    lines.push(b'\n');
    Tip { seq, mac }
}

/// RFC 3339 in UTC with milliseconds.
pub fn rfc3339(wall: Duration) -> String {
    let millis = i64::try_from(wall.as_millis()).ok();
    let time = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    format!("{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
}

/// What the checkpoint's file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checkpoint {
    /// Nothing: it has just been made, or was emptied.
    Blank,
    /// The last line that was acknowledged.
    Valid(Tip),
    Invalid,
    KeyMissing,
}

#[derive(Serialize, Deserialize)]
struct CheckpointText {
    v: u32,
    seq: u64,
    last: String,
    key: String,
}

impl Checkpoint {
    pub(super) fn read(file: &File, keys: &AuditKeys) -> io::Result<Self> {
        let mut block = [0; CHECKPOINT_BYTES];
        match file.metadata()?.len() {
            0 => return Ok(Self::Blank),
            len if len != CHECKPOINT_BYTES as u64 => return Ok(Self::Invalid),
            _ => file.read_exact_at(&mut block, 0)?,
        }
        Ok(Self::of(block.trim_ascii_end(), keys))
    }

    /// That of `text`, as [`Checkpoint::text`] makes it.
    pub(super) fn of(text: &[u8], keys: &AuditKeys) -> Self {
        Self::parse(text, keys).unwrap_or(Self::Invalid)
    }

    fn parse(object: &[u8], keys: &AuditKeys) -> Option<Self> {
        let (text, mac) = split_mac(object)?;
        let said: CheckpointText = serde_json::from_slice(object).ok()?;
        let last = decode_mac(said.last.as_bytes())?;
        match keys.verify(&said.key, &[CHECKPOINT, &START.mac, text].concat(), &mac) {
            Ok(()) => Some(Self::Valid(Tip { seq: said.seq, mac: last })),
            Err(Unverified::KeyMissing) => Some(Self::KeyMissing),
            Err(Unverified::Invalid) => None,
        }
    }

    /// One JSON object that says that the log has come to `tip`.
    pub(super) fn text(tip: Tip, keys: &AuditKeys) -> String {
        let (last, key) = (BASE64.encode(tip.mac), keys.signing_id().to_owned());
        let text = CheckpointText { v: VERSION, seq: tip.seq, last, key };
        let mut object = Vec::with_capacity(CHECKPOINT_BYTES);
        finish(CHECKPOINT, &START.mac, &text, keys, &mut object);
        String::from_utf8(object).expect("JSON is text")
    }

    pub(super) fn write(file: &File, tip: Tip, keys: &AuditKeys) -> io::Result<()> {
        let mut block = Self::text(tip, keys).into_bytes();
        block.resize(CHECKPOINT_BYTES - 1, b' ');
        block.push(b'\n');
        file.write_all_at(&block, 0)
    }
}

/// Appends `object` to `out` as JSON with its MAC as the last member.
pub(super) fn finish(
    what: &[u8],
    prev: &Mac,
    object: &impl Serialize,
    keys: &AuditKeys,
    out: &mut Vec<u8>,
) -> Mac {
    let mut text = serde_json::to_vec(object).expect("texts and numbers are JSON");
    text.pop();
    let mac = hmac::sign(&keys.first().1, &[what, prev, &text].concat());
    let mac = mac.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes");
    out.extend_from_slice(&text);
    out.extend_from_slice(MAC_PREFIX);
    out.extend_from_slice(BASE64.encode(mac).as_bytes());
    out.extend_from_slice(MAC_SUFFIX);
    mac
}

/// Cuts the MAC off a JSON object that [`finish`] made.
pub(super) fn split_mac(object: &[u8]) -> Option<(&[u8], Mac)> {
    let rest = object.strip_suffix(MAC_SUFFIX)?;
    let (rest, mac) = rest.split_at_checked(rest.len().checked_sub(MAC_TEXT_BYTES)?)?;
    Some((rest.strip_suffix(MAC_PREFIX)?, decode_mac(mac)?))
}

pub(super) fn decode_mac(text: &[u8]) -> Option<Mac> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// What a MAC is about, so that a line is never taken for a checkpoint. The MAC that follows has
/// one length, so it is never taken for a part of the text.
const LINE: &[u8] = b"line";
const CHECKPOINT: &[u8] = b"head";
const MAC_PREFIX: &[u8] = b",\"mac\":\"";
const MAC_SUFFIX: &[u8] = b"\"}";
/// Base64 of 32 bytes without padding.
const MAC_TEXT_BYTES: usize = 43;
/// One sector: written whole or not at all.
const CHECKPOINT_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Actor, ActorProof, tests::keys};

    fn line(entry: &Entry, before: Tip) -> (Vec<u8>, Tip) {
        let wall = Duration::from_millis(1_795_132_800_123);
        let mut lines = Vec::new();
        let tip = write_line(entry, wall, before, &keys(&["k1"]), &mut lines);
        lines.pop();
        (lines, tip)
    }

    fn before(byte: u8) -> Tip {
        Tip { seq: 6, mac: [byte; 32] }
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
        let (line, tip) = line(&entry(), before(0));
        let expected = format!(
            r#"{{"v":1,"seq":7,"time":"2026-11-20T00:00:00.123Z","actor":"server","action":"token.refresh","account":"acme","outcome":"failed","reason":"transient","generation":3,"key":"k1","mac":"{}"}}"#,
            BASE64.encode(tip.mac)
        );
        assert_eq!(String::from_utf8(line).expect("text"), expected);
    }

    #[test]
    fn a_line_verifies_after_its_predecessor_only_and_with_its_key_only() {
        let (bytes, _) = line(&entry(), before(1));
        let line = Line::parse(&bytes).expect("a line");
        assert_eq!(line.verify(&keys(&["k0", "k1"]), before(1)), Ok(()));
        assert_eq!(line.verify(&keys(&["k1"]), before(2)), Err(Unverified::Invalid));
        assert_eq!(line.verify(&keys(&["k0"]), before(1)), Err(Unverified::KeyMissing));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (bytes, _) = line(&entry(), START);
        let keys = keys(&["k1"]);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verified = Line::parse(&changed).map(|line| line.verify(&keys, START));
            assert_ne!(verified, Some(Ok(())), "bit {bit}");
        }
    }

    #[test]
    fn the_longest_entry_fits_a_line() {
        let long = "x".repeat(64);
        let actor = Actor::admin(&long, Some(&long), ActorProof::jwt(&long, &long, Some(&long)));
        let entry = Entry::new(actor, Action::GrantReauthorizationRequired)
            .server_request_id(&long)
            .account(&long.parse().expect("an alias"))
            .request_id(&long)
            .about(&long)
            .generation(u64::MAX)
            .count(u64::MAX)
            .failed("a_rather_long_reason_code_for_a_failure_of_some_kind");
        assert!(line(&entry, START).0.len() < LINE_MAX_BYTES / 3);
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_written_by_its_key_only() {
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(Checkpoint::read(&file, &keys(&["k1"])).expect("read"), Checkpoint::Blank);
        for seq in [0, 1, u64::MAX] {
            let tip = Tip { seq, mac: [7; 32] };
            Checkpoint::write(&file, tip, &keys(&["k1"])).expect("written");
            assert_eq!(
                Checkpoint::read(&file, &keys(&["k0", "k1"])).expect("read"),
                Checkpoint::Valid(tip)
            );
            assert_eq!(
                Checkpoint::read(&file, &keys(&["k0"])).expect("read"),
                Checkpoint::KeyMissing
            );
            assert_eq!(file.metadata().expect("metadata").len(), 512);
        }
    }

    #[test]
    fn a_change_of_any_byte_of_a_checkpoint_that_says_something_is_found() {
        let file = tempfile::tempfile().expect("a file");
        Checkpoint::write(&file, Tip { seq: 12, mac: [7; 32] }, &keys(&["k1"])).expect("written");
        let mut block = [0; CHECKPOINT_BYTES];
        file.read_exact_at(&mut block, 0).expect("read");
        for at in 0..block.trim_ascii_end().len() {
            let mut changed = block;
            changed[at] ^= 1;
            file.write_all_at(&changed, 0).expect("written");
            let found = Checkpoint::read(&file, &keys(&["k1"])).expect("read");
            assert!(
                matches!(found, Checkpoint::Invalid | Checkpoint::KeyMissing),
                "byte {at}: {found:?}"
            );
        }
        file.write_all_at(&block, 0).expect("written");
        file.set_len(511).expect("cut");
        assert_eq!(Checkpoint::read(&file, &keys(&["k1"])).expect("read"), Checkpoint::Invalid);
    }
}
