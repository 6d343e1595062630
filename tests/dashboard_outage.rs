//! The dashboard while its store is away, or takes no writes: who is signed in sees what works and what does
//! not, and changes nothing.

use crate::support::{
    callers::OPERATOR,
    dashboard::{PageEvents, Visitor, send, with_clock},
    login::{Reply, free_address},
    postgres::{Cluster, Session, database},
    proxy::{Proxy, Setup, amazon, write_private},
};
use http::Method;
use std::{
    fs,
    time::{Duration, Instant},
};

const HEALTH: &str = "/dashboard/health";

fn setup(cluster: &Cluster) -> Setup {
    let database = Some((cluster.url(), "adsproxy".to_owned()));
    // The name of the cookie has the port.
    Setup { database, admin: Some(free_address()), ..Setup::default() }
}

/// A page that says that the store is away, and says so soon.
async fn refused(visitor: &Visitor, path: &str) {
    let began = Instant::now();
    let reply = visitor.get(path).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(reply.status, 503, "{path}: {}", reply.text);
    assert!(reply.text.contains("The store cannot be reached"), "{path}: {}", reply.text);
}

async fn post(visitor: &Visitor, path: &str, csrf: &str) -> Reply {
    let cookie = [("cookie", visitor.cookie.as_str())];
    send(visitor.admin, Method::POST, path, &cookie, &[("csrf", csrf)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_signed_in_a_moment_before_an_outage_sees_health_and_changes_nothing() {
    let Some(mut cluster) = Cluster::start() else { return };
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, setup(&cluster));
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let ended = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let csrf = visitor.csrf().await;
    assert_eq!(ended.post("/dashboard/sign-out", &[]).await.status, 303);
    let name = visitor.cookie.split_once('.').expect("a name").0;
    let forged = Visitor { cookie: format!("{name}.{}", "A".repeat(43)), ..visitor.clone() };
    cluster.stop();
    let began = Instant::now();
    let page = visitor.page(HEALTH).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(page.contains("not known: the store cannot be reached"), "{page}");
    PageEvents::of(&visitor, HEALTH).until("[\"health\",");
    for path in ["/dashboard/accounts/acme/refresh", "/dashboard/audit/verify"] {
        assert_eq!(post(&visitor, path, &csrf).await.status, 503, "{path}");
    }
    refused(&ended, HEALTH).await;
    refused(&forged, HEALTH).await;
    assert_eq!(post(&visitor, "/dashboard/sign-out", &csrf).await.status, 503);
    refused(&visitor, HEALTH).await;
    cluster.run();
    let began = Instant::now();
    while visitor.get(HEALTH).await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!ended.is_signed_in().await && !forged.is_signed_in().await);
    assert_eq!(post(&visitor, "/dashboard/accounts/acme/refresh", &csrf).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_not_seen_a_session_before_the_outage_does_not_accept_it() {
    let Some(mut cluster) = Cluster::start() else { return };
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, setup(&cluster));
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    assert!(visitor.is_signed_in().await);
    let _proxy = proxy.restart();
    cluster.stop();
    refused(&visitor, HEALTH).await;
    refused(&visitor, "/dashboard").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_keeps_health_waiting_for_a_moment_only() {
    let Some(database) = database() else { return };
    let amazon = amazon().await;
    let setup = Setup { database: Some(database.clone()), ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    assert!(visitor.is_signed_in().await);
    let lock = Session::open(&database.0);
    lock.run(&database.1, "BEGIN; LOCK TABLE {schema}.entries IN ACCESS EXCLUSIVE MODE");
    let began = Instant::now();
    let page = visitor.page(HEALTH).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(page.contains("not known: the store cannot be reached"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_accepted_for_a_minute_of_an_outage_and_not_beyond_its_end() {
    let Some(mut cluster) = Cluster::start() else { return };
    let (amazon, directory) = (amazon().await, tempfile::tempdir().expect("a directory"));
    let url = directory.path().join("url");
    write_private(&url, &cluster.url());
    let store = format!("kind = \"postgres\"\nurl = {{ file = {url:?} }}");
    let (app, clock) = with_clock(&amazon, directory.path(), &store);
    let admin = app.admin_address().expect("an address");
    let idle = Visitor::with_key(admin, &OPERATOR.key).await;
    clock.advance(Duration::from_secs(29 * 60 + 50));
    let visitor = Visitor::with_key(admin, &OPERATOR.key).await;
    assert!(visitor.is_signed_in().await);
    // It keeps the session from being used, but not from being seen.
    let live = [("cookie", idle.cookie.as_str()), ("x-ads-dashboard", "live")];
    let get_idle = async || send(admin, Method::GET, HEALTH, &live, &[]).await.status.as_u16();
    assert_eq!(get_idle().await, 200);
    cluster.stop();
    assert_eq!(get_idle().await, 200);
    clock.advance(Duration::from_secs(15));
    assert_ne!(get_idle().await, 200, "it has ended meanwhile");
    visitor.page(HEALTH).await;
    clock.advance(Duration::from_secs(40));
    visitor.page(HEALTH).await;
    clock.advance(Duration::from_secs(10));
    refused(&visitor, HEALTH).await;
    cluster.run();
    assert!(tokio::task::block_in_place(|| app.drain()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_writes_keeps_nobody_out_who_is_signed_in() {
    let (amazon, directory) = (amazon().await, tempfile::tempdir().expect("a directory"));
    let path = directory.path().join("store");
    let store = format!("kind = \"file\"\npath = {path:?}");
    let (app, clock) = with_clock(&amazon, directory.path(), &store);
    let visitor = Visitor::with_key(app.admin_address().expect("an address"), &OPERATOR.key).await;
    let browsers = path.join("browsers");
    let file = fs::read_dir(&browsers).expect("a directory").next().expect("a file").expect("read");
    let before = fs::read(file.path()).expect("a session");
    let name = file.file_name().into_string().expect("text");
    // Where the new session would be written first: root, too, cannot open a directory to write.
    let next = browsers.join(format!(".{}.tmp", name.trim_end_matches(".json")));
    fs::create_dir(&next).expect("made");
    clock.advance(Duration::from_secs(20 * 60));
    visitor.page(HEALTH).await;
    assert!(fs::read(file.path()).expect("a session") == before, "nothing was written");
    clock.advance(Duration::from_secs(11 * 60));
    assert_eq!(visitor.get(HEALTH).await.status, 303, "its use was not noted, so it has ended");
    assert!(tokio::task::block_in_place(|| app.drain()));
}
