//! Sessions that users with a JWT make for themselves: where the operator allows it, never more than
//! the user may, and in nobody else's sight.

use crate::support::{
    callers::OPERATOR,
    login::{Reply, ask_with},
    proxy::{Proxy, Setup, amazon, ask, eventually},
    signer::TestIssuer,
};
use adsproxy::sandbox::Emulator;
use http::Method;
use serde_json::{Value, json};
use std::fs;

const SESSIONS: &str = "/api/v1/sessions";

/// Accounts of two organisations.
const ACCOUNTS: &str = "[accounts.\"org_1~shop\"]\nregion = \"na\"\n\
    refresh_token = { env = \"ACME_REFRESH\" }\n[accounts.\"org_2~other\"]\nregion = \"na\"\n\
    refresh_token = { env = \"ACME_REFRESH\" }\n";

fn server(amazon: &Emulator, issuers: &[&TestIssuer]) -> Proxy {
    let issuers: String = issuers.iter().map(|issuer| issuer.toml.as_str()).collect();
    let toml = format!("{issuers}\n{ACCOUNTS}[auth]\nrequired = true\n");
    Proxy::with(amazon, Setup { toml, file_store: true, ..Setup::default() })
}

/// An issuer with tenants whose users may make sessions.
fn with_tenants(more: &str) -> TestIssuer {
    TestIssuer::new(&format!("tenant_claim = [\"org_id\"]\nsession_ttl_max_secs = 3600\n{more}"))
}

fn user(issuer: &TestIssuer, subject: &str, org: &str) -> (&'static str, String) {
    let token = issuer.token(json!({ "sub": subject, "org_id": org }));
    ("authorization", format!("Bearer {token}"))
}

fn key(session: &Value) -> (&'static str, String) {
    ("x-ads-key", session["key"].as_str().expect("a key").to_owned())
}

fn operator() -> (&'static str, String) {
    ("x-ads-key", OPERATOR.key.clone())
}

