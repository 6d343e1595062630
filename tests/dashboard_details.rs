//! What the pages of an account, of health and of the audit log tell besides the state: how refreshes and
//! calls went, what hooks were told, keys, applications, servers, and whether the log is as it was.

use crate::support::{
    callers::OPERATOR,
    dashboard::{PageEvents, Visitor},
    login::login_setup,
    proxy::{Proxy, Setup, amazon, eventually},
    receiver::{Manner, Receiver, SECRET},
    world::World,
};
use adsproxy::sandbox::Emulator;
use http::{Method, StatusCode};
use std::fs;

async fn server(toml: &str) -> (Emulator, Proxy, Visitor) {
    let amazon = amazon().await;
    let setup = Setup { toml: toml.to_owned(), file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    (amazon, proxy, visitor)
}

/// The part of a page between two headings.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("<h2>{heading}</h2>")).expect("the heading");
    rest.split("<h2>").next().expect("a first part")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_amazon_refused_is_counted_by_class_for_each_account_and_what_was_sent_again() {
    let (amazon, proxy, visitor) = server("").await;
    let (acme, globex) = ("/dashboard/accounts/acme", "/dashboard/accounts/globex");
    let mut stream = PageEvents::of(&visitor, acme);
    let heading = "Calls that Amazon refused";
    assert!(section(&visitor.page(acme).await, heading).contains("None since the server started"));
    for _ in 0..2 {
        assert_eq!(proxy.get("/_status/403").await.status, StatusCode::FORBIDDEN);
    }
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let write = proxy.request(Method::POST, "/_status/429").header("x-ads-account", "acme");
    assert_eq!(proxy.send(write).await.status, StatusCode::TOO_MANY_REQUESTS);
    let page = visitor.page(acme).await;
    for row in [
        "<th scope=\"row\">read</th><td>1</td><td>2</td><td>0</td><td>1</td>",
        "<th scope=\"row\">write</th><td>0</td><td>0</td><td>1</td><td>0</td>",
    ] {
        assert!(section(&page, heading).contains(row), "{page}");
    }
    stream.until("write</th><td>0</td><td>0</td><td>1</td>");
    let other = visitor.page(globex).await;
    assert!(section(&other, heading).contains("None since the server started"), "{other}");
    assert!(!page.contains("Messages to hooks"), "there are no hooks");
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_are_plotted_by_day_and_the_plot_outlives_the_server() {
    let (amazon, mut proxy, mut visitor) = server("").await;
    let path = "/dashboard/accounts/acme";
    let entries = |proxy: &Proxy| {
        let log = fs::read_to_string(proxy.dir.path().join("store/audit.jsonl")).expect("a log");
        log.matches(r#""action":"token.refresh","account":"acme""#).count()
    };
    for _ in 0..2 {
        let before = entries(&proxy);
        amazon.state().lwa.expire_access_tokens(Some("acme"));
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
        eventually("the refresh is in the log", || entries(&proxy) > before).await;
        let page = visitor.page(path).await;
        let plot = section(&page, "Refreshes of 30 days");
        let (_, text) = plot.split_once("<desc id=\"plot-text\">").expect("a text");
        let count: usize = text.split(' ').next().expect("a word").parse().expect("a number");
        assert!(count > before, "{count} after {before}: {plot}");
        assert!(plot.contains("role=\"img\" aria-labelledby=\"plot-title plot-text\""), "{plot}");
        assert!(plot.contains(&format!("<td>{count}</td><td>0</td>")), "{plot}");
        // Another process has what this one counted.
        proxy = proxy.restart();
        visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    }
    drop(proxy);
    let proxy = Proxy::start(&amazon);
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let page = visitor.page(path).await;
    assert!(section(&page, "Refreshes of 30 days").contains("no audit log is kept"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hooks_were_told_of_an_account_is_on_its_page_with_what_became_of_it() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(503));
    let hook = receiver.hook("ops", r#"events = ["token.refreshed"]"#);
    let toml = format!("{hook}[outbox]\nretry_min_secs = 0.05\nretry_max_secs = 0.2\n");
    let env = vec![("HOOK_SECRET".to_owned(), SECRET.to_owned())];
    let proxy = Proxy::with(&amazon, Setup { toml, env, file_store: true, ..Setup::default() });
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let mut stream = PageEvents::of(&visitor, "/dashboard/accounts/acme");
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    stream.until("failed, to be sent again");
    let failed = stream.until("</tr>");
    assert!(failed.contains("503"), "{failed}");
    receiver.be(Manner::Status(204));
    stream.until(">delivered<");
    let page = visitor.page("/dashboard/accounts/acme").await;
    let told = section(&page, "Messages to hooks");
    assert!(told.contains(">ops<") && told.contains(">delivered<"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_checked_by_a_button_and_a_change_is_named() {
    let (_amazon, proxy, visitor) = server("").await;
    let path = "/dashboard/audit";
    let mut stream = PageEvents::of(&visitor, path);
    stream.until("was not checked");
    assert_eq!(visitor.get("/dashboard/audit/verify").await.status, 401, "there is no such page");
    let sent = visitor.post("/dashboard/audit/verify", &[]).await;
    assert_eq!((sent.status.as_u16(), sent.location()), (303, path));
    stream.until("Clean. ");
    let page = visitor.page(path).await;
    assert!(page.contains("files: 1.") && !page.contains("Changed since"), "{page}");
    let log = proxy.dir.path().join("store/audit.jsonl");
    let text = fs::read_to_string(&log).expect("a log");
    fs::write(&log, text.replacen("server.start", "server.stop", 1)).expect("written");
    assert_eq!(visitor.post("/dashboard/audit/verify", &[]).await.status, 303);
    stream.until("Changed since");
    let page = visitor.page(path).await;
    assert!(
        page.contains(": changed, or not written by adsproxy") && page.contains("audit.jsonl:"),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_checks_no_log_and_is_told_of_no_key_and_no_other_server() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let visitor = Visitor::with_key(world.proxy.admin, &world.tenant.key).await;
    assert_eq!(visitor.post("/dashboard/audit/verify", &[]).await.status, 403);
    let health = visitor.page("/dashboard/health").await;
    for heading in
        ["Encryption keys", "Servers on this store", "Limits that were hit", "Login with Amazon"]
    {
        assert!(!health.contains(heading), "{heading}: {health}");
    }
    let key = &world.tenant.key;
    let call = world.proxy.request(Method::GET, "/_status/403").header("x-ads-key", key);
    assert_eq!(world.proxy.send(call.header("x-ads-account", "shop")).await.status, 403);
    PageEvents::of(&visitor, "/dashboard/accounts/shop").until("/_status/403");
    let page = visitor.page("/dashboard/accounts/shop").await;
    assert!(page.contains("<th scope=\"row\">read</th>") && !page.contains("a~shop"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_names_keys_applications_limits_and_the_servers_of_the_store() {
    let amazon = amazon().await;
    let setup = Setup { file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, login_setup(&amazon, setup));
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let page = visitor.page("/dashboard/health").await;
    assert!(section(&page, "Limits that were hit").contains("None since"), "{page}");
    let servers = section(&page, "Servers on this store");
    let version = env!("CARGO_PKG_VERSION");
    assert!(servers.contains("this server</th>") && servers.contains(version), "{servers}");
    assert!(!servers.contains(", process "), "{servers}");
    let keys = section(&page, "Encryption keys");
    assert!(keys.contains("</code> seals and opens") && !keys.contains("</code> opens"), "{keys}");
    let secret = fs::read_to_string(proxy.dir.path().join("key")).expect("a key");
    assert!(!page.contains(secret.trim()), "no material");
    let lwa = section(&page, "Login with Amazon");
    assert!(lwa.contains("no trouble") && lwa.contains("<td>2</td>"), "{lwa}");
    let large = proxy.request(Method::GET, "/v2/profiles").header("x-large", "x".repeat(200_000));
    assert_eq!(proxy.send(large).await.status, 431);
    let twin = proxy.twin_of_login();
    let page = visitor.page("/dashboard/health").await;
    assert!(section(&page, "Limits that were hit").contains("<code>headers</code>"), "{page}");
    let servers = section(&page, "Servers on this store");
    assert!(
        servers.contains(", process ") && !servers.contains("does not have the key"),
        "{servers}"
    );
    drop(twin);
}
