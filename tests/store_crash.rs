//! The file store of the real process: no kill loses a grant, nothing in it can be read.

use crate::support::proxy::{
    ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon, assert_no_secret, write_private,
};
use adsproxy::sandbox::{CLIENT_SECRET, Emulator, LwaFault, RefreshRotation, Surface, Times};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

const KILLS: u64 = 40;
const CALLERS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn forty_kills_under_load_lose_no_rotating_grant() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    // A process that uses a token before it is durable loses the grant when killed then.
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDiesOnceUsed);
    let mut proxy = Proxy::with(&amazon, every_401_refreshes());
    for kill in 0..KILLS {
        let answer = proxy.get("/v2/profiles").await;
        assert_eq!(answer.status, 200, "before kill {kill}: {}\n{}", answer.text(), proxy.log());
        let load = put_under_load(&amazon, &proxy);
        // A refresh is caught at LWA; from its answer on the kills come later and later, by
        // a quarter of a millisecond: at the parser, the disk, the waiters, the next refresh.
        lwa.gate.hold();
        lwa.gate.until_waiting(1).await;
        lwa.gate.release();
        std::thread::sleep(Duration::from_micros(250) * u32::try_from(kill).expect("few"));
        proxy.kill();
        drop(load);
        proxy = proxy.restart();
    }
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert!(lwa.grant("acme").expect("a grant").generation > 2 * KILLS, "refreshed all the time");
    holds_only_private_and_sealed_files(&amazon, &proxy);
}

