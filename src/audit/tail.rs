//! Reads the end of a log and what is added to it. Checks nothing: `verify` does.

use super::{
    Error,
    chain::{Line, complete_bytes, complete_lines, rfc3339},
    files::{LogFiles, Segment},
    table_tail::TableTail,
};
use crate::id::AccountId;
use serde_json::Value;
use std::{path::Path, time::Duration};

/// The members that say who did it.
const ACTOR_MEMBERS: [&str; 7] = ["actor", "user", "uid", "key_id", "session", "subject", "san"];

#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub account: Option<AccountId>,
    /// Those of this action, or of this kind of actions (`token` for `token.refresh`), only.
    pub action: Option<String>,
    /// Those by this kind of actor, user, key, session or subject only.
    pub actor: Option<String>,
    /// Those before this number only; in a database, before this place.
    pub before: Option<u64>,
    /// Those from this time on only, since 1970.
    pub since: Option<Duration>,
}

/// Reads a log piece by piece, from its end back and what is added to it: however long it is, one piece
/// is in memory.
#[derive(Debug)]
pub enum LogReader {
    Files(Tail),
    Table(TableTail),
}

impl LogReader {
    /// The last `count` entries, oldest first, by a reader that has read nothing yet. Blocks.
    pub fn last(&mut self, count: usize) -> Result<Vec<Shown>, Error> {
        let mut shown = Vec::new();
        while self.older(&mut |one| shown.push(one))? && shown.len() < count {}
        shown.truncate(count);
        shown.reverse();
        Ok(shown)
    }

    /// Hands the entries of the next piece towards the beginning of the log to `each`, the newest first,
    /// and says whether there may be more. Blocks.
    pub fn older(&mut self, each: &mut dyn FnMut(Shown)) -> Result<bool, Error> {
        match self {
            Self::Files(tail) => tail.older(each),
            Self::Table(tail) => tail.older(each),
        }
    }

    /// Hands the next piece of what was added since the first read to `each`, the oldest first, and says
    /// whether there may be more. Blocks.
    pub fn newer(&mut self, each: &mut dyn FnMut(Shown)) -> Result<bool, Error> {
        match self {
            Self::Files(tail) => tail.newer(each),
            Self::Table(tail) => tail.newer(each),
        }
    }
}

/// So much of a file is read at a time.
const PIECE_BYTES: u64 = 256 * 1024;

#[derive(Debug)]
pub struct Tail {
    files: LogFiles,
    filter: Filter,
    /// Where the lines begin that were read, and where they end; none before the first read.
    begin: Option<FilePlace>,
    end: Option<FilePlace>,
}

/// A place between two lines.
#[derive(Debug, Clone, Copy)]
struct FilePlace {
    /// A file keeps it when it is given a number.
    inode: u64,
    /// So many bytes of the file are before it.
    at: u64,
    /// The number of the line beside it that was read.
    seq: u64,
}

/// An entry as written in the log.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its number, or its place in a database.
    pub seq: u64,
    pub json: String,
    /// Its members, the MAC included.
    pub members: Value,
}

impl Tail {
    /// A reader of the entries of the log at `path` that `filter` accepts.
    pub fn new(path: &Path, filter: Filter) -> Self {
        Self { files: LogFiles::new(path), filter, begin: None, end: None }
    }

