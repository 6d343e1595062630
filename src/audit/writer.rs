//! Appends entries: durable before it says so, never glued to what a crash left behind.
//!
//! Nothing is remembered between two appends but the keys: several processes write to one log, so
//! each append reads the end of the log anew, under the lock. In this order, so that a kill at any
//! point leaves a log that verifies: the lines in one write, the sync, the checkpoint.

use super::{
    Error, FileLog,
    chain::{
        AuditKeys, Checkpoint, LINE_MAX_BYTES, Line, START, Tip, complete_bytes, complete_lines,
        write_line,
    },
    entry::{Action, Actor, Entry},
    files::{LOCK_TIMEOUT, LogFiles, Segment},
};
use crate::durable_file;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use std::{
    cmp::Ordering,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    time::UNIX_EPOCH,
};

/// Why the log cannot be as adsproxy left it, as a stable code.
pub(super) type DamageCode = Option<&'static str>;

/// The end of the log, as an append finds it.
struct End {
    current: File,
    /// Its length up to the last newline.
    complete_bytes: u64,
    /// What follows it: an entry that was not finished.
    torn_bytes: u64,
    /// The last line of the log.
    last: Tip,
    damage: DamageCode,
}

impl FileLog {
    /// Appends `entries`, durable on `Ok`, and says whether the log was found damaged.
    pub(super) fn append(
        &self,
        entries: &[Entry],
        keys: impl FnOnce() -> Result<AuditKeys, Error>,
    ) -> Result<DamageCode, Error> {
        let (files, path) = (&self.files, &self.files.checkpoint);
        let locked = || Error::Locked { path: path.clone(), waited: LOCK_TIMEOUT };
        // The turns of this process's threads: a file's lock is polled.
        let _turn = self.turn.try_lock_for(LOCK_TIMEOUT).ok_or_else(locked)?;
        let made = durable_file::make_directory(files.directory());
        made.map_err(Error::io("make the directory", files.directory()))?;
        let checkpoint = files.lock(LOCK_TIMEOUT, durable_file::open_private)?;
        let missing = || Error::io("open", path)(io::ErrorKind::NotFound.into());
        let checkpoint = checkpoint.ok_or_else(missing)?;
        let keys = keys()?;
        let end = self.end(&checkpoint, &keys)?;
        let damage = end.damage;
        self.append_after(end, &checkpoint, entries, keys)?;
        Ok(damage)
    }

    /// Finds the end of the log and holds it against the checkpoint.
    fn end(&self, checkpoint: &File, keys: &AuditKeys) -> Result<End, Error> {
        let LogFiles { current: path, checkpoint: checkpoint_path } = &self.files;
        let found = Checkpoint::read(checkpoint, keys);
        let found = found.map_err(Error::io("read", checkpoint_path))?;
        let file = durable_file::open_private(path).map_err(Error::io("open", path))?;
        let current = Segment::new(None, path.clone(), file)?;
        let bytes = current.read_end()?;
        let complete = complete_bytes(&bytes);
        let torn_bytes = (bytes.len() - complete) as u64;
        let last = if complete == 0 { self.last_segment()? } else { None };
        let newest = newest(&last.map_or(Ok(bytes), |segment| segment.read_end())?);
        // Before the first entry, the checkpoint is made to last: then it needs no space any more.
        if found == Checkpoint::Blank && newest.is_none() {
            Checkpoint::write(checkpoint, START, keys)
                .and_then(|()| checkpoint.sync_all())
                .map_err(Error::io("write", checkpoint_path))?;
            self.sync_directory()?;
        }
        let (last, mut damage) = self.judge(found, newest, keys)?;
        if torn_bytes > LINE_MAX_BYTES as u64 {
            damage = damage.or(Some("end_unreadable"));
        }
        let complete_bytes = current.len - torn_bytes;
        Ok(End { current: current.file, complete_bytes, torn_bytes, last, damage })
    }

