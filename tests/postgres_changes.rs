//! What a follower of the store hears from PostgreSQL: every change, once, at the cost of a few rows.

use crate::support::postgres::{Session, backend, database};
use adsproxy::testing::{
    Expected,
    backend::{Backend, Postgres, SeenEntries, Write},
};

const SPACE: &str = "accounts";

struct World {
    backend: Postgres,
    seen: SeenEntries,
    schema: String,
    by_hand: Session,
}

/// None where there is no PostgreSQL.
fn world() -> Option<World> {
    let database = database()?;
    let backend = backend(&database);
    backend.prepare().expect("tables are made");
    let by_hand = Session::open(&database.0);
    Some(World { backend, seen: SeenEntries::default(), schema: database.1, by_hand })
}

impl World {
    fn put(&self, key: &str) {
        let (bytes, expected) = (&b"1"[..], Expected::Any);
        let write = Write { bytes, expires_at_ms: None, expected, fence: None };
        self.backend.put(SPACE, key, &write).expect("put");
    }

    fn changes(&mut self) -> Vec<String> {
        self.backend.changes(SPACE, &mut self.seen).expect("looked")
    }

    fn run(&self, statements: &str) -> Vec<Vec<String>> {
        self.by_hand.run(&self.schema, statements)
    }
}

const INSERT: &str = "INSERT INTO {schema}.entries (space, key, bytes, version)";

#[test]
fn a_transaction_that_commits_late_is_not_lost() {
    let Some(mut world) = world() else { return };
    world.put("gone");
    assert_eq!(world.changes(), ["gone"]);
    let numbers = format!("'\"{}\".numbers'", world.schema);
    // Its number, and its own place in the order of transactions, are lower than those of what
    // follows; it is seen after them.
    world.run(&format!("BEGIN; {INSERT} VALUES ('{SPACE}', 'late', '1', nextval({numbers}))"));
    world.run("DELETE FROM {schema}.entries WHERE key = 'gone'");
    for key in ["a", "b", "c"] {
        world.put(key);
        assert_eq!(world.changes(), [key], "once each, though it is read again");
    }
    world.run("COMMIT");
    assert_eq!(world.changes(), ["gone", "late"]);
    assert!(world.changes().is_empty());
}

#[test]
fn a_transaction_that_is_rolled_back_is_no_change() {
    let Some(mut world) = world() else { return };
    world.put("acme");
    world.changes();
    world.run(&format!("BEGIN; {INSERT} VALUES ('{SPACE}', 'late', '1', 1)"));
    world.run("DELETE FROM {schema}.entries WHERE key = 'acme'; ROLLBACK");
    assert!(world.changes().is_empty());
}

#[test]
fn a_change_by_hand_is_a_change() {
    let Some(mut world) = world() else { return };
    ["a", "b", "c"].iter().for_each(|key| world.put(key));
    world.changes();
    world.run("UPDATE {schema}.entries SET bytes = '2' WHERE key = 'a'");
    assert_eq!(world.changes(), ["a"]);
    world.run("UPDATE {schema}.entries SET key = 'moved' WHERE key = 'b'");
    assert_eq!(world.changes(), ["b", "moved"]);
    world.run("DELETE FROM {schema}.entries WHERE key = 'c'");
    assert_eq!(world.changes(), ["c"]);
    world.put("c");
    assert_eq!(world.changes(), ["c"], "it is back");
}

#[test]
fn a_lease_is_no_change() {
    let Some(mut world) = world() else { return };
    world.put("acme");
    world.changes();
    let ttl = std::time::Duration::from_secs(60);
    let lease = world.backend.lease(SPACE, "acme", 0, ttl).expect("free");
    world.backend.release(SPACE, "acme", lease.fence).expect("released");
    assert!(world.changes().is_empty());
    let at = "SELECT changed_by < pg_current_xact_id() FROM {schema}.entries";
    assert_eq!(world.run(at), [["t"]], "nothing is read again for it");
}

#[test]
fn a_look_reads_what_has_changed_and_not_the_table() {
    let Some(mut world) = world() else { return };
    world.put("acme");
    world.run(&format!(
        "{INSERT} SELECT '{SPACE}', 'k' || i, '1', i FROM generate_series(1, 20000) AS i"
    ));
    world.run("ANALYZE {schema}.entries");
    assert_eq!(world.changes().len(), 20_001);
    let at = world.run("SELECT pg_snapshot_xmin(pg_current_snapshot())").remove(0).remove(0);
    world.put("acme");
    assert_eq!(world.changes(), ["acme"]);
    // The very statement that looked.
    let last = format!(
        "SELECT query FROM pg_stat_activity WHERE application_name = 'adsproxy'
         AND query LIKE '%changed_by >= $2%' AND query LIKE '%\"{}\"%' LIMIT 1",
        world.schema
    );
    let look = world.run(&last).remove(0).remove(0);
    world.by_hand.run("", &format!("PREPARE look (text, text) AS {look}"));
    let plan = format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE look ('{SPACE}', '{at}')");
    let plan = world.by_hand.run("", &plan).concat().join("\n");
    assert!(plan.contains("entries_changes") && !plan.contains("Seq Scan"), "{plan}");
    assert!(!plan.contains("Rows Removed"), "{plan}");
    let rows = plan.split("actual rows=").skip(1);
    let rows = rows.map(|rest| rest.split(' ').next().expect("a number").parse::<u64>());
    assert!(rows.map(|rows| rows.expect("a number")).max() <= Some(3), "{plan}");
}

#[test]
fn a_follower_that_was_cut_off_hears_also_what_is_noted_no_more() {
    let Some(mut world) = world() else { return };
    ["a", "b"].iter().for_each(|key| world.put(key));
    world.changes();
    world.run("DELETE FROM {schema}.entries WHERE key = 'a'");
    world.run("UPDATE {schema}.deletions SET deleted_at = now() - interval '2 hours'");
    // A sign of life of any server clears old notes away.
    world.backend.owner().expect("named");
    assert_eq!(world.run("SELECT count(*) FROM {schema}.deletions"), [["0"]]);
    assert!(world.changes().is_empty(), "a look that goes on from the one before cannot know");
    cut_off(&world);
    assert_eq!(world.changes(), ["a"]);
    assert!(world.changes().is_empty());
}

/// Ends the connections of the backend, and awaits that it has noticed.
fn cut_off(world: &World) {
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE application_name = 'adsproxy' AND query LIKE '%\"{schema_name}\"%'";
    let cut = cut.replace("{schema_name}", &world.schema);
    assert_ne!(world.run(&cut), [["0"]]);
    while world.backend.get(SPACE, "b").is_err() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
