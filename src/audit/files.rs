//! The files of a log: the one that grows, the older ones, and the checkpoint, which is the lock too.
//!
//! For `audit.jsonl` the older files are `audit.000001.jsonl` and so on, and the checkpoint is
//! `audit.head`. Files are numbered from the first on and never renamed again.

use super::Error;
use crate::{backoff::Backoff, durable_file};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long one process waits for others.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a log is.
#[derive(Debug, Clone)]
pub(super) struct LogFiles {
    /// The file that grows.
    pub(super) current: PathBuf,
    pub(super) checkpoint: PathBuf,
}

impl LogFiles {
    pub(super) fn new(current: &Path) -> Self {
        Self { current: current.to_owned(), checkpoint: current.with_extension("head") }
    }

    pub(super) fn directory(&self) -> &Path {
        durable_file::parent(&self.current)
    }

    /// The older file number `segment`.
    pub(super) fn archived(&self, segment: u64) -> PathBuf {
        let stem = self.current.file_stem().unwrap_or_default().to_string_lossy();
        let mut name = format!("{stem}.{segment:06}");
        if let Some(extension) = self.current.extension() {
            name.push('.');
            name.push_str(&extension.to_string_lossy());
        }
        self.current.with_file_name(name)
    }

    /// The numbers of the older files, ascending.
    pub(super) fn segments(&self) -> Result<Vec<u64>, Error> {
        let directory = self.directory();
        let mut found = Vec::new();
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(Error::io("list", directory)(error)),
        };
        for entry in entries {
            let name = entry.map_err(Error::io("list", directory))?.file_name();
            let number = name.to_str().and_then(|name| {
                let after = name.strip_prefix(self.current.file_stem()?.to_str()?)?;
                after.strip_prefix('.')?.split('.').next()?.parse().ok()
            });
            // Only the name that we would give it: `audit.1.jsonl` is none of ours.
            let is_ours = |number: &u64| self.archived(*number).file_name() == Some(&*name);
            found.extend(number.filter(is_ours));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Opens the checkpoint, which is made (and its directory) if it is not there, and waits until
    /// no other process works on this log.
    pub(super) fn lock_to_write(&self, timeout: Duration) -> Result<File, Error> {
        let directory = self.directory();
        durable_file::make_directory(directory)
            .map_err(Error::io("make the directory", directory))?;
        self.lock(timeout, || durable_file::open_private(&self.checkpoint))
    }

    /// As `lock_to_write`, but makes and changes nothing; none if there is no checkpoint.
    pub(super) fn lock_to_read(&self, timeout: Duration) -> Result<Option<File>, Error> {
        match self.lock(timeout, || File::open(&self.checkpoint)) {
            Ok(file) => Ok(Some(file)),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn lock(&self, timeout: Duration, open: impl Fn() -> io::Result<File>) -> Result<File, Error> {
        let path = &self.checkpoint;
        let deadline = Instant::now() + timeout;
        let mut pause = Backoff::new(Duration::from_micros(200), Duration::from_millis(20));
        loop {
            let file = open().map_err(Error::io("open", path))?;
            match file.try_lock() {
                // Between the two calls another process may have removed it.
                Ok(()) if durable_file::is_at(&file, path).unwrap_or(false) => return Ok(file),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
            }
            if Instant::now() >= deadline {
                return Err(Error::Locked { path: path.clone(), waited: timeout });
            }
            std::thread::sleep(pause.next());
        }
    }
}

/// A file of a log, as long as it was when it was opened.
pub(super) struct Segment {
    /// Its number; none for the one that grows.
    pub(super) number: Option<u64>,
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) len: u64,
}

impl Segment {
    /// None if it is not there.
    pub(super) fn open(number: Option<u64>, path: &Path) -> Result<Option<Self>, Error> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((len, file)) => Ok(Some(Self { number, path: path.to_owned(), file, len })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    /// What is from byte `from` on.
    pub(super) fn read(&self, from: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(self.len.saturating_sub(from)).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, from).map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }

    /// Its last `most` bytes.
    pub(super) fn read_end(&self, most: usize) -> Result<Vec<u8>, Error> {
        self.read(self.len.saturating_sub(most as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_files_are_found_by_number_and_no_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = LogFiles::new(&dir.path().join("audit.jsonl"));
        for name in [
            "audit.jsonl",
            "audit.head",
            "audit.000002.jsonl",
            "audit.000010.jsonl",
            "audit.1234567.jsonl",
            "audit.1.jsonl",
            "audit.000003.json",
            "audit.000004.jsonl.gz",
            "audits.000005.jsonl",
            "audit.+00006.jsonl",
        ] {
            fs::write(dir.path().join(name), "").expect("written");
        }
        assert_eq!(files.segments().expect("listed"), [2, 10, 1_234_567]);
        assert_eq!(files.checkpoint, dir.path().join("audit.head"));
        let bare = LogFiles::new(Path::new("log"));
        assert_eq!(bare.archived(3), Path::new("log.000003"));
        assert_eq!(bare.directory(), Path::new("."));
    }

    #[test]
    fn a_held_lock_is_waited_for_and_then_given_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = LogFiles::new(&dir.path().join("made").join("audit.jsonl"));
        assert!(files.lock_to_read(Duration::ZERO).expect("no checkpoint").is_none());
        let held = files.lock_to_write(Duration::ZERO).expect("free");
        let error = files.lock_to_write(Duration::from_millis(5)).expect_err("held");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        drop(held);
        files.lock_to_read(Duration::ZERO).expect("free").expect("made");
    }
}
