//! Fuzz targets of what lies in the store: envelopes, grants, sealed texts, headers and names of files.

use super::{
    Space,
    credential::Credential,
    record::{Envelope, to_json},
    seal::{Key, SealContext},
};
use crate::{
    fuzz::{Target, assert_hides, text},
    id::AccountId,
};
use std::sync::LazyLock;

pub const TARGETS: &[Target] = &[
    Target { name: "stored_envelope", run: envelope, seeds: ENVELOPES },
    Target { name: "stored_grant", run: grant, seeds: GRANTS },
    Target {
        name: "sealed_text",
        run: sealed_text,
        seeds: &["plain", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
    },
    Target {
        name: "store_file",
        run: super::backend::fuzz::file,
        seeds: &[
            "{\"version\":7,\"expires_at_ms\":9}\nbytes",
            "tenant~acme.eu-1_x",
            "%2E.%2F\u{e9}",
        ],
    },
    #[cfg(feature = "postgres")]
    Target { name: "postgres_url", run: super::backend::fuzz::url, seeds: URLS },
];

const ENVELOPES: &[&str] = &[
    r#"{"format":1,"store":"s1","account":"acme","key_id":"k1","sealed":"AAAA"}"#,
    r#"{"format":1,"store":"s1","key_id":"p","kdf":{"memory_kib":65536,"passes":3,"lanes":4,"salt":"AAAAAAAAAAAAAAAAAAAAAA==","check":"x"},"sealed":""}"#,
    r#"{"format":2,"more":[]}"#,
];

/// What is read is written as the same.
fn envelope(input: &[u8]) {
    let Ok(read) = Envelope::parse(input) else { return };
    let text = to_json(&read);
    let again = Envelope::parse(&text).expect("it was written");
    assert_eq!(*to_json(&again), *text);
    assert!(text.ends_with(b"}\n") && !text[..text.len() - 1].contains(&b'\n'));
    if let Some(account) = &again.account {
        // It names a row or a file only where it is an id.
        let _ = account.parse::<AccountId>();
    }
}

const GRANTS: &[&str] = &[
    "{\"epoch\":7,\"application\":\"default\",\"region\":\"na\",\"refresh_token\":\"Atzr|CANARY\",\
     \"previous_refresh_token\":null,\"access_token\":{\"token\":\"Atza|CANARY\",\"issued_at\":1,\
     \"expires_at\":2},\"generation\":3,\"consented_at\":4,\"updated_at\":5,\
     \"reauthorization_required\":false,\"seed\":null,\"label\":\"CANARY\",\"n\":[0.5,{\"a\":1e300}]}",
];

/// A grant that is read is written as the same one, with what this version does not know, and shown
/// without its tokens.
fn grant(input: &[u8]) {
    let Ok(read) = serde_json::from_slice::<Credential>(input) else { return };
    let text = to_json(&read);
    let again: Credential = serde_json::from_slice(&text).expect("it was written");
    assert!(again == read, "another grant is read than was written");
    assert_eq!(*to_json(&again), *text);
    let shown = format!("{read:?}");
    if !read.application.contains("CANARY")
        && !read.seed.as_ref().is_some_and(|it| it.contains("CANARY"))
    {
        assert_hides(&shown);
    }
}

static KEY: LazyLock<Key> = LazyLock::new(|| Key::derive("k1".to_owned(), &[7; 32], None));

/// No text opens that was not sealed; one that was opens in its place only.
fn sealed_text(input: &[u8]) {
    let home = SealContext { store: "s1", space: Space::Accounts, key: "acme", field: "grant" };
    if let Some(text) = text(input) {
        assert!(KEY.open(home, text).is_err(), "a forged text opens");
    }
    let sealed = KEY.seal(home, input).expect("it is short");
    assert_eq!(*KEY.open(home, &sealed).expect("it was sealed here"), *input);
    assert!(KEY.open(SealContext { key: "other", ..home }, &sealed).is_err());
}

#[cfg(feature = "postgres")]
const URLS: &[&str] = &[
    "postgres://u:CANARY@db.example/d?sslmode=verify-full&sslrootcert=%2Fa%20b&connect_timeout=3",
    "host=localhost user=u password=CANARY sslmode=disable",
    "postgresql://u@/d?host=/var/run&sslmode=prefer",
    "postgres://u:CANARY@[::1]:5432,b/d?sslmode=require",
];
