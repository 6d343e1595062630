//! Why a rule refuses a request: for operators, with the line of the configuration that would allow it.

use std::fmt;

/// Why a request is refused. For operators only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The key of the configuration that refuses it, or `path`.
    pub rule: &'static str,
    /// One clause.
    pub why: String,
    /// The line of the configuration that would allow it, if there is one.
    pub allow: Option<String>,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.why)?;
        self.allow.as_ref().map_or(Ok(()), |allow| write!(f, "; to allow it: {allow}"))
    }
}

/// Where `read_only` was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadOnlyBecause {
    Rule,
    Session,
}

impl ReadOnlyBecause {
    /// The denial of what `what` says, with what would allow it.
    pub(super) fn denial(self, what: &str) -> Denial {
        let (why, allow) = match self {
            Self::Rule => ("", Some("read_only = false".to_owned())),
            Self::Session => (", and the session was issued for reading only", None),
        };
        Denial { rule: "read_only", why: format!("{what}{why}"), allow }
    }
}

/// As a list of the configuration.
pub(super) fn list(texts: &[&str]) -> String {
    format!("{texts:?}")
}
