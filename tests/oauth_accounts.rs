//! Which account a consent ends up in: the wrong Amazon user, reconnecting, links, logging out.

use crate::support::{
    login::{
        INITECH, INITECH_PROFILE, Reply, answer, ask, ask_with, begin, begin_with, beside,
        come_back, come_back_in_browser, consent, exchanges, log_in, proxy,
    },
    proxy::{ACME_PROFILE, Proxy, Setup, amazon},
};
use adsproxy::sandbox::{Emulator, Surface};
use http::Method;
use serde_json::{Value, json};

fn file_store() -> Setup {
    Setup { file_store: true, ..Setup::default() }
}

/// The profiles that requests for `account` see.
async fn sees(proxy: &Proxy, account: &str) -> Vec<i64> {
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
    let answer = proxy.send(request).await;
    let list = answer.json();
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|profile| profile["profileId"].as_i64()).collect()
}

async fn state(proxy: &Proxy, account: &str) -> Value {
    let path = format!("/api/auth/token-status?account={account}");
    ask(proxy.admin, Method::GET, &path, &[]).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_amazon_users_grant_waits_for_a_yes() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let question = log_in(proxy.admin, "acme", INITECH).await;
    let asked = question.json();
    assert_eq!(asked["state"], "question", "{asked}");
    assert_eq!(asked["before"]["na"][0]["id"], ACME_PROFILE);
    assert_eq!(asked["now"]["na"][0]["id"], INITECH_PROFILE);
    assert_eq!(sees(&proxy, "acme").await[0], ACME_PROFILE, "the old grant is in place");
    let done = answer(proxy.admin, &question, "yes").await;
    assert_eq!(done.json()["state"], "connected", "{}", done.text);
    eventually_sees(&proxy, "acme", INITECH_PROFILE).await;
    let again = answer(proxy.admin, &question, "yes").await;
    assert_eq!((again.status.as_u16(), again.code().as_str()), (400, "question_gone"));
}

