//! The only writer of credentials: a grant is put, seeded, updated and forgotten here, with its entry
//! in the audit log.
//!
//! Each change is one write to the record as it was read. A write in between makes it void, and it
//! is decided on again. A new consent has a new epoch, so a refresh that began before it writes
//! nothing; the result of a refresh is an update, so a grant that was removed does not come back.

pub(crate) mod given;

use crate::{
    audit::{self, Action, Actor, Audit, Entry},
    config,
    error_chain::chain,
    id::{AccountId, Region},
    secret::Secret,
    store::{
        self, Began, Credential, Epoch, Expected, Lease, Mark, Store, StoredAccessToken,
        UnknownFields, Version, Versioned, fingerprint,
    },
};
use std::time::Duration;
use tokio::time::sleep;
use tracing::{info, warn};

/// Writes credentials. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Grants {
    store: Store,
    audit: Audit,
}

/// A consent that is new to the store.
#[derive(Clone, Debug)]
pub(crate) struct Consent {
    pub(crate) application: String,
    pub(crate) region: Region,
    pub(crate) refresh_token: Secret,
    /// Used for an account that is new.
    pub(crate) access_token: Option<StoredAccessToken>,
    /// Seconds since 1970.
    pub(crate) consented_at: Option<u64>,
    /// The configured refresh token that this consent makes void, else none.
    pub(crate) seed: Option<Secret>,
    /// It was copied by hand and may be a mistake, unlike what Amazon has just issued.
    pub(crate) is_copied: bool,
}

/// A grant that the store does not take.
#[derive(Debug)]
pub struct Unwritten {
    /// What was to be written.
    pub record: Credential,
    /// What the store holds of the account instead.
    pub stored: Option<Credential>,
    /// Why it takes nothing.
    pub error: store::Error,
}

impl Consent {
    /// That of the refresh token in the configuration, or of `refresh_token` in its place.
    fn configured(config: &config::AccountConfig, refresh_token: Secret) -> Self {
        Self {
            application: config.application.clone(),
            region: config.region,
            refresh_token,
            access_token: None,
            consented_at: None,
            seed: config.refresh_token.clone(),
            is_copied: true,
        }
    }

    /// The record of it for `account`, in the place of `existing`.
    ///
    /// A refresh token that was copied keeps the one that it replaces as its previous one, if that
    /// is alive and of the same application: nothing else has it.
    pub(crate) fn replacing(
        self,
        account: &AccountId,
        existing: Option<&Credential>,
        now_unix: u64,
    ) -> Credential {
        let previous = existing.filter(|record| {
            self.is_copied
                && record.application == self.application
                && !record.reauthorization_required
                && !record.refresh_token.is_empty()
                && record.refresh_token != self.refresh_token
        });
        let access_token = self.access_token.filter(|_| existing.is_none());
        Credential {
            account: account.clone(),
            epoch: Epoch::random(),
            application: self.application,
            region: self.region,
            previous_refresh_token: previous.map(|record| record.refresh_token.clone()),
            refresh_token: self.refresh_token,
            generation: match existing {
                Some(record) => record.generation,
                None => u64::from(access_token.is_some()),
            },
            access_token,
            consented_at: self.consented_at,
            updated_at: now_unix,
            reauthorization_required: false,
            seed: self.seed.as_ref().map(fingerprint),
            unknown: UnknownFields::default(),
        }
    }
}

impl Grants {
    /// Writes to `store` and records it in `audit`.
    pub fn new(store: Store, audit: Audit) -> Self {
        Self { store, audit }
    }

