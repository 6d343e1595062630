//! What Amazon refused of each account's calls, and what was sent again, by class of operation.
//!
//! Calls that go well are not counted: they take no lock and find no account.

use crate::{id::AccountId, named::named, provider::operations::OperationClass};
use http::StatusCode;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Accounts that one worker counts for; calls of further ones are not counted.
const ACCOUNTS_MAX: usize = 10_000;

named! {
    /// What is counted of a call.
    pub enum CallTrouble {
        /// Amazon responded with 401.
        Unauthorized = "401",
        Forbidden = "403",
        TooMany = "429",
        /// It was sent again after a 401.
        Replayed = "replays",
    }
}

impl CallTrouble {
    /// What a response of Amazon's with `status` is.
    pub fn of(status: StatusCode) -> Option<Self> {
        match status {
            StatusCode::UNAUTHORIZED => Some(Self::Unauthorized),
            StatusCode::FORBIDDEN => Some(Self::Forbidden),
            StatusCode::TOO_MANY_REQUESTS => Some(Self::TooMany),
            _ => None,
        }
    }
}

/// Counts of one account since the start: by [`OperationClass`], then by [`CallTrouble`].
pub type AccountTroubles = [[u64; CallTrouble::ALL.len()]; OperationClass::ALL.len()];

/// Counts of one worker.
#[derive(Debug, Default)]
pub(super) struct TroubleCounts(Mutex<HashMap<AccountId, AccountTroubles>>);

impl TroubleCounts {
    pub(super) fn add(&self, account: &AccountId, class: OperationClass, what: CallTrouble) {
        let mut counts = self.0.lock();
        if !counts.contains_key(account) {
            if counts.len() >= ACCOUNTS_MAX {
                return;
            }
            counts.insert(account.clone(), AccountTroubles::default());
        }
        if let Some(counts) = counts.get_mut(account) {
            counts[class as usize][what as usize] += 1;
        }
    }

    /// Adds what is counted for `account` to `sum`.
    pub(super) fn sum(&self, account: &AccountId, sum: &mut AccountTroubles) {
        let counts = self.0.lock();
        let Some(counts) = counts.get(account) else { return };
        for (sum, count) in sum.iter_mut().flatten().zip(counts.iter().flatten()) {
            *sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_counted_each_for_itself_up_to_a_limit() {
        let (counts, other) = (TroubleCounts::default(), TroubleCounts::default());
        let id = |number: usize| format!("shop-{number}").parse::<AccountId>().expect("an id");
        for number in 0..=ACCOUNTS_MAX {
            counts.add(&id(number), OperationClass::Write, CallTrouble::TooMany);
        }
        counts.add(&id(0), OperationClass::Write, CallTrouble::TooMany);
        other.add(&id(0), OperationClass::Read, CallTrouble::Replayed);
        let sum_of = |number| {
            let mut sum = AccountTroubles::default();
            [&counts, &other].iter().for_each(|one| one.sum(&id(number), &mut sum));
            sum
        };
        let (read, write) = (OperationClass::Read as usize, OperationClass::Write as usize);
        let zero = sum_of(0);
        assert_eq!(zero[write][CallTrouble::TooMany as usize], 2);
        assert_eq!(zero[read][CallTrouble::Replayed as usize], 1);
        assert_eq!(sum_of(1)[write][CallTrouble::TooMany as usize], 1);
        assert_eq!(sum_of(ACCOUNTS_MAX), AccountTroubles::default(), "beyond the limit");
    }
}
