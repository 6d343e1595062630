//! Leases, and the signs of life of their owners.
//!
//! A statement without a response may still have an effect: a lease that was given up may be granted
//! later, and one that was ended not be ended. So this process keeps what it holds, takes over what it
//! only seems to hold, and ends late what it could not end.

use super::{
    Error, Granted, LeaseClaim, Parameter, Postgres, Row, STATEMENT_TIMEOUT, Statements,
    changes::DELETIONS_KEPT, entry, number, random, text, unsigned,
};
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_postgres::types::Type;

/// An owner counts as alive for this long after its last sign.
const OWNER_LIFETIME: &str = "60 seconds";
/// The leases of one that was silent for longer than the difference to that are over: it was killed,
/// or stalls.
const OWNER_LEASES: &str = "50 seconds";
const OWNER_SIGN: Duration = Duration::from_secs(2);
/// One whose last sign is older gives another before it takes a lease: the database was away, or the
/// process stood still, and others would take the lease at once.
const OWNER_SIGN_OLD: Duration = Duration::from_secs(5);
/// An owner that was silent for this long does not come back.
const OWNER_GONE: &str = "1 day";

/// One that is new here and ours in the database is not held: we gave up waiting for it ($5). A row that
/// another transaction works on is not waited for: all that does is leased, or about to be written.
///
/// Owners are seen as they were when the statement began, but a row as it is when it is locked. So an
/// owner counts as silent only for the very lease that was seen with it (`seen`): one that has just
/// started, or given a sign, and leased the row meanwhile would not be seen, and its lease be taken.
const LEASE: &str = "WITH free AS (
      SELECT key FROM {schema}.entries WHERE space = $1 AND key = ANY ($2)
        AND (lease_until IS NULL OR lease_until <= clock_timestamp()
          OR lease_owner = $3 AND key = ANY ($5)
          OR EXISTS (
            SELECT FROM {schema}.entries seen JOIN {schema}.owners ON name = seen.lease_owner
            WHERE seen.space = $1 AND seen.key = entries.key AND seen.fence = entries.fence
              AND alive_until <= clock_timestamp() + $6::text::interval))
      FOR UPDATE SKIP LOCKED),
    leased AS (
      UPDATE {schema}.entries SET fence = nextval({numbers}), lease_owner = $3,
        lease_until = clock_timestamp() + $4 * interval '1 millisecond'
      FROM free WHERE entries.space = $1 AND entries.key = free.key
      RETURNING entries.key, fence, bytes, version, expires_at_ms)
    SELECT bytes, version, expires_at_ms, key, fence, NULL::bigint FROM leased
    UNION ALL
    SELECT NULL, NULL, NULL, key, NULL,
      (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint
    FROM {schema}.entries
    WHERE space = $1 AND key = ANY ($2) AND key NOT IN (SELECT key FROM leased)";
const RELEASE: &str = "UPDATE {schema}.entries SET lease_until = NULL
                       WHERE space = $1 AND key = $2 AND fence = $3";

/// The leases of this process.
#[derive(Debug, Default)]
pub(super) struct OwnLeases {
    /// By space and key the fences of those that it has; 0 of one that it has asked for.
    held: HashMap<(String, String), u64>,
    /// Those whose end the database did not learn of.
    unreleased: Vec<(String, String, u64)>,
}

impl OwnLeases {
    /// Ends the lease, if it has this fence.
    pub(super) fn end(&mut self, (space, key): (&str, &str), fence: u64) {
        let lease = (space.to_owned(), key.to_owned());
        if self.held.get(&lease) == Some(&fence) {
            self.held.remove(&lease);
        }
    }

    /// Notes that the keys are asked for; returns those that were not held or asked for before.
    fn ask<'a>(&mut self, space: &str, keys: &[&'a str]) -> Vec<&'a str> {
        let mut ask = |key: &str| match self.held.entry((space.to_owned(), key.to_owned())) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(0);
                true
            }
        };
        keys.iter().copied().filter(|key| ask(key)).collect()
    }

    /// Notes what was granted, and that nothing else of what was `asked` for was.
    fn granted(&mut self, space: &str, asked: &[&str], claims: &[(String, LeaseClaim)]) {
        for (key, claim) in claims {
            if let LeaseClaim::Granted(granted, _) = claim {
                self.held.insert((space.to_owned(), key.clone()), granted.fence);
            }
        }
        for key in asked {
            let lease = (space.to_owned(), (*key).to_owned());
            if self.held.get(&lease) == Some(&0) {
                self.held.remove(&lease);
            }
        }
    }
}

