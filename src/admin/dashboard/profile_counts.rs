//! How many profiles each account has, for the table of accounts: read once for each consent.

use crate::{
    id::{AccountId, Region},
    login::{Logins, profiles::GrantProfiles},
    store::ConsentId,
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Accounts that are remembered, each with a line of text.
const KNOWN_MAX: usize = 10_000;
/// Profiles that are not known are read again after this time: they are written just after the consent.
const UNKNOWN_FOR: Duration = Duration::from_secs(2);
/// The page is shown without them if the store takes longer.
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct ProfileCounts(Mutex<HashMap<AccountId, KnownCount>>);

struct KnownCount {
    consent: Option<ConsentId>,
    /// Empty if not known.
    text: String,
    read: Instant,
}

impl ProfileCounts {
    /// Forgets what is known of an account whose profiles were read anew.
    pub(super) fn forget(&self, account: &AccountId) {
        self.0.lock().remove(account);
    }

    /// The profiles of each of `accounts` as a text such as `na 3, eu 12`; empty if not known.
    pub(super) async fn of(&self, logins: &Logins, accounts: &[AccountId]) -> Vec<String> {
        let consents: Vec<_> =
            accounts.iter().map(|id| logins.engine.tokens().consent(id)).collect();
        let wanted = {
            let known = self.0.lock();
            let is_known = |(id, consent): &(&AccountId, &Option<ConsentId>)| {
                known.get(*id).is_some_and(|one| {
                    let is_fresh = !one.text.is_empty() || one.read.elapsed() < UNKNOWN_FOR;
                    one.consent == **consent && is_fresh
                })
            };
            let pairs = accounts.iter().zip(&consents).filter(|pair| !is_known(pair));
            pairs.map(|(id, consent)| (id.clone(), *consent)).collect::<Vec<_>>()
        };
        if !wanted.is_empty() {
            let ids: Vec<_> = wanted.iter().map(|(id, _)| id.clone()).collect();
            let read = tokio::time::timeout(TIMEOUT, logins.remembered_profiles(&ids)).await;
            let mut found = read.ok().and_then(Result::ok).unwrap_or_default();
            let mut known = self.0.lock();
            if known.len() + wanted.len() > KNOWN_MAX {
                known.clear();
            }
            for (id, consent) in wanted {
                let text = found.remove(&id).map(|its| text(&its)).unwrap_or_default();
                known.insert(id, KnownCount { consent, text, read: Instant::now() });
            }
        }
        let known = self.0.lock();
        let text = |id| known.get(id).map(|one| one.text.clone()).unwrap_or_default();
        accounts.iter().map(text).collect()
    }
}

/// Regions without a profile are left out, those that did not respond are not.
fn text(profiles: &GrantProfiles) -> String {
    let counts = profiles.regions();
    if counts.is_empty() {
        return String::new();
    }
    let all = Region::ALL.into_iter().filter_map(|region| {
        match counts.iter().find(|(one, _)| *one == region) {
            Some((_, list)) if list.is_empty() => None,
            Some((_, list)) => Some(format!("{region} {}", list.len())),
            None => Some(format!("{region} ?")),
        }
    });
    let texts: Vec<_> = all.collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::login::profiles::AdvertiserProfile;

    #[test]
    fn regions_are_counted_and_one_that_did_not_respond_is_named() {
        let list = |ids: &[i64]| {
            let profile = |id: &i64| AdvertiserProfile {
                id: *id,
                country: "DE".to_owned(),
                name: "x".to_owned(),
                kind: "seller".to_owned(),
                currency: "EUR".to_owned(),
            };
            Some(ids.iter().map(profile).collect::<Vec<_>>())
        };
        let of = |na, eu, fe| text(&GrantProfiles { na, eu, fe });
        assert_eq!(of(list(&[1, 2]), list(&[]), list(&[3])), "na 2, fe 1");
        assert_eq!(of(list(&[1]), None, list(&[])), "na 1, eu ?");
        assert_eq!(of(list(&[]), list(&[]), list(&[])), "none");
        assert_eq!(of(None, None, None), "", "not known");
    }
}
