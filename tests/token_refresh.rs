//! Tokens: one call to LWA however many wait, and none where none helps.

use crate::support::{
    crowd::{self, Crowd, all_served},
    proxy::{Proxy, Setup, amazon, eventually},
};
use adsproxy::sandbox::{Emulator, ExpiresIn, RefreshRotation, Surface};
use std::time::Duration;

const EVERY_401_REFRESHES: &str = "[token]\nforced_refresh_min_interval_secs = 0";
const SUCCEEDED: &str = r#"adsproxy_token_refresh_total{trigger="request",outcome="succeeded"}"#;
const CROWD: usize = 10_000;
/// `upstream.connections_max`.
const UPSTREAM_MAX: u64 = 2048;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_gets_the_accounts_token() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!(answer.status, 200);
    assert_eq!(token_calls(&amazon), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_on_an_expired_token_cause_one_call_to_lwa() {
    let _turn = crowd::turn().await;
    let amazon = amazon().await;
    let proxy = with_an_expired_token(&amazon).await;
    let crowd = Crowd::gather(proxy.addr, CROWD).await;
    in_flight(&proxy, CROWD).await;
    amazon.state().lwa.gate.release();
    assert_eq!(crowd.answers().await, all_served(CROWD));
    assert_eq!(token_calls(&amazon), 2, "one before, one for the crowd");
    // Beside those to the API there is the one to LWA.
    let opened = amazon.state().connections.accepted();
    assert!(opened <= UPSTREAM_MAX + 2, "{opened} connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_caller_may_leave_without_harm_to_the_other_ten_thousand() {
    let _turn = crowd::turn().await;
    let amazon = amazon().await;
    let proxy = with_an_expired_token(&amazon).await;
    let first = Crowd::gather(proxy.addr, 1).await;
    amazon.state().lwa.gate.until_waiting(1).await;
    let crowd = Crowd::gather(proxy.addr, CROWD).await;
    drop(first);
    in_flight(&proxy, CROWD).await;
    amazon.state().lwa.gate.release();
    assert_eq!(crowd.answers().await, all_served(CROWD));
    assert_eq!(token_calls(&amazon), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_every_caller_has_left_serves_the_next_one() {
    let _turn = crowd::turn().await;
    let amazon = amazon().await;
    let proxy = with_an_expired_token(&amazon).await;
    let crowd = Crowd::gather(proxy.addr, CROWD).await;
    in_flight(&proxy, CROWD).await;
    drop(crowd);
    in_flight(&proxy, 0).await;
    assert_eq!(amazon.state().lwa.gate.waiting(), 1, "nobody has cancelled it");
    amazon.state().lwa.gate.release();
    eventually("the refresh ends", || proxy.metric(SUCCEEDED) >= 2.0).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(token_calls(&amazon), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_401s_on_one_revoked_token_cause_one_call_and_a_thousand_replays() {
    const WAVE: usize = 1000;
    let _turn = crowd::turn().await;
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let state = amazon.state();
    state.api.gate.hold();
    let crowd = Crowd::gather(proxy.addr, WAVE).await;
    state.api.gate.until_waiting(WAVE).await;
    state.lwa.expire_access_tokens(Some("acme"));
    state.api.gate.release();
    assert_eq!(crowd.answers().await, all_served(WAVE));
    let counts = state.record.counts();
    assert_eq!((counts.token_calls, counts.unauthorized_sent), (2, 1000));
    assert!((proxy.metric(r#"adsproxy_replays_total{outcome="succeeded"}"#) - 1000.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_about_to_expire_is_used_while_one_refresh_runs_beside_it() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let state = amazon.state();
    // Shorter than token.refresh_buffer_secs: due after a tenth of its life.
    state.lwa.configure(|settings| settings.token_lifetime = Duration::from_secs(10));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    state.lwa.gate.hold();
    while state.lwa.gate.waiting() == 0 {
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    }
    let crowd = Crowd::gather(proxy.addr, 50).await;
    assert_eq!(crowd.answers().await, all_served(50), "nobody waits");
    assert_eq!(token_calls(&amazon), 2);
    assert_eq!(newest_generation(&amazon), Some(1));
    state.lwa.gate.release();
    while newest_generation(&amazon) != Some(2) {
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    }
    assert_eq!(token_calls(&amazon), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_came_late_is_not_used_past_its_end() {
    let amazon = amazon().await;
    let toml = "[token]\nrefresh_buffer_secs = 0".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let state = amazon.state();
    state.lwa.configure(|settings| settings.token_lifetime = Duration::from_secs(4));
    // Its token is issued, and the response under way for most of the token's life.
    state.lwa.responses.hold();
    let late = async {
        state.lwa.responses.until_waiting(1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        state.lwa.responses.release();
    };
    assert_eq!(tokio::join!(proxy.get("/v2/profiles"), late).0.status, 200);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(state.record.counts().unauthorized_sent, 0, "no expired token was sent");
    assert_eq!(token_calls(&amazon), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_refreshed_in_the_background_without_any_request() {
    let amazon = amazon().await;
    let toml = "[token]\nrefresh_buffer_secs = 1\nbackground_lead_secs = 3";
    let proxy = Proxy::with(&amazon, Setup { toml: toml.to_owned(), ..Setup::default() });
    amazon.state().lwa.configure(|settings| settings.token_lifetime = Duration::from_secs(4));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    eventually("two background refreshes", || token_calls(&amazon) >= 3).await;
    let background = r#"adsproxy_token_refresh_total{trigger="background",outcome="succeeded"}"#;
    eventually("counted", || proxy.metric(background) >= 2.0).await;
    assert!((proxy.metric(SUCCEEDED) - 1.0).abs() < 0.5, "requests started no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_lives_shorter_than_the_lead_is_not_refreshed_without_end() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    amazon.state().lwa.configure(|settings| settings.token_lifetime = Duration::from_secs(2));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let expired = r#"adsproxy_grant_state{account="acme",state="expired"}"#;
    eventually("it expires", || proxy.metric(expired) > 0.0).await;
    assert_eq!(token_calls(&amazon), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_lifetimes_cause_no_refresh_loop() {
    for (expires_in, at_most) in [
        ("0", 1),
        ("-5", 1),
        ("1000000000000000000", 1),
        ("1e300", 1),
        ("\"3600\"", 1),
        ("\"soon\"", 1),
        ("null", 1),
        ("3600.5", 1),
        // Amazon's word is taken: it is used for its second, then refreshed.
        ("1", 5),
    ] {
        let amazon = amazon().await;
        amazon.state().lwa.configure(|settings| {
            settings.expires_in = ExpiresIn::Raw(expires_in.to_owned());
        });
        let proxy = Proxy::start(&amazon);
        for _ in 0..50 {
            assert_eq!(proxy.get("/v2/profiles").await.status, 200, "{expires_in}");
        }
        let calls = token_calls(&amazon);
        assert!((1..=at_most).contains(&calls), "{expires_in}: {calls} calls");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_lifetime_counts_as_the_usual_hour() {
    let amazon = amazon().await;
    amazon.state().lwa.configure(|settings| settings.expires_in = ExpiresIn::Absent);
    let proxy = Proxy::start(&amazon);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let left = proxy.metric(r#"adsproxy_token_expiry_seconds{account="acme"}"#);
    assert!((3500.0..=3600.0).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotating_refresh_tokens_are_followed_also_across_restarts() {
    let amazon = amazon().await;
    let setup = Setup { toml: EVERY_401_REFRESHES.into(), file_store: true, ..Setup::default() };
    let mut proxy = Proxy::with(&amazon, setup);
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    for refresh in 1..=20 {
        lwa.expire_access_tokens(Some("acme"));
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
        assert_eq!(token_calls(&amazon), refresh);
        if refresh % 5 == 0 {
            proxy = proxy.restart();
            // The stored access token still lives: no call to LWA.
            assert_eq!(proxy.get("/v2/profiles").await.status, 200);
            assert_eq!(token_calls(&amazon), refresh);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_refresh_token_is_kept_whatever_the_lifetime_beside_it() {
    let amazon = amazon().await;
    let setup = Setup { toml: EVERY_401_REFRESHES.into(), file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    for (refresh, text) in (1..).zip(["1e999", "{}", "null", "\"soon\""]) {
        lwa.configure(|settings| settings.expires_in = ExpiresIn::Raw(text.to_owned()));
        lwa.expire_access_tokens(Some("acme"));
        assert_eq!(proxy.get("/v2/profiles").await.status, 200, "{text}");
        assert_eq!(token_calls(&amazon), refresh, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_refresh_token_never_replaces_the_one_there_is() {
    let amazon = amazon().await;
    let setup = Setup { toml: EVERY_401_REFRESHES.into(), file_store: true, ..Setup::default() };
    let mut proxy = Proxy::with(&amazon, setup);
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.omit_refresh_token = true);
    for _ in 0..3 {
        lwa.expire_access_tokens(Some("acme"));
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
        proxy = proxy.restart();
    }
    assert_eq!(token_calls(&amazon), 3);
}

/// A proxy whose token of `acme` has expired, and an LWA that keeps everybody waiting.
async fn with_an_expired_token(amazon: &Emulator) -> Proxy {
    let toml = "[token]\nlwa_timeout_secs = 600\nwait_timeout_secs = 600";
    let proxy = Proxy::with(amazon, Setup { toml: toml.to_owned(), ..Setup::default() });
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.token_lifetime = Duration::from_secs(1));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let expired = r#"adsproxy_grant_state{account="acme",state="expired"}"#;
    eventually("the token expires", || proxy.metric(expired) > 0.0).await;
    lwa.configure(|settings| settings.token_lifetime = Duration::from_secs(3600));
    lwa.gate.hold();
    proxy
}

async fn in_flight(proxy: &Proxy, count: usize) {
    let count = count as f64;
    let in_flight = || proxy.metric("adsproxy_in_flight_requests");
    eventually("all are in flight", || (in_flight() - count).abs() < 0.5).await;
}

fn token_calls(amazon: &Emulator) -> u64 {
    amazon.state().record.counts().token_calls
}

/// The number of the access token that came last.
fn newest_generation(amazon: &Emulator) -> Option<u64> {
    amazon.state().record.requests_for(Surface::Api).last().and_then(|seen| seen.generation)
}

/// The log says what began a refresh in the word that the metric has for it.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_what_began_a_refresh_as_the_metric_does() {
    let amazon = amazon().await;
    let toml = EVERY_401_REFRESHES.to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let triggers = || {
        let log = proxy.log();
        let refreshed = log.lines().filter(|line| line.contains("access token refreshed"));
        let trigger = |line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["trigger"].as_str().expect("a word").to_owned()
        };
        refreshed.map(trigger).collect::<Vec<_>>()
    };
    // The log is read beside.
    eventually("both are logged", || triggers().len() >= 2).await;
    assert_eq!(triggers(), ["request", "forced"]);
}
