//! Two servers on one store directory: they share every refresh, and no crash of one stops the other.

use crate::support::proxy::{Proxy, Setup, amazon};
use adsproxy::sandbox::{Emulator, RefreshRotation};
use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

const LIFETIME: Duration = Duration::from_secs(4);
/// The lead of one second and its jitter, whole seconds in the record, and some time to be late.
const EARLY: Duration = Duration::from_millis(2400);
const REQUEST: &[u8] = b"GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
    Connection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_under_load_refresh_once_per_expiry_between_them() {
    const EXPIRIES: u64 = 6;
    let amazon = rotating().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.token_lifetime = LIFETIME);
    let (one, two) = pair(&amazon, "refresh_buffer_secs = 1\nbackground_lead_secs = 1");
    let mut load = JoinSet::new();
    let until = Instant::now() + LIFETIME * u32::try_from(EXPIRIES).expect("few");
    for addr in [one.addr, two.addr].repeat(4) {
        load.spawn(async move {
            let mut answered = 0;
            while Instant::now() < until {
                assert_eq!(get(addr).await, 200);
                answered += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            answered
        });
    }
    let mut issued = vec![(0, Instant::now())];
    while Instant::now() < until {
        let generation = lwa.grant("acme").expect("a grant").generation;
        if generation != issued.last().expect("one").0 {
            issued.push((generation, Instant::now()));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let answered: usize = load.join_all().await.into_iter().sum();
    let refreshes = issued.len() - 1;
    let counts = amazon.state().record.counts();
    assert!(answered > 1000, "{answered} requests");
    assert_eq!(counts.unauthorized_sent, 0, "no expired token was sent");
    // The account that no request uses is tried by itself a while after the start.
    let idle = lwa.grant("globex").expect("a grant").generation;
    assert_eq!(counts.token_calls, issued.last().expect("one").0 + idle, "{issued:?}");
    assert!(refreshes as u64 >= EXPIRIES, "{refreshes}");
    for pair in issued[1..].windows(2) {
        assert_eq!(pair[1].0, pair[0].0 + 1, "one at a time");
        let apart = pair[1].1 - pair[0].1;
        assert!(apart >= LIFETIME - EARLY, "refreshed again after {apart:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_wave_on_both_servers_costs_one_refresh() {
    let amazon = rotating().await;
    let (one, two) = pair(&amazon, "");
    for addr in [one.addr, two.addr] {
        assert_eq!(get(addr).await, 200);
    }
    for wave in 2..=6 {
        let state = amazon.state();
        state.lwa.expire_access_tokens(Some("acme"));
        let mut callers = JoinSet::new();
        for addr in [one.addr, two.addr].repeat(20) {
            callers.spawn(get(addr));
        }
        assert!(callers.join_all().await.iter().all(|&status| status == 200));
        assert_eq!(state.record.counts().token_calls, wave);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_no_lock_behind() {
    let amazon = rotating().await;
    let (mut one, two) = pair(&amazon, "");
    let lwa = &amazon.state().lwa;
    for gate in [&lwa.gate, &lwa.responses] {
        assert_eq!(get(one.addr).await, 200);
        assert_eq!(get(two.addr).await, 200);
        lwa.expire_access_tokens(Some("acme"));
        gate.hold();
        let mut caller = TcpStream::connect(one.addr).expect("a connection");
        caller.write_all(REQUEST).expect("written");
        gate.until_waiting(1).await;
        // It has the lock and waits for LWA; the other one waits for the lock.
        let other = tokio::spawn(get(two.addr));
        one.kill();
        let killed = Instant::now();
        gate.release();
        assert_eq!(other.await.expect("no panic"), 200);
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
        one = one.restart();
    }
}

/// Two servers with one configuration, key and store.
fn pair(amazon: &Emulator, token: &str) -> (Proxy, Proxy) {
    let toml =
        format!("[proxy]\nworkers = 1\n[token]\nforced_refresh_min_interval_secs = 0\n{token}\n");
    let one = Proxy::with(amazon, Setup { toml, file_store: true, ..Setup::default() });
    let two = Proxy::twin(&one);
    (one, two)
}

async fn get(addr: SocketAddr) -> u16 {
    let mut stream = tokio::net::TcpStream::connect(addr).await.expect("a connection");
    stream.write_all(REQUEST).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
}

async fn rotating() -> Emulator {
    let amazon = amazon().await;
    amazon.state().lwa.configure(|settings| settings.rotation = RefreshRotation::OldDiesOnceUsed);
    amazon
}
