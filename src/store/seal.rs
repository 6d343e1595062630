//! Seals texts so that they open only in the place they were sealed for.
//!
//! XChaCha20-Poly1305 with a random nonce per text. A 24-byte nonce may be random: no counter has
//! to survive a crash or be shared between processes. The associated data names the context, so a
//! text moved to another store, account, field or key does not open. The sealing key and the check
//! value are derived apart from each master key, which is itself not kept.

use super::{
    Error, Space,
    passphrase::KdfParameters,
    random,
    ring::{KeyRecord, MASTER_KEY_BYTES, NotOpened},
};
use crate::secret::Secret;
use aws_lc_rs::{hkdf, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::AeadInOut as _};
use std::fmt;
use zeroize::Zeroizing;

/// The version of what is sealed and how; part of the associated data.
pub(super) const FORMAT_VERSION: u64 = 1;

/// The keys derived from one master key.
pub struct Key {
    pub id: String,
    /// What the store keeps of it.
    pub(super) record: KeyRecord,
    // Wipes its bytes when dropped.
    seal: XChaCha20Poly1305,
}

/// What a sealed text is bound to: it opens nowhere else. It becomes the associated data.
#[derive(Debug, Clone, Copy)]
pub struct SealContext<'a> {
    pub store: &'a str,
    pub space: Space,
    /// Its key: of a grant the account id with its tenant.
    pub key: &'a str,
    pub field: &'a str,
}

impl Key {
    pub(super) fn derive(
        id: String,
        master: &[u8; MASTER_KEY_BYTES],
        kdf: Option<KdfParameters>,
    ) -> Self {
        let seal = XChaCha20Poly1305::new((&*subkey(master, b"seal")).into());
        Self { id, record: KeyRecord { check: check(master), kdf }, seal }
    }

    /// Seals `plaintext` for `context`: base64 of nonce and ciphertext.
    pub(super) fn seal(&self, context: SealContext<'_>, plaintext: &[u8]) -> Result<String, Error> {
        let nonce = XNonce::from(*random::<NONCE_BYTES>()?);
        // Room for the tag, too: the buffer never moves and leaves no plaintext behind.
        let mut body = Vec::with_capacity(plaintext.len() + TAG_BYTES);
        body.extend_from_slice(plaintext);
        self.seal
            .encrypt_in_place(&nonce, &context.associated_data(&self.id), &mut body)
            .expect("a record is far shorter than the cipher's limit of 256 GiB");
        Ok(STANDARD.encode([&nonce[..], &body].concat()))
    }

    /// Opens what `seal` made for the same context.
    pub(super) fn open(
        &self,
        context: SealContext<'_>,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let bytes = STANDARD.decode(sealed).map_err(|_| NotOpened::Altered)?;
        let (nonce, body) = bytes.split_at_checked(NONCE_BYTES).ok_or(NotOpened::Altered)?;
        let nonce = XNonce::try_from(nonce).expect("a nonce is 24 bytes");
        let mut body = Zeroizing::new(body.to_vec());
        self.seal
            .decrypt_in_place(&nonce, &context.associated_data(&self.id), &mut *body)
            .map_err(|_| NotOpened::Altered)?;
        Ok(body)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SealContext<'_> {
    /// Each part with its length before it, so that no two contexts read the same.
    fn associated_data(&self, key_id: &str) -> Vec<u8> {
        let version = FORMAT_VERSION.to_be_bytes();
        let parts: [&[u8]; 6] = [
            &version,
            self.store.as_bytes(),
            self.space.as_str().as_bytes(),
            self.key.as_bytes(),
            self.field.as_bytes(),
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

/// Compares two secrets. It has no key: the record that keeps it is sealed.
pub fn fingerprint(secret: &Secret) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"adsproxy/v1/seed");
    STANDARD.encode(hmac::sign(&key, secret.expose().as_bytes()))
}

/// The check value of a master key; it does not reveal the key.
pub(super) fn check(master: &[u8; MASTER_KEY_BYTES]) -> String {
    STANDARD.encode(&subkey(master, b"check")[..16])
}

/// A key for one purpose.
pub(super) fn subkey(
    master: &[u8; MASTER_KEY_BYTES],
    purpose: &[u8],
) -> Zeroizing<[u8; SUBKEY_BYTES]> {
    let mut bytes = Zeroizing::new([0_u8; SUBKEY_BYTES]);
    // No salt: the master key is as good as random already.
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(master)
        .expand(&[b"adsproxy/v1/", purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *bytes))
        .expect("32 bytes are within HKDF's range");
    bytes
}

const SUBKEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "vectors_tests.rs"]
mod vectors;
