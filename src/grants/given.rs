//! A grant that a person brings, by `account add` or `import`: what becomes of it, decided by the
//! process that writes it.

use super::{Consent, Grants, added_or_changed};
use crate::{
    audit::{self, Entry},
    config::{Config, DEFAULT_APPLICATION},
    id::{AccountId, Region},
    secret::{RefreshToken, Secret},
    store::{self, Credential, StoredAccessToken, fingerprint},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a person says of an account's grant. What is absent comes from the configuration, else from
/// the store.
#[derive(Clone, Debug)]
pub(crate) struct GivenGrant {
    pub(crate) refresh_token: Secret,
    /// Used for an account that is new.
    pub(crate) access_token: Option<StoredAccessToken>,
    pub(crate) region: Option<Region>,
    pub(crate) application: Option<String>,
    /// Seconds since 1970.
    pub(crate) consented_at: Option<u64>,
    pub(crate) replace: Replace,
}

/// When a grant takes the place of the one in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Replace {
    Never,
    /// Where that differs or is dead.
    Differing,
    Always,
}

/// What became of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GivenOutcome {
    Added,
    Replaced,
    /// The store has the same; it is not replaced.
    Unchanged,
    /// The store has something else, which is not replaced.
    Differs,
}

/// What is done with a grant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GivenResult {
    pub(crate) outcome: GivenOutcome,
    /// What the store has otherwise, in words.
    pub(crate) differences: String,
    /// The grant in the store is dead.
    pub(crate) is_dead: bool,
    pub(crate) region: Region,
    pub(crate) application: String,
    /// What is to be written.
    #[serde(skip)]
    record: Option<Credential>,
}

/// A grant that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GivenError {
    #[error("it names no region: say --region na, eu or fe")]
    NoRegion,
    #[error("there is no application {name:?}; configured: {known}")]
    UnknownApplication { name: String, known: String },
    #[error(
        "accounts.{0} in the configuration has another region or application, and wins; change it \
         there"
    )]
    Contradiction(AccountId),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Audit(#[from] audit::Error),
}

impl Grants {
    /// Decides on `given` and writes it if that is called for, with the entry of `recorded`.
    ///
    /// # Errors
    /// When it cannot be taken, recorded or stored; nothing is written then.
    pub(crate) async fn give(
        &self,
        config: &Config,
        account: &AccountId,
        given: &GivenGrant,
        now_unix: u64,
        recorded: impl FnOnce(audit::Action) -> Entry,
    ) -> Result<GivenResult, GivenError> {
        let mut done = None;
        let decide = |existing: Option<&Credential>| {
            let decided = given.decide(config, account, existing, now_unix)?;
            Ok::<_, GivenError>(done.insert(decided).record.clone())
        };
        self.put(account, &[], |is_change| recorded(added_or_changed(is_change)), decide).await?;
        Ok(done.expect("`put` decides at least once"))
    }
}

impl GivenGrant {
    /// For the running server, over the control socket only: with the tokens.
    pub(crate) fn to_json(&self) -> Value {
        let access_token = self.access_token.as_ref();
        json!({
            "refresh_token": self.refresh_token.expose(),
            "access_token": access_token.map(|token| token.token.expose()),
            "issued_at": access_token.map(|token| token.issued_at),
            "expires_at": access_token.map(|token| token.expires_at),
            "region": self.region,
            "application": self.application,
            "consented_at": self.consented_at,
            "replace": self.replace,
        })
    }

    /// What [`GivenGrant::to_json`] has written, by name; none if it cannot be that.
    pub(crate) fn parse(text: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let seconds = |name: &str| text(name)?.parse().ok();
        let access_token = match text("access_token") {
            None => None,
            Some(token) => Some(StoredAccessToken {
                token: Secret::new(token),
                issued_at: seconds("issued_at")?,
                expires_at: seconds("expires_at")?,
            }),
        };
        Some(Self {
            refresh_token: RefreshToken::parse(&Secret::new(text("refresh_token")?)).ok()?.secret,
            access_token,
            region: text("region").map(|region| region.parse()).transpose().ok()?,
            application: text("application"),
            consented_at: text("consented_at").map(|text| text.parse()).transpose().ok()?,
            replace: serde_json::from_value(text("replace")?.into()).ok()?,
        })
    }

