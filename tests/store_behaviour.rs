//! What the store and any backend below it promise, held against each backend: files, memory,
//! PostgreSQL, and a table that is written here.

use adsproxy::testing::{
    AccountId, Credential, Epoch, Error, Expected, Item, KeyRing, Limit, Region, Space, Store,
    StoredAccessToken, Version,
    backend::{self, Backend, Files, Granted, Listed, Memory, RawEntry, SeenEntries, Write},
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

const TTL: Duration = Duration::from_secs(60);
const NO_WAIT: Duration = Duration::ZERO;
const SPACE: &str = "accounts";

/// A backend of rows, as a database would have them.
#[derive(Debug, Default)]
struct Table(Mutex<(u64, Vec<Row>)>);

#[derive(Debug)]
struct Row {
    space: String,
    key: String,
    /// None: deleted; the row stays for its lease.
    entry: Option<RawEntry>,
    fence: u64,
    until_ms: u64,
}

impl Table {
    /// Does `work` on the row of a key, which is made if it is missing, and hands it a new version.
    fn row<T>(&self, space: &str, key: &str, work: impl FnOnce(&mut Row, Version) -> T) -> T {
        let (sequence, rows) = &mut *self.0.lock();
        *sequence += 1;
        let found = rows.iter().position(|row| (&*row.space, &*row.key) == (space, key));
        let at = found.unwrap_or_else(|| {
            let (space, key) = (space.to_owned(), key.to_owned());
            rows.push(Row { space, key, entry: None, fence: 0, until_ms: 0 });
            rows.len() - 1
        });
        work(&mut rows[at], Version(*sequence))
    }
}

impl Row {
    fn is(&self, expected: Expected) -> Result<(), backend::Error> {
        match expected.is_met_by(self.entry.as_ref().map(|entry| entry.version)) {
            true => Ok(()),
            false => Err(backend::Error::Conflict),
        }
    }
}

impl Backend for Table {
    fn get(&self, space: &str, key: &str) -> Result<Option<RawEntry>, backend::Error> {
        Ok(self.row(space, key, |row, _| row.entry.clone()))
    }

    fn put(&self, space: &str, key: &str, write: &Write<'_>) -> Result<Version, backend::Error> {
        self.row(space, key, |row, version| {
            row.is(write.expected)?;
            if write.fence.is_some_and(|fence| fence != row.fence) {
                return Err(backend::Error::Conflict);
            }
            let (bytes, expires_at_ms) = (write.bytes.to_vec(), write.expires_at_ms);
            row.entry = Some(RawEntry { bytes, version, expires_at_ms });
            Ok(version)
        })
    }

    fn take(&self, space: &str, key: &str) -> Result<Option<RawEntry>, backend::Error> {
        Ok(self.row(space, key, |row, _| row.entry.take()))
    }

    fn delete(&self, space: &str, key: &str, expected: Expected) -> Result<bool, backend::Error> {
        self.row(space, key, |row, _| {
            row.is(expected)?;
            Ok(row.entry.take().is_some())
        })
    }

    fn list(&self, space: &str) -> Result<Vec<Listed>, backend::Error> {
        let rows = self.0.lock();
        let listed = rows.1.iter().filter(|row| row.space == space).filter_map(|row| {
            let RawEntry { version, expires_at_ms, .. } = *row.entry.as_ref()?;
            Some(Listed { key: row.key.clone(), version, expires_at_ms })
        });
        let mut listed: Vec<_> = listed.collect();
        listed.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(listed)
    }

    fn lease(
        &self,
        space: &str,
        key: &str,
        now_ms: u64,
        ttl: Duration,
    ) -> Result<Granted, backend::Error> {
        self.row(space, key, |row, _| {
            if row.entry.is_none() {
                return Err(backend::Error::Conflict);
            }
            if row.until_ms > now_ms {
                return Err(backend::Error::Held { until_ms: row.until_ms });
            }
            let until_ms = now_ms + u64::try_from(ttl.as_millis()).expect("short");
            (row.fence, row.until_ms) = (row.fence + 1, until_ms);
            Ok(Granted { fence: row.fence, until_ms })
        })
    }

    fn release(&self, space: &str, key: &str, fence: u64) -> Result<(), backend::Error> {
        self.row(space, key, |row, _| {
            row.until_ms = if row.fence == fence { 0 } else { row.until_ms };
        });
        Ok(())
    }

    fn owner(&self) -> Result<String, backend::Error> {
        Ok("table".to_owned())
    }

    fn is_alive(&self, _: &str) -> Result<bool, backend::Error> {
        Ok(true)
    }
}

/// A backend, and what must outlive it.
type World = (Box<dyn Backend>, Option<TempDir>);

fn memory() -> World {
    (Box::new(Memory::default()), None)
}

fn files() -> World {
    let dir = tempfile::tempdir().expect("a directory");
    (Box::new(Files::open(dir.path()).expect("trusted")), Some(dir))
}

fn table() -> World {
    (Box::new(Table::default()), None)
}

/// None where there is no PostgreSQL.
#[cfg(feature = "postgres")]
fn postgres() -> Option<World> {
    let backend = crate::support::postgres::backend(&crate::support::postgres::database()?);
    backend.prepare().expect("tables are made");
    Some((Box::new(backend), None))
}

/// Runs each behaviour on each backend.
macro_rules! on_every_backend {
    ($($behaviour:ident,)+) => {
        on_every_backend!(@ memory [$($behaviour)+]);
        on_every_backend!(@ files [$($behaviour)+]);
        on_every_backend!(@ table [$($behaviour)+]);
        #[cfg(feature = "postgres")]
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    if let Some(world) = super::postgres() {
                        super::$behaviour(world).await;
                    }
                }
            )+
        }
    };
    (@ $backend:ident [$($behaviour:ident)+]) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    super::$behaviour(super::$backend()).await;
                }
            )+
        }
    };
}

