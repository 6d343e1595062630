//! Browsers that have signed in: entries of the store, of which each cookie names one.
//!
//! A session is worth what its credential is worth at each request: it ends with the key, with the
//! issuer or its tenant, after half an hour without use, and after twelve hours.

use super::{
    browsers::agent,
    cookie::{SessionCookie, presented},
    identity::VisitorIdentity,
    visitor::Visitor,
};
use crate::{
    admin::{Admin, AdminCall},
    audit::Action,
    login::{LoginError, exposed},
    problem::Code,
    secret::Secret,
    store::{self, Entries, Item, Limit, Space},
};
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A session ends when it was not used for so long.
const IDLE_TIMEOUT_SECS: u64 = 30 * 60;
/// However much it is used, it ends so long after the sign-in.
const LIFETIME_SECS: u64 = 12 * 3600;
/// Sessions and links at a time.
const ENTRIES_MAX: usize = 10_000;
/// Sessions of one visitor at a time: no key can take the room of all.
const OF_ONE_MAX: usize = 100;
/// How long a link signs a browser in.
pub(super) const LINK_LIFETIME: Duration = Duration::from_secs(60);

/// What the store keeps of a session. Times are in seconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BrowserSession {
    pub(super) identity: VisitorIdentity,
    /// The hash of the cookie's secret.
    #[serde(with = "exposed")]
    digest: Secret,
    /// Its cookie came by HTTPS: by the other name it is none.
    is_secure: bool,
    pub(super) signed_in: u64,
    pub(super) used: u64,
    /// What the browser calls itself, for its owner to know it by.
    pub(super) agent: String,
}

impl Admin {
    pub(super) fn unix_now(&self) -> u64 {
        self.0.logins.engine.clock().now().unix()
    }

    pub(super) fn browsers(&self) -> Entries<'_> {
        self.0.logins.engine.store().entries(Space::Browsers)
    }

    /// Ends a session; false if there was none.
    pub(super) async fn end_session(&self, name: &str) -> Result<bool, store::Error> {
        self.verified().end(name, self.0.logins.engine.clock().now());
        self.browsers().delete(name).await
    }

    /// The sessions of `names` that have not ended, with their names.
    pub(super) async fn sessions_of(
        &self,
        names: Vec<String>,
    ) -> Result<Vec<(String, BrowserSession)>, LoginError> {
        let now = self.unix_now();
        let found = self.browsers().get_all(names).await?.into_iter();
        let sessions = found.filter_map(|(name, item)| Some((name, parse(&item)?)));
        Ok(sessions.filter(|(_, session)| !session.has_ended(now)).collect())
    }

    /// The names of the sessions of `identity`.
    pub(super) async fn names_of(
        &self,
        identity: &VisitorIdentity,
    ) -> Result<Vec<String>, LoginError> {
        let (mut names, tag) = (self.browsers().names().await?, identity.tag());
        names.retain(|name| name.starts_with(&tag));
        Ok(names)
    }

    /// Ends the oldest sessions of `identity`, so that there is room for one more.
    async fn make_room(&self, identity: &VisitorIdentity) -> Result<(), LoginError> {
        let names = self.names_of(identity).await?;
        if names.len() < OF_ONE_MAX {
            return Ok(());
        }
        let mut sessions = self.sessions_of(names).await?;
        sessions.retain(|(_, session)| session.identity == *identity);
        sessions.sort_by_key(|(_, session)| session.signed_in);
        let surplus = (sessions.len() + 1).saturating_sub(OF_ONE_MAX);
        for (name, _) in &sessions[..surplus] {
            self.end_session(name).await?;
        }
        Ok(())
    }
}

impl BrowserSession {
    /// Whether `cookie` is its cookie.
    pub(super) fn is_of(&self, cookie: &SessionCookie) -> bool {
        self.is_secure == cookie.is_secure && self.digest == cookie.digest()
    }

    pub(super) fn has_ended(&self, now: u64) -> bool {
        self.end() <= now
    }

    pub(super) fn end(&self) -> u64 {
        (self.used + IDLE_TIMEOUT_SECS).min(self.signed_in + LIFETIME_SECS)
    }

    pub(super) fn item(&self) -> Item {
        item(self, self.end())
    }
}

pub(super) fn parse(item: &Item) -> Option<BrowserSession> {
    serde_json::from_str(item.text.expose()).ok()
}

/// An entry that is good until `end`, in seconds since 1970.
pub(super) fn item(what: &impl Serialize, end: u64) -> Item {
    Item {
        account: None,
        expires_at_ms: Some(end.saturating_mul(1000)),
        text: Secret::new(serde_json::to_string(what).expect("an entry is plain JSON")),
    }
}

/// How many entries there may be.
pub(super) fn limit(now: u64) -> Limit {
    Limit { max: ENTRIES_MAX, now_ms: now.saturating_mul(1000) }
}

/// Signs the browser in as `identity`; its cookie. What it was signed in as before ends.
pub(super) async fn begin(
    call: &AdminCall,
    identity: VisitorIdentity,
    is_secure: bool,
) -> Result<HeaderValue, LoginError> {
    let (admin, logins, headers) = (&call.admin, &call.logins, &call.parts.headers);
    let principal = admin.principal_of(&identity).map_err(|()| Code::Internal)?;
    for before in presented(headers) {
        if admin.session_of(&before).await?.is_some() {
            admin.end_session(&before.name).await?;
        }
    }
    admin.make_room(&identity).await?;
    let (cookie, now) = (SessionCookie::new(&identity.tag(), is_secure), admin.unix_now());
    let visitor = Visitor {
        identity: identity.clone(),
        principal,
        csrf: cookie.csrf(),
        is_fresh: true,
        key: cookie.name.clone(),
        is_remembered: false,
    };
    let session = BrowserSession {
        identity,
        digest: cookie.digest(),
        is_secure,
        signed_in: now,
        used: now,
        agent: agent(headers),
    };
    let logins = logins.for_request(&logins.request_id, None, visitor.actor(admin));
    let entry = logins.entry_of(Action::DashboardSignIn);
    let keep = async { Ok(admin.browsers().put(&visitor.key, &session.item(), limit(now)).await?) };
    logins.engine.audit().around::<_, LoginError>(entry, "store_failed", keep).await?;
    Ok(cookie.set(headers))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::admin::dashboard) fn session_of(cookie: &SessionCookie) -> BrowserSession {
        BrowserSession {
            identity: VisitorIdentity::User { uid: 0 },
            digest: cookie.digest(),
            is_secure: cookie.is_secure,
            signed_in: 1000,
            used: 1000,
            agent: String::new(),
        }
    }

    #[test]
    fn a_session_ends_half_an_hour_after_its_last_use_and_twelve_hours_after_the_sign_in() {
        let cookie = SessionCookie::new("0123456789abcdef", false);
        let session = |used| BrowserSession { used, ..session_of(&cookie) };
        let end = |used| session(used).end();
        assert_eq!(end(1000), 1000 + 1800);
        assert_eq!(end(1000 + 42_000), 1000 + 43_200);
        assert!(session(1000).has_ended(2800) && !session(1000).has_ended(2799));
    }
}
