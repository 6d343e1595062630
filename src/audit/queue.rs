//! Entries that hold up nothing: written in batches on a thread of their own, equal ones counted.

use super::{Action, Actor, Audit, AuditLog, Entry, Error};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::runtime::Handle;

/// Entries that may wait to be written; beyond it they are lost, and counted.
const WAITING_MAX: usize = 4096;
/// Entries written with one sync.
const BATCH_MAX: usize = 256;
/// How long equal entries are one.
const INTERVAL: Duration = Duration::from_secs(60);
/// Kinds of entries that are counted at a time; beyond it, each is written.
const KINDS_MAX: usize = 256;

/// What is not written yet.
#[derive(Debug, Default)]
pub(super) struct EntryQueue {
    waiting: Mutex<WaitingEntries>,
    /// Held by the one thread that writes.
    turn: Mutex<()>,
    /// The kinds of entries of the last minute, and how many came after the first.
    counted: Mutex<Vec<(Entry, u64)>>,
}

#[derive(Debug, Default)]
struct WaitingEntries {
    entries: Vec<Entry>,
    lost: u64,
    is_scheduled: bool,
}

impl Audit {
    /// Queues `entry`, which is written soon, on a blocking thread of `control`.
    pub fn queue(&self, entry: Entry, control: &Handle) {
        let Some(inner) = &self.0 else { return };
        let mut waiting = inner.queue.waiting.lock();
        if waiting.entries.len() >= WAITING_MAX {
            waiting.lost += 1;
            inner.count_write(1, false);
            return;
        }
        waiting.entries.push(entry);
        if !std::mem::replace(&mut waiting.is_scheduled, true) {
            let inner = inner.clone();
            control.spawn_blocking(move || inner.write_waiting());
        }
    }

    /// As [`Audit::write`], for what changes nothing and may come in any number, such as a request
    /// that was refused: equal ones within a minute after the first are written as one entry with
    /// their number.
    pub async fn count(&self, entry: Entry) -> Result<(), Error> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let kind = Entry { request_id: None, server_request_id: None, ..entry.clone() };
        let Some(counts_more) = inner.queue.add(&kind) else { return Ok(()) };
        if counts_more {
            let inner = Arc::downgrade(inner);
            tokio::spawn(async move {
                tokio::time::sleep(INTERVAL).await;
                let Some(inner) = inner.upgrade() else { return };
                // The log and the metric report a failure.
                let write = move || inner.record(&inner.queue.due(Some(&kind)));
                let _ = tokio::task::spawn_blocking(write).await;
            });
        }
        self.write(entry).await
    }

    /// Waits until what was queued and counted so far is written, or could not be.
    ///
    /// # Cancel safety
    /// Safe: what was to be written still is.
    pub async fn flush(&self) {
        let Some(inner) = self.0.clone() else { return };
        let write = move || {
            inner.write_waiting();
            inner.record(&inner.queue.due(None))
        };
        let _ = tokio::task::spawn_blocking(write).await;
    }
}

impl AuditLog {
    fn write_waiting(&self) {
        let _turn = self.queue.turn.lock();
        let (entries, mut lost) = {
            let mut waiting = self.queue.waiting.lock();
            waiting.is_scheduled = false;
            (std::mem::take(&mut waiting.entries), std::mem::take(&mut waiting.lost))
        };
        for batch in entries.chunks(BATCH_MAX) {
            // A hole is reported as soon as there is something to write to.
            let hole = Entry::new(Actor::Server, Action::AuditLost).count(lost);
            let hole = (lost > 0).then_some(hole).into_iter();
            match self.record(&hole.chain(batch.iter().cloned()).collect::<Vec<_>>()) {
                Ok(()) => lost = 0,
                Err(_) => lost += batch.len() as u64,
            }
        }
        self.queue.waiting.lock().lost += lost;
    }
}

impl EntryQueue {
    /// Counts one more of `kind`. For the first of a minute, which is to be written, says whether
    /// more will be counted: not if there are too many kinds.
    fn add(&self, kind: &Entry) -> Option<bool> {
        let mut counted = self.counted.lock();
        if let Some((_, more)) = counted.iter_mut().find(|(known, _)| known == kind) {
            *more += 1;
            return None;
        }
        let has_room = counted.len() < KINDS_MAX;
        if has_room {
            counted.push((kind.clone(), 0));
        }
        Some(has_room)
    }

    /// What was counted of `kind`, or of all; counting begins anew.
    fn due(&self, kind: Option<&Entry>) -> Vec<Entry> {
        let mut counted = self.counted.lock();
        let due = counted.extract_if(.., |(known, _)| kind.is_none_or(|kind| known == kind));
        due.filter(|(_, more)| *more > 0).map(|(entry, more)| entry.count(more)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::tests::audit;
    use std::fs;

    fn refused(account: &str, request: u64) -> Entry {
        let account = account.parse().expect("an alias");
        let entry = Entry::new(Actor::Server, Action::TokenRefresh).account(&account);
        entry.request_id(&request.to_string())
    }

    #[tokio::test]
    async fn equal_entries_are_one_with_their_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let audit = audit(dir.path(), &["k1"], 0, 0);
        audit.count(refused("acme", 0)).await.expect("written");
        audit.count(refused("globex", 0)).await.expect("written");
        for request in 1..=500 {
            audit.count(refused("acme", request)).await.expect("counted");
        }
        let lines = || fs::read_to_string(dir.path().join("audit.jsonl")).expect("a log");
        assert_eq!(lines().lines().count(), 3, "the first of each account");
        audit.flush().await;
        assert_eq!(lines().lines().count(), 4);
        let last = lines().lines().last().expect("a line").to_owned();
        assert!(last.contains("\"count\":500") && !last.contains("request_id"), "{last}");
        audit.count(refused("acme", 0)).await.expect("written");
        assert_eq!(lines().lines().count(), 5, "counting begins anew");
    }

    #[test]
    fn of_too_many_kinds_none_is_forgotten() {
        let queue = EntryQueue::default();
        let kind = |number: u64| refused("acme", 0).generation(number);
        for number in 0..KINDS_MAX as u64 {
            assert_eq!(queue.add(&kind(number)), Some(true));
        }
        assert_eq!(queue.add(&kind(1_000_000)), Some(false));
        assert_eq!(queue.add(&kind(3)), None);
        assert_eq!(queue.due(Some(&kind(3))), [kind(3).count(1)]);
        assert_eq!(queue.due(None), []);
        assert_eq!(queue.add(&kind(1_000_000)), Some(true));
    }

    #[tokio::test]
    async fn a_hole_is_reported_once_the_log_can_be_written_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("log");
        let audit = audit(&place, &["k1"], 0, 0);
        // A file where the directory should be.
        fs::write(&place, "").expect("written");
        for _ in 0..3 {
            audit.queue(refused("acme", 0), &Handle::current());
            audit.flush().await;
        }
        fs::remove_file(&place).expect("removed");
        audit.queue(refused("globex", 0), &Handle::current());
        audit.flush().await;
        let text = fs::read_to_string(place.join("audit.jsonl")).expect("a log");
        let hole = text.lines().nth(1).expect("a second line");
        assert!(hole.contains("audit.lost") && hole.contains("\"count\":3"), "{hole}");
        assert!(text.lines().nth(2).expect("a third line").contains("globex"));
    }
}
