//! Login with Amazon fails: unnoticed while tokens live, a clear answer after, healed by itself.

use crate::support::{
    crowd::{self, Crowd, all_served},
    proxy::{Answer, Proxy, Setup, amazon, eventually},
};
use adsproxy::sandbox::{
    CLIENT_ID, CLIENT_SECRET, Emulator, EmulatorOptions, LwaFault, Scripted, Surface, Times,
};
use http::StatusCode;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const LIFETIME: Duration = Duration::from_secs(4);
/// The longest memory of a failure (8 s), and some time to try.
const RECOVERY_MAX: Duration = Duration::from_secs(12);
const CALLERS: usize = 20;
const CALLS_MAX: u64 = 12;
const MIB: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_lwa_is_unnoticed_until_the_token_ends_and_heals_by_itself() {
    let elsewhere = amazon().await;
    let mut outages = JoinSet::new();
    for fault in faults(elsewhere.addr()) {
        outages.spawn(outlast(fault));
    }
    while let Some(outage) = outages.join_next().await {
        outage.expect("every outage goes well");
    }
    assert_eq!(elsewhere.state().record.requests().len(), 0, "no redirect is followed");
}

/// Everything that is no token.
fn faults(elsewhere: SocketAddr) -> Vec<LwaFault> {
    let page = Scripted {
        status: StatusCode::OK,
        headers: vec![("content-type".into(), "text/html".into())],
        body: "<html>Atza|sorry</html>".into(),
    };
    vec![
        LwaFault::Unavailable { retry_after: None },
        LwaFault::ServerError,
        LwaFault::Throttled { retry_after: Some(1) },
        LwaFault::Hang,
        LwaFault::Slow(Duration::from_secs(5)),
        LwaFault::Drop,
        LwaFault::Respond(page),
        LwaFault::Redirect(format!("http://{elsewhere}/auth/o2/token")),
        LwaFault::Oversized,
        LwaFault::CrlfInToken,
        LwaFault::NoToken,
        LwaFault::Echo,
    ]
}

/// Lives through an outage before the first token, during a token's life and after its end.
async fn outlast(fault: LwaFault) {
    let name = format!("{fault:?}");
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, quick());
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.token_lifetime = LIFETIME);
    let memory = proxy.memory();

    lwa.faults.add(fault.clone(), Times::Forever);
    refused(&proxy, &amazon, &name).await;
    lwa.faults.clear();
    recovers(&proxy, &name).await;

    let issued = Instant::now();
    lwa.faults.add(fault, Times::Forever);
    let mut served = 0;
    while issued.elapsed() < LIFETIME - Duration::from_millis(500) {
        let answer = proxy.get("/v2/profiles").await;
        assert_eq!(answer.status, 200, "{name}: a token that lives needs no LWA");
        served += 1;
    }
    assert!(served > 20, "{name}: {served}");
    while proxy.get("/v2/profiles").await.status == 200 {
        assert!(issued.elapsed() < LIFETIME * 2, "{name}: an expired token is used");
    }
    refused(&proxy, &amazon, &name).await;
    lwa.faults.clear();
    recovers(&proxy, &name).await;

    let grown = proxy.memory().saturating_sub(memory) / MIB;
    assert!(grown < 16, "{name}: {grown} MiB more memory");
    let injected = |seen: &adsproxy::sandbox::SeenRequest| !seen.values("x-injected").is_empty();
    assert!(!amazon.state().record.requests().iter().any(injected), "{name}");
}

/// Twenty callers are told to come back, and cost LWA little.
async fn refused(proxy: &Proxy, amazon: &Emulator, name: &str) {
    let before = token_calls(amazon);
    let crowd = Crowd::gather(proxy.addr, CALLERS).await;
    let expected = BTreeMap::from([((503, "token_unavailable".to_owned()), CALLERS)]);
    assert_eq!(crowd.answers().await, expected, "{name}");
    let calls = token_calls(amazon) - before;
    assert!(calls <= CALLS_MAX, "{name}: {calls} token requests");
    assert!((1..=8).contains(&retry_after(&proxy.get("/v2/profiles").await)), "{name}");
}

