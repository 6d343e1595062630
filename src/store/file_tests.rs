//! Tests of the file store: what is on disk, who may touch it, and what a failure leaves behind.

use super::*;
use crate::{
    config,
    store::{
        Damage,
        seal::NotOpened,
        tests::{credential, credentials},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

fn ring(keys: &[(&str, u8)]) -> KeyRing {
    let secret = |byte| Secret::new(STANDARD.encode([byte; 32]));
    let keys = keys.iter().map(|&(id, byte)| config::EncryptionKey::new(id, secret(byte)));
    let encryption = config::Encryption { keys: keys.collect() };
    KeyRing::fetch(&encryption, Path::new("/nowhere")).expect("a key ring")
}

fn store_in(directory: &Path) -> FileStore {
    FileStore::open(directory, ring(&[("k1", 1)])).expect("opens")
}

fn fresh() -> (TempDir, FileStore) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store_in(&directory.path().join("state/adsproxy"));
    (directory, store)
}

/// Every file and directory below `path` with its mode, and the content of files.
fn snapshot(path: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).expect("a directory") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            found.extend(snapshot(&path));
            found.insert(path, (mode, Vec::new()));
        } else {
            let content = fs::read(&path).expect("readable");
            found.insert(path, (mode, content));
        }
    }
    found
}

fn temporary_of(store: &FileStore, account: &AccountId) -> PathBuf {
    store.accounts.join(format!(".{account}.tmp"))
}

