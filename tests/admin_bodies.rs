//! JSON bodies of the admin API: what is no text is none, and the problem names the member.

use crate::support::{
    callers::TestCaller,
    login::ask_with,
    proxy::{Proxy, Setup, amazon},
};
use http::Method;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_no_text_is_refused_where_a_text_is_meant() {
    let amazon = amazon().await;
    let caller = TestCaller::new("false", "");
    let toml = caller.toml.clone();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let post = async |path: &str, kind: &str, body: &str| {
        let fields = [("content-type", kind)];
        ask_with(proxy.admin, Method::POST, path, &fields, body.to_owned()).await
    };
    let json =
        async |path: &str, body: &Value| post(path, "application/json", &body.to_string()).await;
    for (path, body, member) in [
        ("/api/auth/refresh", json!({ "account": false }), "account"),
        ("/api/auth/refresh", json!({ "account": 5 }), "account"),
        ("/api/auth/refresh", json!({ "account": ["acme"] }), "account"),
        ("/api/auth/amazon/logout", json!({ "account": 5.5 }), "account"),
        ("/api/auth/amazon/logins", json!({ "account": "x", "region": true }), "region"),
        ("/api/auth/amazon/logins", json!({ "account": "x", "application": 1 }), "application"),
        ("/api/auth/amazon/logins", json!({ "account": "x", "replace": 1 }), "replace"),
        ("/api/auth/amazon/logins", json!({ "account": "x", "replace": "maybe" }), "replace"),
        ("/api/auth/amazon/confirm", json!({ "token": 1, "answer": "yes" }), "token"),
        ("/api/auth/amazon/confirm", json!({ "token": "x", "answer": true }), "answer"),
        ("/api/v1/sessions", json!({ "caller": false, "ttl_secs": 60 }), "caller"),
        ("/api/v1/sessions", json!({ "caller": "false", "ttl_secs": true }), "ttl_secs"),
        ("/api/v1/sessions", json!({ "caller": "false", "ttl_secs": 1.5 }), "ttl_secs"),
        ("/api/v1/sessions", json!({ "caller": "false", "ttl_secs": -1 }), "ttl_secs"),
        (
            "/api/v1/sessions",
            json!({ "caller": "false", "ttl_secs": 60, "accounts": 5 }),
            "accounts",
        ),
        ("/api/v1/sessions", json!({ "caller": "false", "ttl_secs": 60, "note": 5 }), "note"),
        (
            "/api/v1/sessions",
            json!({ "caller": "false", "ttl_secs": 60, "read_only": 1 }),
            "read_only",
        ),
    ] {
        let reply = json(path, &body).await;
        let what = format!("{path} {body}: {}", reply.text);
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "bad_request"), "{what}");
        let detail = reply.json()["detail"].as_str().expect("a text").to_owned();
        assert!(detail.contains(&format!("{member:?}")), "{what}");
    }
    // The twins: texts, numbers and flags as they are meant, and in a form all as texts.
    for body in [
        json!({ "caller": "false", "ttl_secs": 60, "read_only": true, "note": "5", "accounts": ["5"] }),
        json!({ "caller": "false", "ttl_secs": "60", "read_only": "true", "accounts": "5" }),
        json!({ "caller": "false", "ttl_secs": 60, "read_only": null, "note": null }),
    ] {
        let reply = json("/api/v1/sessions", &body).await;
        assert_eq!(reply.status, 201, "{body}: {}", reply.text);
    }
    let form = "caller=false&ttl_secs=60&read_only=false&note=5&accounts=5";
    let reply = post("/api/v1/sessions", "application/x-www-form-urlencoded", form).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let reply = json("/api/auth/refresh", &json!({ "account": "acme" })).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}
