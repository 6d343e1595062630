//! The accounts that a request may see: what is not its caller's is not there.

use super::error::Error;
use crate::{
    callers::Principal,
    id::AccountId,
    problem::Code,
    sync::{Account, Table},
};
use std::sync::Arc;

#[derive(Clone, Copy)]
pub struct View<'t> {
    pub table: &'t Table,
    pub principal: Option<&'t Principal>,
    /// Of a request that names neither an account nor a caller.
    pub default: Option<&'t AccountId>,
}

impl<'t> View<'t> {
    /// The account that the caller calls `name`.
    pub fn find(&self, name: &str) -> Option<&'t Arc<Account>> {
        match self.principal {
            None => self.table.get(name),
            Some(principal) => self.table.get(principal.account_id(name)?.as_ref()),
        }
    }

    /// The account of a request that has chosen `name`, or none.
    pub fn account(&self, name: Option<&str>) -> Result<&'t Arc<Account>, Error> {
        let found = match (name, self.principal) {
            (Some(name), _) => self.find(name).or_else(|| self.log_denial(name)),
            (None, Some(principal)) => return self.only_account(principal),
            (None, None) => {
                let default = self.default.ok_or(Error::Rejected(Code::AccountRequired))?;
                self.table.get(default.as_str())
            }
        };
        found.ok_or(Error::Rejected(Code::UnknownAccount))
    }

    /// Tells operators that the caller's own rules leave `name` out, whether or not it is there.
    fn log_denial(&self, name: &str) -> Option<&'t Arc<Account>> {
        let principal = self.principal?;
        let denial = principal.rules.explain_account(name)?;
        tracing::info!(
            caller = %principal,
            rule = denial.rule,
            why = denial.why,
            allow = denial.allow.as_deref(),
            "a rule of the caller refuses the account"
        );
        None
    }

    /// The account of a caller that may use exactly one.
    fn only_account(&self, principal: &Principal) -> Result<&'t Arc<Account>, Error> {
        if let Some(name) = principal.rules.only_account() {
            return self.find(name).ok_or(Error::Rejected(Code::UnknownAccount));
        }
        let first = principal.tenant.as_ref().map_or(String::new(), |tenant| format!("{tenant}~"));
        let own = self.table.starting_with(&first);
        let mut seen = own.filter(|account| principal.name_of(account.id()).is_some());
        match (seen.next(), seen.next()) {
            (Some(account), None) => Ok(account),
            _ => Err(Error::Rejected(Code::AccountRequired)),
        }
    }
}
