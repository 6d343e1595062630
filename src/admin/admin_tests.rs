//! Tests of the routes, and of the accept loop over a real socket.

use super::*;
use crate::{
    account::AccountView,
    callers::Callers,
    config::{self, Config},
    id::Region,
    inbound::peer::Peer,
};
use health::Readiness;
use http::header::{ALLOW, CONTENT_TYPE};
use http_body_util::Empty;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The service of one listener over accounts of its own, and its readiness.
fn served(surface: AdminSurface, guard: Guard) -> (Admin, Arc<Health>) {
    let health = Arc::<Health>::default();
    let logins = crate::login::tests::logins().0;
    let operator = config::CallerConfig {
        name: "operator".to_owned(),
        unix_uids: vec![7],
        rules: config::RulesConfig { operator: true, ..Default::default() },
        ..Default::default()
    };
    let config = Config { callers: vec![operator], ..Config::default() };
    let engine = &logins.engine;
    let (store, clock) = (engine.store().clone(), engine.clock().clone());
    let sessions = Sessions::new(store, Callers::new(&config), clock);
    let admin = Admin::new(surface, Arc::clone(&health), guard, logins, sessions);
    (admin.of_connection(&connection(7)), health)
}

/// Of a process of user `uid`.
fn connection(uid: u32) -> ConnectionInfo {
    ConnectionInfo::new(Peer::Unix { uid, gid: uid }, false)
}

fn admin() -> Admin {
    served(AdminSurface::Admin, Guard::default()).0
}

fn request(method: &str, path: &str, host: &str) -> Request<AdminBody> {
    let body = Empty::new().map_err(|never| match never {}).boxed();
    Request::builder().method(method).uri(path).header("host", host).body(body).unwrap()
}

/// Status, content type and body of an answer.
async fn ask(admin: &Admin, request: Request<AdminBody>) -> (u16, String, String) {
    let response = admin.clone().handle(request).await;
    assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    let kind = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind, String::from_utf8(body.into()).unwrap())
}

async fn get(admin: &Admin, path: &str) -> (u16, String, String) {
    ask(admin, request("GET", path, "localhost:8788")).await
}

#[tokio::test]
async fn health_follows_the_life_of_the_process_on_both_listeners() {
    for surface in [AdminSurface::Health, AdminSurface::Admin] {
        let (admin, health) = served(surface, Guard::default());
        let codes = async || {
            let mut codes = Vec::new();
            for path in ["/livez", "/startupz", "/readyz", "/healthz"] {
                codes.push(get(&admin, path).await.0);
            }
            codes
        };
        assert_eq!(codes().await, [200, 503, 503, 503]);
        health.set(Readiness::Ready);
        assert_eq!(codes().await, [200, 200, 200, 200]);
        let (code, _, body) = get(&admin, "/readyz?verbose").await;
        assert_eq!((code, body.as_str()), (200, "[+] serving ok\n[+] store ok\n"));
        assert_eq!(get(&admin, "/readyz").await.2, "ok\n");
        health.set(Readiness::Draining);
        assert_eq!(codes().await, [200, 200, 503, 503]);
    }
}

