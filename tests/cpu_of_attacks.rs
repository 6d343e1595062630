//! What a peer that misbehaves costs: at most three times the CPU of one that asks the same
//! honestly, and whoever asks honestly meanwhile is served.

use crate::support::{
    callers::OPERATOR,
    proxy::{Proxy, Setup, amazon, ask},
    socket::Wire,
};
use adsproxy::sandbox::{LwaFault, Times};
use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

/// Ticks of the kernel (10 ms) by which a round may differ on a busy machine.
const NOISE: u64 = 15;

/// The least CPU of three rounds: a busy machine makes a round dearer, and none cheaper.
fn cost(proxy: &Proxy, mut round: impl FnMut()) -> u64 {
    let mut measured = || {
        let before = proxy.cpu();
        round();
        // What the round left open ends within its price.
        Wire::open(proxy.addr).ask_honestly("meanwhile");
        proxy.cpu() - before
    };
    (0..3).map(|_| measured()).min().expect("three rounds")
}

/// Measures `attack` beside its honest `twin`.
fn assert_cheap(proxy: &Proxy, what: &str, attack: impl FnMut(), twin: impl FnMut()) {
    let (twin, attack) = (cost(proxy, twin), cost(proxy, attack));
    println!("{what}: {attack} ticks, its honest twin {twin}");
    assert!(attack <= 3 * twin + NOISE, "{what}: {attack} ticks, its honest twin {twin}");
}

fn one_worker(toml: &str) -> Setup {
    Setup { toml: format!("[proxy]\nworkers = 1\n{toml}"), ..Setup::default() }
}

fn connect(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(bytes).expect("written");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_requests_cost_no_more_than_whole_ones() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, one_worker(""));
    let live = || {
        let response = ask(proxy.admin, "GET /livez HTTP/1.1\r\nHost: localhost");
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    };
    let attack = || {
        let mut held = Vec::new();
        for number in 0..600 {
            held.push(connect(proxy.admin, b"GET /livez HTTP/1.1\r\nHo"));
            if number % 50 == 0 {
                live();
            }
        }
    };
    assert_cheap(&proxy, "half-sent requests", attack, || (0..600).for_each(|_| live()));
}

#[tokio::test(flavor = "multi_thread")]
async fn logouts_of_unknown_accounts_cost_no_more_than_questions_about_known_ones() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, Setup { file_store: true, ..one_worker("") });
    let many = |line: &str| {
        for number in 0..400 {
            let line = line.replace('N', &number.to_string());
            let key = &OPERATOR.key;
            let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Key: {key}");
            let response = ask(proxy.admin, &head);
            assert!(response.starts_with("HTTP/1.1 "), "{response}");
        }
    };
    let attack = || many("POST /api/auth/amazon/logout?account=ghost-N");
    let twin = || many("GET /api/auth/token-status?account=acme&n=N");
    assert_cheap(&proxy, "logouts of unknown accounts", attack, twin);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_costs_no_more_than_as_many_requests() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, one_worker(""));
    const PIECES: usize = 600;
    let attack = || {
        let head = format!(
            "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
             Content-Length: {PIECES}\r\n\r\n"
        );
        let mut uploads: Vec<Wire> = (0..4).map(|_| Wire::open(proxy.addr)).collect();
        for upload in &mut uploads {
            upload.send(&head);
        }
        for _ in 0..PIECES {
            for upload in &mut uploads {
                upload.send("x");
            }
            thread::sleep(Duration::from_millis(1));
        }
        for upload in &mut uploads {
            assert_eq!(upload.answer().status, 200);
        }
    };
    let twin = || {
        let mut wires: Vec<Wire> = (0..4).map(|_| Wire::open(proxy.addr)).collect();
        for _ in 0..PIECES / 4 {
            wires.iter_mut().for_each(|wire| wire.ask_honestly("twin"));
        }
    };
    assert_cheap(&proxy, "slow uploads", attack, twin);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_sent_one_byte_cost_no_more_than_silent_ones() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, one_worker(""));
    let hold = |bytes: &[u8]| {
        let held: Vec<TcpStream> = (0..400).map(|_| connect(proxy.addr, bytes)).collect();
        thread::sleep(Duration::from_secs(3));
        drop(held);
    };
    // The first byte of HTTP/2's preface, and of a request by POST.
    assert_cheap(&proxy, "connections that sent P", || hold(b"P"), || hold(b""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_retry_after_costs_no_more_than_a_short_one() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, one_worker(""));
    // `globex` is asked for; `acme` is served meanwhile.
    Wire::open(proxy.addr).ask_honestly("before");
    let many = |retry_after: u64| {
        let lwa = &amazon.state().lwa;
        lwa.faults.clear();
        let fault = LwaFault::Unavailable { retry_after: Some(retry_after) };
        lwa.faults.add(fault, Times::Forever);
        for _ in 0..300 {
            let request =
                "GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: globex\r\n\r\n";
            let response = Wire::open(proxy.addr).send(request).answer();
            assert_eq!(response.status, 503);
        }
    };
    assert_cheap(&proxy, "an endless Retry-After", || many(u64::MAX), || many(1));
}
