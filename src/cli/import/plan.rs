//! Finds each account's region and application, and that no two records claim one alias.

use super::{
    record::{ImportEntry, RecordReader},
    report::{ImportRecord, REJECTED},
};
use crate::{cli::table::configured, config::Config, id::AccountId, secret::Secret};
use anyhow::{bail, ensure};
use std::collections::HashMap;

pub(super) const UNKNOWN_CLIENT: &str =
    "no configured application has its client id: add one, see below";

/// Leaves out a record that is there twice, and both of two that differ and have one alias: which
/// of them is right cannot be known.
pub(super) fn settle_duplicates(records: &mut [ImportRecord]) {
    let mut first: HashMap<AccountId, usize> = HashMap::new();
    let mut colliding = Vec::new();
    for index in 0..records.len() {
        let Some(entry) = &records[index].entry else { continue };
        let first_index = *first.entry(entry.alias.clone()).or_insert(index);
        let ImportRecord { line: first_line, entry: Some(other), .. } = &records[first_index]
        else {
            continue;
        };
        if first_index == index {
            continue;
        }
        if is_same(entry, other) {
            let note = first_line.map(|line| format!("the same as line {line}"));
            records[index].end("unchanged", note.unwrap_or_default());
        } else {
            colliding.extend([(first_index, records[index].line), (index, *first_line)]);
        }
    }
    for (index, other) in colliding {
        let line = other.map(|line| format!(" (line {line})")).unwrap_or_default();
        let why =
            format!("another record that differs has the same alias{line}: give each its own");
        records[index].end(REJECTED, why);
    }
}

fn is_same(a: &ImportEntry, b: &ImportEntry) -> bool {
    let (given, other) = (&a.given, &b.given);
    given.refresh_token == other.refresh_token
        && (given.region, given.consented_at) == (other.region, other.consented_at)
        && (&given.application, &a.client_id) == (&other.application, &b.client_id)
}

impl RecordReader<'_> {
    /// Resolves every record that has an entry, which those that cannot be resolved lose.
    pub(super) fn resolve_all(&self, records: &mut [ImportRecord]) {
        for record in records {
            if let Some(Err(why)) = record.entry.as_mut().map(|entry| self.resolve(entry)) {
                record.end(REJECTED, format!("{why:#}"));
            }
        }
    }

    /// Puts into `entry` the region of a flag, and the application of a flag or its client id, where
    /// neither the record nor the configuration has one.
    fn resolve(&self, entry: &mut ImportEntry) -> anyhow::Result<()> {
        let (config, given) = (self.config, &mut entry.given);
        if given.application.as_ref().is_some_and(|name| !config.applications.contains_key(name)) {
            bail!(unknown_application(config));
        }
        let own = config.accounts.get(&entry.alias);
        given.region = given.region.or(self.region.filter(|_| own.is_none()));
        let default = own.map(|account| account.application.as_str()).or(self.application);
        let application = given.application.as_deref().or(default);
        given.application = match &entry.client_id {
            None => application.map(str::to_owned),
            Some(client_id) => Some(of_client(config, application, client_id)?),
        };
        Ok(())
    }
}

/// The application that a grant of `client_id` belongs to: a grant of one must never be shown to
/// another.
fn of_client(
    config: &Config,
    application: Option<&str>,
    client_id: &Secret,
) -> anyhow::Result<String> {
    let all = config.applications.iter();
    let mut found = all.filter(|(_, known)| known.client_id == client_id.expose());
    if let Some(name) = application {
        let is_its = found.any(|(known, _)| known == name);
        ensure!(is_its, "its client id is not that of application {name:?}");
        return Ok(name.to_owned());
    }
    match (found.next(), found.next()) {
        (Some((name, _)), None) => Ok(name.clone()),
        (None, _) => bail!(UNKNOWN_CLIENT),
        _ => bail!(
            "several configured applications have its client id: say which with --application NAME"
        ),
    }
}

/// Names the applications that there are; the one that was asked for may be anything.
pub(super) fn unknown_application(config: &Config) -> String {
    format!("its application is not configured; {}", configured(config.applications.keys()))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
