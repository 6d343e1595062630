//! The audit log as a table: rows are added, and not changed; the oldest may be removed.

use super::{
    super::shared_log::{LINES_PAGE, LoggedLine, SharedLog},
    Error, Parameter, Postgres, number, text, unsigned,
};
use tokio_postgres::{Row, types::Type};

impl Postgres {
    fn lines<const N: usize>(
        &self,
        condition: &str,
        parameters: [Parameter; N],
    ) -> Result<Vec<LoggedLine>, Error> {
        let statement = format!(
            "SELECT place, chain, number, line FROM {{schema}}.audit WHERE {condition} LIMIT {LINES_PAGE}"
        );
        Ok(self.rows(&statement, parameters)?.iter().map(logged).collect())
    }
}

/// From the columns place, chain, number, line.
fn logged(row: &Row) -> LoggedLine {
    LoggedLine {
        place: unsigned(row.get(0)),
        chain: row.get(1),
        number: unsigned(row.get(2)),
        text: row.get(3),
    }
}

impl SharedLog for Postgres {
    fn append(&self, chain: &str, first: u64, lines: Vec<String>) -> Result<(), Error> {
        let statement = "INSERT INTO {schema}.audit (chain, number, line)
            SELECT $1, $2 + row - 1, line
            FROM unnest($3::text[]) WITH ORDINALITY AS given (line, row) ORDER BY row";
        let lines: Parameter = (Box::new(lines), Type::TEXT_ARRAY);
        self.rows(statement, [text(chain), number(Some(first)), lines]).map(drop)
    }

    fn chains(&self) -> Result<Vec<String>, Error> {
        let statement = "SELECT chain FROM {schema}.audit GROUP BY chain ORDER BY min(place)";
        Ok(self.rows(statement, [])?.iter().map(|row| row.get(0)).collect())
    }

    fn of_chain(&self, chain: &str, after: u64) -> Result<Vec<LoggedLine>, Error> {
        let condition = "chain = $1 AND number > $2 ORDER BY number";
        self.lines(condition, [text(chain), number(Some(after))])
    }

    fn last_of_chain(&self, chain: &str) -> Result<Option<(u64, String)>, Error> {
        let statement = "SELECT number, line FROM {schema}.audit WHERE chain = $1
                         ORDER BY number DESC LIMIT 1";
        let row = self.first(self.rows(statement, [text(chain)])?);
        Ok(row.map(|row| (unsigned(row.get(0)), row.get(1))))
    }

    fn before(&self, place: Option<u64>) -> Result<Vec<LoggedLine>, Error> {
        self.lines("$1::bigint IS NULL OR place < $1 ORDER BY place DESC", [number(place)])
    }

    fn after(&self, place: u64) -> Result<Vec<LoggedLine>, Error> {
        self.lines("place > $1 ORDER BY place", [number(Some(place))])
    }

    fn first_of_each(&self, chains: &[String]) -> Result<Vec<LoggedLine>, Error> {
        let statement = "SELECT first.* FROM unnest($1::text[]) AS given (name), LATERAL (
              SELECT place, chain, number, line FROM {schema}.audit WHERE chain = given.name
              ORDER BY number LIMIT 1) AS first";
        let chains: Parameter = (Box::new(chains.to_vec()), Type::TEXT_ARRAY);
        Ok(self.rows(statement, [chains])?.iter().map(logged).collect())
    }

    fn may_remove(&self) -> Result<Option<u64>, Error> {
        // A server whose clock is ahead must not take all for old.
        let statement = "SELECT (extract(epoch FROM now()) * 1000)::bigint FROM pg_class
                         JOIN pg_namespace ON pg_namespace.oid = relnamespace
                         WHERE nspname = {name} AND relname = 'audit'
                         AND has_table_privilege(pg_class.oid, 'DELETE')";
        let row = self.first(self.rows(statement, [])?);
        Ok(row.map(|row| unsigned(row.get(0))))
    }

    fn remove(&self, chain: &str, through: u64) -> Result<u64, Error> {
        let statement =
            "WITH gone AS (DELETE FROM {schema}.audit WHERE chain = $1 AND number <= $2 RETURNING 1)
             SELECT count(*) FROM gone";
        let row = self.first(self.rows(statement, [text(chain), number(Some(through))])?);
        Ok(row.map_or(0, |row| unsigned(row.get(0))))
    }
}
