//! Which region and application a record gets, and that no two have one alias.

use super::*;
use crate::config::load::{self, Environment, Options};

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
        alias: alias.parse().expect("an alias"),
        refresh_token: Secret::from("Atzr|x"),
        access_token: None,
        had_access_token: false,
        region: None,
        application: None,
        profile_id: None,
        consented_at: None,
        client_id: client_id.map(Secret::from),
        client_secret: None,
    }
}

/// The plan for `entry` alone.
fn plan_of(entry: Entry, config: &Config, defaults: &Defaults<'_>) -> Plan {
    plan(&[Some(entry)], config, defaults).remove(&0).expect("a plan")
}

#[test]
fn a_grant_goes_to_the_application_of_its_client_id_and_to_no_other() {
    let config = config();
    let application = |alias, client_id, flag| {
        let defaults = Defaults { region: None, application: flag };
        match plan_of(entry(alias, client_id), &config, &defaults) {
            Plan::Apply { application, .. } => {
                application.unwrap_or_else(|| "none said".to_owned())
            }
            Plan::UnknownClient => "unknown".to_owned(),
            Plan::Reject(why) => why.into_owned(),
            Plan::Same(_) => unreachable!("it is alone"),
        }
    };
    assert_eq!(application("shop", None, None), "none said");
    assert_eq!(application("shop", None, Some("second")), "second");
    assert_eq!(application("shop", Some("first"), None), "default");
    assert_eq!(application("shop", Some("other"), None), "second");
    assert_eq!(application("shop", Some("none"), None), "unknown");
    let other = "its client id is not that of application \"second\"";
    assert_eq!(application("shop", Some("first"), Some("second")), other);
    assert_eq!(application("acme", None, Some("default")), "second");
    assert_eq!(application("acme", Some("first"), None), other);
}

#[test]
fn the_configuration_wins_over_a_flag_and_refuses_another_record() {
    let config = config();
    let defaults = Defaults { region: Some(Region::Na), application: None };
    let region = |entry| match plan_of(entry, &config, &defaults) {
        Plan::Apply { region, .. } => region,
        _ => None,
    };
    assert_eq!(region(entry("shop", None)), Some(Region::Na));
    let japan = Entry { region: Some(Region::Fe), ..entry("shop", None) };
    assert_eq!(region(japan.clone()), Some(Region::Fe));
    assert_eq!(region(entry("acme", None)), Some(Region::Eu));
    assert_eq!(region(Entry { alias: "acme".parse().expect("an alias"), ..japan }), None);
    for (application, is_right) in [("second", true), ("default", false), ("none", false)] {
        let named = Entry { application: Some(application.into()), ..entry("acme", None) };
        assert_eq!(region(named).is_some(), is_right, "{application}");
    }
}

#[test]
fn of_two_entries_for_one_alias_none_is_taken_unless_they_are_the_same() {
    let defaults = Defaults { region: None, application: None };
    let config = config();
    let (one, again) = (entry("acme", None), Entry { line: Some(2), ..entry("acme", None) });
    let other = Entry { refresh_token: "Atzr|y".into(), line: Some(3), ..again.clone() };
    let plans = |entries: [Option<Entry>; 3]| {
        let mut plans = plan(&entries, &config, &defaults);
        [0, 1, 2].map(|index| match plans.remove(&index) {
            Some(Plan::Reject(why)) => why.into_owned(),
            other => format!("{other:?}"),
        })
    };
    let [first, none, same] = plans([Some(one.clone()), None, Some(again)]);
    assert!(first.contains("Apply"), "{first}");
    assert_eq!((none.as_str(), same.as_str()), ("None", "Some(Same(0))"));
    let [first, beside, last] = plans([Some(one), Some(entry("shop", None)), Some(other)]);
    assert!(first.contains("(line 3)") && last.contains("(line 1)"), "{first} {last}");
    assert!(beside.contains("Apply"), "{beside}");
}
