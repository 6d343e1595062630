//! Keeps entries in a directory of this machine: `<space>/<key>.json`, one file each.
//!
//! A file is a line of JSON (version, expiry) and the bytes. It is replaced as a whole: written
//! beside, synced, renamed, and the directory synced, so that after a crash at any point it is the
//! old entry or the new one. The file beside, `.<key>.tmp`, is locked while an entry is compared
//! and written, and gone afterwards. The owner of a lease is in `leases/<space>/<key>`, overwritten in
//! place, which a full disk allows; an owner holds a lock on `owners/<owner>` as long as it lives.

mod leases;
mod name;

use super::{Backend, Error, Expected, Granted, Listed, RawEntry, Version, Write};
use crate::store::Damage;
use crate::{
    backoff::Backoff,
    durable_file,
    trusted_path::{self, UntrustedPath},
};
use leases::Owner;
use name::{decode, encode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File, Metadata, TryLockError},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A directory of entries, shared by every process of this user.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    lock_timeout: Duration,
    /// The lock that says that this owner lives, once one is needed.
    owner: Mutex<Option<Owner>>,
    /// Spaces that were there once: a directory that is gone, say with its volume, is no sign that
    /// there are no entries.
    known: Mutex<HashSet<String>>,
    /// What the files said when they were listed last, so that each is read once per change.
    listed: Mutex<HashMap<String, Headers>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Header {
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
}

/// The headers of a space by key, each with what its file was like.
type Headers = BTreeMap<String, (Stat, Header)>;

/// Changes with the file.
type Stat = (u64, u64, i64, i64, i64, i64, u32);

/// A file beside an entry, locked: as long as it is there, no other process changes the entry.
struct Beside {
    path: PathBuf,
    file: File,
}

impl Drop for Beside {
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
            lock_timeout: LOCK_TIMEOUT,
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

    /// The version of an entry, also of one that cannot be read.
    fn version(&self, space: &str, key: &str) -> Result<Option<Version>, Error> {
        let path = self.path(space, key);
        if let Ok(header) = read_header(&path) {
            return Ok(header.map(|header| Version(header.version)));
        }
        let found = fs::symlink_metadata(&path).map_err(io("look at", &path))?;
        Ok(Some(Version(hash(&stat(&found)))))
    }

