//! Old entries of the audit log in a database are removed as `audit.table_keep_days` says; whatever else
//! is removed is found.

use crate::support::{
    commands::Commands,
    postgres::{Session, config, database},
    proxy::{Proxy, Setup, amazon, eventually},
};
use adsproxy::testing::{
    Action, Actor, Audit, AuditConfig, Clock, Encryption, EncryptionKey, Entry, ManualClock, Store,
    SystemClock,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{collections::BTreeSet, sync::Arc, thread, time::Duration};
use tokio::runtime::Handle;

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
/// Entries are kept for so long.
const KEEP: Duration = Duration::from_secs(30 * 86_400);

struct Log {
    database: (String, String),
    store: Store,
    by_hand: Session,
}

impl Log {
    /// An empty one with the key of every test's server; none if the test is to be left out.
    fn new() -> Option<Self> {
        let database = database()?;
        let by_hand = Session::open(&database.0);
        let keys = vec![EncryptionKey::new("k1", STANDARD.encode([7; 32]).as_str().into())];
        let store = Store::open(&config(&database), &Encryption { keys }).expect("it opens");
        Some(Self { database, store, by_hand })
    }

    /// The log as a process uses it that keeps entries for `keep`.
    fn audit(&self, keep: Duration, clock: Arc<dyn Clock>) -> Audit {
        let config = AuditConfig { keep_rows: keep, ..AuditConfig::default() };
        Audit::of_store(&self.store, &config, clock)
    }

    /// A process that writes, and its clock, which stands `ago`.
    fn writer(&self, ago: Duration) -> (Audit, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        clock.set_wall(SystemClock.now().wall - ago);
        (self.audit(Duration::ZERO, clock.clone()), clock)
    }

    /// Removes what is older than [`KEEP`]; says how many entries.
    fn prune(&self) -> u64 {
        self.audit(KEEP, Arc::new(SystemClock)).prune().expect("removed")
    }

    /// The kinds of what is wrong with the log.
    fn findings(&self) -> BTreeSet<&'static str> {
        let report = self.audit(KEEP, Arc::new(SystemClock)).verify().expect("read");
        report.findings.iter().map(|finding| finding.kind).collect()
    }

    fn sql(&self, statements: &str) -> Vec<Vec<String>> {
        self.by_hand.run(&self.database.1, statements)
    }

    fn rows(&self) -> usize {
        self.sql("SELECT count(*) FROM {schema}.audit")[0][0].parse().expect("a number")
    }
}

fn write(audit: &Audit, count: usize) {
    for _ in 0..count {
        audit.record(&Entry::new(Actor::Server, Action::ConfigReload)).expect("written");
    }
}

/// Ten entries that are too old, behind the one that begins the chain, and five that are not.
fn old_and_young(log: &Log) -> (Audit, Arc<ManualClock>) {
    let (writer, clock) = log.writer(KEEP + 10 * HOUR);
    write(&writer, 10);
    clock.advance(20 * HOUR);
    write(&writer, 5);
    (writer, clock)
}

#[test]
fn old_entries_go_once_and_the_chain_goes_on_and_verifies() {
    let Some(log) = Log::new() else { return };
    let (writer, _) = old_and_young(&log);
    assert_eq!(log.findings(), BTreeSet::new());
    assert_eq!(log.prune(), 11);
    // Beside what is left, the beginning of the chain that says so, and the entry itself.
    assert_eq!(log.rows(), 5 + 2);
    let said = log.sql("SELECT line FROM {schema}.audit WHERE line LIKE '%audit.expire%'");
    assert!(said.len() == 1 && said[0][0].contains("\"count\":11"), "{said:?}");
    assert_eq!(log.findings(), BTreeSet::new());
    assert_eq!(log.prune(), 0, "nothing more is old");
    write(&writer, 3);
    assert_eq!(log.findings(), BTreeSet::new());
    assert_eq!(log.rows(), 5 + 2 + 3);
}

#[test]
fn nothing_is_removed_where_nothing_is_old_or_nothing_was_configured() {
    let Some(log) = Log::new() else { return };
    let (writer, _) = log.writer(KEEP - HOUR);
    write(&writer, 5);
    assert_eq!(log.prune(), 0);
    let (older, _) = log.writer(2 * KEEP);
    write(&older, 5);
    let kept = log.audit(Duration::ZERO, Arc::new(SystemClock));
    assert_eq!(kept.prune().expect("nothing to do"), 0);
    // A server whose clock is ahead takes nothing for old: the database's counts.
    let ahead = Arc::new(ManualClock::new());
    ahead.set_wall(SystemClock.now().wall + 10 * KEEP);
    assert_eq!(log.audit(3 * KEEP, ahead).prune().expect("nothing to do"), 0);
    assert_eq!(log.rows(), 6 + 6);
    assert_eq!(log.findings(), BTreeSet::new());
}

