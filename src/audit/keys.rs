//! The keys of the log, which are its own: a rotation of the store's keys does not touch the log.

use super::Error;
use crate::store::{self, Store};
use aws_lc_rs::hmac;
use parking_lot::Mutex;
use std::{fmt, sync::Arc};

/// What binds a line to all before it.
pub(super) const MAC_BYTES: usize = 32;

/// The keys of a log: the first signs, all verify.
#[derive(Clone)]
pub struct AuditKeys(Arc<[(String, hmac::Key)]>);

/// Why a MAC is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unverified {
    /// There is no key of that id.
    KeyMissing,
    /// The key of that id did not make it.
    Refused,
}

impl AuditKeys {
    /// The keys that a store keeps for the log.
    #[must_use]
    pub fn new(secrets: &store::AuditSecrets) -> Self {
        let key = |bytes: &[u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Self(secrets.iter().map(|(id, bytes)| (id.clone(), key(bytes))).collect())
    }

    /// The id of the key that signs.
    pub(super) fn signing_id(&self) -> &str {
        &self.first().0
    }

    pub(super) fn sign(&self, text: &[u8]) -> [u8; MAC_BYTES] {
        let tag = hmac::sign(&self.first().1, text);
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Checks what `sign` made with the key `id`.
    pub(super) fn verify(
        &self,
        id: &str,
        text: &[u8],
        mac: &[u8; MAC_BYTES],
    ) -> Result<(), Unverified> {
        let found = self.0.iter().find(|(known, _)| known == id);
        let (_, key) = found.ok_or(Unverified::KeyMissing)?;
        hmac::verify(key, text, mac).map_err(|_| Unverified::Refused)
    }

    fn first(&self) -> &(String, hmac::Key) {
        self.0.first().expect("a log that is written has a key")
    }
}

impl fmt::Debug for AuditKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

/// Where the keys come from: they are made with the first entry.
#[derive(Debug)]
pub(super) struct KeySource {
    store: Option<Store>,
    keys: Mutex<Option<AuditKeys>>,
}

impl KeySource {
    pub(super) fn of_store(store: Store) -> Self {
        Self { store: Some(store), keys: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn fixed(keys: AuditKeys) -> Self {
        Self { store: None, keys: Mutex::new(Some(keys)) }
    }

    /// The keys to write with.
    pub(super) fn to_sign(&self) -> Result<AuditKeys, Error> {
        let mut keys = self.keys.lock();
        if let (None, Some(store)) = (&*keys, &self.store) {
            *keys = Some(AuditKeys::new(&store.audit_keys(true)?));
        }
        Ok(keys.clone().expect("there is a store where there are no keys"))
    }

    /// The keys to check with; none is made.
    pub(super) fn to_verify(&self) -> Result<AuditKeys, Error> {
        match &self.store {
            Some(store) => Ok(AuditKeys::new(&store.audit_keys(false)?)),
            None => self.to_sign(),
        }
    }
}
