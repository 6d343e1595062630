//! Copies all that a store keeps into another: each entry is opened here, sealed anew there, read back
//! and compared.
//!
//! A marker in the target says that a copy is under way. As long as it is there, the next copy from the
//! same store goes on with it, whatever the source has become since; without it nothing in the target
//! is ever replaced.

use super::{
    Error, Expected, Inner, Space, Store,
    backend::{self, Write},
    record::Opened,
    ring,
};
use crate::config;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(
        "{count} server(s) run on the {0}: stop them first. One that was killed counts for a minute in \
         a database; nothing was copied",
        count = .1
    )]
    Running(&'static str, usize),
    #[error("the source keeps nothing: look at its path or URL")]
    NothingThere,
    #[error("source and target are the same store")]
    SameStore,
    #[error(
        "the target holds {0}, which is not what the source has under that name: a copy replaces \
         nothing; choose an empty target. Nothing was copied"
    )]
    Other(String),
    #[error("the target holds a copy that was begun from another store, and never finished")]
    Begun,
    #[error(
        "{0} in the target is not what the source has: run the copy again, while no server runs"
    )]
    Different(String),
    #[error(transparent)]
    Store(#[from] Error),
}

/// What a copy did.
#[derive(Debug, Default)]
pub struct CopyReport {
    /// Grants and other entries in the source.
    pub entries: usize,
    pub grants: usize,
    /// Entries that the target did not have yet.
    pub copied: usize,
    /// Grants that do not open, and why: they are not copied.
    pub unopened: Vec<Error>,
}

/// What is kept in the target while a copy is under way.
#[derive(Serialize, Deserialize)]
struct CopyMarker {
    /// The id of the source.
    from: String,
}

const MARKER: &str = "copy";

/// All that is copied. Keys' check values are copied before; instances, leases and the audit log of a
/// store stay with it.
fn spaces() -> impl Iterator<Item = Space> {
    std::iter::once(Space::Accounts).chain(Space::of_entries())
}

impl Store {
    /// Opens the store of `config` as the target of a copy of this one, whose keys it gets.
    pub fn open_target(
        &self,
        config: &config::StoreConfig,
        encryption: &config::Encryption,
    ) -> Result<Self, Error> {
        let backend = backend::open(config)?;
        backend.prepare()?;
        for id in self.0.names(Space::Keys)? {
            let Some(record) = ring::known(&*self.0.backend, &id)? else { continue };
            match backend.put_clear(Space::Keys, &id, &record, Expected::Absent) {
                // Another one is found when the store is opened.
                Ok(()) | Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        drop(backend);
        Self::open(config, encryption)
    }

    /// Copies all that is kept into `target`. Blocks.
    ///
    /// # Errors
    /// What was copied before stays in the target; the next copy goes on with it.
    pub fn copy_to(&self, target: &Self) -> Result<CopyReport, CopyError> {
        let (from, to) = (&*self.0, &*target.0);
        let is_quiet = || {
            from.is_quiet("source")?;
            to.is_quiet("target")
        };
        is_quiet()?;
        let id = from.known_id()?.ok_or(CopyError::NothingThere)?;
        if to.known_id()?.is_some_and(|known| known == id) {
            return Err(CopyError::SameStore);
        }
        match to.backend.read_clear::<CopyMarker>(Space::Meta, MARKER)? {
            Some(marker) if *marker.from == *id => {}
            Some(_) => return Err(CopyError::Begun),
            None => {
                from.differs_nowhere(to)?;
                let marker = CopyMarker { from: id.to_string() };
                to.backend.put_clear(Space::Meta, MARKER, &marker, Expected::Absent)?;
            }
        }
        let mut report = CopyReport::default();
        for space in spaces() {
            from.copy_space(to, space, &mut report)?;
        }
        for space in spaces() {
            from.compare_space(to, space)?;
        }
        // One that has started meanwhile may have changed what was copied.
        is_quiet()?;
        to.backend.delete(Space::Meta.as_str(), MARKER, Expected::Any)?;
        Ok(report)
    }
}

impl Inner {
    fn is_quiet(&self, which: &'static str) -> Result<(), CopyError> {
        match self.instances()?.len() {
            0 => Ok(()),
            count => Err(CopyError::Running(which, count)),
        }
    }

    /// Checks that nothing in `to` would have to be replaced: no grant that this store lacks, and no
    /// entry of the same name that says something else.
    fn differs_nowhere(&self, to: &Self) -> Result<(), CopyError> {
        for space in spaces() {
            for name in to.names(space)? {
                let (ours, theirs) = (self.opened(space, &name), to.opened(space, &name));
                let is_other = match (ours, theirs) {
                    (Ok(None), _) => space == Space::Accounts,
                    (Ok(ours), Ok(theirs)) => ours != theirs,
                    (Err(error), _) | (_, Err(error)) if !error.is_lasting() => {
                        return Err(error.into());
                    }
                    _ => true,
                };
                if is_other {
                    return Err(CopyError::Other(space.name_of(&name)));
                }
            }
        }
        Ok(())
    }

    fn copy_space(&self, to: &Self, space: Space, report: &mut CopyReport) -> Result<(), Error> {
        let names = self.names(space)?;
        for name in &names {
            let opened = match self.opened(space, name) {
                Err(error) if error.is_lasting() && space == Space::Accounts => {
                    report.unopened.push(error);
                    continue;
                }
                // As good as absent.
                Err(error) if error.is_lasting() => continue,
                opened => opened?,
            };
            let Some(opened) = opened else { continue };
            report.entries += 1;
            report.grants += usize::from(space == Space::Accounts);
            if to.opened(space, name).is_ok_and(|there| there.as_ref() == Some(&opened)) {
                continue;
            }
            let Opened { bytes, account, expires_at_ms } = opened;
            let expected = Expected::Any;
            let write = Write { bytes: &bytes, expires_at_ms, expected, fence: None };
            to.put(space, name, account, write)?;
            report.copied += 1;
        }
        // What was copied by an earlier attempt, and has gone since. A server that never ran on the
        // target may have made keys of the audit log.
        let names: BTreeSet<_> = names.into_iter().collect();
        for name in to.names(space)?.into_iter().filter(|name| !names.contains(name)) {
            if space != Space::AuditKeys {
                to.backend.delete(space.as_str(), &name, Expected::Any)?;
            }
        }
        Ok(())
    }

    fn compare_space(&self, to: &Self, space: Space) -> Result<(), CopyError> {
        for name in self.names(space)? {
            let ours = match self.opened(space, &name) {
                Err(error) if error.is_lasting() => continue,
                ours => ours?,
            };
            if ours != to.opened(space, &name)? {
                return Err(CopyError::Different(space.name_of(&name)));
            }
        }
        Ok(())
    }
}
