//! The store of a running proxy, opened and changed as another process does.

use crate::support::proxy::Proxy;
use adsproxy::testing::{
    Credential, Encryption, EncryptionKey, Epoch, Expected, Secret, Store, StoreConfig, StoreKind,
};
use std::fs;

pub fn open_store(proxy: &Proxy) -> Store {
    let key = fs::read_to_string(proxy.dir.path().join("key")).expect("the key");
    let key = EncryptionKey::new("k1", Secret::new(key));
    let config = StoreConfig {
        kind: StoreKind::File,
        path: proxy.dir.path().join("store"),
        ..Default::default()
    };
    Store::open(&config, &Encryption { keys: vec![key] }).expect("it opens")
}

/// Writes a new consent of `acme`: what `change` makes of the one there is.
pub async fn connect_anew(proxy: &Proxy, change: impl FnOnce(&mut Credential)) {
    let (store, acme) = (open_store(proxy), "acme".parse().expect("an alias"));
    let mut record = store.load(&acme).await.expect("it reads").expect("a record");
    change(&mut record);
    (record.epoch, record.access_token) = (Epoch::random(), None);
    store.put_grant(&record, Expected::Any).await.expect("saved");
}