on_every_backend! {
    a_write_has_another_version_each_time_and_is_read_whole,
    a_write_that_expects_something_else_changes_nothing,
    of_many_that_take_an_entry_one_gets_it,
    what_changed_is_listed_once,
    a_lease_excludes_others_and_its_number_only_grows,
    an_unknown_name_is_not_leased,
    every_key_is_another_entry,
    a_refresh_never_brings_back_a_grant_that_was_removed,
    a_grant_that_was_connected_anew_is_not_overwritten_by_a_refresh,
    a_refresh_whose_lease_was_lost_writes_nothing,
    a_write_between_of_the_same_consent_costs_a_refresh_nothing,
    a_grant_that_is_moved_while_it_is_refreshed_stays_moved_and_keeps_its_new_token,
    writers_that_compare_lose_no_write,
    there_are_no_more_entries_than_allowed,
    a_purge_beside_new_entries_lets_no_more_in,
    what_has_expired_is_purged_and_nothing_else,
    entries_of_an_account_go_with_it,
    a_store_sees_nothing_of_another_stores_seal,
}

fn write(bytes: &[u8], expected: Expected) -> Write<'_> {
    Write { bytes, expires_at_ms: None, expected, fence: None }
}

fn is_conflict<T: std::fmt::Debug>(result: Result<T, backend::Error>) -> bool {
    matches!(result, Err(backend::Error::Conflict))
}

async fn a_write_has_another_version_each_time_and_is_read_whole((backend, _dir): World) {
    let mut versions = Vec::new();
    for bytes in [&b"one"[..], b"", b"one", &[0, 10, 255, 34]] {
        let version = backend.put(SPACE, "acme", &write(bytes, Expected::Any)).expect("put");
        let read = backend.get(SPACE, "acme").expect("read").expect("there");
        assert_eq!((&read.bytes[..], read.version, read.expires_at_ms), (bytes, version, None));
        assert!(!versions.contains(&version));
        versions.push(version);
    }
    assert!(backend.delete(SPACE, "acme", Expected::Any).expect("deleted"));
    assert!(!backend.delete(SPACE, "acme", Expected::Any).expect("nothing"));
    assert_eq!(backend.get(SPACE, "acme").expect("read"), None);
    let version = backend.put(SPACE, "acme", &write(b"one", Expected::Absent)).expect("put");
    assert!(!versions.contains(&version), "not even after it was deleted");
}

