//! Tests of keys made of a passphrase: what opens again, and what must be there for it.

use super::*;
use crate::{
    config::{Encryption, EncryptionKey, Material},
    id::AccountId,
    store::{
        CredentialStore as _, FileStore,
        seal::{KeyRing, NotOpened},
        tests::credential,
    },
};
use std::os::unix::fs::PermissionsExt as _;

const RIGHT: &str = "correct horse battery staple";

fn ring(directory: &Path, passphrase: &str) -> Result<KeyRing, Error> {
    let material = Material::Passphrase(passphrase.into());
    let keys = vec![EncryptionKey { id: "laptop".to_owned(), material }];
    KeyRing::fetch(&Encryption { keys }, directory)
}

fn store(directory: &Path, passphrase: &str) -> FileStore {
    FileStore::open(directory, ring(directory, passphrase).expect("a ring")).expect("opens")
}

/// A store with a record of `acme`.
async fn sealed() -> (tempfile::TempDir, AccountId) {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(prepare(directory.path(), "laptop", &RIGHT.into()).expect("prepared"));
    let acme = credential("acme");
    store(directory.path(), RIGHT).save(&acme).await.expect("saves");
    (directory, acme.account)
}

#[tokio::test]
async fn the_passphrase_opens_what_it_sealed() {
    let (directory, acme) = sealed().await;
    let loaded = store(directory.path(), RIGHT).load(&acme).await.expect("loads");
    assert_eq!(loaded, Some(credential("acme")));
}

#[tokio::test]
async fn a_wrong_passphrase_seals_nothing_and_what_it_should_open_stays_sealed() {
    const WRONG: &str = "correct horse battery stable";
    let (directory, acme) = sealed().await;
    let at = directory.path();
    let before = fs::read(at.join("accounts/acme.json")).expect("a record");
    let error = ring(at, WRONG).expect_err("it would seal with it");
    assert!(matches!(error, Error::Key(KeyError::WrongPassphrase(_))), "{error}");
    // Behind another key it only opens nothing.
    let file = EncryptionKey::new("file", super::super::generate_key().expect("a key"));
    let laptop =
        EncryptionKey { id: "laptop".to_owned(), material: Material::Passphrase(WRONG.into()) };
    let ring = KeyRing::fetch(&Encryption { keys: vec![file, laptop] }, at).expect("a ring");
    assert_eq!(ring.lacks("laptop"), Some(NotOpened::WrongPassphrase));
    let store = FileStore::open(at, ring).expect("opens");
    match store.load(&acme).await.expect_err("the wrong passphrase") {
        Error::Sealed { cause, key_id, .. } => {
            assert_eq!((cause, key_id.as_str()), (NotOpened::WrongPassphrase, "laptop"));
        }
        other => panic!("{other}"),
    }
    store.save(&credential("globex")).await.expect("the first key seals");
    assert_eq!(fs::read(at.join("accounts/acme.json")).expect("a record"), before);
}

#[tokio::test]
async fn the_salt_comes_back_from_any_record() {
    let (directory, acme) = sealed().await;
    let at = directory.path();
    fs::remove_dir_all(at.join("keys")).expect("lost");
    assert_eq!(store(at, RIGHT).load(&acme).await.expect("loads"), Some(credential("acme")));
    assert!(!prepare(at, "laptop", &RIGHT.into()).expect("is there"), "no new salt");
    fs::remove_file(at.join("accounts/acme.json")).expect("lost too");
    let error = ring(at, RIGHT).expect_err("no salt");
    assert!(matches!(error, Error::Key(KeyError::NoRecipe(_))), "{error}");
}

#[test]
fn a_salt_is_made_once_and_for_this_user_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    assert!(ring(at, RIGHT).is_err(), "nothing is made silently");
    assert!(prepare(at, "laptop", &RIGHT.into()).expect("made"));
    let path = path(at, "laptop");
    let first = fs::read_to_string(&path).expect("a recipe");
    assert!(!prepare(at, "laptop", &"another passphrase".into()).expect("left"));
    assert_eq!(fs::read_to_string(&path).expect("a recipe"), first);
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(!first.contains(RIGHT));
    let other = tempfile::tempdir().expect("a directory");
    prepare(other.path(), "laptop", &RIGHT.into()).expect("made");
    let (_, second) = find(other.path(), "laptop").expect("found");
    assert_ne!(first.trim(), second, "another store, another salt");
}

#[test]
fn recipes_that_cost_too_little_or_too_much_are_refused() {
    let recipe = |memory: u32, passes: u32, lanes: u32, salt: &str| {
        format!(
            "{{\"version\":1,\"memory_kib\":{memory},\"passes\":{passes},\"lanes\":{lanes},\
             \"salt\":\"{salt}\",\"check\":\"\"}}"
        )
    };
    let salt = STANDARD.encode([1; SALT_BYTES]);
    assert!(Recipe::parse(&recipe(MEMORY_KIB, PASSES, LANES, &salt)).is_some());
    for wrong in [
        recipe(1024, PASSES, LANES, &salt),
        recipe(u32::MAX, PASSES, LANES, &salt),
        recipe(MEMORY_KIB, 0, LANES, &salt),
        recipe(MEMORY_KIB, u32::MAX, LANES, &salt),
        recipe(MEMORY_KIB, PASSES, 0, &salt),
        recipe(MEMORY_KIB, PASSES, 1 << 24, &salt),
        recipe(MEMORY_KIB, PASSES, LANES, ""),
        recipe(MEMORY_KIB, PASSES, LANES, &STANDARD.encode([1; 8])),
        recipe(MEMORY_KIB, PASSES, LANES, &salt).replace(":1,", ":2,"),
        String::new(),
    ] {
        assert!(Recipe::parse(&wrong).is_none(), "{wrong}");
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("keys")).expect("made");
        fs::write(path(directory.path(), "laptop"), &wrong).expect("written");
        let error = ring(directory.path(), RIGHT).expect_err("damaged");
        assert!(matches!(error, Error::Key(KeyError::Recipe(_))), "{error}");
    }
}

#[test]
fn the_derivation_is_that_of_rfc_9106() {
    // Of the reference implementation:
    // echo -n 'correct horse battery staple' | argon2 saltsaltsaltsalt -id -t 3 -k 65536 -p 4 -l 32 -r
    let recipe = Recipe {
        version: 1,
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: LANES,
        salt: STANDARD.encode("saltsaltsaltsalt"),
        check: String::new(),
    };
    let derived = recipe.derive(&RIGHT.into());
    let hex: String = derived.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "a292bfd7695ec2bdb3e58a542ae7090945c04a290819837eaa3477bcbd9ef20a");
}
