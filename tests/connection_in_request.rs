//! A request that carries a small body runs its connection to Amazon itself. Nobody may notice:
//! neither the next request on it, nor who waits for a place, nor Amazon.

use crate::support::{
    bodies::noise,
    proxy::{Proxy, Setup, amazon, eventually, upstream as hosts},
    wire::{Upstream, Wire, field},
};
use adsproxy::sandbox::Emulator;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};

const KIB: usize = 1024;

/// A proxy whose only worker has at most `connections` to `upstream`.
fn before(amazon: &Emulator, upstream: &Upstream, connections: usize) -> Proxy {
    let hosts = hosts(&upstream.url(), &format!("connections_max = {connections}"));
    let toml = format!("[proxy]\nworkers = 1\n{hosts}");
    Proxy::with(amazon, Setup { toml, ..Setup::default() })
}

/// A request for `acme` with `size` bytes; none for a GET.
fn request(size: usize) -> Vec<u8> {
    let fields = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    if size == 0 {
        return format!("GET /x HTTP/1.1\r\n{fields}\r\n").into_bytes();
    }
    let head = format!("POST /x HTTP/1.1\r\n{fields}Content-Length: {size}\r\n\r\n");
    [head.into_bytes(), noise(size)].concat()
}

fn size(head: &str) -> usize {
    field(head, "content-length").map_or(0, |size| size.parse().expect("a number"))
}

/// Sends the body of the request of `head` back.
async fn echo(wire: &mut Wire, head: &str, fields: &str) {
    let body = wire.exactly(size(head)).await;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    wire.send([answer.as_bytes(), &body].concat()).await;
}

/// The whole answer: its status line and its body.
async fn answer(caller: &mut Wire) -> (String, Vec<u8>) {
    let head = caller.head().await;
    let body = caller.exactly(size(&head)).await;
    (head.lines().next().expect("a line").to_owned(), body)
}

