//! LWA's token endpoint as SDKs see it through the proxy: placeholders, and never a call to LWA.

use crate::support::proxy::{Answer, Proxy, Setup, amazon};
use http::Method;
use serde_json::{Value, json};

const FORM: &str = "application/x-www-form-urlencoded;charset=UTF-8";
const JSON: &str = "application/json";

async fn ask(proxy: &Proxy, path: &str, content_type: &str, body: String) -> Answer {
    let request = proxy.request(Method::POST, path).header("Content-Type", content_type);
    proxy.send(request.body(body)).await
}

fn form(refresh_token: &str) -> String {
    format!(
        "grant_type=refresh_token&client_id=mine&client_secret=mine&refresh_token={refresh_token}"
    )
}

fn assert_token(answer: &Answer, alias: &str, refresh_token: &str) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.error(), None);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let kind = answer.headers["content-type"].to_str().expect("ASCII");
    assert!(kind.starts_with("application/json"), "{kind}");
    let expected = json!({
        "access_token": format!("Atza|{alias}"),
        "refresh_token": refresh_token,
        "token_type": "bearer",
        "expires_in": 3600,
    });
    assert_eq!(answer.json(), expected);
}

fn assert_invalid_grant(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.error()), (400, None));
    let body = answer.json();
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(
        body["error_description"],
        "The request has an invalid grant parameter : refresh_token. \
         User may have revoked or didn't grant the permission."
    );
    let keys: Vec<_> = body.as_object().expect("an object").keys().collect();
    assert!(keys.iter().all(|key| {
        ["error", "error_description", "error_index", "request_id"].contains(&key.as_str())
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn form_json_and_basic_get_a_placeholder_by_alias_and_by_path() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let json = |token: &str| {
        json!({ "grant_type": "refresh_token", "refresh_token": token, "client_id": "mine" })
            .to_string()
    };
    for alias in ["acme", "globex"] {
        let token = format!("Atzr|{alias}");
        for encoded in [format!("Atzr%7C{alias}"), format!("Atzr%7c{alias}"), token.clone()] {
            let answer = ask(&proxy, "/auth/o2/token", FORM, form(&encoded)).await;
            assert_token(&answer, alias, &token);
        }
        assert_token(&ask(&proxy, "/auth/o2/token", JSON, json(&token)).await, alias, &token);
        // By path the token is whatever the SDK has, and comes back as it was.
        for path in [format!("/a/{alias}/auth/o2/token"), format!("/a/{alias}@fe/auth/o2/token")] {
            let answer = ask(&proxy, &path, FORM, form("Atzr%7CIwEBsomething-long")).await;
            assert_token(&answer, alias, "Atzr|IwEBsomething-long");
            let answer = ask(&proxy, &path, JSON, json("other")).await;
            assert_token(&answer, alias, "other");
            let answer = ask(&proxy, &path, FORM, "grant_type=refresh_token".into()).await;
            assert_token(&answer, alias, &token);
        }
        let request = proxy.request(Method::POST, "/auth/o2/token").basic_auth("mine", Some("x"));
        let request = request.header("Content-Type", FORM);
        let basic = format!("grant_type=refresh_token&refresh_token={token}");
        assert_token(&proxy.send(request.body(basic)).await, alias, &token);
    }
    let counts = amazon.state().record.counts();
    assert_eq!((counts.token_calls, counts.api_calls), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_shim_hands_out_selects_the_account() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let answer = ask(&proxy, "/auth/o2/token", FORM, form("Atzr%7Cglobex")).await;
    let token = answer.json()["access_token"].as_str().expect("a token").to_owned();
    // As SDKs check it.
    assert!(token.starts_with("Atza|"));
    let request = proxy.request(Method::GET, "/_echo").bearer_auth(token);
    assert_eq!(proxy.send(request).await.json()["account"], "globex");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_alias_gets_lwas_own_refusal() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let unknown = [
        ("/auth/o2/token", form("Atzr%7Cnobody")),
        ("/auth/o2/token", form("Atzr%7C")),
        ("/auth/o2/token", form("Atzr%7C../acme")),
        ("/auth/o2/token", form("acme")),
        ("/auth/o2/token", form("Atzr%7CIwEBa-real-token-of-amazons")),
        ("/auth/o2/token", "grant_type=refresh_token".into()),
        ("/auth/o2/token", String::new()),
        ("/a/nobody/auth/o2/token", form("x")),
    ];
    for (path, body) in unknown {
        assert_invalid_grant(&ask(&proxy, path, FORM, body).await);
    }
    for body in ["", "{", "[1,2]", "{\"refresh_token\":7}", "\u{0}"] {
        assert_invalid_grant(&ask(&proxy, "/auth/o2/token", JSON, body.into()).await);
    }
    let code = "grant_type=authorization_code&code=ANabc&redirect_uri=x".to_owned();
    let answer = ask(&proxy, "/a/acme/auth/o2/token", FORM, code).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"], "unsupported_grant_type");
    assert_eq!(amazon.state().record.counts().token_calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_account_answers_whoever_names_none() {
    let amazon = amazon().await;
    let toml = "[proxy]\ndefault_account = \"acme\"\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let answer = ask(&proxy, "/auth/o2/token", FORM, form("whatever")).await;
    assert_token(&answer, "acme", "whatever");
    // A name that nobody has is still nobody's.
    assert_invalid_grant(&ask(&proxy, "/auth/o2/token", FORM, form("Atzr%7Cnobody")).await);
    assert_eq!(amazon.state().record.counts().token_calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn path_and_token_that_disagree_are_a_conflict() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let answer = ask(&proxy, "/a/acme/auth/o2/token", FORM, form("Atzr%7Cglobex")).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (400, Some("account_conflict")));
    let answer = ask(&proxy, "/a/acme/auth/o2/token", FORM, form("Atzr%7Cacme")).await;
    assert_token(&answer, "acme", "Atzr|acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_beyond_its_limit_is_refused() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let padded = |len: usize| {
        let form = form("Atzr%7Cacme") + "&padding=";
        let padding = "p".repeat(len - form.len());
        form + &padding
    };
    let answer = ask(&proxy, "/auth/o2/token", FORM, padded(64 * 1024)).await;
    assert_token(&answer, "acme", "Atzr|acme");
    for len in [64 * 1024 + 1, 4 * 1024 * 1024] {
        let answer = ask(&proxy, "/auth/o2/token", FORM, padded(len)).await;
        assert_eq!((answer.status.as_u16(), answer.error()), (413, Some("body_too_large")));
    }
    assert_eq!(amazon.state().record.counts().token_calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_post_to_the_endpoint_itself_is_for_the_shim() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    for (method, path) in [
        (Method::GET, "/auth/o2/token"),
        (Method::PUT, "/auth/o2/token"),
        (Method::POST, "/auth/o2/token/"),
        (Method::POST, "/x/auth/o2/token"),
    ] {
        let request = proxy.request(method, path).header("X-Ads-Account", "acme");
        let answer = proxy.send(request.header("Content-Type", FORM).body(form("x"))).await;
        // Amazon's API knows no such path.
        assert_eq!((answer.status.as_u16(), answer.error()), (403, None), "{path}");
    }
    assert_eq!(amazon.state().record.counts().api_calls, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn sdks_that_refresh_without_end_cost_lwa_nothing() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    for _ in 0..500 {
        assert_eq!(ask(&proxy, "/auth/o2/token", FORM, form("Atzr%7Cacme")).await.status, 200);
    }
    assert_eq!(amazon.state().record.counts().token_calls, 0);
    let answer: Value = proxy.get("/_echo").await.json();
    assert_eq!(answer["account"], "acme");
}
