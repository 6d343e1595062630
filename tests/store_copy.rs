//! `adsproxy store copy`: a move from files to a database and back loses nothing, replaces nothing, and
//! goes on after an interruption.

use crate::support::{
    grants::open_store,
    postgres::database,
    program::{Said, said},
    proxy::{ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon, assert_no_secret},
};
use adsproxy::{
    sandbox::CLIENT_SECRET,
    testing::{
        AccountId, Credential, Encryption, EncryptionKey, Epoch, Expected, Item, Limit, Secret,
        Space, Store, StoreConfig, StoreKind,
    },
};
use http::Method;
use std::{fs, process::Command};

type Database = (String, String);

/// `adsproxy store copy` with the configuration of `proxy`, whose store is files.
fn command(proxy: &Proxy, (url, schema): &Database, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
    command.args(["store", "copy", "--config"]).arg(proxy.dir.path().join("proxy.toml"));
    command.args(arguments.split(' ')).env_remove("XDG_RUNTIME_DIR");
    command.env("DATABASE_URL", url).env("ADSPROXY_STORE__SCHEMA", schema);
    command.env("CLIENT_SECRET", CLIENT_SECRET);
    command.env("ACME_REFRESH", ACME_REFRESH).env("GLOBEX_REFRESH", GLOBEX_REFRESH);
    command
}

fn copy(proxy: &Proxy, database: &Database, arguments: &str) -> Said {
    let said = said(&mut command(proxy, database, arguments));
    assert_no_secret("the output", format!("{said:?}").as_bytes());
    said
}

const THERE: &str = "--from file --to postgres";

fn in_database(proxy: &Proxy, (url, schema): &Database) -> Store {
    let key = fs::read_to_string(proxy.dir.path().join("key")).expect("the key");
    let keys = vec![EncryptionKey::new("k1", Secret::new(key))];
    let config = StoreConfig {
        kind: StoreKind::Postgres,
        url: Some(url.as_str().into()),
        schema: schema.clone(),
        ..Default::default()
    };
    let open = || Store::open(&config, &Encryption { keys }).expect("it opens");
    tokio::task::block_in_place(open)
}

fn id(number: usize) -> AccountId {
    format!("copied{number:04}").parse().expect("an id")
}

