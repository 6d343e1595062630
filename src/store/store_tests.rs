//! Tests of the store over files: what is kept, what is refused, what is never changed.

use super::*;
use crate::{
    config::{Encryption, EncryptionKey},
    id::{AccountId, Region},
    store::ring::NotOpened,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

/// The file store in `directory` with these keys: an id, and the byte that the key consists of.
pub(crate) fn try_open(directory: &Path, keys: &[(&str, u8)]) -> Result<Store, Error> {
    let secret = |byte| Secret::new(STANDARD.encode([byte; 32]));
    let keys = keys.iter().map(|&(id, byte)| EncryptionKey::new(id, secret(byte))).collect();
    let store = config::StoreConfig {
        kind: config::StoreKind::File,
        path: directory.to_owned(),
        ..Default::default()
    };
    Store::open(&store, &Encryption { keys })
}

pub(crate) fn open(directory: &Path, keys: &[(&str, u8)]) -> Store {
    try_open(directory, keys).expect("opens")
}

/// A credential with every field set, its secrets marked as canaries.
pub(crate) fn credential(alias: &str) -> Credential {
    Credential {
        account: alias.parse().expect("an alias"),
        epoch: Epoch::random(),
        application: "default".to_owned(),
        region: Region::Eu,
        refresh_token: Secret::new(format!("Atzr|CANARY-refresh-{alias}")),
        previous_refresh_token: Some(Secret::new(format!("Atzr|CANARY-previous-{alias}"))),
        access_token: Some(StoredAccessToken {
            token: Secret::new(format!("Atza|CANARY-access-{alias}")),
            issued_at: 1_795_132_800,
            expires_at: 1_795_136_400,
        }),
        generation: 7,
        consented_at: Some(1_790_000_000),
        updated_at: 1_795_132_801,
        reauthorization_required: false,
        seed: Some("c2VlZA".to_owned()),
        unknown: Default::default(),
    }
}

/// Every mix of absent and present, empty and extreme.
fn credentials() -> Vec<Credential> {
    let full = credential("acme");
    let bare = Credential {
        previous_refresh_token: None,
        access_token: None,
        consented_at: None,
        seed: None,
        ..full.clone()
    };
    let odd = Credential {
        account: "A".repeat(AccountId::PART_MAX_LEN).parse().expect("an alias"),
        application: "ünïcode \"quoted\" \\ \n".to_owned(),
        region: Region::Fe,
        refresh_token: Secret::from(""),
        previous_refresh_token: Some(Secret::from("\u{0}\u{1f600}")),
        access_token: Some(StoredAccessToken {
            token: Secret::new("t".repeat(8192)),
            issued_at: 0,
            expires_at: u64::MAX,
        }),
        generation: u64::MAX,
        consented_at: Some(0),
        updated_at: u64::MAX,
        reauthorization_required: true,
        seed: Some(String::new()),
        ..full.clone()
    };
    let dead = Credential { reauthorization_required: true, ..bare.clone() };
    vec![full, bare, odd, dead]
}

/// Every file below `path`, with its mode and bytes.
fn snapshot(path: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let (path, mode) = (entry.path(), entry.metadata().expect("there").permissions().mode());
        match path.is_dir() {
            true => found.extend(snapshot(&path)),
            false => drop(found.insert(path.clone(), (mode, fs::read(&path).expect("read")))),
        }
    }
    found
}

const K1: &[(&str, u8)] = &[("k1", 1)];
const ANY: Expected = Expected::Any;

async fn loaded(store: &Store, alias: &str) -> Result<Option<Credential>, Error> {
    let account = alias.parse().expect("an alias");
    Ok(store.grant(&account).await?.map(|found| found.value))
}

#[tokio::test]
async fn another_process_with_the_same_key_reads_what_was_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    for kept in credentials() {
        open(dir.path(), K1).put_grant(&kept, ANY).await.expect("kept");
        let read = loaded(&open(dir.path(), K1), kept.account.as_str()).await.expect("read");
        assert_eq!(read, Some(kept));
    }
}