async fn a_write_that_expects_something_else_changes_nothing((backend, _dir): World) {
    let stale = Version(12_345);
    assert!(is_conflict(backend.put(SPACE, "acme", &write(b"x", Expected::Version(stale)))));
    assert_eq!(backend.list(SPACE).expect("listed"), []);
    let first = backend.put(SPACE, "acme", &write(b"1", Expected::Absent)).expect("put");
    assert!(is_conflict(backend.put(SPACE, "acme", &write(b"x", Expected::Absent))));
    let second =
        backend.put(SPACE, "acme", &write(b"2", Expected::Version(first))).expect("the same");
    assert!(is_conflict(backend.put(SPACE, "acme", &write(b"x", Expected::Version(first)))));
    assert!(is_conflict(backend.delete(SPACE, "acme", Expected::Version(first))));
    assert_eq!(backend.get(SPACE, "acme").expect("read").expect("there").bytes, b"2");
    assert!(backend.delete(SPACE, "acme", Expected::Version(second)).expect("deleted"));
}

async fn of_many_that_take_an_entry_one_gets_it((backend, _dir): World) {
    let backend: Arc<dyn Backend> = backend.into();
    for round in 0..20 {
        let name = round.to_string();
        let bytes = name.as_bytes();
        let soon = Write { expires_at_ms: Some(7), ..write(bytes, Expected::Any) };
        backend.put("logins", &name, &soon).expect("put");
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let (backend, name) = (backend.clone(), name.clone());
                std::thread::spawn(move || backend.take("logins", &name).expect("tried"))
            })
            .collect();
        let taken: Vec<_> = takers.into_iter().filter_map(|it| it.join().expect("runs")).collect();
        assert_eq!(taken.len(), 1, "round {round}");
        assert_eq!((&taken[0].bytes[..], taken[0].expires_at_ms), (bytes, Some(7)));
    }
    assert_eq!(backend.list("logins").expect("listed"), []);
}

async fn what_changed_is_listed_once((backend, _dir): World) {
    let mut seen = SeenEntries::default();
    let mut changes = || backend.changes(SPACE, &mut seen).expect("listed");
    assert!(changes().is_empty());
    for key in ["b", "a", "c"] {
        backend.put(SPACE, key, &write(b"1", Expected::Any)).expect("put");
    }
    backend.put("logins", "d", &write(b"1", Expected::Any)).expect("put");
    assert_eq!(changes(), ["a", "b", "c"]);
    assert!(changes().is_empty());
    backend.put(SPACE, "b", &write(b"1", Expected::Any)).expect("put");
    backend.delete(SPACE, "a", Expected::Any).expect("deleted");
    assert_eq!(changes(), ["a", "b"]);
    assert!(changes().is_empty());
}

async fn a_lease_excludes_others_and_its_number_only_grows((backend, _dir): World) {
    if backend.has_own_clock() {
        return a_lease_ends_by_the_clock_of_the_database(&*backend).await;
    }
    backend.put(SPACE, "acme", &write(b"1", Expected::Any)).expect("put");
    backend.put(SPACE, "other", &write(b"1", Expected::Any)).expect("put");
    let lease = |key, now_ms| backend.lease(SPACE, key, now_ms, TTL);
    let first = lease("acme", 1000).expect("free");
    assert_eq!(first.until_ms, 61_000);
    lease("other", 1000).expect("another entry is free");
    match lease("acme", 60_999).expect_err("held") {
        backend::Error::Held { until_ms } => assert_eq!(until_ms, 61_000),
        other => panic!("{other}"),
    }
    let second = lease("acme", 61_000).expect("expired");
    assert!(second.fence > first.fence);
    // The one before gives back nothing of the one after, and writes nothing any more.
    backend.release(SPACE, "acme", first.fence).expect("no harm");
    assert!(lease("acme", 61_001).is_err());
    let under = |fence| Write { fence: Some(fence), ..write(b"2", Expected::Any) };
    assert!(is_conflict(backend.put(SPACE, "acme", &under(first.fence))));
    backend.put(SPACE, "acme", &under(second.fence)).expect("its own");
    backend.release(SPACE, "acme", second.fence).expect("given back");
    let third = lease("acme", 61_002).expect("free");
    assert!(third.fence > second.fence);
}

