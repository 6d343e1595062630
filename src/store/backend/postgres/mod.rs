//! Keeps entries in a table of PostgreSQL, which several servers share.
//!
//! Each method is one statement, typed and unnamed, so that a pooler may give it any connection; the
//! database's clock alone says when a lease ends. The statements run on a thread of their own: who
//! calls may be on any thread, of a runtime or not.

mod changes;
pub(super) mod connect;
mod leases;
mod lines;
mod listen;
mod schema;
mod write;

use super::{
    Backend, Error, Expected, Granted, Hints, LeaseClaim, Listed, RawEntry, ReplacedMark, Schema,
    SeenEntries, SharedLog, Version, Write, random,
};
use crate::config::StoreConfig;
use connect::{DatabasePool, PooledClient, failed, unreachable};
use leases::OwnLeases;
use listen::ChangeListener;
use parking_lot::Mutex;
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{ToSql, Type},
};

/// A database that does not respond must not hang the proxy.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// A backend of rows.
pub struct Postgres {
    inner: Arc<Statements>,
    runtime: Handle,
    owner: OnceLock<String>,
    /// Ends the thread when it is dropped.
    _stop: oneshot::Sender<()>,
}

struct Statements {
    connections: DatabasePool,
    /// Of the schema.
    name: String,
    /// Before, a table that is missing is one without entries.
    is_prepared: AtomicBool,
    leases: Mutex<OwnLeases>,
    /// When this process began to give the newest sign of life that the database has taken.
    signed_at: Mutex<Option<Instant>>,
    listener: Option<ChangeListener>,
}

/// The database's connection settings hold a password.
impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("schema", &self.inner.name).finish_non_exhaustive()
    }
}

type Parameter = (Box<dyn ToSql + Send + Sync>, Type);

fn text(text: &str) -> Parameter {
    (Box::new(text.to_owned()), Type::TEXT)
}

fn number(number: Option<u64>) -> Parameter {
    (Box::new(number.map(signed)), Type::INT8)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Postgres {
    /// Judges the settings; connects with the first statement.
    ///
    /// # Errors
    /// `Database` if URL or CA cannot be used, `Io` if no thread can be had.
    pub fn open(store: &StoreConfig) -> Result<Self, Error> {
        let (connections, name) = (DatabasePool::new(store)?, store.schema.clone());
        let (is_prepared, leases, signed_at) =
            (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let listener = ChangeListener::new(store)?;
        let inner = Statements { connections, name, is_prepared, leases, signed_at, listener };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(failed)?;
        let (handle, (stop, stopped)) = (runtime.handle().clone(), oneshot::channel::<()>());
        let run = move || drop(runtime.block_on(stopped));
        thread::Builder::new().name("store".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { inner: Arc::new(inner), runtime: handle, owner: OnceLock::new(), _stop: stop })
    }

    /// Runs a statement, in which `{schema}` is the schema.
    fn rows<const N: usize>(
        &self,
        statement: &str,
        parameters: [Parameter; N],
    ) -> Result<Vec<Row>, Error> {
        self.rows_of(statement, parameters.into())
    }

    fn rows_of(&self, statement: &str, parameters: Vec<Parameter>) -> Result<Vec<Row>, Error> {
        let inner = self.inner.clone();
        let statement = inner.of_schema(statement);
        self.wait(STATEMENT_TIMEOUT, async move { inner.rows(&statement, &parameters).await })
    }

    /// Waits on this thread for `work` on that of the backend: no matter which runtime, if any, this
    /// thread belongs to.
    fn wait<T: Send + 'static>(
        &self,
        timeout: Duration,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let worked = tokio::time::timeout(timeout, work).await;
            let late = || Err(unreachable("it did not respond in time"));
            let _ = done.send(worked.unwrap_or_else(|_| late()));
        });
        result.recv().unwrap_or_else(|_| Err(unreachable("its thread has ended")))
    }

    fn first(&self, rows: Vec<Row>) -> Option<Row> {
        rows.into_iter().next()
    }
}