impl Postgres {
    /// `now_ms` is for the result only: by it the caller knows the deadline on its own clock.
    pub(super) fn take_leases(
        &self,
        space: &str,
        keys: &[&str],
        now_ms: u64,
        ttl: Duration,
    ) -> Result<Vec<(String, LeaseClaim)>, Error> {
        let owner = self.register_owner()?;
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
        let asked = self.inner.leases.lock().ask(space, keys);
        let parameters = [text(space), texts(keys), text(&owner), number(Some(ttl)), texts(&asked)];
        let [one, two, three, four, five] = parameters;
        let rows = self.rows(LEASE, [one, two, three, four, five, text(OWNER_LEASES)]);
        let claims = rows.map(|rows| rows.iter().map(|row| claim(row, now_ms, ttl)).collect());
        let granted = claims.as_ref().map_or(&[][..], Vec::as_slice);
        self.inner.leases.lock().granted(space, &asked, granted);
        claims
    }

    pub(super) fn end_lease(&self, space: &str, key: &str, fence: u64) -> Result<(), Error> {
        self.inner.leases.lock().end((space, key), fence);
        let release = format!("{RELEASE} RETURNING fence{}", self.inner.notify(space, key));
        let released = self.rows(&release, [text(space), text(key), number(Some(fence))]);
        if released.is_err() {
            let unreleased = (space.to_owned(), key.to_owned(), fence);
            self.inner.leases.lock().unreleased.push(unreleased);
        }
        released.map(drop)
    }

    /// Gives a sign of life where the last is old or there is none; returns the owner's name.
    pub(super) fn register_owner(&self) -> Result<String, Error> {
        let is_fresh = |at: Instant| at.elapsed() < OWNER_SIGN_OLD;
        let signed_at = *self.inner.signed_at.lock();
        if let (Some(owner), true) = (self.owner.get(), signed_at.is_some_and(is_fresh)) {
            return Ok(owner.clone());
        }
        let name = match self.owner.get() {
            Some(owner) => owner.clone(),
            None => random_name()?,
        };
        let (inner, owner) = (self.inner.clone(), name.clone());
        self.wait(STATEMENT_TIMEOUT, async move { inner.sign(&owner).await })?;
        if self.owner.set(name.clone()).is_ok() {
            let inner = Arc::downgrade(&self.inner);
            self.runtime.spawn(async move {
                while let Some(inner) = inner.upgrade() {
                    // The next sign comes soon, and others wait for several.
                    if inner.sign(&name).await.is_ok() {
                        inner.release_late().await;
                    }
                    drop(inner);
                    tokio::time::sleep(OWNER_SIGN).await;
                }
            });
        }
        Ok(self.owner.get().expect("it was set").clone())
    }
}

fn random_name() -> Result<String, Error> {
    let mut name = String::with_capacity(32);
    for byte in random::<16>()?.iter() {
        write!(name, "{byte:02x}").expect("writing to a String cannot fail");
    }
    Ok(name)
}

fn texts(texts: &[&str]) -> Parameter {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    (Box::new(texts), Type::TEXT_ARRAY)
}

fn claim(row: &Row, now_ms: u64, ttl: u64) -> (String, LeaseClaim) {
    let claim = match row.get::<_, Option<i64>>(4) {
        Some(fence) => {
            let (fence, until_ms) = (unsigned(fence), now_ms.saturating_add(ttl));
            LeaseClaim::Granted(Granted { fence, until_ms }, Some(entry(row)))
        }
        // Another was faster by less than a statement where there is no time left.
        None => {
            let left = unsigned(row.get::<_, Option<i64>>(5).unwrap_or(0));
            LeaseClaim::Held { until_ms: now_ms.saturating_add(left) }
        }
    };
    (row.get(3), claim)
}

impl Statements {
    /// Says that the owner lives; also forgets those that are long gone.
    async fn sign(&self, owner: &str) -> Result<(), Error> {
        let sign = format!(
            "WITH gone AS (DELETE FROM {{schema}}.owners
                           WHERE alive_until < now() - interval '{OWNER_GONE}'),
                  forgotten AS (DELETE FROM {{schema}}.deletions
                                WHERE deleted_at < now() - interval '{DELETIONS_KEPT}')
             INSERT INTO {{schema}}.owners VALUES ($1, now() + interval '{OWNER_LIFETIME}')
             ON CONFLICT (name) DO UPDATE SET alive_until = excluded.alive_until"
        );
        let began = Instant::now();
        self.rows(&self.of_schema(&sign), &[text(owner)]).await?;
        *self.signed_at.lock() = Some(began);
        Ok(())
    }

    /// Ends the leases whose end the database did not learn of: others need not wait for theirs.
    async fn release_late(&self) {
        let unreleased = std::mem::take(&mut self.leases.lock().unreleased);
        let release = self.of_schema(RELEASE);
        for (space, key, fence) in unreleased {
            let parameters = [text(&space), text(&key), number(Some(fence))];
            if self.rows(&release, &parameters).await.is_err() {
                self.leases.lock().unreleased.push((space, key, fence));
            }
        }
    }
}
