//! Opens Fernet tokens: what the legacy store keeps its secrets in.
//!
//! A token is base64url of: version 0x80, time (8 bytes), IV (16), AES-128-CBC ciphertext with
//! PKCS #7 padding, HMAC-SHA256 over all before it (32). Its age is not looked at: the legacy
//! store kept tokens for as long as they were good.
//!
//! Source: the Fernet specification (github.com/fernet/spec), read 2026-11-21. No crate: `fernet`
//! is under MPL-2.0 and brings a second set of ciphers; aws-lc-rs is here already.

use crate::secret::Secret;
use aws_lc_rs::{
    cipher::{AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey},
    hmac,
    iv::FixedLength,
};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use std::fmt;
use zeroize::Zeroizing;

/// What every token of this version begins with.
pub(super) const PREFIX: &str = "gAAAAA";

const VERSION: u8 = 0x80;
/// Version, time and IV.
const HEAD_BYTES: usize = 1 + 8 + IV_BYTES;
const IV_BYTES: usize = 16;
const BLOCK_BYTES: usize = 16;
const TAG_BYTES: usize = 32;
const HALF_KEY_BYTES: usize = 16;

/// Keys that are tried one after the other, as Python's `MultiFernet` does.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

struct Key {
    sign: hmac::Key,
    decrypt: PaddedBlockDecryptingKey,
}

/// Why a token does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("it is not base64: cut off, or not Fernet")]
    NotBase64,
    #[error("its version is not that of Fernet (0x80)")]
    Version,
    #[error("it is cut off")]
    Cut,
    #[error("no key of FERNET_KEY fits, or it was altered")]
    Refused,
    #[error("what is in it is not text")]
    NotText,
}

/// A key that is none; what it is instead is not shown.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Fernet key {number} of {of} is not 32 bytes in base64, as `Fernet.generate_key()` makes it"
)]
pub(super) struct NotAKey {
    number: usize,
    of: usize,
}

impl Keys {
    /// Reads one key, or several with commas between.
    pub(super) fn parse(text: &Secret) -> Result<Self, NotAKey> {
        let parts: Vec<&str> = text.expose().split(',').map(str::trim).collect();
        let of = parts.len();
        let keys = parts.iter().enumerate();
        keys.map(|(index, text)| Key::parse(text).ok_or(NotAKey { number: index + 1, of }))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Opens `token` with the first key that fits.
    pub(super) fn open(&self, token: &str) -> Result<Secret, Error> {
        let bytes = Zeroizing::new(URL_SAFE.decode(token).map_err(|_| Error::NotBase64)?);
        if bytes.first().is_some_and(|version| *version != VERSION) {
            return Err(Error::Version);
        }
        let (signed, tag) =
            bytes.len().checked_sub(TAG_BYTES).map(|at| bytes.split_at(at)).ok_or(Error::Cut)?;
        let (head, body) = signed.split_at_checked(HEAD_BYTES).ok_or(Error::Cut)?;
        if body.is_empty() || body.len() % BLOCK_BYTES != 0 {
            return Err(Error::Cut);
        }
        let fits = |key: &&Key| hmac::verify(&key.sign, signed, tag).is_ok();
        let key = self.0.iter().find(fits).ok_or(Error::Refused)?;
        let iv = head.last_chunk::<IV_BYTES>().expect("the head ends in the IV");
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let mut body = Zeroizing::new(body.to_vec());
        let text = key.decrypt.decrypt(&mut body, context).map_err(|_| Error::Refused)?;
        std::str::from_utf8(text).map(Secret::from).map_err(|_| Error::NotText)
    }
}

impl Key {
    fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(URL_SAFE.decode(text).ok()?);
        let (sign, cipher) = bytes.split_at_checked(HALF_KEY_BYTES)?;
        let cipher = UnboundCipherKey::new(&AES_128, cipher).ok()?;
        Some(Self {
            sign: hmac::Key::new(hmac::HMAC_SHA256, sign),
            decrypt: PaddedBlockDecryptingKey::cbc_pkcs7(cipher).ok()?,
        })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Some programs leave the padding away.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    /// `generate.json` and `verify.json` of the specification.
    const KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const TOKEN: &str = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
    const OTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn keys(text: &str) -> Keys {
        Keys::parse(&Secret::from(text)).expect("keys")
    }

    #[test]
    fn the_token_of_the_specification_opens() {
        let padless = TOKEN.trim_end_matches('=');
        for key in [KEY, &format!("{OTHER_KEY}, {KEY}"), &format!("{KEY},{OTHER_KEY}")] {
            for token in [TOKEN, padless] {
                assert_eq!(keys(key).open(token).expect("opens").expose(), "hello");
            }
        }
    }

    #[test]
    fn a_wrong_key_opens_nothing() {
        assert_eq!(keys(OTHER_KEY).open(TOKEN), Err(Error::Refused));
    }

    #[test]
    fn no_cut_and_no_flipped_bit_goes_unnoticed() {
        let keys = keys(KEY);
        for end in 0..TOKEN.trim_end_matches('=').len() {
            assert!(keys.open(&TOKEN[..end]).is_err(), "cut at {end}");
        }
        let bytes = URL_SAFE.decode(TOKEN).expect("base64");
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = keys.open(&URL_SAFE.encode(&bytes)).expect_err("altered");
            let expected = if bit < 8 { Error::Version } else { Error::Refused };
            assert_eq!(error, expected, "bit {bit}");
        }
    }

    #[test]
    fn a_signed_token_with_broken_padding_is_refused() {
        // Signed by the right key, padded with zeros, with unequal bytes, and by too many.
        for token in [
            "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD2F9vXhtlSApygZSE6tCiErPoCq6Oq_S-uXh4hkMmTGEolfTGOTCg7xKYUeRWUm5SQ==",
            "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD0A62wlCSCzl5ZSsDM3xI1oLZMtryV04ndtJu49mKhkHJ074zGSL27CahqDn_YmPkA==",
            "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0ODwh7kmpzFr4MDIdsruPvzPCUbCYPKAJdGeDkxb1DllogPa4MXzO96oiWKja6uPoY_g==",
        ] {
            assert_eq!(keys(KEY).open(token), Err(Error::Refused), "{token}");
        }
        // Nothing at all, padded rightly: Python's `cryptography` opens it, too.
        let token = "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==";
        assert_eq!(keys(KEY).open(token).expect("opens").expose(), "");
        assert_eq!(keys(KEY).open("%%%%"), Err(Error::NotBase64));
        assert_eq!(keys(KEY).open(""), Err(Error::Cut));
    }

    #[test]
    fn what_is_no_key_is_named_by_its_place_only() {
        for (text, number, of) in
            [("", 1, 1), ("CANARY", 1, 1), (&format!("{KEY},CANARY"), 2, 2), (&KEY[4..], 1, 1)]
        {
            let error = Keys::parse(&Secret::from(text)).expect_err("no key");
            assert_eq!(error, NotAKey { number, of });
            assert!(!error.to_string().contains("CANARY"));
        }
        assert!(!format!("{:?}", keys(KEY)).contains("cw_0x"));
    }
}