/// Runs one of the tests below, which do nothing otherwise, in a process of its own after `shell`.
fn child(shell: &str, test: &str, directory: &Path) -> Child {
    Command::new("sh")
        .args(["-c", &format!("{shell}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", &format!("store::file::tests::{test}"), "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// Runs it to its end, which must be good.
fn child_succeeds(shell: &str, test: &str, directory: &Path) {
    let output = child(shell, test, directory).wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Where the process that another test started works; none in an ordinary run.
fn child_directory() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIRECTORY).map(PathBuf::from)
}

const CHILD_DIRECTORY: &str = "ADSPROXY_TEST_DIRECTORY";

#[tokio::test]
async fn a_version_changes_with_its_own_record_only() {
    let (_directory, store) = fresh();
    for kept in credentials() {
        store.save(&kept).await.expect("saves");
    }
    let before = store.versions().await.expect("versions");
    assert_eq!(before, store.versions().await.expect("versions"));
    // The same record again is a new file.
    let acme = credential("acme");
    store.save(&acme).await.expect("saves");
    let after = store.versions().await.expect("versions");
    let changed: Vec<_> = before.keys().filter(|id| before[*id] != after[*id]).collect();
    assert_eq!(changed, [&acme.account]);
    store.remove(&acme.account).await.expect("removes");
    assert!(!store.versions().await.expect("versions").contains_key(&acme.account));
}

#[tokio::test]
async fn another_process_with_the_same_key_reads_what_was_saved() {
    let (directory, store) = fresh();
    let nobody = credential("nobody").account;
    assert_eq!(store.load(&nobody).await.expect("loads"), None);
    for kept in credentials() {
        store.save(&kept).await.expect("saves");
        let other = store_in(&directory.path().join("state/adsproxy"));
        assert_eq!(other.load(&kept.account).await.expect("loads"), Some(kept));
    }
}

#[tokio::test]
async fn lists_and_removes_records_and_nothing_else() {
    let (_directory, store) = fresh();
    for alias in ["b", "a", "a.json"] {
        store.save(&credential(alias)).await.expect("saves");
    }
    for stray in [".a.tmp", "notes.txt", ".json", "-x.json", "a.json.bak", "\u{e4}.json"] {
        fs::write(store.accounts.join(stray), "stray").expect("written");
    }
    let names = |listed: Vec<AccountId>| listed.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(store.list().await.expect("lists")), ["a", "a.json", "b"]);
    let a = credential("a").account;
    assert!(store.remove(&a).await.expect("removes"));
    assert!(!store.remove(&a).await.expect("removes"));
    assert_eq!(store.load(&a).await.expect("loads"), None);
    assert!(!temporary_of(&store, &a).exists());
    assert_eq!(names(store.list().await.expect("lists")), ["a.json", "b"]);
}

#[test]
fn only_the_owner_may_look_even_under_umask_zero() {
    let directory = tempfile::tempdir().expect("a directory");
    child_succeeds("umask 0", "saves_locks_and_ends", directory.path());
    let found = snapshot(directory.path());
    assert_eq!(found.len(), 5, "{found:?}");
    for (path, (mode, _)) in found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
    }
}

#[tokio::test]
async fn saves_locks_and_ends() {
    let Some(directory) = child_directory() else { return };
    let store = store_in(&directory.join("store"));
    let kept = credential("acme");
    let _lock = store.lock(&kept.account).await.expect("locks");
    // A file of wide mode left by somebody else must not become the record.
    let leftover = temporary_of(&store, &kept.account);
    fs::write(&leftover, "left behind").expect("written");
    fs::set_permissions(&leftover, fs::Permissions::from_mode(0o666)).expect("set");
    store.save(&kept).await.expect("saves");
}

#[tokio::test]
async fn a_leftover_of_a_crash_is_ignored_and_cleared_by_the_next_save() {
    let (_directory, store) = fresh();
    let kept = credential("acme");
    store.save(&kept).await.expect("saves");
    let leftover = temporary_of(&store, &kept.account);
    fs::write(&leftover, "{\"version\":1,").expect("written");
    assert_eq!(store.load(&kept.account).await.expect("loads"), Some(kept.clone()));
    assert_eq!(store.list().await.expect("lists").len(), 1);
    store.save(&kept).await.expect("saves");
    assert!(!leftover.exists());
    assert_eq!(store.load(&kept.account).await.expect("loads"), Some(kept));
}

#[tokio::test]
async fn a_temporary_file_that_is_being_written_is_left_alone() {
    let (_directory, mut store) = fresh();
    store.lock_timeout = Duration::from_millis(50);
    let kept = credential("acme");
    let writing = temporary_of(&store, &kept.account);
    let writer = open_private(&writing).expect("opens");
    assert!(try_lock(&writer, &writing).expect("locks"));
    let error = store.save(&kept).await.expect_err("somebody writes");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(writing.exists());
    drop(writer);
    store.save(&kept).await.expect("saves");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_without_the_lock_never_tear_a_record() {
    let (_directory, store) = fresh();
    let store = Arc::new(store);
    let writers: Vec<_> = (0..8)
        .map(|generation| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..5 {
                    let kept = Credential { generation, ..credential("acme") };
                    store.save(&kept).await.expect("saves");
                    store.load(&kept.account).await.expect("loads").expect("is there");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic");
    }
    assert!(!temporary_of(&store, &credential("acme").account).exists());
}

#[tokio::test]
async fn a_wrong_key_leaves_the_store_byte_identical() {
    let (directory, store) = fresh();
    let kept = credential("acme");
    store.save(&kept).await.expect("saves");
    let before = snapshot(directory.path());
    let root = directory.path().join("state/adsproxy");
    for (keys, expected) in [
        (vec![("k1", 2)], NotOpened::Refused),
        (vec![("k2", 1)], NotOpened::KeyMissing),
        (vec![("k2", 2), ("k1", 3)], NotOpened::Refused),
    ] {
        let wrong = FileStore::open(&root, ring(&keys)).expect("opens");
        match wrong.load(&kept.account).await.expect_err("wrong key") {
            Error::Sealed { account, key_id, cause } => {
                assert_eq!((account, &*key_id, cause), (kept.account.clone(), "k1", expected));
            }
            other => panic!("{other}"),
        }
        assert_eq!(wrong.list().await.expect("lists").len(), 1);
    }
    assert_eq!(snapshot(directory.path()), before);
    assert_eq!(store.load(&kept.account).await.expect("loads"), Some(kept));
}

#[tokio::test]
async fn records_of_two_accounts_cannot_change_places() {
    let (_directory, store) = fresh();
    let (acme, other) = (credential("acme"), credential("other"));
    store.save(&acme).await.expect("saves");
    store.save(&other).await.expect("saves");
    let (one, two) = (store.record(&acme.account), store.record(&other.account));
    let aside = store.accounts.join("aside");
    for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
        fs::rename(from, to).expect("renamed");
    }
    for account in [&acme.account, &other.account] {
        let error = store.load(account).await.expect_err("swapped");
        assert!(matches!(error, Error::Corrupt { cause: Damage::OtherAccount, .. }), "{error}");
    }
}

#[tokio::test]
async fn flipped_bytes_on_disk_are_an_error_and_stay_as_they_are() {
    let (_directory, store) = fresh();
    let kept = credential("acme");
    store.save(&kept).await.expect("saves");
    let path = store.record(&kept.account);
    let text = fs::read(&path).expect("readable");
    // Every bit is tried in the tests of the format; here, one in every byte through the disk.
    for at in 0..text.len() {
        let mut flipped = text.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).expect("written");
        let error = store.load(&kept.account).await.expect_err("flipped");
        assert!(matches!(error, Error::Sealed { .. } | Error::Corrupt { .. }), "{at}: {error}");
        assert_eq!(fs::read(&path).expect("readable"), flipped);
    }
    fs::write(&path, vec![b' '; record::MAX_BYTES * 2]).expect("written");
    let error = store.load(&kept.account).await.expect_err("far too long");
    assert!(matches!(error, Error::Corrupt { cause: Damage::TooLong, .. }), "{error}");
    assert!(store.remove(&kept.account).await.expect("a damaged record can be removed"));
}

#[tokio::test]
async fn a_save_that_cannot_write_reports_it_and_keeps_the_old_record() {
    let (_directory, store) = fresh();
    let old = credential("acme");
    store.save(&old).await.expect("saves");
    // A directory in the way refuses every user, root too, as a read-only file system would.
    let blocked = temporary_of(&store, &old.account);
    fs::create_dir(&blocked).expect("made");
    let new = Credential { generation: 8, ..old.clone() };
    match store.save(&new).await.expect_err("blocked") {
        Error::Io { path, .. } => assert_eq!(path, blocked),
        other => panic!("{other}"),
    }
    assert_eq!(store.load(&old.account).await.expect("loads"), Some(old.clone()));
    fs::remove_dir(&blocked).expect("removed");
    let long = Credential { application: "x".repeat(record::MAX_BYTES), ..old.clone() };
    let error = store.save(&long).await.expect_err("could never be loaded again");
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(store.load(&old.account).await.expect("loads"), Some(old));
    store.save(&new).await.expect("recovers by itself");
    assert_eq!(store.load(&new.account).await.expect("loads"), Some(new));
}

#[tokio::test]
async fn a_save_on_a_full_disk_reports_it_and_keeps_the_old_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store_in(&directory.path().join("store"));
    let old = credential("acme");
    store.save(&old).await.expect("saves");
    let before = snapshot(directory.path());
    // No file of this process may grow; the signal that says so is ignored, the error is not.
    let full = "trap '' XFSZ; ulimit -f 0";
    child_succeeds(full, "cannot_save", directory.path());
    assert_eq!(snapshot(directory.path()), before, "no temporary file stays behind");
    assert_eq!(store.load(&old.account).await.expect("loads"), Some(old));
}