#[tokio::test]
async fn only_the_owner_can_read_what_is_on_disk_and_there_is_nothing_to_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("store");
    let store = open(&at, K1);
    store.put_grant(&credential("acme"), ANY).await.expect("kept");
    let item = Item { account: None, expires_at_ms: Some(1), text: "CANARY".into() };
    let limit = Limit { max: 9, now_ms: 0 };
    store.entries(Space::Login).put("n", &item, limit).await.expect("kept");
    let files = snapshot(&at);
    assert!(files.len() >= 3, "{:?}", files.keys());
    for (path, (mode, bytes)) in files {
        assert_eq!(mode & 0o777, 0o600, "{path:?}");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("CANARY") && !text.contains("Atzr|"), "{path:?}: {text}");
    }
    for directory in ["", "accounts", "logins"] {
        let mode = fs::metadata(at.join(directory)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{directory}");
    }
    let shown = format!("{store:?} {store:#?} {:?}", credential("acme"));
    assert!(!shown.contains("CANARY"), "{shown}");
}

#[tokio::test]
async fn a_damaged_entry_is_purged_where_entries_expire_and_kept_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), K1);
    store.put_grant(&credential("acme"), ANY).await.expect("kept");
    let limit = Limit { max: 9, now_ms: 0 };
    let audit = store.audit_keys(true).expect("made");
    assert_eq!(audit.len(), 1);
    for space in [Space::Login, Space::Outbox] {
        let item = Item { account: None, expires_at_ms: Some(9), text: "x".into() };
        for name in ["good", "header", "body"] {
            store.entries(space).put(name, &item, limit).await.expect("kept");
        }
    }
    let damage = |file: &str, keep: usize| {
        let path = dir.path().join(file);
        let bytes = fs::read(&path).expect("there");
        fs::write(&path, &bytes[..keep.min(bytes.len() - 1)]).expect("damaged");
    };
    for space in ["logins", "outbox"] {
        damage(&format!("{space}/header.json"), 5);
        damage(&format!("{space}/body.json"), usize::MAX);
    }
    damage("audit/1.json", 5);
    damage("accounts/acme.json", 5);
    store.purge_expired(5).await.expect("purged");
    let names = async |space| store.entries(space).names().await.expect("listed");
    assert_eq!(names(Space::Login).await, ["body", "good"]);
    store.purge_expired(9).await.expect("purged");
    assert!(names(Space::Login).await.is_empty());
    assert_eq!(names(Space::Outbox).await, ["body", "good", "header"]);
    assert_eq!(names(Space::AuditKeys).await, ["1"]);
    assert_eq!(store.grants().await.expect("listed").len(), 1);
}

#[tokio::test]
async fn a_link_in_the_store_is_followed_nowhere() {
    let (dir, elsewhere) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
    let store = open(dir.path(), K1);
    store.put_grant(&credential("acme"), ANY).await.expect("kept");
    let limit = Limit { max: 9, now_ms: 0 };
    let item = Item { account: None, expires_at_ms: Some(9), text: "x".into() };
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("logins")).expect("linked");
    let put = store.entries(Space::Login).put("n", &item, limit).await;
    assert!(matches!(&put, Err(Error::Untrusted(_))), "{put:?}");
    let opened = try_open(dir.path(), K1).expect_err("a directory that is a link");
    assert!(
        matches!(&opened, Error::Untrusted(why) if why.to_string().contains("logins is a symbolic link"))
    );
    assert_eq!(fs::read_dir(elsewhere.path()).expect("listed").count(), 0);
    // An entry that is a link is not read, and not written through.
    let (record, theirs) = (dir.path().join("accounts/acme.json"), elsewhere.path().join("theirs"));
    fs::rename(&record, &theirs).expect("moved");
    std::os::unix::fs::symlink(&theirs, &record).expect("linked");
    let before = fs::read(&theirs).expect("there");
    loaded(&store, "acme").await.expect_err("a link");
    store.put_grant(&credential("acme"), ANY).await.expect("replaced");
    assert!(!record.is_symlink() && fs::read(&theirs).expect("there") == before);
}

