//! Checks a log from its first line to its last and names every line that is not as it was written.
//!
//! After a wrong line the check goes on, so that one change is one finding: a line may follow the
//! last good one (what stands between was put there) or the one before it in the file (which was
//! changed itself).

use super::{
    chain::{Line, START},
    entry::Action,
    head::{Found, Head},
    keys::{AuditKeys, Unverified},
    report::{Finding, Kind, Report},
    snapshot::{Segment, Snapshot},
};
use crate::audit::Error;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    path::PathBuf,
};

/// Checks a whole log.
pub(super) fn verify(snapshot: &Snapshot, keys: &AuditKeys) -> Result<Report, Error> {
    Ok(Check::new(keys, snapshot.head).all(snapshot)?.report)
}

/// Checks one file of a log on its own.
pub(super) fn verify_part(segment: &Segment, keys: &AuditKeys) -> Result<Report, Error> {
    let mut check = Check::new(keys, None);
    check.is_part = true;
    check.segment(segment, &segment.read()?);
    let mut report = check.report;
    report.notes.push(Finding { file: segment.path.clone(), line: 0, kind: Kind::OnItsOwn });
    Ok(report)
}

/// A check under way.
struct Check<'a> {
    keys: &'a AuditKeys,
    report: Report,
    is_part: bool,
    /// The last line that is as it was written.
    good: Head,
    /// The last line in the file, if it may be in its place.
    seen: Head,
    /// Where the last line is.
    at: (PathBuf, u64),
    /// The number of the file.
    number: u64,
    /// Entries that were not where they should be.
    missing: Vec<RangeInclusive<u64>>,
    /// The last entry out of place: one finding tells a run of them.
    displaced: Option<u64>,
    /// Files that are not there: which finding says so, and their last number.
    gaps: BTreeMap<usize, u64>,
    expired_through: u64,
    head: Option<Head>,
    head_is_met: bool,
    keys_missing: BTreeSet<String>,
}

impl<'a> Check<'a> {
    fn new(keys: &'a AuditKeys, head: Option<Found>) -> Self {
        let start = Head { seq: 0, mac: START };
        let head = match head {
            Some(Found::Valid(head)) => Some(head),
            _ => None,
        };
        Self {
            keys,
            report: Report::default(),
            is_part: false,
            good: start,
            seen: start,
            at: (PathBuf::new(), 0),
            number: 0,
            missing: Vec::new(),
            displaced: None,
            gaps: BTreeMap::new(),
            expired_through: 0,
            head,
            head_is_met: head == Some(start),
            keys_missing: BTreeSet::new(),
        }
    }

    fn all(mut self, snapshot: &Snapshot) -> Result<Self, Error> {
        for segment in &snapshot.segments {
            let bytes = segment.read()?;
            self.segment(segment, &bytes);
        }
        self.expired();
        self.head(snapshot);
        Ok(self)
    }

