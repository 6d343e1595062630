//! What the records of the store say of accounts that are known here: connected anew, refreshed or
//! removed by another process, or set back.

use super::enroll::{Enroller, SeenRecords};
use crate::{
    error_chain::chain,
    id::AccountId,
    store::{self, Credential},
    token::{KnownGrant, TokenState},
};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::{error, info, warn};

/// With more accounts than this, those whose records did not change are looked at each
/// [`LOOK_AT_ALL_INTERVAL`] only: what another process writes says itself.
const MANY: usize = 1000;
const LOOK_AT_ALL_INTERVAL: Duration = Duration::from_secs(15);

/// What a look at an account's record has shown.
enum Looked {
    /// Nothing more, until the record changes.
    Seen,
    /// The account must be loaded anew.
    Replaced,
    /// The account has moved, and is loaded anew once its own record is saved: another state would
    /// not have that.
    Unsaved,
}

impl Enroller {
    /// A record that is older than its mark is not used, unless it does no harm: Login with Amazon
    /// keeps its refresh token.
    pub(super) fn judge(&self, id: &AccountId, grant: KnownGrant) -> KnownGrant {
        let KnownGrant::Record(record) = grant else { return grant };
        let mut marks = self.marks.lock();
        match marks.get(id) {
            Some(mark) if mark.is_ahead_of(&record) => {
                let (account, error) = (id.as_str(), chain(&store::Error::set_back(id)));
                if record.is_known_steady() {
                    warn!(account, "the record was set back; its refresh token does not change");
                    return KnownGrant::Record(record);
                }
                error!(account, error, "the record is not used");
                KnownGrant::SetBack(record, *mark)
            }
            _ => {
                // From now on this process knows what it has seen.
                marks.remove(id);
                KnownGrant::Record(record)
            }
        }
    }

    /// Looks again at every account whose record changed: for those that wait for a person, a key
    /// or a disk, and for those that another process has connected anew, which are returned.
    ///
    /// `changed` has the keys of records that were written or deleted. Of many accounts the others
    /// have their turn some seconds later, unless some could not be read or saved.
    pub(super) async fn recover(
        &self,
        seen: &mut SeenRecords,
        changed: &[String],
    ) -> HashSet<AccountId> {
        let mut brought = std::mem::take(&mut seen.listed.brought);
        let versions = &seen.listed.versions;
        let all = self.tokens.states();
        let of_changed = || changed.iter().filter_map(|key| all.get(key));
        let now = self.with.clock.now().mono;
        let is_recent = |at: Instant| now.saturating_duration_since(at) < LOOK_AT_ALL_INTERVAL;
        let is_partial = all.len() > MANY
            && self.tokens.unsaved() == 0
            && seen.unreadable.is_empty()
            && seen.all_looked_at.is_some_and(is_recent);
        let states: Vec<_> = match is_partial {
            true => of_changed().collect(),
            false => all.iter().collect(),
        };
        if !is_partial {
            seen.all_looked_at = Some(now);
        }
        let mut replaced = HashSet::new();
        for state in states {
            let id = &state.id;
            // That it was not saved is logged already, and shown in /status.
            let _ = self.tokens.save_unsaved(state).await;
            let Some(version) = versions.get(id.as_str()) else {
                state.remember_look(None);
                if state.has_record() && !self.is_seeded(id) {
                    info!(account = id.as_str(), "account was logged out");
                    replaced.insert(id.clone());
                }
                continue;
            };
            let now = (version, self.tokens.is_stuck(state));
            if state.was_looked_at(now) {
                continue;
            }
            let record = match brought.remove(id.as_str()) {
                Some(entry) => self.store().open_grant(id, entry).await.map(Some),
                None => self.store().load(id).await,
            };
            let looked = record.and_then(|record| self.check_record(state, record));
            if looked.is_ok() {
                seen.unreadable.remove(id);
            }
            match looked {
                Ok(Looked::Replaced) => drop(replaced.insert(id.clone())),
                Ok(Looked::Seen) => state.remember_look(Some(now)),
                Ok(Looked::Unsaved) => {}
                Err(error) => {
                    if seen.unreadable.insert(id.clone()) {
                        let (account, error) = (id.as_str(), chain(&error));
                        warn!(account, error, "cannot look at the record: trying on");
                    }
                    // Only another record, or another moment, can say something else. A change of
                    // permissions changes no version.
                    if error.is_lasting() {
                        state.remember_look(Some(now));
                    }
                }
            }
        }
        replaced
    }

    /// Looks at `state`'s record.
    fn check_record(
        &self,
        state: &Arc<TokenState>,
        record: Option<Credential>,
    ) -> Result<Looked, store::Error> {
        let (id, account) = (&state.id, state.id.as_str());
        let Some(record) = record else { return Ok(Looked::Seen) };
        if state.is_set_back(&record, self.with.clock.now().unix()) {
            return Err(store::Error::set_back(id));
        }
        let (has_moved, is_replaced) = (state.has_moved(&record), state.is_replaced(&record));
        let is_unsaved = self.tokens.status(id).is_some_and(|view| view.is_unsaved);
        if has_moved && !is_replaced && is_unsaved {
            return Ok(Looked::Unsaved);
        }
        if has_moved || is_replaced {
            match record.refresh_token.is_empty() {
                true => info!(account, "account was logged out"),
                false => info!(account, "the account was connected anew by another process"),
            }
            return Ok(Looked::Replaced);
        }
        state.remember_consent(&record);
        if self.tokens.is_stuck(state) && self.tokens.reconnected(state, &record) {
            info!(account, "account can be used again");
        } else {
            self.tokens.install(state, &record);
        }
        Ok(Looked::Seen)
    }
}
