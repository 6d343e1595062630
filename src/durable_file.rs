//! Private files that survive a crash: written whole or not at all, owned by the right user.
//!
//! Also says whether a path can be trusted: one that other users can write is not. Knows no other
//! module. What root writes gets the owner of the directory, so that the service of another user
//! still reads the file.

use rustix::{
    fs::{StatVfsMountFlags, fstat, statvfs},
    process::geteuid,
};
use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// Replaces the file at `path` with `bytes`. Durable on `Ok`; after an error the old file is still
/// there, or the new one if only the last sync failed.
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    scratch(path, bytes)?.persist(path).map_err(|error| error.error)?;
    sync_directory(parent(path))
}

/// Writes a new file at `path`. Durable on `Ok`.
///
/// # Errors
/// `AlreadyExists`, and what else the system says.
pub fn create_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    scratch(path, bytes)?.persist_noclobber(path).map_err(|error| error.error)?;
    sync_directory(parent(path))
}

/// A file beside `path` with `bytes` in it, mode 0600, on the disk.
fn scratch(path: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut new = tempfile::NamedTempFile::new_in(parent(path))?;
    inherit_owner(new.as_file(), path)?;
    new.write_all(bytes)?;
    sync_whole(new.as_file(), bytes.len())?;
    Ok(new)
}

/// Syncs `file`, which must be `len` bytes long by then: a file system that took less than it said
/// must not cost the old file.
///
/// # Errors
/// What the system says, or `WriteZero`.
pub fn sync_whole(file: &File, len: usize) -> io::Result<()> {
    file.sync_all()?;
    match file.metadata()?.len() == len as u64 {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Opens a private file to read and write; makes it, mode 0600, if it is missing. Follows no link.
///
/// # Errors
/// What the system says.
pub fn open_private(path: &Path) -> io::Result<File> {
    loop {
        match private().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        match create_private(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created,
        }
    }
}

/// Makes a private file, which must not be there yet. The mode is set as the file is made: it is
/// never wider.
///
/// # Errors
/// `AlreadyExists`, and what else the system says.
pub fn create_private(path: &Path) -> io::Result<File> {
    let file = private().create_new(true).open(path)?;
    inherit_owner(&file, path).inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(file)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    options.read(true).write(true).mode(0o600).custom_flags(no_follow);
    options
}

/// Makes the directory `path` and those missing above it, mode 0700, each durable before the next.
///
/// # Errors
/// What the system says.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    make_directory(above)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            inherit_owner(&File::open(path)?, path)?;
            sync_directory(above)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the names in `directory` durable.
///
/// # Errors
/// What the system says.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that `path` is in.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above != Path::new("") => above,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// Says whether `path` still names this very file.
///
/// # Errors
/// What the system says, except that the path is gone.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives what root has just made at `path` to the owner of the directory around it.
fn inherit_owner(made: &File, path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let above = fs::metadata(parent(path))?;
    match above.uid() == fstat(made)?.st_uid {
        true => Ok(()),
        false => fchown(made, Some(above.uid()), Some(above.gid())),
    }
}

/// A file or directory that other users can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untrusted {
    /// Which: the path that was asked for, or a directory above it.
    pub path: PathBuf,
    /// Why.
    pub why: Distrust,
}

/// Why a path is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// Others can write it; its mode.
    Writable(u32),
    /// It belongs to this user, who is neither root nor us.
    Owner(u32),
}

impl std::error::Error for Untrusted {}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.why {
            Distrust::Writable(mode) => write!(
                f,
                "{path} can be written by other users (mode {mode:04o}): `chmod go-w {path}`, or \
                 use another place"
            ),
            Distrust::Owner(uid) => write!(
                f,
                "{path} belongs to user {uid}, who is neither root nor the user of this process \
                 ({}): `chown` it, or run as that user",
                geteuid().as_raw()
            ),
        }
    }
}

/// Whose files are trusted beside our own and root's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Nobody's: what is read here runs with our rights, such as a configuration.
    None,
    /// Where we are root, those of the user whom the path itself belongs to: data of a service.
    ItsOwner,
}

