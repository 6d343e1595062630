//! The audit log: who did what with which account, append-only, never a token.
//!
//! A keyed hash chain shows every change by somebody without the keys ([`Audit::verify`]). What hands out
//! or changes a credential records it first and gives up if that fails; a refresh goes on without
//! and raises an alarm. It decides nothing about either: it only writes down, and says if it could.

mod chain;
pub mod entry;
mod files;
mod head;
mod keys;
mod queue;
pub mod report;
mod snapshot;
pub mod tail;
mod verify;
mod writer;

pub use entry::{Action, Actor, Entry};
pub use keys::AuditKeys;
pub use report::Report;

use crate::{
    clock::Clock,
    config::{self, Config},
    error_chain::chain as error_chain,
    metrics::Metrics,
    store::{self, Store},
};
use files::Files;
use keys::KeySource;
use queue::Queue;
use snapshot::{Segment, Snapshot};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tracing::{error, info};
use writer::{Appended, Writer};

/// The audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    writer: Writer,
    metrics: OnceLock<Arc<Metrics>>,
    queue: Queue,
    /// The last entry could not be written: said once.
    is_failing: AtomicBool,
    /// Damage was found: said once.
    is_damaged: AtomicBool,
}

/// Why an entry was not written, or the log not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error(
        "cannot {action} {path}, of the audit log: check that it is writable for this user and \
         has free space"
    )]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process holds the log.
    #[error(
        "the audit log ({path}) was in use elsewhere for more than {waited:?}: try again, and \
         look for a process that hangs"
    )]
    Locked {
        /// The file that is locked.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// The log's key.
    #[error("the key of the audit log cannot be had from the store")]
    Key(#[from] store::Error),
    /// The task that wrote ended before it was done.
    #[error("the audit log could not be written: adsproxy is going down")]
    Stopped,
}

impl Error {
    /// Wraps what the system said about `action` on `path`.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl Audit {
    /// A log that keeps nothing, for a store that has no place for one.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// The configured log; off if none is configured. Touches no file of the log.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, store::Error> {
        match config.audit.path {
            Some(_) => {
                let store = Store::open(&config.store, &config.encryption)?;
                Ok(Self::of_store(&store, &config.audit, clock))
            }
            None => Ok(Self::off()),
        }
    }

    /// As [`Audit::new`], with the keys of `store`.
    ///
    /// # Errors
    /// None.
    pub fn beside(
        store: &Store,
        config: &Config,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, store::Error> {
        Ok(Self::of_store(store, &config.audit, clock))
    }

    /// The log of `config`, whose keys are in `store`: they are made with its first entry.
    #[must_use]
    pub fn of_store(store: &Store, config: &config::Audit, clock: Arc<dyn Clock>) -> Self {
        Self::with_keys(config, KeySource::of_store(store.clone()), clock)
    }

    fn with_keys(audit: &config::Audit, keys: KeySource, clock: Arc<dyn Clock>) -> Self {
        let writer = |path: &PathBuf| Writer::new(Files::new(path), audit, Arc::new(keys), clock);
        Self(audit.path.as_ref().map(writer).map(|writer| Arc::new(Inner::new(writer))))
    }

    /// The same log, whose writes are counted in `metrics`.
    #[must_use]
    pub fn counted(self, metrics: Arc<Metrics>) -> Self {
        if let Some(inner) = &self.0 {
            let _ = inner.metrics.set(metrics);
        }
        self
    }

    /// Where it is; none if it is off.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(|inner| inner.writer.files.current.as_path())
    }

    /// Writes `entry` down: it is durable when this returns `Ok`. Does nothing if the log is off.
    ///
    /// Blocks for a sync of the disk, and while others write: at most about 10 s. In async code
    /// use [`Audit::write`].
    ///
    /// # Errors
    /// `Io` or `Locked`. Whoever is about to hand out or to change a credential must not then.
    pub fn record(&self, entry: &Entry) -> Result<(), Error> {
        self.record_all(std::slice::from_ref(entry))
    }

    /// Does `act` between an entry that it is about to be done and one that tells how it ended,
    /// with `reason` if it failed.
    ///
    /// If the first cannot be written, `act` is not begun. If only the second cannot, the log and
    /// the counters tell: what was done stays done, and is on record as attempted.
    ///
    /// # Errors
    /// That of the first entry, or of `act`.
    ///
    /// # Cancel safety
    /// As `act`; whoever leaves while it is under way leaves no second entry.
    pub async fn around<T, E: From<Error>>(
        &self,
        entry: Entry,
        reason: &'static str,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.write(entry.clone().attempt()).await?;
        let done = act.await;
        let entry = if done.is_ok() { entry.ok() } else { entry.failed(reason) };
        let _ = self.write(entry).await;
        done
    }

    /// Writes `entries` down with one sync for all of them: all or none.
    ///
    /// # Errors
    /// As [`Audit::record`].
    pub fn record_all(&self, entries: &[Entry]) -> Result<(), Error> {
        match &self.0 {
            Some(inner) => inner.record(entries),
            None => Ok(()),
        }
    }

    /// As [`Audit::record`], off the async threads.
    ///
    /// # Errors
    /// As [`Audit::record`], and `Stopped` while the runtime goes down.
    ///
    /// # Cancel safety
    /// An entry that was begun is written, whoever still waits for it.
    pub async fn write(&self, entry: Entry) -> Result<(), Error> {
        self.write_all(vec![entry]).await
    }

    /// As [`Audit::record_all`], off the async threads.
    ///
    /// # Errors
    /// As [`Audit::write`].
    ///
    /// # Cancel safety
    /// As [`Audit::write`].
    pub async fn write_all(&self, entries: Vec<Entry>) -> Result<(), Error> {
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || this.record_all(&entries)).await;
        written.unwrap_or(Err(Error::Stopped))
    }
}

