//! Whose accounts a request may name and see: the only way from a text to an account's id, and back.
//!
//! A tenant's caller says bare aliases and is told bare aliases. What it may not see is to it what is
//! not there: one response, which does not repeat the name.

use super::{
    AdminCall, AdminSurface,
    arguments::Arguments,
    respond::{self, Reply},
};
use crate::{
    callers::Principal,
    id::{AccountId, Tenant},
    login::LoginError,
    problem::Code,
    sync::Account,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Whose accounts are in sight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// An operator's: every account, by its whole id.
    Every,
    /// A tenant's: its own accounts, by their aliases.
    Tenant(Tenant),
    /// Of a request without a credential: none but the account of a secret that it brings, a
    /// browser's link or state, and that by its alias.
    None,
}

impl Scope {
    /// The account that is meant by `said`.
    fn id(&self, said: &str) -> Result<AccountId, LoginError> {
        let id: AccountId = said.parse().map_err(LoginError::bad_request)?;
        match self {
            Self::Tenant(tenant) => {
                AccountId::of(Some(tenant), said).map_err(|_| Code::UnknownAccount.into())
            }
            Self::Every | Self::None => Ok(id),
        }
    }

    fn sees(&self, id: &AccountId) -> bool {
        match self {
            Self::Every => true,
            Self::Tenant(tenant) => tenant.owns(id),
            Self::None => false,
        }
    }

    /// The same, with no account's id in it that is none of the caller's names.
    pub(super) fn worded(&self, error: LoginError) -> LoginError {
        match error.code {
            Code::UnknownAccount if *self != Self::Every => Code::UnknownAccount.into(),
            _ => error,
        }
    }

    /// What an account is called here.
    fn name(&self, id: &str) -> Option<String> {
        let id: AccountId = id.parse().ok()?;
        (*self != Self::Every).then(|| id.alias().to_owned())
    }
}

impl AdminCall {
    pub(super) fn is_of_tenant(&self) -> bool {
        matches!(self.scope, Scope::Tenant(_))
    }

    /// Whether the accounts of others are in sight, and with them what concerns all.
    pub(super) fn sees_all(&self) -> bool {
        self.scope == Scope::Every
    }

    /// Whether what concerns all accounts may be told: where there are tenants, to operators and on
    /// listeners that no tenant reaches.
    pub(super) fn may_count_all(&self) -> bool {
        let engine = &self.logins.engine;
        let config = engine.config();
        let is_shared = || {
            !config.issuers.is_empty()
                || config.callers.iter().any(|caller| caller.tenant.is_some())
                || engine.accounts().iter().any(|account| account.account.tenant().is_some())
        };
        match self.scope {
            Scope::Every => true,
            Scope::Tenant(_) => false,
            Scope::None => self.admin.0.surface != AdminSurface::Admin || !is_shared(),
        }
    }

    /// Whether the caller may use the account `id`, if there is one.
    pub(super) fn sees(&self, id: &AccountId) -> bool {
        let is_allowed = |principal: &Arc<Principal>| principal.name_of(id).is_some();
        self.scope.sees(id) && (self.sees_all() || self.principal.iter().all(is_allowed))
    }

    /// The account that is meant by `said`; of one that is not the caller's nothing is known.
    fn id(&self, said: &str) -> Result<AccountId, LoginError> {
        let id = self.scope.id(said)?;
        match self.principal.is_none() || self.sees(&id) {
            true => Ok(id),
            false => Err(Code::UnknownAccount.into()),
        }
    }

    /// Whether the request may use a secret, which it brings, of the login of `id`.
    pub(super) fn may_finish(&self, id: &AccountId) -> bool {
        self.scope == Scope::None || self.sees(id)
    }

    /// What the caller calls an account.
    pub(super) fn name_of(&self, id: &AccountId) -> String {
        self.scope.name(id.as_str()).unwrap_or_else(|| id.to_string())
    }

    /// The account that is named by `{id}` in the path; it need not exist.
    pub(super) fn id_in_path(&self) -> Result<AccountId, LoginError> {
        self.id(&self.segment)
    }

    /// The account that `arguments` name; it need not exist.
    pub(super) fn id_in(&self, arguments: &Arguments) -> Result<AccountId, LoginError> {
        let missing = || LoginError::new(Code::AccountRequired, "the request names no account");
        self.id(&arguments.one("account")?.ok_or_else(missing)?)
    }

    pub(super) fn account(&self, id: &AccountId) -> Result<Arc<Account>, LoginError> {
        let known = self.logins.engine.enroller.directory.load().get(id.as_str()).cloned();
        known
            .filter(|account| self.sees(account.id()))
            .ok_or_else(|| LoginError::unknown_account(id))
    }

    /// A response in which each account has the name that this caller knows.
    pub(super) fn json(&self, body: &impl Serialize) -> Reply {
        self.json_with(StatusCode::OK, body)
    }

    pub(super) fn json_with(&self, status: StatusCode, body: &impl Serialize) -> Reply {
        respond::json_with(status, &self.named(body))
    }

    /// `body` with each account's name, at its top and in its lists.
    pub(super) fn named(&self, body: &impl Serialize) -> Value {
        let mut body = serde_json::to_value(body).expect("it is plain JSON");
        self.rename(&mut body);
        body
    }

    fn rename(&self, body: &mut Value) {
        match body {
            Value::Array(items) => items.iter_mut().for_each(|item| self.rename(item)),
            Value::Object(members) => {
                for (key, value) in members {
                    match value.as_str() {
                        Some(id) if key == "account" => {
                            if let Some(name) = self.scope.name(id) {
                                *value = name.into();
                            }
                        }
                        _ => self.rename(value),
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Scope {
        Scope::Tenant(name.parse().expect("a tenant"))
    }

    #[test]
    fn a_tenant_means_its_own_accounts_and_is_told_the_same_of_all_others() {
        let id =
            |said: &str| tenant("t1").id(said).map_err(|error| (error.code(), error.to_string()));
        assert_eq!(id("acme").expect("own").as_str(), "t1~acme");
        let unknown: LoginError = Code::UnknownAccount.into();
        for said in ["t2~acme", "t1~acme", "t2~none"] {
            assert_eq!(id(said), Err(("unknown_account", unknown.to_string())), "{said}");
        }
        for said in ["", "a b", "t1~", "a~b~c", "../x"] {
            assert_eq!(id(said).expect_err("malformed").0, "bad_request", "{said}");
        }
        assert_eq!(Scope::Every.id("t1~acme").expect("any").as_str(), "t1~acme");
        assert_eq!(Scope::Every.id("acme").expect("any").as_str(), "acme");
    }

    #[test]
    fn a_tenant_sees_no_account_of_another_and_none_of_nobody() {
        let sees = |id: &str| tenant("t1").sees(&id.parse().expect("an id"));
        assert!(sees("t1~acme"));
        for id in ["acme", "t2~acme", "t11~acme", "T1~acme"] {
            assert!(!sees(id) && Scope::Every.sees(&id.parse().expect("an id")), "{id}");
        }
        assert!(!Scope::None.sees(&"acme".parse().expect("an id")));
        assert_eq!(tenant("t1").name("t1~acme").as_deref(), Some("acme"));
        assert_eq!(Scope::Every.name("t1~acme"), None);
    }
}
