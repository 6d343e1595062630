//! The files of a log: the one that grows, the older ones, and the checkpoint, which is the lock too.
//!
//! For `audit.jsonl` the older files are `audit.000001.jsonl` and so on, and the checkpoint is
//! `audit.head`. Files are numbered from the first on and never renamed again.

use super::{
    Error,
    chain::{LINE_MAX_BYTES, Line, complete_lines},
};
use crate::{backoff::Backoff, durable_file};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long one process waits for others.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(super) struct LogFiles {
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
        let extension = self.current.extension().unwrap_or_default().to_string_lossy();
        let dot = if extension.is_empty() { "" } else { "." };
        self.current.with_file_name(format!("{stem}.{segment:06}{dot}{extension}"))
    }

    /// The numbers of the older files, ascending.
    pub(super) fn segments(&self) -> Result<Vec<u64>, Error> {
        let directory = self.directory();
        let mut found = Vec::new();
        for entry in if_there(fs::read_dir(directory), "list", directory)?.into_iter().flatten() {
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

    /// Opens the file number `segment`, or the one that grows; none if it is not there.
    pub(super) fn open(&self, segment: Option<u64>) -> Result<Option<Segment>, Error> {
        let path = segment.map_or_else(|| self.current.clone(), |number| self.archived(number));
        let file = if_there(File::open(&path), "open", &path)?;
        file.map(|file| Segment::new(segment, path, file)).transpose()
    }

    /// Opens the checkpoint with `open`, and waits until no other process works on this log; none
    /// if there is no checkpoint.
    pub(super) fn lock(
        &self,
        timeout: Duration,
        open: impl Fn(&Path) -> io::Result<File>,
    ) -> Result<Option<File>, Error> {
        let path = &self.checkpoint;
        let deadline = Instant::now() + timeout;
        let mut pause = Backoff::new(Duration::from_micros(200), Duration::from_millis(20));
        loop {
            let Some(file) = if_there(open(path), "open", path)? else { return Ok(None) };
            match file.try_lock() {
                // Between the two calls another process may have removed it.
                Ok(()) if durable_file::is_at(&file, path).unwrap_or(false) => {
                    return Ok(Some(file));
                }
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

fn if_there<T>(
    opened: io::Result<T>,
    action: &'static str,
    path: &Path,
) -> Result<Option<T>, Error> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(Error::io(action, path)),
    }
}

/// A file of a log, as long as it was when it was opened.
pub(super) struct Segment {
    /// Its number; none for the one that grows.
    pub(super) number: Option<u64>,
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) inode: u64,
    pub(super) len: u64,
}

impl Segment {
    pub(super) fn new(number: Option<u64>, path: PathBuf, file: File) -> Result<Self, Error> {
        let found = file.metadata().map_err(Error::io("read", &path))?;
        Ok(Self { number, path, file, inode: found.ino(), len: found.len() })
    }

    /// What is from byte `from` on.
    pub(super) fn read(&self, from: u64) -> Result<Vec<u8>, Error> {
        self.read_part(from, self.len)
    }

    /// What is from byte `from` on and before byte `until`.
    pub(super) fn read_part(&self, from: u64, until: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; usize::try_from(until.saturating_sub(from)).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, from).map_err(Error::io("read", &self.path))?;
        Ok(bytes)
    }

    /// The end, which holds the last whole line and one that is not.
    pub(super) fn read_end(&self) -> Result<Vec<u8>, Error> {
        self.read(self.len.saturating_sub(2 * LINE_MAX_BYTES as u64))
    }

    /// The number that its first line says it has.
    pub(super) fn first_line_number(&self) -> Result<Option<u64>, Error> {
        let bytes = self.read_part(0, self.len.min(2 * LINE_MAX_BYTES as u64))?;
        Ok(complete_lines(&bytes).find_map(Line::parse).map(|line| line.seq))
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
        let to_read = |path: &Path| File::open(path);
        assert!(files.lock(Duration::ZERO, to_read).expect("no checkpoint").is_none());
        fs::create_dir(files.directory()).expect("made");
        let held = files.lock(Duration::ZERO, durable_file::open_private).expect("free");
        let error = files.lock(Duration::from_millis(5), to_read).expect_err("held");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        drop(held);
        files.lock(Duration::ZERO, to_read).expect("free").expect("made");
    }
}
