//! What responses of Amazon's say besides: which calls it refuses or throttles, and which are not worth
//! sending.

use super::{Error, Worker, exchange::Exchange, select::Selection};
use crate::{
    metrics::{CallTrouble, LimitHit},
    provider::{ads, operations},
    throttling::{Observed, Probe, ThrottleScope},
};
use http::{HeaderMap, StatusCode, request::Parts};

impl Worker {
    /// Rejects a call that Amazon would only throttle. What is returned is held until a response.
    pub(super) fn reject_hopeless(
        &self,
        head: &Parts,
        selection: &Selection,
        exchange: &Exchange,
    ) -> Result<Option<Probe>, Error> {
        let throttling = &self.shared.throttling;
        if !throttling.may_turn_away() {
            return Ok(None);
        }
        let admitted = throttling.admit(scope(head, selection), exchange.began.mono);
        admitted.map_err(|after| {
            self.metrics.limit(LimitHit::UpstreamThrottled);
            Error::Throttled(after)
        })
    }

    /// Takes note of what a response says: nearly all say nothing.
    pub(super) fn observe(
        &self,
        head: &Parts,
        selection: &Selection,
        exchange: &Exchange,
        response: (StatusCode, &HeaderMap),
    ) {
        let throttling = &self.shared.throttling;
        let (status, headers) = response;
        let trouble = CallTrouble::of(status);
        if exchange.replays > 0 || trouble.is_some() {
            let class = operations::classify(&head.method, selection.target.path());
            let replayed = (exchange.replays > 0).then_some(CallTrouble::Replayed);
            for what in trouble.into_iter().chain(replayed) {
                self.metrics.trouble(selection.account.id(), class, what);
            }
        }
        if !throttling.concerns(status) {
            return;
        }
        let observed = Observed {
            status,
            headers,
            service: selection.service,
            account: selection.account.id(),
            sent: exchange.began.mono,
        };
        let now = self.shared.clock.now();
        throttling.observe(scope(head, selection), &observed, now, &self.metrics);
    }
}

/// The scope of a call, by the profile that Amazon reads: the caller's, else the account's.
fn scope<'a>(head: &'a Parts, selection: &'a Selection) -> ThrottleScope<&'a str> {
    let account = &selection.account;
    let default = || account.headers().iter().find(|(name, _)| *name == ads::PROFILE);
    let profile = head.headers.get(&ads::PROFILE).or_else(|| default().map(|(_, value)| value));
    let profile = profile.map(http::HeaderValue::as_bytes);
    let call = (&head.method, selection.target.path());
    ThrottleScope::of(selection.region, account.client_id(), account.id(), profile, call)
}