    fn last_segment(&self) -> Result<Option<Segment>, Error> {
        self.files.segments()?.pop().map_or(Ok(None), |number| self.files.open(Some(number)))
    }

    fn sync_directory(&self) -> Result<(), Error> {
        let directory = self.files.directory();
        durable_file::sync_directory(directory).map_err(Error::io("sync", directory))
    }

    /// Where the log goes on, and what is wrong with its end.
    fn judge(
        &self,
        found: Checkpoint,
        newest: Newest,
        keys: &AuditKeys,
    ) -> Result<(Tip, DamageCode), Error> {
        let there = newest.flatten().unwrap_or(START);
        Ok(match (found, newest) {
            (Checkpoint::Blank, None) => (START, None),
            (Checkpoint::Blank, Some(_)) => (there, Some("head_missing")),
            (Checkpoint::Invalid, _) => (there, Some("head_invalid")),
            (Checkpoint::KeyMissing, _) => (there, Some("head_key_missing")),
            (Checkpoint::Valid(START), None) => (START, None),
            (Checkpoint::Valid(tip), None) => (tip, Some("end_cut_off")),
            (Checkpoint::Valid(tip), Some(None)) => (tip, Some("end_unreadable")),
            (Checkpoint::Valid(tip), Some(Some(last))) => match last.seq.cmp(&tip.seq) {
                Ordering::Equal if last == tip => (tip, None),
                Ordering::Equal => (tip, Some("end_replaced")),
                Ordering::Less => (tip, Some("end_cut_off")),
                Ordering::Greater if self.leads_from(tip, keys)? => (last, None),
                Ordering::Greater => (tip, Some("end_forged")),
            },
        })
    }

    /// Says whether the log goes on from `tip` to its end line by line: entries that were written
    /// but not acknowledged, by a crash between the two.
    fn leads_from(&self, tip: Tip, keys: &AuditKeys) -> Result<bool, Error> {
        let read = |segment: Option<Segment>| segment.map_or(Ok(Vec::new()), |it| it.read(0));
        let mut bytes = read(self.files.open(None)?)?;
        let first = complete_lines(&bytes).next().and_then(Line::parse);
        // It may have happened as a new file began.
        if first.is_none_or(|first| first.seq > tip.seq) {
            bytes = [read(self.last_segment()?)?, bytes].concat();
        }
        let mut at = (tip == START).then_some(tip);
        for line in complete_lines(&bytes) {
            let line = Line::parse(line);
            at = match (at, line) {
                (None, line) => line.map(|line| line.tip()).filter(|this| *this == tip),
                (Some(at), Some(line)) if line.verify(keys, at).is_ok() => Some(line.tip()),
                (Some(_), _) => return Ok(false),
            };
        }
        Ok(at.is_some())
    }

    /// Writes `entries`, and before them what there is to say about the log itself.
    fn append_after(
        &self,
        end: End,
        checkpoint: &File,
        entries: &[Entry],
        keys: AuditKeys,
    ) -> Result<(), Error> {
        let End { mut current, complete_bytes, torn_bytes, last, damage } = end;
        let wall = self.clock.now().wall;
        let lines_of = |entries: &[Entry], mut last: Tip| {
            let mut lines = Vec::new();
            for entry in entries {
                last = write_line(entry, wall, last, &keys, &mut lines);
            }
            (lines, last)
        };
        let len = complete_bytes + lines_of(entries, last).0.len() as u64;
        let is_full = self.config.max_bytes > 0 && len > self.config.max_bytes;
        let begins = complete_bytes == 0 || is_full || damage.is_some();
        let (mut own, mut expired) = (Vec::new(), Vec::new());
        if begins {
            // What is damaged is kept as it is, whole lines or not.
            let is_kept = complete_bytes > 0 || (damage.is_some() && torn_bytes > 0);
            expired = self.begin(is_kept, last, &mut own)?;
            if is_kept {
                current = durable_file::create_private(&self.files.current)
                    .map_err(Error::io("create", &self.files.current))?;
            }
        }
        if let Some(reason) = damage {
            own.push(Entry::new(Actor::Audit, Action::AuditDamage).failed(reason));
        } else if torn_bytes > 0 {
            own.push(Entry::new(Actor::Audit, Action::AuditRepair).count(torn_bytes));
        }
        own.extend_from_slice(entries);
        let (lines, last) = lines_of(&own, last);
        self.write(&current, if begins { 0 } else { complete_bytes }, &lines)?;
        if begins {
            self.sync_directory()?;
        }
        Checkpoint::write(checkpoint, last, &keys)
            .map_err(Error::io("write", &self.files.checkpoint))?;
        // What remains of them is tried again as the next file begins.
        for segment in expired {
            let _ = fs::remove_file(self.files.archived(segment));
        }
        Ok(())
    }

