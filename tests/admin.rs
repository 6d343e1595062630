//! The admin and health listeners of the real process, and the metrics after real traffic.

use crate::support::{
    callers::OPERATOR,
    extras,
    proxy::{Proxy, Setup, amazon, ask, eventually},
};
use adsproxy::sandbox::{ApiFault, Emulator, LwaFault, Permission, Times};
use std::{
    io::Write,
    net::SocketAddr,
    process::{Command, Stdio},
};

/// A proxy with a health listener, and that one's address.
fn with_health(amazon: &Emulator, more: &str) -> (Proxy, SocketAddr) {
    let toml = format!("health = \"127.0.0.1:0\"\n{more}");
    let proxy = Proxy::with(amazon, Setup { toml, ..Setup::default() });
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains(r#""message":"listening""#)).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    // `Some(127.0.0.1:1234)`
    let health = line["health"].as_str().expect("an address");
    let address = health.trim_start_matches("Some(").trim_end_matches(')').parse();
    (proxy, address.expect("an address"))
}

/// Status and body of an answer.
fn get(address: SocketAddr, path: &str, fields: &str) -> (u16, String) {
    request(address, &format!("GET {path} HTTP/1.1\r\n{fields}"))
}

fn request(address: SocketAddr, head: &str) -> (u16, String) {
    let answer = ask(address, &format!("{head}\r\nX-Ads-Key: {}", OPERATOR.key));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("\r\ncache-control: no-store"), "{head}");
    assert!(head.contains("\r\nx-content-type-options: nosniff"), "{head}");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}

