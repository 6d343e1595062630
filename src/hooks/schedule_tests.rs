//! Order, retries, pauses and ends of messages, on clocks that stand still.

use super::*;
use crate::clock::{Clock, ManualClock};

fn limits() -> config::OutboxConfig {
    config::OutboxConfig {
        messages_max: 100,
        dead_letters_max: 100,
        retry_min: Duration::from_secs(1),
        retry_max: Duration::from_secs(1000),
        attempts_max: 8,
        give_up: Duration::from_secs(86_400),
    }
}

/// A schedule and clocks that only the test moves.
struct Bench {
    schedule: Schedule,
    clock: ManualClock,
    began: (Instant, Now),
    order: u64,
}

impl Bench {
    fn new() -> Self {
        let clock = ManualClock::new();
        let began = (Instant::now(), clock.now());
        Self { schedule: Schedule::new(&limits()), clock, began, order: 0 }
    }

    fn now(&self) -> (Now, Instant) {
        let now = self.clock.now();
        (now, self.began.0 + (now.mono - self.began.1.mono))
    }

    fn insert(&mut self, account: &str, kind: &str) -> String {
        let (now, instant) = self.now();
        self.order += 1;
        let message = Message {
            account: Some(account.to_owned()),
            kind: kind.to_owned(),
            order: self.order,
            ..Message::test("hook", now)
        };
        let name = message.name();
        self.schedule.insert(message, now, instant);
        name
    }

    /// The orders of the messages that are started now.
    fn start(&mut self) -> Vec<u64> {
        let (_, instant) = self.now();
        self.schedule.start(instant, |_| false).iter().map(|message| message.order).collect()
    }

    fn record(&mut self, key: &str, result: Result<(), &DeliveryError>) -> Option<AttemptEnd> {
        let (now, instant) = self.now();
        self.schedule.record(key, result, now, instant)
    }

    /// Moves on to when something is to be done.
    fn wait(&mut self) -> Duration {
        let (_, instant) = self.now();
        let wait = self.schedule.next_due(instant).expect("something is due") - instant;
        self.clock.advance(wait);
        wait
    }
}

fn failed() -> DeliveryError {
    DeliveryError::new("responded with 500".to_owned())
}

#[test]
fn messages_of_one_account_go_in_order_and_accounts_side_by_side() {
    let mut bench = Bench::new();
    let first = bench.insert("acme", "a");
    bench.insert("acme", "b");
    bench.insert("globex", "a");
    assert_eq!(bench.start(), [1, 3]);
    assert!(bench.start().is_empty());
    assert!(matches!(bench.record(&first, Ok(())), Some(AttemptEnd::Delivered(_))));
    assert_eq!(bench.start(), [2]);
    assert_eq!(bench.schedule.waiting.len(), 2);
}

#[test]
fn so_many_and_no_more_are_under_way_at_once() {
    let mut bench = Bench::new();
    let keys: Vec<String> = (0..9).map(|n| bench.insert(&format!("a{n}"), "a")).collect();
    assert_eq!(bench.start().len(), CONCURRENCY);
    bench.record(&keys[0], Ok(()));
    assert_eq!(bench.start(), [5]);
}

#[test]
fn a_failure_is_tried_again_later_and_later_and_then_given_up() {
    let mut bench = Bench::new();
    let key = bench.insert("acme", "a");
    let mut waited = Duration::ZERO;
    for attempt in 1..limits().attempts_max {
        assert_eq!(bench.start(), [1], "attempt {attempt}");
        let Some(AttemptEnd::Again(message)) = bench.record(&key, Err(&failed())) else {
            panic!("attempt {attempt}")
        };
        assert_eq!(message.attempts, attempt);
        assert_eq!(message.last_error.as_deref(), Some("responded with 500"));
        assert!(bench.start().is_empty(), "not at once");
        while bench.schedule.next_due(bench.now().1).is_some() {
            waited += bench.wait();
        }
    }
    assert!(waited > Duration::from_secs(60), "{waited:?}");
    assert_eq!(bench.start(), [1]);
    assert!(matches!(bench.record(&key, Err(&failed())), Some(AttemptEnd::Dead(_))));
    assert_eq!(bench.schedule.waiting.len(), 0);
}