    fn older(&mut self, each: &mut dyn FnMut(Shown)) -> Result<bool, Error> {
        let Some((segment, until)) = self.segment_before()? else { return Ok(false) };
        let from = until.saturating_sub(PIECE_BYTES);
        let bytes = segment.read_part(from, until)?;
        // The line in which the piece begins is read with the piece before; one as long as a piece is
        // none of ours.
        let newline = bytes.iter().position(|byte| *byte == b'\n').filter(|_| from > 0);
        let cut = newline.map_or(0, |at| at + 1);
        let (cut, bytes) = if cut < bytes.len() { (cut, &bytes[cut..]) } else { (0, &[][..]) };
        let (mut first, mut newest) = (self.begin.map_or(u64::MAX, |begin| begin.seq), None);
        for text in complete_lines(bytes).rev() {
            let Some(line) = Line::parse(text).filter(|line| line.seq < first) else { continue };
            newest = newest.or(Some(line.seq));
            first = line.seq;
            self.filter.shown_of(&line, text).into_iter().for_each(&mut *each);
        }
        let place = |at, seq| FilePlace { inode: segment.inode, at: from + at as u64, seq };
        let end = place(cut + complete_bytes(bytes), newest.unwrap_or(0));
        self.end.get_or_insert(end);
        self.begin = Some(place(cut, first));
        Ok(!self.filter.is_older(bytes))
    }

    /// The file in which reading goes on towards the beginning, and up to which byte.
    fn segment_before(&self) -> Result<Option<(Segment, u64)>, Error> {
        let mut is_next = self.begin.is_none();
        for segment in self.newest_first()? {
            let segment = segment?;
            let end = segment.len;
            match self.begin.filter(|begin| begin.inode == segment.inode) {
                _ if is_next => return Ok(Some((segment, end))),
                Some(begin) if begin.at > 0 => return Ok(Some((segment, begin.at.min(end)))),
                found => is_next = found.is_some(),
            }
        }
        Ok(None)
    }

    fn newer(&mut self, each: &mut dyn FnMut(Shown)) -> Result<bool, Error> {
        let Some((segment, from)) = self.segment_after()? else { return Ok(false) };
        let until = segment.len.min(from + PIECE_BYTES);
        let bytes = segment.read_part(from, until)?;
        let has_more = segment.number.is_some() || until < segment.len;
        let read = match complete_bytes(&bytes) {
            // Nothing will be added to this: it is no line.
            0 if has_more => bytes.len(),
            complete => complete,
        };
        let (last, mut newest) = (self.end.map_or(0, |end| end.seq), None);
        for text in complete_lines(&bytes) {
            let Some(line) = Line::parse(text) else { continue };
            newest = Some(line.seq);
            // A file that takes the place of another one may begin with lines that were read.
            if line.seq > last {
                self.filter.shown_of(&line, text).into_iter().for_each(&mut *each);
            }
        }
        let seq = match newest {
            // The numbers of another log may be lower.
            Some(newest) if !has_more => newest,
            newest => newest.unwrap_or(0).max(last),
        };
        self.end = Some(FilePlace { inode: segment.inode, at: from + read as u64, seq });
        Ok(has_more)
    }

    /// The file in which reading goes on towards the end, and from which byte; none between two files.
    fn segment_after(&self) -> Result<Option<(Segment, u64)>, Error> {
        let end = self.end.unwrap_or(FilePlace { inode: 0, at: 0, seq: 0 });
        let mut next: Option<Segment> = None;
        for segment in self.newest_first()? {
            let segment = segment?;
            // Else it was cut.
            if segment.inode == end.inode && end.at <= segment.len {
                let has_more = end.at < segment.len || next.is_none();
                return Ok(if has_more { Some((segment, end.at)) } else { next.map(|it| (it, 0)) });
            }
            let first = segment.first_line_number()?;
            next = Some(segment);
            if first.is_some_and(|first| first <= end.seq) {
                break;
            }
        }
        Ok(next.map(|segment| (segment, 0)))
    }

    /// The files of the log.
    fn newest_first(&self) -> Result<impl Iterator<Item = Result<Segment, Error>>, Error> {
        // Before the others are listed: it may become one of them.
        let current = self.files.open(None)?;
        let archived = self.files.segments()?.into_iter().rev();
        let archived = archived.filter_map(|number| self.files.open(Some(number)).transpose());
        Ok(current.map(Ok).into_iter().chain(archived))
    }
}

