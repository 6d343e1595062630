//! What becomes of an account: every mix of what the store holds and what is imported.

use super::super::plan::tests::config;
use super::*;
use crate::{
    audit::Audit,
    store::{Store, StoredAccessToken, fingerprint},
};

const NOW: u64 = 1_795_132_800;

fn importer(replace: bool) -> Importer {
    Importer {
        grants: Grants::new(Store::memory().expect("a store"), Audit::off()),
        config: Arc::new(config()),
        replace,
        dry_run: false,
        now: NOW,
    }
}

fn entry(token: &str) -> ImportEntry {
    ImportEntry {
        line: None,
        alias: "acme".parse().expect("an alias"),
        refresh_token: Secret::from(token),
        access_token: None,
        had_access_token: false,
        region: Some(Region::Na),
        application: None,
        profile_id: None,
        consented_at: None,
        client_id: None,
        client_secret: None,
    }
}

/// What the store holds: `token`, refreshed before.
fn existing(token: &str) -> Credential {
    Credential {
        epoch: crate::store::Epoch::random(),
        account: "acme".parse().expect("an alias"),
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
    }
}

fn access_token() -> StoredAccessToken {
    StoredAccessToken { token: Secret::from("Atza|x"), issued_at: NOW, expires_at: NOW + 60 }
}

fn decided(replace: bool, entry: &ImportEntry, existing: &Credential) -> Applied {
    importer(replace).decide(entry, Some(existing)).expect("decided")
}

#[test]
fn a_new_account_is_added_with_the_access_token_that_lives() {
    let mut entry = entry("one");
    (entry.access_token, entry.had_access_token) = (Some(access_token()), true);
    entry.consented_at = Some(3);
    let importer = importer(false);
    let applied = importer.decide(&entry, None).expect("decided");
    let record = applied.record.expect("a record");
    assert_eq!(applied.outcome, ImportOutcome::Added);
    assert_eq!((record.access_token, record.generation), (Some(access_token()), 1));
    assert_eq!((record.consented_at, record.updated_at), (Some(3), NOW));
    assert_eq!(record.seed.expect("a seed"), fingerprint(&"one".into()));

    entry.access_token = None;
    let record = importer.decide(&entry, None).expect("decided").record.expect("a record");
    assert_eq!((record.access_token, record.generation), (None, 0));
    assert_eq!(importer.decide(&entry, None).expect("decided").notes.len(), 1, "it had one");
}

#[test]
fn the_seed_is_the_configured_token_where_there_is_one() {
    let mut importer = importer(false);
    let alias: crate::id::AccountId = "acme".parse().expect("an alias");
    let mut config = config();
    let account = config.accounts.get_mut(&alias).expect("an account");
    account.refresh_token = Some(Secret::from("configured"));
    importer.config = Arc::new(config);
    let record = importer.decide(&entry("one"), None).expect("decided").record.expect("a record");
    let seed = record.seed.expect("a seed");
    assert_eq!(seed, fingerprint(&"configured".into()));
}

#[test]
fn the_same_grant_is_unchanged_however_often_it_was_rotated() {
    let importer = importer(true);
    let mut existing = existing("one");
    for token in ["one", "older"] {
        let applied = importer.decide(&entry(token), Some(&existing)).expect("decided");
        assert_eq!((applied.outcome, applied.record), (ImportOutcome::Unchanged, None), "{token}");
    }
    existing.seed = Some(fingerprint(&"first".into()));
    let applied = importer.decide(&entry("first"), Some(&existing)).expect("decided");
    assert_eq!((applied.outcome, applied.record), (ImportOutcome::Unchanged, None));
}

#[test]
fn what_differs_is_kept_and_named() {
    let mut moved = entry("one");
    moved.region = Some(Region::Eu);
    moved.application = Some("second".to_owned());
    moved.consented_at = Some(6);
    for (entry, notes) in [
        (entry("two"), vec!["another refresh token"]),
        (moved, vec!["another region", "another application", "another day of consent"]),
    ] {
        let applied = decided(false, &entry, &existing("one"));
        assert_eq!((applied.outcome, applied.record), (ImportOutcome::Differs, None));
        assert_eq!(applied.notes, notes);
    }
}

#[test]
fn another_grant_replaces_and_keeps_the_old_one_to_fall_back_on() {
    let mut other = entry("two");
    other.access_token = Some(access_token());
    let record = decided(true, &other, &existing("one")).record.expect("a record");
    assert_eq!(record.refresh_token, "two".into());
    assert_eq!(record.previous_refresh_token, Some("one".into()));
    // A running server knows by this that it was replaced.
    assert_eq!(record.access_token, None);
    assert_eq!((record.generation, record.consented_at), (7, None));

    let dead = Credential { reauthorization_required: true, ..existing("one") };
    let foreign = Credential { application: "second".to_owned(), ..existing("one") };
    for existing in [dead, foreign] {
        other.application = Some("default".to_owned());
        let record = decided(true, &other, &existing).record.expect("a record");
        assert_eq!(record.previous_refresh_token, None, "{existing:?}");
        assert!(!record.reauthorization_required);
    }
}

#[test]
fn a_dead_grant_is_tried_again_only_when_told() {
    let dead = Credential { reauthorization_required: true, ..existing("one") };
    assert_eq!(decided(false, &entry("one"), &dead).outcome, ImportOutcome::Unchanged);
    let record = decided(true, &entry("one"), &dead).record.expect("a record");
    assert!(!record.reauthorization_required && record.previous_refresh_token.is_none());
}

#[test]
fn to_move_a_grant_takes_no_newer_token_from_it() {
    let mut entry = entry("older");
    entry.region = Some(Region::Eu);
    let applied = decided(true, &entry, &existing("one"));
    let mut expected = Credential { region: Region::Eu, updated_at: NOW, ..existing("one") };
    expected.epoch = applied.record.as_ref().expect("a record").epoch;
    assert_eq!((applied.outcome, applied.record), (ImportOutcome::Replaced, Some(expected)));
}

#[test]
fn an_account_without_a_region_or_application_is_refused_unless_the_store_knows() {
    let importer = importer(false);
    let nowhere = ImportEntry { region: None, ..entry("one") };
    let error = importer.decide(&nowhere, None).expect_err("refused").to_string();
    assert_eq!(error, "it names no region: say --region na, eu or fe");
    let applied = importer.decide(&nowhere, Some(&existing("one"))).expect("decided");
    assert_eq!((applied.outcome, applied.region), (ImportOutcome::Unchanged, Region::Na));
    let third = Credential { application: "third".to_owned(), ..existing("one") };
    let error = importer.decide(&entry("one"), Some(&third)).expect_err("refused").to_string();
    assert!(error.ends_with("configured: default, second"), "{error}");
}

#[tokio::test]
async fn a_dry_run_saves_nothing() {
    let mut importer = importer(false);
    importer.dry_run = true;
    let applied = importer.apply(&entry("one")).await.expect("applied");
    assert_eq!(applied.outcome, ImportOutcome::Added);
    assert!(importer.grants.store().grants().await.expect("listed").is_empty());
    importer.dry_run = false;
    importer.apply(&entry("one")).await.expect("applied");
    assert_eq!(importer.grants.store().grants().await.expect("listed").len(), 1);
}
