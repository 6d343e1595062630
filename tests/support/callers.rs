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
}
