//! What an entry says, in types that cannot hold a token.
//!
//! Texts are either fixed in this program or checked names; what comes from outside goes through
//! [`ShortName`], which is too short for a token and has no `|`, which Amazon's tokens begin with.

#![allow(missing_docs, reason = "public for the behaviour tests only")]

use super::{chain::rfc3339, short_name::ShortName};
use crate::{id::AccountId, named::named};
use serde::{Serialize, Serializer};
use std::time::Duration;

/// One thing that was done or that happened, as the members of a line in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    #[serde(flatten)]
    pub(super) actor: Actor,
    pub(super) action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<AccountId>,
    #[serde(flatten)]
    pub(super) outcome: EntryOutcome,
    /// What the response says: the caller's own id, if it sent one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<ShortName>,
    /// The server's own id of the request, beside one of the caller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_request_id: Option<ShortName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u64>,
    /// The caller that a key or session is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<ShortName>,
    /// The user that a session is of, by the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) caller_subject: Option<ShortName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) about: Option<ShortName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// When it happened, where it could not be written then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) occurred: Option<String>,
    /// Of `audit.begin` and `audit.expire`: the number of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) segment: Option<u64>,
    /// Of `audit.begin`: the MAC of the line before, which is in another file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prev: Option<String>,
}

impl Entry {
    /// `actor` did `action`; the outcome is `ok` unless said otherwise.
    pub fn new(actor: Actor, action: Action) -> Self {
        Self {
            actor,
            action,
            account: None,
            outcome: EntryOutcome::Ok,
            request_id: None,
            server_request_id: None,
            generation: None,
            caller: None,
            caller_subject: None,
            about: None,
            count: None,
            occurred: None,
            segment: None,
            prev: None,
        }
    }

    pub fn account(mut self, account: &AccountId) -> Self {
        self.account = Some(account.clone());
        self
    }

    /// It is about to be done: to be recorded before a change, so that none goes unrecorded.
    pub fn attempt(mut self) -> Self {
        self.outcome = EntryOutcome::Attempt;
        self
    }

    /// It was not done; `reason` is a stable code such as `invalid_grant`.
    pub fn failed(mut self, reason: &'static str) -> Self {
        self.outcome = EntryOutcome::Failed { reason };
        self
    }

    /// It happened at `wall`, since 1970, and is written later; none if that was said before.
    pub(super) fn set_occurred(&mut self, wall: Duration) -> Option<()> {
        let is_said = self.occurred.is_some();
        (!is_said).then(|| self.occurred = Some(rfc3339(wall)))
    }

    pub fn request_id(mut self, id: &str) -> Self {
        self.request_id = Some(ShortName::new(id));
        self
    }

    /// The server's own id of the request: a caller cannot choose it.
    pub fn server_request_id(mut self, id: &str) -> Self {
        self.server_request_id = Some(ShortName::new(id));
        self
    }

    pub fn generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }

    /// Whose key or session it is about.
    pub fn caller(mut self, name: &str) -> Self {
        self.caller = Some(ShortName::new(name));
        self
    }

    /// The user whose session it is about; none: not a user's.
    pub fn caller_subject(mut self, subject: Option<&str>) -> Self {
        self.caller_subject = subject.map(ShortName::spelled);
        self
    }

    /// What else it was about, such as the id of a key or the name of a hook; never a secret.
    pub fn about(mut self, what: &str) -> Self {
        self.about = Some(ShortName::new(what));
        self
    }

    /// Whether it is about `what`.
    pub(crate) fn is_about(&self, what: &str) -> bool {
        self.about.as_ref().is_some_and(|about| about.as_str() == what)
    }

    /// Whether the same caller did the same, whatever it was about and however the caller was known.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let is_same_caller = match (&self.actor, &other.actor) {
            (Actor::Caller(one), Actor::Caller(two)) | (Actor::Admin(one), Actor::Admin(two)) => {
                (&one.caller, &one.tenant) == (&two.caller, &two.tenant)
            }
            (one, two) => one == two,
        };
        is_same_caller && (self.action, self.outcome) == (other.action, other.outcome)
    }

    /// The entry for all that are like it.
    pub(super) fn summed(mut self) -> Self {
        if let Actor::Caller(actor) | Actor::Admin(actor) = &mut self.actor {
            actor.proof = None;
        }
        Self { account: None, about: None, ..self }
    }

    /// Of how many: records imported, bytes cut off.
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }
}

