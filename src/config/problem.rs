//! One thing wrong with the configuration, shown with its line and without secrets.

use super::secret_ref::MASK;
use std::{fmt, path::PathBuf};

/// One thing wrong with the configuration.
#[derive(Debug, Clone)]
pub struct ConfigProblem {
    /// Where it is.
    pub place: Provenance,
    /// What is wrong; never holds a secret.
    pub message: String,
    /// What to do about it, one or more lines.
    pub help: Option<String>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provenance {
    /// A place in the configuration file.
    Line(Excerpt),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
    /// No place of its own: something is absent. Holds the file, if there is one.
    Whole(Option<PathBuf>),
}

/// A place in a file, and its line with secrets masked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Excerpt {
    /// The file.
    pub path: PathBuf,
    /// Counts from 1.
    pub line: usize,
    /// Counts characters from 1, in the file as it is.
    pub column: usize,
    text: String,
    caret: usize,
    width: usize,
}

impl Excerpt {
    /// Cuts the line around `span` (bytes of `source`) out of `source`. `sensitive` says that the
    /// value there is meant to be a secret.
    pub(crate) fn new(
        path: PathBuf,
        source: &str,
        span: std::ops::Range<usize>,
        sensitive: bool,
    ) -> Self {
        let start = floor_char_boundary(source, span.start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        let end = floor_char_boundary(source, span.end).clamp(start, line_end);
        let line = source[line_start..line_end].trim_end_matches('\r');
        let first = source[line_start..start].chars().count();
        let last = source[line_start..end].chars().count();

        let mut chars: Vec<char> = line.chars().collect();
        if sensitive || belongs_to_a_secret(&source[..line_start], line) {
            hide_values(&mut chars);
        }
        hide_userinfo(&mut chars);
        let shown = |until: usize| masked(&chars[..until.min(chars.len())]);
        let (caret, until) = (shown(first).chars().count(), shown(last).chars().count());
        Self {
            path,
            line: source[..line_start].matches('\n').count() + 1,
            column: first + 1,
            text: shown(chars.len()),
            caret,
            width: until.saturating_sub(caret).max(1),
        }
    }
}

fn floor_char_boundary(source: &str, at: usize) -> usize {
    (0..=at.min(source.len())).rev().find(|&at| source.is_char_boundary(at)).unwrap_or(0)
}

/// Says whether the value on `line` is likely to be a secret, by the key on it or, inside a list
/// or a long string, by the last key above it.
fn belongs_to_a_secret(above: &str, line: &str) -> bool {
    let has_key = |line: &&str| line.contains('=') || line.trim_start().starts_with('[');
    let owner = if has_key(&line) { Some(line) } else { above.lines().rev().find(has_key) };
    owner.is_some_and(|line| is_secret_name(line) && line.contains('='))
}

/// Says whether `name` sounds like something that holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace("token_url", "");
    let words = ["secret", "token", "password", "passphrase", "credential", "bearer"];
    words.iter().chain(&["atza|", "atzr|", "amzn1.oa2-cs"]).any(|word| name.contains(word))
}

/// Stands for a character that must not be shown.
const HIDDEN: char = char::MAX;

/// Each run of hidden characters is one mask.
fn masked(chars: &[char]) -> String {
    let runs = chars.chunk_by(|a, b| (*a == HIDDEN) == (*b == HIDDEN));
    runs.map(|run| if run[0] == HIDDEN { MASK.to_owned() } else { run.iter().collect() }).collect()
}

/// Hides the value of a line; of tables and lists only the strings, and not those that name a
/// variable or a file.
fn hide_values(chars: &mut [char]) {
    let value = chars.iter().position(|&c| c == '=').map_or(0, |at| at + 1);
    let Some(first) = (value..chars.len()).find(|&at| !chars[at].is_whitespace()) else { return };
    let has_strings = chars[first..].iter().any(|c| matches!(c, '"' | '\''));
    if !matches!(chars[first], '{' | '[') || !has_strings {
        chars[first..].fill(HIDDEN);
        return;
    }
    let mut next = first;
    while let Some(at) = (next..chars.len()).find(|&at| matches!(chars[at], '"' | '\'')) {
        let is_end = |&end: &usize| chars[end] == chars[at];
        let end = (at + 1..chars.len()).find(is_end).unwrap_or(chars.len());
        let before: String = chars[..at].iter().filter(|c| !c.is_whitespace()).collect();
        if !["env=", "file=", "id="].iter().any(|name| before.ends_with(name)) {
            chars[at + 1..end].fill(HIDDEN);
        }
        next = end + 1;
    }
}

