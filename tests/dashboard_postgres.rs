//! The dashboard over a database that other servers share: how refreshes went, and the live audit log.

use crate::support::{
    callers::OPERATOR,
    dashboard::{PageEvents, Visitor},
    postgres::{Cluster, Session, database},
    proxy::{Proxy, Setup, amazon, eventually},
};
use adsproxy::sandbox::Emulator;
use std::fs;

/// How often a page may be loaded again until it has read the whole log.
const READ_ON_MAX: usize = 20;

async fn server(database: &(String, String)) -> (Emulator, Proxy, Visitor) {
    let amazon = amazon().await;
    let setup = Setup { database: Some(database.clone()), ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    (amazon, proxy, visitor)
}

/// Lines as another server would write them at this moment, but for their MAC, which `audit verify` alone
/// looks at; `about` is an expression over their number.
fn add_lines(database: &(String, String), chain: &str, count: usize, about: &str) {
    let mac = "A".repeat(43);
    let statement = format!(
        r#"INSERT INTO {{schema}}.audit (chain, number, line) SELECT '{chain}', n,
           '{{"v":1,"seq":' || n || ',"time":"'
           || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
           || '","actor":"server","action":"token.refresh","account":"acme","outcome":"ok","about":"'
           || ({about}) || '","key":"k1","mac":"{mac}"}}' FROM generate_series(1, {count}) AS n"#
    );
    Session::open(&database.0).run(&database.1, &statement);
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_of_all_servers_on_a_database_are_plotted_however_many_were_added_since_the_last_look()
 {
    let Some(database) = database() else { return };
    let (_amazon, _proxy, visitor) = server(&database).await;
    let count = async || {
        let mut page = visitor.page("/dashboard/accounts/acme").await;
        // A page reads for a limited time, in which a busy machine does not read everything.
        for _ in 0..READ_ON_MAX {
            if !page.contains("Load this page again") {
                break;
            }
            page = visitor.page("/dashboard/accounts/acme").await;
        }
        assert!(!page.contains("Load this page again"), "{page}");
        let text = page.split_once("<desc id=\"plot-text\">").map_or("0 ", |(_, text)| text);
        text.split(' ').next().expect("a word").parse::<usize>().expect("a number")
    };
    add_lines(&database, "other", 5000, "'x'");
    let before = count().await;
    assert!(before >= 5000, "{before}");
    add_lines(&database, "third", 7000, "'x'");
    let after = count().await;
    assert!(after >= before + 7000, "{after} after {before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_of_a_database_is_followed_however_much_other_servers_add_at_once() {
    let Some(database) = database() else { return };
    let (_amazon, _proxy, visitor) = server(&database).await;
    let mut log = PageEvents::of(&visitor, "/dashboard/audit");
    log.until("[\"entries\",");
    add_lines(
        &database,
        "other",
        5000,
        "CASE WHEN n < 4500 THEN 'early' WHEN n < 5000 THEN 'late' ELSE 'the-newest' END",
    );
    let added = log.until("the-newest");
    assert!(!added.contains("early"), "old entries came first: {added}");
    add_lines(&database, "third", 1, "'one-more'");
    log.until("one-more");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_browsers_asks_the_database_for_all_of_them_at_once() {
    let Some(cluster) = Cluster::start() else { return };
    let (_amazon, proxy, visitor) = server(&(cluster.url(), "adsproxy".to_owned())).await;
    for _ in 0..20 {
        Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    }
    let by_hand = Session::open(&cluster.url());
    by_hand.run("", "ALTER SYSTEM SET log_statement = 'all'");
    by_hand.run("", "SELECT pg_reload_conf()");
    let statements = || {
        let log = fs::read_to_string(cluster.directory.join("log")).expect("a log");
        log.matches("$1 = 'browsers'").count()
    };
    let stream = PageEvents::of(&visitor, "/dashboard");
    eventually("statements are logged", || statements() > 0).await;
    drop(stream);
    let before = statements();
    let page = visitor.page("/dashboard/callers").await;
    assert!(page.matches("/dashboard/browsers/").count() > 20, "{page}");
    let asked = statements() - before;
    assert!((1..10).contains(&asked), "{asked} statements");
}
