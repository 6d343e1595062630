//! The text of a record: clear metadata, sealed fields, and a MAC over all of it.
//!
//! The fields are sealed one by one, each bound to its place; the MAC binds the clear fields and
//! ties the sealed ones to each other, so that neither a flipped flag nor a field from an older
//! record of the same account goes unnoticed.

use super::{
    Credential, Damage, Error, StoredAccessToken,
    seal::{FORMAT_VERSION, Field, KeyRing, NotOpened, Place, is_dated, is_key_id},
};
use crate::{id::AccountId, secret::Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Longer than any record: Login with Amazon's tokens stay below 4 KiB.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// One store serves one owner.
const TENANT: &str = "";

/// What is on disk, in this order. A field more or less is another format version.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u64,
    account: String,
    application: String,
    region: String,
    generation: u64,
    consented_at: Option<u64>,
    updated_at: u64,
    reauthorization_required: bool,
    /// Sealed, unless it is a fingerprint of the first version, made with a key.
    seed: Option<String>,
    key_id: String,
    /// How the key is made of a passphrase, if it is: without it no passphrase opens the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipe: Option<String>,
    refresh_token: String,
    previous_refresh_token: Option<String>,
    access_token: Option<String>,
    /// Over the record without it, as compact JSON.
    #[serde(skip_serializing_if = "String::is_empty")]
    mac: String,
}

/// Read before anything else: a newer format may have other fields.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

/// What is sealed in the field `access_token`.
#[derive(Serialize)]
struct AccessTokenOut<'a> {
    token: &'a str,
    issued_at: u64,
    expires_at: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessTokenIn {
    token: String,
    issued_at: u64,
    expires_at: u64,
}

/// Seals `credential` with the ring's first key.
pub(super) fn encode(credential: &Credential, ring: &KeyRing) -> Result<Vec<u8>, Error> {
    let seal = |field, text: &[u8]| {
        ring.seal(Place { tenant: TENANT, account: &credential.account, field }, text)
    };
    let previous = credential.previous_refresh_token.as_ref();
    let mut record = Record {
        version: FORMAT_VERSION,
        account: credential.account.to_string(),
        application: credential.application.clone(),
        region: credential.region.to_string(),
        generation: credential.generation,
        consented_at: credential.consented_at,
        updated_at: credential.updated_at,
        reauthorization_required: credential.reauthorization_required,
        seed: match credential.seed.as_deref() {
            Some(seed) if !is_dated(seed) => Some(seal(Field::Seed, seed.as_bytes())?),
            dated => dated.map(str::to_owned),
        },
        key_id: ring.sealing_key_id().to_owned(),
        recipe: ring.recipe().map(str::to_owned),
        refresh_token: seal(Field::RefreshToken, credential.refresh_token.expose().as_bytes())?,
        previous_refresh_token: previous
            .map(|token| seal(Field::PreviousRefreshToken, token.expose().as_bytes()))
            .transpose()?,
        access_token: credential
            .access_token
            .as_ref()
            .map(|token| seal(Field::AccessToken, &access_token_text(token)))
            .transpose()?,
        mac: String::new(),
    };
    record.mac = ring.mac(&to_json(&record));
    let mut text = serde_json::to_vec_pretty(&record).expect("a record is plain JSON");
    text.push(b'\n');
    Ok(text)
}

