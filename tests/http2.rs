//! HTTP/2: by prior knowledge from callers, and by ALPN to Amazon.

use crate::support::{
    bodies::Frames,
    proxy::{Answer, Proxy, Setup, amazon, eventually, judge, upstream},
    secure::{behind_tls, secure_amazon, secure_url},
    socket::{Act, Upstream, Wire, honest},
    stranger,
};
use adsproxy::sandbox::{ApiFault, Emulator, SeenRequest, Surface, Times};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{collections::VecDeque, convert::Infallible, net::SocketAddr};

type Body = BoxBody<Bytes, Infallible>;

fn seen(amazon: &Emulator) -> Vec<SeenRequest> {
    amazon.state().record.requests_for(Surface::Api)
}

/// A connection by prior knowledge.
#[derive(Clone)]
struct Sender {
    sender: SendRequest<Body>,
    addr: SocketAddr,
}

async fn connect(addr: SocketAddr) -> Sender {
    let stream = tokio::net::TcpStream::connect(addr).await.expect("a connection");
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    Sender { sender, addr }
}

impl Sender {
    async fn send_request(&self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let stranger = stranger::send_http2(self.addr, &request).await;
        let response = self.sender.clone().send_request(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        stranger.judge(&Answer { status, headers, body: Vec::new() });
        Ok(response)
    }
}

fn request(target: &str) -> http::request::Builder {
    Request::builder().uri(format!("http://localhost{target}"))
}

fn empty() -> Body {
    Empty::new().boxed()
}

async fn send(sender: &Sender, request: Request<Body>) -> Answer {
    let response = sender.send_request(request).await.expect("an answer");
    read(response).await.0
}

async fn read(response: Response<Incoming>) -> (Answer, Option<HeaderMap>) {
    let (head, body) = response.into_parts();
    assert_eq!(head.version, Version::HTTP_2);
    let body = body.collect().await.expect("a whole body");
    let trailers = body.trailers().cloned();
    let body = body.to_bytes().to_vec();
    let answer = Answer { status: head.status, headers: head.headers, body };
    judge(&answer);
    (answer, trailers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_may_speak_http_2_without_asking() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let sender = connect(proxy.addr).await;
    let rows = [
        ("/_sink?x=1", Some(("x-ads-account", "acme")), "acme"),
        ("/a/globex/_sink?x=1", None, "globex"),
        ("/_sink?x=1", Some(("authorization", "Bearer Atza|globex")), "globex"),
    ];
    for (target, field, account) in rows {
        amazon.state().record.clear();
        let mut request = request(target);
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        let answer = send(&sender, request.body(empty()).expect("a request")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = seen(&amazon);
        assert_eq!(seen[0].account.as_deref(), Some(account));
        assert_eq!((seen[0].target.as_str(), seen[0].version), ("/_sink?x=1", Version::HTTP_11));
        assert_eq!(seen[0].values("host"), [amazon.addr().to_string().as_str()]);
    }
    // HTTP/1.1 goes on beside it, on the same listener.
    Wire::open(proxy.addr).ask_honestly("one");
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_hosts_and_targets_are_judged_as_in_http_1() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let sender = connect(proxy.addr).await;
    type Row =
        (&'static str, &'static str, &'static [(&'static str, &'static str)], u16, &'static str);
    let account = ("x-ads-account", "acme");
    let rows: &[Row] = &[
        ("GET", "http://localhost/", &[], 400, "account_required"),
        (
            "GET",
            "http://localhost/",
            &[("x-ads-account", "acme"), ("x-ads-account", "acme")],
            400,
            "bad_request",
        ),
        (
            "GET",
            "http://localhost/",
            &[("x-ads-account", "acme"), ("x-ads-account", "globex")],
            400,
            "bad_request",
        ),
        ("GET", "http://localhost/", &[("x-ads-account", "acme, globex")], 400, "bad_request"),
        (
            "GET",
            "http://localhost/a/globex/",
            &[("x-ads-account", "acme")],
            400,
            "account_conflict",
        ),
        ("GET", "http://localhost/", &[("x-ads-account", "nobody")], 404, "unknown_account"),
        ("GET", "http://evil.test/", &[("x-ads-account", "acme")], 403, "caller_rejected"),
        (
            "GET",
            "http://localhost/",
            &[("x-ads-account", "acme"), ("host", "evil.test")],
            400,
            "bad_request",
        ),
        (
            "GET",
            "http://localhost/",
            &[("x-ads-account", "acme"), ("origin", "https://evil.test")],
            403,
            "caller_rejected",
        ),
        ("TRACE", "http://localhost/", &[("x-ads-account", "acme")], 405, "bad_request"),
    ];
    for (method, uri, fields, status, code) in rows {
        let mut request = Request::builder().method(*method).uri(*uri);
        for (name, value) in *fields {
            request = request.header(*name, *value);
        }
        let answer = send(&sender, request.body(empty()).expect("a request")).await;
        let told = (answer.status.as_u16(), answer.error().unwrap_or("none"));
        assert_eq!(told, (*status, *code), "{method} {uri} {fields:?}");
    }
    assert!(seen(&amazon).is_empty());
    let honest = request("/_sink").header(account.0, account.1).body(empty()).expect("a request");
    assert_eq!(send(&sender, honest).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caps_on_headers_hold_in_http_2() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let sender = connect(proxy.addr).await;
    let long = |size: usize| {
        request("/_sink").header("x-ads-account", "acme").header("x-long", "x".repeat(size))
    };
    for size in [66_000, 100_000] {
        let answer = send(&sender, long(size).body(empty()).expect("a request")).await;
        let told = (answer.status.as_u16(), answer.error());
        assert_eq!(told, (431, Some("headers_too_large")), "{size}");
    }
    let mut many = request("/_sink").header("x-ads-account", "acme");
    for number in 0..100 {
        many = many.header(format!("x-{number}"), "1");
    }
    let answer = send(&sender, many.body(empty()).expect("a request")).await;
    assert_eq!(answer.error(), Some("headers_too_large"));
    assert_eq!(proxy.metric(r#"adsproxy_limit_hits_total{limit="headers"}"#), 3.0);
    // Twice the cap is refused by the frame layer, which has no words of ours.
    let refused = sender.send_request(long(200_000).body(empty()).expect("a request")).await;
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status() == 431));
    let sender = connect(proxy.addr).await;
    let fits = long(60_000).body(empty()).expect("a request");
    assert_eq!(send(&sender, fits).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_run_side_by_side_up_to_the_limit_and_get_their_own_answers() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n[limits]\nhttp2_streams_max = 16\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let sender = connect(proxy.addr).await;
    let get = |target: String| request(&target).header("x-ads-account", "acme").body(empty());
    // The first answer brings the limit with it.
    send(&sender, get("/_sink".into()).expect("a request")).await;
    amazon.state().api.gate.hold();
    let asked: Vec<_> = (0..200)
        .map(|size| {
            let request = get(format!("/_bytes/{size}")).expect("a request");
            let sender = sender.clone();
            tokio::spawn(async move { send(&sender, request).await })
        })
        .collect();
    amazon.state().api.gate.until_waiting(16).await;
    assert_eq!(proxy.metric("adsproxy_in_flight_requests"), 16.0);
    amazon.state().api.gate.release();
    for (size, asked) in asked.into_iter().enumerate() {
        let answer = asked.await.expect("answered");
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, size));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_trailers_pass_and_request_trailers_do_not() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let sender = connect(proxy.addr).await;
    let body: Vec<u8> =
        (0..3_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let hash: String =
        digest(&SHA256, &body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let post = || request("/_sink").method("POST").header("x-ads-account", "acme");
    // With a length, and as a stream that ends in trailers.
    let whole = Full::new(Bytes::from(body.clone())).boxed();
    assert_eq!(send(&sender, post().body(whole).expect("a request")).await.status, 200);
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-ads-account"),
        http::HeaderValue::from_static("globex"),
    )]);
    let mut frames: VecDeque<_> =
        body.chunks(70_000).map(|chunk| Frame::data(Bytes::copy_from_slice(chunk))).collect();
    frames.push_back(Frame::trailers(trailers));
    let stream = Frames::whole(frames).boxed();
    assert_eq!(send(&sender, post().body(stream).expect("a request")).await.status, 200);
    // A 401 in between costs a replay, not the body.
    amazon.state().api.faults.add(ApiFault::SpuriousUnauthorized, Times::Next(1));
    let whole = Full::new(Bytes::from(body)).boxed();
    assert_eq!(send(&sender, post().body(whole).expect("a request")).await.status, 200);
    let seen = seen(&amazon);
    assert_eq!(seen.len(), 4);
    for seen in seen {
        assert_eq!((seen.body_len, seen.body_complete), (3_000_000, true));
        assert_eq!(seen.body_sha256, hash);
        assert_eq!((seen.account.as_deref(), seen.has_trailers), (Some("acme"), false));
    }
    // An answer cut short is a reset stream, and the others live on.
    amazon.state().api.faults.add(ApiFault::Truncate, Times::Next(1));
    let get = || request("/_sink").header("x-ads-account", "acme").body(empty());
    let cut = sender.send_request(get().expect("a request")).await.expect("a head");
    assert!(cut.into_body().collect().await.is_err(), "a cut answer was taken for whole");
    assert_eq!(send(&sender, get().expect("a request")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_http_1_answer_become_those_of_a_stream() {
    let amazon = amazon().await;
    let origin = Upstream::start(|_| {
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
            4\r\nbody\r\n0\r\nX-Sum: 1\r\n\r\n";
        Act::Say(answer.into())
    });
    let proxy = Proxy::with(&amazon, Setup { upstream: Some(origin.url()), ..Setup::default() });
    let sender = connect(proxy.addr).await;
    let get = request("/").header("x-ads-account", "acme").header("te", "trailers");
    let get = get.body(empty()).expect("a request");
    let (answer, trailers) = read(sender.send_request(get).await.expect("an answer")).await;
    assert_eq!((answer.text().as_str(), trailers.expect("trailers")["x-sum"].len()), ("body", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn amazon_is_spoken_to_in_http_2_where_it_offers_it() {
    let (amazon, ca) = secure_amazon(true).await;
    let proxy = behind_tls(&ca, &amazon, &secure_url(&amazon), "");
    let before = amazon.state().connections.accepted();
    for number in 0..20 {
        Wire::open(proxy.addr).ask_honestly(&number.to_string());
    }
    let body = vec![b'x'; 300_000];
    assert_eq!(proxy.post("/_sink", body).await.json()["length"], 300_000);
    let seen = seen(&amazon);
    assert!(seen.iter().all(|seen| seen.version == Version::HTTP_2));
    assert!(seen.iter().all(|seen| seen.values("host").is_empty()), ":authority is the host");
    assert!(seen.iter().all(|seen| seen.values("authorization").len() == 1));
    // One connection per worker, and one for the token.
    let opened = amazon.state().connections.accepted() - before;
    assert!(opened <= 3 + std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    // A replay works there, too, and so do trailers and cut answers.
    amazon.state().api.faults.add(ApiFault::SpuriousUnauthorized, Times::Next(1));
    let body = vec![b'y'; 300_000];
    assert_eq!(proxy.post("/_sink", body).await.json()["length"], 300_000);
    amazon.state().api.faults.add(ApiFault::Truncate, Times::Next(1));
    let mut wire = Wire::open(proxy.addr);
    wire.send(honest("cut"));
    assert!(wire.read_answer().is_err(), "a cut answer was taken for whole");
    // From HTTP/2 to HTTP/2.
    let sender = connect(proxy.addr).await;
    let get = request("/_trailers").header("x-ads-account", "acme").header("te", "trailers");
    let get = get.body(empty()).expect("a request");
    let (answer, trailers) = read(sender.send_request(get).await.expect("an answer")).await;
    assert_eq!((answer.status, trailers.expect("trailers").len()), (StatusCode::OK, 1));
    // Its end is not ours.
    amazon.state().connections.close_all();
    eventually("a new connection serves", || {
        let mut wire = Wire::open(proxy.addr);
        wire.send(honest("new"));
        wire.read_answer().is_ok_and(|answer| answer.is_some_and(|answer| answer.status == 200))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_1_is_kept_to_where_amazon_or_the_configuration_wants_it() {
    for (offers_http2, keys) in [(true, "http2 = false"), (false, "")] {
        let (amazon, ca) = secure_amazon(offers_http2).await;
        let proxy = behind_tls(&ca, &amazon, &secure_url(&amazon), keys);
        Wire::open(proxy.addr).ask_honestly("one");
        assert_eq!(seen(&amazon)[0].version, Version::HTTP_11, "{offers_http2} {keys}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_a_certificate_of_somebody_else_gets_nothing() {
    let (amazon, ca) = secure_amazon(true).await;
    let (_, other_ca) = secure_amazon(true).await;
    let url = secure_url(&amazon);
    // Not our authority; our authority, but not that name.
    for (ca, url) in [(other_ca, url.clone()), (ca, url.replace("localhost", "127.0.0.1"))] {
        let toml = upstream(&url, &format!("ca_file = {:?}", ca.path()));
        let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
        let mut wire = Wire::open(proxy.addr);
        wire.send(honest("x"));
        assert_eq!(wire.answer().error(), Some("upstream_unreachable"));
    }
    assert!(seen(&amazon).is_empty());
}
