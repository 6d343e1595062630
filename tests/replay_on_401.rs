//! What a 401 of Amazon leads to: a refresh and a replay where that can help, nothing where not.

use crate::support::{
    bodies::{noise, sha256},
    proxy::{ACME_PROFILE, Proxy, Setup, amazon, eventually},
    socket::{self, Act},
    wire::{Upstream, Wire, field},
};
use adsproxy::sandbox::{ApiFault, CallCounts, Emulator, Permission, Scripted, Times};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{Method, StatusCode};
use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::task::JoinSet;

const CAMPAIGN: &str = "application/vnd.spCampaign.v3+json";

/// A proxy that has its token already.
async fn ready(amazon: &Emulator, toml: &str) -> Proxy {
    let proxy = Proxy::with(amazon, Setup { toml: toml.to_owned(), ..Setup::default() });
    assert_eq!(proxy.get("/_status/200").await.status, 200);
    amazon.state().record.clear();
    proxy
}

fn counts(amazon: &Emulator) -> CallCounts {
    amazon.state().record.counts()
}

fn scripted(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> ApiFault {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    ApiFault::Respond(Scripted {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: headers.iter().map(own).collect(),
        body: body.into(),
    })
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_401_costs_no_refresh_and_no_replay_and_passes_untouched() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    let shapes: [fn(&str) -> String; 4] = [
        |text| format!(r#"{{"code":"401","details":"{text}","requestId":"K144"}}"#),
        |text| format!(r#"{{ "code" : "UNAUTHORIZED", "detail" : "{text}" }}"#),
        |text| format!(r#"{{"message":"{}"}}"#, text.to_uppercase()),
        // Longer than what is looked at.
        |text| format!(r#"{{"details":"{text}","more":"{}"}}"#, "m".repeat(100_000)),
    ];
    let mut sent = 0;
    for permission in Permission::ALL {
        for shape in shapes {
            let plain = shape(permission.as_str()).into_bytes();
            let zipped = gzip(&plain);
            for (encoding, body) in [("identity", plain), ("gzip", zipped)] {
                let headers =
                    [("Content-Type", "application/json"), ("Content-Encoding", encoding)];
                let answer = scripted(401, &headers, body.clone());
                amazon.state().api.faults.add(answer, Times::Next(1));
                let answer = proxy.post("/sp/campaigns", "{}").await;
                sent += 1;
                assert_eq!(answer.status, 401);
                assert_eq!(answer.headers["content-encoding"], encoding);
                assert!(answer.body == body, "{permission:?} changed: {}", answer.text());
                assert_eq!(answer.error(), None);
            }
        }
    }
    let counts = counts(&amazon);
    assert_eq!((counts.token_calls, counts.api_calls), (0, sent));
    let permissions = proxy.metric(r#"adsproxy_upstream_401_total{class="permission"}"#);
    assert!((permissions - sent as f64).abs() < 0.5, "{permissions}");
    assert!(
        !proxy
            .metrics()
            .lines()
            .any(|line| { line.starts_with("adsproxy_replays_total") && !line.ends_with(" 0") })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn permission_401s_as_amazon_words_them_cost_nothing_either() {
    let amazon = amazon().await;
    amazon.state().api.configure(|api| api.gzip_min_bytes = 0);
    let proxy = ready(&amazon, "").await;
    let globex = adsproxy::sandbox::ACCOUNTS[1].2.to_string();
    let scopes = [(None, "Scope header is missing"), (Some("1"), "No matching advertiser")];
    let denied = (Some(globex.as_str()), "Not authorized to access scope");
    for (scope, text) in scopes.into_iter().chain([denied]) {
        let request = proxy.request(Method::POST, "/sp/campaigns/list");
        let mut request = request.header("X-Ads-Account", "acme").header("Content-Type", CAMPAIGN);
        if let Some(scope) = scope {
            request = request.header("Amazon-Advertising-API-Scope", scope);
        }
        let plain = proxy.send(request.try_clone().expect("a clone")).await;
        assert_eq!(plain.status, 401);
        assert!(plain.text().contains(text), "{}", plain.text());
        let zipped = proxy.send(request.header("Accept-Encoding", "gzip")).await;
        assert_eq!(zipped.status, 401);
        assert_eq!(zipped.body[..2], [0x1f, 0x8b]);
    }
    assert_eq!((counts(&amazon).token_calls, counts(&amazon).api_calls), (0, 6));

    // The twin: with its own scope the same request is served.
    let request = proxy.request(Method::POST, "/sp/campaigns/list");
    let request = request.header("X-Ads-Account", "acme").header("Content-Type", CAMPAIGN);
    let answer = proxy.send(request.header("Amazon-Advertising-API-Scope", ACME_PROFILE)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_token_is_refreshed_once_and_the_request_replayed() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    amazon.state().lwa.expire_access_tokens(None);
    let answer = proxy.post("/_echo?a=%2f//b", "body").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["target"], "/_echo?a=%2f//b");
    assert_eq!((counts(&amazon).token_calls, counts(&amazon).api_calls), (1, 2));
    let tries = amazon.state().record.requests_for(adsproxy::sandbox::Surface::Api);
    assert_eq!((tries[0].generation, tries[1].generation), (Some(1), Some(2)));
    assert_eq!((&tries[0].body, &tries[1].body), (&"body".into(), &"body".into()));
    let without_token = |seen: &adsproxy::sandbox::SeenRequest| {
        let mut headers = seen.headers.clone();
        headers.retain(|(name, _)| name != "authorization");
        headers
    };
    assert_eq!(without_token(&tries[0]), without_token(&tries[1]));
    assert!(proxy.metric(r#"adsproxy_replays_total{outcome="succeeded"}"#) > 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spurious_gateway_401_is_replayed_and_costs_one_refresh_per_interval() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    for _ in 0..5 {
        amazon.state().api.faults.add(ApiFault::SpuriousUnauthorized, Times::Next(1));
        assert_eq!(proxy.post("/_echo", "x").await.status, 200);
    }
    assert_eq!((counts(&amazon).token_calls, counts(&amazon).api_calls), (1, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_twice_is_replayed_twice() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    for fault in [ApiFault::SpuriousUnauthorized, ApiFault::AuthenticationFailed] {
        amazon.state().api.faults.add(fault, Times::Next(2));
        let body = noise(100_000);
        let answer = proxy.post("/_echo", body.clone()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["body_sha256"], sha256(&body));
    }
    assert_eq!((counts(&amazon).token_calls, counts(&amazon).api_calls), (1, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_for_ever_ends_with_the_third_answer_unchanged() {
    let amazon = amazon().await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let upstream = Upstream::serve(move |mut wire: Wire| {
        let tries = counted.clone();
        async move {
            while wire.try_head().await.is_some() {
                let n = tries.fetch_add(1, Ordering::Relaxed) + 1;
                wire.send(refusal(n)).await;
            }
        }
    })
    .await;
    let setup = Setup { upstream: Some(upstream.url()), ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let mut caller = Wire::connect(proxy.addr).await;
    caller
        .send("GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n")
        .await;
    let head = caller.head().await;
    let third = refusal(3);
    let (expected, body) = third.split_once("\r\n\r\n").expect("a head");
    let (ours, theirs): (Vec<&str>, Vec<&str>) = head
        .lines()
        .partition(|line| line.to_ascii_lowercase().starts_with("x-ads-proxy-request-id:"));
    let lower_names = |lines: Vec<&str>| -> Vec<String> {
        let name = |line: &str| match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
            None => line.to_owned(),
        };
        let mut lines: Vec<_> = lines.into_iter().map(name).collect();
        lines.sort();
        lines
    };
    let expected =
        expected.lines().filter(|line| !line.to_ascii_lowercase().starts_with("set-cookie"));
    assert_eq!(lower_names(theirs), lower_names(expected.collect()));
    assert_eq!(ours.len(), 1);
    assert_eq!(caller.exactly(body.len()).await, body.as_bytes());
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    assert_eq!(counts(&amazon).token_calls, 2);
    assert!(proxy.metric(r#"adsproxy_replays_total{outcome="still_unauthorized"}"#) > 0.5);
}

/// The `n`th 401 of an upstream that knows nothing else.
fn refusal(n: usize) -> String {
    let body = format!("{{\"code\":\"401\",\"details\":\"Authentication failed\",\"n\":{n}}}\n");
    format!(
        "HTTP/1.1 401 Unauthorized\r\nServer: Server\r\nDate: Sat, 21 Nov 2026 00:00:0{n} GMT\r\n\
         x-amz-rid: RID{n}\r\nx-amzn-ErrorType: UnauthorizedException:http://internal/coral/\r\n\
         WWW-Authenticate: Bearer realm=\"n{n}\"\r\nSet-Cookie: a=1\r\nSet-Cookie: b={n}\r\n\
         Content-Type: application/json; charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn hopeless_requests_make_at_most_one_call_to_lwa_per_interval() {
    let amazon = amazon().await;
    let proxy = Arc::new(ready(&amazon, "").await);
    amazon.state().api.faults.add(ApiFault::AuthenticationFailed, Times::Forever);
    // The first ten at once, the others one after the other.
    let mut at_once = JoinSet::new();
    for _ in 0..10 {
        let proxy = proxy.clone();
        at_once.spawn(async move { proxy.get("/v2/profiles").await });
    }
    let mut answers = at_once.join_all().await;
    for _ in 0..10 {
        answers.push(proxy.get("/v2/profiles").await);
    }
    for answer in answers {
        assert_eq!((answer.status.as_u16(), answer.error()), (401, None));
    }
    assert_eq!((counts(&amazon).token_calls, counts(&amazon).api_calls), (1, 60));

    // The twin: what can be mended works at once again.
    amazon.state().api.faults.clear();
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_newer_already_is_used_without_asking_lwa() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    let state = amazon.state();
    let body = noise(1024 * 1024 + 1);
    state.api.gate.hold();
    let both = async {
        tokio::join!(proxy.post("/_echo", body.clone()), proxy.post("/_echo", body.clone()))
    };
    let script = async {
        state.api.gate.until_waiting(2).await;
        state.lwa.expire_access_tokens(None);
        state.api.gate.let_through(1);
        // One was rejected, refreshed, and waits here again with the new token.
        eventually("the first replay", || counts(&amazon).api_calls == 3).await;
        state.api.gate.until_waiting(2).await;
        assert_eq!(counts(&amazon).token_calls, 1);
        state.api.gate.release();
    };
    let ((one, two), ()) = tokio::join!(both, script);
    for answer in [one, two] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["body_sha256"], sha256(&body));
    }
    assert_eq!((counts(&amazon).token_calls, counts(&amazon).api_calls), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_a_401_is_replayed() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    let text = r#"{"code":"x","details":"Authentication failed","message":"Unauthorized"}"#;
    let statuses = [400, 402, 403, 404, 407, 409, 415, 422, 425, 429, 500, 502, 503, 504];
    for status in statuses {
        let headers = [("Retry-After", "7"), ("Content-Type", "application/json"), ("X-Odd", "1")];
        amazon.state().api.faults.add(scripted(status, &headers, text), Times::Next(1));
        let answer = proxy.post("/_echo", "once").await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (status, text));
        assert_eq!(answer.error(), None);
        assert_eq!(
            (&answer.headers["retry-after"], &answer.headers["x-odd"]),
            (&"7".parse().expect("a value"), &"1".parse().expect("a value"))
        );
    }
    let counts = counts(&amazon);
    assert_eq!((counts.token_calls, counts.api_calls), (0, statuses.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_connection_dies_without_an_answer_is_sent_once() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    for (n, method) in [Method::POST, Method::GET, Method::PUT].into_iter().enumerate() {
        amazon.state().api.faults.add(ApiFault::Drop, Times::Next(1));
        let request = proxy.request(method, "/_echo").header("X-Ads-Account", "acme").body("once");
        let answer = proxy.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.error()), (502, Some("upstream_unreachable")));
        assert_eq!(counts(&amazon).api_calls, n as u64 + 1);
    }
    // A cut answer is not replayed either: the caller sees the cut.
    amazon.state().api.faults.add(ApiFault::Truncate, Times::Next(1));
    let request = proxy.request(Method::POST, "/_echo").header("X-Ads-Account", "acme");
    assert!(proxy.try_send(request.body("once")).await.is_err());
    assert_eq!((counts(&amazon).token_calls, counts(&amazon).api_calls), (0, 4));
    assert_eq!(proxy.post("/_echo", "next").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_fails_is_the_last_and_counted() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    let failed = r#"adsproxy_replays_total{outcome="failed"}"#;
    amazon.state().api.faults.add(ApiFault::SpuriousUnauthorized, Times::Next(1));
    amazon.state().api.faults.add(ApiFault::Drop, Times::Next(1));
    let answer = proxy.post("/_echo", "x").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (502, Some("upstream_unreachable")));
    assert_eq!(counts(&amazon).api_calls, 2);
    eventually("it is counted", || proxy.metric(failed) > 0.5).await;

    // A replay that Amazon answers is none that failed, whatever it says.
    amazon.state().api.faults.add(ApiFault::SpuriousUnauthorized, Times::Next(1));
    amazon.state().api.faults.add(ApiFault::Unavailable, Times::Next(1));
    let answer = proxy.post("/_echo", "x").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (503, None));
    assert_eq!(counts(&amazon).api_calls, 4);
    assert!(proxy.metric(failed) < 1.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_died_idle_is_not_noticed() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "[proxy]\nworkers = 1\n").await;
    let connections = &amazon.state().connections;
    for n in 0..20 {
        let before = connections.accepted();
        assert_eq!(proxy.post(&format!("/_echo/{n}"), "x").await.status, 200);
        assert_eq!(connections.accepted(), before + u64::from(n > 0));
        connections.close_all();
        eventually("the connection is closed", || connections.open() == 0).await;
    }
    assert!(counts(&amazon).api_calls_by_path.values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_dies_at_any_moment_never_carries_a_request_twice() {
    let amazon = amazon().await;
    let proxy =
        ready(&amazon, "[proxy]\nworkers = 1\n[token]\nforced_refresh_min_interval_secs = 0\n")
            .await;
    let state = amazon.state().clone();
    let closer = tokio::spawn(async move {
        for pause in (0..).map(|n| 100 + n * 37 % 900) {
            state.connections.close_all();
            tokio::time::sleep(std::time::Duration::from_micros(pause)).await;
        }
    });
    let mut answered = 0;
    for n in 0..300 {
        let answer = proxy.post(&format!("/_echo/{n}"), "x").await;
        match answer.status.as_u16() {
            200 => answered += 1,
            502 => assert_eq!(answer.error(), Some("upstream_unreachable")),
            other => panic!("{other}: {}", answer.text()),
        }
    }
    closer.abort();
    println!("{answered} of 300 answered while all connections were closed all the time");
    assert!(counts(&amazon).api_calls_by_path.values().all(|times| *times == 1));
    assert!(counts(&amazon).api_calls >= answered);
    assert_eq!(proxy.post("/_echo", "x").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_replays_the_401_stands_and_the_next_request_has_a_fresh_token() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "[replay]\nmax_replays = 0\n").await;
    amazon.state().lwa.expire_access_tokens(None);
    let answer = proxy.post("/_echo", "x").await;
    assert_eq!((answer.status.as_u16(), answer.error()), (401, None));
    assert_eq!(answer.json()["details"], "Authentication failed");
    assert_eq!(counts(&amazon).api_calls, 1);
    eventually("a fresh token", || counts(&amazon).token_calls == 1).await;
    eventually_ok(&proxy).await;
}

/// The refresh was asked for; its end is not seen from here.
async fn eventually_ok(proxy: &Proxy) {
    while proxy.get("/_status/200").await.status != 200 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_replayed_request_is_whole_on_one_connection() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    let mut caller = Wire::connect(proxy.addr).await;
    for n in 0..50 {
        amazon.state().api.faults.add(ApiFault::SpuriousUnauthorized, Times::Next(n % 3));
        let request = format!(
            "POST /_echo/{n} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
             Content-Length: 4\r\n\r\n{n:04}"
        );
        caller.send(request).await;
        let head = caller.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = field(&head, "content-length").expect("a length").parse().expect("a number");
        let body: serde_json::Value =
            serde_json::from_slice(&caller.exactly(length).await).expect("JSON");
        assert_eq!(body["target"], format!("/_echo/{n}"));
        assert_eq!(body["body_sha256"], sha256(format!("{n:04}").as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_that_breaks_off_is_not_handed_on_as_whole() {
    let amazon = amazon().await;
    let text = "{\"details\":\"Not authorized to access scope 1\"";
    let (length, chunked) = ("content-length: 46", "transfer-encoding: chunked");
    for (whole, framing, body) in [
        (false, length, text.to_owned()),
        (true, length, format!("{text}}}")),
        (false, chunked, format!("2e\r\n{text}")),
        (false, chunked, format!("2e\r\n{text}}}\r\n")),
        (true, chunked, format!("2e\r\n{text}}}\r\n0\r\n\r\n")),
    ] {
        let answer = format!("HTTP/1.1 401 Unauthorized\r\n{framing}\r\n\r\n{body}").into_bytes();
        let upstream = socket::Upstream::start(move |_| Act::SayAndClose(answer.clone()));
        let setup = Setup { upstream: Some(upstream.url()), ..Setup::default() };
        let proxy = Proxy::with(&amazon, setup);
        let mut caller = socket::Wire::open(proxy.addr);
        caller.send("GET /x HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n");
        let answer = caller.read_answer();
        assert_eq!(matches!(answer, Ok(Some(_))), whole, "{framing}: {answer:?}");
    }
}

/// MCP clients begin a login at a 401, and never come back from it.
#[tokio::test(flavor = "multi_thread")]
async fn on_mcp_a_401_that_no_token_fixes_goes_on_as_a_403_with_its_body() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "[token]\nforced_refresh_min_interval_secs = 0\n").await;
    let text = r#"{"code":"401","details":"Not authorized to access scope 1"}"#;
    let permission = || {
        let challenge = ("WWW-Authenticate", "Bearer error=\"insufficient_scope\"");
        let fault = scripted(401, &[("Content-Type", "application/json"), challenge], text);
        amazon.state().api.faults.add(fault, Times::Next(1));
    };
    for path in ["/mcp", "/mcp/lite", "/mcp?x", "/a/acme/mcp"] {
        permission();
        let answer = proxy.post(path, "{}").await;
        let told = (answer.status.as_u16(), answer.error());
        assert_eq!(told, (403, Some("upstream_unauthorized")), "{path}");
        assert_eq!(answer.text(), text);
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    for path in ["/sp/campaigns", "/mcpx"] {
        permission();
        let answer = proxy.post(path, "{}").await;
        assert_eq!((answer.status.as_u16(), answer.error()), (401, None), "{path}");
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    // A 401 that stays although the token is fresh.
    amazon.state().api.faults.add(ApiFault::AuthenticationFailed, Times::Forever);
    let answer = proxy.post("/mcp", "{}").await;
    let told = (answer.status.as_u16(), answer.error());
    assert_eq!(told, (403, Some("upstream_unauthorized")));
    assert_eq!(answer.json()["details"], "Authentication failed");
    amazon.state().api.faults.clear();
    // One that a token fixes is none.
    amazon.state().lwa.expire_access_tokens(None);
    assert_ne!(proxy.post("/mcp", "{}").await.error(), Some("upstream_unauthorized"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_caller_has_left_is_not_replayed() {
    let amazon = amazon().await;
    let proxy =
        ready(&amazon, "[proxy]\nworkers = 1\n[token]\nforced_refresh_min_interval_secs = 0\n")
            .await;
    let state = amazon.state();
    let post = "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
        Content-Length: 2\r\n\r\n{}";
    for leaves in [true, false] {
        state.record.clear();
        state.lwa.expire_access_tokens(None);
        state.api.gate.hold();
        let mut caller = socket::Wire::open(proxy.addr);
        caller.send(post);
        state.api.gate.until_waiting(1).await;
        let status = if leaves {
            drop(caller);
            let gone = || proxy.metric("adsproxy_in_flight_requests") < 0.5;
            eventually("the caller is gone", gone).await;
            state.api.gate.release();
            499
        } else {
            state.api.gate.release();
            caller.answer().status.as_u16()
        };
        // What had to be replayed would have been before this one, on the same worker.
        assert_eq!(proxy.get("/_status/200").await.status, 200);
        let posts = state.record.requests().iter().filter(|seen| seen.method == "POST").count();
        // One of the calls of the twin is the replay; each has its refresh.
        let calls = counts(&amazon).api_calls_by_path["/_sink"];
        assert_eq!(calls, if leaves { 1 } else { 2 }, "{status}, {posts}");
    }
}
