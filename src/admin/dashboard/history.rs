//! How refreshes of each account went, day by day, as the audit log says: it outlives restarts, and with
//! PostgreSQL it has what every server did.
//!
//! The log is read from its end back when a page first wants it; from then on what was added. A look
//! takes a few seconds at most: of a log that is larger, the next look reads on.

use crate::{
    audit::{
        Action, Audit,
        tail::{Filter, LogReader, Shown},
    },
    id::AccountId,
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Days that are shown, today included.
pub(super) const DAYS: usize = 30;
const DAY_SECS: u64 = 86_400;
/// How long the first look at the log takes at most, and each one after it.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(1);

/// Refreshes of one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RefreshDay {
    pub(super) succeeded: u32,
    pub(super) failed: u32,
}

/// Refreshes by account and day.
#[derive(Default)]
pub(super) struct RefreshHistory {
    reader: Option<LogReader>,
    refreshes: Refreshes,
    /// The log was not yet read back to the first day.
    is_behind: bool,
    /// More was added to it than the last look had time for.
    is_stale: bool,
}

#[derive(Default)]
struct Refreshes {
    accounts: HashMap<AccountId, HashMap<u64, RefreshDay>>,
    /// When the oldest was that is counted, in seconds since 1970.
    oldest: u64,
}

/// The last days of an account.
pub(super) struct AccountDays {
    /// The oldest first.
    pub(super) days: [RefreshDay; DAYS],
    /// Since when all refreshes are counted, in seconds since 1970, if that is not all days.
    pub(super) since: Option<u64>,
    /// The newest are not counted yet.
    pub(super) is_stale: bool,
}

impl RefreshHistory {
    /// The last days of `account`; none where there is no log, or it cannot be read. Blocks.
    pub(super) fn of(
        &mut self,
        audit: &Audit,
        account: &AccountId,
        now: Duration,
    ) -> Option<AccountDays> {
        let timeout = if self.reader.is_none() { FIRST_TIMEOUT } else { TIMEOUT };
        self.of_within(timeout, audit, account, now)
    }

    fn of_within(
        &mut self,
        timeout: Duration,
        audit: &Audit,
        account: &AccountId,
        now: Duration,
    ) -> Option<AccountDays> {
        let first = (now.as_secs() / DAY_SECS).saturating_sub(DAYS as u64 - 1);
        self.read(audit, first, now, Instant::now() + timeout)?;
        let days = self.refreshes.accounts.get(account);
        let day = |at: usize| days.and_then(|days| days.get(&(first + at as u64))).copied();
        Some(AccountDays {
            days: std::array::from_fn(|at| day(at).unwrap_or_default()),
            since: self.is_behind.then_some(self.refreshes.oldest),
            is_stale: self.is_stale,
        })
    }

    /// Reads what was not read yet from day `first` on, until the `deadline`.
    fn read(&mut self, audit: &Audit, first: u64, now: Duration, deadline: Instant) -> Option<()> {
        let since = first * DAY_SECS;
        let is_in_time = || Instant::now() < deadline;
        let refreshes = &mut self.refreshes;
        let reader = match &mut self.reader {
            Some(reader) => reader,
            unread => {
                let action = Some(Action::TokenRefresh.as_str().to_owned());
                let since = Some(Duration::from_secs(since));
                let filter = Filter { action, since, ..Filter::default() };
                let mut reader = audit.reader(filter)?;
                refreshes.oldest = now.as_secs();
                self.is_behind = reader.older(&mut |shown| refreshes.count(&shown)).ok()?;
                unread.insert(reader)
            }
        };
        // What is new counts more than what is old.
        self.is_stale = loop {
            match reader.newer(&mut |shown| refreshes.count(&shown)).ok()? {
                true if !is_in_time() => break true,
                true => {}
                false => break false,
            }
        };
        while self.is_behind && is_in_time() {
            self.is_behind = reader.older(&mut |shown| refreshes.count(&shown)).ok()?;
        }
        self.is_behind &= refreshes.oldest > since;
        refreshes.accounts.values_mut().for_each(|days| days.retain(|day, _| *day >= first));
        Some(())
    }
}

impl Refreshes {
    fn count(&mut self, shown: &Shown) {
        let text = |name: &str| shown.members[name].as_str().unwrap_or_default();
        let time = text("time").parse::<jiff::Timestamp>().ok();
        let time = time.and_then(|time| u64::try_from(time.as_second()).ok());
        let (Some(time), Ok(account)) = (time, text("account").parse()) else { return };
        self.oldest = self.oldest.min(time);
        let day = self.accounts.entry(account).or_default().entry(time / DAY_SECS).or_default();
        match text("outcome") {
            "ok" => day.succeeded += 1,
            "failed" => day.failed += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        Actor, Entry,
        tests::{audit, record_all},
    };

    /// The clock of the log stands still.
    const NOW: Duration = Duration::from_secs(1_795_132_800);

    fn id(name: &str) -> AccountId {
        name.parse().expect("an id")
    }

    fn refresh(name: &str) -> Entry {
        Entry::new(Actor::Server, Action::TokenRefresh).account(&id(name))
    }

    #[test]
    fn refreshes_are_counted_by_account_and_day_and_what_is_added_is_read_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = audit(directory.path(), &["k1"], 2048, 0);
        let add = |entry: &Entry| log.record(entry).expect("recorded");
        (0..20).for_each(|_| add(&refresh("acme")));
        add(&refresh("acme").failed("lwa_unavailable"));
        add(&refresh("globex"));
        add(&Entry::new(Actor::Server, Action::Login).account(&id("acme")));
        let mut history = RefreshHistory::default();
        let mut last = |name: &str, now| {
            let found = history.of(&log, &id(name), now).expect("a log");
            assert_eq!(found.since, None, "all of it is read");
            found.days.map(|day| (day.succeeded, day.failed))
        };
        assert_eq!(last("acme", NOW)[DAYS - 1], (20, 1));
        assert_eq!(last("globex", NOW)[DAYS - 1], (1, 0));
        assert_eq!(last("other", NOW), [(0, 0); DAYS]);
        add(&refresh("acme"));
        let later = NOW + Duration::from_secs(29 * DAY_SECS);
        assert_eq!(last("acme", later)[0], (21, 1));
        assert_eq!(last("acme", later + Duration::from_secs(DAY_SECS)), [(0, 0); DAYS]);
        let off = RefreshHistory::default().of(&Audit::off(), &id("acme"), NOW);
        assert!(off.is_none(), "without a log there is none");
    }

    #[test]
    fn a_log_that_is_not_read_in_time_says_since_when_it_is_and_is_read_on_by_the_next_look() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = audit(directory.path(), &["k1"], 0, 0);
        record_all(&log, &vec![refresh("acme"); 4000]);
        let mut history = RefreshHistory::default();
        let mut look = |timeout| {
            let found = history.of_within(timeout, &log, &id("acme"), NOW).expect("a log");
            (found.days[DAYS - 1].succeeded, found.since, found.is_stale)
        };
        let (counted, since, is_stale) = look(Duration::ZERO);
        assert!(0 < counted && counted < 4000, "{counted}");
        assert_eq!((since, is_stale), (Some(NOW.as_secs()), false));
        record_all(&log, &vec![refresh("acme"); 4000]);
        let (more, since, is_stale) = look(Duration::ZERO);
        assert!(counted < more && more < 8000 && since.is_some() && is_stale, "{more}");
        assert_eq!(look(FIRST_TIMEOUT), (8000, None, false));
        assert_eq!(look(Duration::ZERO), (8000, None, false));
    }
}
