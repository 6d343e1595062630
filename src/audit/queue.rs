//! Entries that hold up nothing: written in batches on a thread of their own, equal ones counted. While
//! the log cannot be written they wait; what is too many is lost, and counted.

use super::{Action, Actor, Audit, AuditLog, Entry, Error};
use crate::{backoff::Backoff, id::AccountId};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::runtime::Handle;
use tracing::warn;

/// Entries that may wait to be written; beyond it they are lost, and counted.
const WAITING_MAX: usize = 4096;
/// Those about accounts of one tenant: one whose agents call tools without end costs no other an entry.
const OF_TENANT_MAX: usize = WAITING_MAX / 2;
/// Entries written with one sync.
const BATCH_MAX: usize = 256;
/// Between attempts to write, while the log cannot be written.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// How long equal entries are one.
const INTERVAL: Duration = Duration::from_secs(60);
/// Kinds of entries that are counted at a time; beyond it, each is written.
const KINDS_MAX: usize = 256;

/// Kinds of refused calls that one caller has counted by name; the rest are one kind more.
const NAMES_MAX: usize = 16;

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
    of_tenants: HashMap<Box<str>, usize>,
    lost: u64,
    is_scheduled: bool,
    /// The last attempt has failed, and the next is to come.
    is_failing: bool,
}

impl WaitingEntries {
    /// Says whether there was room for it.
    fn push(&mut self, entry: Entry) -> bool {
        if self.entries.len() >= WAITING_MAX {
            return false;
        }
        if let Some(tenant) = entry.account.as_ref().and_then(AccountId::tenant) {
            let of_tenant = self.of_tenants.entry(tenant.into()).or_default();
            if *of_tenant >= OF_TENANT_MAX {
                return false;
            }
            *of_tenant += 1;
        }
        self.entries.push(entry);
        true
    }

    fn take(&mut self) -> Vec<Entry> {
        self.of_tenants.clear();
        std::mem::take(&mut self.entries)
    }

    /// Puts back what could not be written, before what has come since; the newest are lost where
    /// there are too many.
    fn put_back(&mut self, mut entries: Vec<Entry>) {
        entries.append(&mut self.take());
        self.lost += entries.len().saturating_sub(WAITING_MAX) as u64;
        entries.truncate(WAITING_MAX);
        for tenant in entries.iter().filter_map(|entry| entry.account.as_ref()?.tenant()) {
            *self.of_tenants.entry(tenant.into()).or_default() += 1;
        }
        self.entries = entries;
    }
}

impl Audit {
    /// Queues `entry`, which is written soon, on a blocking thread of `control`.
    pub fn queue(&self, mut entry: Entry, control: &Handle) {
        let Some(inner) = &self.0 else { return };
        let mut waiting = inner.queue.waiting.lock();
        if waiting.is_failing {
            entry.set_occurred(inner.clock.now().wall);
            inner.count_write(1, false);
        }
        let is_counted = waiting.is_failing;
        if !waiting.push(entry) {
            waiting.lost += 1;
            inner.count_write(usize::from(!is_counted), false);
            return;
        }
        if !std::mem::replace(&mut waiting.is_scheduled, true) {
            control.spawn(write_until_done(Arc::downgrade(inner)));
        }
    }

    /// As [`Audit::queue`], for a call that was refused: counted as by [`Audit::count`]. The caller
    /// chooses what it calls: beyond the first names, all its calls are one kind.
    pub fn queue_refused(&self, entry: Entry, control: &Handle) {
        let Some(inner) = &self.0 else { return };
        let entry = inner.queue.limited(entry);
        let kind = kind(&entry);
        let Some(counts_more) = inner.queue.add(&kind) else { return };
        if counts_more {
            inner.count_more(kind, control);
        }
        self.queue(entry, control);
    }

    /// As [`Audit::write`], for what changes nothing and may come in any number, such as a request
    /// that was refused: equal ones within a minute after the first are written as one entry with
    /// their number.
    pub async fn count(&self, entry: Entry) -> Result<(), Error> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let kind = kind(&entry);
        let Some(counts_more) = inner.queue.add(&kind) else { return Ok(()) };
        if counts_more {
            inner.count_more(kind, &Handle::current());
        }
        self.write(entry).await
    }

    /// Waits until what was queued and counted so far is written, or could not be, which is logged: it
    /// is lost with the process.
    ///
    /// # Cancel safety
    /// Safe: what was to be written still is.
    pub async fn flush(&self) {
        let Some(inner) = self.0.clone() else { return };
        let write = move || {
            if inner.write_waiting() {
                let entries = inner.queue.waiting.lock().entries.len();
                warn!(entries, "entries of the audit log could not be written yet");
            }
            inner.record(&inner.queue.due(None))
        };
        let _ = tokio::task::spawn_blocking(write).await;
    }
}