#[tokio::test]
async fn a_wrong_key_under_a_known_id_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    open(dir.path(), K1).put_grant(&credential("acme"), ANY).await.expect("kept");
    let before = snapshot(dir.path());
    for keys in [&[("k1", 2)][..], &[("k2", 2), ("k1", 3)]] {
        let error = try_open(dir.path(), keys).expect_err("refused");
        assert!(matches!(&error, Error::Key(KeyError::Wrong(id)) if id == "k1"), "{error}");
    }
    assert_eq!(snapshot(dir.path()), before);
    // The right one under another id is a new key; it opens nothing of the old one's.
    let renamed = open(dir.path(), &[("k9", 1)]);
    assert!(loaded(&renamed, "acme").await.expect_err("sealed").is_sealed());
    assert_eq!(snapshot(dir.path()), before);
}

#[tokio::test]
async fn a_key_that_is_missing_seals_its_accounts_until_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let acme = credential("acme");
    open(dir.path(), K1).put_grant(&acme, ANY).await.expect("kept");
    let other = open(dir.path(), &[("k2", 2)]);
    match loaded(&other, "acme").await.expect_err("sealed") {
        Error::Sealed { key_id, cause, .. } => {
            assert_eq!((key_id.as_str(), cause), ("k1", NotOpened::KeyMissing));
        }
        other => panic!("{other}"),
    }
    other.put_grant(&credential("globex"), ANY).await.expect("the new key seals");
    let both = open(dir.path(), &[("k2", 2), ("k1", 1)]);
    assert_eq!(loaded(&both, "acme").await.expect("read"), Some(acme));
}

#[tokio::test]
async fn a_record_opens_neither_for_another_account_nor_in_another_store() {
    let (here, there) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
    for dir in [&here, &there] {
        open(dir.path(), K1).put_grant(&credential("acme"), ANY).await.expect("kept");
    }
    let record =
        |dir: &tempfile::TempDir, alias: &str| dir.path().join(format!("accounts/{alias}.json"));
    fs::copy(record(&here, "acme"), record(&here, "globex")).expect("copied");
    let error = loaded(&open(here.path(), K1), "globex").await.expect_err("another account's");
    assert!(matches!(error, Error::Sealed { cause: NotOpened::Altered, .. }), "{error}");
    fs::copy(record(&here, "acme"), record(&there, "acme")).expect("copied");
    let error = loaded(&open(there.path(), K1), "acme").await.expect_err("another store's");
    assert!(matches!(&error, Error::OtherStore { .. }), "{error}");
}

#[tokio::test]
async fn a_store_whose_id_is_damaged_is_not_opened_and_one_without_it_opens_no_record() {
    let (dir, acme) = (tempfile::tempdir().expect("a directory"), credential("acme"));
    open(dir.path(), K1).put_grant(&acme, ANY).await.expect("kept");
    let path = dir.path().join("meta/store.json");
    let before = fs::read(&path).expect("an id");
    for damage in ["", "{", "{\"version\":1}\n{}\n"] {
        fs::write(&path, damage).expect("damaged");
        let error = try_open(dir.path(), K1).expect_err("damaged");
        assert!(matches!(error, Error::Identity(_)), "{error}");
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
    }
    fs::remove_file(&path).expect("removed");
    let error = loaded(&open(dir.path(), K1), "acme").await.expect_err("whose is it");
    assert!(error.to_string().contains("restore meta/store.json"), "{error}");
    let error = open(dir.path(), K1).put_grant(&credential("shop"), ANY).await;
    assert!(matches!(error, Err(Error::Identity(_))), "{error:?}");
    assert!(!path.exists(), "a new id would be in the way of the old one");
    fs::write(&path, before).expect("restored");
    assert_eq!(loaded(&open(dir.path(), K1), "acme").await.expect("opens"), Some(acme));
}

#[tokio::test]
async fn no_changed_byte_of_a_record_gives_another_credential_or_is_cleared_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), K1);
    let acme = credential("acme");
    store.put_grant(&acme, ANY).await.expect("kept");
    let path = dir.path().join("accounts/acme.json");
    let bytes = fs::read(&path).expect("a record");
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).expect("written");
        // The version alone is not sealed.
        if let Ok(found) = loaded(&store, "acme").await {
            assert_eq!(found.as_ref(), Some(&acme), "byte {at}");
        }
        assert_eq!(fs::read(&path).expect("a record"), changed, "byte {at}");
    }
    for length in 0..bytes.len() - 1 {
        fs::write(&path, &bytes[..length]).expect("written");
        assert!(loaded(&store, "acme").await.expect_err("cut").is_lasting(), "{length}");
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_says_so_and_is_listed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), K1);
    store.put_grant(&credential("acme"), ANY).await.expect("kept");
    let path = dir.path().join("accounts/acme.json");
    let account: AccountId = "acme".parse().expect("an alias");
    let source = std::io::ErrorKind::PermissionDenied.into();
    let error = Error::Unreadable { path, source };
    assert!(error.is_lasting() && !error.is_sealed(), "{error}");
    assert!(error.to_string().contains("chown"), "{error}");
    assert_eq!(store.grants().await.expect("listed"), [account]);
}

