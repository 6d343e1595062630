//! Keys and tokens for the tests of this module.

use crate::config::{IssuerConfig, JwtAlgorithm};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign, jwk::Jwk};
use serde_json::{Value, json};
use std::sync::OnceLock;

/// 2026-11-20 00:00 UTC: where a manual clock stands.
pub(super) const NOW: u64 = 1_795_132_800;

pub(super) const ISSUER: &str = "https://clerk.example.com";

/// One who signs.
pub(super) struct Signer {
    pub(super) id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    pub(super) jwk: Value,
}

impl Signer {
    fn new(id: &'static str, algorithm: Algorithm, key: EncodingKey) -> Self {
        let jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = id.into();
        Self { id, algorithm, key, jwk }
    }

    pub(super) fn header(&self) -> Value {
        json!({ "alg": format!("{:?}", self.algorithm), "kid": self.id, "typ": "JWT" })
    }

    /// Signs `claims` under a usual header.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    /// Signs any texts.
    pub(super) fn sign(&self, header: &str, claims: &str) -> String {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = format!("{header}.{claims}");
        let signature = sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

fn generated(id: &'static str) -> Signer {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    // Behind 26 bytes that say what it is, PKCS #8 holds the PKCS #1 that the library wants.
    Signer::new(id, Algorithm::RS256, EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..]))
}

/// One pair for all tests: it takes a while to make.
pub(super) fn rsa() -> &'static Signer {
    static KEY: OnceLock<Signer> = OnceLock::new();
    KEY.get_or_init(|| generated("rsa"))
}

pub(super) fn other_rsa() -> &'static Signer {
    static KEY: OnceLock<Signer> = OnceLock::new();
    KEY.get_or_init(|| generated("other"))
}

pub(super) fn ec() -> Signer {
    let pair = rcgen::KeyPair::generate().unwrap();
    Signer::new("ec", Algorithm::ES256, EncodingKey::from_ec_der(&pair.serialize_der()))
}

pub(super) fn ed() -> Signer {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let der = pair.serialize_der();
    // The library signs with version 1 of PKCS #8, without the public key behind it.
    let seed = &der[16..48];
    let mut v1 = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    v1.extend_from_slice(seed);
    Signer::new("ed", Algorithm::EdDSA, EncodingKey::from_ed_der(&v1))
}

/// A JWK set.
pub(super) fn published(keys: &[&Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

/// An issuer whose tokens are for `adsproxy`.
pub(super) fn issuer() -> IssuerConfig {
    IssuerConfig {
        name: "clerk".to_owned(),
        issuer: ISSUER.to_owned(),
        audience: vec!["adsproxy".to_owned()],
        ..IssuerConfig::default()
    }
}

/// An issuer whose tokens are those of sessions at Clerk.
pub(super) fn clerk() -> IssuerConfig {
    let authorized_parties = vec!["https://app.example.com".to_owned()];
    IssuerConfig { audience: Vec::new(), authorized_parties, ..issuer() }
}

pub(super) fn algorithms(config: IssuerConfig, algorithms: &[JwtAlgorithm]) -> IssuerConfig {
    IssuerConfig { algorithms: algorithms.to_vec(), ..config }
}

/// Good claims for [`issuer`].
pub(super) fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "user_1", "aud": "adsproxy", "iat": NOW, "exp": NOW + 60 })
}

/// What Clerk says of a session, version 2: 60 seconds, an active organisation.
pub(super) fn clerk_claims() -> Value {
    json!({
        "azp": "https://app.example.com", "exp": NOW + 60, "fva": [5, -1], "iat": NOW,
        "iss": ISSUER, "jti": "e1", "nbf": NOW - 10,
        "o": { "id": "org_1", "rol": "admin", "slg": "acme" },
        "sid": "sess_1", "sts": "active", "sub": "user_1", "v": 2
    })
}

/// `claims` with `name` as `value`; null removes it.
pub(super) fn with(mut claims: Value, name: &str, value: Value) -> Value {
    let members = claims.as_object_mut().unwrap();
    match value {
        Value::Null => drop(members.remove(name)),
        value => drop(members.insert(name.to_owned(), value)),
    }
    claims
}
