//! Keys as file names.

/// A key as a file name: what is no letter, digit or one of `._~-` is percent-encoded, and so is
/// a dot at the beginning.
pub(super) fn encode(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for (at, byte) in key.bytes().enumerate() {
        match byte {
            b'.' if at == 0 => name.push_str("%2E"),
            b'.' | b'_' | b'~' | b'-' => name.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

/// The key whose file is called `name`; none if it is no name that [`encode`] makes.
pub(super) fn decode(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let (hex, after) = rest.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|key| encode(key) == name)
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
