//! The format of a caller's key and of a session's: made, parsed, compared, shown.
//!
//! `adsk_` (a session: `adss_`), 8 characters id, 32 secret, 6 checksum, of the alphabet `0-9A-Za-z`
//! in this order. The checksum is the CRC-32 (of IEEE 802.3, as in gzip) of the 45 characters before
//! it, as a number to the base 62, its most significant digit first, padded with `0`. It tells a
//! typing error from a key that was revoked, and refuses garbage without a hash. The configuration
//! and the store know the id and the SHA-256 of all 51 characters: 190 random bits need no
//! stretching. Scanners find a key by `ads[ks]_[0-9A-Za-z]{46}`.

#![allow(missing_docs, reason = "public for the behaviour tests only")]

use crate::secret::Secret;
use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use zeroize::Zeroizing;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const PREFIX_LEN: usize = 5;
const ID_LEN: usize = 8;
const SECRET_LEN: usize = 32;
const CHECKSUM_LEN: usize = 6;
/// What the checksum is of.
const CHECKED_LEN: usize = PREFIX_LEN + ID_LEN + SECRET_LEN;
/// The length of a key, in bytes.
pub const KEY_LEN: usize = CHECKED_LEN + CHECKSUM_LEN;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// A caller of the configuration: `adsk_`.
    Caller,
    /// A session, which may do at most what its caller may and ends by itself: `adss_`.
    Session,
}

impl KeyKind {
    /// The first five characters of a key.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Caller => "adsk_",
            Self::Session => "adss_",
        }
    }

    /// The kind of key that `text` claims to be; none if it is no key of ours.
    pub fn of(text: &str) -> Option<Self> {
        [Self::Caller, Self::Session].into_iter().find(|kind| text.starts_with(kind.prefix()))
    }
}

/// The public part of a key: eight letters and digits, for configuration, logs and audit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("letters and digits")
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        let bytes: &[u8; ID_LEN] = text.as_bytes().try_into().map_err(|_| InvalidKeyId)?;
        if is_base62(bytes) { Ok(Self(*bytes)) } else { Err(InvalidKeyId) }
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidKeyId;

    fn try_from(text: String) -> Result<Self, InvalidKeyId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not the id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the id of a key is 8 letters and digits, as in adsk_<id>…")]
pub struct InvalidKeyId;

/// The SHA-256 of a key. Compared in constant time.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// 64 hexadecimal digits, for the configuration.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for KeyDigest {
    type Err = InvalidKeyDigest;

    fn from_str(text: &str) -> Result<Self, InvalidKeyDigest> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidKeyDigest);
        }
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| InvalidKeyDigest)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for KeyDigest {
    type Error = InvalidKeyDigest;

    fn try_from(text: String) -> Result<Self, InvalidKeyDigest> {
        text.parse()
    }
}

impl From<KeyDigest> for String {
    fn from(digest: KeyDigest) -> Self {
        digest.hex()
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for KeyDigest {}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[digest]")
    }
}

/// A text that is not the digest of a key. It may be the key itself, so it is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the SHA-256 of a key is 64 hexadecimal digits, as `adsproxy caller add` prints it")]
pub struct InvalidKeyDigest;

/// A well-formed key that a request brings: nothing is known of it yet but that its checksum is
/// right. Shows its kind and id only.
#[derive(Clone, Copy)]
pub struct PresentedKey<'a> {
    pub kind: KeyKind,
    pub id: KeyId,
    text: &'a str,
}

impl<'a> PresentedKey<'a> {
    /// Parses `text`, all of it.
    ///
    /// # Errors
    /// What is wrong, for the person who typed it; a response to a request must not say it.
    pub fn parse(text: &'a str) -> Result<Self, KeyFormatError> {
        let kind = KeyKind::of(text).ok_or(KeyFormatError::Prefix)?;
        if text.len() != KEY_LEN {
            return Err(KeyFormatError::Length(text.len()));
        }
        let (checked, sum) = text.as_bytes().split_at(CHECKED_LEN);
        if !is_base62(&checked[PREFIX_LEN..]) || !is_base62(sum) {
            return Err(KeyFormatError::Character);
        }
        if *sum != checksum(checked) {
            return Err(KeyFormatError::Checksum);
        }
        let id = checked[PREFIX_LEN..][..ID_LEN].try_into().expect("as long");
        Ok(Self { kind, id: KeyId(id), text })
    }

