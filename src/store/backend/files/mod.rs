//! Keeps entries in a directory of this machine: `<space>/<key>.json`, one file each.
//!
//! A file is a line of JSON (version, expiry) and the bytes. It is replaced as a whole: the temporary
//! file `.<key>.tmp` is written, synced, renamed, and the directory synced, so that after a crash at
//! any point it is the old entry or the new one. The temporary file is locked while an entry is
//! compared and written, and gone afterwards. The owner of a lease is in `leases/<space>/<key>`,
//! overwritten in place, which a full disk allows; an owner holds a lock on `owners/<owner>` as long
//! as it lives.

pub(super) mod header;
mod leases;
pub(super) mod name;
mod trust;

use super::{Backend, Error, Expected, Granted, Listed, RawEntry, Version, Write, random};
use crate::{backoff::Backoff, durable_file};
use header::{Header, Stat, entry, header, listed_header, unreadable_version};
use leases::Owner;
use name::{decode, encode};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use trust::{check_trust, is_directory};

/// A directory of entries, shared by every process of this user.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    /// The lock that says that this owner lives, once one is needed.
    owner: Mutex<Option<Owner>>,
    /// Spaces that were there once: a directory that is gone, say with its volume, is no sign that
    /// there are no entries.
    known: Mutex<HashSet<String>>,
    /// What the files said when they were listed last, so that each is read once per change.
    listed: Mutex<HashMap<String, Headers>>,
}

/// The headers of a space by key, each with what its file was like.
type Headers = BTreeMap<String, (Stat, Header)>;

