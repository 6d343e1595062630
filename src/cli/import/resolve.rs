//! Finds each entry's place: its region and application, and that no two claim one alias.

use super::{entry::Entry, rejection::Rejection};
use crate::{
    config::{Application, Config},
    id::{AccountId, Region},
};
use std::collections::HashMap;

/// What holds for records that do not say it themselves.
pub(super) struct Defaults<'a> {
    pub(super) region: Option<Region>,
    pub(super) application: Option<&'a str>,
}

/// An entry with its place.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) entry: Entry,
    /// None: that of the account in the store.
    pub(super) region: Option<Region>,
    /// None: that of the account in the store, else the default one.
    pub(super) application: Option<String>,
}

/// What another entry is to one of the same alias.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rival {
    /// Another entry says the same; its index.
    Same(usize),
    /// Another entry says something else; its line.
    Other(Option<usize>),
}

/// For every entry that shares its alias, what is to be done about it.
pub(super) fn rivals(entries: &[(usize, &Entry)]) -> HashMap<usize, Rival> {
    let mut first: HashMap<&AccountId, (usize, &Entry)> = HashMap::new();
    let mut found = HashMap::new();
    for &(index, entry) in entries {
        let Some(&(first_index, other)) = first.get(&entry.alias) else {
            first.insert(&entry.alias, (index, entry));
            continue;
        };
        if says_the_same(entry, other) {
            found.insert(index, Rival::Same(first_index));
        } else {
            // Nobody knows which one is right, so neither is taken.
            found.insert(first_index, Rival::Other(entry.line));
            found.insert(index, Rival::Other(other.line));
        }
    }
    found
}

fn says_the_same(a: &Entry, b: &Entry) -> bool {
    a.refresh_token == b.refresh_token
        && (a.region, a.consented_at) == (b.region, b.consented_at)
        && (&a.application, &a.client_id) == (&b.application, &b.client_id)
}

impl Plan {
    /// Settles what the record, the flags and the configuration say together.
    pub(super) fn new(
        entry: Entry,
        config: &Config,
        defaults: &Defaults<'_>,
    ) -> Result<Self, Rejection> {
        let configured = config.accounts.get(&entry.alias);
        let contradicted = || Rejection::Configured(entry.alias.clone());
        let own_region = configured.map(|account| account.region);
        if own_region.is_some() && entry.region.is_some() && own_region != entry.region {
            return Err(contradicted());
        }
        let said = entry.application.as_ref().map(|name| name.expose());
        let own = configured.map(|account| account.application.as_str());
        let application = match (said, own) {
            (Some(said), _) if !config.applications.contains_key(said) => {
                return Err(unknown_application(config));
            }
            (Some(said), Some(own)) if said != own => return Err(contradicted()),
            (said, own) => own.or(said).or(defaults.application),
        };
        let application = match &entry.client_id {
            Some(client_id) => Some(by_client(config, application, client_id.expose())?),
            None => application.map(str::to_owned),
        };
        let region = own_region.or(entry.region).or(defaults.region);
        Ok(Self { entry, region, application })
    }
}

/// The application that a grant of `client_id` belongs to: a grant of one must never be shown to
/// another.
fn by_client(
    config: &Config,
    application: Option<&str>,
    client_id: &str,
) -> Result<String, Rejection> {
    let fits = |application: &Application| application.client_id == client_id;
    if let Some(name) = application {
        let is_right = config.applications.get(name).is_some_and(fits);
        return if is_right {
            Ok(name.to_owned())
        } else {
            Err(Rejection::OtherClient(name.into()))
        };
    }
    let mut fitting = config.applications.iter().filter(|(_, application)| fits(application));
    match (fitting.next(), fitting.next()) {
        (None, _) => Err(Rejection::UnknownClient),
        (Some((name, _)), None) => Ok(name.clone()),
        (Some(_), Some(_)) => Err(Rejection::SeveralApplications),
    }
}

