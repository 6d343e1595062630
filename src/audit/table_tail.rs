//! Reads the end of the log in a database, and what is added to it.

use super::{
    Error,
    tail::{Filter, Shown},
};
use crate::store::{LINES_PAGE, LoggedLine, SharedLog, Store};
use std::collections::BTreeMap;

/// So many lines are looked at again for ones that were written at the same time as those after them.
const OVERLAP: u64 = 256;

#[derive(Debug)]
pub struct TableTail {
    store: Store,
    filter: Filter,
    /// The place of the first line that was read.
    before: Option<u64>,
    /// The place of the last line that was read.
    place: u64,
    /// The number of the last line of each chain that was read.
    numbers: BTreeMap<String, u64>,
}

impl TableTail {
    /// A reader of the entries of all chains in `store` that `filter` accepts; `before` is a place.
    pub(super) fn new(store: &Store, filter: Filter) -> Self {
        // A place is no number of an entry.
        let (before, filter) = (filter.before, Filter { before: None, ..filter });
        Self { store: store.clone(), filter, before, place: 0, numbers: BTreeMap::new() }
    }

    fn log(&self) -> &dyn SharedLog {
        self.store.shared_log().expect("it was there when this was made")
    }

    /// As [`super::tail::LogReader::older`].
    pub(super) fn older(&mut self, each: &mut dyn FnMut(Shown)) -> Result<bool, Error> {
        let lines = self.log().before(self.before).map_err(Error::Database)?;
        for line in &lines {
            self.remember(line);
            self.shown(line).into_iter().for_each(&mut *each);
        }
        let Some(last) = lines.last() else { return Ok(false) };
        self.before = Some(last.place);
        Ok(lines.len() >= LINES_PAGE && !self.filter.is_older(last.text.as_bytes()))
    }

    /// As [`super::tail::LogReader::newer`].
    pub(super) fn newer(&mut self, each: &mut dyn FnMut(Shown)) -> Result<bool, Error> {
        let from = self.place.saturating_sub(OVERLAP);
        let lines = self.log().after(from).map_err(Error::Database)?;
        let is_new = |line: &&LoggedLine| {
            self.numbers.get(&line.chain).is_none_or(|last| line.number > *last)
        };
        let new: Vec<_> = lines.iter().filter(is_new).collect();
        new.iter().filter_map(|line| self.shown(line)).for_each(each);
        new.iter().for_each(|line| self.remember(line));
        Ok(lines.len() >= LINES_PAGE)
    }

    fn remember(&mut self, line: &LoggedLine) {
        self.place = self.place.max(line.place);
        let last = self.numbers.entry(line.chain.clone()).or_default();
        *last = line.number.max(*last);
    }

    fn shown(&self, line: &LoggedLine) -> Option<Shown> {
        let shown = self.filter.shown(line.text.as_bytes())?;
        Some(Shown { seq: line.place, ..shown })
    }
}
