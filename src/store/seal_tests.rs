//! Tests of sealing: what opens, and everything that must not.

use super::*;
use crate::{
    config,
    store::{Error, KeyError, KeyRing, backend::Memory},
};

const HOME: SealContext<'_> =
    SealContext { store: "s1", space: Space::Accounts, key: "acme", field: "grant" };

fn key(id: &str, byte: u8) -> config::EncryptionKey {
    config::EncryptionKey::new(id, Secret::new(STANDARD.encode([byte; 32])))
}

/// Without passphrases there is nothing to look for in a store.
fn opened(keys: Vec<config::EncryptionKey>) -> Result<KeyRing, Error> {
    KeyRing::fetch(&config::Encryption { keys }, &Memory::default())
}

fn ring(keys: &[config::EncryptionKey]) -> KeyRing {
    opened(keys.to_vec()).expect("a key ring")
}

fn rejection(keys: Vec<config::EncryptionKey>) -> KeyError {
    match opened(keys) {
        Err(Error::Key(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_sealed_opens_in_its_context() {
    let ring = ring(&[key("k1", 1)]);
    for space in &Space::ALL {
        for text in [&b""[..], b"x", &[0; 5000], "\u{1f600}".as_bytes()] {
            let context = SealContext { space: *space, ..HOME };
            let sealed = ring.first().seal(context, text).expect("seals");
            let opened = ring.open(context, "k1", &sealed).expect("opens");
            assert_eq!(&opened[..], text);
        }
    }
}

#[test]
fn what_was_moved_does_not_open() {
    // The second ring holds the same key bytes under another id, so only the id differs.
    let ring = ring(&[key("k1", 1), key("k2", 1), key("k3", 3)]);
    let sealed = ring.first().seal(HOME, b"CANARY").expect("seals");
    let moved = [
        ("account", SealContext { key: "other", ..HOME }, "k1", NotOpened::Altered),
        ("tenant", SealContext { key: "t~acme", ..HOME }, "k1", NotOpened::Altered),
        ("field", SealContext { field: "entry", ..HOME }, "k1", NotOpened::Altered),
        ("space", SealContext { space: Space::Login, ..HOME }, "k1", NotOpened::Altered),
        ("store", SealContext { store: "s2", ..HOME }, "k1", NotOpened::Altered),
        ("key id", HOME, "k2", NotOpened::Altered),
        ("key", HOME, "k3", NotOpened::Altered),
        ("no key", HOME, "k4", NotOpened::KeyMissing),
        ("empty key id", HOME, "", NotOpened::KeyMissing),
    ];
    for (what, context, key_id, expected) in moved {
        assert_eq!(ring.open(context, key_id, &sealed).map(|_| ()), Err(expected), "{what}");
    }
    ring.open(HOME, "k1", &sealed).expect("still opens at home");
}

#[test]
fn parts_of_a_context_do_not_run_into_each_other() {
    let ring = ring(&[key("k1", 1)]);
    let one = SealContext { key: "acme", field: "xgrant", ..HOME };
    let two = SealContext { key: "acmex", field: "grant", ..HOME };
    let sealed = ring.first().seal(one, b"text").expect("seals");
    assert_eq!(ring.open(two, "k1", &sealed).map(|_| ()), Err(NotOpened::Altered));
}

#[test]
fn no_text_opens_with_a_bit_flipped_cut_or_longer() {
    let (ring, context) = (ring(&[key("k1", 1)]), HOME);
    let bytes =
        STANDARD.decode(ring.first().seal(context, b"text").expect("seals")).expect("base64");
    let opens = |bytes: &[u8]| ring.open(context, "k1", &STANDARD.encode(bytes)).is_ok();
    assert!(opens(&bytes));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&flipped), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(!opens(&bytes[..length]), "cut to {length}");
    }
    assert!(!opens(&[&bytes[..], b"\0"].concat()));
    for text in ["", "=", "not base64!", "AAAA", "\u{e4}"] {
        assert!(ring.open(context, "k1", text).is_err(), "{text:?}");
    }
}

#[test]
fn the_first_key_seals_and_all_keys_open() {
    let context = HOME;
    let old = ring(&[key("old", 1)]);
    let sealed = old.first().seal(context, b"text").expect("seals");
    let both = ring(&[key("new", 2), key("old", 1)]);
    assert_eq!(both.sealing_key_id(), "new");
    both.open(context, "old", &sealed).expect("the old key opens");
    let again = both.first().seal(context, b"text").expect("seals");
    both.open(context, "new", &again).expect("the new key sealed it");
    assert_eq!(old.open(context, "new", &again).map(|_| ()), Err(NotOpened::KeyMissing));
}

#[test]
fn a_million_nonces_are_distinct() {
    let (ring, context) = (ring(&[key("k1", 1)]), HOME);
    let mut seen: Vec<[u8; 32]> = Vec::with_capacity(1_000_000);
    for _ in 0..1_000_000 {
        // 24 bytes are 32 characters of base64.
        let sealed = ring.first().seal(context, b"").expect("seals");
        seen.push(sealed.as_bytes()[..32].try_into().expect("32 characters"));
    }
    seen.sort_unstable();
    assert!(seen.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn key_rings_that_cannot_be_used_are_refused_with_the_reason() {
    let with_secret =
        |secret: &str| rejection(vec![config::EncryptionKey::new("k", secret.into())]);
    assert_eq!(rejection(vec![]), KeyError::None);
    assert_eq!(rejection(vec![key("k", 1), key("k", 2)]), KeyError::Duplicate("k".to_owned()));
    for id in ["", "a b", "a\n", "\u{e4}", &"k".repeat(65)] {
        assert_eq!(rejection(vec![key(id, 1)]), KeyError::Id(id.to_owned()));
    }
    let wrong = [String::new(), "CANARY".to_owned(), "!".repeat(44)];
    for secret in wrong.into_iter().chain([31, 33, 64].map(|n| STANDARD.encode(vec![1; n]))) {
        let error = with_secret(&secret);
        assert_eq!(error, KeyError::Material("k".to_owned()), "{secret}");
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }
}

#[test]
fn a_key_may_end_in_a_newline_and_lack_padding() {
    let padded = STANDARD.encode([1; 32]);
    let sealed = ring(&[key("k", 1)]).first().seal(HOME, b"x").expect("seals");
    for secret in [format!("{padded}\n"), format!(" {padded}\r\n"), padded.replace('=', "")] {
        let keys = [config::EncryptionKey::new("k", Secret::new(secret))];
        ring(&keys).open(HOME, "k", &sealed).expect("the same key");
    }
}

#[test]
fn fingerprints_are_stable_and_need_no_key() {
    let stored = fingerprint(&Secret::from("Atzr|CANARY"));
    assert_eq!(stored, fingerprint(&Secret::from("Atzr|CANARY")));
    assert_ne!(stored, fingerprint(&Secret::from("Atzr|CANARZ")));
    assert!(!stored.contains("CANARY"));
}

#[test]
fn the_key_that_others_have_too_seals() {
    let (new, old) = (key("new", 2), key("old", 1));
    let ring = ring(&[new, old]);
    let checks: Vec<_> =
        ring.keys().map(|key| (key.id.clone(), key.record.check.clone())).collect();
    let knows = |known: &[(String, String)]| {
        let known = known.to_vec();
        move |key: &Key| known.contains(&(key.id.clone(), key.record.check.clone()))
    };
    assert_eq!(ring.first_that(knows(&checks)).id, "new");
    assert_eq!(ring.first_that(knows(&checks[1..])).id, "old");
    assert_eq!(ring.first_that(knows(&[])).id, "new", "nothing better is known");
    // The same id with other bytes is another key.
    let mistaken = [("new".to_owned(), checks[1].1.clone()), checks[1].clone()];
    assert_eq!(ring.first_that(knows(&mistaken)).id, "old");
}

#[test]
fn debug_of_a_key_ring_shows_ids_only() {
    let shown = format!("{:?}", ring(&[key("k1", 0x41)]));
    assert!(shown.contains("k1"));
    assert!(!shown.contains("QUFB") && !shown.contains("AAAA") && !shown.contains("65, 65"));
}
