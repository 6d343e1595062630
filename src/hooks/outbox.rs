//! Messages that wait, on disk: what was told once is delivered, whoever is killed in between.
//!
//! `outbox/queue-<random>/` belongs to one process, which holds a lock on the file `lock` in it for
//! as long as it lives: nobody else delivers what it queued. Whoever finds the lock free takes the
//! messages over; so does a command hand messages to the server, by leaving such a directory
//! behind. `outbox/dead/` is everybody's. `outbox/lock` is held while a directory comes or goes.
//! A message is one file, written beside its place, synced and renamed.

use super::message::{FORMAT_VERSION, Message, NoRandom, random};
use crate::durable_file;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// No message is longer: its texts have bounds of their own.
const MESSAGE_MAX_BYTES: u64 = 16 * 1024;

const QUEUE_PREFIX: &str = "queue-";
const SUFFIX: &str = ".json";

/// Why the outbox did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {action} {path}: check that it is writable for this user and has free space")]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// The outbox of a store, with a queue of this process's own. Its methods block.
#[derive(Debug)]
pub struct Outbox {
    root: PathBuf,
    queue: PathBuf,
    /// Held until the process ends, however it ends.
    _lock: File,
}

/// A message that was given up, or a file there that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    path: PathBuf,
    /// None if the file cannot be read as a message.
    pub message: Option<Message>,
}

impl Dead {
    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Outbox {
    /// Opens the outbox in `root` (made if missing, mode 0700) with an empty queue.
    ///
    /// # Errors
    /// `Io`, `Random`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        make_directory(root)?;
        make_directory(&root.join("dead"))?;
        let queue = root.join(format!("{QUEUE_PREFIX}{}", random()?));
        // Otherwise somebody might find the queue before it is locked, and take it over.
        let guard = structure(root)?;
        make_directory(&queue)?;
        let lock = open_lock(&queue.join("lock"))?;
        lock.try_lock().map_err(|error| io("lock", &queue)(error.into()))?;
        drop(guard);
        Ok(Self { root: root.to_owned(), queue, _lock: lock })
    }

    /// Keeps `message` in place of what was kept of it; durable on `Ok`.
    ///
    /// # Errors
    /// `Io`.
    pub fn put(&self, message: &Message) -> Result<(), Error> {
        write(&self.queue.join(file_name(message)), message)
    }

    /// Forgets a message that was delivered. After a crash it may come back.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(&self, message: &Message) -> Result<(), Error> {
        unlink(&self.queue.join(file_name(message)))
    }

    /// Gives `message` up: it is kept aside. Of more than `keep` such, the oldest are lost; returns
    /// how many were.
    ///
    /// # Errors
    /// `Io`.
    pub fn bury(&self, message: &Message, keep: usize) -> Result<usize, Error> {
        let dead = self.root.join("dead");
        write(&dead.join(file_name(message)), message)?;
        self.remove(message)?;
        let mut paths = files(&dead)?;
        let lost = paths.len().saturating_sub(keep);
        paths.truncate(lost);
        paths.iter().try_for_each(|path| unlink(path))?;
        Ok(lost)
    }

    /// Takes over what processes that have ended left behind, and adds it to `adopted`.
    ///
    /// # Errors
    /// `Io`; what was taken over until then is ours nevertheless.
    pub fn adopt(&self, adopted: &mut Vec<Message>) -> Result<(), Error> {
        let others = queues(&self.root)?;
        if others.iter().all(|queue| *queue == self.queue) {
            return Ok(());
        }
        let _guard = structure(&self.root)?;
        for queue in others.into_iter().filter(|queue| *queue != self.queue) {
            let lock = match open_lock(&queue.join("lock")) {
                Ok(lock) => lock,
                // Somebody else was faster.
                Err(_) if !queue.is_dir() => continue,
                Err(error) => return Err(error),
            };
            if lock.try_lock().is_err() {
                continue;
            }
            self.take_over(&queue, adopted)?;
        }
        Ok(())
    }

    fn take_over(&self, queue: &Path, adopted: &mut Vec<Message>) -> Result<(), Error> {
        for path in files(queue)? {
            let name = path.file_name().unwrap_or_default();
            let message = read(&path)?;
            // What is no message is kept, where people will see it.
            let place = if message.is_some() { &self.queue } else { &self.root.join("dead") };
            fs::rename(&path, place.join(name)).map_err(io("take over", &path))?;
            adopted.extend(message);
        }
        sync(&self.queue)?;
        // Half-written files and the lock are all that is left.
        fs::remove_dir_all(queue).map_err(io("remove", queue))
    }

    /// How many messages were given up and are kept.
    ///
    /// # Errors
    /// `Io`.
    pub fn dead_count(&self) -> Result<usize, Error> {
        Ok(files(&self.root.join("dead"))?.len())
    }

    /// Removes the queue if it is empty, as the last act of a process.
    pub fn close(self) {
        let empty = files(&self.queue).is_ok_and(|files| files.is_empty());
        if let (true, Ok(_guard)) = (empty, structure(&self.root)) {
            let _ = fs::remove_dir_all(&self.queue);
        }
    }
}

