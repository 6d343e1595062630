//! Finds each account's region and application, and that no two records claim one alias.

use super::{record::ImportEntry, report::ImportRecord};
use crate::{
    cli::table::configured,
    config::Config,
    grants::given::GivenOutcome,
    id::{AccountId, Region},
    secret::Secret,
};
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
        let Some(other) = records[first_index].entry.as_ref().filter(|_| first_index < index)
        else {
            continue;
        };
        if is_same(entry, other) {
            let note = other.line.map(|line| format!("the same as line {line}"));
            records[index].end(Some(GivenOutcome::Unchanged), note.unwrap_or_default());
        } else {
            colliding.extend([(first_index, entry.line), (index, other.line)]);
        }
    }
    for (index, other) in colliding {
        let line = other.map(|line| format!(" (line {line})")).unwrap_or_default();
        let why =
            format!("another record that differs has the same alias{line}: give each its own");
        records[index].end(None, why);
    }
}

fn is_same(a: &ImportEntry, b: &ImportEntry) -> bool {
    let (given, other) = (&a.given, &b.given);
    given.refresh_token == other.refresh_token
        && (given.region, given.consented_at) == (other.region, other.consented_at)
        && (&given.application, &a.client_id) == (&other.application, &b.client_id)
}

/// Puts into `entry` the region of a flag, and the application of a flag or its client id, where
/// neither the record nor the configuration has one.
pub(super) fn resolve(
    entry: &mut ImportEntry,
    config: &Config,
    default_region: Option<Region>,
    default_application: Option<&str>,
) -> anyhow::Result<()> {
    let given = &mut entry.given;
    if given.application.as_ref().is_some_and(|name| !config.applications.contains_key(name)) {
        bail!(unknown_application(config));
    }
    let own = config.accounts.get(&entry.alias);
    given.region = given.region.or(default_region.filter(|_| own.is_none()));
    let default = own.map(|account| account.application.as_str()).or(default_application);
    let application = given.application.as_deref().or(default);
    given.application = match &entry.client_id {
        None => application.map(str::to_owned),
        Some(client_id) => Some(of_client(config, application, client_id)?),
    };
    Ok(())
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
