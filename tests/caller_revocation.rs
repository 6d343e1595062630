//! A credential that ends takes with it what is open on its behalf, and nothing else.

use crate::support::{
    callers::TestCaller,
    proxy::{ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon},
    wire::{Upstream, Wire, field},
};
use adsproxy::sandbox::CLIENT_SECRET;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    process::Command,
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::timeout};

const EVENT: &[u8] = b"data: x\n\n";
/// How long a key of the tests lives: enough to open what it is to end.
const LIFETIME: Duration = Duration::from_secs(10);
/// "Within a second", on a machine that is busy.
const SOON: Duration = Duration::from_secs(3);

/// Sends one event and is silent until told to send another; does not respond below `/slow`.
async fn silent_upstream(speak: watch::Receiver<bool>) -> Upstream {
    Upstream::serve(move |mut wire: Wire| {
        let mut speak = speak.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                if head.contains("/slow") {
                    wire.rest().await;
                    return;
                }
                let event = format!("{:x}\r\ndata: x\n\n\r\n", EVENT.len());
                wire.send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                     Transfer-Encoding: chunked\r\n\r\n"
                        .to_owned()
                        + &event,
                )
                .await;
                if speak.wait_for(|speak| *speak).await.is_err() {
                    return;
                }
                // What was cut is closed towards us, too.
                let _ = wire.try_send(event + "0\r\n\r\n").await;
            }
        }
    })
    .await
}

