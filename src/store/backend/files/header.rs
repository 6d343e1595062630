//! An entry's file: a line of JSON (version, expiry) and the bytes.

use super::{Error, RawEntry, Version, io};
use crate::{durable_file, store::Damage};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, Metadata},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{ErrorKind, Read as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(in crate::store::backend) struct Header {
    pub(in crate::store::backend) version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::store::backend) expires_at_ms: Option<u64>,
}

/// Changes with the file.
pub(super) type Stat = (u64, u64, i64, i64, i64, i64, u32);

pub(super) fn entry(path: &Path) -> Result<Option<RawEntry>, Error> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io("read", path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(damaged(path));
    }
    let (header, at) = parse_header(&bytes).ok_or_else(|| damaged(path))?;
    bytes.drain(..at);
    let (version, expires_at_ms) = (Version(header.version), header.expires_at_ms);
    Ok(Some(RawEntry { bytes, version, expires_at_ms }))
}

/// The header of a file, which is read if the file is not as it was `before`.
pub(super) fn listed_header(
    path: &Path,
    before: Option<&(Stat, Header)>,
) -> Result<Option<(Stat, Header)>, Error> {
    let stat = match fs::symlink_metadata(path) {
        Ok(found) => stat(&found),
        // Removed since it was listed.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("look at", path)(error)),
    };
    let header = match before {
        Some((seen, header)) if *seen == stat => *header,
        _ => match header(path) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(None),
            // Listed all the same: reading it says what is wrong.
            Err(error) => {
                let is_damaged = matches!(error, Error::Damaged { .. });
                Header { version: hash(&stat), expires_at_ms: is_damaged.then_some(0) }
            }
        },
    };
    Ok(Some((stat, header)))
}

pub(super) fn header(path: &Path) -> Result<Option<Header>, Error> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut bytes = [0; HEADER_MAX_BYTES];
    let len = file.read_at(&mut bytes, 0).map_err(io("read", path))?;
    let found = parse_header(&bytes[..len]).map(|(header, _)| Some(header));
    found.ok_or_else(|| damaged(path))
}

fn damaged(path: &Path) -> Error {
    Error::Damaged { record: path.display().to_string(), cause: Damage::NoEntry }
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
pub(in crate::store::backend) fn parse_header(bytes: &[u8]) -> Option<(Header, usize)> {
    let end = bytes.iter().take(HEADER_MAX_BYTES).position(|&byte| byte == b'\n')?;
    Some((serde_json::from_slice(&bytes[..end]).ok()?, end + 1))
}

fn stat(file: &Metadata) -> Stat {
    let times = (file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
    (file.ino(), file.len(), times.0, times.1, times.2, times.3, file.uid())
}

/// The version of a file that cannot be read.
pub(super) fn unreadable_version(path: &Path) -> Result<u64, Error> {
    Ok(hash(&stat(&fs::symlink_metadata(path).map_err(io("look at", path))?)))
}

fn hash(stat: &Stat) -> u64 {
    let mut hasher = DefaultHasher::new();
    stat.hash(&mut hasher);
    hasher.finish()
}

const HEADER_MAX_BYTES: usize = 128;
/// Longer than any entry: 5,000 profiles in each of three regions.
const MAX_BYTES: u64 = 16 << 20;
