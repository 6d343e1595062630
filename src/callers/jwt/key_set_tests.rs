//! Which keys of a set are used, and for what.

use super::*;
use crate::callers::jwt::samples::{Signer, claims, ec, ed, other_rsa, published, rsa, with};
use serde_json::json;

const ALL: &[JwtAlgorithm] = &JwtAlgorithm::ALL;

fn is_signed(keys: &KeySet, id: Option<&str>, by: JwtAlgorithm, token: &str) -> Option<bool> {
    let (message, signature) = token.rsplit_once('.').unwrap();
    keys.verify(id, by, message, signature)
}

fn set(keys: &[&Value]) -> KeySet {
    KeySet::parse(&published(keys), ALL).unwrap()
}

fn signed(signer: &Signer) -> String {
    signer.token(&claims())
}

#[test]
fn each_kind_of_key_checks_its_own_signatures() {
    let (ec, ed) = (ec(), ed());
    let keys = set(&[&rsa().jwk, &ec.jwk, &ed.jwk]);
    for (signer, algorithm) in
        [(rsa(), JwtAlgorithm::Rs256), (&ec, JwtAlgorithm::Es256), (&ed, JwtAlgorithm::EdDsa)]
    {
        let token = signed(signer);
        assert_eq!(is_signed(&keys, Some(signer.id), algorithm, &token), Some(true));
        assert_eq!(is_signed(&keys, None, algorithm, &token), Some(true), "the only one");
        let changed = token.replacen('.', "x.", 1);
        assert_eq!(is_signed(&keys, Some(signer.id), algorithm, &changed), Some(false));
        assert_eq!(is_signed(&keys, Some("unknown"), algorithm, &token), None);
    }
}

#[test]
fn a_key_is_used_with_no_algorithm_but_its_own() {
    let keys = set(&[&rsa().jwk]);
    let token = signed(rsa());
    // The key says RS256.
    for algorithm in [JwtAlgorithm::Rs512, JwtAlgorithm::Ps256, JwtAlgorithm::Es256] {
        assert_eq!(is_signed(&keys, Some("rsa"), algorithm, &token), None);
    }
    let only = KeySet::parse(&published(&[&rsa().jwk]), &[JwtAlgorithm::Es256]);
    assert_eq!(only.unwrap_err(), KeySetError::NoneUsable("ES256".to_owned()));
    let open = set(&[&with(rsa().jwk.clone(), "alg", json!(null))]);
    assert_eq!(is_signed(&open, Some("rsa"), JwtAlgorithm::Rs256, &token), Some(true));
    assert_eq!(is_signed(&open, Some("rsa"), JwtAlgorithm::Ps256, &token), Some(false));
}

#[test]
fn of_two_keys_with_one_id_neither_is_used() {
    let twin = with(other_rsa().jwk.clone(), "kid", json!("rsa"));
    let keys = set(&[&rsa().jwk, &twin]);
    assert_eq!(is_signed(&keys, Some("rsa"), JwtAlgorithm::Rs256, &signed(rsa())), None);
    let keys = set(&[&rsa().jwk, &other_rsa().jwk]);
    assert_eq!(is_signed(&keys, None, JwtAlgorithm::Rs256, &signed(rsa())), None);
}

#[test]
fn keys_for_other_uses_and_unknown_kinds_are_left_out() {
    let encryption = with(rsa().jwk.clone(), "use", json!("enc"));
    let signing = with(rsa().jwk.clone(), "key_ops", json!(["sign"]));
    let secret = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "rsa" });
    let strange = json!({ "kty": "new", "kid": "rsa" });
    let broken = json!("rsa");
    for key in [&encryption, &signing, &secret, &strange, &broken] {
        let alone = KeySet::parse(&published(&[key]), ALL);
        assert!(matches!(alone, Err(KeySetError::NoneUsable(_))), "{key}");
        let keys = set(&[key, &other_rsa().jwk]);
        let token = signed(other_rsa());
        assert_eq!(is_signed(&keys, Some("other"), JwtAlgorithm::Rs256, &token), Some(true));
    }
}

#[test]
fn what_is_no_key_set_is_refused() {
    for text in ["", "{}", "[]", "{\"keys\":{}}", "<html>"] {
        assert_eq!(KeySet::parse(text.as_bytes(), ALL).unwrap_err(), KeySetError::Malformed);
    }
    let many = vec![&rsa().jwk; 101];
    assert_eq!(KeySet::parse(&published(&many), ALL).unwrap_err(), KeySetError::TooMany);
}
