//! How the ends of refreshes are logged, and which are reported as events: changes, and failures as
//! their number doubles.
//!
//! A dead grant is reported once, by the process that LWA refused; so is a rejected application until a
//! secret is accepted again. Failures in a row are reported as their number doubles: an outage of an
//! hour is a dozen events per account, not hundreds.

use super::{AccessToken, Error, TokenManager, TokenState, locked::Unsaved, refresh::RefreshError};
use crate::{
    error_chain::chain,
    event::{Event, Kind},
    id::AccountId,
    metrics::Trigger,
    store::{self, Credential, Lease},
};
use std::{collections::HashSet, sync::Arc};
use tracing::{error, info, warn};

/// Where a refresh has its token from.
#[derive(Clone, Copy)]
pub(super) enum TokenSource {
    Amazon,
    /// Another server may have asked at the same time.
    AmazonWithoutLease,
    AnotherServer,
}

impl TokenSource {
    /// That of a token that Login with Amazon was asked for.
    pub(super) fn asked_with(lease: Option<&Lease>) -> Self {
        lease.map_or(Self::AmazonWithoutLease, |_| Self::Amazon)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Amazon => "login_with_amazon",
            Self::AmazonWithoutLease => "login_with_amazon_without_lease",
            Self::AnotherServer => "another_server",
        }
    }
}

/// What was reported and is not reported again while it lasts.
#[derive(Default)]
pub(super) struct Reported {
    pub(super) dead: HashSet<AccountId>,
    /// Applications by their names.
    rejected: HashSet<String>,
}

impl TokenManager {
    /// `state`'s account has a good token, wherever it comes from.
    pub(super) fn report_usable(&self, state: &TokenState, token: &AccessToken, at: u64) {
        if self.0.reported.lock().dead.remove(&state.id) {
            self.0.with.reports.note(&event(Kind::Recovered, state, token.generation, at));
        }
    }

    /// A refresh brought a token.
    pub(super) fn report_refreshed(
        &self,
        state: &TokenState,
        (token, source): (&AccessToken, TokenSource),
        trigger: Trigger,
        at: u64,
    ) {
        let (account, generation) = (state.id.as_str(), token.generation);
        let (trigger, source) = (trigger.as_str(), source.as_str());
        info!(account, generation, trigger, source, "access token refreshed");
        self.0.reported.lock().rejected.remove(state.application().name());
        self.0.with.reports.note(&event(Kind::TokenRefreshed, state, generation, at));
        self.report_usable(state, token, at);
    }

    /// A refresh ended with `error`, which the slot has counted.
    pub(super) fn report_failed(&self, state: &TokenState, error: &RefreshError, at: u64) {
        let (failures, generation) = {
            let slot = &state.lock().slot;
            (slot.failures, slot.generation)
        };
        let (account, failure, error) = (state.id.as_str(), error.failure(), chain(error));
        let report = |kind| {
            let event = event(kind, state, generation, at);
            self.0.with.reports.note(&Event { reason: Some(failure.code()), ..event });
        };
        let advice = failure.advice();
        match failure {
            Error::NotConnected => error!(account, "not connected: connect the account"),
            Error::ReauthorizationRequired => {
                error!(account, error, "grant is dead: connect the account again");
            }
            Error::ApplicationRejected { .. } => {
                let application = state.application();
                let application = application.name();
                error!(account, application, error, advice, "application rejected");
            }
            Error::Unavailable { reason, .. } if !reason.is_passing() => {
                error!(account, error, advice, "refresh failed");
            }
            Error::Unavailable { .. } | Error::TooManyWaiters => {
                warn!(account, error, "refresh failed");
            }
        }
        if failures.is_power_of_two() {
            report(Kind::TokenRefreshFailed);
        }
        if matches!(failure, Error::ApplicationRejected { .. })
            && self.0.reported.lock().rejected.insert(state.application().name().to_owned())
        {
            report(Kind::ApplicationRejected);
        }
    }

    /// LWA has just refused `state`'s grant. Reported before the record is marked: after a
    /// crash in between LWA is asked again and it is reported again, instead of never.
    pub(super) async fn report_dead(&self, state: &TokenState, at: u64) {
        let is_new = self.0.reported.lock().dead.insert(state.id.clone());
        if is_new {
            let generation = state.lock().slot.generation;
            let event = event(Kind::ReauthorizationRequired, state, generation, at);
            // The mark must not be older than what hooks have on disk.
            self.0.with.reports.report(&Event { reason: Some("invalid_grant"), ..event }).await;
        }
    }

    /// Keeps `record` in memory until the store takes it, and logs so once.
    pub(super) fn put_off(&self, state: &TokenState, record: Credential, error: &store::Error) {
        let (is_first, counted) = {
            let unsaved = self.0.unsaved.lock();
            (Arc::strong_count(&unsaved) == 1, unsaved.clone())
        };
        let known = {
            let is_store_away = matches!(error, store::Error::Database { .. });
            let mut locked = state.lock();
            let known = locked.unsaved().is_some();
            locked.set_unsaved(Some(Unsaved { record, _counted: counted, is_store_away }));
            known
        };
        let (account, error) = (state.id.as_str(), chain(error));
        if is_first {
            error!(account, error, "store degraded: what is new is kept in memory only");
            let event = event(Kind::StoreDegraded, state, 0, self.0.with.clock.now().unix());
            self.0.with.reports.note(&Event { reason: Some("store_unavailable"), ..event });
        } else if !known {
            warn!(account, error, "cannot save the record, which is kept in memory");
        }
    }
}

/// `generation` 0 stands for none.
fn event(kind: Kind, state: &TokenState, generation: u64, at: u64) -> Event {
    let (request_id, server_request_id) = state.lock().request_ids();
    Event {
        account: Some(state.id.clone()),
        application: Some(state.application().name().to_owned()),
        generation: Some(generation).filter(|&generation| generation > 0),
        days_left: state.consent_days_left(at),
        request_id,
        server_request_id,
        ..Event::new(kind, at)
    }
}