#[tokio::test]
async fn cannot_save() {
    let Some(directory) = child_directory() else { return };
    let store = store_in(&directory.join("store"));
    let error = store.save(&Credential { generation: 8, ..credential("acme") }).await;
    match error.expect_err("no room") {
        Error::Io { action, source, .. } => {
            assert_eq!((action, source.kind()), ("write", io::ErrorKind::FileTooLarge));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn two_stores_on_one_directory_exclude_each_other_per_account() {
    let (directory, first) = fresh();
    let mut second = store_in(&directory.path().join("state/adsproxy"));
    second.lock_timeout = Duration::from_millis(60);
    let (acme, other) = (credential("acme").account, credential("other").account);
    let held = first.lock(&acme).await.expect("locks");
    second.lock(&other).await.expect("another account is free");
    let error = second.lock(&acme).await.expect_err("held");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(held);
    let held = second.lock(&acme).await.expect("free again");
    // A waiter of the other store gets it as soon as it is given back.
    let waiting = async { first.lock(&acme).await.expect("in the end") };
    let ((), _lock) = tokio::join!(async { drop(held) }, waiting);
}

#[tokio::test]
async fn two_tasks_of_one_store_exclude_each_other_and_a_leaver_takes_nothing_along() {
    let (_directory, mut store) = fresh();
    store.lock_timeout = Duration::from_millis(60);
    let acme = credential("acme").account;
    let held = store.lock(&acme).await.expect("locks");
    assert!(matches!(store.lock(&acme).await, Err(Error::Locked { .. })));
    let left = tokio::time::timeout(Duration::from_millis(1), store.lock(&acme)).await;
    left.expect_err("left before its turn");
    drop(held);
    store.lock(&acme).await.expect("free again");
}

#[tokio::test]
async fn another_process_is_excluded_until_the_holder_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = store_in(&directory.path().join("store"));
    store.lock_timeout = Duration::from_millis(60);
    let acme = credential("acme").account;
    let mut holder = child(":", "holds_the_lock", directory.path());
    let mut said = io::BufReader::new(holder.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("locked") {
        line.clear();
        let read = io::BufRead::read_line(&mut said, &mut line).expect("readable");
        assert_ne!(read, 0, "ended without a lock");
    }
    let error = store.lock(&acme).await.expect_err("held by another process");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    // However it ends, the system gives its lock back.
    holder.kill().expect("killed");
    holder.wait().expect("ends");
    store.lock(&acme).await.expect("free again");
}

#[tokio::test]
async fn holds_the_lock() {
    let Some(directory) = child_directory() else { return };
    let store = store_in(&directory.join("store"));
    let _lock = store.lock(&credential("acme").account).await.expect("locks");
    println!("locked");
    // Until the other side is done with us.
    io::stdin().read_to_end(&mut Vec::new()).expect("readable");
}

#[tokio::test]
async fn nothing_on_disk_can_be_read_and_debug_shows_no_secret() {
    let (directory, store) = fresh();
    let kept = credential("acme");
    store.save(&kept).await.expect("saves");
    let _lock = store.lock(&kept.account).await.expect("locks");
    let found = snapshot(directory.path());
    assert_eq!(found.values().filter(|(_, content)| !content.is_empty()).count(), 1);
    for (path, (_, content)) in found {
        let content = String::from_utf8(content).expect("text");
        // The tests of the format look for its base64 forms.
        assert!(!content.contains("CANARY") && !content.contains("Atz"), "{}", path.display());
    }
    assert!(!format!("{store:?} {store:#?}").contains("CANARY"));
}

#[tokio::test]
async fn a_fingerprint_needs_no_key_and_outlives_the_one_that_sealed_it() {
    let (directory, store) = fresh();
    let secret = Secret::from("Atzr|CANARY");
    let seeded = Credential { seed: Some(store.fingerprint(&secret)), ..credential("acme") };
    store.save(&seeded).await.expect("saves");
    let root = directory.path().join("state/adsproxy");
    let text = fs::read_to_string(root.join("accounts/acme.json")).expect("a record");
    assert!(!text.contains(&store.fingerprint(&secret)), "it is sealed");
    let both = FileStore::open(&root, ring(&[("k2", 2), ("k1", 1)])).expect("opens");
    let loaded = both.load(&seeded.account).await.expect("loads").expect("a record");
    both.save(&loaded).await.expect("saves");
    let new = FileStore::open(&root, ring(&[("k2", 2)])).expect("opens");
    let loaded = new.load(&seeded.account).await.expect("loads").expect("a record");
    let seed = loaded.seed.expect("kept");
    assert!(new.fingerprint_matches(&seed, &secret));
    assert!(!new.fingerprint_matches(&seed, &Secret::from("Atzr|other")));
}
