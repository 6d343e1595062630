//! A request that waits in vain for another server's refresh is told so.

use crate::support::{
    postgres::{Session, config, database},
    proxy::{Answer, Proxy, Setup, amazon},
};
use adsproxy::testing::{
    Credential, Encryption, EncryptionKey, Expected, Lease, Store, backend::Error,
};
use http::StatusCode;
use std::{
    fs,
    time::{Duration, Instant},
};

/// The lease of another server, which has the account's only way to a token.
async fn leased(store: &Store) -> Result<Lease, Error> {
    let acme = "acme".parse().expect("an alias");
    store.lease_grant(&acme, Duration::from_secs(120), Duration::ZERO).await
}

#[track_caller]
fn is_told(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert_eq!(answer.error(), Some("token_unavailable"));
    let after = answer.headers["retry-after"].to_str().expect("ASCII").parse::<u64>();
    assert!((1..=60).contains(&after.expect("whole seconds")), "{:?}", answer.headers);
    let detail = answer.json()["detail"].as_str().expect("text").to_owned();
    assert!(detail.contains("another server is refreshing it. Try again in a moment."), "{detail}");
    assert!(!detail.contains("cannot be reached"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_another_server_holds_past_the_wait_is_a_503_that_says_so() {
    let Some(database) = database() else { return };
    let amazon = amazon().await;
    let setup = Setup { database: Some(database.clone()), ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let mut proxy = proxy;
    proxy.signal("TERM");
    proxy.wait();

    let key = fs::read_to_string(proxy.dir.path().join("key")).expect("the key");
    let keys = vec![EncryptionKey::new("k1", key.as_str().into())];
    let store = Store::open(&config(&database), &Encryption { keys }).expect("it opens");
    let acme = "acme".parse().expect("an alias");
    let record = store.load(&acme).await.expect("it opens").expect("a record");
    let record = Credential { access_token: None, ..record };
    store.put_grant(&record, Expected::Any).await.expect("saved");
    let lease = leased(&store).await.expect("free");

    let proxy = proxy.restart();
    is_told(&proxy.get("/v2/profiles").await);
    let calls = amazon.state().record.counts().token_calls;
    // It is remembered for a moment: the next one does not wait as long.
    is_told(&proxy.get("/v2/profiles").await);
    assert!(matches!(leased(&store).await, Err(Error::Held { .. })), "it was held all the time");
    let globex = proxy.request(http::Method::GET, "/v2/profiles").header("X-Ads-Account", "globex");
    assert_eq!(proxy.send(globex).await.status, 200, "another account does not wait");
    let fetched = || amazon.state().record.counts().token_calls - calls;
    assert_eq!(fetched(), 1, "the other account's token, and no other");

    drop(lease);
    let began = Instant::now();
    while proxy.get("/v2/profiles").await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(fetched(), 2);
}

/// A statement sees the owners as they were when it began, and a row as it is when it is locked.
#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_a_server_that_started_a_moment_ago_is_not_taken_from_it() {
    let Some(database) = database() else { return };
    let amazon = amazon().await;
    let setup = Setup { database: Some(database.clone()), ..Setup::default() };
    let mut proxy = Proxy::with(&amazon, setup);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    proxy.signal("TERM");
    proxy.wait();
    let key = fs::read_to_string(proxy.dir.path().join("key")).expect("the key");
    let open = || {
        let keys = vec![EncryptionKey::new("k1", key.as_str().into())];
        Store::open(&config(&database), &Encryption { keys }).expect("it opens")
    };
    let (old, new) = (open(), open());
    let globex = "globex".parse().expect("an alias");
    let minute = Duration::from_secs(60);
    let _its_first = old.lease_grant(&globex, minute, Duration::ZERO).await.expect("free");
    // The first read of a row takes its time.
    Session::open(&database.0).run(
        &database.1,
        "ALTER TABLE {schema}.entries RENAME TO kept;
         CREATE SEQUENCE {schema}.reads;
         CREATE FUNCTION {schema}.slow() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
           IF nextval('{schema}.reads') = 1 THEN PERFORM pg_sleep(3); END IF;
           RETURN true; END $$;
         CREATE VIEW {schema}.entries AS SELECT * FROM {schema}.kept WHERE {schema}.slow()",
    );
    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        leased(&new).await
    };
    let (slow, new) = tokio::join!(leased(&old), later);
    assert!(new.is_ok(), "{new:?}");
    assert!(matches!(slow, Err(Error::Held { .. })), "{slow:?}");
}
