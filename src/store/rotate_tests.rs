//! Tests of rotation: what it changes, what it leaves, and where it may be cut off.

use super::*;
use crate::store::{
    Credential,
    tests::{credential, open},
};
use std::{fs, path::Path};

const ANY: Expected = Expected::Any;
const OLD: &[(&str, u8)] = &[("old", 1)];
const BOTH: &[(&str, u8)] = &[("new", 2), ("old", 1)];
const NEW: &[(&str, u8)] = &[("new", 2)];

async fn filled(directory: &Path, accounts: usize) -> Vec<Credential> {
    let store = open(directory, OLD);
    let mut kept = Vec::new();
    for number in 0..accounts {
        let seed = crate::store::fingerprint(&format!("configured-{number}").as_str().into());
        kept.push(Credential { seed: Some(seed), ..credential(&format!("a{number}")) });
        store.put_grant(&kept[number], ANY).await.expect("kept");
    }
    kept
}

async fn rotate(store: &Store) -> RotationReport {
    let rotation = Rotation::prepare(store).await.expect("may begin");
    rotation.run(|_, _| ()).await.expect("runs")
}

async fn assert_all(store: &Store, kept: &[Credential]) {
    for record in kept {
        let found = store.grant(&record.account).await.expect("read");
        assert_eq!(found.map(|found| found.value).as_ref(), Some(record));
    }
}

#[tokio::test]
async fn every_record_is_sealed_anew_and_the_old_key_is_not_needed_any_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let kept = filled(directory.path(), 5).await;
    let both = open(directory.path(), BOTH);
    both.put_grant(&kept[0], ANY).await.expect("kept");
    let report = rotate(&both).await;
    assert_eq!((report.records, report.resealed, report.failed.len()), (5, 4, 0));
    let new = open(directory.path(), NEW);
    assert_all(&new, &kept).await;
    assert_eq!(new.unfinished_rotation().await.expect("looks"), None);
    let versions = new.versions().await.expect("versions");
    assert_eq!(rotate(&both).await.resealed, 0);
    assert_eq!(new.versions().await.expect("versions"), versions, "nothing is written twice");
}

#[tokio::test]
async fn a_record_that_does_not_open_is_named_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let kept = filled(directory.path(), 3).await;
    let stranger = open(directory.path(), &[("lost", 9)]);
    stranger.put_grant(&credential("stranger"), ANY).await.expect("kept");
    let paths =
        ["stranger", "a1"].map(|name| directory.path().join(format!("accounts/{name}.json")));
    fs::write(&paths[1], "{").expect("written");
    let before = paths.clone().map(|path| fs::read(path).expect("read"));
    let both = open(directory.path(), BOTH);
    let report = rotate(&both).await;
    let failed: Vec<_> = report.failed.iter().map(|(account, _)| account.as_str()).collect();
    assert_eq!(failed, ["a1", "stranger"]);
    assert_eq!(report.resealed, 2);
    assert_eq!(paths.map(|path| fs::read(path).expect("read")), before);
    assert_all(&open(directory.path(), NEW), &[kept[0].clone(), kept[2].clone()]).await;
    assert_eq!(both.unfinished_rotation().await.expect("looks"), None, "no start could do more");
}

#[tokio::test]
async fn it_does_not_begin_while_a_server_lacks_the_new_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let kept = filled(directory.path(), 2).await;
    let (old, both) = (open(directory.path(), OLD), open(directory.path(), BOTH));
    let instance = old.register().expect("registered");
    match Rotation::prepare(&both).await.expect_err("refused") {
        RotationError::NotKnown { key, instances } => {
            assert_eq!((key.as_str(), instances.len()), ("new", 1));
        }
        other => panic!("{other}"),
    }
    // And what is saved meanwhile is sealed so that the other server can read it.
    both.put_grant(&kept[0], ANY).await.expect("kept");
    assert_all(&old, &kept).await;
    drop(instance);
    assert_eq!(rotate(&both).await.resealed, 2);
}

