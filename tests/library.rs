//! The token manager inside another program: events, and background work that a guard stops.

use crate::support::proxy::{amazon, write_private};
use adsproxy::{
    Engine,
    sandbox::{ACCOUNTS, CLIENT_ID, CLIENT_SECRET, Emulator, LwaFault, Times},
    testing::{
        AccountId, Cause, Credential, Event, Expected, Kind,
        load::{self, Options},
    },
};
use std::{
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const SECONDS: Duration = Duration::from_secs(20);

/// A program that has embedded adsproxy, and notes what it is told.
struct Program {
    engine: Engine,
    heard: Arc<Mutex<Vec<Event>>>,
    _directory: TempDir,
}

impl Program {
    async fn start(amazon: &Emulator, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let secret = |name: &str, text: &str| {
            let path = directory.path().join(name);
            write_private(&path, text);
            format!("{{ file = {path:?} }}")
        };
        let path = directory.path().join("proxy.toml");
        let toml = format!(
            "[lwa]\nclient_id = {CLIENT_ID:?}\nclient_secret = {}\n\
             token_url = \"http://{}/auth/o2/token\"\n[store]\nkind = \"memory\"\n\
             [accounts.acme]\nregion = \"na\"\nrefresh_token = {}\n{more}",
            secret("client", CLIENT_SECRET),
            amazon.addr(),
            secret("grant", ACCOUNTS[0].1),
        );
        fs::write(&path, toml).expect("written");
        let options = Options { path: Some(path), ..Options::default() };
        let engine = Engine::embed(load::load(&options).expect("a configuration").config);
        let engine = engine.expect("an engine");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = heard.clone();
        engine.events().subscribe(move |event| notes.lock().unwrap().push(event.clone()));
        engine.enroll().await.expect("a store");
        Self { engine, heard, _directory: directory }
    }

    /// Asks Amazon for a new token, whatever the old one is worth.
    async fn force(&self) {
        self.engine.account(&acme()).await.expect("a store").expect("an account");
        if let Ok(token) = self.engine.tokens().token(&acme()).await {
            let _ = self.engine.tokens().replace(&acme(), &token, Cause::Caller).await;
        }
    }

    fn count(&self, kind: Kind) -> usize {
        self.heard.lock().unwrap().iter().filter(|event| event.kind == kind).count()
    }

    fn first(&self, kind: Kind) -> Event {
        let heard = self.heard.lock().unwrap();
        heard.iter().find(|event| event.kind == kind).expect("such an event").clone()
    }

    async fn until(&self, kind: Kind, count: usize) {
        let started = Instant::now();
        while self.count(kind) < count {
            assert!(started.elapsed() < SECONDS, "{kind:?}: {:?}", self.heard.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn acme() -> AccountId {
    "acme".parse().expect("an alias")
}

const NO_INTERVAL: &str = "[token]\nforced_refresh_min_interval_secs = 0\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_and_its_recovery_are_each_told_once() {
    let amazon = amazon().await;
    let program = Program::start(&amazon, NO_INTERVAL).await;
    let _guard = program.engine.keep_fresh();
    program.engine.token(&acme()).await.expect("a token");
    let refreshed = program.first(Kind::TokenRefreshed);
    assert_eq!((refreshed.account, refreshed.generation), (Some(acme()), Some(1)));
    assert_eq!(refreshed.application.as_deref(), Some("default"));

    amazon.state().lwa.revoke("acme");
    for _ in 0..3 {
        program.force().await;
    }
    let dead = program.first(Kind::ReauthorizationRequired);
    assert_eq!((dead.account, dead.reason), (Some(acme()), Some("invalid_grant")));
    assert_eq!(program.count(Kind::ReauthorizationRequired), 1);
    assert_eq!(program.count(Kind::TokenRefreshFailed), 1, "remembered, not tried again");
    assert_eq!(program.count(Kind::Recovered), 0);

    // A person connects the account again, through another process.
    let refresh_token = amazon.state().lwa.consent_again("acme").expect("a grant");
    let store = program.engine.store();
    let record = store.load(&acme()).await.expect("a store").expect("a record");
    let refresh_token = refresh_token.as_str().into();
    let record = Credential { refresh_token, reauthorization_required: false, ..record };
    store.put_grant(&record, Expected::Any).await.expect("saved");
    let started = Instant::now();
    while program.engine.token(&acme()).await.is_err() {
        assert!(started.elapsed() < SECONDS);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    program.until(Kind::Recovered, 1).await;
    program.force().await;
    assert_eq!(program.count(Kind::Recovered), 1);
    assert_eq!(program.count(Kind::ReauthorizationRequired), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_application_is_told_once_and_a_live_one_never() {
    let amazon = amazon().await;
    let program = Program::start(&amazon, NO_INTERVAL).await;
    program.force().await;
    assert_eq!(program.count(Kind::ApplicationRejected), 0);
    amazon.state().lwa.add_application(CLIENT_ID, &["another secret"]);
    for _ in 0..3 {
        program.force().await;
    }
    let rejected = program.first(Kind::ApplicationRejected);
    assert_eq!(rejected.application.as_deref(), Some("default"));
    assert_eq!(rejected.reason, Some("invalid_client"));
    assert_eq!(program.count(Kind::ApplicationRejected), 1);
    assert_eq!(program.count(Kind::ReauthorizationRequired), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_at_its_first_failure_and_says_why() {
    let amazon = amazon().await;
    let program = Program::start(&amazon, NO_INTERVAL).await;
    amazon.state().lwa.faults.add(LwaFault::Unavailable { retry_after: None }, Times::Forever);
    assert!(program.engine.token(&acme()).await.is_err());
    let failed = program.first(Kind::TokenRefreshFailed);
    assert_eq!((failed.account, failed.reason), (Some(acme()), Some("lwa_unavailable")));
    assert_eq!(failed.generation, None, "there never was a token");
    assert_eq!(program.count(Kind::TokenRefreshed), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_told_to_end_soon_from_day_335_on() {
    let amazon = amazon().await;
    let program = Program::start(&amazon, NO_INTERVAL).await;
    let _guard = program.engine.keep_fresh();
    program.engine.token(&acme()).await.expect("a token");
    let store = program.engine.store();
    let record = store.load(&acme()).await.expect("a store").expect("a record");
    let consented_at = Some(record.updated_at - 340 * 86_400);
    store.put_grant(&Credential { consented_at, ..record }, Expected::Any).await.expect("saved");
    program.until(Kind::Expiring, 1).await;
    let expiring = program.first(Kind::Expiring);
    assert_eq!((expiring.account, expiring.days_left), (Some(acme()), Some(25)));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_guard_stops_the_refresher_but_no_refresh_under_way() {
    let amazon = amazon().await;
    amazon.state().lwa.configure(|lwa| lwa.token_lifetime = Duration::from_secs(3));
    let quick = "[token]\nrefresh_buffer_secs = 1\nbackground_lead_secs = 2\n";
    let program = Program::start(&amazon, quick).await;
    let guard = program.engine.keep_fresh();
    program.engine.token(&acme()).await.expect("a token");
    program.until(Kind::TokenRefreshed, 2).await;

    // One is on its way to the store when the guard goes.
    amazon.state().lwa.gate.hold();
    let started = Instant::now();
    while amazon.state().lwa.gate.waiting() == 0 {
        assert!(started.elapsed() < SECONDS, "no background refresh");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = program.count(Kind::TokenRefreshed);
    drop(guard);
    amazon.state().lwa.gate.release();
    program.until(Kind::TokenRefreshed, before + 1).await;
    let stored = program.engine.store().load(&acme()).await.expect("a store").expect("a record");
    let heard = program.heard.lock().unwrap().last().expect("an event").generation;
    assert_eq!(Some(stored.generation), heard, "what was answered was kept");

    // Two lives later nobody has refreshed; a caller still can.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(program.count(Kind::TokenRefreshed), before + 1);
    program.engine.token(&acme()).await.expect("a token");
    assert_eq!(program.count(Kind::TokenRefreshed), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_nobody_knows_is_an_error_that_names_it() {
    let amazon = amazon().await;
    let program = Program::start(&amazon, "").await;
    let unknown = "nobody".parse().expect("an alias");
    let error = program.engine.token(&unknown).await.expect_err("no account");
    assert!(error.to_string().contains("nobody"), "{error}");
    assert_eq!(amazon.state().record.counts().token_calls, 0);
}
