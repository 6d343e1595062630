//! Says once a day which grants end soon, while there is time to ask for consent again.

use super::Directory;
use crate::{
    event::{Event, Events, Kind},
    id::AccountId,
    token::consent::WARN_DAYS,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use tracing::warn;

/// Remembers which day of which account was spoken of.
#[derive(Debug, Default)]
pub(super) struct Reminders(Mutex<HashMap<AccountId, i64>>);

impl Reminders {
    /// Warns of every account in `directory` whose grant ends within 30 days, or has ended.
    pub(super) fn warn_of_expiring(&self, directory: &Directory, events: &Events, now_unix: u64) {
        let table = directory.snapshot();
        self.0.lock().retain(|id, _| table.contains_key(id));
        for (id, account) in table.iter() {
            let left = account.holder.consent_days_left(now_unix);
            let Some(days_left) = left.filter(|&left| self.is_due(id, left)) else { continue };
            let name = id.as_str();
            warn!(account = name, days_left, "the grant ends 365 days after consent: ask for it");
            events.emit(&Event {
                account: Some(id.clone()),
                application: Some(account.holder.application().name().to_owned()),
                days_left: Some(days_left),
                ..Event::new(Kind::Expiring, now_unix)
            });
        }
    }

    fn is_due(&self, id: &AccountId, days_left: i64) -> bool {
        if days_left > WARN_DAYS {
            return false;
        }
        self.0.lock().insert(id.clone(), days_left) != Some(days_left)
    }
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
}
