//! What happens between a login and its end: others connect the account, time passes, the server
//! is stopped.

use crate::support::{
    login::{
        INITECH, INITECH_PROFILE, Reply, answer, ask, ask_with, at_amazon, begin, come_back,
        consent, exchanges, log_in, proxy,
    },
    proxy::{ACME_PROFILE, GLOBEX_REFRESH, Proxy, Setup, amazon, eventually},
};
use adsproxy::{
    sandbox::{ApiFault, Emulator, LwaFault, Times},
    testing::{Credential, Expected, Secret, Space, Store},
};
use http::Method;
use serde_json::Value;
use std::time::Duration;

const GLOBEX_PROFILE: i64 = adsproxy::sandbox::ACCOUNTS[1].2;

fn file_store() -> Setup {
    Setup { file_store: true, ..Setup::default() }
}

/// Connects `account` as a person who said beforehand that anything may be replaced.
async fn replace(proxy: &Proxy, account: &str, user: &str) {
    let begun = link(proxy, &format!(r#"{{"account":"{account}","replace":"true"}}"#)).await;
    let sent = open(proxy, &begun).await;
    let back = at_amazon(sent.location(), &format!("account={user}")).await;
    let done = come_back(proxy.admin, &back, &sent.cookie()).await;
    assert_eq!(done.json()["state"], "connected", "{}", done.text);
}

/// A link as the command makes it: where it leads to, and how to ask for the outcome.
async fn link(proxy: &Proxy, wish: &str) -> Value {
    let fields = [("content-type", "application/json")];
    let path = "/api/auth/amazon/logins";
    let reply = ask_with(proxy.admin, Method::POST, path, &fields, wish.to_owned()).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.json()
}

async fn open(proxy: &Proxy, begun: &Value) -> Reply {
    let url: http::Uri = begun["url"].as_str().expect("a link").parse().expect("an address");
    let path = url.path_and_query().expect("a path").as_str();
    let sent = ask(proxy.admin, Method::GET, path, &[("accept", "text/html")]).await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    sent
}

async fn sees(proxy: &Proxy, account: &str) -> i64 {
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
    proxy.send(request).await.json()[0]["profileId"].as_i64().unwrap_or(0)
}

fn code(reply: &Reply) -> (u16, String) {
    (reply.status.as_u16(), reply.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_counts_only_for_what_it_was_asked_about() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let question = log_in(proxy.admin, "acme", INITECH).await;
    assert_eq!(question.json()["before"]["na"][0]["id"], ACME_PROFILE, "{}", question.text);
    replace(&proxy, "acme", "globex").await;
    let late = answer(proxy.admin, &question, "yes").await;
    assert_eq!(code(&late), (409, "account_changed".to_owned()), "{}", late.text);
    assert_eq!(sees(&proxy, "acme").await, GLOBEX_PROFILE, "the one that came later stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_counts_also_when_the_same_user_was_faster_elsewhere() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let question = log_in(proxy.admin, "acme", INITECH).await;
    replace(&proxy, "acme", INITECH).await;
    let done = answer(proxy.admin, &question, "yes").await;
    assert_eq!(done.json()["state"], "connected", "{}", done.text);
    assert_eq!(sees(&proxy, "acme").await, INITECH_PROFILE);
}

/// Two people connect `new` as `users`, and neither grant is in place when both are compared.
async fn at_once(amazon: &Emulator, proxy: &Proxy, users: [&str; 2]) -> Vec<Value> {
    let (one, two) = (begin(proxy.admin, "new").await, begin(proxy.admin, "new").await);
    let paths = [consent(&one, users[0]).await, consent(&two, users[1]).await];
    let slow = ApiFault::Slow(Duration::from_millis(700));
    amazon.state().api.faults.add(slow, Times::Next(6));
    let (one, two) = tokio::join!(
        come_back(proxy.admin, &paths[0], &one.cookie),
        come_back(proxy.admin, &paths[1], &two.cookie)
    );
    vec![one.json(), two.json()]
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_users_that_connect_one_account_at_once_the_second_is_asked() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let ends = at_once(&amazon, &proxy, [INITECH, "globex"]).await;
    let mut states: Vec<_> = ends.iter().map(|end| end["state"].as_str().unwrap_or("-")).collect();
    states.sort_unstable();
    assert_eq!(states, ["connected", "question"], "{ends:?}");
    let question = ends.iter().find(|end| end["state"] == "question").expect("a question");
    let there = sees(&proxy, "new").await;
    let region = if there == GLOBEX_PROFILE { "eu" } else { "fe" };
    let asked = &question["before"];
    assert!(asked.to_string().contains(&there.to_string()), "{region}: {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_in_two_tabs_at_once_is_not_asked() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let ends = at_once(&amazon, &proxy, [INITECH, INITECH]).await;
    assert!(ends.iter().all(|end| end["state"] == "connected"), "{ends:?}");
}

/// The profiles that were told at a login belong to that grant, not to the alias.
#[tokio::test(flavor = "multi_thread")]
async fn profiles_of_an_earlier_grant_do_not_speak_for_a_later_one() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    assert_eq!(log_in(proxy.admin, "shop", INITECH).await.json()["state"], "connected");
    let (store, shop) = (open_store(&proxy), "shop".parse().expect("an alias"));
    let record = store.load(&shop).await.expect("read").expect("a record");
    // As an import with --replace does.
    let refresh_token = Secret::from(GLOBEX_REFRESH);
    let later = Credential { refresh_token, access_token: None, consented_at: None, ..record };
    store.put_grant(&later, Expected::Any).await.expect("saved");
    amazon.state().lwa.revoke("globex");
    let asked = log_in(proxy.admin, "shop", INITECH).await;
    assert_eq!(asked.json()["state"], "question", "{}", asked.text);
    assert!(asked.json()["before"].is_null(), "nobody knows: {}", asked.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_account_takes_its_links_along() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    log_in(proxy.admin, "shop", INITECH).await;
    let begun = link(&proxy, r#"{"account":"shop"}"#).await;
    let store = open_store(&proxy);
    let links = store.entries(Space::Ticket);
    let there = links.get(begun["login"].as_str().expect("a name")).await;
    assert!(there.expect("read").is_some());
    let removed = std::process::Command::new(env!("CARGO_BIN_EXE_adsproxy"))
        .args(["account", "remove", "shop", "--yes", "--config"])
        .arg(proxy.dir.path().join("proxy.toml"))
        .envs(["CLIENT_SECRET", "ACME_REFRESH", "GLOBEX_REFRESH"].map(|name| (name, "x")))
        .status();
    assert!(removed.expect("it runs").success());
    let links = store.entries(Space::Ticket);
    let there = links.get(begun["login"].as_str().expect("a name")).await;
    assert!(there.expect("read").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_account_is_not_replaced_and_its_problem_says_how_to_mend_it() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    log_in(proxy.admin, "shop", INITECH).await;
    let (store, shop) = (open_store(&proxy), "shop".parse().expect("an alias"));
    let record = store.load(&shop).await.expect("read").expect("a record");
    sealed_with(&proxy, "lost", "B").put_grant(&record, Expected::Any).await.expect("saved");
    let path = "/api/auth/amazon/login?account=shop";
    let refused = ask(proxy.admin, Method::GET, path, &[]).await;
    assert_eq!(code(&refused), (503, "store_sealed".to_owned()), "{}", refused.text);
    assert!(refused.text.contains("adsproxy logout"), "{}", refused.text);
    let forgotten = r#"{"account":"shop"}"#.to_owned();
    let fields = [("content-type", "application/json")];
    ask_with(proxy.admin, Method::POST, "/api/auth/amazon/logout", &fields, forgotten).await;
    assert_eq!(log_in(proxy.admin, "shop", INITECH).await.json()["state"], "connected");
}

fn open_store(proxy: &Proxy) -> Store {
    let key = std::fs::read_to_string(proxy.dir.path().join("key")).expect("the key");
    sealed_with(proxy, "k1", &key)
}

/// The proxy's store with the key `id` of 43 characters, or of one that is repeated.
fn sealed_with(proxy: &Proxy, id: &str, key: &str) -> Store {
    use adsproxy::testing::{Encryption, EncryptionKey};
    let key = if key.len() == 1 { key.repeat(42) + "E=" } else { key.to_owned() };
    let keys = vec![EncryptionKey::new(id, Secret::new(key))];
    let directory = proxy.dir.path().join("store");
    let store = adsproxy::testing::StoreConfig {
        kind: adsproxy::testing::StoreKind::File,
        path: directory.to_owned(),
        ..Default::default()
    };
    Store::open(&store, &Encryption { keys }).expect("opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_in_its_time_counts_however_old_the_link_is() {
    let amazon = amazon().await;
    let toml = "[login]\ntimeout_secs = 3\n".to_owned();
    let proxy = proxy(&amazon, Setup { toml, ..file_store() });
    let begun = link(&proxy, r#"{"account":"acme","origin":"terminal"}"#).await;
    let sent = open(&proxy, &begun).await;
    let back = at_amazon(sent.location(), "account=initech").await;
    let question = come_back(proxy.admin, &back, &sent.cookie()).await;
    assert_eq!(question.json()["state"], "question", "{}", question.text);
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let done = answer(proxy.admin, &question, "yes").await;
    assert_eq!(done.json()["state"], "connected", "{}", done.text);
    // A login that nobody went on with is over all the same.
    let begun = link(&proxy, r#"{"account":"acme"}"#).await;
    let sent = open(&proxy, &begun).await;
    let back = at_amazon(sent.location(), "account=initech").await;
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let late = come_back(proxy.admin, &back, &sent.cookie()).await;
    assert_eq!(code(&late), (400, "state_expired".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_amazon_has_answered_is_finished_before_the_server_ends() {
    let amazon = amazon().await;
    let mut proxy = proxy(&amazon, file_store());
    let begun = begin(proxy.admin, INITECH).await;
    let path = consent(&begun, INITECH).await;
    let slow = LwaFault::Slow(Duration::from_secs(2));
    amazon.state().lwa.faults.add(slow, Times::Next(1));
    let (admin, cookie) = (proxy.admin, begun.cookie.clone());
    let coming = tokio::spawn(async move { come_back(admin, &path, &cookie).await });
    eventually("the code is on its way", || exchanges(&amazon) == 1).await;
    proxy.signal("TERM");
    let reply = coming.await.expect("an answer");
    assert_eq!(reply.json()["state"], "connected", "{}", reply.text);
    assert!(proxy.wait().success());
    let proxy = proxy.restart();
    assert_eq!(sees(&proxy, INITECH).await, INITECH_PROFILE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_never_made_to_amazons_own_host() {
    let amazon = amazon().await;
    let lwa = format!(
        "authorize_url = \"http://{}/ap/oa\"\nredirect_uri = \"https://amazon.com\"\n",
        amazon.addr()
    );
    let proxy = Proxy::with(&amazon, Setup { lwa, ..file_store() });
    let fields = [("content-type", "application/json")];
    let (path, body) = ("/api/auth/amazon/logins", r#"{"account":"acme"}"#.to_owned());
    let refused = ask_with(proxy.admin, Method::POST, path, &fields, body).await;
    assert_eq!(code(&refused), (400, "bad_request".to_owned()), "{}", refused.text);
    assert!(refused.text.contains("--paste"), "{}", refused.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_browser_comes_back_by_https_its_cookie_is_secure_and_goes() {
    let amazon = amazon().await;
    let lwa = format!(
        "authorize_url = \"http://{}/ap/oa\"\n\
         redirect_uri = \"https://localhost:1/connected\"\n",
        amazon.addr()
    );
    let setup = crate::support::login::login_setup(&amazon, file_store());
    let proxy = Proxy::with(&amazon, Setup { lwa, ..setup });
    let begun = begin(proxy.admin, INITECH).await;
    let (name, value) = begun.cookie.split_once('=').expect("a cookie");
    let bare = name.strip_prefix("__Secure-").expect("the prefix");
    let path = consent(&begun, INITECH).await;
    assert!(path.starts_with("/connected?"), "{path}");
    // Whoever can set a cookie by http can set this one.
    let refused = come_back(proxy.admin, &path, &format!("{bare}={value}")).await;
    assert_eq!(code(&refused), (403, "other_browser".to_owned()));
    let done = come_back(proxy.admin, &path, &begun.cookie).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let gone = done.headers["set-cookie"].to_str().expect("ASCII");
    for part in [name, "; Path=/;", "; Max-Age=0;", "; Secure"] {
        assert!(gone.contains(part), "{part} in {gone}");
    }
}
