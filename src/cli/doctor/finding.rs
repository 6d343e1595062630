//! What the doctor found: one line each, and how to fix it.

use crate::cli::table::plain;
use serde_json::{Value, json};

/// Of the JSON; it goes up when a field changes its meaning or goes away.
const VERSION: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Ok,
    /// Not looked at.
    Skipped,
    Warning,
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Skipped => "\x1b[2m",
            Self::Warning => "\x1b[33m",
            Self::Error => "\x1b[31m",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) text: String,
    pub(super) fix: Option<String>,
    /// What the command exits with if nothing else is wrong.
    code: u8,
}

impl Finding {
    fn new(check: &'static str, level: Level, text: impl Into<String>) -> Self {
        Self { check, level, text: text.into(), fix: None, code: 1 }
    }

    pub(super) fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, text)
    }

    pub(super) fn skipped(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Level::Skipped, text)
    }

    pub(super) fn warning(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Level::Warning, text)
    }

    pub(super) fn error(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(check, Level::Error, text)
    }

    pub(super) fn fix(self, how: impl Into<String>) -> Self {
        Self { fix: Some(how.into()), ..self }
    }

    pub(super) fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

/// Everything that was found, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Finding>);

impl Report {
    pub(super) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings);
    }

    pub(super) fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    pub(super) fn has_error(&self, check: &str) -> bool {
        self.0.iter().any(|finding| finding.check == check && finding.level == Level::Error)
    }

    /// The exit code that all errors have in common, else 1.
    pub(super) fn exit_code(&self) -> u8 {
        let mut errors = self.0.iter().filter(|finding| finding.level == Level::Error);
        let Some(first) = errors.next() else { return 0 };
        if errors.all(|error| error.code == first.code) { first.code } else { 1 }
    }

    pub(super) fn json(&self) -> String {
        let findings: Vec<Value> = self
            .0
            .iter()
            .map(|finding| {
                json!({
                    "check": finding.check,
                    "level": finding.level.as_str(),
                    "text": finding.text,
                    "mend": finding.fix,
                })
            })
            .collect();
        let ok = self.count(Level::Error) == 0;
        format!("{:#}\n", json!({ "version": VERSION, "ok": ok, "findings": findings }))
    }

    pub(super) fn text(&self, coloured: bool) -> String {
        let width = self.0.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Finding { check, level, text: found, fix, .. } in &self.0 {
            let word = format!("{:7}", level.as_str());
            let (on, off) = if coloured { (level.colour(), "\x1b[0m") } else { ("", "") };
            // A text of several lines stands under itself.
            let indent = format!("\n{:1$}", "", 7 + 2 + width + 2);
            let lines = |text: &str| text.lines().map(plain_line).collect::<Vec<_>>().join(&indent);
            text.push_str(&format!("{on}{word}{off}  {check:width$}  {}", lines(found)));
            if let Some(fix) = fix {
                text.push_str(&format!("{indent}-> {}", lines(fix)));
            }
            text.push('\n');
        }
        text
    }
}

/// An empty line stays empty.
fn plain_line(line: &str) -> String {
    if line.is_empty() { String::new() } else { plain(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report(vec![
            Finding::ok("config", "fine"),
            Finding::error("egress", "two\nlines\u{1b}[2J").fix("do this"),
        ])
    }

    #[test]
    fn lines_stand_under_each_other_and_control_characters_stay_away() {
        let expected = "\
ok       config  fine
error    egress  two
                 lines\u{fffd}[2J
                 -> do this
";
        assert_eq!(report().text(false), expected);
        let coloured = report().text(true);
        assert!(coloured.starts_with("\x1b[32mok     \x1b[0m  config"), "{coloured:?}");
    }

    #[test]
    fn the_exit_code_tells_what_is_wrong_if_it_is_one_kind_of_thing() {
        let dead = || Finding::error("grant", "dead").code(77);
        let of = |findings: Vec<Finding>| Report(findings).exit_code();
        assert_eq!(of(vec![Finding::ok("config", "fine"), Finding::warning("port", "odd")]), 0);
        assert_eq!(of(vec![dead(), Finding::ok("config", "fine"), dead()]), 77);
        assert_eq!(of(vec![dead(), Finding::error("store", "full")]), 1);
        assert_eq!(of(vec![Finding::error("store", "full")]), 1);
    }

    #[test]
    fn json_says_whether_all_is_well() {
        let json: Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["findings"][1]["mend"], "do this");
        let fine = Report(vec![Finding::warning("config", "odd")]);
        assert_eq!(serde_json::from_str::<Value>(&fine.json()).unwrap()["ok"], true);
    }
}
