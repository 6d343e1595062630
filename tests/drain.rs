//! Stopping: what is under way is finished, nothing new is taken, and it does not last for ever.

use crate::support::{
    login::free_address,
    proxy::{Answer, Proxy, Setup, amazon, eventually},
    stream::Wire,
};
use adsproxy::sandbox::{LwaFault, RefreshRotation, RequestGate, Times};
use http::Method;
use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

static BODY: [u8; 100_000] = [b'x'; 100_000];

fn drain_timeout(secs: u32) -> Setup {
    let toml = format!("[proxy]\nworkers = 1\ndrain_timeout_secs = {secs}");
    Setup { toml, ..Setup::default() }
}

/// A connection of a caller that has not sent anything.
fn connect(address: SocketAddr) -> io::Result<Wire<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(Wire::new(stream))
}

/// Waits until the proxy takes no connections and says so to those who probe it.
async fn until_draining(proxy: &Proxy) {
    eventually("connections are refused", || connect(proxy.addr).is_err()).await;
    let ready = proxy.ask_admin("/readyz?verbose");
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(ready.contains("draining"), "{ready}");
    assert!(proxy.ask_admin("/livez").starts_with("HTTP/1.1 200 "));
}

/// A request for `acme` that runs by itself.
fn send(
    proxy: &Arc<Proxy>,
    client: &reqwest::Client,
    method: Method,
    path: &str,
    body: &'static [u8],
) -> impl Future<Output = Answer> + use<> {
    let request =
        client.request(method, proxy.url(path)).header("X-Ads-Account", "acme").body(body);
    let proxy = proxy.clone();
    async move { proxy.send(request).await }
}

