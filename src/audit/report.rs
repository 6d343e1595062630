//! What a check of the log found, in words and as JSON.

use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt, path::PathBuf};

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines that are entries.
    pub entries: u64,
    /// Files they are in.
    pub files: usize,
    /// What shows that somebody else than adsproxy changed the log, in its order.
    pub findings: Vec<Finding>,
    /// What is no sign of a change, but worth knowing.
    pub notes: Vec<Finding>,
    /// The keys that are needed to check it, by id.
    pub keys: BTreeSet<String>,
}

impl Report {
    /// Says whether the log is as adsproxy wrote it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// The report for machines.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let all = |findings: &[Finding]| findings.iter().map(Finding::to_json).collect::<Value>();
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1; 0 if it is about the file as a whole.
    pub line: u64,
    /// What it shows.
    pub kind: Kind,
}

impl Finding {
    fn to_json(&self) -> Value {
        json!({
            "file": self.file.to_string_lossy(),
            "line": self.line,
            "kind": self.kind.as_str(),
            "message": self.kind.to_string(),
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.kind),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.kind),
        }
    }
}

/// What a finding shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The line is not as it was written, or not written by adsproxy.
    Changed,
    /// The line is no entry.
    NoEntry,
    /// Entries of these numbers are missing before the line.
    Missing(u64, u64),
    /// The first line of a file is missing, so what is there hangs in the air.
    NoBeginning,
    /// The entry of this number stood before others that it follows now.
    Moved(u64),
    /// The entry of this number is there already.
    Repeated(u64),
    /// Entries of these numbers are missing after the line, at the end of the log.
    CutOff(u64, u64),
    /// Files of these numbers are missing before this one.
    FilesMissing(u64, u64),
    /// The file does not belong in this place.
    ForeignFile,
    /// The head is missing.
    HeadMissing,
    /// The head was changed.
    HeadChanged,
    /// The key of the head is missing.
    HeadKeyMissing,
    /// The head and the log are not of one time, or not of one log.
    HeadOfAnotherLog,
    /// adsproxy itself found the log changed as it wrote this line; the reason it gave.
    Told(String),
    /// The key of this id is missing: nothing can be said of the line, and maybe more.
    KeyMissing(String),
    /// An unfinished entry of so many bytes; the next entry clears it away. Only ever a note.
    Unfinished(usize),
    /// The file was checked on its own. Only ever a note.
    OnItsOwn,
}

impl Kind {
    /// Its stable code.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::NoEntry => "no_entry",
            Self::Missing(..) => "missing",
            Self::NoBeginning => "no_beginning",
            Self::Moved(_) => "moved",
            Self::Repeated(_) => "repeated",
            Self::CutOff(..) => "cut_off",
            Self::FilesMissing(..) => "files_missing",
            Self::ForeignFile => "foreign_file",
            Self::HeadMissing => "head_missing",
            Self::HeadChanged => "head_changed",
            Self::HeadKeyMissing => "head_key_missing",
            Self::HeadOfAnotherLog => "head_of_another_log",
            Self::Told(_) => "told",
            Self::KeyMissing(_) => "key_missing",
            Self::Unfinished(_) => "unfinished",
            Self::OnItsOwn => "on_its_own",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("changed, or not written by adsproxy"),
            Self::NoEntry => f.write_str("not an entry"),
            Self::Missing(first, last) => write!(f, "{} missing before it", entries(*first, *last)),
            Self::NoBeginning => f.write_str("the first line of the file is missing"),
            Self::Moved(seq) => write!(f, "entry {seq} does not stand in its place"),
            Self::Repeated(seq) => write!(f, "entry {seq} is there already, or is forged"),
            Self::CutOff(first, last) => {
                write!(f, "the end is cut off: {} missing after it", entries(*first, *last))
            }
            Self::FilesMissing(first, last) if first == last => {
                write!(f, "file number {first} is missing before it")
            }
            Self::FilesMissing(first, last) => {
                write!(f, "files number {first} to {last} are missing before it")
            }
            Self::ForeignFile => f.write_str("the file does not belong here"),
            Self::HeadMissing => {
                f.write_str("missing, so it cannot be said whether the end of the log is")
            }
            Self::HeadChanged => f.write_str("changed, or not written by adsproxy"),
            Self::HeadKeyMissing => f.write_str("cannot be checked: its key is not in the store"),
            Self::HeadOfAnotherLog => f.write_str("does not fit the log: one of them was replaced"),
            Self::Told(reason) => {
                write!(f, "adsproxy found the log changed when it wrote this ({reason})")
            }
            Self::KeyMissing(key) => write!(
                f,
                "cannot be checked: the key {key:?} is not in the store, or not opened by \
                 encryption.keys; so it is with every line of that key",
            ),
            Self::Unfinished(bytes) => write!(
                f,
                "an unfinished entry ({bytes} bytes), as a crash or a full disk leaves it; the \
                 next entry clears it away",
            ),
            Self::OnItsOwn => f.write_str(
                "checked on its own: whether its end or other files are missing cannot be said",
            ),
        }
    }
}

fn entries(first: u64, last: u64) -> String {
    match first == last {
        true => format!("entry {first} is"),
        false => format!("entries {first} to {last} are"),
    }
}
