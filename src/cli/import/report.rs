//! The report: a row for each record, and a bar while it runs. Shows no secret.

use super::record::ImportEntry;
use crate::cli::table::table_of;
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write as _},
};

/// The form of the JSON report.
const VERSION: u32 = 1;
/// Tables for the configuration that are shown to a person.
const TABLES_MAX: usize = 10;
const BAR_WIDTH: usize = 40;

/// What may become of a record: the variants of [`crate::grants::given::GivenOutcome`] in their
/// order, or nothing.
pub(super) const OUTCOMES: [&str; 5] = ["added", "replaced", "unchanged", "differs", REJECTED];
/// Also of a record that is not done yet.
pub(super) const REJECTED: &str = "rejected";

/// One record on its way, and its row in the report.
#[derive(Debug, Default, Serialize)]
pub(super) struct ImportRecord {
    pub(super) line: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) account: Option<String>,
    /// One of [`OUTCOMES`].
    pub(super) outcome: &'static str,
    pub(super) region: Option<&'static str>,
    pub(super) application: Option<String>,
    pub(super) profile_id: Option<String>,
    #[serde(serialize_with = "some_text")]
    pub(super) note: String,
    /// Present until it is decided what becomes of the record.
    #[serde(skip)]
    pub(super) entry: Option<ImportEntry>,
}

fn some_text<S: serde::Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    Some(text).filter(|text| !text.is_empty()).serialize(to)
}

impl ImportRecord {
    pub(super) fn end(&mut self, outcome: &'static str, note: String) {
        (self.outcome, self.note, self.entry) = (outcome, note, None);
    }

    /// The name, or the account that is made of it, for a table.
    fn title(&self) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        match &self.account {
            Some(account) if account != name => format!("{account} ({name:?})"),
            _ => name.to_owned(),
        }
    }
}

pub(super) struct ImportReport {
    pub(super) records: Vec<ImportRecord>,
    pub(super) source: String,
    pub(super) dry_run: bool,
    /// What is left to do by hand: whole sentences without a full stop.
    pub(super) notes: Vec<String>,
    /// Tables for the configuration, one for each thing.
    pub(super) tables: Vec<String>,
}

impl ImportReport {
    /// How many records became what.
    pub(super) fn counts(&self) -> [(&'static str, usize); 5] {
        OUTCOMES.map(|name| (name, self.records.iter().filter(|one| one.outcome == name).count()))
    }

    pub(super) fn text(&self) -> String {
        let rows = self.records.iter().map(|record| {
            let mut row = json!(record);
            row["account"] = record.title().into();
            row
        });
        table_of(["line", "account", "outcome", "region", "note"], &rows.collect::<Vec<_>>())
    }

    /// What goes to standard error beside the table.
    pub(super) fn remarks(&self) -> String {
        let Self { notes, tables, .. } = self;
        let mut text: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
        if !tables.is_empty() {
            let shown = tables[..tables.len().min(TABLES_MAX)].join("\n");
            text += &format!("\nAdd to the configuration:\n\n{shown}\n");
        }
        if tables.len() > TABLES_MAX {
            let more = tables.len() - TABLES_MAX;
            text += &format!("# … and {more} more; `--json` has all of them\n\n");
        }
        text
    }

    /// The last line on standard error.
    pub(super) fn sum(&self) -> String {
        let counts = self.counts().into_iter().filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts.map(|(name, count)| format!("{count} {name}")).collect();
        let prefix = if self.dry_run { "dry run, nothing was changed: " } else { "" };
        prefix.to_owned() + &counts.join(", ")
    }

    pub(super) fn json(&self) -> String {
        let document = json!({
            "version": VERSION,
            "source": self.source,
            "dry_run": self.dry_run,
            "summary": BTreeMap::from(self.counts()),
            "records": self.records,
            "notes": self.notes,
            "configuration": self.tables.join("\n"),
        });
        format!("{document:#}\n")
    }
}

/// Shows on a terminal's standard error how far the work is.
pub(super) fn show_progress(done: usize, total: usize) {
    let bar = "#".repeat(done * BAR_WIDTH / total);
    overwrite(&format!("[{bar:<BAR_WIDTH$}] {done}/{total}"));
}

/// Replaces the line that the cursor is in.
pub(super) fn overwrite(line: &str) {
    if io::stderr().is_terminal() {
        // A terminal that went away is no reason to stop.
        let _ = write!(io::stderr(), "\r{line}\x1b[K");
    }
}