type Credential = (&'static str, String);

async fn admin(proxy: &Proxy, by: &Credential, method: Method, path: &str, body: Value) -> Reply {
    let fields = [(by.0, by.1.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    ask_with(proxy.admin, method, path, &fields, body).await
}

async fn make(proxy: &Proxy, by: &Credential, body: Value) -> Value {
    let reply = admin(proxy, by, Method::POST, SESSIONS, body).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.json()
}

async fn refused(proxy: &Proxy, by: &Credential, body: Value) -> (u16, String) {
    let reply = admin(proxy, by, Method::POST, SESSIONS, body).await;
    (reply.status.as_u16(), reply.text)
}

/// The ids of the sessions that are in sight.
async fn seen(proxy: &Proxy, by: &Credential) -> Vec<String> {
    let reply = admin(proxy, by, Method::GET, SESSIONS, Value::Null).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let list = reply.json()["sessions"].as_array().expect("a list").clone();
    let mut ids: Vec<_> = list.iter().map(id).collect();
    ids.sort();
    ids
}

fn id(session: &Value) -> String {
    session["id"].as_str().expect("an id").to_owned()
}

async fn end(proxy: &Proxy, by: &Credential, session: &Value) -> u16 {
    let path = format!("{SESSIONS}/{}", id(session));
    admin(proxy, by, Method::DELETE, &path, Value::Null).await.status.as_u16()
}

/// The status of a request on the data plane.
async fn send(proxy: &Proxy, by: &Credential, method: Method, path: &str) -> u16 {
    proxy.send(proxy.request(method, path).header(by.0, &by.1)).await.status.as_u16()
}

fn edit(proxy: &Proxy, from: &str, to: &str) {
    let path = proxy.dir.path().join("proxy.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(path, text.replace(from, to)).expect("a configuration");
}

async fn reload(proxy: &Proxy) {
    let reply = admin(proxy, &operator(), Method::POST, "/api/v1/reload", json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_makes_no_session_unless_the_operator_allows_it_and_says_how_long() {
    let amazon = amazon().await;
    let plain = TestIssuer::named("plain", "tenant_claim = [\"org_id\"]");
    let allowed = with_tenants("");
    let proxy = server(&amazon, &[&plain, &allowed]);
    let body = || json!({ "ttl_secs": 600 });
    let (status, text) = refused(&proxy, &user(&plain, "user_1", "org_1"), body()).await;
    assert!(status == 403 && text.contains("session_ttl_max_secs"), "{status} {text}");
    let by = user(&allowed, "user_1", "org_1");
    let session = make(&proxy, &by, json!({ "ttl_secs": 3600, "note": "export" })).await;
    let time = |name: &str| -> jiff::Timestamp {
        session[name].as_str().expect("a time").parse().expect("RFC 3339")
    };
    assert_eq!(time("expires").as_second() - time("created").as_second(), 3600);
    let (status, text) = refused(&proxy, &by, json!({ "ttl_secs": 3601 })).await;
    assert!(status == 400 && text.contains("issuers.session_ttl_max_secs = 3600"), "{text}");
    // The configured caller is another one; its own name is itself.
    let (status, text) = refused(&proxy, &by, json!({ "caller": "tests", "ttl_secs": 1 })).await;
    assert!(status == 403 && text.contains("leave out"), "{status} {text}");
    make(&proxy, &by, json!({ "caller": "app", "ttl_secs": 60 })).await;
    assert_eq!(seen(&proxy, &by).await.len(), 2);
    assert!(seen(&proxy, &user(&plain, "user_1", "org_1")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_session_does_what_the_user_may_in_the_own_tenant_and_no_more() {
    let amazon = amazon().await;
    let issuer = with_tenants("paths = [\"/v2/*\", \"/_sink\"]");
    let reader = TestIssuer::named(
        "staff",
        "tenant_claim = []\nread_only = true\nsession_ttl_max_secs = 60",
    );
    let proxy = server(&amazon, &[&issuer, &reader]);
    let by = user(&issuer, "user_1", "org_1");
    let whole = key(&make(&proxy, &by, json!({ "ttl_secs": 600 })).await);
    let narrow = json!({ "ttl_secs": 600, "read_only": true, "accounts": ["sh*"] });
    let narrow = key(&make(&proxy, &by, narrow).await);
    let wider = json!({ "ttl_secs": 600, "accounts": ["*", "org_2~other"] });
    let wider = key(&make(&proxy, &by, wider).await);
    for (method, path, expected) in [
        (Method::GET, "/a/shop/v2/profiles", [200, 200, 200, 200]),
        (Method::POST, "/a/shop/_sink", [200, 200, 200, 403]),
        (Method::GET, "/a/shop/sp/x", [403, 403, 403, 403]),
        (Method::GET, "/a/other/v2/profiles", [404, 404, 404, 404]),
        (Method::GET, "/a/org_2~other/v2/profiles", [404, 404, 404, 404]),
        (Method::GET, "/a/acme/v2/profiles", [404, 404, 404, 404]),
    ] {
        for (by, expected) in [&by, &whole, &wider, &narrow].into_iter().zip(expected) {
            let status = send(&proxy, by, method.clone(), path).await;
            assert_eq!(status, expected, "{method} {path}");
        }
    }
    // Of a user without a tenant, who may only read: so may the session.
    let staff = ("authorization", format!("Bearer {}", reader.token(json!({ "sub": "boss" }))));
    let session = make(&proxy, &staff, json!({ "ttl_secs": 60 })).await;
    assert_eq!(send(&proxy, &key(&session), Method::GET, "/a/acme/v2/profiles").await, 200);
    assert_eq!(send(&proxy, &key(&session), Method::POST, "/a/acme/_sink").await, 403);
    assert_eq!(seen(&proxy, &staff).await, [id(&session)]);
    // It makes no session, and is no operator.
    for by in [&whole, &narrow, &key(&session)] {
        assert_eq!(refused(&proxy, by, json!({ "ttl_secs": 60 })).await.0, 403);
        assert_eq!(admin(&proxy, by, Method::GET, "/api/v1/audit", Value::Null).await.status, 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_and_ends_its_own_sessions_only_and_operators_all() {
    let amazon = amazon().await;
    let (issuer, other) = (
        with_tenants(""),
        TestIssuer::named("other", "tenant_claim = [\"org_id\"]\nsession_ttl_max_secs = 60"),
    );
    let proxy = server(&amazon, &[&issuer, &other]);
    let by = user(&issuer, "user_1", "org_1");
    let strangers = [
        user(&issuer, "user_2", "org_1"),
        user(&issuer, "user_1", "org_2"),
        user(&other, "user_1", "org_1"),
    ];
    let (own, second) = (
        make(&proxy, &by, json!({ "ttl_secs": 600 })).await,
        make(&proxy, &by, json!({ "ttl_secs": 600 })).await,
    );
    assert!(own.get("made_by").is_none(), "{own}");
    let mut theirs = Vec::new();
    for stranger in &strangers {
        theirs.push(make(&proxy, stranger, json!({ "ttl_secs": 60 })).await);
    }
    let missing =
        admin(&proxy, &by, Method::DELETE, &format!("{SESSIONS}/0000000x"), Value::Null).await;
    let shape = |reply: &Reply| {
        let id = reply.headers["x-ads-proxy-request-id"].to_str().expect("ASCII");
        (reply.status.as_u16(), reply.text.replace(id, "ID"))
    };
    for (stranger, session) in strangers.iter().zip(&theirs) {
        assert_eq!(seen(&proxy, stranger).await, [id(session)]);
        for method in [Method::GET, Method::DELETE] {
            let path = format!("{SESSIONS}/{}", id(&own));
            let reply = admin(&proxy, stranger, method, &path, Value::Null).await;
            assert_eq!(shape(&reply), shape(&missing), "as one that is not there");
        }
    }
    let mut both = vec![id(&own), id(&second)];
    both.sort();
    assert_eq!(seen(&proxy, &by).await, both);
    let profiles = "/a/shop/v2/profiles";
    assert_eq!(send(&proxy, &key(&own), Method::GET, profiles).await, 200);
    assert_eq!(seen(&proxy, &key(&own)).await, [id(&own)], "a session sees itself");
    assert_eq!(end(&proxy, &key(&second), &own).await, 403, "and ends no other");
    assert_eq!(end(&proxy, &by, &own).await, 200);
    assert_eq!(send(&proxy, &key(&own), Method::GET, profiles).await, 403);
    assert_eq!(end(&proxy, &key(&second), &second).await, 200);
    // An operator sees all, with who made them, and ends any.
    let path = format!("{SESSIONS}/{}", id(&theirs[0]));
    let shown = admin(&proxy, &operator(), Method::GET, &path, Value::Null).await.json();
    assert_eq!(shown["made_by"], json!({ "caller": "app", "subject": "user_2" }), "{shown}");
    assert_eq!((&shown["subject"], &shown["tenant"]), (&json!("user_2"), &json!("org_1")));
    assert_eq!(seen(&proxy, &operator()).await.len(), 3);
    assert_eq!(end(&proxy, &operator(), &theirs[0]).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_session_ends_with_what_allowed_it() {
    let amazon = amazon().await;
    let issuer = with_tenants("# more");
    let proxy = server(&amazon, &[&issuer]);
    let by = user(&issuer, "user_1", "org_1");
    let session = make(&proxy, &by, json!({ "ttl_secs": 3600 })).await;
    let status = async || send(&proxy, &key(&session), Method::GET, "/a/shop/v2/profiles").await;
    assert_eq!(status().await, 200);
    for (from, to) in [
        ("session_ttl_max_secs = 3600", "# none"),
        ("# more", "tenants = [\"org_2\"]"),
        ("tenant_claim = [\"org_id\"]", "tenant_claim = []"),
        ("https://app.example.com", "https://app2.example.com"),
        ("name = \"app\"", "name = \"app2\""),
        ("# more", "methods = [\"POST\"]"),
    ] {
        edit(&proxy, from, to);
        reload(&proxy).await;
        assert_eq!(status().await, 403, "{to}");
        edit(&proxy, to, from);
        reload(&proxy).await;
        assert_eq!(status().await, 200, "{from}");
    }
    edit(&proxy, "# more", "accounts = [\"x\"]");
    reload(&proxy).await;
    assert_eq!(status().await, 404, "by the rules as they are");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_whose_session_it_is_and_who_used_it() {
    let amazon = amazon().await;
    let issuer = with_tenants("");
    let proxy = server(&amazon, &[&issuer]);
    let by = user(&issuer, "user_1", "org_1");
    let first = make(&proxy, &by, json!({ "ttl_secs": 600 })).await;
    assert_eq!(send(&proxy, &key(&first), Method::GET, "/a/shop/v2/profiles").await, 200);
    let refresh = "/api/auth/refresh";
    let reply =
        admin(&proxy, &key(&first), Method::POST, refresh, json!({ "account": "shop" })).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(end(&proxy, &operator(), &first).await, 200);
    let log = proxy.dir.path().join("store/audit.jsonl");
    let entries = |action: &str| -> Vec<Value> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|entry| entry["action"] == action && entry["outcome"] == "ok").collect()
    };
    eventually("all is on record", || {
        ["session.issue", "session.revoke"].iter().all(|action| !entries(action).is_empty())
    })
    .await;
    let issued = entries("session.issue").remove(0);
    let of = |entry: &Value| {
        (entry["about"].clone(), entry["caller"].clone(), entry["caller_subject"].clone())
    };
    let expected = (json!(id(&first)), json!("app"), json!("user_1"));
    assert_eq!((of(&issued), &issued["subject"]), (expected.clone(), &json!("user_1")), "{issued}");
    assert_eq!(issued["tenant"], "org_1");
    let revoked = entries("session.revoke").remove(0);
    assert_eq!((of(&revoked), &revoked["user"]), (expected, &json!("tests")), "{revoked}");
    let text = fs::read_to_string(&log).expect("a log");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut refreshes =
        lines.filter(|entry| entry["actor"] == "admin" && entry["account"] == "org_1~shop");
    let session = format!("adss_{}", id(&first));
    let is_told =
        |entry: &Value| entry["session"] == session.as_str() && entry["subject"] == "user_1";
    assert!(refreshes.any(|entry| is_told(&entry)), "{text}");
    assert!(!text.contains(first["key"].as_str().expect("a key")), "no key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_reads_sixty_times_at_once_and_keeps_no_other_from_reading() {
    let amazon = amazon().await;
    let issuer = with_tenants("");
    let proxy = server(&amazon, &[&issuer]);
    let (one, two) = (user(&issuer, "user_1", "org_1"), user(&issuer, "user_2", "org_1"));
    let head = format!("GET /api/v1/accounts HTTP/1.1\r\nHost: localhost\r\n{}: {}", one.0, one.1);
    let mut served = 0;
    // One more is allowed for each tenth of a second that a busy machine takes.
    let refused = loop {
        let said = ask(proxy.admin, &head);
        if !said.starts_with("HTTP/1.1 200 ") {
            break said;
        }
        served += 1;
        assert!(served < 2000, "there is no end");
    };
    assert!(served >= 60, "{served}");
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.contains("too_many_requests"), "{refused}");
    assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    for by in [&two, &operator()] {
        let reply = admin(&proxy, by, Method::GET, "/api/v1/accounts", Value::Null).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let reply = admin(&proxy, &one, Method::GET, "/api/v1/accounts", Value::Null).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}
