//! What can go wrong with a login, in words for the person in front of it.
//!
//! One table: status, code, title, and what to do. Nothing here holds a secret or what Amazon sent,
//! except its description of a denial, which a page must escape.

use crate::{audit, lwa, store};

/// Why a login cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// No account was named.
    #[error("name the account to connect: ?account=<alias>")]
    AccountRequired,
    /// An argument that is none.
    #[error("{0}")]
    BadRequest(String),
    /// There is no such account, where one must be there already.
    #[error("there is no account {0}")]
    UnknownAccount(String),
    /// The answer names no login.
    #[error("the answer has no state, so it belongs to no login")]
    StateMissing,
    /// An argument came twice.
    #[error("the answer has {0} more than once")]
    Doubled(&'static str),
    /// Used, made up, or long gone.
    #[error(
        "this answer belongs to no login that is under way: it was used already, is too old, or was never asked for"
    )]
    StateUnknown,
    /// The person took too long.
    #[error("this login took longer than it may")]
    StateExpired,
    /// Another browser began it.
    #[error("this login was begun in another browser, or this one did not keep its cookie")]
    OtherBrowser,
    /// The configuration is another than when it began.
    #[error("the configuration of application {0} was changed since this login was begun")]
    ConfigurationChanged(String),
    /// A link that was used or is too old.
    #[error("this link was used already, or is too old")]
    LinkUsed,
    /// The person said no.
    #[error("access was denied on Amazon's page")]
    Denied(Option<String>),
    /// The return address is not registered.
    #[error("amazon does not know the return address {redirect_uri}")]
    RedirectUri {
        /// The configured one.
        redirect_uri: String,
    },
    /// A scope Amazon does not know, or does not give this application.
    #[error("amazon does not know the scope {scopes:?} for this application")]
    ScopeUnknown {
        /// The configured ones.
        scopes: String,
    },
    /// Less was consented to than was asked for.
    #[error("less was consented to than {scopes:?}")]
    ScopeMissing {
        /// The configured ones.
        scopes: String,
    },
    /// The application is not approved for the Ads API.
    #[error("amazon has not approved this application for the Ads API")]
    NotApproved,
    /// Client id or secret is wrong.
    #[error("amazon rejects the application's client id or secret")]
    ApplicationRejected,
    /// An answer without a code.
    #[error("the answer has neither a code nor an error")]
    CodeMissing,
    /// The code came too late.
    #[error("the code has expired: amazon's codes live five minutes")]
    CodeLate,
    /// The code was used.
    #[error("the code was used already, or was made for another login")]
    CodeReused,
    /// Amazon's own failure, told in the browser.
    #[error("amazon could not finish the consent: {0}")]
    AmazonFailed(&'static str),
    /// LWA did not answer in time.
    #[error("login with amazon did not answer in time")]
    LwaTimeout,
    /// LWA cannot be reached, or fails.
    #[error("login with amazon cannot be reached, or fails")]
    LwaUnavailable(#[source] lwa::Error),
    /// LWA answered what is no grant.
    #[error("login with amazon gave an answer that is no grant")]
    LwaAnswer(#[source] lwa::Error),
    /// As many logins as there may be.
    #[error("there are as many logins under way as there may be (login.pending_max)")]
    TooMany,
    /// The question was answered, or waited too long.
    #[error("this question was answered already, or waited too long for its answer")]
    QuestionGone,
    /// Somebody else connected the account meanwhile.
    #[error("the account was connected by somebody else in the meantime")]
    AccountChanged,
    /// The store does not do its part.
    #[error("the store does not work; the log says why")]
    Store(#[source] store::Error),
    /// The store does not take the new grant.
    #[error("the store cannot keep the new grant; the log says why")]
    NotSaved(#[source] store::Error),
    /// What cannot be recorded is not done.
    #[error("the audit log cannot be written, and nothing is done that it does not tell")]
    Audit(#[from] audit::Error),
    /// No random bytes, or a task that ended.
    #[error("the program cannot go on")]
    Internal,
}

/// What a page says about a problem.
struct Words {
    status: u16,
    code: &'static str,
    title: &'static str,
    /// What the person can do.
    advice: &'static str,
}

impl Problem {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.words().status
    }

    /// A stable name, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.words().code
    }

    /// What happened, in three words.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.words().title
    }

    /// What to do now.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        self.words().advice
    }

    /// What Amazon said, in its words: to be escaped, and shown as a quotation only.
    #[must_use]
    pub fn quotation(&self) -> Option<&str> {
        match self {
            Self::Denied(said) => said.as_deref(),
            _ => None,
        }
    }

    fn words(&self) -> Words {
        let (status, code, title, advice) = match self {
            Self::AccountRequired => (
                400,
                "account_required",
                "Which account?",
                "Name an account, for example ?account=acme.",
            ),
            Self::BadRequest(_) => {
                (400, "bad_request", "Not understood", "Correct the request and try again.")
            }
            Self::UnknownAccount(_) => {
                (404, "unknown_account", "No such account", "Compare with `adsproxy account list`.")
            }
            Self::StateMissing => (
                400,
                "state_missing",
                "Not a login of ours",
                "Begin the login again, and follow the link it gives to the end.",
            ),
            Self::Doubled(_) => (
                400,
                "parameter_doubled",
                "Not a login of ours",
                "Begin the login again; if this comes back, something between Amazon and here \
                 changes addresses.",
            ),
            Self::StateUnknown => (
                400,
                "state_unknown",
                "This login is over",
                "Begin the login again. A login ends with its first answer; to load its last page \
                 anew does not repeat it.",
            ),
            Self::StateExpired => (
                400,
                "state_expired",
                "This took too long",
                "Begin the login again; there are ten minutes for it, unless login.timeout_secs \
                 says otherwise.",
            ),
            Self::OtherBrowser => (
                403,
                "other_browser",
                "Another browser",
                "Finish the login in the browser it was begun in, and let that browser keep \
                 cookies for this address. If you did not begin this login, close this page: \
                 somebody wanted you to connect their account.",
            ),
            Self::ConfigurationChanged(_) => {
                (409, "configuration_changed", "Begin again", "Begin the login again.")
            }
            Self::LinkUsed => (
                410,
                "link_used",
                "This link is over",
                "Ask for a new link, or begin a login: `adsproxy login`.",
            ),
            Self::Denied(_) => (
                403,
                "access_denied",
                "Access was denied",
                "Nothing was changed. To connect the account, begin again and allow access.",
            ),
            Self::RedirectUri { .. } => (
                400,
                "redirect_uri_mismatch",
                "Wrong return address",
                "Add exactly this address, letter for letter, to the Allowed Return URLs of the \
                 security profile in Amazon's developer console, or set lwa.redirect_uri to one \
                 that is there.",
            ),
            Self::ScopeUnknown { .. } => (
                400,
                "scope_unknown",
                "Unknown scope",
                "Check lwa.scopes. Amazon also says this of an application that was not \
                 approved for the Ads API yet.",
            ),
            Self::ScopeMissing { .. } => (
                403,
                "scope_missing",
                "Not enough was allowed",
                "Nothing was changed. Begin again and allow all that is asked for.",
            ),
            Self::NotApproved => (
                403,
                "application_not_approved",
                "Application not approved",
                "Apply for access to the Ads API at \
                 https://advertising.amazon.com/API/docs, with this security profile; approval \
                 takes some days.",
            ),
            Self::ApplicationRejected => (
                502,
                "application_rejected",
                "Wrong client id or secret",
                "Check lwa.client_id and lwa.client_secret against the security profile.",
            ),
            Self::CodeMissing => {
                (400, "code_missing", "Nothing came back", "Begin the login again.")
            }
            Self::CodeLate => {
                (400, "code_late", "Too late", "Begin the login again, and do not wait on its way.")
            }
            Self::CodeReused => {
                (400, "code_reused", "Used already", "Begin the login again: a code works once.")
            }
            Self::AmazonFailed(_) => {
                (502, "amazon_failed", "Amazon had a problem", "Begin again in a minute.")
            }
            Self::LwaTimeout => (
                504,
                "lwa_timeout",
                "Amazon does not answer",
                "Nothing was changed. Begin again in a minute.",
            ),
            Self::LwaUnavailable(_) => (
                502,
                "lwa_unavailable",
                "Amazon cannot be reached",
                "Nothing was changed. Begin again in a minute; `adsproxy status` tells whether \
                 refreshes fail, too.",
            ),
            Self::LwaAnswer(_) => (
                502,
                "lwa_answer",
                "Not an answer of Amazon's",
                "Check lwa.token_url, and whether a proxy on the way answers in Amazon's place.",
            ),
            Self::TooMany => {
                (503, "too_many_logins", "Too many logins", "Try again in a few minutes.")
            }
            Self::QuestionGone => (
                400,
                "question_gone",
                "This question is over",
                "`adsproxy account show` tells how the account stands.",
            ),
            Self::AccountChanged => (
                409,
                "account_changed",
                "Somebody was faster",
                "Nothing was changed. See with `adsproxy account show` whether the account is as it \
                 should be; if not, begin again.",
            ),
            Self::Store(error) if error.is_sealed() => (
                503,
                "store_sealed",
                "The account is sealed",
                "Put the key of its record back into encryption.keys and restart, or give the \
                 account up with `adsproxy logout`; then begin again.",
            ),
            Self::Store(_) | Self::NotSaved(_) => (
                503,
                "store_failed",
                "The store does not work",
                "What was there before is still in place. Mend the store, then begin again.",
            ),
            Self::Audit(_) => (
                503,
                "audit_failed",
                "The audit log does not work",
                "What was there before is still in place. Mend the audit log (the server's own log \
                 says what is wrong), then begin again.",
            ),
            Self::Internal => (500, "internal", "Something broke", "Begin the login again."),
        };
        Words { status, code, title, advice }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Full => Self::TooMany,
            error => Self::Store(error),
        }
    }
}

impl From<lwa::authorize::NoRandom> for Problem {
    fn from(_: lwa::authorize::NoRandom) -> Self {
        Self::Internal
    }
}
