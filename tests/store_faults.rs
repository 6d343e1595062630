//! A disk that is full or broken: requests go on from memory, the state shows it, and it recovers
//! by itself when the disk does.

use crate::support::{
    extras,
    proxy::{ACME_REFRESH, Proxy, Setup, amazon, eventually, write_private},
    strace::Strace,
};
use adsproxy::{
    Engine,
    sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator, RefreshRotation},
    testing::{
        Cause, Kind,
        load::{self, Options},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;

const UNSAVED: &str = "adsproxy_store_unsaved_records";
const FAILED: &str = r#"adsproxy_store_write_total{outcome="failed"}"#;
const DEGRADED: &str = "store degraded";

/// Every call that changes the store, and how it may fail.
const FAULTS: [(&str, &str, &str); 13] = [
    ("openat", "accounts/.acme.tmp", "error=ENOSPC"),
    ("openat", "accounts/.acme.tmp", "error=EROFS"),
    ("flock", "accounts/.acme.tmp", "error=EIO"),
    ("write", "accounts/.acme.tmp", "error=ENOSPC"),
    ("write", "accounts/.acme.tmp", "error=EIO"),
    ("write", "accounts/.acme.tmp", "error=EDQUOT"),
    // Says that it wrote a byte, and wrote none.
    ("write", "accounts/.acme.tmp", "retval=1"),
    ("fsync", "accounts/.acme.tmp", "error=EIO"),
    ("fsync", "accounts/.acme.tmp", "error=ENOSPC"),
    ("rename", "accounts/.acme.tmp", "error=EIO"),
    ("rename", "accounts/.acme.tmp", "error=ENOSPC"),
    ("openat", "accounts", "error=EIO"),
    ("fsync", "accounts", "error=EIO"),
];

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_on_whatever_write_fails_and_the_store_recovers() {
    if !extras::required("strace") || !extras::root() {
        return;
    }
    let amazon = rotating().await;
    let mut proxy = Proxy::with(&amazon, setup());
    for (call, file, fault) in FAULTS {
        let name = format!("{call} {file} {fault}");
        let record = proxy.dir.path().join("store/accounts/acme.json");
        assert_eq!(refreshed(&amazon, &proxy).await, 200, "{name}");
        let before = fs::read(&record).expect("a record");
        let strace = Strace::attach(&proxy, &inject(&proxy, call, file, fault));
        goes_on_degraded(&amazon, &proxy, &name).await;
        if call != "openat" && file != "accounts" {
            assert!(fs::read(&record).expect("a record") == before, "{name}: the old record");
        }
        strace.detach();
        recovers(&proxy, &name).await;
        assert!(fs::read(&record).expect("a record") != before, "{name}");
        assert!(!record.with_file_name(".acme.tmp").exists(), "{name}");
        proxy = proxy.restart();
    }
    assert_eq!(refreshed(&amazon, &proxy).await, 200, "the last record is a good one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_write_is_gone_on_with() {
    if !extras::required("strace") || !extras::root() {
        return;
    }
    let amazon = rotating().await;
    let proxy = Proxy::with(&amazon, setup());
    for call in ["openat", "write", "fsync"] {
        let fault = "error=EINTR:when=1";
        let strace = Strace::attach(&proxy, &inject(&proxy, call, "accounts/.acme.tmp", fault));
        assert_eq!(refreshed(&amazon, &proxy).await, 200, "{call}");
        strace.detach();
        assert!(proxy.metric(FAILED) < 0.5, "{call}");
    }
    assert_eq!(refreshed(&amazon, &proxy.restart()).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_became_read_only_takes_no_leases_and_serves() {
    if !extras::required("strace") || !extras::root() {
        return;
    }
    let amazon = rotating().await;
    let proxy = Proxy::with(&amazon, setup());
    let strace = Strace::attach(
        &proxy,
        &inject(&proxy, "openat", "leases/accounts/acme", "error=EROFS:when=1+"),
    );
    assert_eq!(refreshed(&amazon, &proxy).await, 200);
    drop(strace);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_gone_on_without_and_used_again_when_there_is_space() {
    if !extras::root() {
        return;
    }
    let amazon = rotating().await;
    let disk = Disk::mount();
    let proxy = Proxy::with(&amazon, Setup { dir: Some(disk.dir.clone()), ..setup() });
    assert_eq!(refreshed(&amazon, &proxy).await, 200);
    for round in 0..2 {
        let before = fs::read(disk.store().join("accounts/acme.json")).expect("a record");
        disk.fill();
        goes_on_degraded(&amazon, &proxy, "full").await;
        let after = fs::read(disk.store().join("accounts/acme.json")).expect("a record");
        assert!(after == before, "{round}: the old record");
        disk.free();
        recovers(&proxy, "full").await;
    }
    let reported = proxy.log().matches(DEGRADED).count();
    assert_eq!(reported, 2, "once each time:\n{}", proxy.log());
    let proxy = proxy.restart();
    assert_eq!(refreshed(&amazon, &proxy).await, 200);
    drop(proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_on_a_full_disk_serves_and_saves_later() {
    if !extras::root() {
        return;
    }
    let amazon = rotating().await;
    let disk = Disk::mount();
    disk.fill();
    let proxy = Proxy::with(&amazon, Setup { dir: Some(disk.dir.clone()), ..setup() });
    assert_eq!(proxy.metric(UNSAVED), 2.0, "both seeds");
    goes_on_degraded(&amazon, &proxy, "seed").await;
    assert!(!disk.store().join("accounts/acme.json").exists());
    disk.free();
    recovers(&proxy, "seed").await;
    // By now only the rotated token works.
    let proxy = proxy.restart();
    assert_eq!(refreshed(&amazon, &proxy).await, 200);
    drop(proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_degraded_store_is_reported_once_until_it_recovers() {
    let amazon = rotating().await;
    let home = tempfile::tempdir().expect("a temporary directory");
    let engine = embedded(&amazon, home.path()).await;
    let _guard = engine.keep_fresh();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let notes = heard.clone();
    engine.events().subscribe(move |event| {
        if event.kind == Kind::StoreDegraded {
            notes.lock().expect("no panic").push(event.clone());
        }
    });
    let acme = &"acme".parse().expect("an alias");
    engine.account(acme).await.expect("a store").expect("an account");
    // Where the record is to be written lies something that cannot be cleared away.
    let obstacle = home.path().join("store/accounts/.acme.tmp");
    let refresh = async || {
        let token = engine.tokens().token(acme).await.expect("a token");
        amazon.state().lwa.expire_access_tokens(None);
        engine.tokens().replace(acme, &token, Cause::Caller).await.expect("a token");
    };
    refresh().await;
    assert_eq!(heard.lock().expect("no panic").len(), 0, "nothing is wrong");
    for outage in 1..=2 {
        fs::create_dir(&obstacle).expect("a directory");
        for _ in 0..3 {
            refresh().await;
        }
        assert_eq!(engine.tokens().unsaved(), 1);
        assert_eq!(heard.lock().expect("no panic").len(), outage);
        fs::remove_dir(&obstacle).expect("removed");
        eventually("it is saved", || engine.tokens().unsaved() == 0).await;
    }
    let reported = heard.lock().expect("no panic")[0].clone();
    assert_eq!(
        (reported.account, reported.reason),
        (Some(acme.clone()), Some("store_unavailable"))
    );
}

/// The accounts of a program that has embedded adsproxy, on a store in `home`.
async fn embedded(amazon: &Emulator, home: &Path) -> Engine {
    let secret = |name: &str, text: &str| {
        write_private(&home.join(name), text);
        format!("{{ file = {:?} }}", home.join(name))
    };
    let toml = format!(
        "[lwa]\nclient_id = {CLIENT_ID:?}\nclient_secret = {}\n\
         token_url = \"http://{}/auth/o2/token\"\n\
         [token]\nforced_refresh_min_interval_secs = 0\n\
         [store]\nkind = \"file\"\npath = {:?}\n\
         [encryption]\nkeys = [{{ id = \"k1\", secret = {} }}]\n\
         [accounts.acme]\nregion = \"na\"\nrefresh_token = {}\n",
        secret("client", CLIENT_SECRET),
        amazon.addr(),
        home.join("store"),
        secret("key", &STANDARD.encode([7; 32])),
        secret("grant", ACME_REFRESH),
    );
    fs::write(home.join("proxy.toml"), toml).expect("written");
    let options = Options { path: Some(home.join("proxy.toml")), ..Options::default() };
    let engine =
        Engine::embed(load::load(&options).expect("a configuration").config).expect("an engine");
    engine.enroll().await.expect("a store");
    engine
}

/// Three refreshes that cannot be saved.
async fn goes_on_degraded(amazon: &Emulator, proxy: &Proxy, name: &str) {
    let reported = proxy.log().matches(DEGRADED).count();
    let failed = proxy.metric(FAILED);
    for _ in 0..3 {
        assert_eq!(refreshed(amazon, proxy).await, 200, "{name}\n{}", proxy.log());
    }
    let ready = proxy.ask_admin("/readyz?verbose");
    assert!(
        ready.starts_with("HTTP/1.1 200 ") && ready.contains("[!] store degraded\n"),
        "{name}: {ready}"
    );
    let status = status(proxy);
    assert_eq!(status["store"], "degraded", "{name}");
    assert_eq!(status["accounts"][0]["unsaved"], true, "{name}");
    assert!(proxy.metric(UNSAVED) >= 1.0 && proxy.metric(FAILED) > failed, "{name}");
    let said = proxy.log().matches(DEGRADED).count();
    assert!(said - reported <= 1 && said >= 1, "{name}: reported once\n{}", proxy.log());
}

async fn recovers(proxy: &Proxy, name: &str) {
    eventually(name, || proxy.metric(UNSAVED) < 0.5).await;
    let ready = proxy.ask_admin("/readyz?verbose");
    assert!(ready.contains("[+] store ok\n"), "{name}: {ready}");
    let status = status(proxy);
    assert_eq!(
        (&status["store"], &status["accounts"][0]["unsaved"]),
        (&"ok".into(), &false.into())
    );
}

/// A request whose access token has just died, and so has the refresh token before the last.
async fn refreshed(amazon: &Emulator, proxy: &Proxy) -> u16 {
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    proxy.get("/v2/profiles").await.status.as_u16()
}

fn status(proxy: &Proxy) -> serde_json::Value {
    let answer = proxy.ask_admin("/status");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    serde_json::from_str(body).expect("JSON")
}

fn inject(proxy: &Proxy, call: &str, file: &str, fault: &str) -> Vec<String> {
    let path = proxy.dir.path().join("store").join(file);
    vec![
        "-P".to_owned(),
        path.display().to_string(),
        "-e".to_owned(),
        format!("trace={call}"),
        "-e".to_owned(),
        format!("inject={call}:{fault}"),
    ]
}

async fn rotating() -> Emulator {
    let amazon = amazon().await;
    amazon.state().lwa.configure(|settings| settings.rotation = RefreshRotation::OldDiesOnceUsed);
    amazon
}

fn setup() -> Setup {
    let toml = "[proxy]\nworkers = 1\n[token]\nforced_refresh_min_interval_secs = 0";
    Setup { toml: toml.into(), file_store: true, ..Setup::default() }
}

/// A store of 64 KiB.
struct Disk {
    dir: Arc<TempDir>,
}

impl Disk {
    fn mount() -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let disk = Self { dir };
        fs::create_dir(disk.store()).expect("a directory");
        let mount = ["-t", "tmpfs", "-o", "size=64k,mode=0700", "none"];
        let mounted = Command::new("mount").args(mount).arg(disk.store()).status();
        assert!(mounted.expect("mount runs").success());
        disk
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn filler(&self) -> PathBuf {
        self.store().join("filler")
    }

    fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a file");
        while filler.write_all(&[0; 4096]).is_ok() {}
        let probe = self.store().join("probe");
        assert!(fs::write(&probe, [0; 4096]).is_err(), "the disk is full");
        fs::remove_file(probe).expect("removed");
    }

    fn free(&self) {
        fs::remove_file(self.filler()).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.store());
    }
}

fn unmount(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).status();
}
