//! What is left of a token in the memory of the process: nothing we hold, once it is forgotten.

use crate::support::proxy::{Proxy, Setup, amazon, eventually};
use adsproxy::testing::{
    Clock, Credential, Encryption, EncryptionKey, Expected, Region, Secret, Store,
    StoredAccessToken, SystemClock,
};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

/// The buffers of the HTTP and TLS libraries are not ours to wipe, so the token comes from the
/// store and is not sent: what this finds would be a copy that we made.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_account_leaves_no_refresh_token_in_memory() {
    // Only root may read the memory of a process that forbids it.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let amazon = amazon().await;
    let setup = Setup { file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let canary = format!("CANARY-in-memory-{}", "x".repeat(300));
    let access = format!("Atza|of-the-shop-{}", "y".repeat(300));
    let (store, now) = (open_store(&proxy), SystemClock.now().unix());
    let shop = Credential {
        epoch: adsproxy::testing::Epoch::random(),
        account: "shop".parse().expect("an alias"),
        application: "default".to_owned(),
        region: Region::Na,
        refresh_token: Secret::new(format!("Atzr|{canary}")),
        previous_refresh_token: Some(Secret::new(format!("Atzr|{canary}-before"))),
        access_token: Some(StoredAccessToken {
            token: access.as_str().into(),
            issued_at: now,
            expires_at: now + 3600,
        }),
        generation: 1,
        consented_at: None,
        updated_at: now,
        reauthorization_required: false,
        seed: None,
        unknown: Default::default(),
    };
    store.put_grant(&shop, Expected::Any).await.expect("saved");
    let known = || proxy.ask_admin("/status").contains("\"shop\"");
    eventually("it is known", known).await;
    // The refresh token is in the store alone; the access token shows that this test can find one.
    let held = count(&proxy, &access);
    assert!(held > 0, "the access token is held");
    store.remove_grant(&shop.account, Expected::Any).await.expect("removed");
    eventually("it is forgotten", || !known()).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(count(&proxy, &access), 0, "{held} while it was held");
    assert_eq!(count(&proxy, &canary), 0);
}

/// The kernel keeps one copy as long as the process lives. A secret in use has more.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_keeps_no_copy_of_its_environment() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let amazon = amazon().await;
    let canary = format!("CANARY-in-the-environment-{}", "x".repeat(300));
    let env = vec![("AMAZON_REFRESH_TOKEN".to_owned(), canary.clone())];
    let proxy = Proxy::with(&amazon, Setup { env, ..Setup::default() });
    assert_eq!(proxy.get("/a/acme/v2/profiles").await.status, 200);
    assert_eq!(count(&proxy, &canary), 1);
    proxy.signal("HUP");
    eventually("it is read again", || proxy.log().contains("configuration reloaded")).await;
    assert_eq!(count(&proxy, &canary), 1);
}

fn open_store(proxy: &Proxy) -> Store {
    let key = fs::read_to_string(proxy.dir.path().join("key")).expect("the key");
    let keys = vec![EncryptionKey::new("k1", Secret::new(key))];
    let directory = proxy.dir.path().join("store");
    let store = adsproxy::testing::StoreConfig {
        kind: adsproxy::testing::StoreKind::File,
        path: directory.to_owned(),
        ..Default::default()
    };
    Store::open(&store, &Encryption { keys }).expect("opens")
}

/// How often `text` is in the memory of the process.
fn count(proxy: &Proxy, text: &str) -> usize {
    let pid = proxy.pid();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("memory");
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().expect("a range");
        let (start, end) = range.split_once('-').expect("two ends");
        let address = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
        let (start, end) = (address(start), address(end));
        let mut bytes = vec![0; usize::try_from(end - start).expect("it fits")];
        // A range may have gone since.
        let read = memory.read_at(&mut bytes, start).unwrap_or(0);
        let needle = text.as_bytes();
        found += bytes[..read].windows(needle.len()).filter(|window| *window == needle).count();
    }
    found
}
