//! Connections to Amazon that many requests share: no caller, no dead peer and no limit of the
//! peer's may stop the others.

use crate::support::{
    bodies::Frames,
    proxy::{ACME_REFRESH, Proxy, Setup, amazon, eventually, upstream, write_private},
    secure::{behind_tls, secure_amazon, secure_url, server_tls},
    socket::{Act, Upstream, Wire},
};
use adsproxy::{
    load,
    sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator},
    testing::{App, Clock, ManualClock},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::NamedTempFile;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n")
}

/// A caller's HTTP/2 connection with `streams` requests whose responses are not read.
async fn unread(proxy: &Proxy, streams: usize) -> Vec<Response<Incoming>> {
    let stream = TcpStream::connect(proxy.addr).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1024)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    let mut responses = Vec::new();
    for _ in 0..streams {
        let request = Request::get("http://localhost/_bytes/1000000")
            .header("X-Ads-Account", "acme")
            .body(Full::default())
            .expect("a request");
        responses.push(sender.send_request(request).await.expect("a response"));
    }
    responses
}

/// 256 KiB for each of them would be 300 MB.
#[tokio::test(flavor = "multi_thread")]
async fn what_callers_leave_unread_stays_within_a_budget_and_others_are_served() {
    let (amazon, ca) = secure_amazon(true).await;
    let proxy = behind_tls(&ca, &amazon, &secure_url(&amazon), "");
    drop(unread(&proxy, 100).await);
    let before = proxy.memory();
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(unread(&proxy, 100).await);
    }
    // What is on its way has come once an honest response has been read behind it.
    for number in 0..20 {
        Wire::open(proxy.addr).ask_honestly(&format!("meanwhile-{number}"));
    }
    let grown = proxy.memory().saturating_sub(before) / 1_000_000;
    assert!(grown < 180, "{grown} MB are held for 1,200 callers");
    drop(held);
    eventually("all are over", || proxy.metric("adsproxy_in_flight_requests") < 0.5).await;
    Wire::open(proxy.addr).ask_honestly("after");
}

