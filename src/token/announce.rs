//! Which ends of refreshes are news, and to whom they were told before.
//!
//! A dead grant is told once, by the process that LWA told; so is a rejected application until a
//! secret is accepted again. Failures in a row are told as their number doubles: an outage of an
//! hour is a dozen events per account, not hundreds.

use super::{Holder, refresh, slot::Failure};
use crate::{
    event::{Event, Kind},
    id::AccountId,
    reports::Reports,
};
use parking_lot::Mutex;
use std::collections::HashSet;

/// Tells what is news.
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

    /// The record of `account` says that its grant is dead, which somebody has told already.
    pub(super) fn known_dead(&self, account: &AccountId) {
        self.dead.lock().insert(account.clone());
    }

    /// `holder`'s account has a good token, wherever it comes from.
    pub(super) fn usable(&self, holder: &Holder, generation: u64, at: u64) {
        if self.dead.lock().remove(&holder.id) {
            let event = about(Kind::Recovered, holder, at);
            self.reports.note(&Event { generation: Some(generation), ..event });
        }
    }

    /// A refresh ended well.
    pub(super) fn refreshed(&self, holder: &Holder, generation: u64, at: u64) {
        self.rejected.lock().remove(holder.application.name());
        let event = about(Kind::TokenRefreshed, holder, at);
        self.reports.note(&Event { generation: Some(generation), ..event });
        self.usable(holder, generation, at);
    }

    /// A refresh ended with `error`, which the slot has counted.
    pub(super) fn failed(&self, holder: &Holder, error: &refresh::Error, at: u64) {
        let (failures, generation) = {
            let slot = holder.slot.lock();
            (slot.failures(), slot.generation())
        };
        let tell = |kind| {
            let generation = Some(generation).filter(|&generation| generation > 0);
            let reason = Some(error.reason());
            self.reports.note(&Event { generation, reason, ..about(kind, holder, at) });
        };
        if failures.is_power_of_two() {
            tell(Kind::TokenRefreshFailed);
        }
        match error.failure() {
            Failure::ApplicationRejected(_) => {
                if self.rejected.lock().insert(holder.application.name().to_owned()) {
                    tell(Kind::ApplicationRejected);
                }
            }
            Failure::NotConnected | Failure::GrantDead | Failure::Unavailable { .. } => {}
        }
    }

    /// LWA has just said that `holder`'s grant is dead. Told before the record is marked: after a
    /// crash in between LWA is asked again and it is told again, instead of never.
    pub(super) async fn dead(&self, holder: &Holder, at: u64) {
        if self.dead.lock().insert(holder.id.clone()) {
            let generation = Some(holder.slot.lock().generation()).filter(|&number| number > 0);
            let event = about(Kind::ReauthorizationRequired, holder, at);
            // The mark must not be older than what hooks have on disk.
            let event = Event { generation, reason: Some("invalid_grant"), ..event };
            self.reports.report(&event).await;
        }
    }

    /// The store took the record of `holder`'s account no more, the first one that it did not.
    pub(super) fn degraded(&self, holder: &Holder, at: u64) {
        let reason = Some("store_unavailable");
        self.reports.note(&Event { reason, ..about(Kind::StoreDegraded, holder, at) });
    }
}

fn about(kind: Kind, holder: &Holder, at: u64) -> Event {
    Event {
        account: Some(holder.id.clone()),
        application: Some(holder.application.name().to_owned()),
        days_left: holder.consent_days_left(at),
        request_id: holder.asked_by.lock().clone(),
        ..Event::new(kind, at)
    }
}