    /// Begins a file, and gives the one before its number if it `is_kept`. Returns the numbers of
    /// those that are to be removed once the new one is there.
    fn begin(&self, is_kept: bool, last: Tip, own: &mut Vec<Entry>) -> Result<Vec<u64>, Error> {
        let path = &self.files.current;
        let mut older = self.files.segments()?;
        let mut segment = older.last().map_or(1, |last| last + 1);
        if is_kept {
            // Older files may have been taken elsewhere: the numbers go on.
            let current = self.files.open(None)?.map(|current| current.read(0)).transpose()?;
            let current = current.unwrap_or_default();
            let first = complete_lines(&current).next().and_then(Line::parse);
            segment = segment.max(first.and_then(|first| first.segment).unwrap_or(0));
            older.push(segment);
            fs::rename(path, self.files.archived(segment)).map_err(Error::io("rename", path))?;
            segment += 1;
        }
        let begins = Entry::new(Actor::Audit, Action::AuditBegin);
        own.push(Entry { segment: Some(segment), prev: Some(BASE64.encode(last.mac)), ..begins });
        if self.config.keep == 0 {
            return Ok(Vec::new());
        }
        older.truncate(older.len().saturating_sub(self.config.keep));
        // A younger one is kept, and so are all after it: `verify` misses no file in between.
        let young = older.iter().position(|segment| !self.is_old(*segment));
        older.truncate(young.unwrap_or(older.len()));
        let expires = older.last().map(|&segment| Entry {
            segment: Some(segment),
            ..Entry::new(Actor::Audit, Action::AuditExpire)
        });
        own.extend(expires);
        Ok(older)
    }

    /// Says whether the last write of an older file is long enough ago for it to go.
    fn is_old(&self, segment: u64) -> bool {
        let modified = fs::metadata(self.files.archived(segment)).and_then(|file| file.modified());
        let written = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let age = self.clock.now().wall.saturating_sub(written.unwrap_or_default());
        self.config.keep_at_least.is_zero() || age >= self.config.keep_at_least
    }

    /// Puts `lines` after the first `kept` bytes of `file`, durably, or leaves these alone.
    fn write(&self, file: &File, kept: u64, lines: &[u8]) -> Result<(), Error> {
        let path = &self.files.current;
        file.set_len(kept).map_err(Error::io("cut", path))?;
        let written = file.write_all_at(lines, kept).and_then(|()| file.sync_data());
        if written.is_err() {
            // A sync that failed is not tried again: the kernel may have dropped the pages. They
            // are given up; the next append writes them anew. If this fails, too, that append
            // finds an entry that was never acknowledged, which does no harm.
            let _ = file.set_len(kept);
        }
        written.map_err(Error::io("write", path))
    }
}

/// What the last whole line of the log says of itself, not verified; the inner one is missing if it
/// is none of ours.
type Newest = Option<Option<Tip>>;

fn newest(bytes: &[u8]) -> Newest {
    complete_lines(bytes).last().map(|line| Line::parse(line).map(|line| line.tip()))
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
