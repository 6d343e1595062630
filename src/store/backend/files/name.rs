//! Keys as file names.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'~').remove(b'-');

/// A key as a file name: what is no letter, digit or one of `._~-` is percent-encoded, and so is
/// a dot at the beginning.
pub(in crate::store::backend) fn encode(key: &str) -> String {
    let name = utf8_percent_encode(key, ENCODED).to_string();
    name.strip_prefix('.').map(|rest| format!("%2E{rest}")).unwrap_or(name)
}

/// The key whose file is called `name`; none if it is no name that [`encode`] makes.
pub(in crate::store::backend) fn decode(name: &str) -> Option<String> {
    let key = percent_decode_str(name).decode_utf8().ok()?.into_owned();
    (encode(&key) == name).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_name_of_its_own_that_is_no_path() {
        for (key, name) in [
            ("acme", "acme"),
            ("tenant~acme.eu-1_x", "tenant~acme.eu-1_x"),
            (".hidden", "%2Ehidden"),
            ("..", "%2E."),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
            ("100%", "100%25"),
            ("k:2026/11 é", "k%3A2026%2F11%20%C3%A9"),
        ] {
            assert_eq!(encode(key), name);
            assert_eq!(decode(name).as_deref(), Some(key));
        }
        for foreign in [".acme", "a%2", "a%zz", "a%61", "a b", "%FF"] {
            assert_eq!(decode(foreign), None, "{foreign}");
        }
    }
}
