//! An account has one state, the same word in `/status`, `token-status` and the metrics, and each
//! failure of Login with Amazon its own advice.

use crate::support::proxy::{Proxy, Setup, amazon, eventually};
use adsproxy::sandbox::{Emulator, LwaFault, Scripted, Times};
use http::StatusCode;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

/// The state of `account` where each surface shows it: they agree.
fn state(proxy: &Proxy, account: &str) -> String {
    let page = |path: &str| -> Value {
        let page = proxy.ask_admin(path);
        let (_, body) = page.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("JSON")
    };
    let status = page("/status");
    let all = status["accounts"].as_array().expect("accounts").iter();
    let shown = all.clone().find(|one| one["account"] == account).expect("the account");
    let state = shown["state"].as_str().expect("a state").to_owned();
    let series = format!("adsproxy_grant_state{{account=\"{account}\",state=\"{state}\"}} 1");
    let metrics = proxy.metrics();
    let token_status = page(&format!("/api/auth/token-status?account={account}"));
    // It may have changed between two of the questions.
    if !metrics.contains(&series) || token_status["state"] != state.as_str() {
        return format!("{state}, {}", token_status["state"]);
    }
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_idle_before_its_first_token_and_expired_only_after_one() {
    let amazon = amazon().await;
    amazon.state().lwa.gate.hold();
    let proxy = Proxy::start(&amazon);
    assert_eq!(state(&proxy, "acme"), "idle");
    amazon.state().lwa.gate.release();
    amazon.state().lwa.configure(|lwa| lwa.token_lifetime = Duration::from_secs(2));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    eventually("its token expires", || state(&proxy, "acme") == "expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_died_while_the_server_was_down_is_noticed_without_a_request() {
    let amazon = amazon().await;
    amazon.state().lwa.revoke("globex");
    let proxy = Proxy::start(&amazon);
    // Half a minute after the start.
    let started = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    while (state(&proxy, "globex"), state(&proxy, "acme"))
        != ("reauthorization_required".to_owned(), "fresh".to_owned())
    {
        assert!(started.elapsed() < Duration::from_secs(60), "never noticed");
        tick.tick().await;
    }
    assert_eq!(amazon.state().record.counts().token_calls, 2, "one call each");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_not_tried_ahead_where_nothing_is_refreshed_ahead() {
    let amazon = amazon().await;
    let toml = "[token]\nbackground_lead_secs = 0\nrefresh_buffer_secs = 0".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let other = proxy.request(http::Method::GET, "/v2/profiles").header("x-ads-account", "globex");
    eventually("the first has its token", || state(&proxy, "acme") == "fresh").await;
    assert_eq!(state(&proxy, "globex"), "idle");
    assert_eq!(proxy.send(other).await.status, 200);
    assert_eq!(amazon.state().record.counts().token_calls, 2);
}

/// What a caller gets while LWA does `fault` for ever: code, `Retry-After`, detail, calls to LWA.
async fn refused(fault: LwaFault) -> (String, u64, String, Proxy, Emulator) {
    let amazon = amazon().await;
    amazon.state().lwa.faults.add(fault, Times::Forever);
    let proxy = Proxy::start(&amazon);
    let answer = proxy.get("/v2/profiles").await;
    let after = answer.headers["retry-after"].to_str().expect("text").parse().expect("seconds");
    let detail = answer.json()["detail"].as_str().expect("a text").to_owned();
    let code = answer.error().expect("a code").to_owned();
    for _ in 0..5 {
        assert_eq!(proxy.get("/v2/profiles").await.error(), Some(code.as_str()));
    }
    assert_eq!(amazon.state().record.counts().token_calls, 1, "it is not asked again at once");
    (code, after, detail, proxy, amazon)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unauthorized_client_is_not_told_to_check_its_secret() {
    let (code, after, detail, proxy, _amazon) = refused(LwaFault::UnauthorizedClient).await;
    assert_eq!((code.as_str(), after), ("application_rejected", 60));
    assert!(detail.contains("unauthorized_client") && detail.contains("approved"), "{detail}");
    assert_eq!(state(&proxy, "acme"), "application_rejected");
    let (code, _, detail, proxy, _amazon) = refused(LwaFault::InvalidClient).await;
    assert_eq!(code, "application_rejected");
    assert!(detail.contains("client secret") && !detail.contains("unauthorized_client"));
    assert_eq!(state(&proxy, "acme"), "application_rejected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_refusal_is_no_outage() {
    let page = |status| {
        LwaFault::Respond(Scripted {
            status,
            headers: vec![("content-type".into(), "text/html".into())],
            body: "<html>Atza|sorry</html>".into(),
        })
    };
    for (fault, advice) in [
        (LwaFault::UnsupportedGrantType, "refuses the token request"),
        (LwaFault::Echo, "refuses the token request"),
        (page(StatusCode::FORBIDDEN), "lwa.token_url"),
        (page(StatusCode::OK), "lwa.token_url"),
        (LwaFault::Redirect("http://127.0.0.1:1/".into()), "lwa.token_url"),
    ] {
        let name = format!("{fault:?}");
        let (code, after, detail, proxy, _amazon) = refused(fault).await;
        assert_eq!(code, "token_unavailable", "{name}");
        assert!(after > 1, "{name}: {after}");
        assert!(detail.contains(advice), "{name}: {detail}");
        assert!(!detail.contains("cannot be reached"), "{name}: {detail}");
        assert!(proxy.log().contains("ERROR"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_still_called_one() {
    let amazon = amazon().await;
    amazon.state().lwa.faults.add(LwaFault::Unavailable { retry_after: None }, Times::Forever);
    let proxy = Proxy::start(&amazon);
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!(answer.error(), Some("token_unavailable"));
    let detail = answer.json()["detail"].to_string();
    assert!(detail.contains("cannot be reached"), "{detail}");
}

/// Root reads everything, so there the record is damaged in a way that root meets, too.
fn forbid(record: &Path) {
    fs::set_permissions(record, fs::Permissions::from_mode(0o000)).expect("changed");
    if rustix::process::geteuid().is_root() {
        let text = fs::read_to_string(record).expect("a record");
        fs::write(record, &text[..text.len() / 2]).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_a_state_of_its_own_and_not_an_unknown_account() {
    let amazon = amazon().await;
    let setup = Setup { file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let records = walk(&proxy.dir.path().join("store"));
    let record = records.iter().find(|path| path.to_string_lossy().ends_with("acme.json"));
    forbid(record.unwrap_or_else(|| panic!("the record of acme in {records:?}")));
    let proxy = proxy.restart();
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!(answer.error(), Some("token_unavailable"));
    assert!(answer.json()["detail"].to_string().contains("cannot be read"), "{}", answer.text());
    assert_eq!(state(&proxy, "acme"), "unreadable");
    assert_ne!(state(&proxy, "globex"), "unreadable");
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|one| one.expect("one").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