/// Checks that nobody but us and root can change what is at `path`, up to the root directory, as
/// ssh does. A path that is not there yet is judged by the directories that are.
///
/// A sticky directory such as `/tmp` may be above it, and a read-only mount. Write permission of a
/// group counts, except that of root's group and that which Kubernetes gives a volume (`fsGroup`:
/// root's directory with the set-group-id bit).
///
/// # Errors
/// The path that others can change, and why; none if the system cannot tell.
pub fn check_trust(path: &Path, others: Others) -> Result<(), Untrusted> {
    let us = geteuid().as_raw();
    let Some(real) = path.ancestors().find_map(|above| fs::canonicalize(or_here(above)).ok())
    else {
        return Ok(());
    };
    let mut owners = vec![0, us];
    if others == Others::ItsOwner
        && us == 0
        && let Ok(found) = fs::metadata(&real)
    {
        owners.push(found.uid());
    }
    for (depth, part) in real.ancestors().enumerate() {
        let Ok(found) = fs::metadata(part) else { continue };
        let untrusted = |why| Err(Untrusted { path: part.to_owned(), why });
        if !owners.contains(&found.uid()) {
            return untrusted(Distrust::Owner(found.uid()));
        }
        let mode = found.mode() & 0o7777;
        let is_sticky = found.is_dir() && depth > 0 && mode & 0o1000 != 0;
        let is_volume = found.is_dir() && found.uid() == 0 && mode & 0o2000 != 0;
        let group_counts = found.gid() != 0 && !is_volume;
        let forbidden = if group_counts { 0o022 } else { 0o002 };
        if mode & forbidden != 0 && !is_sticky && !is_read_only(part) {
            return untrusted(Distrust::Writable(mode));
        }
    }
    Ok(())
}

fn or_here(path: &Path) -> &Path {
    if path == Path::new("") { Path::new(".") } else { path }
}

fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a");
        create_new(&path, b"one").expect("made");
        let again = create_new(&path, b"two").expect_err("there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("read"), b"one");
        replace(&path, b"two").expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1, "nothing is left beside");
    }

    #[test]
    fn a_private_file_is_never_opened_through_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "theirs").expect("written");
        symlink(&target, &link).expect("linked");
        open_private(&link).expect_err("a link");
        create_private(&link).expect_err("a link");
        open_private(&target).expect("a file");
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::chown(dir.path(), Some(12_345), Some(23_456)).expect("given");
        let deep = dir.path().join("a/b");
        make_directory(&deep).expect("made");
        open_private(&deep.join("c")).expect("made");
        replace(&deep.join("d"), b"").expect("made");
        for path in ["a", "a/b", "a/b/c", "a/b/d"] {
            let found = fs::metadata(dir.path().join(path)).expect("there");
            assert_eq!((found.uid(), found.gid()), (12_345, 23_456), "{path}");
        }
    }

    #[test]
    fn what_others_can_write_is_not_trusted() {
        let dir = tempfile::tempdir().expect("a directory");
        let deep = dir.path().join("a/b");
        make_directory(&deep).expect("made");
        let file = deep.join("file");
        fs::write(&file, "").expect("written");
        chmod(&file, 0o644);
        let trusted = || check_trust(&file, Others::None);
        assert_eq!(trusted(), Ok(()));
        assert_eq!(check_trust(&deep.join("to/come"), Others::None), Ok(()));
        for (name, mode) in [("a/b/file", 0o646), ("a/b", 0o707), ("a", 0o777)] {
            let path = dir.path().join(name).canonicalize().expect("there");
            let before = fs::metadata(&path).expect("there").mode();
            chmod(&path, mode);
            let why = Distrust::Writable(mode);
            assert_eq!(trusted(), Err(Untrusted { path: path.clone(), why }), "{name}");
            chmod(&path, before & 0o7777);
        }
        // Sticky: others can add files, but neither remove nor rename ours.
        chmod(&dir.path().join("a"), 0o1777);
        assert_eq!(trusted(), Ok(()));
        let itself = check_trust(&dir.path().join("a"), Others::None).expect_err("writable");
        assert_eq!(itself.why, Distrust::Writable(0o1777));
        // The way of a link is the way of its target.
        chmod(&dir.path().join("a"), 0o777);
        let link = dir.path().join("link");
        symlink(&file, &link).expect("linked");
        check_trust(&link, Others::None).expect_err("through the link");
    }

    #[test]
    fn another_users_file_is_not_trusted_except_by_root_with_data() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        std::os::unix::fs::chown(&file, Some(12_345), None).expect("given");
        let refused = check_trust(&file, Others::None).expect_err("theirs");
        assert_eq!(refused.why, Distrust::Owner(12_345));
        assert!(refused.to_string().contains("12345"), "{refused}");
        assert_eq!(check_trust(&file, Others::ItsOwner), Ok(()));
        std::os::unix::fs::chown(dir.path(), Some(23_456), None).expect("given");
        let above = check_trust(&file, Others::ItsOwner).expect_err("a third user's directory");
        assert_eq!(above.why, Distrust::Owner(23_456));
    }
}