/// A caller, and how it proved to be that one. Nothing of it is a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AdminActor {
    /// The configured caller or issuer; none for a browser, which brings a link or a state.
    #[serde(rename = "user", skip_serializing_if = "Option::is_none")]
    caller: Option<ShortName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<ShortName>,
    #[serde(flatten)]
    proof: Option<ActorProof>,
}

/// By what a caller was known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ActorProof {
    Key {
        key_id: ShortName,
    },
    Session {
        session: ShortName,
        /// The user that it is of.
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<ShortName>,
    },
    /// The peer of a Unix socket.
    User {
        uid: u32,
    },
    /// The group of that peer.
    Group {
        gid: u32,
    },
    Certificate {
        san: ShortName,
    },
    Jwt {
        issuer: ShortName,
        subject: ShortName,
        /// The session that the token names.
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<ShortName>,
    },
}

impl ActorProof {
    /// The key `id`, without its secret.
    pub fn key(id: &str) -> Self {
        Self::Key { key_id: ShortName::new(id) }
    }

    /// The session `id`; of a user's, with the `subject`.
    pub fn session(id: &str, subject: Option<&str>) -> Self {
        Self::Session { session: ShortName::new(id), subject: subject.map(ShortName::spelled) }
    }

    pub fn certificate(san: &str) -> Self {
        Self::Certificate { san: ShortName::spelled(san) }
    }

    /// A verified token of `issuer` for `subject`.
    pub fn jwt(issuer: &str, subject: &str, session: Option<&str>) -> Self {
        Self::Jwt {
            issuer: ShortName::spelled(issuer),
            subject: ShortName::spelled(subject),
            session: session.map(ShortName::spelled),
        }
    }
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "actor", rename_all = "lowercase")]
pub enum Actor {
    /// A user at the command line.
    Cli {
        /// The user's number in the operating system.
        uid: u32,
        /// The user's name, if the number has one.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<ShortName>,
    },
    /// A caller at the admin listener.
    Admin(AdminActor),
    /// A caller of the data plane.
    Caller(AdminActor),
    /// The server of its own accord.
    Server,
    /// The audit log itself.
    Audit,
}

impl Actor {
    /// The user of this process.
    pub fn cli() -> Self {
        Self::cli_user(rustix::process::getuid().as_raw())
    }

    /// The user `uid` at the command line.
    pub fn cli_user(uid: u32) -> Self {
        Self::Cli { uid, user: user_name(uid).map(|name| ShortName::new(&name)) }
    }

    /// A caller at the admin listener that is not known: a browser with a link, or nobody.
    pub fn unknown() -> Self {
        Self::Admin(AdminActor::default())
    }

    /// The `caller` of `tenant` at the admin listener, known by `proof`.
    pub fn admin(caller: &str, tenant: Option<&str>, proof: ActorProof) -> Self {
        Self::Admin(AdminActor::new(caller, tenant, proof))
    }

    /// The `caller` of `tenant` at the data plane, known by `proof`.
    pub fn caller(caller: &str, tenant: Option<&str>, proof: ActorProof) -> Self {
        Self::Caller(AdminActor::new(caller, tenant, proof))
    }
}

impl AdminActor {
    fn new(caller: &str, tenant: Option<&str>, proof: ActorProof) -> Self {
        Self {
            caller: Some(ShortName::new(caller)),
            tenant: tenant.map(ShortName::new),
            proof: Some(proof),
        }
    }
}

