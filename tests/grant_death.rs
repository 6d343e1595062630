//! A grant dies: said at once and cheaply, remembered, and healed without a restart.

use crate::support::{
    crowd,
    grants::connect_anew,
    proxy::{Proxy, Setup, amazon},
};
use adsproxy::{
    sandbox::{Emulator, LwaFault, Times},
    testing::Secret,
};
use http::Method;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

const CALLERS: u32 = 16;
/// 400 requests a second, all callers together.
const PERIOD: Duration = Duration::from_millis(40);
const REQUESTS_EACH: u32 = 50;
const BAR: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_under_load_costs_at_most_three_calls_and_five_milliseconds() {
    let _turn = crowd::turn().await;
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    amazon.state().lwa.revoke("acme");
    let before = counts(&amazon);
    // The machine may be busy with other tests, some of which take minutes: the best of the rounds
    // until one is good shows what we cost.
    let mut best = (Duration::MAX, Duration::MAX);
    let started = Instant::now();
    while best.0 >= BAR && started.elapsed() < TIMEOUT {
        best = best.min(load(proxy.addr).await);
    }
    let after = counts(&amazon);
    assert!(after.0 - before.0 <= 3, "{} calls to LWA", after.0 - before.0);
    assert!(after.1 - before.1 <= u64::from(CALLERS), "only those under way at its death");
    assert!(best.0 < BAR, "p99 {:?}, median {:?}", best.0, best.1);
}

/// Offers the rate for two seconds; every answer is the same. The 99th percentile and the median.
async fn load(addr: SocketAddr) -> (Duration, Duration) {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let begin = tokio::time::Instant::now() + PERIOD / CALLERS * caller;
        callers.spawn(async move {
            let mut stream = TcpStream::connect(addr).await.expect("a connection");
            let mut ticks = tokio::time::interval_at(begin, PERIOD);
            let mut times = Vec::new();
            for _ in 0..REQUESTS_EACH {
                ticks.tick().await;
                let started = Instant::now();
                let answer = ask(&mut stream).await;
                times.push(started.elapsed());
                assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
                assert!(answer.contains("x-ads-proxy-error: reauthorization_required"), "{answer}");
            }
            times
        });
    }
    let mut times = callers.join_all().await.concat();
    times.sort();
    (times[times.len() * 99 / 100], times[times.len() / 2])
}

/// One request on a kept connection; the client costs next to nothing.
async fn ask(stream: &mut TcpStream) -> String {
    let request = b"GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut answer = Vec::new();
    // The body is one JSON object.
    while !answer.ends_with(b"}") && !answer.ends_with(b"}\n") {
        assert_ne!(stream.read_buf(&mut answer).await.expect("an answer"), 0, "closed");
    }
    String::from_utf8(answer).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_stays_dead_over_a_restart_and_is_not_asked_about_again() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, file_store());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    amazon.state().lwa.revoke("acme");
    dead(&proxy).await;
    let calls = counts(&amazon).0;
    let proxy = proxy.restart();
    for _ in 0..30 {
        dead(&proxy).await;
    }
    assert_eq!(counts(&amazon).0, calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_consent_written_by_another_process_heals_without_a_restart() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, file_store());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    amazon.state().lwa.revoke("acme");
    dead(&proxy).await;
    let refresh_token = amazon.state().lwa.consent_again("acme").expect("a grant");
    dead(&proxy).await;
    write_grant(&proxy, refresh_token).await;
    let written = Instant::now();
    while proxy.get("/v2/profiles").await.status != 200 {
        assert!(written.elapsed() < Duration::from_secs(5), "not healed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let calls = counts(&amazon).0;
    assert!(calls <= 5, "{calls} calls to LWA in all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_is_in_the_store_before_the_old_one_dies_is_simply_used() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, file_store());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let lwa = &amazon.state().lwa;
    let refresh_token = lwa.consent_again("acme").expect("a grant");
    write_grant(&proxy, refresh_token).await;
    lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(counts(&amazon).0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_token_outlives_its_grant() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let lwa = &amazon.state().lwa;
    // Due after half a second already, good for five.
    lwa.configure(|settings| settings.token_lifetime = Duration::from_secs(5));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let issued = Instant::now();
    lwa.faults.add(LwaFault::InvalidGrant, Times::Forever);
    let gone = Duration::from_millis(4500);
    while issued.elapsed() < gone {
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    }
    while proxy.get("/v2/profiles").await.status == 200 {
        assert!(issued.elapsed() < gone * 2);
    }
    dead(&proxy).await;
    assert!(counts(&amazon).0 <= 1 + 2, "{} calls", counts(&amazon).0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_one_grant_is_no_death_of_another() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    amazon.state().lwa.revoke("acme");
    dead(&proxy).await;
    let globex = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "globex");
    assert_eq!(proxy.send(globex).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_seed_replaces_a_dead_grant() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, file_store());
    amazon.state().lwa.revoke("acme");
    dead(&proxy).await;
    let refresh_token = amazon.state().lwa.consent_again("acme").expect("a grant");
    proxy.set_env("ACME_REFRESH", &refresh_token);
    let proxy = proxy.restart();
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
}

async fn dead(proxy: &Proxy) {
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (403, Some("reauthorization_required")));
    let text = answer.json()["detail"].to_string();
    assert!(text.contains("Connect the account again"), "{text}");
}

/// Writes a new grant of `acme` into the store of `proxy`, as a login in another process does.
async fn write_grant(proxy: &Proxy, refresh_token: String) {
    connect_anew(proxy, |record| {
        record.refresh_token = Secret::new(refresh_token);
        record.previous_refresh_token = None;
        record.reauthorization_required = false;
    })
    .await;
}

fn file_store() -> Setup {
    Setup { file_store: true, ..Setup::default() }
}

/// Calls to LWA, and to the API.
fn counts(amazon: &Emulator) -> (u64, u64) {
    let counts = amazon.state().record.counts();
    (counts.token_calls, counts.api_calls)
}
