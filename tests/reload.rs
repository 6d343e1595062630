//! Another configuration while requests are under way: what changed is in force within seconds, no
//! request fails, and what is wrong changes nothing.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    load::TEST_TIMEOUT,
    program::said,
    proxy::{ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon, eventually, write_private},
    signer::TestIssuer,
};
use adsproxy::sandbox::{CLIENT_ID, CLIENT_SECRET, RefreshRotation};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// The limit for what a swapped secret may take.
const SOON: Duration = Duration::from_secs(5);

fn config(proxy: &Proxy) -> String {
    fs::read_to_string(proxy.dir.path().join("proxy.toml")).expect("a configuration")
}

/// Writes another configuration in one go.
fn write(proxy: &Proxy, text: &str) {
    let path = proxy.dir.path().join("proxy.toml");
    let beside = path.with_extension("new");
    fs::write(&beside, text).expect("written");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).expect("private");
    fs::rename(beside, path).expect("renamed");
}

/// Reloads by the API with `key`.
async fn reload_as(proxy: &Proxy, key: &str) -> (StatusCode, Value) {
    let url = format!("http://{}/api/v1/reload", proxy.admin);
    let request = reqwest::Client::new().post(url).header("x-ads-key", key);
    let response = request.send().await.expect("an answer");
    let status = response.status();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).expect("JSON"))
}

async fn reload(proxy: &Proxy, text: &str) -> Value {
    write(proxy, text);
    let (status, said) = reload_as(proxy, &OPERATOR.key).await;
    assert_eq!(status, 200, "{said}");
    said
}

async fn status_of(proxy: &Proxy, account: &str) -> StatusCode {
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
    proxy.send(request).await.status
}

