//! Checks the log in a database, chain by chain, as far as each goes when it is read.

use super::{
    Error,
    chain::{AuditKeys, Checkpoint},
    chain_start::{ChainStart, FoundStart},
    report::AuditReport,
    table::TableLog,
    verify::{Anomaly, LogCheck},
};
use std::collections::BTreeSet;

/// How often a chain is read again of which lines are removed while it is read.
const READS_MAX: usize = 5;

const START_CHANGED: Anomaly<'_> =
    ("start_changed", "what says which older lines were removed was changed");
const START_KEY_MISSING: Anomaly<'_> = (
    "start_key_missing",
    "it cannot be checked which older lines were removed: the key is not in the store",
);

/// What lies beside a chain.
#[derive(PartialEq, Eq)]
struct Beside {
    checkpoint: Option<Checkpoint>,
    start: Option<FoundStart>,
}

impl TableLog {
    /// Checks every chain.
    pub(super) fn verify(&self, keys: &AuditKeys) -> Result<AuditReport, Error> {
        let known = self.store.known_chains().map_err(Error::Database)?;
        let chains = self.log().chains().map_err(Error::Database)?;
        let there: BTreeSet<_> = chains.iter().collect();
        let lost = known.iter().filter(|chain| !there.contains(chain));
        let mut report = AuditReport::default();
        for chain in chains.iter().chain(lost) {
            report.add(self.verify_chain(chain, keys)?);
        }
        Ok(report)
    }

    fn verify_chain(&self, chain: &str, keys: &AuditKeys) -> Result<AuditReport, Error> {
        let mut beside = self.beside(chain, keys)?;
        for _ in 1..READS_MAX {
            let report = self.check_chain(chain, keys, &beside)?;
            if report.is_clean() {
                return Ok(report);
            }
            // Another server may have removed lines meanwhile, or the whole chain.
            let now = self.beside(chain, keys)?;
            if now == beside {
                return Ok(report);
            }
            beside = now;
        }
        self.check_chain(chain, keys, &beside)
    }

    /// Before the lines: a checkpoint is never ahead of what is read after it.
    fn beside(&self, chain: &str, keys: &AuditKeys) -> Result<Beside, Error> {
        let start = self.start(chain, keys)?.map(|(_, found)| found);
        let checkpoint = self.store.checkpoint(chain).map_err(Error::Database)?;
        let checkpoint = checkpoint.map(|text| Checkpoint::of(text.as_bytes(), keys));
        Ok(Beside { checkpoint, start })
    }

    fn check_chain(
        &self,
        chain: &str,
        keys: &AuditKeys,
        beside: &Beside,
    ) -> Result<AuditReport, Error> {
        let name = format!("chain {chain}");
        let mut check = LogCheck::new(keys, beside.checkpoint);
        check.open(name.clone());
        let start = match beside.start {
            Some(FoundStart::Valid(start)) => start,
            None => ChainStart::WHOLE,
            Some(FoundStart::Invalid) => {
                check.find(START_CHANGED);
                ChainStart::WHOLE
            }
            Some(FoundStart::KeyMissing) => {
                check.find(START_KEY_MISSING);
                ChainStart::WHOLE
            }
        };
        let mut after = None;
        loop {
            let lines = self.log().of_chain(chain, after.unwrap_or(0)).map_err(Error::Database)?;
            let (Some(first), Some(last)) = (lines.first(), lines.last()) else { break };
            if after.is_none() {
                // What a kill has left is there as a whole.
                let is_left = first.number <= start.to.seq;
                check.begin_after(if is_left { start.from } else { start.to });
            }
            after = Some(last.number);
            for line in &lines {
                check.line_of_chain(chain, line.text.as_bytes());
            }
        }
        if after.is_none() {
            let is_behind = match beside.checkpoint {
                None => true,
                Some(Checkpoint::Valid(tip)) => tip.seq <= start.to.seq,
                Some(_) => false,
            };
            let is_gone = beside.start.is_none() && beside.checkpoint.is_none();
            if is_gone || start.is_closed && is_behind {
                return Ok(AuditReport::default());
            }
            check.begin_after(start.to);
        }
        check.checkpoint(beside.checkpoint, name);
        Ok(check.report)
    }
}