#[tokio::test]
async fn a_store_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("store");
    open(&at, K1).put_grant(&credential("acme"), ANY).await.expect("kept");
    for open_one in ["", "accounts"] {
        let path = at.join(open_one);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o722)).expect("a mode");
        let error = try_open(&at, K1).expect_err("untrusted");
        assert!(matches!(error, Error::Untrusted(_)), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a mode");
    }
    open(&at, K1);
}

#[tokio::test]
async fn root_writes_for_the_owner_of_the_directory() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::chown(dir.path(), Some(12_345), Some(12_345)).expect("given");
    let store = open(dir.path(), K1);
    store.put_grant(&credential("acme"), ANY).await.expect("kept");
    let acme: AccountId = "acme".parse().expect("an alias");
    let brief = std::time::Duration::from_secs(5);
    let lease = store.lease_grant(&acme, brief, brief).await.expect("leased");
    let _instance = store.register().expect("registered");
    for path in snapshot(dir.path()).keys() {
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(fs::metadata(path).expect("there").uid(), 12_345, "{path:?}");
    }
    drop(lease);
}

#[tokio::test]
async fn the_store_knows_its_keys_only_once_they_have_sealed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), K1);
    assert!(snapshot(dir.path()).is_empty(), "opening writes nothing");
    // Nothing was sealed with k1 yet: another key may take the id.
    let other = open(dir.path(), &[("k1", 2)]);
    store.put_grant(&credential("acme"), ANY).await.expect("kept");
    let error = other.put_grant(&credential("globex"), ANY).await.expect_err("too late");
    assert!(matches!(error, Error::Key(KeyError::Wrong(_))), "{error}");
    assert_eq!(loaded(&other, "globex").await.expect("nothing"), None);
}

#[tokio::test]
async fn the_key_seals_that_every_instance_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let new = open(dir.path(), &[("new", 2), ("old", 1)]);
    let sealing = || new.0.sealing_key(Space::Accounts, "acme").expect("a key").id.clone();
    assert_eq!(sealing(), "new", "alone");
    let _this = new.register().expect("registered");
    let old = open(dir.path(), &[("old", 1)]);
    let other = old.register().expect("registered");
    assert_eq!(sealing(), "old");
    assert_eq!(new.instances().await.expect("listed").len(), 2);
    drop(other);
    assert_eq!(sealing(), "new");
    // A process that was killed leaves its entry; the lock on its owner file is gone.
    let left = InstanceInfo::of(old.ring());
    new.0.backend.put_clear(Space::Instances, "0123", &left, ANY).expect("kept");
    assert_eq!(sealing(), "new");
    assert_eq!(new.instances().await.expect("listed").len(), 1);
}

#[tokio::test]
async fn the_audit_key_is_made_once_and_outlives_a_rotation() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = open(dir.path(), K1);
    assert!(old.audit_keys(false).expect("none").is_empty());
    let made = old.audit_keys(true).expect("made");
    assert_eq!(open(dir.path(), K1).audit_keys(true).expect("known"), made);
    let both = open(dir.path(), &[("k2", 2), ("k1", 1)]);
    rotate::Rotation::prepare(&both).await.expect("may begin").run(|_, _| ()).await.expect("runs");
    drop(both);
    let new = open(dir.path(), &[("k2", 2)]);
    assert_eq!(new.audit_keys(false).expect("known"), made);
    // Where it cannot be opened, another one goes on.
    let next = old.audit_keys(true).expect("made");
    assert_ne!(next[0].0, made[0].0);
    let memory = Store::memory().expect("a store");
    assert!(memory.audit_keys(true).is_ok());
}