#[test]
fn what_is_gone_is_given_up_at_once_and_so_is_what_is_too_old() {
    let mut bench = Bench::new();
    let key = bench.insert("acme", "a");
    bench.start();
    let gone = DeliveryError { is_final: true, ..failed() };
    assert!(matches!(bench.record(&key, Err(&gone)), Some(AttemptEnd::Dead(_))));

    let key = bench.insert("acme", "b");
    bench.start();
    bench.clock.advance(limits().give_up);
    assert!(matches!(bench.record(&key, Err(&failed())), Some(AttemptEnd::Dead(_))));
}

#[test]
fn the_receiver_may_ask_for_more_time_but_not_for_ever() {
    for (asked, least, most) in [(500, 500, 500), (u64::MAX, 86_400, 86_400), (0, 1, 10)] {
        let mut bench = Bench::new();
        let key = bench.insert("acme", "a");
        bench.start();
        let retry_after = Some(Duration::from_secs(asked));
        bench.record(&key, Err(&DeliveryError { retry_after, ..failed() }));
        let wait = bench.wait().as_secs();
        assert!((least..=most).contains(&wait), "{asked}: {wait}");
    }
}

#[test]
fn a_message_that_keeps_failing_is_overtaken_at_last() {
    let mut bench = Bench::new();
    let poison = bench.insert("acme", "a");
    bench.insert("acme", "b");
    for attempt in 1..=ORDERED_ATTEMPTS + 1 {
        assert_eq!(bench.start(), [1]);
        bench.record(&poison, Err(&failed()));
        // Others are taken meanwhile, so the receiver is not in trouble.
        (bench.schedule.failures, bench.schedule.paused_until) = (0, None);
        if attempt <= ORDERED_ATTEMPTS {
            assert!(bench.start().is_empty(), "its turn is kept");
            bench.wait();
        }
    }
    assert_eq!(bench.start(), [2]);
}

#[test]
fn a_receiver_in_trouble_is_left_alone_and_asked_with_one_message() {
    let mut bench = Bench::new();
    let keys: Vec<String> = (0..9).map(|n| bench.insert(&format!("a{n}"), "a")).collect();
    assert_eq!(bench.start().len(), CONCURRENCY);
    for key in &keys[..CONCURRENCY] {
        bench.record(key, Err(&failed()));
    }
    assert!(bench.start().is_empty());
    bench.wait();
    let probe = bench.start();
    assert_eq!(probe.len(), 1);
    let key = keys
        .iter()
        .find(|key| key.starts_with(&format!("{:020}-", probe[0])))
        .expect("one of them");
    bench.record(key, Ok(()));
    assert_eq!(bench.start().len(), CONCURRENCY, "and is trusted again");
}

#[test]
fn what_waited_too_long_for_a_receiver_in_trouble_is_given_up_untried() {
    let mut bench = Bench::new();
    let keys: Vec<String> = (0..9).map(|n| bench.insert(&format!("a{n}"), "a")).collect();
    bench.start();
    bench.clock.advance(limits().give_up);
    assert!(bench.schedule.expired(bench.now().0).is_empty(), "no trouble yet");
    for key in &keys[..CONCURRENCY] {
        bench.record(key, Err(&failed()));
    }
    assert_eq!(bench.schedule.expired(bench.now().0).len(), 9 - CONCURRENCY);
}

#[test]
fn a_wall_clock_set_back_holds_up_nothing_for_long() {
    let mut bench = Bench::new();
    let (now, instant) = bench.now();
    let later = now.unix() + 10 * 365 * 86_400;
    let message = Message { not_before: later, ..Message::test("hook", now) };
    bench.schedule.insert(message, now, instant);
    assert!(bench.wait() <= limits().give_up);
}

#[test]
fn the_least_message_goes_first_when_there_are_too_many() {
    let mut bench = Bench::new();
    let oldest = bench.insert("acme", "grant.expiring");
    bench.start();
    assert_eq!(bench.schedule.eviction_candidate("token.refreshed"), None, "it is under way");
    let second = bench.insert("b", "grant.expiring");
    let third = bench.insert("c", "token.refreshed");
    bench.insert("d", "token.refreshed");
    assert_eq!(bench.schedule.eviction_candidate("token.refreshed"), Some((false, third)));
    assert_eq!(bench.schedule.eviction_candidate("none"), Some((true, second)));
    assert!(bench.schedule.remove(&oldest).is_some());
    assert_eq!(bench.record(&oldest, Ok(())), None);
}
