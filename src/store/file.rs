//! Keeps one sealed record per account in a directory of this machine.
//!
//! `accounts/<alias>.json` is replaced as a whole: written beside it, synced, renamed, and the
//! directory synced, so that after a crash at any point it is the old record or the new one.
//! `locks/<alias>.lock` says who works on the account; it is empty and stays. Beside them lie
//! `keys` (`passphrase`), `processes`, and the marker of a rotation (`rotate`).

use super::{
    BoxFuture, Credential, CredentialStore, Error, KeyUse, LOCK_TIMEOUT, Presence, Process,
    lock::{Lock, Turns, blocking, open_private, try_lock},
    notes::{FileNotes, Notes},
    processes, record,
    seal::{self, KeyRing},
};
use crate::{backoff::Backoff, id::AccountId, secret::Secret};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// A store in a directory, shared by every process of this user.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    accounts: PathBuf,
    locks: PathBuf,
    turns: Turns,
    ring: Arc<KeyRing>,
    notes: FileNotes,
    lock_timeout: Duration,
}

impl FileStore {
    /// Opens the store in `directory`, which is made (mode 0700) if it is not there.
    ///
    /// # Errors
    /// `Io` if it cannot be made.
    pub fn open(directory: &Path, ring: KeyRing) -> Result<Self, Error> {
        let (accounts, locks) = (directory.join("accounts"), directory.join("locks"));
        make_directory(&accounts)?;
        make_directory(&locks)?;
        let (turns, ring) = (Turns::default(), Arc::new(ring));
        let notes = FileNotes::new(directory.join("notes"), ring.clone());
        let directory = directory.to_owned();
        Ok(Self { directory, accounts, locks, turns, ring, notes, lock_timeout: LOCK_TIMEOUT })
    }

    /// Lets other processes know which keys this one has, for as long as the result lives. A
    /// server does so, since others may write what it must be able to read.
    ///
    /// # Errors
    /// `Io`.
    pub fn announce(&self) -> Result<Presence, Error> {
        processes::announce(&self.directory, &self.ring)
    }

    /// The other servers, and this one if it has announced itself.
    ///
    /// # Errors
    /// `Io`.
    pub async fn processes(&self) -> Result<Vec<Process>, Error> {
        blocking(&self.directory, processes::living).await
    }

    /// Reads which keys the account's record needs, without opening it.
    ///
    /// # Errors
    /// `Corrupt` or `Io`.
    pub async fn key_use(&self, account: &AccountId) -> Result<Option<KeyUse>, Error> {
        let name = account.clone();
        blocking(&self.record(account), move |path| {
            read(path)?.map(|text| record::key_use(&name, &text)).transpose()
        })
        .await
    }

    /// How many notes need which key.
    ///
    /// # Errors
    /// `Io`.
    pub async fn notes_by_key(&self) -> Result<BTreeMap<String, usize>, Error> {
        self.notes.keys_needed().await
    }

    /// Seals the notes anew with the first key, those that open; says how many that were.
    ///
    /// # Errors
    /// `Io`, `Random`.
    pub(super) async fn reseal_notes(&self) -> Result<usize, Error> {
        self.notes.reseal().await
    }

    /// Its keys.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn record(&self, account: &AccountId) -> PathBuf {
        self.accounts.join(format!("{account}{RECORD_SUFFIX}"))
    }
}

