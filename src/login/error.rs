//! What can go wrong with a login, in words for the person in front of it.
//!
//! No text holds a secret or what Amazon sent; the description of a denial is kept apart, because a
//! page must escape it.

use crate::{audit, grants::given::GivenError, id::AccountId, problem::Code, store};
use std::{borrow::Cow, error::Error as StdError, fmt::Display};

/// Why a login cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct LoginError {
    pub(crate) code: Code,
    pub(crate) detail: Cow<'static, str>,
    /// What Amazon said, in its words: to be escaped, and shown as a quotation only.
    pub(crate) quotation: Option<String>,
    #[source]
    pub(crate) source: Option<Box<dyn StdError + Send + Sync>>,
}

impl LoginError {
    /// `detail` in place of the table's text.
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), quotation: None, source: None }
    }

    pub(crate) fn bad_request(detail: impl Display) -> Self {
        Self::new(Code::BadRequest, detail.to_string())
    }

    pub(crate) fn unknown_account(account: &AccountId) -> Self {
        Self::new(Code::UnknownAccount, format!("there is no account {account}"))
    }

    pub(crate) fn of(code: Code, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { source: Some(Box::new(source)), ..code.into() }
    }

    /// A stable name, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code.row().code
    }
}

impl From<Code> for LoginError {
    fn from(code: Code) -> Self {
        Self::new(code, code.row().text)
    }
}

impl From<store::Error> for LoginError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Full => Code::TooManyLogins.into(),
            error if error.is_sealed() => Self::of(Code::StoreSealed, error),
            error => Self::of(Code::StoreFailed, error),
        }
    }
}

impl From<audit::Error> for LoginError {
    fn from(error: audit::Error) -> Self {
        Self::of(Code::AuditFailed, error)
    }
}

impl From<GivenError> for LoginError {
    fn from(error: GivenError) -> Self {
        match error {
            GivenError::Store(error) => error.into(),
            GivenError::Audit(error) => error.into(),
            error => Self::bad_request(error),
        }
    }
}
