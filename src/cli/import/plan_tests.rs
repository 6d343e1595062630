//! Which region and application a record gets, and that no two have one alias.

use super::*;
use crate::{
    config::load::{self, Environment, Options},
    grants::given::{GivenGrant, Replace},
    id::Region,
};
use std::collections::BTreeSet;

pub(in crate::cli::import) fn config() -> Config {
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

fn reader<'a>(
    config: &'a Config,
    region: Option<Region>,
    application: Option<&'a str>,
) -> RecordReader<'a> {
    RecordReader {
        keys: None,
        known: BTreeSet::new(),
        account: None,
        unnamed: None,
        config,
        region,
        application,
        replace: Replace::Never,
        now: 0,
    }
}

fn entry(alias: &str, client_id: Option<&str>) -> ImportEntry {
    ImportEntry {
        alias: alias.parse().expect("an alias"),
        given: GivenGrant {
            refresh_token: Secret::from("Atzr|x"),
            access_token: None,
            region: None,
            application: None,
            consented_at: None,
            replace: Replace::Never,
        },
        had_access_token: false,
        profile_id: None,
        client_id: client_id.map(Secret::from),
        client_secret: None,
    }
}

#[test]
fn a_grant_goes_to_the_application_of_its_client_id_and_to_no_other() {
    let config = config();
    let application = |alias, client_id, flag| {
        let mut entry = entry(alias, client_id);
        match reader(&config, None, flag).resolve(&mut entry) {
            Ok(()) => entry.given.application.unwrap_or_else(|| "none said".to_owned()),
            Err(why) => why.to_string(),
        }
    };
    assert_eq!(application("shop", None, None), "none said");
    assert_eq!(application("shop", None, Some("second")), "second");
    assert_eq!(application("shop", Some("first"), None), "default");
    assert_eq!(application("shop", Some("other"), None), "second");
    assert_eq!(application("shop", Some("none"), None), UNKNOWN_CLIENT);
    let other = "its client id is not that of application \"second\"";
    assert_eq!(application("shop", Some("first"), Some("second")), other);
    assert_eq!(application("acme", None, Some("default")), "second");
    assert_eq!(application("acme", Some("first"), None), other);
}

#[test]
fn a_flag_gives_a_region_only_where_neither_record_nor_configuration_does() {
    let config = config();
    let region = |mut entry: ImportEntry| {
        reader(&config, Some(Region::Na), None).resolve(&mut entry).ok().and(entry.given.region)
    };
    assert_eq!(region(entry("shop", None)), Some(Region::Na));
    let mut japan = entry("shop", None);
    japan.given.region = Some(Region::Fe);
    assert_eq!(region(japan), Some(Region::Fe));
    assert_eq!(region(entry("acme", None)), None);
    for (application, is_right) in [("second", true), ("none", false)] {
        let mut named = entry("shop", None);
        named.given.application = Some(application.into());
        assert_eq!(region(named).is_some(), is_right, "{application}");
    }
}

#[test]
fn of_two_entries_for_one_alias_none_is_taken_unless_they_are_the_same() {
    let (one, again, mut other) = (entry("acme", None), entry("acme", None), entry("acme", None));
    other.given.refresh_token = "Atzr|y".into();
    let settled = |entries: [Option<ImportEntry>; 3]| {
        let mut lines = 1..;
        let mut records = entries.map(|entry| ImportRecord {
            line: lines.next(),
            entry,
            ..ImportRecord::default()
        });
        settle_duplicates(&mut records);
        records.map(|record| (record.entry.is_some(), record.outcome, record.note))
    };
    let [first, none, same] = settled([Some(one.clone()), None, Some(again)]);
    assert!(first.0 && !none.0 && !same.0);
    assert_eq!((same.1, same.2.as_str()), ("unchanged", "the same as line 1"));
    let [first, beside, last] = settled([Some(one), Some(entry("shop", None)), Some(other)]);
    assert!(!first.0 && beside.0 && !last.0);
    assert!(first.2.contains("(line 3)") && last.2.contains("(line 1)"), "{first:?} {last:?}");
}
