//! Seals texts so that they open only in the place they were sealed for.
//!
//! XChaCha20-Poly1305 with a random nonce per text. A 24-byte nonce may be random: no counter has
//! to survive a crash or be shared between processes. The associated data names the place, so a
//! text moved to another account, field or key does not open. Sealing, record and fingerprint
//! keys are derived apart from each master key, which is itself not kept.

use super::Error;
use crate::{config, id::AccountId, secret::Secret};
use aws_lc_rs::{hkdf, hmac};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::AeadInOut as _};
use std::{collections::HashSet, fmt};
use zeroize::Zeroizing;

/// The version of what is sealed and how; part of the associated data.
pub(super) const FORMAT_VERSION: u64 = 1;

/// The master keys in their configured order: the first seals, all open.
#[derive(Debug)]
pub struct KeyRing(Vec<Key>);

/// The keys derived from one master key.
struct Key {
    id: String,
    // Each wipes its bytes when dropped.
    seal: XChaCha20Poly1305,
    record: hmac::Key,
    fingerprint: hmac::Key,
    audit: hmac::Key,
}

/// The one place where a sealed text opens.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whose store it is; empty as long as a store serves one owner.
    pub tenant: &'a str,
    /// Whose record it is in.
    pub account: &'a AccountId,
    /// Which field of the record.
    pub field: Field,
}

/// A sealed field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The grant.
    RefreshToken,
    /// The grant before it.
    PreviousRefreshToken,
    /// The access token with its times.
    AccessToken,
    /// A note beside the records.
    Note,
}

impl Field {
    /// Its name in a record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::PreviousRefreshToken => "previous_refresh_token",
            Self::AccessToken => "access_token",
            Self::Note => "note",
        }
    }
}

/// Why something sealed did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// The ring holds no key of that id.
    #[error("no configured key has this id")]
    KeyMissing,
    /// The key of that id refuses it: another key under the same id, or an altered record.
    #[error("the key of this id does not open it: another key, or the record was altered")]
    Refused,
}

/// Why a key ring cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The list is empty.
    #[error("no encryption key is configured: make one with `adsproxy key init`")]
    None,
    /// An id that is no id.
    #[error("a key id is 1 to 64 visible ASCII characters, unlike {0:?}")]
    Id(String),
    /// Two keys of one id.
    #[error("two keys have the id {0:?}: give each its own")]
    Duplicate(String),
    /// Not 32 bytes in base64. What it was instead is not shown.
    #[error("key {0:?} is not 32 bytes in base64: make one with `adsproxy key init`")]
    Material(String),
}

impl KeyRing {
    /// Checks the configured keys and derives what is needed from each.
    ///
    /// # Errors
    /// `Key` if there is none, an id is malformed or used twice, or a key is not 32 bytes.
    pub fn parse(encryption: &config::Encryption) -> Result<Self, Error> {
        let mut ids = HashSet::new();
        let mut keys = Vec::with_capacity(encryption.keys.len());
        for config::EncryptionKey { id, secret } in &encryption.keys {
            if !is_key_id(id) {
                return Err(KeyError::Id(id.clone()).into());
            }
            if !ids.insert(id) {
                return Err(KeyError::Duplicate(id.clone()).into());
            }
            let master = master_key(secret).ok_or_else(|| KeyError::Material(id.clone()))?;
            keys.push(Key::derive(id.clone(), &master));
        }
        if keys.is_empty() { Err(KeyError::None.into()) } else { Ok(Self(keys)) }
    }