/// What the caller takes for the time decides nothing.
async fn a_lease_ends_by_the_clock_of_the_database(backend: &dyn Backend) {
    backend.put(SPACE, "acme", &write(b"1", Expected::Any)).expect("put");
    backend.put(SPACE, "other", &write(b"1", Expected::Any)).expect("put");
    let short = Duration::from_millis(200);
    let first = backend.lease(SPACE, "acme", 1000, short).expect("free");
    assert_eq!(first.until_ms, 1200);
    backend.lease(SPACE, "other", 1000, TTL).expect("another entry is free");
    let second = loop {
        match backend.lease(SPACE, "acme", u64::MAX / 2, TTL) {
            Ok(second) => break second,
            Err(backend::Error::Held { until_ms }) => assert!(until_ms - u64::MAX / 2 <= 200),
            Err(other) => panic!("{other}"),
        }
    };
    assert!(second.fence > first.fence);
    backend.release(SPACE, "acme", first.fence).expect("no harm");
    match backend.lease(SPACE, "acme", u64::MAX / 2, TTL).expect_err("held") {
        backend::Error::Held { until_ms } => assert!(until_ms - u64::MAX / 2 > 30_000),
        other => panic!("{other}"),
    }
    let under = |fence| Write { fence: Some(fence), ..write(b"2", Expected::Any) };
    assert!(is_conflict(backend.put(SPACE, "acme", &under(first.fence))));
    backend.put(SPACE, "acme", &under(second.fence)).expect("its own");
    backend.release(SPACE, "acme", second.fence).expect("given back");
    assert!(backend.lease(SPACE, "acme", 0, TTL).expect("free").fence > second.fence);
}

async fn an_unknown_name_is_not_leased((backend, dir): World) {
    assert!(is_conflict(backend.lease(SPACE, "nobody", 0, TTL)));
    backend.release(SPACE, "nobody", 1).expect("no harm");
    assert!(!backend.delete(SPACE, "nobody", Expected::Any).expect("nothing"));
    assert_eq!(backend.take(SPACE, "nobody").expect("nothing"), None);
    assert_eq!(backend.get(SPACE, "nobody").expect("nothing"), None);
    if let Some(dir) = dir {
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0, "no file is left");
    }
}

async fn every_key_is_another_entry((backend, _dir): World) {
    let keys = ["acme", "t~acme", "T~acme", "acme.json", ".acme", "..", "a/b", "a%2Fb", "é"];
    for key in keys {
        backend.put(SPACE, key, &write(key.as_bytes(), Expected::Absent)).expect("put");
    }
    backend.put("logins", "acme", &write(b"x", Expected::Absent)).expect("another space");
    for key in keys {
        let read = backend.get(SPACE, key).expect("read").expect("there");
        assert_eq!(read.bytes, key.as_bytes());
    }
    let mut sorted = keys.map(str::to_owned);
    sorted.sort();
    let listed = backend.list(SPACE).expect("listed");
    assert_eq!(listed.into_iter().map(|one| one.key).collect::<Vec<_>>(), sorted);
}

fn store((backend, dir): World) -> (Store, Option<TempDir>) {
    let ring = KeyRing::ephemeral().expect("a key");
    (Store::new(backend, ring).expect("opens"), dir)
}

fn id(alias: &str) -> AccountId {
    alias.parse().expect("an alias")
}

fn grant(token: &str) -> Credential {
    Credential {
        account: id("acme"),
        epoch: Epoch::random(),
        application: "default".to_owned(),
        region: Region::Na,
        refresh_token: token.into(),
        previous_refresh_token: None,
        access_token: None,
        generation: 1,
        consented_at: None,
        updated_at: 1,
        reauthorization_required: false,
        seed: None,
        unknown: Default::default(),
    }
}

async fn token(store: &Store) -> Option<String> {
    let found = store.grant(&id("acme")).await.expect("read");
    found.map(|found| found.value.refresh_token.expose().to_owned())
}

fn is_superseded(result: Result<Version, Error>) -> bool {
    matches!(result, Err(Error::Conflict))
}

