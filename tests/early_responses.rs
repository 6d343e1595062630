//! A response that comes before the request body has been received: the caller reads it whole, the
//! connection goes on or announces its end, and a stop does not wait for the rest of the body.

use crate::support::{
    proxy::{Answer, Proxy, Setup, amazon, eventually, upstream},
    socket::Wire,
    uploads::{ALL, Amazon, Uploads, assert_stops_at_once, before},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const SIZES: [usize; 4] = [7, 500_000, 5_000_000, 20_000_000];
const ROUNDS: usize = 4;
/// A connection that goes on or ends later than this hangs.
const PROMPT: Duration = Duration::from_secs(8);
fn head(size: usize) -> String {
    format!(
        "POST /upload HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
         Content-Length: {size}\r\n\r\n"
    )
}

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: nobody\r\n\r\n";

/// Sends a whole upload and only then looks for the response, as simple clients do.
fn upload(addr: SocketAddr, size: usize, behind: &[u8]) -> (Wire, Answer) {
    let mut caller = Wire::open(addr);
    caller.try_send(head(size).as_bytes()).expect("the head is taken");
    let mut body = vec![b'x'; size];
    body.extend_from_slice(behind);
    caller.try_send(&body).expect("the whole body is taken");
    let answer = caller.read_answer().expect("no reset").expect("a response");
    (caller, answer)
}

fn announces_end(answer: &Answer) -> bool {
    answer.headers.get("connection").is_some_and(|value| value == "close")
}

/// The caller reads its response; then the connection serves a next request, unless its end was
/// announced: then it ends in order.
fn assert_goes_on_or_ends(
    addr: SocketAddr,
    amazon: Amazon,
    size: usize,
    pipelined: bool,
    what: &str,
) {
    let (mut caller, answer) = upload(addr, size, if pipelined { NEXT } else { b"" });
    assert_eq!(answer.status, amazon.due(), "{what}: {}", answer.text());
    let began = Instant::now();
    if announces_end(&answer) {
        assert!(caller.ends_in_order(), "{what}: the end");
    } else {
        if !pipelined {
            caller.send(NEXT);
        }
        let next = caller.read_answer().unwrap_or_else(|error| panic!("{what}: {error}"));
        let next = next.unwrap_or_else(|| panic!("{what}: the end was not announced"));
        assert_eq!(next.status, 404, "{what}");
    }
    assert!(began.elapsed() < PROMPT, "{what}: {:?}", began.elapsed());
}

async fn assert_every_size(amazon: Amazon) {
    let uploads = Uploads::start(amazon);
    let mut proxy = before(&uploads).await;
    let addr = proxy.addr;
    let every = SIZES.iter().flat_map(|size| [(*size, false), (*size, true)]);
    let callers = every.map(|(size, pipelined)| {
        thread::spawn(move || {
            for round in 0..ROUNDS {
                let what = format!("{amazon:?}, {size} B, round {round}, pipelined {pipelined}");
                assert_goes_on_or_ends(addr, amazon, size, pipelined, &what);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.join().expect("every caller is served");
    }
    assert_eq!(proxy.metric("adsproxy_in_flight_requests"), 0.0);
    assert_stops_at_once(&mut proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_reads_the_502_when_amazon_refuses() {
    assert_every_size(Amazon::Refuses).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_reads_the_502_when_amazon_closes_mid_upload() {
    assert_every_size(Amazon::ClosesMidUpload).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_reads_amazons_early_413() {
    assert_every_size(Amazon::AnswersEarly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_reads_the_504_when_amazon_never_reads() {
    assert_every_size(Amazon::NeverReads).await;
}

/// Amazon keeps the connection open, but reads no more of the upload.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_amazon_has_answered_and_does_not_read_gives_its_connection_up() {
    let url = responds_early(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec());
    let amazon = amazon().await;
    let toml = format!("[proxy]\nworkers = 1\n{}", upstream(&url, ""));
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let mut before = 0;
    // The first one fetches the token, too, whose connection is kept.
    for number in 0..5 {
        let (mut caller, answer) = upload(proxy.addr, 20_000_000, b"");
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "ok".to_owned()));
        assert!(announces_end(&answer) && caller.ends_in_order());
        if number == 0 {
            before = sockets(&proxy);
        }
    }
    eventually("the connections to Amazon are closed", || sockets(&proxy) <= before).await;
}

/// The open sockets of the proxy.
fn sockets(proxy: &Proxy) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("open files");
    let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The callers have their responses and send neither the rest of the body nor the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_the_rest_of_a_body() {
    for amazon in ALL {
        let uploads = Uploads::start(amazon);
        let mut proxy = before(&uploads).await;
        // An upload that Amazon does not read must fill what lies in between.
        let sizes = if amazon == Amazon::NeverReads { &SIZES[3..] } else { &SIZES };
        let half_sent = |size: &usize| {
            let mut caller = Wire::open(proxy.addr);
            caller.send(head(*size)).send(vec![b'x'; size / 2 + 1]);
            assert_eq!(caller.answer().status, amazon.due(), "{amazon:?} {size}");
            caller
        };
        let callers: Vec<Wire> = sizes.iter().map(half_sent).collect();
        assert_eq!(proxy.metric("adsproxy_in_flight_requests"), 0.0, "{amazon:?}");
        assert_stops_at_once(&mut proxy);
        drop(callers);
    }
}

/// The caller still sends for half a second when the server stops, and looks for its response then.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_right_after_an_early_response_costs_no_caller_that_response() {
    let uploads = Uploads::start(Amazon::AnswersEarly);
    let mut proxy = before(&uploads).await;
    let mut callers: Vec<Wire> = (0..4).map(|_| Wire::open(proxy.addr)).collect();
    for caller in &mut callers {
        caller.send(head(20_000_000)).send(vec![b'x'; 500_000]);
    }
    let sample = r#"adsproxy_requests_total{code_class="4xx"}"#;
    // With the one that fetched the token.
    eventually("every response is out", || proxy.metric(sample) == 5.0).await;
    proxy.signal("TERM");
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_millis(600) {
        for caller in &mut callers {
            caller.try_send(&[b'x'; 1000]).expect("the connection is not reset");
        }
        thread::sleep(Duration::from_millis(10));
    }
    for caller in &mut callers {
        let response = caller.read_answer().expect("no reset").expect("a response");
        assert_eq!(response.status, Amazon::AnswersEarly.due());
    }
    drop(callers);
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(stopped.elapsed() < Duration::from_millis(1600), "{:?}", stopped.elapsed());
}

/// An upstream that reads the head and some of an upload, responds, and reads no more.
fn responds_early(response: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        let mut unread = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(&response);
            unread.push(stream);
        }
    });
    url
}

/// While the proxy waits for a new token, the caller's time does not run, and what it sends then
/// reaches Amazon behind what was captured.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_waits_through_a_refresh_is_not_too_slow_and_its_body_arrives_whole() {
    const SIZE: usize = 400_000;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (uploads, replayed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, bytes) = (uploads.clone(), replayed.clone());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (count, bytes) = (count.clone(), bytes.clone());
            thread::spawn(move || {
                let (mut received, mut buffer) = (Vec::new(), [0; 16 * 1024]);
                let mut body = |stream: &mut std::net::TcpStream| {
                    let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
                    received.extend_from_slice(&buffer[..read]);
                    let head = received.windows(4).position(|end| end == b"\r\n\r\n")?;
                    Some((received.starts_with(b"POST"), received.len() - head - 4))
                };
                let Some((is_upload, _)) = body(&mut stream) else { return };
                if is_upload && count.fetch_add(1, SeqCst) > 0 {
                    while let Some((_, len)) = body(&mut stream) {
                        bytes.store(len, SeqCst);
                        if len == SIZE {
                            break;
                        }
                    }
                }
                let status = if is_upload && bytes.load(SeqCst) == 0 { "401 No" } else { "200 OK" };
                let response = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
                );
                let _ = stream.write_all(response.as_bytes());
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
            });
        }
    });
    let amazon = amazon().await;
    let toml =
        format!("[proxy]\nworkers = 1\n{}[limits]\nbody_timeout_secs = 1\n", upstream(&url, ""));
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    assert_eq!(proxy.get("/").await.status, 200);
    let gate = &amazon.state().lwa.gate;
    gate.hold();
    let mut caller = Wire::open(proxy.addr);
    caller.send(head(SIZE)).send(vec![b'x'; SIZE / 2]);
    gate.until_waiting(1).await;
    // Longer than a caller may pause.
    thread::sleep(Duration::from_secs(3));
    gate.release();
    eventually("what was captured is replayed", || replayed.load(SeqCst) == SIZE / 2).await;
    caller.send(vec![b'x'; SIZE / 2]);
    assert_eq!(caller.answer().status, 200);
    assert_eq!((uploads.load(SeqCst), replayed.load(SeqCst)), (2, SIZE));
}
