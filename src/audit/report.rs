//! What a check of the log found, in words and as JSON.

use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt};

#[derive(Debug, Clone, Default)]
pub struct AuditReport {
    /// Lines that are entries.
    pub entries: u64,
    /// Its files, or its chains in a database.
    pub files: usize,
    /// What shows that another program than adsproxy changed the log, in its order.
    pub findings: Vec<LogFinding>,
    /// What is no sign of a change, but worth knowing.
    pub notes: Vec<LogFinding>,
    /// The keys that are needed to check it, by id.
    pub keys: BTreeSet<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct LogFinding {
    pub file: String,
    /// The line, counted from 1; 0 if it is about the file as a whole.
    pub line: u64,
    pub kind: &'static str,
    pub message: String,
}

impl AuditReport {
    /// Adds what was found in another part.
    pub(super) fn add(&mut self, other: Self) {
        self.entries += other.entries;
        self.files += other.files;
        self.findings.extend(other.findings);
        self.notes.extend(other.notes);
        self.keys.extend(other.keys);
    }

    /// Says whether the log is as adsproxy wrote it.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn to_json(&self) -> Value {
        json!({
            "v": 1,
            "clean": self.is_clean(),
            "entries": self.entries,
            "files": self.files,
            "findings": self.findings,
            "notes": self.notes,
            "keys": self.keys,
        })
    }
}

impl fmt::Display for LogFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}
