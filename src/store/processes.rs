//! Which processes work on a store, and which keys each of them has.
//!
//! A record must not be sealed with a key that another running process lacks: it would take the
//! account for sealed. So every server says which keys it has, in a file below `processes` that it
//! keeps locked for as long as it lives; a file that is not locked was left by a crash.

use super::{Error, file, lock::try_lock, seal::KeyRing};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A process that works on the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// Its number, in its own namespace.
    pub pid: u32,
    keys: Vec<KeyName>,
}

/// A key that a process has. The check tells keys of one id apart and gives none of them away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyName {
    id: String,
    check: String,
}

impl Process {
    /// This process.
    fn this(ring: &KeyRing) -> Self {
        let name = |(id, check): (&str, &str)| KeyName { id: id.into(), check: check.into() };
        Self { pid: std::process::id(), keys: ring.checks().map(name).collect() }
    }

    /// Says whether the key `id` is its first one.
    #[must_use]
    pub fn seals_with(&self, id: &str) -> bool {
        self.keys.first().is_some_and(|key| key.id == id)
    }

    /// Says whether it has this very key.
    #[must_use]
    pub fn has(&self, id: &str, check: &str) -> bool {
        self.keys.iter().any(|key| key.id == id && key.check == check)
    }
}

/// Says that this process works on the store, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    /// Locked. Read through the file system only.
    _file: File,
}

impl Drop for Presence {
    fn drop(&mut self) {
        // What stays is not locked any more, and cleared away by whoever looks next.
        let _ = fs::remove_file(&self.path);
    }
}

/// Lets others know the keys of this process.
pub(super) fn announce(directory: &Path, ring: &KeyRing) -> Result<Presence, Error> {
    let directory = directory.join(DIRECTORY);
    file::make_directory(&directory)?;
    let mut random = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::Random)?;
    let name = format!("{}-{:016x}", std::process::id(), u64::from_be_bytes(random));
    // Whoever sees the name sees a whole file that is locked.
    let (hidden, path) = (directory.join(format!(".{name}")), directory.join(name));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let mut opened = options.open(&hidden).map_err(Error::io("create", &hidden))?;
    let text = serde_json::to_vec(&Process::this(ring)).expect("plain JSON");
    let shown = try_lock(&opened, &hidden)
        .and_then(|_| opened.write_all(&text).map_err(Error::io("write", &hidden)))
        .and_then(|()| fs::rename(&hidden, &path).map_err(Error::io("rename", &hidden)));
    if shown.is_err() {
        let _ = fs::remove_file(&hidden);
    }
    shown?;
    Ok(Presence { path, _file: opened })
}

/// The processes that have announced themselves and live. Clears away what others left behind.
pub(super) fn living(directory: &Path) -> Result<Vec<Process>, Error> {
    let directory = directory.join(DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", &directory)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", &directory))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let file = match File::open(&path) {
            Ok(file) => file,
            // It has just ended.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        // Shared, so that two who look do not take each other for the owner.
        match file.try_lock_shared() {
            Ok(()) => drop(fs::remove_file(&path)),
            Err(TryLockError::WouldBlock) => {
                let text = fs::read(&path).unwrap_or_default();
                // One of another version is none of our business.
                found.extend(serde_json::from_slice::<Process>(&text));
            }
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
        }
    }
    Ok(found)
}

/// `ring` with the first key in front that every living process has.
///
/// If there is none, or it cannot be told, the ring is as it was: what is sealed with a key that
/// others lack can be had again with that key, what is not saved is lost.
pub(super) fn common(directory: &Path, ring: &KeyRing) -> KeyRing {
    match living(directory) {
        Ok(others) => ring.led_by(|id, check| others.iter().all(|other| other.has(id, check))),
        Err(_) => ring.clone(),
    }
}

const DIRECTORY: &str = "processes";

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
