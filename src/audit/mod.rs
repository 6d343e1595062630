//! The audit log: who did what with which account, append-only, never a token.
//!
//! A keyed hash chain shows every change by a program without the keys ([`Audit::verify`]). What
//! hands out or changes a credential records it first and gives up if that fails; a refresh goes on
//! without and raises an alarm. It decides nothing about either: it only writes down, and says if it
//! could.

mod chain;
mod chain_start;
mod entry;
mod files;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod prune;
mod queue;
mod report;
mod short_name;
mod table;
mod table_check;
mod table_tail;
pub mod tail;
mod verify;
mod writer;

pub use chain::{AuditKeys, rfc3339};
pub use entry::{Action, Actor, ActorProof, Entry};
pub use report::AuditReport;
pub use verify::verify_part;

use crate::{
    clock::Clock,
    config::{self, Config},
    error_chain,
    metrics::Metrics,
    store::{self, Store},
};
use files::LogFiles;
use parking_lot::Mutex;
use queue::EntryQueue;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use table::TableLog;
use table_tail::TableTail;
use tail::{Filter, LogReader, Tail};
use tracing::{error, info};

/// The audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Option<Arc<AuditLog>>);

#[derive(Debug)]
struct AuditLog {
    place: LogPlace,
    /// Where the keys are: they are made with the first entry.
    store: Store,
    keys: OnceLock<AuditKeys>,
    clock: Arc<dyn Clock>,
    metrics: OnceLock<Arc<Metrics>>,
    queue: EntryQueue,
    /// The last entry could not be written: logged once.
    is_failing: AtomicBool,
    /// Damage was found: logged once.
    is_damaged: AtomicBool,
}

/// Where the log is.
#[derive(Debug)]
enum LogPlace {
    Files(FileLog),
    /// In the database of the store.
    Table(TableLog),
}

/// A log in files.
#[derive(Debug)]
struct FileLog {
    files: LogFiles,
    config: config::AuditConfig,
    clock: Arc<dyn Clock>,
    turn: Mutex<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot {action} {path}, of the audit log: check that it is writable for this user and \
         has free space"
    )]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the audit log ({path}) was in use elsewhere for more than {waited:?}: try again, and \
         look for a process that hangs"
    )]
    Locked { path: PathBuf, waited: Duration },
    #[error("the key of the audit log cannot be had from the store")]
    Key(#[from] store::Error),
    #[error("the table of the audit log cannot be used")]
    Database(#[source] store::Error),
    #[error(
        "old entries stay, as this role may not remove rows of the table audit: GRANT DELETE on it, or \
         set audit.table_keep_days = 0"
    )]
    MayNotRemove,
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
    pub fn off() -> Self {
        Self(None)
    }

    /// The configured log; off if none is configured. Touches no file of the log.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, store::Error> {
        if config.audit.path.is_none() && config.store.kind != config::StoreKind::Postgres {
            return Ok(Self::off());
        }
        let store = Store::open(&config.store, &config.encryption)?;
        Ok(Self::of_store(&store, &config.audit, clock))
    }

    /// The log of `config`, whose keys are in `store`: without a path, it is in the store's database, if
    /// that is one.
    pub fn of_store(store: &Store, config: &config::AuditConfig, clock: Arc<dyn Clock>) -> Self {
        let files = |path| {
            let (files, config, turn) = (LogFiles::new(path), config.clone(), Mutex::new(()));
            LogPlace::Files(FileLog { files, config, clock: clock.clone(), turn })
        };
        let place = match &config.path {
            Some(path) => Some(files(path)),
            None => TableLog::new(store, config.keep_rows).map(LogPlace::Table),
        };
        Self(place.map(|place| {
            Arc::new(AuditLog {
                place,
                store: store.clone(),
                keys: OnceLock::new(),
                clock,
                metrics: OnceLock::new(),
                queue: EntryQueue::default(),
                is_failing: AtomicBool::new(false),
                is_damaged: AtomicBool::new(false),
            })
        }))
    }

    /// Counts writes in `metrics` from now on.
    pub fn counted(self, metrics: Arc<Metrics>) -> Self {
        if let Some(log) = &self.0 {
            let _ = log.metrics.set(metrics);
        }
        self
    }

    /// Says whether entries are kept.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A reader of the entries that `filter` accepts; none if it is off.
    pub fn reader(&self, filter: Filter) -> Option<LogReader> {
        Some(match &self.0.as_ref()?.place {
            LogPlace::Files(log) => LogReader::Files(Tail::new(&log.files.current, filter)),
            LogPlace::Table(log) => LogReader::Table(TableTail::new(&log.store, filter)),
        })
    }

    /// Writes `entry` down: it is durable when this returns `Ok`. Does nothing if the log is off.
    ///
    /// Blocks for a sync of the disk, and while others write: at most about 10 s. In async code
    /// use [`Audit::write`].
    ///
    /// # Errors
    /// What was to be recorded, a credential handed out or changed, must not happen then.
    pub fn record(&self, entry: &Entry) -> Result<(), Error> {
        self.0.as_ref().map_or(Ok(()), |log| log.record(std::slice::from_ref(entry)))
    }

    /// As [`Audit::record`], off the async threads.
    ///
    /// # Cancel safety
    /// An entry that was begun is written, whether or not the caller still waits for it.
    pub async fn write(&self, entry: Entry) -> Result<(), Error> {
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || this.record(&entry)).await;
        written.unwrap_or(Err(Error::Stopped))
    }

    /// Does `act` between an entry that it is about to be done and one that says how it ended,
    /// with `reason` if it failed.
    ///
    /// If the first cannot be written, `act` is not begun. If only the second cannot, the log and
    /// the counters report it: what was done stays done, and is on record as attempted.
    ///
    /// # Cancel safety
    /// As `act`; a caller that leaves while it is under way leaves no second entry.
    pub async fn around<T, E: From<Error>>(
        &self,
        entry: Entry,
        reason: &'static str,
        act: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.write(entry.clone().attempt()).await?;
        let done = act.await;
        let _ = self.write(if done.is_ok() { entry } else { entry.failed(reason) }).await;
        done
    }

    /// Checks the log from its beginning to its end, which blocks; an empty report if it is off.
    /// What is wrong with the log is no error but in the report.
    pub fn verify(&self) -> Result<AuditReport, Error> {
        self.0.as_ref().map_or(Ok(AuditReport::default()), |log| log.verify())
    }
}

