//! Bodies in both directions: as they come, at the pace of the slower side, framed as they were.

use crate::support::{
    bodies::{Streamed, noise, sha256},
    proxy::{Proxy, Setup, amazon, eventually},
    wire::{Upstream, Wire, field},
};
use adsproxy::sandbox::{ApiFault, Emulator, Scripted, SeenRequest, Surface, Times};
use http::{Method, StatusCode};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc};

const MIB: u64 = 1024 * 1024;

/// A proxy with one worker, so that one pool holds its connections, and with its token already.
async fn ready(amazon: &Emulator) -> Proxy {
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let proxy = Proxy::with(amazon, Setup { toml, ..Setup::default() });
    assert_eq!(proxy.get("/_status/200").await.status, 200);
    amazon.state().record.clear();
    // The connection to LWA, kept for later, is not to be counted with those to the API.
    amazon.state().connections.close_all();
    eventually("no connection", || amazon.state().connections.open() == 0).await;
    proxy
}

/// A proxy in front of `upstream`; the emulator is LWA only.
fn before(amazon: &Emulator, upstream: &Upstream) -> Proxy {
    Proxy::with(amazon, Setup { upstream: Some(upstream.url()), ..Setup::default() })
}

/// The head of a request for `acme`.
fn head(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n{fields}\r\n")
}

