//! The tables in PostgreSQL: who makes them, who may not, and which programs go on beside newer ones.

use crate::support::{
    commands::Commands,
    postgres::{Session, backend, config, database},
    proxy::{Proxy, Setup, amazon},
};
use adsproxy::testing::{
    Error, Expected, Store,
    backend::{Backend, Write},
};
use http::Method;

const SPACE: &str = "accounts";
const WRITE: Write<'_> =
    Write { bytes: b"1", expires_at_ms: None, expected: Expected::Any, fence: None };

/// A role without a right to make anything, and the URL for it.
fn role(url: &str, schema: &str) -> (Session, String, String) {
    let by_hand = Session::open(url);
    let role = format!("role {schema}");
    by_hand.run("", &format!("CREATE ROLE \"{role}\" LOGIN"));
    let of_role = url.replace("adsproxy@", &format!("{}@", role.replace(' ', "%20")));
    (by_hand, role, of_role)
}

#[test]
fn a_role_without_ddl_needs_the_tables_and_nothing_else() {
    let Some((url, schema)) = database() else { return };
    let (by_hand, role, of_role) = role(&url, &schema);
    let run_time = backend(&(of_role, schema.clone()));
    let error = run_time.prepare().expect_err("it may not");
    assert!(matches!(error, Error::SchemaMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("`adsproxy migrate`"), "{error}");
    assert!(error.is_away(), "it heals by itself once another role has made the tables");
    let migrated = Store::migrate(&config(&(url.clone(), schema.clone()))).expect("migrated");
    assert_eq!(migrated.map(|before| before.version), Some(0));
    by_hand.run(
        &schema,
        &format!(
            "GRANT USAGE ON SCHEMA {{schema}} TO \"{role}\";
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {{schema}} TO \"{role}\";
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA {{schema}} TO \"{role}\""
        ),
    );
    run_time.prepare().expect("nothing is to be made");
    run_time.put(SPACE, "acme", &WRITE).expect("put");
    assert!(run_time.delete(SPACE, "acme", Expected::Any).expect("deleted"));
    run_time.owner().expect("named");
    let may_not = by_hand
        .run(&schema, &format!("SELECT has_schema_privilege('{role}', '{schema}', 'CREATE')"));
    assert_eq!(may_not, [["f"]]);
}

#[test]
fn a_name_with_any_letter_is_a_schema() {
    let Some((url, _)) = database() else { return };
    let backend = backend(&(url, "it's \"one\" {name}".to_owned()));
    backend.prepare().expect("tables are made");
    backend.put(SPACE, "acme", &WRITE).expect("put");
    assert_eq!(backend.list(SPACE).expect("listed").len(), 1);
}

/// A made-up migration of a later program.
const LATER: &str = "ALTER TABLE {schema}.entries ADD COLUMN later text;
                     INSERT INTO {schema}.schema_version VALUES (3, ";

#[test]
fn a_program_goes_on_beside_newer_ones_whose_schema_it_can_read() {
    let Some(database) = database() else { return };
    let (older, by_hand) = (backend(&database), Session::open(&database.0));
    older.prepare().expect("tables are made");
    older.put(SPACE, "acme", &WRITE).expect("put");
    by_hand.run(&database.1, &format!("{LATER} 1)"));
    older.put(SPACE, "acme", &WRITE).expect("the one that runs goes on");
    let started = backend(&database);
    started.prepare().expect("so does one that starts");
    started.put(SPACE, "globex", &WRITE).expect("put");
    let before = Store::migrate(&config(&database)).expect("nothing to do");
    assert_eq!(before.map(|schema| (schema.version, schema.known)), Some((3, 2)));
}

#[test]
fn a_program_does_not_touch_a_schema_that_it_cannot_read() {
    let Some(database) = database() else { return };
    let by_hand = Session::open(&database.0);
    backend(&database).prepare().expect("tables are made");
    by_hand.run(&database.1, &format!("{LATER} 3)"));
    let error = backend(&database).prepare().expect_err("too new");
    assert!(matches!(error, Error::SchemaTooNew { version: 3, known: 2, .. }), "{error:?}");
    assert!(!error.is_away(), "to wait does not help");
    let error = Store::migrate(&config(&database)).expect_err("too new");
    assert!(error.to_string().contains("update this adsproxy"), "{error}");
}

#[test]
fn rows_that_were_restored_from_another_cluster_do_not_count_as_changed_for_ever() {
    let Some(database) = database() else { return };
    let (backend, by_hand) = (backend(&database), Session::open(&database.0));
    backend.prepare().expect("tables are made");
    backend.put(SPACE, "acme", &WRITE).expect("put");
    by_hand.run(&database.1, "UPDATE {schema}.entries SET changed_by = '1000000000000'");
    backend.migrate().expect("migrated");
    let is_past = "SELECT changed_by < pg_current_xact_id() FROM {schema}.entries";
    assert_eq!(by_hand.run(&database.1, is_past), [["t"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_it_did_and_needs_no_key() {
    let Some((url, schema)) = database() else { return };
    let commands = commands(&url, &schema).await;
    let said = commands.run("doctor --offline");
    assert!(said.out.contains("no tables of adsproxy yet"), "{}", said.out);
    let by_hand = Session::open(&url);
    let count = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'");
    assert_eq!(by_hand.run("", &count), [["0"]], "doctor makes nothing");
    std::fs::rename(commands.path("key"), commands.path("no key")).expect("renamed");
    let said = commands.run("migrate");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.out, format!("schema {schema:?}: its tables were made, version 2\n"));
    std::fs::rename(commands.path("no key"), commands.path("key")).expect("renamed");
    let said = commands.run("migrate");
    assert_eq!(said.out, format!("schema {schema:?} is of version 2: nothing to do\n"));
    let said = commands.run("doctor --offline");
    assert!(said.out.contains("in the database is of version 2"), "{}", said.out);
    by_hand.run(&schema, &format!("{LATER} 3)"));
    for command in ["migrate", "serve", "account list"] {
        let said = commands.run(command);
        assert_eq!(said.code, Some(78), "{command}: {}", said.err);
        assert!(said.err.contains("update this adsproxy"), "{command}: {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_role_migrates_by_a_variable() {
    let Some((url, schema)) = database() else { return };
    let (_by_hand, _role, of_role) = role(&url, &schema);
    let commands = commands(&of_role, &schema).await;
    let said = commands.run("account list");
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("run `adsproxy migrate` with the URL of a role"), "{}", said.err);
    let mut migrate = commands.command("migrate");
    let said = crate::support::program::said(migrate.env("ADSPROXY_STORE__URL", &url));
    assert_eq!(said.code, Some(0), "{}", said.err);
    let refused = Store::migrate(&config(&(of_role, schema))).expect_err("it may not look");
    assert!(matches!(refused, Error::Database { .. }), "{refused:?}");
}

/// A program of 0.2 beside this one: what it may write into a record.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_later_program_is_refused_and_kept_and_the_others_are_served() {
    let Some(database) = database() else { return };
    let amazon = amazon().await;
    let database_of = || Some(database.clone());
    let mut proxy = Proxy::with(&amazon, Setup { database: database_of(), ..Setup::default() });
    for account in ["acme", "globex"] {
        assert_eq!(status(&proxy, account).await, 200);
    }
    let by_hand = Session::open(&database.0);
    let record = || {
        let bytes = "SELECT convert_from(bytes, 'UTF8') FROM {schema}.entries
                     WHERE space = 'accounts' AND key = 'acme'";
        by_hand.run(&database.1, bytes).remove(0).remove(0)
    };
    let good = record();
    let put = |record: &str| {
        let write = format!(
            "UPDATE {{schema}}.entries SET bytes = convert_to('{record}', 'UTF8')
             WHERE space = 'accounts' AND key = 'acme'"
        );
        by_hand.run(&database.1, &write);
    };
    for (what, from, to) in [
        ("another format", "\"format\":", "\"format\":1"),
        ("a field more", "{\"format\":", "{\"later\":true,\"format\":"),
    ] {
        assert!(good.contains(from), "{good}");
        let later = good.replacen(from, to, 1);
        put(&later);
        // A server that runs goes on with the token that it has; one that starts has none.
        assert_eq!(status(&proxy, "acme").await, 200, "{what}");
        proxy = proxy.restart();
        assert_eq!(status(&proxy, "acme").await, 503, "{what}");
        assert_eq!(status(&proxy, "globex").await, 200, "{what}");
        assert!(proxy.ask_admin("/status").contains("unreadable"), "{what}");
        assert_eq!(record(), later, "{what}: nothing was written over it");
        // It is as good as before once it can be read.
        put(&good);
        proxy = proxy.restart();
        assert_eq!(status(&proxy, "acme").await, 200, "{what}");
    }
    assert_eq!(amazon.state().record.counts().token_calls, 2, "one for each account");
}

async fn status(proxy: &Proxy, account: &str) -> u16 {
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
    proxy.send(request).await.status.as_u16()
}

async fn commands(url: &str, schema: &str) -> Commands {
    let database = Some((url.to_owned(), schema.to_owned()));
    Commands::new(&amazon().await, &Setup { database, ..Setup::default() })
}
