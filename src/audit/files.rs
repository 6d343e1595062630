//! The files of a log: the one that grows, the older ones, and the head, which is the lock too.
//!
//! For `audit.jsonl` the older files are `audit.000001.jsonl` and so on, and the head is
//! `audit.head`. Files are numbered from the first on and never renamed again.

use super::Error;
use crate::{backoff::Backoff, durable_file};
use rustix::fs::OFlags;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Where a log is.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The file that grows.
    pub(super) current: PathBuf,
    /// The head.
    pub(super) head: PathBuf,
}

impl Files {
    pub(super) fn new(current: &Path) -> Self {
        Self { current: current.to_owned(), head: current.with_extension("head") }
    }

    /// The directory they are all in.
    pub(super) fn directory(&self) -> &Path {
        match self.current.parent() {
            Some(above) if above != Path::new("") => above,
            Some(_) => Path::new("."),
            None => Path::new("/"),
        }
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
            let digits = name.to_str().and_then(|name| {
                let after = name.strip_prefix(self.current.file_stem()?.to_str()?)?;
                after.strip_prefix('.')?.split('.').next()
            });
            let number = digits.and_then(|digits| digits.parse().ok());
            // Only the name that we would give it: `audit.1.jsonl` is none of ours.
            found.extend(
                number
                    .filter(|&number| self.archived(number).file_name() == Some(name.as_os_str())),
            );
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Opens the head, which is made (and its directory) if it is not there, and waits until
    /// nobody else works on this log.
    pub(super) fn lock_to_write(&self, timeout: Duration) -> Result<File, Error> {
        let directory = self.directory();
        durable_file::make_directory(directory)
            .map_err(Error::io("make the directory", directory))?;
        self.lock(timeout, || durable_file::open_private(&self.head))
    }

    /// As `lock_to_write`, but makes and changes nothing; none if there is no head.
    pub(super) fn lock_to_read(&self, timeout: Duration) -> Result<Option<File>, Error> {
        match self.lock(timeout, || File::open(&self.head)) {
            Ok(file) => Ok(Some(file)),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn lock(&self, timeout: Duration, open: impl Fn() -> io::Result<File>) -> Result<File, Error> {
        let deadline = Instant::now() + timeout;
        let mut pause = Backoff::new(Duration::from_micros(200), Duration::from_millis(20));
        loop {
            let file = open().map_err(Error::io("open", &self.head))?;
            match file.try_lock() {
                // Between the two calls somebody may have removed it.
                Ok(()) if is_at(&file, &self.head) => return Ok(file),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => {
                    return Err(Error::io("lock", &self.head)(source));
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::Locked { path: self.head.clone(), waited: timeout });
            }
            std::thread::sleep(pause.next());
        }
    }

    /// Opens the file that grows, if it is there.
    pub(super) fn open_current(&self) -> Result<Option<File>, Error> {
        let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        match options.read(true).append(true).custom_flags(no_follow).open(&self.current) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", &self.current)(error)),
        }
    }

    /// Makes the file that grows, which must not be there.
    pub(super) fn create_current(&self) -> Result<File, Error> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true).mode(0o600);
        let made = options.open(&self.current).and_then(|file| {
            durable_file::inherit_owner(&file, &self.current)?;
            Ok(file)
        });
        made.map_err(Error::io("create", &self.current))
    }

    /// Makes the names of files made or renamed last.
    pub(super) fn sync_directory(&self) -> Result<(), Error> {
        let directory = self.directory();
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(Error::io("sync", directory))
    }
}

/// Says whether `path` still names this very file.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Reads a file, or none if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_files_are_found_by_number_and_no_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::new(&dir.path().join("audit.jsonl"));
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
        assert_eq!(files.head, dir.path().join("audit.head"));
        let bare = Files::new(Path::new("log"));
        assert_eq!(bare.archived(3), Path::new("log.000003"));
        assert_eq!(bare.directory(), Path::new("."));
    }

    #[test]
    fn a_held_lock_is_waited_for_and_then_given_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::new(&dir.path().join("made").join("audit.jsonl"));
        assert!(files.lock_to_read(Duration::ZERO).expect("no head").is_none());
        let held = files.lock_to_write(Duration::ZERO).expect("free");
        let error = files.lock_to_write(Duration::from_millis(5)).expect_err("held");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        drop(held);
        files.lock_to_read(Duration::ZERO).expect("free").expect("made");
    }
}
