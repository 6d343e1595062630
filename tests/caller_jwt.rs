//! JWTs of a real issuer on the data plane: which are served, which are not.

use crate::support::{
    self, extras,
    issuer::RealIssuer,
    proxy::{Answer, Proxy, Setup, amazon, eventually},
    signer::TestIssuer,
    socket::Wire,
};
use adsproxy::{
    sandbox::{Emulator, Surface},
    testing::{Clock, SystemClock},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Users without tenant, who see the accounts of the configuration.
const ALL: &str =
    "audience = [\"adsproxy\"]\nalgorithms = [\"RS256\", \"ES256\"]\ntenant_claim = []";

fn proxy(amazon: &Emulator, toml: String) -> Proxy {
    let toml = toml + "\n[auth]\nrequired = true\n";
    Proxy::with(amazon, Setup { toml, ..Setup::default() })
}

fn ask(proxy: &Proxy, token: &str) -> Answer {
    let head = format!(
        "GET /a/acme/_sink HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    Wire::open(proxy.addr).send(head).answer()
}

fn is_served(proxy: &Proxy, token: &str) -> bool {
    let answer = ask(proxy, token);
    match answer.status.as_u16() {
        200 => true,
        // Of a flood, only the first are answered as what they are.
        403 | 429 => {
            assert!(["caller_rejected", "too_many_requests"].contains(&answer.error().unwrap()));
            let (message, signature) = token.rsplit_once('.').unwrap_or((token, token));
            let claims = message.rsplit_once('.').map_or(message, |(_, claims)| claims);
            for part in [claims, signature].into_iter().filter(|part| part.len() > 10) {
                assert!(!answer.text().contains(part) && !proxy.log().contains(part));
            }
            false
        }
        status => panic!("{status}: {}", answer.text()),
    }
}

fn now() -> u64 {
    SystemClock.now().unix()
}

/// What the issuer itself says, with `more` in place of its own.
fn claims(issuer: &RealIssuer, more: &Value) -> Value {
    let mut claims = json!({
        "iss": issuer.url, "sub": "user_1", "aud": "adsproxy", "iat": now(), "exp": now() + 60
    });
    merge(&mut claims, more);
    claims
}

fn merge(into: &mut Value, more: &Value) {
    for (name, value) in more.as_object().expect("an object") {
        match value {
            Value::Null => drop(into.as_object_mut().expect("an object").remove(name)),
            value => into[name] = value.clone(),
        }
    }
}

/// A token by the key `rs` whose header and claims are as usual, but for these.
async fn signed(issuer: &RealIssuer, header: &Value, more: &Value) -> String {
    let mut usual = json!({ "alg": "RS256", "kid": issuer.ids().await["rs"], "typ": "JWT" });
    merge(&mut usual, header);
    issuer.sign("rs", &usual.to_string(), &claims(issuer, more).to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_real_issuer_pass_and_never_reach_amazon() {
    let Some(issuer) = RealIssuer::start() else { return };
    let amazon = amazon().await;
    let proxy = proxy(&amazon, issuer.toml(ALL));
    for client in ["rs", "es"] {
        amazon.state().record.clear();
        let token = issuer.issue(client, "adsproxy").await;
        for _ in 0..3 {
            assert!(is_served(&proxy, &token), "{client}\n{}", proxy.log());
        }
        let seen = amazon.state().record.requests_for(Surface::Api);
        assert_eq!(seen.len(), 3);
        assert!(!format!("{seen:?}").contains(&token));
        assert!(!proxy.log().contains(&token), "the log holds the token");
    }
    eventually("the issuer is logged", || proxy.log().contains("\"caller\":\"op\"")).await;
    assert_eq!(issuer.fetches().await, 1);
    assert!(proxy.metrics().contains("adsproxy_jwks_age_seconds{issuer=\"op\"} "));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_passes_that_the_issuer_did_not_sign_for_us_and_for_now() {
    let Some(issuer) = RealIssuer::start() else { return };
    let amazon = amazon().await;
    let proxy = proxy(&amazon, issuer.toml(ALL));
    assert!(is_served(&proxy, &signed(&issuer, &json!({}), &json!({})).await));
    amazon.state().record.clear();
    let mut wrong = vec![issuer.issue("rs", "other").await];
    for header in [
        json!({ "jwk": { "kty": "oct" } }),
        json!({ "jku": "https://evil.example.com/" }),
        json!({ "x5u": "https://evil.example.com/" }),
        json!({ "x5c": ["MIIB"] }),
        json!({ "crit": ["exp"] }),
        json!({ "alg": "ES256" }),
        json!({ "alg": "RS512" }),
        json!({ "typ": "logout+jwt" }),
    ] {
        wrong.push(signed(&issuer, &header, &json!({})).await);
    }
    for more in [
        json!({ "iss": "https://evil.example.com" }),
        json!({ "iss": null }),
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "exp": now() - 10 }),
        json!({ "exp": null }),
        json!({ "exp": "tomorrow" }),
        json!({ "exp": 1e300 }),
        json!({ "nbf": now() + 60 }),
        json!({ "iat": now() + 60 }),
        json!({ "sub": null }),
    ] {
        wrong.push(signed(&issuer, &json!({}), &more).await);
    }
    let ids = issuer.ids().await;
    let good = claims(&issuer, &json!({})).to_string();
    let two = format!("{{\"alg\":\"RS256\",\"alg\":\"none\",\"kid\":{}}}", ids["rs"]);
    wrong.push(issuer.sign("rs", &two, &good).await);
    for (how, alg) in [("none", "none"), ("none", "RS256"), ("hs", "HS256"), ("hs", "RS256")] {
        let header = json!({ "alg": alg, "kid": ids["rs"] }).to_string();
        wrong.push(issuer.sign(how, &header, &good).await);
    }
    for token in &wrong {
        assert!(!is_served(&proxy, token), "{token}");
    }
    assert!(amazon.state().record.requests_for(Surface::Api).is_empty());
    for cause in ["another audience", "expired", "from the future", "algorithm", "header"] {
        assert!(proxy.log().contains(cause), "{cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_keys_fetches_once_a_minute_and_an_outage_changes_nothing() {
    let Some(issuer) = RealIssuer::start() else { return };
    let amazon = amazon().await;
    let proxy = proxy(&amazon, issuer.toml(ALL));
    let good = issuer.issue("rs", "adsproxy").await;
    assert!(is_served(&proxy, &good));
    let began = Instant::now();
    for outage in ["up", "down"] {
        issuer.tell(outage).await;
        for number in 0..50 {
            let kid = json!({ "kid": format!("{outage}{number}") });
            assert!(!is_served(&proxy, &signed(&issuer, &kid, &json!({})).await));
        }
        // One that was never seen: the keys are there, not only the verdict.
        assert!(is_served(&proxy, &signed(&issuer, &json!({}), &json!({})).await));
    }
    let minutes = began.elapsed().as_secs() / 60;
    assert!(issuer.fetches().await <= 1 + minutes, "{}", issuer.fetches().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_rotated_in_is_fetched_a_minute_after_the_last_at_the_earliest() {
    let Some(issuer) = RealIssuer::start() else { return };
    if !extras::long() {
        return;
    }
    let amazon = amazon().await;
    let proxy = proxy(&amazon, issuer.toml(ALL));
    let old = signed(&issuer, &json!({}), &json!({ "exp": now() + 600 })).await;
    assert!(is_served(&proxy, &old));
    let began = Instant::now();
    issuer.tell("rotate").await;
    let new = signed(&issuer, &json!({}), &json!({ "exp": now() + 600 })).await;
    assert!(is_served(&proxy, &old) && !is_served(&proxy, &new));
    while !is_served(&proxy, &new) {
        assert!(began.elapsed() < Duration::from_secs(120), "the new key is never fetched");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(50), "{:?}", began.elapsed());
    assert_eq!(issuer.fetches().await, 2);
    assert!(!is_served(&proxy, &old), "a key that was withdrawn is still used");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_are_read_again_when_they_change() {
    let Some(issuer) = RealIssuer::start() else { return };
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("jwks.json");
    fs::write(&file, issuer.published().await).expect("a file");
    let proxy = proxy(&amazon, issuer.toml(&format!("{ALL}\njwks = {{ file = {file:?} }}")));
    let fetches = issuer.fetches().await;
    let old = issuer.issue("rs", "adsproxy").await;
    assert!(is_served(&proxy, &old));
    issuer.tell("rotate").await;
    let new = issuer.issue("es", "adsproxy").await;
    assert!(!is_served(&proxy, &new));
    fs::write(&file, issuer.published().await).expect("a file");
    eventually("the new key is read", || is_served(&proxy, &new)).await;
    assert!(!is_served(&proxy, &old));
    assert_eq!(issuer.fetches().await, fetches + 1, "it fetches though it has a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_clerk_pass_and_templates_only_where_they_are_allowed() {
    let Some(issuer) = RealIssuer::start() else { return };
    let amazon = amazon().await;
    let clerk = "authorized_parties = [\"https://app.example.com\"]";
    let all = "\ntenant_claim = []";
    let session = json!({
        "aud": null, "azp": "https://app.example.com", "sid": "sess_1", "sts": "active", "v": 2,
        "o": { "id": "org_1", "rol": "admin", "slg": "acme" }, "nbf": now() - 10
    });
    let session_with = |more: Value| {
        let mut claims = session.clone();
        merge(&mut claims, &more);
        claims["aud"] = Value::Null;
        claims
    };
    let sign = |claims: Value| {
        let issuer = &issuer;
        async move { signed(issuer, &json!({}), &claims).await }
    };
    let session_token = sign(session.clone()).await;
    let mut template = session.clone();
    template["sid"] = Value::Null;
    let template = sign(template).await;
    let evil = sign(session_with(json!({ "azp": "https://evil.example.com" }))).await;
    let mut native = session.clone();
    native["azp"] = Value::Null;
    let native = sign(native).await;
    let strict = proxy(&amazon, issuer.toml(&format!("{clerk}{all}")));
    assert!(is_served(&strict, &session_token), "{}", strict.log());
    for token in [&template, &evil, &native] {
        assert!(!is_served(&strict, token));
    }
    let lax = format!("{clerk}{all}\nrequire_sid = false\nrequire_azp = false");
    let lax = proxy(&amazon, issuer.toml(&lax));
    for token in [&session_token, &template, &native] {
        assert!(is_served(&lax, token), "{}", lax.log());
    }
    assert!(!is_served(&lax, &evil));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_the_accounts_of_the_own_tenant_only() {
    let Some(issuer) = RealIssuer::start() else { return };
    let amazon = amazon().await;
    let proxy = proxy(&amazon, issuer.toml("audience = [\"adsproxy\"]"));
    for tenant in [
        json!({ "org_id": "org_1" }),
        json!({ "o": { "id": "org_1" } }),
        json!({ "sub": "user_2" }),
    ] {
        let token = signed(&issuer, &json!({}), &tenant).await;
        // `acme` is nobody's: a tenant's user cannot tell that it is there.
        assert_eq!(ask(&proxy, &token).error(), Some("unknown_account"), "{tenant}");
    }
    let token = signed(&issuer, &json!({}), &json!({ "org_id": "no/name" })).await;
    assert!(!is_served(&proxy, &token));
    eventually("operators read why", || proxy.log().contains("tenant_claim")).await;
}

/// Serves `document` to each request, once `gate` is open; how many came.
fn slow_endpoint(document: String, gate: mpsc::Receiver<()>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/jwks", listener.local_addr().expect("its address"));
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = fetches.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counted.fetch_add(1, Relaxed);
            let _ = stream.read(&mut [0; 4096]);
            let _ = gate.recv();
            let length = document.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{document}"
            );
        }
    });
    (url, fetches)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_waits_for_the_keys_of_an_issuer_and_a_flood_fetches_them_once() {
    let amazon = amazon().await;
    let issuer = TestIssuer::new("tenant_claim = [\"org_id\"]");
    let line = issuer.toml.lines().find(|line| line.starts_with("jwks = ")).expect("its keys");
    let file = line.split('"').nth(1).expect("a path");
    let (open, gate) = mpsc::channel();
    let (url, fetches) = slow_endpoint(fs::read_to_string(file).expect("keys"), gate);
    let toml = issuer.toml.replace(line, &format!("jwks_url = \"{url}\""));
    let proxy = proxy(&amazon, toml);
    let ask = |token: &str| {
        let head = format!(
            "GET /api/v1/accounts HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}"
        );
        support::proxy::ask(proxy.admin, &head)
    };
    let token = issuer.token(json!({ "sub": "user_1", "org_id": "o" }));
    eventually("its keys are fetched", || fetches.load(Relaxed) == 1).await;
    let said = thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&token));
        thread::sleep(Duration::from_millis(300));
        assert!(!asked.is_finished(), "it waits");
        open.send(()).expect("the endpoint is there");
        asked.join().expect("a response")
    });
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    // The twin: of a key that is not there.
    let (_, rest) = token.split_once('.').expect("a header");
    for number in 0..40 {
        let header = json!({ "alg": "ES256", "kid": format!("none{number}"), "typ": "JWT" });
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let said = ask(&format!("{header}.{rest}"));
        let status = said.split(' ').nth(1);
        assert!(matches!(status, Some("401" | "429")), "{said}");
    }
    assert_eq!(fetches.load(Relaxed), 1, "at most one a minute");
    assert!(ask(&token).starts_with("HTTP/1.1 200 "), "others are served meanwhile");
}
