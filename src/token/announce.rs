//! Which ends of refreshes are reported: changes, and failures as their number doubles.
//!
//! A dead grant is reported once, by the process that LWA refused; so is a rejected application until a
//! secret is accepted again. Failures in a row are reported as their number doubles: an outage of an
//! hour is a dozen events per account, not hundreds.

use super::{TokenState, refresh, slot::Failure};
use crate::{
    event::{Event, Kind},
    id::AccountId,
    reports::Reports,
};
use parking_lot::Mutex;
use std::collections::HashSet;

/// Reports what has changed.
#[derive(Debug)]
pub(super) struct Announcer {
    reports: Reports,
    dead: Mutex<HashSet<AccountId>>,
    rejected: Mutex<HashSet<String>>,
}

impl Announcer {
    pub(super) fn new(reports: Reports) -> Self {
        Self { reports, dead: Mutex::default(), rejected: Mutex::default() }
    }

    /// The record of `account` says that its grant is dead, which was reported then.
    pub(super) fn known_dead(&self, account: &AccountId) {
        self.dead.lock().insert(account.clone());
    }

    /// `state`'s account has a good token, wherever it comes from.
    pub(super) fn usable(&self, state: &TokenState, generation: u64, at: u64) {
        if self.dead.lock().remove(&state.id) {
            let event = about(Kind::Recovered, state, at);
            self.reports.note(&Event { generation: Some(generation), ..event });
        }
    }

    /// A refresh ended well.
    pub(super) fn refreshed(&self, state: &TokenState, generation: u64, at: u64) {
        self.rejected.lock().remove(state.application.name());
        let event = about(Kind::TokenRefreshed, state, at);
        self.reports.note(&Event { generation: Some(generation), ..event });
        self.usable(state, generation, at);
    }

    /// A refresh ended with `error`, which the slot has counted.
    pub(super) fn failed(&self, state: &TokenState, error: &refresh::Error, at: u64) {
        let (failures, generation) = {
            let slot = &state.lock().slot;
            (slot.failures(), slot.generation())
        };
        let report = |kind| {
            let generation = Some(generation).filter(|&generation| generation > 0);
            let reason = Some(error.reason());
            self.reports.note(&Event { generation, reason, ..about(kind, state, at) });
        };
        if failures.is_power_of_two() {
            report(Kind::TokenRefreshFailed);
        }
        match error.failure() {
            Failure::ApplicationRejected(_) => {
                if self.rejected.lock().insert(state.application.name().to_owned()) {
                    report(Kind::ApplicationRejected);
                }
            }
            Failure::NotConnected | Failure::GrantDead | Failure::Unavailable { .. } => {}
        }
    }

    /// LWA has just refused `state`'s grant. Reported before the record is marked: after a
    /// crash in between LWA is asked again and it is reported again, instead of never.
    pub(super) async fn dead(&self, state: &TokenState, at: u64) {
        if self.dead.lock().insert(state.id.clone()) {
            let generation = Some(state.lock().slot.generation()).filter(|&number| number > 0);
            let event = about(Kind::ReauthorizationRequired, state, at);
            // The mark must not be older than what hooks have on disk.
            let event = Event { generation, reason: Some("invalid_grant"), ..event };
            self.reports.report(&event).await;
        }
    }

    /// The store took the record of `state`'s account no more, the first one that it did not.
    pub(super) fn degraded(&self, state: &TokenState, at: u64) {
        let reason = Some("store_unavailable");
        self.reports.note(&Event { reason, ..about(Kind::StoreDegraded, state, at) });
    }
}

fn about(kind: Kind, state: &TokenState, at: u64) -> Event {
    Event {
        account: Some(state.id.clone()),
        application: Some(state.application.name().to_owned()),
        days_left: state.consent_days_left(at),
        request_id: state.lock().request_id.clone(),
        ..Event::new(kind, at)
    }
}
