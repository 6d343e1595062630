//! What is kept of a grant, and how it is written down before it is sealed.

use super::{
    Damage,
    envelope::{Plain, to_plain},
};
use crate::{
    id::{AccountId, Region},
    secret::Secret,
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

/// One account's grant and the newest access token made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Whose it is.
    pub account: AccountId,
    /// Which consent it comes from.
    pub epoch: Epoch,
    /// Which LWA application it was granted to.
    pub application: String,
    /// The account's API region.
    pub region: Region,
    /// The grant itself.
    pub refresh_token: Secret,
    /// The grant before the last rotation.
    pub previous_refresh_token: Option<Secret>,
    /// The newest access token, so that a restart needs no refresh.
    pub access_token: Option<StoredAccessToken>,
    /// The number of the access token in the account's history.
    pub generation: u64,
    /// When the advertiser consented, in seconds since 1970, if known.
    pub consented_at: Option<u64>,
    /// When this record was last changed, in seconds since 1970.
    pub updated_at: u64,
    /// The grant is dead; a person must consent again.
    pub reauthorization_required: bool,
    /// Fingerprint of the configured refresh token that this record began with.
    pub seed: Option<String>,
}

/// An access token as it is kept, with times in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAccessToken {
    /// The token.
    pub token: Secret,
    /// When it was issued.
    pub issued_at: u64,
    /// When it stops being accepted.
    pub expires_at: u64,
}

/// Identifies one consent of an account: new with each login, import or configured token,
/// kept by a refresh.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch(u64);

impl Epoch {
    /// A new one. Unique, not secret.
    pub fn random() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What is sealed of a credential: all but the account, which the seal is bound to. `T` is a text
/// that is borrowed on the way in and wiped on the way out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text<T> {
    epoch: Epoch,
    application: T,
    region: T,
    refresh_token: T,
    previous_refresh_token: Option<T>,
    access_token: Option<AccessTokenText<T>>,
    generation: u64,
    consented_at: Option<u64>,
    updated_at: u64,
    reauthorization_required: bool,
    seed: Option<T>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessTokenText<T> {
    token: T,
    issued_at: u64,
    expires_at: u64,
}

impl Credential {
    pub(super) fn to_plain(&self) -> Plain {
        let access_token = self.access_token.as_ref().map(|access| AccessTokenText {
            token: access.token.expose(),
            issued_at: access.issued_at,
            expires_at: access.expires_at,
        });
        to_plain(&Text {
            epoch: self.epoch,
            application: self.application.as_str(),
            region: self.region.as_str(),
            refresh_token: self.refresh_token.expose(),
            previous_refresh_token: self.previous_refresh_token.as_ref().map(Secret::expose),
            access_token,
            generation: self.generation,
            consented_at: self.consented_at,
            updated_at: self.updated_at,
            reauthorization_required: self.reauthorization_required,
            seed: self.seed.as_deref(),
        })
    }

    /// Reads the text that was sealed for `account`.
    pub(super) fn from_plain(account: &AccountId, plain: &Plain) -> Result<Self, Damage> {
        // The parser hands over a text without escapes as it is, with no buffer of its own.
        let text: Text<String> = serde_json::from_slice(plain).map_err(Damage::syntax)?;
        let access_token = text.access_token.map(|access| StoredAccessToken {
            token: Secret::new(access.token),
            issued_at: access.issued_at,
            expires_at: access.expires_at,
        });
        Ok(Self {
            account: account.clone(),
            epoch: text.epoch,
            application: text.application,
            refresh_token: Secret::new(text.refresh_token),
            previous_refresh_token: text.previous_refresh_token.map(Secret::new),
            access_token,
            region: text.region.parse().map_err(|_| Damage::Field("region"))?,
            generation: text.generation,
            consented_at: text.consented_at,
            updated_at: text.updated_at,
            reauthorization_required: text.reauthorization_required,
            seed: text.seed,
        })
    }
}
