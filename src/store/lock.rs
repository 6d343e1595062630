//! Who may work on an account: one task of one process at a time.

use super::{BoxFuture, Error};
use crate::{backoff::Backoff, durable_file, id::AccountId};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, sleep_until, timeout_at},
};

/// The right to work on one account; given back when dropped.
#[derive(Debug)]
pub struct Lock {
    // Dropped in this order: whoever is next in this process finds the file unlocked.
    _file: Option<File>,
    _turn: OwnedMutexGuard<()>,
}

/// The turns of this process's tasks, one queue per account that was ever locked.
///
/// A lock on a file alone would do for exclusion, but is polled; between tasks of one process a
/// waiter wakes at once and in order.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<AccountId, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the account's turn.
    pub(super) async fn take(
        &self,
        account: &AccountId,
        deadline: Instant,
    ) -> Option<OwnedMutexGuard<()>> {
        let queue = Arc::clone(self.0.lock().entry(account.clone()).or_default());
        timeout_at(deadline, queue.lock_owned()).await.ok()
    }

    /// Waits for the account's lock within this process only.
    pub(super) fn lock<'a>(
        &'a self,
        account: &'a AccountId,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Lock, Error>> {
        Box::pin(async move {
            match self.take(account, Instant::now() + timeout).await {
                Some(turn) => Ok(Lock { _file: None, _turn: turn }),
                None => Err(Error::Locked { account: account.clone(), waited: timeout }),
            }
        })
    }

    /// Waits for the account's lock, in this process and then on the file at `path`.
    pub(super) async fn lock_with_file(
        &self,
        account: &AccountId,
        path: &Path,
        timeout: Duration,
    ) -> Result<Lock, Error> {
        let deadline = Instant::now() + timeout;
        let locked = || Error::Locked { account: account.clone(), waited: timeout };
        let turn = self.take(account, deadline).await.ok_or_else(locked)?;
        let Some(mut file) = blocking(path, open_lock).await? else {
            return Ok(Lock { _file: None, _turn: turn });
        };
        let mut pause = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
        loop {
            // The file moves into each try and back, so that no thread is held while we wait and
            // a waiter that leaves takes nothing with it.
            let tried = blocking(path, move |path| Ok((try_lock(&file, path)?, file))).await?;
            if let (true, file) = tried {
                return Ok(Lock { _file: Some(file), _turn: turn });
            }
            file = tried.1;
            let next = Instant::now() + pause.next();
            if next >= deadline {
                return Err(locked());
            }
            sleep_until(next).await;
        }
    }
}

/// Runs blocking work on `path` off the async threads. Once begun it runs to its end, whoever
/// still waits for it.
pub(super) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let owned = path.to_owned();
    match tokio::task::spawn_blocking(move || work(&owned)).await {
        Ok(outcome) => outcome,
        // A panic or a runtime that is going down: for who waits, work that did not happen.
        Err(error) => Err(Error::io("finish the work on", path)(io::Error::other(error))),
    }
}

/// Opens or makes a file that only its owner may touch; the mode is set as it is made, so there
/// is no moment at which it is wider.
pub(super) fn open_private(path: &Path) -> Result<File, Error> {
    durable_file::open_private(path).map_err(Error::io("open", path))
}

/// Opens an account's lock file. On a disk that takes nothing new, one that is there can still be
/// locked; one that is not there stands for nobody, because no other process can make it either.
fn open_lock(path: &Path) -> Result<Option<File>, Error> {
    // A disk that refuses says so below.
    let _ = durable_file::make_directory(durable_file::parent(path));
    let refused = match open_private(path) {
        Err(Error::Io { source, .. }) if takes_nothing(&source) => source,
        opened => return opened.map(Some),
    };
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(_) => Err(Error::io("open", path)(refused)),
    }
}

/// Whether the disk is full, or was remounted read-only, as ext4 is after an error.
fn takes_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// Tries to lock `file`; `false` if another holder has it.
pub(super) fn try_lock(file: &File, path: &Path) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(Error::io("lock", path)(source)),
    }
}
