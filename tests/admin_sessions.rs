//! Sessions over the admin API: an operator makes narrowed ones, a session ends itself and no other, and
//! makes none.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    login::{Reply, ask_with},
    proxy::{Proxy, Setup, amazon},
};
use adsproxy::sandbox::Emulator;
use http::Method;
use serde_json::{Value, json};

const SESSIONS: &str = "/api/v1/sessions";

fn server(amazon: &Emulator, callers: &[&TestCaller]) -> Proxy {
    let tables: String = callers.iter().map(|caller| caller.toml.as_str()).collect();
    let toml = tables + "\n[auth]\nrequired = true\n";
    Proxy::with(amazon, Setup { toml, file_store: true, ..Setup::default() })
}

async fn admin(proxy: &Proxy, key: &str, method: Method, path: &str, body: &Value) -> Reply {
    let fields = [("x-ads-key", key), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    ask_with(proxy.admin, method, path, &fields, body).await
}

/// A session that an operator makes.
async fn issue(proxy: &Proxy, what: Value) -> Value {
    let reply = admin(proxy, &OPERATOR.key, Method::POST, SESSIONS, &what).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply.json()
}

fn key(session: &Value) -> &str {
    session["key"].as_str().expect("a key")
}

async fn end(proxy: &Proxy, with: &str, session: &Value) -> u16 {
    let path = format!("{SESSIONS}/{}", session["id"].as_str().expect("an id"));
    admin(proxy, with, Method::DELETE, &path, &Value::Null).await.status.as_u16()
}

/// The ids of the sessions that there are, in order.
async fn open(proxy: &Proxy) -> Vec<String> {
    let list = admin(proxy, &OPERATOR.key, Method::GET, SESSIONS, &Value::Null).await.json();
    let list = list["sessions"].as_array().expect("a list").clone();
    let mut ids: Vec<_> =
        list.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    ids
}

/// The status of a request on the data plane.
async fn send(proxy: &Proxy, key: &str, method: Method, path: &str) -> u16 {
    let request = proxy.request(method, path).header("x-ads-key", key);
    proxy.send(request).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_makes_a_session_that_may_less_than_its_caller() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let proxy = server(&amazon, &[&caller]);
    let narrow =
        json!({ "caller": "etl", "ttl_secs": 600, "accounts": ["acme"], "read_only": true });
    let session = issue(&proxy, narrow).await;
    assert_eq!((&session["accounts"], &session["read_only"]), (&json!(["acme"]), &json!(true)));
    let time = |name: &str| -> jiff::Timestamp {
        session[name].as_str().expect("a time").parse().expect("RFC 3339")
    };
    assert_eq!(time("expires").as_second() - time("created").as_second(), 600);
    let narrow = key(&session);
    let whole = issue(&proxy, json!({ "caller": "etl", "ttl_secs": 600 })).await;
    for (method, path, by_narrow) in [
        (Method::GET, "/a/acme/v2/profiles", 200),
        (Method::GET, "/a/globex/v2/profiles", 404),
        (Method::POST, "/a/acme/_sink", 403),
    ] {
        assert_eq!(send(&proxy, narrow, method.clone(), path).await, by_narrow, "{method} {path}");
        // The twin: what is not narrowed may what its caller may.
        assert_eq!(send(&proxy, key(&whole), method.clone(), path).await, 200, "{method} {path}");
    }
    let wrong = json!({ "caller": "etl", "ttl_secs": 86_401 });
    let reply = admin(&proxy, &OPERATOR.key, Method::POST, SESSIONS, &wrong).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "bad_request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_lives_as_long_as_its_caller_allows_at_most() {
    let amazon = amazon().await;
    let [short, long] = [("short", 60), ("long", 172_800)].map(|(name, most)| {
        (TestCaller::new(name, &format!("session_ttl_max_secs = {most}")), name, most)
    });
    let proxy = server(&amazon, &[&short.0, &long.0]);
    for (_, name, most) in [short, long] {
        let session = issue(&proxy, json!({ "caller": name, "ttl_secs": most })).await;
        assert_eq!(send(&proxy, key(&session), Method::GET, "/a/acme/v2/profiles").await, 200);
        let more = json!({ "caller": name, "ttl_secs": most + 1 });
        let reply = admin(&proxy, &OPERATOR.key, Method::POST, SESSIONS, &more).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "bad_request"));
        assert!(reply.text.contains(&format!("session_ttl_max_secs = {most}")), "{}", reply.text);
    }
    assert_eq!(open(&proxy).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_itself_and_no_other() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let proxy = server(&amazon, &[&caller]);
    let one = issue(&proxy, json!({ "caller": "etl", "ttl_secs": 600 })).await;
    let two = issue(&proxy, json!({ "caller": "etl", "ttl_secs": 600, "read_only": true })).await;
    let profiles = "/a/acme/v2/profiles";
    assert_eq!(end(&proxy, key(&two), &one).await, 403);
    assert_eq!(end(&proxy, &caller.key, &one).await, 403);
    assert_eq!(send(&proxy, key(&one), Method::GET, profiles).await, 200);
    // Also one that may only read.
    for session in [&two, &one] {
        assert_eq!(end(&proxy, key(session), session).await, 200);
        assert_eq!(send(&proxy, key(session), Method::GET, profiles).await, 403);
        assert_eq!(end(&proxy, key(session), session).await, 401, "it is known no more");
    }
    assert!(open(&proxy).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_makes_no_session_neither_wider_nor_longer() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let proxy = server(&amazon, &[&caller]);
    let mut made = Vec::new();
    for what in [
        json!({ "caller": "tests", "ttl_secs": 600 }),
        json!({ "caller": "tests", "ttl_secs": 600, "read_only": true }),
        json!({ "caller": "tests", "ttl_secs": 600, "accounts": ["acme"] }),
        json!({ "caller": "etl", "ttl_secs": 600 }),
    ] {
        made.push(issue(&proxy, what).await);
    }
    let before = open(&proxy).await;
    assert_eq!(before.len(), made.len());
    for session in &made {
        for caller in ["tests", "etl"] {
            let wider = json!({ "caller": caller, "ttl_secs": 86_400 });
            let reply = admin(&proxy, key(session), Method::POST, SESSIONS, &wider).await;
            let said = (reply.status.as_u16(), reply.code());
            assert_eq!(said, (403, "caller_rejected".to_owned()), "{session}: {}", reply.text);
        }
    }
    assert_eq!(open(&proxy).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_the_key_it_was_made_with_at_the_latest() {
    let amazon = amazon().await;
    let mut leaver = TestCaller::new("leaver", "operator = true");
    let end = jiff::Timestamp::now().as_second() + 1800;
    let at = jiff::Timestamp::from_second(end).expect("a time");
    leaver.toml = leaver.toml.replace("sha256 = ", &format!("expires = \"{at}\", sha256 = "));
    let proxy = server(&amazon, &[&leaver]);
    let asked = json!({ "caller": "tests", "ttl_secs": 7200 });
    let made = admin(&proxy, &leaver.key, Method::POST, SESSIONS, &asked).await.json();
    let expires = |session: &Value| -> i64 {
        let text = session["expires"].as_str().expect("a time");
        text.parse::<jiff::Timestamp>().expect("RFC 3339").as_second()
    };
    assert_eq!(expires(&made), end, "{made}");
    // The twin: with a key that does not end.
    assert!(expires(&issue(&proxy, asked).await) > end + 1800);
}
