//! Writes of entries: one statement each, whatever it expects to find.

use super::{
    Error, Expected, Parameter, Postgres, ReplacedMark, Row, Type, Version, Write, number, text,
    unsigned,
};

const INSERT: &str = "INSERT INTO {schema}.entries (space, key, bytes, expires_at_ms, version)
    VALUES ($1, $2, $3, $4, nextval({numbers}))";
const UPDATE: &str = "UPDATE {schema}.entries
    SET bytes = $3, expires_at_ms = $4, version = nextval({numbers}),
      lease_until = CASE WHEN $6::bigint IS NULL THEN lease_until END
    WHERE space = $1 AND key = $2
      AND ($5::bigint IS NULL OR version = $5) AND ($6::bigint IS NULL OR fence = $6)";

impl Postgres {
    /// Writes an entry if it is as `write` expects, and its mark with it, if there is one.
    pub(super) fn write(
        &self,
        space: &str,
        key: &str,
        write: &Write<'_>,
        mark: Option<&[u8]>,
    ) -> Result<Version, Error> {
        let notify = self.inner.notify(space, key);
        let of_entry = [text(space), text(key), bytes(write.bytes), number(write.expires_at_ms)];
        let rows = match (write.expected, write.fence) {
            (Expected::Any, None) => {
                let statement = format!(
                    "{INSERT} ON CONFLICT (space, key) DO UPDATE SET bytes = excluded.bytes,
                     expires_at_ms = excluded.expires_at_ms, version = excluded.version
                     RETURNING version{notify}"
                );
                self.marked(&statement, of_entry, mark)
            }
            (Expected::Absent, None) => {
                let statement =
                    format!("{INSERT} ON CONFLICT DO NOTHING RETURNING version{notify}");
                self.marked(&statement, of_entry, mark)
            }
            // What is not there has no lease.
            (Expected::Absent, Some(_)) => return Err(Error::Conflict),
            (expected, fence) => {
                let version = match expected {
                    Expected::Version(version) => Some(version.0),
                    _ => None,
                };
                let [space, key, bytes, expires] = of_entry;
                let parameters = [space, key, bytes, expires, number(version), number(fence)];
                self.marked(&format!("{UPDATE} RETURNING version{notify}"), parameters, mark)
            }
        };
        let row = self.first(rows?).ok_or(Error::Conflict)?;
        if let Some(fence) = write.fence {
            self.inner.leases.lock().end((space, key), fence);
        }
        Ok(Version(unsigned(row.get(0))))
    }

    /// Runs a statement that writes an entry and returns its version; with it the mark is written,
    /// where the entry is.
    fn marked<const N: usize>(
        &self,
        statement: &str,
        parameters: [Parameter; N],
        mark: Option<&[u8]>,
    ) -> Result<Vec<Row>, Error> {
        let Some(mark) = mark else { return self.rows(statement, parameters) };
        let statement = format!(
            "WITH written AS ({statement}), marked AS (
               INSERT INTO {{schema}}.marks SELECT $2, ${} FROM written
               ON CONFLICT (key) DO UPDATE SET bytes = excluded.bytes)
             SELECT version FROM written",
            N + 1
        );
        let mut parameters = Vec::from(parameters);
        parameters.push(bytes(mark));
        self.rows_of(&statement, parameters)
    }

    /// Replaces marks that still are what they were; a refresh may have written another meanwhile.
    pub(super) fn rewrite_marks(&self, changes: Vec<ReplacedMark>) -> Result<usize, Error> {
        let statement = "UPDATE {schema}.marks SET bytes = given.bytes
            FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS given (key, before, bytes)
            WHERE marks.key = given.key AND marks.bytes = given.before RETURNING marks.key";
        let (mut keys, mut before, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for change in changes {
            keys.push(change.key);
            before.push(change.before);
            bytes.push(change.bytes);
        }
        let keys: Parameter = (Box::new(keys), Type::TEXT_ARRAY);
        let [before, bytes]: [Parameter; 2] =
            [before, bytes].map(|all| (Box::new(all) as _, Type::BYTEA_ARRAY));
        Ok(self.rows(statement, [keys, before, bytes])?.len())
    }
}

fn bytes(bytes: &[u8]) -> Parameter {
    (Box::new(bytes.to_vec()), Type::BYTEA)
}