/// A caller whose key ends at the time returned.
fn expiring() -> (TestCaller, SystemTime) {
    let ends = SystemTime::now() + LIFETIME;
    let seconds = ends.duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs();
    let at = jiff::Timestamp::from_second(seconds as i64).expect("a time");
    let mut caller = TestCaller::new("leaver", "");
    caller.toml = caller.toml.replace("sha256 = ", &format!("expires = \"{at}\", sha256 = "));
    (caller, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn request(method: &str, path: &str, caller: &TestCaller, more: &str) -> String {
    let key = caller.line();
    format!("{method} /a/acme{path} HTTP/1.1\r\nHost: localhost\r\n{key}{more}\r\n")
}

/// A connection on which an event stream is open and silent.
async fn stream(proxy: &Proxy, caller: &TestCaller) -> Wire {
    let mut wire = Wire::connect(proxy.addr).await;
    wire.send(request("GET", "/silent", caller, "")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(wire.chunk().await, EVENT);
    wire
}

async fn http2(proxy: &Proxy) -> SendRequest<Empty<Bytes>> {
    let stream = tokio::net::TcpStream::connect(proxy.addr).await.expect("a connection");
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn get(
    sender: &SendRequest<Empty<Bytes>>,
    path: &str,
    caller: &TestCaller,
) -> Response<Incoming> {
    let uri = format!("http://localhost/a/acme{path}");
    let request = Request::builder().uri(uri).header("x-ads-key", &caller.key);
    let request = request.body(Empty::new()).expect("a request");
    sender.clone().send_request(request).await.expect("a response")
}

/// As [`stream`], on an HTTP/2 connection.
async fn http2_stream(sender: &SendRequest<Empty<Bytes>>, caller: &TestCaller) -> Incoming {
    let mut body = get(sender, "/silent", caller).await.into_body();
    let event = body.frame().await.expect("a frame").expect("an event");
    assert_eq!(event.into_data().expect("data"), EVENT);
    body
}

/// The rest of a connection, which must end soon.
async fn rest(wire: &mut Wire) -> Vec<u8> {
    timeout(SOON, wire.rest()).await.expect("it ends soon")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_has_open_ends_with_it_and_what_others_have_goes_on() {
    let amazon = amazon().await;
    let (speak, speaking) = watch::channel(false);
    let upstream = silent_upstream(speaking).await;
    let (leaver, ends) = expiring();
    let other = TestCaller::new("other", "");
    let toml = leaver.toml.clone() + &other.toml + "\n[proxy]\nworkers = 1\n";
    let setup = Setup { toml, upstream: Some(upstream.url()), ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);

    let mut cut = stream(&proxy, &leaver).await;
    let mut kept = stream(&proxy, &other).await;
    let sender = http2(&proxy).await;
    let mut cut_http2 = http2_stream(&sender, &leaver).await;
    let kept_http2 = http2_stream(&sender, &other).await;
    let mut upload = Wire::connect(proxy.addr).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    upload.send(request("POST", "/slow", &leaver, chunked) + "3\r\nabc\r\n").await;
    let mut waiting = Wire::connect(proxy.addr).await;
    waiting.send(request("GET", "/slow", &leaver, "")).await;
    let mut idle = Wire::connect(proxy.addr).await;
    idle.send(request("POST", "/auth/o2/token", &leaver, "Content-Length: 0\r\n")).await;
    let (status, body) = response(&mut idle).await;
    assert_ne!(status, 403, "{body}");
    let left = ends.duration_since(SystemTime::now());
    assert!(cut.is_silent_for(left.expect("all was opened in time")).await);

    assert_eq!(rest(&mut cut).await, b"", "no last chunk: the body is not whole");
    let frame = timeout(SOON, cut_http2.frame()).await.expect("it ends soon");
    assert!(frame.expect("no end of the body").is_err(), "the stream is reset");
    for wire in [&mut upload, &mut waiting] {
        let (status, body) = timeout(SOON, response(wire)).await.expect("it ends soon");
        assert!(status == 403 && body.contains("caller_rejected"), "{status} {body}");
    }
    idle.send(request("GET", "/silent", &leaver, "")).await;
    assert_eq!(response(&mut idle).await.0, 403, "on a connection that was accepted before");
    assert_eq!(get(&sender, "/silent", &leaver).await.status(), StatusCode::FORBIDDEN);
    // And the others: on the same worker, one of them on the same connection.
    speak.send_replace(true);
    assert_eq!((kept.chunk().await, kept.chunk().await.len()), (EVENT.to_vec(), 0));
    let rest = kept_http2.collect().await.expect("a whole body");
    assert_eq!(rest.to_bytes(), EVENT);
}

/// The status and the body of a response with a length.
async fn response(wire: &mut Wire) -> (u16, String) {
    let head = wire.head().await;
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let length = field(&head, "content-length").expect("a length").parse().expect("a number");
    let body = wire.exactly(length).await;
    (status, String::from_utf8(body).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_loses_what_it_has_open() {
    let amazon = amazon().await;
    let (_speak, speaking) = watch::channel(false);
    let upstream = silent_upstream(speaking).await;
    let (leaver, other) = (TestCaller::new("leaver", ""), TestCaller::new("other", ""));
    let toml = leaver.toml.clone() + &other.toml;
    let setup =
        Setup { toml, upstream: Some(upstream.url()), file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let (mut cut, mut kept) = (stream(&proxy, &leaver).await, stream(&proxy, &other).await);
    let sender = http2(&proxy).await;
    let mut cut_http2 = http2_stream(&sender, &leaver).await;
    let said = Command::new(env!("CARGO_BIN_EXE_adsproxy"))
        .arg("--config")
        .arg(proxy.dir.path().join("proxy.toml"))
        .args(["caller", "revoke", &leaver.key[5..13]])
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("ACME_REFRESH", ACME_REFRESH)
        .env("GLOBEX_REFRESH", GLOBEX_REFRESH)
        .output()
        .expect("a program that is here");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(rest(&mut cut).await, b"", "no last chunk: the body is not whole");
    let frame = timeout(SOON, cut_http2.frame()).await.expect("it ends soon");
    assert!(frame.expect("no end of the body").is_err(), "the stream is reset");
    assert_eq!(get(&sender, "/silent", &leaver).await.status(), 403);
    assert!(kept.is_silent_for(Duration::from_millis(500)).await, "another's goes on");
}
