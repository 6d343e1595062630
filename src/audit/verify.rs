//! Checks a log from its first line to its last and names every line that is not as it was written.
//!
//! After a wrong line the check goes on, so that one change is one finding: a line may follow the
//! last good one (what lies between was inserted) or the one before it in the file (which was
//! changed itself).

use super::{
    Error, FileLog,
    chain::{AuditKeys, Checkpoint, Line, START, Tip, Unverified, complete_bytes, complete_lines},
    entry::Action,
    files::{LOCK_TIMEOUT, Segment},
    report::{AuditReport, LogFinding},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    ops::RangeInclusive,
    path::Path,
};

pub(super) type Anomaly<'a> = (&'static str, &'a str);

pub(super) const CHANGED: Anomaly<'_> = ("changed", "changed, or not written by adsproxy");
const NO_ENTRY: Anomaly<'_> = ("no_entry", "not an entry");
const FOREIGN_FILE: Anomaly<'_> = ("foreign_file", "the file does not belong here");

impl FileLog {
    /// Checks the whole log, as it is at one moment: what is appended later is not looked at.
    pub(super) fn verify(&self, keys: &AuditKeys) -> Result<AuditReport, Error> {
        let files = &self.files;
        let lock = files.lock(LOCK_TIMEOUT, |path| File::open(path))?;
        let checkpoint = lock.as_ref().map(|file| Checkpoint::read(file, keys)).transpose();
        let checkpoint = checkpoint.map_err(Error::io("read", &files.checkpoint))?;
        let mut segments = Vec::new();
        for number in files.segments()?.into_iter().map(Some).chain([None]) {
            segments.extend(files.open(number)?);
        }
        drop(lock);
        let mut check = LogCheck::new(keys, checkpoint);
        for segment in &segments {
            check.segment(segment)?;
        }
        check.expired();
        check.checkpoint(checkpoint, files.checkpoint.to_string_lossy().into_owned());
        Ok(check.report)
    }
}

/// Checks one file of a log on its own, such as an older one that lies elsewhere.
pub fn verify_part(path: &Path, keys: &AuditKeys) -> Result<AuditReport, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut check = LogCheck { is_part: true, ..LogCheck::new(keys, None) };
    check.segment(&Segment::new(None, path.to_owned(), file)?)?;
    let text = "checked on its own: whether its end or other files are missing cannot be said";
    check.at.1 = 0;
    check.report.notes.push(check.finding(("on_its_own", text)));
    Ok(check.report)
}

pub(super) struct LogCheck<'a> {
    keys: &'a AuditKeys,
    pub(super) report: AuditReport,
    is_part: bool,
    /// The last line that is as it was written.
    good: Tip,
    /// The last line in the file, if it may be in its place.
    seen: Tip,
    at: (String, u64),
    number: u64,
    /// Entries that were not where they should be.
    missing: Vec<RangeInclusive<u64>>,
    /// The last entry out of place: one finding covers a run of them.
    displaced: Option<u64>,
    /// Files that are not there: which finding says so, and their last number.
    gaps: BTreeMap<usize, u64>,
    expired_through: u64,
    checkpoint: Option<Tip>,
    checkpoint_is_met: bool,
    keys_missing: BTreeSet<String>,
}

impl<'a> LogCheck<'a> {
    pub(super) fn new(keys: &'a AuditKeys, checkpoint: Option<Checkpoint>) -> Self {
        let checkpoint = match checkpoint {
            Some(Checkpoint::Valid(tip)) => Some(tip),
            _ => None,
        };
        Self {
            keys,
            report: AuditReport::default(),
            is_part: false,
            good: START,
            seen: START,
            at: Default::default(),
            number: 0,
            missing: Vec::new(),
            displaced: None,
            gaps: BTreeMap::new(),
            expired_through: 0,
            checkpoint,
            checkpoint_is_met: checkpoint == Some(START),
            keys_missing: BTreeSet::new(),
        }
    }

    fn finding(&self, (kind, message): Anomaly<'_>) -> LogFinding {
        let (file, line) = self.at.clone();
        LogFinding { file, line, kind, message: message.to_owned() }
    }

    pub(super) fn find(&mut self, anomaly: Anomaly<'_>) {
        self.report.findings.push(self.finding(anomaly));
    }

    /// Begins with the lines of a file, or of a chain.
    pub(super) fn open(&mut self, name: String) {
        self.report.files += 1;
        self.at = (name, 0);
    }