/// Names those that there are; the one that was asked for may be anything.
pub(super) fn unknown_application(config: &Config) -> Rejection {
    Rejection::UnknownApplication(config.applications.keys().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::import::entry::AccessToken,
        config::load::{self, Environment, Options},
        secret::Secret,
    };

    fn config() -> Config {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("proxy.toml");
        let secret = "client_secret = { env = \"SECRET\" }\n";
        let text = format!(
            "[store]\nkind = \"memory\"\n[lwa]\nclient_id = \"first\"\n{secret}\
             [applications.second]\nclient_id = \"other\"\n{secret}\
             [accounts.acme]\nregion = \"eu\"\napplication = \"second\"\n"
        );
        std::fs::write(&path, text).expect("written");
        let environment: Environment =
            [("SECRET".to_owned(), "secret".to_owned())].into_iter().collect();
        let options = Options { path: Some(path), environment, overrides: Vec::new() };
        load::load(&options).expect("it is right").config
    }

    fn entry(alias: &str, client_id: Option<&str>) -> Entry {
        Entry {
            line: Some(1),
            name: alias.to_owned(),
            alias: alias.parse().expect("an alias"),
            refresh_token: Secret::from("Atzr|x"),
            access_token: AccessToken::Absent,
            region: None,
            application: None,
            profile_id: None,
            consented_at: None,
            client_id: client_id.map(Secret::from),
            client_secret: None,
        }
    }

    #[test]
    fn a_grant_goes_to_the_application_of_its_client_id_and_to_no_other() {
        let config = config();
        let application = |alias, client_id, flag| {
            let defaults = Defaults { region: None, application: flag };
            Plan::new(entry(alias, client_id), &config, &defaults).map(|plan| plan.application)
        };
        let name = |name: &str| Ok(Some(name.to_owned()));
        assert_eq!(application("shop", None, None), Ok(None));
        assert_eq!(application("shop", None, Some("second")), name("second"));
        assert_eq!(application("shop", Some("first"), None), name("default"));
        assert_eq!(application("shop", Some("other"), None), name("second"));
        assert_eq!(application("shop", Some("none"), None), Err(Rejection::UnknownClient));
        let other = |name: &str| Err(Rejection::OtherClient(name.to_owned()));
        assert_eq!(application("shop", Some("first"), Some("second")), other("second"));
        assert_eq!(application("acme", None, Some("default")), name("second"));
        assert_eq!(application("acme", Some("first"), None), other("second"));
    }

    #[test]
    fn the_configuration_wins_over_a_flag_and_refuses_another_record() {
        let config = config();
        let defaults = Defaults { region: Some(Region::Na), application: None };
        let region = |entry| Plan::new(entry, &config, &defaults).map(|plan| plan.region);
        assert_eq!(region(entry("shop", None)), Ok(Some(Region::Na)));
        let japan = Entry { region: Some(Region::Fe), ..entry("shop", None) };
        assert_eq!(region(japan.clone()), Ok(Some(Region::Fe)));
        assert_eq!(region(entry("acme", None)), Ok(Some(Region::Eu)));
        let contradicted = Entry { alias: "acme".parse().expect("an alias"), ..japan };
        assert!(matches!(region(contradicted), Err(Rejection::Configured(_))));
        for (application, is_right) in [("second", true), ("default", false), ("none", false)] {
            let said = Entry { application: Some(application.into()), ..entry("acme", None) };
            assert_eq!(region(said).is_ok(), is_right, "{application}");
        }
    }

    #[test]
    fn of_two_entries_for_one_alias_none_is_taken_unless_they_say_the_same() {
        let (one, again) = (entry("acme", None), Entry { line: Some(2), ..entry("acme", None) });
        let other = Entry { refresh_token: "Atzr|y".into(), line: Some(3), ..again.clone() };
        let beside = entry("shop", None);
        let found = rivals(&[(0, &one), (1, &beside), (4, &again)]);
        assert_eq!(found, HashMap::from([(4, Rival::Same(0))]));
        let found = rivals(&[(0, &one), (1, &beside), (4, &other)]);
        let expected = [(0, Rival::Other(Some(3))), (4, Rival::Other(Some(1)))];
        assert_eq!(found, HashMap::from(expected));
    }
}