    /// Decides what becomes of it beside the `existing` record.
    pub(crate) fn decide(
        &self,
        config: &Config,
        account: &AccountId,
        existing: Option<&Credential>,
        now_unix: u64,
    ) -> Result<GivenResult, GivenError> {
        let consent = self.consent(config, account, existing)?;
        let (region, application) = (consent.region, consent.application.clone());
        let is_dead = existing.is_some_and(|existing| existing.reauthorization_required);
        let decided = |outcome, differences, record| {
            Ok(GivenResult { outcome, differences, is_dead, region, application, record })
        };
        let Some(existing) = existing else {
            let record = consent.replacing(account, None, now_unix);
            return decided(GivenOutcome::Added, String::new(), Some(record));
        };
        let is_same_grant = is_same_grant(existing, &self.refresh_token);
        let differences = differences(existing, &consent, is_same_grant);
        let is_same = differences.is_empty();
        let (outcome, record) = match self.replace {
            Replace::Never if !is_same => (GivenOutcome::Differs, None),
            Replace::Never => (GivenOutcome::Unchanged, None),
            Replace::Differing if is_same && !is_dead => (GivenOutcome::Unchanged, None),
            Replace::Differing if is_same_grant && !is_dead => {
                (GivenOutcome::Replaced, Some(moved(existing, consent, now_unix)))
            }
            Replace::Differing | Replace::Always => {
                let record = consent.replacing(account, Some(existing), now_unix);
                (GivenOutcome::Replaced, Some(record))
            }
        };
        decided(outcome, differences, record)
    }

    /// The consent of it, in the place of the existing one where it names no other.
    fn consent(
        &self,
        config: &Config,
        account: &AccountId,
        existing: Option<&Credential>,
    ) -> Result<Consent, GivenError> {
        let configured = config.accounts.get(account);
        let region = self.region.or(configured.map(|known| known.region));
        let region = region.or(existing.map(|record| record.region)).ok_or(GivenError::NoRegion)?;
        let named = self.application.as_ref().or(configured.map(|known| &known.application));
        let named = named.or(existing.map(|record| &record.application));
        let application = named.map_or(DEFAULT_APPLICATION, String::as_str);
        if !config.applications.contains_key(application) {
            let known: Vec<_> = config.applications.keys().map(String::as_str).collect();
            let (name, known) = (application.to_owned(), known.join(", "));
            return Err(GivenError::UnknownApplication { name, known });
        }
        if configured
            .is_some_and(|known| known.region != region || known.application != application)
        {
            return Err(GivenError::Contradiction(account.clone()));
        }
        // By the fingerprint a second import, and a server that is configured with the same token,
        // know that what they have is this grant, however often it was rotated since.
        let seed = configured.and_then(|known| known.refresh_token.as_ref());
        Ok(Consent {
            application: application.to_owned(),
            region,
            refresh_token: self.refresh_token.clone(),
            access_token: self.access_token.clone(),
            consented_at: self.consented_at,
            seed: Some(seed.unwrap_or(&self.refresh_token).clone()),
            is_copied: self.replace != Replace::Always,
        })
    }
}

/// The existing grant in another region or application: the store may hold a newer token of it.
fn moved(existing: &Credential, consent: Consent, now_unix: u64) -> Credential {
    let is_same_application = existing.application == consent.application;
    Credential {
        region: consent.region,
        application: consent.application,
        consented_at: consent.consented_at.or(existing.consented_at),
        access_token: existing.access_token.clone().filter(|_| is_same_application),
        updated_at: now_unix,
        ..existing.clone()
    }
}

/// Whether `token` is the account's grant, or one that it has come from.
pub(crate) fn is_same_grant(existing: &Credential, token: &Secret) -> bool {
    existing.refresh_token == *token
        || existing.previous_refresh_token.as_ref() == Some(token)
        || existing.seed.as_ref().is_some_and(|seed| *seed == fingerprint(token))
}

/// What `fresh` has otherwise than the store.
fn differences(existing: &Credential, fresh: &Consent, is_same_grant: bool) -> String {
    let consented_at = fresh.consented_at;
    let found = [
        (!is_same_grant, "another refresh token"),
        (existing.region != fresh.region, "another region"),
        (existing.application != fresh.application, "another application"),
        (consented_at.is_some() && consented_at != existing.consented_at, "another day of consent"),
    ];
    let found: Vec<_> =
        found.iter().filter(|(differs, _)| *differs).map(|(_, what)| *what).collect();
    found.join(", ")
}

#[cfg(test)]
#[path = "given_tests.rs"]
mod tests;
