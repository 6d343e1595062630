//! What becomes of an account: every mix of what the store holds and what is given.

use super::*;
use crate::{
    audit::{Action, Actor, Audit},
    config::AccountConfig,
    store::{Epoch, Store},
};

const NOW: u64 = 1_795_132_800;

/// Two applications and no account.
fn config() -> Config {
    let applications = [DEFAULT_APPLICATION, "second"];
    let applications =
        applications.map(|name| (name.to_owned(), crate::config::ApplicationConfig::default()));
    Config { applications: applications.into(), ..Config::default() }
}

fn shop() -> AccountId {
    "shop".parse().expect("an alias")
}

fn given(token: &str) -> GivenGrant {
    GivenGrant {
        refresh_token: Secret::from(token),
        access_token: None,
        region: Some(Region::Na),
        application: None,
        consented_at: None,
        replace: Replace::Differing,
    }
}

/// What the store holds: `token`, refreshed before.
fn existing(token: &str) -> Credential {
    Credential {
        epoch: Epoch::random(),
        account: shop(),
        application: "default".to_owned(),
        region: Region::Na,
        refresh_token: Secret::from(token),
        previous_refresh_token: Some(Secret::from("older")),
        access_token: Some(access_token()),
        generation: 7,
        consented_at: Some(5),
        updated_at: 9,
        reauthorization_required: false,
        seed: None,
        unknown: Default::default(),
    }
}

fn access_token() -> StoredAccessToken {
    StoredAccessToken { token: Secret::from("Atza|x"), issued_at: NOW, expires_at: NOW + 60 }
}

fn decided(given: &GivenGrant, existing: Option<&Credential>) -> GivenResult {
    given.decide(&config(), &shop(), existing, NOW).expect("decided")
}

#[test]
fn a_new_account_is_added_with_its_access_token() {
    let mut new = given("one");
    (new.access_token, new.consented_at) = (Some(access_token()), Some(3));
    let result = decided(&new, None);
    let record = result.record.expect("a record");
    assert_eq!(result.outcome, GivenOutcome::Added);
    assert_eq!((record.access_token, record.generation), (Some(access_token()), 1));
    assert_eq!((record.consented_at, record.updated_at), (Some(3), NOW));
    assert_eq!(record.seed.expect("a seed"), fingerprint(&"one".into()));

    new.access_token = None;
    let record = decided(&new, None).record.expect("a record");
    assert_eq!((record.access_token, record.generation), (None, 0));
}

#[test]
fn the_seed_is_the_configured_token_where_there_is_one_and_the_configured_region_wins() {
    let mut config = config();
    let refresh_token = Some(Secret::from("configured"));
    let known = AccountConfig {
        region: Region::Na,
        application: DEFAULT_APPLICATION.to_owned(),
        refresh_token,
        ..AccountConfig::default()
    };
    config.accounts.insert(shop(), known);
    let decide = |given: &GivenGrant| given.decide(&config, &shop(), None, NOW);
    let record = decide(&given("one")).expect("decided").record.expect("a record");
    assert_eq!(record.seed.expect("a seed"), fingerprint(&"configured".into()));
    for (region, application) in [(Some(Region::Eu), None), (None, Some("second".to_owned()))] {
        let given = GivenGrant { region, application, ..given("one") };
        assert!(matches!(decide(&given), Err(GivenError::Contradiction(_))));
    }
}

#[test]
fn the_same_grant_is_unchanged_however_often_it_was_rotated() {
    let first = Credential { seed: Some(fingerprint(&"first".into())), ..existing("one") };
    for token in ["one", "older", "first"] {
        let result = decided(&given(token), Some(&first));
        assert_eq!((result.outcome, result.record), (GivenOutcome::Unchanged, None), "{token}");
        let anyway = GivenGrant { replace: Replace::Always, ..given(token) };
        assert_eq!(decided(&anyway, Some(&first)).outcome, GivenOutcome::Replaced, "{token}");
    }
}

#[test]
fn what_differs_is_kept_and_named() {
    let moved = GivenGrant {
        region: Some(Region::Eu),
        application: Some("second".to_owned()),
        consented_at: Some(6),
        ..given("one")
    };
    for (given, differences) in [
        (given("two"), "another refresh token"),
        (moved, "another region, another application, another day of consent"),
    ] {
        let kept = GivenGrant { replace: Replace::Never, ..given };
        let result = decided(&kept, Some(&existing("one")));
        assert_eq!((result.outcome, result.record), (GivenOutcome::Differs, None));
        assert_eq!(result.differences, differences);
    }
}

