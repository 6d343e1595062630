//! What is tried before a person is asked: the refresh token before a dead one, and every client
//! secret that is configured.

use crate::support::{
    crowd::{Crowd, all_served},
    grants::open_store,
    proxy::{ACME_REFRESH, Proxy, Setup, amazon, eventually},
};
use adsproxy::{
    sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator},
    testing::{Credential, Expected, Secret},
};
use std::time::Duration;

const DEAD: &str = "Atzr|a-refresh-token-that-amazon-has-forgotten";
const NEW_SECRET: &str = "the-client-secret-of-next-year";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_refresh_token_falls_back_to_the_previous_one_and_stays_there() {
    let amazon = amazon().await;
    let proxy = with_tokens(&amazon, DEAD, Some(ACME_REFRESH)).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(calls(&amazon), 2, "the dead one, then the one before");
    assert_eq!(load(&proxy).await.refresh_token, Secret::from(ACME_REFRESH));
    let proxy = proxy.restart();
    amazon.state().lwa.expire_access_tokens(None);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(calls(&amazon), 3, "the dead one is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_dead_refresh_tokens_are_asked_about_once_each() {
    let amazon = amazon().await;
    let before = format!("{DEAD}-and-before");
    let proxy = with_tokens(&amazon, DEAD, Some(&before)).await;
    for _ in 0..10 {
        let answer = proxy.get("/v2/profiles").await;
        assert_eq!(answer.error(), Some("reauthorization_required"));
    }
    assert_eq!(calls(&amazon), 2);
    let record = load(&proxy).await;
    let kept = (record.refresh_token, record.previous_refresh_token);
    assert_eq!(kept, (Secret::from(DEAD), Some(Secret::from(before.as_str()))), "for a person");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_refresh_token_without_a_previous_one_is_asked_about_once() {
    let amazon = amazon().await;
    let proxy = with_tokens(&amazon, DEAD, None).await;
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!(answer.error(), Some("reauthorization_required"));
    assert_eq!(calls(&amazon), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_moves_to_another_secret_without_a_failed_request() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    let toml = format!(
        "[applications.moving]\nclient_id = \"{CLIENT_ID}\"\n\
         client_secret = [{{ env = \"CLIENT_SECRET\" }}, {{ env = \"NEW_SECRET\" }}]\n\
         token_url = \"http://{}/auth/o2/token\"\n\
         [accounts.mover]\nregion = \"na\"\napplication = \"moving\"\n\
         refresh_token = {{ env = \"ACME_REFRESH\" }}\n\
         [token]\nforced_refresh_min_interval_secs = 0",
        amazon.addr()
    );
    let env = vec![("NEW_SECRET".to_owned(), NEW_SECRET.to_owned())];
    let proxy = Proxy::with(&amazon, Setup { toml, env, ..Setup::default() });
    // What Amazon accepts, in the order of a move and back.
    for accepted in [
        &[CLIENT_SECRET][..],
        &[CLIENT_SECRET, NEW_SECRET],
        &[NEW_SECRET],
        &[CLIENT_SECRET, NEW_SECRET],
        &[CLIENT_SECRET],
    ] {
        lwa.add_application(CLIENT_ID, accepted);
        for _ in 0..3 {
            lwa.expire_access_tokens(None);
            let asked = (0..10).map(|_| {
                let request = proxy.request(http::Method::GET, "/v2/profiles");
                proxy.send(request.header("X-Ads-Account", "mover"))
            });
            for answer in asked {
                assert_eq!(answer.await.status, 200, "{}", accepted.len());
            }
        }
    }
    // Fifteen refreshes, and one refused secret at each of two changes.
    assert_eq!(calls(&amazon), 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_a_fallback_costs_no_more_calls() {
    let amazon = amazon().await;
    let proxy = with_tokens(&amazon, DEAD, Some(ACME_REFRESH)).await;
    let crowd = Crowd::gather(proxy.addr, 100).await;
    assert_eq!(crowd.answers().await, all_served(100));
    assert_eq!(calls(&amazon), 2);
}

/// A proxy whose record of `acme` holds these refresh tokens and no access token.
async fn with_tokens(amazon: &Emulator, current: &str, previous: Option<&str>) -> Proxy {
    let toml = "[token]\nforced_refresh_min_interval_secs = 0";
    let setup = Setup { toml: toml.into(), file_store: true, ..Setup::default() };
    let mut proxy = Proxy::with(amazon, setup);
    eventually("it has begun", || proxy.ask_admin("/startupz").contains(" 200 ")).await;
    proxy.kill();
    let store = open_store(&proxy);
    let record = Credential {
        refresh_token: current.into(),
        previous_refresh_token: previous.map(Secret::from),
        ..load(&proxy).await
    };
    store.put_grant(&record, Expected::Any).await.expect("saved");
    proxy.restart()
}

async fn load(proxy: &Proxy) -> Credential {
    let acme = "acme".parse().expect("an alias");
    // Another process may just be saving it.
    let patience = Duration::from_secs(10);
    let _lease = open_store(proxy).lease_grant(&acme, patience, patience).await;
    open_store(proxy).load(&acme).await.expect("it reads").expect("a record")
}

fn calls(amazon: &Emulator) -> u64 {
    amazon.state().record.counts().token_calls
}
