//! From where on a chain in a database is there: a text beside it, authenticated with a key of the log,
//! which says through which line the older ones were removed as configured.
//!
//! It is written before the lines go, and says what it followed: lines that a kill between the two has
//! left are as they were written, or found.

use super::chain::{AuditKeys, START, Tip, Unverified, decode_mac, finish, split_mac};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use serde::{Deserialize, Serialize};

/// What a note says of the lines that were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChainStart {
    /// The last line that an earlier removal has removed.
    pub(super) from: Tip,
    /// The last line that was removed, or is about to be.
    pub(super) to: Tip,
    /// Whether it is the last of the chain: nothing is left, and nothing follows.
    pub(super) is_closed: bool,
}

/// What is found beside a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundStart {
    Valid(ChainStart),
    Invalid,
    KeyMissing,
}

#[derive(Serialize, Deserialize)]
struct StartText {
    v: u32,
    chain: String,
    from: u64,
    from_last: String,
    seq: u64,
    last: String,
    closed: bool,
    key: String,
}

impl ChainStart {
    /// Of a chain of which nothing was removed.
    pub(super) const WHOLE: Self = Self { from: START, to: START, is_closed: false };

    /// One JSON object that says so of `chain`.
    pub(super) fn text(&self, chain: &str, keys: &AuditKeys) -> String {
        let Self { from, to, is_closed } = *self;
        let text = StartText {
            v: 1,
            chain: chain.to_owned(),
            from: from.seq,
            from_last: BASE64.encode(from.mac),
            seq: to.seq,
            last: BASE64.encode(to.mac),
            closed: is_closed,
            key: keys.signing_id().to_owned(),
        };
        let mut object = Vec::new();
        finish(WHAT, &START.mac, &text, keys, &mut object);
        String::from_utf8(object).expect("JSON is text")
    }
}

impl FoundStart {
    /// What `text` says, if it is about `chain`.
    pub(super) fn of(text: &str, chain: &str, keys: &AuditKeys) -> Self {
        Self::parse(text.as_bytes(), chain, keys).unwrap_or(Self::Invalid)
    }

    fn parse(object: &[u8], chain: &str, keys: &AuditKeys) -> Option<Self> {
        let (text, mac) = split_mac(object)?;
        let said: StartText = serde_json::from_slice(object).ok()?;
        let tip = |seq, last: &str| Some(Tip { seq, mac: decode_mac(last.as_bytes())? });
        let (from, to) = (tip(said.from, &said.from_last)?, tip(said.seq, &said.last)?);
        match keys.verify(&said.key, &[WHAT, &START.mac, text].concat(), &mac) {
            Ok(()) if said.chain == chain => {
                Some(Self::Valid(ChainStart { from, to, is_closed: said.closed }))
            }
            Err(Unverified::KeyMissing) => Some(Self::KeyMissing),
            Ok(()) | Err(Unverified::Invalid) => None,
        }
    }
}

/// What the MAC is about: as in `chain`.
const WHAT: &[u8] = b"start";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::keys;

    #[test]
    fn a_start_says_what_was_removed_of_its_chain_and_no_byte_of_it_can_be_changed() {
        let tip = |seq, byte| Tip { seq, mac: [byte; 32] };
        let start = ChainStart { from: tip(3, 1), to: tip(9, 2), is_closed: true };
        let text = start.text("a", &keys(&["k1"]));
        let found = |text: &str, ids: &[&str]| FoundStart::of(text, "a", &keys(ids));
        assert_eq!(found(&text, &["k0", "k1"]), FoundStart::Valid(start));
        assert_eq!(found(&text, &["k0"]), FoundStart::KeyMissing);
        assert_eq!(FoundStart::of(&text, "b", &keys(&["k1"])), FoundStart::Invalid);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else { continue };
            assert!(!matches!(found(&changed, &["k1"]), FoundStart::Valid(_)), "{changed}");
        }
    }
}
