//! HTTP/2: by prior knowledge from callers, by ALPN to Amazon, and bounded under attack.

use crate::support::{
    certs,
    proxy::{Answer, Proxy, Setup, amazon, eventually, judge, upstream},
    socket::Wire,
};
use adsproxy::sandbox::{ApiFault, Emulator, Options, Seen, Surface, Times};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

type Body = BoxBody<Bytes, Infallible>;

fn seen(amazon: &Emulator) -> Vec<Seen> {
    amazon.state().record.requests_for(Surface::Api)
}

/// A connection by prior knowledge.
async fn connect(addr: SocketAddr) -> SendRequest<Body> {
    let stream = tokio::net::TcpStream::connect(addr).await.expect("a connection");
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

fn request(target: &str) -> http::request::Builder {
    Request::builder().uri(format!("http://localhost{target}"))
}

fn empty() -> Body {
    Empty::new().boxed()
}

async fn send(sender: &SendRequest<Body>, request: Request<Body>) -> Answer {
    let response = sender.clone().send_request(request).await.expect("an answer");
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
    let refused =
        sender.clone().send_request(long(200_000).body(empty()).expect("a request")).await;
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
    let stream = Frames(frames).boxed();
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
    let get = request("/_trailers").header("x-ads-account", "acme").header("te", "trailers");
    let get = get.body(empty()).expect("a request");
    let (answer, trailers) = read(sender.clone().send_request(get).await.expect("an answer")).await;
    assert_eq!(answer.text(), "body\n");
    assert_eq!(trailers.expect("trailers")["x-checksum"], "sandbox");
    // An answer cut short is a reset stream, and the others live on.
    amazon.state().api.faults.add(ApiFault::Truncate, Times::Next(1));
    let get = || request("/_sink").header("x-ads-account", "acme").body(empty());
    let cut = sender.clone().send_request(get().expect("a request")).await.expect("a head");
    assert!(cut.into_body().collect().await.is_err(), "a cut answer was taken for whole");
    assert_eq!(send(&sender, get().expect("a request")).await.status, 200);
}

/// A body of these frames, of a length that nobody announces.
struct Frames(VecDeque<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// A proxy in front of `amazon` over TLS.
fn over_tls(amazon: &Emulator, pair: &certs::Pair, keys: &str) -> Proxy {
    let addr = amazon.tls_addr().expect("TLS");
    let keys = format!("ca_file = {:?}\n{keys}", pair.ca);
    let toml = upstream(&format!("https://localhost:{}", addr.port()), &keys);
    Proxy::with(amazon, Setup { toml, ..Setup::default() })
}

async fn amazon_over_tls(pair: &certs::Pair, protocols: &[&str]) -> Emulator {
    let options = Options { tls: Some(pair.server(protocols)), ..Options::default() };
    Emulator::start(options).await.expect("the emulator starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn amazon_is_spoken_to_in_http_2_where_it_offers_it() {
    let pair = certs::localhost();
    let amazon = amazon_over_tls(&pair, &["h2", "http/1.1"]).await;
    let proxy = over_tls(&amazon, &pair, "");
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
    wire.send(crate::support::socket::honest("cut"));
    assert!(wire.read_answer().is_err(), "a cut answer was taken for whole");
    // From HTTP/2 to HTTP/2.
    let sender = connect(proxy.addr).await;
    let get = request("/_trailers").header("x-ads-account", "acme").header("te", "trailers");
    let get = get.body(empty()).expect("a request");
    let (answer, trailers) = read(sender.clone().send_request(get).await.expect("an answer")).await;
    assert_eq!((answer.status, trailers.expect("trailers").len()), (StatusCode::OK, 1));
    // Its end is not ours.
    amazon.state().connections.close_all();
    eventually("a new connection serves", || {
        let mut wire = Wire::open(proxy.addr);
        wire.send(crate::support::socket::honest("new"));
        wire.read_answer().is_ok_and(|answer| answer.is_some_and(|answer| answer.status == 200))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_1_is_kept_to_where_amazon_or_the_configuration_wants_it() {
    let pair = certs::localhost();
    for (protocols, keys) in
        [(&["h2", "http/1.1"][..], "http2 = false"), (&["http/1.1"], ""), (&[], "")]
    {
        let amazon = amazon_over_tls(&pair, protocols).await;
        let proxy = over_tls(&amazon, &pair, keys);
        Wire::open(proxy.addr).ask_honestly("one");
        assert_eq!(seen(&amazon)[0].version, Version::HTTP_11, "{protocols:?} {keys}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_a_certificate_of_somebody_else_gets_nothing() {
    let (pair, other) = (certs::localhost(), certs::localhost());
    let amazon = amazon_over_tls(&pair, &["h2"]).await;
    let port = amazon.tls_addr().expect("TLS").port();
    // Not our authority; our authority, but not that name.
    for (ca, host) in [(&other.ca, "localhost"), (&pair.ca, "localhost.localdomain")] {
        let toml = upstream(&format!("https://{host}:{port}"), &format!("ca_file = {ca:?}"));
        let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
        let mut wire = Wire::open(proxy.addr);
        wire.send(crate::support::socket::honest("x"));
        assert_eq!(wire.answer().error(), Some("upstream_unreachable"));
    }
    assert!(seen(&amazon).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_listener_offers_http_2_and_http_1() {
    let amazon = amazon().await;
    let pair = certs::localhost();
    let toml = format!("[listen.tls]\ncert_file = {:?}\nkey_file = {:?}\n", pair.cert, pair.key);
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let ca = std::fs::read(&pair.ca).expect("the authority");
    let ca = reqwest::Certificate::from_pem(&ca).expect("a certificate");
    let client = || reqwest::Client::builder().tls_certs_only([ca.clone()]).no_proxy();
    let url = format!("https://localhost:{}/_sink", proxy.addr.port());
    for (client, version) in
        [(client(), Version::HTTP_2), (client().http1_only(), Version::HTTP_11)]
    {
        let client = client.build().expect("a client");
        let answer = client.get(&url).header("X-Ads-Account", "acme").send().await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, version));
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// HPACK without compression: every field a literal with a new name.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An HPACK integer with a prefix of seven bits.
fn integer(block: &mut Vec<u8>, number: usize) {
    if number < 127 {
        return block.push(u8::try_from(number).expect("small"));
    }
    block.push(127);
    let mut rest = number - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("small") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("small"));
}

const HONEST: [(&str, &str); 5] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "localhost"),
    (":path", "/_sink"),
    ("x-ads-account", "acme"),
];

/// A connection on which frames are written by hand.
struct Raw(TcpStream);

impl Raw {
    fn open(addr: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("written");
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).expect("written");
        Self(stream)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write_all(frame)
    }

    /// The next frame: kind, stream, payload.
    fn next(&mut self) -> io::Result<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload)?;
        Ok((head[3], stream, payload))
    }

    /// Whether the proxy refuses `stream`, or the whole connection, before it answers it.
    fn is_refused(&mut self, stream: u32) -> bool {
        loop {
            match self.next() {
                Ok((RST_STREAM, of, _)) if of == stream => return true,
                Ok((GOAWAY, _, _)) => return true,
                Ok((HEADERS, of, payload)) if of == stream => {
                    // 400 has a place of its own in HPACK's static table.
                    return payload.first() == Some(&0x8c);
                }
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_http_1_could_not_carry_are_refused_before_amazon() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let with = |extra: &[(&'static str, &'static str)]| [&HONEST[..], extra].concat();
    let instead = |name: &str, value: &'static str| {
        let mut list = HONEST.to_vec();
        list.iter_mut().filter(|field| field.0 == name).for_each(|field| field.1 = value);
        list
    };
    let without =
        |name: &str| HONEST.iter().copied().filter(|field| field.0 != name).collect::<Vec<_>>();
    let lists = [
        with(&[("x", "a\r\nx-ads-account: globex")]),
        with(&[("x", "a\nb")]),
        with(&[("x", "a\0b")]),
        with(&[("x\r\ny", "a")]),
        with(&[("x: y", "a")]),
        with(&[("X-Upper", "a")]),
        with(&[("", "a")]),
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "h2c")]),
        with(&[("keep-alive", "x")]),
        with(&[("te", "gzip")]),
        with(&[(":path", "/second")]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "x")]),
        with(&[("content-length", "5"), ("content-length", "6")]),
        with(&[("content-length", "x")]),
        instead(":path", "/x\r\nHost: evil.test"),
        instead(":path", "/x HTTP/1.1\r\n\r\nGET /smuggled"),
        instead(":path", ""),
        instead(":method", "GET / HTTP/1.1\r\nX: y"),
        instead(":method", ""),
        instead(":scheme", "x\r\ny"),
        instead(":authority", "localhost\r\nx: y"),
        instead(":authority", "user@localhost"),
        without(":method"),
        without(":path"),
        without(":authority"),
    ];
    for list in lists {
        let mut raw = Raw::open(proxy.addr);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&list))).expect("written");
        assert!(raw.is_refused(1), "{list:?}");
        assert!(seen(&amazon).is_empty(), "{list:?} reached Amazon");
    }
    Wire::open(proxy.addr).ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_do_not_match_the_data_never_pass_for_whole() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    for (announced, sent) in [("10", 5), ("5", 10), ("0", 5), ("5", 0)] {
        amazon.state().record.clear();
        let list = [&HONEST[..], &[("content-length", announced)]].concat();
        let mut raw = Raw::open(proxy.addr);
        raw.send(&frame(HEADERS, END_HEADERS, 1, &fields(&list))).expect("written");
        raw.send(&frame(DATA, END_STREAM, 1, &vec![b'x'; sent])).expect("written");
        assert!(raw.is_refused(1), "{announced} announced, {sent} sent");
        let whole = seen(&amazon).iter().any(|seen| seen.body_complete);
        assert!(!whole, "{announced} announced, {sent} sent: taken for whole");
        Wire::open(proxy.addr).ask_honestly("after");
    }
    amazon.state().record.clear();
    let list = [&HONEST[..], &[("content-length", "5")]].concat();
    let mut raw = Raw::open(proxy.addr);
    raw.send(&frame(HEADERS, END_HEADERS, 1, &fields(&list))).expect("written");
    raw.send(&frame(DATA, END_STREAM, 1, b"12345")).expect("written");
    assert!(!raw.is_refused(1));
    assert_eq!(seen(&amazon)[0].body_len, 5);
}