async fn a_refresh_never_brings_back_a_grant_that_was_removed(world: World) {
    let (store, _dir) = store(world);
    store.put_grant(&grant("one"), Expected::Absent).await.expect("kept");
    let lease = store.lease_grant(&id("acme"), TTL, NO_WAIT).await.expect("leased");
    let found = store.grant(&id("acme")).await.expect("read").expect("there");
    let rotated = Credential { refresh_token: "two".into(), ..found.value.clone() };
    assert!(store.remove_grant(&id("acme"), Expected::Any).await.expect("removed"));
    for lease in [Some(&lease), None] {
        assert!(is_superseded(store.update_grant(&rotated, found.began(), lease).await));
        assert_eq!(token(&store).await, None);
    }
    assert!(!store.remove_grant(&id("acme"), Expected::Any).await.expect("nothing"));
    let gone = store.lease_grant(&id("acme"), TTL, NO_WAIT).await.expect_err("gone");
    assert!(matches!(gone, Error::Conflict), "{gone}");
}

async fn a_grant_that_was_connected_anew_is_not_overwritten_by_a_refresh(world: World) {
    let (store, _dir) = store(world);
    store.put_grant(&grant("one"), Expected::Absent).await.expect("kept");
    let lease = store.lease_grant(&id("acme"), TTL, NO_WAIT).await.expect("leased");
    let found = store.grant(&id("acme")).await.expect("read").expect("there");
    store.put_grant(&grant("new consent"), Expected::Version(found.version)).await.expect("kept");
    let rotated = Credential { refresh_token: "two".into(), ..found.value.clone() };
    for lease in [Some(&lease), None] {
        assert!(is_superseded(store.update_grant(&rotated, found.began(), lease).await));
    }
    assert_eq!(token(&store).await.as_deref(), Some("new consent"));
    // Removed and added again is no less another consent.
    store.remove_grant(&id("acme"), Expected::Any).await.expect("removed");
    store.put_grant(&grant("once more"), Expected::Absent).await.expect("kept");
    assert!(is_superseded(store.update_grant(&rotated, found.began(), Some(&lease)).await));
    assert_eq!(token(&store).await.as_deref(), Some("once more"));
}

async fn a_refresh_whose_lease_was_lost_writes_nothing(world: World) {
    let (store, _dir) = store(world);
    store.put_grant(&grant("one"), Expected::Absent).await.expect("kept");
    let late = store.lease_grant(&id("acme"), NO_WAIT, NO_WAIT).await.expect("leased");
    let found = store.grant(&id("acme")).await.expect("read").expect("there");
    let lease = store.lease_grant(&id("acme"), TTL, NO_WAIT).await.expect("the first has expired");
    assert!(lease.fence() > late.fence());
    let held = store.lease_grant(&id("acme"), TTL, NO_WAIT).await.expect_err("held");
    assert!(matches!(held, Error::Held { until_ms } if until_ms > 0), "{held}");
    let by = |token: &str| Credential { refresh_token: token.into(), ..found.value.clone() };
    assert!(is_superseded(store.update_grant(&by("late"), found.began(), Some(&late)).await));
    store.update_grant(&by("two"), found.began(), Some(&lease)).await.expect("its own");
    assert_eq!(token(&store).await.as_deref(), Some("two"));
    drop(lease);
    store.lease_grant(&id("acme"), TTL, TTL).await.expect("free soon");
}

async fn a_write_between_of_the_same_consent_costs_a_refresh_nothing(world: World) {
    let (store, _dir) = store(world);
    store.put_grant(&grant("one"), Expected::Absent).await.expect("kept");
    let lease = store.lease_grant(&id("acme"), TTL, NO_WAIT).await.expect("leased");
    let found = store.grant(&id("acme")).await.expect("read").expect("there");
    let same = store.put_grant(&found.value, Expected::Version(found.version)).await;
    assert_ne!(same.expect("sealed anew"), found.version);
    let rotated = Credential { refresh_token: "two".into(), ..found.value.clone() };
    assert!(is_superseded(store.update_grant(&rotated, found.began(), None).await));
    store.update_grant(&rotated, found.began(), Some(&lease)).await.expect("no obstacle");
    assert_eq!(token(&store).await.as_deref(), Some("two"));
}

