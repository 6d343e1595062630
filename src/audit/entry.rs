//! What an entry says, in types that cannot hold a token.
//!
//! Texts are either fixed in this program or checked names; what comes from outside goes through
//! [`Name`], which is too short for a token and has no `|`, which Amazon's tokens begin with.

use crate::id::AccountId;
use aws_lc_rs::digest;
use std::fmt::{self, Write as _};

/// One thing that somebody did or that happened. Made with [`Entry::new`] and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub(crate) actor: Actor,
    pub(crate) action: Action,
    pub(crate) outcome: Outcome,
    pub(crate) account: Option<AccountId>,
    pub(crate) request_id: Option<Name>,
    pub(crate) generation: Option<u64>,
    pub(crate) about: Option<Name>,
    pub(crate) count: Option<u64>,
}

impl Entry {
    /// Says that `actor` did `action`; the outcome is `ok` unless said otherwise.
    #[must_use]
    pub fn new(actor: Actor, action: Action) -> Self {
        Self {
            actor,
            action,
            outcome: Outcome::Ok,
            account: None,
            request_id: None,
            generation: None,
            about: None,
            count: None,
        }
    }

    /// On which account.
    #[must_use]
    pub fn account(mut self, account: &AccountId) -> Self {
        self.account = Some(account.clone());
        self
    }

    /// It is about to be done: to be recorded before a change, so that none goes unrecorded.
    #[must_use]
    pub fn attempt(mut self) -> Self {
        self.outcome = Outcome::Attempt;
        self
    }

    /// It was done.
    #[must_use]
    pub fn ok(mut self) -> Self {
        self.outcome = Outcome::Ok;
        self
    }

    /// It was not done; `reason` is a stable code such as `invalid_grant`.
    #[must_use]
    pub fn failed(mut self, reason: &'static str) -> Self {
        self.outcome = Outcome::Failed(reason);
        self
    }

    /// Which request led to it; an id that is no [`Name`] is replaced by its hash.
    #[must_use]
    pub fn request_id(mut self, id: &str) -> Self {
        self.request_id = Some(Name::new(id));
        self
    }

    /// The number of the access token in its account's history.
    #[must_use]
    pub fn generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }

    /// What else it was about, such as the id of a key or the name of a hook. Never a secret:
    /// what is no [`Name`] is replaced by its hash.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.about = Some(Name::new(what));
        self
    }

    /// Of how many: records imported, bytes cut off.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Somebody at the command line.
    Cli {
        /// The user's number in the operating system.
        uid: u32,
        /// The user's name, if the number has one.
        user: Option<Name>,
    },
    /// Somebody at the admin listener.
    Admin {
        /// The authenticated caller, if there is authentication.
        caller: Option<Name>,
    },
    /// The server of its own accord.
    Server,
    /// The audit log itself.
    Audit,
}

impl Actor {
    /// The user who runs this process.
    #[must_use]
    pub fn cli() -> Self {
        Self::cli_user(rustix::process::getuid().as_raw())
    }

    /// The user `uid` at the command line.
    #[must_use]
    pub fn cli_user(uid: u32) -> Self {
        Self::Cli { uid, user: user_name(uid).map(|name| Name::new(&name)) }
    }

    /// Somebody at the admin listener: `caller` if it was authenticated.
    #[must_use]
    pub fn admin(caller: Option<&str>) -> Self {
        Self::Admin { caller: caller.map(Name::new) }
    }

    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Cli { .. } => "cli",
            Self::Admin { .. } => "admin",
            Self::Server => "server",
            Self::Audit => "audit",
        }
    }

    pub(super) fn uid(&self) -> Option<u32> {
        match self {
            Self::Cli { uid, .. } => Some(*uid),
            _ => None,
        }
    }

    pub(super) fn user(&self) -> Option<&Name> {
        match self {
            Self::Cli { user, .. } => user.as_ref(),
            Self::Admin { caller } => caller.as_ref(),
            _ => None,
        }
    }
}

/// The name of the user `uid`. The environment is not asked: whoever runs the program sets it.
fn user_name(uid: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let user = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    user.map(str::to_owned)
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// About to be done.
    Attempt,
    /// Done.
    Ok,
    /// Not done, for a reason with a stable code.
    Failed(&'static str),
}

impl Outcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Ok => "ok",
            Self::Failed(_) => "failed",
        }
    }

    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Failed(reason) => Some(reason),
            Self::Attempt | Self::Ok => None,
        }
    }
}

