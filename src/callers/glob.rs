//! Patterns of names (of accounts, of tools) and of paths, where `*` is any text.

/// A pattern of names of accounts: `*` is any text and `?` one character, but neither is a `~`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AccountGlob(Box<str>);

/// A pattern of paths: `*` is any text, `/` included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathGlob(Box<str>);

impl AccountGlob {
    pub(super) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The one name that it matches, if it is one.
    pub(super) fn only_name(&self) -> Option<&str> {
        Some(&*self.0).filter(|name| !name.contains(['*', '?']))
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        matches_name(&self.0, name)
    }
}

impl PathGlob {
    pub(super) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        matches(self.0.as_bytes(), path.as_bytes(), false)
    }
}

/// Whether `pattern` describes all of `name`: `*` is any text and `?` one character, but neither is a
/// `~`.
pub(super) fn matches_name(pattern: &str, name: &str) -> bool {
    matches(pattern.as_bytes(), name.as_bytes(), true)
}

/// Whether `pattern` is all of `text`. Goes back to the last `*` only: what an earlier one could take
/// in addition, the last one can take as well.
fn matches(pattern: &[u8], text: &[u8], is_name: bool) -> bool {
    let takes = |byte: u8| !(is_name && byte == b'~');
    let (mut at, mut wanted, mut star) = (0, 0, None);
    while at < text.len() {
        match pattern.get(wanted) {
            Some(b'*') => {
                star = Some((wanted, at));
                wanted += 1;
            }
            Some(&byte) if byte == text[at] || byte == b'?' && is_name && takes(text[at]) => {
                (at, wanted) = (at + 1, wanted + 1);
            }
            _ => {
                let Some((place, taken)) = star.filter(|(_, taken)| takes(text[*taken])) else {
                    return false;
                };
                star = Some((place, taken + 1));
                (at, wanted) = (taken + 1, place + 1);
            }
        }
    }
    pattern[wanted..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character_of_a_name() {
        for (pattern, name, expected) in [
            ("acme", "acme", true),
            ("acme", "acme2", false),
            ("acme", "Acme", false),
            ("eu-*", "eu-", true),
            ("eu-*", "eu-west-1", true),
            ("eu-*", "us-eu-1", false),
            ("*-eu-*", "a-eu-b", true),
            ("*a*b*c", "xaxbxbxc", true),
            ("*a*b*c", "xaxbxbx", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "acme", true),
            ("**", "acme", true),
            ("", "acme", false),
            ("*", "", true),
            ("*?", "a", true),
        ] {
            assert_eq!(AccountGlob::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn no_pattern_of_a_name_crosses_into_a_tenant() {
        for pattern in ["*", "a*e", "*~*~*", "t?acme", "t1*acme", "?*", "**"] {
            assert!(!AccountGlob::new(pattern).matches("t1~acme"), "{pattern}");
            assert!(!AccountGlob::new(pattern).matches("t~acme"), "{pattern}");
        }
        for pattern in ["t1~*", "*~acme", "*~*", "t?~ac*"] {
            assert!(AccountGlob::new(pattern).matches("t1~acme"), "{pattern}");
        }
    }

    #[test]
    fn a_star_of_a_path_goes_over_slashes_and_nothing_else_is_special() {
        for (pattern, path, expected) in [
            ("/reporting/*", "/reporting/reports/1", true),
            ("/reporting/*", "/reporting", false),
            ("/reporting/*", "/reportingx/1", false),
            ("/sp/*/list", "/sp/campaigns/list", true),
            ("/sp/*/list", "/sp/list", false),
            ("/v2/profiles", "/V2/profiles", false),
            ("/a?c", "/abc", false),
            ("/a~*", "/a~b~c", true),
            ("*", "/anything", true),
        ] {
            assert_eq!(PathGlob::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_takes_no_time() {
        let (pattern, path) = ("*a".repeat(100) + "b", "a".repeat(8192));
        assert!(!PathGlob::new(&pattern).matches(&path));
    }
}
