//! Signs webhooks after the Standard Webhooks specification: HMAC-SHA256, header `v1,<base64>`.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks> (spec 1.0.0).

use crate::secret::Secret;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::fmt;
use zeroize::Zeroizing;

/// What a secret in the specification's form begins with; base64 follows.
const PREFIX: &str = "whsec_";

/// The keys of one receiver: all sign, so that it may check with any while one is replaced.
#[derive(Clone)]
pub struct Signer(Vec<hmac::Key>);

impl Signer {
    /// Takes secrets that were checked with `key_bytes`; one that is not is left out.
    pub fn new(secrets: &[Secret]) -> Self {
        let keys = secrets.iter().filter_map(key_bytes);
        Self(keys.map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes)).collect())
    }

    /// The value of `webhook-signature`: one signature per secret, separated by spaces.
    ///
    /// `timestamp` is in seconds since 1970, the value of `webhook-timestamp`.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signed = self.0.iter().map(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{timestamp}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        });
        signed.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} keys)", self.0.len())
    }
}

/// The key in `secret`: what the base64 behind `whsec_` says, else its very bytes. None if it
/// begins like the one and is not.
fn key_bytes(secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    match secret.expose().strip_prefix(PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).ok().map(Zeroizing::new),
        None => Some(Zeroizing::new(secret.expose().as_bytes().to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn signs_as_the_reference_libraries_do() {
        let signer = Signer::new(&[Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]);
        let signed =
            signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_and_a_raw_one_is_taken_as_it_stands() {
        let raw = Secret::from("a raw secret of some length");
        let both =
            Signer::new(&[raw.clone(), Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]);
        let signed = both.sign("id", 1, b"x");
        let (first, second) = signed.split_once(' ').expect("two");
        assert_eq!(first, Signer::new(&[raw]).sign("id", 1, b"x"));
        assert!(second.starts_with("v1,") && second != first);
    }

    #[test]
    fn the_signature_is_about_id_time_and_body() {
        let signer = Signer::new(&[Secret::from("a raw secret of some length")]);
        let signed = signer.sign("id", 1, b"x");
        for other in
            [signer.sign("ie", 1, b"x"), signer.sign("id", 2, b"x"), signer.sign("id", 1, b"y")]
        {
            assert_ne!(signed, other);
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let signer = Signer::new(&[Secret::from("CANARY-CANARY-CANARY-CANARY")]);
        assert_eq!(format!("{signer:?}"), "Signer(1 keys)");
    }
}
