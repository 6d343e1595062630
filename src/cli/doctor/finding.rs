//! What the doctor found: one line each, and how to fix it.

use crate::cli::table::plain;
use serde::Serialize;
use serde_json::json;

/// Of the JSON; it goes up when a field changes its meaning or goes away.
const VERSION: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    /// Not checked.
    Skipped,
    Warning,
    Error,
}

impl Level {
    /// The word, and the escape sequence of its colour.
    fn shown(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("ok", "\x1b[32m"),
            Self::Skipped => ("skipped", "\x1b[2m"),
            Self::Warning => ("warning", "\x1b[33m"),
            Self::Error => ("error", "\x1b[31m"),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    pub(super) level: Level,
    pub(super) text: String,
    /// Of every warning and error.
    pub(super) fix: Option<String>,
    /// What the command exits with if nothing else is wrong.
    #[serde(skip)]
    code: u8,
}

impl Finding {
    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, text: text.into(), fix: None, code: 1 }
    }

    pub(super) fn skipped(check: &'static str, text: &str) -> Self {
        Self { level: Level::Skipped, ..Self::ok(check, text) }
    }

    pub(super) fn warning(
        check: &'static str,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, fix: Some(fix.into()), ..Self::ok(check, text) }
    }

    pub(super) fn error(
        check: &'static str,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { level: Level::Error, ..Self::warning(check, text, fix) }
    }

    pub(super) fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

pub(super) fn errors(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.level == Level::Error)
}

/// The exit code that all errors have in common, else 1.
pub(super) fn exit_code(findings: &[Finding]) -> u8 {
    let first = errors(findings).next().map_or(0, |error| error.code);
    if errors(findings).all(|error| error.code == first) { first } else { 1 }
}

pub(super) fn json(findings: &[Finding]) -> String {
    let ok = errors(findings).next().is_none();
    format!("{:#}\n", json!({ "version": VERSION, "ok": ok, "findings": findings }))
}

pub(super) fn text(findings: &[Finding], coloured: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    // A text of several lines is indented as one block.
    let indent = format!("\n{:1$}", "", 7 + 2 + width + 2);
    let lines = |text: &str| {
        let shown =
            text.lines().map(|line| if line.is_empty() { line.into() } else { plain(line) });
        shown.collect::<Vec<_>>().join(&indent)
    };
    let mut text = String::new();
    for Finding { check, level, text: found, fix, .. } in findings {
        let (word, colour) = level.shown();
        let (on, off) = if coloured { (colour, "\x1b[0m") } else { ("", "") };
        text.push_str(&format!("{on}{word:7}{off}  {check:width$}  {}", lines(found)));
        if let Some(fix) = fix {
            text.push_str(&format!("{indent}-> {}", lines(fix)));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("config", "fine"),
            Finding::error("egress", "two\nlines\u{1b}[2J", "do this"),
        ]
    }

    #[test]
    fn lines_stand_under_each_other_and_control_characters_stay_away() {
        let expected = "\
ok       config  fine
error    egress  two
                 lines\u{fffd}[2J
                 -> do this
";
        assert_eq!(text(&findings(), false), expected);
        let coloured = text(&findings(), true);
        assert!(coloured.starts_with("\x1b[32mok     \x1b[0m  config"), "{coloured:?}");
    }

    #[test]
    fn the_exit_code_is_that_of_all_errors_if_they_share_one() {
        let dead = || Finding::error("grant", "dead", "login").code(77);
        let full = || Finding::error("store", "full", "make room");
        let (fine, odd) = (Finding::ok("config", "fine"), Finding::warning("port", "odd", "look"));
        assert_eq!(exit_code(&[fine.clone(), odd]), 0);
        assert_eq!(exit_code(&[dead(), fine, dead()]), 77);
        assert_eq!(exit_code(&[dead(), full()]), 1);
        assert_eq!(exit_code(&[full()]), 1);
    }

    #[test]
    fn json_says_whether_all_is_well() {
        let shown: Value = serde_json::from_str(&json(&findings())).unwrap();
        assert_eq!(shown["ok"], false);
        assert_eq!(shown["findings"][1]["fix"], "do this");
        assert_eq!(shown["findings"][1]["level"], "error");
        let fine = json(&[Finding::warning("config", "odd", "look")]);
        assert_eq!(serde_json::from_str::<Value>(&fine).unwrap()["ok"], true);
    }
}