/// One request that stays where it is until `gate` opens.
async fn parked(proxy: &Proxy, gate: &RequestGate) -> thread::JoinHandle<io::Result<u16>> {
    gate.hold();
    let address = proxy.addr;
    let request = thread::spawn(move || {
        let reply = connect(address)?.get("/_bytes/10")?;
        Ok(reply.status)
    });
    gate.until_waiting(1).await;
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn all_50_requests_in_flight_finish_after_sigterm() {
    let amazon = amazon().await;
    let proxy = Arc::new(Proxy::start(&amazon));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let gate = &amazon.state().api.gate;
    gate.hold();

    let http1 = reqwest::Client::builder().no_proxy().build().expect("a client");
    let http2 =
        reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
    let mut requests = JoinSet::new();
    for client in [&http1, &http2] {
        for _ in 0..8 {
            requests.spawn(send(&proxy, client, Method::GET, "/v2/profiles", b""));
            requests.spawn(send(&proxy, client, Method::POST, "/_sink", &BODY));
        }
        let events = "/_sse?events=4&interval_ms=100";
        for _ in 0..6 {
            requests.spawn(send(&proxy, client, Method::GET, events, b""));
        }
    }
    gate.until_waiting(44).await;
    // Six more whose bodies are half sent.
    let head = format!(
        "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\nContent-Length: {}\r\n\r\n",
        BODY.len()
    );
    let mut uploads: Vec<_> = (0..6).map(|_| connect(proxy.addr).expect("a connection")).collect();
    for upload in &mut uploads {
        upload.write(&head).expect("written");
        upload.write(&BODY[..BODY.len() / 2]).expect("written");
    }
    eventually("50 are in flight", || proxy.metric("adsproxy_in_flight_requests") == 50.0).await;

    proxy.signal("TERM");
    until_draining(&proxy).await;
    assert_eq!(proxy.metric("adsproxy_in_flight_requests"), 50.0);
    gate.release();
    for upload in &mut uploads {
        upload.write(&BODY[BODY.len() / 2..]).expect("written");
        let reply = upload.reply().expect("an answer");
        assert_eq!((reply.status, reply.body.as_slice()), (200, &br#"{"length":100000}"#[..]));
        assert!(reply.head.contains("\r\nconnection: close\r\n"), "{}", reply.head);
    }
    let mut events = 0;
    while let Some(answer) = requests.join_next().await {
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200);
        events += answer.text().matches("of 4\n\n").count();
    }
    assert_eq!(events, 12 * 4, "every stream came to its end");
    let mut proxy = Arc::into_inner(proxy).expect("all tasks have ended");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_timeout_bounds_the_wait_and_the_exit_code_tells() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, drain_timeout(1));
    let request = parked(&proxy, &amazon.state().api.gate).await;
    let started = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(1));
    let took = started.elapsed();
    assert!((Duration::from_millis(950)..Duration::from_secs(3)).contains(&took), "{took:?}");
    assert!(request.join().expect("no panic").is_err(), "it was cut off");
    assert!(proxy.log().contains("still in flight at the end of the drain timeout"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, drain_timeout(20));
    let request = parked(&proxy, &amazon.state().api.gate).await;
    proxy.signal("TERM");
    until_draining(&proxy).await;
    let started = Instant::now();
    proxy.signal("INT");
    assert_eq!(proxy.wait().code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(request.join().expect("no panic").is_err(), "it was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_requests_it_ends_at_once() {
    let amazon = amazon().await;
    let mut proxy = Proxy::start(&amazon);
    assert_eq!(
        connect(proxy.addr).and_then(|mut one| one.get("/_bytes/1")).expect("ok").status,
        200
    );
    let started = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_its_way_over_an_open_connection_is_answered() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, drain_timeout(20));
    let mut used = connect(proxy.addr).expect("a connection");
    assert_eq!(used.get("/_bytes/1").expect("an answer").status, 200);
    let mut unused = connect(proxy.addr).expect("a connection");
    let mut idle = connect(proxy.addr).expect("a connection");
    assert_eq!(idle.get("/_bytes/1").expect("an answer").status, 200);
    eventually("all are accepted", || proxy.metric("adsproxy_connections") == 3.0).await;

    let started = Instant::now();
    proxy.signal("TERM");
    until_draining(&proxy).await;
    for connection in [&mut used, &mut unused] {
        let reply = connection.get("/_bytes/1").expect("an answer");
        assert_eq!(reply.status, 200);
        assert!(reply.head.contains("\r\nconnection: close\r\n"), "{}", reply.head);
        assert!(connection.is_closed());
    }
    assert!(idle.is_closed(), "who stays silent is let go");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_late_is_told_that_the_server_stops() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, drain_timeout(20));
    let mut late = connect(proxy.addr).expect("a connection");
    let request = parked(&proxy, &amazon.state().api.gate).await;
    proxy.signal("TERM");
    until_draining(&proxy).await;
    thread::sleep(adsproxy::testing::IDLE_GRACE + Duration::from_millis(500));
    let reply = late.get("/_bytes/1").expect("an answer");
    assert_eq!(reply.status, 503);
    for line in ["x-ads-proxy-error: draining", "retry-after: 1", "connection: close"] {
        assert!(reply.head.contains(line), "{}", reply.head);
    }
    amazon.state().api.gate.release();
    assert_eq!(request.join().expect("no panic").expect("an answer"), 200);
    assert_eq!(proxy.wait().code(), Some(0));
}

/// A caller that sends one request after the other and connects again when it is told to.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answered: AtomicU64,
    /// Connections on which a first request got no answer: the kernel had taken them, we had not.
    never_accepted: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    fn run(&self, address: SocketAddr) {
        while !self.stop.load(Relaxed) {
            let Ok(mut connection) = connect(address) else {
                thread::sleep(Duration::from_millis(2));
                continue;
            };
            let mut is_accepted = false;
            while !self.stop.load(Relaxed) {
                match connection.get("/_bytes/100") {
                    Ok(reply) if reply.status == 200 && reply.body.len() == 100 => {
                        self.answered.fetch_add(1, Relaxed);
                        is_accepted = true;
                        if reply.head.contains("\r\nconnection: close\r\n") {
                            break;
                        }
                    }
                    Err(_) if !is_accepted => {
                        self.never_accepted.fetch_add(1, Relaxed);
                        break;
                    }
                    Ok(_) | Err(_) => {
                        self.failed.fetch_add(1, Relaxed);
                        break;
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_restarts_under_load_fail_no_request() {
    let amazon = amazon().await;
    let listen = format!("[\"{}\"]", free_address());
    let mut proxy = Proxy::with(&amazon, Setup { listen: Some(listen), ..Setup::default() });
    let address = proxy.addr;
    let load = Arc::new(Load::default());
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let load = load.clone();
            thread::spawn(move || load.run(address))
        })
        .collect();
    for _ in 0..10 {
        let goal = load.answered.load(Relaxed) + 200;
        eventually("it serves", || load.answered.load(Relaxed) >= goal).await;
        proxy.signal("TERM");
        assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
        proxy = proxy.restart();
    }
    load.stop.store(true, Relaxed);
    for caller in callers {
        caller.join().expect("no panic");
    }
    let [answered, never_accepted, failed] =
        [&load.answered, &load.never_accepted, &load.failed].map(|count| count.load(Relaxed));
    println!("answered {answered}, never accepted {never_accepted}, failed {failed}");
    assert_eq!(failed, 0, "of {answered}");
    assert!(answered >= 2000);
    // Between the last accept and the close the kernel may take one more of each caller.
    assert!(never_accepted <= 40, "{never_accepted} connections were lost in ten restarts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_is_finished_and_stored_although_nobody_waits_for_it() {
    let amazon = amazon().await;
    amazon.state().lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let mut proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
    let lwa = &amazon.state().lwa;
    lwa.gate.hold();
    let mut caller = connect(proxy.addr).expect("a connection");
    let request = "GET /_bytes/1 HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n";
    caller.write(request).expect("written");
    lwa.gate.until_waiting(1).await;
    drop(caller);
    proxy.signal("TERM");
    eventually("the requests are gone", || proxy.metric("adsproxy_in_flight_requests") == 0.0)
        .await;
    until_draining(&proxy).await;
    lwa.gate.release();
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
    assert_eq!(amazon.state().record.counts().tokens_issued, 1);

    // The old refresh token is dead: had the new one been lost, so would the grant.
    let proxy = proxy.restart();
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(amazon.state().record.counts().token_calls, 1, "the access token was stored too");
    lwa.expire_access_tokens(None);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_never_ends_does_not_keep_the_process() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, drain_timeout(1));
    amazon.state().lwa.faults.add(LwaFault::Hang, Times::Forever);
    let mut caller = connect(proxy.addr).expect("a connection");
    let request = "GET /_bytes/1 HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n";
    caller.write(request).expect("written");
    eventually("LWA is asked", || amazon.state().record.counts().token_calls > 0).await;
    drop(caller);
    let started = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(proxy.log().contains("a token refresh was still under way"));
}
