//! Table tests of the token machine's transitions.

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    lwa::LwaFailure,
};

const HOUR: Duration = Duration::from_secs(3600);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The defaults: a buffer of 300 s, a lead of 900 s, forced refreshes 30 s apart.
fn idle() -> Slot {
    Slot::new(Arc::default())
}

/// A slot with a token of generation 1 that lives an hour, and the moment it was issued.
fn fresh() -> (Slot, Now) {
    let now = ManualClock::new().now();
    let mut slot = idle();
    assert_eq!(slot.want(now), Decision::Refresh);
    slot.succeeded(1, Life::new(now, HOUR));
    (slot, now)
}

const TRANSIENT: Error = Error::unavailable(Obstacle::UNREACHABLE);

fn rejected(why: LwaFailure, seconds: u64) -> Error {
    Error::ApplicationRejected { why, retry_after: secs(seconds) }
}

fn unavailable(seconds: u64) -> Error {
    Error::Unavailable { reason: Obstacle::UNREACHABLE, retry_after: secs(seconds) }
}

#[test]
fn the_first_caller_refreshes_and_the_others_wait() {
    let now = ManualClock::new().now();
    let mut slot = idle();
    assert_eq!(slot.state(now), State::Idle, "no token yet");
    assert_eq!(slot.want(now), Decision::Refresh);
    assert_eq!(slot.state(now), State::Refreshing);
    for _ in 0..3 {
        assert_eq!(slot.want(now), Decision::Wait);
    }
}

#[test]
fn a_token_is_fresh_then_due_then_expired() {
    for (age, state, want) in [
        (0, State::Fresh, Decision::Use),
        (3299, State::Fresh, Decision::Use),
        (3300, State::Due, Decision::UseAndRefresh),
        (3599, State::Due, Decision::UseAndRefresh),
        (3600, State::Expired, Decision::Refresh),
        (9999, State::Expired, Decision::Refresh),
    ] {
        let (mut slot, now) = fresh();
        let now = now.plus(secs(age));
        assert_eq!(slot.state(now), state, "{age}");
        assert_eq!(slot.want(now), want, "{age}");
    }
}

#[test]
fn an_early_refresh_that_fails_costs_nobody_anything_while_the_token_lives() {
    let (mut slot, now) = fresh();
    let due = now.plus(secs(3400));
    assert_eq!(slot.want(due), Decision::UseAndRefresh);
    assert_eq!(slot.want(due), Decision::Use);
    slot.failed(TRANSIENT, due);
    assert_eq!(slot.want(due), Decision::Use, "the failure is remembered");
    assert_eq!(slot.want(due.plus(secs(2))), Decision::UseAndRefresh, "and forgotten");
    slot.failed(Error::ReauthorizationRequired, due.plus(secs(2)));
    assert_eq!(slot.want(now.plus(secs(3599))), Decision::Use);
    assert_eq!(slot.want(now.plus(HOUR)), Decision::Refuse(Error::ReauthorizationRequired));
}

#[test]
fn failures_are_remembered_longer_as_they_repeat_up_to_a_bound() {
    let mut now = ManualClock::new().now();
    let mut slot = idle();
    for expected in [1, 2, 4, 8, 8, 8] {
        assert_eq!(slot.want(now), Decision::Refresh);
        slot.failed(TRANSIENT, now);
        let rejection = unavailable(expected);
        assert_eq!(slot.want(now), Decision::Refuse(rejection));
        now = now.plus(secs(expected));
    }
}

#[test]
fn retry_after_of_lwa_is_honoured_within_reason() {
    for (asked, expected) in [(5, 5), (100, 100), (1_000_000, 300), (u64::MAX, 300)] {
        let now = ManualClock::new().now();
        let mut slot = idle();
        slot.want(now);
        slot.failed(unavailable(asked), now);
        let rejection = unavailable(expected);
        assert_eq!(slot.want(now), Decision::Refuse(rejection));
    }
}

