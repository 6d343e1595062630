//! The log in a database that several servers share: a chain of lines for each process that writes.
//!
//! A chain has one writer, which knows where it ends: unlike a file, its end is not read before each
//! append. Only after an append that may or may not have happened it is looked up. A checkpoint of each
//! chain lies elsewhere in the store, so that a chain whose end was cut off is found.

use super::{
    Error,
    chain::{AuditKeys, Checkpoint, Line, START, Tip, write_line},
    entry::{Action, Actor, Entry},
};
use crate::store::{self, SharedLog, Store};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use parking_lot::Mutex;
use std::time::Duration;

/// How long one thread waits for the others.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// A chain that got no entry for so long is not gone on with, so that it can be removed to its end.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(86_400);
/// The names of chains of which that is true begin so: servers of older versions go on with theirs.
const RENEWED: &str = "r-";
/// Where the log is, for people.
pub(super) const NAME: &str = "the table audit of the database";

#[derive(Debug)]
pub(super) struct TableLog {
    pub(super) store: Store,
    /// How long entries are kept; zero: for ever.
    pub(super) keep: Duration,
    /// That of this process, once it has begun.
    chain: Mutex<Option<OwnChain>>,
}

#[derive(Debug)]
struct OwnChain {
    name: String,
    /// The last line that is known to be there.
    last: Tip,
    /// When that was tried to be written last, since 1970.
    at: Duration,
    /// Where appends would have ended of which nothing is known.
    unknown: Vec<Tip>,
}

impl TableLog {
    /// A log in the database of `store`, whose entries are kept for `keep`; none if that is no database.
    pub(super) fn new(store: &Store, keep: Duration) -> Option<Self> {
        store.shared_log()?;
        Some(Self { store: store.clone(), keep, chain: Mutex::default() })
    }

    pub(super) fn log(&self) -> &dyn SharedLog {
        self.store.shared_log().expect("it was there when this was made")
    }

    /// Appends `entries`, durable on `Ok`, and says whether the chain was found damaged.
    pub(super) fn append(
        &self,
        entries: &[Entry],
        wall: Duration,
        keys: &AuditKeys,
    ) -> Result<Option<&'static str>, Error> {
        let waited = TURN_TIMEOUT;
        let locked = || Error::Locked { path: NAME.into(), waited };
        let mut chain = self.chain.try_lock_for(waited).ok_or_else(locked)?;
        let is_silent = |chain: &OwnChain| wall.saturating_sub(chain.at) >= SILENCE_MAX;
        if chain.as_ref().is_none_or(is_silent) {
            *chain = Some(OwnChain::begin()?);
        }
        let chain = chain.as_mut().expect("it has begun");
        chain.at = wall;
        let damage = chain.find_end(self.log())?;
        let mut own = Vec::new();
        if chain.last == START {
            // Before the first line, so that a kill between the two leaves a chain that verifies.
            self.keep_checkpoint(chain, keys)?;
            let begins = Entry::new(Actor::Audit, Action::AuditBegin).about(&chain.name);
            own.push(Entry { segment: Some(1), prev: Some(BASE64.encode(START.mac)), ..begins });
        }
        own.extend(damage.map(|why| Entry::new(Actor::Audit, Action::AuditDamage).failed(why)));
        own.extend_from_slice(entries);
        chain.append(self.log(), &own, wall, keys)?;
        self.keep_checkpoint(chain, keys)?;
        Ok(damage)
    }

    fn keep_checkpoint(&self, chain: &OwnChain, keys: &AuditKeys) -> Result<(), Error> {
        let text = Checkpoint::text(chain.last, keys);
        self.store.put_checkpoint(&chain.name, &text).map_err(Error::Database)
    }
}

/// Says whether no entry follows in `chain` after a silence of [`SILENCE_MAX`].
pub(super) fn is_renewed(chain: &str) -> bool {
    chain.starts_with(RENEWED)
}

impl OwnChain {
    fn begin() -> Result<Self, Error> {
        let name = RENEWED.to_owned() + &store::random_hex()?;
        Ok(Self { name, last: START, at: Duration::ZERO, unknown: Vec::new() })
    }

    /// Finds out how appends ended of which nothing is known, and whether the last line is there.
    fn find_end(&mut self, log: &dyn SharedLog) -> Result<Option<&'static str>, Error> {
        if self.unknown.is_empty() {
            return Ok(None);
        }
        let found = log.last_of_chain(&self.name).map_err(Error::Database)?;
        let found = found.as_ref().map(|(_, text)| Line::parse(text.as_bytes()));
        let damage = match found.map(|line| line.map(|line| line.tip())) {
            None if self.last == START => None,
            None => Some("end_cut_off"),
            Some(None) => Some("end_unreadable"),
            Some(Some(tip)) if tip == self.last => None,
            Some(Some(tip)) if self.unknown.contains(&tip) => {
                self.last = tip;
                None
            }
            Some(Some(tip)) if tip.seq < self.last.seq => Some("end_cut_off"),
            Some(Some(_)) => Some("end_replaced"),
        };
        Ok(damage)
    }

    fn append(
        &mut self,
        log: &dyn SharedLog,
        entries: &[Entry],
        wall: Duration,
        keys: &AuditKeys,
    ) -> Result<(), Error> {
        let (mut lines, mut last) = (Vec::new(), self.last);
        for entry in entries {
            last = write_line(entry, wall, last, keys, &mut lines);
        }
        let text = String::from_utf8(lines).expect("JSON is text");
        let lines = text.lines().map(str::to_owned).collect();
        self.unknown.push(last);
        log.append(&self.name, self.last.seq + 1, lines).map_err(Error::Database)?;
        self.last = last;
        self.unknown.clear();
        Ok(())
    }
}