/// What is not read is not fetched again and again.
#[tokio::test(flavor = "multi_thread")]
async fn callers_that_do_not_read_cost_no_more_than_those_that_do() {
    let (amazon, ca) = secure_amazon(true).await;
    let proxy = behind_tls(&ca, &amazon, &secure_url(&amazon), "");
    Wire::open(proxy.addr).ask_honestly("before");
    let before = proxy.cpu();
    for _ in 0..50 {
        let mut wire = Wire::open(proxy.addr);
        wire.send(get("/_bytes/1000000"));
        assert_eq!(wire.answer().body.len(), 1_000_000);
    }
    let twin = proxy.cpu() - before;
    let before = proxy.cpu();
    let held = unread(&proxy, 50).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    Wire::open(proxy.addr).ask_honestly("meanwhile");
    drop(held);
    let attack = proxy.cpu() - before;
    println!("unread: {attack} ticks, read {twin}");
    assert!(attack <= 3 * twin + 15, "{attack} ticks, the honest twin {twin}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_do_not_read_stop_nobody_else() {
    let (amazon, ca) = secure_amazon(true).await;
    let proxy = behind_tls(&ca, &amazon, &secure_url(&amazon), "");
    let mut slow = Vec::new();
    for _ in 0..12 {
        let mut wire = Wire::open(proxy.addr);
        wire.send(get("/_bytes/64000000"));
        wire.read_some(1);
        slow.push(wire);
        // More than every window on the way holds of the answers that nobody reads.
        let mut honest = Wire::open(proxy.addr);
        honest.send(get("/_bytes/5000000"));
        assert_eq!(honest.answer().body.len(), 5_000_000);
    }
    assert_eq!(amazon.state().connections.accepted(), 2, "one for the token, one for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_use_up_the_peers_limit_get_a_second_connection_opened() {
    let origin = Origin::start(4).await;
    let amazon = amazon().await;
    let proxy = behind_tls(&origin.ca, &amazon, &origin.url, "response_header_timeout_secs = 3\n");
    // The peer tells its limit with its first answer.
    for _ in 0..2 {
        assert_eq!(proxy.get("/one").await.text(), "ok");
    }
    let hold = || {
        let mut wire = Wire::open(proxy.addr);
        wire.send(get("/hold"));
        wire.read_some(1);
        wire
    };
    let held: Vec<Wire> = (0..4).map(|_| hold()).collect();
    assert_eq!(origin.accepted(), 1);
    assert_eq!(proxy.get("/two").await.text(), "ok");
    assert_eq!(origin.accepted(), 2);
    // Below the limit nothing more is opened.
    drop(held);
    for _ in 0..20 {
        assert_eq!(proxy.get("/three").await.text(), "ok");
    }
    assert_eq!(origin.accepted(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_is_given_the_next_stream_that_ends() {
    let origin = Origin::start(2).await;
    let amazon = amazon().await;
    let keys = "response_header_timeout_secs = 10\nconnections_max = 1\n";
    let proxy = behind_tls(&origin.ca, &amazon, &origin.url, keys);
    for _ in 0..2 {
        assert_eq!(proxy.get("/one").await.text(), "ok");
    }
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::open(proxy.addr);
        wire.send(get("/hold"));
        wire.read_some(1);
        held.push(wire);
    }
    let mut waits = Wire::open(proxy.addr);
    waits.send(get("/two"));
    let limit = r#"adsproxy_limit_hits_total{limit="upstream_connections"}"#;
    eventually("it waits", || proxy.metric(limit) == 1.0).await;
    held.pop();
    assert_eq!(waits.answer().text(), "ok");
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_streams_do_not_end_leaves_half_of_them_to_others() {
    let origin = Origin::start(4).await;
    let amazon = amazon().await;
    let mut keys = "response_header_timeout_secs = 10\nconnections_max = 1\n".to_owned();
    for id in ["t1~acme", "t2~acme"] {
        keys += &format!("[accounts.\"{id}\"]\nregion = \"na\"\n");
        keys += "refresh_token = { env = \"ACME_REFRESH\" }\n";
    }
    let proxy = behind_tls(&origin.ca, &amazon, &origin.url, &keys);
    let hold = |tenant: &str| {
        let mut wire = Wire::open(proxy.addr);
        wire.send(get("/hold").replace("acme", &format!("{tenant}~acme")));
        wire
    };
    let held = |tenant: &str| {
        let mut wire = hold(tenant);
        wire.read_some(1);
        wire
    };
    // The peer tells its limit with its first answer.
    for _ in 0..2 {
        assert_eq!(proxy.get("/one").await.text(), "ok");
    }
    let mut of_tenant = vec![held("t1"), held("t1")];
    let mut waits = hold("t1");
    let limit = r#"adsproxy_limit_hits_total{limit="upstream_connections"}"#;
    eventually("it waits", || proxy.metric(limit) == 1.0).await;
    let _of_other = [held("t2"), held("t2")];
    of_tenant.pop();
    waits.read_some(1);
    assert_eq!(proxy.metric(limit), 1.0, "no other waited");
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_burst_shares_the_first_connection() {
    for most in [1, 2] {
        let (amazon, ca) = secure_amazon(true).await;
        let keys = format!("response_header_timeout_secs = 5\nconnections_max = {most}\n");
        let proxy = Arc::new(behind_tls(&ca, &amazon, &secure_url(&amazon), &keys));
        let asked: Vec<_> = (0..8)
            .map(|size| {
                let proxy = proxy.clone();
                tokio::spawn(async move { proxy.get(&format!("/_bytes/{size}")).await })
            })
            .collect();
        for (size, asked) in asked.into_iter().enumerate() {
            let answer = asked.await.expect("answered");
            assert_eq!((answer.status.as_u16(), answer.body.len()), (200, size), "{most}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_idled_too_long_is_not_used_again() {
    for http2 in [true, false] {
        let (amazon, ca) = secure_amazon(http2).await;
        let nat = Nat::start(&amazon).await;
        let proxy = behind_tls(&ca, &amazon, &nat.url, "idle_timeout_secs = 1\n");
        assert_eq!(proxy.get("/_sink").await.status, 200);
        eventually("it is closed", || nat.open.load(Ordering::SeqCst) == 0).await;
        assert_eq!(proxy.get("/_sink").await.status, 200, "HTTP/2: {http2}");
        assert_eq!(nat.accepted.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_with_an_answer_on_its_way_does_not_idle() {
    let origin = Origin::start(100).await;
    let amazon = amazon().await;
    let proxy = behind_tls(&origin.ca, &amazon, &origin.url, "idle_timeout_secs = 1\n");
    let mut held = Wire::open(proxy.addr);
    held.send(get("/hold"));
    held.read_some(1);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(proxy.get("/one").await.text(), "ok");
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_brings_no_answers_gets_no_more_requests() {
    for http2 in [true, false] {
        let (amazon, ca) = secure_amazon(http2).await;
        let nat = Nat::start(&amazon).await;
        let proxy = behind_tls(&ca, &amazon, &nat.url, "response_header_timeout_secs = 1\n");
        for _ in 0..2 {
            assert_eq!(proxy.get("/_sink").await.status, 200);
        }
        assert_eq!(nat.accepted.load(Ordering::SeqCst), 1);
        nat.forgotten.send_replace(());
        assert_eq!(proxy.get("/_sink").await.status, 504);
        assert_eq!(proxy.get("/_sink").await.status, 200, "HTTP/2: {http2}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_answer_does_not_cost_the_connection_of_the_others() {
    let origin = Origin::start(100).await;
    let amazon = amazon().await;
    let proxy = behind_tls(&origin.ca, &amazon, &origin.url, "response_header_timeout_secs = 2\n");
    assert_eq!(proxy.get("/one").await.text(), "ok");
    let mut slow = Wire::open(proxy.addr);
    slow.send(get("/silence"));
    slow.stream().set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    let answer = loop {
        assert_eq!(proxy.get("/one").await.text(), "ok");
        if let Ok(answer) = slow.read_answer() {
            break answer.expect("an answer");
        }
    };
    assert_eq!(answer.status, 504);
    assert_eq!(proxy.get("/one").await.text(), "ok");
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_suspension_no_old_connection_serves() {
    for http2 in [true, false] {
        let (amazon, ca) = secure_amazon(http2).await;
        let nat = Nat::start(&amazon).await;
        let directory = tempfile::tempdir().expect("a directory");
        let secret = |name: &str, text: &str| {
            let path = directory.path().join(name);
            write_private(&path, text);
            format!("{{ file = {path:?} }}")
        };
        let path = directory.path().join("proxy.toml");
        let toml = format!(
            "[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[proxy]\nworkers = 1\n\
             [lwa]\nclient_id = {CLIENT_ID:?}\nclient_secret = {}\n\
             token_url = \"http://{}/auth/o2/token\"\n[store]\nkind = \"memory\"\n{}\
             [accounts.acme]\nregion = \"na\"\nrefresh_token = {}\n",
            secret("client", CLIENT_SECRET),
            amazon.addr(),
            upstream(&nat.url, &format!("ca_file = {:?}\n", ca.path())),
            secret("grant", ACME_REFRESH),
        );
        std::fs::write(&path, toml).expect("written");
        let options = load::Options { path: Some(path), ..load::Options::default() };
        let config = load::load(&options).expect("a configuration").config;
        let clock = Arc::new(ManualClock::new());
        let (wall, seconds) = (clock.now().wall, Duration::from_secs);
        let start = || App::start_with(config, clock.clone());
        let app = tokio::task::block_in_place(start).expect("it starts");
        let url = format!("http://{}/_sink", app.proxy_addresses()[0]);
        let accepted_after = async |step: u64| {
            clock.set_wall(wall + seconds(step));
            // Longer than one tick of the worker.
            tokio::time::sleep(Duration::from_millis(600)).await;
            let client = reqwest::Client::new();
            let sent = client.get(&url).header("x-ads-account", "acme").send().await;
            assert_eq!(sent.expect("a response").status(), 200, "HTTP/2: {http2}");
            nat.accepted.load(Ordering::SeqCst)
        };
        assert_eq!(accepted_after(0).await, 1);
        assert_eq!(accepted_after(4).await, 1, "a small step of the wall clock is none");
        assert_eq!(accepted_after(64).await, 2, "HTTP/2: {http2}");
        assert!(tokio::task::block_in_place(|| app.drain()));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_finds_out_when_an_upstream_has_vanished() {
    let amazon = amazon().await;
    let upstream = Upstream::start(|_| Act::Say(b"HTTP/1.1 204 No Content\r\n\r\n".into()));
    let proxy = Proxy::with(&amazon, Setup { upstream: Some(upstream.url()), ..Setup::default() });
    assert_eq!(proxy.get("/").await.status, 204);
    let port: u16 = upstream.url().rsplit(':').next().expect("a port").parse().expect("a number");
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    let timers: Vec<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields[2].ends_with(&remote) && fields[3] == "01")
        .map(|fields| fields[5])
        .collect();
    assert!(!timers.is_empty());
    // Kind 2 is the keepalive timer.
    assert!(timers.iter().all(|timer| timer.starts_with("02:")), "{timers:?}");
}

/// An HTTP/2 server of which the limit on streams is known.
struct Origin {
    url: String,
    ca: NamedTempFile,
    accepted: Arc<AtomicUsize>,
}

impl Origin {
    async fn start(streams_max: u32) -> Self {
        let (tls, ca) = server_tls(true);
        let tls = tokio_rustls::TlsAcceptor::from(tls);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    server.max_concurrent_streams(streams_max);
                    let _ = server.serve_connection(TokioIo::new(stream), service_fn(serve)).await;
                });
            }
        });
        Self { url: format!("https://localhost:{port}"), ca, accepted }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn serve(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    match request.uri().path() {
        "/silence" => std::future::pending().await,
        "/hold" => Ok(Response::new(Frames::endless(b"x").boxed())),
        _ => Ok(Response::new(Full::from("ok").boxed())),
    }
}

/// A way to Amazon that can lose track of the connections on it without telling anybody.
struct Nat {
    url: String,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    forgotten: watch::Sender<()>,
}

impl Nat {
    async fn start(amazon: &Emulator) -> Self {
        let to = amazon.tls_addr().expect("TLS");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let nat = Self {
            url: format!("https://localhost:{port}"),
            accepted: Arc::default(),
            open: Arc::default(),
            forgotten: watch::Sender::new(()),
        };
        let (accepted, open) = (nat.accepted.clone(), nat.open.clone());
        let forgotten = nat.forgotten.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (open, mut forgotten) = (open.clone(), forgotten.subscribe());
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.expect("a connection");
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = forgotten.changed() => std::future::pending().await,
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        nat
    }
}
