//! An issuer of JWTs with a key of its own, in a file.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

pub struct TestIssuer {
    key: EncodingKey,
    url: String,
    /// Its table.
    pub toml: String,
    _dir: TempDir,
}

impl TestIssuer {
    /// An issuer with `more` keys of its table.
    pub fn new(more: &str) -> Self {
        Self::named("app", more)
    }

    /// One of several.
    pub fn named(name: &str, more: &str) -> Self {
        let pair =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(pair.expect("a key").as_ref());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = "k1".into();
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("jwks.json");
        fs::write(&file, json!({ "keys": [jwk] }).to_string()).expect("a file");
        let url = format!("https://{name}.example.com");
        let toml = format!(
            "\n[[issuers]]\nname = \"{name}\"\nissuer = \"{url}\"\n\
             jwks = {{ file = {file:?} }}\nalgorithms = [\"ES256\"]\naudience = [\"adsproxy\"]\n{more}\n"
        );
        Self { key, url, toml, _dir: dir }
    }

    /// A good token with `claims`.
    pub fn token(&self, claims: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let mut all = json!({
            "iss": self.url, "aud": "adsproxy", "iat": now, "exp": now + 600,
        });
        let Value::Object(claims) = claims else { panic!("no claims") };
        all.as_object_mut().expect("claims").extend(claims);
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &all, &self.key).expect("a token")
    }
}