impl Statements {
    /// A statement with the names of the schema: `{schema}` quoted, `{name}` and `{numbers}`, its
    /// sequence, as texts.
    fn of_schema(&self, statement: &str) -> String {
        let schema = format!("\"{}\"", self.name.replace('"', "\"\""));
        let text = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let numbers = text(&format!("{schema}.numbers"));
        let statement = statement.replace("{name}", &text(&self.name));
        statement.replace("{numbers}", &numbers).replace("{schema}", &schema)
    }

    async fn rows(&self, statement: &str, parameters: &[Parameter]) -> Result<Vec<Row>, Error> {
        let work = async |connected: PooledClient| {
            let typed: Vec<(&(dyn ToSql + Sync), Type)> =
                parameters.iter().map(|(value, of)| (&**value as _, of.clone())).collect();
            let done = connected.client.query_typed(statement, &typed).await;
            (connected, done)
        };
        let is_missing = |error: &Error| {
            let states = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
            let Error::Database { source } = error else { return false };
            states.iter().any(|state| schema::is(source, state))
        };
        match self.connections.with(work).await {
            Err(error) if is_missing(&error) && !self.is_prepared.load(Relaxed) => Ok(Vec::new()),
            done => done,
        }
    }
}

/// From the columns bytes, version, `expires_at_ms`.
fn entry(row: &Row) -> RawEntry {
    RawEntry {
        bytes: row.get(0),
        version: Version(unsigned(row.get(1))),
        expires_at_ms: row.get::<_, Option<i64>>(2).map(unsigned),
    }
}

/// The space whose entries have marks.
const MARKED: &str = "accounts";

impl Backend for Postgres {
    fn prepare(&self) -> Result<(), Error> {
        self.prepare_schema()?;
        self.inner.is_prepared.store(true, Relaxed);
        Ok(())
    }

