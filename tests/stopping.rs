//! A server beside an app that ends: it serves until the app is gone, and ends when it is asked to.

use crate::support::{
    deploy::{read, replaced},
    extras,
    proxy::{Proxy, Setup, amazon, ask, ask_unix, eventually},
    stream::Wire,
};
use adsproxy::sandbox::{Emulator, RefreshRotation, RequestGate};
use std::{
    io,
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

const QUIT: &str = "POST /quitquitquit HTTP/1.1";

fn start(amazon: &Emulator, toml: &str) -> Proxy {
    Proxy::with(amazon, Setup { toml: toml.to_owned(), file_store: true, ..Setup::default() })
}

/// With a time after SIGTERM in which it goes on.
fn delayed(amazon: &Emulator, seconds: u32) -> Proxy {
    start(amazon, &format!("[proxy]\nshutdown_delay_secs = {seconds}\n"))
}

fn control(proxy: &Proxy) -> PathBuf {
    proxy.dir.path().join("store/control.sock")
}

/// A request that stays where it is until `gate` opens.
async fn parked(proxy: &Proxy, gate: &RequestGate) -> thread::JoinHandle<io::Result<u16>> {
    gate.hold();
    let address = proxy.addr;
    let request = thread::spawn(move || {
        let stream = TcpStream::connect(address)?;
        Ok(Wire::new(stream).get("/_bytes/10")?.status)
    });
    gate.until_waiting(1).await;
    request
}

async fn until_refused(proxy: &Proxy) {
    eventually("connections are refused", || TcpStream::connect(proxy.addr).is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_asked_to_quit_finishes_its_requests_and_exits_with_0() {
    let amazon = amazon().await;
    let mut proxy = start(&amazon, "");
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let request = parked(&proxy, &amazon.state().api.gate).await;
    let said = ask_unix(&control(&proxy), QUIT);
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\n\r\ndraining\n"), "{said}");
    until_refused(&proxy).await;
    // The kubelet comes later, with a SIGTERM of its own, which is no hurry.
    proxy.signal("TERM");
    thread::sleep(Duration::from_millis(300));
    assert!(!proxy.has_ended());
    amazon.state().api.gate.release();
    assert_eq!(request.join().expect("no panic").expect("a response"), 200);
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
    let log = std::fs::read_to_string(proxy.dir.path().join("store/audit.jsonl")).expect("a log");
    let entry = log.lines().find(|line| line.contains("quitquitquit")).expect("an entry");
    let uid = format!("\"uid\":{}", rustix::process::geteuid().as_raw());
    for part in [r#""action":"server.stop""#, r#""outcome":"attempt""#, uid.as_str()] {
        assert!(entry.contains(part), "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_job_ends_adsproxy_and_exits_with_the_code_of_its_report() {
    if !extras::required("curl") {
        return;
    }
    let amazon = amazon().await;
    let job = read("kustomize/job/job.yaml");
    let (_, script) = job.split_once("            - |\n").expect("a script");
    let (script, _) = script.split_once("          env:").expect("an end");
    for (report, code) in [("true", 0), ("exit 7", 7)] {
        let mut proxy = start(&amazon, "");
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
        let socket = control(&proxy).display().to_string();
        let script = replaced(script, "/run/adsproxy/control.sock", &socket);
        let script = replaced(&script, "make-reports", report);
        let status = Command::new("sh").args(["-c", &script]).status().expect("sh runs");
        assert_eq!(status.code(), Some(code), "{script}");
        assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_control_socket_takes_the_request_to_quit() {
    let amazon = amazon().await;
    let mut proxy = start(&amazon, "health = \"127.0.0.1:0\"\npublic = \"127.0.0.1:0\"\n");
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains(r#""message":"listening""#)).expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    let key = &crate::support::callers::OPERATOR.key;
    for listener in ["admin", "health", "public"] {
        let address = line[listener].as_str().expect("an address").parse().expect("an address");
        let said = ask(address, &format!("{QUIT}\r\nHost: localhost\r\nX-Ads-Key: {key}"));
        assert!(said.starts_with("HTTP/1.1 404 "), "{listener}: {said}");
    }
    // On the data plane it is a path like any other.
    let said = proxy.post("/quitquitquit", "").await;
    assert_eq!(said.error(), None);
    let said = ask_unix(&control(&proxy), "GET /quitquitquit HTTP/1.1");
    assert!(said.starts_with("HTTP/1.1 405 "), "{said}");
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert!(!proxy.has_ended());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_a_sidecar_serves_until_the_app_is_gone_and_loses_no_refresh() {
    let amazon = amazon().await;
    amazon.state().lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let mut proxy = delayed(&amazon, 600);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    proxy.signal("TERM");
    eventually("it is not ready any more", || {
        proxy.ask_admin("/readyz").starts_with("HTTP/1.1 503 ")
    })
    .await;
    // The app goes on: with connections that it has, and with new ones.
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let stream = TcpStream::connect(proxy.addr).expect("it accepts");
    assert_eq!(Wire::new(stream).get("/_bytes/1").expect("a response").status, 200);
    // Its last request leaves a refresh under way.
    let lwa = &amazon.state().lwa;
    lwa.expire_access_tokens(None);
    lwa.gate.hold();
    let address = proxy.addr;
    let last = thread::spawn(move || {
        let stream = TcpStream::connect(address).expect("it accepts");
        Wire::new(stream).get("/v2/profiles").map(|reply| reply.status)
    });
    lwa.gate.until_waiting(1).await;
    let said = ask_unix(&control(&proxy), QUIT);
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    until_refused(&proxy).await;
    lwa.gate.release();
    assert_eq!(last.join().expect("no panic").expect("a response"), 200);
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
    // The refresh token before is dead: had the new one been lost, so would the grant.
    let proxy = proxy.restart();
    lwa.expire_access_tokens(None);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_delay_after_sigterm_ends_by_itself() {
    let amazon = amazon().await;
    let mut proxy = delayed(&amazon, 1);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let began = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(proxy.log().contains("proxy.shutdown_delay_secs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_person_nor_a_second_signal_is_kept_waiting_by_the_delay() {
    let amazon = amazon().await;
    let mut proxy = delayed(&amazon, 600);
    proxy.signal("INT");
    assert_eq!(proxy.wait().code(), Some(0));
    let mut proxy = proxy.restart();
    proxy.signal("TERM");
    eventually("it goes on", || proxy.log().contains("proxy.shutdown_delay_secs")).await;
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(1));
}
