//! What a caller may do: pure functions of its configuration.

use crate::config::RulesConfig;

#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Globs over the names of accounts; none: all.
    accounts: Vec<Vec<Box<str>>>,
    read_only: bool,
}

impl Rules {
    pub fn new(config: &RulesConfig) -> Self {
        let all = Self { read_only: config.read_only, ..Self::default() };
        all.narrowed(config.accounts.as_deref(), false)
    }

    /// These, and only what `accounts` and `read_only` allow beside them.
    pub fn narrowed(&self, accounts: Option<&[String]>, read_only: bool) -> Self {
        let mut narrowed = self.clone();
        let globs = |globs: &[String]| globs.iter().map(|glob| glob.as_str().into()).collect();
        narrowed.accounts.extend(accounts.map(globs));
        narrowed.read_only |= read_only;
        narrowed
    }

    /// Whether it may use the account that it calls `name`.
    pub fn sees(&self, name: &str) -> bool {
        self.accounts.iter().all(|globs| globs.iter().any(|glob| matches(glob, name)))
    }

    /// The only account that the rules can allow, if they name one.
    pub fn only_account(&self) -> Option<&str> {
        let single = self.accounts.iter().find_map(|globs| match globs.as_slice() {
            [glob] if !glob.contains(['*', '?']) => Some(&**glob),
            _ => None,
        });
        single.filter(|name| self.sees(name))
    }
}

/// Whether `glob` describes `text`: `*` is any text without `~`, `?` one such character.
fn matches(glob: &str, text: &str) -> bool {
    let (mut glob, mut text) = (glob.as_bytes(), text.as_bytes());
    // Where to go on once the last star has to take one character more.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (glob.split_first(), text.split_first()) {
            (Some((b'*', rest)), _) => {
                star = Some((rest, text));
                glob = rest;
            }
            (Some((one, rest)), Some((other, behind)))
                if one == other || (*one == b'?' && *other != b'~') =>
            {
                (glob, text) = (rest, behind);
            }
            (None, None) => return true,
            _ => match star {
                Some((rest, [one, behind @ ..])) if *one != b'~' => {
                    star = Some((rest, behind));
                    (glob, text) = (rest, behind);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_of_one_part_of_an_id() {
        for (glob, text, expected) in [
            ("acme", "acme", true),
            ("acme", "acme2", false),
            ("eu-*", "eu-shop", true),
            ("eu-*", "us-shop", false),
            ("*", "acme", true),
            ("*", "t1~acme", false),
            ("t1~*", "t1~acme", true),
            ("*~acme", "t1~acme", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdf", false),
            ("a?me", "acme", true),
            ("a?me", "a~me", false),
            ("", "", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }
}
