//! The configured keys: the first seals, all open. Each is checked against what the store knows of
//! its id before anything is written.

use super::{
    Error, Space,
    backend::Backend,
    keyring,
    passphrase::{self, KdfParameters},
    random,
    seal::{self, Key, SealContext},
};
use crate::{
    config::{self, EncryptionKey, Material},
    secret::Secret,
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use zeroize::Zeroizing;

/// The master keys in their configured order: the first seals, all open.
#[derive(Debug)]
pub struct KeyRing(Vec<Key>);

/// What the store keeps of each key, in the clear, from the first time it seals.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    pub(super) check: String,
    /// How it is made of a passphrase, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kdf: Option<KdfParameters>,
}

/// Why something sealed did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NotOpened {
    #[error("no configured key has this id")]
    KeyMissing,
    #[error("the key of this id does not open it: the record was altered or moved here")]
    Altered,
}

/// Why a key ring cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("no encryption key is configured: make one with `adsproxy key init`")]
    None,
    #[error("a key id is 1 to 64 visible ASCII characters, unlike {0:?}")]
    Id(String),
    #[error("two keys have the id {0:?}: give each its own")]
    Duplicate(String),
    #[error("key {0:?} is not 32 bytes in base64: make one with `adsproxy key init`")]
    Material(String),
    #[error(
        "key {0:?} comes from a passphrase, and this store has no salt for it: make one with \
         `adsproxy key init --passphrase`, or restore keys/{0}.json (in a database: the row keys/{0}) \
         from a backup of the store"
    )]
    NoKdf(String),
    #[error(
        "keys/{0}.json in the store (in a database: the row keys/{0}) is damaged: restore it from a \
         backup"
    )]
    Damaged(String),
    #[error(
        "key {0:?} is not the key that this store knows under this id: nothing was changed; \
         configure the right key, or give a new key an id of its own"
    )]
    Wrong(String),
    #[error("the passphrase of key {0:?} is wrong: nothing was changed")]
    WrongPassphrase(String),
    #[error("key {0:?} cannot be had from the keyring of the operating system")]
    Keyring(String, #[source] keyring::Error),
}

impl KeyRing {
    /// Fetches the configured keys and checks each against what the store in `backend` knows.
    ///
    /// # Errors
    /// `Key` if there is none, an id is malformed or used twice, or a key cannot be had or is
    /// another than the store knows; `Io`.
    pub fn fetch(encryption: &config::Encryption, backend: &dyn Backend) -> Result<Self, Error> {
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
        let keys = encryption.keys.iter().map(|key| fetch(key, backend));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// A ring of one new key that is kept nowhere.
    pub fn ephemeral() -> Result<Self, Error> {
        let key = Key::derive("ephemeral".to_owned(), &*random()?, None);
        Ok(Self(vec![key]))
    }

    pub fn sealing_key_id(&self) -> &str {
        &self.first().id
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys().map(|key| key.id.as_str())
    }

    pub fn has(&self, id: &str) -> bool {
        self.ids().any(|known| known == id)
    }

    /// The first key that `accepts`; the first of all if there is none.
    pub(super) fn first_that(&self, accepts: impl Fn(&Key) -> bool) -> &Key {
        self.keys().find(|key| accepts(key)).unwrap_or(self.first())
    }

    pub fn first(&self) -> &Key {
        self.0.first().expect("a ring has a key")
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// Opens what `seal` made for the same context with the key `key_id`.
    pub fn open(
        &self,
        context: SealContext<'_>,
        key_id: &str,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let key = self.keys().find(|key| key.id == key_id);
        key.ok_or(NotOpened::KeyMissing)?.open(context, sealed)
    }
}

/// Fetches `key`, which must be the one that the store knows under its id, if it knows one.
fn fetch(key: &EncryptionKey, backend: &dyn Backend) -> Result<Key, Error> {
    let id = &key.id;
    let known = known(backend, id);
    if let Material::Passphrase(passphrase) = &key.material {
        let record = passphrase::find(backend, id, known)?;
        let kdf = record.kdf.expect("it was found");
        let key = Key::derive(id.clone(), &kdf.derive(passphrase), Some(kdf));
        let is_right = key.record.check == record.check;
        return is_right.then_some(key).ok_or(KeyError::WrongPassphrase(id.clone()).into());
    }
    let (key, known) = (Key::derive(id.clone(), &*master(key)?, None), known?);
    let is_right = known.is_none_or(|known| known.check == key.record.check);
    is_right.then_some(key).ok_or(KeyError::Wrong(id.clone()).into())
}

/// The configured master key; a passphrase is none before it has a salt, which only a store keeps.
fn master(key: &EncryptionKey) -> Result<Zeroizing<[u8; MASTER_KEY_BYTES]>, Error> {
    let id = &key.id;
    match &key.material {
        Material::Secret(secret) => decode(id, secret),
        Material::Keyring => {
            let fetched = keyring::fetch(id);
            decode(id, &fetched.map_err(|error| KeyError::Keyring(id.clone(), error))?)
        }
        Material::Passphrase(_) => Err(KeyError::NoKdf(id.clone()).into()),
    }
}

pub(super) fn known(backend: &dyn Backend, id: &str) -> Result<Option<KeyRecord>, Error> {
    match backend.read_clear(Space::Keys, id) {
        Err(Error::Damaged { .. }) => Err(KeyError::Damaged(id.to_owned()).into()),
        known => known,
    }
}

/// The keys for the audit log of a process that has no store to keep them in, one per configured
/// key.
pub(super) fn derived_audit_keys(
    encryption: &config::Encryption,
) -> Result<super::AuditSecrets, Error> {
    let keys = encryption.keys.iter();
    keys.map(|key| Ok((key.id.clone(), seal::subkey(&*master(key)?, b"audit")))).collect()
}

/// Makes a new master key: 32 random bytes, base64.
pub fn generate_key() -> Result<Secret, Error> {
    Ok(Secret::new(STANDARD.encode(*random::<MASTER_KEY_BYTES>()?)))
}

/// Reads 32 bytes of base64, with or without padding and the newline that ends a file.
fn decode(id: &str, secret: &Secret) -> Result<Zeroizing<[u8; MASTER_KEY_BYTES]>, Error> {
    let decoded = TOLERANT.decode(secret.expose().trim()).map(Zeroizing::new).ok();
    let bytes = decoded.and_then(|bytes| <[u8; MASTER_KEY_BYTES]>::try_from(&bytes[..]).ok());
    bytes.map(Zeroizing::new).ok_or_else(|| KeyError::Material(id.to_owned()).into())
}

const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn is_key_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(super) const MASTER_KEY_BYTES: usize = 32;