    fn get(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error> {
        let statement = "SELECT bytes, version, expires_at_ms FROM {schema}.entries
                         WHERE space = $1 AND key = $2";
        let rows = self.rows(statement, [text(space), text(key)])?;
        Ok(self.first(rows).as_ref().map(entry))
    }

    fn get_all(&self, space: &str, keys: &[&str]) -> Result<Vec<(String, RawEntry)>, Error> {
        let statement = "SELECT bytes, version, expires_at_ms, key FROM {schema}.entries
                         WHERE space = $1 AND key = ANY($2)";
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        let rows = self.rows(statement, [text(space), (Box::new(keys) as _, Type::TEXT_ARRAY)])?;
        Ok(rows.iter().map(|row| (row.get(3), entry(row))).collect())
    }

    fn put(&self, space: &str, key: &str, write: &Write<'_>) -> Result<Version, Error> {
        self.write(space, key, write, None)
    }

    fn keeps_marks(&self) -> bool {
        true
    }

    fn put_marked(
        &self,
        space: &str,
        key: &str,
        write: &Write<'_>,
        mark: &[u8],
    ) -> Result<Version, Error> {
        self.write(space, key, write, Some(mark))
    }

    fn marks(&self, only: Option<&str>) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let statement = "SELECT key, bytes FROM {schema}.marks
                         WHERE $1::text IS NULL OR key = $1 ORDER BY key";
        let only: Parameter = (Box::new(only.map(str::to_owned)), Type::TEXT);
        let rows = self.rows(statement, [only])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    fn replace_marks(&self, changes: Vec<ReplacedMark>) -> Result<usize, Error> {
        self.rewrite_marks(changes)
    }

    fn take(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error> {
        let statement = "DELETE FROM {schema}.entries WHERE space = $1 AND key = $2
                         RETURNING bytes, version, expires_at_ms";
        let rows = self.rows(statement, [text(space), text(key)])?;
        Ok(self.first(rows).as_ref().map(entry))
    }

    fn delete(&self, space: &str, key: &str, expected: Expected) -> Result<bool, Error> {
        let version = match expected {
            Expected::Any => None,
            Expected::Version(version) => Some(version.0),
            Expected::Absent => {
                return self.get(space, key)?.map_or(Ok(false), |_| Err(Error::Conflict));
            }
        };
        let notify = self.inner.notify(space, key);
        let delete = format!(
            "DELETE FROM {{schema}}.entries WHERE space = $1 AND key = $2
             AND ($3::bigint IS NULL OR version = $3) RETURNING version{notify}"
        );
        let statement = match space == MARKED {
            true => format!(
                "WITH gone AS ({delete}), forgotten AS (
                   DELETE FROM {{schema}}.marks WHERE key = $2 AND EXISTS (SELECT FROM gone))
                 SELECT version FROM gone"
            ),
            false => delete,
        };
        let rows = self.rows(&statement, [text(space), text(key), number(version)])?;
        match (rows.is_empty(), expected) {
            (true, Expected::Version(_)) => Err(Error::Conflict),
            (is_none, _) => Ok(!is_none),
        }
    }

    fn list(&self, space: &str) -> Result<Vec<Listed>, Error> {
        let statement = "SELECT key, version, expires_at_ms FROM {schema}.entries
                         WHERE space = $1 ORDER BY key";
        let listed = |row: &Row| Listed {
            key: row.get(0),
            version: Version(unsigned(row.get(1))),
            expires_at_ms: row.get::<_, Option<i64>>(2).map(unsigned),
        };
        Ok(self.rows(statement, [text(space)])?.iter().map(listed).collect())
    }

    fn has_own_clock(&self) -> bool {
        true
    }

    fn lease(&self, space: &str, key: &str, now_ms: u64, ttl: Duration) -> Result<Granted, Error> {
        match self.take_leases(space, &[key], now_ms, ttl)?.pop() {
            Some((_, LeaseClaim::Granted(granted, _))) => Ok(granted),
            Some((_, LeaseClaim::Held { until_ms })) => Err(Error::Held { until_ms }),
            None => Err(Error::Conflict),
        }
    }

    fn claim(
        &self,
        space: &str,
        keys: &[&str],
        now_ms: u64,
        ttl: Duration,
    ) -> Result<Vec<(String, LeaseClaim)>, Error> {
        self.take_leases(space, keys, now_ms, ttl)
    }

    fn ends_leases(&self) -> bool {
        true
    }

    fn hints(&self) -> Hints {
        self.listen()
    }

    fn prove_hints(&self) -> Option<Result<(), Error>> {
        self.prove_listener()
    }

    fn release(&self, space: &str, key: &str, fence: u64) -> Result<(), Error> {
        self.end_lease(space, key, fence)
    }

    fn owner(&self) -> Result<String, Error> {
        self.register_owner()
    }

    fn shared_log(&self) -> Option<&dyn SharedLog> {
        Some(self)
    }

    fn is_alive(&self, owner: &str) -> Result<bool, Error> {
        let statement = "SELECT FROM {schema}.owners WHERE name = $1 AND alive_until >= now()";
        Ok(!self.rows(statement, [text(owner)])?.is_empty())
    }

    /// An owner that was silent for a while may have been cut off: it is no longer asked, and comes
    /// back with its next sign.
    fn live(&self, space: &str) -> Result<Vec<RawEntry>, Error> {
        let statement =
            "WITH gone AS (DELETE FROM {schema}.entries WHERE space = $1 AND NOT EXISTS (
              SELECT FROM {schema}.owners WHERE name = key))
            SELECT bytes, version, expires_at_ms FROM {schema}.entries
            JOIN {schema}.owners ON name = key WHERE space = $1 AND alive_until >= now()";
        Ok(self.rows(statement, [text(space)])?.iter().map(entry).collect())
    }

    fn purge(&self, space: &str, now_ms: u64) -> Result<usize, Error> {
        let statement = "DELETE FROM {schema}.entries
                         WHERE space = $1 AND expires_at_ms <= $2 RETURNING version";
        Ok(self.rows(statement, [text(space), number(Some(now_ms))])?.len())
    }

    fn changes(&self, space: &str, seen: &mut SeenEntries) -> Result<Vec<String>, Error> {
        self.look(space, seen)
    }

    fn migrate(&self) -> Result<Option<Schema>, Error> {
        self.migrate_schema().map(Some)
    }

    fn schema(&self) -> Result<Option<Schema>, Error> {
        self.describe_schema().map(Some)
    }
}