    /// The digest, to be compared with the one that is known for its id.
    pub fn digest(&self) -> KeyDigest {
        let hash = digest(&SHA256, self.text.as_bytes());
        KeyDigest(hash.as_ref().try_into().expect("as long"))
    }
}

impl fmt::Display for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind.prefix(), self.id)
    }
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a key. Says nothing of the text but its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFormatError {
    #[error("a key begins with adsk_ or adss_")]
    Prefix,
    #[error("a key has {KEY_LEN} characters, not {0}: copy all of it")]
    Length(usize),
    #[error("a key has letters and digits only behind its prefix")]
    Character,
    #[error("the checksum of the key is wrong: it was not copied as it is")]
    Checksum,
}

/// A key that was just made, to be shown once. Shows its kind and id only.
#[derive(Clone)]
pub struct NewKey {
    kind: KeyKind,
    text: Secret,
}

impl NewKey {
    /// Makes a key that cannot be guessed: 190 random bits.
    ///
    /// # Errors
    /// `NoRandomKey` if the system's random generator fails.
    pub fn generate(kind: KeyKind) -> Result<Self, NoRandomKey> {
        let mut text = Zeroizing::new(String::with_capacity(KEY_LEN));
        text.push_str(kind.prefix());
        while text.len() < CHECKED_LEN {
            let mut random = Zeroizing::new([0; 64]);
            aws_lc_rs::rand::fill(&mut *random).map_err(|_| NoRandomKey)?;
            // Bytes from 248 on would favour the first eight characters.
            let fair = random.iter().filter(|byte| **byte < 248);
            let missing = CHECKED_LEN - text.len();
            text.extend(fair.take(missing).map(|byte| digit(u32::from(*byte))));
        }
        let sum = checksum(text.as_bytes());
        text.extend(sum.map(char::from));
        Ok(Self { kind, text: Secret::new(std::mem::take(&mut *text)) })
    }

    /// The key itself. Every use of this is a place to review.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// What the configuration and the store know of it.
    pub fn presented(&self) -> PresentedKey<'_> {
        let id = self.text.expose()[PREFIX_LEN..][..ID_LEN].parse().expect("it was made so");
        PresentedKey { kind: self.kind, id, text: self.text.expose() }
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.presented(), f)
    }
}

/// The system has no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct NoRandomKey;

fn is_base62(bytes: &[u8]) -> bool {
    // All of them, so that the compiler can look at several at once.
    bytes.iter().fold(true, |is, byte| is & byte.is_ascii_alphanumeric())
}

fn digit(value: u32) -> char {
    char::from(ALPHABET[(value % 62) as usize])
}

