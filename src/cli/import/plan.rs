//! Finds each account's region and application, and that no two records claim one alias.

use super::record::{Entry, Rejection};
use crate::{
    config::{Application, Config},
    id::{AccountId, Region},
    secret::Secret,
};
use std::collections::HashMap;

/// What holds for records that do not say it themselves.
pub(super) struct Defaults<'a> {
    pub(super) region: Option<Region>,
    pub(super) application: Option<&'a str>,
}

/// What is done with an account.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// None: those of the account in the store, else the default application.
    Apply {
        region: Option<Region>,
        application: Option<String>,
    },
    /// Nothing: another record is the same; its index.
    Same(usize),
    /// Nothing: no configured application has its client id.
    UnknownClient,
    Reject(Rejection),
}

/// A plan for each of `entries`, which stand at their records' indexes.
pub(super) fn plan(
    entries: &[Option<Entry>],
    config: &Config,
    defaults: &Defaults<'_>,
) -> HashMap<usize, Plan> {
    let mut first: HashMap<&AccountId, usize> = HashMap::new();
    let mut plans = HashMap::new();
    let collision = |other: &Entry| {
        let line = other.line.map(|line| format!(" (line {line})")).unwrap_or_default();
        let why =
            format!("another record that differs has the same alias{line}: give each its own");
        Plan::Reject(why.into())
    };
    for (index, entry) in entries.iter().enumerate() {
        let Some(entry) = entry else { continue };
        let other_index = *first.entry(&entry.alias).or_insert(index);
        let plan = match &entries[other_index] {
            Some(other) if other_index < index && is_same(entry, other) => Plan::Same(other_index),
            Some(other) if other_index < index => {
                // It cannot be known which one is right, so neither is taken.
                plans.insert(other_index, collision(entry));
                collision(other)
            }
            _ => settle(entry, config, defaults).unwrap_or_else(Plan::Reject),
        };
        plans.insert(index, plan);
    }
    plans
}

fn is_same(a: &Entry, b: &Entry) -> bool {
    a.refresh_token == b.refresh_token
        && (a.region, a.consented_at) == (b.region, b.consented_at)
        && (&a.application, &a.client_id) == (&b.application, &b.client_id)
}

/// Settles what the record, the flags and the configuration say together.
fn settle(entry: &Entry, config: &Config, defaults: &Defaults<'_>) -> Result<Plan, Rejection> {
    let configured = config.accounts.get(&entry.alias);
    let contradicted = || {
        let alias = &entry.alias;
        Err(format!(
            "accounts.{alias} in the configuration has another region or application, and wins; \
             change it there"
        )
        .into())
    };
    let own_region = configured.map(|account| account.region);
    if own_region.is_some() && entry.region.is_some() && own_region != entry.region {
        return contradicted();
    }
    let own = configured.map(|account| account.application.as_str());
    let application = match (entry.application.as_ref().map(Secret::expose), own) {
        (Some(said), _) if !config.applications.contains_key(said) => {
            return Err(unknown_application(config.applications.keys()));
        }
        (Some(said), Some(own)) if said != own => return contradicted(),
        (said, own) => own.or(said).or(defaults.application),
    };
    let application = match &entry.client_id {
        None => application.map(str::to_owned),
        Some(client_id) => match by_client(config, application, client_id.expose())? {
            None => return Ok(Plan::UnknownClient),
            application => application,
        },
    };
    Ok(Plan::Apply { region: own_region.or(entry.region).or(defaults.region), application })
}

/// The application that a grant of `client_id` belongs to: a grant of one must never be shown to
/// another. None if there is none.
fn by_client(
    config: &Config,
    application: Option<&str>,
    client_id: &str,
) -> Result<Option<String>, Rejection> {
    let fits = |application: &Application| application.client_id == client_id;
    if let Some(name) = application {
        return match config.applications.get(name).is_some_and(fits) {
            true => Ok(Some(name.to_owned())),
            false => Err(format!("its client id is not that of application {name:?}").into()),
        };
    }
    let mut fitting = config.applications.iter().filter(|(_, application)| fits(application));
    match (fitting.next(), fitting.next()) {
        (found, None) => Ok(found.map(|(name, _)| name.clone())),
        _ => Err("several configured applications have its client id: say which with \
                  --application NAME"
            .into()),
    }
}

/// Names the applications that there are; the one that was asked for may be anything.
pub(super) fn unknown_application<'a>(known: impl Iterator<Item = &'a String>) -> Rejection {
    let known: Vec<&str> = known.map(String::as_str).collect();
    format!("its application is not configured; configured: {}", known.join(", ")).into()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