    fn read(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error> {
        let path = self.path(space, key);
        if !self.has_space(space)? {
            return Ok(None);
        }
        let Some((header, bytes)) = read(&path)? else { return Ok(None) };
        let expires_at_ms = header.expires_at_ms;
        Ok(Some(RawEntry { bytes, version: Version(header.version), expires_at_ms }))
    }

    /// Makes the file beside the entry at `path`, empty and locked.
    ///
    /// Its name is fixed, so a file left by a crash is found and cleared away without a search.
    fn beside(&self, path: &Path) -> Result<Beside, Error> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        // An entry's name never begins with a dot.
        let path = path.with_file_name(format!(".{name}.tmp"));
        self.wait(&path, || match durable_file::create_private(&path) {
            // Between the two calls another process may have taken ours for abandoned.
            Ok(file) => match try_lock(&file)? && durable_file::is_at(&file, &path)? {
                true => Ok(Some(Beside { path: path.clone(), file })),
                false => Ok(None),
            },
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let file = durable_file::open_private(&path)?;
                // Left by a crash: no process locks it. Removed when dropped, and made anew.
                if try_lock(&file)? {
                    drop(Beside { path: path.clone(), file });
                }
                Ok(None)
            }
            Err(error) => Err(error),
        })
    }

    /// Tries until it is done, or `lock_timeout` has passed.
    fn wait<T>(
        &self,
        path: &Path,
        mut attempt: impl FnMut() -> io::Result<Option<T>>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + self.lock_timeout;
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

    /// Replaces the entry at `path` by `beside`.
    fn replace(beside: &mut Beside, path: &Path, write: &Write<'_>) -> Result<Version, Error> {
        let version = random()?;
        let header = Header { version, expires_at_ms: write.expires_at_ms };
        let mut text = serde_json::to_vec(&header).expect("numbers are JSON");
        text.push(b'\n');
        text.extend_from_slice(write.bytes);
        // A sync that failed is not tried again: the kernel may have dropped the pages and would
        // report success. The whole file is given up instead.
        beside
            .file
            .write_all(&text)
            .and_then(|()| match write.expires_at_ms {
                None => durable_file::sync_whole(&beside.file, text.len()),
                Some(_) => Ok(()),
            })
            .map_err(io("write", &beside.path))?;
        fs::rename(&beside.path, path).map_err(io("replace", path))?;
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
        self.read(space, key)
    }

    fn put(&self, space: &str, key: &str, write: &Write<'_>) -> Result<Version, Error> {
        let path = self.path(space, key);
        let above = durable_file::parent(&path);
        if !matches!(write.expected, Expected::Version(_)) {
            self.make(above)?;
        } else if !self.has_space(space)? {
            return Err(Error::Conflict);
        }
        let mut beside = self.beside(&path)?;
        // Whatever lies there may be replaced by a write that expects nothing.
        if write.expected != Expected::Any && !write.expected.is_met_by(self.version(space, key)?) {
            return Err(Error::Conflict);
        }
        // Held until the entry is replaced: no other process can take the lease meanwhile.
        let lease = write.fence.map(|fence| self.check_fence(space, key, fence)).transpose()?;
        let version = Self::replace(&mut beside, &path, write)?;
        drop((lease, beside));
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
        let _beside = self.beside(&path)?;
        let Some(entry) = self.read(space, key)? else { return Ok(None) };
        fs::remove_file(&path).map_err(io("remove", &path))?;
        Ok(Some(entry))
    }

    fn delete(&self, space: &str, key: &str, expected: Expected) -> Result<bool, Error> {
        let path = self.path(space, key);
        if !self.has_space(space)? || !path.exists() {
            return if expected.is_met_by(None) { Ok(false) } else { Err(Error::Conflict) };
        }
        let _beside = self.beside(&path)?;
        if expected != Expected::Any && !expected.is_met_by(self.version(space, key)?) {
            return Err(Error::Conflict);
        }
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io("remove", &path)(error)),
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
        let mut now = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(io("list", &directory))? {
            let name = entry.map_err(io("list", &directory))?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            let Some(key) = stem.and_then(decode) else { continue };
            let path = directory.join(&name);
            let stat = match fs::symlink_metadata(&path) {
                Ok(found) => stat(&found),
                // Removed since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(io("look at", &path)(error)),
            };
            let header = match before.get(&key) {
                Some((seen, header)) if *seen == stat => *header,
                _ => match read_header(&path) {
                    Ok(Some(header)) => header,
                    Ok(None) => continue,
                    // Listed all the same: reading it says what is wrong.
                    Err(error) => {
                        let is_damaged = matches!(error, Error::Damaged { .. });
                        Header { version: hash(&stat), expires_at_ms: is_damaged.then_some(0) }
                    }
                },
            };
            now.insert(key, (stat, header));
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
        let path = self.path(space, key);
        match self.has_space(space)? && path.exists() {
            true => self.take_lease(space, key, now_ms, ttl),
            false => Err(Error::Conflict),
        }
    }

    fn release(&self, space: &str, key: &str, fence: u64) -> Result<(), Error> {
        self.end_lease(space, key, fence)
    }

    fn owner(&self) -> Result<String, Error> {
        self.live_owner()
    }

    fn is_alive(&self, owner: &str) -> Result<bool, Error> {
        self.owner_lives(owner)
    }
}