async fn assert_echoed(caller: &mut Wire, size: usize) {
    caller.send(request(size)).await;
    let (status, body) = answer(caller).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body == noise(size), "another body of {} bytes than that of {size}", body.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_and_without_a_body_share_a_connection() {
    let amazon = amazon().await;
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let upstream = Upstream::serve(move |mut wire: Wire| {
        count.fetch_add(1, SeqCst);
        async move {
            while let Some(head) = wire.try_head().await {
                echo(&mut wire, &head, "").await;
            }
        }
    })
    .await;
    let proxy = before(&amazon, &upstream, 8);
    let mut callers = [Wire::connect(proxy.addr).await, Wire::connect(proxy.addr).await];
    for turn in 0..40 {
        // 64 KiB are run by the request, one byte more is not.
        for size in [0, 16 * KIB, 0, 1, 64 * KIB, 64 * KIB + 1] {
            assert_echoed(&mut callers[turn % 2], size).await;
        }
    }
    assert_eq!(opened.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_amazon_closes_after_a_body_is_noticed_at_once() {
    let amazon = amazon().await;
    let (closed, mut closing) = mpsc::unbounded_channel();
    let upstream = Upstream::serve(move |mut wire: Wire| {
        let closed = closed.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                echo(&mut wire, &head, "").await;
                if size(&head) == 17 {
                    wire.finish().await;
                    // Ends when the proxy closes, too.
                    closed.send(wire.rest().await).expect("a reader");
                    return;
                }
            }
        }
    })
    .await;
    let proxy = before(&amazon, &upstream, 1);
    let mut caller = Wire::connect(proxy.addr).await;
    for _ in 0..20 {
        assert_echoed(&mut caller, 16 * KIB).await;
        assert_echoed(&mut caller, 17).await;
        // Without a further request.
        assert_eq!(closing.recv().await.expect("an end"), b"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_is_handed_on_when_the_connection_ends_under_a_request() {
    let amazon = amazon().await;
    let upstream = Upstream::serve(|mut wire: Wire| async move {
        let head = wire.head().await;
        echo(&mut wire, &head, "Connection: close\r\n").await;
        assert_eq!(wire.rest().await, b"", "a request after the last");
    })
    .await;
    let proxy = before(&amazon, &upstream, 1);
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let mut wire = Wire::connect(proxy.addr).await;
        callers.spawn(async move {
            for turn in 0..5 {
                assert_echoed(&mut wire, 16 * KIB + 7 * caller + turn).await;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("served");
    }
    assert_eq!(proxy.metric("adsproxy_upstream_connections_opened_total"), 80.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_takes_its_connection_with_it_and_no_other() {
    let amazon = amazon().await;
    let (told, mut telling) = mpsc::unbounded_channel();
    let upstream = Upstream::serve(move |mut wire: Wire| {
        let told = told.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                match size(&head) {
                    // Never answered; answered in part.
                    size @ (1000 | 2000) => {
                        wire.exactly(size).await;
                        if size == 2000 {
                            let part = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart";
                            wire.send(part).await;
                        }
                        told.send("came").expect("a reader");
                        wire.rest().await;
                        told.send("ended").expect("a reader");
                        return;
                    }
                    _ => echo(&mut wire, &head, "").await,
                }
            }
        }
    })
    .await;
    let proxy = before(&amazon, &upstream, 1);
    let mut other = Wire::connect(proxy.addr).await;
    for size in [1000, 2000, 1000] {
        let mut leaving = Wire::connect(proxy.addr).await;
        leaving.send(request(size)).await;
        assert_eq!(telling.recv().await, Some("came"));
        if size == 2000 {
            leaving.head().await;
        }
        // The only place is taken: this one waits until the caller has left.
        other.send(request(16 * KIB)).await;
        assert!(other.is_silent_for(Duration::from_millis(100)).await);
        drop(leaving);
        assert_eq!(telling.recv().await, Some("ended"));
        assert_eq!(answer(&mut other).await, ("HTTP/1.1 200 OK".into(), noise(16 * KIB)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_stalls_holds_up_its_own_answer_only() {
    const ANSWER: usize = 24 * KIB * KIB;
    let amazon = amazon().await;
    let upstream = Upstream::serve(|mut wire: Wire| async move {
        while let Some(head) = wire.try_head().await {
            if size(&head) != 3000 {
                echo(&mut wire, &head, "").await;
                continue;
            }
            // The answer begins before the body is read.
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n")).await;
            wire.send(noise(ANSWER)).await;
            assert!(wire.exactly(3000).await == noise(3000));
        }
    })
    .await;
    let proxy = before(&amazon, &upstream, 2);
    let mut stalling = Wire::connect(proxy.addr).await;
    stalling.send(request(3000)).await;
    let head = stalling.head().await;
    let mut other = Wire::connect(proxy.addr).await;
    for size in [0, 16 * KIB, 64 * KIB].repeat(20) {
        assert_echoed(&mut other, size).await;
    }
    let body = stalling.exactly(size(&head)).await;
    assert!(body == noise(ANSWER), "a body of {} bytes", body.len());
    assert_echoed(&mut stalling, 5000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_over_http_2_share_connections_over_http_1() {
    let amazon = amazon().await;
    let opened = Arc::new(AtomicUsize::new(0));
    let count = opened.clone();
    let upstream = Upstream::serve(move |mut wire: Wire| {
        count.fetch_add(1, SeqCst);
        async move {
            while let Some(head) = wire.try_head().await {
                echo(&mut wire, &head, "").await;
            }
        }
    })
    .await;
    let proxy = before(&amazon, &upstream, 3);
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let mut callers = JoinSet::new();
    for caller in 0..24 {
        let (client, url) = (client.clone(), proxy.url("/a/acme/x"));
        callers.spawn(async move {
            for turn in 0..8 {
                let body = noise(if turn % 3 == 0 { 100 + caller } else { 16 * KIB + caller });
                let answer = client.post(&url).body(body.clone()).send().await.expect("an answer");
                assert_eq!(
                    (answer.status().as_u16(), answer.version()),
                    (200, http::Version::HTTP_2)
                );
                assert!(answer.bytes().await.expect("a body") == body);
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.expect("served");
    }
    let opened = opened.load(SeqCst);
    assert!((1..=3).contains(&opened), "{opened} connections");
    eventually("nothing is in flight", || proxy.metric("adsproxy_in_flight_requests") == 0.0).await;
}
