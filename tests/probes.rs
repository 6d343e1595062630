//! Probes and administration while callers hold connections open that never send a whole request.

use crate::support::{
    proxy::{Proxy, Setup, amazon, ask, eventually},
    socket::Wire,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// More than a listener holds.
const HALF_SENT: usize = 300;

/// A proxy with a health listener, and the addresses of the listeners beside the data plane.
fn start(amazon: &adsproxy::sandbox::Emulator) -> (Proxy, [SocketAddr; 2]) {
    let toml = "health = \"127.0.0.1:0\"\n".to_owned();
    let proxy = Proxy::with(amazon, Setup { toml, ..Setup::default() });
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains(r#""message":"listening""#)).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let health = line["health"].as_str().expect("an address").parse().expect("an address");
    let admin = proxy.admin;
    (proxy, [health, admin])
}

fn half_sent(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(b"GET /livez HTTP/1.1\r\nHo").expect("written");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn every_probe_is_served_while_a_peer_holds_half_sent_requests() {
    let amazon = amazon().await;
    let (_proxy, listeners) = start(&amazon);
    for address in listeners {
        let mut held: Vec<TcpStream> = (0..HALF_SENT).map(|_| half_sent(address)).collect();
        for _ in 0..20 {
            // The attacker replaces what it has lost.
            held.extend((0..20).map(|_| half_sent(address)));
            let began = Instant::now();
            let response = ask(address, "GET /livez HTTP/1.1\r\nHost: localhost");
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_request_ends_after_two_seconds_and_a_whole_one_is_served() {
    let amazon = amazon().await;
    let (_proxy, listeners) = start(&amazon);
    for address in listeners {
        let began = Instant::now();
        let mut stream = half_sent(address);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let took = began.elapsed();
        assert!((1..5).contains(&took.as_secs()), "{took:?}");
        let mut whole = half_sent(address);
        whole.write_all(b"st: localhost\r\nConnection: close\r\n\r\n").expect("written");
        let mut response = String::new();
        whole.read_to_string(&mut response).expect("a response");
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_to_the_admin_listener_does_not_lose_its_response() {
    let amazon = amazon().await;
    let (proxy, _) = start(&amazon);
    for _ in 0..8 {
        let mut stream = TcpStream::connect(proxy.admin).expect("a connection");
        let head = "POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("written");
        stream.write_all(&vec![b'x'; 2_000_000]).expect("the whole body is taken");
        let mut caller = Vec::new();
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.read_to_end(&mut caller).expect("no reset");
        assert!(caller.starts_with(b"HTTP/1.1 405 "), "{}", String::from_utf8_lossy(&caller));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_gets_a_response_that_says_whose_it_is() {
    let amazon = amazon().await;
    let (_proxy, listeners) = start(&amazon);
    for address in listeners {
        let response = ask(address, "no http at all");
        assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
        for line in ["x-ads-proxy-error: bad_request\r\n", "\r\nproxy-status: adsproxy; "] {
            assert!(response.contains(line), "{response}");
        }
        assert!(response.contains("\r\nx-ads-proxy-request-id: "), "{response}");
        // The twin: a response of the service stays as it is.
        let response = ask(address, "HEAD /livez HTTP/1.1\r\nHost: localhost");
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }
}

/// As on the admin listener, so on the data plane: what is idle makes room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_data_plane_closes_what_has_waited_longest_for_a_request() {
    let amazon = amazon().await;
    // More workers than connections of some: the one that waited longest may be another's.
    let toml = "[proxy]\nworkers = 8\n[limits]\nconnections_max = 32\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    assert_eq!(proxy.get("/_status/200").await.status, 200);
    let mut busy = Wire::open(proxy.addr);
    amazon.state().api.gate.hold();
    busy.send(crate::support::socket::honest("busy"));
    amazon.state().api.gate.until_waiting(1).await;
    let held: Vec<TcpStream> = (0..100).map(|_| half_sent(proxy.addr)).collect();
    eventually("they are accepted", || proxy.metric("adsproxy_connections") >= 20.0).await;
    amazon.state().api.gate.release();
    for _ in 0..20 {
        Wire::open(proxy.addr).ask_honestly("new");
    }
    crate::support::socket::assert_own(&busy.answer(), "busy");
    drop(held);
}
