//! A credential that ends takes with it what is open on its behalf, and nothing else.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    load::{Load, TEST_TIMEOUT},
    login::ask_with,
    proxy::{ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon},
    wire::{Upstream, Wire, field},
};
use adsproxy::sandbox::CLIENT_SECRET;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::watch, time::timeout};

const EVENT: &[u8] = b"data: x\n\n";
/// How long a key of the tests lives: enough to open what it is to end.
const LIFETIME: Duration = Duration::from_secs(10);
/// What is revoked ends within this.
const SECOND: Duration = Duration::from_secs(1);
/// The same, on a machine that is busy.
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
    ask(sender, Method::GET, path, caller).await
}

async fn ask(
    sender: &SendRequest<Empty<Bytes>>,
    method: Method,
    path: &str,
    caller: &TestCaller,
) -> Response<Incoming> {
    let uri = format!("http://localhost/a/acme{path}");
    let request = Request::builder().method(method).uri(uri).header("x-ads-key", &caller.key);
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
async fn what_a_caller_has_open_ends_when_it_is_taken_out_of_the_configuration() {
    let amazon = amazon().await;
    let (_speak, speaking) = watch::channel(false);
    let upstream = silent_upstream(speaking).await;
    let (leaver, other) = (TestCaller::new("leaver", ""), TestCaller::new("other", ""));
    let toml = leaver.toml.clone() + &other.toml;
    let setup = Setup { toml, upstream: Some(upstream.url()), ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let mut cut = stream(&proxy, &leaver).await;
    let mut kept = stream(&proxy, &other).await;
    let path = proxy.dir.path().join("proxy.toml");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    std::fs::write(&path, text.replace(&leaver.toml, "")).expect("written");
    proxy.signal("HUP");
    assert!(!rest(&mut cut).await.ends_with(b"0\r\n\r\n"));
    assert!(timeout(SECOND, kept.chunk()).await.is_err(), "the other one goes on");
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

/// A request of the operator to the admin listener of `proxy`.
async fn operate(proxy: &Proxy, method: Method, path: &str, body: Value) -> Value {
    let fields = [("x-ads-key", OPERATOR.key.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let reply = ask_with(proxy.admin, method, path, &fields, body).await;
    assert!(reply.status.is_success(), "{}", reply.text);
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_has_open_on_another_server_ends_within_a_second_every_time() {
    let amazon = amazon().await;
    let (_speak, speaking) = watch::channel(false);
    let upstream = silent_upstream(speaking).await;
    let caller = TestCaller::new("etl", "");
    let (toml, upstream) = (caller.toml.clone(), Some(upstream.url()));
    let one = Proxy::with(&amazon, Setup { toml, upstream, file_store: true, ..Setup::default() });
    let two = Proxy::twin(&one);
    let mut kept = stream(&two, &caller).await;
    for round in 0..6 {
        let issued = json!({ "caller": "etl", "ttl_secs": 600 });
        let issued = operate(&one, Method::POST, "/api/v1/sessions", issued).await;
        let key = issued["key"].as_str().expect("a key").to_owned();
        let session = TestCaller { key, toml: String::new() };
        let sender = http2(&two).await;
        // Asks the shim, which knows a session as soon as anything does.
        let shim = async || ask(&sender, Method::POST, "/auth/o2/token", &session).await.status();
        while [403, 429].contains(&shim().await.as_u16()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut cut = stream(&two, &session).await;
        let mut cut_http2 = http2_stream(&sender, &session).await;
        // At another time between two looks at the store, and two ticks of the workers.
        tokio::time::sleep(Duration::from_millis(90) * round).await;
        let load = Load::measure();
        let began = Instant::now();
        let path = format!("/api/v1/sessions/{}", issued["id"].as_str().expect("an id"));
        operate(&one, Method::DELETE, &path, Value::Null).await;
        assert_eq!(cut.rest().await, b"", "no last chunk: the body is not whole");
        let frame = timeout(TEST_TIMEOUT, cut_http2.frame()).await.expect("it ends");
        let (took, slack) = (began.elapsed(), load.slack());
        assert!(frame.expect("no end of the body").is_err(), "the stream is reset");
        assert!(took < SECOND + slack, "{took:?}, and the machine was late by {slack:?}");
        println!("ended after {took:?}, on a machine that was late by {slack:?}");
        // The looks whether it was known have used up the mistakes of this address.
        let next = get(&sender, "/silent", &session).await.status().as_u16();
        assert!([403, 429].contains(&next), "{next}");
    }
    assert!(kept.is_silent_for(Duration::from_millis(300)).await, "its caller's own goes on");
}
