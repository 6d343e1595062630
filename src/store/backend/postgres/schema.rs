//! The schema: its numbered migrations, which are part of the program, and which programs may use it.

use super::{Error, Postgres, Schema, connect::PooledClient};
use std::time::Duration;
use tokio_postgres::{Client, error::SqlState};

/// Each makes the schema of its number, its place in this list, out of the one before.
const MIGRATIONS: [Migration; 2] = [
    Migration { sql: include_str!("0001.sql"), min_reader: 1 },
    Migration { sql: include_str!("0002.sql"), min_reader: 1 },
];

struct Migration {
    sql: &'static str,
    /// The number of the newest migration that a program must know to use the schema: programs from
    /// before a migration that only adds may go on beside newer ones.
    min_reader: i64,
}

/// The schema that this program makes and knows.
const KNOWN: i64 = MIGRATIONS.len() as i64;
/// One migration at a time, whatever the schema: released with its transaction.
const LOCK: i64 = 0x6164_7370_726f_7879;
/// A large table is rewritten, or another migrates.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Says which migrations were run.
const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS {schema}.schema_version (
  version bigint PRIMARY KEY,
  min_reader bigint NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now())";

/// What a transaction of another cluster has written, from which the rows were restored, would
/// count as changed for ever.
const FOREIGN: [&str; 2] = [
    "UPDATE {schema}.entries SET changed_by = pg_current_xact_id()
     WHERE changed_by > pg_current_xact_id()",
    "DELETE FROM {schema}.deletions WHERE changed_by > pg_current_xact_id()",
];

/// A schema as it is: the version that it has, and the least that a program must know.
#[derive(Clone, Copy)]
struct Found {
    version: i64,
    min_reader: i64,
}

impl Postgres {
    /// Sees to it that the schema can be used: makes it, or what it lacks, if the role may.
    pub(super) fn prepare_schema(&self) -> Result<(), Error> {
        let found = self.find()?;
        if found.version < KNOWN {
            // Others may migrate at the same time, which is safe.
            self.migrate_schema().map_err(|error| self.explain(found.version, error))?;
        }
        self.check(found)
    }

    /// Runs the migrations that are missing, and returns the version from before. Safe where several
    /// do so at once.
    ///
    /// # Errors
    /// `SchemaTooNew`; `Database` above all if the role may not.
    pub(super) fn migrate_schema(&self) -> Result<Schema, Error> {
        let found = self.find()?;
        self.check(found)?;
        let inner = self.inner.clone();
        self.wait(TIMEOUT, async move {
            let work = async |mut connected: PooledClient| {
                let done = migrate(&mut connected.client, |sql| inner.of_schema(sql)).await;
                (connected, done)
            };
            inner.connections.with(work).await
        })?;
        Ok(self.describe(found))
    }

    pub(super) fn describe_schema(&self) -> Result<Schema, Error> {
        let found = self.find()?;
        self.check(found)?;
        Ok(self.describe(found))
    }

    fn describe(&self, Found { version, .. }: Found) -> Schema {
        Schema { name: self.inner.name.clone(), version, known: KNOWN }
    }

    /// The schema as it is; version 0 where there is none.
    fn find(&self) -> Result<Found, Error> {
        let newest = "SELECT max(version), max(min_reader) FROM {schema}.schema_version";
        let row = self.first(self.rows(newest, [])?);
        let number = |column| row.as_ref().and_then(|row| row.get::<_, Option<i64>>(column));
        Ok(Found { version: number(0).unwrap_or(0), min_reader: number(1).unwrap_or(0) })
    }

    fn check(&self, Found { version, min_reader }: Found) -> Result<(), Error> {
        match min_reader > KNOWN {
            true => {
                Err(Error::SchemaTooNew { name: self.inner.name.clone(), version, known: KNOWN })
            }
            false => Ok(()),
        }
    }

    /// A role that may not make what is missing is no failure of the database.
    fn explain(&self, version: i64, error: Error) -> Error {
        let state = match version {
            0 => "has no tables of adsproxy".to_owned(),
            version => format!("is of version {version}, and this adsproxy needs {KNOWN}"),
        };
        let name = self.inner.name.clone();
        match error {
            Error::Database { source } if is(&source, &SqlState::INSUFFICIENT_PRIVILEGE) => {
                Error::SchemaMissing { name, state, source }
            }
            other => other,
        }
    }
}

/// Says whether the database has answered with `state`.
pub(super) fn is(source: &std::io::Error, state: &SqlState) -> bool {
    let of_driver = source.get_ref().and_then(|it| it.downcast_ref::<tokio_postgres::Error>());
    of_driver.and_then(tokio_postgres::Error::code) == Some(state)
}

/// Runs what is missing in one transaction. What was found before may be another's work by now.
async fn migrate(
    client: &mut Client,
    of_schema: impl Fn(&str) -> String,
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let run = async |sql: &str| transaction.batch_execute(&of_schema(sql)).await;
    run(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    // Who owns the schema need not be one that may make schemas.
    let is_there = of_schema("SELECT FROM pg_namespace WHERE nspname = {name}");
    if transaction.query_typed(&is_there, &[]).await?.is_empty() {
        run("CREATE SCHEMA {schema}").await?;
    }
    run(VERSIONS).await?;
    let newest = of_schema("SELECT coalesce(max(version), 0) FROM {schema}.schema_version");
    let version: i64 = transaction.query_typed(&newest, &[]).await?[0].get(0);
    for (number, Migration { sql, min_reader }) in (1_i64..).zip(&MIGRATIONS) {
        if number > version {
            run(sql).await?;
            let row =
                format!("INSERT INTO {{schema}}.schema_version VALUES ({number}, {min_reader})");
            run(&row).await?;
        }
    }
    for sql in FOREIGN {
        run(sql).await?;
    }
    transaction.commit().await
}
