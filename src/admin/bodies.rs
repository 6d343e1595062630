//! What requests and responses hold that is put together here: their fields, for programs and for
//! the OpenAPI document.

use crate::{account::AccountView, id::Region};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `/status`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Overview {
    pub(super) version: &'static str,
    /// `ok`, or `degraded` while the store does not take a record.
    pub(super) store: &'static str,
    pub(super) accounts: Vec<AccountView>,
    /// Keys of the configuration that changed and wait for a restart; for operators.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub(super) restart_required: Vec<String>,
    /// What Amazon throttles now, as in `/api/v1/throttling`.
    pub(super) throttled: Vec<ThrottledCalls>,
}

/// Calls of one region, application, profile, API and class of operation, and what Amazon's 429s and
/// 5xx to them said.
#[derive(Serialize, JsonSchema)]
pub(super) struct ThrottledCalls {
    pub(super) region: Region,
    pub(super) application: Option<String>,
    /// `Amazon-Advertising-API-Scope`; without one the calls are those of one account.
    pub(super) profile: Option<String>,
    /// The first part of the path: `sp`, `reporting`, `adsApi`, `mcp`.
    pub(super) api: String,
    /// `read`, `report` or `write`.
    pub(super) class: &'static str,
    /// Some of those whose calls they were.
    pub(super) accounts: Vec<String>,
    /// Responses by kind.
    pub(super) counts: BTreeMap<&'static str, u64>,
    /// RFC 3339.
    pub(super) last_seen: String,
    pub(super) last_kind: &'static str,
    pub(super) last_retry_after_secs: Option<u64>,
    /// What is left of the wait; none if there is none, 0 while a probe is awaited.
    pub(super) cooldown_left_secs: Option<u64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ThrottlingPage {
    /// `throttling.enforce`.
    pub(super) enforced: bool,
    /// The latest first. One that Amazon throttles again while pages are read is first again.
    pub(super) throttling: Vec<ThrottledCalls>,
    /// How many there are on all pages.
    pub(super) total: usize,
    /// Of the page that follows; none on the last one.
    pub(super) next_cursor: Option<String>,
}

/// An account and its token, never the token itself.
#[derive(Serialize, JsonSchema)]
pub(super) struct AccountDetails {
    #[serde(flatten)]
    pub(super) view: AccountView,
    /// `bearer`.
    pub(super) token_type: &'static str,
    /// There is an access token that has not expired.
    pub(super) valid: bool,
    /// RFC 3339, of the access token.
    pub(super) expires_at: Option<String>,
    /// Seconds.
    pub(super) expires_in: Option<u64>,
    /// The access token is inside `token.refresh_buffer_secs`, or there is none.
    pub(super) needs_refresh: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct AccountPage {
    pub(super) accounts: Vec<AccountDetails>,
    /// Of the page that follows; none on the last one.
    pub(super) next_cursor: Option<String>,
}

/// What `GET /api/auth/token-status` returns: one account, or all of them.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "each is put together as such")]
#[serde(untagged)]
pub(super) enum TokenStatus {
    One(AccountDetails),
    All(AccountPage),
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Refreshed {
    #[serde(flatten)]
    pub(super) account: AccountDetails,
    /// The access token is a new one.
    pub(super) refreshed: bool,
    /// There is a good access token.
    pub(super) success: bool,
}

/// Names the account.
#[derive(JsonSchema)]
pub(super) struct AccountBody {
    #[expect(dead_code, reason = "the body is read field by field")]
    account: String,
}

/// Makes a session.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the body is read field by field")]
pub(super) struct SessionBody {
    /// The caller that it may do at most as much as; absent for a user, who makes its own.
    caller: Option<String>,
    ttl_secs: u64,
    /// Globs, as in the configuration; absent: those of the caller.
    accounts: Option<Vec<String>>,
    read_only: Option<bool>,
    note: Option<String>,
}

/// Begins a login.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the body is read field by field")]
pub(super) struct LoginBody {
    account: String,
    /// `na`, `eu` or `fe`; by default that of the most profiles.
    region: Option<String>,
    /// Which entry of `[applications]`.
    application: Option<String>,
    /// Replaces a grant with other profiles without a question.
    replace: Option<bool>,
}

/// A login that was begun.
#[derive(Serialize, JsonSchema)]
pub(super) struct LoginBegun {
    pub(super) auth_url: String,
    pub(super) state: String,
    pub(super) account: String,
    /// Seconds until it must have ended.
    pub(super) expires_in: u64,
}

/// A link that begins a login in any browser, once.
#[derive(Serialize, JsonSchema)]
pub(super) struct LinkBody {
    pub(super) url: String,
    /// For `GET /api/auth/amazon/logins/{id}`.
    pub(super) login: String,
    /// Seconds.
    pub(super) expires_in: u64,
}

/// Answers the question whether to replace an account.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the body is read field by field")]
pub(super) struct AnswerBody {
    token: String,
    /// `yes` or `no`.
    answer: String,
}

/// One entry of the audit log, as it is written there; more members than these may be there.
#[derive(Serialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct AuditEntry(pub(super) serde_json::Map<String, Value>);

#[derive(Serialize, JsonSchema)]
pub(super) struct AuditPage {
    /// Newest first.
    pub(super) entries: Vec<AuditEntry>,
    pub(super) next_cursor: Option<String>,
}

/// A request of the data plane that has ended.
#[derive(Serialize, JsonSchema)]
pub(super) struct RequestEntry {
    /// When it came, RFC 3339.
    pub(super) time: String,
    pub(super) method: String,
    /// Without the query string; cut after 512 bytes.
    pub(super) path: String,
    /// None if none was selected.
    pub(super) account: Option<String>,
    pub(super) region: Option<Region>,
    pub(super) caller: Option<String>,
    /// 499: the caller left before the response.
    pub(super) status: u16,
    /// The code of a response of ours, or of one that was cut off.
    pub(super) error: Option<&'static str>,
    pub(super) replays: u32,
    pub(super) duration_ms: f64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) request_id: String,
    pub(super) amazon_request_id: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct RequestPage {
    /// Newest first.
    pub(super) requests: Vec<RequestEntry>,
    pub(super) next_cursor: Option<String>,
}
