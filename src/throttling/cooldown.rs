//! When a call may go out again that Amazon throttles: pure, on the times that it is given.
//!
//! Amazon says how long to wait, or the wait doubles while it goes on throttling. Behind the wait one
//! request probes, and the first response that is no throttling ends it.

use std::time::{Duration, Instant};

/// The first wait where Amazon does not say one.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait where Amazon does not say one.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest wait that Amazon may ask for: it is a number from outside.
pub(super) const ASKED_MAX: Duration = Duration::from_secs(3600);
/// A probe without a response for so long does not keep the next one from going out.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// A wait that nobody tested for so long after its end is over.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The wait of one kind of calls; by default none.
#[derive(Debug, Default)]
pub(super) struct Cooldown(Option<ThrottleWait>);

#[derive(Debug)]
struct ThrottleWait {
    /// When Amazon throttled last a request that was sent within this wait, or before it.
    since: Instant,
    until: Instant,
    /// The next wait where Amazon does not say one.
    next: Duration,
    /// When the probe went out.
    probe: Option<Instant>,
}

/// Whether a request may go out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Free,
    /// As the only one, to see whether Amazon still throttles.
    Probe,
    Wait,
}

impl Cooldown {
    pub(super) fn is_active(&self) -> bool {
        self.0.is_some()
    }