/// A file beside an entry, locked: as long as it is there, no other process changes the entry.
struct TempFile {
    path: PathBuf,
    file: File,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Gone already if it has become the entry. If this fails, the next write clears it away.
        if durable_file::is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Files {
    /// The entries in `directory`, which need not be there yet.
    ///
    /// # Errors
    /// `Untrusted` if other users can change what is in it.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        check_trust(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            owner: Mutex::default(),
            known: Mutex::default(),
            listed: Mutex::default(),
        })
    }

    fn path(&self, space: &str, key: &str) -> PathBuf {
        self.directory.join(space).join(format!("{}{SUFFIX}", encode(key)))
    }

    /// Says whether `space` is there, which one that was there must be.
    fn has_space(&self, space: &str) -> Result<bool, Error> {
        let path = self.directory.join(space);
        match is_directory(&path)? {
            true => drop(self.known.lock().insert(space.to_owned())),
            false if !self.known.lock().contains(space) => return Ok(false),
            false => return Err(io("find", &path)(ErrorKind::NotFound.into())),
        }
        Ok(true)
    }

    /// Makes the directory `path` below the store if it is missing.
    fn make(&self, path: &Path) -> Result<(), Error> {
        for above in path.ancestors().take_while(|above| *above != self.directory) {
            is_directory(above)?;
        }
        durable_file::make_directory(path).map_err(io("make the directory", path))
    }

    /// Compares what lies there, be it readable or not, with what a write expects.
    fn expect(&self, space: &str, key: &str, expected: Expected) -> Result<(), Error> {
        let path = self.path(space, key);
        if expected == Expected::Any {
            return Ok(());
        }
        let found = match header(&path) {
            Ok(header) => header.map(|header| header.version),
            Err(_) => Some(unreadable_version(&path)?),
        };
        expected.is_met_by(found.map(Version)).then_some(()).ok_or(Error::Conflict)
    }

    /// Makes the temporary file beside the entry at `path`, empty and locked.
    ///
    /// Its name is fixed, so a file left by a crash is found and cleared away without a search.
    fn temp_file(&self, path: &Path) -> Result<TempFile, Error> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        // An entry's name never begins with a dot.
        let path = path.with_file_name(format!(".{name}.tmp"));
        self.wait(&path, || match durable_file::create_private(&path) {
            // Between the two calls another process may have taken ours for abandoned.
            Ok(file) => match try_lock(&file)? && durable_file::is_at(&file, &path)? {
                true => Ok(Some(TempFile { path: path.clone(), file })),
                false => Ok(None),
            },
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let file = durable_file::open_private(&path)?;
                // Left by a crash: no process locks it. Removed when dropped, and made anew.
                if try_lock(&file)? {
                    drop(TempFile { path: path.clone(), file });
                }
                Ok(None)
            }
            Err(error) => Err(error),
        })
    }

    /// Tries until it is done, or [`LOCK_TIMEOUT`] has passed.
    fn wait<T>(
        &self,
        path: &Path,
        mut attempt: impl FnMut() -> io::Result<Option<T>>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let mut pause = Backoff::new(Duration::from_micros(200), Duration::from_millis(20));
        loop {
            if let Some(done) = attempt().map_err(io("lock", path))? {
                return Ok(done);
            }
            if Instant::now() >= deadline {
                return Err(io("lock", path)(ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(pause.next());
        }
    }

    /// Replaces the entry at `path` by `temp`.
    fn replace(temp: &mut TempFile, path: &Path, write: &Write<'_>) -> Result<Version, Error> {
        let version = u64::from_ne_bytes(*random()?);
        let header = Header { version, expires_at_ms: write.expires_at_ms };
        let mut text = serde_json::to_vec(&header).expect("numbers are JSON");
        text.push(b'\n');
        text.extend_from_slice(write.bytes);
        // A sync that failed is not tried again: the kernel may have dropped the pages and would
        // report success. The whole file is given up instead.
        temp.file
            .write_all(&text)
            .and_then(|()| match write.expires_at_ms {
                None => durable_file::sync_whole(&temp.file, text.len()),
                Some(_) => Ok(()),
            })
            .map_err(io("write", &temp.path))?;
        fs::rename(&temp.path, path).map_err(io("replace", path))?;
        Ok(Version(version))
    }
}

impl Backend for Files {
    fn prepare(&self) -> Result<(), Error> {
        let directory = &self.directory;
        durable_file::make_directory(directory).map_err(io("make the directory", directory))?;
        // Another user may have made it since `open` looked.
        Ok(check_trust(directory)?)
    }

    fn get(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error> {
        match self.has_space(space)? {
            true => entry(&self.path(space, key)),
            false => Ok(None),
        }
    }

    fn put(&self, space: &str, key: &str, write: &Write<'_>) -> Result<Version, Error> {
        let path = self.path(space, key);
        let above = durable_file::parent(&path);
        if !matches!(write.expected, Expected::Version(_)) {
            self.make(above)?;
        } else if !self.has_space(space)? {
            return Err(Error::Conflict);
        }
        let mut temp = self.temp_file(&path)?;
        self.expect(space, key, write.expected)?;
        // Held until the entry is replaced: no other process can take the lease meanwhile.
        let lease = write.fence.map(|fence| self.check_fence(space, key, fence)).transpose()?;
        let version = Self::replace(&mut temp, &path, write)?;
        drop((lease, temp));
        if write.expires_at_ms.is_none() {
            durable_file::sync_directory(above).map_err(io("sync", above))?;
        }
        Ok(version)
    }

    fn take(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error> {
        let path = self.path(space, key);
        if !self.has_space(space)? || !path.exists() {
            return Ok(None);
        }
        let _temp = self.temp_file(&path)?;
        let entry = entry(&path)?;
        if entry.is_some() {
            fs::remove_file(&path).map_err(io("remove", &path))?;
        }
        Ok(entry)
    }

    fn delete(&self, space: &str, key: &str, expected: Expected) -> Result<bool, Error> {
        let path = self.path(space, key);
        if !self.has_space(space)? || !path.exists() {
            return if expected.is_met_by(None) { Ok(false) } else { Err(Error::Conflict) };
        }
        let _temp = self.temp_file(&path)?;
        self.expect(space, key, expected)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            removed => removed.map_err(io("remove", &path))?,
        }
        let above = durable_file::parent(&path);
        durable_file::sync_directory(above).map_err(io("sync", above))?;
        Ok(true)
    }

    fn list(&self, space: &str) -> Result<Vec<Listed>, Error> {
        let directory = self.directory.join(space);
        if !self.has_space(space)? {
            return Ok(Vec::new());
        }
        let before = self.listed.lock().remove(space).unwrap_or_default();
        let mut now = Headers::new();
        for entry in fs::read_dir(&directory).map_err(io("list", &directory))? {
            let name = entry.map_err(io("list", &directory))?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let Some(key) = stem.and_then(decode) else { continue };
            if let Some(header) = listed_header(&directory.join(&name), before.get(&key))? {
                now.insert(key, header);
            }
        }
        let listed = now.iter().map(|(key, (_, header))| Listed {
            key: key.clone(),
            version: Version(header.version),
            expires_at_ms: header.expires_at_ms,
        });
        let listed = listed.collect();
        self.listed.lock().insert(space.to_owned(), now);
        Ok(listed)
    }

    fn lease(&self, space: &str, key: &str, now_ms: u64, ttl: Duration) -> Result<Granted, Error> {
        // Before anything is made: an unknown name must not leave a file.
        match self.has_space(space)? && self.path(space, key).exists() {
            true => self.take_lease(space, key, now_ms, ttl),
            false => Err(Error::Conflict),
        }
    }

    fn release(&self, space: &str, key: &str, fence: u64) -> Result<(), Error> {
        self.end_lease(space, key, fence)
    }

    fn owner(&self) -> Result<String, Error> {
        self.register_owner()
    }

    fn is_alive(&self, owner: &str) -> Result<bool, Error> {
        self.is_owner_alive(owner)
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(source),
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// How long a write waits for other writes of the same entry.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);
const SUFFIX: &str = ".json";