/// Defines `Action` with the name of each in the log.
macro_rules! actions {
    ($($(#[$doc:meta])+ $name:ident = $text:literal,)+) => {
        /// What was done or happened. Names in the log never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Action { $($(#[$doc])+ $name,)+ }

        impl Action {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in the log.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

actions! {
    /// The server began.
    ServerStart = "server.start",
    /// The server ended in order.
    ServerStop = "server.stop",
    /// A login was begun: an advertiser was sent to Amazon.
    LoginStarted = "login.started",
    /// A login was completed: a grant was stored.
    Login = "login",
    /// A grant was forgotten, and revoked where that can be done.
    Logout = "logout",
    /// An account was put into the store.
    AccountAdd = "account.add",
    /// An account was forgotten.
    AccountRemove = "account.remove",
    /// An account's credential or settings were replaced.
    AccountChange = "account.change",
    /// Accounts were imported.
    Import = "import",
    /// An access token was handed out: `token`, `env`, `curl`.
    TokenDisclose = "token.disclose",
    /// A program was given access to an account: `exec`.
    Exec = "exec",
    /// An access token was refreshed, or could not be.
    TokenRefresh = "token.refresh",
    /// A master key was made.
    KeyInit = "key.init",
    /// The store was sealed with another key.
    KeyRotate = "key.rotate",
    /// A key is no longer used.
    KeyRetire = "key.retire",
    /// A grant is dead; a person must consent again.
    GrantReauthorizationRequired = "grant.reauthorization_required",
    /// A grant is near its end.
    GrantExpiring = "grant.expiring",
    /// A dead grant is alive again.
    GrantRecovered = "grant.recovered",
    /// Client id or secret of an application were rejected.
    ApplicationRejected = "application.rejected",
    /// A person confirmed that an account now belongs to another grant.
    ReconnectConfirmed = "reconnect.confirmed",
    /// The store cannot be written or read as it should.
    StoreDegraded = "store.degraded",
    /// Requests to the admin listener that changed nothing: refused, or with nothing to do.
    RequestsIgnored = "requests.ignored",
    /// A dead letter was sent again.
    HookResend = "hook.resend",
    /// A file of the log begins.
    AuditBegin = "audit.begin",
    /// Older files of the log are removed, as `audit.keep` says.
    AuditExpire = "audit.expire",
    /// An entry that was not finished, by a crash or a full disk, was cut off.
    AuditRepair = "audit.repair",
    /// So many things happened that could not be written down when they did.
    AuditLost = "audit.lost",
    /// The log was found changed by somebody else than adsproxy.
    AuditDamage = "audit.damage",
}

/// A short word: 1 to 64 letters, digits, `.`, `_`, `-`, `:`, `@`, `/`, `+` or `=`.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The longest, in bytes; Amazon's tokens have hundreds.
    pub const MAX_LEN: usize = 64;

    /// `text` if it is such a word, else the beginning of its SHA-256 in its place.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:@/+=".contains(&b);
        if (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed) {
            return Self(text.to_owned());
        }
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let mut name = "sha256:".to_owned();
        for byte in &hash.as_ref()[..12] {
            write!(name, "{byte:02x}").expect("a String takes everything");
        }
        Self(name)
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_name_is_kept_and_anything_else_is_hashed() {
        for name in ["k1", "0b8e7c1a-5f0e-4a8e-9d2b-1c9d0f1e2a3b", "caller@host:8/a+b=", "x"] {
            assert_eq!(Name::new(name).as_str(), name);
        }
        let long = "x".repeat(65);
        for text in ["", "Atza|CANARY-token", "a b", "a\nb", "\u{1b}[2J", "ä", "a\"b", &long] {
            let name = Name::new(text);
            assert!(name.as_str().starts_with("sha256:") && name.as_str().len() == 31, "{name:?}");
            assert!(text.is_empty() || !name.as_str().contains(text));
        }
    }

    #[test]
    fn every_action_has_a_name_of_its_own() {
        let names: HashSet<_> = Action::ALL.iter().map(|action| action.as_str()).collect();
        assert_eq!(names.len(), Action::ALL.len());
    }

    #[test]
    fn the_user_at_the_command_line_is_named_by_number() {
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(Actor::cli().uid(), Some(uid));
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(u32::MAX - 1), None);
    }
}
