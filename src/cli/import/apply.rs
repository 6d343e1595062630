//! Puts one account after the other into the store, each under its lock.

use super::{entry::AccessToken, rejection::Rejection, resolve::Plan};
use crate::{
    audit::{Action, Actor, Audit, Entry},
    config::DEFAULT_APPLICATION,
    error_chain::chain,
    id::{AccountId, Region},
    secret::Secret,
    store::{Credential, CredentialStore},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Added,
    Unchanged,
    /// The store says something else and was left as it is.
    Differs,
    Replaced,
}

impl Outcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Unchanged => "unchanged",
            Self::Differs => "differs",
            Self::Replaced => "replaced",
        }
    }
}

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

/// Writes into the audit log what is about to be changed; what cannot be written is not changed.
#[derive(Debug)]
pub(super) struct Journal {
    audit: Audit,
    actor: Actor,
    /// Why the log took no entry. It is not tried again: every try may wait for long.
    broken: Mutex<Option<String>>,
}

impl Journal {
    /// Nothing is written yet.
    pub(super) fn new(audit: Audit) -> Self {
        Self { audit, actor: Actor::cli(), broken: Mutex::new(None) }
    }

    /// Says from where so many changes came.
    pub(super) async fn done(&self, source: &str, changes: usize) -> Result<(), Rejection> {
        let entry = Entry::new(self.actor.clone(), Action::Import).about(source);
        let entry = entry.count(changes as u64);
        self.unless_broken(async { Ok(self.audit.write(entry).await?) }).await
    }

    /// Makes a change between an entry that it is about to be made and one that says how it ended.
    async fn around(
        &self,
        action: Action,
        alias: &AccountId,
        change: impl Future<Output = Result<(), Rejection>>,
    ) -> Result<(), Rejection> {
        let entry = Entry::new(self.actor.clone(), action).account(alias).about("import");
        self.unless_broken(self.audit.around(entry, "store_failed", change)).await
    }

    async fn unless_broken(
        &self,
        work: impl Future<Output = Result<(), Rejection>>,
    ) -> Result<(), Rejection> {
        if let Some(why) = &*self.broken.lock() {
            return Err(Rejection::Unrecorded(why.clone()));
        }
        let done = work.await;
        if let Err(Rejection::Unrecorded(why)) = &done {
            *self.broken.lock() = Some(why.clone());
        }
        done
    }
}

/// Decides on every record and carries it out.
#[derive(Debug)]
pub(super) struct Importer {
    pub(super) store: Arc<dyn CredentialStore>,
    pub(super) journal: Journal,
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
    /// `Rejection` if the account cannot be read or saved, or has no region or application.
    pub(super) async fn apply(&self, plan: &Plan) -> Result<Applied, Rejection> {
        let store = |error| Rejection::Store(chain(&error));
        let alias = &plan.entry.alias;
        // To look at a record needs no lock: it is replaced as a whole.
        let _lock = match self.dry_run {
            true => None,
            false => Some(self.store.lock(alias).await.map_err(store)?),
        };
        let existing = self.store.load(alias).await.map_err(store)?;
        let applied = self.decide(plan, existing.as_ref())?;
        if let Some(record) = applied.record.as_ref().filter(|_| !self.dry_run) {
            let action = match existing {
                None => Action::AccountAdd,
                Some(_) => Action::AccountChange,
            };
            let save = async { self.store.save(record).await.map_err(store) };
            self.journal.around(action, alias, save).await?;
        }
        Ok(applied)
    }

