//! What requests and responses about callers, their keys and their sessions hold: their fields, for
//! programs and for the OpenAPI document. Never a key but a new one, nor a digest.

use crate::callers::{key::KeyId, sessions::SessionMaker};
use schemars::JsonSchema;
use serde::Serialize;

/// A caller of the configuration.
#[derive(Serialize, JsonSchema)]
pub(super) struct CallerDetails {
    pub(super) name: String,
    /// The tenant whose accounts it sees; none: those of all.
    pub(super) tenant: Option<String>,
    /// It may use the whole admin API.
    pub(super) operator: bool,
    pub(super) read_only: bool,
    /// Globs, as in the configuration; none: all that it can see.
    pub(super) accounts: Option<Vec<String>>,
    pub(super) unix_uids: Vec<u32>,
    pub(super) unix_gids: Vec<u32>,
    pub(super) mtls_san: Vec<String>,
    pub(super) keys: Vec<KeyDetails>,
}

/// A key of a caller.
#[derive(Serialize, JsonSchema)]
pub(super) struct KeyDetails {
    /// The eight characters behind `adsk_`.
    pub(super) id: String,
    /// `active`, `expired` or `revoked`.
    pub(super) state: &'static str,
    /// RFC 3339, as all times.
    pub(super) created: Option<String>,
    pub(super) expires: Option<String>,
    /// To the minute; none: not that anybody knows.
    pub(super) last_used: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct CallerPage {
    /// In the order of their names.
    pub(super) callers: Vec<CallerDetails>,
    /// Of the page that follows; none on the last one.
    pub(super) next_cursor: Option<String>,
}

/// A session, without its key.
#[derive(Serialize, JsonSchema)]
pub(super) struct SessionDetails {
    /// The eight characters behind `adss_`.
    pub(super) id: String,
    /// `active`; `expired`; `revoked`, with the key that it was made with; or `orphaned`: its caller is
    /// not in the configuration any more, or may have no such session.
    pub(super) state: &'static str,
    /// The caller that it may do at most as much as; the issuer of the user that it is of.
    pub(super) caller: String,
    /// The user that it is of, by the subject of the token.
    pub(super) subject: Option<String>,
    pub(super) tenant: Option<String>,
    /// Globs, as in the configuration; none: those of the caller.
    pub(super) accounts: Option<Vec<String>>,
    pub(super) read_only: bool,
    /// RFC 3339, as all times.
    pub(super) created: String,
    pub(super) expires: String,
    /// To the minute.
    pub(super) last_used: Option<String>,
    pub(super) note: Option<String>,
    /// Who made it; shown to operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) made_by: Option<SessionMaker>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct SessionPage {
    /// Newest first.
    pub(super) sessions: Vec<SessionDetails>,
    /// Of the page that follows; none on the last one.
    pub(super) next_cursor: Option<String>,
}

/// A new session with its key, which no other response has.
#[derive(Serialize, JsonSchema)]
pub(super) struct NewSession {
    #[serde(flatten)]
    pub(super) session: SessionDetails,
    /// `adss_…`.
    pub(super) key: String,
}

/// A key or session that is accepted no more.
#[derive(Serialize, JsonSchema)]
pub(super) struct EndedKey {
    /// `key` or `session`.
    pub(super) kind: &'static str,
    pub(super) id: String,
    /// Whose it was.
    pub(super) caller: String,
}

impl EndedKey {
    pub(super) fn new(kind: &'static str, id: KeyId, caller: &str) -> Self {
        Self { kind, id: id.to_string(), caller: caller.to_owned() }
    }
}