    /// What it writes to.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Puts what `decide` makes of the account's record in its place: a login, `account add`, an
    /// import. `decide` is asked again after a write in between; none: nothing is to be written.
    /// `entry` gets whether there is a record. A write that fails is tried again after each of
    /// `pauses`.
    ///
    /// # Errors
    /// That of `decide`, of the audit log (nothing is written then), or of the store.
    pub(crate) async fn put<E: From<store::Error> + From<audit::Error>>(
        &self,
        account: &AccountId,
        pauses: &[Duration],
        entry: impl FnOnce(bool) -> Entry,
        mut decide: impl FnMut(Option<&Credential>) -> Result<Option<Credential>, E>,
    ) -> Result<(), E> {
        let mut found = self.store.grant(account).await?;
        let Some(mut record) = decide(value(&found))? else { return Ok(()) };
        let entry = entry(found.is_some());
        let write = async {
            while !self.replace(&record, version(&found), pauses).await? {
                found = self.store.grant(account).await?;
                match decide(value(&found))? {
                    Some(decided) => record = decided,
                    None => break,
                }
            }
            Ok(())
        };
        self.audit.around(entry, "store_failed", write).await
    }

    /// Writes `record` if what is stored is still of `version`; says whether it was.
    async fn replace(
        &self,
        record: &Credential,
        version: Option<Version>,
        pauses: &[Duration],
    ) -> Result<bool, store::Error> {
        let mut pauses = pauses.iter();
        loop {
            match self.store.put_grant(record, expected(version)).await {
                Ok(_) => return Ok(true),
                Err(store::Error::Conflict) => return Ok(false),
                Err(error) => match pauses.next() {
                    Some(pause) => sleep(*pause).await,
                    None => return Err(error),
                },
            }
        }
    }

    /// Puts the configured refresh token in place, once: from then on the record's own value wins
    /// until the configured one changes. An account serves also if neither the store nor the audit
    /// log takes it.
    pub(crate) async fn seed(
        &self,
        account: &AccountId,
        config: &config::AccountConfig,
        seed: &Secret,
        now_unix: u64,
    ) -> Result<Result<Credential, Box<Unwritten>>, store::Error> {
        loop {
            let found = self.store.grant(account).await?;
            if let Some(Versioned { value, .. }) = &found
                && value.seed.as_ref() == Some(&fingerprint(seed))
            {
                return Ok(Ok(value.clone()));
            }
            let consent = Consent::configured(config, seed.clone());
            let mut record = consent.replacing(account, value(&found), now_unix);
            let entry = Entry::new(Actor::Server, added_or_changed(found.is_some()))
                .account(account)
                .about("configuration");
            let (entry, seeded) = match self.replace(&record, version(&found), &[]).await {
                Ok(false) => continue,
                Ok(true) => {
                    // At the first start the line about all accounts is enough.
                    if found.is_some() {
                        let account = account.as_str();
                        info!(account, "refresh token taken from the configuration");
                    }
                    (entry, Ok(record))
                }
                Err(error) => {
                    // Newer than what is stored, so that it replaces that in the end.
                    record.generation = record.generation.saturating_add(1);
                    let stored = found.map(|found| found.value);
                    (
                        entry.failed("store_failed"),
                        Err(Box::new(Unwritten { record, stored, error })),
                    )
                }
            };
            self.record(account, entry).await;
            return Ok(seeded);
        }
    }

    /// Writes the result of a refresh that `began` with a record, or with none in the store, under
    /// `lease`. The caller reports the refresh.
    ///
    /// # Errors
    /// `Conflict` if the grant was removed or replaced, or the lease is another's by now.
    pub(crate) async fn update(
        &self,
        record: &Credential,
        began: Option<Began>,
        lease: Option<&Lease>,
    ) -> Result<(), store::Error> {
        match began {
            Some(began) => self.store.update_grant(record, began, lease).await.map(drop),
            None => self.store.put_grant(record, Expected::Absent).await.map(drop),
        }
    }

    /// As [`Grants::update`], of a refresh that nothing else reports. The entry comes after it: what
    /// Amazon has issued in place of another token is kept whether it can be recorded or not.
    pub(crate) async fn update_and_record(
        &self,
        record: &Credential,
        began: Option<Began>,
        lease: Option<&Lease>,
        entry: Entry,
    ) -> Result<(), store::Error> {
        let updated = self.update(record, began, lease).await;
        let entry = if updated.is_ok() { entry } else { entry.failed("store_failed") };
        self.record(&record.account, entry).await;
        updated
    }

