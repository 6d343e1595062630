//! Fuzz targets of JWTs: their parts, what claims must say, and the keys that an issuer publishes.

use super::{
    IdTokenRules,
    claims::{verify, verify_id_token},
    key_set::KeySet,
    token::UnverifiedToken,
};
use crate::{
    callers::json,
    config::{IssuerConfig, JwtAlgorithm},
    fuzz::{Target, text},
    secret::Secret,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

pub const TARGETS: &[Target] = &[
    Target { name: "jwt", run: jwt, seeds: TOKENS },
    Target { name: "jwt_keys", run: keys, seeds: KEY_SETS },
];

/// 2026-11-20 00:00 UTC.
const NOW: u64 = 1_795_132_800;

/// Header and claims on a line each, or a whole token.
const TOKENS: &[&str] = &[
    "{\"alg\":\"RS256\",\"kid\":\"k1\",\"typ\":\"JWT\"}\n{\"iss\":\"https://i.test\",\"sub\":\"user_1\",\
     \"aud\":\"adsproxy\",\"iat\":1795132800,\"exp\":1795132860,\"sid\":\"s\",\"o\":{\"id\":\"org_1\"}}",
    "{\"alg\":\"none\",\"typ\":\"application/at+jwt\",\"crit\":[]}\n{\"azp\":\"client\",\"aud\":[\"client\",\"b\"],\
     \"nonce\":\"n\",\"auth_time\":1795132800,\"nbf\":0,\"exp\":1795132860,\"sub\":\"op\",\"sts\":\"pending\"}",
    "{\"alg\":\"ES256\",\"\\u0061lg\":\"none\"}\n{\"aud\":\"client\",\"nonce\":\"n\",\"exp\":9999999999,\"sub\":\"a\",\
     \"org_id\":\"t1\",\"o.id\":\"t2\"}",
    "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
];

/// The parts are those of the token, no member comes twice, and whose claims are accepted has a name
/// that can stand in a log, and has not expired.
fn jwt(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let token = match text.split_once('\n') {
        Some((header, claims)) => {
            let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
            format!("{header}.{claims}.c2ln")
        }
        None => text.to_owned(),
    };
    let Ok(parsed) = UnverifiedToken::parse(&token) else { return };
    assert_eq!(format!("{}.{}", parsed.message, parsed.signature), token);
    assert_eq!(parsed.message.matches('.').count(), 1);
    let rules = IdTokenRules {
        issuer: "https://i.test",
        client_id: "client",
        nonce: &Secret::from("n"),
        authenticated_since: Some(NOW),
        operators: &["op".to_owned()],
    };
    let issuer = IssuerConfig {
        name: "i".to_owned(),
        issuer: "https://i.test".to_owned(),
        audience: vec!["adsproxy".to_owned()],
        tenants: Some(vec!["org_*".to_owned(), "t?".to_owned()]),
        ..IssuerConfig::default()
    };
    let of_credential = verify(&parsed.claims, &issuer, NOW);
    let of_sign_in = verify_id_token(&parsed.claims, &issuer, &rules, NOW);
    for bearer in [of_credential, of_sign_in].into_iter().flatten() {
        assert!(bearer.expires > NOW);
        for name in [Some(bearer.subject), bearer.session].into_iter().flatten() {
            assert!((1..=255).contains(&name.len()) && !name.contains(char::is_control));
        }
        let tenant = bearer.tenant.as_ref().map(|tenant| tenant.as_str());
        assert!(tenant.is_none_or(|it| it.starts_with("org_") || it.len() == 2), "{tenant:?}");
    }
    for claims in token.split('.').take(2).filter_map(|part| URL_SAFE_NO_PAD.decode(part).ok()) {
        let read = json::object(&claims).expect("an object, as before");
        assert_eq!(serde_json::from_slice::<Value>(&claims).ok(), Some(Value::Object(read)));
    }
}

const KEY_SETS: &[&str] = &[
    "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"a\",\"use\":\"sig\",\"alg\":\"ES256\",\
     \"x\":\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\",\"y\":\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\"}]}",
    "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"0vx7agoebGcQ\",\"e\":\"AQAB\",\"key_ops\":[\"verify\"]},{\"kty\":\"x\"}]}",
    "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}",
];

/// No key that is published takes what its owner has not signed.
fn keys(input: &[u8]) {
    // As `Issuers` do.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let Ok(set) = KeySet::parse(input, &JwtAlgorithm::ALL) else { return };
    assert!(KeySet::parse(input, &JwtAlgorithm::ALL).is_ok_and(|again| again.is_same(&set)));
    for algorithm in JwtAlgorithm::ALL {
        let is_right = set.verify(None, algorithm, "e30.e30", "c2ln");
        assert!(is_right != Some(true), "{algorithm:?}");
    }
}
