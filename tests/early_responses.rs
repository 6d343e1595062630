//! A response that comes before the request body has been received: the caller reads it whole, the
//! connection goes on or announces its end, and a stop does not wait for the rest of the body.

use crate::support::{
    proxy::{Answer, Proxy, Setup, amazon, upstream},
    socket::Wire,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

const SIZES: [usize; 4] = [7, 500_000, 5_000_000, 20_000_000];
const ROUNDS: usize = 4;
/// A connection that goes on or ends later than this hangs.
const PROMPT: Duration = Duration::from_secs(8);
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\nconnection: close\r\n\r\ntoo large";

/// What Amazon does with an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amazon {
    /// Takes no connection.
    Refuses,
    /// Reads half of the body and closes.
    ClosesMidUpload,
    /// Answers 413 after the head and closes, the body unread.
    AnswersEarly,
    /// Reads the head and nothing more.
    NeverReads,
}

const ALL: [Amazon; 4] =
    [Amazon::Refuses, Amazon::ClosesMidUpload, Amazon::AnswersEarly, Amazon::NeverReads];

impl Amazon {
    /// The status that the caller is due.
    fn due(self) -> u16 {
        match self {
            Self::Refuses | Self::ClosesMidUpload => 502,
            Self::AnswersEarly => 413,
            Self::NeverReads => 504,
        }
    }
}

/// Ends its accepting thread when dropped.
struct Uploads {
    addr: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Uploads {
    fn start(amazon: Amazon) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        if amazon == Amazon::Refuses {
            // The port stays refused: nothing binds a port of the ephemeral range on purpose.
            drop(listener);
            return Self { addr, ended };
        }
        thread::spawn(move || {
            let mut unread = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                if amazon == Amazon::NeverReads {
                    unread.push(stream);
                } else {
                    thread::spawn(move || serve(stream, amazon));
                }
            }
        });
        Self { addr, ended }
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut stream: TcpStream, amazon: Amazon) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1..) => head.push(byte[0]),
            _ => return,
        }
    }
    if amazon == Amazon::AnswersEarly {
        let _ = stream.write_all(TOO_LARGE);
        return;
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let half = length.map_or(0, |length| length.parse::<u64>().expect("a length") / 2);
    let _ = std::io::copy(&mut stream.take(half), &mut std::io::sink());
}

/// A proxy with its token already, whose uploads go to `uploads`.
async fn before(uploads: &Uploads, listen: &str) -> Proxy {
    let amazon = amazon().await;
    let toml = format!(
        "{listen}\n[proxy]\nworkers = 1\n{}",
        upstream(&uploads.url(), "response_header_timeout_secs = 1")
    );
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    // The token is here before LWA leaves.
    let eager = proxy.request(http::Method::GET, "/").header("X-Ads-Account", "acme");
    assert!(proxy.send(eager).await.status.as_u16() > 400);
    proxy
}

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
    let mut proxy = before(&uploads, "").await;
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

fn assert_stops_at_once(proxy: &mut Proxy) {
    let began = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
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

/// Amazon keeps the connection open, but reads no more of the upload: the connection must not be
/// held for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_amazon_has_answered_and_does_not_read_gives_its_connection_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (ended, has_ended) = mpsc::channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let ended = ended.clone();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                while !has_hung_up(&stream) {
                    thread::sleep(Duration::from_millis(20));
                }
                let _ = ended.send(());
            });
        }
    });
    let amazon = amazon().await;
    let toml = format!("[proxy]\nworkers = 1\n{}", upstream(&url, ""));
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let (mut caller, answer) = upload(proxy.addr, 20_000_000, b"");
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "ok".to_owned()));
    assert!(announces_end(&answer) && caller.ends_in_order());
    has_ended.recv_timeout(Duration::from_secs(15)).expect("the connection to Amazon ends");
}

/// Whether the other side has closed or reset, whatever lies unread.
fn has_hung_up(stream: &TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut fds, Some(&rustix::event::Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// The callers have their responses and send neither the rest of the body nor the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_the_rest_of_a_body() {
    for amazon in ALL {
        let uploads = Uploads::start(amazon);
        let mut proxy = before(&uploads, "").await;
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