    /// The lines up to `tip` were removed as configured: the next one follows it.
    pub(super) fn begin_after(&mut self, tip: Tip) {
        (self.good, self.seen, self.at.1) = (tip, tip, tip.seq);
        self.checkpoint_is_met |= self.checkpoint == Some(tip);
    }

    /// The next line of `chain`.
    pub(super) fn line_of_chain(&mut self, chain: &str, text: &[u8]) {
        let begins = |line: &Line<'_>| line.is(Action::AuditBegin);
        let is_of_another = self.at.1 == 0
            && Line::parse(text)
                .filter(begins)
                .is_some_and(|it| it.about.as_deref() != Some(chain));
        self.text(None, text);
        if is_of_another {
            self.find(("foreign_chain", "the chain was renamed"));
        }
    }

    /// The next line of the file that is named `number`. Says whether to go on.
    fn text(&mut self, number: Option<u64>, text: &[u8]) -> bool {
        self.at.1 += 1;
        let is_first = self.at.1 == 1;
        match Line::parse(text) {
            None => self.find(NO_ENTRY),
            // One finding says of all its lines that they do not belong here.
            Some(line) if is_first && line.is(Action::AuditBegin) => {
                return self.begin(number, &line);
            }
            Some(line) => {
                if is_first {
                    self.find(("no_beginning", "the first line is missing"));
                    self.number = number.unwrap_or(self.number + 1);
                }
                self.line(&line);
            }
        }
        true
    }

    fn segment(&mut self, segment: &Segment) -> Result<(), Error> {
        let bytes = segment.read(0)?;
        self.open(segment.path.to_string_lossy().into_owned());
        if !complete_lines(&bytes).all(|text| self.text(segment.number, text)) {
            return Ok(());
        }
        let torn_bytes = bytes.len() - complete_bytes(&bytes);
        if torn_bytes > 0 {
            self.torn(segment, torn_bytes);
        }
        Ok(())
    }

    /// Only the file that grows can end without a newline; older ones are finished.
    fn torn(&mut self, segment: &Segment, bytes: usize) {
        let text = format!(
            "an unfinished entry ({bytes} bytes), as a crash or a full disk leaves it; the next \
             entry clears it away"
        );
        let is_finished = segment.number.is_some();
        let anomaly = if is_finished { NO_ENTRY } else { ("unfinished", text.as_str()) };
        let mut found = self.finding(anomaly);
        found.line += 1;
        let AuditReport { findings, notes, .. } = &mut self.report;
        if is_finished { findings } else { notes }.push(found);
    }

    /// The first line of a file, which says what it follows. Says whether the file belongs here.
    fn begin(&mut self, named: Option<u64>, line: &Line<'_>) -> bool {
        let (Some(number), Some(before)) = (line.segment, line.follows()) else {
            self.find(CHANGED);
            return true;
        };
        let verified = line.verify(self.keys, before);
        if verified == Err(Unverified::Invalid) {
            self.number = named.unwrap_or(self.number + 1);
            self.count(line);
            self.reject(line);
            return true;
        }
        if !self.is_part && !self.joins(named, number, before) {
            self.find(FOREIGN_FILE);
            return false;
        }
        self.number = number;
        self.count(line);
        self.good = before;
        self.judge(line, verified);
        true
    }

    /// Says whether a file that says it is `number` and follows `before` can come next, and finds
    /// what is missing between.
    fn joins(&mut self, named: Option<u64>, number: u64, before: Tip) -> bool {
        let is_named = named.is_none_or(|named| named == number);
        if !is_named || number <= self.number {
            return false;
        }
        let newest = self.good.seq.max(self.seen.seq);
        if before == self.good || before == self.seen {
            // As it should be.
        } else if number > self.number + 1 {
            self.gaps.insert(self.report.findings.len(), number - 1);
            let files = match self.number + 1 {
                first if first == number - 1 => format!("file number {first} is"),
                first => format!("files number {first} to {} are", number - 1),
            };
            self.find(("files_missing", &format!("{files} missing before it")));
        } else if before.seq > newest {
            self.is_missing(newest + 1..=before.seq);
        } else if before.seq == newest {
            self.find(CHANGED);
        } else {
            return false;
        }
        true
    }

    fn line(&mut self, line: &Line<'_>) {
        self.count(line);
        let verified = match line.verify(self.keys, self.good) {
            Err(Unverified::Invalid) if self.seen != self.good => line.verify(self.keys, self.seen),
            verified => verified,
        };
        self.judge(line, verified);
    }

