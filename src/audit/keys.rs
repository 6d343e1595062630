//! The keys of the log, which are its own: a rotation of the store's keys does not touch the log.

use crate::store::AuditSecrets;
use aws_lc_rs::hmac;
use std::{fmt, sync::Arc};

/// What binds a line to all before it.
pub(super) type Mac = [u8; 32];

/// The keys of a log: the first signs, all verify.
#[derive(Clone)]
pub struct AuditKeys(Arc<[(String, hmac::Key)]>);

/// Why a MAC is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unverified {
    KeyMissing,
    Refused,
}

impl AuditKeys {
    pub fn new(secrets: &AuditSecrets) -> Self {
        let key = |bytes: &[u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Self(secrets.iter().map(|(id, bytes)| (id.clone(), key(bytes))).collect())
    }

    /// The id of the key that signs.
    pub(super) fn signing_id(&self) -> &str {
        &self.first().0
    }

    pub(super) fn sign(&self, text: &[u8]) -> Mac {
        let tag = hmac::sign(&self.first().1, text);
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Checks what `sign` made with the key `id`.
    pub(super) fn verify(&self, id: &str, text: &[u8], mac: &Mac) -> Result<(), Unverified> {
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