#[test]
fn a_dead_grant_stays_dead_until_it_is_reconnected() {
    let now = ManualClock::new().now();
    let mut slot = idle();
    slot.want(now);
    slot.failed(Error::ReauthorizationRequired, now);
    let much_later = now.plus(secs(1_000_000));
    assert_eq!(slot.want(much_later), Decision::Refuse(Error::ReauthorizationRequired));
    assert_eq!(slot.state(much_later), State::ReauthorizationRequired);
    assert_eq!(slot.refresh(much_later), Decision::Refuse(Error::ReauthorizationRequired));
    slot.reconnected();
    assert_eq!(slot.want(much_later), Decision::Refresh);
}

#[test]
fn a_rejected_application_is_asked_again_after_a_minute() {
    let now = ManualClock::new().now();
    let mut slot = idle();
    slot.want(now);
    slot.failed(rejected(LwaFailure::InvalidClient, 0), now);
    let rejection = rejected(LwaFailure::InvalidClient, 59);
    assert_eq!(slot.want(now.plus(secs(1))), Decision::Refuse(rejection));
    assert_eq!(slot.state(now.plus(secs(1))), State::ApplicationRejected);
    assert_eq!(slot.want(now.plus(secs(60))), Decision::Refresh);
}

#[test]
fn a_wave_of_401s_refreshes_once() {
    let (mut slot, now) = fresh();
    assert_eq!(slot.rejected(1, now), Decision::Refresh);
    for _ in 0..1000 {
        assert_eq!(slot.rejected(1, now), Decision::Wait);
    }
    slot.succeeded(2, Life::new(now, HOUR));
    assert_eq!(slot.rejected(1, now), Decision::Use, "the token is newer already");
    assert_eq!(slot.rejected(2, now), Decision::Use, "refreshed a moment ago");
    assert_eq!(slot.rejected(2, now.plus(secs(31))), Decision::Refresh);
}

#[test]
fn a_401_during_an_outage_is_refused_when_the_failure_is_fresh() {
    let (mut slot, now) = fresh();
    assert_eq!(slot.rejected(1, now), Decision::Refresh);
    slot.failed(TRANSIENT, now);
    let rejection = unavailable(1);
    assert_eq!(slot.rejected(1, now), Decision::Refuse(rejection));
    let later = now.plus(secs(1));
    assert_eq!(
        slot.rejected(1, later),
        Decision::Refresh,
        "a failure does not use up the interval"
    );
    slot.failed(Error::ReauthorizationRequired, later);
    let rejection = Error::ReauthorizationRequired;
    assert_eq!(slot.rejected(1, later), Decision::Refuse(rejection));
    assert_eq!(slot.rejected(1, later.plus(secs(31))), Decision::Refuse(rejection));
}

#[test]
fn a_token_that_amazon_rejects_is_discarded_with_its_dead_grant_only() {
    let (mut slot, now) = fresh();
    slot.rejected(1, now);
    slot.failed(TRANSIENT, now);
    assert!(!slot.discard(1), "LWA may be back before the token ends");
    let later = now.plus(secs(1));
    slot.rejected(1, later);
    slot.failed(Error::ReauthorizationRequired, later);
    assert!(!slot.discard(0), "an older one is gone already");
    assert!(slot.discard(1));
    assert_eq!(slot.want(later), Decision::Refuse(Error::ReauthorizationRequired));
    slot.reconnected();
    assert_eq!(slot.generation, 1, "numbers are not used again");
    assert_eq!(slot.want(later), Decision::Refresh);
}

#[test]
fn either_clock_ends_a_token() {
    let now = ManualClock::new().now();
    let life = Life::new(now, HOUR);
    let wall_only = Now { wall: now.wall + HOUR, mono: now.mono };
    let mono_only = Now { wall: now.wall, mono: now.mono + HOUR };
    assert!(!life.is_expired(now));
    assert!(life.is_expired(wall_only) && life.is_expired(mono_only));
    assert_eq!(life.remaining(wall_only), Duration::ZERO);
}

