//! Appends entries: durable before it says so, never glued to what a crash left behind.
//!
//! Nothing is remembered between two appends but the keys: several processes write to one log, so
//! each append reads the end of the log anew, under the lock. In this order, so that a kill at any
//! point leaves a log that verifies: the lines in one write, the sync, the head.

use super::{
    Error,
    chain::{self, Body, LINE_MAX_BYTES, Line, Mac, START},
    entry::{Action, Actor, Entry},
    files::{self, Files},
    head::{self, Found, Head},
    keys::{AuditKeys, KeySource},
    snapshot::Segment,
};
use crate::{clock::Clock, config};
use parking_lot::Mutex;
use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

/// How long an append waits for others.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Appends to one log.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) files: Files,
    pub(super) keys: Arc<KeySource>,
    clock: Arc<dyn Clock>,
    max_bytes: u64,
    keep: usize,
    keep_at_least: Duration,
    /// The turns of this process's threads: a file's lock is polled.
    turn: Mutex<()>,
}

/// What the log's own entries say beyond other entries.
#[derive(Debug, Clone, Default)]
struct Own {
    segment: Option<u64>,
    prev: Option<Mac>,
}

/// What an append found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appended {
    /// Why the log cannot be as adsproxy left it, if so.
    pub(super) damage: Option<&'static str>,
}

/// The end of the log, as an append finds it.
struct End {
    /// The file that grows.
    current: Option<File>,
    /// Its length up to the last newline.
    complete_bytes: u64,
    /// What follows it: an entry that was not finished.
    torn_bytes: u64,
    /// The last line of the log.
    last: Head,
    damage: Option<&'static str>,
}

impl Writer {
    pub(super) fn new(
        files: Files,
        audit: &config::Audit,
        keys: Arc<KeySource>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let config::Audit { max_bytes, keep, keep_at_least, .. } = *audit;
        Self { files, keys, clock, max_bytes, keep, keep_at_least, turn: Mutex::new(()) }
    }

    /// The time, since 1970.
    pub(super) fn now(&self) -> Duration {
        self.clock.now().wall
    }

    /// Appends `entries`; durable when it returns `Ok`.
    pub(super) fn append(&self, entries: &[Entry]) -> Result<Appended, Error> {
        let locked = || Error::Locked { path: self.files.head.clone(), waited: LOCK_TIMEOUT };
        let _turn = self.turn.try_lock_for(LOCK_TIMEOUT).ok_or_else(locked)?;
        let head = self.files.lock_to_write(LOCK_TIMEOUT)?;
        let keys = self.keys.to_sign()?;
        let end = self.end(&head, &keys)?;
        let damage = end.damage;
        self.append_after(end, &head, entries, &keys)?;
        Ok(Appended { damage })
    }

    /// Finds the end of the log and holds it against the head.
    fn end(&self, head_file: &File, keys: &AuditKeys) -> Result<End, Error> {
        let found = head::read(head_file, keys).map_err(Error::io("read", &self.files.head))?;
        let current = self.files.open_current()?;
        let (bytes, len) = match &current {
            Some(file) => self.tail(file)?,
            None => (Vec::new(), 0),
        };
        let complete = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let torn_bytes = (bytes.len() - complete) as u64;
        let newest = match complete {
            0 => self.last_of_archived()?,
            _ => Newest::of(&bytes[..complete]),
        };
        // Before the first entry, the head is made to last: from then on it needs no space.
        if found == Found::Blank && newest == Newest::None {
            let first = Head { seq: 0, mac: START };
            head::write(head_file, first, keys)
                .and_then(|()| head_file.sync_all())
                .map_err(Error::io("write", &self.files.head))?;
            self.files.sync_directory()?;
        }
        let (last, mut damage) = self.judge(found, newest, keys)?;
        if torn_bytes as usize > LINE_MAX_BYTES {
            damage = damage.or(Some("end_unreadable"));
        }
        Ok(End { current, complete_bytes: len - torn_bytes, torn_bytes, last, damage })
    }