async fn eventually_sees(proxy: &Proxy, account: &str, profile: i64) {
    for _ in 0..200 {
        if sees(proxy, account).await.first() == Some(&profile) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{account} never saw {profile}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_no_the_new_grant_is_gone_and_the_old_one_stays() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let question = log_in(proxy.admin, "acme", INITECH).await;
    let notes = proxy.dir.path().join("store/pending");
    let waiting = || std::fs::read_dir(&notes).map_or(0, Iterator::count);
    assert_eq!(waiting(), 1, "kept aside, sealed");
    let no = answer(proxy.admin, &question, "no").await;
    assert_eq!(no.json()["state"], "discarded");
    assert_eq!(waiting(), 0);
    assert_eq!(answer(proxy.admin, &question, "yes").await.code(), "question_gone");
    let proxy = proxy.restart();
    assert_eq!(sees(&proxy, "acme").await[0], ACME_PROFILE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_nobody_answers_dies() {
    let amazon = amazon().await;
    let toml = "[login]\nconfirm_timeout_secs = 0.05\n".to_owned();
    let proxy = proxy(&amazon, Setup { toml, ..file_store() });
    let question = log_in(proxy.admin, "acme", INITECH).await;
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    assert_eq!(answer(proxy.admin, &question, "yes").await.code(), "question_gone");
    assert_eq!(sees(&proxy, "acme").await[0], ACME_PROFILE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_by_its_page_only() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let question = log_in(proxy.admin, "acme", INITECH).await;
    let token = question.json()["token"].as_str().expect("a token").to_owned();
    let form = format!("token={token}&answer=yes");
    let path = "/api/auth/amazon/confirm";
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let (own, port) = (("sec-fetch-site", "same-origin"), proxy.admin.port());
    for fields in [
        &[kind, ("sec-fetch-site", "cross-site"), ("origin", "null")][..],
        &[kind, ("sec-fetch-site", "same-site"), ("origin", "http://localhost:3000")],
        &[kind, ("origin", "null")],
        &[kind, ("origin", "https://evil.test")],
        &[kind, own, ("origin", "https://evil.test")],
    ] {
        let reply = ask_with(proxy.admin, Method::POST, path, fields, form.clone()).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (403, "caller_rejected"));
    }
    for body in
        ["", "answer=yes", &format!("token={token}"), &format!("token={token}&answer=maybe")]
    {
        let reply = ask_with(proxy.admin, Method::POST, path, &[kind], body.to_owned()).await;
        assert_eq!(reply.status, 400, "{body}");
    }
    let guessed = format!("token={}&answer=yes", "A".repeat(43));
    assert_eq!(
        ask_with(proxy.admin, Method::POST, path, &[kind], guessed).await.code(),
        "question_gone"
    );
    let long = "a".repeat(20_000);
    assert_eq!(ask_with(proxy.admin, Method::POST, path, &[kind], long).await.status, 400);
    let origin = format!("http://localhost:{port}");
    let fields = [kind, own, ("origin", origin.as_str()), ("accept", "text/html")];
    let page = ask_with(proxy.admin, Method::POST, path, &fields, form).await;
    assert!(page.status == 200 && page.text.contains("acme is connected"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_user_again_heals_a_dead_grant_without_a_question_or_a_restart() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    assert_eq!(log_in(proxy.admin, INITECH, INITECH).await.json()["state"], "connected");
    assert_eq!(sees(&proxy, INITECH).await, [INITECH_PROFILE]);
    amazon.state().lwa.revoke(INITECH);
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", INITECH);
    assert_eq!(proxy.send(request).await.error(), Some("reauthorization_required"));
    assert_eq!(state(&proxy, INITECH).await["reauthorization_required"], true);
    // The old grant cannot tell its profiles any more; what it told when it was connected counts.
    let again = log_in(proxy.admin, INITECH, INITECH).await.json();
    assert_eq!(
        (again["state"].as_str(), again["replaced"].as_bool()),
        (Some("connected"), Some(true))
    );
    eventually_sees(&proxy, INITECH, INITECH_PROFILE).await;
    let healed = state(&proxy, INITECH).await;
    assert_eq!(
        (healed["reauthorization_required"].as_bool(), healed["consent_days_left"].as_i64()),
        (Some(false), Some(365))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_whose_profiles_nobody_knows_is_asked_about() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    amazon.state().lwa.revoke("acme");
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
    assert_eq!(proxy.send(request).await.error(), Some("reauthorization_required"));
    let question = log_in(proxy.admin, "acme", "acme").await;
    let asked = question.json();
    assert_eq!((asked["state"].as_str(), asked["before"].is_null()), (Some("question"), true));
    let page = {
        let begun = begin(proxy.admin, "acme").await;
        let back = consent(&begun, "acme").await;
        come_back_in_browser(proxy.admin, &back, &begun.cookie).await
    };
    assert!(page.text.contains("Replace acme?") && page.text.contains("Not known."));
    assert!(
        page.headers["content-security-policy"].to_str().unwrap().contains("form-action 'self'")
    );
    answer(proxy.admin, &question, "yes").await;
    eventually_sees(&proxy, "acme", ACME_PROFILE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_that_do_not_answer_hold_up_nothing() {
    let amazon = amazon().await;
    let dead = crate::support::login::free_address();
    let here = amazon.addr();
    let hosts =
        ["eu", "mcp_na", "mcp_eu", "mcp_fe"].map(|host| format!("{host} = \"http://{here}\"\n"));
    let toml =
        format!("[upstream]\nna = \"http://{dead}\"\nfe = \"http://{dead}\"\n{}", hosts.concat());
    let proxy = proxy(&amazon, Setup { toml, ..file_store() });
    let done = log_in(proxy.admin, INITECH, INITECH).await.json();
    assert_eq!((done["state"].as_str(), done["region"].as_str()), (Some("connected"), Some("eu")));
    assert!(done["profiles"]["na"].is_null() && done["profiles"]["fe"].is_null(), "{done}");
    assert_eq!(done["profiles"]["eu"][0]["id"], INITECH_PROFILE);
    assert_eq!(done["region_is_guess"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_no_profile_told_is_called_a_guess() {
    let amazon = amazon().await;
    let dead = format!("http://{}", crate::support::login::free_address());
    let toml = crate::support::proxy::upstream(&dead, "");
    let proxy = proxy(&amazon, Setup { toml, ..file_store() });
    let begun = begin(proxy.admin, INITECH).await;
    let back = consent(&begun, INITECH).await;
    let page = come_back_in_browser(proxy.admin, &back, &begun.cookie).await;
    assert!(page.status == 200 && page.text.contains("the region is a guess"), "{}", page.text);
    let named = begin_with(proxy.admin, "account=other&region=eu").await;
    let back = consent(&named, INITECH).await;
    let done = come_back(proxy.admin, &back, &named.cookie).await.json();
    assert_eq!((done["region"].as_str(), &done["region_is_guess"]), (Some("eu"), &false.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_named_is_kept() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let begun = begin_with(proxy.admin, "account=new&region=fe").await;
    let back = consent(&begun, INITECH).await;
    let done = come_back(proxy.admin, &back, &begun.cookie).await.json();
    assert_eq!(done["region"], "fe", "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_sites_are_kept_out_but_amazons_answer_comes_in() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let admin = proxy.admin;
    let begun = begin(admin, INITECH).await;
    let back = consent(&begun, INITECH).await;
    let login = "/api/auth/amazon/login?account=acme";
    let cookie = ("cookie", begun.cookie.as_str());
    let cross = ("sec-fetch-site", "cross-site");
    let refused = async |path: &str, fields: &[(&str, &str)]| {
        let reply = ask(admin, Method::GET, path, fields).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (403, "caller_rejected"),
            "{fields:?}"
        );
    };
    for path in [login, back.as_str(), "/api/auth/token-status", "/api/auth/amazon/logins/x"] {
        refused(path, &[("host", "evil.test"), cookie]).await;
        refused(path, &[("host", "127.0.0.1.evil.test"), cookie]).await;
        refused(path, &[("origin", "https://evil.test"), cookie]).await;
        refused(path, &[cross, cookie]).await;
        refused(path, &[cross, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image"), cookie])
            .await;
        refused(
            path,
            &[cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe"), cookie],
        )
        .await;
    }
    let navigation = [cross, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    for more in ["", "&reconnect=", "&reconnect", "&reconnect=&reconnect="] {
        refused(&format!("{login}{more}"), &navigation).await;
    }
    for path in ["/api/auth/refresh", "/api/auth/amazon/logout", "/api/auth/amazon/logins"] {
        let fields = [("origin", "https://evil.test"), ("content-type", "text/plain")];
        let body = r#"{"account":"acme"}"#.to_owned();
        let reply = ask_with(admin, Method::POST, path, &fields, body).await;
        assert_eq!(reply.status, 403, "{path}");
    }
    assert_eq!(exchanges(&amazon), 0);
    let done = come_back_in_browser(admin, &back, &begun.cookie).await;
    assert!(
        done.status == 200 && done.text.contains("Profiles this login gives access to"),
        "{}",
        done.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn front_ends_refresh_and_ask_without_seeing_a_token() {
    let amazon = amazon().await;
    let toml = "[token]\nforced_refresh_min_interval_secs = 0\n".to_owned();
    let proxy = proxy(&amazon, Setup { toml, ..file_store() });
    let kind = ("content-type", "application/json");
    let refresh = async |body: &str| {
        ask_with(proxy.admin, Method::POST, "/api/auth/refresh", &[kind], body.to_owned()).await
    };
    let first = refresh(r#"{"account":"acme"}"#).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let (one, two) = (first.json(), refresh(r#"{"account":"acme"}"#).await.json());
    assert_eq!((one["success"].as_bool(), two["refreshed"].as_bool()), (Some(true), Some(true)));
    assert!(two["generation"].as_u64() > one["generation"].as_u64(), "{one} {two}");
    let status = state(&proxy, "acme").await;
    assert_eq!(status["valid"], true);
    assert_eq!(status["token_type"], "bearer");
    assert!(status["expires_in"].as_u64().unwrap() > 3500 && status["expires_at"].is_string());
    assert!(!status.to_string().contains("Atza") && !two.to_string().contains("Atza"));
    let all = ask(proxy.admin, Method::GET, "/api/auth/token-status", &[]).await.json();
    assert_eq!(all["accounts"].as_array().map(Vec::len), Some(2));
    assert_eq!(refresh(r#"{"account":"nobody"}"#).await.status, 404);
    assert_eq!(refresh("{}").await.code(), "account_required");
    assert_eq!(refresh("[1]").await.code(), "bad_request");
    amazon.state().lwa.revoke("acme");
    let dead = refresh(r#"{"account":"acme"}"#).await;
    assert_eq!((dead.status.as_u16(), dead.code().as_str()), (403, "reauthorization_required"));
}

async fn open_link(proxy: &Proxy, link: &str) -> Reply {
    let uri: http::Uri = link.parse().expect("a link");
    // Past the page that says what the link asks for.
    let path = format!("{}&continue=true", uri.path_and_query().expect("a path"));
    let fields = [
        ("accept", "text/html"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    ask(proxy.admin, Method::GET, &path, &fields).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_link_opens_from_anywhere_and_is_good_for_one_success() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    log_in(proxy.admin, INITECH, INITECH).await;
    let link = beside(&proxy).reconnect_link(&INITECH.parse().unwrap()).await.expect("a link");
    let link = link.expose();
    let own = format!(
        "http://localhost:{}/api/auth/amazon/login?account=initech&reconnect=",
        proxy.admin.port()
    );
    assert!(link.starts_with(&own), "{link}");
    // A program that looks at links first does no harm.
    assert_eq!(open_link(&proxy, link).await.status, 303);
    let other = open_link(&proxy, &link.replace("account=initech", "account=acme")).await;
    assert!(other.status == 410 && other.text.contains("(link_used)"), "for its account only");
    let sent = open_link(&proxy, link).await;
    let late = open_link(&proxy, link).await;
    let back = crate::support::login::at_amazon(sent.location(), "account=initech").await;
    let done = come_back_in_browser(proxy.admin, &back, &sent.cookie()).await;
    assert!(done.status == 200 && done.text.contains("connected anew"), "{}", done.text);
    assert_eq!(open_link(&proxy, link).await.status, 410, "used");
    let back = crate::support::login::at_amazon(late.location(), "account=initech").await;
    let second = come_back_in_browser(proxy.admin, &back, &late.cookie()).await;
    assert_eq!(second.status, 410, "one success, also of two that were under way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_link_dies_of_age() {
    let amazon = amazon().await;
    let toml = "[login]\nreconnect_link_secs = 0.01\n".to_owned();
    let proxy = proxy(&amazon, Setup { toml, ..file_store() });
    let link = beside(&proxy).reconnect_link(&"acme".parse().unwrap()).await.expect("a link");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(open_link(&proxy, link.expose()).await.status, 410);
    let short = link.expose().len() - 1;
    assert_eq!(open_link(&proxy, &link.expose()[..short]).await.status, 410, "a wrong one, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_under_another_name_of_this_machine_is_sent_to_the_right_one() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let host = format!("127.0.0.1:{}", proxy.admin.port());
    let fields = [("host", host.as_str()), ("accept", "text/html")];
    let path = "/api/auth/amazon/login?account=new&region=eu";
    let sent = ask(proxy.admin, Method::GET, path, &fields).await;
    let right = format!(
        "http://localhost:{}/api/auth/amazon/login?account=new&reconnect=",
        proxy.admin.port()
    );
    assert!(sent.status == 303 && sent.location().starts_with(&right), "{}", sent.location());
    assert!(!sent.headers.contains_key("set-cookie"));
    assert!(open_link(&proxy, sent.location()).await.location().contains("/ap/oa?"));
}

async fn gone(proxy: &Proxy, account: &str) {
    for _ in 0..400 {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
        let answer = proxy.send(request).await;
        if matches!(answer.error(), Some("unknown_account" | "reauthorization_required")) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{account} is still served");
}

async fn log_out(proxy: &Proxy, account: &str) -> Value {
    let body = json!({ "account": account }).to_string();
    let kind = [("content-type", "application/json")];
    let path = "/api/auth/amazon/logout";
    let reply = ask_with(proxy.admin, Method::POST, path, &kind, body).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn logging_out_forgets_record_notes_and_token() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    log_in(proxy.admin, INITECH, INITECH).await;
    assert_eq!(sees(&proxy, INITECH).await, [INITECH_PROFILE]);
    let pending = begin(proxy.admin, INITECH).await;
    let back = consent(&pending, INITECH).await;
    let done = log_out(&proxy, INITECH).await;
    assert_eq!(
        (done["revoked"].as_bool(), done["in_config"].as_bool()),
        (Some(false), Some(false))
    );
    gone(&proxy, INITECH).await;
    assert!(!proxy.dir.path().join("store/accounts/initech.json").exists());
    assert_eq!(come_back(proxy.admin, &back, &pending.cookie).await.code(), "state_unknown");
    let path = "/api/auth/amazon/logout";
    let kind = [("content-type", "application/json")];
    let again =
        ask_with(proxy.admin, Method::POST, path, &kind, r#"{"account":"initech"}"#.into()).await;
    assert_eq!(again.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_configuration_seeds_stays_logged_out() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    assert_eq!(sees(&proxy, "acme").await[0], ACME_PROFILE);
    assert_eq!(log_out(&proxy, "acme").await["in_config"], true);
    gone(&proxy, "acme").await;
    let proxy = proxy.restart();
    gone(&proxy, "acme").await;
    let record = proxy.dir.path().join("store/accounts/acme.json");
    assert!(record.exists(), "it keeps what was configured from being used again");
    // And a login brings it back, without a question: there is nothing to compare with.
    assert_eq!(log_in(proxy.admin, "acme", "acme").await.json()["state"], "connected");
    eventually_sees(&proxy, "acme", ACME_PROFILE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_revocation_endpoint_is_called() {
    let amazon = amazon().await;
    let lwa = format!("revocation_url = \"http://{}/auth/o2/revoke\"\n", amazon.addr());
    let proxy = proxy(&amazon, Setup { lwa, ..file_store() });
    log_in(proxy.admin, INITECH, INITECH).await;
    let token = amazon.state().lwa.grant(INITECH).expect("a grant").current().to_owned();
    assert_eq!(log_out(&proxy, INITECH).await["revoked"], true);
    let seen = revocations(&amazon);
    assert_eq!(seen.len(), 1);
    assert!(seen[0].contains("token_type_hint=refresh_token") && seen[0].contains("client_id="));
    assert_ne!(amazon.state().lwa.grant(INITECH).expect("a grant").current(), token);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_fails_is_told_and_the_account_forgotten_all_the_same() {
    let amazon = amazon().await;
    let dead = crate::support::login::free_address();
    let lwa = format!("revocation_url = \"http://{dead}/revoke\"\n");
    let proxy = proxy(&amazon, Setup { lwa, ..file_store() });
    log_in(proxy.admin, INITECH, INITECH).await;
    let done = log_out(&proxy, INITECH).await;
    assert!(done["revocation_error"].is_string() && done["revoked"] == false, "{done}");
    gone(&proxy, INITECH).await;
}

fn revocations(amazon: &Emulator) -> Vec<String> {
    let seen = amazon.state().record.requests_for(Surface::Revoke);
    seen.iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_in_the_audit_log_and_nothing_is_done_that_it_cannot_tell() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    log_in(proxy.admin, INITECH, INITECH).await;
    let question = log_in(proxy.admin, "acme", INITECH).await;
    answer(proxy.admin, &question, "no").await;
    log_out(&proxy, INITECH).await;
    let log = proxy.dir.path().join("store/audit.jsonl");
    let text = std::fs::read_to_string(&log).expect("an audit log");
    for action in ["login.started", "login", "reconnect.confirmed", "logout"] {
        assert!(text.contains(&format!("\"action\":\"{action}\"")), "{action} in {text}");
    }
    let begun = begin(proxy.admin, INITECH).await;
    let back = consent(&begun, INITECH).await;
    // Nobody can write there any more.
    std::fs::rename(&log, proxy.dir.path().join("aside")).expect("renamed");
    std::fs::create_dir(&log).expect("made");
    let refused = come_back(proxy.admin, &back, &begun.cookie).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "audit_failed"));
    assert!(!proxy.dir.path().join("store/accounts/initech.json").exists());
    let path = "/api/auth/amazon/login?account=new";
    assert_eq!(ask(proxy.admin, Method::GET, path, &[]).await.code(), "audit_failed");
    let kind = [("content-type", "application/json")];
    let body = r#"{"account":"acme"}"#.to_owned();
    let reply = ask_with(proxy.admin, Method::POST, "/api/auth/amazon/logout", &kind, body).await;
    assert_eq!(reply.code(), "audit_failed");
    assert_eq!(sees(&proxy, "acme").await[0], ACME_PROFILE, "requests go on");
}