    /// A ring of one key that nobody else has and that ends with the process.
    ///
    /// # Errors
    /// `Random`.
    pub(super) fn random(id: &str) -> Result<Self, Error> {
        let mut master = Zeroizing::new([0; MASTER_KEY_BYTES]);
        aws_lc_rs::rand::fill(&mut *master).map_err(|_| Error::Random)?;
        Ok(Self(vec![Key::derive(id.to_owned(), &master)]))
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn sealing_key_id(&self) -> &str {
        &self.first().id
    }

    /// Seals `plaintext` for `place` with the first key: base64 of nonce and ciphertext.
    ///
    /// # Errors
    /// `Random`.
    pub fn seal(&self, place: Place<'_>, plaintext: &[u8]) -> Result<String, Error> {
        let key = self.first();
        let mut sealed = vec![0; NONCE_BYTES];
        aws_lc_rs::rand::fill(&mut sealed).map_err(|_| Error::Random)?;
        let nonce = XNonce::try_from(&sealed[..]).expect("a nonce is 24 bytes");
        // Room for the tag, too: the buffer never moves and leaves no plaintext behind.
        let mut body = Vec::with_capacity(plaintext.len() + TAG_BYTES);
        body.extend_from_slice(plaintext);
        key.seal
            .encrypt_in_place(&nonce, &place.associated_data(&key.id), &mut body)
            .expect("a record is far shorter than the cipher's limit of 256 GiB");
        sealed.extend_from_slice(&body);
        Ok(STANDARD.encode(sealed))
    }

    /// Opens what `seal` made for the same place with the key `key_id`.
    ///
    /// # Errors
    /// `KeyMissing` if the ring has no such key, `Refused` for anything else.
    pub fn open(
        &self,
        place: Place<'_>,
        key_id: &str,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let key = self.find(key_id).ok_or(NotOpened::KeyMissing)?;
        let bytes = STANDARD.decode(sealed).map_err(|_| NotOpened::Refused)?;
        let (nonce, body) = bytes.split_at_checked(NONCE_BYTES).ok_or(NotOpened::Refused)?;
        let nonce = XNonce::try_from(nonce).expect("a nonce is 24 bytes");
        let mut body = Zeroizing::new(body.to_vec());
        key.seal
            .decrypt_in_place(&nonce, &place.associated_data(key_id), &mut *body)
            .map_err(|_| NotOpened::Refused)?;
        Ok(body)
    }

    /// Authenticates a whole record with the first key.
    pub(super) fn mac(&self, record: &[u8]) -> String {
        STANDARD.encode(hmac::sign(&self.first().record, record))
    }

    /// Checks what `mac` made with the key `key_id`.
    pub(super) fn verify_mac(
        &self,
        key_id: &str,
        record: &[u8],
        mac: &str,
    ) -> Result<(), NotOpened> {
        let key = self.find(key_id).ok_or(NotOpened::KeyMissing)?;
        let tag = STANDARD.decode(mac).map_err(|_| NotOpened::Refused)?;
        hmac::verify(&key.record, record, &tag).map_err(|_| NotOpened::Refused)
    }

    /// Authenticates a text of the audit log with the first key.
    #[must_use]
    pub fn audit_mac(&self, text: &[u8]) -> [u8; AUDIT_MAC_BYTES] {
        let tag = hmac::sign(&self.first().audit, text);
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Checks what `audit_mac` made with the key `key_id`.
    ///
    /// # Errors
    /// `KeyMissing` if the ring has no such key, `Refused` if the key refuses it.
    pub fn verify_audit_mac(
        &self,
        key_id: &str,
        text: &[u8],
        mac: &[u8; AUDIT_MAC_BYTES],
    ) -> Result<(), NotOpened> {
        let key = self.find(key_id).ok_or(NotOpened::KeyMissing)?;
        hmac::verify(&key.audit, text, mac).map_err(|_| NotOpened::Refused)
    }

    /// The keyed fingerprint of a secret: the first key's id, a colon, and its HMAC in base64.
    #[must_use]
    pub fn fingerprint(&self, secret: &Secret) -> String {
        let key = self.first();
        let tag = hmac::sign(&key.fingerprint, secret.expose().as_bytes());
        format!("{}:{}", key.id, STANDARD.encode(tag))
    }

    /// Says whether `stored` is a fingerprint of `secret` by any key of the ring.
    #[must_use]
    pub fn fingerprint_matches(&self, stored: &str, secret: &Secret) -> bool {
        // Base64 has no colon, a key id may have some.
        stored.rsplit_once(':').is_some_and(|(id, tag)| {
            let (Some(key), Ok(tag)) = (self.find(id), STANDARD.decode(tag)) else { return false };
            hmac::verify(&key.fingerprint, secret.expose().as_bytes(), &tag).is_ok()
        })
    }

    fn first(&self) -> &Key {
        self.0.first().expect("a key ring is never empty")
    }

    fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl Key {
    fn derive(id: String, master: &[u8; MASTER_KEY_BYTES]) -> Self {
        // No salt: the master key is uniformly random already.
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(master);
        let subkey = |purpose: &[u8]| {
            let mut bytes = Zeroizing::new([0_u8; SUBKEY_BYTES]);
            root.expand(&[b"adsproxy/v1/", purpose], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(&mut *bytes))
                .expect("32 bytes are within HKDF's range");
            bytes
        };
        let hmac_key = |purpose: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &*subkey(purpose));
        Self {
            id,
            seal: XChaCha20Poly1305::new((&*subkey(b"seal")).into()),
            record: hmac_key(b"record"),
            fingerprint: hmac_key(b"fingerprint"),
            audit: hmac_key(b"audit"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Place<'_> {
    /// Each part with its length before it, so that no two places read the same.
    fn associated_data(&self, key_id: &str) -> Vec<u8> {
        let version = FORMAT_VERSION.to_be_bytes();
        let parts: [&[u8]; 5] = [
            &version,
            self.tenant.as_bytes(),
            self.account.as_str().as_bytes(),
            self.field.as_str().as_bytes(),
            key_id.as_bytes(),
        ];
        let mut data = Vec::with_capacity(256);
        for part in parts {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part);
        }
        data
    }
}

/// Says whether `id` can name a key.
pub(super) fn is_key_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads 32 bytes of base64, with or without padding and the newline that ends a file.
fn master_key(secret: &Secret) -> Option<Zeroizing<[u8; MASTER_KEY_BYTES]>> {
    let decoded = Zeroizing::new(TOLERANT.decode(secret.expose().trim()).ok()?);
    <[u8; MASTER_KEY_BYTES]>::try_from(&decoded[..]).ok().map(Zeroizing::new)
}

const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The length of what authenticates a text of the audit log.
pub const AUDIT_MAC_BYTES: usize = 32;
const MASTER_KEY_BYTES: usize = 32;
const SUBKEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
