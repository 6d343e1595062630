//! One session: what the store keeps of it, what is asked for a new one, and its place in lists.

use super::{KnownSession, SESSIONS_MAX};
use crate::{
    callers::key::{KeyDigest, KeyId, NewKey, NoRandomKey},
    id::Tenant,
    store,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, collections::HashSet, fmt, str::FromStr, time::Duration};

/// A session as the store keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    pub id: KeyId,
    digest: KeyDigest,
    /// The caller that it may do at most as much as; of a user's, the issuer.
    pub caller: String,
    /// The user that it is of.
    #[serde(default)]
    pub user: Option<SessionUser>,
    /// The tenant it is for, where the caller has none of its own.
    pub tenant: Option<Tenant>,
    /// The configured key that it was issued with: it ends with that.
    pub issued_with: Option<KeyId>,
    /// Globs, as in the configuration; none: those of the caller.
    pub accounts: Option<Vec<String>>,
    pub read_only: bool,
    /// Seconds since 1970, as the next one.
    pub created: u64,
    pub expires: u64,
    pub note: Option<String>,
    #[serde(default)]
    pub made_by: Option<SessionMaker>,
}

/// What a new session is to be.
#[derive(Debug, Clone, Default)]
pub struct SessionRequest {
    pub caller: String,
    pub user: Option<SessionUser>,
    pub tenant: Option<Tenant>,
    pub issued_with: Option<KeyId>,
    pub made_by: Option<SessionMaker>,
    pub ttl: Duration,
    /// `session_ttl_max_secs` of the caller or issuer.
    pub ttl_max: Duration,
    pub accounts: Option<Vec<String>>,
    pub read_only: bool,
    pub note: Option<String>,
}

/// The bearer of tokens of an issuer, whose session it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionUser {
    /// `sub` of the token.
    pub subject: String,
    /// `iss` of the token: an issuer of the same name may be another one later.
    pub issuer: String,
}

/// Who made a session, as the audit log names it. No part is a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SessionMaker {
    /// The caller or issuer; none for a user of the machine at the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The key that it was made with; it ends with that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The number of a user of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// A name in a client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub san: Option<String>,
    /// The subject of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

impl Session {
    /// What callers are known by.
    pub(super) fn known(&self) -> KnownSession {
        KnownSession {
            id: self.id,
            digest: self.digest,
            caller: self.caller.clone(),
            user: self.user.clone(),
            tenant: self.tenant.clone(),
            issued_with: self.issued_with,
            accounts: self.accounts.clone(),
            read_only: self.read_only,
            expires: Duration::from_secs(self.expires),
        }
    }

    /// Whether the key that it was issued with is among the `revoked` ones.
    pub(super) fn is_revoked_by(&self, revoked: &HashSet<KeyId>) -> bool {
        self.issued_with.is_some_and(|id| revoked.contains(&id))
    }

    /// Its place in lists.
    pub fn place(&self) -> SessionPlace {
        SessionPlace { created: Reverse(self.created), id: self.id }
    }

    /// Judges whether there may be one more of its user beside the `known` sessions: users hold no
    /// place that others need.
    pub(super) fn is_within_share(&self, known: &[Self]) -> Result<(), SessionError> {
        let Some(user) = &self.user else { return Ok(()) };
        let of_users = known.iter().filter(|it| it.user.is_some());
        let of_tenant = of_users.clone().filter(|it| it.tenant == self.tenant);
        let own = of_tenant.clone().filter(|it| it.user.as_ref() == Some(user));
        if own.count() >= USER_SESSIONS_MAX {
            return Err(SessionError::OfUser);
        }
        match of_tenant.count() >= TENANT_SESSIONS_MAX || of_users.count() >= USERS_SESSIONS_MAX {
            true => Err(SessionError::Full),
            false => Ok(()),
        }
    }
}

/// The place of a session in a list, the newest first. Stays where it is, whatever comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionPlace {
    created: Reverse<u64>,
    id: KeyId,
}

impl fmt::Display for SessionPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.created.0, self.id)
    }
}

impl FromStr for SessionPlace {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (created, id) = text.split_once('.').ok_or(())?;
        let created = Reverse(created.parse().map_err(|_| ())?);
        Ok(Self { created, id: id.parse().map_err(|_| ())? })
    }
}