    /// When the wait ends.
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.as_ref().map(|wait| wait.until)
    }

    /// Until when no request goes out: to the end of the wait, or as long as the probe may take.
    pub(super) fn closed_until(&self) -> Option<Instant> {
        let wait = self.0.as_ref()?;
        Some(wait.probe.map_or(wait.until, |probe| probe + PROBE_PATIENCE))
    }

    /// Amazon throttled a request of `sent`, and asked for a wait or not.
    pub(super) fn throttled(&mut self, sent: Instant, now: Instant, asked: Option<Duration>) {
        let asked = asked.map(|asked| asked.min(ASKED_MAX));
        self.forget(now);
        match &mut self.0 {
            // One of many that were under way when the wait began: no news, but for a longer wait.
            Some(wait) if sent < wait.since => {
                wait.until = wait.until.max(now + asked.unwrap_or_default());
            }
            wait => {
                let next = wait.as_ref().map_or(WAIT_MIN, |wait| wait.next);
                let (until, next) = match asked {
                    Some(asked) => (now + asked, next),
                    None => (now + next, (next * 2).min(WAIT_MAX)),
                };
                *wait = Some(ThrottleWait { since: now, until, next, probe: None });
            }
        }
    }

    /// Amazon throttled another server, which waits until then.
    pub(super) fn learned(&mut self, now: Instant, until: Instant) {
        self.forget(now);
        match &mut self.0 {
            Some(wait) if until <= wait.until => {}
            Some(wait) => (wait.until, wait.probe) = (until, None),
            none => {
                let next = until.saturating_duration_since(now).clamp(WAIT_MIN, WAIT_MAX);
                *none = Some(ThrottleWait { since: now, until, next, probe: None });
            }
        }
    }

    /// Amazon did not throttle a request of `sent`. One from before the wait proves nothing.
    pub(super) fn passed(&mut self, sent: Instant) {
        self.0.take_if(|wait| sent >= wait.since);
    }

    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        self.forget(now);
        let closed = self.closed_until().map(|closed| now < closed);
        match (&mut self.0, closed) {
            (Some(wait), Some(false)) => {
                wait.probe = Some(now);
                Admission::Probe
            }
            (Some(_), _) => Admission::Wait,
            (None, _) => Admission::Free,
        }
    }

    /// The probe of `sent` ended without an answer to its question: the next request is one.
    pub(super) fn abandoned(&mut self, sent: Instant) {
        if let Some(wait) = &mut self.0 {
            wait.probe.take_if(|probe| *probe == sent);
        }
    }

    /// Ends a wait whose end nobody came to test.
    pub(super) fn forget(&mut self, now: Instant) {
        self.0.take_if(|wait| wait.probe.is_none() && now >= wait.until + FORGOTTEN_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::{Admission::*, *};

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// A cool-down, and a start from which the tests count seconds.
    fn begin() -> (Cooldown, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (Cooldown::default(), move |after| start + secs(after))
    }

    #[test]
    fn nothing_waits_before_amazon_throttles() {
        let (mut cooldown, at) = begin();
        cooldown.passed(at(0));
        assert_eq!(cooldown.admit(at(0)), Free);
        assert!(!cooldown.is_active() && cooldown.until().is_none());
    }

    #[test]
    fn the_time_that_amazon_asks_for_is_waited_and_one_probe_follows() {
        let (mut cooldown, at) = begin();
        cooldown.throttled(at(0), at(0), Some(secs(30)));
        assert_eq!(cooldown.until(), Some(at(30)));
        assert_eq!([0, 29].map(|after| cooldown.admit(at(after))), [Wait, Wait]);
        assert_eq!([30, 30, 31].map(|after| cooldown.admit(at(after))), [Probe, Wait, Wait]);
        cooldown.passed(at(30));
        assert_eq!(cooldown.admit(at(31)), Free);
    }

    #[test]
    fn without_a_word_of_amazons_the_wait_doubles_up_to_a_minute() {
        let (mut cooldown, at) = begin();
        let (mut now, mut waits) = (0, Vec::new());
        for _ in 0..8 {
            cooldown.throttled(at(now), at(now), None);
            let wait = (cooldown.until().unwrap() - at(now)).as_secs();
            waits.push(wait);
            now += wait;
            assert_eq!(cooldown.admit(at(now)), Probe);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        cooldown.passed(at(now));
        cooldown.throttled(at(now + 1), at(now + 1), None);
        assert_eq!(cooldown.until(), Some(at(now + 2)), "a success begins anew");
    }

    #[test]
    fn many_throttled_at_once_are_one_step() {
        let (mut cooldown, at) = begin();
        for _ in 0..50 {
            cooldown.throttled(at(0), at(1), None);
        }
        assert_eq!(cooldown.until(), Some(at(2)));
        cooldown.throttled(at(0), at(1), Some(secs(9)));
        assert_eq!(cooldown.until(), Some(at(10)), "a longer wait counts all the same");
    }

    #[test]
    fn a_success_of_a_request_from_before_the_wait_ends_nothing() {
        let (mut cooldown, at) = begin();
        cooldown.throttled(at(1), at(2), Some(secs(30)));
        cooldown.passed(at(1));
        assert_eq!(cooldown.admit(at(3)), Wait);
    }

    #[test]
    fn a_probe_that_is_lost_or_slow_makes_room_for_another() {
        let (mut cooldown, at) = begin();
        cooldown.throttled(at(0), at(0), None);
        assert_eq!(cooldown.admit(at(1)), Probe);
        cooldown.abandoned(at(1));
        assert_eq!(
            [2, 3, 11, 12].map(|after| cooldown.admit(at(after))),
            [Probe, Wait, Wait, Probe]
        );
        cooldown.abandoned(at(2));
        assert_eq!(cooldown.admit(at(13)), Wait, "the first one has no say any more");
    }

    #[test]
    fn a_probe_that_is_throttled_waits_on() {
        let (mut cooldown, at) = begin();
        cooldown.throttled(at(0), at(0), Some(secs(5)));
        assert_eq!(cooldown.admit(at(5)), Probe);
        cooldown.throttled(at(5), at(6), Some(secs(7)));
        assert_eq!([12, 13].map(|after| cooldown.admit(at(after))), [Wait, Probe]);
    }

    #[test]
    fn what_another_server_knows_lengthens_a_wait_and_never_ends_one() {
        let (mut cooldown, at) = begin();
        cooldown.learned(at(0), at(30));
        assert_eq!([0, 29].map(|after| cooldown.admit(at(after))), [Wait, Wait]);
        cooldown.learned(at(29), at(20));
        assert_eq!(cooldown.until(), Some(at(30)));
        cooldown.learned(at(29), at(40));
        assert_eq!([39, 40].map(|after| cooldown.admit(at(after))), [Wait, Probe]);
        cooldown.learned(at(41), at(50));
        assert_eq!([49, 50].map(|after| cooldown.admit(at(after))), [Wait, Probe]);
        // Sent before, it proves nothing.
        cooldown.passed(at(0) - secs(1));
        assert!(cooldown.is_active());
        cooldown.passed(at(50));
        assert_eq!(cooldown.admit(at(50)), Free);
    }

    #[test]
    fn an_untested_wait_is_forgotten_and_an_endless_one_cut() {
        let (mut cooldown, at) = begin();
        cooldown.throttled(at(0), at(0), Some(Duration::MAX));
        assert_eq!(cooldown.until(), Some(at(3600)));
        assert_eq!(cooldown.admit(at(3600 + 60)), Free);
        assert!(!cooldown.is_active());
    }
}
