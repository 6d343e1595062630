//! Reads the end of a log and what is added to it. Checks nothing: `verify` does.

use super::{
    Error,
    chain::{Line, complete_bytes, complete_lines, rfc3339},
    files::{LogFiles, Segment},
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
    /// Those before this number only.
    pub before: Option<u64>,
    /// Those from this time on only, since 1970.
    pub since: Option<Duration>,
}

#[derive(Debug)]
pub struct Tail {
    files: LogFiles,
    filter: Filter,
    /// The number of the last entry that was read.
    last: u64,
    /// The inode of the file that grows, and how much of it was read.
    read: (u64, u64),
}

/// An entry as written in the log.
#[derive(Debug, Clone)]
pub struct Shown {
    pub seq: u64,
    pub json: String,
    /// Its members, the MAC included.
    pub members: Value,
}

impl Tail {
    /// A reader of the entries of the log at `path` that `filter` accepts.
    pub fn new(path: &Path, filter: Filter) -> Self {
        Self { files: LogFiles::new(path), filter, last: 0, read: (0, 0) }
    }

    /// The last `count` entries, oldest first.
    pub fn last(&mut self, count: usize) -> Result<Vec<Shown>, Error> {
        let mut shown = self.read_back(|shown, _| shown.len() >= count)?;
        Ok(shown.split_off(shown.len().saturating_sub(count)))
    }

    /// The entries that were added since the last read.
    pub fn added(&mut self) -> Result<Vec<Shown>, Error> {
        // Between two files there is none.
        let Some(current) = self.files.open(None)? else { return Ok(Vec::new()) };
        let (inode, read) = self.read;
        // Another file, or it was cut.
        if inode != current.inode || read > current.len {
            let last = self.last;
            let mut shown = self.read_back(|_, first| first <= last)?;
            shown.retain(|shown| shown.seq > last);
            return Ok(shown);
        }
        let bytes = current.read(read)?;
        self.remember(&current, read, &bytes);
        Ok(self.shown(&bytes))
    }

    /// Reads file by file, newest first, until it is `enough`: of what was found so far and the
    /// number of the last file's first entry.
    fn read_back(&mut self, enough: impl Fn(&[Shown], u64) -> bool) -> Result<Vec<Shown>, Error> {
        let archived = self.files.segments()?;
        let mut shown = Vec::new();
        for number in std::iter::once(None).chain(archived.into_iter().rev().map(Some)) {
            let Some(segment) = self.files.open(number)? else { continue };
            let bytes = segment.read(0)?;
            if number.is_none() {
                self.remember(&segment, 0, &bytes);
            }
            shown = [self.shown(&bytes), shown].concat();
            let first = complete_lines(&bytes).find_map(Line::parse);
            if enough(&shown, first.map_or(u64::MAX, |line| line.seq)) {
                break;
            }
        }
        Ok(shown)
    }

    /// Remembers how far the file that grows was read: `bytes` from byte `from` on.
    fn remember(&mut self, current: &Segment, from: u64, bytes: &[u8]) {
        self.read = (current.inode, from + complete_bytes(bytes) as u64);
        let newest = complete_lines(bytes).rev().find_map(Line::parse);
        self.last = newest.map_or(self.last, |line| line.seq);
    }

    fn accepts(&self, line: &Line<'_>) -> bool {
        let Filter { account, action, since, before, actor: _ } = &self.filter;
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

    fn is_by(&self, members: &Value) -> bool {
        let Some(actor) = &self.filter.actor else { return true };
        let is = |name: &&str| match &members[*name] {
            Value::String(text) => text == actor,
            Value::Number(number) => number.to_string() == *actor,
            _ => false,
        };
        ACTOR_MEMBERS.iter().any(is)
    }

    /// The entries in `bytes` that are asked for. What is no entry is left to `verify`.
    fn shown(&self, bytes: &[u8]) -> Vec<Shown> {
        let entries = complete_lines(bytes).filter_map(|text| {
            let line = Line::parse(text).filter(|line| self.accepts(line))?;
            let members = serde_json::from_slice(text).ok().filter(|it| self.is_by(it))?;
            let json = String::from_utf8(text.to_vec()).ok()?;
            Some(Shown { seq: line.seq, json, members })
        });
        entries.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Action, Actor, ActorProof, Audit, Entry, tests::audit};

    fn add(log: &Audit, account: &str, generation: u64) {
        let entry = Entry::new(Actor::Server, Action::TokenRefresh).generation(generation);
        log.record(&entry.account(&account.parse().expect("an alias"))).expect("recorded");
    }

    fn generations(shown: &[Shown]) -> Vec<u64> {
        shown.iter().filter_map(|shown| shown.members["generation"].as_u64()).collect()
    }

    #[test]
    fn the_last_entries_and_new_ones_are_read_over_the_ends_of_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = audit(dir.path(), &["k1"], 2048, 0);
        for generation in 1..=30 {
            add(&log, ["acme", "globex"][generation as usize % 2], generation);
        }
        let path = log.path().expect("a path").to_owned();
        assert!(LogFiles::new(&path).segments().expect("listed").len() > 1, "several files");
        let acme = Some("acme".parse().expect("an alias"));
        let mut tail = Tail::new(&path, Filter { account: acme, ..Filter::default() });
        assert_eq!(
            generations(&tail.last(12).expect("read")),
            (8..=30).step_by(2).collect::<Vec<_>>()
        );
        let mut all = Tail::new(&path, Filter::default());
        assert_eq!(all.last(3).expect("read").len(), 3);
        assert!(all.added().expect("read").is_empty());
        for generation in 31..=90 {
            add(&log, "acme", generation);
            // Now and then several files at once.
            if generation % 31 == 0 || generation == 32 {
                all.added().expect("read");
            }
        }
        assert_eq!(generations(&all.added().expect("read")), (63..=90).collect::<Vec<_>>());
        assert_eq!(generations(&tail.added().expect("read")), (31..=90).collect::<Vec<_>>());
    }

    #[test]
    fn entries_are_chosen_by_action_and_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = audit(dir.path(), &["k1"], 0, 0);
        add(&log, "acme", 1);
        log.record(&Entry::new(Actor::Server, Action::TokenDisclose).generation(2)).expect("kept");
        log.record(&Entry::new(Actor::Server, Action::ServerStop).generation(3)).expect("kept");
        let path = log.path().expect("a path");
        let chosen = |filter| generations(&Tail::new(path, filter).last(9).expect("read"));
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
