//! The report: a row for each record, and a bar while it runs. Shows no secret.

use super::{advice::Advice, record::ImportEntry};
use crate::{cli::table::table, grants::given::GivenOutcome};
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

/// What may become of a record: the variants of [`GivenOutcome`] in their order, or nothing.
const OUTCOMES: [&str; 5] = ["added", "replaced", "unchanged", "differs", "rejected"];

fn outcome_index(outcome: Option<GivenOutcome>) -> usize {
    outcome.map_or(OUTCOMES.len() - 1, |outcome| outcome as usize)
}

/// One record on its way, and its row in the report.
#[derive(Debug, Default, Serialize)]
pub(super) struct ImportRecord {
    pub(super) line: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) account: Option<String>,
    /// None: it is rejected, or not done yet.
    #[serde(serialize_with = "outcome_name")]
    pub(super) outcome: Option<GivenOutcome>,
    pub(super) region: Option<&'static str>,
    pub(super) application: Option<String>,
    pub(super) profile_id: Option<String>,
    #[serde(serialize_with = "some_text")]
    pub(super) note: String,
    /// Present until it is decided what becomes of the record.
    #[serde(skip)]
    pub(super) entry: Option<ImportEntry>,
}

fn outcome_name<S: serde::Serializer>(
    outcome: &Option<GivenOutcome>,
    to: S,
) -> Result<S::Ok, S::Error> {
    OUTCOMES[outcome_index(*outcome)].serialize(to)
}

fn some_text<S: serde::Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    Some(text).filter(|text| !text.is_empty()).serialize(to)
}

impl ImportRecord {
    pub(super) fn end(&mut self, outcome: Option<GivenOutcome>, note: String) {
        (self.outcome, self.note, self.entry) = (outcome, note, None);
    }

    fn cells(&self) -> [String; 5] {
        let name = self.name.as_deref().unwrap_or_default();
        let account = match &self.account {
            Some(account) if account != name => format!("{account} ({name:?})"),
            _ => name.to_owned(),
        };
        let line = self.line.map(|line| line.to_string()).unwrap_or_default();
        let outcome = OUTCOMES[outcome_index(self.outcome)].to_owned();
        [line, account, outcome, self.region.unwrap_or_default().to_owned(), self.note.clone()]
    }
}

pub(super) struct ImportReport {
    pub(super) records: Vec<ImportRecord>,
    pub(super) source: String,
    pub(super) dry_run: bool,
    pub(super) advice: Advice,
}

impl ImportReport {
    /// How many records became what.
    pub(super) fn counts(&self) -> [(&'static str, usize); 5] {
        let mut counts = OUTCOMES.map(|name| (name, 0));
        self.records.iter().for_each(|record| counts[outcome_index(record.outcome)].1 += 1);
        counts
    }

    pub(super) fn text(&self) -> String {
        let mut cells = vec![["LINE", "ACCOUNT", "OUTCOME", "REGION", "NOTE"].map(str::to_owned)];
        cells.extend(self.records.iter().map(ImportRecord::cells));
        table(&cells)
    }

    /// What goes to standard error beside the table.
    pub(super) fn remarks(&self) -> String {
        let Advice { notes, tables } = &self.advice;
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
            "notes": self.advice.notes,
            "configuration": self.advice.tables.join("\n"),
        });
        format!("{document:#}\n")
    }
}

/// How far the work is, on a terminal's standard error. Cleared away when dropped.
pub(super) struct Progress {
    done: usize,
    /// 0: it is not shown.
    total: usize,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self { done: 0, total: if io::stderr().is_terminal() { total } else { 0 } }
    }

    pub(super) fn step(&mut self) {
        self.done += 1;
        if self.total > 0 {
            let Self { done, total } = self;
            let bar = "#".repeat(*done * BAR_WIDTH / *total);
            // A terminal that went away is no reason to stop.
            let _ = write!(io::stderr(), "\r[{bar:<BAR_WIDTH$}] {done}/{total}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.total > 0 {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