/// Checks that other users can change neither the directory nor what is in it. Root may work on the
/// store of a service: what it writes belongs to that service's user.
fn check_trust(directory: &Path) -> Result<(), UntrustedPath> {
    let found = fs::metadata(directory).ok();
    let owner = found.as_ref().map_or(0, Metadata::uid);
    if owner == 0 || !rustix::process::geteuid().is_root() {
        trusted_path::verify(directory)?;
    } else {
        let real = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        trusted_path::verify(durable_file::parent(&real))?;
    }
    let inside = fs::read_dir(directory).into_iter().flatten().flatten();
    let inside = inside.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    let itself = found.into_iter().map(|found| (directory.to_owned(), found));
    for (path, found) in itself.chain(inside) {
        if found.is_symlink() && path.is_dir() {
            return Err(UntrustedPath::SymbolicLink { path });
        }
        if !found.is_dir() {
            continue;
        }
        let mode = found.mode() & 0o7777;
        let user = rustix::process::geteuid().as_raw();
        if ![0, owner, user].contains(&found.uid()) {
            return Err(UntrustedPath::ForeignOwner { path, owner: found.uid(), user });
        }
        // A group counts below; above, `verify` has judged the directory itself.
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(UntrustedPath::Writable { path, mode });
        }
    }
    Ok(())
}

/// Reads an entry's file, or a little more than the longest there can be.
fn read(path: &Path) -> Result<Option<(Header, Vec<u8>)>, Error> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io("read", path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(damaged(path));
    }
    let (header, at) = parse_header(&bytes).ok_or_else(|| damaged(path))?;
    bytes.drain(..at);
    Ok(Some((header, bytes)))
}

fn read_header(path: &Path) -> Result<Option<Header>, Error> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = [0; HEADER_MAX_BYTES];
    let len = file.read_at(&mut bytes, 0).map_err(io("read", path))?;
    let found = parse_header(&bytes[..len]).map(|(header, _)| Some(header));
    found.ok_or_else(|| damaged(path))
}

fn damaged(path: &Path) -> Error {
    Error::Damaged { record: path.display().to_string(), cause: Damage::NoEntry }
}

/// Says whether `path` is a directory; a link to one is not followed. What root does in the store
/// of a service must not reach beyond it.
fn is_directory(path: &Path) -> Result<bool, UntrustedPath> {
    let found = fs::symlink_metadata(path).ok();
    match found.is_some_and(|found| found.is_symlink()) {
        true => Err(UntrustedPath::SymbolicLink { path: path.to_owned() }),
        false => Ok(path.is_dir()),
    }
}

fn open(path: &Path) -> Result<Option<File>, Error> {
    match durable_file::open_to_read(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) if source.kind() == ErrorKind::PermissionDenied => {
            Err(Error::Unreadable { path: path.to_owned(), source })
        }
        Err(error) => Err(io("open", path)(error)),
    }
}

/// The header, and where the bytes begin.
fn parse_header(bytes: &[u8]) -> Option<(Header, usize)> {
    let end = bytes.iter().take(HEADER_MAX_BYTES).position(|&byte| byte == b'\n')?;
    Some((serde_json::from_slice(&bytes[..end]).ok()?, end + 1))
}

fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(source),
    }
}

fn stat(file: &Metadata) -> Stat {
    let times = (file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
    (file.ino(), file.len(), times.0, times.1, times.2, times.3, file.uid())
}

fn hash(stat: &Stat) -> u64 {
    let mut hasher = DefaultHasher::new();
    stat.hash(&mut hasher);
    hasher.finish()
}

fn random() -> Result<u64, Error> {
    let mut bytes = [0; 8];
    let filled = aws_lc_rs::rand::fill(&mut bytes).map_err(io::Error::other);
    filled.map_err(io("read", Path::new("/dev/random")))?;
    Ok(u64::from_ne_bytes(bytes))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// How long a write waits for other writes of the same entry.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);
const HEADER_MAX_BYTES: usize = 128;
/// Longer than any entry: 5,000 profiles in each of three regions.
const MAX_BYTES: u64 = 16 << 20;
const SUFFIX: &str = ".json";