fn last(amazon: &Emulator) -> SeenRequest {
    amazon.state().record.requests_for(Surface::Api).pop().expect("a request")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_passes_at_once() {
    let amazon = amazon().await;
    let (sent, mut sending) = mpsc::unbounded_channel();
    let upstream = Upstream::serve(move |mut wire: Wire| {
        let sent = sent.clone();
        async move {
            while wire.try_head().await.is_some() {
                wire.send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                     Transfer-Encoding: chunked\r\n\r\n",
                )
                .await;
                for n in 0..20 {
                    let event = format!("event: message\ndata: {n}\n\n");
                    sent.send(Instant::now()).expect("a reader");
                    wire.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
                wire.send("0\r\n\r\n").await;
            }
        }
    })
    .await;
    let proxy = before(&amazon, &upstream);
    for path in ["/mcp", "/_sse"] {
        let mut caller = Wire::connect(proxy.addr).await;
        let fields = "Accept: text/event-stream\r\nContent-Length: 2\r\n";
        caller.send(head("POST", path, fields) + "{}").await;
        assert_eq!(field(&caller.head().await, "content-type"), Some("text/event-stream"));
        let mut delays = Vec::new();
        for n in 0..20 {
            let event = caller.chunk().await;
            let sent = sending.recv().await.expect("a time");
            delays.push(sent.elapsed());
            assert_eq!(event, format!("event: message\ndata: {n}\n\n").into_bytes());
        }
        assert!(caller.chunk().await.is_empty());
        // All of them together take 800 ms; on a busy machine a single one may be late.
        println!("{path}: first event after {:?}", delays[0]);
        delays.sort();
        assert!(delays[10] < Duration::from_millis(100), "{delays:?}");
        assert!(delays[19] < Duration::from_millis(400), "{delays:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mcp_call_streams_its_progress() {
    let amazon = amazon().await;
    amazon.state().api.configure(|api| api.mcp_interval = Duration::from_secs(1));
    let proxy = ready(&amazon).await;
    for path in ["/mcp", "/a/acme/mcp/lite"] {
        let request = proxy.request(Method::POST, path).bearer_auth("Atza|acme");
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#;
        let started = Instant::now();
        let mut answer = request.body(call).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let first = answer.chunk().await.expect("a body").expect("an event");
        assert!(first.starts_with(b"event: message"), "{first:?}");
        // The second one is not even made yet.
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        let mut rest = Vec::new();
        while let Some(chunk) = answer.chunk().await.expect("a body") {
            rest.extend(chunk);
        }
        assert!(String::from_utf8_lossy(&rest).contains("Sandbox campaign"));
        assert!(started.elapsed() > Duration::from_millis(1200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn response_trailers_reach_a_caller_that_asked_for_them() {
    let amazon = amazon().await;
    let upstream = Upstream::serve(|mut wire: Wire| async move {
        while let Some(head) = wire.try_head().await {
            // The caller's TE was for its own connection.
            assert_eq!((field(&head, "te"), field(&head, "connection")), (None, None));
            wire.send(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-checksum\r\n\r\n\
                 5\r\nbody\n\r\n0\r\nx-checksum: sandbox\r\n\r\n",
            )
            .await;
        }
    })
    .await;
    let proxy = Proxy::with(&amazon, Setup { upstream: Some(upstream.url()), ..Setup::default() });
    let mut caller = Wire::connect(proxy.addr).await;
    caller.send(head("GET", "/x", "TE: trailers\r\nConnection: TE\r\n")).await;
    let answer = caller.head().await;
    assert_eq!(field(&answer, "trailer"), Some("x-checksum"));
    assert_eq!(caller.chunk().await, b"body\n");
    assert!(caller.chunk().await.is_empty());
    assert_eq!(caller.head().await, "x-checksum: sandbox");
    // The twin, on the same connection: who did not ask gets the body only.
    caller.send(head("GET", "/x", "")).await;
    caller.head().await;
    assert_eq!(caller.chunked().await, b"body\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn request_trailers_are_dropped() {
    let amazon = amazon().await;
    let proxy = ready(&amazon).await;
    let mut caller = Wire::connect(proxy.addr).await;
    let fields = "Transfer-Encoding: chunked\r\nTrailer: X-Ads-Account, X-Odd\r\n";
    let body = "4\r\nbody\r\n0\r\nX-Ads-Account: globex\r\nX-Odd: 1\r\n\r\n";
    caller.send(head("POST", "/_echo", fields) + body).await;
    let answer = caller.head().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = last(&amazon);
    assert!(!seen.has_trailers && seen.body_complete);
    assert_eq!((seen.body.as_ref(), seen.account.as_deref()), (b"body".as_ref(), Some("acme")));
    assert_eq!(seen.values("trailer"), Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_hears_100_when_amazon_says_it_and_not_before() {
    let amazon = amazon().await;
    let wanted = Arc::new(Notify::new());
    let say_it = wanted.clone();
    let upstream = Upstream::serve(move |mut wire: Wire| {
        let wanted = wanted.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                assert_eq!(field(&head, "expect"), Some("100-continue"));
                wanted.notified().await;
                wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                let body = wire.exactly(5).await;
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
                wire.send(body).await;
            }
        }
    })
    .await;
    let proxy = before(&amazon, &upstream);
    let mut caller = Wire::connect(proxy.addr).await;
    for body in ["first", "again"] {
        let fields = "Expect: 100-continue\r\nContent-Length: 5\r\n";
        caller.send(head("POST", "/upload", fields)).await;
        assert!(caller.is_silent_for(Duration::from_millis(500)).await);
        say_it.notify_one();
        let started = Instant::now();
        assert_eq!(caller.head().await, "HTTP/1.1 100 Continue");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        caller.send(body).await;
        assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(caller.exactly(5).await, body.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_answer_instead_of_100_passes_and_no_byte_of_the_body_is_sent() {
    let amazon = amazon().await;
    let (done, mut ended) = mpsc::unbounded_channel();
    let upstream = Upstream::serve(move |mut wire: Wire| {
        let done = done.clone();
        async move {
            let Some(_) = wire.try_head().await else { return };
            wire.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nbig\n").await;
            done.send(wire.rest().await).expect("a reader");
        }
    })
    .await;
    let proxy = before(&amazon, &upstream);
    let mut caller = Wire::connect(proxy.addr).await;
    let fields = "Expect: 100-continue\r\nContent-Length: 5000\r\n";
    caller.send(head("POST", "/upload", fields)).await;
    let answer = caller.head().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(caller.exactly(4).await, b"big\n");
    // Neither side can be used for another request: the body may still come, or not.
    assert_eq!(String::from_utf8_lossy(&caller.rest().await), "");
    assert_eq!(ended.recv().await.expect("an end"), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_before_the_body_is_replayed_and_then_the_body_goes() {
    let amazon = amazon().await;
    let proxy = ready(&amazon).await;
    amazon.state().api.configure(|api| api.responds_before_body = true);
    amazon.state().lwa.expire_access_tokens(None);
    let body = noise(100_000);
    let mut caller = Wire::connect(proxy.addr).await;
    let fields = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
    caller.send(head("POST", "/_echo", &fields)).await;
    assert_eq!(caller.head().await, "HTTP/1.1 100 Continue");
    caller.send(&body).await;
    let answer = caller.head().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let requests = amazon.state().record.requests_for(Surface::Api);
    let sizes: Vec<_> = requests.iter().map(|seen| (seen.status, seen.body_len)).collect();
    assert_eq!(sizes, [(Some(401), 0), (Some(200), 100_000)]);
    assert_eq!(requests[1].body_sha256, sha256(&body));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_reaches_a_caller_that_still_uploads() {
    let amazon = amazon().await;
    let proxy = ready(&amazon).await;
    amazon.state().api.configure(|api| api.responds_before_body = true);
    for _ in 0..10 {
        let refusal = Scripted {
            status: StatusCode::FORBIDDEN,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: r#"{"code":"403"}"#.into(),
        };
        amazon.state().api.faults.add(ApiFault::Respond(refusal), Times::Next(1));
        let mut caller = Wire::connect(proxy.addr).await;
        caller.send(head("POST", "/_sink", "Content-Length: 100000000\r\n")).await;
        let part = vec![b'x'; 64 * 1024];
        while caller.try_send(&part).await.is_ok() {}
        assert!(caller.head().await.starts_with("HTTP/1.1 403 "));
        assert_eq!(caller.exactly(14).await, br#"{"code":"403"}"#);
        assert_eq!(proxy.post("/_echo", "next").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_download_waits_for_a_slow_reader_in_bounded_memory() {
    const SIZE: u64 = 512 * MIB;
    let amazon = amazon().await;
    let written = Arc::new(AtomicU64::new(0));
    let progress = written.clone();
    let upstream = Upstream::serve(move |mut wire: Wire| {
        let written = progress.clone();
        async move {
            while wire.try_head().await.is_some() {
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
                let part = vec![b'x'; 256 * 1024];
                for _ in 0..SIZE / part.len() as u64 {
                    wire.send(&part).await;
                    written.fetch_add(part.len() as u64, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    let proxy = before(&amazon, &upstream);
    let mut request = proxy.request(Method::GET, "/big").header("X-Ads-Account", "acme");
    request = request.header("Accept", "*/*");
    let baseline = proxy.memory();
    let mut answer = request.send().await.expect("an answer");
    assert_eq!(answer.content_length(), Some(SIZE));
    let mut read = answer.chunk().await.expect("a body").expect("bytes").len() as u64;
    // Nobody reads: what Amazon can write ends with the buffers in between.
    let (mut before, mut same) = (0, 0);
    eventually("the upload stands still", || {
        let now = written.load(Ordering::Relaxed);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        same > 40
    })
    .await;
    println!("{} KiB were on their way to a caller that does not read", before / 1024);
    assert!(before < 64 * MIB, "{before}");
    let mut most = proxy.memory();
    while let Some(chunk) = answer.chunk().await.expect("a body") {
        if read / (32 * MIB) != (read + chunk.len() as u64) / (32 * MIB) {
            most = most.max(proxy.memory());
        }
        read += chunk.len() as u64;
    }
    assert_eq!(read, SIZE);
    let growth = most.saturating_sub(baseline);
    println!("512 MiB passed; memory grew by {} KiB", growth / 1024);
    assert!(growth < 16 * MIB, "{growth}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_in_its_upload_takes_the_upstream_connection_along() {
    let amazon = amazon().await;
    let proxy = ready(&amazon).await;
    let state = amazon.state();
    for fields in ["Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let broken = state.record.counts().bodies_broken;
        let mut caller = Wire::connect(proxy.addr).await;
        caller.send(head("POST", "/_sink", fields)).await;
        caller.send(format!("10000\r\n{}", "x".repeat(65_536))).await;
        let api_calls = state.record.counts().api_calls;
        eventually("it is under way", || api_calls == state.record.counts().api_calls).await;
        drop(caller);
        eventually("the body broke off", || state.record.counts().bodies_broken > broken).await;
        eventually("the connection is gone", || state.connections.open() == 0).await;
        eventually("nothing is in flight", || proxy.metric("adsproxy_in_flight_requests") < 0.5)
            .await;
        assert_eq!(proxy.post("/_echo", "next").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_in_its_download_takes_the_upstream_connection_along() {
    let amazon = amazon().await;
    let proxy = ready(&amazon).await;
    let state = amazon.state();
    for target in ["/_bytes/1000000000", "/_sse?events=1000000&interval_ms=5"] {
        let mut caller = Wire::connect(proxy.addr).await;
        caller.send(head("GET", target, "")).await;
        caller.head().await;
        caller.exactly(30).await;
        assert_eq!(state.connections.open(), 1);
        drop(caller);
        eventually("the connection is gone", || state.connections.open() == 0).await;
        eventually("nothing is in flight", || proxy.metric("adsproxy_in_flight_requests") < 0.5)
            .await;
        assert_eq!(proxy.post("/_echo", "next").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_before_the_answer_takes_the_upstream_connection_along() {
    let amazon = amazon().await;
    let proxy = ready(&amazon).await;
    let state = amazon.state();
    state.api.gate.hold();
    let mut caller = Wire::connect(proxy.addr).await;
    caller.send(head("GET", "/_echo", "")).await;
    state.api.gate.until_waiting(1).await;
    drop(caller);
    eventually("the connection is gone", || state.connections.open() == 0).await;
    state.api.gate.release();
    assert_eq!(proxy.post("/_echo", "next").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_leave_the_connection_usable() {
    let amazon = amazon().await;
    let proxy = ready(&amazon).await;
    let mut caller = Wire::connect(proxy.addr).await;
    for _ in 0..3 {
        caller.send(head("HEAD", "/_bytes/12345", "")).await;
        let answer = caller.head().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(field(&answer, "content-length"), Some("12345"));
        for status in ["204", "304"] {
            caller.send(head("GET", &format!("/_status/{status}"), "")).await;
            let answer = caller.head().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert_eq!(field(&answer, "transfer-encoding"), None);
        }
    }
    // One connection on either side carried them all.
    assert_eq!(amazon.state().connections.open(), 1);
    assert!(caller.is_silent_for(Duration::from_millis(50)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_framing_of_either_side_stays_as_it_was() {
    let amazon = amazon().await;
    let proxy = ready(&amazon).await;
    let mut caller = Wire::connect(proxy.addr).await;
    caller.send(head("GET", "/_bytes/100", "")).await;
    let answer = caller.head().await;
    assert_eq!(field(&answer, "content-length"), Some("100"));
    assert_eq!(field(&answer, "transfer-encoding"), None);
    assert_eq!(caller.exactly(100).await, [b'x'; 100]);
    // A request without a body gets no framing at all, and no field that it did not have.
    let names: Vec<_> = last(&amazon).headers.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["host", "authorization", "amazon-advertising-api-clientid"]);

    caller.send(head("GET", "/_slow?ms=0&body_ms=50", "")).await;
    let answer = caller.head().await;
    assert_eq!(field(&answer, "transfer-encoding"), Some("chunked"));
    assert_eq!(field(&answer, "content-length"), None);
    assert_eq!(caller.chunked().await, b"slowly\n");

    for (sized, body) in
        [(true, reqwest::Body::from("body")), (false, { Streamed::chunked(b"body", 1).into() })]
    {
        assert_eq!(proxy.post("/_echo", body).await.status, 200);
        let seen = last(&amazon);
        assert_eq!(seen.values("content-length"), if sized { vec!["4"] } else { vec![] });
        let chunked = if sized { vec![] } else { vec!["chunked"] };
        assert_eq!(seen.values("transfer-encoding"), chunked);
        assert_eq!(seen.body.as_ref(), b"body");
    }
    // An empty body that says so is not the same as none.
    caller.send(head("POST", "/_echo", "Content-Length: 0\r\n")).await;
    let answer = caller.head().await;
    assert_eq!(last(&amazon).values("content-length"), ["0"], "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_byte_for_byte_whatever_they_are() {
    let amazon = amazon().await;
    let proxy = ready(&amazon).await;
    let multi = br#"{"campaigns":{"success":[],"error":[{"index":0}]}}"#.to_vec();
    let cases = [
        (207, "application/vnd.spCampaign.v3+json", "identity", multi),
        (200, "application/json", "gzip", noise(50_000)),
        (200, "application/json", "br", noise(10)),
        (418, "application/octet-stream", "identity", noise(300_000)),
        (200, "text/html", "identity", Vec::new()),
    ];
    for (status, kind, encoding, body) in cases {
        let headers = [("Content-Type", kind), ("Content-Encoding", encoding)];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let answer = Scripted {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers.map(own).into(),
            body: body.clone().into(),
        };
        amazon.state().api.faults.add(ApiFault::Respond(answer), Times::Next(1));
        let answer = proxy.get("/_echo").await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.headers["content-type"], kind);
        assert_eq!(answer.headers["content-encoding"], encoding);
        assert_eq!(answer.headers["content-length"], body.len().to_string().as_str());
        assert!(answer.body == body);
    }
    // Who asks for gzip gets Amazon's gzip.
    amazon.state().api.configure(|api| api.gzip_min_bytes = 0);
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
    let answer = proxy.send(request.header("Accept-Encoding", "gzip")).await;
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert_eq!(answer.body[..2], [0x1f, 0x8b]);
}
