//! What all accounts share is shared out: no tenant can hold all of it, whatever its application or
//! its callers do.

use crate::support::proxy::{Proxy, Setup, amazon, eventually, write_private};
use adsproxy::{
    Engine,
    sandbox::{ACCOUNTS, CLIENT_ID, CLIENT_SECRET},
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
