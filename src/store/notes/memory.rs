//! Notes that end with the process, like everything else in the memory store: there is no key that
//! outlives it, and a state that carried itself could not be remembered as used.

use super::{Limit, Note, NoteKind, Notes};
use crate::{
    id::AccountId,
    store::{BoxFuture, Error},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, future::ready};

/// Notes in this process only.
#[derive(Debug, Default)]
pub(in crate::store) struct MemoryNotes(Mutex<BTreeMap<(NoteKind, String), Note>>);

impl Notes for MemoryNotes {
    fn put<'a>(
        &'a self,
        kind: NoteKind,
        name: &'a str,
        note: &'a Note,
        limit: Limit,
    ) -> BoxFuture<'a, Result<(), Error>> {
        let mut notes = self.0.lock();
        let count = |notes: &BTreeMap<(NoteKind, String), Note>| {
            notes.keys().filter(|(of, _)| *of == kind).count()
        };
        if count(&notes) >= limit.max {
            notes.retain(|(of, _), note| *of != kind || note.expires_at_ms > limit.now_ms);
        }
        let key = (kind, name.to_owned());
        let done = if count(&notes) >= limit.max && !notes.contains_key(&key) {
            Err(Error::Full)
        } else {
            notes.insert(key, note.clone());
            Ok(())
        };
        Box::pin(ready(done))
    }

    fn look<'a>(
        &'a self,
        kind: NoteKind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Note>, Error>> {
        Box::pin(ready(Ok(self.0.lock().get(&(kind, name.to_owned())).cloned())))
    }

    fn take<'a>(
        &'a self,
        kind: NoteKind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Note>, Error>> {
        Box::pin(ready(Ok(self.0.lock().remove(&(kind, name.to_owned())))))
    }

    fn forget<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<(), Error>> {
        self.0.lock().retain(|_, note| note.account != *account);
        Box::pin(ready(Ok(())))
    }

    fn sweep(&self, now_ms: u64) -> BoxFuture<'_, Result<(), Error>> {
        self.0.lock().retain(|_, note| note.expires_at_ms > now_ms);
        Box::pin(ready(Ok(())))
    }
}
