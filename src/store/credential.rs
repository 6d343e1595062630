//! What is kept of a grant.

use super::unknown::UnknownFields;
use crate::{
    id::{AccountId, Region},
    secret::Secret,
};
use serde::{Deserialize, Serialize, Serializer};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// One account's grant and the newest access token made from it. Serialized to be sealed only.
///
/// A version may add fields without another format: what others do not know they keep, as long as the
/// consent is the same. They must be able to do without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl Credential {
    /// Whether a refresh of this consent has brought the refresh token that it was made with, and none
    /// another, as far as the record says: the first token of a consent may be of no refresh.
    pub(crate) fn is_known_steady(&self) -> bool {
        self.access_token.is_some() && self.generation > 1 && self.has_one_refresh_token()
    }

    /// Whether the grant is alive and has never had another refresh token.
    pub(crate) fn has_one_refresh_token(&self) -> bool {
        self.previous_refresh_token.is_none() && !self.reauthorization_required
    }

    /// This result of a refresh, where a command has moved the grant meanwhile: the record `found`
    /// in the store says its region and application, and what this version does not know. Another
    /// consent stays as it is.
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
            unknown: found.unknown.clone(),
            ..self
        })
    }
}

/// Of a record that has been opened and is not yet named by its key.
fn no_account() -> AccountId {
    "unnamed".parse().expect("it is an id")
}

/// An access token as it is kept, with times in seconds since 1970. Fields that this version does not
/// know go when the record is written: the token soon does, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAccessToken {
    #[serde(serialize_with = "expose")]
    pub token: Secret,
    pub issued_at: u64,
    pub expires_at: u64,
}

/// Which consent of an account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsentId {
    pub epoch: Epoch,
    /// In seconds since 1970; none: of a configured or an imported grant.
    pub consented_at: Option<u64>,
}

impl ConsentId {
    pub fn of(record: &Credential) -> Self {
        Self { epoch: record.epoch, consented_at: record.consented_at }
    }
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
            unknown: UnknownFields::default(),
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
    }

    #[test]
    fn fields_of_a_newer_version_are_kept_as_they_are_and_shown_nowhere() {
        let text = "{\"epoch\":7,\"application\":\"default\",\"region\":\"na\",\
                    \"refresh_token\":\"Atzr|x\",\"previous_refresh_token\":null,\
                    \"access_token\":{\"token\":\"Atza|y\",\"issued_at\":1,\"expires_at\":2},\
                    \"generation\":3,\"consented_at\":null,\"updated_at\":5,\
                    \"reauthorization_required\":false,\"seed\":null,\
                    \"label\":\"CANARY\",\"limits\":{\"a\":[1,18446744073709551615,0.5]}}";
        let mut read: Credential = serde_json::from_str(text).expect("a credential");
        assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
        assert!(format!("{read:?}").contains("unknown: 2 fields"));
        assert!(!format!("{read:?}").contains("CANARY"));
        read.generation = 4;
        let text = text.replace("\"generation\":3", "\"generation\":4");
        assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
        // What is known must be what it is.
        for wrong in [text.replace("\"epoch\":7,", ""), text.replace("\"na\"", "\"xx\"")] {
            assert!(serde_json::from_str::<Credential>(&wrong).is_err());
        }
        let newer_token = text.replace("\"expires_at\":2", "\"expires_at\":2,\"scope\":\"s\"");
        serde_json::from_str::<Credential>(&newer_token).expect("a credential");
    }
}
