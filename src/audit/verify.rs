//! Checks a log from its first line to its last and names every line that is not as it was written.
//!
//! After a wrong line the check goes on, so that one change is one finding: a line may follow the
//! last good one (what lies between was inserted) or the one before it in the file (which was
//! changed itself).

use super::{
    AuditLog, Error,
    chain::{Checkpoint, Line, START, Tip},
    entry::Action,
    files::{LOCK_TIMEOUT, Segment},
    keys::{AuditKeys, Unverified},
    report::{Anomaly, AuditReport, LogFinding},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

impl AuditLog {
    /// Checks the whole log, as it is at one moment: what is appended later is not looked at.
    pub(super) fn verify(&self) -> Result<AuditReport, Error> {
        let keys = AuditKeys::new(&self.store.audit_keys(false)?);
        let files = &self.files;
        let lock = files.lock_to_read(LOCK_TIMEOUT)?;
        let checkpoint = lock.as_ref().map(|file| Checkpoint::read(file, &keys)).transpose();
        let checkpoint = checkpoint.map_err(Error::io("read", &files.checkpoint))?;
        let mut segments = Vec::new();
        for number in files.segments()? {
            segments.extend(Segment::open(Some(number), &files.archived(number))?);
        }
        segments.extend(Segment::open(None, &files.current)?);
        drop(lock);
        let mut check = LogCheck::new(&keys, checkpoint);
        for segment in &segments {
            check.segment(segment, &segment.read(0)?);
        }
        check.expired();
        check.checkpoint(checkpoint, &files.checkpoint);
        Ok(check.report)
    }
}

/// Checks one file of a log on its own.
pub(super) fn verify_part(segment: &Segment, keys: &AuditKeys) -> Result<AuditReport, Error> {
    let mut check = LogCheck::new(keys, None);
    check.is_part = true;
    check.segment(segment, &segment.read(0)?);
    let mut report = check.report;
    let kind = Anomaly::OnItsOwn;
    report.notes.push(LogFinding { file: segment.path.clone(), line: 0, kind });
    Ok(report)
}

/// A check under way.
struct LogCheck<'a> {
    keys: &'a AuditKeys,
    report: AuditReport,
    is_part: bool,
    /// The last line that is as it was written.
    good: Tip,
    /// The last line in the file, if it may be in its place.
    seen: Tip,
    /// Where the last line is.
    at: (PathBuf, u64),
    /// The number of the file.
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
    fn new(keys: &'a AuditKeys, checkpoint: Option<Checkpoint>) -> Self {
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
            at: (PathBuf::new(), 0),
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

    fn find(&mut self, kind: Anomaly) {
        let (file, line) = self.at.clone();
        self.report.findings.push(LogFinding { file, line, kind });
    }

    fn segment(&mut self, segment: &Segment, bytes: &[u8]) {
        self.report.files += 1;
        self.at = (segment.path.clone(), 0);
        let mut rest = bytes;
        let mut belongs = true;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.at.1 += 1;
            let line = Line::parse(&rest[..end]);
            rest = &rest[end + 1..];
            match line {
                None => self.find(Anomaly::NoEntry),
                Some(line) if self.at.1 == 1 && line.is(Action::AuditBegin) => {
                    belongs = self.begin(segment, &line);
                }
                Some(line) => {
                    if self.at.1 == 1 {
                        self.find(Anomaly::NoBeginning);
                        self.number = segment.number.unwrap_or(self.number + 1);
                    }
                    self.line(&line);
                }
            }
            // One finding says it of all its lines.
            if !belongs {
                return;
            }
        }
        if !rest.is_empty() {
            let kind = Anomaly::Unfinished(rest.len());
            let (file, line) = (self.at.0.clone(), self.at.1 + 1);
            // Only the file that grows can end so; older ones are finished.
            match segment.number {
                None => self.report.notes.push(LogFinding { file, line, kind }),
                Some(_) => {
                    self.report.findings.push(LogFinding { file, line, kind: Anomaly::NoEntry });
                }
            }
        }
    }

    /// The first line of a file, which says what it follows. Says whether the file belongs here.
    fn begin(&mut self, segment: &Segment, line: &Line<'_>) -> bool {
        let (Some(number), Some(before)) = (line.members.segment, line.follows()) else {
            self.find(Anomaly::Changed);
            return true;
        };
        let continues = before == self.good || before == self.seen;
        let verified = line.verify(self.keys, before);
        if verified == Err(Unverified::Refused) {
            self.number = segment.number.unwrap_or(self.number + 1);
            self.count(line);
            self.refused(line);
            return true;
        }
        let is_named = segment.number.is_none_or(|named| named == number);
        if !self.is_part && (!is_named || number <= self.number) {
            self.find(Anomaly::ForeignFile);
            return false;
        }
        let newest = self.good.seq.max(self.seen.seq);
        if self.is_part || continues {
            // As it should be.
        } else if number > self.number + 1 {
            self.gaps.insert(self.report.findings.len(), number - 1);
            self.find(Anomaly::FilesMissing(self.number + 1, number - 1));
        } else if before.seq > newest {
            self.is_missing(newest + 1..=before.seq);
        } else if before.seq == newest {
            self.find(Anomaly::Changed);
        } else {
            self.find(Anomaly::ForeignFile);
            return false;
        }
        self.number = number;
        self.count(line);
        self.good = before;
        match verified {
            Ok(()) => self.accept(line),
            Err(_) => self.unchecked(line),
        }
        true
    }

    fn line(&mut self, line: &Line<'_>) {
        self.count(line);
        let verified = match line.verify(self.keys, self.good) {
            Err(Unverified::Refused) if self.seen != self.good => line.verify(self.keys, self.seen),
            verified => verified,
        };
        match verified {
            Ok(()) => self.accept(line),
            Err(Unverified::KeyMissing) => self.unchecked(line),
            Err(Unverified::Refused) => self.refused(line),
        }
    }

    /// Notes what is so whatever the line is worth.
    fn count(&mut self, line: &Line<'_>) {
        self.report.entries += 1;
        if !self.report.keys.contains(&*line.members.key) {
            self.report.keys.insert(line.members.key.to_string());
        }
        self.checkpoint_is_met |= self.checkpoint == Some(line.tip());
    }

    /// The line is as it was written, and follows one that is.
    fn accept(&mut self, line: &Line<'_>) {
        let this = line.tip();
        if this.seq <= self.seen.seq && self.missing.iter().any(|gap| gap.contains(&this.seq)) {
            // What follows it stood before it.
            self.is_displaced(this.seq, Anomaly::Moved(this.seq));
            self.good = this;
            return;
        }
        (self.good, self.seen) = (this, this);
        if line.is(Action::AuditExpire) {
            self.expired_through = self.expired_through.max(line.members.segment.unwrap_or(0));
        }
        if line.is(Action::AuditDamage) {
            self.find(Anomaly::Reported(line.members.reason.clone().unwrap_or_default()));
        }
    }

    /// The line's key is missing.
    fn unchecked(&mut self, line: &Line<'_>) {
        if self.keys_missing.insert(line.members.key.to_string()) {
            self.find(Anomaly::KeyMissing(line.members.key.to_string()));
        }
        (self.good, self.seen) = (line.tip(), line.tip());
    }

    /// The line does not follow from those before it.
    fn refused(&mut self, line: &Line<'_>) {
        let seq = line.members.seq;
        let newest = self.good.seq.max(self.seen.seq);
        if seq <= newest {
            let is_moved = self.missing.iter().any(|gap| gap.contains(&seq));
            let kind = if is_moved { Anomaly::Moved(seq) } else { Anomaly::Repeated(seq) };
            self.is_displaced(seq, kind);
            return;
        }
        if seq == newest + 1 {
            self.find(Anomaly::Changed);
        } else {
            self.is_missing(newest + 1..=seq - 1);
        }
        self.seen = line.tip();
    }

    fn is_missing(&mut self, entries: RangeInclusive<u64>) {
        self.find(Anomaly::Missing(*entries.start(), *entries.end()));
        self.missing.push(entries);
    }

    fn is_displaced(&mut self, seq: u64, kind: Anomaly) {
        if self.displaced.is_none_or(|before| before + 1 != seq) {
            self.find(kind);
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

    fn checkpoint(&mut self, found: Option<Checkpoint>, path: &Path) {
        let last = self.good.seq.max(self.seen.seq);
        let is_clean = self.report.findings.is_empty();
        let kind = match found {
            // Made, and killed before the first entry.
            Some(Checkpoint::Blank) if self.report.entries == 0 => return,
            None if self.report.files == 0 => return,
            None | Some(Checkpoint::Blank) => Anomaly::CheckpointMissing,
            Some(Checkpoint::Invalid) => Anomaly::CheckpointChanged,
            Some(Checkpoint::KeyMissing) => Anomaly::CheckpointKeyMissing,
            Some(Checkpoint::Valid(tip)) if tip.seq > last => {
                return self.find(Anomaly::CutOff(last + 1, tip.seq));
            }
            Some(Checkpoint::Valid(_)) if is_clean && !self.checkpoint_is_met => {
                Anomaly::CheckpointOfAnotherLog
            }
            Some(Checkpoint::Valid(_)) => return,
        };
        self.report.findings.push(LogFinding { file: path.to_owned(), line: 0, kind });
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
