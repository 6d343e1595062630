//! The audit log: who did what with which account, append-only, never a token.
//!
//! A keyed hash chain shows every change by somebody without the keys ([`verify`]). What hands out
//! or changes a credential records it first and gives up if that fails; a refresh goes on without
//! and raises an alarm. It decides nothing about either: it only writes down, and says if it could.

mod chain;
pub mod entry;
mod files;
mod head;
mod writer;

pub use entry::{Action, Actor, Entry, Name, Outcome};

use crate::{
    clock::Clock,
    config::{self, Config},
    error_chain::chain as error_chain,
    metrics::Metrics,
    store::{self, seal::KeyRing},
};
use files::Files;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tracing::{error, info};
use writer::{Own, Writer};

/// The audit log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    writer: Writer,
    metrics: Option<Arc<Metrics>>,
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

    /// The configured log; off if none is configured. Touches no file.
    ///
    /// # Errors
    /// `Key` if the key ring cannot be used.
    pub fn new(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, store::Error> {
        if config.audit.path.is_none() {
            return Ok(Self::off());
        }
        let ring = Arc::new(KeyRing::parse(&config.encryption)?);
        Ok(Self::with_keys(&config.audit, ring, clock))
    }

    /// As [`Audit::new`], with keys that were derived already.
    #[must_use]
    pub fn with_keys(audit: &config::Audit, ring: Arc<KeyRing>, clock: Arc<dyn Clock>) -> Self {
        let writer = |path: &PathBuf| Writer::new(Files::new(path), audit, ring, clock);
        Self(audit.path.as_ref().map(writer).map(|writer| Arc::new(Inner::new(writer, None))))
    }

    /// The same log, whose writes are counted in `metrics`.
    #[must_use]
    pub fn counted(self, metrics: Arc<Metrics>) -> Self {
        let counted = |inner: Arc<Inner>| {
            let writer = inner.writer.same();
            Arc::new(Inner::new(writer, Some(metrics)))
        };
        Self(self.0.map(counted))
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
        match &self.0 {
            Some(inner) => inner.record(entry),
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
        let Some(inner) = self.0.clone() else { return Ok(()) };
        let written = tokio::task::spawn_blocking(move || inner.record(&entry)).await;
        written.unwrap_or(Err(Error::Stopped))
    }
}

impl Inner {
    fn new(writer: Writer, metrics: Option<Arc<Metrics>>) -> Self {
        let (is_failing, is_damaged) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { writer, metrics, is_failing, is_damaged }
    }

    fn record(&self, entry: &Entry) -> Result<(), Error> {
        let written = self.writer.append(entry, Own::default());
        if let Some(metrics) = &self.metrics {
            metrics.audit_write(written.is_ok());
        }
        let log = &self.writer.files.current;
        match written {
            Ok(appended) => {
                if self.is_failing.swap(false, Relaxed) {
                    info!(?log, "the audit log takes entries again");
                }
                if let Some(damage) = appended.damage
                    && !self.is_damaged.swap(true, Relaxed)
                {
                    error!(?log, damage, "the audit log was changed: run `adsproxy audit verify`");
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
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    /// A ring of keys that follow from their ids.
    pub(crate) fn ring(ids: &[&str]) -> KeyRing {
        let key = |id: &&str| {
            let mut bytes = [0; 32];
            bytes[..id.len()].copy_from_slice(id.as_bytes());
            let secret = crate::secret::Secret::new(STANDARD.encode(bytes));
            config::EncryptionKey { id: (*id).to_owned(), secret }
        };
        let encryption = config::Encryption { keys: ids.iter().map(key).collect() };
        KeyRing::parse(&encryption).expect("keys")
    }

    /// A log in `directory` with its own view of the keys, as another process would have.
    pub(crate) fn audit(directory: &Path, keys: &[&str], max_bytes: u64, keep: usize) -> Audit {
        let path = Some(directory.join("audit.jsonl"));
        let config = config::Audit { path, max_bytes, keep };
        Audit::with_keys(&config, Arc::new(ring(keys)), Arc::new(ManualClock::new()))
    }
}