/// What is the same in equal entries.
fn kind(entry: &Entry) -> Entry {
    Entry { request_id: None, server_request_id: None, ..entry.clone() }
}

impl AuditLog {
    /// Writes how many of `kind` came, once a minute is over.
    fn count_more(self: &Arc<Self>, kind: Entry, control: &Handle) {
        let inner = Arc::downgrade(self);
        control.spawn(async move {
            tokio::time::sleep(INTERVAL).await;
            let Some(inner) = inner.upgrade() else { return };
            // The log and the metric report a failure.
            let write = move || inner.record(&inner.queue.due(Some(&kind)));
            let _ = tokio::task::spawn_blocking(write).await;
        });
    }

    /// Writes what waits; says whether something was left because it could not be written.
    fn write_waiting(&self) -> bool {
        let _turn = self.queue.turn.lock();
        loop {
            let (mut entries, lost) = {
                let mut waiting = self.queue.waiting.lock();
                if waiting.entries.is_empty() && waiting.lost == 0 {
                    (waiting.is_scheduled, waiting.is_failing) = (false, false);
                    return false;
                }
                (waiting.take(), std::mem::take(&mut waiting.lost))
            };
            // A hole is reported as soon as there is something to write to.
            let hole = Entry::new(Actor::Server, Action::AuditLost).count(lost);
            let mut is_written = lost == 0 || self.append(&[hole]).is_ok();
            let lost = if is_written { 0 } else { lost };
            while is_written && !entries.is_empty() {
                let batch = &entries[..entries.len().min(BATCH_MAX)];
                is_written = self.append(batch).is_ok();
                if is_written {
                    let count = batch.len();
                    self.count_write(count, true);
                    entries.drain(..count);
                }
            }
            if !is_written {
                let now = self.clock.now().wall;
                let failed = entries.iter_mut().filter_map(|entry| entry.set_occurred(now)).count();
                self.count_write(failed, false);
                let mut waiting = self.queue.waiting.lock();
                waiting.lost += lost;
                waiting.put_back(entries);
                waiting.is_failing = true;
                return true;
            }
        }
    }
}

