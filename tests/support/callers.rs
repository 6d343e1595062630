//! Callers with keys: what the configuration says of them, and what they send.

use adsproxy::testing::{KeyKind, NewKey};
use std::sync::LazyLock;

/// An operator that every proxy of the tests knows, unless it is set up without.
pub static OPERATOR: LazyLock<TestCaller> =
    LazyLock::new(|| TestCaller::new("tests", "operator = true"));

/// A caller of the configuration and its key.
pub struct TestCaller {
    pub key: String,
    /// Its table.
    pub toml: String,
}

impl TestCaller {
    /// A caller named `name`, with `more` keys of its table.
    pub fn new(name: &str, more: &str) -> Self {
        let key = NewKey::generate(KeyKind::Caller).expect("a key");
        let presented = key.presented();
        let toml = format!(
            "\n[[callers]]\nname = \"{name}\"\n\
             keys = [{{ id = \"{}\", sha256 = \"{}\" }}]\n{more}\n",
            presented.id,
            presented.digest().hex(),
        );
        Self { key: key.expose().to_owned(), toml }
    }

    /// The header line with the key.
    pub fn line(&self) -> String {
        format!("X-Ads-Key: {}\r\n", self.key)
    }

    /// The same id and a right checksum, with another secret.
    pub fn other_secret(&self) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut key = format!("{}{}", &self.key[..13], "x".repeat(32));
        let mut rest = crc32fast::hash(key.as_bytes());
        let mut sum = [0; 6];
        for digit in sum.iter_mut().rev() {
            *digit = DIGITS[rest as usize % 62];
            rest /= 62;
        }
        key.extend(sum.map(char::from));
        assert!(adsproxy::testing::PresentedKey::parse(&key).is_ok());
        key
    }
}