async fn a_grant_that_is_moved_while_it_is_refreshed_stays_moved_and_keeps_its_new_token(
    world: World,
) {
    let (store, _dir) = store(world);
    let access = || StoredAccessToken { token: "Atza|x".into(), issued_at: 1, expires_at: 2 };
    for (region, application) in [(Region::Eu, "default"), (Region::Na, "second")] {
        store.put_grant(&grant("one"), Expected::Any).await.expect("kept");
        let lease = store.lease_grant(&id("acme"), TTL, NO_WAIT).await.expect("leased");
        let found = store.grant(&id("acme")).await.expect("read").expect("there");
        let (application, consented_at) = (application.to_owned(), Some(5));
        let moved = Credential { region, application, consented_at, ..found.value.clone() };
        store.put_grant(&moved, Expected::Version(found.version)).await.expect("moved");
        let dead = Credential { reauthorization_required: true, ..found.value.clone() };
        if moved.application != "default" {
            let refused = store.update_grant(&dead, found.began(), Some(&lease)).await;
            assert!(is_superseded(refused), "it was dead where it was before");
        }
        let rotated = Credential {
            refresh_token: "two".into(),
            access_token: Some(access()),
            generation: 2,
            ..found.value.clone()
        };
        store.update_grant(&rotated, found.began(), Some(&lease)).await.expect("no obstacle");
        // An access token is good for its application only.
        let access_token = (moved.application == "default").then(access);
        let refresh_token = "two".into();
        let expected = Credential { refresh_token, access_token, generation: 2, ..moved };
        assert_eq!(store.load(&id("acme")).await.expect("read"), Some(expected));
        drop(lease);
        store.remove_grant(&id("acme"), Expected::Any).await.expect("removed");
    }
}

