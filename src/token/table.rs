//! The states of all accounts, in the order of their ids: a pointer for each.

use super::TokenState;
use crate::id::AccountId;
use std::sync::Arc;

/// States of accounts by their ids.
#[derive(Clone, Debug, Default)]
pub struct StateTable(Vec<Arc<TokenState>>);

impl StateTable {
    fn position(&self, id: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|state| state.id.as_str().cmp(id))
    }

    /// The state of this account.
    pub fn get(&self, id: &str) -> Option<&Arc<TokenState>> {
        self.position(id).ok().map(|at| &self.0[at])
    }

    pub fn contains(&self, id: &AccountId) -> bool {
        self.position(id.as_str()).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TokenState>> {
        self.0.iter()
    }
}

impl FromIterator<Arc<TokenState>> for StateTable {
    /// Of several of one account the first is kept.
    fn from_iter<I: IntoIterator<Item = Arc<TokenState>>>(states: I) -> Self {
        let mut sorted: Vec<_> = states.into_iter().collect();
        sorted.sort_by(|one, other| one.id.cmp(&other.id));
        sorted.dedup_by(|other, one| other.id == one.id);
        sorted.shrink_to_fit();
        Self(sorted)
    }
}