async fn recovers(proxy: &Proxy, name: &str) {
    let cleared = Instant::now();
    loop {
        let answer = proxy.get("/v2/profiles").await;
        if answer.status == 200 {
            return;
        }
        assert_eq!(answer.error(), Some("token_unavailable"), "{name}");
        assert!(cleared.elapsed() < RECOVERY_MAX, "{name}: no recovery");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lwa_that_cannot_be_connected_to_is_waited_for() {
    let amazon = amazon().await;
    let lwa = start_lwa(&amazon, SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let addr = lwa.addr();
    let token_url = Some(format!("http://{addr}/auth/o2/token"));
    let proxy = Proxy::with(&amazon, Setup { token_url, ..quick() });
    drop(lwa);
    eventually("the port is closed", || std::net::TcpStream::connect(addr).is_err()).await;
    refused(&proxy, &amazon, "refused connection").await;
    let _lwa = start_lwa(&amazon, addr).await;
    recovers(&proxy, "refused connection").await;
    assert_eq!(token_calls(&amazon), 1);
}

/// A listener of its own for the token service of `amazon`.
async fn start_lwa(amazon: &Emulator, listen: SocketAddr) -> Emulator {
    let options = EmulatorOptions { listen, ..EmulatorOptions::default() };
    Emulator::start_with(options, amazon.state().clone()).await.expect("it listens")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_errors_of_lwa_in_a_row_cost_time_only() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    amazon.state().lwa.faults.add(LwaFault::ServerError, Times::Next(2));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(token_calls(&amazon), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_error_of_lwa_in_a_row_ends_the_refresh() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    amazon.state().lwa.faults.add(LwaFault::ServerError, Times::Next(3));
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (503, Some("token_unavailable")));
    assert_eq!(token_calls(&amazon), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_retry_after_of_lwa_ends_no_refresh_in_a_panic() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let fault = LwaFault::Unavailable { retry_after: Some(u64::MAX) };
    amazon.state().lwa.faults.add(fault, Times::Next(1));
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!(answer.error(), Some("token_unavailable"));
    assert!((299..=300).contains(&retry_after(&answer)), "{}", retry_after(&answer));
    // The background may have been first, and counts once the waiting request has its answer.
    let ended = || {
        let outcome = |trigger| {
            let labels = format!("trigger=\"{trigger}\",outcome=\"transient\"");
            proxy.metric(&format!("adsproxy_token_refresh_total{{{labels}}}"))
        };
        (outcome("request") + outcome("background") - 1.0).abs() < 0.5
    };
    eventually("the refresh comes to its own end", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_of_lwa_reaches_the_caller() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let fault = LwaFault::Unavailable { retry_after: Some(40) };
    amazon.state().lwa.faults.add(fault, Times::Forever);
    for _ in 0..3 {
        let answer = proxy.get("/v2/profiles").await;
        assert_eq!(answer.error(), Some("token_unavailable"));
        assert!((30..=40).contains(&retry_after(&answer)), "{}", retry_after(&answer));
    }
    assert_eq!(token_calls(&amazon), 1, "LWA asked to be left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_during_an_outage_is_no_401_and_heals() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, quick());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let lwa = &amazon.state().lwa;
    lwa.faults.add(LwaFault::Unavailable { retry_after: None }, Times::Forever);
    lwa.expire_access_tokens(Some("acme"));
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        let answer = proxy.get("/v2/profiles").await;
        assert_eq!((answer.status.as_u16(), answer.error()), (503, Some("token_unavailable")));
    }
    assert!(token_calls(&amazon) <= 1 + CALLS_MAX);
    lwa.faults.clear();
    recovers(&proxy, "revoked").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_application_is_remembered() {
    let _turn = crowd::turn().await;
    let amazon = amazon().await;
    amazon.state().lwa.add_application(CLIENT_ID, &["another-secret"]);
    let proxy = Proxy::start(&amazon);
    let crowd = Crowd::gather(proxy.addr, CALLERS).await;
    let expected = BTreeMap::from([((502, "application_rejected".to_owned()), CALLERS)]);
    assert_eq!(crowd.answers().await, expected);
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!(answer.error(), Some("application_rejected"));
    assert!((50..=60).contains(&retry_after(&answer)), "{}", retry_after(&answer));
    assert_eq!(token_calls(&amazon), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_live_client_secret_is_tried_and_then_remembered() {
    let amazon = amazon().await;
    let toml = format!(
        "[applications.two]\nclient_id = \"{CLIENT_ID}\"\n\
         client_secret = [{{ env = \"OLD_SECRET\" }}, {{ env = \"CLIENT_SECRET\" }}]\n\
         token_url = \"http://{}/auth/o2/token\"\n\
         [accounts.twofold]\nregion = \"na\"\napplication = \"two\"\n\
         refresh_token = {{ env = \"ACME_REFRESH\" }}\n\
         [token]\nforced_refresh_min_interval_secs = 0",
        amazon.addr()
    );
    let env = vec![("OLD_SECRET".to_owned(), format!("{CLIENT_SECRET}-of-last-year"))];
    let proxy = Proxy::with(&amazon, Setup { toml, env, ..Setup::default() });
    let get = || {
        let request = proxy.request(http::Method::GET, "/v2/profiles");
        proxy.send(request.header("X-Ads-Account", "twofold"))
    };
    assert_eq!(get().await.status, 200);
    assert_eq!(token_calls(&amazon), 2, "the first secret, then the second");
    amazon.state().lwa.expire_access_tokens(None);
    assert_eq!(get().await.status, 200);
    assert_eq!(token_calls(&amazon), 3, "the one that works comes first now");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_one_account_leaves_the_others_alone() {
    let _turn = crowd::turn().await;
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let globex = || {
        let request = proxy.request(http::Method::GET, "/v2/profiles");
        proxy.send(request.header("X-Ads-Account", "globex"))
    };
    assert_eq!(globex().await.status, 200);
    amazon.state().lwa.gate.hold();
    let crowd = Crowd::gather(proxy.addr, CALLERS).await;
    amazon.state().lwa.gate.until_waiting(1).await;
    for _ in 0..20 {
        assert_eq!(globex().await.status, 200);
    }
    amazon.state().lwa.gate.release();
    assert_eq!(crowd.answers().await, all_served(CALLERS));
    assert_eq!(calls_to(&amazon, Surface::Token), 2);
}

/// Gives up on LWA after a second.
fn quick() -> Setup {
    let toml = "[token]\nlwa_connect_timeout_secs = 0.5\nlwa_timeout_secs = 1\n";
    Setup { toml: toml.to_owned(), ..Setup::default() }
}

fn retry_after(answer: &Answer) -> u64 {
    answer.headers["retry-after"].to_str().expect("ASCII").parse().expect("seconds")
}

fn token_calls(amazon: &Emulator) -> u64 {
    amazon.state().record.counts().token_calls
}

fn calls_to(amazon: &Emulator, surface: Surface) -> usize {
    amazon.state().record.requests_for(surface).len()
}
