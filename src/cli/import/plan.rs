//! Finds each account's region and application, and that no two records claim one alias.

use super::{
    record::ImportEntry,
    report::{ImportOutcome, ImportRecord},
};
use crate::{
    cli::table::configured,
    config::Config,
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
            records[index].end(ImportOutcome::Unchanged, note.unwrap_or_default());
        } else {
            colliding.extend([(first_index, entry.line), (index, other.line)]);
        }
    }
    for (index, other) in colliding {
        let line = other.map(|line| format!(" (line {line})")).unwrap_or_default();
        let why =
            format!("another record that differs has the same alias{line}: give each its own");
        records[index].end(ImportOutcome::Rejected, why);
    }
}

fn is_same(a: &ImportEntry, b: &ImportEntry) -> bool {
    a.refresh_token == b.refresh_token
        && (a.region, a.consented_at) == (b.region, b.consented_at)
        && (&a.application, &a.client_id) == (&b.application, &b.client_id)
}

/// Puts into `entry` the region and the application that the record, the flags and the
/// configuration give it together. None: that of the account in the store, else the default.
pub(super) fn resolve(
    entry: &mut ImportEntry,
    config: &Config,
    default_region: Option<Region>,
    default_application: Option<&str>,
) -> anyhow::Result<()> {
    let own = config.accounts.get(&entry.alias);
    if entry.application.as_ref().is_some_and(|name| !config.applications.contains_key(name)) {
        bail!(unknown_application(config));
    }
    let contradicts = own.is_some_and(|account| {
        entry.region.is_some_and(|region| region != account.region)
            || entry.application.as_ref().is_some_and(|name| *name != account.application)
    });
    ensure!(
        !contradicts,
        "accounts.{} in the configuration has another region or application, and wins; change it \
         there",
        entry.alias
    );
    entry.region = own.map(|account| account.region).or(entry.region).or(default_region);
    let application = own.map(|account| account.application.as_str());
    let application = application.or(entry.application.as_deref()).or(default_application);
    entry.application = match &entry.client_id {
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
