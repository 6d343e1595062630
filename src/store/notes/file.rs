//! Notes in the directory of the file store: `notes/<kind>/<name>`, sealed, mode 0600.
//!
//! A file's modification time is set to the moment until which the note is good, so that a sweep
//! opens nothing. Nothing is synced: after a power cut a login is begun again, and what was taken
//! and came back is refused by Amazon, whose codes work once.

use super::{Limit, Note, NoteKind, Notes};
use crate::{
    id::AccountId,
    secret::Secret,
    store::{
        BoxFuture, Error,
        lock::blocking,
        seal::{Field, KeyRing, Place},
    },
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use zeroize::Zeroizing;

/// Longer than any note: 5,000 profiles in each of three regions.
const MAX_BYTES: u64 = 8 << 20;
/// After so long nobody is still writing a note.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// Notes in a directory, shared by every process of this user.
#[derive(Debug)]
pub(in crate::store) struct FileNotes {
    directory: PathBuf,
    ring: Arc<KeyRing>,
}

/// What is on disk.
#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u64,
    account: String,
    key_id: String,
    sealed: String,
}

/// What is sealed: where it belongs, until when it is good, what it says.
#[derive(Serialize, Deserialize)]
struct Inside {
    kind: String,
    name: String,
    expires_at_ms: u64,
    text: String,
}

impl FileNotes {
    /// Notes below `directory`, which is made when the first one is.
    pub(in crate::store) fn new(directory: PathBuf, ring: Arc<KeyRing>) -> Self {
        Self { directory, ring }
    }

    fn directory(&self, kind: NoteKind) -> PathBuf {
        self.directory.join(kind.as_str())
    }

    fn path(&self, kind: NoteKind, name: &str) -> PathBuf {
        // The names of this program are hashes and aliases; nothing else may become a path.
        debug_assert!(AccountId::is_valid(name), "{name}");
        self.directory(kind).join(name)
    }
}

impl FileNotes {
    /// How many notes need which key.
    ///
    /// # Errors
    /// `Io`.
    pub(in crate::store) async fn keys_needed(&self) -> Result<BTreeMap<String, usize>, Error> {
        let mut needed = BTreeMap::new();
        for kind in NoteKind::ALL {
            let directory = self.directory(kind);
            let ids = blocking(&directory, |directory| {
                let texts = named(directory)?.into_iter().map(|(path, _)| read(&path));
                let envelopes = texts.filter_map(|text| {
                    text.transpose().map(|text| Ok(serde_json::from_slice::<Envelope>(&text?).ok()))
                });
                let envelopes: Vec<_> = envelopes.collect::<Result<_, Error>>()?;
                Ok(envelopes.into_iter().flatten().map(|envelope| envelope.key_id))
            });
            for id in ids.await? {
                *needed.entry(id).or_default() += 1;
            }
        }
        Ok(needed)
    }

    /// Seals anew what opens and is not sealed with the first key that all processes have; says how many that were. What
    /// is taken or replaced meanwhile stays taken or replaced.
    ///
    /// # Errors
    /// `Io`, `Random`.
    pub(in crate::store) async fn reseal(&self) -> Result<usize, Error> {
        let mut count = 0;
        for kind in NoteKind::ALL {
            let ring = self.ring.clone();
            count += blocking(&self.directory(kind), move |directory| {
                // A process that came meanwhile may lack the new key.
                let ring = ring.agreed();
                let mut count = 0;
                for (path, name) in named(directory)? {
                    count += usize::from(reseal(kind, &name, &path, &ring)?);
                }
                Ok(count)
            })
            .await?;
        }
        Ok(count)
    }
}

impl Notes for FileNotes {
    fn put<'a>(
        &'a self,
        kind: NoteKind,
        name: &'a str,
        note: &'a Note,
        limit: Limit,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let (ring, name, note) = (self.ring.clone(), name.to_owned(), note.clone());
            blocking(&self.path(kind, &name), move |path| {
                // With a key that every process has, whichever of them the answer comes to.
                let text = encode(kind, &name, &note, &ring.agreed())?;
                write(path, &text, note.expires_at_ms, limit)
            })
            .await
        })
    }

    fn look<'a>(
        &'a self,
        kind: NoteKind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Note>, Error>> {
        Box::pin(async move {
            let text = blocking(&self.path(kind, name), read).await?;
            Ok(text.and_then(|text| decode(kind, name, &text, &self.ring)))
        })
    }

    fn take<'a>(
        &'a self,
        kind: NoteKind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Note>, Error>> {
        Box::pin(async move {
            let path = self.path(kind, name);
            let taken = blocking(&path, |path| {
                // Whoever unlinks it has it: the system lets one succeed.
                let Some(text) = read(path)? else { return Ok(None) };
                Ok(remove(path)?.then_some(text))
            });
            Ok(taken.await?.and_then(|text| decode(kind, name, &text, &self.ring)))
        })
    }

    fn forget<'a>(&'a self, account: &'a AccountId) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            for kind in NoteKind::ALL {
                let account = account.clone();
                blocking(&self.directory(kind), move |directory| {
                    for path in files(directory)? {
                        let text = read(&path)?.unwrap_or_default();
                        let envelope = serde_json::from_slice::<Envelope>(&text);
                        if envelope.is_ok_and(|envelope| envelope.account == account.as_str()) {
                            remove(&path)?;
                        }
                    }
                    Ok(())
                })
                .await?;
            }
            Ok(())
        })
    }

    fn sweep(&self, now_ms: u64) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            for kind in NoteKind::ALL {
                blocking(&self.directory(kind), move |directory| sweep(directory, now_ms)).await?;
            }
            Ok(())
        })
    }
}

