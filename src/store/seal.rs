//! Seals texts so that they open only in the place they were sealed for.
//!
//! XChaCha20-Poly1305 with a random nonce per text. A 24-byte nonce may be random: no counter has
//! to survive a crash or be shared between processes. The associated data names the place, so a
//! text moved to another account, field or key does not open. Sealing, record and other keys are
//! derived apart from each master key, which is itself not kept.

use super::{
    Error, keyring,
    master::{self, Master},
    processes,
};
use crate::{config, id::AccountId, secret::Secret};
use aws_lc_rs::{hkdf, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::AeadInOut as _};
use std::{collections::HashSet, fmt, path::Path, sync::Arc};
use zeroize::Zeroizing;

/// The version of what is sealed and how; part of the associated data.
pub(super) const FORMAT_VERSION: u64 = 1;

/// The master keys in their configured order: the first seals, all open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KeyRing {
    slots: Vec<Slot>,
    /// The directory of the store, where other processes say which keys they have.
    store: Arc<Path>,
}

/// A key of the ring.
#[derive(Debug, Clone)]
enum Slot {
    Key(Arc<Key>),
    /// The id of a key whose passphrase is not the one it was made with. It opens nothing, and is
    /// never the first: nobody could open with the right one what it sealed.
    WrongPassphrase(String),
}

/// The keys derived from one master key.
struct Key {
    id: String,
    /// How the master key is made of a passphrase, if it is: kept beside whatever it seals.
    recipe: Option<String>,
    /// Says, to those who have the master key, that it is this one.
    check: String,
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
    /// The fingerprint of the configured refresh token that the record began with.
    Seed,
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
            Self::Seed => "seed",
            Self::Note => "note",
        }
    }
}

/// Why something sealed did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NotOpened {
    /// The ring holds no key of that id.
    #[error("no configured key has this id")]
    KeyMissing,
    /// The key of that id refuses it: another key under the same id, or an altered record.
    #[error("the key of this id does not open it: another key, or the record was altered")]
    Refused,
    /// The passphrase of that key is another one.
    #[error("the passphrase of this key is not the one it was made with")]
    WrongPassphrase,
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
    /// A passphrase that nothing was made ready for.
    #[error(
        "key {0:?} comes from a passphrase, and this store has no salt for it: make one with \
         `adsproxy key init --passphrase`, or restore keys/{0}.json from a backup of the store"
    )]
    NoRecipe(String),
    /// The file that says how the key is made of its passphrase is damaged.
    #[error("keys/{0}.json in the store is damaged: restore it from a backup")]
    Recipe(String),
    /// Another passphrase than the key was made with.
    #[error("the passphrase of key {0:?}, which seals, is wrong: nothing was changed")]
    WrongPassphrase(String),
    /// The keyring of the operating system.
    #[error("key {0:?} cannot be had from the keyring of the operating system")]
    Keyring(String, #[source] keyring::Error),
}

