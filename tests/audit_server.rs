//! The audit log of a server: refreshes and the fate of grants are in it, and never held up by it.

use crate::support::{
    canary::Canaries,
    login,
    proxy::{ACME_REFRESH, Proxy, Setup, amazon, eventually},
};
use adsproxy::sandbox::CLIENT_SECRET;
use http::Method;
use serde_json::Value;
use std::{fs, process::Command};

const FAILED: &str = "adsproxy_audit_write_total{outcome=\"failed\"}";
const REQUEST_ID: &str = "x-ads-proxy-request-id";
const EVERY_401_REFRESHES: &str = "[token]\nforced_refresh_min_interval_secs = 0\n";

fn setup() -> Setup {
    Setup { toml: EVERY_401_REFRESHES.into(), file_store: true, ..Setup::default() }
}

fn entries(proxy: &Proxy) -> Vec<Value> {
    let text = fs::read_to_string(proxy.dir.path().join("store/audit.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits until `wanted` of the log's entries are there.
async fn when(proxy: &Proxy, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually("the entries", || wanted(&entries(proxy))).await;
    entries(proxy)
}

fn count(entries: &[Value], action: &str) -> usize {
    entries.iter().filter(|entry| entry["action"] == action).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_changed_in_the_configuration_is_on_record() {
    let amazon = amazon().await;
    amazon.state().lwa.add_grant("later", adsproxy::sandbox::CLIENT_ID, "Atzr|later", vec![]);
    let mut proxy = Proxy::with(&amazon, setup());
    let seeds = |proxy: &Proxy, action: &str| {
        let all = entries(proxy);
        let seeds = all.iter().filter(|entry| entry["account"] == "acme");
        seeds.filter(|one| one["action"] == action && one["about"] == "configuration").count()
    };
    assert_eq!((seeds(&proxy, "account.add"), seeds(&proxy, "account.change")), (1, 0));
    let mut proxy_again = proxy.restart();
    assert_eq!((seeds(&proxy_again, "account.add"), seeds(&proxy_again, "account.change")), (1, 0));
    proxy_again.set_env("ACME_REFRESH", "Atzr|later");
    proxy = proxy_again.restart();
    assert_eq!((seeds(&proxy, "account.add"), seeds(&proxy, "account.change")), (1, 1));
    let changed = entries(&proxy);
    let changed = changed.iter().find(|one| one["action"] == "account.change").expect("one");
    assert_eq!((&changed["actor"], &changed["outcome"]), (&"server".into(), &"ok".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_the_death_of_a_grant_and_the_server_itself_are_on_record() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    let mut proxy = Proxy::with(&amazon, setup());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    lwa.revoke("acme");
    lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.error(), Some("reauthorization_required"));
    let told = when(&proxy, |all| count(all, "grant.reauthorization_required") == 1).await;
    let acme: Vec<&Value> = told.iter().filter(|entry| entry["account"] == "acme").collect();
    assert!(acme.iter().all(|entry| entry["actor"] == "server"));
    let generations: Vec<_> = acme
        .iter()
        .filter(|entry| entry["outcome"] == "ok")
        .filter_map(|entry| entry["generation"].as_u64())
        .collect();
    assert_eq!(generations, [1, 2]);
    let dead = acme.last().expect("an entry");
    assert!(acme.iter().any(|entry| entry["reason"] == "invalid_grant"), "{dead}");
    assert_eq!(count(&told, "server.start"), 1);
    assert_eq!(proxy.metric(FAILED), 0.0);
    assert!(proxy.metric("adsproxy_audit_write_total{outcome=\"succeeded\"}") >= 4.0);

    proxy.signal("TERM");
    assert!(proxy.wait().success());
    assert_eq!(entries(&proxy).last().expect("an entry")["action"], "server.stop");
    let verified = Command::new(env!("CARGO_BIN_EXE_adsproxy"))
        .args(["audit", "verify", "--config"])
        .arg(proxy.dir.path().join("proxy.toml"))
        .envs(["CLIENT_SECRET", "ACME_REFRESH", "GLOBEX_REFRESH"].map(|name| (name, "x")))
        .status();
    assert!(verified.expect("it runs").success());
    let text = fs::read(proxy.dir.path().join("store/audit.jsonl")).expect("a log");
    let mut canaries = Canaries::default();
    for secret in [ACME_REFRESH, CLIENT_SECRET] {
        canaries.add(secret);
    }
    canaries.assert_none_in("the audit log", &text);
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_go_on_without_the_log_and_raise_the_alarm() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    let proxy = Proxy::with(&amazon, setup());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    when(&proxy, |all| count(all, "token.refresh") == 1).await;
    let log = proxy.dir.path().join("store/audit.jsonl");
    let kept = proxy.dir.path().join("kept");
    fs::rename(&log, &kept).expect("moved");
    fs::create_dir(&log).expect("made");
    for _ in 0..3 {
        lwa.expire_access_tokens(Some("acme"));
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    }
    eventually("the alarm", || proxy.metric(FAILED) >= 3.0).await;
    let told = proxy.log().matches("cannot write the audit log").count();
    assert_eq!(told, 1, "said once:\n{}", proxy.log());
    fs::remove_dir(&log).expect("removed");
    fs::rename(&kept, &log).expect("moved back");
    lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let told = when(&proxy, |all| count(all, "token.refresh") >= 5).await;
    let refreshes = told.iter().filter(|entry| entry["action"] == "token.refresh");
    let late: Vec<_> = refreshes.map(|entry| entry["occurred"].is_string()).collect();
    assert_eq!(late[..4], [false, true, true, true], "{told:#?}");
    assert_eq!((late.len(), count(&told, "audit.lost")), (5, 0), "{told:#?}");
}

/// The entries whose request id is `id`: action, actor and outcome.
fn of_request<'a>(entries: &'a [Value], id: &str) -> Vec<[&'a str; 3]> {
    let of = entries.iter().filter(|entry| entry["request_id"] == id);
    of.map(|entry| {
        ["action", "actor", "outcome"].map(|name| entry[name].as_str().unwrap_or_default())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_names_the_request_that_led_to_it() {
    let amazon = amazon().await;
    let proxy = login::proxy(&amazon, setup());
    let by = |id| {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
        request.header("x-request-id", id)
    };
    assert_eq!(proxy.send(by("first")).await.status, 200);
    assert_eq!(proxy.send(by("no-refresh")).await.status, 200);
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.send(by("after-401")).await.status, 200);
    let mine = proxy.get("/v2/profiles").await.headers[REQUEST_ID].clone();

    let fields = [("x-request-id", "by-hand"), ("content-type", "application/json")];
    let body = r#"{"account":"acme"}"#.to_owned();
    let reply =
        login::ask_with(proxy.admin, Method::POST, "/api/auth/refresh", &fields, body).await;
    assert_eq!(
        (reply.status.as_u16(), reply.headers[REQUEST_ID].as_bytes()),
        (200, &b"by-hand"[..])
    );
    let begun = login::begin(proxy.admin, login::INITECH).await;
    let path = login::consent(&begun, login::INITECH).await;
    let connected = login::come_back(proxy.admin, &path, &begun.cookie).await;
    assert_eq!(connected.status, 200, "{}", connected.text);
    let id = connected.headers[REQUEST_ID].to_str().expect("ASCII").to_owned();
    assert_eq!(id.len(), 16, "a fresh one: {id}");

    let refreshed = ["token.refresh", "server", "ok"];
    let all =
        when(&proxy, |all| !of_request(all, &id).is_empty() && count(all, "login") == 2).await;
    assert_eq!(of_request(&all, "first"), [refreshed]);
    assert_eq!(of_request(&all, "after-401"), [refreshed]);
    for needless in ["no-refresh", mine.to_str().expect("ASCII")] {
        assert_eq!(of_request(&all, needless), [[""; 3]; 0], "{needless}");
    }
    assert_eq!(of_request(&all, "by-hand"), [["token.refresh", "admin", "attempt"], refreshed]);
    let logged_in = [["login", "admin", "attempt"], ["login", "admin", "ok"]];
    assert!(of_request(&all, &id).iter().filter(|entry| entry[0] == "login").eq(&logged_in));
}