/// The name of the user `uid`. The environment is not read: the user sets it.
fn user_name(uid: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let user = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    user.map(str::to_owned)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub(super) enum EntryOutcome {
    Attempt,
    Ok,
    Failed { reason: &'static str },
}

named! {
    /// What was done or happened. Names in the log never change their meaning.
    pub enum Action {
        ServerStart = "server.start",
        ServerStop = "server.stop",
        // The configuration was read again, by a signal, by the API or because a file changed.
        ConfigReload = "config.reload",
        // An advertiser was sent to Amazon.
        LoginStarted = "login.started",
        Login = "login",
        Logout = "logout",
        AccountAdd = "account.add",
        AccountRemove = "account.remove",
        // Its credential or settings were replaced.
        AccountChange = "account.change",
        Import = "import",
        // An access token was handed out: `token`, `env`, `curl`.
        TokenDisclose = "token.disclose",
        // A program was given access to an account.
        Exec = "exec",
        // A tool of Amazon's MCP server was called, by a caller whose tools are limited.
        ToolCall = "tool.call",
        TokenRefresh = "token.refresh",
        KeyInit = "key.init",
        KeyRotate = "key.rotate",
        KeyRetire = "key.retire",
        // A key that ends by itself was made for a caller.
        SessionIssue = "session.issue",
        SessionRevoke = "session.revoke",
        // A caller's key is accepted no more.
        KeyRevoke = "key.revoke",
        // A browser signed in to the dashboard, or out of it.
        DashboardSignIn = "dashboard.sign_in",
        DashboardSignOut = "dashboard.sign_out",
        GrantReauthorizationRequired = "grant.reauthorization_required",
        GrantExpiring = "grant.expiring",
        GrantRecovered = "grant.recovered",
        ApplicationRejected = "application.rejected",
        // A person confirmed that an account now belongs to another grant.
        ReconnectConfirmed = "reconnect.confirmed",
        StoreDegraded = "store.degraded",
        StoreCopy = "store.copy",
        // Requests to the admin listener that changed nothing: refused, or with nothing to do.
        RequestsIgnored = "requests.ignored",
        HookResend = "hook.resend",
        // A file of the log begins.
        AuditBegin = "audit.begin",
        // Older files of the log are removed, as `audit.keep` says.
        AuditExpire = "audit.expire",
        // An entry that was not finished, by a crash or a full disk, was cut off.
        AuditRepair = "audit.repair",
        // So many things happened that could not be written down when they did.
        AuditLost = "audit.lost",
        // The log was found changed by another program.
        AuditDamage = "audit.damage",
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.as_str().serialize(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_named_by_what_proved_it_and_by_no_secret() {
        let line = |actor| serde_json::to_string(&actor).expect("JSON");
        let key = Actor::admin("reports", Some("t1"), ActorProof::key("adsk_7Fh2kQ9x"));
        let expected =
            r#"{"actor":"admin","user":"reports","tenant":"t1","key_id":"adsk_7Fh2kQ9x"}"#;
        assert_eq!(line(key), expected);
        let jwt = Actor::admin("clerk", None, ActorProof::jwt("clerk", "auth0|7", None));
        let expected = r#"{"actor":"admin","user":"clerk","issuer":"clerk","subject":"auth0%7C7"}"#;
        assert_eq!(line(jwt), expected);
        let peer = Actor::admin("app", None, ActorProof::User { uid: 7 });
        assert_eq!(line(peer), r#"{"actor":"admin","user":"app","uid":7}"#);
        assert_eq!(line(Actor::unknown()), r#"{"actor":"admin"}"#);
    }

    #[test]
    fn the_user_at_the_command_line_is_named_by_number() {
        let uid = rustix::process::getuid().as_raw();
        assert!(matches!(Actor::cli(), Actor::Cli { uid: own, .. } if own == uid));
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(u32::MAX - 1), None);
    }
}
