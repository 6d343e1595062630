//! What is left to do by hand: lines for the configuration, and what looks odd. Shows neither
//! client ids nor client secrets, only where they stand.

use super::{entry::Entry, env::Family, rejection::Rejection, resolve::Plan};
use crate::{
    config::{Config, DEFAULT_APPLICATION},
    id::AccountId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

const SCOPE: &str = "Amazon-Advertising-API-Scope";

/// What is left to do by hand.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Whole sentences without a full stop.
    pub(super) notes: Vec<String>,
    /// Tables for the configuration, one for each thing.
    tables: Vec<String>,
}

impl Hints {
    /// The lines to add to the configuration, at most `max` tables of them.
    pub(super) fn configuration(&self, max: usize) -> String {
        let shown = &self.tables[..self.tables.len().min(max)];
        let mut text = shown.join("\n");
        if shown.len() < self.tables.len() {
            let more = self.tables.len() - shown.len();
            let _ = write!(text, "\n# … and {more} more; `--json` has all of them\n");
        }
        text
    }

    /// Looks at what `refused` entries lack and at what `plans` leave unsaid.
    pub(super) fn new(
        family: Option<&Family>,
        config: &Config,
        plans: &[&Plan],
        refused: &[(&Entry, &Rejection)],
    ) -> Self {
        let mut hints = Self::default();
        hints.applications(family, refused);
        hints.client_secrets(config, plans);
        hints.shared_grants(plans);
        hints.odd_tokens(plans);
        hints.scopes(config, plans);
        hints
    }

    /// One table per client id that no application has.
    fn applications(&mut self, family: Option<&Family>, refused: &[(&Entry, &Rejection)]) {
        let mut owners: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for (entry, why) in refused {
            if let (Rejection::UnknownClient, Some(client_id)) = (why, &entry.client_id) {
                owners.entry(client_id.expose()).or_default().push(entry);
            }
        }
        for entries in owners.values() {
            let [first, rest @ ..] = &entries[..] else { continue };
            let line = first.line.map(|line| format!(", line {line}")).unwrap_or_default();
            let more = match rest.len() {
                0 => String::new(),
                more => format!(", and of {more} more"),
            };
            let (client_id, secret, note) = match family {
                Some(family) => (
                    format!("the value of ${}", family.client_id),
                    format!("{{ env = \"{}\" }}", family.client_secret),
                    "",
                ),
                None => (
                    format!("the client id of that account{line}"),
                    "{ file = \"…\" }".to_owned(),
                    "   # a file of mode 0600 with the client secret from there",
                ),
            };
            self.tables.push(format!(
                "# The application of {}{more}; [lwa] if you have only this one.\n\
                 [applications.NAME]\nclient_id = \"…\"   # {client_id}\n\
                 client_secret = {secret}{note}\n",
                first.alias,
            ));
        }
    }

    /// Says where a client secret is not among the configured ones.
    fn client_secrets(&mut self, config: &Config, plans: &[&Plan]) {
        let mut strangers: BTreeMap<&str, &Plan> = BTreeMap::new();
        for plan in plans {
            let name = plan.application.as_deref().unwrap_or(DEFAULT_APPLICATION);
            if let (Some(secret), Some(application)) =
                (&plan.entry.client_secret, config.applications.get(name))
                && plan.entry.client_id.is_some()
                && !application.client_secrets.contains(secret)
            {
                strangers.entry(name).or_insert(plan);
            }
        }
        self.notes.extend(strangers.into_iter().map(|(name, plan)| {
            format!(
                "the client secret beside account {} is none of those configured for application \
                 {name:?}: if it is a newer one, add it to the list in client_secret",
                plan.entry.alias,
            )
        }));
    }

    fn shared_grants(&mut self, plans: &[&Plan]) {
        let mut owners: BTreeMap<&str, BTreeSet<&AccountId>> = BTreeMap::new();
        for plan in plans {
            let token = plan.entry.refresh_token.expose();
            owners.entry(token).or_default().insert(&plan.entry.alias);
        }
        let sharing: usize = owners.values().map(BTreeSet::len).filter(|count| *count > 1).sum();
        if sharing > 0 {
            self.notes.push(format!(
                "{sharing} accounts share their refresh token with another one: one account is \
                 enough for a grant, callers choose the profile with {SCOPE}"
            ));
        }
    }

    fn odd_tokens(&mut self, plans: &[&Plan]) {
        let is_odd = |plan: &&&Plan| !plan.entry.refresh_token.expose().starts_with("Atzr|");
        let odd = plans.iter().filter(is_odd).count();
        if odd > 0 {
            self.notes
                .push(format!("{odd} refresh tokens do not begin with Atzr|, as Amazon's do"));
        }
    }

    /// Default headers are the configuration's, not the store's.
    fn scopes(&mut self, config: &Config, plans: &[&Plan]) {
        for plan in plans {
            let Some(profile) = &plan.entry.profile_id else { continue };
            let alias = &plan.entry.alias;
            let header = format!("headers = {{ \"{SCOPE}\" = \"{profile}\" }}\n");
            let key = match alias.as_str().contains('.') {
                true => format!("\"{alias}\""),
                false => alias.to_string(),
            };
            match (config.accounts.get(alias), plan.region) {
                (Some(known), _) if known.headers.iter().any(|(name, _)| *name == SCOPE) => {}
                (Some(_), _) => self.tables.push(format!("# Into [accounts.{key}]:\n# {header}")),
                (None, region) => {
                    let region = region.map(|region| format!("region = \"{region}\"\n"));
                    let application = plan.application.as_deref();
                    let application = application.filter(|name| *name != DEFAULT_APPLICATION);
                    let application = application.map(|name| format!("application = {name:?}\n"));
                    self.tables.push(format!(
                        "[accounts.{key}]\n{}{}{header}",
                        region.unwrap_or_else(|| "region = \"…\"\n".to_owned()),
                        application.unwrap_or_default(),
                    ));
                }
            }
        }
    }
}
