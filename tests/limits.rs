//! Limits: each has its key, its clear answer and its metric, and lets the next request through.

use crate::support::{
    login::free_address,
    proxy::{Answer, Proxy, Setup, amazon, eventually, upstream, write_private},
    socket::{Act, Upstream, Wire, honest},
};
use adsproxy::sandbox::{ApiFault, Emulator, Surface, Times};
use std::{
    io::Read,
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);

/// A proxy with one worker, so that shares per worker are the whole.
fn limited(amazon: &Emulator, toml: &str) -> Proxy {
    let toml = format!("[proxy]\nworkers = 1\n{toml}\n");
    Proxy::with(amazon, Setup { toml, ..Setup::default() })
}

fn hits(proxy: &Proxy, limit: &str) -> f64 {
    proxy.metric(&format!("adsproxy_limit_hits_total{{limit=\"{limit}\"}}"))
}

fn status_and_code(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.error().unwrap_or("none"))
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n")
}

fn post(target: &str, framing: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n{framing}\r\n\r\n")
}

/// Waits for the end of the connection and says when it came.
fn ends_after(wire: &mut Wire) -> Duration {
    let started = Instant::now();
    assert!(wire.is_closed(), "the connection lives on");
    started.elapsed()
}

/// Sends one connection's request and waits for its answer in a thread of its own.
fn ask(proxy: &Proxy, request: String) -> thread::JoinHandle<Answer> {
    let addr = proxy.addr;
    thread::spawn(move || Wire::open(addr).send(request).answer())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_get_a_503_until_others_end() {
    let amazon = amazon().await;
    let proxy = limited(&amazon, "[limits]\nconnections_max = 4");
    let mut held: Vec<_> = (0..4).map(|_| Wire::open(proxy.addr)).collect();
    for (number, wire) in held.iter_mut().enumerate() {
        wire.ask_honestly(&number.to_string());
    }
    for _ in 0..3 {
        // Without a request, and with one.
        let answer = Wire::open(proxy.addr).answer();
        assert_eq!(status_and_code(&answer), (503, "overloaded"));
        let mut wire = Wire::open(proxy.addr);
        let answer = wire.send(honest("beyond")).answer();
        assert_eq!(status_and_code(&answer), (503, "overloaded"));
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(answer.text().contains("limits.connections_max"));
        assert!(wire.is_closed());
    }
    assert_eq!(hits(&proxy, "connections"), 6.0);
    let beyond = |seen: &adsproxy::sandbox::SeenRequest| seen.target.contains("beyond");
    assert!(!amazon.state().record.requests().iter().any(beyond));
    held.pop();
    eventually("a place is free", || proxy.metric("adsproxy_connections") == 3.0).await;
    Wire::open(proxy.addr).ask_honestly("free");
    held[0].ask_honestly("still");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_in_flight_are_refused_at_once() {
    let amazon = amazon().await;
    let proxy = limited(&amazon, "[limits]\nin_flight_max = 2");
    amazon.state().api.gate.hold();
    let parked = [ask(&proxy, honest("1")), ask(&proxy, honest("2"))];
    amazon.state().api.gate.until_waiting(2).await;
    let mut wire = Wire::open(proxy.addr);
    for _ in 0..3 {
        let answer = wire.send(honest("3")).answer();
        assert_eq!(status_and_code(&answer), (503, "overloaded"));
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(answer.text().contains("limits.in_flight_max"));
    }
    assert_eq!(hits(&proxy, "in_flight"), 3.0);
    amazon.state().api.gate.release();
    for asked in parked {
        assert_eq!(asked.join().expect("answered").status, 200);
    }
    wire.ask_honestly("4");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caps_on_headers_are_the_configured_ones() {
    let amazon = amazon().await;
    let proxy = limited(&amazon, "[limits]\nheader_max_bytes = 8192\nheaders_max = 10");
    let head = |lines: &str| {
        format!("GET /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n{lines}\r\n")
    };
    let mut wire = Wire::open(proxy.addr);
    let long = |size: usize| head(&format!("X-Long: {}\r\n", "x".repeat(size)));
    assert_eq!(wire.send(long(8000)).answer().status, 200);
    let answer = wire.send(long(8200)).answer();
    assert_eq!(status_and_code(&answer), (431, "headers_too_large"));
    assert!(answer.text().contains("limits.header_max_bytes"));
    // The request was read whole, so its connection serves on.
    wire.ask_honestly("after");
    let many =
        |count: usize| head(&(0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>());
    assert_eq!(wire.send(many(8)).answer().status, 200);
    assert_eq!(status_and_code(&wire.send(many(9)).answer()), (431, "headers_too_large"));
    assert_eq!(hits(&proxy, "headers"), 2.0);
    Wire::open(proxy.addr).ask_honestly("new");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_cap_are_refused_whether_announced_or_not() {
    let amazon = amazon().await;
    let proxy = limited(&amazon, "[limits]\nbody_max_bytes = 100000");
    let body = |size: usize| "x".repeat(size);
    let chunked = "Transfer-Encoding: chunked";
    let chunk = |size: usize| format!("{size:x}\r\n{}\r\n", body(size));
    let mut wire = Wire::open(proxy.addr);
    let whole = post("/_sink", "Content-Length: 100000") + &body(100_000);
    assert_eq!(wire.send(whole).answer().json()["length"], 100_000);
    let whole = post("/_sink", chunked) + &chunk(60_000) + &chunk(40_000) + "0\r\n\r\n";
    assert_eq!(wire.send(whole).answer().json()["length"], 100_000);
    amazon.state().record.clear();
    let answer = wire.send(post("/_sink", "Content-Length: 100001")).answer();
    assert_eq!(status_and_code(&answer), (413, "body_too_large"));
    assert!(answer.text().contains("limits.body_max_bytes"));
    assert!(amazon.state().record.requests().is_empty(), "refused before Amazon is asked");
    let whole = post("/_sink", chunked) + &chunk(60_000) + &chunk(40_001) + "0\r\n\r\n";
    let answer = Wire::open(proxy.addr).send(whole).answer();
    assert_eq!(status_and_code(&answer), (413, "body_too_large"));
    let seen = amazon.state().record.requests_for(Surface::Api);
    assert!(seen.iter().all(|seen| !seen.body_complete), "half a body was taken for whole");
    assert_eq!(hits(&proxy, "body"), 2.0);
    Wire::open(proxy.addr).ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_first_byte_is_closed() {
    let amazon = amazon().await;
    let proxy = limited(&amazon, "[limits]\nfirst_byte_timeout_secs = 1");
    let mut silent: Vec<_> = (0..20).map(|_| Wire::open(proxy.addr)).collect();
    // Beginnings of an HTTP/2 preface count as silence, too.
    let mut teasing = Wire::open(proxy.addr);
    teasing.send("PRI * HTT");
    let mut honest = Wire::open(proxy.addr);
    honest.ask_honestly("first");
    for wire in &mut silent {
        assert!(ends_after(wire) < 4 * SECOND);
    }
    assert!(ends_after(&mut teasing) < 4 * SECOND);
    assert_eq!(hits(&proxy, "first_byte_timeout"), 21.0);
    // The timeout is for the first byte only.
    honest.ask_honestly("second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_drips_is_cut_off_on_a_new_and_on_a_used_connection() {
    let amazon = amazon().await;
    let proxy = limited(&amazon, "[limits]\nheader_timeout_secs = 1");
    let addr = proxy.addr;
    let drips: Vec<_> = [false, true]
        .into_iter()
        .map(|used| {
            thread::spawn(move || {
                let mut wire = Wire::open(addr);
                if used {
                    wire.ask_honestly("used");
                }
                let started = Instant::now();
                wire.send("GET / HTTP/1.1\r\nHost: localhost\r\n");
                // One line per interval keeps a connection alive that only counts silence.
                while wire.try_send(b"X-Drip: 1\r\n").is_ok() {
                    assert!(started.elapsed() < 10 * SECOND, "the drip goes on");
                    thread::sleep(Duration::from_millis(200));
                }
                wire.rest()
            })
        })
        .collect();
    for drip in drips {
        assert!(drip.join().expect("cut off").is_empty());
    }
    assert_eq!(hits(&proxy, "header_timeout"), 2.0);
    assert!(amazon.state().record.requests_for(Surface::Api).len() == 1);
    // In pieces, but in time.
    let mut wire = Wire::open(addr);
    for piece in honest("pieces").as_bytes().chunks(7) {
        wire.send(piece);
    }
    assert_eq!(wire.answer().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let amazon = amazon().await;
    let proxy = limited(&amazon, "[limits]\nidle_timeout_secs = 1");
    let mut idle = Wire::open(proxy.addr);
    idle.ask_honestly("idle");
    // Amazon takes longer than the idle timeout.
    let busy = ask(&proxy, get("/_slow?ms=3000&body_ms=2500"));
    assert!(ends_after(&mut idle) < 4 * SECOND);
    let answer = busy.join().expect("answered");
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "slowly\n"));
}

/// On average over its life this upload would be fast for a quarter of an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_at_the_start_of_a_body_earns_no_rest_for_later() {
    let amazon = amazon().await;
    let limits = "[limits]\nbody_timeout_secs = 1\nbody_min_bytes_per_sec = 2000";
    let proxy = limited(&amazon, limits);
    let started = Instant::now();
    let mut wire = Wire::open(proxy.addr);
    wire.send(post("/_sink", "Content-Length: 3000000")).send(vec![b'x'; 2_000_000]);
    let mut dripping = wire.stream().try_clone().expect("a handle");
    let drip = thread::spawn(move || {
        use std::io::Write;
        while dripping.write_all(b"x").is_ok() && started.elapsed() < 60 * SECOND {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let answer = wire.answer();
    assert_eq!(status_and_code(&answer), (400, "bad_request"));
    assert!(started.elapsed() < 30 * SECOND, "{:?}", started.elapsed());
    drop(wire);
    drip.join().expect("the connection ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_or_drips_is_refused_and_a_slow_honest_one_is_not() {
    let amazon = amazon().await;
    let limits = "[limits]\nbody_timeout_secs = 1\nbody_min_bytes_per_sec = 2000";
    let proxy = limited(&amazon, limits);
    let addr = proxy.addr;
    let upload = |piece: usize, pieces: usize| {
        thread::spawn(move || {
            let mut wire = Wire::open(addr);
            let length = format!("Content-Length: {}", 100 * piece);
            wire.send(post("/_sink", &length));
            for _ in 0..pieces {
                if wire.try_send(&vec![b'x'; piece]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
            wire.answer()
        })
    };
    let (stalled, dripping, honest) = (upload(10, 1), upload(1, 100), upload(400, 100));
    for slow in [stalled, dripping] {
        let answer = slow.join().expect("answered");
        assert_eq!(status_and_code(&answer), (400, "bad_request"));
        assert!(answer.text().contains("limits.body_min_bytes_per_sec"));
    }
    assert_eq!(honest.join().expect("answered").json()["length"], 40_000);
    assert_eq!(hits(&proxy, "body_timeout"), 2.0);
    let seen = amazon.state().record.requests_for(Surface::Api);
    assert_eq!(seen.iter().filter(|seen| seen.body_complete).count(), 1);
    Wire::open(addr).ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_read_is_cut_off_and_costs_little_memory() {
    let amazon = amazon().await;
    let proxy = limited(&amazon, "[limits]\nwrite_timeout_secs = 1");
    Wire::open(proxy.addr).ask_honestly("before");
    let before = proxy.memory();
    let deaf: Vec<_> = (0..10)
        .map(|_| {
            let mut wire = Wire::open(proxy.addr);
            wire.send(get("/_bytes/200000000"));
            wire
        })
        .collect();
    eventually("all are cut off", || hits(&proxy, "write_timeout") == 10.0).await;
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    for mut wire in deaf {
        assert!(wire.read_answer().is_err(), "a cut answer was taken for whole");
    }
    eventually("none is in flight", || proxy.metric("adsproxy_in_flight_requests") == 0.0).await;
    // A caller that reads slowly, but reads, gets everything.
    let mut wire = Wire::open(proxy.addr);
    wire.send(get("/_bytes/30000000"));
    let (mut stream, mut total) = (wire.stream(), 0);
    let mut buf = vec![0; 1 << 20];
    while total < 30_000_000 {
        total += stream.read(&mut buf).expect("it goes on");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(hits(&proxy, "write_timeout"), 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_waiters_of_a_token_are_refused() {
    let amazon = amazon().await;
    amazon.state().lwa.gate.hold();
    let proxy = limited(&amazon, "[token]\nwaiters_max = 3");
    let asked: Vec<_> = (0..8).map(|n| ask(&proxy, honest(&n.to_string()))).collect();
    eventually("five are refused", || hits(&proxy, "waiters") == 5.0).await;
    amazon.state().lwa.gate.release();
    let answers: Vec<_> = asked.into_iter().map(|ask| ask.join().expect("answered")).collect();
    let (served, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((served.len(), refused.len()), (3, 5));
    for answer in refused {
        assert_eq!(status_and_code(answer), (503, "overloaded"));
        assert!(answer.text().contains("token.waiters_max"));
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(amazon.state().record.counts().token_calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_an_upstream_connection_but_not_for_ever() {
    let amazon = amazon().await;
    let keys = "connections_max = 1\nresponse_header_timeout_secs = 2";
    let proxy = limited(&amazon, &upstream(&format!("http://{}", amazon.addr()), keys));
    amazon.state().api.gate.hold();
    let first = ask(&proxy, honest("first"));
    amazon.state().api.gate.until_waiting(1).await;
    let second = ask(&proxy, honest("second"));
    eventually("it waits", || hits(&proxy, "upstream_connections") == 1.0).await;
    amazon.state().api.gate.release();
    assert_eq!(first.join().expect("answered").status, 200);
    assert_eq!(second.join().expect("answered").status, 200);
    // The other one was for the token.
    assert_eq!(amazon.state().connections.accepted(), 2, "one connection served both");
    // Nobody gives a connection back in time.
    let busy = ask(&proxy, get("/_slow?ms=1500&body_ms=4000"));
    eventually("it is under way", || proxy.metric("adsproxy_in_flight_requests") == 1.0).await;
    let answer = Wire::open(proxy.addr).send(honest("third")).answer();
    assert_eq!(status_and_code(&answer), (503, "overloaded"));
    assert!(answer.text().contains("upstream.connections_max"));
    assert_eq!(busy.join().expect("answered").status, 200);
    Wire::open(proxy.addr).ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_answer_in_time_is_a_504() {
    let amazon = amazon().await;
    let keys = "response_header_timeout_secs = 1\nresponse_idle_timeout_secs = 1";
    let proxy = limited(&amazon, &upstream(&format!("http://{}", amazon.addr()), keys));
    amazon.state().api.faults.add(ApiFault::Hang, Times::Next(2));
    let mut wire = Wire::open(proxy.addr);
    for request in [honest("x"), post("/_sink", "Content-Length: 2") + "ab"] {
        let started = Instant::now();
        assert_eq!(status_and_code(&wire.send(request).answer()), (504, "upstream_timeout"));
        assert!((SECOND..4 * SECOND).contains(&started.elapsed()), "{:?}", started.elapsed());
    }
    wire.ask_honestly("after");
    // The head came in time, but its body falls silent: too late for an answer of ours.
    wire.send(get("/_slow?ms=0&body_ms=10000"));
    assert!(wire.read_answer().is_err(), "a cut answer was taken for whole");
    // Event streams may be silent.
    let mut wire = Wire::open(proxy.addr);
    let answer = wire.send(get("/_sse?events=2&interval_ms=2500")).answer();
    assert!(answer.text().contains("event 2 of 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_reached_is_a_502_and_may_come_back() {
    let amazon = amazon().await;
    let url = format!("http://{}", free_address());
    let proxy = Proxy::with(&amazon, Setup { upstream: Some(url), ..Setup::default() });
    let mut wire = Wire::open(proxy.addr);
    assert_eq!(status_and_code(&wire.send(honest("x")).answer()), (502, "upstream_unreachable"));
    let answer = wire.send(post("/_sink", "Content-Length: 5") + "12345").answer();
    assert_eq!(status_and_code(&answer), (502, "upstream_unreachable"));
    // An upstream that hangs up instead of answering is not asked a second time.
    let hanging_up = Upstream::start(|_| Act::SayAndClose(Vec::new()));
    let setup = Setup { upstream: Some(hanging_up.url()), ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let answer = Wire::open(proxy.addr).send(honest("x")).answer();
    assert_eq!(status_and_code(&answer), (502, "upstream_unreachable"));
    assert_eq!(hanging_up.requests(), 1);
    // One that accepts and says nothing is given up after the connect and header timeouts.
    let silent = Upstream::start(|_| Act::Nothing);
    let toml = upstream(&silent.url(), "response_header_timeout_secs = 1");
    let proxy = limited(&amazon, &toml);
    let answer = Wire::open(proxy.addr).send(honest("x")).answer();
    assert_eq!(status_and_code(&answer), (504, "upstream_timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_handshake_that_does_not_come_is_given_up() {
    let amazon = amazon().await;
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    write_private(&cert, &pair.cert.pem());
    write_private(&key, &pair.signing_key.serialize_pem());
    let toml = format!(
        "[listen.tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n\
         [limits]\nhandshake_timeout_secs = 1"
    );
    let proxy = limited(&amazon, &toml);
    let mut silent = Wire::open(proxy.addr);
    let mut plain = Wire::open(proxy.addr);
    plain.send(honest("plain"));
    assert!(!plain.rest().starts_with(b"HTTP/1.1"), "plain text was answered on a TLS listener");
    assert!(ends_after(&mut silent) < 4 * SECOND);
    eventually("it is counted", || hits(&proxy, "handshake_timeout") == 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_file_descriptors_ends_nothing() {
    let amazon = amazon().await;
    let proxy = limited(&amazon, "");
    Wire::open(proxy.addr).ask_honestly("before");
    let pid = proxy.pid().to_string();
    let limit = |files: &str| {
        let nofile = format!("--nofile={files}");
        let run = Command::new("prlimit").args(["--pid", &pid, &nofile]).status();
        assert!(run.expect("prlimit runs").success());
    };
    limit("48:20000");
    let crowd: Vec<_> =
        (0..200).map(|_| TcpStream::connect(proxy.addr).expect("the backlog takes it")).collect();
    eventually("it has run out", || proxy.log().contains("cannot accept a connection")).await;
    let used = cpu(&proxy);
    thread::sleep(SECOND);
    let used = cpu(&proxy) - used;
    assert!(used < 0.3, "the accept loop spins: {used} s of CPU in one second");
    drop(crowd);
    eventually("it serves again", || {
        let mut wire = Wire::open(proxy.addr);
        wire.send(honest("again"));
        wire.read_answer().is_ok_and(|answer| answer.is_some_and(|answer| answer.status == 200))
    })
    .await;
}

/// Processor time used so far, seconds.
fn cpu(proxy: &Proxy) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).expect("stat");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(|n| n.parse().expect("ticks")).collect();
    ticks.iter().sum::<f64>() / 100.0
}