impl CredentialStore for FileStore {
    fn load<'a>(
        &'a self,
        account: &'a AccountId,
    ) -> BoxFuture<'a, Result<Option<Credential>, Error>> {
        let (ring, name) = (Arc::clone(&self.ring), account.clone());
        Box::pin(async move {
            blocking(&self.record(account), move |path| match read(path)? {
                Some(text) => record::decode(&name, &text, &ring).map(Some),
                None => Ok(None),
            })
            .await
        })
    }

    fn save<'a>(&'a self, credential: &'a Credential) -> BoxFuture<'a, Result<(), Error>> {
        let (ring, timeout) = (Arc::clone(&self.ring), self.lock_timeout);
        let credential = credential.clone();
        Box::pin(async move {
            blocking(&self.record(&credential.account), move |path| {
                let text = record::encode(&credential, &ring.agreed())?;
                replace(path, &credential.account, &text, timeout)
            })
            .await
        })
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<bool, Error>> {
        let (name, timeout) = (account.clone(), self.lock_timeout);
        Box::pin(async move {
            blocking(&self.record(account), move |path| remove(path, &name, timeout)).await
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<AccountId>, Error>> {
        Box::pin(blocking(&self.accounts, list))
    }

    fn versions(&self) -> BoxFuture<'_, Result<BTreeMap<AccountId, u64>, Error>> {
        Box::pin(blocking(&self.accounts, versions))
    }

    fn lock<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<Lock, Error>> {
        Box::pin(async move {
            let path = self.locks.join(format!("{account}.lock"));
            self.turns.lock_with_file(account, &path, self.lock_timeout).await
        })
    }

    fn fingerprint(&self, secret: &Secret) -> String {
        seal::fingerprint(secret)
    }

    fn fingerprint_matches(&self, stored: &str, secret: &Secret) -> bool {
        stored == seal::fingerprint(secret) || self.ring.dated_fingerprint_matches(stored, secret)
    }

    fn sealed(&self) -> Option<&FileStore> {
        Some(self)
    }

    fn notes(&self) -> &dyn Notes {
        &self.notes
    }
}

/// Reads a record, or a little more than the longest there can be.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        // A directory that is gone, say with its volume, is no sign that there is no record.
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent(path).is_dir() => {
            return Ok(None);
        }
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut text = Vec::new();
    file.take(record::MAX_BYTES as u64 + 1)
        .read_to_end(&mut text)
        .map_err(Error::io("read", path))?;
    Ok(Some(text))
}

/// Replaces the record at `path`. Durable on `Ok`; otherwise the old record is still there, except
/// that after a failed sync of the directory it may be either.
fn replace(path: &Path, account: &AccountId, text: &[u8], timeout: Duration) -> Result<(), Error> {
    if text.len() > record::MAX_BYTES {
        return Err(Error::io("write", path)(io::ErrorKind::FileTooLarge.into()));
    }
    let (temporary, mut file) = make_temporary(path, account, timeout)?;
    // A sync that failed is not tried again: the kernel may have dropped the pages and would
    // report success. The whole file is given up instead.
    let renamed = file
        .write_all(text)
        .and_then(|()| file.sync_all())
        .and_then(|()| is_whole(&file, text.len()))
        .map_err(Error::io("write", &temporary))
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::io("replace", path)));
    if renamed.is_err() {
        // If this fails, too, the next save clears it away.
        let _ = fs::remove_file(&temporary);
    }
    renamed?;
    sync_directory(parent(path))
}

/// A file system that took less than it said must not cost the old record.
fn is_whole(file: &File, len: usize) -> io::Result<()> {
    match file.metadata()?.len() == len as u64 {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Writes a file that is not there yet, durably and as a whole.
pub(super) fn write_new(path: &Path, text: &[u8]) -> Result<(), Error> {
    let new = scratch(path, text)?;
    new.persist_noclobber(path).map_err(|error| Error::io("create", path)(error.error))?;
    sync_directory(parent(path))
}

/// Writes a file anew, durably and as a whole.
pub(super) fn write_over(path: &Path, text: &[u8]) -> Result<(), Error> {
    let new = scratch(path, text)?;
    new.persist(path).map_err(|error| Error::io("replace", path)(error.error))?;
    sync_directory(parent(path))
}

/// A file beside `path` with `text` in it, mode 0600, on the disk.
fn scratch(path: &Path, text: &[u8]) -> Result<tempfile::NamedTempFile, Error> {
    let mut new =
        tempfile::NamedTempFile::new_in(parent(path)).map_err(Error::io("create beside", path))?;
    new.write_all(text)
        .and_then(|()| new.as_file().sync_all())
        .map_err(Error::io("write", path))?;
    Ok(new)
}

/// Removes the record and what a crashed save may have left beside it.
fn remove(path: &Path, account: &AccountId, timeout: Duration) -> Result<bool, Error> {
    let (temporary, _file) = make_temporary(path, account, timeout)?;
    let removed = match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path)(error)),
    };
    fs::remove_file(&temporary).map_err(Error::io("remove", &temporary))?;
    sync_directory(parent(path))?;
    removed
}

