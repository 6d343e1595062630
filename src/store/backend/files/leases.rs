//! Leases and their owners: `leases/<space>/<key>` and `owners/<owner>`.
//!
//! A lease file is overwritten in place, which a full disk allows. An owner is alive as long as it
//! holds the lock on its file: the lease of a process that was killed is free at once.

use super::{Error, Files, Granted, encode, io, random, try_lock};
use crate::durable_file;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, TryLockError},
    io::{self as std_io, ErrorKind},
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::Duration,
};

/// What a lease file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct LeaseFile {
    fence: u64,
    until_ms: u64,
    owner: String,
}

#[derive(Debug)]
pub(super) struct Owner {
    name: String,
    path: PathBuf,
    /// Locked.
    _file: File,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A file that stays is not locked any more: the next process that looks removes it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Files {
    pub(super) fn take_lease(
        &self,
        space: &str,
        key: &str,
        now_ms: u64,
        ttl: Duration,
    ) -> Result<Granted, Error> {
        let path = self.path(space, key);
        let owner = self.register_owner()?;
        let file = self.lease_file(space, key, true)?.expect("it was made");
        let failed = || io("write the lease of", &path);
        let held = read_lease(&file).map_err(failed())?;
        // A deadline far ahead was written under another clock.
        let in_force = held.until_ms > now_ms && held.until_ms - now_ms <= LEASE_MAX_MS;
        if in_force && (held.owner == owner || self.is_owner_alive(&held.owner)?) {
            return Err(Error::Held { until_ms: held.until_ms });
        }
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(LEASE_MAX_MS).min(LEASE_MAX_MS);
        let granted = Granted { fence: held.fence + 1, until_ms: now_ms.saturating_add(ttl) };
        let Granted { fence, until_ms } = granted;
        write_lease(&file, &LeaseFile { fence, until_ms, owner }).map_err(failed())?;
        Ok(granted)
    }

    pub(super) fn end_lease(&self, space: &str, key: &str, fence: u64) -> Result<(), Error> {
        let Some(file) = self.lease_file(space, key, false)? else { return Ok(()) };
        let path = self.path(space, key);
        let held = read_lease(&file).map_err(io("read the lease of", &path))?;
        if held.fence == fence {
            let ended = LeaseFile { fence, ..LeaseFile::default() };
            write_lease(&file, &ended).map_err(io("write the lease of", &path))?;
        }
        Ok(())
    }

    pub(super) fn register_owner(&self) -> Result<String, Error> {
        let mut owner = self.owner.lock();
        if let Some(owner) = &*owner {
            return Ok(owner.name.clone());
        }
        let directory = self.directory.join("owners");
        self.make(&directory)?;
        let name = format!("{:016x}", u64::from_ne_bytes(*random()?));
        // A process that sees the name sees a file that is locked.
        let (hidden, path) = (directory.join(format!(".{name}")), directory.join(&name));
        let file = durable_file::create_private(&hidden).map_err(io("create", &hidden))?;
        let shown = try_lock(&file).and_then(|_| fs::rename(&hidden, &path));
        shown.inspect_err(|_| drop(fs::remove_file(&hidden))).map_err(io("lock", &path))?;
        *owner = Some(Owner { name: name.clone(), path, _file: file });
        Ok(name)
    }

    pub(super) fn is_owner_alive(&self, owner: &str) -> Result<bool, Error> {
        if self.owner.lock().as_ref().is_some_and(|ours| ours.name == owner) {
            return Ok(true);
        }
        let path = self.directory.join("owners").join(encode(owner));
        let file = match durable_file::open_to_read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io("open", &path)(error)),
        };
        // Shared, so that two that look do not take each other for the owner.
        match file.try_lock_shared() {
            Ok(()) => {
                let _ = fs::remove_file(&path);
                Ok(false)
            }
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(io("lock", &path)(source)),
        }
    }

    /// Opens and locks the lease of an entry; `make` it if it is missing.
    fn lease_file(&self, space: &str, key: &str, make: bool) -> Result<Option<File>, Error> {
        let path = self.directory.join("leases").join(space).join(encode(key));
        if make {
            self.make(durable_file::parent(&path))?;
        } else if !path.exists() {
            return Ok(None);
        }
        self.wait(&path, || {
            let file = durable_file::open_private(&path)?;
            Ok(try_lock(&file)?.then_some(file))
        })
        .map(Some)
    }

    pub(super) fn check_fence(&self, space: &str, key: &str, fence: u64) -> Result<File, Error> {
        let file = self.lease_file(space, key, false)?.ok_or(Error::Conflict)?;
        let lease = read_lease(&file).map_err(io("read the lease of", &self.path(space, key)))?;
        if lease.fence == fence { Ok(file) } else { Err(Error::Conflict) }
    }
}

/// Reads a lease; what cannot be read was cut off by a crash and is none.
fn read_lease(file: &File) -> std_io::Result<LeaseFile> {
    let mut block = [0; LEASE_BYTES];
    let len = file.read_at(&mut block, 0)?;
    Ok(serde_json::from_slice(block[..len].trim_ascii_end()).unwrap_or_default())
}

fn write_lease(file: &File, lease: &LeaseFile) -> std_io::Result<()> {
    let mut block = serde_json::to_vec(lease).expect("texts and numbers are JSON");
    block.resize(LEASE_BYTES - 1, b' ');
    block.push(b'\n');
    file.write_all_at(&block, 0)
}

/// No lease is longer.
const LEASE_MAX_MS: u64 = 3_600_000;
/// One sector: written whole or not at all.
const LEASE_BYTES: usize = 256;
