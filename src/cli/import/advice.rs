//! What is left to do by hand after an import. Holds neither client ids nor secrets, only where they
//! are.

use super::{
    plan::UNKNOWN_CLIENT,
    record::{ImportEntry, looks_secret},
    report::ImportRecord,
    source::Source,
};
use crate::{
    config::{Config, DEFAULT_APPLICATION},
    id::Region,
};
use std::collections::{BTreeMap, BTreeSet};

/// Names that are shown.
const NAMES_MAX: usize = 20;
const SCOPE: &str = "Amazon-Advertising-API-Scope";

/// The notes and the tables of the report.
pub(super) fn advice(
    config: &Config,
    source: &Source,
    records: &[ImportRecord],
) -> (Vec<String>, Vec<String>) {
    let mut by_client: BTreeMap<_, Vec<&ImportRecord>> = BTreeMap::new();
    for (raw, record) in source.raws.iter().zip(records) {
        if record.note == UNKNOWN_CLIENT {
            by_client.entry(raw.text("client_id")).or_default().push(record);
        }
    }
    let entries = || records.iter().filter_map(|record| record.entry.as_ref());
    let applications = by_client.values().map(|records| application(source.prefix, records));
    let scopes = entries().filter_map(|entry| scope(config, entry));
    let tables = applications.chain(scopes).collect();

    let mut other_secrets = BTreeMap::new();
    for entry in entries().filter(|entry| has_other_secret(config, entry)) {
        other_secrets.entry(application_of(entry)).or_insert(&entry.alias);
    }
    let unusual =
        entries().filter(|entry| !entry.given.refresh_token.expose().starts_with("Atzr|"));
    let unusual: BTreeSet<String> = unusual.map(|entry| entry.alias.to_string()).collect();
    let unused: BTreeSet<&String> = source.raws.iter().flat_map(|raw| &raw.unused).collect();
    let unused = unused.into_iter().map(|name| match looks_secret(name) {
        true => "a name that looks like a secret".to_owned(),
        false => format!("{name:?}"),
    });
    let notes = other_secrets.iter().map(|(name, alias)| {
        format!(
            "the client secret beside account {alias} is none of those configured for \
                 application {name:?}: if it is a newer one, add it to the list in client_secret"
        )
    });
    let notes = notes
        .chain(listed(
            "the refresh token does not begin with Atzr|, as Amazon's do, of",
            unusual.into_iter(),
        ))
        .chain(listed("not used", unused));
    (notes.collect(), tables)
}

fn application_of(entry: &ImportEntry) -> &str {
    entry.given.application.as_deref().unwrap_or(DEFAULT_APPLICATION)
}

/// Whether the client secret beside a client id is none of its application's.
fn has_other_secret(config: &Config, entry: &ImportEntry) -> bool {
    let known = config.applications.get(application_of(entry));
    let both = known.zip(entry.client_secret.as_ref()).filter(|_| entry.client_id.is_some());
    both.is_some_and(|(known, secret)| !known.client_secrets.contains(secret))
}

/// The table of an application that is not configured, with the records that name it.
fn application(prefix: Option<&str>, records: &[&ImportRecord]) -> String {
    let ImportRecord { account, line, .. } = records[0];
    let account = account.as_deref().unwrap_or_default();
    let more = match records.len() - 1 {
        0 => String::new(),
        more => format!(", and of {more} more"),
    };
    let line = line.map_or_else(String::new, |line| format!(", line {line}"));
    let (client_id, secret) = match prefix {
        Some(prefix) => (
            format!("the value of ${prefix}CLIENT_ID"),
            format!("{{ env = \"{prefix}CLIENT_SECRET\" }}"),
        ),
        None => (
            format!("the client id of that account{line}"),
            "{ file = \"…\" }   # a file of mode 0600 with the client secret from there".to_owned(),
        ),
    };
    format!(
        "# The application of {account}{more}; [lwa] if you have only this one.\n\
         [applications.NAME]\nclient_id = \"…\"   # {client_id}\nclient_secret = {secret}\n"
    )
}

/// A note of at most so many names, with commas between; none without a name.
fn listed(what: &str, names: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let more = match names.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let shown = names.take(NAMES_MAX).collect::<Vec<_>>().join(", ");
    (!shown.is_empty()).then(|| format!("{what}: {shown}{more}"))
}

/// The table with an account's profile as a default header, unless that is configured.
fn scope(config: &Config, entry: &ImportEntry) -> Option<String> {
    let (profile, alias) = (entry.profile_id.as_ref()?, &entry.alias);
    let header = format!("headers = {{ \"{SCOPE}\" = \"{profile}\" }}\n");
    let key = match alias.as_str().contains('.') {
        true => format!("\"{alias}\""),
        false => alias.to_string(),
    };
    match config.accounts.get(alias) {
        Some(known) if known.headers.iter().any(|(name, _)| *name == SCOPE) => None,
        Some(_) => Some(format!("# Into [accounts.{key}]:\n# {header}")),
        None => {
            let region = entry.given.region.map_or("…", Region::as_str);
            let application = match application_of(entry) {
                DEFAULT_APPLICATION => String::new(),
                name => format!("application = {name:?}\n"),
            };
            Some(format!("[accounts.{key}]\nregion = \"{region}\"\n{application}{header}"))
        }
    }
}
