//! What became of every record, for people and for programs. Holds no secret.

use super::{
    apply::Applied,
    entry::{Entry, Rejected},
    hints::Hints,
    rejection::Rejection,
};
use crate::cli::table::table;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The form of the JSON report.
const VERSION: u32 = 1;
const REJECTED: &str = "rejected";
/// In the order in which they are counted out.
const OUTCOMES: [&str; 5] = ["added", "replaced", "unchanged", "differs", REJECTED];

/// What became of one record.
#[derive(Debug)]
pub(super) struct Row {
    line: Option<usize>,
    name: Option<String>,
    account: Option<String>,
    outcome: &'static str,
    region: Option<&'static str>,
    application: Option<String>,
    profile_id: Option<String>,
    note: String,
}

impl Row {
    pub(super) fn of_rejected(rejected: &Rejected) -> Self {
        Self {
            line: rejected.line,
            name: rejected.name.clone(),
            account: None,
            outcome: REJECTED,
            region: None,
            application: None,
            profile_id: None,
            note: rejected.why.to_string(),
        }
    }

    pub(super) fn of_refused(entry: &Entry, why: &Rejection) -> Self {
        Self { outcome: REJECTED, note: why.to_string(), ..Self::of(entry) }
    }

    pub(super) fn of_applied(entry: &Entry, applied: &Applied) -> Self {
        let mut note = applied.notes.join(", ");
        if applied.outcome.as_str() == "differs" {
            note.push_str("; kept, --replace would take it");
        }
        Self {
            outcome: applied.outcome.as_str(),
            region: Some(applied.region.as_str()),
            application: Some(applied.application.clone()),
            note,
            ..Self::of(entry)
        }
    }

    /// A record that says the same as one before it.
    pub(super) fn of_same(entry: &Entry, other: &Entry) -> Self {
        let place = other.line.map(|line| format!("as line {line} says"));
        Self { outcome: "unchanged", note: place.unwrap_or_default(), ..Self::of(entry) }
    }

    pub(super) fn is_rejected(&self) -> bool {
        self.outcome == REJECTED
    }

    pub(super) fn is_change(&self) -> bool {
        matches!(self.outcome, "added" | "replaced")
    }

    fn of(entry: &Entry) -> Self {
        Self {
            line: entry.line,
            name: Some(entry.name.clone()),
            account: Some(entry.alias.to_string()),
            outcome: REJECTED,
            region: None,
            application: None,
            profile_id: entry.profile_id.clone(),
            note: String::new(),
        }
    }

    fn cells(&self) -> [String; 5] {
        let name = self.name.as_deref().unwrap_or_default();
        let account = match &self.account {
            Some(account) if account == name => account.clone(),
            Some(account) => format!("{account} ({name:?})"),
            None => name.to_owned(),
        };
        [
            self.line.map(|line| line.to_string()).unwrap_or_default(),
            account,
            self.outcome.to_owned(),
            self.region.unwrap_or_default().to_owned(),
            self.note.clone(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "line": self.line,
            "name": self.name,
            "account": self.account,
            "outcome": self.outcome,
            "region": self.region,
            "application": self.application,
            "profile_id": self.profile_id,
            "note": Some(&self.note).filter(|note| !note.is_empty()),
        })
    }
}

/// How often each thing became of a record.
fn counts(rows: &[Row]) -> BTreeMap<&'static str, usize> {
    let mut counts: BTreeMap<_, _> = OUTCOMES.iter().map(|outcome| (*outcome, 0)).collect();
    for row in rows {
        *counts.entry(row.outcome).or_default() += 1;
    }
    counts
}

/// One line that sums up.
pub(super) fn summary(rows: &[Row], dry_run: bool) -> String {
    let counts = counts(rows);
    let parts = OUTCOMES.iter().filter(|outcome| counts[**outcome] > 0);
    let parts: Vec<String> =
        parts.map(|outcome| format!("{} {outcome}", counts[outcome])).collect();
    let prefix = if dry_run { "dry run, nothing was changed: " } else { "" };
    format!("{prefix}{}", parts.join(", "))
}

/// The rows as a table.
pub(super) fn text(rows: &[Row]) -> String {
    let mut cells = vec![["LINE", "ACCOUNT", "OUTCOME", "REGION", "NOTE"].map(str::to_owned)];
    cells.extend(rows.iter().map(Row::cells));
    table(&cells)
}

/// Everything as JSON.
pub(super) fn document(rows: &[Row], hints: &Hints, source: &str, dry_run: bool) -> String {
    let document = json!({
        "version": VERSION,
        "source": source,
        "dry_run": dry_run,
        "summary": counts(rows),
        "records": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "notes": hints.notes,
        "configuration": hints.configuration(usize::MAX),
    });
    format!("{document:#}\n")
}
