//! Small sealed texts beside the records that outlive a restart for a while: logins under way,
//! grants that wait for a yes, links that may be used once, reminders that were given.
//!
//! A note is bound to its kind, its name and its account, and is good until a moment that it
//! carries in itself. Whoever takes it has it alone, whatever process else tries. What does not
//! open is as good as not there: unlike a record, a note can be made anew.

mod file;
mod memory;

pub(super) use self::{file::FileNotes, memory::MemoryNotes};

use super::{BoxFuture, Error};
use crate::{id::AccountId, secret::Secret};
use std::fmt::Debug;

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKind {
    /// A login that waits for Amazon's answer.
    Login,
    /// A link that starts a login.
    Ticket,
    /// How a login went.
    Outcome,
    /// A new grant that waits for a person's yes.
    Grant,
    /// An authorization code that was used.
    Code,
    /// The profiles an account had when it was connected.
    Profiles,
    /// The day on which it was last told that an account's grant ends soon.
    Reminder,
}

impl NoteKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Login,
        Self::Ticket,
        Self::Outcome,
        Self::Grant,
        Self::Code,
        Self::Profiles,
        Self::Reminder,
    ];

    /// Its name on disk.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Ticket => "ticket",
            Self::Outcome => "outcome",
            Self::Grant => "grant",
            Self::Code => "code",
            Self::Profiles => "profiles",
            Self::Reminder => "reminder",
        }
    }
}

/// One note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whose it is.
    pub account: AccountId,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// What it says.
    pub text: Secret,
}

/// A place that keeps notes. A name is 1 to 64 letters, digits, '.', '_' or '-', like an alias.
pub trait Notes: Send + Sync + Debug {
    /// Keeps `note`, in place of one of the same name, unless there are `max` of its kind.
    ///
    /// # Errors
    /// `Full` at the limit, after those that are no longer good at `now_ms` have gone; `Io`.
    fn put<'a>(
        &'a self,
        kind: NoteKind,
        name: &'a str,
        note: &'a Note,
        limit: Limit,
    ) -> BoxFuture<'a, Result<(), Error>>;

    /// Looks at a note, good or not.
    ///
    /// # Errors
    /// `Io`.
    fn look<'a>(
        &'a self,
        kind: NoteKind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Note>, Error>>;

    /// Takes a note away: of all who try, in whatever process, one gets it.
    ///
    /// # Errors
    /// `Io`.
    fn take<'a>(
        &'a self,
        kind: NoteKind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Note>, Error>>;

    /// Throws away every note of `account`.
    ///
    /// # Errors
    /// `Io`.
    fn forget<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<(), Error>>;

    /// Throws away what is no longer good at `now_ms`.
    ///
    /// # Errors
    /// `Io`.
    fn sweep(&self, now_ms: u64) -> BoxFuture<'_, Result<(), Error>>;
}

/// How many notes of a kind there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// So many.
    pub max: usize,
    /// The time, in milliseconds since 1970: what is no longer good does not count.
    pub now_ms: u64,
}
