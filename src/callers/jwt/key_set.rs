//! The keys that an issuer publishes, and the check of a signature by one of them.
//!
//! Source: RFC 7517 (JSON Web Key), RFC 7518 section 6.

use crate::config::JwtAlgorithm;
use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    crypto::verify,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// The largest document of an issuer's.
pub(super) const DOCUMENT_MAX_BYTES: usize = 256 * 1024;

const KEYS_MAX: usize = 100;

/// Why what an issuer publishes is not taken for its keys.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum KeySetError {
    #[error("it is no JSON object with a list `keys`")]
    Malformed,
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("none of its keys can check a signature by {0}")]
    NoneUsable(String),
}

/// The keys of one issuer that fit its algorithms.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<PublicKey>,
    /// Of the document, to notice a change.
    digest: Vec<u8>,
}

#[derive(Debug)]
struct PublicKey {
    id: Option<String>,
    /// Algorithms of the issuer's that it may be used with.
    algorithms: Vec<JwtAlgorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct JwkSetDocument {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JWK set. A key of a kind that we do not know is left out, and costs no other.
    pub(super) fn parse(document: &[u8], algorithms: &[JwtAlgorithm]) -> Result<Self, KeySetError> {
        let JwkSetDocument { keys } =
            serde_json::from_slice(document).map_err(|_| KeySetError::Malformed)?;
        if keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let keys = keys.into_iter().filter_map(|key| PublicKey::of(key, algorithms)).collect();
        let set = Self { keys, digest: digest(&SHA256, document).as_ref().to_vec() };
        if set.keys.is_empty() {
            let algorithms = algorithms.iter().map(|one| one.as_str()).collect::<Vec<_>>();
            return Err(KeySetError::NoneUsable(algorithms.join(", ")));
        }
        Ok(set)
    }

    /// Says whether `other` is made of the same document.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// Says whether `signature` is that of `message`; none without exactly one key to ask: of two,
    /// neither is known to be the one that was meant.
    pub(super) fn verify(
        &self,
        key_id: Option<&str>,
        algorithm: JwtAlgorithm,
        message: &str,
        signature: &str,
    ) -> Option<bool> {
        let mut fitting = self.keys.iter().filter(|key| {
            key.algorithms.contains(&algorithm)
                && key_id.is_none_or(|id| key.id.as_deref() == Some(id))
        });
        let (key, None) = (fitting.next()?, fitting.next()) else { return None };
        let is_right = verify(signature, message.as_bytes(), &key.key, of(algorithm));
        Some(is_right.unwrap_or(false))
    }
}

impl PublicKey {
    fn of(key: Value, algorithms: &[JwtAlgorithm]) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        let common = &jwk.common;
        let is_for_signatures =
            common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
                && common
                    .key_operations
                    .as_ref()
                    .is_none_or(|all| all.contains(&KeyOperations::Verify));
        let fits = |one: &JwtAlgorithm| {
            common.key_algorithm.is_none_or(|only| only == KeyAlgorithm::from(of(*one)))
                && is_kind(&jwk.algorithm, *one)
        };
        let algorithms: Vec<_> = algorithms.iter().copied().filter(fits).collect();
        if algorithms.is_empty() || !is_for_signatures {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithms, key })
    }
}

/// Says whether keys of this kind are those of `algorithm`.
fn is_kind(key: &AlgorithmParameters, algorithm: JwtAlgorithm) -> bool {
    use JwtAlgorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
    match (algorithm, key) {
        (Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512, AlgorithmParameters::RSA(_)) => true,
        (Es256, AlgorithmParameters::EllipticCurve(key)) => key.curve == EllipticCurve::P256,
        (Es384, AlgorithmParameters::EllipticCurve(key)) => key.curve == EllipticCurve::P384,
        (EdDsa, AlgorithmParameters::OctetKeyPair(key)) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    }
}

fn of(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Rs384 => Algorithm::RS384,
        JwtAlgorithm::Rs512 => Algorithm::RS512,
        JwtAlgorithm::Ps256 => Algorithm::PS256,
        JwtAlgorithm::Ps384 => Algorithm::PS384,
        JwtAlgorithm::Ps512 => Algorithm::PS512,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::Es384 => Algorithm::ES384,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

#[cfg(test)]
#[path = "key_set_tests.rs"]
mod tests;
