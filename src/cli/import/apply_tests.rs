//! What becomes of an account: every mix of what the store holds and what is imported.

use super::*;
use crate::store::{Store, StoredAccessToken};

const NOW: u64 = 1_795_132_800;

fn importer(replace: bool) -> Importer {
    Importer {
        store: Arc::new(Store::memory().expect("a store")),
        audit: Audit::off(),
        unrecorded: Mutex::default(),
        applications: vec!["default".to_owned(), "second".to_owned()],
        seeds: BTreeMap::new(),
        replace,
        dry_run: false,
        now: NOW,
    }
}

/// An entry with its place.
#[derive(Clone)]
struct Plan {
    entry: Entry,
    region: Option<Region>,
    application: Option<String>,
}

impl Importer {
    fn decide_on(&self, plan: &Plan, existing: Option<&Credential>) -> Result<Applied, Rejection> {
        self.decide(&plan.entry, plan.region, plan.application.clone(), existing)
    }

    async fn apply_plan(&self, plan: &Plan) -> Result<Applied, Rejection> {
        self.apply(&plan.entry, plan.region, plan.application.clone()).await
    }
}

fn plan(token: &str) -> Plan {
    Plan {
        entry: Entry {
            line: None,
            alias: "acme".parse().expect("an alias"),
            refresh_token: Secret::from(token),
            access_token: None,
            had_access_token: false,
            region: None,
            application: None,
            profile_id: None,
            consented_at: None,
            client_id: None,
            client_secret: None,
        },
        region: Some(Region::Na),
        application: None,
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

fn decided(replace: bool, plan: &Plan, existing: &Credential) -> Applied {
    importer(replace).decide_on(plan, Some(existing)).expect("decided")
}

#[test]
fn a_new_account_is_added_with_the_access_token_that_lives() {
    let mut plan = plan("one");
    (plan.entry.access_token, plan.entry.had_access_token) = (Some(access_token()), true);
    plan.entry.consented_at = Some(3);
    let importer = importer(false);
    let applied = importer.decide_on(&plan, None).expect("decided");
    let record = applied.record.expect("a record");
    assert_eq!(applied.outcome, Outcome::Added);
    assert_eq!((record.access_token, record.generation), (Some(access_token()), 1));
    assert_eq!((record.consented_at, record.updated_at), (Some(3), NOW));
    assert!(importer.store.fingerprint_matches(&record.seed.expect("a seed"), &"one".into()));

    plan.entry.access_token = None;
    let record = importer.decide_on(&plan, None).expect("decided").record.expect("a record");
    assert_eq!((record.access_token, record.generation), (None, 0));
    assert_eq!(importer.decide_on(&plan, None).expect("decided").notes.len(), 1, "it had one");
}

#[test]
fn the_seed_is_the_configured_token_where_there_is_one() {
    let mut importer = importer(false);
    let alias: AccountId = "acme".parse().expect("an alias");
    importer.seeds.insert(alias, Secret::from("configured"));
    let record = importer.decide_on(&plan("one"), None).expect("decided").record.expect("a record");
    let seed = record.seed.expect("a seed");
    assert!(importer.store.fingerprint_matches(&seed, &"configured".into()));
}

#[test]
fn the_same_grant_is_unchanged_however_often_it_was_rotated() {
    let importer = importer(true);
    let mut existing = existing("one");
    for token in ["one", "older"] {
        let applied = importer.decide_on(&plan(token), Some(&existing)).expect("decided");
        assert_eq!((applied.outcome, applied.record), (Outcome::Unchanged, None), "{token}");
    }
    existing.seed = Some(importer.store.fingerprint(&"first".into()));
    let applied = importer.decide_on(&plan("first"), Some(&existing)).expect("decided");
    assert_eq!((applied.outcome, applied.record), (Outcome::Unchanged, None));
}

#[test]
fn what_differs_is_kept_and_named() {
    let mut moved = plan("one");
    moved.region = Some(Region::Eu);
    moved.application = Some("second".to_owned());
    moved.entry.consented_at = Some(6);
    for (plan, notes) in [
        (plan("two"), vec!["another refresh token"]),
        (moved, vec!["another region", "another application", "another day of consent"]),
    ] {
        let applied = decided(false, &plan, &existing("one"));
        assert_eq!((applied.outcome, applied.record), (Outcome::Differs, None));
        assert_eq!(applied.notes, notes);
    }
}

#[test]
fn another_grant_replaces_and_keeps_the_old_one_to_fall_back_on() {
    let mut other = plan("two");
    other.entry.access_token = Some(access_token());
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
    assert_eq!(decided(false, &plan("one"), &dead).outcome, Outcome::Unchanged);
    let record = decided(true, &plan("one"), &dead).record.expect("a record");
    assert!(!record.reauthorization_required && record.previous_refresh_token.is_none());
}

#[test]
fn to_move_a_grant_takes_no_newer_token_from_it() {
    let mut plan = plan("older");
    plan.region = Some(Region::Eu);
    let applied = decided(true, &plan, &existing("one"));
    let mut expected = Credential { region: Region::Eu, updated_at: NOW, ..existing("one") };
    expected.epoch = applied.record.as_ref().expect("a record").epoch;
    assert_eq!((applied.outcome, applied.record), (Outcome::Replaced, Some(expected)));
}

#[test]
fn an_account_without_a_region_or_application_is_refused_unless_the_store_knows() {
    let importer = importer(false);
    let nowhere = Plan { region: None, ..plan("one") };
    assert_eq!(
        importer.decide_on(&nowhere, None),
        Err("it names no region: say --region na, eu or fe".into())
    );
    let applied = importer.decide_on(&nowhere, Some(&existing("one"))).expect("decided");
    assert_eq!((applied.outcome, applied.region), (Outcome::Unchanged, Region::Na));
    let third = Credential { application: "third".to_owned(), ..existing("one") };
    let error = importer.decide_on(&plan("one"), Some(&third)).expect_err("refused");
    assert!(error.ends_with("configured: default, second"), "{error}");
}

#[tokio::test]
async fn a_dry_run_saves_nothing() {
    let mut importer = importer(false);
    importer.dry_run = true;
    let applied = importer.apply_plan(&plan("one")).await.expect("applied");
    assert_eq!(applied.outcome, Outcome::Added);
    assert!(importer.store.list().await.expect("listed").is_empty());
    importer.dry_run = false;
    importer.apply_plan(&plan("one")).await.expect("applied");
    assert_eq!(importer.store.list().await.expect("listed").len(), 1);
}
