//! The accounts in the order of the pages, the worst first. All streams together look at them once a
//! second at most, and sort them only where one is not as it was.

use super::words::urgency;
use crate::{account::AccountView, engine::Engine};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Default)]
pub(super) struct AccountList(Mutex<ListedAccounts>);

/// The accounts as they were at one moment.
#[derive(Clone, Default)]
pub(super) struct ListedAccounts {
    /// Another number where an account is not as it was, but for how long its token lives.
    pub(super) version: u64,
    at: Option<Instant>,
    /// By their ids.
    views: Arc<Vec<AccountView>>,
    /// Places in `views`.
    order: Arc<Vec<usize>>,
}

impl AccountList {
    /// How old what a stream shows may be: what was read for one serves all.
    pub(super) const AGE_MAX: Duration = Duration::from_millis(900);

    /// The accounts as they are now, or as they were at most `age_max` ago.
    pub(super) fn load(&self, engine: &Engine, age_max: Duration) -> ListedAccounts {
        let mut listed = self.0.lock();
        if listed.at.is_none_or(|at| at.elapsed() >= age_max) {
            listed.update(engine.accounts());
        }
        listed.clone()
    }
}

impl ListedAccounts {
    /// Every account, the worst first.
    pub(super) fn worst_first(&self) -> impl Iterator<Item = &AccountView> {
        self.order.iter().map(|at| &self.views[*at])
    }

    fn update(&mut self, views: Vec<AccountView>) {
        let is_same = |(one, other): (&AccountView, &AccountView)| {
            let of =
                |view: &AccountView| (view.generation, view.consent_days_left, view.is_unsaved);
            (&one.account, one.state, one.region) == (&other.account, other.state, other.region)
                && (&one.application, &one.last_error) == (&other.application, &other.last_error)
                && of(one) == of(other)
        };
        let are_same =
            views.len() == self.views.len() && views.iter().zip(&*self.views).all(is_same);
        if !are_same {
            let mut order: Vec<usize> = (0..views.len()).collect();
            // Stable: accounts of one urgency stay in the order of their ids.
            order.sort_by_key(|at| urgency(&views[*at]));
            (self.order, self.version) = (Arc::new(order), self.version + 1);
        }
        (self.views, self.at) = (Arc::new(views), Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::State;

    fn view(account: &str, state: State) -> AccountView {
        AccountView {
            account: account.parse().expect("an id"),
            state,
            ..super::super::words::tests::view(state)
        }
    }

    #[test]
    fn the_order_is_made_again_only_where_an_account_is_not_as_it_was() {
        let mut listed = ListedAccounts::default();
        let names = |listed: &ListedAccounts| {
            listed.worst_first().map(|view| view.account.to_string()).collect::<Vec<_>>()
        };
        let (fresh, dead) = (State::Fresh, State::ReauthorizationRequired);
        listed.update(vec![view("a", fresh), view("b", fresh), view("c", dead)]);
        assert_eq!(names(&listed), ["c", "a", "b"]);
        let (version, order) = (listed.version, listed.order.clone());
        let left = Some(Duration::from_secs(5));
        let older = AccountView { expires_in: left, ..view("a", fresh) };
        listed.update(vec![older, view("b", fresh), view("c", dead)]);
        assert!(listed.version == version && Arc::ptr_eq(&order, &listed.order));
        assert_eq!(listed.views[0].expires_in, left, "what is left is that of now");
        listed.update(vec![view("a", fresh), view("b", dead), view("c", dead)]);
        assert_eq!(
            (names(&listed), listed.version),
            (["b", "c", "a"].map(String::from).to_vec(), version + 1)
        );
    }
}