    /// The end of `file`, enough for a line that is whole and one that is not; and its length.
    fn tail(&self, file: &File) -> Result<(Vec<u8>, u64), Error> {
        let failed = || Error::io("read", &self.files.current);
        let len = file.metadata().map_err(failed())?.len();
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(TAIL_BYTES)];
        let from = len - bytes.len() as u64;
        file.read_exact_at(&mut bytes, from).map_err(failed())?;
        Ok((bytes, len))
    }

    fn last_of_archived(&self) -> Result<Newest, Error> {
        let Some(segment) = self.files.segments()?.pop() else { return Ok(Newest::None) };
        let path = self.files.archived(segment);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        Ok(Newest::of(&self.tail(&file)?.0))
    }

    /// Where the log goes on, and what is wrong with its end.
    fn judge(
        &self,
        found: Found,
        newest: Newest,
        keys: &AuditKeys,
    ) -> Result<(Head, Option<&'static str>), Error> {
        let start = Head { seq: 0, mac: START };
        let there = match newest {
            Newest::Line(last) => Some(last),
            Newest::None | Newest::Unreadable => None,
        };
        Ok(match found {
            Found::Valid(head) => match there {
                Some(last) if last == head => (head, None),
                Some(last) if last.seq > head.seq && self.leads_from(head, keys)? => (last, None),
                Some(last) if last.seq > head.seq => (head, Some("end_forged")),
                Some(last) if last.seq == head.seq => (head, Some("end_replaced")),
                None if newest == Newest::None && head == start => (head, None),
                None if newest == Newest::Unreadable => (head, Some("end_unreadable")),
                Some(_) | None => (head, Some("end_cut_off")),
            },
            Found::Blank if newest == Newest::None => (start, None),
            Found::Blank => (there.unwrap_or(start), Some("head_missing")),
            Found::Invalid => (there.unwrap_or(start), Some("head_invalid")),
            Found::KeyMissing => (there.unwrap_or(start), Some("head_key_missing")),
        })
    }

    /// Says whether the log goes on from `head` to its end line by line: entries that were
    /// written but not acknowledged, by a crash between the two.
    fn leads_from(&self, head: Head, keys: &AuditKeys) -> Result<bool, Error> {
        let mut bytes = files::read(&self.files.current)?.unwrap_or_default();
        let begins_after = |bytes: &[u8]| {
            let first = bytes.split(|&byte| byte == b'\n').next().and_then(Line::parse);
            first.is_some_and(|line| line.body.seq > head.seq)
        };
        // It may have happened as a new file began.
        if (bytes.is_empty() || begins_after(&bytes))
            && let Some(segment) = self.files.segments()?.pop()
        {
            let mut older = files::read(&self.files.archived(segment))?.unwrap_or_default();
            older.append(&mut bytes);
            bytes = older;
        }
        let mut at = (head.seq == 0).then_some(head);
        for line in complete_lines(&bytes) {
            let line = Line::parse(line);
            let this = line.as_ref().map(|line| Head { seq: line.body.seq, mac: line.mac });
            at = match (at, line) {
                (None, _) => this.filter(|this| *this == head),
                (Some(at), Some(line)) => {
                    let follows = line.body.seq == at.seq + 1 && line.verify(keys, &at.mac).is_ok();
                    if !follows {
                        return Ok(false);
                    }
                    this
                }
                (Some(_), None) => return Ok(false),
            };
        }
        Ok(at.is_some())
    }

    /// Writes `entry`, and before it what there is to say about the log itself.
    fn append_after(
        &self,
        end: End,
        head_file: &File,
        entries: &[Entry],
        keys: &AuditKeys,
    ) -> Result<(), Error> {
        let End { current, complete_bytes, torn_bytes, last, damage } = end;
        let mut batch = Batch { clock: &*self.clock, keys, last, lines: Vec::new() };
        let is_full = self.max_bytes > 0 && complete_bytes + batch.len(entries) > self.max_bytes;
        let begins = complete_bytes == 0 || is_full || damage.is_some();
        let mut expired = Vec::new();
        if begins {
            // What is damaged is kept as it is, whole lines or not.
            let is_kept = complete_bytes > 0 || (damage.is_some() && torn_bytes > 0);
            expired = self.begin(is_kept, &mut batch)?;
        }
        if let Some(reason) = damage {
            batch.entry(&Entry::new(Actor::Audit, Action::AuditDamage).failed(reason));
        } else if torn_bytes > 0 {
            let repair = Entry::new(Actor::Audit, Action::AuditRepair);
            batch.entry(&repair.count(torn_bytes));
        }
        for entry in entries {
            batch.entry(entry);
        }
        let Batch { last, lines, .. } = batch;

        let file = match current {
            Some(file) if files::is_at(&file, &self.files.current) => file,
            _ => self.files.create_current()?,
        };
        let kept = if begins { 0 } else { complete_bytes };
        self.write(&file, kept, &lines)?;
        if begins {
            self.files.sync_directory()?;
        }
        head::write(head_file, last, keys).map_err(Error::io("write", &self.files.head))?;
        // What remains of them is tried again as the next file begins.
        for segment in expired {
            let _ = fs::remove_file(self.files.archived(segment));
        }
        Ok(())
    }

    /// Begins a file, and gives the one before its number if it `is_kept`. Returns the numbers of
    /// those that are to be removed once the new one is there.
    fn begin(&self, is_kept: bool, batch: &mut Batch<'_>) -> Result<Vec<u64>, Error> {
        let mut older = self.files.segments()?;
        let mut segment = older.last().map_or(1, |last| last + 1);
        if is_kept {
            // Older files may have been taken elsewhere: the numbers go on.
            segment = self.current_number()?.map_or(segment, |number| number.max(segment));
            older.push(segment);
            fs::rename(&self.files.current, self.files.archived(segment))
                .map_err(Error::io("rename", &self.files.current))?;
            segment += 1;
        }
        let (segment, prev) = (Some(segment), Some(batch.last.mac));
        batch.own(Action::AuditBegin, Own { segment, prev });
        if self.keep == 0 || older.len() <= self.keep {
            return Ok(Vec::new());
        }
        older.truncate(older.len() - self.keep);
        // A younger one is kept, and so are all after it: `verify` misses no file in between.
        let young = older.iter().position(|segment| !self.is_old(*segment));
        older.truncate(young.unwrap_or(older.len()));
        if older.is_empty() {
            return Ok(older);
        }
        let segment = older.last().copied();
        batch.own(Action::AuditExpire, Own { segment, ..Own::default() });
        Ok(older)
    }

    /// Says whether the last write of an older file is long enough ago for it to go.
    fn is_old(&self, segment: u64) -> bool {
        let modified = fs::metadata(self.files.archived(segment)).and_then(|file| file.modified());
        let written = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let age = self.now().saturating_sub(written.unwrap_or_default());
        self.keep_at_least.is_zero() || age >= self.keep_at_least
    }

    /// What the file that grows says its number is.
    fn current_number(&self) -> Result<Option<u64>, Error> {
        let Some(current) = Segment::open(None, &self.files.current)? else { return Ok(None) };
        Ok(current.number_in(&current.read()?))
    }

    /// Puts `lines` after the first `kept` bytes of `file`, durably, or leaves these alone.
    fn write(&self, file: &File, kept: u64, lines: &[u8]) -> Result<(), Error> {
        let path = &self.files.current;
        file.set_len(kept).map_err(Error::io("cut", path))?;
        let mut to = file;
        let written = to.write_all(lines).and_then(|()| to.sync_data());
        if written.is_err() {
            // A sync that failed is not tried again: the kernel may have dropped the pages. They
            // are given up; the next append writes them anew. If this fails, too, that append
            // finds an entry that nobody acknowledged, which does no harm.
            let _ = file.set_len(kept);
        }
        written.map_err(Error::io("write", path))
    }
}

