//! Fetches a master key from where the configuration says it is.

use super::{
    keyring,
    passphrase::{self, Recipe},
    seal::{self, KeyError, MASTER_KEY_BYTES},
};
use crate::{
    config::{EncryptionKey, Material},
    secret::Secret,
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use std::path::Path;
use zeroize::Zeroizing;

/// A master key, wiped on drop.
pub(super) struct Master {
    pub(super) bytes: Zeroizing<[u8; MASTER_KEY_BYTES]>,
    /// How it was made of a passphrase, if it was.
    pub(super) recipe: Option<String>,
}

/// Fetches `key`; `store` is the directory that keeps the salts of passphrases. None if the
/// passphrase is not the one that the key was made with.
pub(super) fn fetch(key: &EncryptionKey, store: &Path) -> Result<Option<Master>, super::Error> {
    let secret = match &key.material {
        Material::Secret(secret) => secret.clone(),
        Material::Keyring => {
            keyring::fetch(&key.id).map_err(|error| KeyError::Keyring(key.id.clone(), error))?
        }
        Material::Passphrase(passphrase) => {
            let (recipe, text) = passphrase::find(store, &key.id)?;
            return Ok(of_passphrase(&recipe, text, passphrase));
        }
    };
    let bytes = decode(&secret).ok_or_else(|| KeyError::Material(key.id.clone()))?;
    Ok(Some(Master { bytes, recipe: None }))
}

fn of_passphrase(recipe: &Recipe, text: String, passphrase: &Secret) -> Option<Master> {
    let bytes = recipe.derive(passphrase);
    (seal::check(&bytes) == recipe.check).then_some(Master { bytes, recipe: Some(text) })
}

/// Makes a new master key: 32 random bytes, base64.
///
/// # Errors
/// `Random`.
pub fn generate() -> Result<Secret, super::Error> {
    let mut bytes = Zeroizing::new([0; MASTER_KEY_BYTES]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| super::Error::Random)?;
    Ok(Secret::new(STANDARD.encode(*bytes)))
}

/// Reads 32 bytes of base64, with or without padding and the newline that ends a file.
fn decode(secret: &Secret) -> Option<Zeroizing<[u8; MASTER_KEY_BYTES]>> {
    let decoded = Zeroizing::new(TOLERANT.decode(secret.expose().trim()).ok()?);
    <[u8; MASTER_KEY_BYTES]>::try_from(&decoded[..]).ok().map(Zeroizing::new)
}

const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
