//! Rows changed by hand: what is older, moved or altered is refused and reported, not used.

use crate::support::{
    commands::Commands,
    postgres::{Session, database},
    proxy::{Proxy, Setup, amazon, eventually, write_private},
};
use adsproxy::sandbox::{Emulator, RefreshRotation};
use base64::{Engine, engine::general_purpose::STANDARD};

struct World {
    amazon: Emulator,
    proxy: Proxy,
    by_hand: Session,
    schema: String,
}

/// A server whose tokens a 401 replaces at once; none where there is no PostgreSQL.
async fn world(rotation: RefreshRotation) -> Option<World> {
    let (url, schema) = database()?;
    let amazon = amazon().await;
    amazon.state().lwa.configure(|settings| settings.rotation = rotation);
    let toml = "[proxy]\nworkers = 1\n[token]\nforced_refresh_min_interval_secs = 0\n".to_owned();
    let database = Some((url.clone(), schema.clone()));
    let proxy = Proxy::with(&amazon, Setup { toml, database, ..Setup::default() });
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    Some(World { amazon, proxy, by_hand: Session::open(&url), schema })
}

impl World {
    fn sql(&self, statements: &str) {
        self.by_hand.run(&self.schema, statements);
    }

    fn back_up(&self) {
        self.sql("CREATE TABLE {schema}.backup AS SELECT * FROM {schema}.entries");
    }

    fn restore(&self) {
        self.sql(
            "UPDATE {schema}.entries SET bytes = backup.bytes, version = backup.version
             FROM {schema}.backup
             WHERE entries.space = 'accounts' AND backup.space = 'accounts'
               AND entries.key = backup.key",
        );
    }

    /// Amazon rejects the token that there is.
    async fn ask_with_a_rejected_token(&self) -> (u16, Option<String>) {
        self.amazon.state().lwa.expire_access_tokens(Some("acme"));
        let answer = self.proxy.get("/v2/profiles").await;
        (answer.status.as_u16(), answer.error().map(str::to_owned))
    }