/// Sessions of one user at a time, of the users of one tenant, and of all users: the rest is for
/// callers of the configuration.
const USER_SESSIONS_MAX: usize = 100;
const TENANT_SESSIONS_MAX: usize = SESSIONS_MAX / 10;
const USERS_SESSIONS_MAX: usize = SESSIONS_MAX / 10 * 9;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(
        "a session of this caller lives from 1 second to {} ({}.session_ttl_max_secs = {})",
        span(*.most), .table, .most.as_secs()
    )]
    Ttl { most: Duration, table: &'static str },
    #[error("the note is longer than {NOTE_MAX_LEN} bytes, or has control characters")]
    Note,
    #[error("name 1 to {ACCOUNTS_MAX} accounts, each up to 200 bytes long, or none at all")]
    Accounts,
    #[error("there are {SESSIONS_MAX} sessions, as many as there may be: revoke some, or wait")]
    Full,
    #[error("a user has at most {USER_SESSIONS_MAX} sessions at a time: end some, or wait")]
    OfUser,
    #[error(transparent)]
    Random(#[from] NoRandomKey),
    #[error(transparent)]
    Store(store::Error),
}

const NOTE_MAX_LEN: usize = 200;
const ACCOUNTS_MAX: usize = 100;

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{} hours", seconds / 3600),
        seconds => format!("{seconds} seconds"),
    }
}

impl SessionRequest {
    /// The session that `key` is of, made at `created`.
    pub(super) fn session(self, key: &NewKey, created: u64) -> Result<Session, SessionError> {
        self.validate()?;
        let presented = key.presented();
        Ok(Session {
            id: presented.id,
            digest: presented.digest(),
            caller: self.caller,
            user: self.user,
            tenant: self.tenant,
            issued_with: self.issued_with,
            accounts: self.accounts,
            read_only: self.read_only,
            created,
            expires: created + self.ttl.as_secs(),
            note: self.note,
            made_by: self.made_by,
        })
    }

    fn validate(&self) -> Result<(), SessionError> {
        if self.ttl < Duration::from_secs(1) || self.ttl > self.ttl_max {
            let table = if self.user.is_some() { "issuers" } else { "callers" };
            return Err(SessionError::Ttl { most: self.ttl_max, table });
        }
        let is_note =
            |note: &String| note.len() <= NOTE_MAX_LEN && !note.contains(char::is_control);
        if !self.note.as_ref().is_none_or(is_note) {
            return Err(SessionError::Note);
        }
        let is_glob = |glob: &String| (1..=200).contains(&glob.len());
        let are_accounts = |globs: &Vec<String>| {
            (1..=ACCOUNTS_MAX).contains(&globs.len()) && globs.iter().all(is_glob)
        };
        if !self.accounts.as_ref().is_none_or(are_accounts) {
            return Err(SessionError::Accounts);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callers::key::KeyKind;

    fn session(subject: Option<&str>, tenant: &str) -> Session {
        let key = NewKey::generate(KeyKind::Session).expect("a key");
        let issuer = "https://a.example".to_owned();
        let user = subject.map(|it| SessionUser { subject: it.to_owned(), issuer });
        let request = SessionRequest {
            user,
            tenant: Some(tenant.parse().expect("a tenant")),
            ttl: Duration::from_secs(1),
            ttl_max: Duration::from_secs(1),
            ..SessionRequest::default()
        };
        request.session(&key, 7).expect("valid")
    }

    #[test]
    fn a_place_is_read_as_it_is_written_and_the_newest_is_first() {
        let (one, two) = (session(None, "t"), Session { created: 8, ..session(None, "t") });
        assert_eq!(one.place().to_string().parse(), Ok(one.place()));
        assert!(two.place() < one.place());
        for wrong in ["", ".", "7", "7.", "x.aaaaaaaa", "7.aaaaaaa", "-7.aaaaaaaa"] {
            assert!(wrong.parse::<SessionPlace>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn users_hold_no_place_that_others_need() {
        let many = |subject: Option<&str>, tenant: &str, number: usize| {
            vec![session(subject, tenant); number]
        };
        let of = |subject| session(Some(subject), "t");
        let own = many(Some("a"), "t", USER_SESSIONS_MAX);
        assert!(matches!(of("a").is_within_share(&own), Err(SessionError::OfUser)));
        assert!(of("b").is_within_share(&own).is_ok(), "another user's");
        assert!(session(Some("a"), "u").is_within_share(&own).is_ok(), "elsewhere");
        assert!(session(None, "t").is_within_share(&own).is_ok(), "an operator's");
        let tenants = many(Some("c"), "t", TENANT_SESSIONS_MAX);
        assert!(matches!(of("a").is_within_share(&tenants), Err(SessionError::Full)));
        assert!(session(Some("a"), "u").is_within_share(&tenants).is_ok());
        let all = many(Some("c"), "u", USERS_SESSIONS_MAX);
        assert!(matches!(of("a").is_within_share(&all), Err(SessionError::Full)));
        assert!(session(None, "t").is_within_share(&all).is_ok(), "room is left");
        assert!(of("a").is_within_share(&many(None, "t", SESSIONS_MAX)).is_ok());
    }

    #[test]
    fn what_an_older_version_kept_is_read() {
        let session = session(None, "t");
        let mut old = serde_json::to_value(&session).expect("JSON");
        let members = old.as_object_mut().expect("an object");
        assert!(members.remove("user").is_some() && members.remove("made_by").is_some());
        let read: Session = serde_json::from_value(old).expect("a session");
        assert_eq!((read.id, read.user, read.made_by), (session.id, None, None));
    }
}