#[tokio::test]
async fn status_is_on_the_admin_listener_only() {
    let admin = admin();
    let (code, kind, body) = get(&admin, "/status").await;
    assert_eq!((code, kind.as_str()), (200, "application/json"));
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"), "store": "ok", "accounts": [], "throttled": [],
    });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    assert_eq!(get(&admin, "/").await.0, 200);
    let health = served(AdminSurface::Health, Guard::default()).0;
    assert_eq!(get(&health, "/status").await.0, 404);
    assert_eq!(get(&health, "/").await.0, 404);
    let (code, kind, _) = get(&health, "/metrics").await;
    assert_eq!((code, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
}

#[test]
fn status_shows_what_an_account_is() {
    let view = AccountView {
        account: "acme".parse().unwrap(),
        state: crate::account::State::ReauthorizationRequired,
        region: Region::Fe,
        application: "default".into(),
        expires_in: None,
        generation: 7,
        last_error: Some("invalid_grant".into()),
        reauthorization_required: true,
        consent_days_left: Some(12),
        is_unsaved: false,
    };
    let expected = json!({
        "account": "acme", "state": "reauthorization_required", "region": "fe",
        "application": "default", "expires_in_secs": null, "generation": 7,
        "last_error": "invalid_grant", "reauthorization_required": true,
        "consent_days_left": 12, "unsaved": false,
    });
    assert_eq!(json!(view), expected);
}

#[tokio::test]
async fn without_a_credential_nothing_tells_what_there_is_to_operate() {
    let admin = served(AdminSurface::Admin, Guard::default()).0.of_connection(&connection(8));
    let mut said = BTreeSet::new();
    for method in ["GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS"] {
        for path in ["/status", "/api/v1/accounts/acme", "/api/v1/accounts", "/nothing", "/api/"] {
            let mut request = request(method, path, "localhost");
            request.headers_mut().insert("x-request-id", HeaderValue::from_static("same"));
            let response = admin.clone().handle(request).await;
            assert_eq!(response.status(), 401, "{method} {path}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            said.insert(response.into_body().collect().await.unwrap().to_bytes());
        }
    }
    assert_eq!(said.len(), 1, "{said:?}");
    for path in ["/", "/livez", "/metrics", "/openapi.json"] {
        assert_eq!(get(&admin, path).await.0, 200, "{path}");
    }
    let handed_on = served(AdminSurface::Admin, Guard::default()).0;
    let of_nobody = Admin(handed_on.0, None);
    assert_eq!(get(&of_nobody, "/status").await.0, 401, "nor without a connection");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let admin = admin();
    for path in ["/nothing", "/livez/", "//livez", "/LIVEZ", "/debug/pprof"] {
        let (code, kind, body) = get(&admin, path).await;
        assert_eq!((code, kind.as_str()), (404, "application/problem+json"), "{path}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], 404);
    }
    for method in ["POST", "DELETE", "OPTIONS", "TRACE"] {
        let response = admin.clone().handle(request(method, "/livez", "localhost")).await;
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
    }
    assert_eq!(admin.clone().handle(request("HEAD", "/livez", "localhost")).await.status(), 200);
}

#[tokio::test]
async fn the_admin_listener_answers_no_foreign_host_or_site_but_the_health_listener_does() {
    let guard = Guard::new(&config::GuardConfig {
        allowed_hosts: vec!["ads.internal".into()],
        ..Default::default()
    });
    let admin = served(AdminSurface::Admin, guard).0;
    let health = served(AdminSurface::Health, Guard::default()).0;
    assert_eq!(ask(&admin, request("GET", "/livez", "ads.internal:1")).await.0, 200);
    let foreign = || request("GET", "/livez", "10.1.2.3:8789");
    assert_eq!(ask(&admin, foreign()).await.0, 403);
    assert_eq!(ask(&health, foreign()).await.0, 200);
    let mut browser = request("GET", "/status", "localhost");
    browser.headers_mut().insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
    let (code, kind, body) = ask(&admin, browser).await;
    assert_eq!((code, kind.as_str()), (403, "application/problem+json"));
    assert!(body.contains("caller_rejected"), "{body}");
}

#[tokio::test]
async fn serves_over_a_socket_and_finishes_at_a_drain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (drain, drained) = watch::channel(false);
    let serving = {
        let service = served(AdminSurface::Health, Guard::default()).0;
        let service = move |_: &_| Some(service.clone());
        let reject = |_| http::Response::default();
        tokio::spawn(crate::listen::control_plane::serve(listener, service, reject, drained))
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"HEAD /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    drain.send(true).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"\r\n\r\n"), "a HEAD has no body");
    tokio::time::timeout(Duration::from_secs(4), serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}
