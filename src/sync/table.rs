//! Accounts by their ids, and in the order of their ids.

use super::Account;
use crate::token::TokenState;
use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Accounts by their ids.
#[derive(Clone, Debug, Default)]
pub struct Table {
    by_id: HashSet<ById>,
    sorted: Vec<Arc<Account>>,
}

/// An account that is found by its id, which it has already.
#[derive(Clone, Debug)]
struct ById(Arc<Account>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        self.0.id().as_str()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().as_str().hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for ById {}

impl Table {
    /// The account of this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Account>> {
        self.by_id.get(id).map(|found| &found.0)
    }

    pub fn contains(&self, id: &str) -> bool {
        self.by_id.contains(id)
    }

    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The accounts whose ids begin with `prefix`, in order.
    pub fn starting_with(&self, prefix: &str) -> impl Iterator<Item = &Arc<Account>> {
        let first = self.sorted.partition_point(|account| account.id().as_str() < prefix);
        self.sorted[first..].iter().take_while(move |it| it.id().as_str().starts_with(prefix))
    }

    /// The states of their tokens.
    pub(super) fn states(&self) -> impl Iterator<Item = Arc<TokenState>> {
        self.sorted.iter().map(|account| account.token.clone())
    }

    /// Puts an account in the place of one of its id.
    pub fn insert(&mut self, account: Arc<Account>) {
        match self.sorted.binary_search_by(|it| it.id().cmp(account.id())) {
            Ok(at) => self.sorted[at] = account.clone(),
            Err(at) => self.sorted.insert(at, account.clone()),
        }
        self.by_id.replace(ById(account));
    }

    pub fn remove(&mut self, id: &str) {
        if self.by_id.remove(id) {
            self.sorted.retain(|account| account.id().as_str() != id);
        }
    }
}

impl FromIterator<Arc<Account>> for Table {
    fn from_iter<I: IntoIterator<Item = Arc<Account>>>(accounts: I) -> Self {
        let mut sorted: Vec<_> = accounts.into_iter().collect();
        sorted.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        sorted.shrink_to_fit();
        Self { by_id: sorted.iter().cloned().map(ById).collect(), sorted }
    }
}