/// Writes what waits, again and again until all of it is written or the log is gone.
async fn write_until_done(log: Weak<AuditLog>) {
    let mut pause = Backoff::new(RETRY.0, RETRY.1);
    loop {
        let Some(inner) = log.upgrade() else { return };
        let is_left = tokio::task::spawn_blocking(move || inner.write_waiting()).await;
        if !is_left.unwrap_or(false) {
            return;
        }
        tokio::time::sleep(pause.next()).await;
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

    /// `entry`, or the one for all like it where its caller has as many names as are counted.
    fn limited(&self, entry: Entry) -> Entry {
        let (counted, kind) = (self.counted.lock(), kind(&entry));
        let mut names = 0;
        for (known, _) in &*counted {
            if *known == kind {
                return entry;
            }
            names += usize::from(known.is_like(&kind));
        }
        if names < NAMES_MAX { entry } else { entry.summed() }
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
    use crate::audit::{ActorProof, tests::audit};
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

    #[tokio::test]
    async fn refused_calls_of_a_tool_are_one_entry_and_of_many_tools_a_few() {
        let dir = tempfile::tempdir().expect("a directory");
        let audit = audit(dir.path(), &["k1"], 0, 0);
        let call = |caller: &str, key: u32, tool: &str| {
            let proof = ActorProof::key(&format!("adsk_{key}"));
            let entry = Entry::new(Actor::caller(caller, None, proof), Action::ToolCall);
            entry.about(tool).request_id("one").failed("caller_rejected")
        };
        let refuse = |entry| audit.queue_refused(entry, &Handle::current());
        (0..100).for_each(|_| refuse(call("agent", 1, "delete")));
        audit.flush().await;
        let lines = || {
            let text = fs::read_to_string(dir.path().join("audit.jsonl")).expect("a log");
            let lines = text.lines().filter(|line| line.contains("tool.call"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lines().len(), 2);
        assert!(lines()[0].contains("delete") && !lines()[0].contains("\"count\""));
        assert!(lines()[1].contains("delete") && lines()[1].contains("\"count\":99"));
        // Whatever it calls, and with whichever of its keys.
        (0..1000).for_each(|tool| refuse(call("agent", tool % 3, &format!("tool-{tool}"))));
        refuse(call("other", 1, "tool-999"));
        audit.flush().await;
        let new = lines().split_off(2);
        let rest = NAMES_MAX + 1;
        assert_eq!(new.len(), rest + 2, "{new:#?}");
        assert!(new[..NAMES_MAX].iter().all(|line| line.contains("\"about\":\"tool-")));
        for line in [&new[NAMES_MAX], &new[rest + 1]] {
            assert!(line.contains("agent") && !line.contains("tool-"), "{line}");
        }
        assert!(new[rest].contains("other") && new[rest].contains("tool-999"), "the twin");
        let more = 1000 - rest;
        assert!(new[rest + 1].contains(&format!("\"count\":{more}")), "{}", new[rest + 1]);
    }

    #[test]
    fn a_tenant_takes_half_of_the_room_and_those_without_one_all() {
        let mut waiting = WaitingEntries::default();
        let fits = |waiting: &mut WaitingEntries, account: &str| {
            (0..WAITING_MAX).filter(|_| waiting.push(refused(account, 0))).count()
        };
        assert_eq!(fits(&mut waiting, "t1~acme"), OF_TENANT_MAX);
        assert_eq!(fits(&mut waiting, "t1~globex"), 0, "it is of the same tenant");
        assert_eq!(fits(&mut waiting, "t2~acme"), OF_TENANT_MAX);
        assert_eq!(waiting.take().len(), WAITING_MAX);
        assert_eq!(fits(&mut waiting, "acme"), WAITING_MAX);
        assert_eq!(fits(&mut waiting, "t1~acme"), 0);
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

    /// A log that cannot be written, as there is a file where its directory should be.
    fn obstructed(dir: &tempfile::TempDir) -> (std::path::PathBuf, Audit) {
        let place = dir.path().join("log");
        fs::write(&place, "").expect("written");
        let audit = audit(&place, &["k1"], 0, 0);
        (place, audit)
    }

    fn lines(place: &std::path::Path) -> Vec<String> {
        let text = fs::read_to_string(place.join("audit.jsonl")).expect("a log");
        text.lines().skip(1).map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_later_in_its_order_and_says_when_it_occurred() {
        let dir = tempfile::tempdir().expect("a directory");
        let (place, audit) = obstructed(&dir);
        for account in ["one", "two", "three"] {
            audit.queue(refused(account, 0), &Handle::current());
            audit.flush().await;
        }
        fs::remove_file(&place).expect("removed");
        audit.queue(refused("four", 0), &Handle::current());
        audit.flush().await;
        audit.queue(refused("five", 0), &Handle::current());
        audit.flush().await;
        let lines = lines(&place);
        let accounts = ["one", "two", "three", "four", "five"];
        assert_eq!(lines.len(), accounts.len(), "{lines:#?}");
        for (line, account) in lines.iter().zip(accounts) {
            assert!(line.contains(&format!("\"account\":\"{account}\"")), "{line}");
            let is_late = line.contains("\"occurred\":\"2026-11-20T00:00:00.000Z\"");
            assert_eq!(is_late, account != "five", "{line}");
        }
    }

    #[tokio::test]
    async fn what_is_too_many_while_the_log_cannot_be_written_is_lost_and_counted_in_one_entry() {
        let dir = tempfile::tempdir().expect("a directory");
        let (place, audit) = obstructed(&dir);
        audit.queue(refused("first", 0), &Handle::current());
        audit.flush().await;
        (1..WAITING_MAX + 7).for_each(|_| audit.queue(refused("acme", 0), &Handle::current()));
        audit.flush().await;
        fs::remove_file(&place).expect("removed");
        audit.flush().await;
        let lines = lines(&place);
        assert_eq!(lines.len(), 1 + WAITING_MAX);
        assert!(
            lines[0].contains("audit.lost") && lines[0].contains("\"count\":7"),
            "{}",
            lines[0]
        );
        assert!(lines[1].contains("first"), "{}", lines[1]);
        audit.flush().await;
        assert_eq!(self::lines(&place).len(), lines.len(), "once");
    }
}
