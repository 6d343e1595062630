//! With `throttling.enforce`, servers on one database share what Amazon throttles.

use crate::support::{
    callers::TestCaller,
    load::Load,
    postgres::{Cluster, database},
    proxy::{Answer, Proxy, Setup, amazon, eventually},
};
use adsproxy::sandbox::{ApiFault, Emulator, Times};
use http::Method;
use std::time::{Duration, Instant};

const ENFORCE: &str = "[throttling]\nenforce = true\n";
/// Servers know of a wait after this.
const NEWS: Duration = Duration::from_secs(2);

fn server(amazon: &Emulator, toml: &str, database: &(String, String)) -> Proxy {
    let (toml, database) = (toml.to_owned(), Some(database.clone()));
    Proxy::with(amazon, Setup { toml, database, ..Setup::default() })
}

/// Asks for the profiles of `profile`, as `key` if there is one.
async fn ask(proxy: &Proxy, key: Option<&str>, profile: &str) -> Answer {
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
    let request = request.header("Amazon-Advertising-API-Scope", profile);
    proxy
        .send(match key {
            Some(key) => request.header("X-Ads-Key", key),
            None => request,
        })
        .await
}

/// Amazon throttles the next call of `proxy` for `secs`.
async fn throttle(amazon: &Emulator, proxy: &Proxy, key: Option<&str>, profile: &str, secs: u64) {
    let fault = ApiFault::Throttled { retry_after: Some(secs) };
    amazon.state().api.faults.add(fault, Times::Next(1));
    let answer = ask(proxy, key, profile).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (429, None), "{}", answer.text());
}

fn is_kept_here(answer: &Answer) -> bool {
    answer.error() == Some("upstream_throttled")
}

/// Waits until `proxy` keeps the call here; how long that took.
async fn until_kept_here(proxy: &Proxy, key: Option<&str>, profile: &str) -> Duration {
    let began = Instant::now();
    while !is_kept_here(&ask(proxy, key, profile).await) {
        assert!(began.elapsed() < Duration::from_secs(20), "never: {}", proxy.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_one_server_was_throttled_for_is_sent_by_no_other_within_two_seconds() {
    let (amazon, Some(database)) = (amazon().await, database()) else { return };
    let callers = ["t1", "t2"].map(|name| TestCaller::new(name, &format!("tenant = \"{name}\"")));
    let account = |tenant| {
        let token = "refresh_token = { env = \"ACME_REFRESH\" }";
        format!("[accounts.\"{tenant}~acme\"]\nregion = \"na\"\n{token}\n")
    };
    let toml = [ENFORCE, &account("t1"), &account("t2"), &callers[0].toml, &callers[1].toml];
    let [one, two] = [(); 2].map(|()| server(&amazon, &toml.concat(), &database));
    let [first, other] = callers.each_ref().map(|caller| Some(caller.key.as_str()));
    assert_eq!(ask(&two, first, "123").await.status, 200);

    let load = Load::measure();
    throttle(&amazon, &one, first, "123", 600).await;
    let (took, slack) = (until_kept_here(&two, first, "123").await, load.slack());
    assert!(took < NEWS + slack, "{took:?}, and the machine was late by {slack:?}");
    let answer = ask(&two, first, "123").await;
    let after = answer.headers["retry-after"].to_str().expect("ASCII").parse::<u64>();
    assert!((580..=752).contains(&after.expect("whole seconds")), "{:?}", answer.headers);

    // Of the same application and profile, and not the tenant's.
    assert_eq!(ask(&two, other, "123").await.status, 200);
    assert_eq!(ask(&two, None, "123").await.status, 200);
    assert_eq!(ask(&two, first, "124").await.status, 200, "another profile");
    let listed = two.ask_admin("/api/v1/throttling");
    assert!(listed.contains("t1~acme") && !listed.contains("t2~acme"), "{listed}");
    // One that starts knows it, too.
    let two = two.restart();
    until_kept_here(&two, first, "123").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_has_learned_ends_by_itself() {
    let (amazon, Some(database)) = (amazon().await, database()) else { return };
    let [one, two] = [(); 2].map(|()| server(&amazon, ENFORCE, &database));
    throttle(&amazon, &one, None, "123", 6).await;
    until_kept_here(&two, None, "123").await;
    let began = Instant::now();
    while is_kept_here(&ask(&two, None, "123").await) {
        assert!(began.elapsed() < Duration::from_secs(20), "never");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(ask(&two, None, "123").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_with_stores_apart_or_without_enforce_learn_nothing() {
    let amazon = amazon().await;
    let (Some(here), Some(there)) = (database(), database()) else { return };
    let one = server(&amazon, ENFORCE, &here);
    let beside = server(&amazon, ENFORCE, &here);
    let apart = server(&amazon, ENFORCE, &there);
    let lax = server(&amazon, "", &here);
    throttle(&amazon, &one, None, "123", 600).await;
    // By then the others would know it, too.
    until_kept_here(&beside, None, "123").await;
    for _ in 0..10 {
        assert_eq!(ask(&apart, None, "123").await.status, 200);
        assert_eq!(ask(&lax, None, "123").await.status, 200);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(!lax.ask_admin("/api/v1/throttling").contains("\"123\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_each_server_goes_by_itself_until_it_is_back() {
    let (amazon, Some(mut cluster)) = (amazon().await, Cluster::start()) else { return };
    let database = (cluster.url(), "adsproxy".to_owned());
    let [one, two] = [(); 2].map(|()| server(&amazon, ENFORCE, &database));
    for server in [&one, &two] {
        assert_eq!(ask(server, None, "123").await.status, 200);
    }
    cluster.stop();
    throttle(&amazon, &one, None, "123", 600).await;
    assert!(is_kept_here(&ask(&one, None, "123").await), "{}", one.log());
    eventually("it is logged", || one.log().contains("cannot share what Amazon throttles")).await;
    assert_eq!(ask(&two, None, "123").await.status, 200);
    cluster.run();
    until_kept_here(&two, None, "123").await;
}
