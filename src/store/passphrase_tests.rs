//! Tests of keys made of a passphrase: what opens again, and what must be there for it.

use super::*;
use crate::{
    config::{self, Encryption, EncryptionKey, Material},
    id::AccountId,
    store::{Store, backend::Files, generate_key, ring::KeyRing, tests::credential},
};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

const RIGHT: &str = "correct horse battery staple";

fn encryption(passphrase: &str) -> Encryption {
    let material = Material::Passphrase(passphrase.into());
    Encryption {
        keys: vec![EncryptionKey { id: "laptop".to_owned(), material, ..EncryptionKey::default() }],
    }
}

fn files(directory: &Path) -> Files {
    Files::open(directory).expect("trusted")
}

fn ring(directory: &Path, passphrase: &str) -> Result<KeyRing, Error> {
    KeyRing::fetch(&encryption(passphrase), &files(directory))
}

fn prepared(directory: &Path, passphrase: &str) -> bool {
    prepare(&files(directory), "laptop", &passphrase.into()).expect("prepared")
}

fn store(directory: &Path, passphrase: &str) -> Store {
    let store = config::StoreConfig {
        kind: config::StoreKind::File,
        path: directory.to_owned(),
        ..Default::default()
    };
    Store::open(&store, &encryption(passphrase)).expect("opens")
}

async fn loads(directory: &Path, account: &AccountId) -> bool {
    let found = store(directory, RIGHT).grant(account).await.expect("read");
    found.is_some_and(|found| found.value.generation == credential("acme").generation)
}

/// A store with a record of `acme`.
async fn sealed() -> (tempfile::TempDir, AccountId) {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(prepared(directory.path(), RIGHT));
    let acme = credential("acme");
    store(directory.path(), RIGHT).put_grant(&acme, Expected::Any).await.expect("kept");
    (directory, acme.account)
}

#[tokio::test]
async fn the_passphrase_opens_what_it_sealed() {
    let (directory, acme) = sealed().await;
    assert!(loads(directory.path(), &acme).await);
}

#[tokio::test]
async fn a_wrong_passphrase_is_refused_wherever_it_stands() {
    const WRONG: &str = "correct horse battery stable";
    let (directory, _) = sealed().await;
    let at = directory.path();
    let before = fs::read(at.join("accounts/acme.json")).expect("a record");
    let error = ring(at, WRONG).expect_err("it would seal with it");
    assert!(matches!(error, Error::Key(KeyError::WrongPassphrase(_))), "{error}");
    let mut behind = encryption(WRONG);
    behind.keys.insert(0, EncryptionKey::new("file", generate_key().expect("a key")));
    let error = KeyRing::fetch(&behind, &files(at)).expect_err("it opens nothing");
    assert!(matches!(error, Error::Key(KeyError::WrongPassphrase(_))), "{error}");
    assert_eq!(fs::read(at.join("accounts/acme.json")).expect("a record"), before);
}

#[tokio::test]
async fn the_salt_comes_back_from_any_record() {
    let (directory, acme) = sealed().await;
    let at = directory.path();
    fs::remove_dir_all(at.join("keys")).expect("lost");
    assert!(loads(at, &acme).await);
    assert!(!prepared(at, RIGHT), "no new salt");
    fs::create_dir(at.join("keys")).expect("made");
    fs::write(at.join("keys/laptop.json"), "{\"version\":1,").expect("cut");
    assert!(loads(at, &acme).await);
    fs::remove_dir_all(at.join("keys")).expect("lost");
    fs::remove_file(at.join("accounts/acme.json")).expect("lost too");
    let error = ring(at, RIGHT).expect_err("no salt");
    assert!(matches!(error, Error::Key(KeyError::NoKdf(_))), "{error}");
}

#[test]
fn a_salt_is_made_once_and_for_this_user_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    assert!(ring(at, RIGHT).is_err(), "nothing is made silently");
    assert!(prepared(at, RIGHT));
    let path = at.join("keys/laptop.json");
    let first = fs::read_to_string(&path).expect("parameters");
    assert!(!prepared(at, "another passphrase"));
    assert_eq!(fs::read_to_string(&path).expect("parameters"), first);
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(!first.contains(RIGHT));
    let other = tempfile::tempdir().expect("a directory");
    assert!(prepared(other.path(), RIGHT));
    let kdf = |at: &Path| known(&files(at), "laptop").expect("read").expect("known").kdf;
    assert_ne!(kdf(at), kdf(other.path()), "another store, another salt");
}

#[test]
fn parameters_that_cost_too_little_or_too_much_are_refused() {
    let salt = STANDARD.encode([1; SALT_BYTES]);
    let of = |memory_kib: u32, passes: u32, lanes: u32, salt: &str| KdfParameters {
        memory_kib,
        passes,
        lanes,
        salt: salt.to_owned(),
        check: String::new(),
    };
    assert!(of(MEMORY_KIB, PASSES, LANES, &salt).are_sane());
    for wrong in [
        of(1024, PASSES, LANES, &salt),
        of(u32::MAX, PASSES, LANES, &salt),
        of(MEMORY_KIB, 0, LANES, &salt),
        of(MEMORY_KIB, u32::MAX, LANES, &salt),
        of(MEMORY_KIB, PASSES, 0, &salt),
        of(MEMORY_KIB, PASSES, 1 << 24, &salt),
        of(MEMORY_KIB, PASSES, LANES, ""),
        of(MEMORY_KIB, PASSES, LANES, &STANDARD.encode([1; 8])),
    ] {
        assert!(!wrong.are_sane(), "{wrong:?}");
        let record = KeyRecord { check: String::new(), kdf: Some(wrong) };
        let directory = tempfile::tempdir().expect("a directory");
        let error = find(&files(directory.path()), "laptop", Ok(Some(record))).expect_err("no");
        assert!(matches!(error, Error::Key(KeyError::Damaged(_))), "{error}");
    }
}

#[test]
fn the_derivation_is_that_of_rfc_9106() {
    // Of the reference implementation:
    // echo -n 'correct horse battery staple' | argon2 saltsaltsaltsalt -id -t 3 -k 65536 -p 4 -l 32 -r
    let kdf = KdfParameters {
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
        salt: STANDARD.encode("saltsaltsaltsalt"),
        check: String::new(),
    };
    let derived = kdf.derive(&RIGHT.into());
    let hex: String = derived.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "a292bfd7695ec2bdb3e58a542ae7090945c04a290819837eaa3477bcbd9ef20a");
}
