//! Table tests of the token machine's transitions.

use super::*;
use crate::clock::{Clock, ManualClock};

const HOUR: Duration = Duration::from_secs(3600);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn policy() -> Policy {
    Policy { refresh_buffer: secs(300), background_lead: secs(900), forced_min_interval: secs(30) }
}

/// A slot with a token of generation 1 that lives an hour, and the moment it was issued.
fn fresh() -> (Slot, Now) {
    let now = ManualClock::new().now();
    let mut slot = Slot::new(policy());
    assert_eq!(slot.want(now), Want::Refresh);
    slot.succeeded(1, Life::new(now, HOUR));
    (slot, now)
}

const TRANSIENT: Failure =
    Failure::Unavailable { reason: Obstacle::UNREACHABLE, retry_after: None };

fn unavailable(seconds: u64) -> Error {
    Error::Unavailable { reason: Obstacle::UNREACHABLE, retry_after: secs(seconds) }
}

#[test]
fn the_first_caller_refreshes_and_the_others_wait() {
    let now = ManualClock::new().now();
    let mut slot = Slot::new(policy());
    assert_eq!(slot.state(now), State::Idle, "no token yet");
    assert_eq!(slot.want(now), Want::Refresh);
    assert_eq!(slot.state(now), State::Refreshing);
    for _ in 0..3 {
        assert_eq!(slot.want(now), Want::Wait);
    }
}

