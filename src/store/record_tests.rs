//! Tests of the record format: round trips, and that no alteration goes unnoticed.

use super::*;
use crate::{
    config,
    store::tests::{credential, credentials},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::path::Path;

fn ring(id: &str, byte: u8) -> KeyRing {
    let secret = Secret::new(STANDARD.encode([byte; 32]));
    let keys = vec![config::EncryptionKey::new(id, secret)];
    KeyRing::fetch(&config::Encryption { keys }, Path::new("/nowhere")).expect("a key ring")
}

fn parsed(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).expect("JSON")
}

fn text_of(value: &serde_json::Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

#[test]
fn every_credential_comes_back_as_it_was() {
    let ring = ring("k1", 1);
    for kept in credentials() {
        let text = encode(&kept, &ring).expect("seals");
        assert_eq!(decode(&kept.account, &text, &ring).expect("opens"), kept);
    }
}

#[test]
fn a_record_written_by_the_first_version_still_opens() {
    let kept = credential("acme");
    let opened = decode(&kept.account, include_bytes!("record_v1.json"), &ring("k1", 1));
    assert_eq!(opened.expect("opens"), kept);
}

#[test]
fn no_bit_of_a_record_flips_unnoticed() {
    let (ring, kept) = (ring("k1", 1), credential("acme"));
    let text = encode(&kept, &ring).expect("seals");
    for bit in 0..text.len() * 8 {
        let mut flipped = text.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = decode(&kept.account, &flipped, &ring).expect_err("flipped");
        assert!(matches!(error, Error::Sealed { .. } | Error::Corrupt { .. }), "{bit}: {error}");
    }
}

#[test]
fn no_cut_record_opens() {
    let (ring, kept) = (ring("k1", 1), credential("acme"));
    let text = encode(&kept, &ring).expect("seals");
    // Without the last newline it is still whole.
    for length in 0..text.len() - 1 {
        decode(&kept.account, &text[..length], &ring).expect_err("cut");
    }
}

#[test]
fn no_field_can_be_changed_removed_or_added() {
    let (ring, kept) = (ring("k1", 1), credential("acme"));
    let record = parsed(&encode(&kept, &ring).expect("seals"));
    let refused = |what: &str, changed: &serde_json::Value| {
        decode(&kept.account, &text_of(changed), &ring).expect_err(what)
    };
    decode(&kept.account, &text_of(&record), &ring).expect("opens in another layout");
    for name in record.as_object().expect("an object").keys() {
        let mut changed = record.clone();
        changed[name] = serde_json::Value::Null;
        refused(name, &changed);
        changed.as_object_mut().expect("an object").remove(name);
        refused(name, &changed);
    }
    let replacements: [(&str, serde_json::Value); 7] = [
        ("region", "na".into()),
        ("application", "other".into()),
        ("generation", 6.into()),
        ("reauthorization_required", true.into()),
        ("updated_at", 0.into()),
        ("seed", "k1:AAAA".into()),
        ("mac", "".into()),
    ];
    for (name, value) in replacements {
        let mut changed = record.clone();
        changed[name] = value;
        assert!(refused(name, &changed).is_sealed(), "{name}");
    }
    let mut changed = record.clone();
    changed["more"] = 1.into();
    assert!(matches!(refused("more", &changed), Error::Corrupt { .. }));
}

#[test]
fn no_field_can_be_taken_from_another_record_or_an_older_one() {
    let ring = ring("k1", 1);
    let (acme, other) = (credential("acme"), credential("other"));
    let older = parsed(&encode(&acme, &ring).expect("seals"));
    let newer = parsed(&encode(&acme, &ring).expect("seals"));
    let foreign = parsed(&encode(&other, &ring).expect("seals"));
    for name in ["refresh_token", "previous_refresh_token", "access_token", "mac"] {
        for source in [&older, &foreign] {
            let mut mixed = newer.clone();
            mixed[name] = source[name].clone();
            let error = decode(&acme.account, &text_of(&mixed), &ring).expect_err(name);
            assert!(error.is_sealed(), "{name}: {error}");
        }
    }
    // Whole records do not change places either, whether or not the name in them is made to fit.
    let moved = decode(&acme.account, &text_of(&foreign), &ring).expect_err("moved");
    assert!(matches!(moved, Error::Corrupt { cause: Damage::OtherAccount, .. }), "{moved}");
    let mut renamed = foreign;
    renamed["account"] = "acme".into();
    assert!(decode(&acme.account, &text_of(&renamed), &ring).expect_err("renamed").is_sealed());
}

#[test]
fn a_wrong_or_missing_key_is_named() {
    let kept = credential("acme");
    let text = encode(&kept, &ring("k1", 1)).expect("seals");
    for (ring, expected) in
        [(ring("k1", 2), NotOpened::Refused), (ring("k2", 1), NotOpened::KeyMissing)]
    {
        match decode(&kept.account, &text, &ring).expect_err("the wrong key") {
            Error::Sealed { account, key_id, cause } => {
                assert_eq!(
                    (account, key_id.as_str(), cause),
                    (kept.account.clone(), "k1", expected)
                );
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_is_no_record_is_called_damaged_and_not_quoted() {
    let (ring, acme) = (ring("k1", 1), credential("acme").account);
    let damage = |text: &[u8]| match decode(&acme, text, &ring).expect_err("no record") {
        Error::Corrupt { cause, .. } => {
            assert!(!format!("{cause} {cause:?}").contains("CANARY"));
            cause
        }
        other => panic!("{other}"),
    };
    for text in [&b""[..], b"\0\0\0", b"{}", b"[]", b"null", b"\xff", b"{\"version\":\"CANARY\"}"] {
        assert!(matches!(damage(text), Damage::Syntax { .. }));
    }
    for text in [&b"{\"version\":1,\"CANARY\":2}"[..], b"{\"version\":1,\"version\":1}"] {
        assert!(matches!(damage(text), Damage::Syntax { .. }));
    }
    assert_eq!(damage(b"{\"version\":2,\"other\":[]}"), Damage::Version(2));
    assert_eq!(damage(&vec![b' '; MAX_BYTES + 1]), Damage::TooLong);
}

#[test]
fn nothing_in_a_record_can_be_read_without_the_key() {
    let kept = credential("acme");
    let text = encode(&kept, &ring("k1", 1)).expect("seals");
    let text = String::from_utf8(text).expect("text");
    let access = kept.access_token.expect("one is kept").token;
    for secret in [kept.refresh_token, kept.previous_refresh_token.expect("one"), access] {
        assert!(!text.contains(secret.expose()) && !text.contains("CANARY"));
        for offset in 0..3 {
            // Base64 of a text depends on where it stands by thirds; whole groups show anywhere.
            let rest = &secret.expose().as_bytes()[offset..];
            let groups = STANDARD.encode(&rest[..rest.len() / 3 * 3]);
            assert!(groups.len() > 16 && !text.contains(&groups));
        }
    }
}