/// What can be asked of a whole log. Each reads all of it, which blocks.
impl Audit {
    /// Checks the log from its beginning to its end; an empty report if it is off.
    ///
    /// # Errors
    /// `Io` or `Locked`; what is wrong with the log is no error but in the report.
    pub fn verify(&self) -> Result<Report, Error> {
        let Some(inner) = &self.0 else { return Ok(Report::default()) };
        inner.verify()
    }

    /// Checks one file of a log on its own, such as an older one that lies elsewhere.
    ///
    /// # Errors
    /// `Io`.
    pub fn verify_part(path: &Path, keys: &AuditKeys) -> Result<Report, Error> {
        let segment = Segment::open(None, path)?;
        let missing = || Error::io("open", path)(io::ErrorKind::NotFound.into());
        verify::verify_part(&segment.ok_or_else(missing)?, keys)
    }
}

impl Inner {
    fn verify(&self) -> Result<Report, Error> {
        let keys = self.writer.keys.to_verify()?;
        verify::verify(&Snapshot::take(&self.writer.files, &keys)?, &keys)
    }

    fn new(writer: Writer) -> Self {
        Self {
            writer,
            metrics: OnceLock::new(),
            queue: Queue::default(),
            is_failing: AtomicBool::new(false),
            is_damaged: AtomicBool::new(false),
        }
    }

    fn count_write(&self, entries: usize, is_written: bool) {
        if let Some(metrics) = self.metrics.get() {
            metrics.audit_write(entries, is_written);
        }
    }

    fn record(&self, entries: &[Entry]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        self.told(entries.len(), self.writer.append(entries))
    }

    /// Counts a write and logs what a person should know of it, once.
    fn told(&self, count: usize, written: Result<Appended, Error>) -> Result<(), Error> {
        self.count_write(count, written.is_ok());
        let log = self.writer.files.current.display();
        match written {
            Ok(appended) => {
                if self.is_failing.swap(false, Relaxed) {
                    info!(%log, "the audit log takes entries again");
                }
                if let Some(damage) = appended.damage
                    && !self.is_damaged.swap(true, Relaxed)
                {
                    error!(%log, damage, "the audit log was changed: run `adsproxy audit verify`");
                }
                Ok(())
            }
            Err(error) => {
                if !self.is_failing.swap(true, Relaxed) {
                    error!(error = %error_chain(&error), "cannot write the audit log");
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::ManualClock;

    /// Keys that follow from their ids.
    pub(crate) fn keys(ids: &[&str]) -> AuditKeys {
        let key = |id: &&str| {
            let mut bytes = zeroize::Zeroizing::new([0; 32]);
            bytes[..id.len()].copy_from_slice(id.as_bytes());
            ((*id).to_owned(), bytes)
        };
        AuditKeys::new(&ids.iter().map(key).collect())
    }

    /// A log in `directory` with its own view of the keys, as another process would have.
    pub(crate) fn audit(directory: &Path, ids: &[&str], max_bytes: u64, keep: usize) -> Audit {
        let path = Some(directory.join("audit.jsonl"));
        let config = config::Audit { path, max_bytes, keep, keep_at_least: Duration::ZERO };
        Audit::with_keys(&config, KeySource::fixed(keys(ids)), Arc::new(ManualClock::new()))
    }
}