#[test]
fn a_stored_token_never_lives_longer_than_it_was_born_with() {
    let now = ManualClock::new().now();
    let issued = now.unix();
    let normal = Life::stored(issued - 600, issued + 3000, now);
    assert_eq!(normal.remaining(now), secs(3000));
    // The wall clock was set back by a day since it was stored.
    let odd = Life::stored(issued + 86_400, issued + 90_000, now);
    assert!(odd.is_expired(now.plus(HOUR)));
    assert!(Life::stored(issued - 7200, issued - 3600, now).is_expired(now));
}

#[test]
fn a_token_shorter_than_the_buffer_is_used_for_a_second_before_it_is_refreshed_again() {
    for (lifetime, due) in [(3600, 3300), (310, 10), (300, 1), (200, 1), (5, 1), (1, 1)] {
        let now = ManualClock::new().now();
        let at = Life::new(now, secs(lifetime)).due(secs(300));
        assert_eq!(at.mono - now.mono, secs(due), "{lifetime}");
    }
}

#[test]
fn the_background_refresher_acts_ahead_of_the_buffer_and_never_without_end() {
    let (mut slot, now) = fresh();
    assert_eq!(slot.background_due(now, 1.0), Some(secs(2700)));
    assert_eq!(slot.background_due(now, 1.1), Some(secs(2610)));
    assert_eq!(slot.background_due(now.plus(secs(3000)), 1.0), Some(Duration::ZERO));
    assert_eq!(slot.refresh(now.plus(secs(2700))), Decision::Refresh);
    assert_eq!(slot.refresh(now.plus(secs(2700))), Decision::Wait, "one at a time");
    slot.succeeded(2, Life::new(now, secs(900)));
    assert_eq!(slot.background_due(now, 1.0), None, "shorter than the lead");
    let mut idle = idle();
    assert_eq!(idle.background_due(now, 1.0), Some(Duration::ZERO), "it is tried");
    assert_eq!(idle.refresh(now), Decision::Refresh);
    idle.failed(Error::NotConnected, now);
    assert_eq!(idle.background_due(now, 1.0), None, "nothing to keep fresh");
}

#[test]
fn a_permanent_rejection_is_not_asked_for_again_every_second() {
    for reason in [LwaFailure::Refused, LwaFailure::NotLwa].map(Obstacle::Lwa) {
        let mut now = ManualClock::new().now();
        let mut slot = idle();
        for expected in [8, 8, 8, 8, 60, 60] {
            assert_eq!(slot.want(now), Decision::Refresh);
            slot.failed(Error::unavailable(reason), now);
            let error = Error::Unavailable { reason, retry_after: secs(expected) };
            assert_eq!(slot.want(now), Decision::Refuse(error));
            now = now.plus(secs(expected));
        }
    }
}

#[test]
fn each_failure_has_its_own_state() {
    for (failure, state) in [
        (Error::NotConnected, State::NotConnected),
        (Error::ReauthorizationRequired, State::ReauthorizationRequired),
        (rejected(LwaFailure::UnauthorizedClient, 0), State::ApplicationRejected),
        (Error::unavailable(Obstacle::Sealed), State::Sealed),
        (Error::unavailable(Obstacle::Unreadable), State::Unreadable),
        (Error::unavailable(Obstacle::UNREACHABLE), State::Idle),
    ] {
        let now = ManualClock::new().now();
        let mut slot = idle();
        slot.want(now);
        slot.failed(failure, now);
        assert_eq!(slot.state(now), state);
    }
}

#[test]
fn a_record_with_extreme_times_neither_overflows_nor_lives_for_ever() {
    let now = ManualClock::new().now();
    for (issued, expires) in [(0, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX, 0)] {
        assert!(Life::stored(issued, expires, now).remaining(now) <= secs(86_400));
    }
}
