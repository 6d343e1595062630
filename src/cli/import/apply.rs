//! Puts accounts into the store, several at a time, each with its audit entry.

use super::{
    plan::unknown_application,
    record::ImportEntry,
    report::{ImportOutcome, ImportRecord, Progress},
};
use crate::{
    audit::{self, Actor},
    config::{Config, DEFAULT_APPLICATION},
    grants::{Consent, Grants, added_or_changed},
    id::Region,
    secret::Secret,
    store::{Credential, fingerprint},
};
use anyhow::{Context as _, bail};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Accounts that are worked on at once: mostly they wait for the disk.
const CONCURRENCY: usize = 16;

/// What is done with a record.
#[derive(Debug)]
struct Applied {
    outcome: ImportOutcome,
    /// Clauses of the report.
    notes: Vec<&'static str>,
    region: Region,
    application: String,
    /// What is to be saved.
    record: Option<Credential>,
}

/// Decides on every record and carries it out.
#[derive(Debug)]
pub(super) struct Importer {
    pub(super) grants: Grants,
    pub(super) config: Arc<Config>,
    pub(super) replace: bool,
    pub(super) dry_run: bool,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Importer {
    /// Carries out every record that has an entry. Ends at the first change that cannot be recorded.
    pub(super) async fn apply_all(self: &Arc<Self>, records: &mut [ImportRecord]) {
        let mut work = Vec::new();
        for (index, record) in records.iter_mut().enumerate() {
            if let Some(entry) = record.entry.take() {
                "it was not done".clone_into(&mut record.note);
                work.push((index, entry));
            }
        }
        let mut progress = Progress::new(work.len());
        let mut tasks = JoinSet::new();
        let mut work = work.into_iter();
        loop {
            while tasks.len() < CONCURRENCY
                && let Some((index, entry)) = work.next()
            {
                let importer = Arc::clone(self);
                tasks.spawn(async move { (index, importer.apply(&entry).await) });
            }
            let Some(done) = tasks.join_next().await else { return };
            progress.step();
            // The record of a task that panicked says that it was not done.
            let Ok((index, applied)) = done else { continue };
            let record = &mut records[index];
            match applied {
                Ok(applied) => {
                    record.outcome = applied.outcome;
                    record.region = Some(applied.region.as_str());
                    record.application = Some(applied.application);
                    record.note = applied.notes.join(", ");
                    if applied.outcome == ImportOutcome::Differs {
                        record.note.push_str("; kept, --replace would take it");
                    }
                }
                Err(error) if error.is::<audit::Error>() => {
                    record.note = format!("not done, because it cannot be recorded: {error:#}");
                    // Every further one may wait as long for the log.
                    work = Vec::new().into_iter();
                }
                Err(error) => record.note = format!("{error:#}"),
            }
        }
    }

    /// Looks at the account in the store and changes it if that is called for.
    async fn apply(&self, entry: &ImportEntry) -> anyhow::Result<Applied> {
        if self.dry_run {
            let existing = self.grants.store().load(&entry.alias).await?;
            return self.decide(entry, existing.as_ref());
        }
        let mut applied = None;
        let decide = |existing: Option<&Credential>| {
            let decided = self.decide(entry, existing)?;
            Ok::<_, anyhow::Error>(applied.insert(decided).record.clone())
        };
        let audited = |is_change| {
            let action = added_or_changed(is_change);
            audit::Entry::new(Actor::cli(), action).account(&entry.alias).about("import")
        };
        self.grants.put(&entry.alias, &[], audited, decide).await?;
        applied.context("it was not decided on")
    }

    fn decide(
        &self,
        entry: &ImportEntry,
        existing: Option<&Credential>,
    ) -> anyhow::Result<Applied> {
        let consent = self.consent(entry, existing)?;
        let (region, application) = (consent.region, consent.application.clone());
        let applied =
            |outcome, notes, record| Ok(Applied { outcome, notes, region, application, record });
        let Some(existing) = existing else {
            let notes = match (entry.had_access_token, &entry.access_token) {
                (false, _) => vec![],
                (true, None) => vec!["without its access token, which has expired"],
                (true, Some(_)) => vec!["with its access token"],
            };
            let record = consent.replacing(&entry.alias, None, self.now);
            return applied(ImportOutcome::Added, notes, Some(record));
        };
        let is_same_grant = is_same_grant(existing, &entry.refresh_token);
        let differences = differences(existing, &consent, is_same_grant);
        let is_dead = existing.reauthorization_required;
        if differences.is_empty() && !(is_dead && self.replace) {
            let note = is_dead.then_some("its grant is dead: --replace tries it again");
            return applied(ImportOutcome::Unchanged, Vec::from_iter(note), None);
        }
        if !self.replace {
            return applied(ImportOutcome::Differs, differences, None);
        }
        let record = if is_same_grant && !is_dead {
            // In another region or application; the store may hold a newer token of it.
            let is_same_application = existing.application == consent.application;
            Credential {
                region,
                application: consent.application,
                consented_at: consent.consented_at.or(existing.consented_at),
                access_token: existing.access_token.clone().filter(|_| is_same_application),
                updated_at: self.now,
                ..existing.clone()
            }
        } else {
            consent.replacing(&entry.alias, Some(existing), self.now)
        };
        applied(ImportOutcome::Replaced, differences, Some(record))
    }

    /// The consent of `entry`, in the place of the existing one if it names none.
    fn consent(
        &self,
        entry: &ImportEntry,
        existing: Option<&Credential>,
    ) -> anyhow::Result<Consent> {
        let region = entry.region.or(existing.map(|record| record.region));
        let region = region.context("it names no region: say --region na, eu or fe")?;
        let application = entry.application.as_ref();
        let application = application.or(existing.map(|record| &record.application));
        let application = application.map_or(DEFAULT_APPLICATION, String::as_str);
        if !self.config.applications.contains_key(application) {
            bail!(unknown_application(&self.config));
        }
        // By the fingerprint a second import, and a server that is configured with the same token,
        // know that what they have is this grant, however often it was rotated since.
        let configured = self.config.accounts.get(&entry.alias);
        let seed = configured.and_then(|account| account.refresh_token.as_ref());
        Ok(Consent {
            application: application.to_owned(),
            region,
            refresh_token: entry.refresh_token.clone(),
            access_token: entry.access_token.clone(),
            consented_at: entry.consented_at,
            seed: Some(seed.unwrap_or(&entry.refresh_token).clone()),
            is_copied: true,
        })
    }
}

/// Whether `token` is the account's grant, or one that it has come from.
fn is_same_grant(existing: &Credential, token: &Secret) -> bool {
    existing.refresh_token == *token
        || existing.previous_refresh_token.as_ref() == Some(token)
        || existing.seed.as_ref().is_some_and(|seed| *seed == fingerprint(token))
}

/// What `fresh` has otherwise than the store.
fn differences(existing: &Credential, fresh: &Consent, is_same_grant: bool) -> Vec<&'static str> {
    let consented_at = fresh.consented_at;
    let found = [
        (!is_same_grant, "another refresh token"),
        (existing.region != fresh.region, "another region"),
        (existing.application != fresh.application, "another application"),
        (consented_at.is_some() && consented_at != existing.consented_at, "another day of consent"),
    ];
    found.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what).collect()
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