/// Hides the user name and password of a URL.
fn hide_userinfo(chars: &mut [char]) {
    for at in 0..chars.len().saturating_sub(2) {
        if chars[at..at + 3] == [':', '/', '/'] {
            let start = at + 3;
            let authority = chars[start..].iter().take_while(|c| !"/\"' ".contains(**c)).count();
            let host = chars[start..start + authority].iter().rposition(|&c| c == '@');
            chars[start..start + host.unwrap_or(0)].fill(HIDDEN);
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Provenance::Line(at) => {
                write!(f, "{}:{}:{}: ", at.path.display(), at.line, at.column)?;
            }
            Provenance::Variable(name) => write!(f, "environment variable {name}: ")?,
            Provenance::Flag(flag) => write!(f, "{flag}: ")?,
            Provenance::Whole(Some(path)) => write!(f, "{}: ", path.display())?,
            Provenance::Whole(None) => {}
        }
        f.write_str(&self.message)?;
        if let Provenance::Line(at) = &self.place {
            let number = at.line.to_string();
            let gutter = " ".repeat(number.len());
            // Tabs are kept, so that the caret is below the value on a terminal.
            let keep_tab = |c| if c == '\t' { c } else { ' ' };
            let indent: String = at.text.chars().take(at.caret).map(keep_tab).collect();
            write!(f, "\n{gutter} |\n{number} | {}", at.text)?;
            write!(f, "\n{gutter} | {indent}{}", "^".repeat(at.width))?;
        }
        for (index, line) in self.help.iter().flat_map(|help| help.lines()).enumerate() {
            write!(f, "\n{} {line}", if index == 0 { "  =" } else { "   " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str, part: &str, sensitive: bool) -> String {
        let start = source.rfind(part).unwrap();
        let span = start..start + part.len();
        let place = Provenance::Line(Excerpt::new("p.toml".into(), source, span, sensitive));
        ConfigProblem { place, message: "wrong".into(), help: None }.to_string()
    }

    #[test]
    fn shows_line_column_and_a_caret_under_the_value() {
        let text = shown("[listen]\nädmin = \"here\"\n", "\"here\"", false);
        assert_eq!(text, "p.toml:2:9: wrong\n  |\n2 | ädmin = \"here\"\n  |         ^^^^^^",);
    }

    #[test]
    fn stays_inside_the_line_and_the_file() {
        let text = shown("a = [\n1,\n2]", "[\n1,\n2]", false);
        assert!(text.ends_with("1 | a = [\n  |     ^"), "{text}");
        let at_end = Excerpt::new("p".into(), "a = 1\n", 6..9, false);
        assert_eq!((at_end.line, at_end.column), (2, 1));
        let empty = Excerpt::new("p".into(), "", 0..0, false);
        assert_eq!((empty.line, empty.column, empty.width), (1, 1, 1));
    }

    #[test]
    fn shows_no_part_of_a_secret() {
        for (source, part) in [
            ("client_secret = \"CANARY\"", "\"CANARY\""),
            ("client_secret = CANARY", "CANARY"),
            ("client_secret = 'CANARY", "'CANARY"),
            ("client_secret = [\n  \"CANARY\",\n]", "\"CANARY\""),
            ("client_secret = [\"CANARY\", { env = \"A\" }]", "\"CANARY\""),
            ("client_secret = { env = \"A\", value = \"CANARY\" }", "value"),
            ("refresh_tokn = \"Atzr|CANARY\"", "refresh_tokn"),
            ("what_is_this = \"Atzr|CANARY\"", "what_is_this"),
            ("my_password = \"CANARY\"", "my_password"),
            ("na = \"https://me:CANARY@host/\"", "\"https://me:CANARY@host/\""),
        ] {
            let text = shown(source, part, false);
            assert!(!text.contains("CANARY") && text.contains("***"), "{text}");
            assert!(text.contains('^'), "{text}");
        }
        assert!(!shown("x = \"CANARY\"", "\"CANARY\"", true).contains("CANARY"));
    }

    #[test]
    fn shows_what_is_no_secret() {
        for source in [
            "client_secret = { env = \"NAME\" }",
            "secret = { file = '/path' }",
            "token_url = \"ftp://NAME\"",
            "[token]",
            "na = \"https://host/@NAME\"",
        ] {
            assert!(shown(source, source, false).contains(source), "{source}");
        }
    }

    #[test]
    fn help_follows_line_by_line() {
        let problem = ConfigProblem {
            place: Provenance::Variable("ADSPROXY_A__B".into()),
            message: "wrong".into(),
            help: Some("add:\n[listen]".into()),
        };
        let expected = "environment variable ADSPROXY_A__B: wrong\n  = add:\n    [listen]";
        assert_eq!(problem.to_string(), expected);
    }
}
