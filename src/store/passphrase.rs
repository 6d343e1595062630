//! Makes a master key of a passphrase: Argon2id with a salt that is kept with what it opens.
//!
//! The recipe (salt and costs, nothing secret) lies in `keys/<id>.json` of the store, and in every
//! record that the key sealed. So no file of its own can be lost: where there is a record, there
//! is its recipe.

use super::{
    Error, file,
    record::{self, KeyUse},
    seal::{self, KeyError, MASTER_KEY_BYTES},
};
use crate::secret::Secret;
use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// How a master key is made of a passphrase.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    version: u64,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    /// Base64.
    salt: String,
    /// Tells a wrong passphrase from an altered record.
    pub(super) check: String,
}

impl Recipe {
    /// A recipe with a new salt, for `passphrase`.
    fn new(passphrase: &Secret) -> Result<Self, Error> {
        let mut salt = [0; SALT_BYTES];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| Error::Random)?;
        let salt = STANDARD.encode(salt);
        let (memory_kib, passes, lanes) = (MEMORY_KIB, PASSES, LANES);
        let check = String::new();
        let mut recipe = Self { version: 1, memory_kib, passes, lanes, salt, check };
        recipe.check = seal::check(&recipe.derive(passphrase));
        Ok(recipe)
    }

    /// Reads a recipe. Costs far from ours are refused: too low ones give the passphrase away,
    /// too high ones the machine.
    fn parse(text: &str) -> Option<Self> {
        let recipe: Self = serde_json::from_str(text).ok()?;
        let sane = recipe.version == 1
            && (MEMORY_KIB / 4..=MEMORY_KIB * 16).contains(&recipe.memory_kib)
            && (1..=64).contains(&recipe.passes)
            && (1..=16).contains(&recipe.lanes)
            && STANDARD.decode(&recipe.salt).is_ok_and(|salt| salt.len() == SALT_BYTES);
        sane.then_some(recipe)
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

/// Finds the recipe of key `id` in the store at `directory`, and its text.
///
/// # Errors
/// `Key` if there is none, or it is damaged; `Io`.
pub(super) fn find(directory: &Path, id: &str) -> Result<(Recipe, String), Error> {
    let path = path(directory, id);
    let text = match fs::read(&path) {
        Ok(text) => Some(String::from_utf8_lossy(&text).trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let damaged = || KeyError::Recipe(id.to_owned());
    if let Some(text) = &text
        && let Some(recipe) = Recipe::parse(text)
    {
        return Ok((recipe, text.clone()));
    }
    let kept = of_a_record(directory, id)?;
    let text = kept.ok_or_else(|| match text {
        Some(_) => damaged(),
        None => KeyError::NoRecipe(id.to_owned()),
    })?;
    let recipe = Recipe::parse(&text).ok_or_else(damaged)?;
    Ok((recipe, text))
}

/// The recipe that a record keeps which key `id` sealed.
fn of_a_record(directory: &Path, id: &str) -> Result<Option<String>, Error> {
    let accounts = directory.join("accounts");
    if !accounts.is_dir() {
        return Ok(None);
    }
    for account in file::list(&accounts)? {
        let text = file::read(&accounts.join(format!("{account}{}", file::RECORD_SUFFIX)))?;
        let found = text.and_then(|text| record::key_use(&account, &text).ok());
        if let Some(KeyUse { key_id, recipe: Some(recipe), .. }) = found
            && key_id == id
        {
            return Ok(Some(recipe));
        }
    }
    Ok(None)
}

/// Makes ready for key `id` to be made of `passphrase`; false if the store has its recipe already.
///
/// # Errors
/// `Io`, `Random`, or `Key` if there is one that is damaged.
pub fn prepare(directory: &Path, id: &str, passphrase: &Secret) -> Result<bool, Error> {
    match find(directory, id) {
        Err(Error::Key(KeyError::NoRecipe(_))) => {}
        found => return found.map(|_| false),
    }
    let path = path(directory, id);
    file::make_directory(path.parent().expect("it is in the directory of keys"))?;
    let recipe = serde_json::to_string(&Recipe::new(passphrase)?).expect("a recipe is plain JSON");
    file::write_new(&path, format!("{recipe}\n").as_bytes())?;
    Ok(true)
}

fn path(directory: &Path, id: &str) -> PathBuf {
    directory.join("keys").join(format!("{id}.json"))
}

/// 64 MiB: RFC 9106's second choice, for machines that have no 2 GiB to spare.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
const SALT_BYTES: usize = 16;

#[cfg(test)]
#[path = "passphrase_tests.rs"]
mod tests;
