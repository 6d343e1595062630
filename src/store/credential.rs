//! What is kept of a grant.

use crate::{
    id::{AccountId, Region},
    secret::Secret,
};
use serde::{Deserialize, Serialize, Serializer};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// One account's grant and the newest access token made from it. Serialized to be sealed only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Not sealed: the seal is bound to it, as the record's key.
    #[serde(skip, default = "no_account")]
    pub account: AccountId,
    pub epoch: Epoch,
    /// Which LWA application it was granted to.
    pub application: String,
    pub region: Region,
    #[serde(serialize_with = "expose")]
    pub refresh_token: Secret,
    /// The grant before the last rotation.
    #[serde(serialize_with = "expose")]
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

impl Credential {
    /// This result of a refresh, where a command has moved the grant meanwhile: the record `found`
    /// in the store says its region and application. Another consent stays as it is.
    ///
    /// None if the grant was found dead in an application that it has left: nothing to write.
    pub(crate) fn moved_with(self, found: &Self) -> Option<Self> {
        if self.epoch != found.epoch {
            return Some(self);
        }
        let is_same_application = self.application == found.application;
        let is_result = is_same_application || !self.reauthorization_required;
        is_result.then(|| Self {
            application: found.application.clone(),
            region: found.region,
            consented_at: found.consented_at,
            access_token: self.access_token.filter(|_| is_same_application),
            ..self
        })
    }
}

/// Of a record that has been opened and is not yet named by its key.
fn no_account() -> AccountId {
    "unnamed".parse().expect("it is an id")
}

/// An access token as it is kept, with times in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredAccessToken {
    #[serde(serialize_with = "expose")]
    pub token: Secret,
    pub issued_at: u64,
    pub expires_at: u64,
}

/// Identifies one consent of an account: new with each login, import or configured token,
/// kept by a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch(u64);

impl Epoch {
    /// A new one. Unique, not secret.
    pub fn random() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }
}

/// Writes out a secret, or one that may be absent, for the seal.
pub(super) fn expose<'a, T, S>(secret: &'a T, serializer: S) -> Result<S::Ok, S::Error>
where
    &'a T: Into<Option<&'a Secret>>,
    S: Serializer,
{
    secret.into().map(Secret::expose).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Another text is another format: servers of the version before could not read it.
    #[test]
    fn a_credential_is_sealed_as_this_text() {
        let credential = Credential {
            account: "acme".parse().expect("an id"),
            epoch: Epoch(7),
            application: "default".to_owned(),
            region: Region::Na,
            refresh_token: Secret::from("Atzr|x"),
            previous_refresh_token: None,
            access_token: Some(StoredAccessToken {
                token: Secret::from("Atza|y"),
                issued_at: 1,
                expires_at: 2,
            }),
            generation: 3,
            consented_at: Some(4),
            updated_at: 5,
            reauthorization_required: false,
            seed: None,
        };
        let text = "{\"epoch\":7,\"application\":\"default\",\"region\":\"na\",\
                    \"refresh_token\":\"Atzr|x\",\"previous_refresh_token\":null,\
                    \"access_token\":{\"token\":\"Atza|y\",\"issued_at\":1,\"expires_at\":2},\
                    \"generation\":3,\"consented_at\":4,\"updated_at\":5,\
                    \"reauthorization_required\":false,\"seed\":null}";
        assert_eq!(serde_json::to_string(&credential).expect("JSON"), text);
        let mut read: Credential = serde_json::from_str(text).expect("a credential");
        assert_eq!(read.account.as_str(), "unnamed", "its key says whose it is");
        read.account.clone_from(&credential.account);
        assert_eq!(read, credential);
        assert!(serde_json::from_str::<Credential>(&text.replace("seed", "sead")).is_err());
    }
}
