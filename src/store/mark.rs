//! How far each grant has come, kept beside the records in a table of its own: a table of records that
//! is restored without it is noticed by a server that starts and has seen nothing yet.
//!
//! A mark is written with its record, by the same statement. It is sealed as a record is.

use super::{
    Credential, Epoch, Error, Inner, Space, Store,
    backend::ReplacedMark,
    record::{Envelope, Plain, to_json},
    seal::Key,
};
use crate::id::AccountId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use tracing::warn;

/// What the newest record of an account said of itself when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub epoch: Epoch,
    pub generation: u64,
    /// Seconds since 1970.
    pub updated_at: u64,
}

/// Marks by account.
pub type Marks = HashMap<AccountId, Mark>;

impl Mark {
    /// Whether `record` is older than the one that this is the mark of.
    pub fn is_ahead_of(&self, record: &Credential) -> bool {
        match self.epoch == record.epoch {
            true => record.generation < self.generation,
            false => record.updated_at < self.updated_at,
        }
    }
}

/// The marks that open, and of those that do not the accounts and keys.
#[derive(Debug, Default)]
pub struct FoundMarks {
    pub marks: Marks,
    pub unopened: Vec<UnopenedMark>,
}

/// A mark that does not open: of its account it cannot be said whether the record was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnopenedMark {
    pub account: String,
    /// The key that sealed it; none if it is no mark.
    pub key_id: Option<String>,
}

impl Store {
    /// All marks, or that of `only` one account; none of a store that keeps none. Logs which do not
    /// open: their accounts are used all the same, and the next refresh brings another mark.
    pub async fn marks(&self, only: Option<&AccountId>) -> Result<Marks, Error> {
        let FoundMarks { marks, unopened } = self.find_marks(only).await?;
        if !unopened.is_empty() {
            let named = unopened.iter().take(NAMED_MAX).map(|one| one.account.as_str());
            let accounts = named.collect::<Vec<_>>().join(", ");
            let keys: BTreeSet<_> = unopened.iter().filter_map(|one| one.key_id.as_ref()).collect();
            warn!(
                unopened = unopened.len(),
                accounts,
                ?keys,
                "marks do not open: a restored record of these accounts is not noticed before \
                 their next refresh"
            );
        }
        Ok(marks)
    }

    /// As [`Store::marks`], with those that do not open.
    pub async fn find_marks(&self, only: Option<&AccountId>) -> Result<FoundMarks, Error> {
        let only = only.map(ToString::to_string);
        self.run(move |inner| {
            let mut found = FoundMarks::default();
            for (account, bytes) in inner.backend.marks(only.as_deref())? {
                let envelope = Envelope::parse(&bytes).ok();
                let mark = envelope.as_ref().and_then(|sealed| inner.open_mark(&account, sealed));
                match (account.parse(), mark) {
                    (Ok(account), Some(mark)) => drop(found.marks.insert(account, mark)),
                    _ => {
                        let key_id = envelope.map(|envelope| envelope.key_id);
                        found.unopened.push(UnopenedMark { account, key_id });
                    }
                }
            }
            Ok(found)
        })
        .await
    }
}

impl Inner {
    /// The sealed mark of a grant, whose record is `plain`.
    pub(super) fn seal_mark(
        &self,
        sealing: &Key,
        key: &str,
        plain: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        let Ok(mark) = serde_json::from_slice::<Mark>(plain) else { return Ok(None) };
        let envelope = self.sealed(sealing, Space::Accounts, key, FIELD, &to_json(&mark))?;
        Ok(Some(to_json(&envelope).to_vec()))
    }

    fn open_mark(&self, key: &str, envelope: &Envelope) -> Option<Mark> {
        let plain = self.unseal_field(Space::Accounts, key, FIELD, envelope).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// The keys that sealed the marks.
    pub(super) fn keys_of_marks(&self) -> Result<impl Iterator<Item = String>, Error> {
        let marks = self.backend.marks(None)?.into_iter();
        Ok(marks.filter_map(|(_, bytes)| Some(Envelope::parse(&bytes).ok()?.key_id)))
    }

    /// Seals those marks anew that open; says how many needed it, and how many still do. They say what
    /// they said: a record that was set back stays behind its mark.
    pub(super) fn reseal_marks(&self) -> Result<(usize, usize), Error> {
        let ours = self.ring.sealing_key_id();
        let mut old = Vec::new();
        for (key, before) in self.backend.marks(None)? {
            let Ok(envelope) = Envelope::parse(&before) else { continue };
            if envelope.key_id != ours
                && let Ok(plain) = self.unseal_field(Space::Accounts, &key, FIELD, &envelope)
            {
                old.push((key, before, plain));
            }
        }
        let (count, mut done) = (old.len(), 0);
        let mut old = old.into_iter().peekable();
        while let Some((key, ..)) = old.peek() {
            // Not before all servers have the first key.
            let sealing = self.sealing_key(Space::Accounts, key)?;
            if sealing.id != ours {
                break;
            }
            let seal = |(key, before, plain): (String, Vec<u8>, Plain)| {
                let envelope = self.sealed(sealing, Space::Accounts, &key, FIELD, &plain)?;
                Ok(ReplacedMark { key, before, bytes: to_json(&envelope).to_vec() })
            };
            let batch = old.by_ref().take(BATCH).map(seal).collect::<Result<_, Error>>()?;
            done += self.backend.replace_marks(batch)?;
        }
        Ok((count, count - done))
    }
}

const FIELD: &str = "mark";
/// Accounts that a line of the log names.
const NAMED_MAX: usize = 10;
/// Marks that are replaced by one statement.
const BATCH: usize = 500;