#[test]
fn another_grant_replaces_and_keeps_the_old_one_to_fall_back_on() {
    let mut other = GivenGrant { access_token: Some(access_token()), ..given("two") };
    let record = decided(&other, Some(&existing("one"))).record.expect("a record");
    assert_eq!(record.refresh_token, "two".into());
    assert_eq!(record.previous_refresh_token, Some("one".into()));
    // A running server knows by this that it was replaced.
    assert_eq!(record.access_token, None);
    assert_eq!((record.generation, record.consented_at), (7, None));

    // Replaced on purpose, it must not come back when the new one dies.
    let anyway = GivenGrant { replace: Replace::Always, ..other.clone() };
    let record = decided(&anyway, Some(&existing("one"))).record.expect("a record");
    assert_eq!(record.previous_refresh_token, None);

    let dead = Credential { reauthorization_required: true, ..existing("one") };
    let foreign = Credential { application: "second".to_owned(), ..existing("one") };
    for existing in [dead, foreign] {
        other.application = Some(DEFAULT_APPLICATION.to_owned());
        let record = decided(&other, Some(&existing)).record.expect("a record");
        assert_eq!(record.previous_refresh_token, None, "{existing:?}");
        assert!(!record.reauthorization_required);
    }
}

#[test]
fn a_dead_grant_is_tried_again_only_when_told() {
    let dead = Credential { reauthorization_required: true, ..existing("one") };
    let kept = GivenGrant { replace: Replace::Never, ..given("one") };
    let result = decided(&kept, Some(&dead));
    assert!(result.is_dead && result.outcome == GivenOutcome::Unchanged);
    let record = decided(&given("one"), Some(&dead)).record.expect("a record");
    assert!(!record.reauthorization_required && record.previous_refresh_token.is_none());
}

#[test]
fn to_move_a_grant_takes_no_newer_token_from_it() {
    let moved = GivenGrant { region: Some(Region::Eu), ..given("older") };
    let result = decided(&moved, Some(&existing("one")));
    let mut expected = Credential { region: Region::Eu, updated_at: NOW, ..existing("one") };
    expected.epoch = result.record.as_ref().expect("a record").epoch;
    assert_eq!((result.outcome, result.record), (GivenOutcome::Replaced, Some(expected)));
}

#[test]
fn an_account_without_a_region_or_application_is_refused_unless_the_store_knows() {
    let nowhere = GivenGrant { region: None, ..given("one") };
    let refused = |given: &GivenGrant, existing: Option<&Credential>| {
        given.decide(&config(), &shop(), existing, NOW).expect_err("refused").to_string()
    };
    assert_eq!(refused(&nowhere, None), "it names no region: say --region na, eu or fe");
    let result = decided(&nowhere, Some(&existing("one")));
    assert_eq!((result.outcome, result.region), (GivenOutcome::Unchanged, Region::Na));
    let third = Credential { application: "third".to_owned(), ..existing("one") };
    let error = refused(&given("one"), Some(&third));
    assert!(error.ends_with("configured: default, second"), "{error}");
}

#[test]
fn what_is_sent_to_the_server_is_what_it_reads() {
    let whole = GivenGrant {
        access_token: Some(access_token()),
        application: Some("second".to_owned()),
        consented_at: Some(6),
        ..given("Atzr|one")
    };
    for sent in [whole, GivenGrant { region: None, replace: Replace::Never, ..given("Atzr|one") }] {
        let json = sent.to_json();
        let read = GivenGrant::parse(|name| match &json[name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        });
        assert_eq!(read.expect("a grant").to_json(), json);
    }
    assert!(GivenGrant::parse(|name| (name == "replace").then(|| "always".to_owned())).is_none());
}

#[tokio::test]
async fn what_is_given_is_written_with_its_entry() {
    let grants = Grants::new(Store::memory().expect("a store"), Audit::off());
    let entry = |action: Action| Entry::new(Actor::cli(), action);
    let result = grants.give(&config(), &shop(), &given("one"), NOW, entry).await;
    assert_eq!(result.expect("given").outcome, GivenOutcome::Added);
    let stored = grants.store().load(&shop()).await.expect("read").expect("a record");
    assert_eq!(stored.refresh_token, "one".into());
}