/// Opens the record of `account`, which must name the account itself.
///
/// # Errors
/// `Corrupt` if this is no record of the account, `Sealed` if it does not open.
pub(super) fn decode(
    account: &AccountId,
    text: &[u8],
    ring: &KeyRing,
) -> Result<Credential, Error> {
    let corrupt = |cause| Error::Corrupt { account: account.clone(), cause };
    let mut record = parse(text).map_err(corrupt)?;
    if record.account != account.as_str() {
        return Err(corrupt(Damage::OtherAccount));
    }
    if !is_key_id(&record.key_id) {
        return Err(corrupt(Damage::Field("key_id")));
    }
    let sealed =
        |cause| Error::Sealed { account: account.clone(), key_id: record.key_id.clone(), cause };
    let mac = std::mem::take(&mut record.mac);
    ring.verify_mac(&record.key_id, &to_json(&record), &mac).map_err(sealed)?;
    // From here on the record is what we wrote; what is still wrong is damage all the same.
    let open = |field, text: &str| -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        ring.open(Place { tenant: TENANT, account, field }, &record.key_id, text)
    };
    let secret = |field: Field, text: &str| {
        let bytes = open(field, text).map_err(sealed)?;
        to_secret(bytes).ok_or_else(|| corrupt(Damage::Field(field.as_str())))
    };
    let access_token = |text: &str| {
        let bytes = open(Field::AccessToken, text).map_err(sealed)?;
        to_access_token(&bytes).ok_or_else(|| corrupt(Damage::Field(Field::AccessToken.as_str())))
    };
    let fingerprint = |text: &str| match is_dated(text) {
        true => Ok(text.to_owned()),
        false => secret(Field::Seed, text).map(|seed| seed.expose().to_owned()),
    };
    let previous = record.previous_refresh_token.as_deref();
    Ok(Credential {
        account: account.clone(),
        region: record.region.parse().map_err(|_| corrupt(Damage::Field("region")))?,
        refresh_token: secret(Field::RefreshToken, &record.refresh_token)?,
        previous_refresh_token: previous
            .map(|text| secret(Field::PreviousRefreshToken, text))
            .transpose()?,
        access_token: record.access_token.as_deref().map(access_token).transpose()?,
        generation: record.generation,
        consented_at: record.consented_at,
        updated_at: record.updated_at,
        reauthorization_required: record.reauthorization_required,
        seed: record.seed.as_deref().map(fingerprint).transpose()?,
        application: record.application,
    })
}

/// What a record says of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// The key that sealed it.
    pub key_id: String,
    /// The key that a fingerprint of the first version was made with, and needs for ever.
    pub fingerprint_key_id: Option<String>,
    /// How the key is made of a passphrase, if it is.
    pub(super) recipe: Option<String>,
}

/// Reads which keys the record of `account` needs, without opening it.
///
/// # Errors
/// `Corrupt`.
pub(super) fn key_use(account: &AccountId, text: &[u8]) -> Result<KeyUse, Error> {
    let Record { key_id, seed, recipe, .. } =
        parse(text).map_err(|cause| Error::Corrupt { account: account.clone(), cause })?;
    let seed = seed.as_deref().and_then(|seed| seed.rsplit_once(':'));
    Ok(KeyUse { key_id, fingerprint_key_id: seed.map(|(id, _)| id.to_owned()), recipe })
}

fn parse(text: &[u8]) -> Result<Record, Damage> {
    if text.len() > MAX_BYTES {
        return Err(Damage::TooLong);
    }
    let syntax =
        |error: serde_json::Error| Damage::Syntax { line: error.line(), column: error.column() };
    match serde_json::from_slice::<Version>(text).map_err(syntax)?.version {
        FORMAT_VERSION => serde_json::from_slice(text).map_err(syntax),
        other => Err(Damage::Version(other)),
    }
}

fn to_json(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record is plain JSON")
}

fn access_token_text(token: &StoredAccessToken) -> Zeroizing<Vec<u8>> {
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(6 * token.token.expose().len() + 128));
    let out = AccessTokenOut {
        token: token.token.expose(),
        issued_at: token.issued_at,
        expires_at: token.expires_at,
    };
    serde_json::to_writer(&mut *text, &out).expect("an access token is plain JSON");
    text
}

fn to_access_token(text: &[u8]) -> Option<StoredAccessToken> {
    // The parser hands over a text without escapes as it is, with no buffer of its own.
    let AccessTokenIn { token, issued_at, expires_at } = serde_json::from_slice(text).ok()?;
    Some(StoredAccessToken { token: Secret::new(token), issued_at, expires_at })
}

fn to_secret(mut bytes: Zeroizing<Vec<u8>>) -> Option<Secret> {
    String::from_utf8(std::mem::take(&mut *bytes)).ok().map(Secret::new)
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