fn encode(kind: NoteKind, name: &str, note: &Note, ring: &KeyRing) -> Result<Vec<u8>, Error> {
    let inside = Inside {
        kind: kind.as_str().to_owned(),
        name: name.to_owned(),
        expires_at_ms: note.expires_at_ms,
        text: note.text.expose().to_owned(),
    };
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(2 * note.text.expose().len() + 512));
    serde_json::to_writer(&mut *plain, &inside).expect("a note is plain JSON");
    drop(Secret::new(inside.text));
    let place = Place { tenant: "", account: &note.account, field: Field::Note };
    let envelope = Envelope {
        version: 1,
        account: note.account.to_string(),
        key_id: ring.sealing_key_id().to_owned(),
        sealed: ring.seal(place, &plain)?,
    };
    Ok(serde_json::to_vec(&envelope).expect("a note is plain JSON"))
}

/// What the file says, if it is the note of that kind and name, and opens.
fn decode(kind: NoteKind, name: &str, text: &[u8], ring: &KeyRing) -> Option<Note> {
    let envelope: Envelope = serde_json::from_slice(text).ok()?;
    let account: AccountId = envelope.account.parse().ok()?;
    let place = Place { tenant: "", account: &account, field: Field::Note };
    let plain = ring.open(place, &envelope.key_id, &envelope.sealed).ok()?;
    let inside: Inside = serde_json::from_slice(&plain).ok()?;
    let text = Secret::new(inside.text);
    let belongs = inside.kind == kind.as_str() && inside.name == name;
    belongs.then_some(Note { account, expires_at_ms: inside.expires_at_ms, text })
}

fn reseal(kind: NoteKind, name: &str, path: &Path, ring: &KeyRing) -> Result<bool, Error> {
    let Some(text) = read(path)? else { return Ok(false) };
    let envelope = serde_json::from_slice::<Envelope>(&text);
    if envelope.is_ok_and(|envelope| envelope.key_id == ring.sealing_key_id()) {
        return Ok(false);
    }
    let Some(note) = decode(kind, name, &text, ring) else { return Ok(false) };
    let anew = encode(kind, name, &note, ring)?;
    let temporary = write_beside(path, &anew, note.expires_at_ms)?;
    // Both names must be there for it: a note that was taken does not come back.
    let exchange = || renameat_with(CWD, &temporary, CWD, path, RenameFlags::EXCHANGE);
    let exchanged = exchange().is_ok();
    // Nor does one that was replaced.
    let ours = exchanged && read(&temporary)?.is_none_or(|before| before == text);
    if exchanged && !ours {
        let _ = exchange();
    }
    remove(&temporary)?;
    Ok(ours)
}

fn write(path: &Path, text: &[u8], expires_at_ms: u64, limit: Limit) -> Result<(), Error> {
    let directory = path.parent().expect("a note lies in a directory");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(Error::io("make the directory", directory))?;
    if files(directory)?.len() >= limit.max {
        sweep(directory, limit.now_ms)?;
        if files(directory)?.len() >= limit.max && !path.exists() {
            return Err(Error::Full);
        }
    }
    let temporary = write_beside(path, text, expires_at_ms)?;
    fs::rename(&temporary, path).map_err(|error| {
        // If this fails, too, the next sweep clears it away.
        let _ = fs::remove_file(&temporary);
        Error::io("replace", path)(error)
    })
}

/// Writes the file that is to become `path`.
fn write_beside(path: &Path, text: &[u8], expires_at_ms: u64) -> Result<PathBuf, Error> {
    let directory = path.parent().expect("a note lies in a directory");
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::Random)?;
    // No name begins with a dot, so this is never taken for a note.
    let temporary = directory.join(format!(".{:016x}.tmp", u64::from_be_bytes(random)));
    let mut open = OpenOptions::new();
    let file = open.write(true).create_new(true).mode(0o600).open(&temporary);
    let written = file.map_err(Error::io("create", &temporary)).and_then(|mut file| {
        let until = UNIX_EPOCH.checked_add(Duration::from_millis(expires_at_ms));
        file.write_all(text)
            .and_then(|()| file.set_modified(until.unwrap_or(UNIX_EPOCH)))
            .map_err(Error::io("write", &temporary))
    });
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            // If this fails, too, the next sweep clears it away.
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(Error::io("read", path))?;
    Ok(Some(text))
}

/// Says whether it was this call that removed it.
fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

/// The files of a directory, those being written included; none if there is no such directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", directory)(error)),
    };
    entries
        .map(|entry| Ok(entry.map_err(Error::io("list", directory))?.path()))
        .collect::<Result<_, _>>()
}

/// The notes of a directory with their names; none that is being written.
fn named(directory: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    let name = |path: &PathBuf| path.file_name()?.to_str().map(str::to_owned);
    let all = files(directory)?.into_iter().filter_map(|path| Some((name(&path)?, path)));
    Ok(all
        .filter(|(name, _)| AccountId::is_valid(name) && !name.starts_with('.'))
        .map(|(name, path)| (path, name))
        .collect())
}

fn sweep(directory: &Path, now_ms: u64) -> Result<(), Error> {
    let now = UNIX_EPOCH + Duration::from_millis(now_ms);
    let is_old = |path: &PathBuf| {
        // One that is being written has the time of its making, at first.
        let hidden = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
        let grace = if hidden { ABANDONED_AFTER } else { Duration::ZERO };
        let until = fs::metadata(path).and_then(|file| file.modified());
        until.is_ok_and(|until: SystemTime| until + grace <= now)
    };
    for path in files(directory)?.iter().filter(|path| is_old(path)) {
        remove(path)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
