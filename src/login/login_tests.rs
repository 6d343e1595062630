//! Tests of logins with a clock of their own: the ten minutes, the five, and what a wrong clock does.

use super::{begin::StartedLogin, *};
use crate::{
    audit::Actor,
    clock::{Clock, ManualClock},
    config::load,
    metrics::Metrics,
};
use std::sync::Arc;
use tokio::runtime::Handle;

const MINUTE: Duration = Duration::from_secs(60);

/// Logins with a clock of their own, in front of no Amazon at all.
pub(crate) fn logins() -> (Logins, Arc<ManualClock>) {
    let secrets = [("S".to_owned(), "CANARY-secret".to_owned())].into_iter().collect();
    let text = "store.kind = 'memory'\n[lwa]\nclient_id = 'c'\nclient_secret = { env = 'S' }\n\
                token_url = 'http://127.0.0.1:1/'\n[upstream]\nna = 'http://127.0.0.1:1'\n\
                eu = 'http://127.0.0.1:1'\nfe = 'http://127.0.0.1:1'\n";
    let config = load::parse(Some("t".into()), text, &secrets, &[]).expect("valid").config;
    let clock = Arc::new(ManualClock::new());
    let metrics = Metrics::new(&config.metrics, Arc::default());
    let engine = Engine::open(
        None,
        Arc::new(config),
        clock.clone(),
        metrics,
        Actor::Server,
        Handle::current(),
    );
    (Logins::new(engine.expect("an engine"), Actor::Server), clock)
}

async fn begun(logins: &Logins) -> StartedLogin {
    let acme = "acme".parse().expect("an alias");
    logins.begin(&acme, &LoginRequest::default(), None).await.expect("begun")
}

/// Amazon's response to `started`, in its browser.
fn answer(started: &StartedLogin) -> Callback {
    let (name, value) = &started.cookie;
    let arguments = [("state", started.state.clone()), ("code", "code".into())];
    let arguments = arguments.map(|(name, value)| (name.to_owned(), value)).into();
    Callback { arguments, cookies: vec![(name.clone(), value.clone())] }
}

async fn refused(logins: &Logins, callback: Callback) -> &'static str {
    logins.finish(callback).await.expect_err("no Amazon").code()
}

#[tokio::test]
async fn a_state_is_good_for_ten_minutes_and_not_for_more() {
    let (logins, clock) = logins();
    let (one, two) = (begun(&logins).await, begun(&logins).await);
    clock.advance(10 * MINUTE - Duration::from_millis(1));
    // It gets as far as Amazon, which is not there.
    assert_eq!(refused(&logins, answer(&one)).await, "lwa_unavailable");
    clock.advance(Duration::from_millis(1));
    assert_eq!(refused(&logins, answer(&two)).await, "state_expired");
    assert_eq!(refused(&logins, answer(&two)).await, "state_unknown");
}

#[tokio::test]
async fn a_clock_that_was_set_back_keeps_no_login_alive() {
    let (logins, clock) = logins();
    let started = begun(&logins).await;
    clock.set_wall(clock.now().wall - 60 * MINUTE);
    assert_eq!(refused(&logins, answer(&started)).await, "state_expired");
}

#[tokio::test]
async fn a_link_is_good_for_a_week_and_only_for_its_account() {
    let (logins, clock) = logins();
    let acme: AccountId = "acme".parse().expect("an alias");
    let url = logins.reconnect_link(&acme).await.expect("a link");
    let token = url.expose().split("reconnect=").nth(1).expect("a token").to_owned();
    let other: AccountId = "globex".parse().expect("an alias");
    for (account, token) in [(&other, token.as_str()), (&acme, "made-up"), (&acme, "")] {
        let refused = logins.begin_by_link(account, token).await.expect_err("refused");
        assert_eq!(refused.code(), "link_used");
    }
    clock.advance(7 * 24 * 60 * MINUTE - Duration::from_secs(1));
    logins.begin_by_link(&acme, &token).await.expect("still good");
    clock.advance(Duration::from_secs(1));
    let refused = logins.begin_by_link(&acme, &token).await.expect_err("over");
    assert_eq!(refused.code(), "link_used");
}

#[tokio::test]
async fn a_consent_ends_every_link_that_was_made_before_it() {
    let (logins, clock) = logins();
    let acme: AccountId = "acme".parse().expect("an alias");
    let token = |url: Secret| url.expose().split("reconnect=").nth(1).map(str::to_owned);
    let old = token(logins.reconnect_link(&acme).await.expect("a link")).expect("a token");
    clock.advance(MINUTE);
    let now = clock.now().unix();
    let mut record = crate::store::tests::credential("acme");
    (record.application, record.consented_at) = ("default".into(), Some(now));
    logins.engine.store().put_grant(&record, crate::store::Expected::Any).await.expect("saved");
    let refused = logins.begin_by_link(&acme, &old).await.expect_err("over");
    assert_eq!(refused.code(), "link_used");
    let new = token(logins.reconnect_link(&acme).await.expect("a link")).expect("a token");
    logins.begin_by_link(&acme, &new).await.expect("a later one is good");
}

#[tokio::test]
async fn debug_shows_no_secret_of_a_login() {
    let (logins, _) = logins();
    let started = begun(&logins).await;
    let shown = format!("{started:?} {:?} {logins:?}", answer(&started));
    // A state is no secret to the browser it is in; the cookie and the code are to all others.
    assert!(!shown.contains(started.cookie.1.expose()) && !shown.contains("CANARY"), "{shown}");
}

#[tokio::test]
async fn what_has_expired_is_purged() {
    let (logins, clock) = logins();
    let started = begun(&logins).await;
    let key = key_of(started.state.expose());
    let store = logins.engine.store();
    let is_there = async || store.entries(Space::Login).get(&key).await.expect("read").is_some();
    store.purge_expired(logins.now_ms()).await.expect("purged");
    assert!(is_there().await);
    clock.advance(10 * MINUTE);
    store.purge_expired(logins.now_ms()).await.expect("purged");
    assert!(!is_there().await);
}
