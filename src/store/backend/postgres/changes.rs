//! What has changed in a space since the last look: rows written since, and notes of rows that went.
//!
//! Each row has the id of the transaction that wrote it. A plain sequence would not do: a number is
//! given when a transaction writes, and seen when it commits. One that commits late shows a number
//! below others that were seen already, and a follower that goes on from the highest would never
//! read it. So a look returns, with its rows, the oldest transaction that was still under way: all
//! before it have ended, and their rows were seen. The next look goes on from there. It may see a row
//! twice, which its version shows, and never misses one.

use super::{Error, Postgres, RawEntry, SeenEntries, Type, Version, text, unsigned};
use crate::store::backend::seen::LookEnd;
use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// How long a look may go on from the one before. A failover that lost transactions gives their
/// numbers to others, and a pooler may hide it.
const LISTED_EVERY: Duration = Duration::from_secs(600);
/// How long notes of rows that went are kept: longer than any look goes on from another.
pub(super) const DELETIONS_KEPT: &str = "1 hour";

/// The oldest transaction under way: the same in a statement as what its rows are read by.
const OLDEST: &str =
    "(SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS at) AS oldest";

impl Postgres {
    pub(super) fn look(&self, space: &str, seen: &mut SeenEntries) -> Result<Vec<String>, Error> {
        // Before the look: one that is lost meanwhile counts for the next.
        let losses = self.inner.connections.losses.load(Relaxed);
        seen.brought = HashMap::new();
        if let Some(end) = seen.end
            && end.losses == losses
            && end.listed.elapsed() < LISTED_EVERY
        {
            let (at, changes) = self.changes_since(space, end.at, seen.wants_entries)?;
            // A database that is behind is another one than before.
            if let Some(at) = at.filter(|at| *at >= end.at) {
                seen.end = Some(LookEnd { at, ..end });
                let mut versions = BTreeMap::new();
                for (key, entry) in changes {
                    let Some(entry) = entry else {
                        versions.insert(key, None);
                        continue;
                    };
                    versions.insert(key.clone(), Some(entry.version));
                    let is_new = seen.versions.get(&key) != Some(entry.version);
                    if seen.wants_entries && is_new {
                        seen.brought.insert(key, entry);
                    }
                }
                return Ok(seen.apply(&versions));
            }
        }
        let listed = Instant::now();
        let (at, all) = self.whole(space)?;
        seen.end = at.map(|at| LookEnd { at, losses, listed });
        let versions = all.into_iter().filter_map(|(key, entry)| Some((key, entry?.version)));
        Ok(seen.replace(versions.collect()))
    }

    fn whole(&self, space: &str) -> Result<Looked, Error> {
        let statement = format!(
            "SELECT oldest.at, entries.key, entries.version, NULL::bytea, NULL::bigint FROM {OLDEST}
             LEFT JOIN {{schema}}.entries ON space = $1"
        );
        Ok(looked(&self.rows(&statement, [text(space)])?))
    }

    fn changes_since(&self, space: &str, at: u64, with_bytes: bool) -> Result<Looked, Error> {
        let bytes = if with_bytes { "bytes" } else { "NULL::bytea" };
        let statement = format!(
            "SELECT oldest.at, changes.* FROM {OLDEST} LEFT JOIN (
               SELECT key, version, {bytes}, expires_at_ms FROM {{schema}}.entries
               WHERE space = $1 AND changed_by >= $2::xid8
               UNION ALL
               SELECT key, NULL, NULL, NULL FROM {{schema}}.deletions AS gone
               WHERE space = $1 AND changed_by >= $2::xid8 AND NOT EXISTS (
                 SELECT FROM {{schema}}.entries
                 WHERE entries.space = gone.space AND entries.key = gone.key)
             ) AS changes ON true"
        );
        let at = (Box::new(at.to_string()) as _, Type::TEXT);
        Ok(looked(&self.rows(&statement, [text(space), at])?))
    }
}

/// Where the next look goes on, none if there is no table yet; and keys with their entries, whose
/// bytes may be left out.
type Looked = (Option<u64>, Vec<(String, Option<RawEntry>)>);

fn looked(rows: &[super::Row]) -> Looked {
    let at = rows.first().map(|row| unsigned(row.get(0)));
    let changes = rows.iter().filter_map(|row| {
        let entry = row.get::<_, Option<i64>>(2).map(|version| RawEntry {
            version: Version(unsigned(version)),
            bytes: row.get::<_, Option<Vec<u8>>>(3).unwrap_or_default(),
            expires_at_ms: row.get::<_, Option<i64>>(4).map(unsigned),
        });
        Some((row.get::<_, Option<String>>(1)?, entry))
    });
    (at, changes.collect())
}
