//! Makes an alias of the name that an account has elsewhere: always the same of the same name.

use super::{fernet, rejection::Rejection};
use crate::id::AccountId;

/// Longer than any name that a person gave.
const NAME_MAX_CHARS: usize = 128;

/// What Amazon's tokens, client ids and secrets begin with, and Fernet's.
const SECRET_PREFIXES: [&str; 5] = ["Atza", "Atzr", "amzn1.", "eyJ", fernet::PREFIX];

/// The alias for `name`: the name itself if it is one, else with `-` for every run of other
/// characters, from the first letter or digit on, cut at the longest alias.
pub(super) fn alias(name: &str) -> Result<AccountId, Rejection> {
    if name.chars().count() > NAME_MAX_CHARS
        || SECRET_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    {
        return Err(Rejection::SecretName);
    }
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            text.push(c);
        } else if !text.ends_with('-') {
            text.push('-');
        }
    }
    let text = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let text = &text[..text.len().min(AccountId::MAX_LEN)];
    let text = if text == name { text } else { text.trim_end_matches('-') };
    text.parse().map_err(|_| Rejection::NoAlias)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_makes_one_alias() {
        for (name, expected) in [
            ("acme", "acme"),
            ("Acme-1.de_x-", "Acme-1.de_x-"),
            ("Acme GmbH & Co. KG", "Acme-GmbH-Co.-KG"),
            ("  (Acme)  ", "Acme"),
            ("Müller", "M-ller"),
            ("acme/de", "acme-de"),
            (&"x".repeat(70), &"x".repeat(64)),
        ] {
            assert_eq!(alias(name).expect("an alias").as_str(), expected, "{name}");
        }
    }

    #[test]
    fn what_makes_no_alias_or_is_a_secret_is_refused() {
        for name in ["", "---", "日本", " "] {
            assert_eq!(alias(name), Err(Rejection::NoAlias), "{name}");
        }
        for name in ["Atzr|x", "Atza|x", "amzn1.oa2-cs.v1.x", "gAAAAABx", &"x".repeat(129)] {
            assert_eq!(alias(name), Err(Rejection::SecretName), "{name}");
        }
    }
}