const LOCAL: &str = "Host: localhost";
const HEALTH: [&str; 4] = ["/livez", "/readyz", "/startupz", "/healthz"];

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_tell_health_and_metrics_but_only_admin_tells_accounts() {
    let amazon = amazon().await;
    let (proxy, health) = with_health(&amazon, "");
    for address in [proxy.admin, health] {
        for path in HEALTH {
            assert_eq!(get(address, path, LOCAL), (200, "ok\n".into()), "{path}");
        }
        assert_eq!(
            get(address, "/readyz?verbose", LOCAL),
            (200, "[+] serving ok\n[+] store ok\n".into())
        );
        let (status, page) = get(address, "/metrics", LOCAL);
        assert!(status == 200 && page.contains("adsproxy_build_info"), "{page}");
        assert_eq!(get(address, "/v2/profiles", LOCAL).0, 404);
        assert_eq!(request(address, "HEAD /livez HTTP/1.1\r\nHost: localhost"), (200, "".into()));
        assert_eq!(request(address, "POST /livez HTTP/1.1\r\nHost: localhost").0, 405);
    }
    for (path, word) in [("/status", "\"acme\""), ("/", "/readyz")] {
        let (status, body) = get(proxy.admin, path, LOCAL);
        assert!(status == 200 && body.contains(word), "{body}");
        assert_eq!(get(health, path, LOCAL).0, 404);
    }
    assert!(amazon.state().record.requests().is_empty(), "Amazon is not asked for any of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_front_page_lists_every_route_and_each_of_them_is_served() {
    let amazon = amazon().await;
    let (proxy, _) = with_health(&amazon, "");
    let index = get(proxy.admin, "/", LOCAL).1;
    let routes = adsproxy::testing::ROUTES;
    assert!(routes.len() > 15, "{routes:?}");
    for route in routes.iter().filter(|route| route.audience.as_str() != "local") {
        let line = index.lines().find(|line| {
            let mut words = line.split_whitespace();
            (words.next(), words.next()) == (Some(route.method.as_str()), Some(route.path))
        });
        assert!(
            line.is_some_and(|line| line.contains(route.audience.as_str())),
            "{index}\n{route:?}"
        );
        let path = route.path.replace("{id}", "x");
        let refused = request(proxy.admin, &format!("PATCH {path} HTTP/1.1\r\n{LOCAL}"));
        let body: serde_json::Value = serde_json::from_str(&refused.1).expect("a document");
        assert_eq!((refused.0, &body["code"]), (405, &"method_not_allowed".into()), "{route:?}");
        assert!(body["requestId"].is_string() && body["type"] == "about:blank", "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_listed_shown_and_deleted_by_their_id() {
    let amazon = amazon().await;
    let (proxy, health) = with_health(&amazon, "");
    let (status, all) = get(proxy.admin, "/api/v1/accounts", LOCAL);
    assert!(status == 200 && all.contains(r#""account":"acme""#), "{all}");
    let (status, one) = get(proxy.admin, "/api/v1/accounts/acme", LOCAL);
    assert!(status == 200 && one.contains(r#""region":"na""#), "{one}");
    assert_eq!(get(proxy.admin, "/api/v1/accounts/nobody", LOCAL).0, 404);
    assert_eq!(get(proxy.admin, "/api/v1/accounts/a%20b", LOCAL).0, 400);
    assert_eq!(get(health, "/api/v1/accounts", LOCAL).0, 404);
    let foreign =
        "DELETE /api/v1/accounts/acme HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a.test";
    assert_eq!(request(proxy.admin, foreign).0, 403);
    let delete = format!("DELETE /api/v1/accounts/acme HTTP/1.1\r\n{LOCAL}");
    assert_eq!(request(proxy.admin, &delete).0, 200);
    assert_eq!(proxy.get("/v2/profiles").await.status, 403, "its grant is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_logins_and_logouts_is_refused_and_reading_is_not() {
    let amazon = amazon().await;
    let (proxy, _) = with_health(&amazon, "");
    let refused = (0..90).filter(|number| {
        let path = format!("/api/auth/amazon/login?account=new{number}");
        get(proxy.admin, &path, LOCAL).0 == 429
    });
    assert!(refused.count() > 10);
    let logout = format!(
        "POST /api/auth/amazon/logout HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\
         X-Ads-Key: {}",
        OPERATOR.key
    );
    let mut answer = ask(proxy.admin, &logout);
    while !answer.starts_with("HTTP/1.1 429") {
        answer = ask(proxy.admin, &logout);
    }
    let answer = answer.to_ascii_lowercase();
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    assert!(answer.contains("too_many_requests") && answer.contains("requestid"), "{answer}");
    for path in ["/status", "/metrics", "/api/auth/token-status", "/readyz"] {
        assert_eq!(get(proxy.admin, path, LOCAL).0, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_stands_before_admin_and_not_before_health() {
    let amazon = amazon().await;
    let (proxy, health) = with_health(&amazon, "[guard]\nallowed_hosts = [\"ads.internal\"]");
    let foreign = [
        "Host: evil.test",
        "Host: localhost\r\nOrigin: https://evil.test",
        "Host: localhost\r\nSec-Fetch-Site: cross-site",
        "Host: localhost\r\nHost: localhost",
        "X-No-Host: 1",
    ];
    for fields in foreign {
        for path in ["/status", "/metrics", "/livez", "/nothing"] {
            let (status, body) = get(proxy.admin, path, fields);
            assert_eq!(status, 403, "{fields} {body}");
            assert!(!body.contains("acme"), "{body}");
        }
    }
    for fields in [&foreign[..3], &["Host: 10.0.0.7:8789"]].concat() {
        assert_eq!(get(health, "/readyz", fields).0, 200, "the kubelet asks by the pod's address");
    }
    for fields in ["Host: localhost:1", "Host: [::1]", "Host: ads.internal"] {
        assert_eq!(get(proxy.admin, "/status", fields).0, 200, "{fields}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_does_not_depend_on_amazon_or_on_an_account() {
    let amazon = amazon().await;
    amazon.state().lwa.revoke("acme");
    let proxy = Proxy::start(&amazon);
    assert_eq!(proxy.get("/v2/profiles").await.error(), Some("reauthorization_required"));
    drop(amazon);
    let other = proxy.request(http::Method::GET, "/a/globex/v2/profiles");
    assert_eq!(proxy.send(other).await.error(), Some("token_unavailable"));
    assert_eq!(get(proxy.admin, "/readyz?verbose", LOCAL).0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_each_accounts_state() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    amazon.state().lwa.revoke("globex");
    let other = proxy.request(http::Method::GET, "/a/globex/v2/profiles");
    assert_eq!(proxy.send(other).await.status, 403);
    let (_, body) = get(proxy.admin, "/status", LOCAL);
    let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let [acme, globex] = [&status["accounts"][0], &status["accounts"][1]];
    assert_eq!((&acme["account"], &acme["state"]), (&"acme".into(), &"fresh".into()));
    assert_eq!((&acme["region"], &acme["generation"]), (&"na".into(), &1.into()));
    assert!((3590..=3600).contains(&acme["expires_in_secs"].as_u64().expect("seconds")));
    assert_eq!(acme["last_error"], serde_json::Value::Null);
    assert_eq!(globex["state"], "reauthorization_required");
    assert_eq!(globex["reauthorization_required"], true);
    assert!(globex["last_error"].as_str().expect("a reason").contains("dead"));
}

/// Every kind of request: what each leaves in the metrics is in `COUNTED`.
async fn traffic(amazon: &Emulator, proxy: &Proxy) {
    let state = amazon.state();
    for _ in 0..3 {
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    }
    assert_eq!(proxy.get("/_status/302").await.status, 302);
    assert_eq!(proxy.get("/_status/503").await.status, 503);
    let nobody = proxy.request(http::Method::GET, "/v2/profiles").header("X-Ads-Account", "nobody");
    assert_eq!(proxy.send(nobody).await.error(), Some("unknown_account"));
    state.api.faults.add(ApiFault::Permission(Permission::ScopeMissing), Times::Next(1));
    assert_eq!(proxy.get("/v2/profiles").await.status, 401);
    state.lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.post("/_sink", "again").await.status, 200);
    state.lwa.faults.add(LwaFault::InvalidClient, Times::Next(1));
    let other = proxy.request(http::Method::GET, "/a/globex/v2/profiles");
    assert_eq!(proxy.send(other).await.error(), Some("application_rejected"));
}

/// Samples after `traffic`.
const COUNTED: &[(&str, f64)] = &[
    (r#"adsproxy_requests_total{code_class="2xx"}"#, 4.0),
    (r#"adsproxy_requests_total{code_class="3xx"}"#, 1.0),
    (r#"adsproxy_requests_total{code_class="4xx"}"#, 2.0),
    (r#"adsproxy_requests_total{code_class="5xx"}"#, 2.0),
    ("adsproxy_request_duration_seconds_count", 9.0),
    (r#"adsproxy_upstream_401_total{class="permission"}"#, 1.0),
    (r#"adsproxy_upstream_401_total{class="expired"}"#, 1.0),
    (r#"adsproxy_upstream_401_total{class="spurious"}"#, 0.0),
    (r#"adsproxy_replays_total{outcome="succeeded"}"#, 1.0),
    (r#"adsproxy_replays_total{outcome="failed"}"#, 0.0),
    (r#"adsproxy_token_refresh_total{trigger="request",outcome="succeeded"}"#, 1.0),
    (r#"adsproxy_token_refresh_total{trigger="forced",outcome="succeeded"}"#, 1.0),
    (r#"adsproxy_token_refresh_total{trigger="background",outcome="succeeded"}"#, 0.0),
    (r#"adsproxy_token_refresh_total{trigger="request",outcome="application_rejected"}"#, 1.0),
    ("adsproxy_token_refresh_duration_seconds_count", 3.0),
    (r#"adsproxy_grant_state{account="acme",state="fresh"}"#, 1.0),
    (r#"adsproxy_grant_state{account="globex",state="application_rejected"}"#, 1.0),
    (r#"adsproxy_store_write_total{outcome="failed"}"#, 0.0),
    ("adsproxy_in_flight_requests", 0.0),
    ("adsproxy_log_dropped_total", 0.0),
    (concat!("adsproxy_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_has_the_right_value_after_real_traffic() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    traffic(&amazon, &proxy).await;
    // A request is counted when its last byte is out, which its caller may see first.
    eventually("all are counted", || {
        proxy.metric("adsproxy_request_duration_seconds_count") == 9.0
    })
    .await;
    let page = proxy.metrics();
    for (sample, value) in COUNTED {
        assert!(page.contains(&format!("\n{sample} {value}\n")), "{sample} {value}\n{page}");
    }
    assert!(proxy.metric(r#"adsproxy_store_write_total{outcome="succeeded"}"#) >= 2.0);
    assert!(proxy.metric(r#"adsproxy_token_expiry_seconds{account="acme"}"#) > 3500.0);
    assert!(!page.contains(r#"adsproxy_token_expiry_seconds{account="globex"}"#), "it has none");
    assert!(proxy.metric("adsproxy_upstream_connections_opened_total") >= 1.0);
    assert!(proxy.metric("process_open_fds") > 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_names_every_metric_and_no_other() {
    let page_text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md"));
    let page_text = page_text.expect("a file of ours");
    let rows = page_text.lines().filter_map(|line| line.strip_prefix("| `adsproxy_"));
    let mut listed: Vec<_> = rows.filter_map(|row| row.split(['`', '{']).next()).collect();
    let amazon = amazon().await;
    let page = Proxy::start(&amazon).metrics();
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE adsproxy_"));
    let mut served: Vec<_> = families.filter_map(|line| line.split(' ').next()).collect();
    listed.sort_unstable();
    served.sort_unstable();
    assert_eq!(listed, served);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_are_counted_while_they_are() {
    let amazon = amazon().await;
    let proxy = std::sync::Arc::new(Proxy::start(&amazon));
    let gate = &amazon.state().api.gate;
    gate.hold();
    let requests: Vec<_> = (0..3)
        .map(|_| {
            let proxy = proxy.clone();
            tokio::spawn(async move { proxy.get("/v2/profiles").await.status })
        })
        .collect();
    gate.until_waiting(3).await;
    assert_eq!(proxy.metric("adsproxy_in_flight_requests"), 3.0);
    assert_eq!(proxy.metric("adsproxy_connections"), 3.0);
    gate.release();
    for request in requests {
        assert_eq!(request.await.expect("an answer"), 200);
    }
    eventually("none is left", || proxy.metric("adsproxy_in_flight_requests") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_beyond_the_cap_have_no_series_of_their_own() {
    let amazon = amazon().await;
    let toml = "[metrics]\naccount_labels_max = 1".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let page = proxy.metrics();
    assert!(page.contains(r#"account="acme""#) && !page.contains("globex"), "{page}");
    assert_eq!(proxy.metric("adsproxy_accounts_beyond_label_cap"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_accepts_the_page() {
    if !extras::required("promtool") {
        return;
    }
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    traffic(&amazon, &proxy).await;
    let (_, page) = get(proxy.admin, "/metrics", LOCAL);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    promtool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("written");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(said.is_empty(), "not even advice: {}", String::from_utf8_lossy(&said));
}
