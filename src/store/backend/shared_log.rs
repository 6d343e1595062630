//! A log that the servers of a store share: chains of lines. One process appends to a chain, no line is
//! ever changed, and only the oldest of a chain are removed.

use super::Error;
use std::fmt::Debug;

/// Lines that are read at a time: where there are fewer, no more is to be read.
pub const LINES_PAGE: usize = 2000;

/// A line that was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedLine {
    /// Where it stands among the lines of all chains; later ones have a greater one, give or take what
    /// is written at the same time.
    pub place: u64,
    pub chain: String,
    /// Where it stands in its chain, from 1.
    pub number: u64,
    pub text: String,
}

/// A log that several servers append to. Every method blocks.
pub trait SharedLog: Send + Sync + Debug {
    /// Appends to `chain`, all lines or none; the first one's number is `first`. Durable on `Ok`.
    ///
    /// # Errors
    /// It is not known then whether they were appended, or will be.
    fn append(&self, chain: &str, first: u64, lines: Vec<String>) -> Result<(), Error>;

    /// The names of all chains, in the order of their beginnings.
    fn chains(&self) -> Result<Vec<String>, Error>;

    /// The lines of `chain` after number `after`, as many as may be read at a time, in their order.
    fn of_chain(&self, chain: &str, after: u64) -> Result<Vec<LoggedLine>, Error>;

    /// The number and text of the last line of `chain`.
    fn last_of_chain(&self, chain: &str) -> Result<Option<(u64, String)>, Error>;

    /// The lines before `place`, or the last ones, newest first, as many as may be read at a time.
    fn before(&self, place: Option<u64>) -> Result<Vec<LoggedLine>, Error>;

    /// The lines after `place`, oldest first, as many as may be read at a time.
    fn after(&self, place: u64) -> Result<Vec<LoggedLine>, Error>;

    /// The first line of each of `chains` that has one.
    fn first_of_each(&self, chains: &[String]) -> Result<Vec<LoggedLine>, Error>;

    /// None if this process may not remove lines; else the time by the clock that the servers share, in
    /// milliseconds since 1970.
    fn may_remove(&self) -> Result<Option<u64>, Error>;

    /// Removes the lines of `chain` up to number `through`; says how many.
    fn remove(&self, chain: &str, through: u64) -> Result<u64, Error>;
}
