//! Bodies of replayed requests: what is kept where, how much of it, and what it costs.

use crate::support::{
    bodies::{Streamed, noise, sha256},
    proxy::{Answer, Proxy, Setup, amazon, eventually, upstream},
    secure::{secure_amazon, secure_url},
    wire::{Upstream, Wire, field},
};
use adsproxy::sandbox::{ApiFault, CallCounts, Emulator, Times};
use http::Method;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;
/// Every 401 may refresh: these tests kill the token before each request.
const REFRESH_ALWAYS: &str = "[token]\nforced_refresh_min_interval_secs = 0\n";

/// A proxy that has its token already.
async fn ready(amazon: &Emulator, toml: &str) -> Proxy {
    let toml = format!("{REFRESH_ALWAYS}{toml}");
    let proxy = Proxy::with(amazon, Setup { toml, ..Setup::default() });
    assert_eq!(proxy.get("/_status/200").await.status, 200);
    amazon.state().record.clear();
    proxy
}

fn counts(amazon: &Emulator) -> CallCounts {
    amazon.state().record.counts()
}

fn assert_echoes(answer: &Answer, body: &[u8]) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let echo = answer.json();
    assert_eq!(echo["body_length"], body.len());
    assert_eq!(echo["body_sha256"], sha256(body));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_size_arrive_whole_after_a_401() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    for before_body in [false, true] {
        amazon.state().api.configure(|api| api.responds_before_body = before_body);
        for len in [0, 1, 64 * 1024, MIB + 1, 20 * MIB] {
            let body = noise(len);
            amazon.state().lwa.expire_access_tokens(None);
            assert_echoes(&proxy.post("/_echo", body.clone()).await, &body);
            amazon.state().lwa.expire_access_tokens(None);
            let chunked = Streamed::chunked(&body, 10_007);
            assert_echoes(&proxy.post("/_echo", chunked).await, &body);
        }
    }
    assert_eq!((counts(&amazon).token_calls, counts(&amazon).api_calls), (20, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_arrive_whole_after_a_401_over_tls_and_http2_too() {
    for http2 in [false, true] {
        let (amazon, ca) = secure_amazon(http2).await;
        let hosts = upstream(&secure_url(&amazon), &format!("ca_file = {:?}", ca.path()));
        let proxy = ready(&amazon, &hosts).await;
        for before_body in [false, true] {
            amazon.state().api.configure(|api| api.responds_before_body = before_body);
            for len in [0, 1, MIB + 1, 20 * MIB] {
                let body = noise(len);
                amazon.state().lwa.expire_access_tokens(None);
                let answer = proxy.post("/_echo", Streamed::chunked(&body, 50_000)).await;
                assert_echoes(&answer, &body);
                let version = if http2 { "HTTP/2.0" } else { "HTTP/1.1" };
                assert_eq!(answer.json()["version"], version);
            }
        }
        assert_eq!((counts(&amazon).token_calls, counts(&amazon).api_calls), (8, 16));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_tries_of_a_body_are_the_same_bytes_in_the_same_frame() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    let body = noise(3 * MIB);
    for (chunked, field) in [(false, "content-length"), (true, "transfer-encoding")] {
        amazon.state().record.clear();
        amazon.state().lwa.expire_access_tokens(None);
        let sent: reqwest::Body =
            if chunked { Streamed::chunked(&body, 9999).into() } else { body.clone().into() };
        assert_echoes(&proxy.post("/_echo", sent).await, &body);
        let tries = amazon.state().record.requests();
        let tries: Vec<_> = tries.iter().filter(|seen| seen.target == "/_echo").collect();
        assert_eq!(tries.len(), 2);
        for seen in tries {
            assert!(seen.body_complete);
            assert_eq!(seen.body_sha256, sha256(&body));
            let value = if chunked { "chunked".to_owned() } else { body.len().to_string() };
            assert_eq!(seen.values(field), [value]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_survives_two_401s_in_the_middle_of_it() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let toml = capture(1024, 64 * MIB, 256 * MIB, directory.path());
    let proxy = ready(&amazon, &toml).await;
    amazon.state().api.configure(|api| api.responds_before_body = true);
    for len in [300_000, 2 * MIB, 5 * MIB] {
        let body = noise(len);
        for _ in 0..15 {
            amazon.state().api.faults.add(ApiFault::SpuriousUnauthorized, Times::Next(2));
            assert_echoes(&proxy.post("/_echo", body.clone()).await, &body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_replayed_body_was_read_does_not_cut_that_body() {
    let amazon = amazon().await;
    let body = noise(20 * MIB);
    let (len, tries) = (body.len(), Arc::new(AtomicUsize::new(0)));
    let upstream = Upstream::serve(move |mut wire: Wire| {
        let tries = tries.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                if head.starts_with("GET ") {
                    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                } else if tries.fetch_add(1, Ordering::Relaxed) == 0 {
                    wire.exactly(len).await;
                    wire.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
                } else {
                    wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                    wire.send("5\r\nearly\r\n").await;
                    let hash = sha256(&wire.exactly(len).await);
                    wire.send(format!("40\r\n{hash}\r\n0\r\n\r\n")).await;
                }
            }
        }
    })
    .await;
    let setup = Setup { upstream: Some(upstream.url()), ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let answer = proxy.post("/upload", body.clone()).await;
    assert_eq!(answer.text(), format!("early{}", sha256(&body)));
}

/// `[replay]` with these limits.
fn capture(memory: usize, disk: usize, total: usize, directory: &Path) -> String {
    format!(
        "[replay]\nmemory_max_bytes = {memory}\ndisk_max_bytes = {disk}\n\
         total_max_bytes = {total}\ndirectory = {directory:?}\n"
    )
}

/// The files without a name that the proxy has open below `directory`.
fn unlinked(proxy: &Proxy, directory: &Path) -> Vec<PathBuf> {
    let open = fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("open files");
    let links = open.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    links
        .filter(|link| link.starts_with(directory) && link.to_string_lossy().ends_with("(deleted)"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_memory_limit_lies_in_a_file_without_a_name() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let proxy = ready(&amazon, &capture(4096, MIB, 2 * MIB, directory.path())).await;
    let state = amazon.state();
    for (len, files) in [(4096, 0), (300_000, 1)] {
        let body = noise(len);
        state.lwa.expire_access_tokens(None);
        state.api.gate.hold();
        let held = async {
            state.api.gate.until_waiting(1).await;
            // The last part may be on its way to the disk.
            eventually("the file", || unlinked(&proxy, directory.path()).len() == files).await;
            let visible = fs::read_dir(directory.path()).expect("a directory").count();
            assert_eq!(visible, 0);
            state.api.gate.release();
        };
        let (answer, ()) = tokio::join!(proxy.post("/_echo", body.clone()), held);
        assert_echoes(&answer, &body);
        eventually("no file", || unlinked(&proxy, directory.path()).is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_disk_limit_passes_and_its_401_stands() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let proxy = ready(&amazon, &capture(4096, 65_536, MIB, directory.path())).await;
    let (fits, over) = (noise(65_536), noise(65_537));
    assert_echoes(&proxy.post("/_echo", over.clone()).await, &over);
    let api_calls = counts(&amazon).api_calls;

    amazon.state().lwa.expire_access_tokens(None);
    let answer = proxy.post("/_echo", over.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.error()), (401, None));
    assert_eq!(answer.json()["details"], "Authentication failed");
    assert_eq!(counts(&amazon).api_calls, api_calls + 1);
    assert!(proxy.metric(r#"adsproxy_replays_total{outcome="not_replayable"}"#) > 0.5);

    // The refusal has started a refresh for whoever comes next.
    eventually("a refresh", || counts(&amazon).token_calls == 1).await;
    let fresh = r#"adsproxy_token_refresh_total{trigger="forced",outcome="succeeded"}"#;
    eventually("its end", || proxy.metric(fresh) > 0.5).await;
    assert_echoes(&proxy.post("/_echo", over.clone()).await, &over);
    assert_eq!(counts(&amazon).api_calls, api_calls + 2);

    // The twin: one byte less is replayed.
    amazon.state().lwa.expire_access_tokens(None);
    assert_echoes(&proxy.post("/_echo", fits.clone()).await, &fits);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_captures_together_stay_under_their_limit() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let toml = capture(64 * 1024, MIB, 3 * MIB / 2, directory.path());
    let proxy = ready(&amazon, &toml).await;
    let (state, body) = (amazon.state(), noise(MIB));
    for _ in 0..3 {
        state.lwa.expire_access_tokens(None);
        state.api.gate.hold();
        // The second finds the first one's bytes in its way.
        let second = async {
            state.api.gate.until_waiting(1).await;
            let release = async {
                state.api.gate.until_waiting(2).await;
                state.api.gate.release();
            };
            tokio::join!(proxy.post("/_echo", body.clone()), release).0
        };
        let (first, second) = tokio::join!(proxy.post("/_echo", body.clone()), second);
        assert_echoes(&first, &body);
        assert_eq!((second.status.as_u16(), second.error()), (401, None));
        // Everything was given back: alone, the next one is replayed.
        state.lwa.expire_access_tokens(None);
        assert_echoes(&proxy.post("/_echo", body.clone()).await, &body);
    }
    assert!(proxy.metric(r#"adsproxy_limit_hits_total{limit="capture_total"}"#) > 2.5);
}

/// Four slow uploads of one account are the whole budget.
#[tokio::test(flavor = "multi_thread")]
async fn the_uploads_of_one_account_cost_no_other_account_its_replay() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let toml = capture(MIB, MIB, MIB, directory.path());
    let proxy = ready(&amazon, &format!("{toml}\n[proxy]\nworkers = 1\n")).await;
    let globex = async |size: usize| {
        amazon.state().lwa.expire_access_tokens(Some("globex"));
        let request = proxy.request(Method::POST, "/_echo").header("X-Ads-Account", "globex");
        proxy.send(request.body(noise(size))).await
    };
    assert_echoes(&globex(1000).await, &noise(1000));
    let mut uploads = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::connect(proxy.addr).await;
        let head = "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
            Content-Length: 300000\r\n\r\n";
        wire.send(head).await;
        wire.send(noise(250_000)).await;
        uploads.push(wire);
    }
    let hits = || proxy.metric(r#"adsproxy_limit_hits_total{limit="capture_total"}"#);
    eventually("two of them are over the account's half", || hits() > 1.5).await;
    for size in [1000, 60_000, 200_000] {
        assert_echoes(&globex(size).await, &noise(size));
    }
    // They themselves arrive, whether they are kept or not.
    for wire in &mut uploads {
        wire.send(noise(50_000)).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_passes_in_a_few_mebibytes_of_memory() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    // What the first large body costs once and for all is no growth.
    proxy.post("/_sink", Streamed::repeated(noise(64 * 1024), 64)).await;
    let (before, done) = (proxy.memory(), AtomicBool::new(false));
    let sample = || {
        let mut most = 0;
        while !done.load(Ordering::Relaxed) {
            most = most.max(proxy.memory());
            std::thread::sleep(Duration::from_millis(10));
        }
        most
    };
    let started = Instant::now();
    let (answer, most) = std::thread::scope(|scope| {
        let sampler = scope.spawn(sample);
        let upload = proxy.post("/_sink", Streamed::repeated(noise(256 * 1024), 4096));
        let answer =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(upload));
        done.store(true, Ordering::Relaxed);
        (answer, sampler.join().expect("no panic"))
    });
    assert_eq!(answer.json()["length"], 1024 * MIB);
    let growth = most.saturating_sub(before);
    println!("1 GiB in {:?}: memory grew by {} KiB", started.elapsed(), growth / 1024);
    assert!(growth < 16 * MIB as u64, "grew by {growth} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_capture_directory_costs_the_replay_not_the_request() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let proxy = ready(&amazon, &capture(4096, MIB, 2 * MIB, directory.path())).await;
    fs::remove_dir(directory.path()).expect("removed");
    costs_the_replay_only(&amazon, &proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_capture_directory_costs_the_replay_not_the_request() {
    // Without the right to mount there is a test with a missing directory still.
    let Some(disk) = SmallDisk::mount() else { return };
    let amazon = amazon().await;
    let proxy = ready(&amazon, &capture(4096, MIB, 2 * MIB, disk.0.path())).await;
    costs_the_replay_only(&amazon, &proxy).await;
}

/// Bodies in one part and in many, with a good token and with a dead one.
async fn costs_the_replay_only(amazon: &Emulator, proxy: &Proxy) {
    for before_body in [false, true] {
        amazon.state().api.configure(|api| api.responds_before_body = before_body);
        for len in [100_000, 800_000] {
            let body = noise(len);
            assert_echoes(&proxy.post("/_echo", body.clone()).await, &body);
            let calls = counts(amazon).token_calls;
            amazon.state().lwa.expire_access_tokens(None);
            let post = proxy.request(Method::POST, "/_echo").header("X-Ads-Account", "acme");
            match proxy.try_send(post.body(body.clone())).await {
                // Before the body, little enough may have been taken for a replay.
                Ok(answer) if before_body && answer.status == 200 => {}
                Ok(answer) => assert_eq!((answer.status.as_u16(), answer.error()), (401, None)),
                // A caller that goes on sending after an early answer may lose the connection.
                Err(error) => assert!(before_body, "{error}"),
            }
            eventually("a refresh", || counts(amazon).token_calls == calls + 1).await;
            // What fits into memory needs no disk.
            assert_echoes(&proxy.post("/_echo", body[..4096].to_vec()).await, &body[..4096]);
        }
    }
}

/// 64 KiB that can be filled.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(directory.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_body_is_replayed_also_when_the_caller_dawdles() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    amazon.state().lwa.expire_access_tokens(None);
    amazon.state().api.configure(|api| api.responds_before_body = true);
    let mut caller = Wire::connect(proxy.addr).await;
    caller
        .send(
            "POST /_echo HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
             Content-Length: 10\r\n\r\n01234",
        )
        .await;
    // Amazon has refused and the replay waits for the rest of the body.
    eventually("the replay", || counts(&amazon).api_calls == 2).await;
    caller.send("56789").await;
    let head = caller.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = field(&head, "content-length").expect("a length").parse().expect("a number");
    let echo: serde_json::Value =
        serde_json::from_slice(&caller.exactly(length).await).expect("JSON");
    assert_eq!(echo["body_sha256"], sha256(b"0123456789"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_with_a_body_is_replayed_whatever_it_is() {
    let amazon = amazon().await;
    let proxy = ready(&amazon, "").await;
    let body = noise(70_000);
    for method in [Method::PUT, Method::PATCH, Method::DELETE, Method::GET] {
        amazon.state().lwa.expire_access_tokens(None);
        let request = proxy.request(method.clone(), "/_echo").header("X-Ads-Account", "acme");
        let answer = proxy.send(request.body(body.clone())).await;
        assert_echoes(&answer, &body);
        assert_eq!(answer.json()["method"], method.as_str());
    }
}

/// The most memory the process ever had, bytes.
fn peak(proxy: &Proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("KiB");
    kib * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_one_byte_chunks_is_kept_at_little_more_than_its_bytes() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    for memory in [MIB, 64 * 1024] {
        let proxy = ready(&amazon, &capture(memory, MIB, 8 * MIB, directory.path())).await;
        let before = peak(&proxy);
        amazon.state().lwa.expire_access_tokens(None);
        let mut callers = Vec::new();
        for _ in 0..2 {
            let mut caller = Wire::connect(proxy.addr).await;
            let head = "POST /_echo HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            caller.send(head).await;
            caller.send("1\r\nx\r\n".repeat(MIB / 8)).await;
            callers.push(caller);
        }
        for mut caller in callers {
            caller.send("0\r\n\r\n").await;
            let head = caller.head().await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            let length = field(&head, "content-length").expect("a length");
            let echo = caller.exactly(length.parse().expect("a number")).await;
            let echo: serde_json::Value = serde_json::from_slice(&echo).expect("JSON");
            assert_eq!(echo["body_sha256"], sha256(&vec![b'x'; MIB / 8]));
        }
        let growth = peak(&proxy).saturating_sub(before);
        println!("2 times {} KiB: memory grew by {} KiB", MIB >> 13, growth >> 10);
        assert!(growth < 4 * MIB as u64, "grew by {growth} bytes");
    }
}