    /// Has servers use a record as it is that was set back behind `mark`: it becomes the newest. False
    /// if there is none, or it is newer by now.
    pub(crate) async fn accept(
        &self,
        account: &AccountId,
        mark: &Mark,
        actor: Actor,
        now_unix: u64,
    ) -> Result<bool, AcceptError> {
        let mut is_accepted = false;
        let entry = |_| Entry::new(actor, Action::AccountChange).account(account).about("restored");
        let accept = |found: Option<&Credential>| {
            let record = found.filter(|record| mark.is_ahead_of(record));
            is_accepted = record.is_some();
            Ok(record.map(|record| Credential {
                generation: record.generation.max(mark.generation).saturating_add(1),
                updated_at: now_unix.max(mark.updated_at),
                access_token: None,
                ..record.clone()
            }))
        };
        self.put::<AcceptError>(account, &[], entry, accept).await?;
        Ok(is_accepted)
    }

    /// Records what was done already.
    async fn record(&self, account: &AccountId, entry: Entry) {
        if let Err(error) = self.audit.write(entry).await {
            warn!(account = account.as_str(), error = %chain(&error), "cannot record a new grant");
        }
    }

    /// Removes the account's grant, readable or not, and before it every login and link that could
    /// bring it back. Returns what was there, if it can be opened.
    ///
    /// Where the configuration has a refresh token, `configured`, a record without any stays: it
    /// says that the configured one was used, so that no start seeds it again.
    ///
    /// # Errors
    /// `OtherStore`, with nothing changed: the grant opens again once the store has its own id back.
    /// Else that of the audit log or of the store.
    pub(crate) async fn forget<E: From<store::Error> + From<audit::Error>>(
        &self,
        account: &AccountId,
        entry: Entry,
        configured: Option<&config::AccountConfig>,
        now_unix: u64,
    ) -> Result<Option<Credential>, E> {
        let forget = async {
            if let Err(error @ store::Error::OtherStore { .. }) = self.store.grant(account).await {
                return Err(error.into());
            }
            self.store.delete_entries_of(account).await?;
            loop {
                let found = match self.store.grant(account).await {
                    Err(error) if error.is_lasting() => None,
                    found => found?,
                };
                let version = match &found {
                    Some(found) => Some(found.version),
                    None => self.store.versions().await?.get(account.as_str()),
                };
                let seeded = configured.filter(|config| config.refresh_token.is_some());
                let removed = match seeded {
                    Some(config) => {
                        let none = Consent::configured(config, "".into());
                        let spent = Credential {
                            previous_refresh_token: None,
                            reauthorization_required: true,
                            ..none.replacing(account, value(&found), now_unix)
                        };
                        self.replace(&spent, version, &[]).await
                    }
                    None => match self.store.remove_grant(account, expected(version)).await {
                        Err(store::Error::Conflict) => Ok(false),
                        removed => removed.map(|_| true),
                    },
                };
                if removed? {
                    return Ok(found.map(|found| found.value));
                }
            }
        };
        self.audit.around(entry, "store_failed", forget).await
    }
}

/// Why a record could not be accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Audit(#[from] audit::Error),
}

/// What the audit log calls a new grant.
pub(crate) fn added_or_changed(is_change: bool) -> Action {
    if is_change { Action::AccountChange } else { Action::AccountAdd }
}

fn value(found: &Option<Versioned<Credential>>) -> Option<&Credential> {
    found.as_ref().map(|found| &found.value)
}

fn version(found: &Option<Versioned<Credential>>) -> Option<Version> {
    found.as_ref().map(|found| found.version)
}

fn expected(version: Option<Version>) -> Expected {
    version.map_or(Expected::Absent, Expected::Version)
}
