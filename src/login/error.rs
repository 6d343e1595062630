//! What can go wrong with a login, in words for the person in front of it: one table.
//!
//! No text holds a secret or what Amazon sent; the description of a denial is kept apart, because a
//! page must escape it.

use crate::{audit, grants::given::GivenError, id::AccountId, store};
use std::{borrow::Cow, error::Error as StdError, fmt::Display};

/// Why a login cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct LoginError {
    pub(crate) cause: LoginCause,
    pub(crate) detail: Cow<'static, str>,
    /// What Amazon said, in its words: to be escaped, and shown as a quotation only.
    pub(crate) quotation: Option<String>,
    #[source]
    pub(crate) source: Option<Box<dyn StdError + Send + Sync>>,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct LoginCauseRow {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
    /// What happened; where it has a name or an address in it, [`LoginError::new`] is given it.
    text: &'static str,
    /// What to do now.
    pub(crate) advice: &'static str,
}

/// Defines `LoginCause` and its row: status, code, title; text; advice.
macro_rules! causes {
    ($($name:ident: $status:literal $code:literal $title:literal, $text:literal, $advice:literal;)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum LoginCause { $($name,)+ }

        impl LoginCause {
            pub(crate) fn row(self) -> LoginCauseRow {
                let (status, code, title, text, advice) = match self {
                    $(Self::$name => ($status, $code, $title, $text, $advice),)+
                };
                LoginCauseRow { status, code, title, text, advice }
            }
        }
    };
}

causes! {
    AccountRequired: 400 "account_required" "Which account?",
        "the request names no account", "Name an account, for example ?account=acme.";
    BadRequest: 400 "bad_request" "Not understood",
        "the request is malformed", "Correct the request and try again.";
    UnknownAccount: 404 "unknown_account" "No such account",
        "there is no such account", "Compare with `adsproxy account list`.";
    StateMissing: 400 "state_missing" "Not a login of ours",
        "the response has no state, so it belongs to no login",
        "Begin the login again, and follow the link it gives to the end.";
    ParameterDoubled: 400 "parameter_doubled" "Not a login of ours",
        "the response has a parameter more than once",
        "Begin the login again; if this comes back, something between Amazon and here changes \
         addresses.";
    StateUnknown: 400 "state_unknown" "This login is over",
        "this response belongs to no login under way: it was used already, is too old, or was \
         never asked for",
        "Begin the login again. A login ends with its first response; loading its last page again \
         does not repeat it.";
    StateExpired: 400 "state_expired" "This took too long",
        "this login took longer than it may",
        "Begin the login again, and finish it within login.timeout_secs (ten minutes by default).";
    OtherBrowser: 403 "other_browser" "Another browser",
        "this login was begun in another browser, or this one did not keep its cookie",
        "Finish the login in the browser it was begun in, and let that browser keep cookies for \
         this address. If you did not begin this login, close this page: another person wanted you \
         to connect their account.";
    ConfigurationChanged: 409 "configuration_changed" "Begin again",
        "the configuration of the application was changed since this login was begun",
        "Begin the login again.";
    LinkUsed: 410 "link_used" "This link is over",
        "this link was used already, or is too old",
        "Ask for a new link, or begin a login: `adsproxy login`.";
    Denied: 403 "access_denied" "Access was denied",
        "access was denied on Amazon's page",
        "Nothing was changed. To connect the account, begin again and allow access.";
    RedirectUriMismatch: 400 "redirect_uri_mismatch" "Wrong return address",
        "amazon does not know the return address",
        "Add exactly this address, letter for letter, to the Allowed Return URLs of the security \
         profile in Amazon's developer console, or set lwa.redirect_uri to one that is there.";
    RedirectPortTaken: 503 "redirect_port_taken" "The return address is not safe",
        "another program listens at the return address and may get Amazon's response",
        "Stop that program, or name an address instead of localhost in lwa.redirect_uri: \
         http://127.0.0.1 and the same port and path, which the security profile must list too.";
    ScopeUnknown: 400 "scope_unknown" "Unknown scope",
        "amazon does not know the scope for this application",
        "Check lwa.scopes. Amazon also says this of an application that is not yet approved for \
         the Ads API.";
    ScopeMissing: 403 "scope_missing" "Not enough was allowed",
        "the consent does not cover every scope",
        "Nothing was changed. Begin again and allow all that is asked for.";
    NotApproved: 403 "application_not_approved" "Application not approved",
        "amazon has not approved this application for the Ads API",
        "Apply for access to the Ads API at https://advertising.amazon.com/API/docs, with this \
         security profile; approval takes some days.";
    ApplicationRejected: 502 "application_rejected" "Wrong client id or secret",
        "amazon rejects the application's client id or secret",
        "Check lwa.client_id and lwa.client_secret against the security profile.";
    CodeMissing: 400 "code_missing" "Nothing came back",
        "the response has neither a code nor an error", "Begin the login again.";
    CodeLate: 400 "code_late" "Too late",
        "the code has expired: amazon's codes live five minutes",
        "Begin the login again, and finish it without a pause.";
    CodeReused: 400 "code_reused" "Used already",
        "the code was used already, or was made for another login",
        "Begin the login again: a code works once.";
    AmazonFailed: 502 "amazon_failed" "Amazon had a problem",
        "amazon could not finish the consent", "Begin again in a minute.";
    LwaTimeout: 504 "lwa_timeout" "Amazon does not respond",
        "login with amazon did not respond in time",
        "Nothing was changed. Begin again in a minute.";
    LwaUnavailable: 502 "lwa_unavailable" "Amazon cannot be reached",
        "login with amazon cannot be reached, or fails",
        "Nothing was changed. Begin again in a minute; `adsproxy status` shows whether refreshes \
         fail, too.";
    LwaInvalidResponse: 502 "lwa_answer" "Not a response of Amazon's",
        "login with amazon sent a response that is no grant",
        "Check lwa.token_url, and whether a proxy on the way responds in Amazon's place.";
    TooManyLogins: 503 "too_many_logins" "Too many logins",
        "there are as many logins under way as there may be (login.pending_max)",
        "Try again in a few minutes.";
    QuestionGone: 400 "question_gone" "This question is over",
        "this question was answered already, or waited too long for its answer",
        "`adsproxy account show` shows the state of the account.";
    AccountChanged: 409 "account_changed" "Changed meanwhile",
        "the account was connected by another login in the meantime",
        "Nothing was changed. Check with `adsproxy account show` whether the account is as it \
         should be; if not, begin again.";
    StoreSealed: 503 "store_sealed" "The account is sealed",
        "the account's record cannot be decrypted",
        "Put the key of its record back into encryption.keys and restart, or give the account up \
         with `adsproxy logout`; then begin again.";
    StoreFailed: 503 "store_failed" "The store does not work",
        "the store does not work; the log says why",
        "What was there before is still in place. Fix the store, then begin again.";
    NotSaved: 503 "store_failed" "The store does not work",
        "the store cannot keep the new grant; the log says why",
        "What was there before is still in place. Fix the store, then begin again.";
    AuditFailed: 503 "audit_failed" "The audit log does not work",
        "the audit log cannot be written, and no change is made without an entry",
        "What was there before is still in place. Fix the audit log (the server's own log says \
         what is wrong), then begin again.";
    Internal: 500 "internal" "Something broke",
        "the program cannot go on", "Begin the login again.";
}