/// Puts so many grants into the store of `proxy`, beside what is there.
async fn fill(store: &Store, grants: usize) {
    let acme = store.load(&"acme".parse().expect("an id")).await.expect("read").expect("there");
    for number in 0..grants {
        let (account, refresh_token) = (id(number), Secret::new(format!("Atzr|{number}")));
        let grant = Credential { epoch: Epoch::random(), account, refresh_token, ..acme.clone() };
        store.put_grant(&grant, Expected::Any).await.expect("kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_moves_into_a_database_and_back_with_all_that_it_keeps() {
    let Some(database) = database() else { return };
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let running = copy(&proxy, &database, THERE);
    assert_eq!(running.code, Some(1), "{running:?}");
    assert!(running.err.contains("1 server(s) run on the source"), "{running:?}");
    proxy.signal("TERM");
    proxy.wait();
    let files = open_store(&proxy);
    let item = Item { account: None, expires_at_ms: None, text: "a message".into() };
    let limit = Limit { max: 9, now_ms: 0 };
    files.entries(Space::Outbox).put("one", &item, limit).await.expect("kept");

    let copied = copy(&proxy, &database, THERE);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert!(copied.out.contains("2 grants and ") && !copied.out.contains(" 0 were"), "{copied:?}");
    let again = copy(&proxy, &database, THERE);
    assert!(again.out.contains("; 0 were copied now"), "{again:?}");
    let there = in_database(&proxy, &database);
    for account in files.grants().await.expect("listed") {
        let of = async |store: &Store| store.load(&account).await.expect("read");
        assert_eq!(of(&files).await, of(&there).await);
    }
    assert_eq!(there.entries(Space::Outbox).get("one").await.expect("read"), Some(item));

    // A server goes on with the very token, and without another call to LWA.
    let calls = amazon.state().record.counts().token_calls;
    let setup = Setup { database: Some(database.clone()), ..Setup::default() };
    let mut served = Proxy::with(&amazon, setup);
    assert_eq!(served.get("/v2/profiles").await.status, 200);
    assert_eq!(amazon.state().record.counts().token_calls, calls);
    let audit = served.ask_admin("/api/v1/audit");
    assert!(audit.contains("store.copy"), "{audit}");
    let back = format!("--from postgres --to file:{}", proxy.dir.path().join("back").display());
    let running = copy(&proxy, &database, &back);
    assert!(running.err.contains("run on the source"), "{running:?}");
    // What it has refreshed since goes back.
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(served.get("/v2/profiles").await.status, 200);
    served.signal("TERM");
    served.wait();
    let copied = copy(&proxy, &database, &back);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let of = async |store: &Store| store.load(&"acme".parse().expect("an id")).await.expect("read");
    fs::rename(proxy.dir.path().join("store"), proxy.dir.path().join("old")).expect("moved");
    fs::rename(proxy.dir.path().join("back"), proxy.dir.path().join("store")).expect("moved");
    assert_eq!(of(&open_store(&proxy)).await, of(&there).await);
    let proxy = proxy.restart();
    let calls = amazon.state().record.counts().token_calls;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(amazon.state().record.counts().token_calls, calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_killed_goes_on_with_what_the_source_has_by_then() {
    const GRANTS: usize = 400;
    let Some(database) = database() else { return };
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
    proxy.signal("TERM");
    proxy.wait();
    let files = open_store(&proxy);
    fill(&files, GRANTS).await;
    let mut killed = command(&proxy, &database, THERE).spawn().expect("it starts");
    let there = in_database(&proxy, &database);
    let mut count = 0;
    while count < 20 {
        count = there.grants().await.map_or(0, |grants| grants.len());
    }
    killed.kill().expect("killed");
    killed.wait().expect("ended");
    // The source goes on meanwhile: one grant is removed, and one is another.
    files.remove_grant(&id(0), Expected::Any).await.expect("removed");
    let mut other = files.load(&id(1)).await.expect("read").expect("there");
    (other.epoch, other.refresh_token) = (Epoch::random(), "Atzr|other".into());
    files.put_grant(&other, Expected::Any).await.expect("kept");

    let copied = copy(&proxy, &database, THERE);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert!(copied.out.contains(&format!("{} grants", GRANTS + 1)), "{copied:?}");
    let (ours, theirs) = (files.grants().await.expect("listed"), there.grants().await);
    assert_eq!(ours, theirs.expect("listed"));
    for account in &ours {
        let of = async |store: &Store| store.load(account).await.expect("read");
        assert_eq!(of(&files).await, of(&there).await);
    }
    // It is done: what has changed since is not replaced any more.
    (other.epoch, other.refresh_token) = (Epoch::random(), "Atzr|later".into());
    files.put_grant(&other, Expected::Any).await.expect("kept");
    let refused = copy(&proxy, &database, THERE);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("accounts/copied0001"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_with_other_grants_or_a_running_server_is_refused() {
    let Some(database) = database() else { return };
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
    proxy.signal("TERM");
    proxy.wait();
    let setup = Setup { database: Some(database.clone()), ..Setup::default() };
    let mut there = Proxy::with(&amazon, setup);
    let request = there.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "acme");
    assert_eq!(there.send(request).await.status, 200);
    let running = copy(&proxy, &database, THERE);
    assert!(running.err.contains("1 server(s) run on the target"), "{running:?}");
    there.signal("TERM");
    there.wait();
    let store = in_database(&proxy, &database);
    let of = async || store.grant(&"acme".parse().expect("an id")).await.expect("read");
    let before = of().await;
    let other = copy(&proxy, &database, THERE);
    assert_eq!(other.code, Some(1), "{other:?}");
    assert!(other.err.contains("the target holds accounts/"), "{other:?}");
    assert_eq!(of().await, before);
    for (arguments, why) in [
        ("--from file --to file", "the same store"),
        ("--from file:/nowhere/at/all --to postgres", "is no directory with a store"),
        ("--from postgres://u:CANARY@h/x --to file", "set DATABASE_URL"),
    ] {
        let refused = copy(&proxy, &database, arguments);
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert!(refused.err.contains(why), "{arguments}: {refused:?}");
    }
    let empty = proxy.dir.path().join("empty");
    fs::create_dir(&empty).expect("made");
    let nothing =
        copy(&proxy, &database, &format!("--from file:{} --to postgres", empty.display()));
    assert!(nothing.err.contains("keeps nothing"), "{nothing:?}");
}
