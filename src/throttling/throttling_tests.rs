//! The whole observer by a clock that stands still.

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    id::Region,
};
use http::Method;

struct Setup {
    throttling: Arc<Throttling>,
    clock: ManualClock,
    metrics: WorkerMetrics,
    acme: AccountId,
}

fn setup(enforce: bool) -> Setup {
    let clock = ManualClock::new();
    let throttling = Throttling::new(enforce, clock.now());
    Setup { throttling, clock, metrics: WorkerMetrics::default(), acme: id("acme") }
}

fn id(text: &str) -> AccountId {
    text.parse().expect("an id")
}

fn scope<'a>(account: &'a AccountId, profile: &'a str) -> ThrottleScope<&'a str> {
    let call = (&Method::GET, "/sp/campaigns");
    ThrottleScope::of(Region::Na, "app", account, Some(profile.as_bytes()), call)
}

impl Setup {
    fn secs(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    /// Amazon responds to a request that was sent just now.
    fn responds(&self, account: &AccountId, profile: &str, status: u16, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, value)| {
            let name: http::HeaderName = name.parse().expect("a name");
            (name, value.parse().expect("a value"))
        });
        let headers = HeaderMap::from_iter(fields);
        let status = StatusCode::from_u16(status).expect("a status");
        let now = self.clock.now();
        let service = Service::Api;
        let observed = Observed { status, headers: &headers, service, account, sent: now.mono };
        if self.throttling.concerns(status) {
            self.throttling.observe(scope(account, profile), &observed, now, &self.metrics);
        }
    }

    fn admit(&self, account: &AccountId, profile: &str) -> Result<Option<Probe>, Duration> {
        self.throttling.admit(scope(account, profile), self.clock.now().mono)
    }

    fn goes_out(&self, account: &AccountId, profile: &str) -> bool {
        self.admit(account, profile).is_ok()
    }

    fn list(&self) -> Vec<ThrottledScope> {
        self.throttling.list(self.clock.now(), |_| true)
    }
}

#[test]
fn a_throttled_scope_waits_and_no_other() {
    let s = setup(true);
    s.responds(&s.acme, "1", 429, &[("retry-after", "30")]);
    assert!(s.throttling.may_turn_away());
    assert!(!s.goes_out(&s.acme, "1"));
    assert!(s.goes_out(&s.acme, "2"));
    assert!(!s.goes_out(&id("globex"), "1"), "another account, the same profile");
    assert!(s.goes_out(&id("t1~acme"), "1"), "another tenant hears nothing of it");
    s.secs(30);
    let probe = s.admit(&s.acme, "1").expect("over").expect("a probe");
    assert!(!s.goes_out(&s.acme, "1"), "one probe only");
    s.responds(&s.acme, "1", 200, &[]);
    drop(probe);
    assert!(s.goes_out(&s.acme, "1"));
    assert!(!s.throttling.may_turn_away() && !s.throttling.concerns(StatusCode::OK));
}

#[test]
fn those_that_are_turned_away_come_back_one_after_the_other() {
    let s = setup(true);
    s.responds(&s.acme, "1", 429, &[("retry-after", "40")]);
    s.clock.advance(Duration::from_millis(500));
    let after = |_| s.admit(&s.acme, "1").expect_err("it waits").as_secs();
    let times: BTreeSet<u64> = (0..100).map(after).collect();
    assert_eq!(times, (40..=50).collect());
    s.secs(40);
    let _probe = s.admit(&s.acme, "1").expect("over").expect("a probe");
    let times: BTreeSet<u64> = (0..100).map(after).collect();
    assert_eq!(times, (1..=3).collect(), "while the probe is out");
}

#[test]
fn a_probe_without_a_useful_response_leaves_its_place() {
    let s = setup(true);
    s.responds(&s.acme, "1", 429, &[]);
    s.secs(1);
    drop(s.admit(&s.acme, "1").expect("over").expect("a probe"));
    let probe = s.admit(&s.acme, "1").expect("over").expect("the next probe");
    s.responds(&s.acme, "1", 503, &[]);
    drop(probe);
    assert!(s.admit(&s.acme, "1").expect("over").is_some(), "a 5xx says nothing");
    s.responds(&s.acme, "1", 400, &[]);
    assert!(s.admit(&s.acme, "1").expect("free").is_none(), "a 400 is not throttled");
}

