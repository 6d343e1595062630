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
use zeroize::Zeroizing;

/// What every token of this version begins with.
pub(super) const PREFIX: &str = "gAAAAA";

const VERSION: u8 = 0x80;
const IV_BYTES: usize = 16;
/// Version, time and IV.
const HEAD_BYTES: usize = 1 + 8 + IV_BYTES;
const TAG_BYTES: usize = 32;
const HALF_KEY_BYTES: usize = 16;

/// Some programs leave the padding away.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const ALTERED: &str = "no key of FERNET_KEY fits, or it was altered";

/// Keys that are tried one after the other, as Python's `MultiFernet` does.
pub(super) struct FernetKeys(Vec<(hmac::Key, PaddedBlockDecryptingKey)>);

impl FernetKeys {
    /// Reads one key, or several with commas between. What is no key is named by its place only.
    pub(super) fn parse(text: &Secret) -> anyhow::Result<Self> {
        let parts: Vec<&str> = text.expose().split(',').map(str::trim).collect();
        let keys = parts.iter().zip(1..).map(|(text, number)| {
            key(text).ok_or_else(|| {
                anyhow::anyhow!(
                    "Fernet key {number} of {} is not 32 bytes in base64, as \
                     `Fernet.generate_key()` makes it",
                    parts.len()
                )
            })
        });
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    /// Opens `token` with the first key that fits; else says why it does not open.
    pub(super) fn open(&self, token: &str) -> Result<Secret, &'static str> {
        const CUT: &str = "it is cut off";
        let bytes =
            URL_SAFE.decode(token).map_err(|_| "it is not base64: cut off, or not Fernet")?;
        if bytes.first().is_some_and(|version| *version != VERSION) {
            return Err("its version is not that of Fernet (0x80)");
        }
        let tag_at = bytes.len().checked_sub(TAG_BYTES).ok_or(CUT)?;
        let (signed, tag) = bytes.split_at(tag_at);
        let (head, body) = signed.split_at_checked(HEAD_BYTES).ok_or(CUT)?;
        if body.is_empty() || body.len() % 16 != 0 {
            return Err(CUT);
        }
        let (_, cipher) = self
            .0
            .iter()
            .find(|(sign, _)| hmac::verify(sign, signed, tag).is_ok())
            .ok_or(ALTERED)?;
        let iv = head.last_chunk::<IV_BYTES>().expect("the head ends in the IV");
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let mut body = Zeroizing::new(body.to_vec());
        let text = cipher.decrypt(&mut body, context).map_err(|_| ALTERED)?;
        std::str::from_utf8(text).map(Secret::from).map_err(|_| "what is in it is not text")
    }
}

fn key(text: &str) -> Option<(hmac::Key, PaddedBlockDecryptingKey)> {
    let bytes = Zeroizing::new(URL_SAFE.decode(text).ok()?);
    let (sign, cipher) = bytes.split_at_checked(HALF_KEY_BYTES)?;
    let cipher = UnboundCipherKey::new(&AES_128, cipher).ok()?;
    let sign = hmac::Key::new(hmac::HMAC_SHA256, sign);
    Some((sign, PaddedBlockDecryptingKey::cbc_pkcs7(cipher).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `generate.json` and `verify.json` of the specification.
    const KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const TOKEN: &str = "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
    const OTHER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn keys(text: &str) -> FernetKeys {
        FernetKeys::parse(&Secret::from(text)).expect("keys")
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
        assert_eq!(keys(OTHER_KEY).open(TOKEN), Err(ALTERED));
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
            let expected = if bit < 8 { "version" } else { "altered" };
            assert!(error.contains(expected), "bit {bit}: {error}");
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
            assert_eq!(keys(KEY).open(token), Err(ALTERED), "{token}");
        }
        // Nothing at all, padded rightly: Python's `cryptography` opens it, too.
        let token = "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==";
        assert_eq!(keys(KEY).open(token).expect("opens").expose(), "");
        assert!(keys(KEY).open("%%%%").expect_err("no token").contains("base64"));
        assert!(keys(KEY).open("").expect_err("no token").contains("cut off"));
    }

    #[test]
    fn what_is_no_key_is_named_by_its_place_only() {
        for (text, number, of) in
            [("", 1, 1), ("CANARY", 1, 1), (&format!("{KEY},CANARY"), 2, 2), (&KEY[4..], 1, 1)]
        {
            let Err(error) = FernetKeys::parse(&Secret::from(text)) else { panic!("{text}") };
            let error = format!("{error:#}");
            assert!(error.starts_with(&format!("Fernet key {number} of {of}")), "{error}");
            assert!(!error.contains("CANARY"));
        }
    }
}