/// Callers who take whatever comes, and access tokens that die again and again.
fn put_under_load(amazon: &Emulator, proxy: &Proxy) -> JoinSet<()> {
    let mut load = JoinSet::new();
    let (state, addr) = (Arc::clone(amazon.state()), proxy.addr);
    load.spawn(async move {
        loop {
            state.lwa.expire_access_tokens(Some("acme"));
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    for _ in 0..CALLERS {
        load.spawn(async move {
            while let Ok(mut stream) = TcpStream::connect(addr).await {
                let request = b"GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\n\
                    X-Ads-Account: acme\r\nConnection: close\r\n\r\n";
                let mut answer = Vec::new();
                let asked = stream.write_all(request).await;
                if asked.is_err() || stream.read_to_end(&mut answer).await.is_err() {
                    return;
                }
            }
        });
    }
    load
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_used_before_it_is_durable_would_lose_the_grant() {
    // Shows that the test above can fail: the answer to a refresh is used elsewhere, the proxy
    // still has the refresh token before it.
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDiesOnceUsed);
    let proxy = Proxy::with(&amazon, every_401_refreshes());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let thief = Proxy::with(
        &amazon,
        Setup {
            env: vec![(
                "ACME_REFRESH".into(),
                lwa.grant("acme").expect("a grant").current().into(),
            )],
            ..every_401_refreshes()
        },
    );
    assert_eq!(thief.get("/v2/profiles").await.status, 200);
    lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.error(), Some("reauthorization_required"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_lwa_that_was_lost_costs_no_grant() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDiesOnceUsed);
    let mut proxy = Proxy::with(&amazon, every_401_refreshes());
    for _ in 0..5 {
        lwa.faults.add(LwaFault::LoseResponse, Times::Next(1));
        lwa.expire_access_tokens(Some("acme"));
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    }
    proxy.kill();
    assert_eq!(proxy.restart().get("/v2/profiles").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_uses_the_stored_access_token() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, every_401_refreshes());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    for _ in 0..3 {
        proxy.kill();
        proxy = proxy.restart();
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    }
    assert_eq!(amazon.state().record.counts().token_calls, 1);
    let seen = amazon.state().record.requests();
    assert!(seen.iter().all(|seen| seen.generation.is_none_or(|generation| generation == 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_leaves_a_rotated_token_alone_and_another_replaces_it() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let proxy = Proxy::with(&amazon, every_401_refreshes());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    // The configured token is dead by now: only the rotated one can refresh.
    let mut proxy = proxy.restart();
    lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);

    let calls = amazon.state().record.counts().token_calls;
    proxy.set_env("ACME_REFRESH", &lwa.consent_again("acme").expect("a grant"));
    let proxy = proxy.restart();
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(amazon.state().record.counts().token_calls, calls + 1, "a new grant, a new token");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_key_does_not_bring_the_seed_back() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let proxy = Proxy::with(&amazon, every_401_refreshes());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let dir = proxy.dir.path().to_owned();
    write_private(&dir.join("key2"), &STANDARD.encode([8; 32]));
    let old = format!("{{ id = \"k1\", secret = {{ file = {:?} }} }}", dir.join("key"));
    let new = format!("{{ id = \"k2\", secret = {{ file = {:?} }} }}", dir.join("key2"));
    reconfigure(&dir, &old, &format!("{new}, {old}"));
    let proxy = proxy.restart();
    let rotated = Command::new(env!("CARGO_BIN_EXE_adsproxy"))
        .args(["key", "rotate", "--config"])
        .arg(dir.join("proxy.toml"))
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("ACME_REFRESH", ACME_REFRESH)
        .env("GLOBEX_REFRESH", GLOBEX_REFRESH)
        .status();
    assert!(rotated.expect("it runs").success());
    reconfigure(&dir, &format!("{new}, {old}"), &new);
    let proxy = proxy.restart();
    lwa.expire_access_tokens(Some("acme"));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "the rotated token is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_at_start_and_by_every_command_and_nothing_is_written() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, every_401_refreshes());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let dir = proxy.dir.path().to_owned();
    let key = fs::read_to_string(dir.join("key")).expect("the key");
    proxy.kill();
    // As another process leaves it: what ends with a process is gone.
    let before = contents(&dir.join("store"));
    assert!(before.keys().any(|path| path.ends_with("audit.jsonl")), "{:?}", before.keys());
    write_private(&dir.join("key"), &STANDARD.encode([9; 32]));
    for command in [
        "serve",
        "account list",
        "account remove acme --yes",
        "token acme",
        "key status",
        "key rotate",
        "audit verify",
        "status",
    ] {
        let refused = Command::new(env!("CARGO_BIN_EXE_adsproxy"))
            .args(command.split(' '))
            .arg("--config")
            .arg(dir.join("proxy.toml"))
            .env("CLIENT_SECRET", CLIENT_SECRET)
            .env("ACME_REFRESH", ACME_REFRESH)
            .env("GLOBEX_REFRESH", GLOBEX_REFRESH)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        // Without a server, `status` has no server to ask and opens no store.
        let expected = if command == "status" { 69 } else { 78 };
        assert_eq!(refused.status.code(), Some(expected), "{command}: {said}");
        assert!(command == "status" || said.contains("under this id"), "{command}: {said}");
        assert_eq!(contents(&dir.join("store")), before, "{command}");
    }
    write_private(&dir.join("key"), &key);
    assert_eq!(proxy.restart().get("/v2/profiles").await.status, 200);
    assert_eq!(amazon.state().record.counts().token_calls, 1);
}

/// Every file below `directory` and what is in it.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = below(directory).into_iter().filter(|path| path.is_file());
    files.map(|path| (path.clone(), fs::read(&path).expect("readable"))).collect()
}

fn holds_only_private_and_sealed_files(amazon: &Emulator, proxy: &Proxy) {
    let grant = amazon.state().lwa.grant("acme").expect("a grant");
    let seen = amazon.state().record.requests_for(Surface::Api);
    let bearer = seen.last().expect("a request").values("authorization")[0].to_owned();
    let access = bearer.strip_prefix("Bearer ").expect("a bearer");
    let secrets = [grant.current(), ACME_REFRESH, CLIENT_SECRET, access];
    let mut files = 0;
    for path in below(&proxy.dir.path().join("store")) {
        let mode = path.metadata().expect("it is there").permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{path:?}");
            continue;
        }
        assert_eq!(mode, 0o600, "{path:?}");
        // The control socket is no file.
        if !path.is_file() {
            continue;
        }
        files += 1;
        let bytes = fs::read(&path).expect("readable");
        assert_no_secret(&path.to_string_lossy(), &bytes);
        let text = String::from_utf8_lossy(&bytes);
        for secret in secrets {
            assert!(!text.contains(secret), "{path:?}");
            // In base64 a secret may begin anywhere in a group of three bytes.
            for skipped in 0..3 {
                let groups = &secret.as_bytes()[skipped..skipped + 18];
                assert!(!text.contains(&STANDARD.encode(groups)), "{path:?}");
            }
        }
    }
    assert!(files >= 5, "two records, the store's id, a key's check, a server: {files}");
}

/// Every file and directory below `directory`, itself included.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { all.extend(below(&path)) } else { all.push(path) }
    }
    all
}

fn reconfigure(dir: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(dir.join("proxy.toml")).expect("a configuration");
    assert!(text.contains(from), "{from} is not in\n{text}");
    fs::write(dir.join("proxy.toml"), text.replace(from, to)).expect("written");
}

fn every_401_refreshes() -> Setup {
    let toml = "[token]\nforced_refresh_min_interval_secs = 0";
    Setup { toml: toml.into(), file_store: true, ..Setup::default() }
}