    /// Counts a line, whether it is valid or not.
    fn count(&mut self, line: &Line<'_>) {
        self.report.entries += 1;
        if !self.report.keys.contains(&line.key) {
            self.report.keys.insert(line.key.clone());
        }
        self.checkpoint_is_met |= self.checkpoint == Some(line.tip());
    }

    fn judge(&mut self, line: &Line<'_>, verified: Result<(), Unverified>) {
        match verified {
            Ok(()) => self.accept(line),
            Err(Unverified::Invalid) => self.reject(line),
            Err(Unverified::KeyMissing) => {
                let key = &line.key;
                if self.keys_missing.insert(key.clone()) {
                    let text = format!(
                        "cannot be checked: the key {key:?} is not in the store, or not opened by \
                         encryption.keys; so it is with every line of that key"
                    );
                    self.find(("key_missing", &text));
                }
                (self.good, self.seen) = (line.tip(), line.tip());
            }
        }
    }

    /// The line is as it was written, and follows one that is.
    fn accept(&mut self, line: &Line<'_>) {
        let this = line.tip();
        if this.seq <= self.seen.seq && self.missing.iter().any(|gap| gap.contains(&this.seq)) {
            // What follows it stood before it.
            self.is_displaced(this.seq);
            self.good = this;
            return;
        }
        (self.good, self.seen) = (this, this);
        if line.is(Action::AuditExpire) {
            self.expired_through = self.expired_through.max(line.segment.unwrap_or(0));
        }
        if line.is(Action::AuditDamage) {
            let reason = line.reason.as_deref().unwrap_or_default();
            let text = format!("adsproxy found the log changed when it wrote this ({reason})");
            self.find(("told", &text));
        }
    }

    /// The line does not follow from those before it.
    fn reject(&mut self, line: &Line<'_>) {
        let newest = self.good.seq.max(self.seen.seq);
        if line.seq <= newest {
            return self.is_displaced(line.seq);
        }
        if line.seq == newest + 1 {
            self.find(CHANGED);
        } else {
            self.is_missing(newest + 1..=line.seq - 1);
        }
        self.seen = line.tip();
    }

    fn is_missing(&mut self, entries: RangeInclusive<u64>) {
        self.find(("missing", &format!("{} missing before it", named(&entries))));
        self.missing.push(entries);
    }

    /// Entry `seq` is not in its place.
    fn is_displaced(&mut self, seq: u64) {
        if self.displaced.is_none_or(|before| before + 1 != seq) {
            let is_moved = self.missing.iter().any(|gap| gap.contains(&seq));
            if is_moved {
                self.find(("moved", &format!("entry {seq} does not stand in its place")));
            } else {
                self.find(("repeated", &format!("entry {seq} is there already, or is forged")));
            }
        }
        self.displaced = Some(seq);
    }

    /// Files that were removed as configured, which the log itself says, are not missing.
    fn expired(&mut self) {
        for (&finding, &last) in self.gaps.iter().rev() {
            if last <= self.expired_through {
                self.report.findings.remove(finding);
            }
        }
    }

    /// Holds the end against the checkpoint, whose name is `name`.
    pub(super) fn checkpoint(&mut self, found: Option<Checkpoint>, name: String) {
        let last = self.good.seq.max(self.seen.seq);
        let is_clean = self.report.is_clean();
        let anomaly = match found {
            // Made, and killed before the first entry.
            Some(Checkpoint::Blank) if self.report.entries == 0 => return,
            None if self.report.files == 0 => return,
            None | Some(Checkpoint::Blank) => {
                ("head_missing", "missing, so it cannot be said whether the end of the log is")
            }
            Some(Checkpoint::Invalid) => ("head_changed", CHANGED.1),
            Some(Checkpoint::KeyMissing) => {
                ("head_key_missing", "cannot be checked: its key is not in the store")
            }
            Some(Checkpoint::Valid(tip)) if tip.seq > last => {
                let entries = named(&(last + 1..=tip.seq));
                let text = format!("the end is cut off: {entries} missing after it");
                return self.find(("cut_off", &text));
            }
            // The checkpoint and the log are not of one time, or not of one log.
            Some(Checkpoint::Valid(_)) if is_clean && !self.checkpoint_is_met => {
                ("head_of_another_log", "does not fit the log: one of them was replaced")
            }
            Some(Checkpoint::Valid(_)) => return,
        };
        self.at = (name, 0);
        self.find(anomaly);
    }
}

fn named(entries: &RangeInclusive<u64>) -> String {
    match entries.clone().into_inner() {
        (first, last) if first == last => format!("entry {first} is"),
        (first, last) => format!("entries {first} to {last} are"),
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
