//! Who has a worker's connections, and who waits for one.
//!
//! A party has at most half of what a pool can give: one whose responses do not end keeps no other
//! from Amazon. Requests that wait stand in a line of their party; the lines are served in turn.

use super::pool::Pool;
use std::{cell::Cell, collections::VecDeque, iter, rc::Rc};
use tokio::sync::oneshot;

/// The hosts of one worker: two services in three regions.
pub(super) const POOLS: usize = 6;
/// A line up to this length is not searched for requests that have left.
const PURGE_MIN: usize = 64;

/// What one party, a tenant or a caller without one, has of each pool of a worker.
#[derive(Debug, Default)]
pub struct ConnectionShare([Cell<usize>; POOLS]);

impl ConnectionShare {
    pub(super) fn held(&self, pool: &Pool) -> usize {
        self.0[pool.number].get()
    }
}

/// A connection, or a stream of a shared one, in the name of a party until this is dropped.
pub(super) struct Claim {
    /// None has no share of its own, and no limit.
    share: Option<Rc<ConnectionShare>>,
    pub(super) pool: Rc<Pool>,
}

impl Claim {
    pub(super) fn new(share: Option<Rc<ConnectionShare>>, pool: &Rc<Pool>) -> Self {
        if let Some(share) = &share {
            share.0[pool.number].update(|held| held + 1);
        }
        Self { share, pool: pool.clone() }
    }

    /// The claim, for what goes on without its request; what stays behind claims nothing.
    pub(super) fn take(&mut self) -> Self {
        Self { share: self.share.take(), pool: self.pool.clone() }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(share) = &self.share {
            share.0[self.pool.number].update(|held| held - 1);
            // Its party may have one more, which another did not want.
            self.pool.serve_next();
        }
    }
}

/// The requests that wait in one pool, by party.
pub(super) struct WaitingLines<T>(VecDeque<WaitingLine<T>>);

struct WaitingLine<T> {
    share: Option<Rc<ConnectionShare>>,
    turns: VecDeque<oneshot::Sender<T>>,
    /// The length from which on those that have left are purged.
    purge_at: usize,
}

impl<T> Default for WaitingLines<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> WaitingLines<T> {
    /// A turn behind all that wait for the same party.
    pub(super) fn push(&mut self, share: Option<&Rc<ConnectionShare>>) -> oneshot::Receiver<T> {
        let is_same =
            |line: &WaitingLine<T>| line.share.as_ref().map(Rc::as_ptr) == share.map(Rc::as_ptr);
        let at = self.0.iter().position(is_same).unwrap_or_else(|| {
            let turns = VecDeque::new();
            self.0.push_back(WaitingLine { share: share.cloned(), turns, purge_at: PURGE_MIN });
            self.0.len() - 1
        });
        let line = &mut self.0[at];
        if line.turns.len() >= line.purge_at {
            line.turns.retain(|turn| !turn.is_closed());
            line.purge_at = (2 * line.turns.len()).max(PURGE_MIN);
        }
        let (sender, turn) = oneshot::channel();
        line.turns.push_back(sender);
        turn
    }

    /// Whether there is a request of a party that `may_have` more.
    pub(super) fn has_next(&self, may_have: impl Fn(Option<&Rc<ConnectionShare>>) -> bool) -> bool {
        self.0.iter().any(|line| may_have(line.share.as_ref()))
    }

    /// The turn of the request that waits longest for the next party that `may_have` more, passing
    /// over those that have left; and that party.
    pub(super) fn pop(
        &mut self,
        may_have: impl Fn(Option<&Rc<ConnectionShare>>) -> bool,
    ) -> Option<(oneshot::Sender<T>, Option<Rc<ConnectionShare>>)> {
        loop {
            let at = self.0.iter().position(|line| may_have(line.share.as_ref()))?;
            let mut line = self.0.remove(at).expect("it was found there");
            let turn = iter::from_fn(|| line.turns.pop_front()).find(|turn| !turn.is_closed());
            let share = line.share.clone();
            if !line.turns.is_empty() {
                self.0.push_back(line);
            }
            if let Some(turn) = turn {
                return Some((turn, share));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Share = Rc<ConnectionShare>;

    /// Hands `given` to the next in turn.
    fn hand(waiting: &mut WaitingLines<u8>, given: u8, may_have: impl Fn(Option<&Share>) -> bool) {
        let (turn, _) = waiting.pop(may_have).expect("one waits");
        turn.send(given).expect("it waits");
    }

    fn all(_: Option<&Share>) -> bool {
        true
    }

    #[test]
    fn parties_are_served_in_turn_however_many_of_one_wait() {
        let mut waiting = WaitingLines::default();
        let (a, b) = (Share::default(), Share::default());
        let mut of_a = [0; 3].map(|_| waiting.push(Some(&a)));
        let (mut of_b, mut of_nobody) = (waiting.push(Some(&b)), waiting.push(None));
        (0..5).for_each(|turn| hand(&mut waiting, turn, all));
        assert_eq!(of_a.each_mut().map(|turn| turn.try_recv()), [Ok(0), Ok(3), Ok(4)]);
        assert_eq!((of_b.try_recv(), of_nobody.try_recv()), (Ok(1), Ok(2)));
        assert!(waiting.0.is_empty(), "no line stays");
    }

    #[test]
    fn a_party_that_may_have_no_more_keeps_its_line_and_holds_up_no_other() {
        let mut waiting = WaitingLines::default();
        let (a, b) = (Share::default(), Share::default());
        let (mut of_a, mut of_b) = (waiting.push(Some(&a)), waiting.push(Some(&b)));
        let not_a = |share: Option<&Share>| share.is_none_or(|share| !Rc::ptr_eq(share, &a));
        hand(&mut waiting, 1, not_a);
        assert_eq!(of_b.try_recv(), Ok(1));
        assert!(waiting.pop(not_a).is_none() && !waiting.has_next(not_a));
        assert!(waiting.has_next(all));
        hand(&mut waiting, 2, all);
        assert_eq!(of_a.try_recv(), Ok(2));
    }

    #[test]
    fn those_that_have_left_are_passed_over_and_do_not_pile_up() {
        let mut waiting = WaitingLines::<u8>::default();
        let a = Share::default();
        let mut stays = waiting.push(Some(&a));
        for _ in 0..10_000 {
            drop(waiting.push(Some(&a)));
        }
        assert!(waiting.0[0].turns.len() <= PURGE_MIN);
        hand(&mut waiting, 1, all);
        assert_eq!(stays.try_recv(), Ok(1));
        assert!(waiting.pop(all).is_none());
        assert!(waiting.0.is_empty());
    }
}