#[tokio::test]
async fn what_is_sealed_with_the_old_key_meanwhile_is_reported_and_left_to_the_next_rotation() {
    use crate::store::{Item, Limit};
    let directory = tempfile::tempdir().expect("a directory");
    let kept = filled(directory.path(), 2).await;
    let (old, both) = (open(directory.path(), OLD), open(directory.path(), BOTH));
    let links = old.entries(Space::Ticket);
    for name in ["a", "b", "c"] {
        let item = Item { account: None, expires_at_ms: Some(1), text: name.into() };
        links.put(name, &item, Limit { max: 9, now_ms: 0 }).await.expect("kept");
    }
    let rotation = Rotation::prepare(&both).await.expect("may begin");
    // A server with the old list of keys starts once it has begun.
    let instance = old.register().expect("registered");
    let report = rotation.run(|_, _| ()).await.expect("runs");
    assert_eq!((report.failed.len(), report.entries_left), (2, 3));
    drop(rotation);
    assert_eq!(both.unfinished_rotation().await.expect("looks").as_deref(), Some("new"));
    assert_eq!(both.key_uses().await.expect("counted").keys["old"].entries, 3);
    drop(instance);
    let report = rotate(&both).await;
    assert_eq!((report.resealed, report.failed.len(), report.entries_left), (2, 0, 0));
    assert_eq!(both.unfinished_rotation().await.expect("looks"), None);
    assert!(!both.key_uses().await.expect("counted").keys.contains_key("old"));
    assert_all(&open(directory.path(), NEW), &kept).await;
}

#[tokio::test]
async fn two_do_not_rotate_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    filled(directory.path(), 1).await;
    let (one, two) = (open(directory.path(), BOTH), open(directory.path(), BOTH));
    let rotation = Rotation::prepare(&one).await.expect("may begin");
    assert!(matches!(Rotation::prepare(&two).await, Err(RotationError::Busy)));
    drop(rotation);
    assert_eq!(rotate(&two).await.resealed, 1);
}

#[tokio::test]
async fn a_rotation_cut_off_at_any_record_is_finished_later() {
    for cut in 0..4 {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = filled(directory.path(), 4).await;
        let both = open(directory.path(), BOTH);
        // As far as a killed process comes: the marker, and some of the records.
        both.run(Inner::mark_rotation).await.expect("marked");
        for record in &kept[..cut] {
            both.0.reseal(Space::Accounts, record.account.as_str()).expect("sealed");
        }
        assert_all(&both, &kept).await;
        let found = both.unfinished_rotation().await.expect("looks");
        assert_eq!(found.as_deref(), Some("new"));
        assert_eq!(rotate(&both).await.resealed, 4 - cut);
        assert_eq!(both.unfinished_rotation().await.expect("looks"), None);
        assert_all(&open(directory.path(), NEW), &kept).await;
    }
}

#[tokio::test]
async fn a_refresh_meanwhile_is_neither_lost_nor_left_with_the_old_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let kept = filled(directory.path(), 2).await;
    let (server, both) = (open(directory.path(), BOTH), open(directory.path(), BOTH));
    let acme = &kept[0].account;
    let brief = Duration::from_secs(5);
    let lease = server.lease_grant(acme, brief, brief).await.expect("leased");
    let began = server.grant(acme).await.expect("read").expect("a grant").began();
    assert_eq!(rotate(&both).await.resealed, 2, "a lease does not hold up a rotation");
    let refreshed = Credential { generation: 8, ..kept[0].clone() };
    server.update_grant(&refreshed, began, Some(&lease)).await.expect("no conflict");
    assert_all(&open(directory.path(), NEW), &[refreshed, kept[1].clone()]).await;
    // Without a lease, the same is one.
    let error = server.update_grant(&kept[0], began, None).await.expect_err("superseded");
    assert!(matches!(error, Error::Conflict), "{error}");
}

#[tokio::test]
async fn every_kind_of_entry_is_sealed_anew_and_lives_as_long_as_before() {
    use crate::store::{Item, Limit};
    const UNTIL: u64 = 4_000_000_000_000;
    let directory = tempfile::tempdir().expect("a directory");
    let old = open(directory.path(), OLD);
    let item = |text: &str| Item {
        account: Some("acme".parse().expect("an alias")),
        expires_at_ms: Some(UNTIL),
        text: text.into(),
    };
    for space in Space::of_entries() {
        let put = old.entries(space);
        put.put("n", &item(space.as_str()), Limit { max: 9, now_ms: 0 }).await.expect("kept");
    }
    let spaces = Space::of_entries().count();
    assert_eq!(old.key_uses().await.expect("counted").keys["old"].entries, spaces);
    rotate(&open(directory.path(), BOTH)).await;
    let new = open(directory.path(), NEW);
    let uses = new.key_uses().await.expect("counted").keys;
    assert_eq!((uses.len(), uses["new"].entries), (1, spaces));
    new.purge_expired(UNTIL - 1).await.expect("purged");
    for space in Space::of_entries() {
        let found = new.entries(space).take("n").await.expect("read");
        assert_eq!(found, Some(item(space.as_str())));
    }
}