impl Filter {
    fn accepts(&self, line: &Line<'_>) -> bool {
        let Self { account, action, since, before, actor: _ } = self;
        let is_of = |action: &String| {
            let rest = line.action.strip_prefix(action.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        account.as_ref().is_none_or(|it| line.account.as_deref() == Some(it.as_str()))
            && action.as_ref().is_none_or(is_of)
            && before.is_none_or(|before| line.seq < before)
            // As it is written in the log, a time sorts like time.
            && since.is_none_or(|since| line.time >= rfc3339(since))
    }

    /// Whether the first of the lines `bytes` is older than what is asked for: so is all before it.
    pub(super) fn is_older(&self, bytes: &[u8]) -> bool {
        let Some(since) = self.since else { return false };
        let first = bytes.split(|byte| *byte == b'\n').find_map(Line::parse);
        first.is_some_and(|first| first.time < rfc3339(since))
    }

    fn is_by(&self, members: &Value) -> bool {
        let Some(actor) = &self.actor else { return true };
        let is = |name: &&str| match &members[*name] {
            Value::String(text) => text == actor,
            Value::Number(number) => number.to_string() == *actor,
            _ => false,
        };
        ACTOR_MEMBERS.iter().any(is)
    }

    /// The entry that the line `text` is, if it is asked for.
    pub(super) fn shown(&self, text: &[u8]) -> Option<Shown> {
        self.shown_of(&Line::parse(text)?, text)
    }

    fn shown_of(&self, line: &Line<'_>, text: &[u8]) -> Option<Shown> {
        if !self.accepts(line) {
            return None;
        }
        let members = serde_json::from_slice(text).ok().filter(|it| self.is_by(it))?;
        let json = String::from_utf8(text.to_vec()).ok()?;
        Some(Shown { seq: line.seq, json, members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        Action, Actor, ActorProof, Audit, Entry,
        tests::{audit, record_all},
    };

    fn add(log: &Audit, account: &str, generation: u64) {
        let entry = Entry::new(Actor::Server, Action::TokenRefresh).generation(generation);
        log.record(&entry.account(&account.parse().expect("an alias"))).expect("recorded");
    }

    fn generations(shown: &[Shown]) -> Vec<u64> {
        shown.iter().filter_map(|shown| shown.members["generation"].as_u64()).collect()
    }

    fn reader(log: &Audit, filter: Filter) -> LogReader {
        LogReader::Files(Tail::new(log.path().expect("a path"), filter))
    }

    /// What was added, and in how many pieces it came.
    fn added(reader: &mut LogReader) -> (Vec<u64>, usize) {
        let (mut shown, mut pieces) = (Vec::new(), 1);
        while reader.newer(&mut |one| shown.push(one)).expect("read") {
            pieces += 1;
        }
        (generations(&shown), pieces)
    }

    #[test]
    fn the_last_entries_and_new_ones_are_read_over_the_ends_of_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = audit(dir.path(), &["k1"], 2048, 0);
        for generation in 1..=30 {
            add(&log, ["acme", "globex"][generation as usize % 2], generation);
        }
        let files = LogFiles::new(log.path().expect("a path"));
        assert!(files.segments().expect("listed").len() > 1, "several files");
        let acme = Some("acme".parse().expect("an alias"));
        let mut tail = reader(&log, Filter { account: acme, ..Filter::default() });
        assert_eq!(
            generations(&tail.last(12).expect("read")),
            (8..=30).step_by(2).collect::<Vec<_>>()
        );
        let mut all = reader(&log, Filter::default());
        assert_eq!(all.last(3).expect("read").len(), 3);
        assert!(added(&mut all).0.is_empty());
        for generation in 31..=90 {
            add(&log, "acme", generation);
            // Now and then several files at once.
            if generation % 31 == 0 || generation == 32 {
                added(&mut all);
            }
        }
        assert_eq!(added(&mut all).0, (63..=90).collect::<Vec<_>>());
        assert_eq!(added(&mut tail).0, (31..=90).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_is_read_in_pieces_in_both_directions_and_each_entry_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = audit(dir.path(), &["k1"], 600_000, 0);
        let entry = |count| Entry::new(Actor::Server, Action::TokenRefresh).generation(count);
        let record = |from: u64, to: u64| {
            for first in (from..=to).step_by(100) {
                record_all(&log, &(first..(first + 100)).map(entry).collect::<Vec<_>>());
            }
        };
        record(1, 8000);
        let mut tail = reader(&log, Filter::default());
        let (mut shown, mut largest) = (Vec::new(), 0);
        loop {
            let before = shown.len();
            let has_more = tail.older(&mut |one| shown.push(one)).expect("read");
            largest = largest.max(shown.len() - before);
            // What is added meanwhile, and that a file is given a number, changes nothing.
            if before == 0 {
                record(8001, 14_000);
            }
            if !has_more {
                break;
            }
        }
        assert_eq!(generations(&shown), (1..=8000).rev().collect::<Vec<_>>());
        assert!(largest < 2500, "{largest} in a piece");
        let (new, pieces) = added(&mut tail);
        assert_eq!(new, (8001..=14_000).collect::<Vec<_>>());
        assert!(pieces > 3, "{pieces}");
        assert_eq!(added(&mut tail), (Vec::new(), 1));
    }

    #[test]
    fn a_log_that_was_cut_or_replaced_is_followed_and_what_was_read_is_not_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = audit(dir.path(), &["k1"], 0, 0);
        (1..=30).for_each(|generation| add(&log, "acme", generation));
        let mut tail = reader(&log, Filter::default());
        tail.last(1).expect("read");
        let path = log.path().expect("a path");
        let text = std::fs::read(path).expect("a log");
        add(&log, "acme", 31);
        std::fs::copy(path, path.with_extension("copy")).expect("copied");
        std::fs::rename(path.with_extension("copy"), path).expect("renamed");
        assert_eq!(added(&mut tail).0, [31]);
        std::fs::write(path, &text).expect("written");
        assert!(added(&mut tail).0.is_empty());
    }

    #[test]
    fn entries_are_chosen_by_action_and_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = audit(dir.path(), &["k1"], 0, 0);
        add(&log, "acme", 1);
        log.record(&Entry::new(Actor::Server, Action::TokenDisclose).generation(2)).expect("kept");
        log.record(&Entry::new(Actor::Server, Action::ServerStop).generation(3)).expect("kept");
        let chosen = |filter| generations(&reader(&log, filter).last(9).expect("read"));
        let of = |action: &str| Filter { action: Some(action.to_owned()), ..Filter::default() };
        assert_eq!(chosen(of("token")), [1, 2]);
        assert_eq!(chosen(of("token.refresh")), [1]);
        assert!(chosen(of("tok")).is_empty());
        let proof = ActorProof::key("adsk_7Fh2kQ9x");
        let by = Actor::admin("ops", None, proof);
        log.record(&Entry::new(by, Action::Logout).generation(4)).expect("kept");
        let by = |who: &str| chosen(Filter { actor: Some(who.to_owned()), ..Filter::default() });
        assert_eq!((by("server"), by("ops")), (vec![1, 2, 3], vec![4]));
        assert_eq!((by("adsk_7Fh2kQ9x"), by("adsk_")), (vec![4], vec![]));
        // The first entry is that of the file.
        let before = Filter { before: Some(4), ..Filter::default() };
        assert_eq!(chosen(before), [1, 2]);
        let now = Duration::from_secs(1_795_132_800);
        let since = |since| chosen(Filter { since: Some(since), ..Filter::default() });
        assert_eq!(since(now), [1, 2, 3, 4]);
        assert!(since(now + Duration::from_millis(1)).is_empty());
    }
}
