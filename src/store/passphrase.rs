//! Makes a master key of a passphrase: Argon2id with a salt that is kept with what it opens.
//!
//! The parameters (salt and costs, nothing secret) lie in the store's entry of the key, and in
//! whatever the key sealed: where there is a record, there are its parameters.

use super::{
    Error, Space,
    backend::{Backend, Expected},
    random,
    record::Envelope,
    ring::{KeyError, KeyRecord, MASTER_KEY_BYTES, known},
    seal,
};
use crate::secret::Secret;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// KDF parameters of a passphrase, and the check value of the right one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KdfParameters {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    /// Base64.
    salt: String,
    /// That of the key it makes.
    check: String,
}

impl KdfParameters {
    /// Parameters with a new salt, for `passphrase`.
    fn new(passphrase: &Secret) -> Result<Self, Error> {
        let salt = STANDARD.encode(*random::<SALT_BYTES>()?);
        let (memory_kib, passes, lanes) = (MEMORY_KIB, PASSES, LANES);
        let mut made = Self { memory_kib, passes, lanes, salt, check: String::new() };
        made.check = seal::check(&made.derive(passphrase));
        Ok(made)
    }

    /// Costs far from ours are refused: too low ones give the passphrase away, too high ones the
    /// machine.
    fn are_sane(&self) -> bool {
        (MEMORY_KIB / 4..=MEMORY_KIB * 16).contains(&self.memory_kib)
            && (1..=64).contains(&self.passes)
            && (1..=16).contains(&self.lanes)
            && STANDARD.decode(&self.salt).is_ok_and(|salt| salt.len() == SALT_BYTES)
    }

    /// The master key: takes some tenths of a second and `memory_kib` of memory.
    pub(super) fn derive(&self, passphrase: &Secret) -> Zeroizing<[u8; MASTER_KEY_BYTES]> {
        let mut bytes = Zeroizing::new([0; MASTER_KEY_BYTES]);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, None);
        let params = params.expect("checked when it was read");
        let salt = STANDARD.decode(&self.salt).expect("checked when it was read");
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), &salt, &mut *bytes)
            .expect("a passphrase is shorter than 4 GiB, a salt longer than 8 bytes");
        bytes
    }
}

/// The parameters of key `id`: `known` to the store, else those that a sealed record keeps.
pub(super) fn find(
    backend: &dyn Backend,
    id: &str,
    known: Result<Option<KeyRecord>, Error>,
) -> Result<KeyRecord, Error> {
    let sane = |record: &KeyRecord| record.kdf.as_ref().is_some_and(KdfParameters::are_sane);
    match known {
        Ok(Some(record)) if sane(&record) => return Ok(record),
        Ok(_) | Err(Error::Key(KeyError::Damaged(_))) => {}
        Err(error) => return Err(error),
    }
    let is_there = !matches!(known, Ok(None));
    for listed in backend.list(Space::Accounts.as_str())? {
        let entry = backend.get(Space::Accounts.as_str(), &listed.key).ok().flatten();
        let envelope = entry.and_then(|entry| Envelope::parse(&entry.bytes).ok());
        if let Some(Envelope { key_id, kdf: Some(kdf), .. }) = envelope
            && key_id == id
            && kdf.are_sane()
        {
            return Ok(KeyRecord { check: kdf.check.clone(), kdf: Some(kdf) });
        }
    }
    match is_there {
        true => Err(KeyError::Damaged(id.to_owned()).into()),
        false => Err(KeyError::NoKdf(id.to_owned()).into()),
    }
}

/// Makes ready for key `id` to be made of `passphrase`; false if the store has its parameters
/// already.
pub(super) fn prepare(backend: &dyn Backend, id: &str, passphrase: &Secret) -> Result<bool, Error> {
    match find(backend, id, known(backend, id)) {
        Err(Error::Key(KeyError::NoKdf(_))) => {}
        found => return found.map(|_| false),
    }
    backend.prepare()?;
    let kdf = KdfParameters::new(passphrase)?;
    let record = KeyRecord { check: kdf.check.clone(), kdf: Some(kdf) };
    backend.put_clear(Space::Keys, id, &record, Expected::Absent)?;
    Ok(true)
}

/// 64 MiB: RFC 9106's second choice, for machines that have no 2 GiB to spare.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
const SALT_BYTES: usize = 16;

#[cfg(test)]
#[path = "passphrase_tests.rs"]
mod tests;