/// Changes by SQL after a removal: what is done, and which kind of finding says so.
const TAMPERINGS: [(&str, &str, &str); 9] = [
    (
        "cut off the end",
        "DELETE FROM {schema}.audit a WHERE number = 16 AND (SELECT count(*) FROM {schema}.audit b
         WHERE a.chain = b.chain) = 5",
        "cut_off",
    ),
    ("delete a row in the middle", "DELETE FROM {schema}.audit WHERE number = 14", "missing"),
    ("remove one more than was signed", "DELETE FROM {schema}.audit WHERE number = 12", "missing"),
    ("remove all the rest", "DELETE FROM {schema}.audit WHERE number > 11", "cut_off"),
    (
        "edit a row",
        "UPDATE {schema}.audit SET line = replace(line, 'config', 'evil') WHERE number = 13",
        "changed",
    ),
    (
        "put a removed number back",
        "INSERT INTO {schema}.audit (chain, number, line)
         SELECT chain, 3, line FROM {schema}.audit WHERE number = 13",
        "missing",
    ),
    ("forget the start", "DELETE FROM {schema}.entries WHERE space = 'starts'", "no_beginning"),
    (
        "move the start",
        "DELETE FROM {schema}.audit WHERE number = 12;
         UPDATE {schema}.entries SET bytes =
           convert_to(replace(convert_from(bytes, 'UTF8'), '\"seq\":11', '\"seq\":12'), 'UTF8')
         WHERE space = 'starts'",
        "start_changed",
    ),
    ("forget the checkpoint", "DELETE FROM {schema}.entries WHERE space = 'heads'", "head_missing"),
];

#[test]
fn what_anything_else_removes_or_changes_is_found() {
    let Some(log) = Log::new() else { return };
    let _writer = old_and_young(&log);
    assert_eq!(log.prune(), 11);
    log.sql(
        "CREATE TABLE {schema}.rows AS TABLE {schema}.audit;
             CREATE TABLE {schema}.beside AS SELECT space, key, bytes FROM {schema}.entries
             WHERE space IN ('starts', 'heads')",
    );
    for (what, statements, kind) in TAMPERINGS {
        log.sql(statements);
        assert!(log.findings().contains(kind), "{what}: {:?}", log.findings());
        assert_eq!(log.prune(), 0, "{what}");
        log.sql(
            "DELETE FROM {schema}.audit;
                 INSERT INTO {schema}.audit OVERRIDING SYSTEM VALUE SELECT * FROM {schema}.rows;
                 DELETE FROM {schema}.entries WHERE space IN ('starts', 'heads');
                 INSERT INTO {schema}.entries (space, key, bytes, version)
                 SELECT space, key, bytes, nextval('{schema}.numbers') FROM {schema}.beside",
        );
        assert_eq!(log.findings(), BTreeSet::new(), "{what} was undone");
    }
}

#[test]
fn a_kill_between_the_signature_and_the_removal_is_no_alarm_and_is_finished() {
    let Some(log) = Log::new() else { return };
    let _writer = old_and_young(&log);
    log.sql("CREATE TABLE {schema}.rows AS TABLE {schema}.audit");
    assert_eq!(log.prune(), 11);
    let put_back = "INSERT INTO {schema}.audit OVERRIDING SYSTEM VALUE
                    SELECT * FROM {schema}.rows WHERE number <= 11";
    let take_away = "DELETE FROM {schema}.audit
                     WHERE number <= 11 AND chain IN (SELECT chain FROM {schema}.rows)";
    log.sql(put_back);
    assert_eq!(log.findings(), BTreeSet::new());
    // The twin: what is left must be all of it, and as it was written.
    log.sql("DELETE FROM {schema}.audit WHERE number = 4");
    assert_eq!(log.findings(), BTreeSet::from(["missing"]));
    log.sql(take_away);
    log.sql(put_back);
    log.sql("UPDATE {schema}.audit SET line = replace(line, 'config', 'evil') WHERE number = 4");
    assert_eq!(log.findings(), BTreeSet::from(["changed"]));
    log.sql(take_away);
    log.sql(put_back);
    assert_eq!(log.prune(), 11);
    assert_eq!(log.findings(), BTreeSet::new());
}

#[test]
fn a_chain_that_was_changed_stays_whole() {
    let Some(log) = Log::new() else { return };
    let _writer = old_and_young(&log);
    log.sql("UPDATE {schema}.audit SET line = replace(line, 'config', 'evil') WHERE number = 4");
    assert_eq!(log.prune(), 0);
    assert_eq!(log.findings(), BTreeSet::from(["changed"]));
    assert_eq!(log.rows(), 16);
}

