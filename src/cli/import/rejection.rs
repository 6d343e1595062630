//! Why a record is not imported. Nothing of what the record holds is ever quoted.

use super::fernet;
use crate::{audit, error_chain::chain, id::AccountId};

/// Why a record is not imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejection {
    #[error("it is not a JSON object")]
    NotAnObject,
    #[error("this line is not JSON (column {0})")]
    NotJson(usize),
    #[error("{0} is said twice")]
    SaidTwice(&'static str),
    #[error("{0} is neither text nor a number")]
    NotAText(&'static str),
    #[error(
        "it has {found} fields, the heading has {expected}: a delimiter inside a value needs quotes"
    )]
    Fields { found: usize, expected: usize },
    #[error("it is not UTF-8 text")]
    NotUtf8,
    #[error("it names no account: say --account ALIAS if it is the only record")]
    NoAccount,
    #[error("its account name looks like a secret, and is not shown: are columns swapped?")]
    SecretName,
    #[error("no alias can be made of its account name: use letters, digits, '.', '_', '-'")]
    NoAlias,
    #[error("it is called {0} here, and {1} by --account: leave --account out, or rename it here")]
    OtherName(AccountId, AccountId),
    #[error("another record that says other things has the same alias{}: give each its own", place(.0))]
    Collision(Option<usize>),
    #[error("it holds no refresh token")]
    NoRefreshToken,
    #[error("its {0} is no token: it must be at most 8192 visible characters without spaces")]
    NotAToken(&'static str),
    #[error("its refresh_token is an access token (Atza|)")]
    AccessTokenInstead,
    #[error(
        "its refresh_token is a placeholder of adsproxy's own, which `exec` and `env` set: take the \
         real one, from a shell without these variables"
    )]
    Placeholder,
    #[error("its {0} looks Fernet-encrypted: say --from legacy")]
    Encrypted(&'static str),
    #[error("its {0} is not encrypted: say --from json")]
    NotEncrypted(&'static str),
    #[error("its {field} cannot be decrypted: {cause}")]
    Fernet { field: &'static str, cause: fernet::Error },
    #[error("its token_type is not bearer")]
    NotBearer,
    #[error("its region is none of na, eu, fe, nor a marketplace such as US, DE, JP")]
    NotARegion,
    #[error("it names no region: say --region na, eu or fe")]
    NoRegion,
    #[error(
        "its consented_at is no day such as 2026-11-20, still to come, or before Login with Amazon \
         began (2013)"
    )]
    NotADay,
    #[error("its profile_id is not a number: `GET /v2/profiles` lists the profiles of a grant")]
    NotAProfile,
    #[error(
        "its profile_id was turned into a decimal number such as 1.2E+15, as spreadsheets do, which \
         loses digits: set the column's format to text, enter the number anew, export again"
    )]
    RoundedProfile,
    #[error("its application is not configured; configured: {}", .0.join(", "))]
    UnknownApplication(Vec<String>),
    #[error("its client id is not that of application {0:?}")]
    OtherClient(String),
    #[error("no configured application has its client id: add one, see below")]
    UnknownClient,
    #[error(
        "several configured applications have its client id: say which with --application NAME"
    )]
    SeveralApplications,
    #[error(
        "accounts.{0} in the configuration says another region or application, and wins; change \
         it there"
    )]
    Configured(AccountId),
    #[error("{0}")]
    Store(String),
    #[error("not done, because it cannot be recorded: {0}")]
    Unrecorded(String),
}

impl From<audit::Error> for Rejection {
    fn from(error: audit::Error) -> Self {
        Self::Unrecorded(chain(&error))
    }
}

fn place(line: &Option<usize>) -> String {
    line.map(|line| format!(" (line {line})")).unwrap_or_default()
}