async fn writers_that_compare_lose_no_write(world: World) {
    const WRITERS: u64 = 4;
    const EACH: u64 = 10;
    let (store, _dir) = store(world);
    store
        .put_grant(&Credential { generation: 0, ..grant("one") }, Expected::Any)
        .await
        .expect("kept");
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for _ in 0..EACH {
                loop {
                    let mut found = store.grant(&id("acme")).await.expect("read").expect("there");
                    found.value.generation += 1;
                    let expected = Expected::Version(found.version);
                    match store.put_grant(&found.value, expected).await {
                        Ok(_) => break,
                        Err(Error::Conflict) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
    }
    writers.join_all().await;
    let found = store.grant(&id("acme")).await.expect("read").expect("there");
    assert_eq!(found.value.generation, WRITERS * EACH);
}

fn item(account: Option<&str>, expires_at_ms: Option<u64>) -> Item {
    Item { account: account.map(id), expires_at_ms, text: "text".into() }
}

async fn there_are_no_more_entries_than_allowed(world: World) {
    let (store, _dir) = store(world);
    let logins = store.entries(Space::Login);
    let limit = Limit { max: 3, now_ms: 100 };
    for name in ["a", "b", "c"] {
        logins.put(name, &item(None, Some(50)), limit).await.expect("kept");
    }
    store.purge_expired(limit.now_ms).await.expect("purged");
    for name in ["d", "e", "f"] {
        logins.put(name, &item(None, Some(500)), limit).await.expect("kept");
    }
    assert_eq!(logins.names().await.expect("listed"), ["d", "e", "f"]);
    let full = logins.put("g", &item(None, Some(500)), limit).await.expect_err("full");
    assert!(matches!(full, Error::Full), "{full}");
    logins.put("d", &item(None, Some(600)), limit).await.expect("in place of itself");
    logins.take("e").await.expect("read").expect("there");
    logins.put("g", &item(None, Some(500)), limit).await.expect("there is room");
}

async fn a_purge_beside_new_entries_lets_no_more_in(world: World) {
    let (store, _dir) = store(world);
    let (logins, limit) = (store.entries(Space::Login), Limit { max: 100, now_ms: 0 });
    let put = async {
        for number in 0..limit.max {
            let name = number.to_string();
            logins.put(&name, &item(None, Some(500)), limit).await.expect("there is room");
        }
    };
    let purge = async {
        loop {
            store.purge_expired(limit.now_ms).await.expect("purged");
        }
    };
    tokio::select! {
        () = put => {}
        () = purge => {}
    }
    let full = logins.put("one more", &item(None, Some(500)), limit).await.expect_err("full");
    assert!(matches!(full, Error::Full), "{full}");
}

async fn what_has_expired_is_purged_and_nothing_else(world: World) {
    let (store, _dir) = store(world);
    let limit = Limit { max: 9, now_ms: 0 };
    let (logins, outbox) = (store.entries(Space::Login), store.entries(Space::Outbox));
    for (name, until) in [("past", 99), ("now", 100), ("soon", 101)] {
        logins.put(name, &item(None, Some(until)), limit).await.expect("kept");
    }
    outbox.put("lasting", &item(None, None), limit).await.expect("kept");
    store.put_grant(&grant("one"), Expected::Any).await.expect("kept");
    store.purge_expired(100).await.expect("purged");
    assert_eq!(logins.names().await.expect("listed"), ["soon"]);
    assert_eq!(outbox.get("lasting").await.expect("read"), Some(item(None, None)));
    assert_eq!(token(&store).await.as_deref(), Some("one"));
    assert!(outbox.delete("lasting").await.expect("deleted"));
    assert!(!outbox.delete("lasting").await.expect("nothing"));
}

async fn entries_of_an_account_go_with_it(world: World) {
    let (store, _dir) = store(world);
    let limit = Limit { max: 9, now_ms: 0 };
    let tickets = store.entries(Space::Ticket);
    for (name, account) in [("a", Some("acme")), ("b", Some("t1~acme")), ("c", None)] {
        tickets.put(name, &item(account, Some(9)), limit).await.expect("kept");
    }
    store.put_grant(&grant("one"), Expected::Any).await.expect("kept");
    store.delete_entries_of(&id("acme")).await.expect("deleted");
    assert_eq!(tickets.names().await.expect("listed"), ["b", "c"]);
    assert_eq!(token(&store).await.as_deref(), Some("one"), "its grant is another matter");
}

async fn a_store_sees_nothing_of_another_stores_seal(world: World) {
    let (store, _dir) = store(world);
    let limit = Limit { max: 9, now_ms: 0 };
    store.entries(Space::Login).put("n", &item(None, Some(9)), limit).await.expect("kept");
    store.put_grant(&grant("CANARY"), Expected::Any).await.expect("kept");
    assert!(!format!("{store:?}").contains("CANARY"));
    assert_eq!(store.entries(Space::Ticket).get("n").await.expect("read"), None);
    assert_eq!(store.grants().await.expect("listed"), [id("acme")]);
    assert_eq!(store.versions().await.expect("listed").len(), 1);
}

#[cfg(feature = "postgres")]
mod of_postgres {
    use super::*;
    use crate::support::postgres::{backend as of_database, database};

    #[test]
    fn three_that_migrate_at_once_share_what_they_made() {
        let Some(database) = database() else { return };
        let backends: Vec<_> = (0..3).map(|_| of_database(&database)).collect();
        assert_eq!(backends[0].get(SPACE, "acme").expect("no table is no entry"), None);
        std::thread::scope(|scope| {
            for backend in &backends {
                scope.spawn(|| backend.prepare().expect("tables are made"));
            }
        });
        backends[0].put(SPACE, "acme", &write(b"1", Expected::Absent)).expect("put");
        assert_eq!(backends[2].get(SPACE, "acme").expect("read").expect("there").bytes, b"1");
        let lease = backends[1].lease(SPACE, "acme", 0, TTL).expect("free");
        assert!(matches!(backends[2].lease(SPACE, "acme", 0, TTL), Err(Error::Held { .. })));
        let late = Write { fence: Some(lease.fence + 1), ..write(b"2", Expected::Any) };
        assert!(is_conflict(backends[2].put(SPACE, "acme", &late)));
        let owner = backends[0].owner().expect("named");
        assert!(backends[1].is_alive(&owner).expect("asked"));
        assert!(!backends[1].is_alive("nobody").expect("asked"));
    }

    #[tokio::test]
    async fn a_thread_of_a_runtime_can_ask_too() {
        let Some((backend, _)) = postgres() else { return };
        backend.put(SPACE, "acme", &write(b"1", Expected::Absent)).expect("put");
        assert_eq!(backend.list(SPACE).expect("listed").len(), 1);
    }

    #[test]
    fn a_database_that_is_not_there_is_an_error_without_its_password() {
        let url = "postgres://u:CANARY@localhost/x?host=/nowhere".to_owned();
        let backend = of_database(&(url, "CANARY'\"".to_owned()));
        let error = backend.get(SPACE, "acme").expect_err("not there");
        assert!(matches!(error, Error::Database { .. }), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("CANARY"), "{shown}");
        assert!(!format!("{backend:?}").contains("u:CANARY"));
    }
}