/// Lines that are about to be written together.
struct Batch<'a> {
    clock: &'a dyn Clock,
    keys: &'a AuditKeys,
    last: Head,
    lines: Vec<u8>,
}

impl Batch<'_> {
    /// How long the lines of `entries` will be.
    fn len(&self, entries: &[Entry]) -> u64 {
        let mut trial = Batch { lines: Vec::new(), ..*self };
        entries.iter().for_each(|entry| trial.entry(entry));
        trial.lines.len() as u64
    }

    fn own(&mut self, action: Action, own: Own) {
        self.line(&Entry::new(Actor::Audit, action), own);
    }

    fn entry(&mut self, entry: &Entry) {
        self.line(entry, Own::default());
    }

    fn line(&mut self, entry: &Entry, own: Own) {
        let seq = self.last.seq + 1;
        let wall = self.clock.now().wall;
        let mut body = Body::new(entry, seq, wall, self.keys.signing_id());
        body.segment = own.segment;
        body.prev = own.prev.map(|mac| chain::encode_mac(&mac).into());
        let mac = chain::write_line(&body, &self.last.mac, self.keys, &mut self.lines);
        self.last = Head { seq, mac };
    }
}

/// The last whole line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newest {
    /// There is no line.
    None,
    /// It is none of ours.
    Unreadable,
    /// What it says of itself: it is not verified.
    Line(Head),
}

impl Newest {
    fn of(bytes: &[u8]) -> Self {
        match complete_lines(bytes).last() {
            None => Self::None,
            Some(line) => Line::parse(line).map_or(Self::Unreadable, |line| {
                Self::Line(Head { seq: line.body.seq, mac: line.mac })
            }),
        }
    }
}

/// The lines that end in a newline, without it.
pub(super) fn complete_lines(bytes: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let complete = bytes.iter().rposition(|&byte| byte == b'\n');
    let bytes = complete.map(|at| &bytes[..at]);
    bytes.into_iter().flat_map(|bytes| bytes.split(|&byte| byte == b'\n'))
}

/// The end of a file that is read to find its last line.
const TAIL_BYTES: usize = 2 * LINE_MAX_BYTES;

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
