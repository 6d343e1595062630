//! `listen.public`: what a browser from the Internet must reach, and nothing else.

use crate::support::{
    login::{
        INITECH, Reply, answer, ask, ask_with, begin, come_back_in_browser, consent, free_address,
        log_in, proxy,
    },
    proxy::{self as server, Proxy, Setup, amazon},
};
use adsproxy::sandbox::Emulator;
use http::Method;
use std::net::SocketAddr;

/// A proxy with a public listener, and the address of that.
fn public(amazon: &Emulator) -> (Proxy, SocketAddr) {
    let public = free_address();
    let env = vec![("ADSPROXY_LISTEN__PUBLIC".to_owned(), public.to_string())];
    (proxy(amazon, Setup { file_store: true, env, ..Setup::default() }), public)
}

/// A reply without what differs from request to request.
fn shape(reply: &Reply) -> (u16, String) {
    let id = reply.headers["x-ads-proxy-request-id"].to_str().expect("ASCII");
    (reply.status.as_u16(), reply.text.replace(id, "ID"))
}

#[tokio::test(flavor = "multi_thread")]
async fn amazons_response_comes_back_by_the_public_listener_and_its_question_is_answered_there() {
    let amazon = amazon().await;
    let (proxy, public) = public(&amazon);
    let begun = begin(proxy.admin, INITECH).await;
    let back = consent(&begun, INITECH).await;
    let page = come_back_in_browser(public, &back, &begun.cookie).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.text.contains("is connected"), "{}", page.text);
    // Another user's grant for an account that is connected is a question.
    let begun = begin(proxy.admin, "acme").await;
    let back = consent(&begun, INITECH).await;
    let question = ask(public, Method::GET, &back, &[("cookie", &begun.cookie)]).await;
    assert_eq!(answer(public, &question, "no").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_works_there_and_without_one_no_login_begins() {
    let amazon = amazon().await;
    let (proxy, public) = public(&amazon);
    assert_eq!(log_in(proxy.admin, INITECH, INITECH).await.status, 200);
    let body = format!("{{\"account\":{INITECH:?}}}");
    let fields = [("content-type", "application/json")];
    let path = "/api/auth/amazon/logins";
    let made = ask_with(proxy.admin, Method::POST, path, &fields, body).await;
    let link: http::Uri = made.json()["url"].as_str().expect("a link").parse().expect("a URL");
    let link = link.path_and_query().expect("a path").as_str();
    let opened = ask(public, Method::GET, link, &[]).await;
    assert!(opened.json()["auth_url"].is_string(), "{}", opened.text);
    // Who guesses learns nothing of the accounts that there are.
    let guessed = |account: &str| format!("/api/auth/amazon/login?account={account}&reconnect=x");
    let mut seen = Vec::new();
    for account in [INITECH, "acme", "nobody"] {
        let reply = ask(public, Method::GET, &guessed(account), &[]).await;
        assert!(reply.status.is_client_error(), "{}", reply.text);
        seen.push(shape(&reply));
    }
    assert!(seen.iter().all(|shape| *shape == seen[0]), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wrong_links_keeps_no_operator_and_no_good_link_out() {
    let amazon = amazon().await;
    let (proxy, _) = public(&amazon);
    let fields = [("content-type", "application/json")];
    let body = || format!("{{\"account\":{INITECH:?}}}");
    let post = async |path| ask_with(proxy.admin, Method::POST, path, &fields, body()).await;
    let made = post("/api/auth/amazon/logins").await;
    let link: http::Uri = made.json()["url"].as_str().expect("a link").parse().expect("a URL");
    let link = link.path_and_query().expect("a path").as_str();
    // Without a credential.
    let open =
        |path: &str| server::ask(proxy.admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost"));
    let wrong = format!("/api/auth/amazon/login?account={INITECH}&reconnect=x");
    let mut flood = (0..400).map(|_| open(&wrong));
    let refused = flood.find(|answer| answer.starts_with("HTTP/1.1 429 ")).expect("an end of it");
    assert!(refused.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n"), "{refused}");
    let opened = open(link);
    assert!(opened.starts_with("HTTP/1.1 200 ") && opened.contains("auth_url"), "{opened}");
    for path in ["/api/auth/amazon/logout", "/api/auth/amazon/logins"] {
        assert_ne!(post(path).await.status, 429, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_there_for_nobody() {
    let amazon = amazon().await;
    let (proxy, public) = public(&amazon);
    let nothing = shape(&ask(public, Method::GET, "/nothing", &[]).await);
    assert_eq!(nothing.0, 404);
    assert!(!nothing.1.contains("GET /"), "{}", nothing.1);
    let login = "/api/auth/amazon/login";
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/livez"),
        (Method::GET, "/metrics"),
        (Method::GET, "/status"),
        (Method::GET, "/openapi.json"),
        (Method::GET, "/api/v1/accounts"),
        (Method::DELETE, "/api/v1/accounts/acme"),
        (Method::POST, "/api/v1/accounts/acme/token"),
        (Method::POST, "/api/auth/amazon/logins"),
        (Method::POST, "/api/auth/amazon/logout"),
        (Method::POST, "/api/auth/refresh"),
        (Method::GET, login),
        (Method::GET, &format!("{login}?account=acme")),
        (Method::GET, &format!("{login}?account=acme&reconnect=")),
        (Method::POST, "/api/auth/amazon/callback"),
        (Method::GET, "/a/acme/v2/profiles"),
    ] {
        assert_eq!(
            shape(&ask(public, method.clone(), path, &[]).await),
            nothing,
            "{method} {path}"
        );
        // The twin: it is the listener that makes the difference.
        if path == "/status" {
            assert_eq!(ask(proxy.admin, method, "/livez", &[]).await.status, 200);
        }
    }
    let foreign = ask(public, Method::GET, "/nothing", &[("host", "evil.example")]).await;
    assert_eq!(foreign.status, 403, "a name that leads here by rebinding");
}
