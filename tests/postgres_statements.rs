//! What refreshes cost the database: few statements each, however many servers there are.

use crate::support::{
    postgres::{Cluster, Session},
    proxy::{Proxy, Setup, amazon, write_private},
};
use adsproxy::sandbox::{CLIENT_ID, Country, Emulator, Profile};
use http::Method;
use std::{collections::BTreeMap, fmt::Write as _, fs, time::Duration};
use tempfile::TempDir;
use tokio::time::sleep;

const ACCOUNTS: u64 = 50;
/// Each token is refreshed once within twelve seconds, spread as its jitter has it.
const LIFETIME: Duration = Duration::from_secs(66);
const LEAD: &str = "[token]\nbackground_lead_secs = 60\nrefresh_buffer_secs = 1\n";
const WATCHED: Duration = Duration::from_secs(14);
/// Its statements, and those of servers that have nothing to do with it, but for the audit log.
const OF_REFRESH: f64 = 2.0;

/// Adds accounts to Amazon; returns their configuration.
fn accounts(amazon: &Emulator, seeds: &TempDir) -> String {
    let mut toml = format!("[proxy]\nworkers = 1\n{LEAD}");
    for number in 0..ACCOUNTS {
        let alias = format!("many{number:02}");
        let id = 1_000_000_000 + i64::try_from(number).expect("few");
        let refresh = format!("Atzr|refresh-token-of-{alias}");
        let profile = Profile::seller(id, Country::Us, &alias);
        amazon.state().lwa.add_grant(&alias, CLIENT_ID, &refresh, vec![profile]);
        let seed = seeds.path().join(&alias);
        write_private(&seed, &refresh);
        writeln!(toml, "[accounts.{alias}]\nregion = \"na\"").expect("memory");
        writeln!(toml, "refresh_token = {{ file = {seed:?} }}").expect("memory");
    }
    toml
}

/// What the first line of a statement says that it does.
fn kind(statement: &str) -> Option<&'static str> {
    let kinds = [
        ("WITH free AS", "lease"),
        ("SELECT oldest.at", "look"),
        ("WITH gone AS", "sign of life"),
        ("SELECT pg_notify", "proof"),
        ("SELECT bytes", "read"),
        ("INSERT INTO \"many\".audit", "audit line"),
        ("INSERT INTO \"many\".entries", "new entry or audit checkpoint"),
        ("UPDATE", "write or release"),
        ("DELETE FROM", "delete"),
        ("SELECT key", "list"),
    ];
    let found = kinds.iter().find(|(begin, _)| statement.trim_start().starts_with(begin));
    found.map(|(_, kind)| *kind)
}

/// Refreshes and statements by kind while so many servers run.
async fn watch(replicas: usize) -> Option<(u64, BTreeMap<&'static str, u64>)> {
    let cluster = Cluster::start()?;
    let amazon = amazon().await;
    amazon.state().lwa.configure(|settings| settings.token_lifetime = LIFETIME);
    let seeds = tempfile::tempdir().expect("a directory");
    let env = vec![("ADSPROXY_STORE__LISTEN_URL".to_owned(), cluster.url())];
    let database = Some((cluster.url(), "many".to_owned()));
    let toml = accounts(&amazon, &seeds);
    let first = Proxy::with(&amazon, Setup { toml, env, database, ..Setup::default() });
    let others: Vec<_> = (1..replicas).map(|_| Proxy::twin(&first)).collect();
    for number in 0..ACCOUNTS {
        let request = first.request(Method::GET, "/v2/profiles");
        let request = request.header("X-Ads-Account", format!("many{number:02}"));
        assert_eq!(first.send(request).await.status, 200);
    }
    // All servers know the tokens.
    sleep(Duration::from_secs(3)).await;
    let by_hand = Session::open(&cluster.url());
    let log_all = |what: &str| {
        by_hand.run("", &format!("ALTER SYSTEM SET log_statement = {what}"));
        by_hand.run("", "SELECT pg_reload_conf()");
    };
    let calls = || amazon.state().record.counts().token_calls;
    log_all("'all'");
    let before = calls();
    sleep(WATCHED).await;
    let refreshes = calls() - before;
    log_all("DEFAULT");
    let log = fs::read_to_string(cluster.directory.join("log")).expect("a log");
    let mut statements = BTreeMap::new();
    for (_, statement) in log.lines().filter_map(|line| line.split_once("execute <unnamed>: ")) {
        *statements.entry(kind(statement).unwrap_or("other")).or_insert(0) += 1;
    }
    drop(others);
    Some((refreshes, statements))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_refresh_costs_two_statements_at_most_whatever_the_number_of_servers() {
    let mut each = Vec::new();
    for replicas in [1, 3] {
        let Some((refreshes, mut statements)) = watch(replicas).await else { return };
        println!("{replicas} servers, {refreshes} refreshes: {statements:?}");
        assert!(refreshes >= ACCOUNTS / 2, "{refreshes}");
        // What each server asks all the time, whatever the number of accounts.
        let mut of_servers = 0;
        for kind in ["look", "sign of life", "proof"] {
            of_servers += statements.remove(kind).unwrap_or(0);
        }
        // Entries of the audit log are written together, as they come.
        for kind in ["audit line", "new entry or audit checkpoint"] {
            assert!(statements.remove(kind) <= Some(refreshes));
        }
        assert!(of_servers <= replicas as u64 * 12 * WATCHED.as_secs(), "{of_servers}");
        each.push(statements.values().sum::<u64>() as f64 / refreshes as f64);
    }
    println!("statements for a refresh, of one server and of three: {each:.2?}");
    assert!(each.iter().all(|each| *each <= OF_REFRESH), "{each:.2?}");
}