impl KeyRing {
    /// Fetches the configured keys and derives what is needed from each; `directory` is that of
    /// the store. A wrong passphrase of any key but the first is no error: what it sealed stays
    /// sealed.
    ///
    /// # Errors
    /// `Key` if there is none, an id is malformed or used twice, a key cannot be had, or the first
    /// one has a wrong passphrase: what could not be sealed again would be lost.
    pub fn fetch(encryption: &config::Encryption, directory: &Path) -> Result<Self, Error> {
        let mut ids = HashSet::new();
        for config::EncryptionKey { id, .. } in &encryption.keys {
            if !is_key_id(id) {
                return Err(KeyError::Id(id.clone()).into());
            }
            if !ids.insert(id) {
                return Err(KeyError::Duplicate(id.clone()).into());
            }
        }
        if encryption.keys.is_empty() {
            return Err(KeyError::None.into());
        }
        let mut slots = Vec::with_capacity(encryption.keys.len());
        for key in &encryption.keys {
            slots.push(match master::fetch(key, directory)? {
                Some(master) => Slot::Key(Arc::new(Key::derive(key.id.clone(), &master))),
                None if slots.is_empty() => {
                    return Err(KeyError::WrongPassphrase(key.id.clone()).into());
                }
                None => Slot::WrongPassphrase(key.id.clone()),
            });
        }
        Ok(Self { slots, store: directory.into() })
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn sealing_key_id(&self) -> &str {
        &self.first().id
    }

    /// The ids of all keys, in their order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(|slot| match slot {
            Slot::Key(key) => key.id.as_str(),
            Slot::WrongPassphrase(id) => id.as_str(),
        })
    }

    /// Why key `id` opens nothing; none if it is there and its passphrase, if any, is right.
    #[must_use]
    pub fn lacks(&self, id: &str) -> Option<NotOpened> {
        self.find(id).err()
    }

    /// The ids of the keys that can be used, each with a text that tells the key from others.
    pub(super) fn checks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys().map(|key| (key.id.as_str(), key.check.as_str()))
    }

    /// The id and check of the key that seals.
    #[must_use]
    pub fn sealing_check(&self) -> (&str, &str) {
        let key = self.first();
        (&key.id, &key.check)
    }

    /// The ring with the first key in front that every running process of the store has: whatever
    /// one of them writes, the others can read.
    #[must_use]
    pub fn agreed(&self) -> Self {
        processes::common(&self.store, self)
    }

    /// The ring with the first key that `accepts` (an id and its check) in front; as it is if
    /// there is none.
    pub(super) fn led_by(&self, accepts: impl Fn(&str, &str) -> bool) -> Self {
        let mut ring = self.clone();
        let found = ring
            .slots
            .iter()
            .position(|slot| matches!(slot, Slot::Key(key) if accepts(&key.id, &key.check)));
        if let Some(found) = found {
            let first = ring.slots.remove(found);
            ring.slots.insert(0, first);
        }
        ring
    }

    /// How the key that seals is made of a passphrase, if it is.
    pub(super) fn recipe(&self) -> Option<&str> {
        self.first().recipe.as_deref()
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
        let key = self.find(key_id)?;
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
        let key = self.find(key_id)?;
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
        let key = self.find(key_id)?;
        hmac::verify(&key.audit, text, mac).map_err(|_| NotOpened::Refused)
    }

    /// Says whether `stored` is a fingerprint of `secret` as the first version made them: with a
    /// key of the ring, whose id stands before a colon.
    pub(super) fn dated_fingerprint_matches(&self, stored: &str, secret: &Secret) -> bool {
        // Base64 has no colon, a key id may have some.
        stored.rsplit_once(':').is_some_and(|(id, tag)| {
            let (Ok(key), Ok(tag)) = (self.find(id), STANDARD.decode(tag)) else { return false };
            hmac::verify(&key.fingerprint, secret.expose().as_bytes(), &tag).is_ok()
        })
    }

    fn first(&self) -> &Key {
        self.keys().next().expect("the first key can be used")
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Key(key) => Some(&**key),
            Slot::WrongPassphrase(_) => None,
        })
    }

    fn find(&self, id: &str) -> Result<&Key, NotOpened> {
        let known = || self.ids().any(|known| known == id);
        let missing = || if known() { NotOpened::WrongPassphrase } else { NotOpened::KeyMissing };
        self.keys().find(|key| key.id == id).ok_or_else(missing)
    }
}

/// Tells whether two secrets are the same. It is not keyed: it is kept sealed, so that it lasts
/// as long as its record, whichever key seals that.
pub(super) fn fingerprint(secret: &Secret) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"adsproxy/v1/seed");
    STANDARD.encode(hmac::sign(&key, secret.expose().as_bytes()))
}

/// Says whether `fingerprint` is one of the first version's, made with a key of the ring.
pub(super) fn is_dated(fingerprint: &str) -> bool {
    fingerprint.contains(':')
}

/// A fingerprint as the first version made it with the key `id`.
#[cfg(test)]
pub(super) fn dated_fingerprint(master: &[u8; 32], id: &str, secret: &Secret) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*subkey(master, b"fingerprint"));
    format!("{id}:{}", STANDARD.encode(hmac::sign(&key, secret.expose().as_bytes())))
}

/// Tells a master key from all others, to those who have it.
pub(super) fn check(master: &[u8; MASTER_KEY_BYTES]) -> String {
    STANDARD.encode(&subkey(master, b"check")[..16])
}

fn subkey(master: &[u8; MASTER_KEY_BYTES], purpose: &[u8]) -> Zeroizing<[u8; SUBKEY_BYTES]> {
    let mut bytes = Zeroizing::new([0_u8; SUBKEY_BYTES]);
    // No salt: the master key is as good as random already.
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(master)
        .expand(&[b"adsproxy/v1/", purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *bytes))
        .expect("32 bytes are within HKDF's range");
    bytes
}

impl Key {
    fn derive(id: String, Master { bytes, recipe }: &Master) -> Self {
        let hmac_key = |purpose: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, &*subkey(bytes, purpose));
        Self {
            id,
            recipe: recipe.clone(),
            check: check(bytes),
            seal: XChaCha20Poly1305::new((&*subkey(bytes, b"seal")).into()),
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

/// The length of what authenticates a text of the audit log.
pub const AUDIT_MAC_BYTES: usize = 32;
/// The size of a master key.
pub(super) const MASTER_KEY_BYTES: usize = 32;
const SUBKEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "vectors_tests.rs"]
mod vectors;
