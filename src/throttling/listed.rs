//! What is known of one scope, as readers see it.

use super::scope::ThrottleScope;
use crate::{id::AccountId, metrics::ThrottleKind};
use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

/// Where a scope is in the list, in which the latest are first: when it was heard of last, in seconds
/// since 1970, and a number that is no other scope's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScopePlace(pub(super) u64, pub(super) u64);

/// A text that is no place of a scope.
#[derive(Debug)]
pub struct InvalidScopePlace;

/// One scope, for readers.
#[derive(Debug)]
pub struct ThrottledScope {
    pub place: ScopePlace,
    pub scope: ThrottleScope<Box<str>>,
    pub accounts: BTreeSet<AccountId>,
    pub(super) counts: [u64; ThrottleKind::ALL.len()],
    pub last_kind: ThrottleKind,
    /// Seconds since 1970.
    pub last_unix: u64,
    pub last_retry_after: Option<Duration>,
    /// What is left of the wait; none if there is none, zero while a probe is awaited.
    pub left: Option<Duration>,
}

impl ThrottledScope {
    /// How many responses of each kind there were.
    pub fn counts(&self) -> impl Iterator<Item = (ThrottleKind, u64)> {
        ThrottleKind::ALL.into_iter().zip(self.counts)
    }
}

impl fmt::Display for ScopePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for ScopePlace {
    type Err = InvalidScopePlace;

    fn from_str(text: &str) -> Result<Self, InvalidScopePlace> {
        let (unix, number) = text.split_once('-').ok_or(InvalidScopePlace)?;
        let number_of = |text: &str| text.parse().map_err(|_| InvalidScopePlace);
        Ok(Self(number_of(unix)?, number_of(number)?))
    }
}