/// Makes the account's temporary file, empty, mode 0600, and locked against other writers.
///
/// Its name is fixed, so a file left by a crash is found and cleared away without a search. The
/// lock tells such a file from one that is being written just now: writers should hold the
/// account's lock, but if one does not, the loser must not rename half of the winner's record.
fn make_temporary(
    path: &Path,
    account: &AccountId,
    timeout: Duration,
) -> Result<(PathBuf, File), Error> {
    // An alias never begins with a dot, so this is never taken for a record.
    let temporary = path.with_file_name(format!(".{account}.tmp"));
    let deadline = Instant::now() + timeout;
    let mut pause = Backoff::new(Duration::from_millis(1), Duration::from_millis(50));
    loop {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary);
        match made {
            Ok(file) => {
                // Between the two calls another writer may have taken ours for abandoned.
                if try_lock(&file, &temporary)? && is_at(&file, &temporary)? {
                    return Ok((temporary, file));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let found = open_private(&temporary)?;
                if try_lock(&found, &temporary)? && is_at(&found, &temporary)? {
                    fs::remove_file(&temporary).map_err(Error::io("remove", &temporary))?;
                    continue;
                }
            }
            Err(error) => return Err(Error::io("create", &temporary)(error)),
        }
        if Instant::now() >= deadline {
            return Err(Error::Locked { account: account.clone(), waited: timeout });
        }
        std::thread::sleep(pause.next());
    }
}

/// Says whether `path` still names this very file.
fn is_at(file: &File, path: &Path) -> Result<bool, Error> {
    let ours = file.metadata().map_err(Error::io("look at", path))?;
    match fs::metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

/// Lists the aliases that have a record; other files are none of ours.
pub(super) fn list(accounts: &Path) -> Result<Vec<AccountId>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(accounts).map_err(Error::io("list", accounts))? {
        let name = entry.map_err(Error::io("list", accounts))?.file_name();
        let alias = name.to_str().and_then(|name| name.strip_suffix(RECORD_SUFFIX));
        found.extend(alias.and_then(|alias| alias.parse().ok()));
    }
    found.sort();
    Ok(found)
}

/// Lists the aliases that have a record, each with the version of its file: a record is replaced
/// by a new file, so its inode, length and times tell.
fn versions(accounts: &Path) -> Result<BTreeMap<AccountId, u64>, Error> {
    let version = |alias: AccountId| {
        let path = accounts.join(format!("{alias}{RECORD_SUFFIX}"));
        match fs::metadata(&path) {
            Ok(file) => {
                let mut hash = DefaultHasher::new();
                (file.ino(), file.len(), file.mtime(), file.mtime_nsec()).hash(&mut hash);
                (file.ctime(), file.ctime_nsec()).hash(&mut hash);
                Some(Ok((alias, hash.finish())))
            }
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(Error::io("look at", &path)(error))),
        }
    };
    list(accounts)?.into_iter().filter_map(version).collect()
}

/// Makes `path` and what is missing above it, each durable before the next.
pub(super) fn make_directory(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    make_directory(above)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(above),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(Error::io("make the directory", path)(error)),
    }
}

pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::io("sync", path))
}

pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above != Path::new("") => above,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

pub(super) const RECORD_SUFFIX: &str = ".json";

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
