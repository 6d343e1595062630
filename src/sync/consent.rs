//! Says once a day which grants end soon, while there is time to ask for consent again.

use crate::{
    event::{Event, Kind},
    id::AccountId,
    reports::Reports,
    secret::Secret,
    store::{Item, Limit, Space, Store},
    token::{TokenManager, consent::WARN_DAYS},
};
use parking_lot::Mutex;
use std::collections::HashMap;
use tracing::warn;

/// How long the store remembers a day that was reported: until the next has come for sure.
const REMEMBERED_SECS: u64 = 2 * 86_400;

/// More accounts than a store is made for.
const REMEMBERED_MAX: usize = 100_000;

/// Remembers which day of which account this process has reported.
#[derive(Debug, Default)]
pub(super) struct Reminders(Mutex<HashMap<AccountId, i64>>);

impl Reminders {
    /// Warns of every account whose grant ends within 30 days, or has ended, unless
    /// some process on `store` has done so on that day.
    pub(super) async fn warn_of_expiring(
        &self,
        tokens: &TokenManager,
        reports: &Reports,
        store: &Store,
        now_unix: u64,
    ) {
        let states = tokens.states();
        self.0.lock().retain(|id, _| states.contains(id));
        for state in states.iter() {
            let id = &state.id;
            let left = state.consent_days_left(now_unix);
            let Some(days_left) = left.filter(|&left| self.is_due(id, left)) else { continue };
            if is_remembered(store, id, days_left).await {
                continue;
            }
            let name = id.as_str();
            warn!(account = name, days_left, "the grant ends 365 days after consent: ask for it");
            let event = Event {
                account: Some(id.clone()),
                application: Some(state.application().name().to_owned()),
                days_left: Some(days_left),
                ..Event::new(Kind::Expiring, now_unix)
            };
            // Reported twice after a crash in between, instead of never.
            reports.report(&event).await;
            remember(store, id, days_left, now_unix).await;
        }
    }

    fn is_due(&self, id: &AccountId, days_left: i64) -> bool {
        if days_left > WARN_DAYS {
            return false;
        }
        self.0.lock().insert(id.clone(), days_left) != Some(days_left)
    }
}

/// Where the store cannot be read, the warning is given.
async fn is_remembered(store: &Store, id: &AccountId, days_left: i64) -> bool {
    let entry = store.entries(Space::Reminder).get(id.as_str()).await;
    entry.ok().flatten().is_some_and(|entry| entry.text.expose() == days_left.to_string())
}

async fn remember(store: &Store, id: &AccountId, days_left: i64, now_unix: u64) {
    let item = Item {
        account: Some(id.clone()),
        expires_at_ms: Some(now_unix.saturating_add(REMEMBERED_SECS).saturating_mul(1000)),
        text: Secret::new(days_left.to_string()),
    };
    let limit = Limit { max: REMEMBERED_MAX, now_ms: now_unix.saturating_mul(1000) };
    // This process remembers all the same.
    let _ = store.entries(Space::Reminder).put(id.as_str(), &item, limit).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_once_per_account_and_day_from_day_335_on() {
        let reminders = Reminders::default();
        let [acme, globex]: [AccountId; 2] = ["acme", "globex"].map(|id| id.parse().unwrap());
        for (id, days_left, due) in [
            (&acme, 365, false),
            (&acme, 31, false),
            (&acme, 30, true),
            (&acme, 30, false),
            (&globex, 30, true),
            (&acme, 30, false),
            (&acme, 29, true),
            (&acme, 0, true),
            (&acme, 0, false),
            (&acme, -1, true),
            // Consent was given anew.
            (&acme, 365, false),
        ] {
            assert_eq!(reminders.is_due(id, days_left), due, "{id} {days_left}");
        }
    }

    #[tokio::test]
    async fn what_another_process_reported_today_is_not_reported_again() {
        let store = crate::store::Store::memory().expect("a store");
        let id: AccountId = "acme".parse().unwrap();
        let now = 1_795_132_800;
        assert!(!is_remembered(&store, &id, 30).await);
        remember(&store, &id, 30, now).await;
        assert!(is_remembered(&store, &id, 30).await);
        assert!(!is_remembered(&store, &id, 29).await, "the next day is reported anew");
    }
}
