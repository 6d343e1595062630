//! Puts one account after the other into the store, each under its lock and with its audit entry.

use super::{
    plan::unknown_application,
    record::{Entry, Rejection},
    report::Outcome,
};
use crate::{
    audit::{self, Action, Actor, Audit},
    config::DEFAULT_APPLICATION,
    error_chain::chain,
    id::{AccountId, Region},
    secret::Secret,
    store::{Credential, CredentialStore},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// What is done with a record, and where its account is now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) outcome: Outcome,
    /// Clauses for people.
    pub(super) notes: Vec<&'static str>,
    pub(super) region: Region,
    pub(super) application: String,
    /// What is to be saved.
    record: Option<Credential>,
}

/// Decides on every record and carries it out.
#[derive(Debug)]
pub(super) struct Importer {
    pub(super) store: Arc<dyn CredentialStore>,
    pub(super) audit: Audit,
    /// Why the audit log took no entry. It is not tried again: every try may wait for long.
    pub(super) unrecorded: Mutex<Option<String>>,
    /// The configured applications' names.
    pub(super) applications: Vec<String>,
    /// The configured refresh tokens.
    pub(super) seeds: BTreeMap<AccountId, Secret>,
    pub(super) replace: bool,
    pub(super) dry_run: bool,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Importer {
    /// Looks at the account in the store and changes it if that is called for.
    ///
    /// # Errors
    /// If the account cannot be read or saved, or has no region or application.
    pub(super) async fn apply(
        &self,
        entry: &Entry,
        region: Option<Region>,
        application: Option<String>,
    ) -> Result<Applied, Rejection> {
        let store = |error| Rejection::from(chain(&error));
        // A look at a record needs no lock: it is replaced as a whole.
        let _lock = match self.dry_run {
            true => None,
            false => Some(self.store.lock(&entry.alias).await.map_err(store)?),
        };
        let existing = self.store.load(&entry.alias).await.map_err(store)?;
        let applied = self.decide(entry, region, application, existing.as_ref())?;
        if let Some(record) = applied.record.as_ref().filter(|_| !self.dry_run) {
            let action = match existing {
                None => Action::AccountAdd,
                Some(_) => Action::AccountChange,
            };
            let entry =
                audit::Entry::new(Actor::cli(), action).account(&entry.alias).about("import");
            let save = async { anyhow::Ok(self.store.save(record).await?) };
            self.unless_unrecorded(self.audit.around(entry, "store_failed", save)).await?;
        }
        Ok(applied)
    }

    /// Records from where so many changes came.
    pub(super) async fn finish(&self, source: &str, changes: usize) -> Result<(), Rejection> {
        let entry = audit::Entry::new(Actor::cli(), Action::Import).about(source);
        let entry = entry.count(changes as u64);
        self.unless_unrecorded(async { Ok(self.audit.write(entry).await?) }).await
    }

    /// What cannot be recorded is not done.
    async fn unless_unrecorded(
        &self,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> Result<(), Rejection> {
        let known = self.unrecorded.lock().clone();
        let why = match known {
            Some(why) => why,
            None => match work.await {
                Ok(()) => return Ok(()),
                Err(error) if error.is::<audit::Error>() => format!("{error:#}"),
                Err(error) => return Err(format!("{error:#}").into()),
            },
        };
        *self.unrecorded.lock() = Some(why.clone());
        Err(format!("not done, because it cannot be recorded: {why}").into())
    }

    fn decide(
        &self,
        entry: &Entry,
        region: Option<Region>,
        application: Option<String>,
        existing: Option<&Credential>,
    ) -> Result<Applied, Rejection> {
        let region = region.or(existing.map(|record| record.region));
        let region = region.ok_or("it names no region: say --region na, eu or fe")?;
        let application = application.or(existing.map(|record| record.application.clone()));
        let application = application.unwrap_or_else(|| DEFAULT_APPLICATION.to_owned());
        if !self.applications.contains(&application) {
            return Err(unknown_application(self.applications.iter()));
        }
        let fresh = self.fresh(entry, region, &application);
        let applied = |outcome, notes, record| {
            Ok(Applied { outcome, notes, region, application: application.clone(), record })
        };
        let Some(existing) = existing else {
            let note = match (entry.had_access_token, &entry.access_token) {
                (false, _) => vec![],
                (true, None) => vec!["without its access token, which has expired"],
                (true, Some(_)) => vec!["with its access token"],
            };
            return applied(Outcome::Added, note, Some(fresh));
        };
        let is_same_grant = self.is_same_grant(existing, &entry.refresh_token);
        let differences = differences(existing, &fresh, is_same_grant);
        let is_dead = existing.reauthorization_required;
        if differences.is_empty() && !(is_dead && self.replace) {
            let note = is_dead.then_some("its grant is dead: --replace tries it again");
            return applied(Outcome::Unchanged, note.into_iter().collect(), None);
        }
        if !self.replace {
            return applied(Outcome::Differs, differences, None);
        }
        let record = match is_same_grant && !is_dead {
            true => moved(existing, fresh),
            false => succeeding(existing, fresh),
        };
        applied(Outcome::Replaced, differences, Some(record))
    }

    /// Whether `token` is the account's grant, or one that it has come from.
    fn is_same_grant(&self, existing: &Credential, token: &Secret) -> bool {
        let is_seed = |seed: &String| self.store.fingerprint_matches(seed, token);
        existing.refresh_token == *token
            || existing.previous_refresh_token.as_ref() == Some(token)
            || existing.seed.as_ref().is_some_and(is_seed)
    }

    /// The record of an account that is new.
    fn fresh(&self, entry: &Entry, region: Region, application: &str) -> Credential {
        // By the fingerprint a second import, and a server that is configured with the same token,
        // know that what they have is this grant, however often it was rotated since.
        let seed = self.seeds.get(&entry.alias).unwrap_or(&entry.refresh_token);
        Credential {
            epoch: crate::store::Epoch::random(),
            account: entry.alias.clone(),
            application: application.to_owned(),
            region,
            refresh_token: entry.refresh_token.clone(),
            previous_refresh_token: None,
            access_token: entry.access_token.clone(),
            generation: u64::from(entry.access_token.is_some()),
            consented_at: entry.consented_at,
            updated_at: self.now,
            reauthorization_required: false,
            seed: Some(self.store.fingerprint(seed)),
        }
    }
}

/// What `fresh` has otherwise than the store.
fn differences(
    existing: &Credential,
    fresh: &Credential,
    is_same_grant: bool,
) -> Vec<&'static str> {
    let consented_at = fresh.consented_at;
    let found = [
        (!is_same_grant, "another refresh token"),
        (existing.region != fresh.region, "another region"),
        (existing.application != fresh.application, "another application"),
        (consented_at.is_some() && consented_at != existing.consented_at, "another day of consent"),
    ];
    found.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what).collect()
}

/// The same grant, of which the store may hold a newer token, in another place.
fn moved(existing: &Credential, fresh: Credential) -> Credential {
    let is_same_application = existing.application == fresh.application;
    Credential {
        region: fresh.region,
        application: fresh.application,
        consented_at: fresh.consented_at.or(existing.consented_at),
        access_token: existing.access_token.clone().filter(|_| is_same_application),
        updated_at: fresh.updated_at,
        ..existing.clone()
    }
}

/// The record of an account that gets another grant.
fn succeeding(existing: &Credential, fresh: Credential) -> Credential {
    // Should the imported token be the older one, the account goes on with what it had.
    let is_fallback = !existing.reauthorization_required
        && existing.application == fresh.application
        && existing.refresh_token != fresh.refresh_token;
    Credential {
        previous_refresh_token: is_fallback.then(|| existing.refresh_token.clone()),
        generation: existing.generation,
        // A running server knows by its absence that another grant was put there.
        access_token: None,
        ..fresh
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