    fn decide(&self, plan: &Plan, existing: Option<&Credential>) -> Result<Applied, Rejection> {
        let region = plan.region.or(existing.map(|record| record.region));
        let region = region.ok_or(Rejection::NoRegion)?;
        let application = plan.application.clone();
        let application = application.or(existing.map(|record| record.application.clone()));
        let application = application.unwrap_or_else(|| DEFAULT_APPLICATION.to_owned());
        if !self.applications.contains(&application) {
            return Err(Rejection::UnknownApplication(self.applications.clone()));
        }
        let applied = |outcome, notes, record| Applied {
            outcome,
            notes,
            region,
            application: application.clone(),
            record,
        };
        let Some(existing) = existing else {
            let (record, note) = self.fresh(plan, region, &application);
            return Ok(applied(Outcome::Added, note.into_iter().collect(), Some(record)));
        };
        let is_same_grant = self.is_same_grant(existing, &plan.entry.refresh_token);
        let differences = differences(existing, plan, region, &application, is_same_grant);
        let is_dead = existing.reauthorization_required;
        if differences.is_empty() && !(is_dead && self.replace) {
            let note = is_dead.then_some("its grant is dead: --replace tries it again");
            return Ok(applied(Outcome::Unchanged, note.into_iter().collect(), None));
        }
        if !self.replace {
            return Ok(applied(Outcome::Differs, differences, None));
        }
        let record = if is_same_grant && !is_dead {
            moved(existing, plan, region, &application)
        } else {
            self.succeed(existing, plan, region, &application)
        };
        let record = Credential { updated_at: self.now, ..record };
        Ok(applied(Outcome::Replaced, differences, Some(record)))
    }

    /// Whether `token` is the account's grant, or one that it has come from.
    fn is_same_grant(&self, existing: &Credential, token: &Secret) -> bool {
        let is_seed = |seed: &String| self.store.fingerprint_matches(seed, token);
        existing.refresh_token == *token
            || existing.previous_refresh_token.as_ref() == Some(token)
            || existing.seed.as_ref().is_some_and(is_seed)
    }

    /// The record of an account that is new, and what became of its access token.
    fn fresh(
        &self,
        plan: &Plan,
        region: Region,
        application: &str,
    ) -> (Credential, Option<&'static str>) {
        let entry = &plan.entry;
        let (access_token, note) = match &entry.access_token {
            AccessToken::Absent => (None, None),
            AccessToken::Expired => (None, Some("without its access token, which has expired")),
            AccessToken::Valid(token) => (Some(token.clone()), Some("with its access token")),
        };
        // The fingerprint tells a second import, and a server that is configured with the same
        // token, that what they have is this grant, however often it was rotated since.
        let seed = self.seeds.get(&entry.alias).unwrap_or(&entry.refresh_token);
        let record = Credential {
            account: entry.alias.clone(),
            application: application.to_owned(),
            region,
            refresh_token: entry.refresh_token.clone(),
            previous_refresh_token: None,
            generation: u64::from(access_token.is_some()),
            access_token,
            consented_at: entry.consented_at,
            updated_at: self.now,
            reauthorization_required: false,
            seed: Some(self.store.fingerprint(seed)),
        };
        (record, note)
    }

    /// The record of an account that gets another grant.
    fn succeed(
        &self,
        existing: &Credential,
        plan: &Plan,
        region: Region,
        application: &str,
    ) -> Credential {
        let (fresh, _) = self.fresh(plan, region, application);
        // Should the imported token be the older one, the account goes on with what it had.
        let is_fallback = !existing.reauthorization_required
            && existing.application == application
            && existing.refresh_token != fresh.refresh_token;
        Credential {
            previous_refresh_token: is_fallback.then(|| existing.refresh_token.clone()),
            generation: existing.generation,
            // A running server knows by its absence that another grant was put there.
            access_token: None,
            ..fresh
        }
    }
}

/// What `plan` says otherwise than the store.
fn differences(
    existing: &Credential,
    plan: &Plan,
    region: Region,
    application: &str,
    is_same_grant: bool,
) -> Vec<&'static str> {
    let consented_at = plan.entry.consented_at;
    let found = [
        (!is_same_grant, "another refresh token"),
        (existing.region != region, "another region"),
        (existing.application != application, "another application"),
        (consented_at.is_some() && consented_at != existing.consented_at, "another day of consent"),
    ];
    found.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what).collect()
}

/// The same grant, of which the store may hold a newer token, in another place.
fn moved(existing: &Credential, plan: &Plan, region: Region, application: &str) -> Credential {
    let is_same_application = existing.application == application;
    Credential {
        region,
        application: application.to_owned(),
        consented_at: plan.entry.consented_at.or(existing.consented_at),
        access_token: existing.access_token.clone().filter(|_| is_same_application),
        ..existing.clone()
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
