//! What is left to do by hand after an import. Holds no secret, and neither client ids nor client
//! secrets, only where they are.

use super::record::{ImportEntry, Raw, looks_secret};
use crate::{
    config::{Config, DEFAULT_APPLICATION},
    id::{AccountId, Region},
    secret::Secret,
};
use std::collections::{BTreeMap, BTreeSet};

/// Names that are shown.
const NAMES_MAX: usize = 20;
const SCOPE: &str = "Amazon-Advertising-API-Scope";

/// Collected record by record.
#[derive(Default)]
pub(super) struct Advice {
    /// The beginning of the names of the environment variables that an account was read from.
    prefix: Option<&'static str>,
    /// By client id, the accounts of applications that are not configured, with their lines.
    unknown: BTreeMap<String, Vec<(AccountId, Option<usize>)>>,
    /// By application, an account that has another client secret beside it.
    other_secrets: BTreeMap<String, AccountId>,
    unusual: BTreeSet<String>,
    unused: BTreeSet<String>,
    /// Default headers are the configuration's and not the store's.
    scopes: Vec<String>,
}

impl Advice {
    pub(super) fn new(prefix: Option<&'static str>, raws: &[Raw]) -> Self {
        let unused = raws.iter().flat_map(|raw| &raw.unused).cloned().collect();
        Self { prefix, unused, ..Self::default() }
    }

    pub(super) fn of_unknown_client(&mut self, entry: &ImportEntry) {
        let client_id = entry.client_id.as_ref().map_or("", Secret::expose).to_owned();
        self.unknown.entry(client_id).or_default().push((entry.alias.clone(), entry.line));
    }

    pub(super) fn of_account(&mut self, config: &Config, entry: &ImportEntry) {
        let (alias, token) = (&entry.alias, entry.refresh_token.expose());
        if !token.starts_with("Atzr|") {
            self.unusual.insert(alias.to_string());
        }
        let name = entry.application.as_deref().unwrap_or(DEFAULT_APPLICATION);
        if let (Some(secret), Some(_), Some(known)) =
            (&entry.client_secret, &entry.client_id, config.applications.get(name))
            && !known.client_secrets.contains(secret)
        {
            self.other_secrets.entry(name.to_owned()).or_insert_with(|| alias.clone());
        }
        self.scopes.extend(scope(config, entry));
    }

    /// Whole sentences without a full stop.
    pub(super) fn notes(&self) -> Vec<String> {
        let secrets = self.other_secrets.iter().map(|(name, alias)| {
            format!(
                "the client secret beside account {alias} is none of those configured for \
                 application {name:?}: if it is a newer one, add it to the list in client_secret"
            )
        });
        let mut notes: Vec<String> = secrets.collect();
        if !self.unusual.is_empty() {
            notes.push(format!(
                "the refresh token does not begin with Atzr|, as Amazon's do, of: {}",
                listed(self.unusual.iter().cloned())
            ));
        }
        if !self.unused.is_empty() {
            let shown = |name: &String| match looks_secret(name) {
                true => "a name that looks like a secret".to_owned(),
                false => format!("{name:?}"),
            };
            notes.push(format!("not used: {}", listed(self.unused.iter().map(shown))));
        }
        notes
    }

    /// Tables for the configuration, one for each thing.
    pub(super) fn tables(&self) -> Vec<String> {
        let applications = self.unknown.values().filter_map(|accounts| self.application(accounts));
        applications.chain(self.scopes.iter().cloned()).collect()
    }

    /// The table of an application that is not configured.
    fn application(&self, accounts: &[(AccountId, Option<usize>)]) -> Option<String> {
        let (first, line) = accounts.first()?;
        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
        let more = match accounts.len() - 1 {
            0 => String::new(),
            more => format!(", and of {more} more"),
        };
        let (client_id, secret) = match self.prefix {
            Some(prefix) => (
                format!("the value of ${prefix}CLIENT_ID"),
                format!("{{ env = \"{prefix}CLIENT_SECRET\" }}"),
            ),
            None => (
                format!("the client id of that account{line}"),
                "{ file = \"…\" }   # a file of mode 0600 with the client secret from there"
                    .to_owned(),
            ),
        };
        Some(format!(
            "# The application of {first}{more}; [lwa] if you have only this one.\n\
             [applications.NAME]\nclient_id = \"…\"   # {client_id}\nclient_secret = {secret}\n"
        ))
    }
}

/// At most so many names, with commas between.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let shown = names.take(NAMES_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
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
            let region = entry.region.map_or("…", Region::as_str);
            let application = entry.application.as_ref();
            let application = application.filter(|name| *name != DEFAULT_APPLICATION);
            let application = application.map(|name| format!("application = {name:?}\n"));
            let application = application.unwrap_or_default();
            Some(format!("[accounts.{key}]\nregion = \"{region}\"\n{application}{header}"))
        }
    }
}
