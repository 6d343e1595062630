//! Records that a newer version has written: fields that this one does not know stay in them, and a
//! record of another format is not used.

use crate::support::{
    postgres::{self, Session, database},
    proxy::{Proxy, Setup, amazon, eventually},
};
use adsproxy::{
    sandbox::Emulator,
    testing::{
        Credential, Encryption, EncryptionKey, Expected, Store, StoreConfig, StoreKind,
        UnknownFields,
    },
};
use std::fs;

/// A server whose tokens a 401 replaces at once, and its store.
struct World {
    amazon: Emulator,
    proxy: Proxy,
    store: Store,
}

impl World {
    async fn start(database: Option<(String, String)>) -> Self {
        let amazon = amazon().await;
        let toml = "[token]\nforced_refresh_min_interval_secs = 0\n".to_owned();
        let file_store = database.is_none();
        let setup = Setup { toml, file_store, database: database.clone(), ..Setup::default() };
        let proxy = Proxy::with(&amazon, setup);
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
        let config = match &database {
            Some(database) => postgres::config(database),
            None => StoreConfig {
                kind: StoreKind::File,
                path: proxy.dir.path().join("store"),
                ..Default::default()
            },
        };
        let key = fs::read_to_string(proxy.dir.path().join("key")).expect("the key");
        let keys = vec![EncryptionKey::new("k1", key.as_str().into())];
        let store = Store::open(&config, &Encryption { keys }).expect("it opens");
        Self { amazon, proxy, store }
    }

    /// One with each kind of store that there is here.
    async fn all() -> Vec<Self> {
        let mut all = vec![Self::start(None).await];
        if let Some(database) = database() {
            all.push(Self::start(Some(database)).await);
        }
        all
    }

    async fn record(&self) -> Credential {
        let acme = "acme".parse().expect("an alias");
        self.store.load(&acme).await.expect("it opens").expect("a record")
    }

    async fn ask_with_a_rejected_token(&self) -> u16 {
        self.amazon.state().lwa.expire_access_tokens(Some("acme"));
        self.proxy.get("/v2/profiles").await.status.as_u16()
    }

    fn token_calls(&self) -> u64 {
        self.amazon.state().record.counts().token_calls
    }

    /// Replaces `from` in the record as it is kept.
    fn edit(&self, from: &str, to: &str) {
        let Some((url, schema)) = self.proxy.database() else {
            let path = self.proxy.dir.path().join("store/accounts/acme.json");
            let text = fs::read_to_string(&path).expect("a record");
            assert!(text.contains(from), "{from} is not in {text}");
            return fs::write(path, text.replace(from, to)).expect("written");
        };
        let changed = Session::open(&url).run(
            &schema,
            &format!(
                "UPDATE {{schema}}.entries
                 SET bytes = convert_to(replace(convert_from(bytes, 'UTF8'), '{from}', '{to}'), 'UTF8')
                 WHERE space = 'accounts' AND key = 'acme'
                   AND position('{from}' IN convert_from(bytes, 'UTF8')) > 0 RETURNING key"
            ),
        );
        assert_eq!(changed.len(), 1, "{from}");
    }
}

fn newer() -> UnknownFields {
    let fields = serde_json::json!({ "label": "CANARY of 0.2", "shares": { "a": [1, null] } });
    fields.as_object().expect("an object").clone().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_record_has_a_field_of_a_newer_version_is_refreshed_and_the_field_stays() {
    for world in World::all().await {
        let before = world.record().await;
        assert_eq!(before.unknown, UnknownFields::default());
        let record = Credential { unknown: newer(), ..before.clone() };
        world.store.put_grant(&record, Expected::Any).await.expect("saved");
        for generation in 1..=2 {
            assert_eq!(world.ask_with_a_rejected_token().await, 200);
            let after = world.record().await;
            assert_eq!(after.generation, before.generation + generation);
            assert_eq!(after.unknown, newer());
        }
        let proxy = world.proxy.restart();
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
        assert!(!proxy.log().contains("CANARY"), "{}", proxy.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_format_is_kept_reported_and_not_used() {
    for world in World::all().await {
        let before = world.record().await;
        world.edit("\"format\":1", "\"format\":2");
        let calls = world.token_calls();
        assert_ne!(world.ask_with_a_rejected_token().await, 200);
        assert_eq!(world.token_calls(), calls);
        eventually("it is reported", || {
            world.proxy.log().contains("format version 2 is not known to this version")
        })
        .await;
        let acme = "acme".parse().expect("an alias");
        assert!(world.store.load(&acme).await.is_err());
        world.edit("\"format\":2", "\"format\":1");
        assert_eq!(world.record().await, before, "it was kept as it was");
    }
}
