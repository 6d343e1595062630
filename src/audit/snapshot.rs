//! A log at one moment, while others go on writing to it.

use super::{
    Error,
    chain::Line,
    files::Files,
    head::{self, Found},
    keys::AuditKeys,
};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a reader waits for those who write.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// All of a log.
pub(super) struct Snapshot {
    /// Its files, oldest first.
    pub(super) segments: Vec<Segment>,
    pub(super) head_path: PathBuf,
    pub(super) head: Option<Found>,
}

/// One file of it.
pub(super) struct Segment {
    /// Its number; none for the one that grows.
    pub(super) number: Option<u64>,
    pub(super) path: PathBuf,
    file: File,
    len: u64,
}

impl Snapshot {
    /// Opens all files with nobody writing meanwhile; what is appended later is not looked at.
    pub(super) fn take(files: &Files, keys: &AuditKeys) -> Result<Self, Error> {
        let lock = files.lock_to_read(LOCK_TIMEOUT)?;
        let head = lock.as_ref().map(|file| head::read(file, keys)).transpose();
        let head = head.map_err(Error::io("read", &files.head))?;
        let mut segments = Vec::new();
        for number in files.segments()? {
            segments.extend(Segment::open(Some(number), &files.archived(number))?);
        }
        segments.extend(Segment::open(None, &files.current)?);
        Ok(Self { segments, head_path: files.head.clone(), head })
    }
}

impl Segment {
    /// Opens a file as long as it is now; none if it is not there.
    pub(super) fn open(number: Option<u64>, path: &Path) -> Result<Option<Self>, Error> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((len, file)) => Ok(Some(Self { number, path: path.to_owned(), file, len })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    /// Its number, which its first line says where its name does not.
    pub(super) fn number_in(&self, bytes: &[u8]) -> Option<u64> {
        let first = bytes.split(|&byte| byte == b'\n').next().and_then(Line::parse);
        self.number.or(first.and_then(|line| line.body.segment))
    }

    /// Reads it.
    pub(super) fn read(&self) -> Result<Vec<u8>, Error> {
        let failed = || Error::io("read", &self.path);
        let too_long = |_| failed()(io::ErrorKind::FileTooLarge.into());
        let mut bytes = vec![0; usize::try_from(self.len).map_err(too_long)?];
        self.file.read_exact_at(&mut bytes, 0).map_err(failed())?;
        Ok(bytes)
    }
}