fn checksum(checked: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32fast::hash(checked);
    let mut digits = [0; CHECKSUM_LEN];
    for place in digits.iter_mut().rev() {
        *place = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Its checksum and digest below are those of another program (Python's zlib and hashlib).
    const KEY: &str = "adsk_7Fh2kQ9x0123456789ABCDEFGHIJKLMNOPQRSTUV";

    #[test]
    fn the_checksum_is_that_of_the_description() {
        assert_eq!(checksum(b""), *b"000000");
        // CRC-32 of "123456789" is 0xCBF43926.
        assert_eq!(checksum(b"123456789"), *b"3jZRME");
        assert_eq!(KEY.len(), CHECKED_LEN);
    }

    #[test]
    fn a_key_is_parsed_and_shows_its_id_only() {
        let text = format!("{KEY}18PnYT");
        let key = PresentedKey::parse(&text).unwrap();
        assert_eq!((key.kind, key.id.as_str()), (KeyKind::Caller, "7Fh2kQ9x"));
        assert_eq!(format!("{key} {key:?} {:#?}", Some(key)).matches("adsk_7Fh2kQ9x").count(), 3);
        assert!(!format!("{key} {key:?} {:?}", key.digest()).contains("0123"));
        let hex = "5b0c2e84a388ef1c88a3301e6f99a973084baea7db6e908f2bcdeaf9cbaae718";
        assert_eq!(key.digest().hex(), hex);
        assert_eq!(hex.parse(), Ok(key.digest()));
        assert_eq!(hex.to_uppercase().parse(), Ok(key.digest()));
    }

    #[test]
    fn what_is_wrong_with_a_text_is_told_apart() {
        let good = format!("{KEY}18PnYT");
        let with = |at: usize, with: &str| {
            let mut text = good.clone();
            text.replace_range(at..=at, with);
            text
        };
        for (text, error) in [
            (String::new(), KeyFormatError::Prefix),
            (good[1..].to_owned(), KeyFormatError::Prefix),
            (format!(" {good}"), KeyFormatError::Prefix),
            (with(3, "x"), KeyFormatError::Prefix),
            (with(0, "A"), KeyFormatError::Prefix),
            ("adsk_".to_owned(), KeyFormatError::Length(5)),
            (good[..50].to_owned(), KeyFormatError::Length(50)),
            (format!("{good}0"), KeyFormatError::Length(52)),
            (with(9, "-"), KeyFormatError::Character),
            (with(50, "\n"), KeyFormatError::Character),
            // Two bytes in the place of two.
            (with(9, "ä").replacen('0', "", 1), KeyFormatError::Character),
            // A session's key is no caller's.
            (with(3, "s"), KeyFormatError::Checksum),
            (with(20, "z"), KeyFormatError::Checksum),
        ] {
            assert_eq!(PresentedKey::parse(&text).map(|_| ()), Err(error), "{text}");
            assert!(!error.to_string().contains("0123"));
        }
        for at in PREFIX_LEN..KEY_LEN {
            let other = if good.as_bytes()[at] == b'a' { "b" } else { "a" };
            assert!(PresentedKey::parse(&with(at, other)).is_err(), "a typing error at {at}");
        }
    }

    #[test]
    fn made_keys_differ_are_well_formed_and_use_the_alphabet_evenly() {
        let mut counts = BTreeMap::new();
        for round in 0..2_000 {
            let kind = if round % 2 == 0 { KeyKind::Caller } else { KeyKind::Session };
            let key = NewKey::generate(kind).unwrap();
            let parsed = PresentedKey::parse(key.expose()).unwrap();
            assert_eq!((parsed.kind, parsed.id), (kind, key.presented().id));
            assert_eq!(parsed.digest(), key.presented().digest());
            let random = key.expose()[PREFIX_LEN..CHECKED_LEN].chars();
            random.for_each(|c| *counts.entry(c).or_insert(0_u32) += 1);
            assert_eq!(format!("{key:?}").len(), PREFIX_LEN + ID_LEN);
        }
        // 80,000 characters, 1,290 of each but for chance: with a bias the first eight had 1,560.
        assert_eq!(counts.len(), 62);
        assert!(counts.values().all(|count| (1_110..1_470).contains(count)), "{counts:?}");
    }

    #[test]
    fn ids_and_digests_are_checked() {
        for text in ["", "7Fh2kQ9", "7Fh2kQ9xx", "7Fh2kQ9-", "adsk_7Fh", "äääa"] {
            assert!(text.parse::<KeyId>().is_err(), "{text}");
        }
        for text in ["", &"0".repeat(63), &"g".repeat(64), &"ä".repeat(32), &"+1".repeat(32)] {
            assert!(text.parse::<KeyDigest>().is_err(), "{text}");
        }
        assert_ne!("00".repeat(32).parse::<KeyDigest>(), Ok(KeyDigest([1; 32])));
    }
}