/// Sends `frames` again and again, `count` times or until the proxy has had enough; says whether
/// it ended the connection.
fn flood(proxy: &Proxy, count: u32, prelude: &[u8], frames: impl Fn(u32) -> Vec<u8>) -> bool {
    let mut raw = Raw::open(proxy.addr);
    let mut reader = Raw(raw.0.try_clone().expect("a handle"));
    reader.0.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    let reading = std::thread::spawn(move || {
        loop {
            match reader.next() {
                Ok((GOAWAY, _, _)) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    });
    let _ = raw.send(prelude);
    let mut batch = Vec::new();
    for number in 0..count {
        batch.extend(frames(number));
        if batch.len() > 16_384 {
            if raw.send(&batch).is_err() {
                break;
            }
            batch.clear();
        }
    }
    let _ = raw.send(&batch);
    reading.join().expect("the reader ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_cost_little_memory_and_nobody_else_anything() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    Wire::open(proxy.addr).ask_honestly("before");
    let before = proxy.memory();
    let well = |what: &str| {
        let started = std::time::Instant::now();
        Wire::open(proxy.addr).ask_honestly("well");
        assert!(started.elapsed() < Duration::from_secs(5), "{what} holds the worker up");
        let grown = proxy.memory().saturating_sub(before);
        println!("{what}: +{} KiB", grown >> 10);
        assert!(grown < 96 << 20, "{what}: memory grew by {grown} bytes");
    };
    let head = fields(&HONEST);
    let open = frame(HEADERS, END_HEADERS, 1, &head);
    let stream = |number: u32| 2 * number + 1;

    let reset = flood(&proxy, 50_000, &[], |number| {
        let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &head);
        frames.extend(frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes()));
        frames
    });
    assert!(reset, "rapid reset goes on unpunished");
    well("rapid reset");
    // The proxy is made to reset: a window update of zero is an error of its stream.
    let made = flood(&proxy, 50_000, &[], |number| {
        let mut frames = frame(HEADERS, END_HEADERS, stream(number), &head);
        frames.extend(frame(WINDOW_UPDATE, 0, stream(number), &[0; 4]));
        frames
    });
    assert!(made, "made-you-reset goes on unpunished");
    well("made-you-reset");
    let unfinished = frame(HEADERS, 0, 1, &head);
    let continued = flood(&proxy, 50_000, &unfinished, |number| {
        frame(CONTINUATION, 0, 1, &fields(&[(&format!("x-{number}"), &"x".repeat(200))]))
    });
    assert!(continued, "a head without end goes on unpunished");
    well("continuation");
    let hollow = flood(&proxy, 50_000, &unfinished, |_| frame(CONTINUATION, 0, 1, &[]));
    assert!(hollow, "a head of nothing without end goes on unpunished");
    well("empty continuation");
    flood(&proxy, 50_000, &[], |number| frame(PING, 0, 0, &u64::from(number).to_be_bytes()));
    well("ping");
    flood(&proxy, 50_000, &[], |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]));
    well("settings");
    flood(&proxy, 50_000, &open, |_| frame(DATA, 0, 1, &[]));
    well("empty data");
    flood(&proxy, 50_000, &open, |_| frame(0xfe, 0, 1, &[0; 100]));
    well("unknown frames");
    // Indexes one long field, then names it by one byte a time.
    let mut bomb = vec![0x40];
    integer(&mut bomb, 1);
    bomb.push(b'x');
    integer(&mut bomb, 3_000);
    bomb.resize(bomb.len() + 3_000, b'y');
    let prelude = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&head[..], &bomb].concat());
    flood(&proxy, 500, &prelude, |number| {
        let block = [&head[..], &[0xbe; 15_000]].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream(number + 1), &block)
    });
    well("compression bomb");
    let whole = seen(&amazon).iter().filter(|seen| seen.target == "/_sink").count();
    println!("{whole} requests reached the emulator");
}
