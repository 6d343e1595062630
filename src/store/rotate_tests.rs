//! Tests of rotation: what it changes, what it leaves, and where it may be cut off.

use super::*;
use crate::{
    config::{Encryption, EncryptionKey},
    id::Region,
    secret::Secret,
    store::{
        Credential,
        seal::{self, KeyRing},
        tests::credential,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::path::Path;

fn open(directory: &Path, keys: &[(&str, u8)]) -> FileStore {
    let secret = |byte| Secret::new(STANDARD.encode([byte; 32]));
    let keys = keys.iter().map(|&(id, byte)| EncryptionKey::new(id, secret(byte))).collect();
    let ring = KeyRing::fetch(&Encryption { keys }, directory).expect("a ring");
    FileStore::open(directory, ring).expect("opens")
}

const OLD: &[(&str, u8)] = &[("old", 1)];
const BOTH: &[(&str, u8)] = &[("new", 2), ("old", 1)];
const NEW: &[(&str, u8)] = &[("new", 2)];

async fn filled(directory: &Path, accounts: usize) -> Vec<Credential> {
    let store = open(directory, OLD);
    let mut kept = Vec::new();
    for number in 0..accounts {
        let seed = store.fingerprint(&format!("configured-{number}").as_str().into());
        kept.push(Credential { seed: Some(seed), ..credential(&format!("a{number}")) });
        store.save(&kept[number]).await.expect("saves");
    }
    kept
}

async fn rotate(store: &FileStore) -> Report {
    let rotation = Rotation::prepare(store).await.expect("may begin");
    rotation.run(&BTreeMap::new(), |_, _| ()).await.expect("runs")
}

async fn assert_all(store: &FileStore, kept: &[Credential]) {
    for record in kept {
        assert_eq!(store.load(&record.account).await.expect("loads").as_ref(), Some(record));
    }
}

#[tokio::test]
async fn every_record_is_sealed_anew_and_the_old_key_is_not_needed_any_more() {
    let directory = tempfile::tempdir().expect("a directory");
    let kept = filled(directory.path(), 5).await;
    let both = open(directory.path(), BOTH);
    both.save(&kept[0]).await.expect("saves");
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
    stranger.save(&credential("stranger")).await.expect("saves");
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
    let presence = old.announce().expect("announced");
    match Rotation::prepare(&both).await.expect_err("refused") {
        Refusal::NotKnown { key, processes } => {
            assert_eq!((key.as_str(), processes.len()), ("new", 1));
        }
        other => panic!("{other}"),
    }
    // And what is saved meanwhile is sealed so that the other server can read it.
    both.save(&kept[0]).await.expect("saves");
    assert_all(&old, &kept).await;
    drop(presence);
    assert_eq!(rotate(&both).await.resealed, 2);
}

#[tokio::test]
async fn two_do_not_rotate_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    filled(directory.path(), 1).await;
    let (one, two) = (open(directory.path(), BOTH), open(directory.path(), BOTH));
    let rotation = Rotation::prepare(&one).await.expect("may begin");
    assert!(matches!(Rotation::prepare(&two).await, Err(Refusal::Busy)));
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
        both.mark_rotation().await.expect("marked");
        for record in &kept[..cut] {
            both.reseal(&record.account, None).await.expect("sealed");
        }
        assert_all(&both, &kept).await;
        let found = both.unfinished_rotation().await.expect("looks");
        assert_eq!(found.as_deref(), Some("new"));
        // One with other keys has nothing to finish.
        let old = open(directory.path(), &[("old", 1), ("new", 2)]);
        assert!(!old.must_finish_rotation().await.expect("looks"));
        assert!(both.must_finish_rotation().await.expect("looks"));
        assert_eq!(rotate(&both).await.resealed, 4 - cut);
        assert!(!both.must_finish_rotation().await.expect("looks"));
        assert_all(&open(directory.path(), NEW), &kept).await;
    }
}

#[tokio::test]
async fn an_account_that_is_in_use_is_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let kept = filled(directory.path(), 2).await;
    let (server, both) = (open(directory.path(), BOTH), open(directory.path(), BOTH));
    let lock = server.lock(&kept[0].account).await.expect("locked");
    let rotating = rotate(&both);
    let refreshing = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let refreshed = Credential { generation: 8, ..kept[0].clone() };
        server.save(&refreshed).await.expect("saves");
        drop(lock);
        refreshed
    };
    let (report, refreshed) = tokio::join!(rotating, refreshing);
    assert_eq!((report.records, report.failed.len()), (2, 0));
    assert_all(&open(directory.path(), NEW), &[refreshed, kept[1].clone()]).await;
}

#[tokio::test]
async fn a_fingerprint_of_the_first_version_is_made_anew_where_the_configuration_has_the_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = open(directory.path(), OLD);
    let configured = Secret::from("Atzr|configured");
    let dated = seal::dated_fingerprint(&[1; 32], "old", &configured);
    // Of `globex` the configuration says nothing, or nothing that matches.
    let kept = ["acme", "globex"]
        .map(|alias| Credential { seed: Some(dated.clone()), ..credential(alias) });
    for record in &kept {
        old.save(record).await.expect("saves");
        let needed = old.key_use(&record.account).await.expect("reads").expect("a record");
        assert_eq!(needed.fingerprint_key_id.as_deref(), Some("old"));
    }
    let account = config::Account {
        region: Region::Eu,
        application: "default".to_owned(),
        refresh_token: Some(configured.clone()),
        headers: Vec::new(),
    };
    let other = config::Account { refresh_token: Some("Atzr|x".into()), ..account.clone() };
    let accounts = kept.clone().map(|record| record.account).into_iter().zip([account, other]);
    let both = open(directory.path(), BOTH);
    let rotation = Rotation::prepare(&both).await.expect("may begin");
    rotation.run(&accounts.collect(), |_, _| ()).await.expect("runs");
    let new = open(directory.path(), NEW);
    let acme = new.load(&kept[0].account).await.expect("loads").expect("a record");
    assert!(new.fingerprint_matches(&acme.seed.expect("kept"), &configured));
    // It is kept as it is, and still needs its key.
    let globex = both.key_use(&kept[1].account).await.expect("reads").expect("a record");
    assert_eq!(globex.key_id, "new");
    assert_eq!(globex.fingerprint_key_id.as_deref(), Some("old"));
}