#[test]
fn what_no_wait_clears_is_counted_and_never_waits() {
    let s = setup(true);
    for _ in 0..5 {
        let denied = ("x-amzn-errortype", "AccessDeniedException");
        s.responds(&s.acme, "1", 429, &[denied, ("retry-after", "30")]);
        s.responds(&s.acme, "1", 500, &[]);
        s.responds(&s.acme, "1", 503, &[("retry-after", "30")]);
    }
    assert!(s.goes_out(&s.acme, "1") && !s.throttling.may_turn_away());
    let list = s.list();
    assert_eq!((list.len(), list[0].left), (1, None));
    for kind in ThrottleKind::ALL {
        let expected = match kind {
            ThrottleKind::AccessDenied
            | ThrottleKind::ServerError
            | ThrottleKind::ServerErrorRetryAfter => 5,
            _ => 0,
        };
        assert_eq!(list[0].counts[kind as usize], expected, "{kind}");
    }
}

#[test]
fn the_list_has_what_may_be_seen_and_what_is_left() {
    let s = setup(false);
    let other = id("t1~acme");
    s.responds(&s.acme, "1", 429, &[("retry-after", "30")]);
    s.secs(1);
    s.responds(&other, "1", 429, &[]);
    s.secs(1);
    assert_eq!(s.list().len(), 2);
    let of_t1 = s.throttling.list(s.clock.now(), |id| id.tenant() == Some("t1"));
    assert_eq!(of_t1.len(), 1);
    assert_eq!(of_t1[0].accounts, BTreeSet::from([other]));
    assert_eq!(of_t1[0].left, Some(Duration::ZERO), "a probe is awaited");
    let all = s.list();
    assert_eq!(all[1].left, Some(Duration::from_secs(28)));
    assert_eq!(all[1].last_retry_after, Some(Duration::from_secs(30)));
    s.secs(120);
    assert!(s.list().iter().all(|one| one.left.is_none()), "forgotten when looked at");
    assert!(!s.throttling.concerns(StatusCode::OK));
}

#[test]
fn memory_is_bounded_and_the_oldest_go() {
    let s = setup(true);
    for number in 0..SCOPES_MAX * 6 / 5 {
        s.responds(&s.acme, &number.to_string(), 429, &[("retry-after", "300")]);
        s.clock.advance(Duration::from_millis(1));
    }
    let list = s.list();
    assert!(list.len() <= SCOPES_MAX && list.len() > SCOPES_MAX * 9 / 10, "{}", list.len());
    assert_eq!(s.throttling.active.load(Relaxed), list.len(), "what is gone waits no more");
    assert!(!s.goes_out(&s.acme, &(SCOPES_MAX * 6 / 5 - 1).to_string()));
    assert!(s.goes_out(&s.acme, "0"));
    let accounts: Vec<_> = (0..100).map(|number| id(&format!("a{number}"))).collect();
    accounts.iter().for_each(|account| s.responds(account, "x", 429, &[]));
    let named = s.list().iter().map(|one| one.accounts.len()).max();
    assert_eq!(named, Some(ACCOUNTS_MAX));
}

#[test]
fn threads_that_meet_let_one_probe_out() {
    let s = setup(true);
    s.responds(&s.acme, "1", 429, &[]);
    s.secs(1);
    let probes = std::thread::scope(|threads| {
        let tries = (0..8).map(|_| threads.spawn(|| s.admit(&s.acme, "1")));
        let tries: Vec<_> = tries.collect();
        tries.into_iter().map(|one| one.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert_eq!(probes.iter().filter(|probe| matches!(probe, Ok(Some(_)))).count(), 1);
    assert_eq!(probes.iter().filter(|probe| probe.is_err()).count(), 7);
}