    fn find(&mut self, kind: Kind) {
        let (file, line) = self.at.clone();
        self.report.findings.push(Finding { file, line, kind });
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
                None => self.find(Kind::NoEntry),
                Some(line) if self.at.1 == 1 && line.body.is(Action::AuditBegin) => {
                    belongs = self.begin(segment, &line);
                }
                Some(line) => {
                    if self.at.1 == 1 {
                        self.find(Kind::NoBeginning);
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
            let kind = Kind::Unfinished(rest.len());
            let (file, line) = (self.at.0.clone(), self.at.1 + 1);
            // Only the file that grows can end so; older ones are finished.
            match segment.number {
                None => self.report.notes.push(Finding { file, line, kind }),
                Some(_) => {
                    self.report.findings.push(Finding { file, line, kind: Kind::NoEntry });
                }
            }
        }
    }

    /// The first line of a file, which says what it follows. Says whether the file belongs here.
    fn begin(&mut self, segment: &Segment, line: &Line<'_>) -> bool {
        let (Some(number), Some(prev)) = (line.body.segment, line.prev()) else {
            self.find(Kind::Changed);
            return true;
        };
        let before = Head { seq: line.body.seq.saturating_sub(1), mac: prev };
        let continues = before == self.good || before == self.seen;
        let verified = line.verify(self.keys, &prev);
        if verified == Err(Unverified::Refused) {
            self.number = segment.number.unwrap_or(self.number + 1);
            self.count(line);
            self.refused(line);
            return true;
        }
        let is_named = segment.number.is_none_or(|named| named == number);
        if !self.is_part && (!is_named || number <= self.number) {
            self.find(Kind::ForeignFile);
            return false;
        }
        let newest = self.good.seq.max(self.seen.seq);
        if self.is_part || continues {
            // As it should be.
        } else if number > self.number + 1 {
            self.gaps.insert(self.report.findings.len(), number - 1);
            self.find(Kind::FilesMissing(self.number + 1, number - 1));
        } else if before.seq > newest {
            self.is_missing(newest + 1..=before.seq);
        } else if before.seq == newest {
            self.find(Kind::Changed);
        } else {
            self.find(Kind::ForeignFile);
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
        let follows = |before: Head| match line.body.seq == before.seq.wrapping_add(1) {
            true => line.verify(self.keys, &before.mac),
            false => Err(Unverified::Refused),
        };
        let verified = match follows(self.good) {
            Err(Unverified::Refused) if self.seen != self.good => follows(self.seen),
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
        if !self.report.keys.contains(&*line.body.key) {
            self.report.keys.insert(line.body.key.to_string());
        }
        let this = Head { seq: line.body.seq, mac: line.mac };
        self.head_is_met |= self.head == Some(this);
    }

    /// The line is as it was written, and follows one that is.
    fn accept(&mut self, line: &Line<'_>) {
        let this = Head { seq: line.body.seq, mac: line.mac };
        if this.seq <= self.seen.seq && self.missing.iter().any(|gap| gap.contains(&this.seq)) {
            // What follows it stood before it.
            self.is_displaced(this.seq, Kind::Moved(this.seq));
            self.good = this;
            return;
        }
        (self.good, self.seen) = (this, this);
        if line.body.is(Action::AuditExpire) {
            self.expired_through = self.expired_through.max(line.body.segment.unwrap_or(0));
        }
        if line.body.is(Action::AuditDamage) {
            self.find(Kind::Told(line.body.reason.clone().unwrap_or_default().into_owned()));
        }
    }

    /// The line's key is missing.
    fn unchecked(&mut self, line: &Line<'_>) {
        if self.keys_missing.insert(line.body.key.to_string()) {
            self.find(Kind::KeyMissing(line.body.key.to_string()));
        }
        let this = Head { seq: line.body.seq, mac: line.mac };
        (self.good, self.seen) = (this, this);
    }

    /// The line does not follow from those before it.
    fn refused(&mut self, line: &Line<'_>) {
        let seq = line.body.seq;
        let newest = self.good.seq.max(self.seen.seq);
        if seq <= newest {
            let is_moved = self.missing.iter().any(|gap| gap.contains(&seq));
            let kind = if is_moved { Kind::Moved(seq) } else { Kind::Repeated(seq) };
            self.is_displaced(seq, kind);
            return;
        }
        if seq == newest + 1 {
            self.find(Kind::Changed);
        } else {
            self.is_missing(newest + 1..=seq - 1);
        }
        self.seen = Head { seq, mac: line.mac };
    }

    fn is_missing(&mut self, entries: RangeInclusive<u64>) {
        self.find(Kind::Missing(*entries.start(), *entries.end()));
        self.missing.push(entries);
    }

    fn is_displaced(&mut self, seq: u64, kind: Kind) {
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

    fn head(&mut self, snapshot: &Snapshot) {
        let last = self.good.seq.max(self.seen.seq);
        let is_clean = self.report.findings.is_empty();
        let kind = match snapshot.head {
            // Made, and killed before the first entry.
            Some(Found::Blank) if self.report.entries == 0 => return,
            None if self.report.files == 0 => return,
            None | Some(Found::Blank) => Kind::HeadMissing,
            Some(Found::Invalid) => Kind::HeadChanged,
            Some(Found::KeyMissing) => Kind::HeadKeyMissing,
            Some(Found::Valid(head)) if head.seq > last => {
                return self.find(Kind::CutOff(last + 1, head.seq));
            }
            Some(Found::Valid(_)) if is_clean && !self.head_is_met => Kind::HeadOfAnotherLog,
            Some(Found::Valid(_)) => return,
        };
        self.report.findings.push(Finding { file: snapshot.head_path.clone(), line: 0, kind });
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
