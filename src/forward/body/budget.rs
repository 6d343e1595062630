//! What all captures may hold together, and how much of it one party: a tenant with all its accounts,
//! or an account without a tenant.
//!
//! A part is reserved for small bodies. A party holds at most half while others ask, so that one
//! party's large or slow uploads cost no other its replay.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A body up to this size may use the reserve, bytes.
const SMALL_MAX_BYTES: u64 = 64 * 1024;
/// The reserve: this part of everything.
const RESERVE: u64 = 8;
/// How long an account counts as asking, ticks.
const ASKS_TICKS: u64 = 60;
/// Parties are spread over these shares by the hashes of their names. Two on one share have its half.
const SHARES: usize = 1024;

#[derive(Debug)]
pub(super) struct Budget {
    max: u64,
    held: AtomicU64,
    shares: [Share; SHARES],
}

#[derive(Debug, Default)]
struct Share {
    held: AtomicU64,
    /// The tick behind its last request with a body; 0: none yet.
    asked: AtomicU64,
}

impl Budget {
    pub(super) fn new(max: u64) -> Self {
        let shares = array::from_fn(|_| Share::default());
        Self { max, held: AtomicU64::new(0), shares }
    }

    /// The share of an account, or of its tenant (FNV-1a).
    pub(super) fn share_of(account: &str) -> usize {
        let party = account.split_once('~').map_or(account, |(tenant, _)| tenant);
        let hash = party.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash % SHARES as u64) as usize
    }

    /// Takes `more` bytes for a capture that then holds `whole`, unless that is too much.
    pub(super) fn take(&self, share: usize, more: u64, whole: u64, now: u64) -> bool {
        let own = &self.shares[share];
        own.asked.store(now + 1, Relaxed);
        let max = if whole <= SMALL_MAX_BYTES { self.max } else { self.max - self.max / RESERVE };
        let is_over = self.held.fetch_add(more, Relaxed) + more > max;
        let is_over_half = own.held.fetch_add(more, Relaxed) + more > self.max / 2;
        // The reserve is never held by one account alone.
        let is_over_all = own.held.load(Relaxed) > self.max - self.max / RESERVE;
        if is_over || is_over_all || is_over_half && self.others_ask(share, now) {
            self.give_back(share, more);
            return false;
        }
        true
    }

    pub(super) fn give_back(&self, share: usize, bytes: u64) {
        self.held.fetch_sub(bytes, Relaxed);
        self.shares[share].held.fetch_sub(bytes, Relaxed);
    }

    fn others_ask(&self, share: usize, now: u64) -> bool {
        let asks = |other: &Share| match other.asked.load(Relaxed) {
            0 => false,
            asked => asked + ASKS_TICKS > now,
        };
        self.shares.iter().enumerate().any(|(at, other)| at != share && asks(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn alone_an_account_holds_all_but_the_reserve_for_small_bodies() {
        let budget = Budget::new(800 * KIB);
        assert!(budget.take(1, 700 * KIB, 700 * KIB, 0));
        assert!(!budget.take(1, 1, 65 * KIB, 0), "the reserve is for small bodies");
        assert!(!budget.take(1, 64 * KIB, 64 * KIB, 0), "and for other accounts");
        assert!(budget.take(2, 64 * KIB, 64 * KIB, 0));
        budget.give_back(1, 700 * KIB);
        budget.give_back(2, 64 * KIB);
        assert!(budget.take(1, 700 * KIB, 700 * KIB, 100), "all came back");
    }

    #[test]
    fn while_others_ask_an_account_holds_at_most_half() {
        let budget = Budget::new(800 * KIB);
        assert!(budget.take(1, KIB, KIB, 100));
        assert!(budget.take(2, 300 * KIB, 300 * KIB, 100));
        assert!(!budget.take(2, 101 * KIB, 401 * KIB, 100), "the other one asked just now");
        assert!(budget.take(1, 390 * KIB, 391 * KIB, 100), "its half is free");
        budget.give_back(1, 391 * KIB);
        assert!(budget.take(2, 101 * KIB, 401 * KIB, 161), "nothing else has asked for a while");
    }

    #[test]
    fn a_tenant_has_one_share_for_all_its_accounts() {
        let share = Budget::share_of;
        assert_eq!(share("t1~acme"), share("t1~globex"));
        assert_ne!(share("t1~acme"), share("t2~acme"));
        let budget = Budget::new(800 * KIB);
        assert!(budget.take(share("t2~acme"), KIB, KIB, 0));
        assert!(budget.take(share("t1~acme"), 300 * KIB, 300 * KIB, 0));
        assert!(!budget.take(share("t1~globex"), 200 * KIB, 200 * KIB, 0), "over its half");
        assert!(
            budget.take(share("t2~acme"), 300 * KIB, 301 * KIB, 0),
            "another tenant has its own"
        );
    }

    #[test]
    fn accounts_have_their_places() {
        let places: std::collections::HashSet<_> =
            ["acme", "globex", "initech", "a", "b"].map(Budget::share_of).into();
        assert!(places.len() >= 4);
    }
}
