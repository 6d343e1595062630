//! Accounts are added, replaced and removed, and the store has its moods, while the server runs.

use crate::support::{
    grants::{connect_anew, open_store},
    proxy::{
        ACME_REFRESH, Answer, GLOBEX_REFRESH, Proxy, Setup, amazon, assert_no_secret, eventually,
    },
};
use adsproxy::{
    sandbox::{CLIENT_ID, CLIENT_SECRET, LwaFault, RefreshRotation, Times},
    testing::{AccountId, Credential, Epoch, Expected, Item, Lease, Limit, Secret, Space},
};
use http::Method;
use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// In which a running server uses what the command line wrote.
const SOON: Duration = Duration::from_secs(3);
const SECOND_SECRET: &str = "secret-of-the-second-application";

#[tokio::test(flavor = "multi_thread")]
async fn another_grant_another_region_and_another_application_are_used_soon() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.add_application("second-client", &[SECOND_SECRET]);
    lwa.add_grant("one", CLIENT_ID, "Atzr|one", vec![]);
    lwa.add_grant("two", CLIENT_ID, "Atzr|two", vec![]);
    lwa.add_grant("three", "second-client", "Atzr|three", vec![]);
    let toml = format!(
        "[applications.second]\nclient_id = \"second-client\"\n\
         client_secret = {{ env = \"SECOND_SECRET\" }}\n\
         token_url = \"http://{}/auth/o2/token\"\n",
        amazon.addr()
    );
    let env = vec![("SECOND_SECRET".to_owned(), SECOND_SECRET.to_owned())];
    let proxy = Proxy::with(&amazon, Setup { toml, env, ..file_store() });

    assert_eq!(ask(&proxy).await.status, 404, "it is not added yet");
    adsproxy(&proxy, &["account", "add", "shop", "--region", "na"], "Atzr|one");
    served_soon(&proxy, "one").await;
    adsproxy(&proxy, &["account", "add", "shop", "--replace", "--region", "eu"], "Atzr|two");
    served_soon(&proxy, "two").await;
    let status = proxy.ask_admin("/status");
    let shop = status.split_once("\"shop\"").expect("an account").1;
    assert!(shop.contains("\"eu\"") && !shop.contains("\"na\""), "{status}");
    let second = ["account", "add", "shop", "--replace", "--application", "second"];
    adsproxy(&proxy, &second, "Atzr|three");
    // Also when no look at the store comes between the command and the refresh.
    lwa.expire_access_tokens(Some("two"));
    served_soon(&proxy, "three").await;
    assert_eq!(proxy.restart_and_ask().await, "three");
}