/// A mounted Secret: its files are links through `..data`, which is swapped.
fn mount(directory: &Path, version: &str, files: &[(&str, &str)]) {
    let at = directory.join(version);
    fs::create_dir(&at).expect("a directory");
    for (name, text) in files {
        fs::write(at.join(name), text).expect("written");
        fs::set_permissions(at.join(name), fs::Permissions::from_mode(0o440)).expect("private");
        let link = directory.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), link).expect("a link");
        }
    }
    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).expect("readable");
    symlink(version, directory.join("..tmp")).expect("a link");
    fs::rename(directory.join("..tmp"), directory.join("..data")).expect("swapped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_kubernetes_swaps_is_used_within_seconds_and_no_request_fails() {
    let amazon = amazon().await;
    let mounted = tempfile::tempdir().expect("a directory");
    let old = [("client", CLIENT_SECRET), ("acme", ACME_REFRESH)];
    mount(mounted.path(), "..2026_1", &old);
    let file = |name: &str| mounted.path().join(name).display().to_string();
    let env = vec![
        ("ADSPROXY_LWA__CLIENT_SECRET_FILE".to_owned(), file("client")),
        ("ADSPROXY_ACCOUNTS__ACME__REFRESH_TOKEN_FILE".to_owned(), file("acme")),
    ];
    let proxy = Proxy::with(&amazon, Setup { env, ..Setup::default() });
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = async {
        while !is_over.load(Relaxed) {
            let answer = proxy.get("/a/acme/v2/profiles").await;
            assert_eq!(answer.status, 200, "{}\n{}", answer.text(), proxy.log());
            served.fetch_add(1, Relaxed);
        }
    };
    let swap = async {
        while served.load(Relaxed) < 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let lwa = &amazon.state().lwa;
        let refresh = lwa.consent_again("acme").expect("a grant");
        let secret = "amzn1.oa2-cs.v1.swapped";
        lwa.add_application(CLIENT_ID, &[secret]);
        let began = Instant::now();
        mount(mounted.path(), "..2026_2", &[("client", secret), ("acme", &refresh)]);
        eventually("both are applied", || {
            let log = proxy.log();
            log.contains(r#""applied":"accounts.acme.refresh_token, lwa.client_secret""#)
        })
        .await;
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        // Only with both new ones there is another token.
        lwa.expire_access_tokens(Some("acme"));
        let until = served.load(Relaxed) + 20;
        while served.load(Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        is_over.store(true, Relaxed);
    };
    tokio::join!(load, swap);
    assert!(proxy.metric("adsproxy_config_reload_total{outcome=\"succeeded\"}") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_changes_nothing_and_says_why_once() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let before = config(&proxy);
    let said = || proxy.log().matches("configuration not reloaded").count();
    write(&proxy, &(before.clone() + "\n[accounts.other]\nregion = \"xx\"\n"));
    eventually("it is refused", || said() > 0).await;
    assert!(proxy.log().contains("accounts.other.region"), "{}", proxy.log());
    let (status, problem) = reload_as(&proxy, &OPERATOR.key).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("configuration_rejected")));
    assert!(problem["detail"].as_str().expect("a text").contains("accounts.other.region"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(said(), 2, "the watcher has said it once, the API once: {}", proxy.log());
    assert_eq!(proxy.get("/a/acme/v2/profiles").await.status, 200);
    assert_eq!(proxy.metric("adsproxy_config_reload_total{outcome=\"failed\"}"), 2.0);
    write(&proxy, &before);
    eventually("the file is good again", || proxy.log().contains("configuration reloaded")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_go_and_move() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let before = config(&proxy);
    assert_eq!(status_of(&proxy, "globex").await, 200);
    assert_eq!(status_of(&proxy, "more").await, 404);
    let globex = "[accounts.globex]\nregion = \"eu\"\nrefresh_token = { env = \"GLOBEX_REFRESH\" }";
    assert!(before.contains(globex), "{before}");

    let moved = before.replace(globex, &globex.replace("\"eu\"", "\"fe\""));
    let said = reload(&proxy, &moved).await;
    assert_eq!(said["applied"], json!(["accounts.globex.region"]));
    let shown = proxy.ask_admin("/api/v1/accounts/globex");
    assert!(shown.contains("\"region\":\"fe\"") || shown.contains("\"region\": \"fe\""), "{shown}");
    assert!(proxy.ask_admin("/api/v1/accounts/globex").contains("fresh"), "it keeps its token");

    let added = globex.replace("accounts.globex", "accounts.more");
    let said = reload(&proxy, &(moved + "\n" + &added)).await;
    assert_eq!(said["applied"], json!(["accounts.more"]));
    assert_eq!(status_of(&proxy, "more").await, 200);

    let without = before.replace(globex, "");
    reload(&proxy, &without).await;
    assert_eq!(status_of(&proxy, "globex").await, 404);
    assert_eq!(status_of(&proxy, "acme").await, 200);
    reload(&proxy, &before).await;
    assert_eq!(status_of(&proxy, "globex").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_come_and_go() {
    let amazon = amazon().await;
    let (first, second) = (TestCaller::new("first", ""), TestCaller::new("second", ""));
    let proxy = Proxy::with(&amazon, Setup { toml: first.toml.clone(), ..Setup::default() });
    let before = config(&proxy);
    let asks = async |caller: &TestCaller| {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
        proxy.send(request.header("X-Ads-Key", &caller.key)).await.status
    };
    assert_eq!((asks(&first).await, asks(&second).await), (StatusCode::OK, StatusCode::FORBIDDEN));
    let said = reload(&proxy, &before.replace(&first.toml, &second.toml)).await;
    assert_eq!(said["applied"], json!(["callers"]));
    assert_eq!((asks(&first).await, asks(&second).await), (StatusCode::FORBIDDEN, StatusCode::OK));
}

#[tokio::test(flavor = "multi_thread")]
async fn issuers_come_and_go() {
    let amazon = amazon().await;
    let rules = "tenant_claim = []";
    let (first, second) = (TestIssuer::named("first", rules), TestIssuer::named("second", rules));
    let stays = TestIssuer::named("stays", rules);
    let toml = first.toml.clone() + &stays.toml;
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let before = config(&proxy);
    let user = json!({ "sub": "user_1" });
    let tokens = [&first, &second, &stays].map(|issuer| issuer.token(user.clone()));
    let statuses = async || {
        let mut statuses = [0; 3];
        for (status, token) in statuses.iter_mut().zip(&tokens) {
            let request =
                proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
            let request = request.header("Authorization", format!("Bearer {token}"));
            *status = proxy.send(request).await.status.as_u16();
        }
        statuses
    };
    assert_eq!(statuses().await, [200, 403, 200]);
    let said = reload(&proxy, &before.replace(&first.toml, &second.toml)).await;
    assert_eq!(said["applied"], json!(["issuers"]));
    // At once, whatever was remembered of a token.
    assert_eq!(statuses().await, [403, 200, 200]);

    // Another audience, and the tokens that were good are for nobody.
    let other = stays.toml.replace("\"adsproxy\"", "\"other\"");
    reload(&proxy, &before.replace(&stays.toml, &other)).await;
    assert_eq!(statuses().await, [200, 403, 403]);
    reload(&proxy, &before).await;
    assert_eq!(statuses().await, [200, 403, 200]);
}

/// What becomes of a secret's file.
type Spoil = fn(&Path);

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_used_changes_nothing_and_the_next_good_one_does() {
    const SPOILT: [(&str, Spoil); 4] = [
        ("others may write it", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("a mode");
        }),
        ("it has vanished", |path| fs::remove_file(path).expect("removed")),
        ("it is empty", |path| fs::write(path, "\n").expect("written")),
        ("it is a directory", |path| {
            fs::remove_file(path).expect("removed");
            fs::create_dir(path).expect("a directory");
        }),
    ];
    let amazon = amazon().await;
    let secrets = tempfile::tempdir().expect("a directory");
    let path = secrets.path().join("client");
    write_private(&path, CLIENT_SECRET);
    let name = path.display().to_string();
    let env = vec![("ADSPROXY_LWA__CLIENT_SECRET_FILE".to_owned(), name.clone())];
    let toml = "[token]\nforced_refresh_min_interval_secs = 0".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, env, file_store: true, ..Setup::default() });
    let lwa = &amazon.state().lwa;
    let served = async || {
        // Only with the right secret there is another token.
        lwa.expire_access_tokens(Some("acme"));
        status_of(&proxy, "acme").await
    };
    let rejected = || {
        let page = proxy.ask_admin("/api/v1/audit?action=config.reload&limit=100");
        page.matches("configuration_rejected").count()
    };
    assert_eq!(served().await, 200);
    for (number, (why, spoil)) in SPOILT.into_iter().enumerate() {
        spoil(&path);
        let (status, problem) = reload_as(&proxy, &OPERATOR.key).await;
        assert_eq!(status, 422, "{why}: {problem}");
        let detail = problem["detail"].as_str().expect("a text");
        assert!(detail.contains(&name) && detail.contains("lwa.client_secret"), "{why}: {detail}");
        eventually("the log says why", || {
            let log = proxy.log();
            let said = log.lines().filter(|line| line.contains("configuration not reloaded"));
            said.filter(|line| line.contains(&name)).count() > number
        })
        .await;
        assert!(rejected() > number, "{why}");
        assert_eq!(served().await, 200, "{why}: the old secret is in force");

        let secret = format!("amzn1.oa2-cs.v1.good-{number}");
        lwa.add_application(CLIENT_ID, &[&secret]);
        assert_ne!(served().await, 200, "{why}: the old one is dead");
        let _ = fs::remove_dir(&path);
        write_private(&path, &secret);
        let (status, said) = reload_as(&proxy, &OPERATOR.key).await;
        assert_eq!(status, 200, "{why}: {said}");
        eventually_served(&proxy, why).await;
    }
}

/// LWA's rejection of the old secret is remembered for a moment.
async fn eventually_served(proxy: &Proxy, why: &str) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while status_of(proxy, "acme").await != 200 {
        assert!(Instant::now() < deadline, "{why}: {}", proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_in_force_at_once_and_what_needs_a_restart_is_named() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let before = config(&proxy);
    let many = async || {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
        let request = (0..30).fold(request, |it, at| it.header(format!("x-{at}"), "1"));
        proxy.send(request).await.status.as_u16()
    };
    assert_eq!(many().await, 200);
    let more = "\n[limits]\nheaders_max = 20\n[proxy]\nworkers = 63\n";
    let changed = before.replace("127.0.0.1:0\"]", "127.0.0.1:1\"]") + more;
    let said = reload(&proxy, &changed).await;
    assert_eq!(said["applied"], json!(["limits.headers_max"]));
    assert_eq!(said["restart_required"], json!(["listen.proxy", "proxy.workers"]));
    assert_eq!(many().await, 431);
    assert!(proxy.ask_admin("/status").contains("proxy.workers"));
    assert!(proxy.log().contains("restart to apply these keys"));
    reload(&proxy, &before).await;
    assert_eq!(many().await, 200);
    assert!(!proxy.ask_admin("/status").contains("proxy.workers"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_may_reload_and_a_tenant_may_not_and_the_audit_log_says_who() {
    let amazon = amazon().await;
    let tenant = TestCaller::new("theirs", "tenant = \"t1\"");
    let toml = tenant.toml.clone();
    let proxy = Proxy::with(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    let (status, _) = reload_as(&proxy, &tenant.key).await;
    assert_eq!(status, 403);
    let audit = || proxy.ask_admin("/api/v1/audit?action=config.reload");
    assert!(!audit().contains("\"config.reload\""), "{}", audit());
    let (status, said) = reload_as(&proxy, &OPERATOR.key).await;
    assert_eq!((status.as_u16(), &said["applied"]), (200, &json!([])));
    let entries = audit();
    assert_eq!(entries.matches("\"config.reload\"").count(), 1, "{entries}");
    assert!(entries.contains("\"user\"") && entries.contains("tests"), "{entries}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_take_turns_and_end_with_the_drain() {
    let amazon = amazon().await;
    let mut proxy = Proxy::start(&amazon);
    let reloaded = || proxy.log().matches("configuration reloaded").count();
    let key = OPERATOR.key.as_str();
    let (one, two) = tokio::join!(reload_as(&proxy, key), reload_as(&proxy, key));
    assert_eq!((one.0.as_u16(), two.0.as_u16()), (200, 200));
    proxy.signal("HUP");
    proxy.signal("HUP");
    eventually("they are reloaded", || reloaded() >= 3).await;
    proxy.signal("TERM");
    proxy.signal("HUP");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_keeps_its_rotated_token() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
    let before = config(&proxy);
    let gate = &lwa.responses;
    gate.hold();
    let request = proxy.get("/v2/profiles");
    let meanwhile = async {
        gate.until_waiting(1).await;
        let headers = "[accounts.acme]\nheaders = { \"Amazon-Advertising-API-Scope\" = \"7\" }\n";
        let text = before
            .replace("[accounts.acme]\nregion = \"na\"", &format!("{headers}region = \"eu\""));
        assert_ne!(text, before);
        let said = reload(&proxy, &text).await;
        assert_eq!(
            said["applied"],
            json!(["accounts.acme.headers.amazon-advertising-api-scope", "accounts.acme.region"])
        );
        gate.release();
    };
    let (answer, ()) = tokio::join!(request, meanwhile);
    assert_eq!(answer.status, 200, "{}", answer.text());
    // Its first refresh token is dead by now.
    lwa.expire_access_tokens(Some("acme"));
    let proxy = proxy.restart();
    assert_eq!(status_of(&proxy, "acme").await, 200, "{}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_caller_and_with_the_key_that_it_was_issued_with() {
    let amazon = amazon().await;
    let (app, operator) =
        (TestCaller::new("app", ""), TestCaller::new("second", "operator = true"));
    let toml = app.toml.clone() + &operator.toml;
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let before = config(&proxy);
    let issue = async |by: &str| {
        let url = format!("http://{}/api/v1/sessions", proxy.admin);
        let request = reqwest::Client::new().post(url).header("x-ads-key", by);
        let request = request.header("content-type", "application/json");
        let sent = request.body(r#"{"caller":"app","ttl_secs":600}"#).send().await;
        let text = sent.expect("an answer").text().await.expect("a body");
        let said: Value = serde_json::from_str(&text).expect("JSON");
        said["key"].as_str().unwrap_or_else(|| panic!("no key: {text}")).to_owned()
    };
    let asks = async |key: &str| {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
        proxy.send(request.header("X-Ads-Key", key)).await.status.as_u16()
    };
    let (mine, theirs) = (issue(&OPERATOR.key).await, issue(&operator.key).await);
    assert_eq!((asks(&mine).await, asks(&theirs).await), (200, 200));
    reload(&proxy, &before.replace(&operator.toml, "")).await;
    assert_eq!((asks(&mine).await, asks(&theirs).await), (200, 403));
    // Narrower rules count for sessions, too.
    let narrow = app.toml.trim_end().to_owned() + "\naccounts = [\"globex\"]\n";
    reload(&proxy, &before.replace(&app.toml, &narrow)).await;
    assert_eq!((asks(&mine).await, asks(&app.key).await), (404, 404));
    reload(&proxy, &before.replace(&app.toml, "")).await;
    assert_eq!(asks(&mine).await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_what_the_server_has_not_applied() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
    let doctor = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
        command.arg("--config").arg(proxy.dir.path().join("proxy.toml"));
        command.args(["doctor", "--offline"]).env("CLIENT_SECRET", CLIENT_SECRET);
        command.env("ACME_REFRESH", ACME_REFRESH).env("GLOBEX_REFRESH", GLOBEX_REFRESH);
        said(&mut command).out
    };
    assert!(!doctor().contains("not applied"), "{}", doctor());
    reload(&proxy, &(config(&proxy) + "\n[proxy]\nworkers = 63\n")).await;
    assert!(doctor().contains("the running server has not applied: proxy.workers"), "{}", doctor());
}
