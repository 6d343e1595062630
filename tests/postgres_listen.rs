//! Servers that notify each other through PostgreSQL (`store.listen_url`): faster with it, correct
//! without.

use crate::support::{
    commands::Commands,
    pooler::Pooler,
    postgres::{Cluster, Session, backend, config, database},
    program::said,
    proxy::{Proxy, Setup, amazon, eventually},
};
use adsproxy::{
    sandbox::Emulator,
    testing::{
        Credential, Epoch, Expected, KeyRing, Region, Store,
        backend::{Backend, Postgres},
    },
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LISTENS: &str = "the database notifies this server of changes";
const NOTHING_ARRIVES: &str = "no notification arrives over store.listen_url";

fn setup(url: &str, schema: &str, listen_url: &str) -> Setup {
    let env = vec![("ADSPROXY_STORE__LISTEN_URL".to_owned(), listen_url.to_owned())];
    let toml = "[proxy]\nworkers = 1\n[token]\nforced_refresh_min_interval_secs = 0\n".to_owned();
    Setup { toml, env, database: Some((url.to_owned(), schema.to_owned())), ..Setup::default() }
}

async fn status(proxy: &Proxy) -> u16 {
    proxy.get("/v2/profiles").await.status.as_u16()
}

/// Amazon rejects the token that there is, so that the next request refreshes.
async fn refreshes(amazon: &Emulator, proxy: &Proxy) -> u16 {
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    status(proxy).await
}

/// What the doctor says beside `proxy`.
fn doctor(proxy: &Proxy, listen_url: &str) -> String {
    let mut command = Commands::of(proxy).command("doctor --offline");
    said(command.env("ADSPROXY_STORE__LISTEN_URL", listen_url)).out
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loser_of_a_lease_has_the_result_before_its_next_poll() {
    let Some(database) = database() else { return };
    let open = |listen_url: Option<&str>| {
        let mut config = config(&database);
        config.listen_url = listen_url.map(Into::into);
        let backend = Postgres::open(&config).expect("judged");
        Store::new(Box::new(backend), KeyRing::ephemeral().expect("a key")).expect("a store")
    };
    let url = Some(&*database.0);
    backend(&database).prepare().expect("tables are made");
    let (winner, listening, polling) = (open(url), open(url), open(None));
    let acme = "acme".parse().expect("an alias");
    winner.put_grant(&grant(), Expected::Any).await.expect("kept");
    let mut medians = Vec::new();
    for loser in [&polling, &listening] {
        let _hints = loser.hints();
        // The connection is made, and the pauses of the polls have grown.
        sleep(Duration::from_secs(1)).await;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let minute = Duration::from_secs(60);
            let lease = winner.lease_grant(&acme, minute, minute).await.expect("leased");
            let (waiter, id) = (loser.clone(), acme.clone());
            let waits_for_it = tokio::spawn(async move {
                let claimed = waiter.claim_grant(&id, minute, minute).await.expect("leased");
                (Instant::now(), claimed)
            });
            sleep(Duration::from_millis(700)).await;
            drop(lease);
            let released = Instant::now();
            let (got, claimed) = waits_for_it.await.expect("no panic");
            waits.push(got - released);
            drop(claimed);
            sleep(Duration::from_millis(50)).await;
        }
        waits.sort_unstable();
        medians.push(waits[3]);
    }
    eprintln!("polling {:?}, listening {:?}", medians[0], medians[1]);
    assert!(medians[1] * 2 < medians[0], "{medians:?}");
}

fn grant() -> Credential {
    Credential {
        account: "acme".parse().expect("an alias"),
        epoch: Epoch::random(),
        application: "default".to_owned(),
        region: Region::Na,
        refresh_token: "Atzr|x".into(),
        previous_refresh_token: None,
        access_token: None,
        generation: 1,
        consented_at: None,
        updated_at: 0,
        reauthorization_required: false,
        seed: None,
        unknown: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_cut_off_is_missed_by_no_request_and_comes_back() {
    let Some((url, schema)) = database() else { return };
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, setup(&url, &schema, &url));
    let listens = |times: usize| proxy.log().matches(LISTENS).count() == times;
    eventually("it listens", || listens(1)).await;
    let by_hand = Session::open(&url);
    for times in 2..4 {
        let cut = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE query = 'LISTEN \"{schema}\"'"
        );
        assert_eq!(by_hand.run("", &cut), [["t"]]);
        assert_eq!(refreshes(&amazon, &proxy).await, 200);
        eventually("it listens again", || listens(times)).await;
        assert_eq!(refreshes(&amazon, &proxy).await, 200);
    }
    let log = proxy.log();
    assert!(!log.contains("\"ERROR\""), "{log}");
    assert_eq!(log.matches("changes are polled for").count(), 1, "once for one reason: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_hears_of_the_token_of_another_through_a_pooler_and_a_direct_connection() {
    let Some(cluster) = Cluster::start() else { return };
    let Some(pooler) = Pooler::start(&cluster) else { return };
    let amazon = amazon().await;
    let one = Proxy::with(&amazon, setup(&pooler.url(), "adsproxy", &cluster.url()));
    let two = Proxy::twin(&one);
    for proxy in [&one, &two] {
        eventually("it listens", || proxy.log().contains(LISTENS)).await;
        assert_eq!(status(proxy).await, 200);
    }
    let calls = || amazon.state().record.counts().token_calls;
    for _ in 0..3 {
        let before = calls();
        assert_eq!(refreshes(&amazon, &one).await, 200);
        assert_eq!(status(&two).await, 200);
        assert_eq!(calls(), before + 1, "the second server uses the token of the first");
    }
    assert!(!one.log().contains(NOTHING_ARRIVES), "{}", one.log());
    let said = doctor(&one, &cluster.url());
    assert!(said.contains("notifications arrive over store.listen_url"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listen_url_that_leads_to_a_pooler_is_reported_and_does_no_harm() {
    let Some(cluster) = Cluster::start() else { return };
    let Some(pooler) = Pooler::start(&cluster) else { return };
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, setup(&pooler.url(), "adsproxy", &pooler.url()));
    assert_eq!(status(&proxy).await, 200);
    eventually("it is reported", || proxy.log().contains(NOTHING_ARRIVES)).await;
    assert_eq!(refreshes(&amazon, &proxy).await, 200);
    let said = doctor(&proxy, &pooler.url());
    assert!(said.contains(NOTHING_ARRIVES), "{said}");
}