#[test]
fn a_token_is_fresh_then_due_then_expired() {
    for (age, state, want) in [
        (0, State::Fresh, Want::Use),
        (3299, State::Fresh, Want::Use),
        (3300, State::Due, Want::UseAndRefresh),
        (3599, State::Due, Want::UseAndRefresh),
        (3600, State::Expired, Want::Refresh),
        (9999, State::Expired, Want::Refresh),
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
    assert_eq!(slot.want(due), Want::UseAndRefresh);
    assert_eq!(slot.want(due), Want::Use);
    slot.failed(TRANSIENT, due);
    assert_eq!(slot.want(due), Want::Use, "the failure is remembered");
    assert_eq!(slot.want(due.plus(secs(2))), Want::UseAndRefresh, "and forgotten");
    slot.failed(Failure::GrantDead, due.plus(secs(2)));
    assert_eq!(slot.want(now.plus(secs(3599))), Want::Use);
    assert_eq!(slot.want(now.plus(HOUR)), Want::Refuse(Error::ReauthorizationRequired));
}

#[test]
fn failures_are_remembered_longer_as_they_repeat_up_to_a_bound() {
    let mut now = ManualClock::new().now();
    let mut slot = Slot::new(policy());
    for expected in [1, 2, 4, 8, 8, 8] {
        assert_eq!(slot.want(now), Want::Refresh);
        slot.failed(TRANSIENT, now);
        let refusal = unavailable(expected);
        assert_eq!(slot.want(now), Want::Refuse(refusal));
        now = now.plus(secs(expected));
    }
}

#[test]
fn retry_after_of_lwa_is_honoured_within_reason() {
    for (asked, expected) in [(5, 5), (100, 100), (1_000_000, 300), (u64::MAX, 300)] {
        let now = ManualClock::new().now();
        let mut slot = Slot::new(policy());
        slot.want(now);
        slot.failed(
            Failure::Unavailable { reason: Obstacle::UNREACHABLE, retry_after: Some(secs(asked)) },
            now,
        );
        let refusal = unavailable(expected);
        assert_eq!(slot.want(now), Want::Refuse(refusal));
    }
}

#[test]
fn a_dead_grant_stays_dead_until_it_is_reconnected() {
    let now = ManualClock::new().now();
    let mut slot = Slot::new(policy());
    slot.want(now);
    slot.failed(Failure::GrantDead, now);
    let much_later = now.plus(secs(1_000_000));
    assert_eq!(slot.want(much_later), Want::Refuse(Error::ReauthorizationRequired));
    assert_eq!(slot.state(much_later), State::ReauthorizationRequired);
    assert!(!slot.background(much_later));
    slot.reconnected();
    assert_eq!(slot.want(much_later), Want::Refresh);
}

#[test]
fn a_rejected_application_is_asked_again_after_a_minute() {
    let now = ManualClock::new().now();
    let mut slot = Slot::new(policy());
    slot.want(now);
    slot.failed(Failure::ApplicationRejected(LwaFailure::InvalidClient), now);
    let refusal =
        Error::ApplicationRejected { why: LwaFailure::InvalidClient, retry_after: secs(59) };
    assert_eq!(slot.want(now.plus(secs(1))), Want::Refuse(refusal));
    assert_eq!(slot.state(now.plus(secs(1))), State::ApplicationRejected);
    assert_eq!(slot.want(now.plus(secs(60))), Want::Refresh);
}

#[test]
fn a_wave_of_401s_refreshes_once() {
    let (mut slot, now) = fresh();
    assert_eq!(slot.rejected(1, now), Rejected::Refresh);
    for _ in 0..1000 {
        assert_eq!(slot.rejected(1, now), Rejected::Wait);
    }
    slot.succeeded(2, Life::new(now, HOUR));
    assert_eq!(slot.rejected(1, now), Rejected::Replay, "the token is newer already");
    assert_eq!(slot.rejected(2, now), Rejected::Replay, "refreshed a moment ago");
    assert_eq!(slot.rejected(2, now.plus(secs(31))), Rejected::Refresh);
}

#[test]
fn a_401_during_an_outage_is_refused_when_the_failure_is_fresh() {
    let (mut slot, now) = fresh();
    assert_eq!(slot.rejected(1, now), Rejected::Refresh);
    slot.failed(TRANSIENT, now);
    let refusal = unavailable(1);
    assert_eq!(slot.rejected(1, now), Rejected::Refuse(refusal));
    let later = now.plus(secs(1));
    assert_eq!(
        slot.rejected(1, later),
        Rejected::Refresh,
        "a failure does not use up the interval"
    );
    slot.failed(Failure::GrantDead, later);
    let refusal = Error::ReauthorizationRequired;
    assert_eq!(slot.rejected(1, later), Rejected::Refuse(refusal));
    assert_eq!(slot.rejected(1, later.plus(secs(31))), Rejected::Refuse(refusal));
}

#[test]
fn a_token_that_amazon_rejects_is_discarded_with_its_dead_grant_only() {
    let (mut slot, now) = fresh();
    slot.rejected(1, now);
    slot.failed(TRANSIENT, now);
    assert!(!slot.discard(1), "LWA may be back before the token ends");
    let later = now.plus(secs(1));
    slot.rejected(1, later);
    slot.failed(Failure::GrantDead, later);
    assert!(!slot.discard(0), "an older one is gone already");
    assert!(slot.discard(1));
    assert_eq!(slot.want(later), Want::Refuse(Error::ReauthorizationRequired));
    slot.reconnected();
    assert_eq!(slot.generation(), 1, "numbers are not used again");
    assert_eq!(slot.want(later), Want::Refresh);
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
    assert!(slot.background(now.plus(secs(2700))));
    assert!(!slot.background(now.plus(secs(2700))), "one at a time");
    slot.succeeded(2, Life::new(now, secs(900)));
    assert_eq!(slot.background_due(now, 1.0), None, "shorter than the lead");
    let mut idle = Slot::new(policy());
    assert_eq!(idle.background_due(now, 1.0), Some(Duration::ZERO), "it is tried");
    assert!(idle.background(now));
    idle.failed(Failure::NotConnected, now);
    assert_eq!(idle.background_due(now, 1.0), None, "nothing to keep fresh");
}

#[test]
fn a_permanent_refusal_is_not_asked_for_again_every_second() {
    for reason in [LwaFailure::Refused, LwaFailure::NotLwa].map(Obstacle::Lwa) {
        let mut now = ManualClock::new().now();
        let mut slot = Slot::new(policy());
        for expected in [8, 8, 8, 8, 60, 60] {
            assert_eq!(slot.want(now), Want::Refresh);
            slot.failed(Failure::unavailable(reason), now);
            let error = Error::Unavailable { reason, retry_after: secs(expected) };
            assert_eq!(slot.want(now), Want::Refuse(error));
            now = now.plus(secs(expected));
        }
    }
}

#[test]
fn each_failure_has_its_own_state() {
    for (failure, state) in [
        (Failure::NotConnected, State::NotConnected),
        (Failure::GrantDead, State::ReauthorizationRequired),
        (Failure::ApplicationRejected(LwaFailure::UnauthorizedClient), State::ApplicationRejected),
        (Failure::unavailable(Obstacle::Sealed), State::Sealed),
        (Failure::unavailable(Obstacle::Unreadable), State::Unreadable),
        (Failure::unavailable(Obstacle::UNREACHABLE), State::Idle),
    ] {
        let now = ManualClock::new().now();
        let mut slot = Slot::new(policy());
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
