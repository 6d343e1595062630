//! Counts entries that change nothing and may come in any number: the first is written at once,
//! equal ones within a minute after it as one entry with their number.

use super::Entry;
use parking_lot::Mutex;
use std::time::Duration;

/// Entries that are being counted.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Vec<Counted>>);

#[derive(Debug)]
struct Counted {
    entry: Entry,
    /// When the first was written.
    since: Duration,
    /// How many came after it.
    more: u64,
}

impl Tally {
    /// Counts `entry`; says whether it is the first of its kind and must be written.
    pub(super) fn add(&self, mut entry: Entry, now: Duration) -> bool {
        entry.request_id = None;
        let mut counted = self.0.lock();
        if let Some(known) = counted.iter_mut().find(|known| known.entry == entry) {
            known.more += 1;
            return false;
        }
        // Beyond it, each is written.
        if counted.len() < KINDS_MAX {
            counted.push(Counted { entry, since: now, more: 0 });
        }
        true
    }

    /// What is to be written now: of the kinds that began a minute ago, or of `all`.
    pub(super) fn due(&self, now: Duration, all: bool) -> Vec<Entry> {
        let mut counted = self.0.lock();
        let is_due = |one: &mut Counted| all || now.saturating_sub(one.since) >= INTERVAL;
        let due = counted.extract_if(.., is_due).filter(|one| one.more > 0);
        due.map(|one| one.entry.count(one.more)).collect()
    }
}

/// How long equal entries are one.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);
/// Kinds that are counted at a time.
const KINDS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Action, Actor};

    #[test]
    fn equal_entries_of_a_minute_are_one_with_their_number() {
        let tally = Tally::default();
        let refused = |account: &str, request: u64| {
            let account = account.parse().expect("an alias");
            let entry = Entry::new(Actor::Server, Action::TokenRefresh).account(&account);
            entry.request_id(&request.to_string())
        };
        let at = Duration::from_secs;
        assert!(tally.add(refused("acme", 0), at(100)), "the first is written");
        assert!(tally.add(refused("globex", 0), at(100)), "and that of another account");
        for request in 1..=500 {
            assert!(!tally.add(refused("acme", request), at(101)));
        }
        assert_eq!(tally.due(at(159), false), []);
        let expected = Entry { request_id: None, ..refused("acme", 0) }.count(500);
        assert_eq!(tally.due(at(160), false), std::slice::from_ref(&expected));
        assert_eq!(tally.due(at(999), true), []);
        assert!(tally.add(refused("acme", 0), at(161)), "a new minute");
        assert!(!tally.add(refused("acme", 1), at(161)));
        assert_eq!(tally.due(at(161), true), [Entry { count: Some(1), ..expected }]);
    }
}
