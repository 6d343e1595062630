//! The audit log of a server: refreshes and the fate of grants are in it, and never held up by it.

use crate::support::{
    canary::Canaries,
    proxy::{ACME_REFRESH, Proxy, Setup, amazon, eventually},
};
use adsproxy::sandbox::CLIENT_SECRET;
use serde_json::Value;
use std::{fs, process::Command};

const FAILED: &str = "adsproxy_audit_write_total{outcome=\"failed\"}";
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
    let told = when(&proxy, |all| count(all, "audit.lost") == 1).await;
    let hole = told.iter().find(|entry| entry["action"] == "audit.lost").expect("an entry");
    assert_eq!(hole["count"], 3);
}
