//! Tests of who is there: the living are seen with their keys, the dead are not.

use super::*;
use crate::{config, secret::Secret};
use base64::{Engine as _, engine::general_purpose::STANDARD};

fn ring(keys: &[(&str, u8)]) -> KeyRing {
    let secret = |byte| Secret::new(STANDARD.encode([byte; 32]));
    let keys = keys.iter().map(|&(id, byte)| config::EncryptionKey::new(id, secret(byte)));
    let encryption = config::Encryption { keys: keys.collect() };
    KeyRing::fetch(&encryption, Path::new("/nowhere")).expect("a key ring")
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory.join(DIRECTORY)).expect("a directory").count()
}

#[test]
fn who_lives_is_seen_and_who_has_ended_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    assert!(living(at).expect("lists").is_empty(), "nobody was ever there");
    let (old, new) = (ring(&[("old", 1)]), ring(&[("new", 2), ("old", 1)]));
    let one = announce(at, &old).expect("announced");
    let two = announce(at, &new).expect("announced");
    let found = living(at).expect("lists");
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|process| process.pid == std::process::id()));
    let knows_new = |ring: &KeyRing| {
        let (id, check) = ring.checks().next().expect("a key");
        living(at).expect("lists").iter().filter(|process| process.has(id, check)).count()
    };
    assert_eq!((knows_new(&new), knows_new(&old)), (1, 2));
    drop(one);
    assert_eq!(living(at).expect("lists").len(), 1);
    drop(two);
    assert_eq!((living(at).expect("lists").len(), files(at)), (0, 0));
}

#[test]
fn what_a_crash_left_is_cleared_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let presence = announce(at, &ring(&[("k", 1)])).expect("announced");
    let left = presence.path.with_file_name("7-left");
    fs::copy(&presence.path, &left).expect("copied");
    fs::write(presence.path.with_file_name("8-cut"), "{").expect("written");
    assert_eq!(living(at).expect("lists").len(), 1);
    assert_eq!(files(at), 1);
    let text = fs::read_to_string(&presence.path).expect("text");
    assert!(!text.contains(&STANDARD.encode([1; 32])), "{text}");
}

#[test]
fn the_key_seals_that_all_have() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let new = ring(&[("new", 2), ("old", 1)]);
    let sealing = || common(at, &new).sealing_key_id().to_owned();
    assert_eq!(sealing(), "new", "alone");
    let _this = announce(at, &new).expect("announced");
    let other = announce(at, &ring(&[("old", 1)])).expect("announced");
    assert_eq!(sealing(), "old");
    drop(other);
    assert_eq!(sealing(), "new");
    let _mistaken = announce(at, &ring(&[("new", 3), ("old", 1)])).expect("announced");
    assert_eq!(sealing(), "old", "the same id is not the same key");
}