impl LoginError {
    /// `detail` in place of the table's text.
    pub(crate) fn new(cause: LoginCause, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { cause, detail: detail.into(), quotation: None, source: None }
    }

    pub(crate) fn bad_request(detail: impl Display) -> Self {
        Self::new(LoginCause::BadRequest, detail.to_string())
    }

    pub(crate) fn unknown_account(account: &AccountId) -> Self {
        Self::new(LoginCause::UnknownAccount, format!("there is no account {account}"))
    }

    pub(crate) fn of(cause: LoginCause, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { source: Some(Box::new(source)), ..cause.into() }
    }

    /// A stable name, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.cause.row().code
    }
}

impl From<LoginCause> for LoginError {
    fn from(cause: LoginCause) -> Self {
        Self::new(cause, cause.row().text)
    }
}

impl From<store::Error> for LoginError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Full => LoginCause::TooManyLogins.into(),
            error if error.is_sealed() => Self::of(LoginCause::StoreSealed, error),
            error => Self::of(LoginCause::StoreFailed, error),
        }
    }
}

impl From<audit::Error> for LoginError {
    fn from(error: audit::Error) -> Self {
        Self::of(LoginCause::AuditFailed, error)
    }
}

impl From<GivenError> for LoginError {
    fn from(error: GivenError) -> Self {
        match error {
            GivenError::Store(error) => error.into(),
            GivenError::Audit(error) => error.into(),
            GivenError::NoRegion
            | GivenError::UnknownApplication { .. }
            | GivenError::Contradiction(_) => Self::bad_request(error),
        }
    }
}
