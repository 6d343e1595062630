//! What a check of the log found, in words and as JSON.

use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt, path::PathBuf};

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct AuditReport {
    /// Lines that are entries.
    pub entries: u64,
    /// Files they are in.
    pub files: usize,
    /// What shows that another program than adsproxy changed the log, in its order.
    pub findings: Vec<LogFinding>,
    /// What is no sign of a change, but worth knowing.
    pub notes: Vec<LogFinding>,
    /// The keys that are needed to check it, by id.
    pub keys: BTreeSet<String>,
}

impl AuditReport {
    /// Says whether the log is as adsproxy wrote it.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn to_json(&self) -> Value {
        let all = |found: &[LogFinding]| found.iter().map(LogFinding::to_json).collect::<Value>();
        json!({
            "v": 1,
            "clean": self.is_clean(),
            "entries": self.entries,
            "files": self.files,
            "findings": all(&self.findings),
            "notes": all(&self.notes),
            "keys": self.keys,
        })
    }
}

/// Something about one line.
#[derive(Debug, Clone)]
pub struct LogFinding {
    pub file: PathBuf,
    /// The line, counted from 1; 0 if it is about the file as a whole.
    pub line: u64,
    pub kind: Anomaly,
}

impl LogFinding {
    fn to_json(&self) -> Value {
        let (code, text) = self.kind.describe();
        json!({
            "file": self.file.to_string_lossy(),
            "line": self.line,
            "kind": code,
            "message": text,
        })
    }
}

impl fmt::Display for LogFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, (_, text)) = (self.file.display(), self.kind.describe());
        match self.line {
            0 => write!(f, "{file}: {text}"),
            line => write!(f, "{file}:{line}: {text}"),
        }
    }
}

/// What a finding shows. Numbers are those of entries, unless it says files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    Changed,
    NoEntry,
    /// These are missing before the line.
    Missing(u64, u64),
    /// The first line of a file is missing, so what is there hangs in the air.
    NoBeginning,
    Moved(u64),
    Repeated(u64),
    /// These are missing after the line, at the end of the log.
    CutOff(u64, u64),
    /// These files are missing before this one.
    FilesMissing(u64, u64),
    ForeignFile,
    CheckpointMissing,
    CheckpointChanged,
    CheckpointKeyMissing,
    /// The checkpoint and the log are not of one time, or not of one log.
    CheckpointOfAnotherLog,
    /// adsproxy itself found the log changed as it wrote this line; the reason it gave.
    Reported(String),
    /// The key of this id is missing: nothing can be said of the line, and maybe more.
    KeyMissing(String),
    /// An entry of so many bytes. Only ever a note.
    Unfinished(usize),
    /// The file was checked on its own. Only ever a note.
    OnItsOwn,
}

impl Anomaly {
    /// Its stable code, and what it means.
    pub fn describe(&self) -> (&'static str, String) {
        let (code, text) = match self {
            Self::Changed => ("changed", "changed, or not written by adsproxy"),
            Self::NoEntry => ("no_entry", "not an entry"),
            Self::Missing(first, last) => {
                return ("missing", format!("{} missing before it", entries(*first, *last)));
            }
            Self::NoBeginning => ("no_beginning", "the first line of the file is missing"),
            Self::Moved(seq) => {
                return ("moved", format!("entry {seq} does not stand in its place"));
            }
            Self::Repeated(seq) => {
                return ("repeated", format!("entry {seq} is there already, or is forged"));
            }
            Self::CutOff(first, last) => {
                let entries = entries(*first, *last);
                return ("cut_off", format!("the end is cut off: {entries} missing after it"));
            }
            Self::FilesMissing(first, last) => {
                let files = match first == last {
                    true => format!("file number {first} is"),
                    false => format!("files number {first} to {last} are"),
                };
                return ("files_missing", format!("{files} missing before it"));
            }
            Self::ForeignFile => ("foreign_file", "the file does not belong here"),
            Self::CheckpointMissing => {
                ("head_missing", "missing, so it cannot be said whether the end of the log is")
            }
            Self::CheckpointChanged => ("head_changed", "changed, or not written by adsproxy"),
            Self::CheckpointKeyMissing => {
                ("head_key_missing", "cannot be checked: its key is not in the store")
            }
            Self::CheckpointOfAnotherLog => {
                ("head_of_another_log", "does not fit the log: one of them was replaced")
            }
            Self::Reported(reason) => {
                let text = format!("adsproxy found the log changed when it wrote this ({reason})");
                return ("told", text);
            }
            Self::KeyMissing(key) => {
                let text = format!(
                    "cannot be checked: the key {key:?} is not in the store, or not opened by \
                     encryption.keys; so it is with every line of that key"
                );
                return ("key_missing", text);
            }
            Self::Unfinished(bytes) => {
                let text = format!(
                    "an unfinished entry ({bytes} bytes), as a crash or a full disk leaves it; \
                     the next entry clears it away"
                );
                return ("unfinished", text);
            }
            Self::OnItsOwn => (
                "on_its_own",
                "checked on its own: whether its end or other files are missing cannot be said",
            ),
        };
        (code, text.to_owned())
    }
}

fn entries(first: u64, last: u64) -> String {
    match first == last {
        true => format!("entry {first} is"),
        false => format!("entries {first} to {last} are"),
    }
}