/// Everything that waits in the outbox at `root`, whoever's it is, oldest first. Nothing if there
/// is no outbox.
///
/// # Errors
/// `Io`.
pub fn waiting(root: &Path) -> Result<Vec<Message>, Error> {
    let mut found = Vec::new();
    for queue in queues(root)? {
        for path in files(&queue)? {
            found.extend(read(&path)?);
        }
    }
    found.sort_by(|a, b| (a.order, &a.id).cmp(&(b.order, &b.id)));
    Ok(found)
}

/// Everything in the outbox at `root` that was given up, oldest first.
///
/// # Errors
/// `Io`.
pub fn dead(root: &Path) -> Result<Vec<Dead>, Error> {
    let paths = files(&root.join("dead"))?;
    paths.into_iter().map(|path| Ok(Dead { message: read(&path)?, path })).collect()
}

/// Queues messages that were given up anew; `now` is in seconds since 1970. They are for the next
/// server that looks, so this process must end soon. Returns how many there were.
///
/// # Errors
/// `Io`, `Random`. A message is delivered twice rather than never.
pub fn resend(root: &Path, dead: &[Dead], now: u64) -> Result<usize, Error> {
    let outbox = Outbox::open(root)?;
    let mut count = 0;
    for (message, path) in dead.iter().filter_map(|dead| Some((dead.message.clone()?, &dead.path)))
    {
        let fresh =
            Message { queued_at: now, attempts: 0, not_before: 0, last_error: None, ..message };
        outbox.put(&fresh)?;
        unlink(path)?;
        count += 1;
    }
    Ok(count)
}

/// Begins with the time, so that names sort by it.
fn file_name(message: &Message) -> String {
    format!("{:020}-{}{SUFFIX}", message.order, message.id)
}

/// The lock on the outbox as a whole; held for moments only.
fn structure(root: &Path) -> Result<File, Error> {
    let path = root.join("lock");
    let file = open_lock(&path)?;
    file.lock().map_err(io("lock", &path))?;
    Ok(file)
}

fn open_lock(path: &Path) -> Result<File, Error> {
    durable_file::open_private(path).map_err(io("open", path))
}

fn write(path: &Path, message: &Message) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(path);
    let temporary = directory.join(format!(".{}.tmp", message.id));
    let text = serde_json::to_vec(message).expect("texts and numbers are valid JSON");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            durable_file::inherit_owner(&file, &temporary)?;
            file.write_all(&text)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(source) = written {
        let _ = fs::remove_file(&temporary);
        return Err(io("write", path)(source));
    }
    sync(directory)
}

/// None if it is no message, or not there any more.
fn read(path: &Path) -> Result<Option<Message>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open", path)(error)),
    };
    let mut text = Vec::new();
    file.take(MESSAGE_MAX_BYTES).read_to_end(&mut text).map_err(io("read", path))?;
    let message: Option<Message> = serde_json::from_slice(&text).ok();
    let is_ours = |message: &Message| {
        let name = path.file_name().and_then(|name| name.to_str());
        message.v == FORMAT_VERSION && name == Some(&file_name(message))
    };
    Ok(message.filter(is_ours))
}

fn unlink(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The messages' files in `directory`, oldest first; none if it is gone.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = list(directory)?;
    paths.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(SUFFIX) && !name.starts_with('.')
    });
    Ok(paths)
}

fn queues(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = list(root)?;
    paths.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(QUEUE_PREFIX)
    });
    Ok(paths)
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io("list", directory)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths.collect::<Result<_, _>>().map_err(io("list", directory))?;
    paths.sort();
    Ok(paths)
}

fn make_directory(path: &Path) -> Result<(), Error> {
    durable_file::make_directory(path).map_err(io("make the directory", path))
}

fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(io("sync", directory))
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
