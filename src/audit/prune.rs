//! Removes old entries from the log in a database, as `audit.table_keep_days` says, one server at a time.
//!
//! Of a chain its oldest lines go, a batch at a time: they are verified, a start is signed that says
//! through which line they went, then they are deleted. A chain that is not as it was written is left as
//! it is. The last line of a chain stays as long as its writer may go on with it.

use super::{
    Action, Actor, Audit, AuditLog, Entry, Error, LogPlace,
    chain::{AuditKeys, Checkpoint, Line, Tip, rfc3339},
    chain_start::{ChainStart, FoundStart},
    table::{SILENCE_MAX, TableLog, is_renewed},
};
use crate::{
    error_chain,
    store::{self, KeptStart, LoggedLine},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// The first look after a start.
const FIRST: Duration = Duration::from_secs(5);
/// From the end of one look to the next.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How long one look may take; what is left is for the next server, or the next look.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// Longer than that, and than a statement.
const LEASE: Duration = Duration::from_secs(90);
/// Between batches: others use the database, too.
const PAUSE: Duration = Duration::from_millis(100);
/// Chains whose first lines are read by one statement.
const CHAINS: usize = 500;

/// Why a batch was not removed.
enum Kept {
    /// There is nothing more that is old enough.
    Young,
    /// The chain is not as it was written.
    Damaged,
}

impl Audit {
    /// Removes old entries again and again, until dropped; ends at once where none are to be removed.
    pub async fn keep_pruned(self) {
        let Some(log) = self.0.filter(|log| log.pruned().is_some()) else { return };
        let mut pause = FIRST;
        let mut is_failing = false;
        loop {
            tokio::time::sleep(pause).await;
            pause = INTERVAL;
            let this = Arc::clone(&log);
            let pruned = tokio::task::spawn_blocking(move || this.prune()).await;
            match pruned.unwrap_or(Err(Error::Stopped)) {
                Ok(_) => is_failing = false,
                Err(error) if !is_failing => {
                    is_failing = true;
                    let error = error_chain::chain(&error);
                    warn!(error, "cannot remove old entries of the audit log: trying on");
                }
                Err(_) => {}
            }
        }
    }

    /// Removes what is old enough, unless another server does; says how many entries it were. Blocks
    /// for a minute at most.
    ///
    /// # Errors
    /// `MayNotRemove` where the role lacks the right; `Database`. What was removed by then stays so.
    pub fn prune(&self) -> Result<u64, Error> {
        self.0.as_ref().map_or(Ok(0), |log| log.prune())
    }
}

impl AuditLog {
    /// The log, if old entries of it are to be removed.
    fn pruned(&self) -> Option<&TableLog> {
        match &self.place {
            LogPlace::Table(log) => Some(log).filter(|log| !log.keep.is_zero()),
            LogPlace::Files(_) => None,
        }
    }

    fn prune(&self) -> Result<u64, Error> {
        let Some(log) = self.pruned() else { return Ok(0) };
        let shared_ms = log.log().may_remove().map_err(Error::Database)?;
        let shared = Duration::from_millis(shared_ms.ok_or(Error::MayNotRemove)?);
        let Some(_lease) = log.store.lease_expiry(LEASE).map_err(Error::Database)? else {
            return Ok(0);
        };
        let keys = AuditKeys::new(&log.store.audit_keys(false)?);
        let now = self.clock.now().wall.min(shared);
        let work = Pruning { log, keys, now, began: Instant::now() };
        let removed = if work.keys.is_empty() { 0 } else { work.all_chains()? };
        if removed > 0 {
            info!(entries = removed, "old entries of the audit log were removed");
            self.record(&[Entry::new(Actor::Audit, Action::AuditExpire).count(removed)])?;
        }
        Ok(removed)
    }
}

/// One look for old lines.
struct Pruning<'a> {
    log: &'a TableLog,
    keys: AuditKeys,
    /// Since 1970, by the clock that is behind: this one or the database's.
    now: Duration,
    began: Instant,
}