impl AuditLog {
    fn signing_keys(&self) -> Result<AuditKeys, Error> {
        if let Some(keys) = self.keys.get() {
            return Ok(keys.clone());
        }
        let keys = AuditKeys::new(&self.store.audit_keys(true)?);
        Ok(self.keys.get_or_init(|| keys).clone())
    }

    fn verify(&self) -> Result<AuditReport, Error> {
        let keys = AuditKeys::new(&self.store.audit_keys(false)?);
        match &self.place {
            LogPlace::Files(log) => log.verify(&keys),
            LogPlace::Table(log) => log.verify(&keys),
        }
    }

    fn count_write(&self, entries: usize, is_written: bool) {
        if let Some(metrics) = self.metrics.get() {
            metrics.audit_write(entries, is_written);
        }
    }

    /// Writes entries with one sync for all of them: all or none. Counts them.
    fn record(&self, entries: &[Entry]) -> Result<(), Error> {
        let written = self.append(entries);
        self.count_write(entries.len(), written.is_ok());
        written
    }

    /// As [`AuditLog::record`], uncounted. Logs once what a person should know.
    fn append(&self, entries: &[Entry]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let written = match &self.place {
            LogPlace::Files(log) => log.append(entries, || self.signing_keys()),
            LogPlace::Table(log) => {
                let wall = self.clock.now().wall;
                self.signing_keys().and_then(|keys| log.append(entries, wall, &keys))
            }
        };
        let log = match &self.place {
            LogPlace::Files(log) => log.files.current.to_string_lossy(),
            LogPlace::Table(_) => table::NAME.into(),
        };
        match &written {
            Ok(damage) => {
                if self.is_failing.swap(false, Relaxed) {
                    info!(%log, "the audit log takes entries again");
                }
                if let Some(damage) = damage
                    && !self.is_damaged.swap(true, Relaxed)
                {
                    error!(%log, damage, "the audit log was changed: run `adsproxy audit verify`");
                }
            }
            Err(error) if !self.is_failing.swap(true, Relaxed) => {
                error!(error = %error_chain::chain(error), "cannot write the audit log");
            }
            Err(_) => {}
        }
        written.map(drop)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        clock::ManualClock,
        config::{Encryption, EncryptionKey, StoreKind},
        secret::Secret,
    };
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    /// A store whose keys for the log follow from these ids.
    fn store(ids: &[&str]) -> Store {
        let key = |id: &&str| {
            let mut bytes = [0; 32];
            bytes[..id.len()].copy_from_slice(id.as_bytes());
            EncryptionKey::new(id, Secret::new(STANDARD.encode(bytes)))
        };
        let config = config::StoreConfig {
            kind: StoreKind::Memory,
            path: PathBuf::new(),
            ..Default::default()
        };
        let encryption = Encryption { keys: ids.iter().map(key).collect() };
        Store::open(&config, &encryption).expect("it opens")
    }

    pub(crate) fn keys(ids: &[&str]) -> AuditKeys {
        AuditKeys::new(&store(ids).audit_keys(false).expect("keys"))
    }

    /// A log in `directory` with its own view of the keys, as another process would have.
    pub(crate) fn audit(directory: &Path, ids: &[&str], max_bytes: u64, keep: usize) -> Audit {
        let path = Some(directory.join("audit.jsonl"));
        let (keep_at_least, keep_rows) = (Duration::ZERO, Duration::ZERO);
        let config = config::AuditConfig { path, max_bytes, keep, keep_at_least, keep_rows };
        Audit::of_store(&store(ids), &config, Arc::new(ManualClock::new()))
    }

    impl Audit {
        pub(crate) fn path(&self) -> Option<&Path> {
            match &self.0.as_ref()?.place {
                LogPlace::Files(log) => Some(&log.files.current),
                LogPlace::Table(_) => None,
            }
        }
    }

    pub(crate) fn record_all(audit: &Audit, entries: &[Entry]) {
        audit.0.as_ref().expect("a log").record(entries).expect("recorded");
    }
}