#[test]
fn of_a_process_that_ended_long_ago_nothing_is_left_and_of_a_late_one_a_line() {
    let Some(log) = Log::new() else { return };
    // Two days after its last entry no process goes on with a chain.
    for (ago, left) in [(KEEP + 3 * DAY, 0), (KEEP + DAY, 1)] {
        let (writer, clock) = log.writer(ago);
        write(&writer, 3);
        log.sql("DELETE FROM {schema}.audit WHERE line LIKE '%audit.expire%'");
        log.prune();
        let of_chain = "SELECT count(*) FROM {schema}.audit WHERE line LIKE '%config.reload%'";
        assert_eq!(log.sql(of_chain), [[left.to_string()]], "{ago:?}");
        // A process that was silent goes on in another chain.
        clock.advance(ago);
        write(&writer, 1);
        log.sql("DELETE FROM {schema}.audit");
        log.sql("DELETE FROM {schema}.entries WHERE space IN ('starts', 'heads')");
    }
    let (writer, clock) = log.writer(KEEP + 3 * DAY);
    write(&writer, 3);
    assert_eq!(log.prune(), 4);
    let beside = "SELECT space FROM {schema}.entries WHERE space IN ('starts', 'heads')";
    assert_eq!(log.sql(beside), [["heads"]], "the chain of the process that removed");
    clock.advance(KEEP + 3 * DAY);
    write(&writer, 1);
    assert_eq!(log.findings(), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_remove_each_entry_once_while_the_log_is_checked_and_written() {
    let Some(log) = Log::new() else { return };
    let (writer, clock) = log.writer(KEEP + 10 * HOUR);
    for _ in 0..4000 {
        writer.queue(Entry::new(Actor::Server, Action::ConfigReload), &Handle::current());
    }
    writer.flush().await;
    assert_eq!(log.rows(), 4001);
    clock.advance(20 * HOUR);
    let removed = thread::scope(|scope| {
        let removers: Vec<_> = (0..3).map(|_| scope.spawn(|| log.prune())).collect();
        let checks = scope.spawn(|| {
            for _ in 0..5 {
                write(&writer, 3);
                assert_eq!(log.findings(), BTreeSet::new());
            }
        });
        checks.join().expect("no alarm");
        removers.into_iter().map(|remover| remover.join().expect("no panic")).sum::<u64>()
    });
    assert_eq!(removed, 4001);
    assert_eq!(log.findings(), BTreeSet::new());
}

#[test]
fn a_role_needs_no_more_than_to_remove_rows_and_says_what_it_lacks() {
    let Some(log) = Log::new() else { return };
    let _writer = old_and_young(&log);
    let (url, schema) = &log.database;
    let role = format!("remover of {schema}");
    log.sql(&format!(
        "CREATE ROLE \"{role}\" LOGIN;
         GRANT USAGE ON SCHEMA {{schema}} TO \"{role}\";
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {{schema}} TO \"{role}\";
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA {{schema}} TO \"{role}\";
         REVOKE UPDATE, DELETE ON {{schema}}.audit FROM \"{role}\""
    ));
    let its_url = url.replace("adsproxy@", &format!("{}@", role.replace(' ', "%20")));
    let keys = vec![EncryptionKey::new("k1", STANDARD.encode([7; 32]).as_str().into())];
    let its_config = config(&(its_url, schema.clone()));
    let store = Store::open(&its_config, &Encryption { keys }).expect("it opens");
    let kept = AuditConfig { keep_rows: KEEP, ..AuditConfig::default() };
    let audit = Audit::of_store(&store, &kept, Arc::new(SystemClock));
    let refused = audit.prune().expect_err("refused").to_string();
    assert!(refused.contains("GRANT DELETE"), "{refused}");
    assert_eq!((log.rows(), log.findings()), (16, BTreeSet::new()));
    log.sql(&format!("GRANT DELETE ON {{schema}}.audit TO \"{role}\""));
    assert_eq!(audit.prune().expect("removed"), 11);
    assert_eq!(log.findings(), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_removes_old_entries_by_itself_and_the_command_verifies_the_rest() {
    let Some(log) = Log::new() else { return };
    let amazon = amazon().await;
    let _writer = old_and_young(&log);
    let toml = "[audit]\ntable_keep_days = 30\n".to_owned();
    let database = Some(log.database.clone());
    let proxy = Proxy::with(&amazon, Setup { toml, database, ..Setup::default() });
    let old = "SELECT count(*) FROM {schema}.audit WHERE line LIKE '%config.reload%'";
    eventually("they are removed", || log.sql(old) == [["5"]]).await;
    eventually("it says so", || proxy.log().contains("old entries of the audit log were removed"))
        .await;
    let verified = Commands::of(&proxy).run("audit verify");
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(proxy.ask_admin("/api/v1/audit").contains("audit.expire"));
}
