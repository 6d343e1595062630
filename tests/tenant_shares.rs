//! What all accounts share is shared out: no tenant can hold all of it, whatever its application or
//! its callers do.

use crate::support::{
    callers::TestCaller,
    proxy::{Proxy, Setup, amazon, eventually, upstream, write_private},
};
use adsproxy::{
    Engine,
    sandbox::{ACCOUNTS, CLIENT_ID, CLIENT_SECRET, Emulator},
    testing::{
        AccountId,
        load::{self, Options},
    },
};
use http::Method;
use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// More than there are places for calls to LWA (`token.lwa_concurrency`).
const ACCOUNTS_OF_ONE: usize = 40;
const WAITING: usize = 10_000;
/// Less than a call to LWA that hangs takes (`token.lwa_timeout_secs`).
const SOON: Duration = Duration::from_secs(8);

fn id(text: &str) -> AccountId {
    text.parse().expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_application_hangs_delays_no_refresh_of_others() {
    let amazon = amazon().await;
    // Takes connections, and never says a word.
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    hung.set_nonblocking(true).expect("an option");
    let directory = tempfile::tempdir().expect("a directory");
    let secret = |name: &str, text: &str| {
        let path = directory.path().join(name);
        write_private(&path, text);
        format!("{{ file = {path:?} }}")
    };
    let (client, grant) = (secret("client", CLIENT_SECRET), secret("grant", ACCOUNTS[0].1));
    let mut toml = format!(
        "[lwa]\nclient_id = {CLIENT_ID:?}\nclient_secret = {client}\n\
         token_url = \"http://{}/auth/o2/token\"\n\
         [applications.hung]\nclient_id = \"amzn1.hung\"\nclient_secret = {client}\n\
         token_url = \"http://{}/\"\nfallback_token_urls = []\n\
         [store]\nkind = \"memory\"\n",
        amazon.addr(),
        hung.local_addr().expect("bound"),
    );
    let hanging: Vec<_> = (0..ACCOUNTS_OF_ONE).map(|number| id(&format!("t1~a{number}"))).collect();
    let others = ["t2~acme", "acme"].map(id);
    let all = hanging.iter().map(|id| (id, "hung")).chain(others.iter().map(|id| (id, "default")));
    for (id, application) in all {
        write!(
            toml,
            "[accounts.\"{id}\"]\nregion = \"na\"\napplication = \"{application}\"\n\
             refresh_token = {grant}\n"
        )
        .expect("memory");
    }
    let path = directory.path().join("proxy.toml");
    fs::write(&path, toml).expect("written");
    let options = Options { path: Some(path), ..Options::default() };
    let config = load::load(&options).expect("a configuration").config;
    let engine = Engine::embed(config).expect("an engine");
    engine.enroll().await.expect("a store");

    let mut waiting = JoinSet::new();
    for number in 0..WAITING {
        let (tokens, id) = (engine.tokens().clone(), hanging[number % hanging.len()].clone());
        waiting.spawn(async move { tokens.token(&id).await });
    }
    let refreshing = || {
        let states = hanging.iter().filter_map(|id| engine.tokens().status(id));
        states.filter(|view| format!("{:?}", view.state) == "Refreshing").count()
    };
    eventually("all of them are refreshed", || refreshing() == ACCOUNTS_OF_ONE).await;
    let mut calls = Vec::new();
    eventually("it has as many calls under way as it may", || {
        calls.extend(hung.accept());
        calls.len() == 8
    })
    .await;
    for other in &others {
        let began = Instant::now();
        engine.token(other).await.expect("a token");
        assert!(began.elapsed() < SOON, "{other} waited {:?}", began.elapsed());
    }
    assert!(hung.accept().is_err(), "and no more than that");
    assert_eq!(refreshing(), ACCOUNTS_OF_ONE, "they still hang");
    assert!(waiting.try_join_next().is_none(), "and their callers wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_holds_half_of_the_requests_in_flight() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\ndefault_account = \"t1~acme\"\n\
                [limits]\nin_flight_max = 8\n\
                [accounts.\"t1~acme\"]\nregion = \"na\"\nrefresh_token = { env = \"ACME_REFRESH\" }\n";
    let proxy = Proxy::with(&amazon, Setup { toml: toml.to_owned(), ..Setup::default() });
    let of_tenant = || proxy.request(Method::GET, "/v2/profiles");
    let of_nobody = || proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "globex");
    assert_eq!(proxy.send(of_nobody()).await.status, 200);
    assert_eq!(proxy.send(of_tenant()).await.status, 200);

    amazon.state().api.gate.hold();
    let mut held = JoinSet::new();
    (0..4).for_each(|_| drop(held.spawn(of_tenant().send())));
    amazon.state().api.gate.until_waiting(4).await;
    let answer = proxy.send(of_tenant()).await;
    assert_eq!(answer.error(), Some("overloaded"), "{}", answer.text());
    assert!(answer.headers.contains_key("retry-after"));
    (0..3).for_each(|_| drop(held.spawn(of_nobody().send())));
    amazon.state().api.gate.until_waiting(7).await;

    amazon.state().api.gate.release();
    while let Some(answer) = held.join_next().await {
        assert_eq!(answer.expect("no panic").expect("an answer").status(), 200);
    }
    for _ in 0..8 {
        assert_eq!(proxy.send(of_tenant()).await.status, 200, "the places came back");
    }
}

/// An event stream that begins, and does not end.
const STREAM: &str = "/_sse?events=2&interval_ms=3600000";
const WAITED: &str = r#"adsproxy_limit_hits_total{limit="upstream_connections"}"#;

/// A proxy with one worker that has four connections to Amazon, and an account of each of two tenants.
fn with_four_connections(amazon: &Emulator, more: &str) -> Proxy {
    let keys = "connections_max = 4\nresponse_header_timeout_secs = 5\n";
    let mut toml = format!("[proxy]\nworkers = 1\n{more}");
    toml.push_str(&upstream(&format!("http://{}", amazon.addr()), keys));
    for id in ["t1~acme", "t2~acme"] {
        write!(toml, "[accounts.\"{id}\"]\nregion = \"na\"\n").expect("memory");
        toml.push_str("refresh_token = { env = \"ACME_REFRESH\" }\n");
    }
    Proxy::with(amazon, Setup { toml, ..Setup::default() })
}

/// A request for what does not end.
fn stream(proxy: &Proxy, account: &str) -> reqwest::RequestBuilder {
    proxy.request(Method::GET, STREAM).header("X-Ads-Account", account)
}

/// Opens `count` streams; they go on until they are dropped.
async fn open(
    count: usize,
    stream: impl Fn() -> reqwest::RequestBuilder,
) -> Vec<reqwest::Response> {
    let mut open = Vec::new();
    for _ in 0..count {
        let response = stream().send().await.expect("a response");
        assert_eq!(response.status(), 200);
        open.push(response);
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_streams_do_not_end_leaves_half_of_the_connections_to_others() {
    let amazon = amazon().await;
    let proxy = with_four_connections(&amazon, "");
    let of_tenant = || stream(&proxy, "t1~acme");
    let mut held = open(2, of_tenant).await;
    let mut waiting = JoinSet::new();
    (0..3).for_each(|_| drop(waiting.spawn(of_tenant().send())));
    eventually("more of it waits", || proxy.metric(WAITED) == 3.0).await;

    let of_others = open(2, || stream(&proxy, "t2~acme")).await;
    drop(of_others);
    for _ in 0..8 {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "t2~acme");
        assert_eq!(proxy.send(request).await.status, 200);
    }
    assert!(waiting.try_join_next().is_none(), "what others leave is not its own");
    assert_eq!(proxy.metric(WAITED), 3.0, "and no other waited");

    held.pop();
    let next = waiting.join_next().await.expect("one waits").expect("no panic");
    assert_eq!(next.expect("a response").status(), 200, "its own that ends is its next one's");
    waiting.shutdown().await;
    drop(held);
    eventually("all are over", || proxy.metric("adsproxy_in_flight_requests") == 0.0).await;
    let _again = (open(2, of_tenant).await, open(2, || stream(&proxy, "t2~acme")).await);
    assert_eq!(proxy.metric(WAITED), 3.0, "each has its half again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_tenant_has_half_of_the_connections_too() {
    let amazon = amazon().await;
    let callers = ["reports", "agents"].map(|name| TestCaller::new(name, ""));
    let proxy = with_four_connections(&amazon, &(callers[0].toml.clone() + &callers[1].toml));
    let [of_one, of_other] =
        callers.each_ref().map(|caller| || stream(&proxy, "acme").header("X-Ads-Key", &caller.key));
    let _held = open(2, of_one).await;
    let mut waiting = JoinSet::new();
    waiting.spawn(of_one().send());
    eventually("its next one waits", || proxy.metric(WAITED) == 1.0).await;
    let _of_other = open(2, of_other).await;
    let answer = waiting.join_next().await.expect("it waits").expect("no panic");
    let answer = answer.expect("a response");
    assert_eq!(answer.headers()["x-ads-proxy-error"], "overloaded");
    assert!(answer.text().await.expect("a text").contains("upstream.connections_max"));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_no_tenant_have_all_connections_where_no_caller_is_known() {
    let amazon = amazon().await;
    let proxy = with_four_connections(&amazon, "");
    let _held = open(4, || stream(&proxy, "acme")).await;
    assert_eq!(proxy.metric(WAITED), 0.0);
}