impl Pruning<'_> {
    fn all_chains(&self) -> Result<u64, Error> {
        let mut removed = 0;
        let chains = self.log.store.known_chains().map_err(Error::Database)?;
        for some in chains.chunks(CHAINS) {
            let first = self.log.log().first_of_each(some).map_err(Error::Database)?;
            for chain in some {
                let first = first.iter().find(|line| line.chain == *chain);
                // A chain without any line may be one that was removed as far as that.
                if first.is_none_or(|line| self.is_old(line, self.log.keep)) {
                    removed += self.chain(chain, first.map(|line| line.number))?;
                }
                if self.began.elapsed() > LOOK_MAX {
                    return Ok(removed);
                }
            }
        }
        Ok(removed)
    }

    /// As far as the line itself says; it is verified before it is removed.
    fn is_old(&self, line: &LoggedLine, age: Duration) -> bool {
        let line = Line::parse(line.text.as_bytes());
        line.is_some_and(|line| line.time < rfc3339(self.now.saturating_sub(age)))
    }

    /// Removes old lines of `chain`, whose first line has the number `first`.
    fn chain(&self, chain: &str, mut first: Option<u64>) -> Result<u64, Error> {
        let mut removed = 0;
        while self.began.elapsed() <= LOOK_MAX {
            let (kept, start) = match self.log.start(chain, &self.keys)? {
                None => (None, ChainStart::WHOLE),
                Some((kept, FoundStart::Valid(start))) => (Some(kept), start),
                Some(_) => return Ok(damaged(chain, removed)),
            };
            // A server was killed before it had removed what it had signed.
            let is_left = first.take().is_some_and(|number| number <= start.to.seq);
            let is_whole = !is_left || self.is_left_whole(chain, start)?;
            if !is_whole {
                return Ok(damaged(chain, removed));
            }
            if is_left || start.is_closed {
                removed += self.remove(chain, start)?;
            }
            if start.is_closed {
                break;
            }
            let next = match self.next(chain, start)? {
                Ok(next) => next,
                Err(Kept::Young) => break,
                Err(Kept::Damaged) => return Ok(damaged(chain, removed)),
            };
            let text = next.text(chain, &self.keys);
            match self.log.store.put_chain_start(chain, &text, kept.as_ref()) {
                // Another server is at it.
                Err(store::Error::Conflict) => break,
                written => written.map_err(Error::Database)?,
            }
            removed += self.remove(chain, next)?;
            std::thread::sleep(PAUSE);
        }
        Ok(removed)
    }

    /// Removes what `start` says, and all that is kept of a chain that is closed.
    fn remove(&self, chain: &str, start: ChainStart) -> Result<u64, Error> {
        let removed = self.log.log().remove(chain, start.to.seq).map_err(Error::Database)?;
        if start.is_closed {
            self.log.store.forget_chain(chain).map_err(Error::Database)?;
        }
        Ok(removed)
    }

    /// Says whether the lines that `start` says were removed are there as they were written.
    fn is_left_whole(&self, chain: &str, start: ChainStart) -> Result<bool, Error> {
        let mut lines = self.lines(chain, 0)?;
        lines.retain(|line| line.number <= start.to.seq);
        let tips = self.verified(chain, start.from, &lines);
        Ok(tips.is_some_and(|tips| tips.last() == Some(&start.to)))
    }

    fn lines(&self, chain: &str, after: u64) -> Result<Vec<LoggedLine>, Error> {
        self.log.log().of_chain(chain, after).map_err(Error::Database)
    }

    /// The ends of `lines`, which follow `before`; none if one is not as it was written.
    fn verified(&self, chain: &str, before: Tip, lines: &[LoggedLine]) -> Option<Vec<Tip>> {
        let mut tips = Vec::with_capacity(lines.len());
        for line in lines {
            let parsed = Line::parse(line.text.as_bytes())?;
            let is_of_chain =
                !parsed.is(Action::AuditBegin) || parsed.about.as_deref() == Some(chain);
            let before = tips.last().copied().unwrap_or(before);
            let is_right = parsed.verify(&self.keys, before).is_ok();
            if !is_right || !is_of_chain || line.number != parsed.seq {
                return None;
            }
            tips.push(parsed.tip());
        }
        Some(tips)
    }

    /// The start after the next batch of lines of `chain`, all of which are old and as they were
    /// written.
    fn next(&self, chain: &str, start: ChainStart) -> Result<Result<ChainStart, Kept>, Error> {
        let checkpoint = self.log.store.checkpoint(chain).map_err(Error::Database)?;
        let checkpoint = checkpoint.map(|text| Checkpoint::of(text.as_bytes(), &self.keys));
        let lines = self.lines(chain, start.to.seq)?;
        let old = lines.iter().take_while(|line| self.is_old(line, self.log.keep)).count();
        let tips = self.verified(chain, start.to, &lines[..old]);
        let (Some(Checkpoint::Valid(head)), Some(mut tips)) = (checkpoint, tips) else {
            return Ok(Err(Kept::Damaged));
        };
        let mut is_closed = false;
        if old == lines.len()
            && let Some(last) = lines.last()
        {
            // There may be more than can be read at a time.
            let is_over = is_renewed(chain)
                && self.is_old(last, self.log.keep + 2 * SILENCE_MAX)
                && self.lines(chain, last.number)?.is_empty();
            is_closed = is_over && last.number >= head.seq;
            if !is_closed {
                tips.pop();
            }
        }
        // A checkpoint stays one of a line that is there.
        if !is_closed {
            tips.retain(|tip| tip.seq <= head.seq);
        }
        let next = tips.last().map(|&to| ChainStart { from: start.to, to, is_closed });
        Ok(next.ok_or(Kept::Young))
    }
}

fn damaged(chain: &str, removed: u64) -> u64 {
    warn!(chain, "old entries stay: the audit log was changed, run `adsproxy audit verify`");
    removed
}

impl TableLog {
    /// What lies beside `chain` of lines that were removed.
    pub(super) fn start(
        &self,
        chain: &str,
        keys: &AuditKeys,
    ) -> Result<Option<(KeptStart, FoundStart)>, Error> {
        let kept = self.store.chain_start(chain).map_err(Error::Database)?;
        Ok(kept.map(|kept| {
            let found = FoundStart::of(&kept.text, chain, keys);
            (kept, found)
        }))
    }
}
