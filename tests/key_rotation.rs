//! Keys are changed while servers run: no request fails, and no kill loses a grant.

use crate::support::{
    extras,
    program::{Home, Said, said},
    proxy::{
        ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon, assert_no_secret, eventually,
        write_private,
    },
};
use adsproxy::{
    sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator, RefreshRotation},
    testing::{
        Credential, Encryption, EncryptionKey, Expected, Item, Limit, Region, Secret, Space, Store,
        StoredAccessToken,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Beside `acme` and `globex`.
const ACCOUNTS: usize = 200;
const CALLERS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_fails_no_request_of_two_servers_and_loses_no_grant() {
    let amazon = busy_amazon().await;
    let one = Proxy::with(&amazon, short_lived());
    fill(&one).await;
    let two = beside(&amazon, &one);
    served_by_all(&[&one, &two]).await;

    // Step by step, as `key rotate --help` says.
    let key2 = one.dir.path().join("key2");
    let made = run(&one, &["key", "init", "--path", key2.to_str().expect("text"), "--id", "k2"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    for proxy in [&one, &two] {
        change_config(proxy, |toml| {
            toml.replacen("keys = [", &format!("keys = [{}, ", k2(&key2)), 1)
        });
    }
    let one = one.restart();
    // Not before the last of them knows the key; and until then no server seals with it.
    let refused = run(&one, &["key", "rotate"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains(&two.pid().to_string()), "{refused:?}");
    assert!(!refused.err.contains(&one.pid().to_string()), "{refused:?}");
    one.get("/v2/profiles").await;
    amazon.state().lwa.expire_access_tokens(None);
    served_by_all(&[&one, &two]).await;
    assert_eq!(uses(&one, "k2"), 0);
    let two = two.restart();

    let load = Load::start(&amazon, &[&one, &two]);
    let before = amazon.state().record.counts().token_calls;
    let rotated = run_aside(&one, &["key", "rotate"]).await;
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    let calls = amazon.state().record.counts().token_calls - before;
    println!("{calls} tokens refreshed during the rotation");
    assert!(calls > 10, "{calls} tokens were refreshed meanwhile");
    load.ends_without_a_failure().await;

    assert_eq!((uses(&one, "k1"), uses(&one, "k2")), (0, ACCOUNTS + 2));
    let retired = run(&one, &["key", "retire", "k1"]);
    assert_eq!(retired.code, Some(0), "{retired:?}");
    for proxy in [&one, &two] {
        change_config(proxy, |toml| {
            let start = toml.find(", { id = \"k1\"").expect("the old key");
            let end = start + toml[start..].find("}]").expect("its end");
            format!("{}{}", &toml[..start], &toml[end + 1..])
        });
    }
    let (one, two) = (one.restart(), two.restart());
    amazon.state().lwa.expire_access_tokens(None);
    served_by_all(&[&one, &two]).await;
    // What the configuration seeded was not taken for new: the rotated token won.
    assert!(!one.log().contains("taken from the configuration"), "{}", one.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_killed_half_way_is_finished_by_the_next_start_of_a_server() {
    if !extras::required("strace") {
        return;
    }
    let amazon = busy_amazon().await;
    let mut proxy = Proxy::with(&amazon, short_lived());
    fill(&proxy).await;
    proxy.kill();
    let key2 = proxy.dir.path().join("key2");
    write_private(&key2, &STANDARD.encode([2; 32]));
    change_config(&proxy, |toml| toml.replacen("keys = [", &format!("keys = [{}, ", k2(&key2)), 1));
    let command = command(&proxy, &["key", "rotate"]);
    let killed = kill_at(&command, "rename", 15);
    assert!(!killed.status.success(), "{killed:?}");
    let marker = proxy.dir.path().join("store/meta/rotation.json");
    assert!(marker.exists());
    let (done, left) = (uses(&proxy, "k2"), uses(&proxy, "k1"));
    assert!(done > 5 && left > 5, "{done} done, {left} left");
    let status = run(&proxy, &["key", "status"]);
    assert!(status.out.contains("`adsproxy key rotate` finishes it"), "{status:?}");
    assert_eq!(run(&proxy, &["key", "retire", "k1"]).code, Some(1));
    let proxy = proxy.restart();
    eventually("the server finishes it", || !marker.exists()).await;
    assert_eq!(uses(&proxy, "k1"), 0);
    amazon.state().lwa.expire_access_tokens(None);
    served_by_all(&[&proxy]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_killed_at_any_write_sync_or_rename_loses_nothing_and_is_finished() {
    if !extras::required("strace") {
        return;
    }
    let mut kills = 0;
    for call in ["openat", "write", "fsync", "rename", "renameat2", "unlink", "flock"] {
        for when in 1.. {
            let home = home_with_keys();
            let kept = fill_home(&home, 4).await;
            let killed = kill_at(&home.command("key rotate"), call, when);
            if killed.status.success() {
                break;
            }
            kills += 1;
            let open = |keys: &[(&str, u8)]| open(&home.path("store"), keys);
            assert_all(&open(&[("k2", 2), ("k1", 1)]), &kept).await;
            let again = home.run("key rotate");
            assert_eq!(again.code, Some(0), "{call} {when}: {again:?}");
            assert_all(&open(&[("k2", 2)]), &kept).await;
            assert!(!home.path("store/meta/rotation.json").exists());
        }
    }
    println!("{kills} kills");
    // The marker and each record: written, synced, renamed, its directory synced.
    assert!(kills > 25, "{kills}");
}

#[tokio::test]
async fn status_and_retire_know_what_needs_a_key() {
    let home = home_with_keys();
    let kept = fill_home(&home, 3).await;
    let link = Item {
        account: Some(kept[0].account.clone()),
        expires_at_ms: Some(4_000_000_000_000),
        text: "a link".into(),
    };
    let limit = Limit { max: 10, now_ms: 0 };
    let first = open(&home.path("store"), &[("k1", 1)]);
    first.entries(Space::Ticket).put("link", &link, limit).await.expect("kept");
    let lost = open(&home.path("store"), &[("lost", 9)]);
    lost.put_grant(&credential("stranger"), Expected::Any).await.expect("saved");
    let status = |home: &Home| -> Value {
        let said = home.run("key status --json");
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.out).expect("JSON")
    };
    let states = |status: &Value| -> Vec<String> {
        let keys = status["keys"].as_array().expect("a list").iter();
        keys.map(|key| format!("{} {}", key["id"], key["state"]).replace('"', "")).collect()
    };
    let before = status(&home);
    assert_eq!(states(&before), ["k2 seals", "k1 opens", "lost not_configured"]);
    assert_eq!(before["keys"][1]["records"].as_array().expect("a list").len(), 3);
    let others = &before["keys"][1]["others"];
    assert_eq!(*others, 1, "the link");
    assert_eq!(before["unreadable"][0]["account"], "stranger");
    let table = home.run("key status").out;
    assert!(table.contains("stranger does not open") && table.contains("\"lost\""), "{table}");
    for (id, said) in [("k1", "still needed"), ("k2", "seals"), ("lost", "still needed")] {
        let refused = home.run(&format!("key retire {id}"));
        assert!(refused.code == Some(1) && refused.err.contains(said), "{refused:?}");
    }
    // One record cannot be sealed anew: it is named, the others are.
    let rotated = home.run("key rotate");
    assert_eq!(rotated.code, Some(1), "{rotated:?}");
    assert!(rotated.out.contains("3 of 4") && rotated.err.contains("stranger"), "{rotated:?}");
    assert_eq!(home.run("account remove stranger --yes").code, Some(0));
    assert_eq!(states(&status(&home)), ["k2 seals", "k1 unused"]);
    let older = first.register().expect("registered");
    let refused = home.run("key retire k1");
    assert!(refused.code == Some(1) && refused.err.contains("still seals"), "{refused:?}");
    drop(older);
    assert_eq!(home.run("key retire k1").code, Some(0));
    let second = open(&home.path("store"), &[("k2", 2)]);
    assert_all(&second, &kept).await;
    assert_eq!(second.entries(Space::Ticket).take("link").await.expect("read"), Some(link));
    assert_eq!(
        home.run("key rotate").out,
        "0 of 3 records sealed anew with key k2; 3 had it already\n"
    );
}

#[tokio::test]
async fn no_command_deletes_a_grant_that_opens_again_once_the_id_of_its_store_is_back() {
    let home = home_with_keys();
    let kept = fill_home(&home, 3).await;
    let id = home.path("store/meta/store.json");
    let before = fs::read(&id).expect("an id");
    let damages = ["{", "{\"version\":1}\n{\"id\":\"ffffffffffffffffffffffffffffffff\"}\n"];
    for damage in damages.map(Some).into_iter().chain([None]) {
        match damage {
            Some(damage) => fs::write(&id, damage).expect("damaged"),
            None => fs::remove_file(&id).expect("removed"),
        }
        for command in ["logout a0 --yes", "account remove a1 --yes"] {
            let refused = home.run(command);
            let said = &refused.err;
            assert_eq!(refused.code, Some(1), "{damage:?}: {refused:?}");
            assert!(said.contains("meta/store.json") && said.contains("backup"), "{refused:?}");
        }
    }
    fs::write(&id, before).expect("restored");
    assert_all(&open(&home.path("store"), &[("k1", 1)]), &kept).await;
    assert_eq!(home.run("logout a0 --yes").code, Some(0));
    assert_all(&open(&home.path("store"), &[("k1", 1)]), &kept[1..]).await;
    assert!(!home.path("store/accounts/a0.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_key_in_use_says_so_keeps_the_records_and_serves_the_others() {
    let amazon = amazon().await;
    let setup = Setup { file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let store = proxy.dir.path().join("store");
    let record = store.join("accounts/acme.json");
    let kept = open(&store, &[("k1", 7)]).load(&id("acme")).await.expect("loads").expect("one");
    open(&store, &[("lost", 9)]).put_grant(&kept, Expected::Any).await.expect("saved");
    let before = fs::read(&record).expect("a record");
    let proxy = proxy.restart();
    let globex = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "globex");
    assert_eq!(proxy.send(globex).await.status, 200);
    assert_ne!(proxy.get("/v2/profiles").await.status, 200);
    assert!(proxy.ask_admin("/status").contains("sealed"));
    eventually("the missing key is named", || {
        proxy.log().contains("are sealed: their key is not configured")
            && proxy.log().contains("\"lost\"")
    })
    .await;
    assert_eq!(fs::read(&record).expect("a record"), before);
}

/// Many requests for all accounts on several servers.
struct Load {
    ended: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    callers: tokio::task::JoinSet<Option<String>>,
}

impl Load {
    fn start(amazon: &Emulator, proxies: &[&Proxy]) -> Self {
        let (ended, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut callers = tokio::task::JoinSet::new();
        let (state, over) = (Arc::clone(amazon.state()), ended.clone());
        callers.spawn(async move {
            // So that records are refreshed all the time, each now and then.
            for account in accounts().collect::<Vec<_>>().iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                state.lwa.expire_access_tokens(Some(account));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            None
        });
        for caller in 0..CALLERS {
            let proxy = proxies[caller % proxies.len()];
            let (ended, served) = (ended.clone(), served.clone());
            let requests: Vec<_> = accounts().map(|account| request(proxy, &account)).collect();
            callers.spawn(async move {
                for request in requests.iter().cycle().skip(caller * ACCOUNTS / CALLERS) {
                    if ended.load(Ordering::Relaxed) {
                        return None;
                    }
                    let request = request.try_clone().expect("no body");
                    let answer = request.send().await;
                    let Ok(answer) = answer else { return Some("no answer".to_owned()) };
                    if answer.status() != 200 {
                        return Some(answer.text().await.unwrap_or_default());
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                None
            });
        }
        Self { ended, served, callers }
    }

    /// Goes on for a little while, then checks that no request failed.
    async fn ends_without_a_failure(mut self) {
        let enough = self.served.load(Ordering::Relaxed) + ACCOUNTS;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.served.load(Ordering::Relaxed) < enough && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.ended.store(true, Ordering::Relaxed);
        while let Some(failure) = self.callers.join_next().await {
            assert_eq!(failure.expect("no panic"), None);
        }
        let served = self.served.load(Ordering::Relaxed);
        println!("{served} requests served, none failed");
        assert!(served >= ACCOUNTS);
    }
}

fn request(proxy: &Proxy, account: &str) -> reqwest::RequestBuilder {
    proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account)
}

fn accounts() -> impl Iterator<Item = String> {
    let more = (0..ACCOUNTS).map(|number| format!("a{number}"));
    ["acme".to_owned(), "globex".to_owned()].into_iter().chain(more)
}

async fn served_by_all(proxies: &[&Proxy]) {
    for (number, account) in accounts().enumerate() {
        let proxy = proxies[number % proxies.len()];
        let answer = proxy.send(request(proxy, &account)).await;
        assert_eq!(answer.status, 200, "{account}: {}\n{}", answer.text(), proxy.log());
    }
}

/// One whose refresh tokens are good for one refresh: a process that loses one loses the grant.
async fn busy_amazon() -> Emulator {
    let amazon = amazon().await;
    amazon.state().lwa.configure(|settings| {
        settings.rotation = RefreshRotation::OldDies;
        settings.token_lifetime = Duration::from_secs(20);
    });
    for account in accounts().skip(2) {
        amazon.state().lwa.add_grant(&account, CLIENT_ID, &format!("Atzr|{account}"), vec![]);
    }
    amazon
}

fn short_lived() -> Setup {
    let toml = "[token]\nrefresh_buffer_secs = 2\nbackground_lead_secs = 8\n\
        forced_refresh_min_interval_secs = 0\n"
        .to_owned();
    Setup { toml, file_store: true, ..Setup::default() }
}

/// Puts a record of every account into the store, and waits until the server knows them all.
async fn fill(proxy: &Proxy) {
    let store = open(&proxy.dir.path().join("store"), &[("k1", 7)]);
    for account in accounts().skip(2) {
        let record = Credential {
            refresh_token: Secret::new(format!("Atzr|{account}")),
            previous_refresh_token: None,
            access_token: None,
            region: Region::Na,
            ..credential(&account)
        };
        store.put_grant(&record, Expected::Any).await.expect("saved");
    }
    let all = format!("\"accounts\":{}", ACCOUNTS + 2);
    eventually("all are known", || proxy.log().contains(&all)).await;
}

/// A second server on the store of `one`.
fn beside(amazon: &Emulator, one: &Proxy) -> Proxy {
    let two = Proxy::with(amazon, short_lived());
    let (here, there) = (two.dir.path().to_owned(), one.dir.path().to_owned());
    change_config(&two, |toml| {
        toml.replace(here.to_str().expect("text"), there.to_str().expect("text"))
    });
    two.restart()
}

fn change_config(proxy: &Proxy, change: impl FnOnce(String) -> String) {
    let path = proxy.dir.path().join("proxy.toml");
    let before = fs::read_to_string(&path).expect("a configuration");
    let after = change(before.clone());
    assert_ne!(before, after);
    fs::write(path, after).expect("written");
}

fn k2(file: &Path) -> String {
    format!("{{ id = \"k2\", secret = {{ file = {file:?} }} }}")
}

fn command(proxy: &Proxy, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
    command
        .arg("--config")
        .arg(proxy.dir.path().join("proxy.toml"))
        .args(arguments)
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("ACME_REFRESH", ACME_REFRESH)
        .env("GLOBEX_REFRESH", GLOBEX_REFRESH);
    command
}

/// Runs the command line beside the server, on its configuration.
fn run(proxy: &Proxy, arguments: &[&str]) -> Said {
    let said = said(&mut command(proxy, arguments));
    assert_no_secret("the output", format!("{said:?}").as_bytes());
    said
}

/// As `run`, while this test goes on.
async fn run_aside(proxy: &Proxy, arguments: &[&str]) -> Said {
    let mut command = command(proxy, arguments);
    tokio::task::spawn_blocking(move || said(&mut command)).await.expect("no panic")
}

/// How many records the key sealed.
fn uses(proxy: &Proxy, key: &str) -> usize {
    let said = run(proxy, &["key", "status", "--json"]);
    let status: Value = serde_json::from_str(&said.out).expect("JSON");
    let keys = status["keys"].as_array().expect("a list");
    let found = keys.iter().find(|known| known["id"] == key);
    found.map_or(0, |key| key["records"].as_array().expect("a list").len())
}

/// Runs `command` until it makes the system call `call` for the `when`th time in one thread, and
/// kills it there.
fn kill_at(command: &Command, call: &str, when: usize) -> std::process::Output {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=KILL:when={when}")])
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        strace.current_dir(directory).env("HOME", directory);
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            strace.env(name, value);
        }
    }
    strace.output().expect("strace runs")
}

/// A home with keys `k2` (32 times 2) and `k1` (32 times 1) and no server.
fn home_with_keys() -> Home {
    let home = Home::new();
    home.write("k1", &STANDARD.encode([1; 32]), 0o600);
    home.write("k2", &STANDARD.encode([2; 32]), 0o600);
    home.write("secret", "s", 0o600);
    let toml = "[lwa]\nclient_id = \"id\"\nclient_secret = { file = \"~/secret\" }\n\
        [store]\npath = \"~/store\"\n[encryption]\n\
        keys = [{ id = \"k2\", secret = { file = \"~/k2\" } }, \
        { id = \"k1\", secret = { file = \"~/k1\" } }]\n";
    home.write("proxy.toml", toml, 0o600);
    home
}

async fn fill_home(home: &Home, accounts: usize) -> Vec<Credential> {
    let store = open(&home.path("store"), &[("k1", 1)]);
    let kept: Vec<_> = (0..accounts).map(|number| credential(&format!("a{number}"))).collect();
    for record in &kept {
        store.put_grant(record, Expected::Any).await.expect("saved");
    }
    kept
}

fn open(directory: &Path, keys: &[(&str, u8)]) -> Store {
    let secret = |byte| Secret::new(STANDARD.encode([byte; 32]));
    let keys = keys.iter().map(|&(id, byte)| EncryptionKey::new(id, secret(byte))).collect();
    let store = adsproxy::testing::StoreConfig {
        kind: adsproxy::testing::StoreKind::File,
        path: directory.to_owned(),
        ..Default::default()
    };
    Store::open(&store, &Encryption { keys }).expect("opens")
}

async fn assert_all(store: &Store, kept: &[Credential]) {
    for record in kept {
        assert_eq!(store.load(&record.account).await.expect("loads").as_ref(), Some(record));
    }
}

fn id(alias: &str) -> adsproxy::testing::AccountId {
    alias.parse().expect("an alias")
}

fn credential(alias: &str) -> Credential {
    Credential {
        epoch: adsproxy::testing::Epoch::random(),
        account: id(alias),
        application: "default".to_owned(),
        region: Region::Eu,
        refresh_token: Secret::new(format!("Atzr|refresh-{alias}")),
        previous_refresh_token: Some(Secret::new(format!("Atzr|previous-{alias}"))),
        access_token: Some(StoredAccessToken {
            token: Secret::new(format!("Atza|access-{alias}")),
            issued_at: 1_795_132_800,
            expires_at: 4_000_000_000,
        }),
        generation: 7,
        consented_at: None,
        updated_at: 1_795_132_801,
        reauthorization_required: false,
        seed: None,
        unknown: Default::default(),
    }
}
