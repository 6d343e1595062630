//! The latest entries of the audit log for all streams: the log is read once, and then what was added.

use crate::audit::{
    Audit, Error,
    tail::{Filter, LogReader, Shown},
};

/// Entries that are kept.
pub(super) const LEN: usize = 100;

/// The end of the audit log.
#[derive(Default)]
pub(super) struct AuditTail {
    reader: Option<LogReader>,
    /// The newest last.
    latest: Vec<Shown>,
}

impl AuditTail {
    /// The latest entries, the newest first; none if no log is kept. Blocks.
    pub(super) fn latest(&mut self, audit: &Audit) -> Result<Vec<Shown>, Error> {
        if let Some(reader) = &mut self.reader {
            let latest = &mut self.latest;
            if reader.newer(&mut |entry| latest.push(entry))? {
                // More than a piece was added: it would take many looks to come to its end.
                *self = Self::default();
            }
        }
        if self.reader.is_none()
            && let Some(mut reader) = audit.reader(Filter::default())
        {
            self.latest = reader.last(LEN)?;
            self.reader = Some(reader);
        }
        self.latest.drain(..self.latest.len().saturating_sub(LEN));
        Ok(self.latest.iter().rev().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        Action, Actor, Entry,
        tests::{audit, record_all},
    };

    #[test]
    fn what_was_added_comes_first_and_the_oldest_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = audit(directory.path(), &["k1"], 4096, 0);
        let add = |count: u64| {
            let entry = Entry::new(Actor::Server, Action::TokenRefresh).generation(count);
            log.record(&entry).expect("recorded");
        };
        let mut tail = AuditTail::default();
        let mut generations = || {
            let latest = tail.latest(&log).expect("read");
            latest.iter().filter_map(|one| one.members["generation"].as_u64()).collect::<Vec<_>>()
        };
        (1..=3).for_each(add);
        assert_eq!(generations(), [3, 2, 1]);
        (4..=5).for_each(add);
        assert_eq!(generations(), [5, 4, 3, 2, 1]);
        (6..=200).for_each(add);
        // Files begin with entries of their own.
        let latest = generations();
        assert!(latest.len() <= LEN && latest.len() > LEN / 2, "{}", latest.len());
        assert!(latest[0] == 200 && latest.is_sorted_by(|one, other| *one == other + 1));
        assert!(AuditTail::default().latest(&Audit::off()).expect("nothing").is_empty());
    }

    #[test]
    fn after_more_than_a_piece_was_added_the_newest_are_shown_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = audit(directory.path(), &["k1"], 0, 0);
        let entry = |count| Entry::new(Actor::Server, Action::TokenRefresh).generation(count);
        record_all(&log, &(1..=10).map(entry).collect::<Vec<_>>());
        let mut tail = AuditTail::default();
        let mut newest = || {
            let latest = tail.latest(&log).expect("read");
            (latest.len(), latest[0].members["generation"].as_u64())
        };
        // The first entry is that of the file.
        assert_eq!(newest(), (11, Some(10)));
        record_all(&log, &(11..=9000).map(entry).collect::<Vec<_>>());
        assert_eq!(newest(), (LEN, Some(9000)));
        record_all(&log, &[entry(9001)]);
        assert_eq!(newest(), (LEN, Some(9001)), "and goes on from there");
    }
}
