//! Signing in to the dashboard and out of it: by which credential, for how long, and what a page of
//! another site cannot do.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    commands::Commands,
    dashboard::{PageEvents, Visitor, attributes, origin, send, try_sign_in, with_clock},
    login::{ask, ask_with, free_address},
    proxy::{Proxy, Setup, amazon},
    signer::TestIssuer,
};
use adsproxy::{sandbox::Emulator, testing::Clock as _};
use http::Method;
use serde_json::json;
use std::time::Duration;

const SIGN_IN: &str = "/dashboard/sign-in";

async fn server(toml: &str) -> (Emulator, Proxy) {
    let amazon = amazon().await;
    let setup = Setup { toml: toml.to_owned(), file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    (amazon, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_a_browser_is_sent_to_sign_in_and_a_program_gets_a_401() {
    let (_amazon, proxy) = server("").await;
    let page = send(proxy.admin, Method::GET, "/dashboard/accounts/acme?x=1", &[], &[]).await;
    assert_eq!(page.status, 303);
    assert_eq!(page.location(), "/dashboard/sign-in?next=%2Fdashboard%2Faccounts%2Facme%3Fx%3D1");
    let by = [("x-ads-key", OPERATOR.key.as_str()), ("accept", "*/*")];
    let program = send(proxy.admin, Method::GET, "/dashboard", &by, &[]).await;
    assert_eq!(program.status, 401, "a key is for the API, and a session for pages");
    assert_eq!(program.headers["x-ads-proxy-error"], "authentication_required");
    let form = send(proxy.admin, Method::POST, "/dashboard/accounts/acme/refresh", &[], &[]).await;
    assert_eq!(form.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_an_operator_signs_in_and_each_page_defends_itself() {
    let (_amazon, proxy) = server("").await;
    let reply =
        try_sign_in(proxy.admin, &[("key", &OPERATOR.key), ("next", "/dashboard/api")]).await;
    assert_eq!((reply.status.as_u16(), reply.location()), (303, "/dashboard/api"));
    assert_eq!(attributes(&reply), "Path=/; HttpOnly; SameSite=Lax");
    let visitor = Visitor::of(proxy.admin, &reply);
    let name = format!("adsproxy_dashboard_{}=", proxy.admin.port());
    assert!(visitor.cookie.starts_with(&name), "{}", visitor.cookie);
    for path in [
        "/dashboard",
        "/dashboard/accounts/acme",
        "/dashboard/accounts/acme/refresh",
        "/dashboard/accounts/acme/disconnect",
        "/dashboard/connect",
        "/dashboard/requests",
        "/dashboard/callers",
        "/dashboard/health",
        "/dashboard/audit",
        "/dashboard/api",
        SIGN_IN,
    ] {
        let page = visitor.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        let policy = page.headers["content-security-policy"].to_str().expect("ASCII");
        for part in [
            "default-src 'none'; ",
            "script-src 'self'; ",
            "frame-ancestors 'none'; ",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part) && !policy.contains("unsafe"), "{path}: {policy}");
        }
        for (field, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "same-origin"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(page.headers[field], value, "{path}");
        }
        assert!(page.text.contains("<main") && page.text.contains("Skip to the content"), "{path}");
        assert!(!page.text.contains("style=") && !page.text.contains(" onclick"), "{path}");
    }
    let page = visitor.page("/dashboard").await;
    let script = page.split("<script src=\"").nth(1).and_then(|rest| rest.split('"').next());
    let asset = send(proxy.admin, Method::GET, script.expect("a script"), &[], &[]).await;
    assert_eq!(
        (asset.status.as_u16(), &asset.headers["content-type"]),
        (200, &"text/javascript; charset=utf-8".parse().expect("a value"))
    );
    assert!(asset.headers["cache-control"].to_str().expect("ASCII").contains("immutable"));
    let other = send(proxy.admin, Method::GET, "/dashboard/assets/other.js", &[], &[]).await;
    assert_eq!(other.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_of_an_operator_or_a_tenant_signs_in_nobody() {
    let data = TestCaller::new("data", "");
    let (_amazon, proxy) = server(&data.toml).await;
    let session = ask_with(
        proxy.admin,
        Method::POST,
        "/api/v1/sessions",
        &[("content-type", "application/json")],
        json!({ "caller": "tests", "ttl_secs": 600 }).to_string(),
    )
    .await
    .json();
    let unknown = TestCaller::new("unknown", "");
    for (key, status) in [
        (data.key.as_str(), 403),
        (unknown.key.as_str(), 403),
        ("", 403),
        ("adsk_x", 403),
        (session["key"].as_str().expect("a key"), 403),
        (&data.other_secret(), 403),
    ] {
        let reply = try_sign_in(proxy.admin, &[("key", key)]).await;
        assert_eq!(reply.status, status, "{}", reply.text);
        assert!(!reply.headers.contains_key("set-cookie"));
        assert!(key.is_empty() || !reply.text.contains(key), "{}", reply.text);
    }
    // Another is allowed each three seconds, of which a busy machine has some.
    let mut tries = 0;
    while try_sign_in(proxy.admin, &[("key", &unknown.key)]).await.status != 429 {
        tries += 1;
        assert!(tries < 100, "an address has so many tries");
    }
    assert_eq!(try_sign_in(proxy.admin, &[("key", &OPERATOR.key)]).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_a_new_one_at_each_sign_in_and_over_after_the_sign_out() {
    let (_amazon, proxy) = server("").await;
    let name = format!("adsproxy_dashboard_{}", proxy.admin.port());
    let fixed = format!("{name}=chosen-by-another");
    let reply =
        send(proxy.admin, Method::POST, SIGN_IN, &[("cookie", &fixed)], &[("key", &OPERATOR.key)])
            .await;
    let first = Visitor::of(proxy.admin, &reply);
    assert_ne!(first.cookie, fixed);
    let chosen = Visitor { cookie: fixed, ..first.clone() };
    assert!(first.is_signed_in().await && !chosen.is_signed_in().await);
    let again = send(
        proxy.admin,
        Method::POST,
        SIGN_IN,
        &[("cookie", &first.cookie)],
        &[("key", &OPERATOR.key)],
    )
    .await;
    let second = Visitor::of(proxy.admin, &again);
    assert!(!first.is_signed_in().await, "what it was before is over");
    let elsewhere = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let out = second.post("/dashboard/sign-out", &[]).await;
    assert_eq!((out.status.as_u16(), out.location()), (303, SIGN_IN));
    assert!(attributes(&out).ends_with("Max-Age=0"), "{}", attributes(&out));
    assert!(!second.is_signed_in().await, "a cookie that was kept is worth nothing");
    assert!(elsewhere.is_signed_in().await, "the twin: another browser's goes on");
    let third = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    assert_eq!(third.post("/dashboard/sign-out", &[("everywhere", "1")]).await.status, 303);
    assert!(!third.is_signed_in().await && !elsewhere.is_signed_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_origin_or_without_the_token_of_its_session_changes_nothing() {
    let (_amazon, proxy) = server("").await;
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let (csrf, cookie) = (visitor.csrf().await, visitor.cookie.as_str());
    let other = Visitor::with_key(proxy.admin, &OPERATOR.key).await.csrf().await;
    let path = "/dashboard/accounts/acme/disconnect";
    let own = origin(proxy.admin);
    let form = async |fields: &[(&str, &str)], form: &[(&str, &str)]| {
        let fields = [fields, &[("cookie", cookie)]].concat();
        send(proxy.admin, Method::POST, path, &fields, form).await.status.as_u16()
    };
    let good = [("csrf", csrf.as_str())];
    for (fields, why) in [
        (vec![("origin", "http://localhost:1")], "another port"),
        (vec![("origin", "http://evil.test")], "another site"),
        (vec![("origin", "null")], "no page"),
        (vec![("origin", "")], "no origin"),
        (vec![("origin", own.as_str()), ("sec-fetch-site", "same-site")], "the browser's own word"),
        (vec![("host", "evil.test")], "another name"),
    ] {
        assert_eq!(form(&fields, &good).await, 403, "{why}");
    }
    for (fields, why) in [
        (vec![], "none"),
        (vec![("csrf", other.as_str())], "another session's"),
        (vec![("csrf", csrf.as_str()), ("csrf", csrf.as_str())], "two"),
        (vec![("csrf", "")], "empty"),
    ] {
        assert_eq!(form(&[], &fields).await, 403, "{why}");
    }
    assert_eq!(form(&[("content-type", "application/json")], &good).await, 400, "no form");
    assert_eq!(form(&[("content-type", "text/plain")], &good).await, 400, "no form");
    let status = ask(proxy.admin, Method::GET, "/api/v1/accounts/acme", &[]).await.json();
    assert_ne!(status["state"], "not_connected");
    let sign_in = send(
        proxy.admin,
        Method::POST,
        SIGN_IN,
        &[("origin", "http://localhost:1")],
        &[("key", &OPERATOR.key)],
    )
    .await;
    assert_eq!(sign_in.status, 403, "nobody is signed in by another page");
    assert_eq!(form(&[], &good).await, 303, "the twin");
    let status = ask(proxy.admin, Method::GET, "/api/v1/accounts/acme", &[]).await.json();
    assert_eq!(status["state"], "not_connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_tls_the_cookie_is_bound_to_the_host_and_counts_by_that_name_only() {
    let (_amazon, proxy) = server("[guard]\nallowed_hosts = [\"ads.example.com\"]\n").await;
    let fields = [("host", "ads.example.com"), ("origin", "https://ads.example.com")];
    let reply = send(proxy.admin, Method::POST, SIGN_IN, &fields, &[("key", &OPERATOR.key)]).await;
    assert_eq!(attributes(&reply), "Path=/; HttpOnly; SameSite=Lax; Secure");
    let cookie = reply.cookie();
    let secret = cookie.strip_prefix("__Host-adsproxy=").expect("the name of HTTPS");
    let visitor = Visitor { admin: proxy.admin, cookie: cookie.clone() };
    assert!(visitor.is_signed_in().await);
    let plain = format!("adsproxy_dashboard_{}={secret}", proxy.admin.port());
    assert!(
        !Visitor { cookie: plain, ..visitor }.is_signed_in().await,
        "set by a page without TLS"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_the_command_signs_in_once() {
    let amazon = amazon().await;
    let admin = Some(free_address());
    let proxy = Proxy::with(&amazon, Setup { admin, file_store: true, ..Setup::default() });
    let said = Commands::of(&proxy).run("dashboard --no-browser");
    assert_eq!(said.code, Some(0), "{}", said.err);
    let url = said.out.trim();
    let path = url.strip_prefix(&format!("http://{}", proxy.admin)).expect("the admin listener");
    let (_, link) = path.split_once("?link=").expect("a link");
    let page = send(proxy.admin, Method::GET, path, &[], &[]).await;
    assert!(page.status == 200 && page.text.contains("data-send"), "{}", page.text);
    assert!(!page.headers.contains_key("set-cookie"), "what looks at links signs nobody in");
    let reply = try_sign_in(proxy.admin, &[("link", link)]).await;
    let visitor = Visitor::of(proxy.admin, &reply);
    let uid = rustix::process::getuid().as_raw();
    assert!(visitor.page("/dashboard").await.contains(&format!("user {uid} of this machine")));
    assert_eq!(try_sign_in(proxy.admin, &[("link", link)]).await.status, 403, "once");
    let log = ask(proxy.admin, Method::GET, "/api/v1/audit?action=dashboard.sign_in", &[]).await;
    assert!(
        log.text.contains("\"user\":\"dashboard\"") && !log.text.contains(link),
        "{}",
        log.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_the_command_leads_to_the_configured_address_and_its_cookie_is_of_https() {
    let behind = "[guard]\nallowed_hosts = [\"ads.example.com\"]\n[dashboard]\nurl = \"https://ads.example.com/\"\n";
    let (_amazon, proxy) = server(behind).await;
    let said = Commands::of(&proxy).run("dashboard --no-browser");
    assert_eq!(said.code, Some(0), "{}", said.err);
    let path = said.out.trim().strip_prefix("https://ads.example.com").expect("the proxy in front");
    let (_, link) = path.split_once("/dashboard/sign-in?link=").expect("a link");
    let fields = [("host", "ads.example.com"), ("origin", "https://ads.example.com")];
    let reply = send(proxy.admin, Method::POST, SIGN_IN, &fields, &[("link", link)]).await;
    assert!(reply.cookie().starts_with("__Host-adsproxy="), "{}", reply.cookie());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_key_that_it_began_with() {
    let second = TestCaller::new("second", "operator = true");
    let (_amazon, proxy) = server(&second.toml).await;
    let visitor = Visitor::with_key(proxy.admin, &second.key).await;
    let other = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let id = &second.key[5..13];
    assert!(other.page("/dashboard/callers").await.contains(id));
    let asked = other.page(&format!("/dashboard/keys/{id}/revoke")).await;
    assert!(asked.contains("accepted no more"), "{asked}");
    let revoked = other.post(&format!("/dashboard/keys/{id}/revoke"), &[]).await;
    assert_eq!(revoked.status, 303, "{}", revoked.text);
    assert!(!visitor.is_signed_in().await);
    assert!(other.is_signed_in().await, "the twin");
    assert_eq!(try_sign_in(proxy.admin, &[("key", &second.key)]).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_proxy_or_clerk_brings_signs_in_and_its_session_ends_with_the_issuer() {
    let issuer = TestIssuer::named("staff", "tenant_claim = []\noperator = true");
    let (_amazon, proxy) = server(&issuer.toml).await;
    let token = issuer.token(json!({ "sub": "boss" }));
    let bearer = format!("Bearer {token}");
    let clerk = format!("__session={token}");
    for field in [("authorization", bearer.as_str()), ("cookie", clerk.as_str())] {
        let page = send(proxy.admin, Method::GET, SIGN_IN, &[field], &[]).await;
        assert!(page.text.contains("your company"), "{}", page.text);
        let reply = send(proxy.admin, Method::POST, SIGN_IN, &[field], &[]).await;
        let visitor = Visitor::of(proxy.admin, &reply);
        let page = visitor.page("/dashboard").await;
        assert!(page.contains("boss (staff)") && page.contains("acme"), "{page}");
    }
    let wrong =
        format!("Bearer {}", TestIssuer::named("staff", "").token(json!({ "sub": "boss" })));
    let reply = send(proxy.admin, Method::POST, SIGN_IN, &[("authorization", &wrong)], &[]).await;
    assert_eq!(reply.status, 403, "{}", reply.text);
    assert_eq!(try_sign_in(proxy.admin, &[]).await.status, 403, "nothing");
    let reply = send(proxy.admin, Method::POST, SIGN_IN, &[("authorization", &bearer)], &[]).await;
    let visitor = Visitor::of(proxy.admin, &reply);
    Commands::of(&proxy).edit("name = \"staff\"", "name = \"other\"");
    let reloaded = ask(proxy.admin, Method::POST, "/api/v1/reload", &[]).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.text);
    assert!(!visitor.is_signed_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_see_nothing_of_each_other() {
    let [a, b] = ["a", "b"]
        .map(|name| TestCaller::new(&format!("of-{name}"), &format!("tenant = \"{name}\"")));
    let accounts = "[accounts.\"a~shop\"]\nregion = \"na\"\nrefresh_token = { env = \"ACME_REFRESH\" }\n\
        [accounts.\"b~zebra\"]\nregion = \"eu\"\nrefresh_token = { env = \"GLOBEX_REFRESH\" }\n";
    let (_amazon, proxy) = server(&[&a.toml, &b.toml, accounts].concat()).await;
    let visitor = Visitor::with_key(proxy.admin, &a.key).await;
    for path in [
        "/dashboard",
        "/dashboard/accounts/shop",
        "/dashboard/requests",
        "/dashboard/callers",
        "/dashboard/health",
        "/dashboard/api",
        "/dashboard/connect",
    ] {
        let page = visitor.page(path).await;
        for word in ["zebra", "acme", "globex", "of-b", "a~shop"] {
            let words = page.split(|c: char| !c.is_ascii_alphanumeric() && !"-~".contains(c));
            assert!(!words.into_iter().any(|one| one == word), "{path}: {word} in {page}");
        }
    }
    assert!(visitor.page("/dashboard").await.contains("shop"));
    for path in
        ["/dashboard/accounts/zebra", "/dashboard/accounts/b~zebra", "/dashboard/accounts/missing"]
    {
        let reply = visitor.get(path).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text);
    }
    assert_eq!(visitor.get("/dashboard/keys/abcdefgh/revoke").await.status, 403);
    assert_eq!(visitor.post("/dashboard/sessions", &[("caller", "of-a")]).await.status, 403);
    for action in ["refresh", "disconnect"] {
        let reply = visitor.post(&format!("/dashboard/accounts/zebra/{action}"), &[]).await;
        assert_eq!(reply.status, 404, "{}", reply.text);
    }
    assert_eq!(visitor.post("/dashboard/accounts/shop/refresh", &[]).await.status, 303, "the twin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_without_use_and_what_cannot_be_taken_back_wants_a_fresh_sign_in() {
    let (amazon, directory) = (amazon().await, tempfile::tempdir().expect("a directory"));
    let (app, clock) = with_clock(&amazon, directory.path(), "kind = \"memory\"");
    let (admin, began) = (app.admin_address().expect("an address"), clock.now().wall);
    let at = |minutes: u64| clock.set_wall(began + Duration::from_secs(60 * minutes));
    let visitor = Visitor::with_key(admin, &OPERATOR.key).await;
    let other = Visitor::with_key(admin, &OPERATOR.key).await;
    at(4);
    assert_eq!(visitor.get("/dashboard/accounts/acme/disconnect").await.status, 200);
    at(6);
    let asked = visitor.get("/dashboard/accounts/acme/disconnect").await;
    let expected = "/dashboard/sign-in?next=%2Fdashboard%2Faccounts%2Facme%2Fdisconnect&fresh=1";
    assert_eq!((asked.status.as_u16(), asked.location()), (303, expected));
    for path in ["/dashboard/accounts/acme/disconnect", "/dashboard/sessions"] {
        let sent = visitor.post(path, &[("caller", "tests"), ("ttl_secs", "60")]).await;
        assert!(sent.location().starts_with("/dashboard/sign-in?"), "{path}: {}", sent.text);
    }
    assert_eq!(visitor.get("/dashboard/accounts/acme/refresh").await.status, 200, "the twin");
    at(31);
    assert!(!other.is_signed_in().await, "it was not used");
    assert!(visitor.is_signed_in().await);
    let live = [("cookie", visitor.cookie.as_str()), ("x-ads-dashboard", "live")];
    at(50);
    let updated = send(admin, Method::GET, "/dashboard", &live, &[]).await;
    assert_eq!(updated.status, 200);
    let mut stream = PageEvents::of(&visitor, "/dashboard");
    stream.until("acme");
    at(62);
    assert!(!visitor.is_signed_in().await, "that the page brings itself up to date is no use");
    assert!(stream.rest().ends_with("event: end\ndata: 1\n\n"), "nor is its stream");
    let busy = Visitor::with_key(admin, &OPERATOR.key).await;
    for half_hours in 1..24 {
        at(62 + 29 * half_hours);
        assert!(busy.is_signed_in().await, "{half_hours}");
    }
    at(62 + 720);
    assert!(!busy.is_signed_in().await, "twelve hours are the most");
    assert!(tokio::task::block_in_place(|| app.drain()));
}
