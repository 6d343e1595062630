//! A power cut at any moment of a save: whatever subset of the unsynced writes reached the disk,
//! the record is the old one or the new one, and the next save works.
//!
//! The calls of a real save are recorded by strace. Then every prefix of them is replayed under
//! the worst file system there may be: data that was not synced is there, empty, cut, or zeros;
//! names that were not synced are old or new, each on its own.

use crate::support::{
    extras,
    proxy::{Proxy, Setup, amazon},
    strace::{Call, Strace, calls},
};
use adsproxy::testing::{
    Credential, Encryption, EncryptionKey, Expected, Store, StoreConfig, StoreKind,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{fs, path::Path};

const TEMPORARY: &str = ".acme.tmp";
const RECORD: &str = "acme.json";

/// A step of a save.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Write(Vec<u8>),
    SyncFile,
    Rename,
    SyncDirectory,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_leaves_the_old_record_or_the_new_one() {
    let Some((old, steps, identity)) = recorded().await else { return };
    use Step::{Create, Rename, SyncDirectory, SyncFile, Write};
    assert!(matches!(&steps[..], [Create, Write(_), SyncFile, Rename, SyncDirectory]), "{steps:?}");
    let mut states = 0;
    for cut in 0..=steps.len() {
        for state in disks(&old, &steps[..cut]) {
            let generation = generation(&state, &identity).await.expect("a record");
            let saved = cut == steps.len();
            assert!(generation == 2 || (generation == 1 && !saved), "{cut}: {generation}");
            states += 1;
        }
    }
    assert!(states >= 18, "{states}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_without_its_syncs_would_be_seen_to_fail() {
    let Some((old, steps, identity)) = recorded().await else { return };
    for (left_out, harm) in [(Step::SyncFile, "damaged"), (Step::SyncDirectory, "old")] {
        let steps: Vec<Step> = steps.iter().filter(|step| **step != left_out).cloned().collect();
        let mut seen = Vec::new();
        for state in disks(&old, &steps) {
            seen.push(match generation(&state, &identity).await {
                None => "damaged",
                Some(1) => "old",
                Some(_) => "new",
            });
        }
        assert!(seen.contains(&harm), "{left_out:?}: {seen:?}");
    }
}

/// The record before a refresh, what the refresh did to the directory, and the store's id.
async fn recorded() -> Option<(Vec<u8>, Vec<Step>, Vec<u8>)> {
    if !extras::required("strace") || !extras::root() {
        return None;
    }
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n[token]\nforced_refresh_min_interval_secs = 0";
    let setup = Setup { toml: toml.into(), file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let accounts = proxy.dir.path().join("store/accounts");
    let old = fs::read(accounts.join(RECORD)).expect("a record");
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    let watched = ["", "/.acme.tmp", "/acme.json"].iter();
    let watched = watched.flat_map(|file| ["-P".into(), format!("{}{file}", accounts.display())]);
    let strace = Strace::attach(&proxy, &watched.collect::<Vec<String>>());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let log = strace.detach();
    let steps: Vec<Step> = calls(&log).iter().filter_map(|call| step(call, &accounts)).collect();
    let new = fs::read(accounts.join(RECORD)).expect("a record");
    assert!(steps.contains(&Step::Write(new)), "what was recorded is what was written");
    let identity = fs::read(proxy.dir.path().join("store/meta/store.json")).expect("an id");
    Some((old, steps, identity))
}

fn step(call: &Call, accounts: &Path) -> Option<Step> {
    let file = Path::new(&call.path).strip_prefix(accounts).ok()?.to_str()?;
    match (call.name.as_str(), file) {
        ("openat", TEMPORARY) => {
            assert!(call.rest.contains("O_CREAT|O_EXCL"), "{call:?}");
            Some(Step::Create)
        }
        ("write", TEMPORARY) => Some(Step::Write(unescaped(&call.rest))),
        ("fsync", TEMPORARY) => Some(Step::SyncFile),
        ("rename", TEMPORARY) => {
            assert!(call.rest.contains(RECORD), "{call:?}");
            Some(Step::Rename)
        }
        ("fsync", "") => Some(Step::SyncDirectory),
        (
            "statx" | "newfstatat" | "fstat" | "flock" | "fcntl" | "close" | "read" | "pread64",
            _,
        ) => None,
        ("openat" | "getdents64", "" | RECORD) => None,
        _ => panic!("what does this do to a record? {call:?}"),
    }
}

/// The text between strace's quotes. A record is printable ASCII and line ends.
fn unescaped(rest: &str) -> Vec<u8> {
    let text = rest.split_once('"').expect("a string").1;
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    loop {
        match chars.next().expect("the string ends") {
            '"' => return bytes,
            '\\' => bytes.push(match chars.next() {
                Some('n') => b'\n',
                Some(plain @ ('"' | '\\')) => plain as u8,
                other => panic!("{other:?}"),
            }),
            plain => bytes.push(u8::try_from(plain).expect("ASCII")),
        }
    }
}

/// What may be on the disk after `steps` and a power cut: the files' names and contents.
fn disks(old: &[u8], steps: &[Step]) -> Vec<Vec<(&'static str, Vec<u8>)>> {
    let at = |wanted: &Step| steps.iter().position(|step| step == wanted);
    let written = steps.iter().find_map(|step| match step {
        Step::Write(bytes) => Some(bytes.clone()),
        _ => None,
    });
    let whole = written.unwrap_or_default();
    let (cut, zeros) = (whole[..whole.len() / 2].to_vec(), vec![0; whole.len()]);
    let contents = match at(&Step::SyncFile) {
        Some(_) => vec![whole],
        None => vec![Vec::new(), cut, zeros, whole],
    };
    let (created, renamed) = (at(&Step::Create), at(&Step::Rename));
    let is_synced = at(&Step::SyncDirectory).is_some();
    let mut disks = Vec::new();
    if !(renamed.is_some() && is_synced) {
        disks.push(vec![(RECORD, old.to_vec())]);
    }
    for content in contents {
        if created.is_some() && !(renamed.is_some() && is_synced) {
            disks.push(vec![(RECORD, old.to_vec()), (TEMPORARY, content.clone())]);
        }
        if renamed.is_some() {
            disks.push(vec![(RECORD, content.clone())]);
        }
        if renamed.is_some() && !is_synced {
            // The new name is on the disk, and the old one still is.
            disks.push(vec![(RECORD, content.clone()), (TEMPORARY, content)]);
        }
    }
    disks
}

/// Opens a store on `files`; the generation of the record, if it opens and can be saved again.
async fn generation(files: &[(&str, Vec<u8>)], identity: &[u8]) -> Option<u64> {
    let dir = tempfile::tempdir().expect("a directory");
    for space in ["meta", "accounts"] {
        fs::create_dir(dir.path().join(space)).expect("made");
    }
    fs::write(dir.path().join("meta/store.json"), identity).expect("written");
    let store = open(dir.path());
    for (name, content) in files {
        fs::write(dir.path().join("accounts").join(name), content).expect("written");
    }
    let account = "acme".parse().expect("an alias");
    let record = store.load(&account).await.ok()??;
    let next = Credential { generation: record.generation + 1, ..record.clone() };
    store.put_grant(&next, Expected::Any).await.expect("the next save");
    assert_eq!(store.load(&account).await.expect("opens"), Some(next));
    assert_eq!(fs::read_dir(dir.path().join("accounts")).expect("a directory").count(), 1);
    Some(record.generation)
}

/// With the key that `Proxy` configures.
fn open(directory: &Path) -> Store {
    let secret = STANDARD.encode([7; 32]).as_str().into();
    let keys = vec![EncryptionKey::new("k1", secret)];
    let store =
        StoreConfig { kind: StoreKind::File, path: directory.to_owned(), ..Default::default() };
    Store::open(&store, &Encryption { keys }).expect("opens")
}
