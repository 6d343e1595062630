//! What Amazon says of its limits is heard and shown; with `throttling.enforce`, hopeless calls are
//! not sent.

use crate::support::{
    callers::TestCaller,
    load::TEST_TIMEOUT,
    proxy::{Answer, Proxy, Setup, amazon, ask_unix},
};
use adsproxy::sandbox::{ApiFault, Emulator, Surface, Times};
use http::{Method, StatusCode};
use serde_json::Value;
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Instant,
};

const ENFORCE: &str = "[throttling]\nenforce = true\n";

fn start(amazon: &Emulator, toml: &str) -> Proxy {
    let toml = toml.to_owned();
    Proxy::with(amazon, Setup { toml, file_store: true, ..Setup::default() })
}

/// Amazon responds with `fault` to the next request.
fn meets(amazon: &Emulator, fault: ApiFault) {
    amazon.state().api.faults.add(fault, Times::Next(1));
}

/// How many requests came to Amazon's API.
fn sent(amazon: &Emulator) -> usize {
    amazon.state().record.requests_for(Surface::Api).len()
}

async fn profiles(proxy: &Proxy, account: &str, profile: &str) -> Answer {
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
    proxy.send(request.header("Amazon-Advertising-API-Scope", profile)).await
}

/// What the control socket says at `path`.
fn control(proxy: &Proxy, path: &str) -> Value {
    let socket = proxy.dir.path().join("store/control.sock");
    let mut stream = UnixStream::connect(socket).expect("a control socket");
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

fn heard(proxy: &Proxy) -> Vec<Value> {
    control(proxy, "/api/v1/throttling")["throttling"].as_array().expect("a list").clone()
}

#[track_caller]
fn is_turned_away(answer: &Answer) -> u64 {
    assert_eq!(answer.error(), Some("upstream_throttled"), "{}", answer.text());
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let after = answer.headers["retry-after"].to_str().expect("ASCII");
    after.parse().expect("whole seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_429_and_5xx_is_counted_shown_and_passed_on_untouched() {
    let amazon = amazon().await;
    let proxy = start(&amazon, "");
    for (fault, status, kind) in [
        (ApiFault::AccessDenied, 429, "access_denied"),
        (ApiFault::Throttled { retry_after: Some(7) }, 429, "retry_after_seconds"),
        (ApiFault::ThrottledUntil { secs: 40 }, 429, "retry_after_date"),
        (ApiFault::Throttled { retry_after: None }, 429, "no_retry_after"),
        (ApiFault::ServerError, 500, "server_error"),
    ] {
        meets(&amazon, fault);
        let answer = profiles(&proxy, "acme", "123").await;
        assert_eq!((answer.status.as_u16(), answer.error()), (status, None), "{kind}");
        let labels = format!("region=\"na\",class=\"read\",kind=\"{kind}\"");
        let sample = format!("adsproxy_upstream_throttled_total{{{labels}}}");
        assert_eq!(proxy.metric(&sample), 1.0, "{sample}");
        let heard = heard(&proxy);
        assert_eq!((heard.len(), &heard[0]["last_kind"]), (1, &Value::from(kind)));
        assert_eq!(heard[0]["counts"][kind], 1);
    }
    let one = &heard(&proxy)[0];
    for (field, value) in [
        ("region", "na"),
        ("application", "default"),
        ("profile", "123"),
        ("api", "profiles"),
        ("class", "read"),
    ] {
        assert_eq!(one[field], value);
    }
    assert_eq!(one["accounts"], serde_json::json!(["acme"]));
    let after = one["last_retry_after_secs"].as_u64().expect("a number");
    assert!((38..=40).contains(&after), "the date is {after} s from now");
    assert!(one["cooldown_left_secs"].as_u64().is_some_and(|left| left <= 40), "{one}");
    assert_eq!(control(&proxy, "/status")["throttled"].as_array().expect("a list").len(), 1);
    assert_eq!(sent(&amazon), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_is_listed_page_by_page() {
    let amazon = amazon().await;
    let proxy = start(&amazon, "");
    for profile in ["1", "2", "3", "4", "5"] {
        meets(&amazon, ApiFault::ServerError);
        assert_eq!(profiles(&proxy, "acme", profile).await.status, 500);
    }
    let whole = control(&proxy, "/api/v1/throttling");
    assert_eq!((&whole["total"], &whole["next_cursor"]), (&5.into(), &Value::Null));
    let (mut paged, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = control(&proxy, &format!("/api/v1/throttling?limit=2{cursor}"));
        let list = page["throttling"].as_array().expect("a list").clone();
        assert!(list.len() <= 2 && page["total"] == 5, "{page}");
        paged.extend(list);
        pages += 1;
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let profiles = |list: &[Value]| {
        list.iter()
            .map(|one| one["profile"].as_str().expect("a profile").to_owned())
            .collect::<Vec<_>>()
    };
    let all = whole["throttling"].as_array().expect("a list");
    assert_eq!((pages, profiles(&paged)), (3, profiles(all)), "each once, in one order");
    let socket = proxy.dir.path().join("store/control.sock");
    for wrong in ["limit=0", "limit=1001", "cursor=x", "cursor=1-x"] {
        let said = ask_unix(&socket, &format!("GET /api/v1/throttling?{wrong} HTTP/1.1"));
        assert!(said.starts_with("HTTP/1.1 400 "), "{wrong}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_mcp_gateway_is_no_throttling() {
    let amazon = amazon().await;
    let proxy = start(&amazon, ENFORCE);
    let post = || proxy.post("/mcp", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    for _ in 0..3 {
        meets(&amazon, ApiFault::GatewayHtml);
        let answer = post().await;
        assert_eq!((answer.status.as_u16(), answer.error()), (429, None));
        assert!(answer.text().contains("<html>"));
    }
    let heard = heard(&proxy);
    assert_eq!(heard[0]["counts"]["gateway_html"], 3);
    assert_eq!(heard[0]["cooldown_left_secs"], Value::Null);
    assert_eq!(post().await.status, 200, "no wait keeps it from being sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_enforce_every_call_goes_to_amazon() {
    let amazon = amazon().await;
    let proxy = start(&amazon, "");
    for _ in 0..3 {
        meets(&amazon, ApiFault::Throttled { retry_after: Some(600) });
        let answer = profiles(&proxy, "acme", "123").await;
        assert_eq!((answer.status.as_u16(), answer.error()), (429, None));
        assert_eq!(answer.headers["retry-after"], "600");
    }
    assert_eq!(profiles(&proxy, "acme", "123").await.status, 200);
    assert_eq!(sent(&amazon), 4);
    assert_eq!(heard(&proxy)[0]["cooldown_left_secs"], Value::Null, "the success ended it");
    assert_eq!(proxy.metric("adsproxy_limit_hits_total{limit=\"upstream_throttled\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_enforce_hopeless_calls_stay_here_and_others_go_out() {
    let amazon = amazon().await;
    let proxy = start(&amazon, ENFORCE);
    meets(&amazon, ApiFault::Throttled { retry_after: Some(600) });
    assert_eq!(profiles(&proxy, "acme", "123").await.error(), None, "the first is Amazon's");
    let mut waits = Vec::new();
    for _ in 0..5 {
        waits.push(is_turned_away(&profiles(&proxy, "acme", "123").await));
    }
    assert!(waits.iter().all(|wait| (590..=751).contains(wait)), "{waits:?}");
    waits.dedup();
    assert_eq!(waits.len(), 5, "not all come back at once");
    assert_eq!(sent(&amazon), 1);
    assert_eq!(proxy.metric("adsproxy_limit_hits_total{limit=\"upstream_throttled\"}"), 5.0);

    assert_eq!(profiles(&proxy, "acme", "124").await.status, 200, "another profile");
    assert_eq!(profiles(&proxy, "globex", "123").await.status, 200, "another region");
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "no profile");
    let other = proxy.request(Method::GET, "/a/acme@fe/v2/profiles");
    let other = proxy.send(other.header("Amazon-Advertising-API-Scope", "123")).await;
    assert_eq!(other.status, 200, "another region of the same account");
    let list = proxy.request(Method::POST, "/sp/campaigns/list").header("X-Ads-Account", "acme");
    let list = list.header("Amazon-Advertising-API-Scope", "123");
    assert_eq!(proxy.send(list).await.error(), None, "another API");
    assert_eq!(sent(&amazon), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_probe_goes_out_when_the_time_is_over_and_its_success_ends_it() {
    let amazon = amazon().await;
    let proxy = start(&amazon, ENFORCE);
    meets(&amazon, ApiFault::Throttled { retry_after: None });
    assert_eq!(profiles(&proxy, "acme", "123").await.error(), None);
    let deadline = Instant::now() + TEST_TIMEOUT;
    // The wait is one second; what is tried within it stays here.
    amazon.state().api.gate.hold();
    let probe = loop {
        let tried = tokio::spawn({
            let request = proxy.request(Method::GET, "/v2/profiles");
            let request = request.header("X-Ads-Account", "acme");
            request.header("Amazon-Advertising-API-Scope", "123").send()
        });
        tokio::select! {
            () = amazon.state().api.gate.until_waiting(1) => break tried,
            answer = async { while !tried.is_finished() { tokio::task::yield_now().await } } => answer,
        }
        assert!(Instant::now() < deadline, "no probe goes out");
    };
    for _ in 0..5 {
        let wait = is_turned_away(&profiles(&proxy, "acme", "123").await);
        assert!((1..=3).contains(&wait), "{wait}");
    }
    assert_eq!(amazon.state().api.gate.waiting(), 1, "one probe only");
    amazon.state().api.gate.release();
    assert_eq!(probe.await.expect("no panic").expect("an answer").status(), 200);
    for _ in 0..3 {
        assert_eq!(profiles(&proxy, "acme", "123").await.status, 200);
    }
    assert_eq!(sent(&amazon), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_5xx_and_a_missing_permission_never_keep_a_call_here() {
    let amazon = amazon().await;
    let proxy = start(&amazon, ENFORCE);
    for fault in [ApiFault::ServerError, ApiFault::Unavailable, ApiFault::AccessDenied] {
        for _ in 0..3 {
            meets(&amazon, fault.clone());
            assert_eq!(profiles(&proxy, "acme", "123").await.error(), None);
        }
    }
    assert_eq!(profiles(&proxy, "acme", "123").await.status, 200);
    assert_eq!(sent(&amazon), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_hears_nothing_of_what_is_throttled_for_another() {
    let amazon = amazon().await;
    let callers = ["t1", "t2"].map(|name| TestCaller::new(name, &format!("tenant = \"{name}\"")));
    let account = |tenant| {
        let token = "refresh_token = { env = \"ACME_REFRESH\" }";
        format!("[accounts.\"{tenant}~acme\"]\nregion = \"na\"\n{token}\n")
    };
    let toml = [ENFORCE, &account("t1"), &account("t2"), &callers[0].toml, &callers[1].toml];
    let proxy = start(&amazon, &toml.concat());
    let ask = async |caller: &TestCaller| {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Key", &caller.key);
        let request = request.header("X-Ads-Account", "acme");
        proxy.send(request.header("Amazon-Advertising-API-Scope", "123")).await
    };
    meets(&amazon, ApiFault::Throttled { retry_after: Some(600) });
    assert_eq!(ask(&callers[0]).await.error(), None);
    is_turned_away(&ask(&callers[0]).await);
    assert_eq!(ask(&callers[1]).await.status, 200, "the same application and profile");
    assert_eq!(profiles(&proxy, "acme", "123").await.status, 200);

    let heard = heard(&proxy);
    assert_eq!((heard.len(), &heard[0]["accounts"]), (1, &serde_json::json!(["t1~acme"])));
}