    fn token_calls(&self) -> u64 {
        self.amazon.state().record.counts().token_calls
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_set_back_is_not_used_and_said_so() {
    let Some(world) = world(RefreshRotation::OldDiesOnceUsed).await else { return };
    world.back_up();
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
    world.restore();
    let calls = world.token_calls();
    let (status, _) = world.ask_with_a_rejected_token().await;
    assert_ne!(status, 200);
    assert_eq!(world.token_calls(), calls, "an old refresh token was used");
    eventually("it is reported", || world.proxy.log().contains("is older than one that")).await;
    let metric = r#"adsproxy_grant_state{account="acme",state="unreadable"}"#;
    assert!((world.proxy.metric(metric) - 1.0).abs() < 0.1, "{}", world.proxy.metrics());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_set_back_does_no_harm_where_the_refresh_token_is_the_same() {
    let Some(world) = world(RefreshRotation::Off).await else { return };
    world.back_up();
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
    world.restore();
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
    eventually("it is reported", || world.proxy.log().contains("the record was set back")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_moved_or_altered_is_not_used() {
    for change in [
        "UPDATE {schema}.entries SET bytes = other.bytes FROM {schema}.entries AS other
         WHERE entries.space = 'accounts' AND entries.key = 'acme'
           AND other.space = 'accounts' AND other.key = 'globex'",
        "UPDATE {schema}.entries SET bytes = set_byte(bytes, length(bytes) - 20, 65)
         WHERE space = 'accounts' AND key = 'acme'",
    ] {
        let Some(world) = world(RefreshRotation::Off).await else { return };
        world.sql(change);
        let calls = world.token_calls();
        let (status, _) = world.ask_with_a_rejected_token().await;
        assert_ne!(status, 200, "{change}");
        assert_eq!(world.token_calls(), calls, "{change}");
        eventually("it is reported", || world.proxy.log().contains("accounts/acme")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_does_not_use_a_row_that_was_set_back_until_it_is_accepted() {
    let Some(mut world) = world(RefreshRotation::OldDiesOnceUsed).await else { return };
    world.back_up();
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
    world.proxy.kill();
    world.restore();
    let calls = world.token_calls();
    world.proxy = world.proxy.restart();
    let (status, _) = world.ask_with_a_rejected_token().await;
    assert_eq!(status, 503);
    assert_eq!(world.token_calls(), calls, "an old refresh token was used");
    let log = world.proxy.log();
    assert!(log.contains("accounts/acme is older than one that was there"), "{log}");
    let metric = r#"adsproxy_grant_state{account="acme",state="unreadable"}"#;
    assert!((world.proxy.metric(metric) - 1.0).abs() < 0.1, "{}", world.proxy.metrics());
    let commands = Commands::of(&world.proxy);
    let said = commands.run("doctor --offline").out;
    assert!(said.contains("accounts/acme is older"), "{said}");
    // The backup is of the time after all: its refresh token is the one in use at Amazon.
    let said = commands.run("store accept acme");
    assert_eq!(said.out, "acme: its record is used as it is\n", "{}", said.err);
    assert_eq!(
        commands.run("store accept --all").out,
        "no record is older than one that was there\n"
    );
    eventually("it is used", || !world.proxy.metrics().contains(metric)).await;
    assert!(world.ask_with_a_rejected_token().await.0 != 503 || world.token_calls() > calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_uses_what_was_not_set_back_or_does_no_harm() {
    let Some(mut world) = world(RefreshRotation::Off).await else { return };
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
    world.back_up();
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
    world.proxy = world.proxy.restart();
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
    assert!(!world.proxy.log().contains("set back"), "{}", world.proxy.log());
    world.proxy.kill();
    world.restore();
    world.proxy = world.proxy.restart();
    assert!(world.proxy.log().contains("the record was set back"), "{}", world.proxy.log());
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
}

/// A server that has stopped, whose configuration has a second key in front of the first.
async fn stopped_with_two_keys(rotation: RefreshRotation) -> Option<(World, Commands)> {
    let mut world = world(rotation).await?;
    world.back_up();
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
    world.proxy.signal("TERM");
    world.proxy.wait();
    let commands = Commands::of(&world.proxy);
    write_private(&commands.path("key2"), &STANDARD.encode([2; 32]));
    let key1 = "[{ id = \"k1\"";
    commands.edit(key1, &format!("[{}, {}", key2(&commands), &key1[1..]));
    Some((world, commands))
}

fn key2(commands: &Commands) -> String {
    format!("{{ id = \"k2\", secret = {{ file = {:?} }} }}", commands.path("key2"))
}

/// Takes the first key, which is the older one, out of the configuration.
fn remove_key1(commands: &Commands) {
    let key = commands.path("key");
    commands.edit(&format!(", {{ id = \"k1\", secret = {{ file = {key:?} }} }}"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_set_back_stays_refused_when_its_key_is_rotated_away() {
    let found = stopped_with_two_keys(RefreshRotation::OldDiesOnceUsed).await;
    let Some((mut world, commands)) = found else { return };
    world.restore();
    let rotated = commands.run("key rotate");
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    let retired = commands.run("key retire k1");
    assert_eq!(retired.code, Some(0), "{retired:?}");
    remove_key1(&commands);
    let calls = world.token_calls();
    world.proxy = world.proxy.restart();
    let (status, _) = world.ask_with_a_rejected_token().await;
    assert_eq!(status, 503);
    assert_eq!(world.token_calls(), calls, "an old refresh token was used");
    let log = world.proxy.log();
    assert!(log.contains("accounts/acme is older than one that was there"), "{log}");
    assert!(!log.contains("marks do not open"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_mark_needs_is_not_retired_before_the_next_rotation() {
    let Some((world, commands)) = stopped_with_two_keys(RefreshRotation::Off).await else { return };
    world.sql("CREATE TABLE {schema}.old AS SELECT * FROM {schema}.marks");
    assert_eq!(commands.run("key rotate").code, Some(0));
    // As a server of an older version leaves it.
    world.sql(
        "UPDATE {schema}.marks SET bytes = old.bytes FROM {schema}.old
               WHERE marks.key = old.key AND old.key = 'acme'",
    );
    let refused = commands.run("key retire k1");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("still needed, by 0 records and 1 other"), "{refused:?}");
    assert_eq!(commands.run("key rotate").code, Some(0));
    assert_eq!(commands.run("key retire k1").code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_whose_key_is_gone_locks_no_account_out_and_is_named_until_the_next_refresh() {
    let Some((mut world, commands)) = stopped_with_two_keys(RefreshRotation::Off).await else {
        return;
    };
    world.sql("CREATE TABLE {schema}.old AS SELECT * FROM {schema}.marks");
    assert_eq!(commands.run("key rotate").code, Some(0));
    world.sql(
        "UPDATE {schema}.marks SET bytes = old.bytes FROM {schema}.old
               WHERE marks.key = old.key",
    );
    remove_key1(&commands);
    world.proxy = world.proxy.restart();
    let named = |world: &World, accounts: &str| {
        let log = world.proxy.log();
        let line = log.lines().find(|line| line.contains("marks do not open"));
        line.is_some_and(|line| line.contains(&format!("\"accounts\":\"{accounts}\"")))
    };
    assert!(named(&world, "acme, globex"), "{}", world.proxy.log());
    let said = commands.run("doctor --offline").out;
    assert!(said.contains("2 marks of grants do not open") && said.contains("\"k1\""), "{said}");
    assert_eq!(world.ask_with_a_rejected_token().await, (200, None));
    world.proxy = world.proxy.restart();
    assert!(named(&world, "globex"), "{}", world.proxy.log());
}
