//! Signs webhooks after the Standard Webhooks specification: HMAC-SHA256, header `v1,<base64>`.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks> (spec 1.0.0).

use crate::secret::Secret;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// What a secret in the specification's form begins with; base64 follows.
const PREFIX: &str = "whsec_";

/// The value of `webhook-signature`: one signature per secret, separated by spaces, so that the
/// receiver may check with any while one is replaced.
///
/// `timestamp` is in seconds since 1970, the value of `webhook-timestamp`. A secret that is none is
/// left out: the configuration checks them.
pub(super) fn sign(secrets: &[Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    let signed = secrets.iter().filter_map(key_bytes).map(|bytes| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    });
    signed.collect::<Vec<_>>().join(" ")
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
        let secret = Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let signed = sign(&[secret], id, 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_and_a_raw_one_is_taken_as_it_stands() {
        let raw = Secret::from("a raw secret of some length");
        let both = [raw.clone(), Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
        let signed = sign(&both, "id", 1, b"x");
        let (first, second) = signed.split_once(' ').expect("two");
        assert_eq!(first, sign(&[raw], "id", 1, b"x"));
        assert!(second.starts_with("v1,") && second != first);
    }

    #[test]
    fn the_signature_is_about_id_time_and_body() {
        let sign = |id, timestamp, body| {
            sign(&[Secret::from("a raw secret of some length")], id, timestamp, body)
        };
        let signed = sign("id", 1, b"x");
        for other in [sign("ie", 1, b"x"), sign("id", 2, b"x"), sign("id", 1, b"y")] {
            assert_ne!(signed, other);
        }
    }
}