/// Its access token is there before the server has looked, and says nothing of a person.
#[tokio::test(flavor = "multi_thread")]
async fn another_grant_that_was_refreshed_before_the_server_looked_is_used_soon() {
    let amazon = amazon().await;
    amazon.state().lwa.add_grant("one", CLIENT_ID, "Atzr|one", vec![]);
    amazon.state().lwa.add_grant("two", CLIENT_ID, "Atzr|two", vec![]);
    let proxy = Proxy::with(&amazon, file_store());
    let one = ["account", "add", "shop", "--region", "na", "--consented-at", "2026-10-01"];
    adsproxy(&proxy, &one, "Atzr|one");
    served_soon(&proxy, "one").await;
    // A server that is stopped while it writes an entry would keep the lock of the audit log.
    let is_recorded = async || {
        let entries = adsproxy(&proxy, &["audit", "tail", "--account", "shop", "--json"], "");
        entries.lines().any(|entry| entry.contains("\"token.refresh\"") && entry.contains("\"ok\""))
    };
    soon("the refresh is recorded", is_recorded).await;
    proxy.signal("STOP");
    // As another server does it: this one cannot be asked now.
    let socket = proxy.dir.path().join("store/control.sock");
    std::fs::rename(&socket, socket.with_extension("aside")).expect("renamed");
    let two = ["account", "add", "shop", "--replace", "--consented-at", "2026-11-01"];
    adsproxy(&proxy, &two, "Atzr|two");
    adsproxy(&proxy, &["token", "shop", "--check"], "");
    let shop = "shop".parse().expect("an alias");
    let stored = open_store(&proxy).load(&shop).await.expect("it reads").expect("a record");
    assert!(stored.access_token.is_some(), "it was refreshed");
    proxy.signal("CONT");
    served_soon(&proxy, "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_with_two_configured_refresh_tokens_do_not_undo_each_other() {
    let amazon = amazon().await;
    amazon.state().lwa.add_grant("later", CLIENT_ID, "Atzr|later", vec![]);
    let mut first = Proxy::with(&amazon, file_store());
    assert_eq!(first.get("/v2/profiles").await.status, 200);
    first.set_env("ACME_REFRESH", "Atzr|later");
    let second = Proxy::twin(&first);
    assert_eq!(served_as(&second.get("/_echo").await), "later");
    soon("both use it", async || served_as(&first.get("/_echo").await) == "later").await;
    let started = Instant::now();
    while started.elapsed() < SOON + SOON {
        assert_eq!(record(&first).await.refresh_token.expose(), "Atzr|later");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_refresh_token_that_is_a_mistake_costs_no_grant() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, file_store());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    proxy.set_env("ACME_REFRESH", "Atzr|a-typo");
    let proxy = proxy.restart();
    let answer = proxy.get("/_echo").await;
    assert_eq!((answer.status.as_u16(), served_as(&answer).as_str()), (200, "acme"));
    // One that is none is used in its place.
    amazon.state().lwa.add_grant("later", CLIENT_ID, "Atzr|later", vec![]);
    let mut proxy = proxy;
    proxy.set_env("ACME_REFRESH", "Atzr|later");
    assert_eq!(served_as(&proxy.restart().get("/_echo").await), "later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_account_is_gone_soon_and_served_again_once_added() {
    let amazon = amazon().await;
    amazon.state().lwa.add_grant("one", CLIENT_ID, "Atzr|one", vec![]);
    amazon.state().lwa.add_grant("two", CLIENT_ID, "Atzr|two", vec![]);
    let proxy = Proxy::with(&amazon, file_store());
    adsproxy(&proxy, &["account", "add", "shop", "--region", "na"], "Atzr|one");
    served_soon(&proxy, "one").await;
    adsproxy(&proxy, &["account", "remove", "shop", "--yes"], "");
    soon("it is gone", async || ask(&proxy).await.status == 404).await;
    adsproxy(&proxy, &["account", "add", "shop", "--region", "na"], "Atzr|two");
    served_soon(&proxy, "two").await;
    // And when it is back before the server has looked.
    adsproxy(&proxy, &["account", "remove", "shop", "--yes"], "");
    adsproxy(&proxy, &["account", "add", "shop", "--region", "na"], "Atzr|one");
    served_soon(&proxy, "one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_refresh_token_again_revives_a_grant_wrongly_called_dead() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.add_grant("one", CLIENT_ID, "Atzr|one", vec![]);
    let proxy = Proxy::with(&amazon, file_store());
    lwa.faults.add(LwaFault::InvalidGrant, Times::Forever);
    adsproxy(&proxy, &["account", "add", "shop", "--region", "na"], "Atzr|one");
    let dead = async || ask(&proxy).await.error() == Some("reauthorization_required");
    soon("LWA calls it dead", dead).await;
    lwa.faults.clear();
    let calls = amazon.state().record.counts().token_calls;
    tokio::time::sleep(SOON).await;
    assert!(dead().await, "nothing has changed");
    assert_eq!(amazon.state().record.counts().token_calls, calls, "and LWA is not asked");
    adsproxy(&proxy, &["account", "add", "shop", "--replace"], "Atzr|one");
    served_soon(&proxy, "one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_record_costs_no_rotating_grant() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let toml = "[token]\nforced_refresh_min_interval_secs = 0\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..file_store() });
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let before = record(&proxy).await;
    let obstacle = obstruct(&proxy);
    for refresh in 0..4 {
        lwa.expire_access_tokens(Some("acme"));
        let answer = proxy.get("/v2/profiles").await;
        assert_eq!(answer.status, 200, "refresh {refresh}: {}", answer.text());
    }
    assert_eq!(record(&proxy).await, before, "nothing can be saved");
    fs::remove_dir(obstacle).expect("removed");
    let newest = lwa.grant("acme").expect("a grant").current().to_owned();
    soon("it is saved", async || record(&proxy).await.refresh_token.expose() == newest).await;
    lwa.expire_access_tokens(Some("acme"));
    let proxy = proxy.restart();
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_not_saved_never_undoes_a_new_consent() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let proxy = Proxy::with(&amazon, file_store());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let obstacle = obstruct(&proxy);
    lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let consent = lwa.consent_again("acme").expect("a grant");
    connect_anew(&proxy, |record| {
        fs::remove_dir(obstacle).expect("removed");
        record.refresh_token = Secret::new(consent.clone());
        record.previous_refresh_token = None;
    })
    .await;
    tokio::time::sleep(SOON).await;
    assert_eq!(record(&proxy).await.refresh_token.expose(), consent);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_held_at_the_start_delays_one_account_only_and_for_a_while() {
    let amazon = amazon().await;
    let toml = "[token]\nwait_timeout_secs = 1\n".to_owned();
    let mut proxy = Proxy::with(&amazon, Setup { toml, ..file_store() });
    proxy.kill();
    let lease = lease(&proxy, "acme").await;
    let started = Instant::now();
    let proxy = proxy.restart();
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    let globex = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "globex");
    assert_eq!(proxy.send(globex).await.status, 200);
    for _ in 0..3 {
        let answer = proxy.get("/v2/profiles").await;
        assert_eq!((answer.status.as_u16(), answer.error()), (503, Some("token_unavailable")));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(lease);
    soon("it is refreshed", async || proxy.get("/v2/profiles").await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_waits_for_its_lease_takes_no_place_from_others() {
    let amazon = amazon().await;
    let toml = "[token]\nlwa_concurrency = 1\nwait_timeout_secs = 3\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..file_store() });
    let _lease = lease(&proxy, "acme").await;
    let globex = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let request = proxy.request(Method::GET, "/v2/profiles");
        proxy.send(request.header("X-Ads-Account", "globex")).await
    };
    let (acme, globex) = tokio::join!(proxy.get("/v2/profiles"), globex);
    assert_eq!(acme.error(), Some("token_unavailable"));
    assert_eq!(globex.status, 200, "{}", globex.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_a_tenant_is_another_one_than_that_of_its_alias() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, file_store());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let (store, acme) = (open_store(&proxy), record(&proxy).await);
    let account: AccountId = "t1~acme".parse().expect("an id");
    let theirs =
        Credential { account: account.clone(), epoch: Epoch::random(), seed: None, ..acme.clone() };
    store.put_grant(&theirs, Expected::Absent).await.expect("kept");
    assert_eq!(store.load(&account).await.expect("it reads"), Some(theirs));
    eventually("it is known", || proxy.ask_admin("/status").contains("\"t1~acme\"")).await;
    for label in ["account=\"acme\"", "account=\"t1~acme\""] {
        assert!(proxy.ask_admin("/metrics").contains(label), "{label}");
    }
    let (links, limit) = (store.entries(Space::Ticket), Limit { max: 9, now_ms: 0 });
    let expires_at_ms = Some(4_000_000_000_000);
    let link = Item { account: Some(account.clone()), expires_at_ms, text: "a link".into() };
    links.put("link", &link, limit).await.expect("kept");
    store.delete_entries_of(&acme.account).await.expect("deleted");
    assert_eq!(links.get("link").await.expect("read"), Some(link));
    // A caller of no tenant says the whole id.
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "t1~acme");
    assert_eq!(proxy.send(request).await.status, 200);
    store.remove_grant(&account, Expected::Any).await.expect("removed");
    eventually("its end is logged", || proxy.log().contains("\"account\":\"t1~acme\"")).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(record(&proxy).await.epoch, acme.epoch);
}

impl Proxy {
    /// Whose grant is used after a restart.
    async fn restart_and_ask(self) -> String {
        let proxy = self.restart();
        served_as(&ask(&proxy).await)
    }
}

/// `GET` for `shop`, answered with whose token it was.
async fn ask(proxy: &Proxy) -> Answer {
    proxy.send(proxy.request(Method::GET, "/_echo").header("X-Ads-Account", "shop")).await
}

fn served_as(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["account"].as_str().expect("an account").to_owned()
}

async fn served_soon(proxy: &Proxy, account: &str) {
    let what = format!("it is served as {account}");
    soon(&what, async || {
        let answer = ask(proxy).await;
        answer.status == 200 && served_as(&answer) == account
    })
    .await;
}

/// Polls until `condition` holds, which must be within some seconds.
async fn soon(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < SOON * 2, "not soon: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs the command line beside the server, on its configuration.
fn adsproxy(proxy: &Proxy, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adsproxy"))
        .arg("--config")
        .arg(proxy.dir.path().join("proxy.toml"))
        .args(arguments)
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("SECOND_SECRET", SECOND_SECRET)
        .env("ACME_REFRESH", ACME_REFRESH)
        .env("GLOBEX_REFRESH", GLOBEX_REFRESH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = child.stdin.take().expect("piped");
    // A command that reads nothing may have ended already.
    let _ = writeln!(stdin, "{input}");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert_no_secret("the output", &said);
    let said = String::from_utf8(said).expect("UTF-8");
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// Keeps the record of `acme` from being saved, until the directory is removed.
fn obstruct(proxy: &Proxy) -> PathBuf {
    let obstacle = proxy.dir.path().join("store/accounts/.acme.tmp");
    fs::create_dir(&obstacle).expect("made");
    obstacle
}

async fn record(proxy: &Proxy) -> Credential {
    let acme = "acme".parse().expect("an alias");
    open_store(proxy).load(&acme).await.expect("it reads").expect("a record")
}

/// Keeps every other process from refreshing the account.
async fn lease(proxy: &Proxy, alias: &str) -> Lease {
    let (account, minute) = (alias.parse().expect("an alias"), Duration::from_secs(60));
    open_store(proxy).lease_grant(&account, minute, minute).await.expect("a lease")
}

fn file_store() -> Setup {
    Setup { file_store: true, ..Setup::default() }
}
